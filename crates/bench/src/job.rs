//! What a worker process is asked to do, as it sees it.

use crate::backend::{Copying, Waiting};
use crate::link::{Link, Socket};
use crate::net;
use crate::ring::{Half, Rings};
use libc::c_int;
use std::net::Ipv4Addr;
use std::time::Instant;

/// The argument that makes a process a worker.
pub(crate) const FLAG: &str = "--bench-worker";

/// What a worker was started with.
#[derive(Debug)]
pub(crate) struct Job {
    role: String,
    port: u16,
    ring: Option<(c_int, Copying, Waiting)>,
    words: Vec<String>,
}

impl Job {
    /// The job of this process, when it was started as a worker.
    pub(crate) fn of_this_process() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        if args.next()? != FLAG {
            return None;
        }
        let role = args.next()?;
        let port = args.next()?.parse().ok()?;
        if let Ok(cpu) = args.next()?.parse() {
            net::pin(cpu);
        }
        let ring = ring_of(&args.next()?);
        Some(Self { role, port, ring, words: args.collect() })
    }

    /// The arguments for [`Job::of_this_process`], in front of the words.
    pub(crate) fn arguments(
        role: &str,
        port: u64,
        cpu: Option<usize>,
        ring: Option<(c_int, Copying, Waiting)>,
    ) -> [String; 5] {
        let ring = ring.map_or(NONE.to_owned(), |(fd, copying, waiting)| {
            let copying = COPYING.iter().position(|&known| known == copying).unwrap_or(0);
            let waiting = WAITING.iter().position(|&known| known == waiting).unwrap_or(0);
            format!("{fd},{copying},{waiting}")
        });
        let cpu = cpu.map_or(NONE.to_owned(), |cpu| cpu.to_string());
        [FLAG.to_owned(), role.to_owned(), port.to_string(), cpu, ring]
    }

    pub(crate) fn is_server(&self) -> bool {
        self.role == SERVER
    }

    pub(crate) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    pub(crate) fn word(&self, index: usize) -> &str {
        &self.words[index]
    }

    pub(crate) fn number(&self, index: usize) -> usize {
        self.words[index].parse().expect("the question passes a number here")
    }

    /// The raw ring of this measurement.
    pub(crate) fn ring(&self) -> Rings {
        let (fd, copying, waiting) = self.ring.expect("only asked for where the backend is a ring");
        if self.is_server() {
            tell(0); // in place of the port
        }
        let half = if self.is_server() { Half::Server } else { Half::Client };
        Rings::map(fd, half, copying, waiting)
    }

    /// A connection to the other worker.
    pub(crate) fn socket(&self) -> Socket {
        Socket(if self.is_server() { net::accept(self.listen()) } else { self.connect() })
    }

    /// The server's listening socket; the client learns its port.
    pub(crate) fn listen(&self) -> c_int {
        self.listen_on(&[Ipv4Addr::LOCALHOST])[0]
    }

    /// Listening sockets on the same port of several addresses.
    pub(crate) fn listen_on(&self, addresses: &[Ipv4Addr]) -> Vec<c_int> {
        let mut port = 0;
        let sockets = addresses
            .iter()
            .map(|&address| {
                let (fd, given) = net::listen(address, port);
                port = given;
                fd
            })
            .collect();
        tell(u64::from(port));
        sockets
    }

    /// A connection to the server.
    pub(crate) fn connect(&self) -> c_int {
        self.connect_to(Ipv4Addr::LOCALHOST)
    }

    pub(crate) fn connect_to(&self, address: Ipv4Addr) -> c_int {
        net::connect(address, self.port)
    }

    /// Does rounds of `operations` over `link` until there have been enough.
    pub(crate) fn serve_over<L: Link>(&self, mut link: L, mut operations: impl FnMut(&mut L, u64)) {
        let fd = link.descriptor();
        self.serve(fd, |count| operations(&mut link, count));
    }

    /// Does rounds of `operations` until there have been enough. `fd` is a connection that is measured, or -1.
    pub(crate) fn serve(&self, fd: c_int, mut operations: impl FnMut(u64)) {
        self.serve_timed(fd, |count| {
            let start = Instant::now();
            operations(count);
            start.elapsed().as_nanos() as u64
        });
    }

    /// As [`Job::serve`], for operations that return how much of their time counts.
    pub(crate) fn serve_timed(&self, fd: c_int, mut operations: impl FnMut(u64) -> u64) {
        while let Some(count) = asked() {
            if self.is_server() {
                tell(0);
            }
            let before = net::cpu_time();
            let ns = operations(count);
            let after = net::cpu_time();
            tell(ns);
            tell(after[0] - before[0]);
            tell(after[1] - before[1]);
            tell(if fd < 0 { NO_CONNECTION } else { net::path(fd) });
        }
    }
}

/// The next request, unless that was the last.
pub(crate) fn asked() -> Option<u64> {
    let mut count = [0; 8];
    net::read_all(0, &mut count).then(|| u64::from_ne_bytes(count))
}

/// Sends a number to the process that asks.
pub(crate) fn tell(number: u64) {
    net::write_all(1, &number.to_ne_bytes());
}

fn ring_of(word: &str) -> Option<(c_int, Copying, Waiting)> {
    let mut parts = word.split(',').map(|part| part.parse::<usize>().ok());
    let [fd, copying, waiting] = [parts.next()??, parts.next()??, parts.next()??];
    Some((c_int::try_from(fd).ok()?, *COPYING.get(copying)?, *WAITING.get(waiting)?))
}

/// In place of the path, where no connection is looked at.
pub(crate) const NO_CONNECTION: u64 = 2;
pub(crate) const SERVER: &str = "server";
pub(crate) const CLIENT: &str = "client";
const NONE: &str = "-";
const COPYING: [Copying; 3] = [Copying::Plain, Copying::Pieces, Copying::NonTemporal];
const WAITING: [Waiting; 3] = [Waiting::Spin, Waiting::Yield, Waiting::Futex];
