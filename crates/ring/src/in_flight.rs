//! The in-flight counter: calls inside the kernel that know nothing of doorbells.
//!
//! No lane may open while one is inside: a plain reader could not tell a doorbell from data, a plain writer's bytes
//! would have no place in the order. So they are counted, and from some moment on no reader enters any more:
//! the end is *ready*. This is not in a segment; each end counts its own calls.
//!
//! A call may stay inside for longer than its socket has its slot (another thread closes the descriptor under
//! it). So the word also holds the slot's generation, and a call that comes out late is not taken for one of
//! the slot's next socket.

use crate::sync::{AtomicU64, Ordering};

/// Generation in the upper half, `READY`, number of calls below it.
#[repr(transparent)]
#[derive(Debug)]
pub struct InFlight(AtomicU64);

/// Bit of the word: nobody enters any more.
const READY: u64 = 1 << 31;
const COUNT: u64 = READY - 1;

const fn of(generation: u32) -> u64 {
    (generation as u64) << 32
}

impl InFlight {
    /// For a socket that has just got its slot: nobody is inside.
    pub fn begin(&self, generation: u32) {
        self.0.store(of(generation), Ordering::Release);
    }

    /// Counts a call; false when it must know about doorbells, or when the slot has changed hands.
    #[inline]
    #[must_use]
    pub fn enter(&self, generation: u32) -> bool {
        let may = |word: u64| word & !COUNT == of(generation) && word & COUNT < COUNT;
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| may(word).then(|| word + 1)).is_ok()
    }

    /// The end of a call that was counted.
    #[inline]
    pub fn leave(&self, generation: u32) {
        let counted = |word: u64| word & !(COUNT | READY) == of(generation) && word & COUNT > 0;
        let _ =
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| counted(word).then(|| word - 1));
    }

    /// Whether nobody is inside, and nobody has said that the end is ready.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) & (COUNT | READY) == 0
    }

    /// Whether every call knows about doorbells: none is inside, none enters.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) & READY != 0
    }

    /// Lets nobody enter from now on; false when somebody is inside, or it was so already.
    #[must_use]
    pub fn make_ready(&self, generation: u32) -> bool {
        let word = of(generation);
        self.0.compare_exchange(word, word | READY, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// The opposite: calls need not know about doorbells any more.
    pub fn unready(&self) {
        self.0.fetch_and(!READY, Ordering::SeqCst);
    }
}

#[cfg(any(loom, test))]
impl Default for InFlight {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_keeps_the_end_from_being_ready() {
        let in_flight = InFlight::default();
        in_flight.begin(7);
        assert!(in_flight.is_empty() && in_flight.enter(7) && in_flight.enter(7));
        assert!(!in_flight.make_ready(7));
        in_flight.leave(7);
        in_flight.leave(7);
        assert!(in_flight.make_ready(7) && in_flight.is_ready() && !in_flight.is_empty());
        assert!(!in_flight.enter(7) && !in_flight.make_ready(7));
        in_flight.unready();
        assert!(in_flight.is_empty() && in_flight.enter(7));
    }

    #[test]
    fn a_call_of_an_earlier_socket_counts_for_nothing() {
        let in_flight = InFlight::default();
        in_flight.begin(7);
        assert!(in_flight.enter(7));
        in_flight.begin(9);
        assert!(!in_flight.enter(7) && !in_flight.make_ready(7));
        assert!(in_flight.enter(9));
        in_flight.leave(7);
        assert!(!in_flight.is_empty() && !in_flight.make_ready(9));
        in_flight.leave(9);
        in_flight.leave(9);
        assert!(in_flight.is_empty() && in_flight.make_ready(9));
    }

    #[test]
    fn any_word_is_survived() {
        for word in [0, u64::MAX, READY, COUNT, READY | COUNT, of(3) | COUNT] {
            let in_flight = InFlight(AtomicU64::new(word));
            for generation in [0, 3, u32::MAX] {
                let _ = in_flight.enter(generation);
                in_flight.leave(generation);
                let _ = in_flight.make_ready(generation);
            }
            in_flight.unready();
        }
    }
}
