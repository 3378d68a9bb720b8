//! Sets of sequence numbers as sorted ranges: what has arrived out of order, and what the other end says it has.

use alloc::vec::Vec;

use crate::seq::SeqNumber;

/// Half-open ranges in order, which neither overlap nor touch. All lie within half the circle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<(SeqNumber, SeqNumber)>,
}

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds `start..end` and answers the range that it is part of now.
    pub(crate) fn insert(&mut self, start: SeqNumber, end: SeqNumber) -> (SeqNumber, SeqNumber) {
        debug_assert!(start.before(end), "an empty range");
        // All ranges that overlap or touch the new one become one with it.
        let from = self.ranges.partition_point(|&(_, e)| e.before(start));
        let to = from + self.ranges[from..].partition_point(|&(s, _)| s.at_or_before(end));
        let merged = match self.ranges[from..to] {
            [] => (start, end),
            [first, .., last] => (first.0.earlier(start), last.1.later(end)),
            [only] => (only.0.earlier(start), only.1.later(end)),
        };
        if from == to {
            self.ranges.insert(from, merged);
        } else {
            self.ranges[from] = merged;
            self.ranges.drain(from + 1..to);
        }
        merged
    }

    /// Calls `missing` for each part of `start..end` that is not in the set.
    pub(crate) fn gaps(
        &self,
        start: SeqNumber,
        end: SeqNumber,
        mut missing: impl FnMut(SeqNumber, SeqNumber),
    ) {
        let from = self.ranges.partition_point(|&(_, e)| e.at_or_before(start));
        let mut at = start;
        for &(s, e) in &self.ranges[from..] {
            if s.at_or_after(end) {
                break;
            }
            if at.before(s) {
                missing(at, s);
            }
            at = e;
        }
        if at.before(end) {
            missing(at, end);
        }
    }

    /// The range of which all of `start..end` is a part.
    pub(crate) fn containing(&self, start: SeqNumber, end: SeqNumber) -> Option<(SeqNumber, SeqNumber)> {
        let at = self.ranges.partition_point(|&(_, e)| e.before(end));
        self.ranges.get(at).copied().filter(|&(s, _)| s.at_or_before(start))
    }

    /// Whether all of `start..end` is in the set.
    pub(crate) fn contains(&self, start: SeqNumber, end: SeqNumber) -> bool {
        self.containing(start, end).is_some()
    }

    /// The first part of `start..end` that is in the set.
    pub(crate) fn overlap(&self, start: SeqNumber, end: SeqNumber) -> Option<(SeqNumber, SeqNumber)> {
        let at = self.ranges.partition_point(|&(_, e)| e.at_or_before(start));
        let &(s, e) = self.ranges.get(at)?;
        s.before(end).then(|| (s.later(start), e.earlier(end)))
    }

    /// Takes away all before `seq`.
    pub(crate) fn remove_before(&mut self, seq: SeqNumber) {
        let gone = self.ranges.partition_point(|&(_, e)| e.at_or_before(seq));
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut()
            && first.0.before(seq)
        {
            first.0 = seq;
        }
    }

    /// Takes the first range away.
    pub(crate) fn pop_first(&mut self) -> Option<(SeqNumber, SeqNumber)> {
        (!self.ranges.is_empty()).then(|| self.ranges.remove(0))
    }

    /// Takes the last range away.
    pub(crate) fn pop_last(&mut self) -> Option<(SeqNumber, SeqNumber)> {
        self.ranges.pop()
    }

    pub(crate) fn first(&self) -> Option<(SeqNumber, SeqNumber)> {
        self.ranges.first().copied()
    }

    pub(crate) fn last(&self) -> Option<(SeqNumber, SeqNumber)> {
        self.ranges.last().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges = Vec::new();
    }

    #[cfg(test)]
    pub(crate) fn as_slice(&self) -> &[(SeqNumber, SeqNumber)] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn numbers(set: &RangeSet, base: u32) -> BTreeSet<u32> {
        set.as_slice()
            .iter()
            .flat_map(|&(s, e)| s.get().wrapping_sub(base)..e.get().wrapping_sub(base))
            .collect()
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_the_numbers_added(
            base: u32,
            steps in proptest::collection::vec((0u32..200, 1u32..40, 0u8..8), 1..40),
        ) {
            let at = |offset: u32| SeqNumber::new(base) + offset;
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (start, len, action) in steps {
                if action == 0 {
                    set.remove_before(at(start));
                    model.retain(|&n| n >= start);
                } else {
                    let (s, e) = set.insert(at(start), at(start + len));
                    model.extend(start..start + len);
                    prop_assert!(s.at_or_before(at(start)) && e.at_or_after(at(start + len)));
                    prop_assert!(set.contains(s, e));
                }
                prop_assert_eq!(numbers(&set, base), model.clone());
                for pair in set.as_slice().windows(2) {
                    prop_assert!(pair[0].1.before(pair[1].0), "ranges are apart");
                }
                let there: BTreeSet<u32> = (10..150).filter(|n| model.contains(n)).collect();
                let overlap = set.overlap(at(10), at(150)).map(|(s, e)| (s.get().wrapping_sub(base), e.get().wrapping_sub(base)));
                prop_assert_eq!(overlap.map(|(s, _)| s), there.first().copied());
                if let Some((s, e)) = overlap {
                    prop_assert!((s..e).all(|n| there.contains(&n)) && !there.contains(&e));
                }
                let mut missing = BTreeSet::new();
                set.gaps(at(10), at(150), |s, e| missing.extend(s.get().wrapping_sub(base)..e.get().wrapping_sub(base)));
                let expected: BTreeSet<u32> = (10..150).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }
}
