//! HyStart++ (RFC 9406): leaves slow start when the round-trip time grows, before the queue overflows.
//!
//! The RFC's limit L of eight segments per acknowledgement is not kept, as slow start itself does not
//! ([`Window::slow_start`](super::Window::slow_start)); the RFC allows that for paced senders.

use super::{Ack, Phase};
use crate::seq::SeqNumber;

/// RFC 9406 section 4.3. Times are in microseconds.
const MIN_RTT_THRESH: u32 = 4_000;
const MAX_RTT_THRESH: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

/// The initial slow start of one connection.
#[derive(Debug, Clone)]
pub(super) struct HyStart {
    /// The round is over when this is acknowledged.
    window_end: Option<SeqNumber>,
    last_round_min: u32,
    current_round_min: u32,
    samples: u8,
    css: Option<Conservative>,
}

/// Conservative slow start: the delay grew, which may be jitter.
#[derive(Debug, Clone)]
struct Conservative {
    baseline: u32,
    rounds: u8,
    /// The delay grew once more.
    sure: bool,
    /// Delivered segments that have not yet counted towards growth.
    pending: u32,
}

/// A round's least round-trip time before its first sample.
const INFINITE: u32 = u32::MAX;

impl Default for HyStart {
    fn default() -> Self {
        Self {
            window_end: None,
            last_round_min: INFINITE,
            current_round_min: INFINITE,
            samples: 0,
            css: None,
        }
    }
}

/// What slow start does with an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Grow by that many segments.
    By(u32),
    /// The path is full: set `ssthresh` to the window.
    Leave,
}

impl HyStart {
    pub(super) fn phase(&self) -> Phase {
        if self.css.is_some() { Phase::ConservativeSlowStart } else { Phase::SlowStart }
    }

    /// Takes a round-trip sample.
    pub(super) fn on_rtt(&mut self, rtt: u32) {
        self.samples = self.samples.saturating_add(1);
        self.current_round_min = self.current_round_min.min(rtt);
        if self.samples < RTT_SAMPLES {
            return;
        }
        let current = self.current_round_min;
        let later =
            |rtt: u32| rtt.saturating_add((rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH));
        if let Some(css) = &mut self.css {
            if current < css.baseline {
                self.css = None; // it was jitter: slow start goes on
            } else {
                css.sure |= current >= later(css.baseline);
            }
        } else if current >= later(self.last_round_min) {
            self.css = Some(Conservative { baseline: current, rounds: 0, sure: false, pending: 0 });
        }
    }

    /// Segments were delivered in slow start.
    pub(super) fn on_ack(&mut self, ack: &Ack) -> Growth {
        if self.round_over(ack) {
            self.window_end = Some(ack.snd_nxt);
            self.last_round_min = core::mem::replace(&mut self.current_round_min, INFINITE);
            self.samples = 0;
            if let Some(css) = &mut self.css {
                css.rounds += 1;
                if css.rounds >= CSS_ROUNDS {
                    return Growth::Leave;
                }
            }
        }
        // Delay that grows with the window is a queue, not jitter. Five rounds would double what is in it, and each of them
        // is longer than the last; Linux's HyStart does not even wait for this second rise.
        if self.css.as_ref().is_some_and(|css| css.sure) {
            return Growth::Leave;
        }
        match &mut self.css {
            None => Growth::By(ack.delivered),
            Some(css) => {
                css.pending += ack.delivered;
                let grow = css.pending / CSS_GROWTH_DIVISOR;
                css.pending %= CSS_GROWTH_DIVISOR;
                Growth::By(grow)
            }
        }
    }

    fn round_over(&self, ack: &Ack) -> bool {
        self.window_end.is_none_or(|end| !ack.snd_una.before(end))
    }
}
