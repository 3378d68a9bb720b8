//! nginx with one process, and wrk.

use super::{Match, Outcome, Program, Server, Stage, free_port, number_behind};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;
use std::time::Duration;

pub(super) const PROGRAM: Program = Program {
    needs: &["nginx", "wrk"],
    user: None,
    start,
    matches: &[
        row("small answer, 1 connection", |stage, port, _| client(stage, port, "1", "/", &[])),
        row("small answer, 16 connections", |stage, port, _| client(stage, port, "16", "/", &[])),
        row("64 KB file, 16 connections", |stage, port, _| client(stage, port, "16", "/file", &[])),
        row("a connection for each request", |stage, port, _| {
            client(stage, port, "4", "/", &["-H", "Connection: close"])
        }),
    ],
};

const fn row(row: &'static str, client: fn(&Stage<'_>, u16, u64) -> Command) -> Match {
    Match {
        row,
        unit: "request",
        measure: Measure::Rate,
        placement: Placement::TwoCores,
        client,
        count: None,
        outcome,
    }
}

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    let port = free_port()?;
    std::fs::write(stage.folder.join("file"), vec![b'x'; 65536])?;
    let configuration = stage.folder.join("nginx.conf");
    let folder = stage.folder.display().to_string();
    std::fs::write(
        &configuration,
        CONFIGURATION.replace("FOLDER", &folder).replace("PORT", &port.to_string()),
    )?;
    let mut command = stage.command("nginx");
    command.arg("-e").arg(stage.folder.join("errors")).arg("-c").arg(&configuration);
    stage.serve(command, port)
}

fn client(stage: &Stage<'_>, port: u16, connections: &str, path: &str, more: &[&str]) -> Command {
    let mut command = stage.command("wrk");
    command.args(["-t1", "-d1s", "-c", connections]).args(more).arg(format!("http://127.0.0.1:{port}{path}"));
    command
}

fn outcome(output: &str, _: Duration, _: u64) -> Option<Outcome> {
    if output.contains("Non-2xx") {
        return None;
    }
    let (before, _) = output.split_once(" requests in ")?;
    let operations = before.split_whitespace().last()?.parse().ok()?;
    Some(Outcome::of_rate(number_behind(output, "Requests/sec:")?, operations))
}

/// In one process, so that nobody is left when it is killed.
const CONFIGURATION: &str = "
daemon off;
master_process off;
pid FOLDER/pid;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server {
        listen 127.0.0.1:PORT;
        root FOLDER;
        location = / { return 200 \"hello\\n\"; }
    }
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_report_is_understood() {
        const REPORT: &str =
            "  8192 requests in 1.00s, 1.25MB read\nRequests/sec:   8000.00\nTransfer/sec:      1.22MB\n";
        let said = outcome(REPORT, Duration::ZERO, 1).unwrap();
        assert_eq!((said.ns_per_operation, said.operations), (125_000.0, 8_192.0));
        assert!(outcome("", Duration::ZERO, 1).is_none());
    }
}
