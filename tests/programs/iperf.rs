//! iperf3: several streams at once, each way, both ways, and by sendfile.

use std::process::Command;

use super::compatibility;
use crate::process::{Ends, Mode, Scratch, free_port, program};

#[test]
#[ignore = "slow: make test-slow"]
fn streams_run_each_way_and_both() {
    let Some(iperf) = program("iperf3") else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        for arguments in [
            &["-P", "4", "-t", "3"][..],
            &["-P", "4", "-t", "1", "-R"],
            &["-t", "1", "--bidir"],
            &["-n", "200M", "-l", "1M", "-Z"],
        ] {
            let port = free_port();
            let mut server = scratch.command(ends.server, &iperf);
            let mut server =
                scratch.start(server.args(["-s", "-1", "--forceflush", "-p", &port.to_string()]));
            server.until("listens", |server| server.stdout().contains("Server listening").then_some(()));
            let mut client = scratch.command(ends.client, &iperf);
            client.args(["-J", "-c", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
            let mut client = scratch.start(&mut client);
            let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce) && arguments.contains(&"3");
            let path = path.then(|| compatibility::path(&scratch, &mut client, port));
            let said: serde_json::Value = serde_json::from_str(&client.success()).unwrap();
            for direction in ["sum_sent", "sum_received"] {
                let bytes = said["end"][direction]["bytes"].as_u64().unwrap();
                assert!(bytes > 0, "{ends:?} {arguments:?}: {said}");
            }
            server.success();
            if let Some(path) = path {
                let what = "four streams each way, both ways at once, sendfile";
                compatibility::record("iperf3", Command::new(&iperf).arg("--version"), what, path);
            }
        }
    }
}
