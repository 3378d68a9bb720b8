//! Connections that live for a number of round trips of 64 bytes.

use super::net::{accept, close, read_all, write_all};
use super::worker::Job;
use std::net::Ipv4Addr;

/// The listeners' addresses. A closed connection keeps its pair of addresses for a while; on one address the
/// ports would run out.
fn addresses() -> Vec<Ipv4Addr> {
    (1..=16).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

/// Each operation is one connection: made by the client to the next address, `trips` round trips, closed by
/// the client first.
pub(crate) fn connections(job: &Job, trips: usize) {
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
