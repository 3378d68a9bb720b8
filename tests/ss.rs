//! `sockshim ss`, the event log and `SOCKSHIM_LOG`, and what is left behind in the rendezvous folder.

mod common;
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::sockshim;
use process::{Mode, Program, Scratch};
use serde_json::Value;

#[test]
fn both_ends_of_a_pipe_are_listed() {
    let test = Test::new();
    let server = ["listen", "pong", "10", "say", "ready", "await", "go"];
    let (mut server, mut client, port) = test.pair(Mode::AtOnce, Mode::AtOnce, &server, |port| {
        ["connect", port, "ping", "10", "say", "ready", "await", "go"].map(str::to_owned).into()
    });
    for end in [&mut server, &mut client] {
        says_ready(end);
    }
    let ends = test.json();
    assert_eq!(ends.len(), 2, "{ends:?}");
    let (a, b) = (of(&ends, &server), of(&ends, &client));
    assert_eq!((&a["path"], &b["path"]), (&"pipe".into(), &"pipe".into()));
    assert_eq!(
        (&a["state"], &a["reason"], &a["reason_text"]),
        (&"pipe".into(), &1.into(), &"on a pipe".into())
    );
    assert_eq!(a["local"], format!("127.0.0.1:{port}"));
    assert_eq!((&a["local"], &a["peer"]), (&b["peer"], &b["local"]));
    assert_eq!((&a["accepted"], &b["accepted"]), (&true.into(), &false.into()));
    assert_eq!((&a["program"], &b["program"]), (&"end".into(), &"end".into()));
    for (end, program) in [(a, &server), (b, &client)] {
        let link = format!("/proc/{}/fd/{}", program.pid(), end["fd"]);
        assert!(fs::read_link(&link).unwrap().to_str().unwrap().starts_with("socket:"), "{link}");
    }
    for (from, to) in [(a, b), (b, a)] {
        assert_eq!(from["sent"], to["received"]);
        assert_eq!(from["kernel_sent"], to["kernel_received"]);
        assert_eq!(number(from, "sent") + number(from, "kernel_sent"), 10);
        assert_eq!((number(from, "ring_recv_q"), number(from, "ring_send_q")), (0, 0));
    }
    let text = test.ss(&[]);
    assert!(text.contains("on a pipe") && text.lines().count() == 3, "{text}");
    test.go();
    server.success();
    client.success();
    test.nothing_is_left();
}

#[test]
fn programs_of_another_pid_namespace_are_listed_by_their_numbers_here() {
    let test = Test::new();
    let alone = ["--pid", "--fork", "--kill-child"];
    let can = Command::new("unshare").args(alone).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return process::skip("no process namespaces here");
    }
    let start = |words: &[&str]| {
        let mut command = test.scratch.command(Mode::AtOnce, "unshare");
        test.scratch.start(command.args(alone).arg(&test.end).args(words))
    };
    let mut server = start(&["listen", "pong", "10", "say", "ready", "await", "go"]);
    let port = server.port();
    let mut client = start(&["connect", &port, "ping", "10", "say", "ready", "await", "go"]);
    for end in [&mut server, &mut client] {
        says_ready(end);
    }
    let ends = test.json();
    assert_eq!(ends.len(), 2, "{ends:?}");
    for end in &ends {
        assert_eq!((&end["path"], &end["program"]), (&"pipe".into(), &"end".into()), "{ends:?}");
        let link = format!("/proc/{}/fd/{}", end["pids"][0], end["fd"]);
        assert!(fs::read_link(&link).unwrap().to_str().unwrap().starts_with("socket:"), "{link}");
        let there = fs::read_link(format!("/proc/{}/ns/pid", end["pids"][0])).unwrap();
        assert_ne!(there, fs::read_link("/proc/self/ns/pid").unwrap());
    }
    test.go();
    server.success();
    client.success();
    test.nothing_is_left();
}

