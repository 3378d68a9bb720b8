//! Taking a reduction of the window back: by timestamps (Eifel, RFC 3522 and 4015), by duplicate reports (RFC 2883), or
//! because data from before the time-out arrives (F-RTO, RFC 5682).

use super::TailProbe;
use super::rack::PERSIST;
use crate::seq::SeqNumber;
use crate::tcp::sender::{Echo, Round, Sender};
use crate::tcp::state::CongestionState;
use crate::time::Instant;

impl Sender {
    /// The window is about to be reduced.
    pub(crate) fn begin_undo(&mut self) {
        self.recovery.losses.undo_marker = Some(self.una);
        // Retransmissions that are on their way already may be reported later: then the count means nothing.
        // So may a tail probe.
        let probed = self.recovery.losses.tail_probe.is_some_and(|probe| probe.retransmission);
        let out = self.scoreboard.retransmitted_out() + u32::from(probed);
        self.recovery.losses.undo_retransmissions = (out > 0).then_some(out);
    }

    /// A segment was sent again.
    pub(crate) fn note_retransmission(&mut self, now: Instant, segments: u32) {
        self.recovery.losses.retransmitted_at.get_or_insert(now);
        let count = self.recovery.losses.undo_retransmissions.unwrap_or(0);
        self.recovery.losses.undo_retransmissions = Some(count + segments);
    }

    /// RFC 2883: the other end got `block` twice.
    pub(crate) fn take_dsack(&mut self, block: (SeqNumber, SeqNumber), round: &mut Round) {
        let (start, end) = block;
        // RFC 2883 section 4; the limits are those of Linux's `tcp_is_sackblock_valid`.
        let oldest = self.una - self.max_wnd.max(1 << 16);
        if !start.before(end) || end.after(self.nxt) || start.before(oldest) {
            return;
        }
        if end.since(start) > self.max_wnd {
            return;
        }
        let segments = end.since(start).div_ceil(u32::from(self.mss).max(1)).min(0xffff);
        let losses = &mut *self.recovery.losses;
        losses.dsack_duplicates = losses.dsack_duplicates.wrapping_add(segments);
        if losses.dsack_duplicates > losses.total_retransmits {
            return; // we did not send it so often: the network duplicated it, or the other end reports wrongly
        }
        round.dsacked = true;
        // A tail probe that was for nothing says nothing of reordering.
        let probe = |probe: TailProbe| probe.end == end && segments == 1;
        round.probe_dsacked = losses.tail_probe.is_some_and(probe);
        if losses.reordering_seen > 0 && !round.probe_dsacked {
            self.rack.dsack_seen = true;
        }
        self.rate.count_delivered(segments); // both copies arrived
        if let (Some(marker), Some(count)) =
            (self.recovery.losses.undo_marker, self.recovery.losses.undo_retransmissions)
            && end.after(marker)
        {
            // Of what is in flight it is known what was sent again; of what is not it has to be believed.
            let known = end.after(round.prior_una);
            let again = if known { self.scoreboard.retransmitted_within(start, end) } else { segments };
            self.recovery.losses.undo_retransmissions = Some(count.saturating_sub(again));
        }
    }

    /// RFC 3522: an acknowledgement echoes a timestamp from before the first retransmission, so it answers the original.
    fn was_delayed(&self, echoed: Option<Echo>) -> bool {
        match (self.recovery.losses.retransmitted_at, echoed) {
            (Some(at), Some(echo)) => echo.sent_at.as_millis() < at.as_millis(),
            (Some(_), None) => false,
            // Nothing was sent again yet; but without SACK that is forgotten at the end of the episode.
            (None, _) => self.sack || self.una.before(self.recovery.high_seq),
        }
    }

    fn may_undo(&self, echoed: Option<Echo>) -> bool {
        self.recovery.losses.undo_marker.is_some()
            && (self.recovery.losses.undo_retransmissions == Some(0) || self.was_delayed(echoed))
    }

    fn undo(&mut self, now: Instant, unmark: bool) {
        if unmark {
            self.scoreboard.unmark_lost();
        }
        if self.control.undo(now) {
            self.ecn.on_undo();
        }
        self.recovery.losses.undo_marker = None;
        self.rack.advanced = true; // what is lost now has to be found out anew
    }

    /// All that was in flight when recovery began is acknowledged. Returns whether the state must be kept.
    pub(crate) fn try_undo_recovery(&mut self, now: Instant, echoed: Option<Echo>) -> bool {
        if self.may_undo(echoed) {
            self.undo(now, false);
        } else if self.rack.persist > 0 {
            self.rack.persist -= 1;
        }
        if !self.sack && self.una == self.recovery.high_seq {
            // RFC 6582 section 4: without SACK, duplicates of what was sent again look like a loss of what follows.
            self.forget_old_retransmission();
            return true;
        }
        // The marker stays: reports of duplicates may follow, and undo the reduction even now.
        if self.recovery.losses.undo_marker.is_some() {
            self.control.end_reduction(now);
        }
        // What is lost behind it may have been sent again already, and then the next recovery begins at once with that
        // (Linux's `tcp_enter_recovery`).
        self.forget_old_retransmission();
        self.set_state(CongestionState::Open);
        false
    }

    /// Each retransmission was reported as a duplicate: none was needed.
    pub(crate) fn try_undo_dsack(&mut self, now: Instant) -> bool {
        if self.recovery.losses.undo_marker.is_some() && self.recovery.losses.undo_retransmissions == Some(0)
        {
            self.rack.persist = PERSIST.min(self.rack.persist + 1);
            self.undo(now, false);
            return true;
        }
        false
    }

    /// A partial acknowledgement in fast recovery that answers the original: it was only late.
    pub(crate) fn try_undo_partial(&mut self, now: Instant, echoed: Option<Echo>, round: &Round) -> bool {
        if self.recovery.losses.undo_marker.is_none() || !self.was_delayed(echoed) {
            return false;
        }
        let distance = round.highest_sacked.saturating_since(round.prior_una);
        if self.sack && distance > 0 {
            self.note_reordering(distance);
        }
        // What was sent again may still come back as duplicates: wait for it.
        if self.scoreboard.retransmitted_out() > 0 {
            return true;
        }
        self.forget_old_retransmission();
        self.undo(now, true);
        self.keep_open();
        false
    }

    /// In the Loss state: `frto` says that RFC 5682 found the time-out spurious.
    pub(crate) fn try_undo_loss(&mut self, now: Instant, echoed: Option<Echo>, frto: bool) -> bool {
        if !(frto || self.may_undo(echoed)) {
            return false;
        }
        self.undo(now, true);
        self.retransmits = 0;
        if !self.sack && self.una == self.recovery.high_seq {
            return true; // until something above is acknowledged (RFC 6582 section 4)
        }
        if frto || self.sack {
            self.set_state(CongestionState::Open);
        }
        true
    }
}
