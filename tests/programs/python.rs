//! Python's http.server, and asyncio at both ends.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{assert_same_content, big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, missing, program};

#[test]
fn http_server_serves_a_file_to_curl_and_urllib() {
    let (Some(python), Some(curl)) = (python(), program("curl")) else { return };
    let content = &fs::read(big_file(100_000_000)).unwrap()[..20_000_000];
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let file = scratch.file("file", content);
        let (server, url) = http_server(&scratch, &python, ends.server, free_port());
        scratch.output(scratch.command(ends.client, &curl).args(["-sSf", "-o", "by-curl"]).arg(&url));
        scratch.output(scratch.command(ends.client, &python).args(["-c", URLLIB, &url, "by-urllib"]));
        assert_same_content(&scratch.path().join("by-curl"), &file);
        assert_same_content(&scratch.path().join("by-urllib"), &file);
        server.kill();
    }
}

#[test]
fn asyncio_streams_echo_what_they_receive() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, &python).args(["-c", ECHO_SERVER]));
        let port = server.port();
        let said = scratch.output(scratch.command(ends.client, &python).args([
            "-c",
            ECHO_CLIENT,
            &port,
            "20",
            "50",
        ]));
        assert_eq!(said, "20 connections, 10000000 bytes each way\n", "{ends:?}");
        server.kill();
    }
}

#[test]
fn a_client_of_a_killed_server_fails_and_a_new_server_serves() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, &python).args(["-c", ECHO_SERVER]));
        let port = server.port();
        let mut client = endless_client(&scratch, &python, ends.client, &port);
        client.until("has echoed something", |client| client.stdout().contains("busy\n").then_some(()));
        server.kill();
        client.failure();

        let mut server =
            scratch.start(scratch.command(ends.server, &python).args(["-c", ECHO_SERVER, &port]));
        assert_eq!(server.port(), port);
        scratch.output(scratch.command(ends.client, &python).args(["-c", ECHO_CLIENT, &port, "2", "2"]));
    }
}

#[test]
fn a_server_outlives_a_killed_client() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, &python).args(["-c", ECHO_SERVER]));
        let port = server.port();
        let mut client = endless_client(&scratch, &python, ends.client, &port);
        client.until("has echoed something", |client| client.stdout().contains("busy\n").then_some(()));
        if (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce) {
            let path = compatibility::path(&scratch, &mut client, port.parse().unwrap());
            let what = "http.server, asyncio, socketserver with fork, subprocess; one end killed";
            compatibility::record("Python", Command::new(&python).arg("--version"), what, path);
        }
        client.kill();
        server.until("has seen all connections end", |server| {
            (server.stdout().matches("ended\n").count() == 4).then_some(())
        });
        scratch.output(scratch.command(ends.client, &python).args(["-c", ECHO_CLIENT, &port, "2", "2"]));
    }
}

#[test]
fn a_blocking_reader_of_a_killed_server_fails() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, &python).args(["-c", BLOCKING_SERVER]));
        let port = server.port();
        let mut client =
            scratch.start(scratch.command(ends.client, &python).args(["-u", "-c", BLOCKING_CLIENT, &port]));
        client.until("waits for more", |client| client.stdout().contains("waiting\n").then_some(()));
        server.kill();
        assert_eq!(client.failure().code(), Some(3), "{ends:?}");
    }
}

#[test]
fn a_forked_child_serves_what_its_parent_accepted() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let mut server = scratch.start(scratch.command(ends.server, &python).args(["-c", FORKING_SERVER]));
        let port = server.port();
        let said =
            scratch.output(scratch.command(ends.client, &python).args(["-c", ECHO_CLIENT, &port, "5", "90"]));
        assert_eq!(said, "5 connections, 4500000 bytes each way\n", "{ends:?}");
        server.kill();
    }
}

/// As inetd does it: the connection becomes standard input and output of another program.
#[test]
fn a_connection_survives_being_handed_to_another_program() {
    let Some(python) = python() else { return };
    for ends in Ends::ALL {
        for keeps_environment in ["keeps", "drops"] {
            // A program that does not run on sockshim cannot read what is still in the ring
            // (docs/compatibility.md, "Handing a connection on").
            let on_pipe = ends.server != Mode::Native && ends.client != Mode::Native;
            if on_pipe && keeps_environment == "drops" {
                continue;
            }
            let scratch = Scratch::new();
            let mut server = scratch.start(scratch.command(ends.server, &python).args([
                "-c",
                HANDING_SERVER,
                keeps_environment,
            ]));
            let port = server.port();
            let said = scratch.output(scratch.command(ends.client, &python).args([
                "-c",
                ECHO_CLIENT,
                &port,
                "3",
                "100",
            ]));
            assert_eq!(said, "3 connections, 3000000 bytes each way\n", "{ends:?}, {keeps_environment}");
            server.kill();
        }
    }
}

