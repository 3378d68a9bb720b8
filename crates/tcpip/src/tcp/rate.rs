//! Delivery rate samples (draft-cheng-iccrg-delivery-rate-estimation): how fast the network delivered what an
//! acknowledgement reports. TCP_INFO shows the rate, and model-based congestion control is fed by it.

use core::time::Duration;

use crate::lazy::{Lazy, blank};
use crate::time::Instant;

/// What the estimator knew when a segment was sent; kept with the segment's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    delivered_at: Instant,
    first_sent_at: Instant,
    delivered: u32,
    app_limited: bool,
}

/// The estimator of one connection.
#[derive(Debug, Default)]
pub(crate) struct RateEstimator {
    /// Segments delivered.
    delivered: u32,
    /// While `delivered` is below it, segments were sent that the application held back. Zero: none were.
    app_limited_until: u32,
    flight: Lazy<Flight>,
    last: Option<Rate>,
}

/// What tells of what is in flight, and of the acknowledgement at hand.
#[derive(Debug)]
struct Flight {
    /// When the last segment was delivered.
    delivered_at: Instant,
    /// When the segment was sent that was delivered last: the start of the sending interval.
    first_sent_at: Instant,
    newly_delivered: u32,
    /// What the sample is made of: stamp, time of sending.
    candidate: Option<(Stamp, Instant)>,
}

blank!(
    Flight,
    Flight { delivered_at: Instant::ZERO, first_sent_at: Instant::ZERO, newly_delivered: 0, candidate: None }
);

/// How fast the network delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    interval: u64,
    delivered: u32,
    /// The application held back: the network may be faster.
    pub app_limited: bool,
}

impl Rate {
    /// Bytes a second.
    pub(crate) fn bytes_per_second(&self, mss: u32) -> u64 {
        let bytes = u128::from(self.delivered) * u128::from(mss);
        u64::try_from(bytes * 1_000_000_000 / u128::from(self.interval.max(1))).unwrap_or(u64::MAX)
    }
}

/// One acknowledgement's sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Segments delivered over `interval`.
    pub delivered: u32,
    /// The longer of the sending and the acknowledging interval: the shorter one would overestimate.
    pub interval: Duration,
    /// `delivered` of the connection when the sample's segment was sent.
    pub prior_delivered: u32,
    /// The round trip of the sample's segment.
    pub rtt: Duration,
    /// Segments that this acknowledgement reports as delivered and as lost.
    pub newly_delivered: u32,
    /// Segments that were found lost on its account.
    pub newly_lost: u32,
    /// The application held back: the network may be faster.
    pub app_limited: bool,
}

impl Sample {
    /// The delivery rate.
    pub(crate) fn rate(&self) -> Rate {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        Rate { interval, delivered: self.delivered, app_limited: self.app_limited }
    }
}

impl RateEstimator {
    /// Segments delivered since the connection began: TCP_INFO's `tcpi_delivered`.
    pub(crate) fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Nothing is in flight.
    pub(crate) fn give_back(&mut self) {
        self.flight.give_back();
    }

    /// Of the last usable sample: TCP_INFO's `tcpi_delivery_rate`.
    pub(crate) fn last(&self) -> Option<&Rate> {
        self.last.as_ref()
    }

    /// A segment is sent, or sent again, with `in_flight` others on the way.
    pub(crate) fn on_sent(&mut self, now: Instant, in_flight: u32) -> Stamp {
        if in_flight == 0 {
            // A new flight: what was delivered before says nothing about it.
            let flight = &mut *self.flight;
            flight.first_sent_at = now;
            flight.delivered_at = now;
        }
        let flight = &*self.flight;
        Stamp {
            delivered_at: flight.delivered_at,
            first_sent_at: flight.first_sent_at,
            delivered: self.delivered,
            app_limited: self.app_limited_until != 0,
        }
    }

    /// The application has no more to send, and the window is not full.
    pub(crate) fn set_app_limited(&mut self, in_flight: u32) {
        self.app_limited_until = self.delivered.wrapping_add(in_flight).max(1);
    }

    /// An acknowledgement delivers `segments` segments of one record, which was sent at `sent_at`.
    #[inline]
    pub(crate) fn on_delivered(&mut self, now: Instant, stamp: &Stamp, sent_at: Instant, segments: u32) {
        self.delivered = self.delivered.wrapping_add(segments);
        let flight = &mut *self.flight;
        flight.newly_delivered += segments;
        flight.delivered_at = now;
        // The segment that was sent last tells about the shortest, most recent time.
        let newer = flight.candidate.is_none_or(|(best, at)| {
            (stamp.delivered.wrapping_sub(best.delivered) as i32 > 0)
                || (stamp.delivered == best.delivered && sent_at > at)
        });
        if newer {
            flight.candidate = Some((*stamp, sent_at));
            flight.first_sent_at = sent_at;
        }
    }

