//! The word of a lock that survives its owner: who has it, and what is owed when it dies.
//!
//! The word is the owner's thread number and two marks, and where the owner's stack was when it took it, in one: a signal
//! handler that finds its own thread's number there must know which call of the thread that was. It says nothing of who
//! lives: that is the taker's to find out before it takes the word away from somebody. An owner that is dead is *robbed*. One that is only stopped is *stepped
//! around*: whatever it still does when it goes on must change nothing, wherever it was stopped. So the taker shuts the
//! ring first (see [`crate::lane`]); and what the owner asks of the kernel, where no compare-and-swap can refuse it, it
//! asks by a call that is only made while the word is its own. Whether such a call is under way says [`Word::caller`].

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// See the module.
#[repr(C)]
#[derive(Debug)]
pub struct Word {
    /// The owner and its marks; above them its [`Frame`].
    owner: AtomicU64,
    /// Who makes a call that only the owner may make.
    caller: AtomicU32,
}

/// Mark: the owner makes a call that nothing can refuse any more, and must not be stepped around.
pub const FIRM: u32 = 1 << 31;
/// Mark: the owner may owe the reader a bell.
pub const RINGING: u32 = 1 << 30;
/// The owner's number.
pub const OWNER: u32 = !(FIRM | RINGING);

/// Where a call's frame lies on its thread's stack, as far as there is room for it: compared, never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame(u32);

impl Frame {
    /// Frames lie on multiples of 16.
    const SHIFT: u32 = 4;

    /// The frame at this address.
    #[inline]
    #[must_use]
    pub const fn at(address: u64) -> Self {
        Self((address >> Self::SHIFT) as u32)
    }

    /// How many bytes further down the stack it lies than the frame at `address`; negative: further up. Right for two
    /// places on one stack, which are less than 32 GB apart.
    #[must_use]
    pub const fn below(self, address: u64) -> i64 {
        (Self::at(address).0.wrapping_sub(self.0).cast_signed() as i64) << Self::SHIFT
    }
}

/// What is in a word: an owner, its marks and its frame; or nothing, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    #[inline]
    const fn new(owner: u32, frame: Frame) -> Self {
        Self(owner as u64 | (frame.0 as u64) << 32)
    }

    /// The owner with its marks.
    #[inline]
    #[must_use]
    pub const fn marked(self) -> u32 {
        self.0 as u32
    }

    /// The owner's number; 0: nobody.
    #[inline]
    #[must_use]
    pub const fn owner(self) -> u32 {
        self.marked() & OWNER
    }

    /// Where the owner took it.
    #[must_use]
    pub const fn frame(self) -> Frame {
        Frame((self.0 >> 32) as u32)
    }

    const fn with(self, owner: u32) -> Self {
        Self::new(owner, self.frame())
    }
}

impl Word {
    /// A word with this content; 0: free.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(content: u64) -> Self {
        Self { owner: AtomicU64::new(content), caller: AtomicU32::new(0) }
    }

    /// A free word.
    #[cfg(loom)]
    #[must_use]
    pub fn new(content: u64) -> Self {
        Self { owner: AtomicU64::new(content), caller: AtomicU32::new(0) }
    }

    /// What is in it.
    #[inline]
    #[must_use]
    pub fn content(&self) -> Content {
        Content(self.owner.load(Ordering::Acquire))
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
    pub fn take(&self, me: u32, frame: Frame) -> Result<(), Content> {
        let mine = Content::new(me, frame).0;
        self.owner.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed).map(drop).map_err(Content)
    }

    /// Gives it back, unless somebody has stepped around us meanwhile.
    #[inline]
    pub fn release(&self, me: u32) {
        let seen = self.owner.load(Ordering::Relaxed);
        if Content(seen).marked() == me {
            let _ = self.owner.compare_exchange(seen, 0, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Takes it from an owner that is dead, or has jumped out of the call that took it, or is stopped while it is not
    /// firm; `seen` is what was in the word. Says whether the owner may owe somebody a bell. `None`: somebody was faster.
    #[must_use]
    pub fn take_from(&self, seen: Content, me: u32, frame: Frame) -> Option<bool> {
        let mine = Content::new(me, frame).0;
        self.owner.compare_exchange(seen.0, mine, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(seen.marked() != seen.owner())
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
        let marked = before.marked();
        (before.owner() == me && self.mark(marked, marked | FIRM)).then_some(())?;
        let result = call();
        let _ = self.mark(marked | FIRM, marked);
        Some(result)
    }

    /// Makes a call that is only made while the word, which `call` gets with its content, stays as it is. `None`, and
    /// no call, when somebody has stepped around us.
    pub fn owning<T>(&self, me: u32, call: impl FnOnce(&AtomicU64, u64) -> Option<T>) -> Option<T> {
        // A swap: a full barrier before the look at the word. Whoever steps around us looks the other way round.
        self.caller.swap(me, Ordering::SeqCst);
        let content = self.content();
        let result = if content.owner() == me { call(&self.owner, content.0) } else { None };
        let _ = self.caller.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        result
    }

    /// Who is inside [`Word::owning`]; 0: nobody. Once the word has been taken from an owner, one that is not inside,
    /// or is seen stopped, makes no call any more.
    #[must_use]
    pub fn caller(&self) -> u32 {
        self.caller.load(Ordering::SeqCst)
    }

    /// Nobody but a taker changes the word of an owner, so one look is enough.
    fn mark(&self, from: u32, to: u32) -> bool {
        let seen = Content(self.owner.load(Ordering::Relaxed));
        seen.marked() == from
            && self
                .owner
                .compare_exchange(seen.0, seen.with(to).0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn frames_are_compared_wherever_the_stack_lies() {
        for base in [0x7fff_ffff_0000, 0xf_ffff_fff0, 0x10_0000_0000, 0x8_0000_0000, 0x7_ffff_fff0] {
            assert_eq!(Frame::at(base).below(base), 0);
            assert_eq!(Frame::at(base - 512).below(base), 512);
            assert_eq!(Frame::at(base + 4096).below(base), -4096);
        }
    }

    #[test]
    fn marks_leave_the_frame_alone() {
        let word = Word::new(0);
        word.take(7, Frame::at(4096)).expect("it is free");
        assert!(word.ringing(7) && !word.ringing(7));
        let seen = word.content();
        assert_eq!((seen.owner(), seen.marked(), seen.frame()), (7, 7 | RINGING, Frame::at(4096)));
        word.release(7);
        assert_eq!(word.content(), seen, "an owner that owes a bell does not let go");
        assert!(word.rung(7));
        word.release(7);
        assert_eq!(word.content().marked(), 0);
    }
}
