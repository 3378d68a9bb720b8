//! Deadlines of very many connections: a hierarchical timer wheel (Varghese and Lauck, 1987).
//!
//! Each index has at most one deadline. Setting, moving and cancelling it takes constant time whatever the number of
//! others. An entry stands in a slot of the level that its tick and the present one differ in: byte 0 of their numbers
//! is level 0, and so on. When the present comes to a slot of a higher level, its entries go down to the levels below,
//! at most seven times in an entry's life. A bit for each slot says whether it has entries, so that time leaps over
//! empty ones.
//!
//! All entries of a level are due before those of the levels above, and none is in a slot that the present has passed:
//! both follow from the choice of the level, and the first entry is therefore behind the first bit of the first level.

use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

/// Deadlines by index.
#[derive(Clone, Debug)]
pub(crate) struct Wheel {
    /// The length of a tick in nanoseconds.
    tick: u64,
    /// The tick up to which entries have been taken out of the slots.
    present: u64,
    nodes: Vec<Node>,
    /// First entry of each slot's ring, and of the ring of those that are due.
    heads: Box<[u32]>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    len: usize,
}

/// There is one for each connection: aligned to eight bytes it would take 24 of them and not 20.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Node {
    deadline: Instant,
    /// Neighbours in the slot's ring.
    next: u32,
    previous: u32,
    /// The slot of the entry, [`DUE`] or [`NOWHERE`].
    slot: u16,
}

/// One for each byte of a tick's number: no deadline is out of range.
const LEVELS: usize = 8;
const SLOTS: usize = 256;
const DUE: u16 = (LEVELS * SLOTS) as u16;
const NOWHERE: u16 = u16::MAX;
const EMPTY: u32 = u32::MAX;
const IDLE: Node = Node { deadline: Instant::ZERO, next: EMPTY, previous: EMPTY, slot: NOWHERE };

impl Wheel {
    /// Without deadlines. Entries expire at most a tick late, and never early.
    ///
    /// # Panics
    ///
    /// With a tick of zero.
    pub(crate) fn new(tick: Duration) -> Self {
        let tick = tick.as_nanos() as u64;
        assert!(tick > 0, "time needs ticks");
        Self {
            tick,
            present: 0,
            nodes: Vec::new(),
            heads: vec![EMPTY; LEVELS * SLOTS + 1].into_boxed_slice(),
            occupied: [[0; SLOTS / 64]; LEVELS],
            len: 0,
        }
    }

    /// Sets the deadline of `index`, or moves it.
    #[inline]
    pub(crate) fn schedule(&mut self, index: u32, deadline: Instant) {
        let place = index as usize;
        if place >= self.nodes.len() {
            self.nodes.resize(place + 1, IDLE);
        }
        let slot = self.slot(deadline);
        let node = &mut self.nodes[place];
        node.deadline = deadline;
        if node.slot == slot {
            return;
        }
        if node.slot == NOWHERE {
            self.len += 1;
        } else {
            self.unlink(index);
        }
        self.link(index, slot);
    }

    /// Takes the deadline of `index` away, if it has one.
    #[inline]
    pub(crate) fn cancel(&mut self, index: u32) {
        if self.nodes.get(index as usize).is_some_and(|node| node.slot != NOWHERE) {
            self.unlink(index);
            self.len -= 1;
        }
    }

    /// The deadline of `index`.
    #[inline]
    pub(crate) fn deadline(&self, index: u32) -> Option<Instant> {
        let node = self.nodes.get(index as usize)?;
        (node.slot != NOWHERE).then_some(node.deadline)
    }

