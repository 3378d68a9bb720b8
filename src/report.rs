//! What live processes show of themselves: the connections of `sockshim ss`.
//!
//! The socket tables in the rendezvous folder are read as files, never mapped, and never trusted: any process
//! of this user may have written anything there. /proc knows the rest: which processes live, what they are
//! called, and which descriptor has which addresses.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it runs in the command, which has no exports for std to bind to"
)]

mod process;
mod table;

use crate::state::arena::{self, PROCESSES};
use crate::state::janitor;
use crate::state::reason::{self, Reason};
use crate::sys::{self, diag, folder, kernel};
use process::{Known, Process};
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use table::{Slot, Table};

/// One end of a connection. docs/ss.md describes the fields; their names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// The processes that hold the socket, which are several after a fork.
    pub pids: Vec<u32>,
    /// Name of the first one's program.
    pub program: Option<String>,
    /// Number of its descriptor in the first of them that shows it.
    pub fd: Option<u32>,
    /// This end's address.
    pub local: Option<SocketAddr>,
    /// The other end's address.
    pub peer: Option<SocketAddr>,
    /// Whether `accept` made the socket.
    pub accepted: bool,
    /// `pipe` or `host`.
    pub path: &'static str,
    /// How far it is on the way to a pipe, or away from it.
    pub state: State,
    /// The reason code: `SOCKSHIM_REASON_*` of sockshim.h.
    pub reason: u32,
    /// The reason in words.
    pub reason_text: String,
    /// Bytes sent over the pipe.
    pub sent: u64,
    /// Bytes received over the pipe.
    pub received: u64,
    /// Bytes sent through the kernel.
    pub kernel_sent: u64,
    /// Bytes received through the kernel.
    pub kernel_received: u64,
    /// Wake-ups sent to a sleeping peer.
    pub doorbells: u64,
    /// Times a thread went to sleep in the kernel.
    pub sleeps: u64,
    /// Times the sending direction came onto the pipe.
    pub upgrades: u64,
    /// Times a full pipe made the sending direction go back to the kernel.
    pub spills: u64,
    /// Bytes in the pipe that this end has not read yet; unknown when the other end is not listed.
    pub ring_recv_q: Option<u64>,
    /// Bytes in the pipe that the other end has not read yet; unknown when it is not listed.
    pub ring_send_q: Option<u64>,
    #[serde(skip)]
    cookies: [u64; 2],
}

/// See [`Connection::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Too little has been transferred to decide.
    Undecided,
    /// This end has made a segment, and the other one has not come.
    Waiting,
    /// Both ends have the segment.
    Pipe,
    /// The kernel's for good.
    Host,
    /// Both ends have the segment, but this end has gone back to the kernel for good.
    Pinned,
}

impl State {
    fn of(word: u32) -> Option<Self> {
        match word {
            arena::STATE_UNDECIDED => Some(Self::Undecided),
            arena::STATE_WAITING => Some(Self::Waiting),
            arena::STATE_PIPE => Some(Self::Pipe),
            arena::STATE_HOST => Some(Self::Host),
            arena::STATE_PINNED => Some(Self::Pinned),
            _ => None,
        }
    }

    /// As `ss` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Waiting => "waiting",
            Self::Pipe => "pipe",
            Self::Host => "host",
            Self::Pinned => "pinned",
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The rendezvous folder of this user, and whether the environment named it.
#[must_use]
pub fn folder() -> (PathBuf, bool) {
    match std::env::var_os("SOCKSHIM_DIR").filter(|name| !name.is_empty()) {
        Some(name) => (name.into(), true),
        None => (format!("/dev/shm/sockshim-{}", kernel::geteuid()).into(), false),
    }
}

/// The live connections of this user, by process and descriptor. Files of processes that were killed are removed.
///
/// # Errors
/// The folder cannot be used. That the default one is not there only means that nobody needed it yet.
pub fn connections() -> io::Result<Vec<Connection>> {
    let (folder, named) = folder();
    match check(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(Vec::new()),
        checked => checked?,
    }
    sweep(&folder);
    let mut found = Vec::new();
    let mut known = Known::default();
    for entry in fs::read_dir(&folder)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(&table::prefix())) else { continue };
        // A table that cannot be read or understood shows nothing.
        if let Ok(table) = read(&entry.path()) {
            found.extend(live(&table, name, &mut known));
        }
    }
    fill_queues(&mut found);
    explain_absent_peers(&mut found, &mut known);
    found.sort_by(|a, b| (&a.pids, a.fd).cmp(&(&b.pids, b.fd)));
    Ok(found)
}

