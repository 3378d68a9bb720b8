//! Clocks of hosts, which may be coarse, and too fast or too slow.

use core::time::Duration;

use crate::time::Instant;

/// A host's clock, which may differ from the network's time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    granularity: u64,
    /// By how much the clock is too fast, in parts per billion.
    skew: i64,
    offset: u64,
}

impl Clock {
    /// A clock that moves in steps of `granularity`, shows `offset` when the network begins, and gains `skew` parts
    /// per billion.
    pub fn new(granularity: Duration, skew: i64, offset: Duration) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { granularity: nanos(granularity).max(1), skew, offset: nanos(offset) }
    }

    /// What the clock shows at this time.
    pub fn show(&self, now: Instant) -> Instant {
        let nanos = i128::from(now.as_nanos());
        let shown = nanos + nanos * i128::from(self.skew) / BILLION + i128::from(self.offset);
        let shown = u64::try_from(shown.max(0)).unwrap_or(u64::MAX);
        Instant::from_nanos(shown - shown % self.granularity)
    }

    /// When it shows `shown` or more for the first time: what sleeping until then does.
    pub fn reaches(&self, shown: Instant) -> Instant {
        let step = shown.as_nanos().checked_next_multiple_of(self.granularity);
        let Some(step) = step else { return Instant::MAX };
        let since = i128::from(step) - i128::from(self.offset);
        let guess = since * BILLION / (BILLION + i128::from(self.skew));
        let mut at = Instant::from_nanos(u64::try_from(guess.max(0)).unwrap_or(u64::MAX));
        // The divisions round: look for the first nanosecond near by.
        at = at - Duration::from_nanos(2);
        while self.show(at) < shown && at < Instant::MAX {
            at += Duration::from_nanos(1);
        }
        at
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Duration::from_nanos(1), 0, Duration::ZERO)
    }
}

const BILLION: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sleeping_ends_at_the_first_moment_that_shows_the_time(
            granularity in 1u64..20_000_000, skew in -1_000_000i64..1_000_000, offset in 0u64..1 << 40, shown in 0u64..1 << 50,
        ) {
            let clock = Clock::new(Duration::from_nanos(granularity), skew, Duration::from_nanos(offset));
            let shown = Instant::from_nanos(shown);
            let at = clock.reaches(shown);
            prop_assert!(clock.show(at) >= shown);
            prop_assert!(at == Instant::ZERO || clock.show(at - Duration::from_nanos(1)) < shown);
        }
    }

    #[test]
    fn a_coarse_clock_moves_in_steps() {
        let clock = Clock::new(Duration::from_millis(16), 0, Duration::ZERO);
        assert_eq!(clock.show(Instant::from_millis(31)), Instant::from_millis(16));
        assert_eq!(clock.reaches(Instant::from_millis(17)), Instant::from_millis(32));
    }
}
