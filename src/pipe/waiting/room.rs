//! A full ring and a writer that must not wait: it hears that there is no room, as from the kernel, and hears of
//! room when the reader has made some.
//!
//! Without this an event loop's bulk would go through the kernel: a full ring spills, and whoever writes until EAGAIN keeps
//! the kernel's buffers full from then on. So a writer whose reader is *seen to read* gets a short count, or EAGAIN, and the
//! socket counts as not writable although the kernel's queue is empty. Before a thread sleeps until it is writable,
//! it says so in the segment, and the reader rings a doorbell in its own direction once it has released something.
//!
//! All of this is a promise that the reader goes on. When it does not for [`PATIENCE_US`], or waits for room itself, the
//! promise is void: the kernel's answer counts again, and the next write spills. So nobody sleeps on the ring for longer
//! than that, whatever the other end does, and a pipe takes what the kernel would take.
//!
//! Not where a set reports by edges (EPOLLET): see [`is_reported_by_edges`].

use crate::error::Errno;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{self, End, Pipe, outgoing_doorbells};
use crate::pipe::lanes::{grow, writer};
use crate::pipe::waiting::timed_wait;
use crate::state::flags::SocketFlags;
use crate::state::socket_table::{self, Entry, Registration, SocketTable};
use crate::sys::give_way::give_way;
use crate::sys::handlers::Since;
use crate::sys::{clock, futex, kernel};
use core::sync::atomic::{AtomicU32, Ordering};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{CLOSED, END_JOINED};
use sockshim_ring::sleep::{DOORBELL, WAKE};

/// Bytes that one write takes at most when it must not wait: the kernel's largest send buffer (net.ipv4.tcp_wmem).
pub(crate) const MOST_AT_ONCE: usize = 4 << 20;

/// Smaller rings hold too little of what the kernel would take.
pub(crate) const ENOUGH: u32 = 256 * 1024;

/// Bytes that the kernel takes of a blocking write before it makes it wait. A write of which less is left does not wait for a
/// reader that it cannot see move: the kernel lets it go.
pub(crate) const KERNEL_TAKES: usize = MOST_AT_ONCE;

/// Looks for room between two times of giving way; none at all with the reader on the same processor.
const LOOKS: u32 = 16;

/// How long a write with so many bytes left waits on the futex where the kernel would take them without a wait: the kernel
/// would copy them for about as long. A write that must not wait does so once, to see a reader read of which it has not seen
/// that yet.
pub(crate) const LOOK_NS: u64 = 500_000;

pub(crate) const LONG: usize = 1 << 20;

pub(crate) const TIMED_WAITS: u32 = 4;

/// How long a reader may stand still before the promise is void.
const PATIENCE_US: u64 = 10_000;

pub(crate) const PATIENCE_NS: u64 = PATIENCE_US * 1000;

/// How long a reader is waited for under the write lock that goes on to take the kernel's bytes.
const MOST_PATIENCE_US: u64 = 20_000;

/// A look that is older says nothing of what the reader does now. Longer than a sleep for room.
const LATELY_US: u64 = 2 * PATIENCE_US;

/// Bytes for which a reader is not trusted again that has stood still: at first, and how often that is doubled if it does so
/// again soon after.
const DISTRUST: u64 = 4 << 20;

const DOUBTS: u32 = 4;

const SOON: u64 = 64 << 20;

/// What a full ring means for the question whether the socket is writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing: the kernel's answer counts.
    KernelSays,
    /// There is room in the ring again.
    Some,
    /// None: not writable.
    Awaited,
    /// It was awaited for too long. Said once; from then on the kernel's answer counts.
    GivenUp,
}

/// Whether a write that must not wait and finds the ring full may say so.
#[cold]
pub(crate) fn may_be_awaited(held: &WriteHeld<'_>) -> bool {
    let (outgoing, incoming) = (held.outgoing(), held.incoming());
    let tail = outgoing.producer.tail.load(Ordering::Relaxed);
    outgoing.producer.capacity.load(Ordering::Relaxed) >= ENOUGH
        && tail & CLOSED == 0
        && tail >= held.local.distrusted.load(Ordering::Relaxed)
        // Or the reader's doorbell could not be told from data.
        && held.entry.readers.is_ready()
        // An end that has shut its own direction cannot ring.
        && (is_ring(incoming.epoch()) || kernel::poll_now(held.fd, libc::POLLRDHUP) == 0)
        && has_one_observer(held.entry)
}

/// Whether one set at most looks at the socket, by our calls alone, and whenever it is waited for.
fn has_one_observer(entry: &Entry) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    let mut registrations = registrations(socket_table, entry);
    let Some(registration) = registrations.next() else { return true };
    let slot = registration.set.load(Ordering::Acquire).checked_sub(1);
    registrations.next().is_none()
        && registration.events.load(Ordering::Relaxed) & EDGES == 0
        && slot.is_some_and(|slot| socket_table.set(slot).watched.load(Ordering::Relaxed) == 0)
}