/// The interpreter itself: `python3` may be a script that looks for it.
/// The server of most FastAPI programs. Its loop makes no io_uring of its own accord, and its symbols are the module's alone.
#[test]
fn uvicorn_on_uvloop_serves_over_a_pipe() {
    // Debian's, which the packages of the two belong to; another one may come first in PATH.
    let python = PathBuf::from("/usr/bin/python3");
    let has_modules = Command::new(&python).args(["-c", "import uvicorn, uvloop"]).output();
    if !has_modules.is_ok_and(|output| output.status.success()) {
        return missing("no uvicorn or uvloop");
    }
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        scratch.file("served.py", UVICORN_APPLICATION);
        let port = free_port();
        let mut command = scratch.command(ends.server, &python);
        command.args(["-m", "uvicorn", "--loop", "uvloop", "--log-level", "warning", "served:application"]);
        let mut server = scratch.start(command.args(["--port", &port.to_string()]));
        server.accepts_on(port);
        let mut command = scratch.command(ends.client, &python);
        let mut client = scratch.start(command.args(["-u", "-c", UVICORN_CLIENT, &port.to_string()]));
        client.until("has 200 answers", |client| client.stdout().contains("200 answers\n").then_some(()));
        if (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce) {
            assert_eq!(compatibility::path(&scratch, &mut client, port), "pipe");
        }
        scratch.file("go", "");
        client.success();
        server.kill();
    }
}

fn python() -> Option<PathBuf> {
    let output = Command::new(program("python3")?)
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("python3 runs");
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

fn http_server(scratch: &Scratch, python: &PathBuf, mode: Mode, port: u16) -> (Program, String) {
    let mut command = scratch.command(mode, python);
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
    let mut server = scratch.start(&mut command);
    server.accepts_on(port);
    (server, format!("http://127.0.0.1:{port}/file"))
}

/// A client that has work for longer than any test takes.
fn endless_client(scratch: &Scratch, python: &PathBuf, mode: Mode, port: &str) -> Program {
    scratch.start(scratch.command(mode, python).args(["-u", "-c", ECHO_CLIENT, port, "4", "1000000000"]))
}

const UVICORN_APPLICATION: &str = "
async def application(scope, receive, send):
    assert scope['type'] in ('http', 'lifespan')
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'1000')]})
        await send({'type': 'http.response.body', 'body': scope['path'].encode().ljust(1000)})
";

const UVICORN_CLIENT: &str = "
import http.client, os, sys, time
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))
for number in range(200):
    connection.request('GET', f'/{number}')
    assert connection.getresponse().read().decode().rstrip() == f'/{number}'
print('200 answers')
while not os.path.exists('go'):
    time.sleep(0.01)
";

const URLLIB: &str = "
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer, open(sys.argv[2], 'wb') as file:
    while chunk := answer.read(50000):
        file.write(chunk)
";

const ECHO_SERVER: &str = "
import asyncio, sys

async def echo(reader, writer):
    try:
        while chunk := await reader.read(30000):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
    print('ended', flush=True)

async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print('listening on port', server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
";

/// Rounds of 10,000 bytes there and back, on several connections at once.
const ECHO_CLIENT: &str = "
import asyncio, os, sys
port, connections, rounds = map(int, sys.argv[1:])

async def talk():
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    for i in range(rounds):
        sent = os.urandom(10000)
        writer.write(sent)
        received = await reader.readexactly(len(sent))
        assert sent == received, 'the echo differs'
        if i == 100:
            print('busy', flush=True)
    writer.close()
    await writer.wait_closed()

async def main():
    await asyncio.gather(*(talk() for _ in range(connections)))
    print(connections, 'connections,', connections * rounds * 10000, 'bytes each way')

asyncio.run(main())
";

const FORKING_SERVER: &str = "
import socketserver

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while chunk := self.request.recv(30000):
            self.request.sendall(chunk)

with socketserver.ForkingTCPServer(('127.0.0.1', 0), Echo) as server:
    print('listening on port', server.server_address[1], flush=True)
    server.serve_forever()
";

/// Takes a few messages itself before `cat` takes over, so that the connection is no new one.
const HANDING_SERVER: &str = "
import socket, subprocess, sys
listener = socket.create_server(('127.0.0.1', 0))
print('listening on port', listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    for _ in range(50):
        connection.sendall(connection.recv(10000, socket.MSG_WAITALL))
    environment = None if sys.argv[1] == 'keeps' else {}
    subprocess.Popen(['/bin/cat'], stdin=connection, stdout=connection, env=environment)
    connection.close()
";

/// Answers once, and then says nothing more.
const BLOCKING_SERVER: &str = "
import socket
listener = socket.create_server(('127.0.0.1', 0))
print('listening on port', listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
while connection.recv(1000):
    connection.sendall(b'answer')
";

/// Ends with 3 when the server is gone.
const BLOCKING_CLIENT: &str = "
import socket, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
for _ in range(2000):
    connection.sendall(b'question')
    assert connection.recv(6, socket.MSG_WAITALL) == b'answer'
print('waiting', flush=True)
try:
    connection.recv(1)
except ConnectionError:
    pass
sys.exit(3)
";
