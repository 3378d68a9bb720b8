//! Connections that live for a moment; word: how many round trips of 64 bytes, or `http` for a request and an
//! answer after which the server disconnects.

use crate::job::Job;
use crate::net::{accept, check, close, read, read_all, write_all};
use std::net::Ipv4Addr;

/// The listeners' addresses. A closed connection keeps its pair of addresses for a while; on one address the
/// ports would run out.
fn addresses() -> Vec<Ipv4Addr> {
    (1..=16).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

pub(super) fn work(job: &Job) {
    if job.word(1) == "http" { requests(job) } else { connections(job, job.number(1)) }
}

/// Each operation is one connection: made by the client to the next address, `trips` round trips, closed by
/// the client first.
fn connections(job: &Job, trips: usize) {
    let addresses = addresses();
    let mut message = [b'x'; 64];
    let mut next = 0;
    if job.is_server() {
        let listeners = job.listen_on(&addresses);
        job.serve(-1, |count| {
            for _ in 0..count {
                let fd = accept(listeners[next]);
                next = (next + 1) % listeners.len();
                while read_all(fd, &mut message) {
                    write_all(fd, &message);
                }
                close(fd);
            }
        });
    } else {
        job.serve(-1, |count| {
            for _ in 0..count {
                let fd = job.connect_to(addresses[next]);
                next = (next + 1) % addresses.len();
                for _ in 0..trips {
                    write_all(fd, &message);
                    assert!(read_all(fd, &mut message), "the server disconnected");
                }
                close(fd);
            }
        });
    }
}

/// Each operation is one connection, one request and one answer, closed by the server first.
fn requests(job: &Job) {
    let addresses = addresses();
    let mut buffer = [0; 4096];
    let mut next = 0;
    if job.is_server() {
        let listeners = job.listen_on(&addresses);
        job.serve(-1, |count| {
            for _ in 0..count {
                let fd = accept(listeners[next]);
                next = (next + 1) % listeners.len();
                let mut length = 0;
                while !buffer[..length].ends_with(b"\r\n\r\n") {
                    length += check(read(fd, &mut buffer[length..]), "read");
                }
                write_all(fd, ANSWER);
                close(fd);
            }
        });
    } else {
        job.serve(-1, |count| {
            for _ in 0..count {
                let fd = job.connect_to(addresses[next]);
                next = (next + 1) % addresses.len();
                write_all(fd, REQUEST);
                while check(read(fd, &mut buffer), "read") > 0 {}
                close(fd);
            }
        });
    }
}

const REQUEST: &[u8] =
    b"GET /hello HTTP/1.0\r\nHost: localhost\r\nUser-Agent: sockshim-bench\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