/// Whether a set reports this socket once for each change (EPOLLET). Such a program hears of room from the kernel alone: a
/// thread that sleeps in the set already, or in one that has not looked at this socket for long, would not hear of the ring's.
#[cold]
pub(crate) fn is_reported_by_edges(entry: &Entry) -> bool {
    socket_table::get().is_some_and(|socket_table| {
        registrations(socket_table, entry).any(|one| one.events.load(Ordering::Relaxed) & EDGES != 0)
    })
}

const EDGES: u32 = libc::EPOLLET as u32;

fn registrations<'a>(
    socket_table: &'a SocketTable,
    entry: &'a Entry,
) -> impl Iterator<Item = &'a Registration> {
    let numbers = entry.registrations.iter().filter_map(|place| place.load(Ordering::Acquire).checked_sub(1));
    numbers.map(|index| socket_table.registration(index))
}

/// The writer comes back with less than it was given, which says nothing of the kernel's queue: EPOLLOUT is due when there is
/// room in the ring, and at once in the kernel's lane.
pub(crate) fn note_full(end: &End) {
    end.local.is_cut.store(1, Ordering::Relaxed);
    end.entry.flags.set(SocketFlags::NO_SPACE | SocketFlags::RING_FULL, Ordering::Relaxed);
}

/// How far the reader is in both lanes: before it comes to the ring it takes what the kernel has.
fn progress(end: &End) -> u64 {
    let outgoing = end.outgoing();
    let read = outgoing.reader.kernel_read.load(Ordering::Relaxed);
    outgoing.consumer.head.load(Ordering::Acquire).wrapping_add(read)
}

/// Before a long write: how far the reader is now. What it does from here on shows whether it reads, and what it has done for
/// what was written before, if this goes on with it: the last write was short, or not all of it has been read yet.
#[inline(never)]
pub(crate) fn look(end: &End) {
    note_progress(end);
    if end.local.is_cut.swap(0, Ordering::Relaxed) == 0 && !end.outgoing().has_bytes() {
        end.local.moved.store(0, Ordering::Relaxed);
    }
}

/// Notes how far the reader is, and whether it has moved since the last look, if that was lately; what time it is.
fn note_progress(end: &End) -> u64 {
    let (local, now, here) = (end.local, clock::ticks(), progress(end));
    let is_fresh = now.wrapping_sub(local.looked.swap(now, Ordering::Relaxed)) < clock::from_us(LATELY_US);
    if local.progress.swap(here, Ordering::Relaxed) != here && is_fresh {
        local.moved.store(now, Ordering::Relaxed);
    }
    now
}

/// Whether the reader has moved in the last milliseconds, or since the last look.
pub(crate) fn is_seen_to_read(end: &End) -> bool {
    let now = note_progress(end);
    let moved = end.local.moved.load(Ordering::Relaxed);
    moved != 0 && now.wrapping_sub(moved) < clock::from_us(PATIENCE_US)
}

/// What the ring has to say to whether the socket is writable. Without a lock: hints, and one bit.
#[inline]
pub(crate) fn now(end: &End) -> Room {
    if is_known(end) { after_full(end) } else { Room::KernelSays }
}

/// Whether the last write has met a full ring, which is then asked for room.
#[inline]
pub(crate) fn is_known(end: &End) -> bool {
    end.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::RING_FULL)
}

/// Whether there is room again; a look that decides nothing.
#[inline]
pub(crate) fn has_come(end: &End) -> bool {
    is_known(end) && end.outgoing().has_room()
}

#[cold]
fn after_full(end: &End) -> Room {
    let outgoing = end.outgoing();
    if !is_ring(outgoing.epoch()) || outgoing.is_closed() {
        forget(end);
        return Room::GivenUp;
    }
    if outgoing.has_room() {
        return Room::Some;
    }
    if is_seen_to_read(end) { Room::Awaited } else { give_up(end) }
}

/// The promise is void.
#[cold]
fn give_up(end: &End) -> Room {
    let local = end.local;
    let tail = end.outgoing().producer.tail.load(Ordering::Relaxed) & !CLOSED;
    let is_soon = tail.wrapping_sub(local.distrusted.load(Ordering::Relaxed)) < SOON;
    let doubts = if is_soon { local.doubts.load(Ordering::Relaxed).saturating_add(1).min(DOUBTS) } else { 0 };
    local.doubts.store(doubts, Ordering::Relaxed);
    local.distrusted.store(tail + (DISTRUST << doubts), Ordering::Relaxed);
    forget(end);
    Room::GivenUp
}

/// The kernel's answer counts: others look at it who do not ask us.
pub(crate) fn forget(end: &End) {
    end.entry.flags.clear(SocketFlags::RING_FULL, Ordering::Relaxed);
}

/// Before a sleep until the socket is writable, with a doorbell wanted: says so to the reader, and looks again.
pub(crate) fn await_it(end: &End) -> Room {
    let room = now(end);
    if room != Room::Awaited {
        return room;
    }
    if end.outgoing().await_room(DOORBELL).is_none() {
        return Room::Some;
    }
    let incoming = end.incoming();
    if incoming.is_room_awaited() && incoming.has_bytes() {
        // Each end waits for the other one to read.
        return give_up(end);
    }
    PROMISES.fetch_add(1, Ordering::Relaxed);
    Room::Awaited
}

