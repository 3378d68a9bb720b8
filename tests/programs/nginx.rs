//! nginx with two workers, sendfile and a proxy, fetched from by curl and wrk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_same_content, big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, program};

#[test]
fn a_large_file_arrives_whole() {
    let (Some(nginx), Some(curl)) = (Nginx::find(), program("curl")) else { return };
    let big = big_file(100_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, url) = nginx.server(&scratch, ends.server);
        scratch
            .output(scratch.command(ends.client, &curl).args(["-sSf", "-o", "got"]).arg(url.clone() + "big"));
        assert_same_content(&scratch.path().join("got"), &big);
        nginx.shut_down(server);
    }
}

#[test]
fn a_proxy_passes_on_what_it_fetches_from_itself() {
    let (Some(nginx), Some(curl)) = (Nginx::find(), program("curl")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, url) = nginx.server(&scratch, ends.server);
        let medium = scratch.file("www/medium", &fs::read(big_file(100_000_000)).unwrap()[..10_000_000]);
        scratch.output(
            scratch.command(ends.client, &curl).args(["-sSf", "-o", "got"]).arg(url.clone() + "proxy/medium"),
        );
        assert_same_content(&scratch.path().join("got"), &medium);
        nginx.shut_down(server);
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let (Some(nginx), Some(curl)) = (Nginx::find(), program("curl")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, url) = nginx.server(&scratch, ends.server);
        let mut command = scratch.command(ends.client, &curl);
        command.args(["-sSf", "-w", "%{num_connects} new\n"]).arg(format!("{url}small?[1-100]"));
        let said = scratch.output(&mut command);
        assert_eq!(said, "small file\n1 new\n".to_owned() + &"small file\n0 new\n".repeat(99), "{ends:?}");
        nginx.shut_down(server);
    }
}

#[test]
fn a_load_of_requests_meets_no_error() {
    let (Some(nginx), Some(wrk)) = (Nginx::find(), program("wrk")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, url) = nginx.server(&scratch, ends.server);
        for path in ["small", "medium"] {
            scratch.file("www/medium", vec![b'm'; 60_000]);
            let mut command = scratch.command(ends.client, &wrk);
            command.args(["-t", "2", "-c", "16", "-d", "1"]).arg(url.clone() + path);
            let said = scratch.output(&mut command);
            assert!(said.contains("Requests/sec") && !said.contains(" 0 requests in"), "{ends:?}: {said}");
            assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{ends:?}: {said}");
        }
        nginx.shut_down(server);
    }
}

#[test]
fn a_client_of_a_killed_server_fails_and_a_new_server_serves() {
    let (Some(nginx), Some(curl), Some(wrk)) = (Nginx::find(), program("curl"), program("wrk")) else {
        return;
    };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let (mut server, url) = nginx.server_on(&scratch, ends.server, port);
        let client = slow_download(&scratch, ends.client, &curl, &url);
        let mut load = scratch.command(ends.client, &wrk);
        let load = scratch.start(load.args(["-t", "1", "-c", "8", "-d", "2"]).arg(url.clone() + "small"));
        is_busy(&scratch, &mut server, &curl, &url);
        server.kill();
        client.failure();
        // wrk tries again until its time is over.
        load.success();

        let (server, url) = nginx.server_on(&scratch, ends.server, port);
        let said = scratch.output(scratch.command(ends.client, &curl).arg("-sSf").arg(url + "small"));
        assert_eq!(said, "small file\n");
        nginx.shut_down(server);
    }
}

#[test]
fn a_server_outlives_a_killed_client() {
    let (Some(nginx), Some(curl)) = (Nginx::find(), program("curl")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, url) = nginx.server(&scratch, ends.server);
        slow_download(&scratch, ends.client, &curl, &url).kill();
        let said = scratch.output(scratch.command(ends.client, &curl).arg("-sSf").arg(url + "small"));
        assert_eq!(said, "small file\n");
        // A graceful end waits for every open connection, so a forgotten one shows here.
        nginx.shut_down(server);
    }
}

