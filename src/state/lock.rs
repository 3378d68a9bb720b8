//! The lock of one end of a connection: the word is its owner's thread number.
//!
//! Held for a copy or a change of lanes, never asleep. Recursive per thread, because a signal handler may
//! use the socket that it interrupted; what the handler does is complete before the interrupted copy tries
//! to publish, and publication notices (see `sockshim_ring::ring`). Recovered when its owner is dead, and when its
//! owner has jumped out of the call that took it (`siglongjmp` in a handler).
//!
//! A taker sleeps on the word (futex(2)), so that it never keeps the owner from the processor: a real-time thread that
//! waited awake would. One that has slept for a millisecond while others were faster gets the lock handed over. An owner
//! that does not let go, because it is stopped, frozen, starved, or somebody has only written its number there, is waited
//! for a bounded time; then the taker goes on without it.

mod kept;

pub(crate) use kept::{EndLock, Keeping};

use super::family::{self, Known};
use super::socket_table;
use crate::error::Errno;
use crate::sys::restartable::{Area, Call};
use crate::sys::{futex, kernel, stack, thread};
use sockshim_ring::lock_word::{Content, Frame, Left, NON_INTERRUPTIBLE, Word};

/// This thread's number, as the family's namespace knows it.
#[inline]
pub(crate) fn thread() -> u32 {
    thread::number(|| family::foreign_thread().unwrap_or_else(kernel::gettid))
}

/// Whether a thread that is named in shared memory has ended. Its number may be a stranger's by now.
#[cold]
pub(crate) fn is_dead(thread: u32) -> bool {
    match family::known(thread) {
        _ if thread == 0 => true,
        Known::Here(thread) => {
            kernel::has_ended(thread)
                || socket_table::get()
                    .is_some_and(|socket_table| !family::may_be_member(socket_table, thread))
        }
        Known::Foreign(process) => !kernel::lives(process),
        Known::Gone => true,
        Known::Nothing => false,
    }
}

/// Whether no thread has the number any more; for those that are asked for often.
pub(crate) fn is_gone(thread: u32) -> bool {
    match family::known(thread) {
        Known::Here(thread) => !kernel::exists(thread),
        Known::Foreign(process) => !kernel::exists(process),
        Known::Gone => true,
        Known::Nothing => false,
    }
}

/// What a thread does, as proc_pid_stat(5) has it; `None` when that cannot be told.
fn state(thread: u32) -> Option<u8> {
    match family::known(thread) {
        Known::Here(thread) => kernel::state(thread),
        // What its process's first thread does says nothing of this one.
        Known::Foreign(_) | Known::Gone | Known::Nothing => None,
    }
}

/// Whether the owner of a lock may run on soon: nothing says that it is stopped or asleep.
pub(crate) fn may_run(owner: Content) -> bool {
    matches!(state(owner.owner()), Some(b'R') | None)
}

/// What came of an attempt to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    /// It is ours; [`Lock::release`] it.
    Ours,
    /// This thread has it already: a signal handler, inside an interrupted call.
    Nested,
    /// Its owner lives but did not let go in a bounded time, in which the word was this.
    Not(Content),
}

/// A lock that this thread has taken, released when this is dropped. Who jumps out of a call (`siglongjmp`) drops nothing: the
/// next one that takes the lock finds out.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a> {
    lock: &'a Lock,
    taken: Taken,
}

impl<'a> Held<'a> {
    /// `taken` is what came of an attempt to take `lock`, and nobody else's to release.
    #[inline]
    pub(crate) const fn new(lock: &'a Lock, taken: Taken) -> Self {
        Self { lock, taken }
    }

    /// Whether no call that a signal interrupted has it, too.
    #[inline]
    pub(crate) fn is_first(&self) -> bool {
        self.taken == Taken::Ours
    }

    #[inline]
    pub(crate) fn lock(&self) -> &'a Lock {
        self.lock
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release(self.taken);
    }
}

/// How a taker went on without the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum FencedOff {
    /// The lock is the taker's.
    Taken,
    /// The same, and the owner may owe somebody a doorbell.
    Owing,
    /// The lock is the taker's, but the owner was inside a call for so long that nobody can say whether it will be made yet.
    InCall,
    /// It has let go, or makes a call that must not be overtaken.
    Not,
}

/// See the module.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Lock {
    word: Word,
}

