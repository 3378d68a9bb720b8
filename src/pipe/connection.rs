//! The shared segment as both ends see it.

pub(crate) mod guard;
pub(crate) mod incoming_doorbells;
pub(crate) mod kept_options;
pub(crate) mod outgoing_doorbells;
pub(crate) mod read_lock;
pub(crate) mod segment;
pub(crate) mod transitions;
pub(crate) mod write_lock;

use crate::pipe::connection::read_lock::ReadHeld;
use crate::pipe::connection::segment::Segment;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::state::Socket;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::socket::Local;
use crate::state::socket_table::{self, Entry, STATE_PIPE};
use crate::sys::{clock, thread};
use core::ffi::c_int;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};
use sockshim_ring::layout::{self, Direction, Header};

/// Says in a direction's word on which processor this end runs. The word is mostly right already, and the other
/// end reads its line: so it is looked at first.
#[inline]
pub(crate) fn note_cpu(word: &AtomicU32) {
    let own = thread::cpu() + 1;
    if word.load(Ordering::Relaxed) != own {
        word.store(own, Ordering::Relaxed);
    }
}

/// Whether the end that says so in a direction's word runs on this processor.
#[inline]
pub(crate) fn runs_here(word: &AtomicU32) -> bool {
    word.load(Ordering::Relaxed) == thread::cpu() + 1
}

/// Says when `count` bytes after `position` are published, to a reader who reports connections in the order in which they
/// came up. Before the publication.
#[inline]
pub(crate) fn note_publish_time(held: &WriteHeld<'_>, position: u64, count: usize) {
    let outgoing = held.outgoing();
    if outgoing.is_ordered() {
        note_now(outgoing, position.wrapping_add(count as u64));
    }
}

/// Not inline: the usual write needs its registers.
#[inline(never)]
fn note_now(outgoing: &Direction, end: u64) {
    outgoing.note_publish_time(end, clock::ticks());
}

/// For a [`Pipe`] that is only looked at: no descriptor.
pub(crate) const NO_FD: c_int = -1;

/// One end of a connection whose segment this process has mapped: what may be looked at by anybody, and is all that a
/// function has that is called with one of the end's locks held. Nothing in here locks or waits.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// A descriptor of this process for the socket, when this was made; [`NO_FD`]: none is known. See [`Pipe::descriptor`].
    pub(crate) fd: c_int,
    pub(crate) socket: Socket,
    pub(crate) entry: &'static Entry,
    pub(crate) local: &'static Local,
    base: *mut u8,
    /// Which end we are.
    end: usize,
}

impl End {
    /// The end of a socket whose state says that it has one.
    ///
    /// The mapping's address range is never given back to the system (see [`segment::recycle`]), so a thread
    /// that comes late finds an empty page, not a fault.
    #[inline]
    fn of(fd: c_int, socket: Socket, entry: &'static Entry) -> Option<Self> {
        let local = socket.local();
        let base = local.segment.load(Ordering::Acquire);
        (!base.is_null()).then(|| Self {
            fd,
            socket,
            entry,
            local,
            base,
            end: local.end.load(Ordering::Relaxed) as usize & 1,
        })
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: `base` is a mapping of FRONT_SIZE bytes, page-aligned, and holds only atomics here.
        unsafe { &*self.base.cast::<Header>() }
    }

    fn direction(&self, index: usize) -> &Direction {
        // SAFETY: as for `header`; the offset is within the first page and 1024-aligned.
        unsafe { &*self.base.wrapping_add(layout::direction_offset(index)).cast::<Direction>() }
    }

    /// The direction that this end reads.
    #[inline]
    pub(crate) fn incoming(&self) -> &Direction {
        self.direction(1 - self.end)
    }

    /// The direction that this end writes.
    #[inline]
    pub(crate) fn outgoing(&self) -> &Direction {
        self.direction(self.end)
    }

    /// Whether the other end last wrote on this processor.
    #[inline]
    pub(crate) fn is_writer_here(&self) -> bool {
        runs_here(&self.incoming().producer.cpu)
    }

    /// First byte of the ring that this end reads, at the time when it has `capacity` bytes: as many, if that is a checked
    /// capacity. By the capacity alone, so that who looked at it before a signal handler went on stays inside the
    /// ring that it saw.
    #[inline]
    pub(crate) fn incoming_ring(&self, capacity: u32) -> *mut u8 {
        self.local.incoming[layout::place_of(capacity)].load(Ordering::Relaxed)
    }

