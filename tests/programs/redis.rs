//! redis-server with redis-cli and redis-benchmark.

use std::fs;
use std::path::PathBuf;

use super::{big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, program};

#[test]
fn values_come_back_as_they_were_set() {
    let Some(redis) = Redis::find() else { return };
    let value = big_file(1_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let server = redis.server(&scratch, ends.server, port);

        assert_eq!(redis.ask(&scratch, ends.client, port, &["SET", "greeting", "hello there"]), "OK\n");
        assert_eq!(redis.ask(&scratch, ends.client, port, &["GET", "greeting"]), "hello there\n");

        let script =
            format!("\"$0\" -p {port} -x SET big < {}; \"$0\" -p {port} GET big > big.out", value.display());
        scratch.output(scratch.command(ends.client, "/bin/sh").arg("-c").arg(script).arg(&redis.cli));
        let answer = fs::read(scratch.path().join("big.out")).unwrap();
        let (newline, answer) = answer.split_last().unwrap();
        assert_eq!(*newline, b'\n');
        assert!(answer == fs::read(&value).unwrap(), "{ends:?}: the large value came back changed");

        // Thousands of commands without waiting for one answer.
        let commands: String = (0..20_000).map(|i| format!("SET key:{i} {i}\r\n")).collect();
        let commands = scratch.file("commands", commands);
        let script = format!("\"$0\" -p {port} --pipe < {}", commands.display());
        let said =
            scratch.output(scratch.command(ends.client, "/bin/sh").arg("-c").arg(script).arg(&redis.cli));
        assert!(said.contains("errors: 0, replies: 20000"), "{said}");
        assert_eq!(redis.ask(&scratch, ends.client, port, &["DBSIZE"]), "20002\n");
        redis.shut_down(&scratch, server, port);
    }
}

#[test]
fn the_benchmark_runs_through() {
    let Some(redis) = Redis::find() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let server = redis.server(&scratch, ends.server, port);
        for (tests, arguments) in [
            ("set,get,incr,lpush,lrange_100,mset", &["-n", "5000", "-c", "50"][..]),
            ("set,get", &["-n", "5000", "-c", "1"]),
            ("set,get", &["-n", "50000", "-c", "20", "-P", "16"]),
            ("set,get", &["-n", "2000", "-c", "10", "-d", "100000"]),
            ("get", &["-n", "1000", "-c", "10", "-k", "0"]),
            ("get", &["-n", "20000", "-c", "20", "--threads", "2"]),
        ] {
            let mut command = scratch.command(ends.client, &redis.benchmark);
            command.args(["-p", &port.to_string(), "-q", "-t", tests]).args(arguments);
            let said = scratch.output(&mut command);
            let results = said.matches("requests per second").count();
            assert!(results >= tests.split(',').count(), "{ends:?} {arguments:?}: {said}");
            assert!(!said.contains("Error"), "{ends:?} {arguments:?}: {said}");
        }
        redis.shut_down(&scratch, server, port);
    }
}

#[test]
fn a_client_of_a_killed_server_fails_and_a_new_server_serves() {
    let Some(redis) = Redis::find() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let mut server = redis.server(&scratch, ends.server, port);
        let client = redis.endless_client(&scratch, ends.client, port);
        redis.is_busy(&scratch, &mut server, port);
        server.kill();
        client.failure();

        let server = redis.server(&scratch, ends.server, port);
        assert_eq!(redis.ask(&scratch, ends.client, port, &["SET", "a", "b"]), "OK\n");
        assert_eq!(redis.ask(&scratch, ends.client, port, &["GET", "a"]), "b\n");
        redis.shut_down(&scratch, server, port);
    }
}

#[test]
fn a_server_outlives_a_killed_client() {
    let Some(redis) = Redis::find() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let mut server = redis.server(&scratch, ends.server, port);
        let client = redis.endless_client(&scratch, ends.client, port);
        redis.is_busy(&scratch, &mut server, port);
        client.kill();

        // The one that asks is a client, too.
        server.until("forgets the killed client's connections", |_| {
            let clients = redis.ask(&scratch, ends.client, port, &["INFO", "clients"]);
            clients.contains("connected_clients:1\r").then_some(())
        });
        redis.shut_down(&scratch, server, port);
    }
}

