//! Pacing: segments leave at an even rate, instead of as fast as acknowledgements allow. Each connection has an
//! earliest departure time, as in Linux's `tcp_output.c` with the fq scheduler.

use core::time::Duration;

use crate::time::{Instant, Micros};

/// In slow start the rate is twice a window for each round trip, so that pacing does not slow it down; later a fifth more
/// than the window, so that the window is what limits (Linux's sysctls `tcp_pacing_ss_ratio` and `tcp_pacing_ca_ratio`).
const SLOW_START_PERCENT: u64 = 200;
const AVOIDANCE_PERCENT: u64 = 120;

/// Not paced at the start of a connection: the initial window (as fq does).
const INITIAL_QUANTUM: u32 = 10;

/// What leaves at once is at most a millisecond's worth (Linux's `sk_pacing_shift`), and at least some segments.
const BURSTS_PER_SECOND: u64 = 1000;

/// What a coarse clock (of 16 ms at most) and a timer can be late.
const MAX_CATCH_UP: Duration = Duration::from_millis(20);

/// When the next segment of a connection may leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pacer {
    /// Bytes a second; zero while unknown, which means unpaced.
    rate: u64,
    next_send: Instant,
    /// Segments sent, up to the initial quantum.
    sent: u32,
    /// A segment had to wait, and what was due since has not left yet.
    waiting: bool,
}

