//! The usual read and write: one buffer, both ends in the ring, and what is asked for is there at once.
//!
//! What programs do a million times a second, in as few instructions as can be. Each function does the whole call,
//! by the rules of [`super::read`] and [`super::write`], or it does nothing and says so; then those do it.
//!
//! # Safety
//! As [`crate::pipe::copying::buffers`]: the buffer is looked at before it is used.

use crate::error::Errno;
use crate::pipe::connection::read_lock::ReadHeld;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{self, Pipe, guard, outgoing_doorbells};
use crate::pipe::copying::buffers;
use crate::pipe::lanes::writer;
use crate::pipe::waiting::spin;
use crate::state::socket_table;
use crate::sys::thread;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{CLOSED, Direction, END_JOINED};
use sockshim_ring::ring::{Seen, Span};

/// Longer writes are not the usual ones.
const MOST: usize = 4096;

/// Distance of the line that a write asks for in advance: a few small messages.
const AHEAD: usize = 512;

/// Writes `length` bytes into the ring. `None`: nothing has happened.
///
/// # Safety
/// The buffer is the program's.
#[inline]
pub(crate) unsafe fn write(pipe: &Pipe, from: *const u8, length: usize) -> Option<Result<(), Errno>> {
    if length.wrapping_sub(1) >= MOST {
        return None;
    }
    // SAFETY: the buffer is the program's, as the caller says.
    guard::with_free(pipe, |held: &WriteHeld<'_>| unsafe { write_locked(held, from, length) })?
}

#[inline(always)]
unsafe fn write_locked(held: &WriteHeld<'_>, from: *const u8, length: usize) -> Option<Result<(), Errno>> {
    let outgoing = held.outgoing();
    if !held.is_mapped()
        || !is_ring(outgoing.epoch())
        || outgoing.producer.tail.load(Ordering::Relaxed) & CLOSED != 0
        || held.other_end() != END_JOINED
        || !writer::reader_lives(held)
    {
        return None;
    }
    let mut seen = held.local.seen_head.load(Ordering::Relaxed);
    let span = outgoing.writable(&mut seen, length).ok()?;
    held.local.seen_head.store(seen, Ordering::Relaxed);
    if span.length < length || !buffers::is_good(from, length, false) {
        return None;
    }
    let ring = held.outgoing_ring(span.capacity);
    // SAFETY: the ring has its capacity; so many bytes of the program's buffer were looked at just now.
    unsafe { buffers::to_ring(from, ring, span.pieces(0, length), core::ptr::copy_nonoverlapping) };
    // Before the publication: afterwards the reader has the line.
    connection::note_cpu(&outgoing.producer.cpu);
    connection::note_publish_time(held, span.position, length);
    outgoing.publish(span.position, length).ok()?;
    socket_table::add(&held.entry.counters.sent, length as u64);
    // The reader still has the lines that the next writes fill; a publication would wait for them to come.
    thread::will_write(ring.wrapping_add(span.pieces(length + AHEAD, 1)[0].0));
    Some(if outgoing.need_wakeup() != 0 { outgoing_doorbells::wake(held) } else { Ok(()) })
}

/// Reads what the ring has, up to `length` bytes. `None`: nothing has happened.
///
/// # Safety
/// The buffer is the program's.
#[inline]
pub(crate) unsafe fn read(pipe: &Pipe, to: *mut u8, length: usize) -> Option<usize> {
    if !buffers::is_in_reach(to, length) {
        return None;
    }
    // SAFETY: the buffer is the program's, as the caller says.
    guard::with_free(pipe, |held: &ReadHeld<'_>| unsafe { read_locked(held, to, length) })?
}

#[inline(always)]
unsafe fn read_locked(held: &ReadHeld<'_>, to: *mut u8, length: usize) -> Option<usize> {
    let incoming = held.incoming();
    let epoch = incoming.reader_epoch();
    // With the writer in another lane there may be more to come than the ring has.
    if !held.is_mapped() || !is_ring(epoch) || incoming.epoch() != epoch {
        return None;
    }
    let local = held.local;
    let (tail, capacity) = (&local.seen_tail, &local.seen_capacity);
    let mut seen = Seen { tail: tail.load(Ordering::Relaxed), capacity: capacity.load(Ordering::Relaxed) };
    let before = seen;
    let mut span = incoming.readable_from(&mut seen, length).ok()?;
    if seen != before {
        if spin::let_more_come(held, span.length) {
            (seen, span) = look_again(incoming, seen)?;
        }
        tail.store(seen.tail, Ordering::Relaxed);
        capacity.store(seen.capacity, Ordering::Relaxed);
    }
    let count = span.length.min(length);
    if count == 0 || !buffers::is_good(to, count, true) {
        return None;
    }
    let ring = held.incoming_ring(span.capacity);
    // SAFETY: the ring has its capacity; so many bytes of the program's buffer were looked at just now.
    unsafe { buffers::from_ring(ring, span.pieces(0, count), to) };
    if !incoming.consume(&span, count) {
        return None;
    }
    connection::note_cpu(&incoming.consumer.cpu);
    local.unwatched.store(0, Ordering::Relaxed);
    socket_table::add(&held.entry.counters.received, count as u64);
    Some(count)
}

/// What there is by now. By value: the hot path keeps its copies in registers.
#[cold]
fn look_again(incoming: &Direction, mut seen: Seen) -> Option<(Seen, Span)> {
    let span = incoming.readable_from(&mut seen, usize::MAX).ok()?;
    Some((seen, span))
}
