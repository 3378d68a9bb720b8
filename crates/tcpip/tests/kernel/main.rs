//! Plays random scripts to the kernel and to the core, and compares what they do.

mod allowed;
mod compare;
mod linux;
mod ours;
mod random;
mod runner;
mod script;
mod shrink;

use std::io::Write as _;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_thousand_random_scripts_agree_with_the_kernel() {
    let count = number("KERNEL_SCRIPTS", 1000);
    let seed = number("KERNEL_SEED", 1);
    let Some(mut kernel) = linux() else { return };
    let mut report = runner::run(&mut kernel, seed..seed + count, &|_| {});
    report.shrink(&mut kernel, &|_| {});
    let _ = writeln!(std::io::stderr(), "{report}");
    assert!(report.differing.is_empty(), "{} scripts differ", report.differing.len());
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