    /// When [`expire`](Self::expire) has something to do again: not later than the first deadline rounded up to a tick,
    /// and perhaps earlier, when entries are to go down a level.
    #[must_use]
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let tick = if self.heads[usize::from(DUE)] == EMPTY { self.first_slot()?.1 } else { self.present };
        Some(Instant::from_nanos(tick.saturating_mul(self.tick)))
    }

    /// Takes out one index whose deadline is not later than `now`; `None` when there is no other. In the order of
    /// their ticks.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_nanos() / self.tick;
        loop {
            let index = self.heads[usize::from(DUE)];
            if index != EMPTY {
                self.unlink(index);
                self.len -= 1;
                return Some(index);
            }
            match self.first_slot() {
                Some((slot, begin)) if begin <= now => {
                    self.present = begin;
                    self.lower(slot);
                }
                _ => {
                    // No entry changes its level by this: the present stays in front of every occupied slot.
                    self.present = self.present.max(now);
                    return None;
                }
            }
        }
    }

    /// The occupied slot that is reached next, and the tick at which it is.
    #[inline]
    fn first_slot(&self) -> Option<(u16, u64)> {
        for (level, words) in self.occupied.iter().enumerate() {
            for (word, bits) in words.iter().enumerate() {
                if *bits != 0 {
                    let digit = word * 64 + bits.trailing_zeros() as usize;
                    let shift = 8 * level as u32;
                    let above = self.present.checked_shr(shift + 8).unwrap_or(0);
                    let above = above.checked_shl(shift + 8).unwrap_or(0);
                    return Some(((level * SLOTS + digit) as u16, above | (digit as u64) << shift));
                }
            }
        }
        None
    }

    /// Moves the entries of a slot that has been reached, each to where it belongs now.
    fn lower(&mut self, slot: u16) {
        loop {
            let index = self.heads[usize::from(slot)];
            if index == EMPTY {
                return;
            }
            self.unlink(index);
            self.link(index, self.slot(self.nodes[index as usize].deadline));
        }
    }

    #[inline]
    fn slot(&self, deadline: Instant) -> u16 {
        let tick = deadline.as_nanos().div_ceil(self.tick);
        if tick <= self.present {
            return DUE;
        }
        let level = (tick ^ self.present).ilog2() / 8;
        let digit = tick >> (8 * level) & 0xff;
        (level * SLOTS as u32) as u16 + digit as u16
    }

    /// Puts an entry at the end of a slot's ring.
    #[inline]
    fn link(&mut self, index: u32, slot: u16) {
        let head = self.heads[usize::from(slot)];
        let node = &mut self.nodes[index as usize];
        node.slot = slot;
        if head == EMPTY {
            node.next = index;
            node.previous = index;
            self.heads[usize::from(slot)] = index;
            if slot != DUE {
                let (level, digit) = (usize::from(slot) / SLOTS, usize::from(slot) % SLOTS);
                self.occupied[level][digit / 64] |= 1 << (digit % 64);
            }
            return;
        }
        node.next = head;
        let last = core::mem::replace(&mut self.nodes[head as usize].previous, index);
        self.nodes[index as usize].previous = last;
        self.nodes[last as usize].next = index;
    }

    /// Takes an entry out of its ring.
    #[inline]
    fn unlink(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let Node { next, previous, slot, .. } = *node;
        node.slot = NOWHERE;
        if next == index {
            self.heads[usize::from(slot)] = EMPTY;
            if slot != DUE {
                let (level, digit) = (usize::from(slot) / SLOTS, usize::from(slot) % SLOTS);
                self.occupied[level][digit / 64] &= !(1 << (digit % 64));
            }
            return;
        }
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
        if self.heads[usize::from(slot)] == index {
            self.heads[usize::from(slot)] = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TICK: u64 = 64_000;

    fn wheel() -> Wheel {
        Wheel::new(Duration::from_nanos(TICK))
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn nothing_expires_early_and_nothing_a_tick_late() {
        let mut wheel = wheel();
        wheel.schedule(3, at(TICK * 1000 + 1));
        assert_eq!(wheel.expire(at(TICK * 1000 + 1)), None);
        assert_eq!(wheel.deadline(3), Some(at(TICK * 1000 + 1)));
        assert_eq!(wheel.expire(at(TICK * 1001)), Some(3));
        assert_eq!(wheel.deadline(3), None);
        assert_eq!(wheel.len, 0);
    }

    #[test]
    fn a_moved_deadline_expires_once_and_a_cancelled_one_never() {
        let mut wheel = wheel();
        wheel.schedule(1, at(TICK));
        wheel.schedule(1, at(TICK * 500));
        wheel.schedule(2, at(TICK * 2));
        wheel.cancel(2);
        wheel.cancel(77);
        assert_eq!(wheel.expire(at(TICK * 499)), None);
        assert_eq!(wheel.expire(at(TICK * 500)), Some(1));
        assert_eq!(wheel.expire(at(u64::MAX)), None);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut wheel = wheel();
        assert_eq!(wheel.expire(at(TICK * 10)), None);
        wheel.schedule(1, at(5));
        assert!(wheel.next().unwrap() <= at(TICK * 10));
        assert_eq!(wheel.expire(at(TICK * 10)), Some(1));
    }

    #[test]
    fn the_end_of_time_is_within_reach() {
        let mut wheel = Wheel::new(Duration::from_nanos(1));
        wheel.schedule(0, Instant::MAX);
        assert_eq!(wheel.expire(at(u64::MAX - 2)), None);
        assert_eq!(wheel.expire(Instant::MAX), Some(0));
    }

    #[test]
    fn a_far_deadline_costs_few_wake_ups() {
        let mut wheel = wheel();
        let deadline = at(TICK * 0x0102_0304_0506);
        wheel.schedule(0, deadline);
        let mut wake_ups = 0;
        while wheel.len > 0 {
            let next = wheel.next().unwrap();
            assert!(next <= deadline);
            wake_ups += 1;
            let expired = wheel.expire(next);
            assert_eq!(expired.is_some(), next == deadline);
        }
        assert!(wake_ups <= LEVELS, "{wake_ups}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u64),
        Cancel(u32),
        Advance(u64),
        Expire,
    }

    /// Times of all magnitudes, so that every level and the borders between them are met.
    fn any_span() -> impl Strategy<Value = u64> {
        (0u32..44, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..16, any_span()).prop_map(|(index, span)| Step::Schedule(index, span)),
            1 => (0u32..16).prop_map(Step::Cancel),
            2 => any_span().prop_map(Step::Advance),
            4 => Just(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_an_ordered_map(begin in any_span(), steps in prop::collection::vec(any_step(), 0..200)) {
            let mut wheel = wheel();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = begin;
            wheel.expire(at(now));
            for step in steps {
                match step {
                    Step::Schedule(index, span) => {
                        // Some are in the past.
                        let deadline = (now + span).saturating_sub(TICK * 3);
                        wheel.schedule(index, at(deadline));
                        model.insert(index, deadline);
                    }
                    Step::Cancel(index) => {
                        wheel.cancel(index);
                        model.remove(&index);
                    }
                    Step::Advance(span) => now += span,
                    Step::Expire => {
                        let first = model.values().map(|deadline| deadline.div_ceil(TICK)).min();
                        match wheel.expire(at(now)) {
                            Some(index) => {
                                let deadline = model.remove(&index);
                                prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "not early");
                            }
                            None => prop_assert!(first.is_none_or(|tick| tick > now / TICK), "nothing is left"),
                        }
                    }
                }
                prop_assert_eq!(wheel.len, model.len());
                for index in 0..16 {
                    prop_assert_eq!(wheel.deadline(index), model.get(&index).copied().map(at));
                }
                let first = model.values().map(|deadline| deadline.div_ceil(TICK) * TICK).min();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.next(), first) {
                    // What is overdue is asked for at once: the present of the wheel may be later than that.
                    prop_assert!(next.as_nanos() <= first.max(now), "{next:?} {first}");
                }
            }
        }

        #[test]
        fn entries_expire_in_the_order_of_their_ticks(spans in prop::collection::vec(any_span(), 1..60)) {
            let mut wheel = wheel();
            for (index, span) in spans.iter().enumerate() {
                wheel.schedule(index as u32, at(*span));
            }
            let mut expired = Vec::new();
            while let Some(index) = wheel.expire(at(1 << 45)) {
                expired.push(spans[index as usize].div_ceil(TICK));
            }
            prop_assert_eq!(expired.len(), spans.len());
            prop_assert!(expired.is_sorted(), "{:?}", expired);
        }
    }
}
