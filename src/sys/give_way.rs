//! Giving the processor to whoever waits for it, as long as that is cheap.
//!
//! With both ends of a connection on one processor, `sched_yield` is the quickest way to let the other end run. But the kernel
//! gives a whole time slice to everybody who waits for the processor: beside two strangers that compute, one call takes several
//! milliseconds, and what was waited for has come long before. A thread that sleeps is better off then, because a thread that
//! is woken goes before those that compute. So each call is timed, and a slow one forbids further ones to the whole process,
//! for [`TIMES`] times what it cost: no more than one part in so many is lost to finding out whether the strangers are still
//! there.
//!
//! A program that waits only now and then would pay for that at the beginning of each burst. So where the next call is slow,
//! too, it is twice as long until the one after it, and so on: strangers that stay cost a few milliseconds in ten seconds.

use super::{clock, filter, kernel};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A call that takes longer, in microseconds, has let strangers run: the ends of connections soon wait again themselves.
const SLOW_US: u64 = 1000;
/// For how many times as long as it took there is none after a slow call.
const TIMES: u64 = 32;
/// How often that is doubled at most, where one slow call follows another one.
const DOUBLINGS: u32 = 7;
/// Quick calls in a row after which there was no slow one before.
const FORGET: u32 = 64;
/// And the longest that may be, in microseconds: a call may also have taken so long because the process was stopped.
const LONGEST_US: u64 = 10_000_000;

/// What keeps one thread of a process waiting keeps the others waiting, too.
static POLICY: Policy = Policy::new();

/// Gives the processor to somebody else who waits for it. `now` is the time by [`clock::ticks`], at which callers have
/// just looked; returned is the time after. `None`: that has cost too much lately, or may be forbidden, and nothing was done.
#[inline]
pub(crate) fn give_way(now: u64) -> Option<u64> {
    if filter::is_inherited() {
        return None;
    }
    POLICY.call(now, kernel::sched_yield, clock::ticks)
}

/// Whether that has cost too much lately: strangers want the processors.
pub(crate) fn is_forbidden(now: u64) -> bool {
    POLICY.forbids(now)
}

/// Whether somebody who was away for so many ticks would rather have slept.
pub(crate) fn is_slow(ticks: u64) -> bool {
    ticks > clock::from_us(SLOW_US)
}

/// When giving way is allowed.
#[derive(Debug)]
struct Policy {
    /// The time until which it is forbidden.
    forbidden: AtomicU64,
    /// Slow calls since [`FORGET`] quick ones in a row. That threads of one process may lose each other's count does no harm.
    slow: AtomicU32,
    /// Quick calls in a row.
    quick: AtomicU32,
}

impl Policy {
    const fn new() -> Self {
        Self { forbidden: AtomicU64::new(0), slow: AtomicU32::new(0), quick: AtomicU32::new(0) }
    }

    fn forbids(&self, now: u64) -> bool {
        // Times are compared by their distance: a clock that goes round has no beginning.
        self.forbidden.load(Ordering::Relaxed).wrapping_sub(now).cast_signed() > 0
    }

    /// Makes the call, unless it is forbidden now.
    fn call(&self, now: u64, sched_yield: impl FnOnce(), ticks: impl FnOnce() -> u64) -> Option<u64> {
        if self.forbids(now) {
            return None;
        }
        sched_yield();
        let end = ticks();
        let took = end.wrapping_sub(now);
        if is_slow(took) {
            self.forbid(end, took);
        } else if self.slow.load(Ordering::Relaxed) != 0 {
            self.note_quick();
        }
        Some(end)
    }

    #[cold]
    fn forbid(&self, now: u64, took: u64) {
        let before = self.slow.load(Ordering::Relaxed).min(DOUBLINGS);
        let pause = took.saturating_mul(TIMES << before).min(clock::from_us(LONGEST_US));
        self.forbidden.store(now.wrapping_add(pause), Ordering::Relaxed);
        self.slow.store(before + 1, Ordering::Relaxed);
        self.quick.store(0, Ordering::Relaxed);
    }

