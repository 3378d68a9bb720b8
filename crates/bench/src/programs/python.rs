//! Python's http.server, and curl.

use super::{Match, Outcome, Program, Server, Stage, big_file, free_port};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;
use std::time::Duration;

pub(super) const PROGRAM: Program = Program {
    needs: &["python3", "curl"],
    user: None,
    start,
    matches: &[Match {
        row: "http.server, 100 MB",
        unit: "file",
        measure: Measure::Throughput(100_000_000),
        placement: Placement::TwoCores,
        client,
        count: None,
        outcome,
    }],
};

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    big_file(stage)?;
    let port = free_port()?;
    let mut command = stage.command("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
    stage.serve(command, port)
}

fn client(stage: &Stage<'_>, port: u16, _: u64) -> Command {
    let mut command = stage.command("curl");
    command.args(["-s", "-S", "-f", "-o", "/dev/null", "-w", "%{size_download} %{time_total}"]);
    command.arg(format!("http://127.0.0.1:{port}/big"));
    command
}

fn outcome(output: &str, _: Duration, _: u64) -> Option<Outcome> {
    let (size, seconds) = output.split_once(' ')?;
    (size == "100000000").then_some(())?;
    Some(Outcome { ns_per_operation: seconds.parse::<f64>().ok()? * 1e9, operations: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_report_is_understood() {
        const REPORT: &str = "100000000 0.250000";
        let said = outcome(REPORT, Duration::ZERO, 1).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (250_000_000.0, 1.0));
        assert!(outcome("", Duration::ZERO, 1).is_none());
    }
}
