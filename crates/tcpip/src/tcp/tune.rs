//! Buffers that follow the speed of a connection: dynamic right-sizing for the receiver, and the congestion window for
//! the sender, as in Linux.

use alloc::boxed::Box;
use core::time::Duration;

use super::config::Config;
use crate::seq::SeqNumber;
use crate::time::{Instant, Micros};

/// How fast the application takes data, measured over round trips.
#[derive(Debug, Default)]
pub(crate) struct ReceiveTuning {
    /// When the measurement began, and where in the stream.
    since: Instant,
    from: SeqNumber,
    /// What the application took in the last round trip.
    space: u32,
    /// The least round-trip time seen by the receiver.
    rtt: Micros,
    /// Without timestamps: when the window that began then is used up to there, a round trip has passed.
    round: Option<Box<(Instant, SeqNumber)>>,
    /// The application has set SO_RCVBUF.
    pub(crate) fixed: bool,
}

impl ReceiveTuning {
    pub(crate) fn begin(&mut self, nxt: SeqNumber) {
        self.from = nxt;
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.into()
    }

    pub(crate) fn space(&self) -> u32 {
        self.space
    }

    /// A full segment echoed a timestamp.
    pub(crate) fn on_echo(&mut self, age: Duration) {
        self.on_rtt(Micros::from(age).max(Micros::from_millis(1)), false);
    }

    /// Data arrived on a connection without timestamps.
    pub(crate) fn on_data(&mut self, now: Instant, nxt: SeqNumber, window: u32) {
        let next = (now, nxt + window);
        let Some(round) = &mut self.round else {
            self.round = Some(Box::new(next));
            return;
        };
        if !nxt.before(round.1) {
            let (since, _) = core::mem::replace(&mut **round, next);
            self.on_rtt(Micros::between(since, now).max(Micros::LEAST), true);
        }
    }

    fn on_rtt(&mut self, sample: Micros, at_most: bool) {
        self.rtt = if self.rtt.is_zero() {
            sample
        } else if at_most {
            // Only an upper bound: the sender may not have used the window.
            self.rtt.min(sample)
        } else {
            self.rtt.smoothed(sample)
        };
    }

    /// The application took data up to `copied`. Returns the new limit, if it is to grow (Linux's
    /// `tcp_rcv_space_adjust`).
    pub(crate) fn on_read(
        &mut self,
        config: &Config,
        now: Instant,
        copied: SeqNumber,
        limit: u32,
        mss: u16,
    ) -> Option<u32> {
        if self.since == Instant::ZERO {
            self.since = now;
            self.from = copied;
            self.space = limit.min(u32::from(mss) * config.initial_window);
            return None;
        }
        if self.rtt.is_zero() || Micros::between(self.since, now) < self.rtt {
            return None;
        }
        let taken = copied.since(self.from);
        let before = self.space;
        self.space = before.max(taken);
        self.since = now;
        self.from = copied;
        if taken <= before || !config.moderate_receive_buffer || self.fixed {
            return None;
        }
        // Twice what was taken, since a sender in slow start sends twice as much in the next round trip; and more if it
        // grew faster.
        let window = u64::from(taken) * 2 + 16 * u64::from(mss);
        let growth = window * u64::from(taken - before) / u64::from(before.max(1));
        let wanted = u32::try_from(window + 2 * growth).unwrap_or(u32::MAX).min(config.receive_buffer.1);
        (wanted > limit).then_some(wanted)
    }
}

/// The send buffer that a window of `cwnd` segments needs: what is in flight, and as much again for what is sent in the
/// next round trip (Linux's `tcp_sndbuf_expand`).
pub(crate) fn send_limit(config: &Config, limit: u32, cwnd: u32, mss: u16) -> u32 {
    let wanted = u64::from(cwnd.max(config.initial_window)) * u64::from(mss) * 2;
    u32::try_from(wanted).unwrap_or(u32::MAX).min(config.send_buffer.1).max(limit)
}
