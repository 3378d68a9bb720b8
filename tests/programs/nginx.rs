//! nginx with two workers, sendfile and a proxy, fetched from by curl and wrk.

use std::fs;
use std::path::{Path, PathBuf};

use super::{assert_same_content, big_file};
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

struct Nginx(PathBuf);

impl Nginx {
    fn find() -> Option<Self> {
        program("nginx").map(Self)
    }

    /// A server on a port of its own, and its address.
    fn server(&self, scratch: &Scratch, mode: Mode) -> (Program, String) {
        self.server_on(scratch, mode, free_port())
    }

    fn server_on(&self, scratch: &Scratch, mode: Mode, port: u16) -> (Program, String) {
        let www = scratch.path().join("www");
        if !www.exists() {
            fs::create_dir(&www).unwrap();
            fs::write(www.join("small"), "small file\n").unwrap();
            std::os::unix::fs::symlink(big_file(100_000_000), www.join("big")).unwrap();
        }
        // SAFETY: `geteuid` takes nothing and always succeeds.
        let root = unsafe { libc::geteuid() } == 0;
        let configuration = scratch.file(
            "nginx.conf",
            CONFIGURATION
                // Workers of another user would not share memory with the client.
                .replace("USER", if root { "user root root;" } else { "" })
                .replace("PORT", &port.to_string()),
        );
        let mut command = scratch.command(mode, &self.0);
        command.args(["-e", "stderr", "-p"]).arg(scratch.path()).arg("-c").arg(configuration);
        let mut server = scratch.start(&mut command);
        server.accepts_on(port);
        (server, format!("http://127.0.0.1:{port}/"))
    }

    /// The graceful way: workers finish what they are at.
    #[track_caller]
    fn shut_down(&self, server: Program) {
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
    server {
        listen 127.0.0.1:PORT;
        root www;
        location = /status { stub_status; }
        location /proxy/ {
            proxy_pass http://127.0.0.1:PORT/;
            proxy_max_temp_file_size 0;
        }
    }
}
";
