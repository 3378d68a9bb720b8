//! The connections of live processes, for `sockshim ss`.
//!
//! The socket tables in the rendezvous folder are read as files, never mapped, and never trusted: any process
//! of this user may have written anything there. /proc knows the rest: which processes live, what they are
//! called, and which descriptor has which addresses.

mod process;

use process::{Known, Process};
use rustix::process::geteuid;
use serde::Serialize;
use sockshim::Reason;
use sockshim::inspect::{self, Socket, State, Table};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One end of a connection. docs/ss.md describes the fields; their names are stable.
#[derive(Debug, Serialize)]
pub(crate) struct Connection {
    /// The processes that hold the socket, which are several after a fork.
    pub(crate) pids: Vec<u32>,
    /// Name of the first one's program.
    pub(crate) program: Option<String>,
    /// Number of its descriptor in the first of them that shows it.
    pub(crate) fd: Option<u32>,
    /// This end's address.
    pub(crate) local: Option<SocketAddr>,
    /// The other end's address.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether `accept` made the socket.
    pub(crate) accepted: bool,
    /// `pipe` or `host`.
    pub(crate) path: &'static str,
    /// How far it is on the way to a pipe, or away from it.
    pub(crate) state: &'static str,
    /// The reason code: `SOCKSHIM_REASON_*` of sockshim.h.
    pub(crate) reason: u32,
    /// The reason in words.
    pub(crate) reason_text: String,
    /// Bytes sent over the pipe.
    pub(crate) sent: u64,
    /// Bytes received over the pipe.
    pub(crate) received: u64,
    /// Bytes sent through the kernel.
    pub(crate) kernel_sent: u64,
    /// Bytes received through the kernel.
    pub(crate) kernel_received: u64,
    /// Wake-ups sent to a sleeping peer.
    pub(crate) doorbells: u64,
    /// Times a thread went to sleep in the kernel.
    pub(crate) sleeps: u64,
    /// Times the sending direction came onto the pipe.
    pub(crate) upgrades: u64,
    /// Times a full pipe made the sending direction go back to the kernel.
    pub(crate) spills: u64,
    /// Bytes in the pipe that this end has not read yet; unknown when the other end is not listed.
    pub(crate) ring_recv_q: Option<u64>,
    /// Bytes in the pipe that the other end has not read yet; unknown when it is not listed.
    pub(crate) ring_send_q: Option<u64>,
    #[serde(skip)]
    cookies: [u64; 2],
}

/// The rendezvous folder of this user, and whether the environment named it.
pub(crate) fn folder() -> (PathBuf, bool) {
    match std::env::var_os("SOCKSHIM_DIR").filter(|name| !name.is_empty()) {
        Some(name) => (name.into(), true),
        None => (format!("/dev/shm/sockshim-{}", geteuid().as_raw()).into(), false),
    }
}

