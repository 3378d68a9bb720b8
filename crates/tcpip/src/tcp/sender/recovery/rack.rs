//! RACK-TLP (RFC 8985): which segments are lost, by the time at which they were sent; and a probe of the tail.

use core::time::Duration;

use super::Record;
use crate::lazy::blank;
use crate::seq::SeqNumber;
use crate::tcp::config::Config;
use crate::tcp::rtt::MinRtt;
use crate::tcp::sender::{Acknowledgement, Round, Sender, Timer};
use crate::tcp::state::CongestionState;
use crate::time::{Instant, Micros};

/// RFC 8985 section 5.2's variables.
#[derive(Debug, Clone)]
pub(crate) struct Rack {
    /// Of the segment sent last among those delivered: when it was sent, where it ended, its round-trip time.
    pub(crate) sent_at: Instant,
    pub(crate) end: SeqNumber,
    pub(crate) rtt: Duration,
    /// Something was delivered since losses were looked for.
    pub(crate) advanced: bool,
    /// The reordering window in quarters of the least round-trip time.
    pub(crate) window_steps: u8,
    /// Recoveries until it becomes one quarter again.
    pub(crate) persist: u8,
    pub(crate) dsack_seen: bool,
    /// Segments delivered when the window was last changed.
    pub(crate) changed_at: u32,
}

/// RFC 8985 section 7.3's PTO floor of the delayed acknowledgement is Linux's least RTO.
const TAIL_PROBE_WITHOUT_RTT: Micros = Micros::from_millis(1000);

/// Recoveries that the reordering window stays wide (RFC 8985 section 6.2 step 4).
pub(crate) const PERSIST: u8 = 16;

blank!(
    Rack,
    Rack {
        sent_at: Instant::ZERO,
        end: SeqNumber::new(0),
        rtt: Duration::ZERO,
        advanced: false,
        window_steps: 0,
        persist: 0,
        dsack_seen: false,
        changed_at: 0,
    }
);

impl Rack {
    /// Whether it tells only of what is in flight, and nothing of the path.
    pub(crate) fn has_learned_nothing(&self) -> bool {
        self.window_steps <= 1 && self.persist == 0 && !self.dsack_seen
    }

    /// A segment was delivered (RFC 8985 section 6.2, steps 1 and 2).
    pub(crate) fn advance(&mut self, now: Instant, record: &Record, min_rtt: &MinRtt) {
        let rtt = now - record.sent_at;
        if record.was_retransmitted() && min_rtt.get().is_some_and(|min| rtt < min) {
            return; // it was the earlier copy
        }
        self.advance_to(now, record.sent_at, record.end);
    }

    /// The same for a segment that was sent only once.
    #[inline]
    pub(crate) fn advance_to(&mut self, now: Instant, sent_at: Instant, end: SeqNumber) {
        self.advanced = true;
        self.rtt = now - sent_at;
        if sent_after(sent_at, end, self.sent_at, self.end) {
            self.sent_at = sent_at;
            self.end = end;
        }
    }
}

/// RFC 8985's RACK_sent_after: segments of one super-segment leave at the same time, in order.
fn sent_after(a: Instant, a_end: SeqNumber, b: Instant, b_end: SeqNumber) -> bool {
    a > b || (a == b && a_end.after(b_end))
}

impl Sender {
    /// RFC 8985 section 6.2 step 4: how much later than others a segment may arrive.
    fn reordering_window(&self) -> Duration {
        if self.recovery.losses.reordering_seen == 0 {
            // Without reordering three duplicates are enough, and in recovery any is.
            if self.recovery.state >= CongestionState::Recovery
                || self.scoreboard.sacked_out() >= self.recovery.reordering
            {
                return Duration::ZERO;
            }
        }
        let min_rtt = self.min_rtt.get().unwrap_or_default();
        let window = min_rtt / 4 * u32::from(self.rack.window_steps.max(1));
        window.min(self.rtt.srtt().unwrap_or_default())
    }

    /// RFC 8985 section 6.2 step 4: a duplicate report widens the window, and it narrows after some recoveries.
    pub(crate) fn update_reordering_window(&mut self) {
        let delivered = self.rate.delivered();
        let rack = &mut self.rack;
        if rack.dsack_seen {
            rack.window_steps = rack.window_steps.max(1).saturating_add(1);
            rack.dsack_seen = false;
            rack.changed_at = delivered;
            rack.persist = PERSIST;
        } else if rack.persist == 0 {
            rack.window_steps = 1;
        }
    }

