//! PostgreSQL and pgbench.

use super::{Match, Outcome, Program, Server, Stage, finish, free_port, number_behind};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;
use std::time::Duration;

pub(super) const PROGRAM: Program = Program {
    needs: &["initdb", "postgres", "pgbench"],
    user: Some("postgres"),
    start,
    matches: &[Match {
        row: "pgbench -S, 1 client",
        unit: "transaction",
        measure: Measure::Rate,
        placement: Placement::TwoCores,
        client,
        count: None,
        outcome,
    }],
};

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    let mut make = stage.helper("initdb");
    make.args(["-D", "data", "-A", "trust", "-U", "postgres", "--no-sync"]);
    finish(make)?;
    let port = free_port()?;
    let mut command = stage.command("postgres");
    command.args(["-D", "data", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    command.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
    let server = stage.serve(command, port)?;
    let fill = || {
        let mut fill = stage.helper("pgbench");
        fill.args(["-i", "-q", "-s", "1"]).args(at(port));
        finish(fill)
    };
    // It accepts connections before it answers questions.
    for _ in 0..50 {
        if fill().is_ok() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    fill()?;
    Ok(server)
}

fn client(stage: &Stage<'_>, port: u16, _: u64) -> Command {
    let mut command = stage.command("pgbench");
    command.args(["-S", "-n", "-T", "1", "-c", "1"]).args(at(port));
    command
}

fn at(port: u16) -> [String; 7] {
    let port = port.to_string();
    ["-h", "127.0.0.1", "-U", "postgres", "-p", &port, "postgres"].map(str::to_owned)
}

fn outcome(output: &str, _: Duration, _: u64) -> Option<Outcome> {
    let operations = number_behind(output, "actually processed:")?;
    Some(Outcome::of_rate(number_behind(output, "tps =")?, operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_report_is_understood() {
        const REPORT: &str = "number of transactions actually processed: 4000\ninitial connection time = 3.2 ms\ntps = 4000.000000 (without initial connection time)\n";
        let said = outcome(REPORT, Duration::ZERO, 1).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (250_000.0, 4_000.0));
        assert!(outcome("", Duration::ZERO, 1).is_none());
    }
}
