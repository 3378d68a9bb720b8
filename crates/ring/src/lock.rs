//! The word of a lock that survives its owner: who has it, and what is owed when it dies.
//!
//! The word is the owner's thread number and two marks. It says nothing of who lives: that is the taker's to find out
//! before it takes the word away from somebody. An owner that is dead is *robbed*. One that is only stopped is *stepped
//! around*: whatever it still does when it goes on must change nothing, wherever it was stopped. So the taker shuts the
//! ring first (see [`crate::lane`]); and what the owner asks of the kernel, where no compare-and-swap can refuse it, it
//! asks by a call that is only made while the word is its own. Whether such a call is under way says [`Word::caller`].

use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[repr(C)]
#[derive(Debug)]
pub struct Word {
    owner: AtomicU32,
    /// Who makes a call that only the owner may make.
    caller: AtomicU32,
}

/// Mark: the owner makes a call that nothing can refuse any more, and must not be stepped around.
pub const FIRM: u32 = 1 << 31;
/// Mark: the owner may owe the reader a bell.
pub const RINGING: u32 = 1 << 30;
/// The owner's number.
pub const OWNER: u32 = !(FIRM | RINGING);

impl Word {
    /// A word with this content; 0: free.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(content: u32) -> Self {
        Self { owner: AtomicU32::new(content), caller: AtomicU32::new(0) }
    }

    /// A free word.
    #[cfg(loom)]
    #[must_use]
    pub fn new(content: u32) -> Self {
        Self { owner: AtomicU32::new(content), caller: AtomicU32::new(0) }
    }

    /// What is in it: 0, or an owner and its marks.
    #[inline]
    #[must_use]
    pub fn content(&self) -> u32 {
        self.owner.load(Ordering::Acquire)
    }

    /// Makes it free, whoever had it.
    pub fn reset(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.caller.store(0, Ordering::Relaxed);
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// What is in it.
    #[inline]
    pub fn take(&self, me: u32) -> Result<(), u32> {
        self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).map(drop)
    }

    /// Gives it back, unless somebody has stepped around us meanwhile.
    #[inline]
    pub fn release(&self, me: u32) {
        let _ = self.owner.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Takes it from an owner that is dead, or stopped while it is not firm; `seen` is what was in it. Says whether the
    /// owner may owe somebody a bell. `None`: somebody was faster.
    #[must_use]
    pub fn take_from(&self, seen: u32, me: u32) -> Option<bool> {
        self.owner.compare_exchange(seen, me, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(seen != seen & OWNER)
    }

    /// From here on the owner may owe a bell, until it says [`Word::rung`]. False: somebody has stepped around us.
    #[must_use]
    pub fn ringing(&self, me: u32) -> bool {
        self.mark(me, me | RINGING)
    }

    /// The end of [`Word::ringing`]. False: somebody has stepped around us, and rings in our place.
    #[must_use]
    pub fn rung(&self, me: u32) -> bool {
        self.mark(me | RINGING, me)
    }

    /// While `call` is made, nobody steps around us. `None`, and no call, when somebody has done so already.
    pub fn firmly<T>(&self, me: u32, call: impl FnOnce() -> T) -> Option<T> {
        let before = self.content();
        (before & OWNER == me && self.mark(before, before | FIRM)).then_some(())?;
        let result = call();
        let _ = self.mark(before | FIRM, before);
        Some(result)
    }

    /// Makes a call that is only made while the word, which `call` gets with its content, stays as it is. `None`, and
    /// no call, when somebody has stepped around us.
    pub fn owning<T>(&self, me: u32, call: impl FnOnce(&AtomicU32, u32) -> Option<T>) -> Option<T> {
        // A swap: a full barrier before the look at the word. Whoever steps around us looks the other way round.
        self.caller.swap(me, Ordering::SeqCst);
        let content = self.content();
        let result = if content & OWNER == me { call(&self.owner, content) } else { None };
        let _ = self.caller.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        result
    }

    /// Who is inside [`Word::owning`]; 0: nobody. Once the word has been taken from an owner, one that is not inside,
    /// or is seen stopped, makes no call any more.
    #[must_use]
    pub fn caller(&self) -> u32 {
        self.caller.load(Ordering::SeqCst)
    }

    fn mark(&self, from: u32, to: u32) -> bool {
        self.owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
