//! Many scripts: played, compared, and played again with other times when they differ.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Instant;

use sockshim_tcpip::sim::Random;
use sockshim_tcpip::stack::Config;

use crate::allowed;
use crate::compare::{self, Field, Outcome};
use crate::linux::{Namespace, STALL};
use crate::ours::Silent;
use crate::script::{Record, Script};
use crate::{ours, random, shrink};

/// A difference counts when it is there each time: a timer and a step at the same moment come in either order.
const ATTEMPTS: u32 = 3;
/// More attempts for those that the player spoils.
const SPOILED: u32 = 5;
const BATCH: u64 = 4000;

/// A change of the core's configuration.
pub(crate) type Change<'a> = &'a dyn Fn(&mut Config);

#[derive(Default)]
pub(crate) struct Report {
    scripts: usize,
    segments: usize,
    again: BTreeMap<Field, usize>,
    allowed: BTreeMap<usize, usize>,
    seconds: f64,
    late: u64,
    pub(crate) differing: Vec<Differing>,
    /// All that differed, also when few of them are kept to be shown.
    counts: BTreeMap<Field, usize>,
}

pub(crate) struct Differing {
    pub(crate) script: Script,
    pub(crate) field: Field,
    pub(crate) what: String,
    pub(crate) trace: String,
}

pub(crate) fn run(kernel: &mut Namespace, seeds: Range<u64>, change: Change<'_>) -> Report {
    let begin = Instant::now();
    let mut report = Report::default();
    let mut next = seeds.start;
    while next < seeds.end {
        let to = (next + BATCH).min(seeds.end);
        let mut scripts: Vec<Script> = (next..to).map(random::script).collect();
        report.scripts += scripts.len();
        let mut differed: BTreeMap<u64, u32> = BTreeMap::new();
        for attempt in 0..ATTEMPTS + SPOILED {
            for script in &mut scripts {
                retime(script, attempt);
            }
            let records = kernel.play(&scripts);
            let mut left = Vec::new();
            for (script, record) in scripts.into_iter().zip(&records) {
                let (ours, outcome) = judge(&script, record, change);
                report.late = report.late.max(record.late);
                let Some((field, what)) = outcome.difference else {
                    report.segments += outcome.compared;
                    for entry in outcome.allowed {
                        *report.allowed.entry(entry).or_default() += 1;
                    }
                    continue;
                };
                // Times that the player has spoiled by sleeping do not count.
                let tries = differed.entry(script.seed).or_insert(0);
                *tries += u32::from(record.late <= STALL);
                if *tries < ATTEMPTS && attempt + 1 < ATTEMPTS + SPOILED {
                    *report.again.entry(field).or_default() += 1;
                    left.push(script);
                } else {
                    let trace = compare::trace(&script, record, &ours);
                    report.differing.push(Differing { script, field, what, trace });
                }
            }
            scripts = left;
        }
        next = to;
    }
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

/// Plays a script to the core as it was played to the kernel.
///
/// Of a timer that says nothing, as the reordering timer often does, nobody sees whether it ran before or behind a step
/// that comes soon after its time; but what the step then does may depend on it (`tcp_rearm_rto`). So both count.
pub(crate) fn judge(script: &Script, kernel: &Record, change: Change<'_>) -> (Record, Outcome) {
    let mut config = ours::config(script);
    change(&mut config);
    let played = |silent| {
        let ours = ours::play(script, config.clone(), kernel, silent)?;
        let outcome = compare::compare(script, kernel, &ours);
        Some((ours, outcome))
    };
    let late = played(Silent::Late).expect("no timer runs sooner");
    if late.1.difference.is_none() {
        return late;
    }
    played(Silent::Due).filter(|due| due.1.difference.is_none()).unwrap_or(late)
}

/// Other times for the same steps.
pub(crate) fn retime(script: &mut Script, attempt: u32) {
    script.attempt = attempt;
    if attempt > 0 {
        let mut random = Random::new(script.seed ^ u64::from(attempt) << 48);
        for step in &mut script.steps {
            step.after = step.after * random.between(85, 130) / 100;
        }
    }
}

impl Report {
    /// Makes the scripts that are shown shorter, unless SOCKSHIM_KERNEL_SHRINK is 0.
    pub(crate) fn shrink(&mut self, kernel: &mut Namespace, change: Change<'_>) {
        self.differing.sort_by_key(|differing| (differing.field, differing.script.steps.len()));
        let mut shown = 0;
        let mut last = None;
        self.differing.retain(|differing| {
            shown = if last == Some(differing.field) { shown + 1 } else { 1 };
            last = Some(differing.field);
            *self.counts.entry(differing.field).or_default() += 1;
            shown <= crate::number("SHOW", 3)
        });
        if crate::number("SHRINK", 1) > 0 {
            shrink::shrink(kernel, &mut self.differing, change);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for differing in &self.differing {
            writeln!(f, "{}\n{}", differing.what, differing.trace)?;
        }
        for (place, entry) in allowed::entries().enumerate() {
            let count = self.allowed.get(&place).copied().unwrap_or(0);
            writeln!(f, "allowed {count} times: {}: {}", entry.name, entry.why)?;
        }
        writeln!(
            f,
            "{} scripts, {} segments compared, {:?} played again, late by up to {} ms, {:.1} s; differ: {:?}",
            self.scripts,
            self.segments,
            self.again,
            self.late / 1000,
            self.seconds,
            self.counts
        )
    }
}
