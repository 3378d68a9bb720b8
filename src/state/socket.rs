//! A handle to an open file description, and what this process alone knows of it.

use super::flags::SocketFlags;
use super::socket_table::{self, Entry, SETS, SOCKETS, SocketTable};
use super::{family, log, reason::Reason};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A slot of the socket table with the generation that it had: a stale handle finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What this process alone knows of a socket: pointers and sizes never lie in shared memory.
#[derive(Debug)]
pub(crate) struct Local {
    /// Descriptors of this process that name it.
    refs: AtomicU32,
    /// Which end of the segment we are: 0 or 1.
    pub(crate) end: AtomicU32,
    /// The mapped segment's front, or null.
    pub(crate) segment: AtomicPtr<u8>,
    /// Its large rings; see `pipe::connection::segment`.
    pub(crate) rings: AtomicPtr<u8>,
    /// Where the ring that this end writes, and the one that it reads, lies while it is tiny, small and large.
    pub(crate) outgoing: [AtomicPtr<u8>; 3],
    pub(crate) incoming: [AtomicPtr<u8>; 3],
    /// Copy of the other side's reading position; under the write lock.
    pub(crate) seen_head: AtomicU64,
    /// Copy of what the other side has published; under the read lock.
    pub(crate) seen_tail: AtomicU64,
    pub(crate) seen_capacity: AtomicU32,
    /// Tail and time of the last look whether the reader lives; under the write lock.
    pub(crate) watched_tail: AtomicU64,
    pub(crate) watched_since: AtomicU64,
    /// Writes since then, and since something was read.
    pub(crate) unwatched: AtomicU32,
    /// How often the ring was full since it last grew; under the write lock.
    pub(crate) stalls: AtomicU32,
    /// How far the reader was at the last look, when that was, and when it was last seen to have moved; up to which position it
    /// is not trusted to go on. See `pipe::waiting::room`.
    pub(crate) progress: AtomicU64,
    pub(crate) looked: AtomicU64,
    pub(crate) moved: AtomicU64,
    pub(crate) distrusted: AtomicU64,
    pub(crate) doubts: AtomicU32,
    /// 1: the last write came back short.
    pub(crate) is_cut: AtomicU32,
    pub(crate) bulk: Bulk,
    pub(crate) looks: Looks,
    /// How well spinning paid lately; see `pipe::waiting::spin`.
    pub(crate) spin: AtomicU32,
    /// The same for timed waits; see `pipe::waiting::timed_wait`.
    pub(crate) timed_wait: AtomicU32,
    /// Timed waits in a row with the other end on another processor.
    pub(crate) apart: AtomicU32,
    /// Generation of the socket that this process has last shut down for reading, plus one.
    read_shut: AtomicU32,
    /// Reading position before unread bytes were put down for a new owner, plus one; see `pipe::handoff::file`.
    pub(crate) handed_from: AtomicU64,
    /// Whether the reader went through other lanes for them, and cannot go back.
    pub(crate) handed_past: AtomicU32,
    /// The writer was woken for them, and has not been waited for.
    pub(crate) asked: AtomicU32,
    /// The other end has not put down what it announced.
    pub(crate) in_vain: AtomicU32,
    /// The kernel has refused a doorbell; under the write lock. See `pipe::transfer::write`.
    pub(crate) owes: AtomicU32,
    /// Looks in a row that found the other end gone back to the kernel; see `pipe::lanes::writer`.
    pub(crate) gone: AtomicU32,
    /// The last walk over all sockets that came past; see [`Walk`].
    walk: AtomicU32,
}

/// A walk over descriptors, of which several may name one socket.
#[derive(Debug)]
pub(crate) struct Walk(u32);

impl Walk {
    pub(crate) fn begin() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// Whether it comes past the socket for the first time.
    pub(crate) fn is_new(&self, socket: Socket) -> bool {
        socket.local().walk.swap(self.0, Ordering::Relaxed) != self.0
    }
}

/// What was learned about long writes; see `pipe::copying::bulk`. Under the write lock.
#[derive(Debug)]
pub(crate) struct Bulk {
    pub(crate) phase: AtomicU32,
    /// Bytes and ticks since the phase began.
    pub(crate) bytes: AtomicU64,
    pub(crate) ticks: AtomicU64,
    /// Ticks for a MB through the cache, as last tried.
    pub(crate) price: AtomicU64,
}

/// Looks of a reader to whom bytes come by themselves; see `pipe::waiting::spin`. Under the read lock, or a hint.
#[derive(Debug)]
pub(crate) struct Looks {
    /// When they began to be counted.
    pub(crate) since: AtomicU64,
    /// How many more are counted.
    pub(crate) left: AtomicI32,
}

impl Bulk {
    pub(crate) const fn new() -> Self {
        Self {
            phase: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            price: AtomicU64::new(0),
        }
    }
}