#[test]
fn what_an_end_does_not_read_is_shown_in_the_ring() {
    let test = Test::new();
    let server = ["listen", "pong", "10", "await", "go", "recv", "1000"];
    let (server, mut client, _) = test.pair(Mode::AtOnce, Mode::AtOnce, &server, |port| {
        ["connect", port, "ping", "10", "send", "1000", "say", "ready", "await", "go"]
            .map(str::to_owned)
            .into()
    });
    says_ready(&mut client);
    let ends = test.json();
    let (a, b) = (of(&ends, &server), of(&ends, &client));
    assert_eq!((number(b, "ring_send_q"), number(a, "ring_recv_q")), (1000, 1000), "{ends:?}");
    assert_eq!((number(a, "ring_send_q"), number(b, "ring_recv_q")), (0, 0), "{ends:?}");
    test.go();
    server.success();
    client.success();
    test.nothing_is_left();
}

#[test]
fn an_end_without_sockshim_leaves_the_other_one_with_the_kernel() {
    for modes in [(Mode::AtOnce, Mode::Native), (Mode::Native, Mode::AtOnce), (Mode::Preloaded, Mode::Native)]
    {
        let test = Test::new();
        let server = ["listen", "pong", "60000", "say", "ready", "await", "go"];
        let (mut server, mut client, _) = test.pair(modes.0, modes.1, &server, |port| {
            ["connect", port, "ping", "60000", "say", "ready", "await", "go"].map(str::to_owned).into()
        });
        for end in [&mut server, &mut client] {
            says_ready(end);
        }
        let ends = test.json();
        assert_eq!(ends.len(), 1, "{ends:?}");
        let end = of(&ends, if modes.0 == Mode::Native { &client } else { &server });
        assert_eq!(
            (&end["path"], &end["state"], &end["reason"]),
            (&"host".into(), &"host".into(), &5.into())
        );
        assert_eq!(end["reason_text"], "the peer does not run on sockshim");
        assert_eq!((number(end, "kernel_sent"), number(end, "kernel_received")), (60000, 60000));
        assert!(end["ring_recv_q"].is_null());
        test.go();
        server.success();
        client.success();
        test.nothing_is_left();
    }
}

#[test]
fn a_peer_that_stays_away_is_told_from_one_without_sockshim() {
    let cases = [
        ("SOCKSHIM_DIR", "/dev/null", "the peer runs on sockshim, but cannot use this rendezvous folder"),
        ("SOCKSHIM_PATH", "host", "the peer stays with the kernel: configured to stay on the host path"),
    ];
    for (name, value, expected) in cases {
        let test = Test::new();
        let words = ["listen", "pong", "60000", "say", "ready", "await", "go"];
        let mut server = test.start(Mode::AtOnce, &words);
        let port = server.port();
        let words = ["connect", &port, "ping", "60000", "say", "ready", "await", "go"];
        let mut client = test.start_with(Mode::AtOnce, &words, &[(name, value)]);
        for end in [&mut server, &mut client] {
            says_ready(end);
        }
        let ends = test.json();
        let end = of(&ends, &server);
        assert_eq!((&end["path"], &end["reason"]), (&"host".into(), &5.into()), "{name} {ends:?}");
        assert_eq!(end["reason_text"], expected, "{ends:?}");
        test.go();
        server.success();
        client.success();
        test.nothing_is_left();
    }
}

#[test]
fn a_connection_that_is_not_decided_yet_has_its_addresses_too() {
    for dup in [false, true] {
        let test = Test::new();
        let server = ["listen6", "pong", "1", "say", "ready", "await", "go"];
        let (mut server, mut client, port) = test.pair(Mode::Preloaded, Mode::Preloaded, &server, |port| {
            let mut words = vec!["connect6", port];
            words.extend(dup.then_some("dup"));
            words.extend(["ping", "1", "say", "ready", "await", "go"]);
            words.into_iter().map(str::to_owned).collect()
        });
        for end in [&mut server, &mut client] {
            says_ready(end);
        }
        let ends = test.json();
        let (a, b) = (of(&ends, &server), of(&ends, &client));
        assert_eq!((&a["path"], &a["state"]), (&"host".into(), &"undecided".into()));
        assert_eq!(b["peer"], format!("[::ffff:127.0.0.1]:{port}"), "{ends:?}");
        assert_eq!((&a["local"], &a["peer"]), (&b["peer"], &b["local"]));
        assert!(a["fd"].is_u64() && b["fd"].is_u64(), "{ends:?}");
        test.go();
        server.success();
        client.success();
        test.nothing_is_left();
    }
}

