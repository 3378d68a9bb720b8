//! The lock of one end of a connection: the word is its owner's thread number.
//!
//! Held for a copy or a change of lanes, never asleep. Recursive per thread, because a signal handler may
//! use the socket that it interrupted; what the handler does is complete before the interrupted copy tries
//! to publish, and publication notices (see `sockshim_ring::ring`). Recovered when its owner is dead. A taker
//! waits a bounded time for an owner that is alive but does not run.

use super::{arena, fork};
use crate::sys::kernel;
pub(crate) use crate::sys::thread::number as thread;
use sockshim_ring::lock::{OWNER, Word};

/// Whether a thread that is named in shared memory has ended. Its number may be a stranger's by now.
#[cold]
pub(crate) fn is_dead(thread: u32) -> bool {
    thread == 0
        || kernel::has_ended(thread)
        || arena::get().is_some_and(|arena| !fork::may_be_member(arena, thread))
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
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct Lock(Word);

/// Ticks for which a taker waits for a live owner; about 50 ms.
const PATIENCE: u64 = 125_000_000;

impl Lock {
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        self.take_after(|| {})
    }

    /// The same; `interrupted` is called when it is taken from an owner that died in the middle of a change.
    #[inline]
    pub(crate) fn take_after(&self, interrupted: impl FnOnce()) -> Taken {
        let me = thread();
        match self.0.take(me) {
            Ok(()) => Taken::Ours,
            Err(owner) if owner & OWNER == me => Taken::Nested,
            Err(_) => self.wait(me, interrupted),
        }
    }

    /// Takes it for this thread, whose number is `me`, if it is free.
    #[inline(always)]
    pub(crate) fn take_free(&self, me: u32) -> bool {
        self.0.take(me).is_ok()
    }

    /// The end of [`Lock::take_free`].
    #[inline(always)]
    pub(crate) fn release_by(&self, me: u32) {
        self.0.release(me);
    }

    #[inline]
    pub(crate) fn release(&self, taken: Taken) {
        if taken == Taken::Ours {
            self.0.release(thread());
        }
    }

    /// Takes the lock from an owner that lives but does not run (stopped by a signal). Only for a caller that
    /// has made sure that what the owner was doing will fail when it goes on. False: the owner must not be
    /// disturbed, or has let go.
    #[cold]
    pub(crate) fn step_around(&self, bell_is_out: impl FnOnce() -> bool) -> bool {
        let owner = self.0.content();
        kernel::is_stopped(owner & OWNER) && self.0.step_around(owner, thread(), bell_is_out)
    }

    /// See [`Word::firmly`].
    pub(crate) fn firmly<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        self.0.firmly(thread(), change)
    }

    /// See [`Word::ringing`].
    pub(crate) fn ringing<T>(&self, count: impl FnOnce() -> bool, send: impl FnOnce() -> T) -> Option<T> {
        self.0.ringing(thread(), count, send)
    }

    #[cold]
    fn wait(&self, me: u32, interrupted: impl FnOnce()) -> Taken {
        for _ in 0..64 {
            core::hint::spin_loop();
            if self.0.take(me).is_ok() {
                return Taken::Ours;
            }
        }
        let start = kernel::ticks();
        loop {
            kernel::sched_yield();
            match self.0.take(me) {
                Ok(()) => return Taken::Ours,
                Err(owner) if kernel::ticks().wrapping_sub(start) > PATIENCE => {
                    let robbed = if is_dead(owner & OWNER) { self.0.rob(owner, me) } else { None };
                    if robbed == Some(true) {
                        interrupted();
                    }
                    return if robbed.is_some() { Taken::Ours } else { Taken::Not };
                }
                Err(_) => {}
            }
        }
    }

    /// A fresh entry's lock.
    pub(crate) fn reset(&self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use sockshim_ring::lock::{FIRM, RINGING};
    use std::sync::mpsc;

    /// The number of a thread that has ended.
    fn dead_thread() -> u32 {
        let number = std::thread::spawn(thread).join().expect("a thread that only tells its number");
        while kernel::exists(number) {
            std::thread::yield_now();
        }
        number
    }

    #[test]
    fn the_owner_takes_it_again() {
        let lock = Lock(Word::new(0));
        let outer = lock.take();
        assert_eq!(outer, Taken::Ours);
        let inner = lock.take();
        assert_eq!(inner, Taken::Nested);
        lock.release(inner);
        assert_eq!(lock.0.content(), thread());
        lock.release(outer);
        assert_eq!(lock.0.content(), 0);
    }

    #[test]
    fn a_dead_owner_is_robbed() {
        let lock = Lock(Word::new(dead_thread()));
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
        let lock = Lock(Word::new(child.id()));
        assert_eq!(lock.take(), Taken::Ours);
        child.wait().expect("it has ended");
    }

    #[test]
    fn who_robs_the_dead_hears_what_they_were_doing() {
        let dead = dead_thread();
        for (mark, expected) in [(0, false), (FIRM, true), (RINGING, true)] {
            let lock = Lock(Word::new(dead | mark));
            let mut interrupted = false;
            assert_eq!(lock.take_after(|| interrupted = true), Taken::Ours);
            assert_eq!(interrupted, expected);
            assert_eq!(lock.0.content(), thread());
        }
        // A word that no owner can have written.
        assert_eq!(Lock(Word::new(FIRM | RINGING)).take(), Taken::Ours);
    }

    #[test]
    fn a_bell_is_sent_when_it_was_counted() {
        let lock = Lock(Word::new(0));
        assert_eq!(lock.ringing(|| true, || 1), None, "not the owner");
        let taken = lock.take();
        assert_eq!(lock.ringing(|| true, || lock.0.content()), Some(thread() | RINGING));
        assert_eq!(lock.ringing(|| false, || unreachable!("not counted")), None::<()>);
        lock.release(taken);
        assert_eq!(lock.0.content(), 0);
    }

    #[test]
    fn a_live_owner_is_waited_for_and_then_left_alone() {
        let lock = Lock(Word::new(0));
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
            assert_eq!(lock.0.content(), owner);
            done.send(()).expect("the owner waits");
        });
        assert_eq!(lock.take(), Taken::Ours);
    }

    #[test]
    fn one_thread_at_a_time() {
        let lock = Lock(Word::new(0));
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
