//! redis-server and redis-benchmark.

use super::{Match, Outcome, Program, Server, Stage, free_port};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;
use std::time::Duration;

pub(super) const PROGRAM: Program = Program {
    needs: &["redis-server", "redis-benchmark"],
    user: None,
    start,
    matches: &[
        get("GET, 1 connection", Placement::TwoCores, |stage, port, count| {
            client(stage, port, count, "1", "1")
        }),
        get("GET, 1 connection, one core", Placement::OneCore, |stage, port, count| {
            client(stage, port, count, "1", "1")
        }),
        get("GET, 50 connections", Placement::TwoCores, |stage, port, count| {
            client(stage, port, count, "50", "1")
        }),
        get("GET, 50 connections, one core", Placement::OneCore, |stage, port, count| {
            client(stage, port, count, "50", "1")
        }),
        get("GET, 50 connections, pipelined 16", Placement::TwoCores, |stage, port, count| {
            client(stage, port, count, "50", "16")
        }),
    ],
};

const fn get(row: &'static str, placement: Placement, client: fn(&Stage<'_>, u16, u64) -> Command) -> Match {
    Match { row, unit: "request", measure: Measure::Rate, placement, client, count: Some(5_000), outcome }
}

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    let port = free_port()?;
    let mut command = stage.command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    stage.serve(command, port)
}

fn client(stage: &Stage<'_>, port: u16, count: u64, connections: &str, pipelined: &str) -> Command {
    let mut command = stage.command("redis-benchmark");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-t",
        "get",
        "--csv",
        "-n",
        &count.to_string(),
    ]);
    command.args(["-c", connections, "-P", pipelined]);
    command
}

fn outcome(output: &str, _: Duration, count: u64) -> Option<Outcome> {
    let line = output.lines().find(|line| line.starts_with("\"GET\""))?;
    Some(Outcome::of_rate(line.split('"').nth(3)?.parse().ok()?, count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_report_is_understood() {
        const REPORT: &str = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"12500.00\",\"0.055\"\n";
        let said = outcome(REPORT, Duration::ZERO, 5_000).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (80_000.0, 5_000.0));
        assert!(outcome("", Duration::ZERO, 1).is_none());
    }
}
