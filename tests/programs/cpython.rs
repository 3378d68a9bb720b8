//! CPython's own tests, a module of them at a time: each case that passes with libc alone passes on sockshim.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::{Mode, Scratch, missing, program};

/// A test for each module. What takes more than a few seconds, four times over, is for the second stage.
macro_rules! modules {
    (fast: $($fast:ident)*; slow: $($slow:ident)*) => {
        $(#[test] fn $fast() { compare(stringify!($fast), &WAYS); })*
        // At once is where it is most on pipes.
        $(#[test] #[ignore = "slow: make test-slow"] fn $slow() { compare(stringify!($slow), &WAYS[2..]); })*
    };
}

modules! {
    fast:
    test_asynchat
    test_asyncore
    test_docxmlrpc
    test_epoll
    test_fcntl
    test_file_eintr
    test_ftplib
    test_httplib
    test_httpservers
    test_nntplib
    test_poplib
    test_pty
    test_select
    test_smtpd
    test_smtplib
    test_socketserver
    test_telnetlib
    test_urllib2_localnet
    test_wsgiref;

    slow:
    test_concurrent_futures
    test_eintr
    test_faulthandler
    test_fileio
    test_fork1
    test_imaplib
    test_io
    test_logging
    test_mailbox
    test_multiprocessing_fork
    test_multiprocessing_forkserver
    test_multiprocessing_main_handling
    test_multiprocessing_spawn
    test_os
    test_poll
    test_posix
    test_selectors
    test_signal
    test_socket
    test_ssl
    test_subprocess
    test_threadsignals
    test_timeout
    test_xmlrpc
}

/// Those of asyncio's modules that use sockets; the others take a quarter of an hour.
#[test]
#[ignore = "slow: make test-slow"]
fn test_asyncio() {
    for part in ["buffered_proto", "events", "selector_events", "sendfile", "server", "sock_lowlevel", "ssl"]
    {
        compare(&format!("test_asyncio.test_{part}"), &WAYS[1..]);
    }
    for part in ["base_events", "sslproto", "streams", "subprocess", "unix_events"] {
        compare(&format!("test_asyncio.test_{part}"), &WAYS[2..]);
    }
}

type Variables<'a> = &'a [(&'a str, &'a str)];

/// On sockshim, how: its name, the mode, and variables.
type Way = (&'static str, Mode, Variables<'static>);

const WAYS: [Way; 3] = [
    ("as users get it", Mode::Preloaded, &[]),
    ("in mid-stream", Mode::Preloaded, &[("SOCKSHIM_UPGRADE_AFTER", "100")]),
    ("at once", Mode::AtOnce, &[]),
];

/// Or the other tests here would compare the kernel with itself.
#[test]
fn their_connections_are_on_pipes() {
    let Some(python) = python() else { return };
    // With the defaults such short connections stay with the kernel.
    for (way, mode, variables) in &WAYS[1..] {
        let events = Scratch::new();
        let log = events.path().join("events");
        let variables = [*variables, &[("SOCKSHIM_TRACE", log.to_str().unwrap())]].concat();
        run(python, *mode, &variables, &["test.test_ftplib"]);
        let log = fs::read_to_string(&log).unwrap();
        let ended = log.lines().filter(|line| line.starts_with("disconnect "));
        let (on_pipes, others): (Vec<_>, Vec<_>) = ended.partition(|line| line.contains(" pipe "));
        println!("{way}: {} connections on pipes, {} others", on_pipes.len(), others.len());
        assert!(on_pipes.len() > 10, "{way}");
    }
}

/// How often a case that differs must pass with libc alone before it counts: some fail there now and then.
const REPEATS: usize = 5;

fn compare(module: &str, ways: &[Way]) {
    let Some(python) = python() else { return };
    let module = format!("test.{module}");
    let native = run(python, Mode::Native, &[], &[&module]).outcomes;
    assert!(!native.is_empty(), "{module} has no cases");
    for (way, mode, variables) in ways {
        let shimmed = run(python, *mode, variables, &[&module]);
        let mut differences = Vec::new();
        for case in native.keys().chain(shimmed.outcomes.keys().filter(|case| !native.contains_key(*case))) {
            let [expected, found] =
                [&native, &shimmed.outcomes].map(|outcomes| outcomes.get(case).map_or("not run", |how| how));
            if found != expected && !is_bad(expected) {
                differences.push((case.as_str(), format!("{case}: {expected} with libc, {found} {way}")));
            }
        }
        differences.retain(|(case, difference)| {
            let stands = is_steady(python, case);
            println!("{}{difference}", if stands { "" } else { "fails with libc now and then: " });
            stands
        });
        assert!(differences.is_empty(), "{module}: {differences:#?}\n{}", shimmed.stderr);
    }
}

fn is_bad(outcome: &str) -> bool {
    matches!(outcome, "failed" | "passed unexpectedly")
}

/// Whether a case always passes with libc alone.
fn is_steady(python: &Path, case: &str) -> bool {
    // A class's set-up cannot be run by its name: then nothing is found.
    let fails = |run: Run| run.outcomes.get(case).is_some_and(|how| is_bad(how));
    (0..REPEATS).all(|_| !fails(run(python, Mode::Native, &[], &[case])))
}

struct Run {
    /// By case.
    outcomes: BTreeMap<String, String>,
    stderr: String,
}

fn run(python: &Path, mode: Mode, variables: Variables, names: &[&str]) -> Run {
    let scratch = Scratch::new();
    let results = scratch.path().join("results");
    let prefix = own_network();
    let mut command = scratch.command(mode, prefix.first().map_or(python, |program| Path::new(program)));
    if !prefix.is_empty() {
        command.args(&prefix[1..]).arg(python);
    }
    command.args(["-c", include_str!("cpython.py")]).arg(&results).args(names);
    command.envs(variables.iter().copied());
    let mut program = scratch.start(&mut command);
    let lines = || fs::read_to_string(&results).unwrap_or_default();
    let mut known = 0;
    while !lines().ends_with("end\n") {
        // A module may take minutes, one case may not.
        known =
            program.until("says how the next case went", |_| Some(lines().len()).filter(|now| *now != known));
    }
    let _ = program.wait();
    let outcomes = lines()
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(outcome, case)| (case.to_owned(), outcome.to_owned()))
        .collect();
    Run { outcomes, stderr: program.stderr() }
}

/// What starts a program in a network of its own, where that is allowed: tests look for a free port and use it
/// later, when another one may have taken it.
fn own_network() -> &'static [&'static str] {
    const PREFIX: &[&str] =
        &["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "in a network of its own"];
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let allowed = || {
        let mut command = Command::new(PREFIX[0]);
        command.args(&PREFIX[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if *ALLOWED.get_or_init(allowed) { PREFIX } else { &[] }
}

/// The interpreter whose tests are installed.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let has_tests = |python: PathBuf| {
        let output = Command::new(python)
            .args(["-c", "import test.test_socket, sys; print(sys.executable)"])
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().into())
    };
    // The distribution's own first: what comes before it in PATH may be another version.
    let find = || has_tests("/usr/bin/python3.11".into()).or_else(|| has_tests(program("python3.11")?));
    let found = PYTHON.get_or_init(find).as_deref();
    if found.is_none() {
        missing("CPython's tests (libpython3.11-testsuite) are not installed");
    }
    found
}
