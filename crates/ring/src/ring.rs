//! Moving bytes through a direction's ring.
//!
//! Positions run freely (63 bits); an offset is a position modulo the capacity. Copy first, publish after:
//! until the compare-and-swap of [`Direction::publish`] or [`Direction::consume`] nothing has happened, so a
//! copy that faults, or a signal handler that uses the same ring in between, leaves the ring as it was.

use crate::layout::{CLOSED, Direction, MAX_CAPACITY};
use crate::sync::{Ordering, fence_after_rmw};

/// Why a publication did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// The reader closed the ring: the bytes belong into the kernel lane.
    Closed,
    /// Somebody else (a signal handler of this thread) published first: copy again, at the new position.
    Moved,
}

/// The index words of a damaged ring: the other end wrote nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// A stretch of the ring: where it starts and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub position: u64,
    /// Number of bytes.
    pub length: usize,
    /// Capacity that turns a position into an offset.
    pub capacity: u32,
}

impl Span {
    /// The two contiguous pieces `(offset, length)` of `count` bytes after the first `skip`; the second one may
    /// be empty. Both lie within the capacity, whatever is asked; so without a ring both are empty.
    #[inline]
    #[must_use]
    pub fn pieces(&self, skip: usize, count: usize) -> [(usize, usize); 2] {
        let capacity = self.capacity as usize;
        let offset = (self.position as usize).wrapping_add(skip) & capacity.saturating_sub(1);
        let first = count.min(capacity - offset);
        [(offset, first), (0, (count - first).min(offset))]
    }
}

/// A reader's own copy of what the writer has published.
///
/// The writer changes the capacity only while the ring is empty: so it is right for as long as there is anything before
/// the copied tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes published.
    pub tail: u64,
    /// The ring's capacity when they were published.
    pub capacity: u32,
}

/// Bytes from one position to a later one; positions wrap around at 2^63.
#[inline]
const fn distance(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from) & !CLOSED
}

impl Direction {
    /// Capacity of the ring now, checked: a power of two within the mapping, or 0 while there is none.
    #[inline]
    fn checked_capacity(&self) -> Result<u32, Damaged> {
        let capacity = self.producer.capacity.load(Ordering::Relaxed);
        if capacity <= MAX_CAPACITY && (capacity & capacity.wrapping_sub(1)) == 0 {
            Ok(capacity)
        } else {
            Err(Damaged)
        }
    }

    /// What a writer may fill. `seen_head` is its copy of the position that the reader has released, looked up again
    /// only when the copy says that the ring has less than `wanted` bytes of room.
    ///
    /// # Errors
    /// [`Damaged`] when the indices cannot be true.
    #[inline]
    pub fn writable(&self, seen_head: &mut u64, wanted: usize) -> Result<Span, Damaged> {
        let tail = self.producer.tail.load(Ordering::Relaxed) & !CLOSED;
        let capacity = self.checked_capacity()?;
        let mut used = distance(*seen_head, tail);
        if used > u64::from(capacity) || (u64::from(capacity) - used) < wanted as u64 {
            // pairs with: consume
            *seen_head = self.room.released.load(Ordering::Acquire);
            used = distance(*seen_head, tail);
            if used > u64::from(capacity) {
                return Err(Damaged);
            }
        }
        Ok(Span { position: tail, length: (u64::from(capacity) - used) as usize, capacity })
    }

