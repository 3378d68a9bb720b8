//! What the entries of the table of allowed differences ask of a difference.

use sockshim_tcpip::wire::tcp::Flags;

use crate::compare::{Difference, Field};
use crate::script::{Inner, Record, Said, Segment, What};

/// Linux's clock, in microseconds.
const TICK: u64 = 4_000;
/// Linux's TCP_MAX_QUICKACKS.
const QUICK: usize = 16;
/// Of a smaller segment Linux does not think that a larger window would be of use (`tcp_event_data_recv`).
const GROWS: u16 = 128;

/// The blocks without that of a duplicate (RFC 2883 section 4).
pub(crate) fn without_duplicate(said: &Said) -> &[(i32, i32)] {
    match said.sack[..] {
        [first, ..] if first.0 < said.ack => &said.sack[1..],
        [first, second, ..] if first.0 >= second.0 && first.1 <= second.1 => &said.sack[1..],
        _ => &said.sack,
    }
}

/// Whether the blocks are the same but for a duplicate, which may leave no room for the last one.
pub(crate) fn same_blocks(kernel: &Said, ours: &Said) -> bool {
    let (kernel, ours) = (without_duplicate(kernel), without_duplicate(ours));
    kernel.iter().zip(ours).all(|(a, b)| a == b)
        && (kernel.len() == ours.len() || kernel.len().min(ours.len()) >= 2)
}

