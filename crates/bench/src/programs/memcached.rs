//! memcached and memcslap of libmemcached.

use super::{Match, Outcome, Program, Server, Stage, free_port, number_behind};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;
use std::time::Duration;

pub(super) const PROGRAM: Program = Program {
    needs: &["memcached", "memcslap"],
    user: None,
    start,
    matches: &[Match {
        row: "get, 1 connection",
        unit: "request",
        measure: Measure::Rate,
        placement: Placement::TwoCores,
        client,
        count: Some(5_000),
        outcome,
    }],
};

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    let port = free_port()?;
    let mut command = stage.command("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "0",
        "-t",
        "1",
        "-m",
        "512",
        "-u",
        "root",
    ]);
    stage.serve(command, port)
}

fn client(stage: &Stage<'_>, port: u16, count: u64) -> Command {
    let mut command = stage.command("memcslap");
    command.arg(format!("--servers=127.0.0.1:{port}")).args(["--concurrency=1", "--test=get"]);
    command.arg(format!("--execute-number={count}"));
    command
}

/// The client stores as many keys as it then reads: both are operations, and the second is timed.
fn outcome(output: &str, _: Duration, count: u64) -> Option<Outcome> {
    let line = output.lines().find(|line| line.starts_with("Time to get"))?;
    let seconds = number_behind(line, "threads:")?;
    Some(Outcome { ns_per_operation: seconds * 1e9 / count as f64, operations: 2.0 * count as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_report_is_understood() {
        const REPORT: &str = "Time to set            5000 keys:                     0.154 seconds.\nTime to get            5000 keys by    1 threads:     0.125 seconds.\n";
        let said = outcome(REPORT, Duration::ZERO, 5_000).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (25_000.0, 10_000.0));
        assert!(outcome("", Duration::ZERO, 1).is_none());
    }
}