/// A signal handler's frame lies further than this below the frame that it interrupted: the red zone and the kernel's
/// record of the registers (`struct rt_sigframe`, with 512 bytes for fxsave alone) come in between. The next call after a
/// jump mostly lies less far below the one that was left.
const HANDLER_BELOW: i64 = 512;

/// Nanoseconds after which one that sleeps gets the lock handed over.
const STARVING: u64 = 1_000_000;
/// Nanoseconds of a sleep, after which the owner is looked at: it may have died.
const LOOK_EVERY: u64 = 10_000_000;
/// Nanoseconds for which a taker waits for an owner that is seen stopped, and for another one, which may only be waiting
/// for a processor. To go on without it is always safe, but costs the connection its ring.
const PATIENCE_STOPPED: u64 = 50_000_000;
const PATIENCE: u64 = 200_000_000;
/// The same for owners that change all the time: with those who starve served in turn, no honest ones take so long.
const PATIENCE_WITH_ALL: u64 = 2_000_000_000;
/// Nanoseconds for which who goes on without the owner waits for a call of the owner's to be over.
const PATIENCE_IN_CALL: u64 = 10_000_000_000;

impl Lock {
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        self.take_at_once(|| {}).unwrap_or_else(|| self.wait(false, || {}))
    }

    /// The same; `interrupted` is called when it is taken from an owner that died, or jumped away, in the middle of
    /// whatever it was. `urgent`: the caller would not sleep in the kernel, and an owner that waits itself, for its reader,
    /// shall do so elsewhere.
    #[cold]
    pub(crate) fn take_after(&self, urgent: bool, interrupted: impl Fn()) -> Taken {
        self.take_at_once(&interrupted).unwrap_or_else(|| self.wait(urgent, &interrupted))
    }

    /// The same without a wait; `None`: it is another thread's.
    #[inline]
    pub(crate) fn take_at_once(&self, interrupted: impl FnOnce()) -> Option<Taken> {
        let (me, here) = (thread(), kernel::stack_pointer());
        match self.word.take(me, Frame::at(here)) {
            Ok(_) => Some(Taken::Ours),
            Err(seen) if seen.owner() == me => self.nested(seen, here, interrupted),
            Err(_) => None,
        }
    }

    /// This thread has the lock already: in a call that a signal interrupted, or in one that is no more. Nothing takes a
    /// lock twice without a signal in between.
    #[cold]
    fn nested(&self, seen: Content, here: u64, interrupted: impl FnOnce()) -> Option<Taken> {
        if !is_jumped_over(seen.frame(), here) {
            return Some(Taken::Nested);
        }
        // With whatever mark the call had made.
        self.word.take_from(seen, seen.owner(), Frame::at(here))?;
        interrupted();
        Some(Taken::Ours)
    }

    /// Takes it for this thread, whose number is `me`, if it is free; what [`Lock::give_back`] needs.
    #[inline(always)]
    pub(crate) fn take_free(&self, me: u32) -> Option<Content> {
        self.word.take(me, Frame::at(kernel::stack_pointer())).ok()
    }

    /// The end of [`Lock::take_free`].
    #[inline(always)]
    pub(crate) fn give_back(&self, mine: Content) {
        if !self.word.release(mine) {
            self.give_back_marked();
        }
    }

    #[inline]
    pub(crate) fn release(&self, taken: Taken) {
        if taken == Taken::Ours && !self.word.release_unmarked(thread()) {
            self.give_back_marked();
        }
    }

    /// Somebody waits; or has fenced us off.
    #[cold]
    #[inline(never)]
    fn give_back_marked(&self) {
        let _ = self.give_back_to(false);
    }

    /// False: it was not this thread's.
    fn give_back_to(&self, others_only: bool) -> bool {
        let left = self.word.let_go(thread(), others_only);
        let is_wanted = matches!(left, Left::Free | Left::Kept);
        if is_wanted && !futex::wake_one(self.word.bed()) && left == Left::Kept {
            self.word.free_kept();
        }
        left != Left::NotMine
    }

    /// [`Taken::Not`], if the word is still as it was when that was told last: the owner has not let go.
    pub(crate) fn not_if_still(&self, bits: u64) -> Option<Taken> {
        let seen = self.word.content();
        (seen.owner() != 0 && seen.bits() == bits).then_some(Taken::Not(seen))
    }

    /// Whether somebody sleeps until it is released.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.word.is_wanted()
    }

    /// Whether one of those who wait for it would not sleep in the kernel; told once.
    pub(crate) fn is_urgent(&self) -> bool {
        self.word.take_urgent()
    }

    /// Lets those have it who sleep. The caller, whose it was, may wait for it again.
    #[cold]
    pub(crate) fn hand_over(&self) {
        let _ = self.give_back_to(true);
    }

    /// Takes the lock from an owner that does not let go; `seen` is what was in the word. Only for a caller that has made
    /// sure that whatever the owner does yet changes nothing. `is_made`: the kernel shows that the call that the owner is
    /// inside has been made, if it is inside one.
    #[cold]
    pub(crate) fn fence_off(&self, seen: Content, is_made: impl Fn() -> bool) -> FencedOff {
        let owner = seen.owner();
        if owner == 0 || seen.marked() & NON_INTERRUPTIBLE != 0 {
            return FencedOff::Not;
        }
        let Some(owes) = self.word.take_from(seen, thread(), Frame::at(kernel::stack_pointer())) else {
            return FencedOff::Not;
        };
        // The owner may be inside a call, if it looked at the word before it was taken.
        let since = kernel::monotonic_ns();
        while self.word.caller() == owner && !is_between_calls(owner, &is_made) && !is_dead(owner) {
            if kernel::monotonic_ns().wrapping_sub(since) > PATIENCE_IN_CALL {
                return FencedOff::InCall;
            }
            kernel::sleep_us(100);
        }
        if owes { FencedOff::Owing } else { FencedOff::Taken }
    }

    /// Makes a call that only the owner may make, with signals blocked; `None`, and no call: somebody has fenced
    /// us off.
    pub(crate) fn call(&self, call: &Call) -> Option<Result<usize, Errno>> {
        match Area::own() {
            Some(area) => self.word.owning(thread(), |word, value| call.make_while(area, word, value)),
            None => self.word.non_interruptibly(thread(), || call.make()),
        }
    }

    /// See [`Word::ringing`].
    pub(crate) fn ringing(&self) -> bool {
        self.word.ringing(thread())
    }

    /// See [`Word::rung`].
    pub(crate) fn rung(&self) -> bool {
        self.word.rung(thread())
    }

    #[cold]
    fn wait(&self, urgent: bool, interrupted: impl FnOnce()) -> Taken {
        let (me, frame) = (thread(), Frame::at(kernel::stack_pointer()));
        for _ in 0..64 {
            core::hint::spin_loop();
            if self.word.take(me, frame).is_ok() {
                return Taken::Ours;
            }
        }
        match self.wait_asleep(me, frame, urgent) {
            Waited::Free => Taken::Ours,
            Waited::Recovered => {
                interrupted();
                Taken::Ours
            }
            Waited::InVain(seen) => Taken::Not(seen),
        }
    }

    fn wait_asleep(&self, me: u32, frame: Frame, urgent: bool) -> Waited {
        let start = kernel::monotonic_ns();
        let (mut before, mut since, mut has_slept) = (None, start, false);
        loop {
            let Err(seen) = self.word.take_after_wait(me, frame, has_slept) else { return Waited::Free };
            let now = kernel::monotonic_ns();
            let starved = has_slept && now.wrapping_sub(start) >= STARVING;
            let Some(wanted) = self.word.want(seen, starved) else { continue };
            if urgent {
                self.word.set_urgent();
            }
            if before != Some(wanted) {
                // Somebody has got on.
                (before, since) = (Some(wanted), now);
            }
            let (unchanged, all) = (now.wrapping_sub(since), now.wrapping_sub(start));
            if unchanged >= LOOK_EVERY || all >= PATIENCE_WITH_ALL {
                if is_dead(wanted.owner()) {
                    match self.word.take_from(wanted, me, frame) {
                        Some(_) => return Waited::Recovered,
                        None => continue,
                    }
                }
                let is_stopped = matches!(state(wanted.owner()), Some(b'T' | b't'));
                let patience = if is_stopped { PATIENCE_STOPPED } else { PATIENCE };
                if unchanged >= patience || all >= PATIENCE_WITH_ALL {
                    return Waited::InVain(wanted);
                }
            }
            self.sleep(wanted, if starved { LOOK_EVERY } else { STARVING });
            has_slept = true;
        }
    }

    /// Sleeps while the word is as it was `seen`, if that is allowed here.
    fn sleep(&self, seen: Content, nanoseconds: u64) {
        let slept = !kernel::is_restricted()
            && matches!(
                futex::pause(self.word.bed(), seen.upper_half(), nanoseconds),
                Ok(()) | Err(Errno(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT))
            );
        if !slept {
            (0..1000).for_each(|_| core::hint::spin_loop());
        }
    }

    /// A fresh entry's lock.
    pub(crate) fn reset(&self) {
        self.word.reset();
    }
}

