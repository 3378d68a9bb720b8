//! Random programs of socket calls, run natively and on pipes, with the same outcome.
//!
//! The kernel is the oracle: a program runs natively and once in each environment, and what its calls returned,
//! in which order, must be the same, but for the [rules] that docs/compatibility.md states. A program that
//! differs is made smaller as long as it does, and printed with its seed.
//!
//! `SOCKSHIM_DIFFERENTIAL_CASES=10000` runs more programs, `SOCKSHIM_DIFFERENTIAL_SEED=42` one of them, both together
//! so many from that one on.
#![allow(clippy::undocumented_unsafe_blocks, reason = "raw calls with odd arguments are the subject here")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;

mod actor;
mod call;
mod corpus;
mod driver;
mod perform;
mod processes;
mod program;
mod rules;

use std::collections::HashMap;
use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::driver::Trace;
use crate::process::Mode;
use crate::processes::End;
use crate::program::{Program, Scope};
use crate::rules::Rule;

fn main() -> ExitCode {
    actor::serve_if_asked();
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("every_rule_is_on_the_page", every_rule_is_on_the_page)];
    for &(name, ends) in ENVIRONMENTS {
        for (title, program) in corpus::programs() {
            trials.push(Trial::test(format!("corpus::{name}::{title}"), move || {
                match difference(&program, EVERYTHING, ends) {
                    None => Ok(()),
                    Some(text) => Err(text.into()),
                }
            }));
        }
    }
    for &(scope_name, scope) in SCOPES {
        let oracle = Arc::new(Oracle::default());
        for &(name, ends) in ENVIRONMENTS {
            let oracle = Arc::clone(&oracle);
            trials.push(Trial::test(format!("{scope_name}::{name}"), move || {
                let mut differences = String::new();
                for seed in seeds() {
                    if let Err(text) = same_as_natively(seed, scope, name, ends, &oracle) {
                        differences += &text;
                    }
                    if differences.len() > ENOUGH {
                        break;
                    }
                }
                if differences.is_empty() { Ok(()) } else { Err(differences.into()) }
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

const SCOPES: &[(&str, Scope)] = &[
    ("one_thread", Scope { steps: 25, threads: false, processes: false }),
    ("threads", Scope { steps: 25, threads: true, processes: false }),
    ("processes", EVERYTHING),
];
const EVERYTHING: Scope = Scope { steps: 30, threads: true, processes: true };

const NATIVE: End = End { mode: Mode::Native, knobs: &[] };
const AT_ONCE: End = End { mode: Mode::AtOnce, knobs: &[] };
const MIDSTREAM: End = End { mode: Mode::Preloaded, knobs: &[("SOCKSHIM_UPGRADE_AFTER", "200")] };
/// A ring so small that everything spills into the kernel and returns all the time.
const SMALL: End = End { mode: Mode::AtOnce, knobs: &[("SOCKSHIM_RING_MAX", "4096")] };

/// How the first and the second process run.
const ENVIRONMENTS: &[(&str, [End; 2])] = &[
    // The method itself: what the kernel does twice must be the same.
    ("kernel", [NATIVE, NATIVE]),
    ("pipe", [AT_ONCE, AT_ONCE]),
    ("midstream", [MIDSTREAM, MIDSTREAM]),
    ("small", [SMALL, SMALL]),
    ("one_end", [AT_ONCE, NATIVE]),
];

/// Programs of each kind that an ordinary run makes.
const CASES: u64 = 70;

/// Text that says enough for one day.
const ENOUGH: usize = 10_000;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let (first, cases) = (number("SOCKSHIM_DIFFERENTIAL_SEED"), number("SOCKSHIM_DIFFERENTIAL_CASES"));
    let start = first.unwrap_or(0);
    start..start + cases.unwrap_or(if first.is_some() { 1 } else { CASES })
}

/// What the kernel does with the programs of one kind, by seed.
#[derive(Debug, Default)]
struct Oracle(Mutex<HashMap<u64, Trace>>);

impl Oracle {
    fn ask(&self, seed: u64, program: &Program, scope: Scope) -> Trace {
        if let Some(trace) = self.0.lock().get(&seed) {
            return trace.clone();
        }
        let trace = natively(program, scope);
        self.0.lock().insert(seed, trace.clone());
        trace
    }
}

fn natively(program: &Program, scope: Scope) -> Trace {
    driver::run(program, [NATIVE, NATIVE], threads(scope))
}

fn threads(scope: Scope) -> i32 {
    if scope.threads { 3 } else { 1 }
}

fn same_as_natively(
    seed: u64,
    scope: Scope,
    name: &str,
    ends: [End; 2],
    oracle: &Oracle,
) -> Result<(), String> {
    let mut words = [0; 32];
    words[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &words));
    let tree = program::programs(scope).new_tree(&mut runner).expect("no program is refused");
    let expected = oracle.ask(seed, &tree.current(), scope);
    if driver::run(&tree.current(), ends, threads(scope)) == expected {
        return Ok(());
    }
    let outcome = runner.run_one(tree, |program| match difference(&program, scope, ends) {
        None => Ok(()),
        Some(text) => Err(TestCaseError::fail(text)),
    });
    match outcome {
        Ok(_) => {
            eprintln!(
                "in environment {name}, SOCKSHIM_DIFFERENTIAL_SEED={seed} differed once, and not again"
            );
            Ok(())
        }
        Err(TestError::Fail(text, program)) => {
            Err(format!("\nin environment {name}, SOCKSHIM_DIFFERENTIAL_SEED={seed}\n{program:?}\n{text}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The traces side by side, if they differ. Where the kernel itself does one thing or another, now and then, each
/// will do, and each side is asked again: a difference is one that stays.
fn difference(program: &Program, scope: Scope, ends: [End; 2]) -> Option<String> {
    let mut expected = vec![natively(program, scope)];
    let mut actual = Vec::new();
    for _ in 0..5 {
        let trace = driver::run(program, ends, threads(scope));
        if expected.contains(&trace) {
            return None;
        }
        actual.push(trace);
        expected.push(natively(program, scope));
        if actual.iter().any(|trace| expected.contains(trace)) {
            return None;
        }
    }
    let (actual, expected) = (actual.pop()?, expected.pop()?);
    let first = actual.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &expected[..first] {
        text += &format!("    {line}\n");
    }
    for line in expected.iter().skip(first).take(4) {
        text += &format!("  - {line}\n");
    }
    for line in actual.iter().skip(first).take(4) {
        text += &format!("  + {line}\n");
    }
    Some(text)
}

/// The differences that the comparison knows are those that users are told of.
fn every_rule_is_on_the_page() -> Result<(), Failed> {
    let page = include_str!("../../docs/compatibility.md");
    for (rule, name) in Rule::ALL {
        if !page.contains(name) {
            return Err(format!("docs/compatibility.md does not say {name:?} ({rule:?})").into());
        }
    }
    Ok(())
}
