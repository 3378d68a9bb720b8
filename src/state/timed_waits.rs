//! Whether timed waits pay that hear of pipes only: how the last ones went, in a set or in the polls of a process.
//!
//! Of what else may come, the kernel's own descriptors for example, such a timed wait hears when it is over. So after the
//! kernel has reported such a thing there are no timed waits for [`TIMES`] times as long as one may be; for twice as long each
//! time that it was reported too late: a program that gets such events gets a few of them late, and then no more. It begins
//! with 10 ms, because a server that accepts connections, all of which the kernel reports, is about to serve them.

use crate::sys::clock;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Microseconds of the longest timed wait. Not below a tick of the kernel's clock (4 ms where there are 250 in a second): to stop a
/// timed wait in between, the kernel has to set its timer for each, which in a virtual machine costs more than the timed wait saves
/// (measured: 200 us made a round trip four times as dear).
pub(crate) const LONGEST_US: u64 = 5000;
/// See the module.
const TIMES: u64 = 2;
/// How often that is doubled at most: to a minute and a half.
const DOUBLINGS: u32 = 13;
/// How often a doubling is taken back: when nothing was reported for so many times as long as there were to be no timed waits.
const FORGET: u64 = 8;
/// Microseconds after the end of a timed wait: what is reported by then has probably come before.
const SOON_US: u64 = 500;
/// Timed waits in vain after which they stop paying, and every how many waits one is tried again.
const GIVE_UP: u32 = 4;
const RETRY: u32 = 32;

/// See the module. Shared memory, so no value in it may do harm.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct TimedWaits {
    /// Up to when there are none, in ticks.
    until: AtomicU64,
    /// When the last one was over in vain.
    ended: AtomicU64,
    /// Timed waits in vain in a row.
    vain: AtomicU32,
    /// Waits since timed waits stopped paying.
    waits: AtomicU32,
    doublings: AtomicU32,
}

impl TimedWaits {
    pub(crate) const fn new() -> Self {
        Self {
            until: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            vain: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            doublings: AtomicU32::new(0),
        }
    }

    pub(crate) fn reset(&self) {
        [&self.until, &self.ended].into_iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let small = [&self.vain, &self.waits, &self.doublings];
        small.into_iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn are_forbidden(&self, now: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && until.wrapping_sub(now).cast_signed() > 0
    }

    /// Whether the next wait will wait on the futex, as things stand.
    pub(crate) fn pay(&self, now: u64) -> bool {
        !self.are_forbidden(now) && self.vain.load(Ordering::Relaxed) < GIVE_UP
    }

    /// Whether a wait may wait on the futex now.
    pub(crate) fn may_begin(&self, now: u64) -> bool {
        if self.pay(now) {
            return true;
        }
        if self.are_forbidden(now) {
            return false;
        }
        let waits = self.waits.load(Ordering::Relaxed).wrapping_add(1);
        self.waits.store(waits, Ordering::Relaxed);
        waits.is_multiple_of(RETRY)
    }

    /// A timed wait is over. `found`: by what it was for.
    pub(crate) fn note_end(&self, now: u64, found: bool) {
        if found {
            self.vain.store(0, Ordering::Relaxed);
        } else {
            self.vain.store(self.vain.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
            self.ended.store(now, Ordering::Relaxed);
        }
    }

    /// The kernel has reported something that no timed wait hears of.
    pub(crate) fn note_unheard(&self, now: u64) {
        let is_late = now.wrapping_sub(self.ended.load(Ordering::Relaxed)) < clock::from_us(SOON_US);
        let doublings = self.doublings.load(Ordering::Relaxed).min(DOUBLINGS);
        let pause = |doublings| clock::from_us((LONGEST_US * TIMES) << doublings);
        let doublings = if is_late {
            (doublings + 1).min(DOUBLINGS)
        } else if now.wrapping_sub(self.until.load(Ordering::Relaxed)).cast_signed()
            > (pause(doublings) * FORGET).cast_signed()
        {
            doublings.saturating_sub(1)
        } else {
            doublings
        };
        self.doublings.store(doublings, Ordering::Relaxed);
        self.until.store(now.wrapping_add(pause(doublings)) | 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program by a clock of its own: for so many events of each kind, by turns and as far apart, how many are reported late.
    fn late_events(timed_waits: &TimedWaits, apart_us: u64, count: u32) -> u32 {
        let mut now = 1 << 40;
        let mut late = 0;
        for _ in 0..count {
            // One of a pipe, after which the program waits on the futex; and one of the kernel's after a millisecond of that
            // timed wait.
            if timed_waits.may_begin(now) {
                now += clock::from_us(LONGEST_US);
                timed_waits.note_end(now, false);
                late += 1;
            } else {
                now += clock::from_us(1000);
            }
            timed_waits.note_unheard(now);
            now += clock::from_us(apart_us);
            timed_waits.note_end(now, true);
        }
        late
    }

    #[test]
    fn few_events_of_the_kernels_come_late() {
        for apart in [10, 1000, 100_000, 1_000_000, 10_000_000] {
            let late = late_events(&TimedWaits::new(), apart, 1000);
            assert!((1..=DOUBLINGS + 1).contains(&late), "{late} of 1000, {apart} us apart");
        }
    }

    #[test]
    fn what_pays_goes_on_and_what_does_not_is_tried_again_now_and_then() {
        let timed_waits = TimedWaits::new();
        assert!((0..100).all(|_| {
            timed_waits.note_end(1 << 40, true);
            timed_waits.may_begin(1 << 40)
        }));
        let tried = (0..320)
            .filter(|_| {
                timed_waits.may_begin(1 << 40) && {
                    timed_waits.note_end(1 << 40, false);
                    true
                }
            })
            .count();
        assert!((10..20).contains(&tried), "{tried}");
        timed_waits.note_end(1 << 40, true);
        assert!(timed_waits.may_begin(1 << 40));
    }

    #[test]
    fn seldom_events_forget_what_was_late() {
        let timed_waits = TimedWaits::new();
        late_events(&timed_waits, 1_000_000, 100);
        let mut now = 1 << 50;
        for _ in 0..DOUBLINGS {
            timed_waits.note_unheard(now);
            assert!(!timed_waits.may_begin(now));
            now += clock::from_us(1_000_000_000);
            assert!(timed_waits.may_begin(now));
        }
        timed_waits.note_unheard(now);
        now += clock::from_us(LONGEST_US * TIMES + 1);
        assert!(timed_waits.may_begin(now));
    }
}
