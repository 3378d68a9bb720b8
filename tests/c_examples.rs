//! The C examples, built with the system's compiler and run with libc alone and under sockshim.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use process::{Ends, Mode, Scratch, missing, program};

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
fn a_gigabyte_comes_back_unchanged() {
    for ends in Ends::BOTH {
        let scratch = Scratch::new();
        echo(&scratch, ends, 1_000_000_000, |_| {});
    }
}

#[test]
fn every_setting_carries_the_bytes() {
    for ends in Ends::BOTH {
        for settings in [
            &[("SOCKSHIM_PROFILE", "safe")][..],
            &[("SOCKSHIM_PROFILE", "latency")],
            &[("SOCKSHIM_PROFILE", "throughput")],
            &[("SOCKSHIM_SPIN_US", "0"), ("SOCKSHIM_RING_MAX", "4096")],
            &[("SOCKSHIM_RING_MAX", "65536")],
            &[("SOCKSHIM_UPGRADE_AFTER", "1000000")],
            &[("SOCKSHIM_PATH", "host")],
            &[("SOCKSHIM_PATH", "pipe")],
            &[("SOCKSHIM_DIR", "/no/such/folder/at/all")],
            &[("SOCKSHIM_PROFILE", "nonsense"), ("SOCKSHIM_UPGRADE_AFTER", "-1"), ("SOCKSHIM_RING_MAX", "x")],
        ] {
            let scratch = Scratch::new();
            echo(&scratch, ends, 10_000_000, |command| {
                command.envs(settings.iter().copied());
            });
        }
    }
}

#[test]
fn both_ends_may_share_one_processor() {
    for ends in Ends::BOTH {
        let scratch = Scratch::new();
        echo(&scratch, ends, 10_000_000, on_one_processor);
        let mut server = scratch.command(ends.server, example("pingpong"));
        on_one_processor(server.arg("server"));
        let mut server = scratch.start(&mut server);
        let mut client = scratch.command(ends.client, example("pingpong"));
        on_one_processor(client.args(["client", &server.port(), "latency", "64", "5000"]));
        scratch.output(&mut client);
        server.success();
    }
}

#[test]
fn another_allocator_may_be_preloaded_too() {
    let Some(jemalloc) = ["/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "/usr/lib64/libjemalloc.so.2"]
        .into_iter()
        .find(|file| Path::new(file).exists())
    else {
        return missing("libjemalloc.so.2 is not installed");
    };
    let sockshim = common::libsockshim();
    let sockshim = sockshim.to_str().unwrap();
    for preload in [format!("{sockshim}:{jemalloc}"), format!("{jemalloc}:{sockshim}")] {
        for ends in Ends::BOTH {
            let scratch = Scratch::new();
            echo(&scratch, ends, 1_000_000, |command| {
                command.env("LD_PRELOAD", &preload);
            });
        }
    }
}

#[test]
fn of_two_copies_of_the_library_the_first_does_the_work() {
    let scratch = Scratch::new();
    let copies = ["first", "second"].map(|name| {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let copy = folder.join("libsockshim.so");
        std::fs::copy(common::libsockshim(), &copy).unwrap();
        copy.into_os_string().into_string().unwrap()
    });
    let [first, second] = &copies;
    for preload in [format!("{first}:{second}"), format!("{second}:{first}:{first}")] {
        for ends in Ends::BOTH {
            echo(&scratch, ends, 1_000_000, |command| {
                command.env("LD_PRELOAD", &preload);
            });
        }
    }
    // The one that it is linked with is the second.
    let mut linked = scratch.command(Mode::AtOnce, example("linked"));
    let said = scratch.output(linked.arg("1000").env("LD_PRELOAD", first));
    assert_eq!(said.matches("path pipe").count(), 2, "{said}");
    // A shell forks, makes pipes and starts programs.
    let mut shell = scratch.command(Mode::AtOnce, "sh");
    shell.args(["-c", "echo `echo a; env true` | cat; sh -c 'exit 0'"]).env("LD_PRELOAD", copies.join(":"));
    assert_eq!(scratch.output(&mut shell), "a\n");
}

#[test]
fn valgrind_finds_nothing_wrong() {
    let Some(valgrind) = program("valgrind") else { return };
    let scratch = Scratch::new();
    let run = |arguments: &[&str]| {
        let mut command = scratch.command(Mode::AtOnce, &valgrind);
        // A thread that always sleeps hears every doorbell.
        command
            .args(["--quiet", "--error-exitcode=9"])
            .arg(example("pingpong"))
            .env("SOCKSHIM_PROFILE", "safe");
        scratch.start(command.args(arguments))
    };
    let mut server = run(&["server"]);
    run(&["client", &server.port(), "latency", "64", "100"]).success();
    server.success();
}

#[test]
fn demo_shows_the_phases_of_a_connection() {
    let scratch = Scratch::new();
    let examples = example("http_get");
    let said = scratch.output(
        scratch
            .command(Mode::Native, common::sockshim())
            .args(["demo", "--no-measure", "--examples"])
            .arg(examples.parent().unwrap()),
    );
    assert!(
        said.contains("| HTTP/1.0 200 OK") && said.contains("| 3 answers, 51 bytes, one connection"),
        "{said}"
    );
    // One client and one server, twice; the clients also create their sockets, and the servers a listening one.
    for (phase, count) in [(" create ", 4), (" connect ", 4), (" transfer ", 4), (" disconnect ", 4)] {
        assert!(said.matches(phase).count() >= count, "{phase}: {said}");
    }
    assert!(said.contains("path pipe (shared memory)"), "{said}");
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
    let linked = example("linked");
    for (variable, value, paths) in [
        (
            "SOCKSHIM_UPGRADE_AFTER",
            "0",
            // The client may write its first byte before the server has accepted.
            ["path pipe", "(on a pipe)"],
        ),
        ("SOCKSHIM_PATH", "host", ["path host", "sent 0 bytes over the pipe"]),
    ] {
        let scratch = Scratch::new();
        let said = scratch.output(scratch.command(Mode::Native, &linked).arg("1000").env(variable, value));
        assert!(said.starts_with(&format!("sockshim {}\n", env!("CARGO_PKG_VERSION"))), "{said}");
        for expected in paths {
            assert_eq!(said.matches(expected).count(), 2, "{variable}={value}, both ends: {said}");
        }
        let all = "sent 1000 bytes over the pipe and 0 through the kernel";
        let but_one = "sent 999 bytes over the pipe and 1 through the kernel";
        let sent = said.matches(all).count() + said.matches(but_one).count();
        assert_eq!(sent, if value == "0" { 2 } else { 0 }, "{said}");
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

/// Runs echo_server and echo_client for one connection, with both commands changed by `change`.
#[track_caller]
fn echo(scratch: &Scratch, ends: Ends, bytes: u64, change: impl Fn(&mut Command)) {
    let mut server = scratch.command(ends.server, example("echo_server"));
    change(server.args(["0", "1"]));
    let mut server = scratch.start(&mut server);
    let mut client = scratch.command(ends.client, example("echo_client"));
    change(client.args(["127.0.0.1", &server.port(), &bytes.to_string()]));
    let answer = scratch.output(&mut client);
    assert_eq!(answer, format!("{bytes} bytes came back unchanged\n"), "{ends:?} {client:?}");
    server.success();
}

fn on_one_processor(command: &mut Command) {
    let pin = || {
        // SAFETY: a zeroed set is an empty set, and 0 means this process.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut set);
            // Where processor 0 may not be used the test is only less strict.
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
        Ok(())
    };
    // SAFETY: `pin` makes one system call, allocates nothing and takes no lock.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, pin) };
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
