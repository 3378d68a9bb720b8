//! The hot calls take as many instructions as tests/budget.txt says: a slow-down is seen in review, a gain is recorded.
//!
//! valgrind counts what the release build executes, in libsockshim.so and for it in the dynamic linker (thread-local
//! variables); what the C library does is not counted, since it differs by processor. The counts repeat
//! exactly, or nearly so for calls that look at the clock. `SOCKSHIM_BLESS=1 cargo test --test budget` records them.

mod common;
#[path = "common/process.rs"]
mod process;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use process::{Mode, Scratch, program};

#[test]
fn hot_calls_stay_within_their_budget() {
    let Some(valgrind) = program("valgrind") else { return };
    let scratch = Scratch::new();
    let caller = compile(&scratch);
    let library = common::release_build();
    let counts: Vec<_> =
        CALLS.iter().map(|call| (call.name, count(&scratch, &valgrind, &caller, &library, call))).collect();

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/budget.txt");
    if std::env::var_os("SOCKSHIM_BLESS").is_some() {
        fs::write(&file, record(&counts)).unwrap();
    }
    let budget = fs::read_to_string(&file).unwrap_or_default();
    let complaints: String =
        counts.iter().filter_map(|&(name, count)| complaint(&budget, name, count)).collect();
    assert!(
        complaints.is_empty(),
        "instructions per call:\n{complaints}\
         When that is meant to be so, record it: SOCKSHIM_BLESS=1 cargo test --test budget"
    );
}

#[test]
fn more_than_the_budget_and_much_less_are_complaints() {
    let budget = record(&[("write", 100.0)]);
    assert_eq!(complaint(&budget, "write", 100.4), None);
    assert_eq!(complaint(&budget, "write", 97.0), None);
    assert!(complaint(&budget, "write", 103.0).unwrap().contains("more than the budget of 100"));
    assert!(complaint(&budget, "write", 90.0).unwrap().contains("the budget of 100 is too generous"));
    assert!(complaint(&budget, "read", 1.0).unwrap().contains("no budget"));
}

#[test]
fn only_the_library_and_the_linker_are_counted() {
    let profile = "events: Ir\nob=/lib/libsockshim.so\nfl=a\nfn=f\n10 100\n+2 5\ncfn=g\ncalls=1 7\n12 1000\n* 1\n\
                   ob=/lib/libc.so.6\nfn=memcpy\n5 70\nob=/lib64/ld-linux-x86-64.so.2\nfn=tls\n9 20\n-1 2\n";
    assert_eq!(instructions(profile), 100 + 5 + 1 + 20 + 2);
}

/// One kind of call, as tests/budget.c knows it.
struct Call {
    name: &'static str,
    letter: &'static str,
}

const CALLS: [Call; 8] = [
    Call { name: "write 64 B", letter: "w" },
    Call { name: "read 64 B", letter: "r" },
    Call { name: "write and read 64 B in turn", letter: "t" },
    Call { name: "epoll_wait, one ready", letter: "e" },
    Call { name: "write, not ours", letter: "W" },
    Call { name: "read, not ours", letter: "R" },
    Call { name: "epoll_wait, nothing of ours", letter: "E" },
    Call { name: "poll, not ours", letter: "P" },
];

/// Of 16 calls each.
const ROUNDS: u64 = 128;

/// A count may be so much above its budget: what looks at the clock does not repeat exactly.
const SLACK: f64 = 1.02;
/// A count that is so much below its budget is worth recording.
const GAIN: f64 = 0.95;

fn complaint(budget: &str, name: &str, count: f64) -> Option<String> {
    let line = budget.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let Some(allowed) = line.and_then(|number| number.trim().parse::<f64>().ok()) else {
        return Some(format!("  {name}: {count:.0}, and there is no budget for it\n"));
    };
    if count > (allowed * SLACK).max(allowed + 0.5) {
        Some(format!("  {name}: {count:.0}, more than the budget of {allowed}\n"))
    } else if count < (allowed * GAIN).min(allowed - 0.5) {
        Some(format!("  {name}: {count:.0}, the budget of {allowed} is too generous\n"))
    } else {
        None
    }
}

fn record(counts: &[(&str, f64)]) -> String {
    let mut text =
        String::from("# Instructions per call of the release build; tests/budget.rs says what is counted.\n");
    for (name, count) in counts {
        let _ = writeln!(text, "{name}: {count:.0}");
    }
    text
}

fn compile(scratch: &Scratch) -> PathBuf {
    let caller = scratch.path().join("budget");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/budget.c");
    let arguments = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o"];
    let status = Command::new("cc").args(arguments).arg(&caller).status().expect("a C compiler");
    assert!(status.success());
    caller
}

fn count(scratch: &Scratch, valgrind: &Path, caller: &Path, library: &Path, call: &Call) -> f64 {
    let profile = scratch.path().join("profile");
    let mut command = scratch.command(Mode::AtOnce, valgrind);
    command.env("LD_PRELOAD", library);
    command.args(["--quiet", "--tool=callgrind", "--toggle-collect=measured"]);
    command.args(["--compress-strings=no", "--compress-pos=no"]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(caller).args([call.letter, &ROUNDS.to_string()]);
    let said = scratch.output(&mut command);
    assert_eq!(said, "path 1\n", "{}: not on a pipe", call.name);
    instructions(&fs::read_to_string(&profile).unwrap()) as f64 / (16 * ROUNDS) as f64
}

/// What the library and the dynamic linker executed themselves; the format is valgrind's (callgrind.out).
fn instructions(profile: &str) -> u64 {
    let (mut counted, mut inclusive, mut sum) = (false, false, 0);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            counted = ["/libsockshim.so", "/ld-linux"].iter().any(|name| object.contains(name));
        } else if line.starts_with("calls=") {
            // The next line is the cost of what is called, which is told there too.
            inclusive = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if counted && !inclusive {
                sum += cost.unwrap_or(0);
            }
            inclusive = false;
        }
    }
    sum
}
