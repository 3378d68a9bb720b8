//! Node.js: HTTP with a keep-alive agent, alone and with the cluster module in both its ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::compatibility;
use crate::process::{Ends, Mode, Scratch, program};

#[test]
fn a_server_answers_small_and_large_requests() {
    let Some((node, path)) = talk("0", "") else { return };
    let what = "keep-alive agent, bodies of 10 MB both ways, cluster module, a worker killed";
    compatibility::record("Node.js", Command::new(node).arg("--version"), what, path);
}

/// Workers accept from a listener that they share.
#[test]
#[ignore = "slow: make test-slow"]
fn workers_with_a_shared_listener_answer() {
    let path = talk("2", "shared").map(|(_, path)| path);
    assert!(path.is_none_or(|path| path == "pipe"));
}

/// The first process accepts, and sends each connection to a worker.
#[test]
#[ignore = "slow: make test-slow"]
fn workers_that_are_sent_their_connections_answer() {
    let path = talk("2", "round-robin").map(|(_, path)| path);
    assert!(path.is_none_or(|path| path == "host: first seen in the middle of its life"));
}

/// The path of the connections when both ends are on sockshim from the start.
fn talk(workers: &str, schedule: &str) -> Option<(PathBuf, String)> {
    let node = program("node")?;
    let mut path = None;
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let run = |mode| {
            let mut command = scratch.command(mode, &node);
            command
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/node.js"))
                .args([workers, schedule]);
            command
        };
        let mut server = scratch.start(&mut run(ends.server));
        let port = server.port();
        let mut client = scratch.start(run(ends.client).arg(&port));
        if (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce) {
            path = Some(compatibility::path(&scratch, &mut client, port.parse().unwrap()));
        }
        assert_eq!(client.success(), "4808 answers\n", "{ends:?}");
        server.kill();
    }
    Some((node, path?))
}