/// For `fuzzing`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_table(bytes: &[u8]) {
    table::read_any(bytes);
    process::read_any(&String::from_utf8_lossy(bytes));
}

/// The library uses a folder only if nobody else can enter it.
fn check(folder: &Path) -> io::Result<()> {
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    if facts.uid() != kernel::geteuid() || facts.mode() & 0o777 != 0o700 {
        let text = "it must belong to you and have mode 0700";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

fn sweep(folder: &Path) {
    let path = CString::new(folder.as_os_str().as_bytes()).ok().and_then(|name| folder::usable(Some(&name)));
    if let Some(path) = path {
        janitor::sweep(&path, janitor::ALL);
    }
}

fn read(path: &Path) -> Result<Table, table::Damage> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(table::Damage::Size);
    }
    let file = File::open(path)?;
    table::check_size(file.metadata()?.len())?;
    let mut bytes = vec![0; table::HEAD];
    file.read_exact_at(&mut bytes, 0)?;
    bytes.resize(table::length(&bytes)?, 0);
    file.read_exact_at(&mut bytes, 0)?;
    Table::parse(&bytes)
}

/// The connections of one table whose processes live.
fn live(table: &Table, name: &str, known: &mut Known) -> Vec<Connection> {
    let is_elsewhere =
        table.namespace != 0 && sys::process::namespace().is_some_and(|own| own != table.namespace);
    // Processes of another container have other numbers here.
    let numbers = is_elsewhere.then(|| known.numbers(table.namespace));
    let seen_from_here = |number: &u32| match &numbers {
        Some(numbers) => numbers.get(number).copied(),
        None => Some(*number),
    };
    let members: HashMap<usize, u32> = table
        .processes
        .iter()
        .enumerate()
        .filter_map(|(slot, number)| Some((slot, seen_from_here(number)?)))
        .filter(|(_, pid)| known.process(*pid).is_some_and(|process| process.has_mapped(name)))
        .collect();
    let holders = |slot: &Slot| -> Vec<u32> {
        let holds = |process: &usize| slot.holders[process / 64] >> (process % 64) & 1 == 1;
        let mut pids: Vec<u32> =
            (0..PROCESSES).filter(holds).filter_map(|at| members.get(&at).copied()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    };
    table
        .connected()
        .filter_map(|slot| {
            let pids = holders(slot);
            let state = State::of(slot.state)?;
            (!pids.is_empty()).then(|| describe(slot, state, pids, known))
        })
        .collect()
}

fn describe(slot: &Slot, state: State, pids: Vec<u32>, known: &mut Known) -> Connection {
    let place = pids.iter().find_map(|pid| known.process(*pid)?.locate(slot.number, slot.addresses));
    let first = known.process(pids[0]);
    let program = first.and_then(|process| process.name.clone());
    let addresses = slot.addresses.or(place.map(|place| place.addresses));
    let waits = state == State::Waiting && slot.reason == Reason::Undecided as u32;
    let reason_text = match reason::text(slot.reason).to_str() {
        _ if waits => "waiting for the peer to come to the pipe",
        Ok(text) => text,
        Err(_) => "",
    };
    let [sent, received, mut kernel_sent, mut kernel_received, doorbells, sleeps, upgrades, spills] =
        slot.counters;
    if state == State::Host
        && let Some((local, peer)) = addresses
        && first.is_some_and(Process::is_in_our_network)
        && let Some(position) = diag::position(local, peer)
    {
        // Nobody but the kernel counts the bytes of a connection that is its own.
        (kernel_sent, kernel_received) = (position.written, position.data_received());
    }
    Connection {
        program,
        fd: place.map(|place| place.fd),
        local: addresses.map(|(local, _)| local),
        peer: addresses.map(|(_, peer)| peer),
        accepted: slot.flags & arena::FLAG_ACCEPTED != 0,
        path: if arena::is_pipe(slot.state, slot.reason) { "pipe" } else { "host" },
        state,
        reason: slot.reason,
        reason_text: reason_text.to_owned(),
        sent,
        received,
        kernel_sent,
        kernel_received,
        doorbells,
        sleeps,
        upgrades,
        spills,
        ring_recv_q: None,
        ring_send_q: None,
        cookies: [slot.cookie, slot.peer_cookie],
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