/// New workers (HUP), and then a new program file (USR2, WINCH and QUIT), while clients come and go.
#[test]
#[ignore = "slow: make test-slow"]
fn a_reload_and_an_upgrade_under_load_lose_nothing() {
    let (Some(nginx), Some(curl), Some(wrk)) = (Nginx::find(), program("curl"), program("wrk")) else {
        return;
    };
    let big = big_file(100_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let configuration = Nginx::configure(&scratch, port);
        // It upgrades only when the process that started it has gone; the shell holds the process group.
        let script = r#"("$0" "$@" & until [ -s nginx.pid ]; do sleep 0.05; done); exec sleep 100000"#;
        let mut command = scratch.command(ends.server, "/bin/sh");
        command.arg("-c").arg(script).arg(&nginx.0);
        let mut group = scratch.start(Nginx::arguments(&mut command, &scratch, &configuration));
        group.accepts_on(port);
        let url = format!("http://127.0.0.1:{port}/");

        let mut load = scratch.command(ends.client, &wrk);
        load.args(["-t", "1", "-c", "8", "-d", "6", "--timeout", "100", "-H", "Connection: close"]);
        let load = scratch.start(load.arg(url.clone() + "small"));
        // curl tries again by itself when an idle connection turns out to have been closed.
        let mut fetch = scratch.command(ends.client, &curl);
        let mut fetch = scratch.start(fetch.arg("-sSf").arg(format!("{url}kept/small?[1-20000]")));
        let mut slow = scratch.command(ends.client, &curl);
        let slow =
            scratch.start(slow.args(["-sSf", "--limit-rate", "15M", "-o", "got"]).arg(url.clone() + "big"));
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut fetch, port));

        let old = Master::of(&scratch, &mut group);
        for _ in 0..2 {
            let before = old.workers();
            old.signal(libc::SIGHUP);
            group.until("has new workers", |_| {
                old.workers().iter().any(|worker| !before.contains(worker)).then_some(())
            });
        }
        old.signal(libc::SIGUSR2);
        group.until("has started its successor", |_| {
            fs::exists(scratch.path().join("nginx.pid.oldbin")).unwrap().then_some(())
        });
        let new = Master::of(&scratch, &mut group);
        group.until("has workers", |_| (new.workers().len() == 2).then_some(()));
        old.signal(libc::SIGWINCH);
        old.signal(libc::SIGQUIT);
        group.until("has left", |_| {
            (!fs::exists(scratch.path().join("nginx.pid.oldbin")).unwrap()).then_some(())
        });

        assert_eq!(fetch.success(), "small file\n".repeat(20_000), "{ends:?}");
        slow.success();
        assert_same_content(&scratch.path().join("got"), &big);
        let said = load.success();
        assert!(said.contains("Requests/sec") && !said.contains(" 0 requests in"), "{ends:?}: {said}");
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{ends:?}: {said}");
        let said = scratch.output(scratch.command(ends.client, &curl).arg("-sSf").arg(url + "small"));
        assert_eq!(said, "small file\n");
        new.signal(libc::SIGQUIT);
        group.until("has left, too", |_| {
            (!fs::exists(scratch.path().join("nginx.pid")).unwrap()).then_some(())
        });
        group.kill();
        if let Some(path) = path {
            let what = "two workers, sendfile of 100 MB, a proxy with kept connections, reload and upgrade under load";
            compatibility::record("nginx", Command::new(&nginx.0).arg("-v"), what, path);
        }
    }
}

/// The process that leads a server.
struct Master(libc::pid_t);

impl Master {
    fn of(scratch: &Scratch, group: &mut Program) -> Self {
        let file = scratch.path().join("nginx.pid");
        Self(group.until("has said its number", |_| fs::read_to_string(&file).ok()?.trim().parse().ok()))
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: `kill` takes no pointers.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }

    /// The processes that it has made.
    fn workers(&self) -> Vec<String> {
        let pid = self.0;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }
}

pub(super) struct Nginx(PathBuf);

impl Nginx {
    pub(super) fn find() -> Option<Self> {
        program("nginx").map(Self)
    }

    /// A server on a port of its own, and its address.
    fn server(&self, scratch: &Scratch, mode: Mode) -> (Program, String) {
        self.server_on(scratch, mode, free_port())
    }

    pub(super) fn server_on(&self, scratch: &Scratch, mode: Mode, port: u16) -> (Program, String) {
        let configuration = Self::configure(scratch, port);
        let mut command = scratch.command(mode, &self.0);
        Self::arguments(&mut command, scratch, &configuration);
        let mut server = scratch.start(&mut command);
        server.accepts_on(port);
        (server, format!("http://127.0.0.1:{port}/"))
    }

    fn configure(scratch: &Scratch, port: u16) -> PathBuf {
        let www = scratch.path().join("www");
        if !www.exists() {
            fs::create_dir(&www).unwrap();
            fs::write(www.join("small"), "small file\n").unwrap();
            std::os::unix::fs::symlink(big_file(100_000_000), www.join("big")).unwrap();
        }
        // SAFETY: `geteuid` takes nothing and always succeeds.
        let root = unsafe { libc::geteuid() } == 0;
        scratch.file(
            "nginx.conf",
            CONFIGURATION
                // Workers of another user would not share memory with the client.
                .replace("USER", if root { "user root root;" } else { "" })
                .replace("PORT", &port.to_string()),
        )
    }

    fn arguments<'a>(command: &'a mut Command, scratch: &Scratch, configuration: &Path) -> &'a mut Command {
        command.args(["-e", "stderr", "-p"]).arg(scratch.path()).arg("-c").arg(configuration)
    }

    /// The graceful way: workers finish what they are at.
    #[track_caller]
    pub(super) fn shut_down(&self, server: Program) {
        server.signal(libc::SIGQUIT);
        server.success();
    }
}

/// A download that is in its middle, and stays there for some twenty seconds.
fn slow_download(scratch: &Scratch, mode: Mode, curl: &Path, url: &str) -> Program {
    let mut command = scratch.command(mode, curl);
    command.args(["-sSf", "--limit-rate", "5M", "-o", "partial"]).arg(format!("{url}big"));
    let mut client = scratch.start(&mut command);
    let partial = scratch.path().join("partial");
    client.until("has received something", |_| {
        fs::metadata(&partial).is_ok_and(|metadata| metadata.len() > 0).then_some(())
    });
    client
}

/// Waits until the server is in the middle of a load of requests.
fn is_busy(scratch: &Scratch, server: &mut Program, curl: &Path, url: &str) {
    server.until("has answered some hundred requests", |_| {
        let status =
            scratch.output(scratch.command(Mode::Native, curl).arg("-sSf").arg(format!("{url}status")));
        // server accepts handled requests\n 1 2 3 \n
        let requests: u64 = status.lines().nth(2)?.split_whitespace().nth(2)?.parse().ok()?;
        (requests > 500).then_some(())
    });
}

const CONFIGURATION: &str = "
daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr warn;
USER
events { worker_connections 256; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream itself { server 127.0.0.1:PORT; keepalive 8; }
    server {
        listen 127.0.0.1:PORT;
        root www;
        location = /status { stub_status; }
        location /proxy/ {
            proxy_pass http://127.0.0.1:PORT/;
            proxy_max_temp_file_size 0;
        }
        location /kept/ {
            proxy_pass http://itself/;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
        }
    }
}
";
