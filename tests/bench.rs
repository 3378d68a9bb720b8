//! `sockshim bench`: what it answers, and that nothing outlives it. How fast anything is, is no matter here.

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{libsockshim, sockshim};
use serde_json::Value;

#[test]
fn an_answer_compares_libc_with_sockshim_and_the_raw_ring() {
    let rows = answers(&["pingpong"]);
    let row = rows.iter().find(|row| row["row"] == "64 B").unwrap();
    assert_eq!((&row["group"], &row["quick"]), (&"pingpong".into(), &true.into()));
    let names: Vec<_> = entrants(row).iter().map(|entrant| entrant["name"].as_str().unwrap()).collect();
    let cores = thread::available_parallelism().unwrap().get();
    assert_eq!(
        names,
        if cores > 1 { &["libc", "sockshim", "raw ring"][..] } else { &["libc", "sockshim"][..] }
    );
    assert_eq!(entrants(row)[0]["on_pipe"], false);
    assert_eq!(entrants(row)[1]["on_pipe"], true);
    for entrant in entrants(row) {
        let number = |name: &str| entrant[name].as_f64().unwrap();
        assert!(entrant["figure"]["median"].as_f64().unwrap() > 0.0, "{entrant}");
        assert!(number("user_ns") >= 0.0 && number("system_ns") >= 0.0, "{entrant}");
        assert!(number("user_ns") + number("system_ns") > 0.0, "{entrant}");
    }
    assert_eq!(entrants(row)[0]["to_libc"]["median"], 1.0);
    assert_eq!(row["probes"].is_null(), cores < 2);
}

#[test]
#[ignore = "slow: make test-slow"]
fn every_group_has_answers() {
    for group in ["messages", "stream", "duplex", "connect", "connections", "poll", "threads", "asleep"] {
        assert!(!answers(&[group]).is_empty(), "{group}");
    }
    for group in ["contended", "paced", "passthrough", "memory", "host", "free"] {
        assert!(!answers(&[group]).is_empty(), "{group}");
    }
}

#[test]
fn each_table_compares_libc_with_itself_too() {
    let rows = answers(&["poll"]);
    let controls: Vec<_> = rows.iter().filter(|row| entrants(row)[1]["name"] == "control").collect();
    assert_eq!(controls.len(), 1);
    assert_eq!(entrants(controls[0]).len(), 2);
    assert_eq!(entrants(controls[0])[1]["on_pipe"], false);
    for row in &rows {
        let congestion = row["congestion"].as_str().unwrap();
        assert!(["cubic (", "reno ("].iter().any(|name| congestion.starts_with(name)), "{congestion}");
        assert!(entrants(row)[1]["worst"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn strangers_compute_beside_the_pairs_and_end_with_the_row() {
    let rows = answers(&["contended"]);
    let row = rows.iter().find(|row| row["row"] == "one pair, 4 strangers").unwrap();
    let names: Vec<_> = entrants(row).iter().map(|entrant| entrant["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["libc", "sockshim", "safe", "latency", "throughput"]);
    assert!(entrants(row)[1..].iter().all(|entrant| entrant["on_pipe"] == true), "{row}");
}

/// Pages and page tables repeat, so this figure is a promise.
#[test]
fn an_idle_connection_takes_at_most_16_kb() {
    let rows = answers(&["memory"]);
    let sockshim = &entrants(&rows[0])[1];
    assert_eq!(sockshim["on_pipe"], true);
    let more = sockshim["over_libc"]["median"].as_f64().unwrap();
    assert!(more > 0.0 && more <= 16.0 * 1024.0, "{sockshim}");
}

#[test]
fn the_table_has_a_line_per_row() {
    let output = bench(&["--quick", "asleep"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("libc (user+system)") && lines[0].contains("raw ring"), "{text}");
    assert!(lines[1].starts_with("asleep: "), "{text}");
    assert!(lines[2].starts_with("  on two cores ") && lines[3].starts_with("  both on one core "), "{text}");
    assert!(lines[4].starts_with("  control: on two cores "), "{text}");
    assert_eq!(lines.len(), 5, "{text}");
}

#[test]
fn an_unknown_question_is_told_what_there_is() {
    let output = bench(&["pingpog"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("\"pingpog\"") && stderr(&output).contains("pingpong"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_library_that_does_not_exist_is_125() {
    let output = bench(&["--library", "/no/such.so", "pingpong"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stderr(&output), "sockshim: /no/such.so: there is no such file\n");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut command = bench(&["--quick"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let workers = wait_for_workers(&child);
        // SAFETY: no pointers; a child that has not been waited for.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(signal));
        assert_eq!(stderr(&output), "");
        for worker in workers {
            assert!(!PathBuf::from(format!("/proc/{worker}")).exists(), "worker {worker} is still there");
        }
        assert_eq!(left_behind(pid), Vec::<PathBuf>::new());
    }
}

#[test]
fn the_end_of_a_run_leaves_nothing_behind() {
    let child = bench(&["--quick", "asleep"]).stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(left_behind(pid), Vec::<PathBuf>::new());
}

/// The rows of a quick run.
fn answers(questions: &[&str]) -> Vec<Value> {
    let output = bench(&["--quick", "--json"]).args(questions).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let Value::Array(rows) = serde_json::from_slice(&output.stdout).unwrap() else { panic!("no array") };
    rows
}

fn entrants(row: &Value) -> &Vec<Value> {
    row["entrants"].as_array().unwrap()
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(sockshim());
    command.arg("bench").args(arguments).env_remove("LD_PRELOAD").env_remove("SOCKSHIM_TEST_REQUIRE");
    if !arguments.contains(&"--library") {
        command.arg("--library").arg(libsockshim());
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Until two of its children are there.
fn wait_for_workers(child: &Child) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let list = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        let workers: Vec<u32> = list.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        if workers.len() >= 2 {
            return workers;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no workers");
        thread::sleep(Duration::from_millis(1));
    }
}

fn left_behind(pid: u32) -> Vec<PathBuf> {
    let folders = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let entries = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let mark = format!("sockshim-bench-{pid}");
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&mark)).collect()
}