/// A replica that joins late, published messages, transactions, and a change of roles.
#[test]
fn a_replica_follows_and_takes_over() {
    let Some(redis) = Redis::find() else { return };
    let big = big_file(1_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (port, second) = (free_port(), free_port());
        let server = redis.server(&scratch, ends.server, port);
        let ask = |port, question: &[&str]| redis.ask(&scratch, ends.client, port, question);
        let feed = |commands: &str| {
            let script = format!("\"$0\" -p {port} < {}", scratch.file("commands", commands).display());
            scratch.output(scratch.command(ends.client, "/bin/sh").args(["-c", &script]).arg(&redis.cli))
        };
        let script = format!("\"$0\" -p {port} -x SET big < {}", big.display());
        scratch.output(scratch.command(ends.client, "/bin/sh").args(["-c", &script]).arg(&redis.cli));

        let mut replica = redis.server(&scratch, ends.server, second);
        ask(second, &["REPLICAOF", "127.0.0.1", &port.to_string()]);
        replica.until("has the data", |_| {
            ask(second, &["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut replica, port));
        assert_eq!(feed(&"MULTI\nINCR a\nINCR b\nEXEC\n".repeat(500)).matches("500").count(), 2, "{ends:?}");
        // WAIT waits only for what the same connection has written.
        replica.until("has followed", |_| (ask(second, &["MGET", "a", "b"]) == "500\n500\n").then_some(()));
        assert_eq!(ask(second, &["STRLEN", "big"]), "1000000\n", "{ends:?}");

        let mut command = scratch.command(ends.client, &redis.cli);
        let mut listener = scratch.start(command.args(["-p", &second.to_string(), "SUBSCRIBE", "news"]));
        listener.until("has subscribed", |listener| {
            listener.stdout().contains("subscribe\nnews\n1\n").then_some(())
        });
        feed(&(0..200).map(|i| format!("PUBLISH news item-{i}\n")).collect::<String>());
        listener.until("has heard all", |listener| listener.stdout().contains("item-199\n").then_some(()));
        let heard: Vec<_> =
            listener.stdout().lines().filter(|line| line.starts_with("item-")).map(str::to_owned).collect();
        assert_eq!(heard, (0..200).map(|i| format!("item-{i}")).collect::<Vec<_>>(), "{ends:?}");
        listener.kill();

        // The replica becomes the master of its master.
        ask(second, &["REPLICAOF", "NO", "ONE"]);
        ask(port, &["REPLICAOF", "127.0.0.1", &second.to_string()]);
        replica.until("is followed", |_| {
            ask(port, &["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        ask(second, &["SET", "after", "all"]);
        replica.until("is followed again", |_| (ask(port, &["GET", "after"]) == "all\n").then_some(()));
        redis.shut_down(&scratch, replica, second);
        redis.shut_down(&scratch, server, port);
        if let Some(path) = path {
            let what = "redis-cli, redis-benchmark, large values, transactions, pub/sub, replication and its reversal";
            compatibility::record(
                "redis",
                std::process::Command::new(&redis.server).arg("--version"),
                what,
                path,
            );
        }
    }
}

struct Redis {
    server: PathBuf,
    cli: PathBuf,
    benchmark: PathBuf,
}

impl Redis {
    fn find() -> Option<Self> {
        Some(Self {
            server: program("redis-server")?,
            cli: program("redis-cli")?,
            benchmark: program("redis-benchmark")?,
        })
    }

    fn server(&self, scratch: &Scratch, mode: Mode, port: u16) -> Program {
        let mut command = scratch.command(mode, &self.server);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.args(["--port", &port.to_string(), "--dir"]).arg(scratch.path());
        let mut server = scratch.start(&mut command);
        server.accepts_on(port);
        server
    }

    #[track_caller]
    fn ask(&self, scratch: &Scratch, mode: Mode, port: u16, question: &[&str]) -> String {
        scratch.output(scratch.command(mode, &self.cli).args(["-p", &port.to_string()]).args(question))
    }

    /// A client that has work for longer than any test takes.
    fn endless_client(&self, scratch: &Scratch, mode: Mode, port: u16) -> Program {
        let mut command = scratch.command(mode, &self.benchmark);
        command.args(["-p", &port.to_string(), "-q", "-t", "set", "-n", "2000000000", "-c", "20", "-P", "4"]);
        scratch.start(&mut command)
    }

    /// Waits until the server is in the middle of its work.
    fn is_busy(&self, scratch: &Scratch, server: &mut Program, port: u16) {
        server.until("has answered a few thousand commands", |_| {
            let stats = self.ask(scratch, Mode::Native, port, &["INFO", "stats"]);
            let (_, count) = stats.split_once("total_commands_processed:")?;
            let count: u64 = count.split("\r\n").next()?.parse().ok()?;
            (count > 5000).then_some(())
        });
    }

    #[track_caller]
    fn shut_down(&self, scratch: &Scratch, server: Program, port: u16) {
        self.ask(scratch, Mode::Native, port, &["SHUTDOWN", "NOSAVE"]);
        server.success();
    }
}