/// Counts what [`await_it`] has said of room that is awaited, for any pipe of this process.
static PROMISES: AtomicU32 = AtomicU32::new(0);

/// Changes while a thread prepares to sleep, if that sleep must not be longer than [`PATIENCE_NS`]. It may change for
/// another thread's sake: then this one looks once more than it would have to.
pub(crate) fn promises() -> u32 {
    PROMISES.load(Ordering::Relaxed)
}

/// After a read: wakes a writer that waits for the room that there is now.
#[inline]
pub(crate) fn report(pipe: &Pipe) {
    if pipe.incoming().is_room_awaited() {
        answer(pipe);
    }
}

#[cold]
#[inline(never)]
fn answer(pipe: &Pipe) {
    let incoming = pipe.incoming();
    if !incoming.has_room() {
        return;
    }
    // Whoever has it may have it for long; the next read tries again, and the writer does not wait for ever.
    let Some(pipe) = pipe.live() else { return };
    let Some(held) = pipe.lock_writes_if_free() else { return };
    if held.is_mapped() {
        let due = incoming.room_due();
        if due & WAKE != 0 {
            futex::wake(&incoming.room.awaited);
        }
        if due & DOORBELL != 0 {
            ring(&held);
        }
    }
}

/// A doorbell in this end's own direction, whose ring opens for it if need be.
fn ring(held: &WriteHeld<'_>) {
    if (is_ring(held.outgoing().epoch()) || writer::open_for_doorbell(held))
        && let Err(error) = outgoing_doorbells::wake(held)
        && !outgoing_doorbells::is_refusal(error)
    {
        // The kernel reports it once.
        held.entry.pending_error.store(error.0, Ordering::Release);
    }
}

/// What a write does when the ring is full and spinning was in vain: it waits on the futex for so many nanoseconds at most. Not
/// under a lock. False: the reader stands still, or a signal handler has run, or it cannot be done here.
#[cold]
#[inline(never)]
pub(crate) fn timed_wait(pipe: &Pipe, began: Since, most: u64) -> bool {
    let outgoing = pipe.outgoing();
    if !timed_wait::is_possible() || !pipe.is_mapped() {
        return false;
    }
    let before = progress(pipe);
    let Some(seen) = outgoing.await_room(WAKE) else { return true };
    if outgoing.is_closed() || pipe.other_end() != END_JOINED || began.has_any() {
        return false;
    }
    socket_table::add(&pipe.entry.counters.sleeps, 1);
    let result = futex::wait(&outgoing.room.awaited, seen, most);
    if !matches!(result, Ok(()) | Err(Errno(libc::EAGAIN | libc::ETIMEDOUT))) {
        return false;
    }
    pipe.is_mapped() && progress(pipe) != before
}

/// Waits a bounded time for a reader that makes progress, spinning and giving way; false: there is no room.
#[cold]
#[inline(never)]
pub(crate) fn wait(held: &WriteHeld<'_>, seen_head: u64, patience_us: u64, nonblocking: bool) -> bool {
    let outgoing = held.outgoing();
    let patience = clock::from_us(patience_us);
    let until_empty = grow::is_due(held, nonblocking);
    let is_over = || {
        // When the memory for more is not there, the ring does as it is.
        outgoing.has_moved_on(seen_head) && (!until_empty || grow::by_use(held) || !outgoing.has_bytes())
    };
    let began = clock::ticks();
    let mut since = began;
    let mut kernel_read = outgoing.reader.kernel_read.load(Ordering::Relaxed);
    loop {
        let shares_cpu = connection::runs_here(&outgoing.consumer.cpu);
        for _ in 0..if shares_cpu { 0 } else { LOOKS } {
            if is_over() {
                return true;
            }
            (0..4).for_each(|_| core::hint::spin_loop());
        }
        // Where giving way costs too much, a reader on this processor has to wait until we sleep.
        let in_vain = give_way(clock::ticks()).is_none() && shares_cpu;
        if is_over() {
            return true;
        }
        let now = clock::ticks();
        // Before it comes to the ring the reader may still be taking kernel bytes: that is progress, as long as it can be true.
        let read = outgoing.reader.kernel_read.load(Ordering::Relaxed);
        let is_long = now.wrapping_sub(began) > clock::from_us(MOST_PATIENCE_US);
        if read != kernel_read && !nonblocking && !is_long {
            kernel_read = read;
            since = now;
        }
        // One that does not wait for room either wants to write: it finds out in the kernel's lane whether there is some.
        let is_urgent = held.is_urgent();
        if in_vain || is_urgent || now.wrapping_sub(since) > patience || outgoing.is_closed() {
            let moved = outgoing.has_moved_on(seen_head);
            if !moved {
                grow::keep_in_mind(held);
            }
            return moved;
        }
    }
}
