//! Round-trip times and the retransmission time-out (RFC 6298).
//!
//! Linux's variant: the variance is the largest mean deviation of a round trip, which falls slowly, and is at least
//! 200 ms. So the time-out never is below the round-trip time plus 200 ms, and a sudden fall of the round-trip time does
//! not raise it. RFC 6298 section 2.4's one second is not kept.

use core::time::Duration;

use crate::seq::SeqNumber;
use crate::time::{Instant, Micros};

/// Linux's TCP_RTO_MIN.
pub(crate) const MIN_RTO: Duration = Duration::from_millis(200);
/// Linux's TCP_RTO_MAX; RFC 6298 section 2.5 asks for at least 60 s.
pub(crate) const MAX_RTO: Duration = Duration::from_secs(120);
/// RFC 6298 section 2.1: before the first sample.
pub(crate) const INITIAL_RTO: Duration = Duration::from_secs(1);
/// RFC 6298 section 5.7: for data, when the SYN's time-out ran out and nothing was measured.
pub(crate) const FALLBACK_RTO: Duration = Duration::from_secs(3);

/// The estimator of one connection.
#[derive(Debug, Clone)]
pub(crate) struct RttEstimator {
    /// Smoothed round-trip time in 1/8 us; zero before the first sample.
    srtt: u32,
    /// Smoothed deviation from it in 1/4 us, the largest one of this round trip, and the variance made of those.
    mdev: u32,
    mdev_max: u32,
    rttvar: u32,
    /// The round trip ends when this is acknowledged.
    round_end: SeqNumber,
    /// The time-out, which is asked for more often than it changes, and its limits, in us.
    rto: u32,
    min: u32,
    max: u32,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self::new(MIN_RTO, MAX_RTO)
    }
}

impl RttEstimator {
    /// Before any sample.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            srtt: 0,
            mdev: 0,
            mdev_max: 0,
            rttvar: 0,
            round_end: SeqNumber::new(0),
            rto: 0,
            min: micros(min.min(max)),
            max: micros(max),
        }
        .with_rto(INITIAL_RTO)
    }

    fn with_rto(mut self, rto: Duration) -> Self {
        self.rto = micros(rto).clamp(self.min, self.max);
        self
    }

    /// Takes a sample (RFC 6298 section 2.2 and 2.3). Never one of a segment that was sent twice without a time stamp
    /// to tell which copy arrived (section 3, Karn's algorithm): the caller sees to that.
    pub(crate) fn on_sample(&mut self, rtt: Duration, snd_una: SeqNumber, snd_nxt: SeqNumber) {
        self.on_micros(rtt.into(), snd_una, snd_nxt);
    }

    pub(crate) fn on_micros(&mut self, rtt: Micros, snd_una: SeqNumber, snd_nxt: SeqNumber) {
        let rtt = rtt.get().clamp(1, MAX_SAMPLE);
        let floor = self.min;
        if self.srtt == 0 {
            self.srtt = rtt * 8;
            self.mdev = rtt * 2;
            self.rttvar = self.mdev.max(floor);
            self.mdev_max = self.rttvar;
            self.round_end = snd_nxt;
        } else {
            self.smooth(rtt);
            if self.mdev > self.mdev_max {
                self.mdev_max = self.mdev;
                self.rttvar = self.rttvar.max(self.mdev_max);
            }
            if snd_una.after(self.round_end) {
                self.rttvar -= self.rttvar.saturating_sub(self.mdev_max) / 4;
                self.round_end = snd_nxt;
                self.mdev_max = floor;
            }
        }
        self.rto = (self.srtt / 8).saturating_add(self.rttvar).clamp(self.min, self.max);
    }

    /// The time-out. Doubling it when it runs out (RFC 6298 section 5.5) is the timer's business.
    #[inline]
    pub(crate) fn rto(&self) -> Duration {
        self.rto_micros().into()
    }

    #[inline]
    pub(crate) fn rto_micros(&self) -> Micros {
        Micros::new(self.rto)
    }

    /// The handshake's time-out ran out and nothing was measured (RFC 6298 section 5.7).
    pub(crate) fn on_handshake_timeout(&mut self) {
        if self.srtt == 0 {
            self.rto = micros(FALLBACK_RTO).clamp(self.min, self.max);
        }
    }

    /// The smoothed round-trip time.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt_micros().map(Duration::from)
    }

    #[inline]
    pub(crate) fn srtt_micros(&self) -> Option<Micros> {
        (self.srtt > 0).then(|| Micros::new((self.srtt / 8).max(1)))
    }

    /// The smoothed deviation: TCP_INFO's `tcpi_rttvar`.
    pub(crate) fn rttvar(&self) -> Duration {
        Duration::from_micros(u64::from(self.mdev / 4))
    }

    /// RFC 6298 equations 2.2 and 2.3: gains of 1/8 and 1/4.
    fn smooth(&mut self, rtt: u32) {
        let error = i64::from(rtt) - i64::from(self.srtt / 8);
        self.srtt = u32::try_from(i64::from(self.srtt) + error).unwrap_or(1).max(1);
        let mut deviation = error.abs() - i64::from(self.mdev / 4);
        // A fall of the round-trip time must not raise the time-out: take it with an eighth of the gain.
        if error < 0 && deviation > 0 {
            deviation /= 8;
        }
        self.mdev = u32::try_from(i64::from(self.mdev) + deviation).unwrap_or(0);
    }
}

