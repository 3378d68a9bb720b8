//! OpenJDK: servers with threads and with a selector, and the JDK's own HTTP server and client.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::compatibility;
use crate::process::{Ends, Mode, Program, Scratch, program};

#[test]
#[ignore = "slow: make test-slow"]
fn a_server_with_threads_echoes() {
    talk("Threads", "Client", "4 connections\n", |_, _, _| ());
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_server_with_a_selector_echoes() {
    talk("Selector", "Client", "4 connections\n", |scratch, client, port| {
        let path = compatibility::path(scratch, client, port);
        let what = "threads, NIO selector, half close, time-outs, asynchronous close, HttpServer, HttpClient";
        compatibility::record("Java", Command::new("java").arg("--version"), what, path);
    });
}

#[test]
#[ignore = "slow: make test-slow"]
fn the_http_client_gets_its_answers() {
    talk("Http", "Http", "308 answers\n", |_, _, _| ());
}

/// Runs a server and a client of it. `look` is called while both are on sockshim from the start.
fn talk(server: &str, client: &str, answer: &str, look: impl Fn(&Scratch, &mut Program, u16)) {
    // A source file is compiled when it is run.
    let (Some(java), Some(_)) = (program("java"), program("javac")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let run = |mode, class: &str| {
            let mut command = scratch.command(mode, &java);
            command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]).arg(source(class));
            command
        };
        let mut server = scratch.start(&mut run(ends.server, server));
        let port = server.port();
        let mut client = scratch.start(run(ends.client, client).arg(&port));
        if (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce) {
            look(&scratch, &mut client, port.parse().unwrap());
        }
        assert_eq!(client.success(), answer, "{ends:?}");
        assert!(!server.stderr().contains("Exception"), "{ends:?}: {}", server.stderr());
        server.kill();
    }
}

fn source(class: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/java/{class}.java"))
}
