//! The word of a lock that survives its owner: who has it, and what is owed when it dies.
//!
//! The word is the owner's thread number and two marks, and where the owner's stack was when it took it, in one: a signal
//! handler that finds its own thread's number there must know which call of the thread that was. It says nothing of who lives:
//! that is the taker's to find out before it takes the word away from somebody. An owner that is dead loses it: the lock is
//! *recovered*. One that is only stopped is *fenced off*: whatever it still does when it goes on must change nothing, wherever
//! it was stopped. So the taker shuts the ring first (see [`crate::epoch`]); and what the owner asks of the kernel, where no
//! compare-and-swap can refuse it, it asks by a call that is only made while the word is its own. Whether such a call is under
//! way says [`Word::caller`].
//!
//! A waiting thread sleeps on the upper half of the word (futex(2)), which has two more marks:
//!
//! | upper half | who sets it | what the owner does at the end |
//! |---|---|---|
//! | frame | the owner | makes the word free: one compare-and-swap, which fails if there is a mark |
//! | with WAITED_FOR | who is about to sleep | makes it free, and wakes one of them |
//! | with STARVED, too | who has slept for long, while others were faster | keeps it for those who wait, and wakes one |
//!
//! A kept word has no owner. Whoever has slept may take it, so that nothing is lost when the one that was woken has died.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// See the module.
#[repr(C)]
#[derive(Debug)]
pub struct Word {
    /// The owner and its marks; above them its [`Frame`].
    owner: AtomicU64,
    /// Who makes a call that only the owner may make.
    caller: AtomicU32,
    /// Not 0: somebody waits who would not sleep in the kernel either. A hint, for owners that wait themselves.
    urgent: AtomicU32,
}

/// Mark: the owner makes a call that nothing can refuse any more, and must not be fenced off.
pub const NON_INTERRUPTIBLE: u32 = 1 << 31;
/// Mark: the owner may owe the reader a doorbell.
pub const RINGING: u32 = 1 << 30;
/// The owner's number.
pub const OWNER: u32 = !(NON_INTERRUPTIBLE | RINGING);

/// Mark in the upper half: somebody sleeps on the word, or is about to.
const WAITED_FOR: u64 = 1 << 63;
/// Mark in the upper half: the owner keeps it for those who sleep.
const STARVED: u64 = 1 << 62;

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
        Self((address >> Self::SHIFT) as u32 & !Self::MARKS)
    }

    /// How many bytes further down the stack it lies than the frame at `address`; negative: further up. Right for two
    /// places on one stack, which are less than 8 GB apart.
    #[must_use]
    pub const fn below(self, address: u64) -> i64 {
        // Shifted up and down again: the sign is that of 30 bits.
        let distance = Self::at(address).0.wrapping_sub(self.0) << 2;
        ((distance.cast_signed() >> 2) as i64) << Self::SHIFT
    }

    /// The bits that the marks of the upper half have.
    const MARKS: u32 = ((WAITED_FOR | STARVED) >> 32) as u32;
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
        Frame((self.0 >> 32) as u32 & !Frame::MARKS)
    }

    /// As a number, never 0 for a word that has an owner.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The half on which those who wait sleep.
    #[must_use]
    pub const fn upper_half(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it is nobody's, but only for those who have waited.
    const fn is_kept(self) -> bool {
        self.0 == WAITED_FOR
    }

    const fn with(self, owner: u32) -> Self {
        Self(owner as u64 | self.0 >> 32 << 32)
    }
}

/// What an owner has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Left {
    /// Nothing: it was not, or not yet, the caller's to give back.
    NotMine,
    /// A free word for which nobody waits.
    Alone,
    /// A free word: whoever waits must be woken, one at least.
    Free,
    /// The same, and the word is kept for the thread that is woken: see [`Word::free_kept`].
    Kept,
}

