//! Compares what two stacks did.

use std::fmt::{self, Write as _};

use sockshim_tcpip::wire::tcp::Flags;

use crate::allowed::{self, Verdict};
use crate::script::{Inner, Record, Said, Script, What};

/// Linux's clock ticks each 4 ms, and its timers are late by up to an eighth (`timer.c`: the wheel's levels).
pub(crate) const EARLY: u64 = 7_000;
const LATE: u64 = 14_000;
/// The most by which the wheel makes a timer later that is set for less than two seconds.
const WHEEL: u64 = 45_000;
/// What leaves so near to the end may be behind it with the other.
const EDGE: u64 = 70_000;

/// In what two stacks differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Field {
    /// One says nothing more.
    OnlyKernel,
    OnlyOurs,
    Flags,
    Push,
    Numbers,
    Len,
    Window,
    SynOptions,
    Stamps,
    Sack,
    Marks,
    Broken,
    Time,
    Call,
    State,
    Scoreboard,
    Congestion,
}

/// The first difference that nothing explains, or one that is explained.
#[derive(Debug, Clone)]
pub(crate) struct Difference<'a> {
    pub(crate) field: Field,
    pub(crate) script: &'a Script,
    pub(crate) kernel: &'a Record,
    pub(crate) ours: &'a Record,
    /// Which segment, or which call.
    pub(crate) place: usize,
}

impl<'a> Difference<'a> {
    pub(crate) fn kernel(&self) -> Option<&'a Said> {
        self.kernel.said.get(self.place)
    }

    pub(crate) fn ours(&self) -> Option<&'a Said> {
        self.ours.said.get(self.place)
    }
}

/// What a comparison gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// What nothing explains.
    pub(crate) difference: Option<(Field, String)>,
    /// Entries of the table that were used.
    pub(crate) allowed: Vec<usize>,
    /// Segments that were compared.
    pub(crate) compared: usize,
}

pub(crate) fn compare(script: &Script, kernel: &Record, ours: &Record) -> Outcome {
    let mut outcome = Outcome::default();
    let difference = |field, place| Difference { field, script, kernel, ours, place };
    let (k, o) = (&kernel.said, &ours.said);
    for place in 0..k.len().max(o.len()) {
        let fields: Vec<Field> = match (k.get(place), o.get(place)) {
            (Some(k), Some(o)) => segment(k, o),
            (Some(k), None) if k.at + EDGE < kernel.end => vec![Field::OnlyKernel],
            (None, Some(o)) if o.at + EDGE < kernel.end => vec![Field::OnlyOurs],
            _ => return outcome,
        };
        outcome.compared += 1;
        for field in fields {
            match allowed::verdict(&difference(field, place)) {
                Verdict::Unexplained => {
                    outcome.difference = Some((field, describe(field, k.get(place), o.get(place))));
                    return outcome;
                }
                Verdict::Allowed { entry, ends } => {
                    outcome.allowed.push(entry);
                    if ends {
                        return outcome;
                    }
                }
            }
        }
    }
    let calls = kernel.calls.iter().zip(&ours.calls).position(|(k, o)| k != o);
    if let Some(place) = calls {
        match allowed::verdict(&difference(Field::Call, place)) {
            Verdict::Unexplained => {
                let text = format!("Call: kernel {:?}, ours {:?}", kernel.calls[place], ours.calls[place]);
                outcome.difference = Some((Field::Call, text));
                return outcome;
            }
            Verdict::Allowed { entry, .. } => outcome.allowed.push(entry),
        }
    }
    // At a moment at which a timer may just have run or not, the insides may differ.
    let quiet =
        [kernel, ours].iter().all(|record| record.said.iter().all(|said| said.at + EDGE < kernel.end));
    // In SYN-SENT and SYN-RECEIVED Linux counts the SYN among the segments in flight, and of a connection that is over it
    // tells what was last.
    let open = |info: &Inner| !matches!(info.state, 2 | 3 | 7);
    if let (Some(k), Some(o), true) = (&kernel.info, &ours.info, quiet) {
        if k.state == o.state && !open(k) {
            return outcome;
        }
        let fields = [
            (k.state != o.state, Field::State),
            (
                (k.unacked, k.sacked, k.lost, k.retrans) != (o.unacked, o.sacked, o.lost, o.retrans),
                Field::Scoreboard,
            ),
            (
                (k.ca_state, k.cwnd, k.ssthresh, k.reordering)
                    != (o.ca_state, o.cwnd, o.ssthresh, o.reordering),
                Field::Congestion,
            ),
        ];
        for (_, field) in fields.into_iter().filter(|&(differs, _)| differs) {
            match allowed::verdict(&difference(field, 0)) {
                Verdict::Unexplained => {
                    outcome.difference = Some((field, format!("{field}: kernel {k:?}, ours {o:?}")));
                    return outcome;
                }
                Verdict::Allowed { entry, .. } => outcome.allowed.push(entry),
            }
        }
    } else if kernel.info.is_some() != ours.info.is_some() {
        outcome.difference =
            Some((Field::State, format!("State: kernel {:?}, ours {:?}", kernel.info, ours.info)));
    }
    outcome
}

