//! The lock of one end of a connection: the word is its owner's thread number.
//!
//! Held for a copy or a change of lanes, never asleep. Recursive per thread, because a signal handler may
//! use the socket that it interrupted; what the handler does is complete before the interrupted copy tries
//! to publish, and publication notices (see `sockshim_ring::ring`). Recovered when its owner is dead. A taker
//! waits a bounded time for an owner that is alive but does not run, and then goes on without it if it is stopped.

use super::{arena, fork};
use crate::error::Errno;
use crate::sys::kernel;
use crate::sys::restartable::{Area, Call};
use core::cell::Cell;
use sockshim_ring::lock::{FIRM, OWNER, Word};

thread_local! {
    /// This thread's number; 0: not asked yet. No destructor, so it works until the thread's very end.
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// This thread's number, as the kernel knows it.
#[inline]
pub(crate) fn thread() -> u32 {
    THREAD.with(|cell| match cell.get() {
        0 => {
            let number = kernel::gettid();
            cell.set(number);
            number
        }
        number => number,
    })
}

/// After fork the child's only thread has another number.
pub(crate) fn forget_thread() {
    THREAD.with(|cell| cell.set(0));
}

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

    /// The same; `interrupted` is called when it is taken from an owner that died, in the middle of whatever it was.
    #[inline]
    pub(crate) fn take_after(&self, interrupted: impl FnOnce()) -> Taken {
        let me = thread();
        match self.0.take(me) {
            Ok(()) => Taken::Ours,
            Err(owner) if owner & OWNER == me => Taken::Nested,
            Err(_) => self.wait(me, interrupted),
        }
    }

    #[inline]
    pub(crate) fn release(&self, taken: Taken) {
        if taken == Taken::Ours {
            self.0.release(thread());
        }
    }

    /// What is in the word, if its owner lives but does not run: it is stopped by a signal or a debugger.
    #[cold]
    pub(crate) fn stopped_owner(&self) -> Option<u32> {
        let seen = self.0.content();
        (seen & OWNER != 0 && seen & FIRM == 0 && kernel::is_stopped(seen & OWNER)).then_some(seen)
    }

    /// Takes the lock from a stopped owner; `seen` is what was in the word. Only for a caller that has made sure that
    /// what the owner was doing changes nothing when it goes on. Says whether the owner may owe somebody a bell. `None`:
    /// it has let go.
    #[cold]
    pub(crate) fn step_around(&self, seen: u32) -> Option<bool> {
        let owes = self.0.take_from(seen, thread())?;
        // It may have gone on between the look and this, and be inside a call. Stopped again, it is not.
        let owner = seen & OWNER;
        while self.0.caller() == owner && !kernel::is_stopped(owner) && !is_dead(owner) {
            kernel::nap(50);
        }
        Some(owes)
    }

    /// Makes a call that only the owner may make, with signals blocked; `None`, and no call: somebody has stepped
    /// around us.
    pub(crate) fn call(&self, call: &Call) -> Option<Result<usize, Errno>> {
        match Area::own() {
            Some(area) => self.0.owning(thread(), |word, value| call.make_while(area, word, value)),
            None => self.0.firmly(thread(), || call.make()),
        }
    }

    /// See [`Word::ringing`].
    pub(crate) fn ringing(&self) -> bool {
        self.0.ringing(thread())
    }

    /// See [`Word::rung`].
    pub(crate) fn rung(&self) -> bool {
        self.0.rung(thread())
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
                    let robbed = if is_dead(owner & OWNER) { self.0.take_from(owner, me) } else { None };
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
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use sockshim_ring::lock::RINGING;
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
    fn who_robs_the_dead_hears_of_it() {
        let dead = dead_thread();
        for mark in [0, FIRM, RINGING] {
            let lock = Lock(Word::new(dead | mark));
            let mut interrupted = false;
            assert_eq!(lock.take_after(|| interrupted = true), Taken::Ours);
            assert!(interrupted);
            assert_eq!(lock.0.content(), thread());
        }
        // A word that no owner can have written.
        assert_eq!(Lock(Word::new(FIRM | RINGING)).take(), Taken::Ours);
    }

    #[test]
    fn only_the_owner_makes_its_calls() {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let send = Call::send(std::os::fd::AsRawFd::as_raw_fd(&one), b"x", 0);
        crate::sys::restartable::start();
        let lock = Lock(Word::new(0));
        assert_eq!(lock.call(&send), None);
        let taken = lock.take();
        assert_eq!(lock.call(&send), Some(Ok(1)));
        assert!(lock.ringing() && !lock.ringing());
        assert_eq!(lock.call(&send), Some(Ok(1)));
        assert!(lock.rung() && !lock.rung());
        lock.release(taken);
        assert_eq!((lock.0.content(), lock.0.caller()), (0, 0));
        drop(other);
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

    #[test]
    fn a_forgotten_number_is_asked_again() {
        let number = thread();
        forget_thread();
        assert_eq!(thread(), number);
    }
}
