//! Mosquitto: subscribers get what publishers send, in order and once.

use std::process::Command;

use super::{big_file, compatibility};
use crate::process::{Ends, Mode, Scratch, free_port, program};

#[test]
fn subscribers_get_every_message_once_and_in_order() {
    let (Some(broker), Some(publish), Some(subscribe)) =
        (program("mosquitto"), program("mosquitto_pub"), program("mosquitto_sub"))
    else {
        return;
    };
    let messages: String = (0..3000).map(|i| format!("message {i}\n")).collect();
    let big = big_file(1_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let configuration = scratch.file("mosquitto.conf", CONFIGURATION.replace("PORT", &port.to_string()));
        let mut server = scratch.command(ends.server, &broker);
        let mut server = scratch.start(server.args(["-v", "-c"]).arg(configuration));
        server.accepts_on(port);
        let port_option = ["-h", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
        let [first, second, waiting] =
            [("m/#", "3000"), ("m/small", "3000"), ("b", "1")].map(|(topic, count)| {
                let mut command = scratch.command(ends.client, &subscribe);
                scratch.start(command.args(&port_option).args(["-q", "2", "-t", topic, "-C", count]))
            });
        server.until("has three subscribers", |server| {
            (server.stderr().matches("Sending SUBACK").count() == 3).then_some(())
        });
        let mut waiting = waiting;
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut waiting, port));
        scratch.file("messages", &messages);
        let mut shell = scratch.command(ends.client, "/bin/sh");
        shell.args(["-c", "\"$0\" \"$@\" -q 2 -t m/small -l < messages"]).arg(&publish).args(&port_option);
        scratch.output(&mut shell);
        for client in [first, second] {
            let got = client.success();
            assert!(got == messages, "{ends:?}: the messages came changed");
        }
        let mut command = scratch.command(ends.client, &publish);
        scratch.output(command.args(&port_option).args(["-q", "1", "-t", "b", "-f"]).arg(&big));
        assert!(waiting.wait().success());
        server.signal(libc::SIGTERM);
        server.success();
        if let Some(path) = path {
            let what = "three subscribers, 3,000 messages once and in order (QoS 2), a message of 1 MB";
            compatibility::record("Mosquitto", Command::new(&broker).arg("-h"), what, path);
        }
    }
}

/// Another user would not share memory with the clients; and what a slow subscriber has not fetched is not to be
/// dropped.
const CONFIGURATION: &str = "
listener PORT 127.0.0.1
allow_anonymous true
user root
max_queued_messages 0
";