/// More than an hour is an hour.
fn micros(time: Duration) -> u32 {
    Micros::from(time).get()
}

/// Linux's `tcp_min_rtt_wlen`.
const MIN_RTT_WINDOW: u32 = 300_000; // milliseconds

/// The smallest round-trip time of the last five minutes: Nichols' filter, which keeps the best, second-best and
/// third-best sample of ever later parts of the window.
#[derive(Debug, Clone, Default)]
pub(crate) struct MinRtt {
    /// When, in [`Instant::ticks`], and how long; zero before the first sample.
    best: [(u32, Micros); 3],
}

impl MinRtt {
    /// The minimum, if anything was measured.
    pub(crate) fn get(&self) -> Option<Duration> {
        let [(_, rtt), ..] = self.best;
        (!rtt.is_zero()).then(|| rtt.into())
    }

    /// Takes a sample.
    pub(crate) fn on_sample(&mut self, now: Instant, rtt: Duration) {
        self.on_micros(now, rtt.into());
    }

    pub(crate) fn on_micros(&mut self, now: Instant, rtt: Micros) {
        let now = now.ticks();
        let rtt = rtt.max(Micros::LEAST);
        let sample = (now, rtt);
        let age = |(at, _): (u32, Micros)| now.wrapping_sub(at);
        let [first, second, third] = self.best;
        if first.1.is_zero() || rtt <= first.1 || age(third) > MIN_RTT_WINDOW {
            self.best = [sample; 3];
            return;
        }
        if rtt <= second.1 {
            self.best = [first, sample, sample];
        } else if rtt <= third.1 {
            self.best[2] = sample;
        }
        if age(first) > MIN_RTT_WINDOW {
            // The best one is too old: the next ones move up.
            self.best = [self.best[1], self.best[2], sample];
            if age(self.best[0]) > MIN_RTT_WINDOW {
                self.best = [self.best[1], self.best[2], sample];
            }
        } else if self.best[1].0 == first.0 && age(first) > MIN_RTT_WINDOW / 4 {
            // A quarter has passed without a second choice.
            self.best[1] = sample;
            self.best[2] = sample;
        } else if self.best[2].0 == self.best[1].0 && age(first) > MIN_RTT_WINDOW / 2 {
            self.best[2] = sample;
        }
    }
}

