//! TCP sequence numbers (RFC 9293 section 3.4): a circle of 2^32.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A point on the circle. It has no order of its own: `before` and `after` hold for points less than half the circle apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(u32);

impl SeqNumber {
    /// The number as it stands in a header.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as it stands in a header.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether this comes before `other`.
    pub const fn before(self, other: Self) -> bool {
        before(self.0, other.0)
    }

    /// Whether this comes after `other`.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether this is `other` or comes before it.
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// Whether this is `other` or comes after it.
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// The steps from `start` forward to here, modulo 2^32.
    pub const fn since(self, start: Self) -> u32 {
        self.0.wrapping_sub(start.0)
    }

    /// The steps from `start` forward to here, or zero if that comes after.
    pub const fn saturating_since(self, start: Self) -> u32 {
        if self.before(start) { 0 } else { self.since(start) }
    }

    /// Whether this lies in `start..end`, all numbers taken modulo 2^32.
    pub const fn within(self, start: Self, end: Self) -> bool {
        self.since(start) < end.since(start)
    }

    /// The later of two numbers.
    pub const fn later(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of two numbers.
    pub const fn earlier(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    fn add(self, steps: u32) -> Self {
        Self(self.0.wrapping_add(steps))
    }
}

impl AddAssign<u32> for SeqNumber {
    fn add_assign(&mut self, steps: u32) {
        *self = *self + steps;
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;

    fn sub(self, steps: u32) -> Self {
        Self(self.0.wrapping_sub(steps))
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The order of numbers that wrap: sequence numbers, timestamps (RFC 7323 section 5.2), counters.
pub(crate) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_holds_within_half_the_circle(start: u32, steps in 1u32..0x8000_0000) {
            let (a, b) = (SeqNumber::new(start), SeqNumber::new(start) + steps);
            prop_assert!(a.before(b) && b.after(a) && !b.before(a));
            prop_assert!(a.at_or_before(b) && b.at_or_after(a) && !b.at_or_before(a));
            prop_assert_eq!(b.since(a), steps);
            prop_assert_eq!(a.saturating_since(b), 0);
            prop_assert_eq!((a.earlier(b), b.later(a)), (a, b));
        }

        #[test]
        fn a_range_holds_its_start_and_not_its_end(start: u32, len in 1u32..) {
            let (start, end) = (SeqNumber::new(start), SeqNumber::new(start) + len);
            prop_assert!(start.within(start, end) && (end - 1).within(start, end));
            prop_assert!(!end.within(start, end));
        }
    }
}
