//! Sleeping and waking.
//!
//! A reader that found nothing says how it waits, looks again, and waits in the kernel. A writer publishes
//! and then looks whether somebody waits. Both put a full barrier between their store and their look, so at
//! least one of them sees the other (Dekker).
//!
//! There are two need-wakeup flags. A *doorbell* is a byte on the kernel's connection: it stays in the queue until a reader
//! takes it, so it cannot be missed by somebody who is on the way to sleep. A *futex wake* ends a wait on the word itself
//! (futex(2)): the kernel lets nobody wait there whose need-wakeup flag has been answered. A stale doorbell or futex wake is
//! harmless.

use crate::layout::Direction;
use crate::sync::{Ordering, fence_after_rmw};

/// Somebody wants a doorbell.
pub const DOORBELL: u32 = 1;
/// Somebody waits on the futex, and wants a futex wake.
pub const WAKE: u32 = 2;

impl Direction {
    /// Says that a doorbell is wanted. The caller must look at the ring and the gate again before it sleeps.
    #[inline]
    pub fn want_doorbell(&self) {
        let _ = self.want(DOORBELL);
    }

    /// Says that a futex wake is wanted; what is in the word now. The caller must look at the ring and the gate again before
    /// it waits on the futex, and waits only while the word is the same.
    #[inline]
    #[must_use]
    pub fn want_wake(&self) -> u32 {
        self.want(WAKE)
    }

    fn want(&self, flags: u32) -> u32 {
        // A read-modify-write, not a store: its place among the writer's is certain, and on x86 it is the barrier too.
        let before = self.sleep.asleep.fetch_or(flags, Ordering::SeqCst);
        // pairs with: the barrier in publish
        fence_after_rmw();
        before | flags
    }

    /// Takes the need-wakeup flag for a doorbell back; only for a reader that knows that nobody else sleeps on this direction.
    #[inline]
    pub fn unwant_doorbell(&self) {
        if self.need_wakeup() & DOORBELL != 0 {
            self.sleep.asleep.fetch_and(!DOORBELL, Ordering::Relaxed);
        }
    }

    /// After a publication: which need-wakeup flags are set; 0: nobody waits.
    #[inline]
    #[must_use]
    pub fn need_wakeup(&self) -> u32 {
        self.sleep.asleep.load(Ordering::Relaxed)
    }

    /// Whether the caller must ring now. One flag is answered once.
    #[inline]
    #[must_use]
    pub fn doorbell_due(&self) -> bool {
        self.take(DOORBELL)
    }

    /// Whether the caller must wake now. One flag is answered once, for all who have it. After the ring was closed no
    /// look at [`Direction::need_wakeup`] does instead: it could come before the close.
    #[inline]
    #[must_use]
    pub fn wake_due(&self) -> bool {
        self.take(WAKE)
    }

    /// Writer: says how it waits until there is room; what is in the word now. `None`: there is room, and it must not wait.
    #[must_use]
    pub fn await_room(&self, flags: u32) -> Option<u32> {
        // A read-modify-write for the same reasons as in `want`.
        let before = self.room.awaited.fetch_or(flags, Ordering::SeqCst);
        // pairs with: release
        fence_after_rmw();
        if self.has_room() { None } else { Some(before | flags) }
    }

    /// Reader: whether the writer waits until there is room. A look on a line that the reader has anyway.
    #[inline]
    #[must_use]
    pub fn is_room_awaited(&self) -> bool {
        self.room.awaited.load(Ordering::Relaxed) != 0
    }

    /// Reader: how it must wake the writer now, for room that there is by now; 0: not. One flag is answered once.
    #[must_use]
    pub fn room_due(&self) -> u32 {
        if self.is_room_awaited() && self.has_room() {
            self.room.awaited.swap(0, Ordering::SeqCst)
        } else {
            0
        }
    }

    fn take(&self, flags: u32) -> bool {
        self.sleep.asleep.fetch_and(!flags, Ordering::SeqCst) & flags != 0
    }
}