/// In what two segments differ.
fn segment(k: &Said, o: &Said) -> Vec<Field> {
    let push = |said: &Said| said.flags.contains(Flags::PSH);
    let stamps = match (k.stamps, o.stamps) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let later = (k.at as i64 - o.at as i64) / 1000;
            // A packet may have been read a while after it was stamped.
            a.1 == b.1 && (-20..=3).contains(&(i64::from(a.0) - i64::from(b.0) - later))
        }
        _ => false,
    };
    let syn = k.flags.contains(Flags::SYN);
    let window = if syn { k.window == o.window } else { (k.window == 0) == (o.window == 0) };
    [
        (k.flags.without(Flags::PSH) == o.flags.without(Flags::PSH), Field::Flags),
        ((k.seq, k.ack) == (o.seq, o.ack), Field::Numbers),
        (k.len == o.len, Field::Len),
        (push(k) == push(o), Field::Push),
        ((k.mss, k.scale, k.sack_permitted) == (o.mss, o.scale, o.sack_permitted), Field::SynOptions),
        (k.sack == o.sack, Field::Sack),
        (stamps, Field::Stamps),
        (k.ecn == o.ecn, Field::Marks),
        (window, Field::Window),
        (k.intact && o.intact, Field::Broken),
        (in_time(k, o), Field::Time),
    ]
    .into_iter()
    .filter(|&(same, _)| !same)
    .map(|(_, field)| field)
    .collect()
}

/// Whether a timer of the kernel that is due then may run as late as that.
pub(crate) fn may_be_timer(due: u64, at: u64) -> bool {
    (due.saturating_sub(EARLY)..=due + LATE + (due / 8).min(WHEEL)).contains(&at)
}

/// Whether two segments left at the same time. Our timers are as late as the kernel's (`ours::play`), so they are the same
/// unless a timer is wrong.
fn in_time(k: &Said, o: &Said) -> bool {
    may_be_timer(o.at, k.at)
}

fn describe(field: Field, kernel: Option<&Said>, ours: Option<&Said>) -> String {
    let text = |said: Option<&Said>| said.map_or("nothing".into(), Said::to_string);
    format!("{field:?}: kernel {}, ours {}", text(kernel), text(ours))
}

/// The script with what both did, for people.
pub(crate) fn trace(script: &Script, kernel: &Record, ours: &Record) -> String {
    let mut text = script.to_string();
    let mut lines: Vec<(u64, usize, String)> = Vec::new();
    let name = |step: usize| step.checked_sub(1).and_then(|step| script.steps.get(step));
    let mut last = (None, None);
    for (place, &at) in kernel.times.iter().enumerate() {
        let (k, o) = (kernel.before.get(place).copied().flatten(), ours.before.get(place).copied().flatten());
        if last != (k, o) {
            let same = if k == o {
                String::from(", ours the same")
            } else {
                o.map_or_else(String::new, |o| format!(", ours {o}"))
            };
            let text = k.map_or_else(String::new, |k| format!("         {k}{same}"));
            lines.push((at, 3 * place + 2, text));
            last = (k, o);
        }
        lines.push((at, 3 * place + 3, format!("       {}", script.steps[place])));
    }
    for (record, who) in [(kernel, "kernel "), (ours, "  ours ")] {
        for said in &record.said {
            lines.push((said.at, 3 * said.step + 1, format!("{who}{said}")));
        }
        for &(step, result) in &record.calls {
            if name(step).is_some_and(|step| !matches!(step.what, What::Arrives(_))) {
                lines.push((kernel.times[step - 1], 3 * step + 1, format!("{who}= {result}")));
            }
        }
    }
    lines.sort_by_key(|&(at, place, _)| (at, place));
    for (at, _, line) in lines {
        let _ = writeln!(text, "{:>9.3} {line}", at as f64 / 1000.0);
    }
    let _ = writeln!(text, "          kernel {:?}\n            ours {:?}", kernel.info, ours.info);
    text
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