    #[cold]
    fn note_quick(&self) {
        if self.quick.fetch_add(1, Ordering::Relaxed) + 1 >= FORGET {
            self.slow.store(0, Ordering::Relaxed);
            self.quick.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// A thread among others, by a clock that only they move.
    struct Thread {
        policy: Policy,
        now: Cell<u64>,
    }

    impl Thread {
        fn new(start: u64) -> Self {
            let policy = Policy::new();
            policy.forbidden.store(start, Ordering::Relaxed);
            Self { policy, now: Cell::new(start) }
        }

        fn pass(&self, microseconds: u64) {
            self.now.set(self.now.get().wrapping_add(clock::from_us(microseconds)));
        }

        /// Whether it gave way, where that takes so long.
        fn gives_way(&self, microseconds: u64) -> bool {
            self.policy.call(self.now.get(), || self.pass(microseconds), || self.now.get()).is_some()
        }
    }

    #[test]
    fn nothing_forbids_what_is_cheap() {
        let thread = Thread::new(0);
        assert!((0..100).all(|_| thread.gives_way(2) && thread.gives_way(SLOW_US)));
    }

    #[test]
    fn a_slow_call_forbids_it_for_a_multiple_of_its_cost() {
        let thread = Thread::new(0);
        assert!(thread.gives_way(3000));
        assert!(!thread.gives_way(2));
        thread.pass(3000 * TIMES - 1);
        assert!(!thread.gives_way(2));
        thread.pass(1);
        assert!(thread.gives_way(2) && thread.gives_way(2));
    }

    #[test]
    fn strangers_that_stay_take_less_than_a_thousandth_of_the_time() {
        let thread = Thread::new(0);
        let mut lost = 0;
        for _ in 0..5_000_000 {
            lost += if thread.gives_way(5600) { 5600 } else { 0 };
            thread.pass(20);
        }
        assert!(lost > 0 && lost * 1000 < 100_000_000, "{lost} us");
    }

    #[test]
    fn strangers_that_come_and_go_take_less_than_a_twentieth_of_the_time() {
        let thread = Thread::new(0);
        let (mut lost, mut quick) = (0, 0);
        for second in 0..1_000 {
            for _ in 0..50_000 {
                let cost = if second % 3 == 0 { 5600 } else { 1 };
                if thread.gives_way(cost) {
                    if cost > 1 { lost += cost } else { quick += 1 }
                }
                thread.pass(20);
            }
        }
        assert!(lost > 0 && lost * 20 < 1_000_000_000, "{lost} us");
        // While they are away it is allowed most of the time.
        assert!(quick > 50_000 * 500, "{quick}");
    }

    #[test]
    fn a_slow_call_now_and_then_forbids_it_for_no_longer_than_the_first_one() {
        let thread = Thread::new(0);
        for _ in 0..10 {
            assert!(thread.gives_way(3000));
            thread.pass(3000 * TIMES);
            assert!((0..FORGET).all(|_| thread.gives_way(2)));
        }
    }

    #[test]
    fn a_process_that_was_stopped_soon_gives_way_again() {
        let thread = Thread::new(0);
        assert!(thread.gives_way(3_600_000_000));
        assert!(!thread.gives_way(2));
        thread.pass(LONGEST_US);
        assert!(thread.gives_way(2));
    }

    #[test]
    fn the_clock_may_go_round_and_lag_behind_on_another_processor() {
        let thread = Thread::new(u64::MAX - clock::from_us(4000));
        assert!(thread.gives_way(3000));
        assert!(!thread.gives_way(2));
        thread.pass(2000);
        assert!(!thread.gives_way(2));
        let before = Thread { now: Cell::new(thread.now.get() - 100), ..thread };
        assert!(!before.gives_way(2));
        before.pass(3000 * TIMES);
        assert!(before.gives_way(2));
    }

    #[test]
    fn the_real_call_comes_back() {
        assert!(give_way(clock::ticks()).is_some() || POLICY.forbidden.load(Ordering::Relaxed) != 0);
    }
}
