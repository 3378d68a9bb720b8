//! Random numbers from a seed, so that a run can be repeated.

use core::time::Duration;

/// SplitMix64: small, fast, and good enough to toss coins.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A random number of 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A generator of its own, so that what one part draws does not change what another part gets.
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }

    /// A number below `limit`; zero if that is zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below((to - from).saturating_add(1))
    }

    /// True with that probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        // The number is drawn in any case: a probability then changes only its own decisions.
        let unit = (self.number() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }

    /// A time up to `limit`.
    pub fn time(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(
            self.below(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)),
        )
    }

    /// One of the given values.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_comes_true_as_often_as_it_says() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(0.03)).count();
        assert!((2800..3200).contains(&hits), "{hits}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(2);
        let mut seen = [false; 6];
        for _ in 0..1000 {
            seen[random.between(1, 6) as usize - 1] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(random.below(0), 0);
    }
}
