//! Queues of connections with something to do. A connection is in a queue at most once, joins and leaves it in constant
//! time, and costs nothing while it is in none.

use alloc::vec::Vec;

/// Indices in the order in which they came, each at most once.
///
/// The links lie in a vector beside the values, which grows to the highest index and then allocates no more.
#[derive(Clone, Debug)]
pub(crate) struct ReadyList {
    links: Vec<Link>,
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    /// [`ABSENT`] for an index that is not in the list.
    next: u32,
    previous: u32,
}

const ABSENT: u32 = u32::MAX;
const END: u32 = u32::MAX - 1;
const OUTSIDE: Link = Link { next: ABSENT, previous: ABSENT };

impl ReadyList {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self { links: Vec::new(), head: END, tail: END }
    }

    /// Whether `index` is in.
    #[inline]
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.links.get(index as usize).is_some_and(|link| link.next != ABSENT)
    }

    /// Puts `index` at the end; `false` when it is in already, where it stays.
    #[inline]
    pub(crate) fn push(&mut self, index: u32) -> bool {
        let place = index as usize;
        if place >= self.links.len() {
            self.links.resize(place + 1, OUTSIDE);
        }
        if self.links[place].next != ABSENT {
            return false;
        }
        self.links[place] = Link { next: END, previous: self.tail };
        match self.tail {
            END => self.head = index,
            tail => self.links[tail as usize].next = index,
        }
        self.tail = index;
        true
    }

    /// The one that came first, without taking it out.
    #[inline]
    pub(crate) const fn front(&self) -> Option<u32> {
        if self.head == END { None } else { Some(self.head) }
    }

    /// Takes out the one that came first.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let index = self.front()?;
        self.remove(index);
        Some(index)
    }

    /// Moves the one that came first to the end.
    #[inline]
    pub(crate) fn rotate(&mut self) {
        if self.head != self.tail
            && let Some(index) = self.pop()
        {
            self.push(index);
        }
    }

    /// Takes `index` out, wherever it is; `false` when it was not in.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        let Link { next, previous } = core::mem::replace(&mut self.links[index as usize], OUTSIDE);
        match previous {
            END => self.head = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            END => self.tail = previous,
            next => self.links[next as usize].previous = previous,
        }
        true
    }
}

impl Default for ReadyList {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn whoever_came_first_is_served_first_and_waits_once() {
        let mut list = ReadyList::new();
        assert!(list.push(5) && list.push(2) && !list.push(5));
        assert_eq!((list.pop(), list.pop(), list.pop()), (Some(5), Some(2), None));
        assert!(list.push(5));
    }

    proptest! {
        #[test]
        fn behaves_as_a_queue_without_doubles(steps in prop::collection::vec((0..5u8, 0u32..12), 0..200)) {
            let mut list = ReadyList::new();
            let mut model: VecDeque<u32> = VecDeque::new();
            for (step, index) in steps {
                let known = model.contains(&index);
                prop_assert_eq!(list.contains(index), known);
                match step {
                    0 | 1 => {
                        prop_assert_eq!(list.push(index), !known);
                        if !known {
                            model.push_back(index);
                        }
                    }
                    2 => prop_assert_eq!(list.pop(), model.pop_front()),
                    3 => {
                        list.rotate();
                        model.rotate_left(usize::from(!model.is_empty()));
                    }
                    _ => {
                        prop_assert_eq!(list.remove(index), known);
                        model.retain(|other| *other != index);
                    }
                }
                prop_assert_eq!(list.front(), model.front().copied());
            }
            while let Some(index) = list.pop() {
                prop_assert_eq!(Some(index), model.pop_front());
            }
            prop_assert!(model.is_empty());
        }
    }
}
