//! The word of a lock that survives its owner: who has it, and what must not be interrupted.
//!
//! The word is the owner's thread number and two marks. It says nothing of who lives: that is the taker's to find out
//! before it takes the word away from somebody. An owner that is dead is *robbed*. One that is only stopped is *stepped
//! around*: what it was doing must fail when it goes on, so the taker closes the ring first, and whatever changes more
//! than one word is marked.

use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU32);

/// Mark: several words change together; the owner must not be stepped around.
pub const FIRM: u32 = 1 << 31;
/// Mark: the owner sends a bell, which it has counted.
pub const RINGING: u32 = 1 << 30;
/// The owner's number.
pub const OWNER: u32 = !(FIRM | RINGING);

impl Word {
    /// A word with this content; 0: free.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(content: u32) -> Self {
        Self(AtomicU32::new(content))
    }

    /// A free word.
    #[cfg(loom)]
    #[must_use]
    pub fn new(content: u32) -> Self {
        Self(AtomicU32::new(content))
    }

    /// What is in it: 0, or an owner and its marks.
    #[inline]
    #[must_use]
    pub fn content(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Makes it free, whoever had it.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// What is in it.
    #[inline]
    pub fn take(&self, me: u32) -> Result<(), u32> {
        self.0.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).map(drop)
    }

    /// Gives it back, unless somebody has stepped around us meanwhile.
    #[inline]
    pub fn release(&self, me: u32) {
        let _ = self.0.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Takes it from a dead owner; `seen` is what was in it. Says whether the owner died in the middle of a change: it
    /// may owe somebody a bell. `None`: somebody was faster.
    #[must_use]
    pub fn rob(&self, seen: u32, me: u32) -> Option<bool> {
        self.0.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(seen != seen & OWNER)
    }

    /// Takes it from an owner that is stopped; `seen` is what was in it. `bell_is_out` looks whether every bell that was
    /// counted has been sent: one that has not would come later, as data.
    #[must_use]
    pub fn step_around(&self, seen: u32, me: u32, bell_is_out: impl FnOnce() -> bool) -> bool {
        seen & FIRM == 0
            && seen != 0
            && (seen & RINGING == 0 || bell_is_out())
            && self.0.compare_exchange(seen, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// While `change` runs, nobody steps around us: several words change together. `None`, and no change, when
    /// somebody has done so already.
    pub fn firmly<T>(&self, me: u32, change: impl FnOnce() -> T) -> Option<T> {
        self.mark(me, me | FIRM)?;
        let result = change();
        let _ = self.mark(me | FIRM, me);
        Some(result)
    }

    /// Counts a bell firmly, and sends it if there is one to send. While `send` runs, only somebody who has seen that
    /// the bell is out steps around us.
    pub fn ringing<T>(&self, me: u32, count: impl FnOnce() -> bool, send: impl FnOnce() -> T) -> Option<T> {
        self.mark(me, me | FIRM)?;
        if !count() {
            let _ = self.mark(me | FIRM, me);
            return None;
        }
        self.mark(me | FIRM, me | RINGING)?;
        let result = send();
        let _ = self.mark(me | RINGING, me);
        Some(result)
    }

    fn mark(&self, from: u32, to: u32) -> Option<()> {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).ok().map(drop)
    }
}