    /// Segments were delivered, and it is not known which: without SACK a duplicate acknowledgement says no more.
    pub(crate) fn count_delivered(&mut self, segments: u32) {
        self.delivered = self.delivered.wrapping_add(segments);
        self.flight.newly_delivered += segments;
    }

    /// The acknowledgement is dealt with: its sample, unless it delivered nothing or is not to be trusted.
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        newly_lost: u32,
        min_rtt: Option<Duration>,
    ) -> Option<Sample> {
        if self.app_limited_until != 0 && self.delivered.wrapping_sub(self.app_limited_until) as i32 > 0 {
            self.app_limited_until = 0;
        }
        let flight = &mut *self.flight;
        let newly_delivered = core::mem::take(&mut flight.newly_delivered);
        let (stamp, sent_at) = flight.candidate.take()?;
        let sending = sent_at.saturating_duration_since(stamp.first_sent_at);
        let acknowledging = now.saturating_duration_since(stamp.delivered_at);
        let sample = Sample {
            delivered: self.delivered.wrapping_sub(stamp.delivered),
            interval: sending.max(acknowledging),
            prior_delivered: stamp.delivered,
            rtt: now.saturating_duration_since(sent_at),
            newly_delivered,
            newly_lost,
            app_limited: stamp.app_limited,
        };
        // An interval below the smallest round trip is an artefact of acknowledgements that came in one bunch.
        if min_rtt.is_some_and(|min_rtt| sample.interval < min_rtt) {
            return None;
        }
        let rate = sample.rate();
        if !sample.app_limited || self.last.is_none_or(|last| faster(&rate, &last)) {
            self.last = Some(rate);
        }
        Some(sample)
    }
}

/// Without a division, as in Linux's `tcp_rate_gen`.
fn faster(rate: &Rate, than: &Rate) -> bool {
    u128::from(rate.delivered) * u128::from(than.interval)
        >= u128::from(than.delivered) * u128::from(rate.interval)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn steady_delivery_gives_the_rate_of_the_bottleneck() {
        // One segment leaves and one arrives each millisecond; the round trip is 10 ms.
        let mut rate = RateEstimator::default();
        let min_rtt = Some(Duration::from_millis(10));
        let mut stamps = Vec::new();
        let mut sample = None;
        for ms in 0..100 {
            if ms >= 10 {
                let sent = ms - 10;
                rate.on_delivered(at(ms), &stamps[sent as usize], at(sent), 1);
                sample = rate.finish(at(ms), 0, min_rtt);
            }
            stamps.push(rate.on_sent(at(ms), ms.min(10) as u32));
        }
        let sample = sample.unwrap();
        assert_eq!(sample.rtt, Duration::from_millis(10));
        assert_eq!(sample.rate().bytes_per_second(1000), 1_000_000);
        assert!(!sample.app_limited);
        assert_eq!(rate.delivered(), 90);
    }

    #[test]
    fn a_bunch_of_acknowledgements_does_not_overestimate() {
        let mut rate = RateEstimator::default();
        let stamps: Vec<_> = (0..10).map(|i| rate.on_sent(at(i), i as u32)).collect();
        for (i, stamp) in (0..).zip(&stamps) {
            rate.on_delivered(at(30), stamp, at(i), 1);
        }
        let sample = rate.finish(at(30), 0, Some(Duration::from_millis(10))).unwrap();
        assert_eq!((sample.delivered, sample.interval), (10, Duration::from_millis(30)));
    }

    #[test]
    fn an_interval_below_the_round_trip_is_no_sample() {
        let mut rate = RateEstimator::default();
        let stamp = rate.on_sent(at(0), 0);
        rate.on_delivered(at(5), &stamp, at(0), 1);
        assert_eq!(rate.finish(at(5), 0, Some(Duration::from_millis(10))), None);
    }

    #[test]
    fn samples_of_a_starved_sender_are_marked_until_its_flight_is_over() {
        let mut rate = RateEstimator::default();
        rate.set_app_limited(1);
        let starved = rate.on_sent(at(0), 0);
        rate.on_delivered(at(10), &starved, at(0), 2);
        assert!(rate.finish(at(10), 0, None).unwrap().app_limited);
        let busy = rate.on_sent(at(11), 0);
        rate.on_delivered(at(20), &busy, at(11), 1);
        assert!(!rate.finish(at(20), 0, None).unwrap().app_limited);
    }
}
