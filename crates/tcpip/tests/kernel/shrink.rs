//! Makes scripts that differ shorter, as long as they differ in the same way.

use crate::compare;
use crate::linux::Namespace;
use crate::runner::{Change, Differing, judge, retime};
use crate::script::Script;

/// How often a shorter script must differ before it is believed.
const TIMES: u32 = 2;

/// Replaces each by the shortest that was found.
pub(crate) fn shrink(kernel: &mut Namespace, differing: &mut [Differing], change: Change<'_>) {
    let mut open: Vec<usize> = (0..differing.len()).collect();
    while !open.is_empty() {
        let mut owners = Vec::new();
        let mut candidates = Vec::new();
        for &place in &open {
            for candidate in shorter(&differing[place].script) {
                owners.push(place);
                candidates.push(candidate);
            }
        }
        let mut alive = vec![true; candidates.len()];
        let mut last = Vec::new();
        for attempt in 0..TIMES {
            for candidate in &mut candidates {
                retime(candidate, attempt);
            }
            last = kernel.play(&candidates);
            for (place, candidate) in candidates.iter().enumerate() {
                let (_, outcome) = judge(candidate, &last[place], change);
                alive[place] &=
                    outcome.difference.is_some_and(|(field, _)| field == differing[owners[place]].field);
            }
        }
        open.retain(|&place| {
            let best = (0..candidates.len())
                .filter(|&candidate| owners[candidate] == place && alive[candidate])
                .min_by_key(|&candidate| candidates[candidate].steps.len());
            let Some(best) = best else { return false };
            let script = candidates[best].clone();
            let (ours, outcome) = judge(&script, &last[best], change);
            let found = &mut differing[place];
            found.trace = compare::trace(&script, &last[best], &ours);
            found.what = outcome.difference.map_or_else(String::new, |(_, what)| what);
            found.script = script;
            true
        });
    }
}

/// The script without some steps in a row; the others stay at their times.
fn shorter(script: &Script) -> Vec<Script> {
    let count = script.steps.len();
    let mut all = Vec::new();
    let mut len = count / 2;
    while len > 0 {
        for from in (0..count).step_by(len) {
            all.push(without(script, from, (from + len).min(count)));
        }
        len /= 2;
    }
    all
}

pub(crate) fn without(script: &Script, from: usize, to: usize) -> Script {
    let mut script = script.clone();
    let after: u64 = script.steps[from..to].iter().map(|step| step.after).sum();
    if let Some(next) = script.steps.get_mut(to) {
        next.after += after;
    }
    script.left_out.extend(script.steps.drain(from..to).map(|step| step.number));
    script.left_out.sort_unstable();
    script
}
