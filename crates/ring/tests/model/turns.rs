//! Threads that take turns by a lock on which they sleep, as `wait_asleep` and `give_back_to` in src/state/lock.rs; but
//! a sleep that nobody ends never ends, so that loom notices it.

use super::{FRAME, timed_wait::Futex};
use loom::{cell::UnsafeCell, thread};
use sockshim_ring::lock_word::{Left, Word};
use std::sync::Arc;

pub(crate) struct Turns {
    word: Word,
    futex: Futex,
    /// What the lock protects.
    count: UnsafeCell<u32>,
}

// SAFETY: the cell is what the model is about: loom reports an access without an order.
unsafe impl Sync for Turns {}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { word: Word::new(0), futex: Futex::new(), count: UnsafeCell::new(0) })
    }

    /// One turn of the thread `me`, which has starved as soon as it has slept if it is `impatient`.
    pub(crate) fn take_turn(&self, me: u32, impatient: bool) {
        match self.word.take(me, FRAME) {
            Ok(mine) => {
                self.count();
                if self.word.release(mine) {
                    return;
                }
            }
            Err(_) => {
                self.wait(me, impatient);
                self.count();
            }
        }
        let left = self.word.let_go(me, false);
        if left != Left::Alone && !self.futex.wake_one() && left == Left::Kept {
            self.word.free_kept();
        }
    }

    fn wait(&self, me: u32, impatient: bool) {
        let mut has_slept = false;
        while let Err(seen) = self.word.take_after_wait(me, FRAME, has_slept) {
            let Some(wanted) = self.word.want(seen, has_slept || impatient) else {
                thread::yield_now();
                continue;
            };
            self.futex.wait_while(|| self.word.content().upper_half() == wanted.upper_half());
            has_slept = true;
        }
    }

    fn count(&self) {
        // SAFETY: loom checks that nobody else touches it.
        self.count.with_mut(|count| unsafe { *count += 1 });
    }

    /// How many turns there were; the lock is free.
    pub(crate) fn counted(&self) -> u32 {
        assert_eq!(self.word.content().owner(), 0);
        // SAFETY: as before.
        self.count.with(|count| unsafe { *count })
    }
}