    /// Whether a writer that waits for room may go on: a quarter of the ring is free, which is what the reader gives back at
    /// once. True for a ring that is damaged, too: a write finds that out.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let mut seen = self.room.released.load(Ordering::Acquire);
        self.writable(&mut seen, 1).map_or(true, |span| span.length >= (span.capacity as usize / 4).max(1))
    }

    /// Whether the reader has released anything since that position was `seen_head`.
    #[inline]
    #[must_use]
    pub fn has_moved_on(&self, seen_head: u64) -> bool {
        distance(seen_head, self.room.released.load(Ordering::Acquire)) != 0
    }

    /// Makes `count` bytes after `position` visible to the reader. A full barrier: a following look at
    /// `asleep` is not overtaken by it.
    ///
    /// # Errors
    /// [`NotPublished`]; then nothing has happened.
    #[inline]
    pub fn publish(&self, position: u64, count: usize) -> Result<(), NotPublished> {
        // pairs with: readable
        let moved = self.producer.tail.compare_exchange(
            position,
            position.wrapping_add(count as u64) & !CLOSED,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        fence_after_rmw();
        match moved {
            Ok(_) => Ok(()),
            Err(found) if found & CLOSED != 0 => Err(NotPublished::Closed),
            Err(_) => Err(NotPublished::Moved),
        }
    }

    /// What a reader may take. When that is nothing, everything before is released.
    ///
    /// # Errors
    /// [`Damaged`] when the indices cannot be true.
    #[inline]
    pub fn readable(&self) -> Result<Span, Damaged> {
        self.readable_from(&mut Seen::default(), usize::MAX)
    }

    /// The same. `seen` is the reader's copy of what was published, looked up again only when the copy says that there
    /// are less than `wanted` bytes.
    ///
    /// # Errors
    /// [`Damaged`] when the indices cannot be true.
    #[inline]
    pub fn readable_from(&self, seen: &mut Seen, wanted: usize) -> Result<Span, Damaged> {
        loop {
            // Before the position: see `release`.
            let released = self.room.released.load(Ordering::Relaxed);
            let head = self.consumer.head.load(Ordering::Relaxed);
            let mut used = distance(head, seen.tail);
            if used > u64::from(seen.capacity) || used < wanted as u64 {
                // pairs with: publish
                seen.tail = self.producer.tail.load(Ordering::Acquire) & !CLOSED;
                seen.capacity = self.checked_capacity()?;
                used = distance(head, seen.tail);
            }
            if used <= u64::from(seen.capacity) {
                if used == 0 {
                    self.release(released, head);
                }
                return Ok(Span { position: head, length: used as usize, capacity: seen.capacity });
            }
            // A signal handler of this thread may have read between the two looks, and the writer have gone on.
            if self.consumer.head.load(Ordering::Relaxed) == head {
                return Err(Damaged);
            }
        }
    }

    /// Whether there is anything to take; a look without a lock.
    #[inline]
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        let tail = self.producer.tail.load(Ordering::Acquire);
        distance(self.consumer.head.load(Ordering::Relaxed), tail) != 0
    }

    /// Takes the first `count` bytes of `span`; false when somebody else (a signal handler of this thread) took them
    /// first: then copy again, at the new position.
    #[inline]
    #[must_use]
    pub fn consume(&self, span: &Span, count: usize) -> bool {
        let released = self.room.released.load(Ordering::Relaxed);
        let next = span.position.wrapping_add(count as u64) & !CLOSED;
        let head = &self.consumer.head;
        if head.compare_exchange(span.position, next, Ordering::Release, Ordering::Relaxed).is_err() {
            return false;
        }
        if distance(released, next) >= u64::from(span.capacity / 4) {
            self.release(released, next);
        }
        true
    }

    /// Gives everything before `head` back to the writer. `released` was looked at before `head`: so whoever comes in
    /// between is further, and is not taken back.
    #[inline]
    pub(crate) fn release(&self, released: u64, head: u64) {
        if released != head {
            // pairs with: writable, await_room
            let _ = self.room.released.compare_exchange(released, head, Ordering::SeqCst, Ordering::Relaxed);
            fence_after_rmw();
        }
    }

    /// Closes the ring from the reader's side: no publication succeeds from now on.
    pub fn close(&self) {
        self.producer.tail.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Whether the reader closed the ring.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.producer.tail.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Takes the close mark away again; the writer does it when it opens the ring for a reader that is ready.
    pub fn reopen(&self) {
        self.producer.tail.fetch_and(!CLOSED, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
