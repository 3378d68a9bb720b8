//! socat: programs behind a connection, half close, and a relay.

use std::path::PathBuf;
use std::process::Command;

use super::{assert_same_content, big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, program};

/// The client closes its sending side; what the program says then still arrives.
#[test]
fn a_program_behind_a_connection_answers_after_a_half_close() {
    let Some(socat) = program("socat") else { return };
    for ends in Ends::ALL {
        for (command, input, answer) in [
            ("EXEC:tr a-z A-Z", "hello there\n".repeat(3000), "HELLO THERE\n".repeat(3000)),
            ("EXEC:wc -c", "x".repeat(3_000_000), "3000000\n".to_owned()),
            ("SYSTEM:cat; echo done", "line\n".repeat(50_000), "line\n".repeat(50_000) + "done\n"),
        ] {
            let scratch = Scratch::new();
            let (server, port) = server(&scratch, ends.server, &socat, command);
            let mut client = client(&scratch, ends.client, &socat, port, &scratch.file("input", input));
            assert!(scratch.output(&mut client) == answer, "{ends:?}: {command} answered something else");
            server.kill();
        }
    }
}

#[test]
fn a_large_file_goes_through_a_relay_and_comes_back() {
    let Some(socat) = program("socat") else { return };
    let big = big_file(100_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (echo, port) = server(&scratch, ends.server, &socat, "EXEC:cat");
        let (relay, port) = server(&scratch, ends.server, &socat, &format!("TCP:127.0.0.1:{port}"));
        let mut command = client(&scratch, ends.client, &socat, port, &big);
        let mut client = scratch.start(&mut command);
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut client, port));
        client.success();
        assert_same_content(&scratch.path().join("output"), &big);
        relay.kill();
        echo.kill();
        if let Some(path) = path {
            let what = "EXEC and SYSTEM with half close, 100 MB through a relay";
            compatibility::record("socat", Command::new(&socat).arg("-V"), what, path);
        }
    }
}

/// A process for each connection.
fn server(scratch: &Scratch, mode: Mode, socat: &PathBuf, what: &str) -> (Program, u16) {
    let port = free_port();
    let mut command = scratch.command(mode, socat);
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
    let mut server = scratch.start(command.args(["-t", "1000", &listen, what]));
    server.accepts_on(port);
    (server, port)
}

fn client(scratch: &Scratch, mode: Mode, socat: &PathBuf, port: u16, input: &std::path::Path) -> Command {
    let mut command = scratch.command(mode, "/bin/sh");
    let large = std::fs::metadata(input).unwrap().len() > 10_000_000;
    let script = format!(
        "exec \"$0\" -t 1000 - TCP:127.0.0.1:{port} < \"$1\"{}",
        if large { " > output" } else { "" }
    );
    command.arg("-c").arg(script).arg(socat).arg(input);
    command
}