/// About half a minute: keeps the sums in range.
const MAX_SAMPLE: u32 = 1 << 27;

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(n: u32) -> SeqNumber {
        SeqNumber::new(n)
    }

    fn after(samples: &[u64]) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        for (i, &ms) in (0..).zip(samples) {
            rtt.on_sample(Duration::from_millis(ms), seq(i * 1000), seq((i + 1) * 1000));
        }
        rtt
    }

    #[test]
    fn one_second_before_the_first_sample() {
        assert_eq!(RttEstimator::default().rto(), Duration::from_secs(1)); // RFC 6298 section 2.1
    }

    #[test]
    fn the_first_sample_sets_deviation_to_half_of_it() {
        let rtt = after(&[1000]);
        assert_eq!(rtt.srtt(), Some(Duration::from_secs(1)));
        assert_eq!(rtt.rttvar(), Duration::from_millis(500)); // RFC 6298 section 2.2
        assert_eq!(rtt.rto(), Duration::from_millis(1000 + 4 * 500));
    }

    #[test]
    fn the_second_sample_moves_by_an_eighth_and_a_quarter() {
        let rtt = after(&[1000, 1800]);
        assert_eq!(rtt.srtt(), Some(Duration::from_millis(1100))); // RFC 6298 section 2.3
        assert_eq!(rtt.rttvar(), Duration::from_millis(500 + (800 - 500) / 4));
    }

    #[test]
    fn short_round_trips_keep_two_hundred_milliseconds_of_variance() {
        assert_eq!(after(&[10; 50]).rto(), Duration::from_millis(210));
        let mut tiny = RttEstimator::default();
        tiny.on_sample(Duration::ZERO, seq(0), seq(1)); // gVisor #6113: a round trip below the clock's resolution
        assert_eq!(tiny.srtt(), Some(Duration::from_micros(1)));
        assert_eq!(tiny.rto(), Duration::from_micros(200_001));
    }

    #[test]
    fn a_sudden_fall_does_not_raise_the_time_out() {
        let mut rtt = after(&[800; 40]);
        let before = rtt.rto();
        rtt.on_sample(Duration::from_millis(10), seq(50_000), seq(51_000));
        assert!(rtt.rto() <= before);
    }

    #[test]
    fn the_variance_falls_by_a_quarter_each_round_trip() {
        let mut rtt = after(&[1000]);
        assert_eq!(rtt.rttvar, 2_000_000);
        rtt.on_sample(Duration::from_secs(1), seq(1001), seq(2000));
        assert!(rtt.rttvar <= 2_000_000);
        for i in 2..40 {
            rtt.on_sample(Duration::from_secs(1), seq(i * 1000 + 1), seq((i + 1) * 1000));
        }
        assert_eq!(rtt.rto().as_millis(), 1200);
    }

    #[test]
    fn a_lost_syn_leaves_three_seconds_for_data() {
        let mut rtt = RttEstimator::default();
        rtt.on_handshake_timeout();
        assert_eq!(rtt.rto(), Duration::from_secs(3)); // RFC 6298 section 5.7
    }

    #[test]
    fn the_smallest_round_trip_is_forgotten_after_five_minutes() {
        let at = |s: u64| Instant::ZERO + Duration::from_secs(s);
        let ms = Duration::from_millis;
        let mut min = MinRtt::default();
        assert_eq!(min.get(), None);
        min.on_sample(at(0), ms(10));
        for s in 1..300 {
            min.on_sample(at(s), ms(20));
        }
        assert_eq!(min.get(), Some(ms(10)));
        min.on_sample(at(301), ms(30));
        assert_eq!(min.get(), Some(ms(20)));
        min.on_sample(at(302), ms(5));
        assert_eq!(min.get(), Some(ms(5)));
    }

    #[test]
    fn the_smallest_round_trip_is_forgotten_in_time_when_ticks_wrap() {
        let at = |ms: u64| Instant::from_millis(u64::from(u32::MAX) - 1000 + ms);
        let ms = Duration::from_millis;
        let mut min = MinRtt::default();
        min.on_sample(at(0), ms(10));
        for s in 1..300 {
            min.on_sample(at(s * 1000), ms(20));
        }
        assert_eq!(min.get(), Some(ms(10)));
        min.on_sample(at(301_000), ms(30));
        assert_eq!(min.get(), Some(ms(20)));
    }
}