impl Pacer {
    /// Bytes a second; zero means unpaced.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Sets the rate in bytes a second: that of the window, or less (SO_MAX_PACING_RATE).
    pub(crate) fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    /// The rate of a window, after each acknowledgement.
    #[inline]
    pub(crate) fn rate_for(
        cwnd: u32,
        ssthresh: u32,
        packets_out: u32,
        mss: u32,
        srtt: Option<Micros>,
    ) -> u64 {
        let Some(srtt) = srtt.filter(|srtt| !srtt.is_zero()) else { return 0 };
        let percent = if cwnd < ssthresh / 2 { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
        let bytes = u64::from(mss) * u64::from(cwnd.max(packets_out)) * percent / 100;
        bytes.saturating_mul(1_000_000) / u64::from(srtt.get())
    }

    /// The earliest departure time of the next segment; may be in the past.
    pub(crate) fn next_send(&self) -> Instant {
        self.next_send
    }

    /// Whether a segment that is ready may leave.
    pub(crate) fn may_send(&mut self, now: Instant) -> bool {
        let may = self.next_send <= now;
        self.waiting |= !may;
        may
    }

    /// Bytes of `segments` segments left.
    pub(crate) fn on_sent(&mut self, now: Instant, bytes: u32, segments: u32) {
        let paced = self.sent >= INITIAL_QUANTUM;
        self.sent = self.sent.saturating_add(segments);
        if self.rate == 0 || !paced {
            self.next_send = now;
            return;
        }
        let mut gap = u64::from(bytes) * 1_000_000_000 / self.rate;
        let start = if self.waiting {
            // It waited for its time and leaves after it: the timer, or the clock, is coarser than the gap. All that was
            // due meanwhile leaves at once, else the steps of the clock would set the rate.
            self.next_send.max(now - MAX_CATCH_UP)
        } else {
            // Linux: one that was not ready in time gives up to half its gap to the next one.
            let late = now.as_nanos().saturating_sub(self.next_send.as_nanos());
            gap -= late.min(gap / 2);
            self.next_send.max(now)
        };
        self.next_send = start + Duration::from_nanos(gap);
        self.waiting &= self.next_send <= now;
    }

    /// How many segments to put into one super-segment of at most `gso_max` bytes (Linux's `tcp_tso_autosize`): a
    /// millisecond of the rate, so that bursts stay short, and more where the round trip is so short that the
    /// receiver is next door.
    pub(crate) fn burst(rate: u64, mss: u32, gso_max: u32, min_rtt: Option<Duration>, least: u32) -> u32 {
        let mss = mss.max(1);
        let gso_max = u64::from(gso_max);
        let mut bytes = if rate == 0 { gso_max } else { rate / BURSTS_PER_SECOND };
        if let Some(min_rtt) = min_rtt {
            // Linux's `tcp_tso_rtt_log`: halved for each half millisecond.
            let halvings = min_rtt.as_micros() >> 9;
            bytes += u32::try_from(halvings).ok().and_then(|n| gso_max.checked_shr(n)).unwrap_or(0);
        }
        let segments = u32::try_from(bytes.min(gso_max)).unwrap_or(u32::MAX) / mss;
        segments.max(least).min((u32::try_from(gso_max).unwrap_or(u32::MAX) / mss).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    /// One segment a millisecond.
    const RATE: u64 = 1_000_000;

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    fn warm() -> Pacer {
        let mut pacer = Pacer::default();
        pacer.set_rate(RATE);
        pacer.on_sent(at(0), 10 * MSS, 10);
        pacer
    }

    #[test]
    fn the_rate_is_two_windows_a_round_trip_in_slow_start_and_a_fifth_more_than_one_later() {
        let rtt = Some(Micros::from_millis(100));
        assert_eq!(Pacer::rate_for(10, u32::MAX, 0, MSS, rtt), 200_000);
        assert_eq!(Pacer::rate_for(10, 10, 0, MSS, rtt), 120_000);
        assert_eq!(Pacer::rate_for(10, 10, 20, MSS, rtt), 240_000, "what is in flight counts");
        assert_eq!(Pacer::rate_for(10, 10, 0, MSS, None), 0, "unknown: unpaced");
    }

    #[test]
    fn the_initial_window_is_not_paced() {
        let mut pacer = Pacer::default();
        pacer.set_rate(RATE);
        for _ in 0..10 {
            assert!(pacer.may_send(at(5)));
            pacer.on_sent(at(5), MSS, 1);
        }
        assert!(pacer.may_send(at(5)));
        pacer.on_sent(at(5), MSS, 1);
        assert!(!pacer.may_send(at(5)));
    }

    #[test]
    fn segments_leave_at_the_rate() {
        let mut pacer = warm();
        for i in 0..100 {
            let now = pacer.next_send();
            assert_eq!(now, at(i * 1000));
            pacer.on_sent(now, MSS, 1);
        }
    }

    #[test]
    fn lateness_gives_at_most_half_the_gap_back() {
        let mut pacer = warm();
        pacer.on_sent(at(0), MSS, 1);
        pacer.on_sent(at(1300), MSS, 1); // 300 us late
        assert_eq!(pacer.next_send(), at(1300 + 700));
        pacer.on_sent(at(9000), MSS, 1); // much too late
        assert_eq!(pacer.next_send(), at(9000 + 500));
    }

    #[test]
    fn a_coarse_clock_does_not_lower_the_rate() {
        for step in [64, 1000, 4000, 16_000] {
            let mut pacer = warm();
            let mut sent = 0;
            for tick in 0..=1_000_000 / step {
                while pacer.may_send(at(tick * step)) {
                    pacer.on_sent(at(tick * step), MSS, 1);
                    sent += 1;
                }
            }
            assert!((980..=1001).contains(&sent), "{sent} segments in a second of {step} us");
        }
    }

    #[test]
    fn what_waited_too_long_is_not_caught_up_with() {
        let mut pacer = warm();
        pacer.on_sent(at(0), MSS, 1);
        assert!(!pacer.may_send(at(1)));
        let burst = (0..100).take_while(|_| {
            pacer.may_send(at(500_000)).then(|| pacer.on_sent(at(500_000), MSS, 1)).is_some()
        });
        assert_eq!(burst.count(), 21);
    }

    #[test]
    fn a_burst_is_a_millisecond_and_at_least_two_segments() {
        let far = Some(Duration::from_millis(50));
        assert_eq!(Pacer::burst(20_000_000, MSS, 64_000, far, 2), 20);
        assert_eq!(Pacer::burst(1000, MSS, 64_000, far, 2), 2);
        assert_eq!(Pacer::burst(1000, MSS, 64_000, far, 10), 10);
        assert_eq!(Pacer::burst(u64::MAX, MSS, 64_000, far, 2), 64);
        assert_eq!(Pacer::burst(0, MSS, 64_000, far, 2), 64, "unpaced: as much as fits");
        assert_eq!(Pacer::burst(1000, MSS, 64_000, Some(Duration::from_micros(100)), 2), 64, "next door");
        assert_eq!(Pacer::burst(1000, MSS, 1500, far, 2), 1, "never more than the link takes");
    }
}
