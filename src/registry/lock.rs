//! The lock of one end of a connection: the word is its owner's thread number.
//!
//! Held for a copy or a change of lanes, never asleep. Recursive per thread, because a signal handler may
//! use the socket that it interrupted; what the handler does is complete before the interrupted copy tries
//! to publish, and publication notices (see `sockshim_ring::ring`). Recovered when its owner is dead, and when its
//! owner has jumped out of the call that took it (`siglongjmp` in a handler). A taker waits a bounded time for an
//! owner that is alive but does not run, and then goes on without it if it is stopped.

use super::arena;
use super::fork::{self, Known};
use crate::error::Errno;
use crate::sys::restartable::{Area, Call};
use crate::sys::{kernel, thread};
use sockshim_ring::lock::{Content, FIRM, Frame, Word};

/// This thread's number, as the family's namespace knows it.
#[inline]
pub(crate) fn thread() -> u32 {
    thread::number(|| fork::alien_thread().unwrap_or_else(kernel::gettid))
}

/// Whether a thread that is named in shared memory has ended. Its number may be a stranger's by now.
#[cold]
pub(crate) fn is_dead(thread: u32) -> bool {
    match fork::known(thread) {
        _ if thread == 0 => true,
        Known::Here(thread) => {
            kernel::has_ended(thread) || arena::get().is_some_and(|arena| !fork::may_be_member(arena, thread))
        }
        Known::Alien(process) => !kernel::lives(process),
        Known::Gone => true,
        Known::Nothing => false,
    }
}

/// Whether no thread has the number any more; for those that are asked for often.
pub(crate) fn is_gone(thread: u32) -> bool {
    match fork::known(thread) {
        Known::Here(thread) => !kernel::exists(thread),
        Known::Alien(process) => !kernel::exists(process),
        Known::Gone => true,
        Known::Nothing => false,
    }
}

/// Whether a thread lives but does not run: a signal has stopped it.
fn is_stopped(thread: u32) -> bool {
    match fork::known(thread) {
        Known::Here(thread) => kernel::is_stopped(thread),
        // What its process's first thread does says nothing of this one.
        Known::Alien(_) | Known::Gone | Known::Nothing => false,
    }
}

/// How a lock was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    /// It is ours; [`Lock::release`] it.
    Ours,
    /// This thread has it already: a signal handler, inside an interrupted call.
    Nested,
    /// Its owner lives but did not let go in a bounded time.
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

/// Ticks for which a taker waits for a live owner; about 50 ms.
const PATIENCE: u64 = 125_000_000;