#[test]
fn a_child_of_a_process_that_has_executed_itself_anew_is_listed() {
    let test = Test::new();
    let child = ["pong", "3", "say", "ready", "await", "go"];
    let again = ["then", "listen", "pong", "3", "say", "ready", "await", "go"];
    let server = [&["listen", "pong", "3", "anew"][..], &child, &again].concat();
    let (mut server, mut client, _) = test.pair(Mode::AtOnce, Mode::AtOnce, &server, |port| {
        ["connect", port, "ping", "6", "say", "ready", "await", "go"].map(str::to_owned).into()
    });
    says_ready(&mut client);
    let port = server.until("listens again", |end| {
        let lines: Vec<_> =
            end.stdout().lines().filter_map(|line| Some(line.split_once("port ")?.1.to_owned())).collect();
        lines.get(1).cloned()
    });
    let mut other = test.start(Mode::AtOnce, &["connect", &port, "ping", "3", "say", "ready", "await", "go"]);
    says_ready(&mut other);
    let ends = test.json();
    assert_eq!(ends.iter().filter(|end| end["path"] == "pipe").count(), 4, "{ends:?}");
    for program in [&server, &client, &other] {
        of(&ends, program);
    }
    test.go();
    for program in [&mut server, &mut client, &mut other] {
        assert!(program.wait().success());
    }
    // The child has ended when its table is gone.
    while !test.left().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn a_child_that_outlives_its_parent_is_listed() {
    let test = Test::new();
    let server = ["listen", "pong", "3", "fork", "pong", "3", "say", "ready", "await", "go", "say", "done"];
    let (mut server, mut client, _) = test.pair(Mode::AtOnce, Mode::AtOnce, &server, |port| {
        ["connect", port, "ping", "6", "say", "ready", "await", "go"].map(str::to_owned).into()
    });
    assert!(server.wait().success());
    says_ready(&mut client);
    let ends = test.json();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| end["path"] == "pipe").count(), 2, "{ends:?}");
    let child = ends.iter().find(|end| end["accepted"] == true).unwrap();
    let pids = child["pids"].as_array().unwrap();
    assert!(pids.len() == 1 && pids[0] != server.pid(), "{ends:?}");
    test.go();
    client.success();
    // The child is the last that has the table.
    let gone = Path::new("/proc").join(pids[0].to_string());
    while gone.exists() && fs::read_to_string(gone.join("stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
    test.nothing_is_left();
}

#[test]
fn a_program_that_ends_without_a_close_leaves_nothing_behind() {
    let test = Test::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut waiting =
        test.start(Mode::AtOnce, &["connect", &port, "send", "1", "say", "ready", "await", "go", "exit"]);
    says_ready(&mut waiting);
    assert_eq!(test.left().len(), 2, "{:?}", test.left());
    test.go();
    waiting.success();
    test.nothing_is_left();
}

#[test]
fn killed_processes_leave_nothing_behind() {
    let test = Test::new();
    let server = ["listen", "pong", "3", "await", "go"];
    let (server, mut client, _) = test.pair(Mode::AtOnce, Mode::AtOnce, &server, |port| {
        ["connect", port, "ping", "3", "say", "ready", "await", "go"].map(str::to_owned).into()
    });
    // This one waits for a peer that will not come.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut waiting =
        test.start(Mode::AtOnce, &["connect", &port, "send", "1", "say", "ready", "await", "go"]);
    says_ready(&mut client);
    says_ready(&mut waiting);
    let states: Vec<Value> = test.json().iter().map(|end| end["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| **state == "waiting").count(), 1, "{states:?}");
    assert_eq!(test.left().len(), 4, "{:?}", test.left());
    for end in [server, client, waiting] {
        end.kill();
    }
    assert_eq!(test.left().len(), 4, "{:?}", test.left());
    let text = test.ss(&[]);
    assert!(text.starts_with("PROGRAM") && text.lines().count() == 1, "{text}");
    test.nothing_is_left();
}

#[test]
fn the_next_program_cleans_up_after_killed_ones() {
    let test = Test::new();
    let mut program = test.start(Mode::AtOnce, &["say", "ready", "await", "go"]);
    says_ready(&mut program);
    assert_eq!(test.left().len(), 1);
    program.kill();
    assert_eq!(test.left().len(), 1);
    fs::write(test.rendezvous.join("notes"), "not ours").unwrap();
    test.start(Mode::AtOnce, &["say", "ready"]).success();
    assert_eq!(test.left(), ["notes"]);
    fs::remove_file(test.rendezvous.join("notes")).unwrap();
}

#[test]
fn damaged_tables_are_passed_over() {
    let test = Test::new();
    let mut program = test.start(Mode::AtOnce, &["say", "ready", "await", "go"]);
    says_ready(&mut program);
    let name = test.left().remove(0);
    let table = test.rendezvous.join(&name);
    let (version, _) = name.split_once('-').unwrap();
    let other_name = |number: usize| format!("{version}-0-{number}-1");
    let other = |number| test.rendezvous.join(other_name(number));
    let size = fs::metadata(&table).unwrap().len();
    // As long as a writer has them open they are not taken for left-overs.
    let damaged: Vec<fs::File> =
        [b"".as_slice(), b"sockshmT", &[0xff; 4096], b"sockshmT\x01\0\0\0\xff\xff\xff\xff"]
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let path = other(number);
                fs::write(&path, bytes).unwrap();
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_len(if number == 1 { 100 } else { size }).unwrap();
                file
            })
            .collect();
    std::os::unix::fs::symlink(&table, other(9)).unwrap();
    fs::create_dir(other(8)).unwrap();
    assert_eq!(test.ss(&["--json"]), "[]\n");
    drop(damaged);
    test.go();
    program.success();
    assert_eq!(test.ss(&["--json"]), "[]\n");
    assert_eq!(test.left(), [other_name(8), other_name(9)]);
    fs::remove_dir(other(8)).unwrap();
    fs::remove_file(other(9)).unwrap();
}

#[test]
fn an_unusable_folder_is_one_line() {
    let test = Test::new();
    let folder = test.scratch.path().join("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    for (folder, problem) in
        [(folder, "mode 0700"), ("/no/such/folder".into(), "No such"), (test.end.clone(), "not a directory")]
    {
        let output = Command::new(sockshim()).arg("ss").env("SOCKSHIM_DIR", &folder).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text.lines().count() == 1 && text.contains(problem) && text.contains(folder.to_str().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn watching_prints_block_after_block() {
    let test = Test::new();
    let mut watch = Command::new(sockshim())
        .args(["ss", "--watch"])
        .env("SOCKSHIM_DIR", &test.rendezvous)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..2 {
        assert!(lines.next().unwrap().starts_with("PROGRAM"));
        assert_eq!(lines.next().unwrap(), "");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn the_event_log_has_the_four_phases() {
    for mode in [Mode::AtOnce, Mode::Native] {
        let test = Test::new();
        let trace = test.scratch.path().join("trace");
        let server = ["listen", "pong", "10"];
        let settings = [("SOCKSHIM_TRACE", "trace")];
        let mut server = test.start_with(Mode::AtOnce, &server, &settings);
        let port = server.port();
        let client = test.start_with(mode, &["connect", &port, "ping", "10"], &settings);
        let (a, b) = (server.pid(), client.pid());
        client.success();
        server.success();
        let text = fs::read_to_string(&trace).unwrap();
        let lines = |pid: u32| -> Vec<Vec<String>> {
            let words = text.lines().map(|line| line.split(' ').map(str::to_owned).collect());
            words.filter(|words: &Vec<String>| words[1] == pid.to_string()).collect()
        };
        let path = if mode == Mode::AtOnce { "pipe" } else { "host" };
        let server = lines(a);
        assert_eq!(server[0][0], "create", "{text}");
        assert_eq!((&*server[1][0], &*server[1][3]), ("connect", &*format!("127.0.0.1:{port}")), "{text}");
        assert_eq!(server[2][0], "transfer", "{text}");
        let last = server.last().unwrap();
        assert_eq!(last[3..], [path, "10", "10"], "{text}");
        assert_eq!(last[0], "disconnect");
        let client = lines(b);
        assert_eq!(client.is_empty(), mode == Mode::Native);
        if mode == Mode::AtOnce {
            assert_eq!(client[0], ["create", &b.to_string(), &client[0][2]]);
            assert_eq!((&client[1][3], &client[1][4]), (&server[1][4], &server[1][3]));
            assert_eq!(client.last().unwrap()[3..], [path, "10", "10"], "{text}");
        }
        test.nothing_is_left();
    }
}

#[test]
fn the_event_log_counts_what_the_kernel_carried() {
    let test = Test::new();
    let settings = [("SOCKSHIM_TRACE", "trace"), ("SOCKSHIM_PATH", "host")];
    let mut server = test.start_with(Mode::Preloaded, &["listen", "pong", "10"], &settings);
    let port = server.port();
    test.start_with(Mode::Preloaded, &["connect", &port, "ping", "10"], &settings).success();
    server.success();
    let text = fs::read_to_string(test.scratch.path().join("trace")).unwrap();
    assert_eq!(text.lines().filter(|line| line.ends_with(" host 10 10")).count(), 2, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("transfer ")).count(), 2, "{text}");
}

#[test]
fn the_log_says_once_why_a_connection_stays_with_the_kernel() {
    for (log, path, expected) in [("1", "host", 1), ("0", "host", 0), ("1", "auto", 0)] {
        let test = Test::new();
        let settings = [("SOCKSHIM_LOG", log), ("SOCKSHIM_PATH", path), ("SOCKSHIM_UPGRADE_AFTER", "0")];
        let mut server = test.start_with(Mode::Preloaded, &["listen", "pong", "10"], &settings);
        let port = server.port();
        let mut client = test.start_with(Mode::Preloaded, &["connect", &port, "ping", "10"], &settings);
        for end in [&mut server, &mut client] {
            assert!(end.wait().success());
            let text = end.stderr();
            assert_eq!(text.lines().count(), expected, "{text}");
            let right = text.is_empty()
                || text.starts_with(&format!("sockshim: process {}, descriptor ", end.pid()))
                    && text.contains(&format!("127.0.0.1:{port}"))
                    && text.ends_with("stays with the kernel: configured to stay on the host path\n");
            assert!(right, "{text}");
        }
    }
}

/// A private rendezvous folder, and the program for both ends.
struct Test {
    scratch: Scratch,
    rendezvous: PathBuf,
    end: PathBuf,
}

impl Test {
    fn new() -> Self {
        let scratch = Scratch::new();
        let end = scratch.path().join("end");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ss.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-o"])
            .arg(&end)
            .arg(source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let command = scratch.command(Mode::Native, &end);
        let mut settings = command.get_envs();
        let rendezvous =
            settings.find_map(|(name, value)| value.filter(|_| name == "SOCKSHIM_DIR")).unwrap().into();
        Self { rendezvous, scratch, end }
    }

    fn start(&self, mode: Mode, words: &[&str]) -> Program {
        self.start_with(mode, words, &[])
    }

    fn start_with(&self, mode: Mode, words: &[&str], settings: &[(&str, &str)]) -> Program {
        let mut command = self.scratch.command(mode, &self.end);
        self.scratch.start(command.args(words).envs(settings.iter().copied()))
    }

    /// Starts a server and, told its port, a client.
    fn pair(
        &self,
        server_mode: Mode,
        client_mode: Mode,
        server: &[&str],
        client: impl FnOnce(&str) -> Vec<String>,
    ) -> (Program, Program, String) {
        let mut server = self.start(server_mode, server);
        let port = server.port();
        let words = client(&port);
        let client = self.start(client_mode, &words.iter().map(String::as_str).collect::<Vec<_>>());
        (server, client, port)
    }

    fn ss(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = Command::new(sockshim())
            .arg("ss")
            .args(arguments)
            .env("SOCKSHIM_DIR", &self.rendezvous)
            .output()
            .unwrap();
        assert!(status.success() && stderr.is_empty(), "{status} {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        serde_json::from_str(&self.ss(&["--json"])).unwrap()
    }

    /// Lets the programs that `await go` go on.
    fn go(&self) {
        self.scratch.file("go", "");
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.rendezvous).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.left(), [""; 0]);
    }
}

fn says_ready(end: &mut Program) {
    end.until("is ready", |end| end.stdout().contains("ready\n").then_some(()));
}

#[track_caller]
fn of<'a>(ends: &'a [Value], program: &Program) -> &'a Value {
    let pid = Value::from(program.pid());
    ends.iter()
        .find(|end| end["pids"].as_array().unwrap().contains(&pid))
        .unwrap_or_else(|| panic!("{ends:?}"))
}

#[track_caller]
fn number(end: &Value, field: &str) -> u64 {
    end[field].as_u64().unwrap_or_else(|| panic!("{field} of {end}"))
}
