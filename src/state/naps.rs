//! Whether naps pay that hear of pipes only: how the last ones went, in a set or in the polls of a process.
//!
//! Of what else may come, the kernel's own descriptors for example, such a nap hears when it is over. So after the kernel has told of
//! such a thing there are no naps for [`TIMES`] times as long as one may be; for twice as long each time that it was told too late:
//! a program that gets such events gets a few of them late, and then no more. It begins with 10 ms, because a server that accepts
//! connections, all of which the kernel tells of, is about to serve them.

use crate::sys::clock;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Microseconds of the longest nap. Not below a tick of the kernel's clock (4 ms where there are 250 in a second): to stop a
/// nap in between, the kernel has to set its timer for each, which in a virtual machine costs more than the nap saves
/// (measured: 200 us made a round trip four times as dear).
pub(crate) const LONGEST_US: u64 = 5000;
/// See the module.
const TIMES: u64 = 2;
/// How often that is doubled at most: to a minute and a half.
const DOUBLINGS: u32 = 13;
/// How often a doubling is taken back: when nothing was told of for so many times as long as there were to be no naps.
const FORGET: u64 = 8;
/// Microseconds after the end of a nap: what is told by then has probably come before.
const SOON_US: u64 = 500;
/// Naps in vain after which they stop paying, and every how many waits one is tried again.
const GIVE_UP: u32 = 4;
const RETRY: u32 = 32;

/// See the module. Shared memory, so no value in it may do harm.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Naps {
    /// Up to when there are none, in ticks.
    until: AtomicU64,
    /// When the last one was over in vain.
    ended: AtomicU64,
    /// Naps in vain in a row.
    vain: AtomicU32,
    /// Waits since naps stopped paying.
    waits: AtomicU32,
    doublings: AtomicU32,
}

impl Naps {
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

    /// Whether the next wait will nap, as things stand.
    pub(crate) fn pay(&self, now: u64) -> bool {
        !self.are_forbidden(now) && self.vain.load(Ordering::Relaxed) < GIVE_UP
    }

    /// Whether a wait may nap now.
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

    /// A nap is over. `found`: by what it was for.
    pub(crate) fn note_end(&self, now: u64, found: bool) {
        if found {
            self.vain.store(0, Ordering::Relaxed);
        } else {
            self.vain.store(self.vain.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
            self.ended.store(now, Ordering::Relaxed);
        }
    }

    /// The kernel has told of something that no nap hears of.
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

    /// A program by a clock of its own: for so many events of each kind, by turns and as far apart, how many are told late.
    fn late_events(naps: &Naps, apart_us: u64, count: u32) -> u32 {
        let mut now = 1 << 40;
        let mut late = 0;
        for _ in 0..count {
            // One of a pipe, after which the program naps; and one of the kernel's after a millisecond of that nap.
            if naps.may_begin(now) {
                now += clock::from_us(LONGEST_US);
                naps.note_end(now, false);
                late += 1;
            } else {
                now += clock::from_us(1000);
            }
            naps.note_unheard(now);
            now += clock::from_us(apart_us);
            naps.note_end(now, true);
        }
        late
    }

    #[test]
    fn few_events_of_the_kernels_come_late() {
        for apart in [10, 1000, 100_000, 1_000_000, 10_000_000] {
            let late = late_events(&Naps::new(), apart, 1000);
            assert!((1..=DOUBLINGS + 1).contains(&late), "{late} of 1000, {apart} us apart");
        }
    }

    #[test]
    fn what_pays_goes_on_and_what_does_not_is_tried_again_now_and_then() {
        let naps = Naps::new();
        assert!((0..100).all(|_| {
            naps.note_end(1 << 40, true);
            naps.may_begin(1 << 40)
        }));
        let tried = (0..320)
            .filter(|_| {
                naps.may_begin(1 << 40) && {
                    naps.note_end(1 << 40, false);
                    true
                }
            })
            .count();
        assert!((10..20).contains(&tried), "{tried}");
        naps.note_end(1 << 40, true);
        assert!(naps.may_begin(1 << 40));
    }

    #[test]
    fn seldom_events_forget_what_was_late() {
        let naps = Naps::new();
        late_events(&naps, 1_000_000, 100);
        let mut now = 1 << 50;
        for _ in 0..DOUBLINGS {
            naps.note_unheard(now);
            assert!(!naps.may_begin(now));
            now += clock::from_us(1_000_000_000);
            assert!(naps.may_begin(now));
        }
        naps.note_unheard(now);
        now += clock::from_us(LONGEST_US * TIMES + 1);
        assert!(naps.may_begin(now));
    }
}
