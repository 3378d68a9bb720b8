//! The C examples, built with the system's compiler and run with libc alone and under sockshim.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::process::{Ends, Mode, Scratch, skip};

#[test]
fn echo_sends_back_every_byte() {
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, example("echo_server")).args(["0", "2"]));
        let port = server.port();
        for bytes in ["1", "5000000"] {
            let answer = scratch.output(scratch.command(ends.client, example("echo_client")).args([
                "localhost",
                &port,
                bytes,
            ]));
            assert_eq!(answer, format!("{bytes} bytes came back unchanged\n"), "{ends:?}");
        }
        let said = server.success();
        assert!(
            said.ends_with("descriptor 4: echoed 1 bytes\ndescriptor 4: echoed 5000000 bytes\n"),
            "{said}"
        );
    }
}

#[test]
fn over_http_1_0_the_server_disconnects_first() {
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, example("http_server")).args(["0", "1"]));
        let port = server.port();
        let answer = scratch.output(scratch.command(ends.client, example("http_get")).args([
            "localhost",
            &port,
            "/a/page",
        ]));
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nYou asked for /a/page\n"), "{answer}");
        let said = server.success();
        assert!(said.ends_with("descriptor 4: 1 request, the server disconnects first\n"), "{said}");
    }
}

#[test]
fn over_http_1_1_a_connection_serves_several_requests() {
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, example("http_server")).args(["0", "1"]));
        let port = server.port();
        let answer = scratch.output(scratch.command(ends.client, example("http_keepalive")).args([
            "127.0.0.1",
            &port,
            "500",
        ]));
        assert!(answer.starts_with("500 answers, "), "{answer}");
        let said = server.success();
        assert!(said.ends_with("descriptor 4: 500 requests, the client disconnects first\n"), "{said}");
    }
}

#[test]
fn two_sockets_are_told_apart_by_descriptor() {
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut servers = [0, 1]
            .map(|_| scratch.start(scratch.command(ends.server, example("echo_server")).args(["0", "1"])));
        let ports = servers.each_mut().map(|server| server.port());
        let answer = scratch.output(scratch.command(ends.client, example("two_sockets")).args([
            "127.0.0.1",
            &ports[0],
            &ports[1],
        ]));
        let mut lines: Vec<&str> = answer.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["descriptor 3: to the first server", "descriptor 4: to the second server"]);
        for server in servers {
            server.success();
        }
    }
}

#[test]
fn pingpong_measures_all_its_modes() {
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        for (mode, size, count) in [
            ("latency", "64", "2000"),
            ("messages", "64", "100000"),
            ("throughput", "65536", "2000"),
            ("latency", "1000000", "20"),
        ] {
            let mut server = scratch.start(scratch.command(ends.server, example("pingpong")).arg("server"));
            let port = server.port();
            let answer = scratch.output(
                scratch.command(ends.client, example("pingpong")).args(["client", &port, mode, size, count]),
            );
            assert!(answer.starts_with(&format!("{mode} {size} bytes: ")), "{answer}");
            server.success();
        }
    }
}

#[test]
fn a_linked_program_learns_where_its_connection_runs() {
    if !source_folder().join("../include/sockshim.h").exists() {
        return skip("include/sockshim.h does not exist yet");
    }
    let linked = example("linked");
    for (variable, value, paths) in [
        (
            "SOCKSHIM_UPGRADE_AFTER",
            "0",
            ["path pipe", "sent 1000 bytes over the pipe and 0 through the kernel"],
        ),
        ("SOCKSHIM_PATH", "host", ["path host", "sent 0 bytes over the pipe"]),
    ] {
        let scratch = Scratch::new();
        let said = scratch.output(scratch.command(Mode::Native, &linked).arg("1000").env(variable, value));
        assert!(said.starts_with(&format!("sockshim {}\n", env!("CARGO_PKG_VERSION"))), "{said}");
        for expected in paths {
            assert_eq!(said.matches(expected).count(), 2, "{variable}={value}, both ends: {said}");
        }
    }
}

#[test]
fn only_the_linked_example_mentions_sockshim() {
    for entry in std::fs::read_dir(source_folder()).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "c") && !path.ends_with("linked.c") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("sockshim"), "{}", path.display());
            assert!(text.lines().count() <= 150, "{} is too long for an example", path.display());
        }
    }
}

/// Where an example is, built on first use.
fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_examples");
        make(&folder, "all");
        if source_folder().join("../include/sockshim.h").exists() {
            make(&folder, "linked");
        }
        folder
    });
    folder.join(name)
}

fn make(out: &Path, target: &str) {
    let libraries = common::libsockshim();
    let status = Command::new("make")
        .arg("-C")
        .arg(source_folder())
        .arg(format!("OUT={}", out.display()))
        .arg(format!("SOCKSHIM_LIB={}", libraries.parent().unwrap().display()))
        .arg(target)
        .env_remove("MAKEFLAGS")
        .status()
        .expect("make, which builds the C examples");
    assert!(status.success(), "the C examples do not build");
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c_examples")
}
