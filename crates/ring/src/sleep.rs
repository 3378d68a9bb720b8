//! Sleeping and waking.
//!
//! A reader that found nothing says that it sleeps, looks again, and sleeps in the kernel. A writer publishes
//! and then looks whether somebody sleeps. Both put a full barrier between their store and their look, so at
//! least one of them sees the other (Dekker). The bell itself is a byte on the kernel's connection: it stays
//! in the queue until a reader takes it, so it cannot be missed by somebody who is on the way to sleep. A
//! stale bell is harmless.

use crate::layout::Direction;
use crate::sync::{Ordering, fence_after_rmw};

impl Direction {
    /// Says that a bell is wanted. The caller must look at the ring and the gate again before it sleeps.
    #[inline]
    pub fn want_bell(&self) {
        // A swap, not a store: its place among the writer's swaps is certain, and on x86 it is the barrier too.
        self.sleep.asleep.swap(1, Ordering::SeqCst);
        // pairs with: the barrier in publish
        fence_after_rmw();
    }

    /// Takes the wish back; only for a reader that knows that nobody else sleeps on this direction.
    #[inline]
    pub fn unwant_bell(&self) {
        if self.sleep.asleep.load(Ordering::Relaxed) != 0 {
            self.sleep.asleep.store(0, Ordering::Relaxed);
        }
    }

    /// After a publication: whether there is a wish.
    #[inline]
    #[must_use]
    pub fn is_bell_wanted(&self) -> bool {
        self.sleep.asleep.load(Ordering::Relaxed) != 0
    }

    /// Whether the caller must ring now. One wish is answered once.
    #[inline]
    #[must_use]
    pub fn bell_due(&self) -> bool {
        self.is_bell_wanted() && self.sleep.asleep.swap(0, Ordering::SeqCst) != 0
    }
}