/// How a wait for a lock has ended.
enum Waited {
    Free,
    /// It was taken from an owner that had died.
    Recovered,
    /// The owner does not let go.
    InVain(Content),
}

/// Whether a thread is certainly not on its way into a call that depends on a word: the kernel will lead it back to its
/// look at the word (see [`crate::sys::restartable`]), or the call is over. So it is when a signal has stopped it, and when it
/// sleeps in a way that a signal ends: no call that does not wait does that, but a frozen thread (cgroups(7)). A debugger
/// stops it at the end of a call mostly, but may have done so at the beginning (PTRACE_SYSCALL): there it depends on
/// whether the call `is_made`.
fn is_between_calls(thread: u32, is_made: impl Fn() -> bool) -> bool {
    match state(thread) {
        Some(b'T' | b'S') => true,
        Some(b't') => is_made(),
        _ => false,
    }
}

/// Whether a call of this thread that took the lock at `frame` is no more, now that the stack is at `here`. That can be said
/// only of two places on one stack: a handler may have a stack of its own, and a program may have made threads of its own on
/// any memory, between which a handler switches. What cannot be told is taken for a call that goes on; if it does not, others
/// go on without it, as for an owner that is stopped.
#[cold]
fn is_jumped_over(frame: Frame, here: u64) -> bool {
    let is_within = |stack: &core::ops::Range<u64>| {
        let length = (stack.end - stack.start).cast_signed();
        (0..=length).contains(&frame.below(stack.end))
    };
    let is_above = frame.below(here) > -HANDLER_BELOW;
    let own = || stack::own(here);
    match kernel::alternate_stack() {
        // In a handler; it may have been left, and be entered again.
        Some((stack, true)) => is_within(&stack) && is_above,
        Some((stack, false)) if is_within(&stack) => own().is_some(),
        _ => is_above && own().is_some_and(|own| is_within(&own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, Ordering};
    use sockshim_ring::lock_word::RINGING;
    use std::sync::mpsc;

    pub(super) fn lock(content: u32) -> Lock {
        Lock { word: Word::new(content.into()) }
    }

    /// The number of a thread that has ended.
    pub(super) fn dead_thread() -> u32 {
        let number = std::thread::spawn(thread).join().expect("a thread that only tells its number");
        while kernel::exists(number) {
            std::thread::yield_now();
        }
        number
    }

    #[test]
    fn the_owner_takes_it_again_in_a_handler() {
        static LOCK: Lock = Lock { word: Word::new(0) };
        extern "C" fn handler(_signal: i32) {
            let inner = LOCK.take();
            assert_eq!(inner, Taken::Nested);
            LOCK.release(inner);
        }
        let outer = LOCK.take();
        assert_eq!(outer, Taken::Ours);
        // SAFETY: the handler makes no call that it may not make.
        unsafe { libc::signal(libc::SIGURG, handler as extern "C" fn(i32) as usize) };
        // SAFETY: the signal has that handler.
        unsafe { libc::raise(libc::SIGURG) };
        assert_eq!(LOCK.word.content().marked(), thread());
        LOCK.release(outer);
        assert_eq!(LOCK.word.content().marked(), 0);
    }

    #[test]
    fn a_call_that_was_jumped_over_has_no_lock() {
        let lock = lock(0);
        assert_eq!(lock.take(), Taken::Ours);
        let interrupted = Cell::new(false);
        // As in the next call after a jump: nothing lies between the two on the stack.
        let taken = lock.take_after(false, || interrupted.set(true));
        assert_eq!((taken, interrupted.get()), (Taken::Ours, true));
        lock.release(taken);
        assert_eq!(lock.word.content().marked(), 0);
    }

    #[test]
    fn frames_on_other_stacks_are_told_apart() {
        let here = kernel::stack_pointer();
        assert!(is_jumped_over(Frame::at(here), here) && is_jumped_over(Frame::at(here - 4096), here));
        assert!(!is_jumped_over(Frame::at(here + 4096), here));
    }

    #[test]
    fn the_lock_of_a_dead_owner_is_recovered() {
        let lock = lock(dead_thread());
        let taken = lock.take();
        assert_eq!(taken, Taken::Ours);
        lock.release(taken);
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
        while !kernel::has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert!(kernel::exists(child.id()));
        let lock = lock(child.id());
        assert_eq!(lock.take(), Taken::Ours);
        child.wait().expect("it has ended");
    }

    #[test]
    fn who_recovers_the_lock_of_the_dead_hears_of_it() {
        let dead = dead_thread();
        for mark in [0, NON_INTERRUPTIBLE, RINGING] {
            let lock = lock(dead | mark);
            let interrupted = Cell::new(false);
            assert_eq!(lock.take_after(false, || interrupted.set(true)), Taken::Ours);
            assert!(interrupted.get());
            assert_eq!(lock.word.content().marked(), thread());
        }
        // A word that no owner can have written.
        assert_eq!(lock(NON_INTERRUPTIBLE | RINGING).take(), Taken::Ours);
    }

    #[test]
    fn a_stack_of_the_programs_own_is_not_taken_for_the_threads() {
        let lock = lock(0);
        let here = kernel::stack_pointer();
        let mine = lock.word.take(thread(), Frame::at(here + (1 << 32))).expect("it is free");
        assert_eq!(lock.take(), Taken::Nested);
        assert!(lock.word.release(mine));
    }

    #[test]
    fn a_turn_is_handed_to_who_waits() {
        let lock = lock(0);
        let turns = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let taken = lock.take();
            let other = scope.spawn(|| {
                let taken = lock.take();
                turns.fetch_add(1, Ordering::Relaxed);
                lock.release(taken);
            });
            while !lock.is_wanted() {
                std::thread::yield_now();
            }
            assert_eq!((taken, turns.load(Ordering::Relaxed)), (Taken::Ours, 0));
            lock.hand_over();
            let taken = lock.take();
            // It had its turn before this thread, or it was in no state to take it.
            assert!(turns.load(Ordering::Relaxed) == 1 || lock.is_wanted() || !other.is_finished());
            lock.release(taken);
        });
        assert_eq!((turns.load(Ordering::Relaxed), lock.word.content().marked()), (1, 0));
    }

    #[test]
    fn only_the_owner_makes_its_calls() {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let send = Call::send(std::os::fd::AsRawFd::as_raw_fd(&one), b"x".as_ptr(), 1, 0);
        thread::find_area();
        let lock = lock(0);
        assert_eq!(lock.call(&send), None);
        let taken = lock.take();
        assert_eq!(lock.call(&send), Some(Ok(1)));
        assert!(lock.ringing() && !lock.ringing());
        assert_eq!(lock.call(&send), Some(Ok(1)));
        assert!(lock.rung() && !lock.rung());
        lock.release(taken);
        assert_eq!((lock.word.content().marked(), lock.word.caller()), (0, 0));
        drop(other);
    }

    #[test]
    fn a_live_owner_is_waited_for_and_then_left_alone() {
        let lock = lock(0);
        let (held, hold) = mpsc::channel();
        let (done, end) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let lock = &lock;
            scope.spawn(move || {
                let taken = lock.take();
                held.send(thread()).expect("the test waits");
                end.recv().expect("the test says when");
                lock.release(taken);
            });
            let owner = hold.recv().expect("the owner tells");
            let taken = lock.take();
            assert!(matches!(taken, Taken::Not(seen) if seen.owner() == owner), "{taken:?}");
            lock.release(taken);
            assert_eq!(lock.word.content().marked(), owner);
            done.send(()).expect("the owner waits");
        });
        assert_eq!(lock.take(), Taken::Ours);
    }

    #[test]
    fn one_thread_at_a_time() {
        let lock = lock(0);
        let count = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let taken = loop {
                            match lock.take() {
                                Taken::Not(_) => {}
                                taken => break taken,
                            }
                        };
                        let seen = count.load(Ordering::Relaxed);
                        core::hint::spin_loop();
                        count.store(seen + 1, Ordering::Relaxed);
                        lock.release(taken);
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 8000);
    }
}