static LOCALS: [Local; SOCKETS] = [const {
    Local {
        refs: AtomicU32::new(0),
        end: AtomicU32::new(0),
        segment: AtomicPtr::new(core::ptr::null_mut()),
        rings: AtomicPtr::new(core::ptr::null_mut()),
        outgoing: [const { AtomicPtr::new(core::ptr::null_mut()) }; 3],
        incoming: [const { AtomicPtr::new(core::ptr::null_mut()) }; 3],
        seen_head: AtomicU64::new(0),
        seen_tail: AtomicU64::new(0),
        seen_capacity: AtomicU32::new(0),
        watched_tail: AtomicU64::new(0),
        watched_since: AtomicU64::new(0),
        unwatched: AtomicU32::new(0),
        stalls: AtomicU32::new(0),
        progress: AtomicU64::new(0),
        looked: AtomicU64::new(0),
        moved: AtomicU64::new(0),
        distrusted: AtomicU64::new(0),
        doubts: AtomicU32::new(0),
        is_cut: AtomicU32::new(0),
        bulk: Bulk::new(),
        looks: Looks { since: AtomicU64::new(0), left: AtomicI32::new(0) },
        spin: AtomicU32::new(0),
        timed_wait: AtomicU32::new(0),
        apart: AtomicU32::new(0),
        read_shut: AtomicU32::new(0),
        handed_from: AtomicU64::new(0),
        handed_past: AtomicU32::new(0),
        asked: AtomicU32::new(0),
        in_vain: AtomicU32::new(0),
        owes: AtomicU32::new(0),
        gone: AtomicU32::new(0),
        walk: AtomicU32::new(0),
    }
}; SOCKETS];

/// Descriptors of this process that name each epoll set.
static SET_REFS: [AtomicU32; SETS] = [const { AtomicU32::new(0) }; SETS];

impl Socket {
    /// The shared entry, or `None` when the slot has changed hands.
    #[inline]
    pub(crate) fn entry(self) -> Option<&'static Entry> {
        let entry = socket_table::get()?.socket(self.slot);
        (entry.generation.load(Ordering::Acquire) == self.generation).then_some(entry)
    }

    #[inline]
    pub(crate) fn local(self) -> &'static Local {
        &LOCALS[self.slot as usize % SOCKETS]
    }

    /// A new socket with one descriptor in this process.
    pub(crate) fn create(flags: SocketFlags) -> Option<Self> {
        let socket_table = socket_table::get()?;
        let (slot, entry) = socket_table.take_socket().or_else(|| {
            family::reap_if_due(socket_table);
            socket_table.take_socket()
        })?;
        entry.flags.store(flags, Ordering::Relaxed);
        family::hold(&entry.holders);
        let socket = Self { slot, generation: entry.generation.load(Ordering::Relaxed) };
        let local = socket.local();
        local.refs.store(1, Ordering::Relaxed);
        local.spin.store(0, Ordering::Relaxed);
        local.timed_wait.store(0, Ordering::Relaxed);
        local.apart.store(0, Ordering::Relaxed);
        local.handed_from.store(0, Ordering::Relaxed);
        for word in [&local.handed_past, &local.asked, &local.in_vain] {
            word.store(0, Ordering::Relaxed);
        }
        Some(socket)
    }

    /// This process shuts it down for reading.
    pub(crate) fn shut_read(self) {
        self.local().read_shut.store(self.generation.wrapping_add(1), Ordering::Release);
    }

    /// This process reads on after all: the kernel has refused the shutdown.
    pub(crate) fn reopen_read(self) {
        self.local().read_shut.store(0, Ordering::Release);
    }

    /// Whether this process has shut it down for reading; also after it was closed.
    pub(crate) fn is_read_shut(self) -> bool {
        self.local().read_shut.load(Ordering::Acquire) == self.generation.wrapping_add(1)
    }

    /// One more descriptor of this process.
    pub(crate) fn refer(self) {
        self.local().refs.fetch_add(1, Ordering::AcqRel);
    }

    /// One descriptor less; true when it was this process's last.
    pub(crate) fn unrefer(self) -> bool {
        self.local().refs.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Decides for the kernel, unless a segment is there already.
    pub(crate) fn stay_host(entry: &Entry, reason: Reason) {
        entry.reason.store(reason as u32, Ordering::Relaxed);
        entry.state.store(socket_table::STATE_HOST, Ordering::Release);
        log::stays_host(entry);
    }
}

/// Whether this process has a descriptor for the socket at `slot`.
pub(crate) fn is_held(slot: u32) -> bool {
    LOCALS[slot as usize % SOCKETS].refs.load(Ordering::Acquire) > 0
}

/// The same of an epoll set.
pub(crate) fn is_held_set(slot: u32) -> bool {
    SET_REFS[slot as usize % SETS].load(Ordering::Acquire) > 0
}

/// Slots of sockets that this process holds.
pub(crate) fn held(socket_table: &SocketTable) -> impl Iterator<Item = Socket> + '_ {
    let used = socket_table.sockets_used.load(Ordering::Acquire).min(SOCKETS as u32);
    (0..used)
        .filter(|slot| is_held(*slot))
        .map(|slot| Socket { slot, generation: socket_table.socket(slot).generation.load(Ordering::Acquire) })
}

/// Slots of epoll sets that this process holds.
pub(crate) fn held_sets(socket_table: &SocketTable) -> impl Iterator<Item = u32> + '_ {
    let used = socket_table.sets_used.load(Ordering::Acquire).min(SETS as u32);
    (0..used).filter(|slot| is_held_set(*slot))
}

pub(crate) fn refer_set(slot: u32) {
    SET_REFS[slot as usize % SETS].fetch_add(1, Ordering::AcqRel);
}

/// True when it was this process's last.
pub(crate) fn unrefer_set(slot: u32) -> bool {
    SET_REFS[slot as usize % SETS].fetch_sub(1, Ordering::AcqRel) == 1
}
