//! haproxy before nginx: HTTP and TCP, splicing, and a new process that takes over the listeners.

use std::path::PathBuf;
use std::process::Command;

use super::nginx::Nginx;
use super::{assert_same_content, big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, program};

#[test]
fn large_files_pass_through() {
    let (Some(haproxy), Some(nginx), Some(curl)) = (program("haproxy"), Nginx::find(), program("curl"))
    else {
        return;
    };
    let big = big_file(100_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let backend = free_port();
        let (server, _) = nginx.server_on(&scratch, ends.server, backend);
        let proxy = Proxy::start(&scratch, ends.server, &haproxy, backend);
        for port in [proxy.http, proxy.tcp] {
            let mut command = scratch.command(ends.client, &curl);
            scratch.output(command.args(["-sSf", "-o", "got"]).arg(format!("http://127.0.0.1:{port}/big")));
            assert_same_content(&scratch.path().join("got"), &big);
        }
        proxy.program.kill();
        nginx.shut_down(server);
    }
}

/// The new process gets the listeners over a Unix socket (`-x`), and tells the old one to finish (`-sf`).
#[test]
#[ignore = "slow: make test-slow"]
fn a_new_process_takes_over_under_load() {
    let (Some(haproxy), Some(nginx), Some(curl), Some(wrk)) =
        (program("haproxy"), Nginx::find(), program("curl"), program("wrk"))
    else {
        return;
    };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let backend = free_port();
        let (server, _) = nginx.server_on(&scratch, ends.server, backend);
        let mut proxy = Proxy::start(&scratch, ends.server, &haproxy, backend);
        let url = format!("http://127.0.0.1:{}/small", proxy.http);
        let mut load = scratch.command(ends.client, &wrk);
        load.args(["-t", "1", "-c", "8", "-d", "4", "--timeout", "100", "-H", "Connection: close"]).arg(&url);
        let load = scratch.start(&mut load);
        // curl tries again by itself when an idle connection turns out to have been closed.
        let mut fetch = scratch.command(ends.client, &curl);
        let mut fetch = scratch.start(fetch.arg("-sSf").arg(format!("{url}?[1-20000]")));
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut fetch, proxy.http));
        for _ in 0..3 {
            proxy = proxy.replace(&scratch, ends.server, &haproxy);
        }
        let said = load.success();
        assert!(said.contains("Requests/sec") && !said.contains(" 0 requests in"), "{ends:?}: {said}");
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{ends:?}: {said}");
        assert_eq!(fetch.success(), "small file\n".repeat(20_000), "{ends:?}");
        proxy.program.kill();
        nginx.shut_down(server);
        if let Some(path) = path {
            let what =
                "HTTP and TCP before nginx, 100 MB, take-over of the listeners (`-x`, `-sf`) under load";
            compatibility::record("haproxy", Command::new(&haproxy).arg("-v"), what, path);
        }
    }
}

struct Proxy {
    program: Program,
    configuration: PathBuf,
    http: u16,
    tcp: u16,
}

impl Proxy {
    fn start(scratch: &Scratch, mode: Mode, haproxy: &PathBuf, backend: u16) -> Self {
        let (http, tcp) = (free_port(), free_port());
        let text = CONFIGURATION
            .replace("FOLDER", &scratch.path().display().to_string())
            .replace("BACKEND", &backend.to_string())
            .replace("HTTP", &http.to_string())
            .replace("TCP", &tcp.to_string());
        let configuration = scratch.file("haproxy.cfg", text);
        let mut program =
            scratch.start(scratch.command(mode, haproxy).args(["-db", "-f"]).arg(&configuration));
        program.accepts_on(tcp);
        Self { program, configuration, http, tcp }
    }

    /// The new process runs, and the old one has finished.
    fn replace(mut self, scratch: &Scratch, mode: Mode, haproxy: &PathBuf) -> Self {
        let old = self.program.pid().to_string();
        let mut command = scratch.command(mode, haproxy);
        command.args(["-db", "-f"]).arg(&self.configuration);
        command.args(["-x", "sock", "-sf", &old]);
        let program = scratch.start(&mut command);
        let status = self.program.wait();
        assert!(status.success(), "{status}: {}", self.program.stderr());
        Self { program, ..self }
    }
}

const CONFIGURATION: &str = "
global
    stats socket FOLDER/sock mode 600 level admin expose-fd listeners
    nbthread 2
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    option splice-auto
frontend web
    mode http
    bind 127.0.0.1:HTTP
    default_backend files
backend files
    mode http
    http-reuse always
    server one 127.0.0.1:BACKEND
listen through
    mode tcp
    bind 127.0.0.1:TCP
    server one 127.0.0.1:BACKEND
";