    /// The same of the ring that this end writes.
    #[inline]
    pub(crate) fn outgoing_ring(&self, capacity: u32) -> *mut u8 {
        self.local.outgoing[layout::place_of(capacity)].load(Ordering::Relaxed)
    }

    /// Lets go of the segment.
    pub(crate) fn recycle(&self) {
        self.segment().recycle();
    }

    #[inline]
    pub(crate) fn segment(&self) -> Segment {
        Segment { front: self.base, rings: self.local.rings.load(Ordering::Relaxed) }
    }

    /// State of the other end, `END_*`.
    pub(crate) fn other_end(&self) -> u32 {
        self.header().ends[1 - self.end].load(Ordering::Acquire)
    }

    pub(crate) fn set_own_end(&self, state: u32) {
        self.header().ends[self.end].store(state, Ordering::Release);
    }

    /// Whether this process still has the segment. Another thread may have closed the socket; then slot, address
    /// range and descriptor number may all be another connection's by now.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        self.local.segment.load(Ordering::Acquire) == self.base && self.socket.entry().is_some()
    }

    /// A descriptor of this process for the socket, `fd` if it still is one: while a thread slept, another one
    /// may have closed it, and its number may name something else.
    pub(crate) fn descriptor(&self) -> Option<c_int> {
        let wanted = Descriptor::Socket(self.socket);
        if descriptor_table::peek(self.fd) == wanted {
            return Some(self.fd);
        }
        (0..socket_table::highest() as c_int).find(|other| descriptor_table::peek(*other) == wanted)
    }

    /// Whether new ring epochs may begin.
    pub(crate) fn is_open(&self) -> bool {
        self.entry.state.load(Ordering::Relaxed) == socket_table::STATE_PIPE
    }
}

/// A connection whose segment this process has mapped, as a thread sees it that has none of its locks: it may take them
/// ([`Pipe::lock_reads`], [`Pipe::lock_writes`]), and wait.
#[derive(Clone, Copy)]
pub(crate) struct Pipe(End);

impl Deref for Pipe {
    type Target = End;

    #[inline]
    fn deref(&self) -> &End {
        &self.0
    }
}

impl Pipe {
    /// The pipe of a socket whose state says that it has one.
    #[inline]
    pub(crate) fn of(fd: c_int, socket: Socket, entry: &'static Entry) -> Option<Self> {
        End::of(fd, socket, entry).map(Self)
    }

    /// The same of a socket that may have none, or be no more.
    pub(crate) fn find(fd: c_int, socket: Socket) -> Option<Self> {
        Self::of(fd, socket, socket.entry()?)
    }

    /// The same pipe, with a descriptor that names it now.
    #[inline]
    pub(crate) fn live(&self) -> Option<Self> {
        let fd = self.descriptor()?;
        Some(Self(End { fd, ..self.0 }))
    }

    /// The read lock, which comes before the write lock of the same end.
    #[inline]
    pub(crate) fn lock_reads(&self) -> ReadHeld<'_> {
        ReadHeld::take(self, false)
    }

    /// The write lock.
    #[inline]
    pub(crate) fn lock_writes(&self) -> WriteHeld<'_> {
        self.lock_writes_for(false)
    }

    /// The same; `nonblocking`: for a call that does not wait.
    #[inline]
    pub(crate) fn lock_writes_for(&self, nonblocking: bool) -> WriteHeld<'_> {
        WriteHeld::take(self, nonblocking)
    }

    /// The same, only if nobody has it.
    pub(crate) fn lock_writes_if_free(&self) -> Option<WriteHeld<'_>> {
        WriteHeld::take_free(self)
    }
}

/// The pipe, when the socket's reads must know about doorbells.
#[inline]
pub(crate) fn reading_pipe(fd: c_int, socket: Socket, entry: &'static Entry) -> Option<Pipe> {
    if !entry.readers.is_ready() {
        return None;
    }
    Pipe::of(fd, socket, entry)
}

/// The pipe, when the socket has a segment that both ends know.
#[inline]
pub(crate) fn writing_pipe(fd: c_int, socket: Socket, entry: &'static Entry) -> Option<Pipe> {
    if entry.state.load(Ordering::Acquire) < STATE_PIPE {
        return None;
    }
    Pipe::of(fd, socket, entry)
}