/// The live connections of this user, by process and descriptor. Files of processes that were killed are removed.
///
/// It is an error that the folder cannot be used. That the default one is not there only means that nobody needed it yet.
pub(crate) fn connections() -> io::Result<Vec<Connection>> {
    let (folder, named) = folder();
    match check(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(Vec::new()),
        checked => checked?,
    }
    inspect::sweep(&c_string(&folder)?);
    let mut found = Vec::new();
    let mut known = Known::default();
    for entry in fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| inspect::is_table(name)) else { continue };
        // A table that cannot be read or understood shows nothing.
        if let Some(table) = Table::read(&c_string(&entry.path())?) {
            found.extend(live(&table, name, &mut known));
        }
    }
    fill_queues(&mut found);
    explain_absent_peers(&mut found, &mut known);
    found.sort_by(|a, b| (&a.pids, a.fd).cmp(&(&b.pids, b.fd)));
    Ok(found)
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The library uses a folder only if nobody else can enter it.
fn check(folder: &Path) -> io::Result<()> {
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    if facts.uid() != geteuid().as_raw() || facts.mode() & 0o777 != 0o700 {
        let text = "it must belong to you and have mode 0700";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// The connections of one table whose processes live.
fn live(table: &Table, name: &str, known: &mut Known) -> Vec<Connection> {
    // Processes of another container have other numbers here.
    let numbers = table.namespace.map(|namespace| known.numbers(namespace));
    let seen_from_here = |number: u32| match &numbers {
        Some(numbers) => numbers.get(&number).copied(),
        None => Some(number),
    };
    let members: HashMap<u32, u32> = table
        .processes
        .iter()
        .filter_map(|number| Some((*number, seen_from_here(*number)?)))
        .filter(|(_, pid)| known.process(*pid).is_some_and(|process| process.has_mapped(name)))
        .collect();
    table
        .connected()
        .filter_map(|socket| {
            let mut pids: Vec<u32> =
                socket.holders.iter().filter_map(|number| members.get(number).copied()).collect();
            pids.sort_unstable();
            pids.dedup();
            (!pids.is_empty()).then(|| describe(&socket, pids, known))
        })
        .collect()
}

fn describe(socket: &Socket, pids: Vec<u32>, known: &mut Known) -> Connection {
    let place = pids.iter().find_map(|pid| known.process(*pid)?.locate(socket.number, socket.addresses));
    let first = known.process(pids[0]);
    let program = first.and_then(|process| process.name.clone());
    let addresses = socket.addresses.or(place.map(|place| place.addresses));
    let waits = socket.state == State::Waiting && socket.reason == Reason::Undecided as u32;
    let reason_text = if waits { "waiting for the peer to come to the pipe" } else { socket.reason_text };
    let counters = socket.counters;
    // Nobody but the kernel counts the bytes of a connection that is its own.
    let (kernel_sent, kernel_received) = addresses
        .filter(|_| socket.state == State::Host && first.is_some_and(Process::is_in_our_network))
        .and_then(|(local, peer)| inspect::kernel_bytes(local, peer))
        .unwrap_or((counters.kernel_bytes_sent, counters.kernel_bytes_received));
    Connection {
        program,
        fd: place.map(|place| place.fd),
        local: addresses.map(|(local, _)| local),
        peer: addresses.map(|(_, peer)| peer),
        accepted: socket.accepted,
        path: if socket.is_pipe { "pipe" } else { "host" },
        state: socket.state.name(),
        reason: socket.reason,
        reason_text: reason_text.to_owned(),
        sent: counters.bytes_sent,
        received: counters.bytes_received,
        kernel_sent,
        kernel_received,
        doorbells: counters.doorbells,
        sleeps: counters.sleeps,
        upgrades: counters.upgrades,
        spills: counters.spills,
        ring_recv_q: None,
        ring_send_q: None,
        cookies: socket.cookies,
        pids,
    }
}

/// Why the other end of a connection has not come: an end knows only that it has not.
fn explain_absent_peers(connections: &mut [Connection], known: &mut Known) {
    let listed: HashMap<_, String> = connections
        .iter()
        .filter_map(|end| Some(((end.local?, end.peer?), end.reason_text.clone())))
        .collect();
    for end in connections.iter_mut().filter(|end| end.reason == Reason::PeerWithout as u32) {
        let (Some(local), Some(peer)) = (end.local, end.peer) else { continue };
        end.reason_text = match listed.get(&(peer, local)) {
            Some(reason) => format!("the peer stays with the kernel: {reason}"),
            None if known.holder((peer, local)).is_some_and(Process::runs_on_sockshim) => {
                "the peer runs on sockshim, but cannot use this rendezvous folder".to_owned()
            }
            None => "the peer does not run on sockshim".to_owned(),
        };
    }
}

/// What one end has sent over the pipe and the other end has not received lies in the ring.
fn fill_queues(connections: &mut [Connection]) {
    let counted: HashMap<[u64; 2], (u64, u64)> =
        connections.iter().map(|end| (end.cookies, (end.sent, end.received))).collect();
    for end in connections.iter_mut().filter(|end| end.cookies[0] != 0) {
        let [own, other] = end.cookies;
        if let Some((sent, received)) = counted.get(&[other, own]) {
            // The two ends are not read at the same moment.
            end.ring_recv_q = Some(sent.saturating_sub(end.received));
            end.ring_send_q = Some(end.sent.saturating_sub(*received));
        }
    }
}
