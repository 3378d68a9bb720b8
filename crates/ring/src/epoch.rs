//! Switching a direction between its two lanes, ring and kernel.
//!
//! A direction is a sequence of epochs led by its writer: even epochs run through the kernel, odd ones
//! through the ring. What an epoch needs is written before its number is (one release store), so a writer
//! killed at any point leaves a direction that can be read:
//!
//! | step | by | written first | then |
//! |---|---|---|---|
//! | kernel -> ring | writer | `kernel_end` = X, `doorbells` = 0, `resume` open | gate `e` -> `e+1`, only if it is not SHUT, no reader is BUSY and the reader's epoch is `e` |
//! | ring -> kernel | writer | CLOSED in `tail`; then `ring_end`, and `resume` = P if it is open | gate `e` -> `e+1`, at any time |
//! | follow | reader | took kernel bytes up to X, or ring bytes up to `ring_end` and doorbells up to P | own epoch `e` -> `e+1` |
//!
//! So a writer is at most two epochs ahead, and one record of (X, ring_end, P) is enough. BUSY is set by a
//! reader while it takes bytes from the kernel as *data* in an even epoch: it keeps the writer from opening
//! the ring (and ringing doorbells into the stream) meanwhile.
//!
//! SHUT is set by whoever goes on without the holder of a lock, who is stopped anywhere in a step: no ring epoch begins
//! any more. So what that holder still does when it goes on changes nothing: it cannot open the ring; and when it
//! spills, the ring's end cannot move any more, the first to say where the kernel lane goes on has said it, and the
//! gate has moved.

use crate::layout::Direction;
use crate::ring::Damaged;
use crate::sync::Ordering;

/// Bit 0 of the gate: a reader is inside the kernel's `recv`.
pub const BUSY: u32 = 1;

/// Bit 31 of the gate: no ring epoch begins any more.
pub const SHUT: u32 = 1 << 31;
/// Number of epochs; they wrap around.
const EPOCHS: u32 = SHUT >> 1;
/// `resume` while nobody has said where the kernel lane goes on.
const OPEN: u64 = u64::MAX;

/// Whether an epoch runs through the ring.
#[inline]
#[must_use]
pub const fn is_ring(epoch: u32) -> bool {
    epoch & 1 == 1
}

/// The epoch after `epoch`; the gate has room for 30 bits.
const fn after(epoch: u32) -> u32 {
    epoch.wrapping_add(1) & (EPOCHS - 1)
}

/// The epoch that a gate says.
const fn epoch_of(gate: u32) -> u32 {
    (gate & !SHUT) >> 1
}

impl Direction {
    /// The writer's epoch.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u32 {
        // pairs with: open, spill
        epoch_of(self.switch.gate.load(Ordering::Acquire))
    }

    /// How many epochs the writer is ahead of a reader in `epoch`.
    ///
    /// # Errors
    /// [`Damaged`] when it is more than a writer ever is.
    #[inline]
    pub fn lead(&self, epoch: u32) -> Result<u32, Damaged> {
        let lead = self.epoch().wrapping_sub(epoch) & (EPOCHS - 1);
        if lead <= 2 { Ok(lead) } else { Err(Damaged) }
    }

    /// The reader's epoch.
    #[inline]
    #[must_use]
    pub fn reader_epoch(&self) -> u32 {
        // pairs with: follow
        self.reader.epoch.load(Ordering::Acquire)
    }

    /// Writer: from the kernel lane to the ring, at kernel position `kernel_end`. False when a reader is busy
    /// in the kernel, or the gate is shut; then nothing has happened.
    #[must_use]
    pub fn open(&self, epoch: u32, kernel_end: u64) -> bool {
        self.switch.kernel_end.store(kernel_end, Ordering::Relaxed);
        self.switch.doorbells.store(0, Ordering::Relaxed);
        self.switch.resume.store(OPEN, Ordering::Relaxed);
        let next = after(epoch) << 1;
        self.switch.gate.compare_exchange(epoch << 1, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Writer: from the ring to the kernel lane, which goes on at kernel position `resume`. The ring is closed, so
    /// `ring_end` stays true, and no doorbell is under way. Somebody else may do the same.
    pub fn spill(&self, epoch: u32, ring_end: u64, resume: u64) {
        self.switch.ring_end.store(ring_end, Ordering::Relaxed);
        // Compared: whoever comes late has counted bytes of the kernel lane.
        let _ = self.switch.resume.compare_exchange(OPEN, resume, Ordering::AcqRel, Ordering::Relaxed);
        let next = |gate: u32| (epoch_of(gate) == epoch).then_some(after(epoch) << 1 | gate & SHUT);
        let _ = self.switch.gate.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next);
    }

    /// Either side: no ring epoch begins any more.
    pub fn shut(&self) {
        self.switch.gate.fetch_or(SHUT, Ordering::SeqCst);
    }

    /// Whether no ring epoch begins any more.
    #[inline]
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.switch.gate.load(Ordering::Relaxed) & SHUT != 0
    }

    /// Reader: marks that it takes kernel bytes as data in `epoch`; false when the writer has moved on (or
    /// somebody is busy already). When the gate is shut no mark is needed: all kernel bytes are data from here on.
    #[inline]
    #[must_use]
    pub fn enter_kernel(&self, epoch: u32) -> bool {
        if epoch >= EPOCHS {
            // More bits than the gate has: damaged, and shifted it could look like another epoch.
            return false;
        }
        let busy = (epoch << 1) | BUSY;
        match self.switch.gate.compare_exchange(epoch << 1, busy, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => true,
            Err(gate) => gate & SHUT != 0 && epoch_of(gate) == epoch,
        }
    }

    /// Whether a reader has entered in `epoch`, and not left.
    #[must_use]
    pub fn is_busy(&self, epoch: u32) -> bool {
        self.switch.gate.load(Ordering::Acquire) & !SHUT == epoch << 1 | BUSY
    }

    /// Reader: the end of [`Direction::enter_kernel`].
    #[inline]
    pub fn leave_kernel(&self) {
        self.switch.gate.fetch_and(!BUSY, Ordering::SeqCst);
    }

    /// Reader: goes on to the next epoch. Of a ring everything is released: it may open again smaller.
    pub fn follow(&self, epoch: u32) {
        if is_ring(epoch) {
            let released = self.room.released.load(Ordering::Relaxed);
            self.release(released, self.consumer.head.load(Ordering::Relaxed));
        }
        // Compared: a signal handler that reads from this socket may have followed already.
        let moved =
            self.reader.epoch.compare_exchange(epoch, after(epoch), Ordering::Release, Ordering::Relaxed);
        if moved.is_ok() && is_ring(epoch) {
            let resume = self.switch.resume.load(Ordering::Relaxed);
            let doorbells = resume.wrapping_sub(self.switch.kernel_end.load(Ordering::Relaxed));
            self.reader.doorbells_past.fetch_add(doorbells, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
