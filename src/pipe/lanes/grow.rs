//! How large a ring is: a part of the segment's first page at first, and more by use.
//!
//! A ring changes its size only while it is empty, and gets its memory before its capacity says so. The first one takes no
//! memory; it and one of a page grow as soon as they are too small for anything, larger ones more reluctantly. All of it
//! happens under the write lock.

use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, Pipe};
use crate::pipe::copying::bulk;
use crate::pipe::lanes::writer;
use crate::state::config;
use crate::state::flags::SocketFlags;
use crate::sys::{kernel, probe};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{MAX_CAPACITY, SMALL_CAPACITY, TINY_CAPACITY};

/// Capacity of a ring that has been too small once.
const WORKING_CAPACITY: u32 = 32 * 1024;

/// Times that such a ring is full before it is made larger.
const STALLS: u32 = 8;

/// Before the ring opens: it gets its first size; or it has become too large for the buffers; or it was full when it was
/// left. False: there is no memory.
pub(crate) fn prepare(held: &WriteHeld<'_>) -> bool {
    let (capacity, limit) = (capacity(held), find_limit(held));
    if capacity == 0 || capacity > limit {
        return resize(held, TINY_CAPACITY.min(limit));
    }
    let nonblocking = held.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NONBLOCK);
    if (capacity < WORKING_CAPACITY || nonblocking) && held.local.stalls.load(Ordering::Relaxed) >= STALLS {
        // If there is no memory, the old size does as well.
        by_use(held);
    }
    true
}

/// Makes the ring larger when a write found it too small and it is empty.
#[inline]
pub(crate) fn by_use(held: &WriteHeld<'_>) -> bool {
    let (capacity, most) = (capacity(held), most(held));
    let is_busy = held.local.stalls.load(Ordering::Relaxed) >= STALLS;
    let least = if capacity < SMALL_CAPACITY && !is_busy { SMALL_CAPACITY } else { WORKING_CAPACITY };
    let larger = capacity.saturating_mul(4).max(least);
    capacity < most && !held.outgoing().has_bytes() && resize(held, larger.min(most))
}

/// Whether the ring was full so often that a larger one is worth waiting for, until this one is empty. It is asked once
/// for each time that it is full.
pub(crate) fn is_due(end: &End, nonblocking: bool) -> bool {
    let capacity = capacity(end);
    // A writer that must not wait leaves a ring that stays full.
    let enough = if capacity < WORKING_CAPACITY || nonblocking { 1 } else { STALLS };
    let stalls = end.local.stalls.load(Ordering::Relaxed) + 1;
    let often = stalls >= enough && capacity < most(end);
    end.local.stalls.store(if often { 0 } else { stalls.min(STALLS) }, Ordering::Relaxed);
    often
}

/// The ring is left because it is full: see [`prepare`].
pub(crate) fn keep_in_mind(end: &End) {
    end.local.stalls.store(STALLS, Ordering::Relaxed);
}

/// Leaves a ring that is too large for the send buffer: it opens again smaller.
pub(crate) fn fit(pipe: &Pipe) {
    let held = pipe.lock_writes();
    if held.is_mapped() && capacity(&held) > find_limit(&held) && is_ring(held.outgoing().epoch()) {
        writer::spill(&held);
    }
}

fn capacity(end: &End) -> u32 {
    end.outgoing().producer.capacity.load(Ordering::Relaxed)
}

/// How large the ring may become.
fn most(end: &End) -> u32 {
    end.entry.ring_limit.load(Ordering::Relaxed).min(config::ring_max())
}

/// Finds out how large the ring may become: neither end's buffer size forbids it.
fn find_limit(end: &End) -> u32 {
    let own = allowed(end, libc::SO_SNDBUF);
    let limit = match end.outgoing().reader.ring_limit.load(Ordering::Relaxed) {
        0 => own,
        other => own.min(1 << other.ilog2()),
    };
    end.entry.ring_limit.store(limit, Ordering::Relaxed);
    limit
}

/// Gives pages to the ring, then its capacity. The ring is empty.
#[cold]
fn resize(held: &WriteHeld<'_>, capacity: u32) -> bool {
    let capacity = capacity.next_power_of_two().clamp(TINY_CAPACITY, MAX_CAPACITY);
    // The first page is there.
    if capacity > TINY_CAPACITY && probe::populate(held.outgoing_ring(capacity), capacity as usize).is_err() {
        return false;
    }
    held.outgoing().producer.capacity.store(capacity, Ordering::Release);
    held.local.stalls.store(0, Ordering::Relaxed);
    bulk::start_again(&held.local.bulk);
    true
}

/// The largest ring that suits a buffer, `SO_SNDBUF` or `SO_RCVBUF`: a program that has set its size wants to be held
/// back when so much is under way.
pub(crate) fn allowed(end: &End, name: c_int) -> u32 {
    let most = config::ring_max();
    let most = if end.segment().has_rings() { most } else { most.min(SMALL_CAPACITY) };
    match kernel::fixed_buffer(end.fd, name) {
        Some(size) => most.min(1 << size.max(SMALLEST).ilog2()),
        None => most,
    }
}

/// The smallest ring: a page.
const SMALLEST: c_int = 4096;
