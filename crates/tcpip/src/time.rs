//! Points in time, which the caller passes in.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// Nanoseconds since an origin of the caller's: any clock that never goes back will do.
///
/// Arithmetic saturates: a deadline beyond the end of time is one that never comes.
///
/// Kept as one more than that number, so that an `Option` of it takes no more memory: connections have many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The origin of all times.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// A time that never comes.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// So many nanoseconds after the origin.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// So many microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self::from_nanos(micros.saturating_mul(1_000))
    }

    /// So many milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// So many seconds after the origin.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_nanos(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.as_nanos() / 1_000
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }

    /// Milliseconds in four bytes, which wrap after 49 days: for what is compared with a recent time only.
    pub(crate) const fn ticks(self) -> u32 {
        self.as_millis() as u32
    }

    /// The time from `earlier` to here, or zero if that is later.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// What `Duration::as_nanos` says, in half its width.
#[inline]
const fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64)
}

/// Whole microseconds, an hour at most, in a quarter of the memory of a `Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(u32);

impl Micros {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const LEAST: Self = Self(1);

    pub(crate) const fn new(micros: u32) -> Self {
        Self(micros)
    }

    pub(crate) const fn from_millis(millis: u32) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The time from `earlier` to `now`, or zero if that is later.
    #[inline]
    pub(crate) fn between(earlier: Instant, now: Instant) -> Self {
        let micros = now.0.get().saturating_sub(earlier.0.get()) / 1_000;
        Self(micros.min(u64::from(u32::MAX)) as u32)
    }

    pub(crate) const fn halved(self) -> Self {
        Self(self.0 / 2)
    }

    /// Half of it and half of the other one.
    pub(crate) const fn mean(self, other: Self) -> Self {
        Self(self.0 / 2 + other.0 / 2)
    }

    /// Doubled, or an hour.
    pub(crate) const fn doubled(self) -> Self {
        Self(self.0.saturating_mul(2))
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// An eighth of the way to `sample`.
    pub(crate) const fn smoothed(self, sample: Self) -> Self {
        Self(((self.0 as u64 * 7 + sample.0 as u64) / 8) as u32)
    }

    pub(crate) const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    const fn nanos(self) -> u64 {
        self.0 as u64 * 1_000
    }
}

impl From<Duration> for Micros {
    #[inline]
    fn from(time: Duration) -> Self {
        let micros = time.as_secs().saturating_mul(1_000_000) + u64::from(time.subsec_micros());
        Self(micros.min(u64::from(u32::MAX)) as u32)
    }
}

impl From<Micros> for Duration {
    #[inline]
    fn from(time: Micros) -> Self {
        Self::from_micros(u64::from(time.0))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}

impl Add<Micros> for Instant {
    type Output = Self;

    #[inline]
    fn add(self, time: Micros) -> Self {
        Self(self.0.saturating_add(time.nanos()))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(nanos(time)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.as_nanos() / 1_000_000_000, self.as_nanos() % 1_000_000_000)
    }
}