impl Difference<'_> {
    /// A segment was sent again and then found not to be lost, or reported about in between, and sent again once more.
    pub(crate) fn has_stray_copy(&self) -> bool {
        let steps = self.steps();
        let infos = self.kernel.before[..steps].iter().chain(&self.ours.before[..steps]);
        let counted = infos.flatten().any(|inner| inner.retrans > inner.lost);
        let said = &self.ours.said[..(self.place + 1).min(self.ours.said.len())];
        let thrice = said.iter().any(|first| {
            let copies: Vec<&Said> =
                said.iter().filter(|said| said.len > 0 && said.seq == first.seq).collect();
            copies.windows(2).skip(1).any(|pair| {
                self.script.steps[pair[0].step..pair[1].step].iter().any(|step| match &step.what {
                    What::Arrives(segment) => segment.blocks > 0,
                    _ => false,
                })
            })
        });
        counted || thrice
    }

    /// A timer has sent a segment again, and since the report that followed Linux's window is larger by one.
    pub(crate) fn follows_reordering_timer(&self) -> bool {
        let at = |said: &Said| {
            said.step.checked_sub(1).and_then(|step| self.kernel.times.get(step)).copied().unwrap_or(0)
        };
        let again = self.kernel.said.iter().enumerate().find(|&(place, said)| {
            let before = &self.kernel.said[..place];
            said.len > 0 && before.iter().any(|other| other.end() > said.seq) && said.at > at(said) + 1500
        });
        // Or a report makes it send one more at once, while the other one waits for the next report, or its timer.
        let in_recovery = |step: usize| {
            let (kernel, ours) = (self.kernel.before.get(step), self.ours.before.get(step));
            match (kernel.copied().flatten(), ours.copied().flatten()) {
                (Some(kernel), Some(ours)) => (kernel.ca_state, ours.ca_state) == (3, 3),
                _ => false,
            }
        };
        let one_more = |said: &Said| {
            let before = &self.kernel.said[..self.place];
            let new = before.iter().all(|other| other.seq != said.seq);
            let alone = self.ours().is_none_or(|ours| ours.at > said.at + 500);
            let report = said.step.checked_sub(1).filter(|&step| in_recovery(step));
            let arrival = report.is_some_and(|step| matches!(self.script.steps[step].what, What::Arrives(_)));
            said.len > 0 && arrival && (new || alone)
        };
        if self.breaks_order()
            && again.is_some_and(|(place, _)| place < self.place)
            && self.kernel().is_some_and(one_more)
        {
            return true;
        }
        let end = (self.steps() + 1).min(self.ours.before.len());
        let steps = self.kernel.before[..end].iter().zip(&self.ours.before[..end]);
        let steps = steps.skip(again.map_or(end, |(_, said)| said.step));
        steps.chain(again.map(|_| (&self.kernel.info, &self.ours.info))).any(|pair| {
            let (Some(kernel), Some(ours)) = pair else { return false };
            (kernel.ca_state, ours.ca_state) == (3, 3) && kernel.cwnd == ours.cwnd + 1
        })
    }

    /// The same segment is sent again by both: by one at once, and by the other one when the reordering timer is due.
    pub(crate) fn waits_for_reordering_timer(&self) -> bool {
        let later = |first: &Record, second: &Record| {
            let Some(said) = first.said.get(self.place) else { return false };
            let again = first.said[..self.place].iter().any(|other| other.len > 0 && other.seq == said.seq);
            let mut rest = second.said.iter().skip(self.place);
            again
                && said.len > 0
                && rest.any(|other| {
                    (other.seq, other.len) == (said.seq, said.len)
                        && (said.at + 500..said.at + 20_000).contains(&other.at)
                })
        };
        later(self.kernel, self.ours) || later(self.ours, self.kernel)
    }

    /// The kernel sends again at once what it had sent in one go with a segment that is reported now, and before that one;
    /// ours sends it again a moment later.
    pub(crate) fn reports_one_go(&self) -> bool {
        let Some(kernel) = self.kernel().filter(|kernel| kernel.len > 0) else { return false };
        let reported = |said: &Said| match kernel.step.checked_sub(1).map(|step| self.script.steps[step].what)
        {
            Some(What::Arrives(segment)) => segment.sack[..segment.blocks]
                .iter()
                .any(|&(from, to)| said.len > 0 && from <= said.seq && said.end() <= to),
            _ => false,
        };
        let before = &self.kernel.said[..self.place];
        let Some(copy) = before.iter().rposition(|said| said.len > 0 && said.seq == kernel.seq) else {
            return false;
        };
        let mut behind = before[copy + 1..].iter();
        behind.any(|said| said.step == before[copy].step && reported(said))
            && self.ours.said.iter().skip(self.place).any(|said| {
                (said.seq, said.len) == (kernel.seq, kernel.len)
                    && (kernel.at..kernel.at + 20_000).contains(&said.at)
            })
    }

    /// The other end acknowledges a part of what it has reported before.
    pub(crate) fn acknowledges_within_report(&self) -> bool {
        let all: Vec<&Segment> = self.segments().collect();
        all.iter().enumerate().any(|(place, later)| {
            let blocks = all[..place].iter().flat_map(|former| &former.sack[..former.blocks]);
            blocks.into_iter().any(|&(from, to)| from < later.ack && later.ack < to)
        })
    }

    /// One has halved its window after a pause, and the other one has not.
    pub(crate) fn restarts_once(&self) -> bool {
        let pairs: Vec<_> = self.kernel.before.iter().zip(&self.ours.before).collect();
        let last = [(&self.kernel.info, &self.ours.info)];
        let all: Vec<_> = pairs.into_iter().chain(last).collect();
        let differs = |&(kernel, ours): &(&Option<Inner>, &Option<Inner>)| match (kernel, ours) {
            (Some(kernel), Some(ours)) => kernel.cwnd != ours.cwnd,
            _ => false,
        };
        let Some(first) = all.iter().position(differs).filter(|&first| first > 0) else { return false };
        let (Some(kernel), Some(ours)) = (all[first].0, all[first].1) else { return false };
        let (more, less) = (kernel.cwnd.max(ours.cwnd), kernel.cwnd.min(ours.cwnd));
        let begin = self.kernel.times.get(first - 1).copied().unwrap_or(0);
        let silent = self.kernel.said.iter().filter(|said| said.len > 0 && said.step < first);
        let pause = begin.saturating_sub(silent.map(|said| said.at).max().unwrap_or(0));
        let rto = self.kernel.measured.get(first - 1).map_or(0, |measured| measured.rto).max(1);
        // It is halved once for each time-out. The player may have read what was sent last a moment later.
        let from_multiple = (pause % rto).min(rto - pause % rto);
        let send = self.script.steps.get(first - 1).is_some_and(|step| matches!(step.what, What::Send(_)));
        // Linux asks for each of its buffers, ours when nothing waits.
        let written = self.kernel.calls.iter().filter(|&&(step, result)| {
            result > 0 && step < first && matches!(self.script.steps[step - 1].what, What::Send(_))
        });
        let written: i64 = written.map(|&(_, result)| result).sum();
        let sent = self.kernel.said.iter().filter(|said| said.len > 0 && said.step < first).map(Said::end);
        let waits = written >= i64::from(sent.max().unwrap_or(1)) && kernel.cwnd < ours.cwnd;
        send && less == (more / 2).max(more.min(10))
            && (kernel.ca_state, ours.ca_state) == (0, 0)
            && kernel.ssthresh == ours.ssthresh
            && pause + TICK >= rto
            && (from_multiple <= TICK + 1000 || waits)
            && self.steps() >= first
    }

    /// Both grow their windows beyond `ssthresh` by what one acknowledgement has taken from what was in flight, and not by
    /// as much: at most by one segment for two (`bictcp_update`).
    pub(crate) fn grows_otherwise(&self) -> bool {
        let end = (self.steps() + 1).min(self.ours.before.len());
        let mut samples: Vec<_> = self.kernel.before[..end].iter().zip(&self.ours.before[..end]).collect();
        if self.is_inside() || self.steps() == self.script.steps.len() {
            samples.push((&self.kernel.info, &self.ours.info));
        }
        let windows = |inner: &Inner| (inner.cwnd, inner.ssthresh);
        let differs = |&(kernel, ours): &(&Option<Inner>, &Option<Inner>)| match (kernel, ours) {
            (Some(kernel), Some(ours)) => windows(kernel) != windows(ours),
            _ => false,
        };
        // The step whose acknowledgement it was; that of the difference, if nobody has looked since.
        let first = samples.iter().position(differs);
        let step = first.unwrap_or(self.steps());
        let (Some(last), Some(segment)) = (step.checked_sub(1), self.arrival(step)) else { return false };
        let Some(&(Some(kernel), Some(ours))) = samples.get(last) else { return false };
        let sent = |step: usize| {
            self.kernel.said.iter().filter(|said| said.step < step).map(Said::end).max().unwrap_or(1)
        };
        // What acknowledges more than was sent does not count.
        let acks =
            (1..=last).filter_map(|step| Some(self.arrival(step)?.ack).filter(|&ack| ack <= sent(step)));
        let una = acks.max().unwrap_or(1);
        let mut ends: Vec<i32> = self.kernel.said.iter().filter(|said| said.len > 0).map(Said::end).collect();
        ends.retain(|end| (una + 1..=segment.ack).contains(end));
        ends.sort_unstable();
        ends.dedup();
        let count = ends.len() as u32;
        let apart = (count / 2).max(1);
        let begins = kernel == ours && count > 0 && kernel.cwnd + count > kernel.ssthresh;
        let grown = first.is_none_or(|first| match samples[first] {
            // Or reduced since, to seven tenths.
            (Some(kernel), Some(ours)) => {
                kernel.cwnd.abs_diff(ours.cwnd) <= apart
                    && (kernel.ssthresh == ours.ssthresh
                        || kernel.ssthresh.abs_diff(ours.ssthresh) <= (apart * 7).div_ceil(10))
            }
            _ => false,
        });
        begins && grown
    }

    /// A segment has bytes of one that came before.
    pub(crate) fn overlaps(&self) -> bool {
        let all: Vec<&Segment> = self.segments().filter(|segment| segment.len > 0).collect();
        let end = |segment: &Segment| segment.seq + i32::from(segment.len);
        all.iter().enumerate().any(|(place, later)| {
            all[..place].iter().any(|former| later.seq < end(former) && former.seq < end(later))
        })
    }

    /// One stack sends another segment than the other one, or none.
    pub(crate) fn breaks_order(&self) -> bool {
        matches!(self.field, Field::OnlyKernel | Field::OnlyOurs | Field::Flags | Field::Numbers | Field::Len)
    }

    /// What is sent agrees, and what is thought of it does not.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.field, Field::Scoreboard | Field::Congestion)
    }

    /// The steps before the difference.
    pub(crate) fn steps(&self) -> usize {
        if self.is_inside() || matches!(self.field, Field::Call | Field::State) {
            return self.script.steps.len();
        }
        let said = [self.kernel(), self.ours()].into_iter().flatten().map(|said| said.step);
        said.max().unwrap_or(self.script.steps.len())
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.script.steps[..self.steps()].iter().filter_map(|step| match &step.what {
            What::Arrives(segment) => Some(segment),
            _ => None,
        })
    }

    /// A number from before what is acknowledged.
    pub(crate) fn is_probe(&self, said: &Said) -> bool {
        self.windows(said.step).map(|(ack, _)| ack).max().is_some_and(|una| said.seq < una)
    }

    /// All that was written when it left for the first time ended with the byte before that number.
    pub(crate) fn ends_write(&self, end: i32) -> bool {
        let step = self.kernel.said.iter().find(|said| said.len > 0 && said.end() == end);
        let step = step.map_or(usize::MAX, |said| said.step);
        let written = self.kernel.calls.iter().filter(|&&(place, result)| {
            let write = place.checked_sub(1).map(|place| self.script.steps[place].what);
            result > 0 && place <= step && matches!(write, Some(What::Send(_)))
        });
        1 + written.map(|&(_, result)| result).sum::<i64>() == i64::from(end)
    }

    /// A write is longer than half of the largest window that was offered by then, in whole segments.
    pub(crate) fn writes_more_than_half(&self) -> bool {
        self.script.steps[..self.steps()].iter().enumerate().any(|(place, step)| {
            let largest = self.windows(place).map(|(_, window)| window).max().unwrap_or(0);
            matches!(step.what, What::Send(len) if len as i64 > largest / 2 - 1460)
        })
    }

    /// By how much the other end's windows are shifted.
    pub(crate) fn shift(&self) -> u8 {
        // Of the handshake that was answered last the first one: what is answered after it may be a copy with other options.
        let steps = self.steps();
        let answers = self.kernel.said.iter().filter(|said| said.flags.contains(Flags::SYN));
        let mut answers = answers.filter(|said| said.step <= steps);
        let irs =
            if self.script.setup.connects { None } else { answers.next_back().map(|said| said.ack - 1) };
        let mut syns = self.segments().filter(|segment| segment.flags.contains(Flags::SYN));
        let syn = syns.find(|segment| irs.is_none_or(|irs| segment.seq == irs));
        syn.and_then(|syn| syn.scale).unwrap_or(0)
    }

    /// Both ends have shifts.
    pub(crate) fn has_scale(&self) -> bool {
        self.segments().any(|segment| segment.flags.contains(Flags::SYN) && segment.scale.is_some())
    }

    pub(crate) fn windows(&self, steps: usize) -> impl Iterator<Item = (i32, i64)> {
        let shift = self.shift();
        let segments = self.script.steps[..steps].iter().filter_map(|step| match &step.what {
            What::Arrives(segment) => Some(segment),
            _ => None,
        });
        segments.filter(|segment| segment.flags.intersects(Flags::ACK | Flags::SYN)).map(move |segment| {
            let syn = segment.flags.contains(Flags::SYN);
            (segment.ack, i64::from(segment.window) << if syn { 0 } else { shift })
        })
    }

    /// The segment of the other end that came last before that step.
    fn arrival(&self, step: usize) -> Option<&Segment> {
        match &self.script.steps.get(step.checked_sub(1)?)?.what {
            What::Arrives(segment) => Some(segment),
            _ => None,
        }
    }

    /// By how much more than a segment of the other end's has arrived since the acknowledgement before this one, which
    /// says that one is due (`__tcp_ack_snd_check`).
    fn acknowledges_two(&self, record: &Record, place: usize) -> bool {
        let Some(said) = record.said.get(place) else { return false };
        let before = record.said[..place].last().map_or(1, |before| before.ack);
        // The segment itself may have changed what is thought of their size.
        let mss = |step: usize| self.kernel.measured.get(step).map_or(u32::MAX, |measured| measured.rcv_mss);
        let mss = mss(said.step.saturating_sub(1)).min(mss(said.step));
        i64::from(said.ack) - i64::from(before) > i64::from(mss)
    }

    /// Ours acknowledges small segments at once where Linux does so later. It shows with the next one, at the latest.
    pub(crate) fn is_early_acknowledgement(&self) -> bool {
        let early = |place: usize| {
            let ours = &self.ours.said[place];
            let data = match ours.step.checked_sub(1).map(|step| self.script.steps[step].what) {
                Some(What::Arrives(segment)) => segment.len + u16::from(segment.flags.contains(Flags::FIN)),
                _ => 0,
            };
            // A large one is held back only by a window that hardly moves.
            let mut windows = self.kernel.said.windows(2);
            let mut narrows = || {
                windows
                    .any(|pair| pair[1].ack >= ours.ack && pair[1].window <= pair[0].window.saturating_add(1))
            };
            let small = (1..1200).contains(&data) || (data >= 1200 && narrows());
            let answered = self
                .kernel
                .said
                .iter()
                .any(|said| said.step == ours.step && said.ack == ours.ack && said.at < ours.at + 2000);
            ours.flags.without(Flags::ECE) == Flags::ACK
                && ours.len == 0
                && small
                && !answered
                && self.acknowledges_two(self.ours, place)
        };
        let end = (self.place + 1).min(self.ours.said.len());
        (self.place.saturating_sub(3).min(end)..end).any(early)
            && (self.breaks_order() || matches!(self.field, Field::Time | Field::Stamps | Field::Sack))
    }

    /// Linux acknowledges data at once, and ours later, when its timer is due or more has come.
    fn is_acknowledged_sooner(&self) -> bool {
        let (Some(kernel), Some(ours)) = (self.kernel(), self.ours()) else { return false };
        let data = self.arrival(kernel.step).is_some_and(|segment| segment.len > 0);
        let arrived = kernel.step.checked_sub(1).and_then(|step| self.kernel.times.get(step)).copied();
        let before = self.kernel.said[..self.place].last();
        data && kernel.len == 0
            && kernel.flags.without(Flags::ECE) == Flags::ACK
            && arrived.is_some_and(|arrived| kernel.at < arrived + 2000)
            && before.is_some_and(|before| before.ack < kernel.ack)
            && ours.ack >= kernel.ack
            && ours.at > kernel.at
    }

    /// It does, of two segments, with a window that does not become smaller.
    pub(crate) fn is_late_acknowledgement(&self) -> bool {
        let (Some(kernel), Some(before)) = (self.kernel(), self.kernel.said[..self.place].last()) else {
            return false;
        };
        self.is_acknowledged_sooner()
            && before.window <= kernel.window
            && self.acknowledges_two(self.kernel, self.place)
    }

    /// Linux has made its window larger, for segments that take little memory, in an acknowledgement that is one of the
    /// last before this place. `first`: before anything was acknowledged.
    fn has_grown(&self, last: usize, first: bool) -> bool {
        let from = self.place.saturating_sub(last);
        let end = (self.place + 1).min(self.kernel.said.len());
        let begin = self.kernel.said.iter().find(|said| said.ack > 0 && !said.flags.contains(Flags::SYN));
        let begin = begin.map_or(1, |said| said.ack);
        let shift =
            self.kernel.said.iter().find_map(|said| said.scale).filter(|_| self.has_scale()).unwrap_or(0);
        let window =
            |said: &Said| if said.flags.contains(Flags::SYN) { said.window >> shift } else { said.window };
        self.kernel.said[from.min(end)..end].windows(2).any(|pair| {
            let large = self.arrival(pair[1].step).is_some_and(|segment| segment.len >= GROWS);
            window(&pair[0]) < window(&pair[1]) && large && (!first || pair[1].ack == begin)
        })
    }

    /// With that Linux has one acknowledgement more that is not to be delayed.
    pub(crate) fn acknowledges_growth(&self) -> bool {
        self.is_acknowledged_sooner() && self.has_grown(QUICK, false)
    }

    /// When that was the last one it does not begin anew with those when the first data arrives in order, as ours does
    /// (`tcp_dec_quickack_mode` sets the delay, `tcp_event_data_recv` looks for one).
    pub(crate) fn begins_after_growth(&self) -> bool {
        let at_once = |ours: &Said| {
            let data = self.arrival(ours.step).is_some_and(|segment| segment.len > 0);
            let mut said = self.kernel.said.iter();
            let answered =
                said.any(|said| said.step == ours.step && said.ack == ours.ack && said.at < ours.at + 2000);
            data && ours.len == 0 && ours.flags.without(Flags::ECE) == Flags::ACK && !answered
        };
        // It shows with the next ones, at the latest.
        let end = (self.place + 1).min(self.ours.said.len());
        let shown = &self.ours.said[self.place.saturating_sub(3).min(end)..end];
        (self.breaks_order() || matches!(self.field, Field::Time | Field::Stamps | Field::Sack))
            && shown.iter().any(at_once)
            && self.has_grown(2 * QUICK, true)
    }

    /// A segment of the other end reaches beyond the window that one of the stacks has offered.
    pub(crate) fn reaches_beyond_a_window(&self) -> bool {
        let steps = self.script.steps[..self.steps()].iter().enumerate();
        let mut arrivals = steps.filter_map(|(step, it)| match it.what {
            What::Arrives(segment) if segment.len > 0 => Some((step, segment.seq + i32::from(segment.len))),
            _ => None,
        });
        arrivals.any(|(step, end)| {
            // Linux's window may have grown by what it answers with.
            let beyond = |record: &Record, step: usize| {
                let syn = record.said.iter().find(|said| said.flags.contains(Flags::SYN));
                let scaled = syn.and_then(|said| said.scale).filter(|_| self.has_scale());
                let edge = record
                    .said
                    .iter()
                    .filter(|said| said.step <= step && said.flags.contains(Flags::ACK))
                    .map(|said| {
                        let shift = if said.flags.contains(Flags::SYN) { 0 } else { scaled.unwrap_or(0) };
                        // A window of Linux's may be larger than what the header has room for.
                        let window = if said.window == u16::MAX { 1 << 18 } else { i64::from(said.window) };
                        i64::from(said.ack) + (window << shift)
                    });
                edge.max().is_some_and(|edge| i64::from(end) > edge)
            };
            beyond(self.kernel, step) != beyond(self.ours, step)
                || beyond(self.kernel, step + 1) != beyond(self.ours, step)
        })
    }

    /// A segment has acknowledged less than one before it.
    pub(crate) fn has_old_acknowledgement(&self) -> bool {
        let mut most = i32::MIN;
        self.segments().filter(|segment| segment.flags.contains(Flags::ACK)).any(|segment| {
            let old = segment.ack < most;
            most = most.max(segment.ack);
            old
        })
    }

    /// The other end has acknowledged, or reported, a part of a segment.
    pub(crate) fn acknowledges_within(&self) -> bool {
        let within = |number: i32| {
            let mut said = self.kernel.said.iter();
            said.any(|said| said.len > 0 && said.seq < number && number < said.end())
        };
        self.segments().any(|segment| {
            let blocks = &segment.sack[..segment.blocks];
            within(segment.ack) || blocks.iter().any(|&(from, to)| within(from) || within(to))
        })
    }

    pub(crate) fn has_data_behind_fin(&self) -> bool {
        let fins = self.segments().filter(|segment| segment.flags.contains(Flags::FIN));
        fins.map(|fin| fin.seq + i32::from(fin.len)).any(|end| {
            self.segments().any(|segment| {
                let behind = segment.seq + i32::from(segment.len);
                (segment.len > 0 && behind > end) || (segment.flags.contains(Flags::FIN) && behind != end)
            })
        })
    }
}