impl Word {
    /// A word with this content; 0: free.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(content: u64) -> Self {
        Self { owner: AtomicU64::new(content), caller: AtomicU32::new(0), urgent: AtomicU32::new(0) }
    }

    /// A free word.
    #[cfg(loom)]
    #[must_use]
    pub fn new(content: u64) -> Self {
        Self { owner: AtomicU64::new(content), caller: AtomicU32::new(0), urgent: AtomicU32::new(0) }
    }

    /// Where those who wait sleep: the place of the upper half, for the kernel.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn bed(&self) -> *const u32 {
        let halves = core::ptr::from_ref(&self.owner).cast::<u32>();
        halves.wrapping_add(if cfg!(target_endian = "little") { 1 } else { 0 })
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
        self.urgent.store(0, Ordering::Relaxed);
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// What is in it.
    #[inline]
    pub fn take(&self, me: u32, frame: Frame) -> Result<Content, Content> {
        let mine = Content::new(me, frame);
        let taken = self.owner.compare_exchange(0, mine.0, Ordering::Acquire, Ordering::Relaxed);
        taken.map(|_| mine).map_err(Content)
    }

    /// The same for one who has waited, and so may take what is kept, too. If it has slept, others may sleep yet.
    ///
    /// # Errors
    /// What is in it.
    pub fn take_after_wait(&self, me: u32, frame: Frame, has_slept: bool) -> Result<(), Content> {
        let mine = Content::new(me, frame).0 | if has_slept { WAITED_FOR } else { 0 };
        let take = |from| self.owner.compare_exchange(from, mine, Ordering::Acquire, Ordering::Relaxed);
        match take(0) {
            Err(seen) if has_slept && Content(seen).is_kept() => take(seen).map(drop).map_err(Content),
            taken => taken.map(drop).map_err(Content),
        }
    }

    /// Says that somebody is about to sleep while the word is as it was `seen`, and has done so for long if it is
    /// `starved`. The word as it is now; `None`: it has changed.
    #[must_use]
    pub fn want(&self, seen: Content, starved: bool) -> Option<Content> {
        let marks = WAITED_FOR | if starved && seen.owner() != 0 { STARVED } else { 0 };
        let wanted = Content(seen.0 | marks);
        let set = || self.owner.compare_exchange(seen.0, wanted.0, Ordering::Relaxed, Ordering::Relaxed);
        (seen.0 != 0 && (wanted == seen || set().is_ok())).then_some(wanted)
    }

    /// Whether somebody sleeps until the word is given back.
    #[inline]
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.owner.load(Ordering::Relaxed) & WAITED_FOR != 0
    }

    /// Says that somebody waits who would not sleep in the kernel.
    pub fn set_urgent(&self) {
        self.urgent.store(1, Ordering::Relaxed);
    }

    /// Whether somebody has said so since the last time.
    #[must_use]
    pub fn take_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) != 0 && self.urgent.swap(0, Ordering::Relaxed) != 0
    }

    /// Gives back what [`Word::take`] has given, if there is no mark of any kind. False: see [`Word::let_go`].
    #[inline]
    #[must_use]
    pub fn release(&self, mine: Content) -> bool {
        self.owner.compare_exchange(mine.0, 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The same without what [`Word::take`] has given.
    #[inline]
    #[must_use]
    pub fn release_unmarked(&self, me: u32) -> bool {
        let seen = self.owner.load(Ordering::Relaxed);
        let is_plain = seen & WAITED_FOR == 0 && Content(seen).marked() == me;
        is_plain && self.owner.compare_exchange(seen, 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Gives it back, unless somebody has fenced us off meanwhile; `to_others`: to those who sleep, if there are some.
    pub fn let_go(&self, me: u32, to_others: bool) -> Left {
        let mut seen = self.owner.load(Ordering::Relaxed);
        while Content(seen).marked() == me {
            let (next, left) = match (seen & WAITED_FOR != 0, seen & STARVED != 0 || to_others) {
                (false, _) => (0, Left::Alone),
                (true, false) => (0, Left::Free),
                (true, true) => (WAITED_FOR, Left::Kept),
            };
            match self.owner.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return left,
                Err(other) => seen = other,
            }
        }
        Left::NotMine
    }

    /// After [`Left::Kept`], when nobody slept for whom the word could be kept.
    pub fn free_kept(&self) {
        let _ = self.owner.compare_exchange(WAITED_FOR, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes it from an owner that is dead, or has jumped out of the call that took it, or is stopped while it is not
    /// non-interruptible; `seen` is what was in the word. Says whether the owner may owe somebody a doorbell. `None`: somebody
    /// was faster.
    #[must_use]
    pub fn take_from(&self, seen: Content, me: u32, frame: Frame) -> Option<bool> {
        // Others may sleep yet.
        let mine = Content::new(me, frame).0 | seen.0 & WAITED_FOR;
        self.owner.compare_exchange(seen.0, mine, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(seen.marked() != seen.owner())
    }

    /// From here on the owner may owe a doorbell, until it says [`Word::rung`]. False: somebody has fenced us off.
    #[must_use]
    pub fn ringing(&self, me: u32) -> bool {
        self.mark(me, me | RINGING)
    }

    /// The end of [`Word::ringing`]. False: somebody has fenced us off, and rings in our place.
    #[must_use]
    pub fn rung(&self, me: u32) -> bool {
        self.mark(me | RINGING, me)
    }

    /// While `call` is made, nobody fences us off. `None`, and no call, when somebody has done so already.
    pub fn non_interruptibly<T>(&self, me: u32, call: impl FnOnce() -> T) -> Option<T> {
        let before = self.content();
        let marked = before.marked();
        (before.owner() == me && self.mark(marked, marked | NON_INTERRUPTIBLE)).then_some(())?;
        let result = call();
        let _ = self.mark(marked | NON_INTERRUPTIBLE, marked);
        Some(result)
    }

    /// Makes a call that is only made while the lower half of the word, which `call` gets, stays as it is: the owner and
    /// its marks. `None`, and no call, when somebody has fenced us off.
    pub fn owning<T>(&self, me: u32, call: impl FnOnce(&AtomicU64, u32) -> Option<T>) -> Option<T> {
        // A swap: a full barrier before the look at the word. Whoever fences us off looks the other way round.
        self.caller.swap(me, Ordering::SeqCst);
        let content = self.content();
        let result = if content.owner() == me { call(&self.owner, content.marked()) } else { None };
        let _ = self.caller.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
        result
    }

    /// Who is inside [`Word::owning`]; 0: nobody. Once the word has been taken from an owner, one that is not inside,
    /// or is seen stopped, makes no call any more.
    #[must_use]
    pub fn caller(&self) -> u32 {
        self.caller.load(Ordering::SeqCst)
    }

    /// False: the word is somebody else's by now.
    fn mark(&self, from: u32, to: u32) -> bool {
        let mut seen = self.owner.load(Ordering::Relaxed);
        while Content(seen).marked() == from {
            let marked = Content(seen).with(to).0;
            match self.owner.compare_exchange(seen, marked, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                // Somebody has begun to wait.
                Err(other) => seen = other,
            }
        }
        false
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
        assert_eq!(word.let_go(7, false), Left::NotMine);
        assert_eq!(word.content(), seen, "an owner that owes a doorbell does not let go");
        assert!(word.rung(7));
        assert_eq!(word.let_go(7, false), Left::Alone);
        assert_eq!(word.content().marked(), 0);
    }

    #[test]
    fn who_waits_is_left_a_mark() {
        let word = Word::new(0);
        let frame = Frame::at(!0);
        let mine = word.take(7, frame).expect("it is free");
        let wanted = word.want(mine, false).expect("it is as it was seen");
        assert!(word.is_wanted() && word.want(mine, false).is_none());
        assert_eq!((wanted.owner(), wanted.frame()), (7, frame));
        assert!(word.ringing(7) && word.rung(7), "marks of both halves stand beside each other");
        assert!(!word.release(mine));
        assert_eq!(word.let_go(7, false), Left::Free);
        assert!(word.take_after_wait(8, frame, true).is_ok() && word.is_wanted(), "others may sleep yet");
        let stolen = word.content();
        assert_eq!(word.take_from(stolen, 9, frame), Some(false));
        assert_eq!(word.let_go(9, false), Left::Free);
        assert!(!word.is_wanted());
    }

    #[test]
    fn a_word_is_kept_for_who_has_starved() {
        let word = Word::new(0);
        let frame = Frame::at(4096);
        let mine = word.take(7, frame).expect("it is free");
        assert!(word.want(mine, true).is_some());
        assert_eq!(word.let_go(7, false), Left::Kept);
        assert!(word.take(7, frame).is_err() && word.take_after_wait(7, frame, false).is_err());
        let kept = word.content();
        assert_eq!((kept.owner(), word.want(kept, true)), (0, Some(kept)), "others sleep on it");
        assert!(word.take_after_wait(8, frame, true).is_ok());
        word.free_kept();
        assert_eq!(word.content().owner(), 8);
        assert_eq!(word.let_go(8, false), Left::Free);
        assert!(word.want(word.content(), true).is_none(), "nobody sleeps on a free word");
    }
}
