//! Proportional rate reduction (RFC 9937, which replaces RFC 6937): how the window goes down to `ssthresh` within one
//! round trip, sending at an even rate all the while.

use super::Ack;

/// One reduction, from its congestion event to its end.
#[derive(Debug, Clone)]
pub(super) struct Prr {
    /// The window at the congestion event: RFC 9937's RecoverFS. Linux takes `cwnd` where the RFC takes the flight size;
    /// the two are equal for a sender that uses its window.
    prior_cwnd: u32,
    /// Segments delivered, and sent, since the congestion event.
    delivered: u32,
    out: u32,
}

impl Prr {
    /// A congestion event at this window.
    pub(super) fn new(prior_cwnd: u32) -> Self {
        Self { prior_cwnd: prior_cwnd.max(1), delivered: 0, out: 0 }
    }

    /// Segments were sent or sent again.
    pub(super) fn on_sent(&mut self, segments: u32) {
        self.out = self.out.saturating_add(segments);
    }

    /// The window after an acknowledgement (RFC 9937 section 6.2).
    pub(super) fn on_ack(&mut self, ack: &Ack, ssthresh: u32, cwnd: u32) -> u32 {
        if ack.delivered == 0 {
            return cwnd;
        }
        // SafeACK: the window moved and nothing new is lost, so the retransmissions get through.
        self.on_delivery(ack.delivered, ack.advanced && ack.lost == 0, ack.in_flight, ssthresh)
    }

    /// So many segments were delivered; `safe` says that below `ssthresh` one more may be sent.
    pub(super) fn on_delivery(&mut self, delivered: u32, safe: bool, in_flight: u32, ssthresh: u32) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let mut send = if in_flight > ssthresh {
            let share = u64::from(ssthresh) * u64::from(self.delivered);
            let share = share.div_ceil(u64::from(self.prior_cwnd));
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(self.out)
        } else {
            let limit = self.delivered.saturating_sub(self.out).max(delivered) + u32::from(safe);
            limit.min(ssthresh - in_flight)
        };
        if self.out == 0 {
            send = send.max(1); // the fast retransmission itself
        }
        in_flight.saturating_add(send).max(1)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::seq::SeqNumber;
    use crate::time::Instant;

    /// Runs RFC 9937's situation: a window of 100 segments of which the first `lost` are lost, ssthresh 70.
    /// Returns how many segments were sent after each acknowledgement.
    fn recover(lost: u32, ssthresh: u32) -> (Vec<u32>, u32) {
        let mut prr = Prr::new(100);
        let mut in_flight = 100 - lost;
        let mut cwnd = 100;
        let mut sent = Vec::new();
        for arrival in 0..100 - lost {
            in_flight -= 1;
            cwnd = prr.on_ack(&ack(1, if arrival == 0 { lost } else { 0 }, in_flight, false), ssthresh, cwnd);
            let now = cwnd.saturating_sub(in_flight);
            prr.on_sent(now);
            in_flight += now;
            sent.push(now);
        }
        (sent, in_flight)
    }

    fn ack(delivered: u32, lost: u32, in_flight: u32, advanced: bool) -> Ack {
        Ack {
            now: Instant::ZERO,
            delivered,
            lost,
            in_flight,
            advanced,
            may_grow: advanced,
            rtt: None,
            snd_una: SeqNumber::new(0),
            snd_nxt: SeqNumber::new(0),
        }
    }

    #[test]
    fn the_window_reaches_ssthresh_within_one_round_trip() {
        let (sent, in_flight) = recover(1, 70);
        assert_eq!(in_flight, 70);
        assert_eq!(sent[0], 1, "the fast retransmission leaves at once");
        assert!(sent.iter().all(|&n| n <= 1), "at an even rate: never two for one");
    }

    #[test]
    fn heavy_loss_is_refilled_no_faster_than_data_arrives() {
        let (sent, in_flight) = recover(60, 70);
        assert!(sent.iter().all(|&n| n <= 1), "packet conservation while below ssthresh");
        assert_eq!(in_flight, 40);
    }

    #[test]
    fn a_safe_ack_lets_the_window_grow_below_ssthresh() {
        let mut prr = Prr::new(20);
        prr.on_sent(1);
        assert_eq!(prr.on_ack(&ack(2, 0, 5, true), 10, 5), 5 + 3, "delivered plus one");
        let mut prr = Prr::new(20);
        prr.on_sent(1);
        assert_eq!(prr.on_ack(&ack(2, 1, 5, true), 10, 5), 5 + 2, "more loss: packet conservation only");
    }

    #[test]
    fn nothing_delivered_changes_nothing() {
        let mut prr = Prr::new(20);
        assert_eq!(prr.on_ack(&ack(0, 3, 5, true), 10, 17), 17);
    }
}
