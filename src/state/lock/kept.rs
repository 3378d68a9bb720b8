//! A lock of an end that can be kept: whoever has it must not sleep, but may have to wait between two things of which nothing
//! of another thread's may come.

use super::{Held, Lock, is_dead, thread};
use crate::sys::kernel;
use core::sync::atomic::{AtomicU32, Ordering};

/// The read lock or the write lock of an end, and who has gone to wait or to read a file with what it protects in its hands: the
/// lock is free meanwhile, because whoever has it must not sleep, but who takes it waits, asleep.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct EndLock {
    pub(crate) lock: Lock,
    /// The thread; 0: none.
    keeper: AtomicU32,
}

/// Nanoseconds for which a keeper is waited for. It waits for less itself.
const PATIENCE_WITH_KEEPER: u64 = 2_000_000_000;

/// What came of an attempt to be a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Keeping {
    /// The lock is free, and this thread is its keeper.
    Kept,
    /// Nothing has changed: a call that a signal interrupted has the lock.
    Nested,
    /// Somebody has fenced this thread off: the lock is not its own any more.
    FencedOff,
}

impl EndLock {
    /// Whether another thread is its keeper.
    #[inline]
    pub(crate) fn is_kept(&self) -> bool {
        self.other_keeper().is_some()
    }

    #[inline]
    fn other_keeper(&self) -> Option<u32> {
        let keeper = self.keeper.load(Ordering::Relaxed);
        (keeper != 0 && keeper != thread()).then_some(keeper)
    }

    /// Lets go of the lock, of which this thread is the keeper from now on.
    pub(crate) fn keep(&self, held: &Held<'_>) -> Keeping {
        if !held.is_first() {
            return Keeping::Nested;
        }
        // Before the release: who takes the lock after it must see that.
        let keeps = self.change_keeper(0, thread());
        if keeps && self.lock.give_back_to(false) {
            return Keeping::Kept;
        }
        if keeps {
            self.let_go();
        }
        Keeping::FencedOff
    }

    /// The keeper has the lock again.
    pub(crate) fn let_go(&self) {
        let _ = self.change_keeper(thread(), 0);
    }

    fn change_keeper(&self, from: u32, to: u32) -> bool {
        self.keeper.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Waits, without the lock, until there is no other keeper; `since` is when the caller began, by `monotonic_ns`. False: the
    /// keeper has died, or does not come back; then there is none any more.
    #[cold]
    pub(crate) fn wait_for_keeper(&self, since: u64) -> bool {
        while let Some(keeper) = self.other_keeper() {
            if is_dead(keeper) || kernel::monotonic_ns().wrapping_sub(since) > PATIENCE_WITH_KEEPER {
                // It may have come back in this moment.
                return !self.change_keeper(keeper, 0);
            }
            if kernel::is_restricted() {
                (0..1000).for_each(|_| core::hint::spin_loop());
            } else {
                kernel::sleep_us(200);
            }
        }
        true
    }

    /// Takes the lock for a thread that changes all of a process's at once, and waits for its keeper before.
    pub(crate) fn take_back(&self) {
        let since = kernel::monotonic_ns();
        loop {
            let taken = self.lock.take();
            if !self.is_kept() {
                return;
            }
            self.lock.release(taken);
            let _ = self.wait_for_keeper(since);
        }
    }

    /// A fresh entry's lock.
    pub(crate) fn reset(&self) {
        self.lock.reset();
        self.keeper.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::FencedOff;
    use super::super::tests::{dead_thread, lock};
    use super::*;
    use std::sync::mpsc;

    fn end_lock(keeper: u32) -> EndLock {
        EndLock { lock: lock(0), keeper: AtomicU32::new(keeper) }
    }

    #[test]
    fn who_takes_a_lock_waits_until_its_keeper_is_back() {
        let end = end_lock(0);
        let (kept, keeps) = mpsc::channel();
        std::thread::scope(|scope| {
            let end = &end;
            let other = scope.spawn(move || {
                let held = Held::new(&end.lock, end.lock.take());
                assert_eq!((end.keep(&held), end.is_kept()), (Keeping::Kept, false));
                kept.send(()).expect("the test waits");
                std::thread::sleep(std::time::Duration::from_millis(20));
                core::mem::forget(Held::new(&end.lock, end.lock.take()));
                end.let_go();
            });
            keeps.recv().expect("the keeper tells");
            let held = Held::new(&end.lock, end.lock.take());
            assert!(held.is_first() && end.is_kept(), "the lock itself is free");
            drop(held);
            assert!(end.wait_for_keeper(kernel::monotonic_ns()));
            assert!(other.is_finished() || !end.is_kept());
        });
        assert!(!end.is_kept());
        assert_eq!(end.lock.word.content().marked(), 0, "one release for both");
    }

    #[test]
    fn a_keeper_that_has_died_is_waited_for_no_longer() {
        let end = end_lock(dead_thread());
        assert!(end.is_kept());
        assert!(!end.wait_for_keeper(kernel::monotonic_ns()));
        assert!(!end.is_kept());
    }

    #[test]
    fn who_has_been_fenced_off_keeps_nothing() {
        let end = end_lock(0);
        let held = Held::new(&end.lock, end.lock.take());
        assert_eq!(
            std::thread::scope(|scope| scope
                .spawn(|| end.lock.fence_off(end.lock.word.content(), || true))
                .join()
                .unwrap()),
            FencedOff::Taken
        );
        assert_eq!(end.keep(&held), Keeping::FencedOff);
        assert!(!end.is_kept() && end.keeper.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn keepers_that_come_back_all_the_time_are_never_taken_for_dead() {
        let end = end_lock(0);
        let is_over = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let held = Held::new(&end.lock, end.lock.take());
                    assert_eq!(end.keep(&held), Keeping::Kept);
                    core::mem::forget(Held::new(&end.lock, end.lock.take()));
                    end.let_go();
                }
            });
            let all = (0..200_000).all(|_| end.wait_for_keeper(kernel::monotonic_ns()));
            is_over.store(true, Ordering::Relaxed);
            assert!(all);
        });
    }
}