impl Lock {
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        self.take_after(|| {})
    }

    /// The same; `interrupted` is called when it is taken from an owner that died, or jumped away, in the middle of
    /// whatever it was.
    #[inline]
    pub(crate) fn take_after(&self, interrupted: impl FnOnce()) -> Taken {
        let (me, here) = (thread(), kernel::stack_pointer());
        match self.word.take(me, Frame::at(here)) {
            Ok(()) => Taken::Ours,
            Err(seen) if seen.owner() == me => self.nested(seen, here, interrupted),
            Err(_) => self.wait(me, here, interrupted),
        }
    }

    /// This thread has the lock already: in a call that a signal interrupted, or in one that is no more. Nothing takes a
    /// lock twice without a signal in between.
    #[cold]
    fn nested(&self, seen: Content, here: u64, interrupted: impl FnOnce()) -> Taken {
        if !is_jumped_over(seen.frame(), here) {
            return Taken::Nested;
        }
        // With whatever mark the call had made.
        if self.word.take_from(seen, seen.owner(), Frame::at(here)).is_none() {
            return self.wait(seen.owner(), here, interrupted);
        }
        interrupted();
        Taken::Ours
    }

    /// Takes it for this thread, whose number is `me`, if it is free.
    #[inline(always)]
    pub(crate) fn take_free(&self, me: u32) -> bool {
        self.word.take(me, Frame::at(kernel::stack_pointer())).is_ok()
    }

    /// The end of [`Lock::take_free`].
    #[inline(always)]
    pub(crate) fn release_by(&self, me: u32) {
        self.word.release(me);
    }

    #[inline]
    pub(crate) fn release(&self, taken: Taken) {
        if taken == Taken::Ours {
            self.release_by(thread());
        }
    }

    /// What is in the word, if its owner lives but does not run: it is stopped by a signal.
    #[cold]
    pub(crate) fn stopped_owner(&self) -> Option<Content> {
        let seen = self.word.content();
        (seen.owner() != 0 && seen.marked() & FIRM == 0 && is_stopped(seen.owner())).then_some(seen)
    }

    /// Takes the lock from a stopped owner; `seen` is what was in the word. Only for a caller that has made sure that
    /// what the owner was doing changes nothing when it goes on. Says whether the owner may owe somebody a bell. `None`:
    /// it has let go.
    #[cold]
    pub(crate) fn step_around(&self, seen: Content) -> Option<bool> {
        let owes = self.word.take_from(seen, thread(), Frame::at(kernel::stack_pointer()))?;
        // It may have gone on between the look and this, and be inside a call. Stopped again, it is not.
        let owner = seen.owner();
        while self.word.caller() == owner && !is_stopped(owner) && !is_dead(owner) {
            kernel::nap(50);
        }
        Some(owes)
    }

    /// Makes a call that only the owner may make, with signals blocked; `None`, and no call: somebody has stepped
    /// around us.
    pub(crate) fn call(&self, call: &Call) -> Option<Result<usize, Errno>> {
        match Area::own() {
            Some(area) => self.word.owning(thread(), |word, value| call.make_while(area, word, value)),
            None => self.word.firmly(thread(), || call.make()),
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
    fn wait(&self, me: u32, here: u64, interrupted: impl FnOnce()) -> Taken {
        let frame = Frame::at(here);
        for _ in 0..64 {
            core::hint::spin_loop();
            if self.word.take(me, frame).is_ok() {
                return Taken::Ours;
            }
        }
        let start = kernel::ticks();
        loop {
            kernel::sched_yield();
            match self.word.take(me, frame) {
                Ok(()) => return Taken::Ours,
                Err(seen) if kernel::ticks().wrapping_sub(start) > PATIENCE => {
                    let robbed =
                        if is_dead(seen.owner()) { self.word.take_from(seen, me, frame) } else { None };
                    if robbed.is_none() {
                        return Taken::Not;
                    }
                    interrupted();
                    return Taken::Ours;
                }
                Err(_) => {}
            }
        }
    }

    /// A fresh entry's lock.
    pub(crate) fn reset(&self) {
        self.word.reset();
    }
}

/// Whether a call of this thread that took the lock at `frame` is no more, now that the stack is at `here`.
fn is_jumped_over(frame: Frame, here: u64) -> bool {
    let is_above = frame.below(here) > -HANDLER_BELOW;
    match kernel::alternate_stack() {
        None => is_above,
        Some((stack, on_it)) => {
            let length = (stack.end - stack.start).cast_signed();
            match (on_it, (0..=length).contains(&frame.below(stack.end))) {
                // A handler on its own stack, inside a call on the thread's.
                (true, false) => false,
                // The handler has been left.
                (false, true) => true,
                _ => is_above,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use sockshim_ring::lock::RINGING;
    use std::sync::mpsc;

    fn lock(content: u32) -> Lock {
        Lock { word: Word::new(content.into()) }
    }

    /// The number of a thread that has ended.
    fn dead_thread() -> u32 {
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
        unsafe {
            libc::signal(libc::SIGURG, handler as extern "C" fn(i32) as usize);
            libc::raise(libc::SIGURG);
        }
        assert_eq!(LOCK.word.content().marked(), thread());
        LOCK.release(outer);
        assert_eq!(LOCK.word.content().marked(), 0);
    }

    #[test]
    fn a_call_that_was_jumped_over_has_no_lock() {
        let lock = lock(0);
        assert_eq!(lock.take(), Taken::Ours);
        let mut interrupted = false;
        // As in the next call after a jump: nothing lies between the two on the stack.
        let taken = lock.take_after(|| interrupted = true);
        assert_eq!((taken, interrupted), (Taken::Ours, true));
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
    fn a_dead_owner_is_robbed() {
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
    fn who_robs_the_dead_hears_of_it() {
        let dead = dead_thread();
        for mark in [0, FIRM, RINGING] {
            let lock = lock(dead | mark);
            let mut interrupted = false;
            assert_eq!(lock.take_after(|| interrupted = true), Taken::Ours);
            assert!(interrupted);
            assert_eq!(lock.word.content().marked(), thread());
        }
        // A word that no owner can have written.
        assert_eq!(lock(FIRM | RINGING).take(), Taken::Ours);
    }

    #[test]
    fn only_the_owner_makes_its_calls() {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let send = Call::send(std::os::fd::AsRawFd::as_raw_fd(&one), b"x", 0);
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
            assert_eq!(taken, Taken::Not);
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
                                Taken::Not => {}
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
