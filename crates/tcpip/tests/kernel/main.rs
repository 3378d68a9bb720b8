//! Plays random scripts to the kernel and to the core, and compares what they do (docs/tcpip.md).

mod allowed;
mod compare;
mod conditions;
mod linux;
mod ours;
mod random;
mod runner;
mod script;
mod shrink;

use std::io::Write as _;

use runner::Report;
use script::{Record, Script};

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let name = format!("SOCKSHIM_KERNEL_{name}");
    std::env::var(&name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_thousand_random_scripts_agree_with_the_kernel() {
    let (count, seed) = (number("SCRIPTS", 1000), number("SEED", 1));
    let Some(mut kernel) = linux() else { return };
    let mut report = runner::run(&mut kernel, seed..seed + count, &|_| {});
    let differing = report.differing.len();
    report.shrink(&mut kernel, &|_| {});
    tell(&report);
    assert_eq!(differing, 0, "of {count} scripts so many differ: see above");
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_planted_fault_is_found_and_shown_in_a_few_steps() {
    let Some(mut kernel) = linux() else { return };
    // A first window of four segments, where Linux has ten.
    let plant = |config: &mut sockshim_tcpip::stack::Config| config.tcp.initial_window = 4;
    let mut report = runner::run(&mut kernel, 1..101, &plant);
    assert!(report.differing.len() >= 10, "{} of 100 scripts found it", report.differing.len());
    report.shrink(&mut kernel, &plant);
    let shortest = report.differing.iter().map(|differing| differing.script.steps.len()).min();
    // The handshake, and something to send.
    assert!(shortest.is_some_and(|steps| steps <= 4), "the shortest has {shortest:?} steps");
}

#[test]
fn a_seed_always_means_the_same_script() {
    for seed in 0..200 {
        assert_eq!(random::script(seed), random::script(seed));
    }
    assert_ne!(random::script(1).steps, random::script(2).steps);
}

/// What the core does with a script, as if it were the kernel.
fn played(script: &Script) -> Record {
    let mut record = Record::default();
    let mut at = 0;
    for step in &script.steps {
        at += step.after;
        record.times.push(at);
    }
    record.end = at + 450_000;
    ours::play(script, ours::config(script), &record, ours::Silent::Late).expect("no timer runs sooner")
}

#[test]
fn the_core_agrees_with_itself() {
    for seed in 0..200 {
        let script = random::script(seed);
        let (_, outcome) = runner::judge(&script, &played(&script), &|_| {});
        assert!(outcome.difference.is_none(), "{seed}: {:?}", outcome.difference);
    }
}

#[test]
fn the_core_with_a_fault_does_not_agree_with_itself() {
    let faults: [(&str, runner::Change<'_>); 6] = [
        ("initial window", &|config| config.tcp.initial_window = 4),
        ("no SACK", &|config| config.tcp.sack = false),
        ("no D-SACK", &|config| config.tcp.dsack = false),
        ("no tail loss probes", &|config| config.tcp.tail_loss_probe = false),
        ("no F-RTO", &|config| config.tcp.frto = false),
        ("a long time-out", &|config| config.tcp.min_rto *= 2),
    ];
    for (name, change) in faults {
        let found = (0..200)
            .map(random::script)
            .any(|script| runner::judge(&script, &played(&script), change).1.difference.is_some());
        assert!(found, "{name} is not found");
    }
}

fn tell(report: &Report) {
    let _ = writeln!(std::io::stderr(), "{report}");
}

fn linux() -> Option<linux::Namespace> {
    match linux::Namespace::enter() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            let what = format!("no network namespace with a TUN device can be made: {error}");
            assert!(
                std::env::var_os("SOCKSHIM_TEST_REQUIRE").is_none_or(|value| value != "1"),
                "{what}, and SOCKSHIM_TEST_REQUIRE=1 asks for it"
            );
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what}");
            None
        }
    }
}
