//! Programs that measure networks: sockperf and iperf3, each with its own server.

use super::{Match, Outcome, Program, Server, Stage, free_port, number_behind};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::time::Duration;

pub(super) const SOCKPERF: Program = Program {
    needs: &["sockperf"],
    user: None,
    start: |stage| {
        let port = free_port()?;
        let mut command = stage.command("sockperf");
        command.args(["server", "--tcp", "-i", "127.0.0.1", "-p", &port.to_string()]);
        stage.serve(command, port)
    },
    matches: &[Match {
        row: "64 B there and back",
        unit: "round trip",
        measure: Measure::Time,
        placement: Placement::TwoCores,
        client: |stage, port, _| {
            let mut command = stage.command("sockperf");
            command.args(["ping-pong", "--tcp", "-i", "127.0.0.1", "-m", "64", "-t", "1"]);
            // Its tables end at 600,000 round trips a second, and it aborts beyond; this only spaces those that are faster.
            command.args(["--mps=500000", "-p", &port.to_string()]);
            command
        },
        count: None,
        outcome: round_trip,
    }],
};

/// The tool prints half of a round trip.
fn round_trip(output: &str, _: Duration, _: u64) -> Option<Outcome> {
    let us = number_behind(output, "Summary: Latency is")?;
    let operations = number_behind(output, "ReceivedMessages=")?;
    Some(Outcome { ns_per_operation: 2.0 * us * 1e3, operations })
}

pub(super) const IPERF3: Program = Program {
    needs: &["iperf3"],
    user: None,
    start: serve_iperf3,
    matches: &[Match {
        row: "one stream",
        unit: "MB",
        measure: Measure::Throughput(1_000_000),
        placement: Placement::TwoCores,
        client: |stage, port, _| {
            let mut command = stage.command("iperf3");
            command.args(["-c", "127.0.0.1", "-t", "1", "-f", "m", "-p", &port.to_string()]);
            command
        },
        count: None,
        outcome: megabytes,
    }],
};

fn serve_iperf3(stage: &Stage<'_>) -> Result<Server, Trouble> {
    let port = free_port()?;
    let mut command = stage.command("iperf3");
    command.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]);
    stage.serve(command, port)
}

/// From the receiver's line: `[  5]   0.00-1.00   sec  2.86 GBytes  24567 Mbits/sec    receiver`.
fn megabytes(output: &str, _: Duration, _: u64) -> Option<Outcome> {
    let line = output.lines().find(|line| line.ends_with("receiver"))?;
    let (before, _) = line.split_once(" Mbits/sec")?;
    let per_second = before.split_whitespace().last()?.parse::<f64>().ok()? / 8.0;
    Some(Outcome::of_rate(per_second, per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_reports_are_understood() {
        let sockperf = "[Total Run] RunTime=1.000 sec; SentMessages=57130; ReceivedMessages=57129\n\
                        sockperf: Summary: Latency is 8.500 usec\n";
        let said = round_trip(sockperf, Duration::ZERO, 1).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (17_000.0, 57_129.0));

        let iperf3 = "[  5]   0.00-1.00   sec  3.00 GBytes  25000 Mbits/sec    1             sender\n\
                      [  5]   0.00-1.00   sec  2.98 GBytes  24000 Mbits/sec                  receiver\n";
        let said = megabytes(iperf3, Duration::ZERO, 1).unwrap();
        assert!((said.ns_per_operation - 1e9 / 3000.0).abs() < 1.0, "{}", said.ns_per_operation);
        assert!(megabytes("", Duration::ZERO, 1).is_none() && round_trip("", Duration::ZERO, 1).is_none());
    }
}
