//! Publish timestamps: when bytes were published, so that a reader who waits for several connections can report them in the
//! order in which they came up, as a kernel does.
//!
//! A program may write to one connection, then to another one, and rely on it that the server hears of them in this order. The
//! rings alone do not say which was first. So the writer notes the time of its last few publications, for a reader that asks
//! for it; of those the reader takes the first that it has not read. They order events and do nothing else: what
//! stands there need not be true.

use crate::layout::{Direction, MAX_CAPACITY};
use crate::sync::Ordering;

/// Publications that are remembered.
pub const KEPT: usize = 4;
/// Bits of the position at which a publication ended: what is unread is never longer.
const POSITION: u64 = 2 * MAX_CAPACITY as u64 - 1;

impl Direction {
    /// Whether the reader wants to know when something is published.
    #[inline]
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.sleep.ordered.load(Ordering::Relaxed) != 0
    }

    /// The reader wants to know from now on.
    #[inline]
    pub fn want_order(&self) {
        if !self.is_ordered() {
            self.sleep.ordered.store(1, Ordering::Relaxed);
        }
    }

    /// The bytes before `end` are published at `ticks`. Before the publication, which makes it visible; by one writer
    /// at a time.
    #[inline]
    pub fn note_publish_time(&self, end: u64, ticks: u64) {
        let slot = self.producer.slot.load(Ordering::Relaxed);
        self.producer.slot.store(slot.wrapping_add(1), Ordering::Relaxed);
        let place = &self.producer.publish_times[slot as usize % KEPT];
        place.store(PublishTime::at(ticks).0 | end & POSITION, Ordering::Relaxed);
    }

    /// When the first unread bytes came, or the first of which that is known; `None` if nothing is.
    #[must_use]
    pub fn first_publish_time(&self) -> Option<PublishTime> {
        // pairs with: publish
        let tail = self.producer.tail.load(Ordering::Acquire);
        let head = self.consumer.head.load(Ordering::Relaxed);
        let unread = tail.wrapping_sub(head) & POSITION;
        let publish_times = self.producer.publish_times.iter().map(|time| time.load(Ordering::Relaxed));
        publish_times
            .filter(|time| (1..=unread).contains(&(time.wrapping_sub(head) & POSITION)))
            .map(PublishTime)
            .reduce(|first, other| if other.is_before(first) { other } else { first })
    }
}

/// When something was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishTime(u64);

impl PublishTime {
    /// The beginning of a tick.
    #[inline]
    #[must_use]
    pub const fn at(ticks: u64) -> Self {
        Self(ticks.wrapping_mul(POSITION + 1))
    }

    /// Whether it was earlier than `other`. The ticks go round within about an hour.
    #[inline]
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i64) < 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Direction, KEPT, PublishTime};
    use crate::layout::MAX_CAPACITY;

    fn publish(direction: &Direction, position: u64, count: usize, ticks: u64) {
        direction.note_publish_time(position + count as u64, ticks);
        direction.publish(position, count).expect("the only writer");
    }

    fn is_before(a: &Direction, b: &Direction) -> bool {
        let time = |direction: &Direction| direction.first_publish_time().expect("unread bytes");
        time(a).is_before(time(b))
    }

    #[test]
    fn the_first_unread_publication_counts() {
        let (a, b) = (Direction::new(MAX_CAPACITY), Direction::new(MAX_CAPACITY));
        assert_eq!(a.first_publish_time(), None);
        publish(&a, 0, 10, 1);
        publish(&b, 0, 10, 2);
        publish(&a, 10, 10, 3);
        assert!(is_before(&a, &b));
        let span = a.readable().expect("not damaged");
        assert!(a.consume(&span, 9));
        assert!(is_before(&a, &b), "a part of it is unread");
        let span = a.readable().expect("not damaged");
        assert!(a.consume(&span, 1));
        assert!(is_before(&b, &a));
    }

    #[test]
    fn of_more_than_are_kept_the_oldest_counts() {
        let (a, b) = (Direction::new(MAX_CAPACITY), Direction::new(MAX_CAPACITY));
        for turn in 0..2 * KEPT as u64 {
            publish(&a, turn, 1, 100 + turn);
        }
        publish(&b, 0, 1, 100 + 2 * KEPT as u64 - 1);
        assert!(is_before(&a, &b));
    }

    #[test]
    fn a_full_ring_and_a_wrapped_clock_are_in_order() {
        let (a, b) = (Direction::new(MAX_CAPACITY), Direction::new(MAX_CAPACITY));
        publish(&a, 0, MAX_CAPACITY as usize, u64::MAX);
        publish(&b, 0, MAX_CAPACITY as usize, 0);
        assert!(is_before(&a, &b));
        assert!(!PublishTime(5).is_before(PublishTime(5)));
    }
}