    /// RFC 8985 section 6.2 step 5. Walks the segments in the order in which they were sent, up to the first that
    /// cannot be lost yet. Returns how long that takes to become so.
    fn find_lost(&mut self, now: Instant) -> Option<Duration> {
        let limit = self.rack.rtt + self.reordering_window();
        let mut wait: Option<Duration> = None;
        let mut at = self.scoreboard.oldest();
        while let Some(index) = at {
            let Some(record) = self.scoreboard.get(index) else { break };
            if !sent_after(self.rack.sent_at, self.rack.end, record.sent_at, record.end) {
                break;
            }
            at = self.scoreboard.sent_after(index);
            match limit.checked_sub(now - record.sent_at) {
                None | Some(Duration::ZERO) => {
                    let marked = self.scoreboard.judge_lost(index);
                    self.count_lost(marked);
                }
                Some(left) => wait = Some(wait.map_or(left, |wait| wait.max(left))),
            }
        }
        wait
    }

    /// Whether a segment was sent less than a round trip ago, at a time-out (RFC 8985 section 6.3; Linux leaves the
    /// reordering window out there).
    pub(crate) fn is_recent(&self, now: Instant, record: &Record) -> bool {
        self.rack.rtt.checked_sub(now - record.sent_at).is_some_and(|left| !left.is_zero())
    }

    /// RFC 8985 section 6.2 on an acknowledgement. Returns whether the timer is set: then nothing else sets it.
    pub(crate) fn rack(&mut self, config: &Config, now: Instant) -> bool {
        if !core::mem::take(&mut self.rack.advanced) {
            return false; // nothing new is known
        }
        let wait = self.find_lost(now);
        if let Some(wait) = wait {
            self.timer = Timer::Reorder(now + wait.min(self.rto(config)));
        }
        wait.is_some()
    }

    /// The timer of RACK runs out.
    pub(crate) fn on_reorder_timeout(&mut self, config: &Config, now: Instant) {
        let in_flight = self.in_flight();
        self.find_lost(now);
        self.recovery.losses.held = false;
        self.recovery.losses.only_lost = true;
        if self.in_flight() != in_flight && self.recovery.state != CongestionState::Recovery {
            let again = self.control.is_reducing();
            self.enter_recovery(now, false);
            // One segment may be sent again. Nothing was delivered, so nothing more follows from it (RFC 9937 section 6.2);
            // Linux counts one as delivered here.
            self.control.allow_retransmission(self.in_flight(), again);
        }
        self.timer = Timer::Retransmit(self.rto_deadline(config, now));
    }

    /// RFC 8985 section 7.2: when to probe, if at all, and not later than the time-out. Also while a probe is under way, as
    /// in Linux: the second one is not sent, but what is left of the time-out counts from when the first segment was sent.
    pub(crate) fn tail_probe_deadline(
        &self,
        config: &Config,
        now: Instant,
        progress: bool,
    ) -> Option<Instant> {
        let calm = matches!(self.recovery.state, CongestionState::Open | CongestionState::Cwr);
        if !(config.tail_loss_probe && self.sack && calm) {
            return None;
        }
        let wait = match self.rtt.srtt_micros() {
            Some(srtt) => {
                // A lone segment's acknowledgement may be delayed.
                let lone = self.packets_out() == 1;
                srtt.doubled().plus(if lone { config.min_rto.into() } else { Micros::from_millis(2) })
            }
            None => TAIL_PROBE_WITHOUT_RTT,
        };
        let rto = self.rto_micros(config);
        let limit = match self.scoreboard.first() {
            // New data does not put the time-out off.
            Some(first) if !progress && first.sent_at + rto > now => first.sent_at + rto,
            _ => now + rto,
        };
        Some((now + wait).min(limit))
    }

    /// RFC 8985 section 7.4: what an acknowledgement says about the probe.
    pub(crate) fn take_tail_probe(&mut self, a: &Acknowledgement, round: &mut Round) {
        let Some(probe) = self.recovery.losses.tail_probe else { return };
        if a.ack.before(probe.end) {
            return;
        }
        if !probe.retransmission {
            // New data: losses show by themselves.
            self.recovery.losses.tail_probe = None;
        } else if round.probe_dsacked {
            // Both copies arrived: nothing was lost.
            self.recovery.losses.tail_probe = None;
        } else if a.ack.after(probe.end) {
            // The probe repaired a loss that would have stayed unnoticed: it is congestion all the same.
            self.recovery.losses.tail_probe = None;
            self.recovery.high_seq = self.nxt;
            self.control.reduce_again(a.now);
            self.ecn.on_reduction();
            self.recovery.state = CongestionState::Cwr;
            self.control.end_reduction(a.now);
            self.keep_open();
        } else if !(round.advanced || a.carries_more || round.sacked) {
            // A pure duplicate: the other copy's acknowledgement.
            self.recovery.losses.tail_probe = None;
        }
    }
}
