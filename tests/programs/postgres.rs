//! PostgreSQL with psql and pgbench.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::compatibility;
use crate::process::{Ends, Mode, Program, Scratch, free_port, program};

#[test]
fn values_of_megabytes_and_copies_come_back() {
    let Some(postgres) = Postgres::find() else { return };
    for ends in Ends::BOTH {
        let (scratch, server, port) = postgres.server(ends.server);
        let ask = |question: &str| postgres.ask(&scratch, ends.client, port, question);
        assert_eq!(ask("select length(repeat('x', 50000000))"), "50000000\n");
        let answer = ask("select repeat('0123456789', 2000000)");
        assert!(answer == "0123456789".repeat(2_000_000) + "\n", "{ends:?}: a large value came changed");

        ask("create table t (i int, h text)");
        let rows: String = (0..200_000).map(|i| format!("{i}\t{:x}\n", i * 2_654_435_761_u64)).collect();
        fs::write(scratch.path().join("rows"), &rows).unwrap();
        ask("\\copy t from rows");
        ask("\\copy (select * from t order by i) to copied");
        assert!(
            rows == fs::read_to_string(scratch.path().join("copied")).unwrap(),
            "{ends:?}: the rows differ"
        );
        postgres.shut_down(server);
    }
}

#[test]
#[ignore = "slow: make test-slow"]
fn the_benchmark_runs_through_and_the_books_agree() {
    let Some(postgres) = Postgres::find() else { return };
    for ends in Ends::ALL {
        let (scratch, server, port) = postgres.server(ends.server);
        let bench = |arguments: &[&str]| {
            let mut command = postgres.client(&scratch, ends.client, port, "pgbench");
            command.args(["-n", "-c", "8", "-j", "2"]).args(arguments).arg("postgres");
            scratch.start(&mut command)
        };
        scratch.output(
            postgres.client(&scratch, ends.client, port, "pgbench").args(["-q", "-i", "-s", "2", "postgres"]),
        );
        let mut reader = bench(&["-S", "-T", "2"]);
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut reader, port));
        for said in [
            reader.success(),
            bench(&["-T", "2"]).success(),
            bench(&["-S", "-M", "prepared", "-T", "1"]).success(),
            bench(&["-S", "-C", "-t", "20"]).success(),
        ] {
            assert!(said.contains("failed transactions: 0 "), "{ends:?}: {said}");
        }
        let books = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), \
                     (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)";
        assert_eq!(postgres.ask(&scratch, ends.client, port, books), "t|t\n", "{ends:?}");
        postgres.shut_down(server);
        if let Some(path) = path {
            let what = "pgbench read-only, TPC-B, prepared and reconnecting; psql and COPY; a backend killed";
            compatibility::record("PostgreSQL", Command::new(&postgres.server).arg("--version"), what, path);
        }
    }
}

#[test]
fn clients_of_a_killed_backend_are_told_and_the_server_recovers() {
    let Some(postgres) = Postgres::find() else { return };
    for ends in Ends::ALL {
        let (scratch, server, port) = postgres.server(ends.server);
        let sleeper = "select 1; select pg_sleep(1000)";
        let mut command = postgres.client(&scratch, ends.client, port, "psql");
        let mut client =
            scratch.start(command.args(["-qAt", "-c", "select 'to be killed'", "-c", sleeper, "postgres"]));
        let find = "select pid from pg_stat_activity where query like 'select 1; select pg_sleep%'";
        let pid: libc::pid_t = client
            .until("is served", |_| postgres.ask(&scratch, Mode::Native, port, find).trim().parse().ok());
        // SAFETY: `kill` takes no pointers; the process is the server's child, and waits.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        client.failure();

        // The server throws everybody out and starts anew.
        let mut command = postgres.client(&scratch, ends.client, port, "psql");
        command.args(["-qAt", "-c", "select 2", "postgres"]);
        let mut server = server;
        server.until("serves again", |_| (command.output().unwrap().stdout == b"2\n").then_some(()));
        postgres.shut_down(server);
    }
}

#[test]
fn a_statement_is_cancelled_and_a_session_ended_from_outside() {
    let Some(postgres) = Postgres::find() else { return };
    for ends in Ends::BOTH {
        let (scratch, server, port) = postgres.server(ends.server);
        let said = |question: &str| {
            let mut command = postgres.client(&scratch, ends.client, port, "psql");
            let output = command.args(["-qAt", "-c", question, "postgres"]).output().unwrap();
            String::from_utf8(output.stderr).unwrap()
        };
        let late = said("set statement_timeout = 100; select pg_sleep(1000)");
        assert!(late.contains("canceling statement due to statement timeout"), "{ends:?}: {late}");
        let gone = said("select pg_terminate_backend(pg_backend_pid())");
        assert!(gone.contains("terminating connection due to administrator command"), "{ends:?}: {gone}");
        let mut command = postgres.client(&scratch, ends.client, port, "psql");
        let mut client = scratch.start(command.args(["-qAt", "-c", "select pg_sleep(1000)", "postgres"]));
        let find = "select count(*) from pg_stat_activity where query = 'select pg_sleep(1000)'";
        client.until("is served", |_| {
            (postgres.ask(&scratch, Mode::Native, port, find) == "1\n").then_some(())
        });
        client.signal(libc::SIGINT);
        client.failure();
        postgres.shut_down(server);
    }
}

struct Postgres {
    server: PathBuf,
    folder: PathBuf,
}

impl Postgres {
    fn find() -> Option<Self> {
        // Debian keeps them out of PATH, by version.
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let folder =
            versions.map(|version| version.path().join("bin")).find(|bin| bin.join("postgres").exists());
        match folder {
            Some(folder) => Some(Self { server: folder.join("postgres"), folder }),
            None => {
                let server = program("postgres")?;
                Some(Self { folder: server.parent().unwrap().into(), server })
            }
        }
    }

    /// A server with a database of its own.
    fn server(&self, mode: Mode) -> (Scratch, Program, u16) {
        let scratch = Scratch::of("postgres");
        let mut command = scratch.command(Mode::Native, self.folder.join("initdb"));
        scratch.output(command.args(["-D", "data", "-A", "trust", "-U", "postgres", "--no-sync"]));
        let port = free_port();
        let mut command = scratch.command(mode, &self.server);
        command.args(["-D", "data", "-p", &port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
            command.args(["-c", setting]);
        }
        let mut server = scratch.start(&mut command);
        server.accepts_on(port);
        // It accepts before it serves.
        let mut command = self.client(&scratch, Mode::Native, port, "psql");
        command.args(["-qAt", "-c", "select 1", "postgres"]);
        server.until("serves", |_| (command.output().unwrap().stdout == b"1\n").then_some(()));
        (scratch, server, port)
    }

    fn client(&self, scratch: &Scratch, mode: Mode, port: u16, name: &str) -> Command {
        let mut command = scratch.command(mode, self.folder.join(name));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "postgres");
        command.env("PGSSLMODE", "disable");
        command
    }

    #[track_caller]
    fn ask(&self, scratch: &Scratch, mode: Mode, port: u16, question: &str) -> String {
        scratch.output(self.client(scratch, mode, port, "psql").args(["-qAt", "-c", question, "postgres"]))
    }

    /// The fast way: clients are told to go.
    #[track_caller]
    fn shut_down(&self, server: Program) {
        server.signal(libc::SIGINT);
        server.success();
    }
}
