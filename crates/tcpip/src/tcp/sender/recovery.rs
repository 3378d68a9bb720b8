//! Loss recovery: Linux's state machine of `tcp_fastretrans_alert`, which is RFC 5681, 6582, 6675 and 8985 in one.

mod rack;
mod scoreboard;
mod undo;

use core::time::Duration;

pub(crate) use rack::Rack;
pub(crate) use scoreboard::{Record, Scoreboard};

use super::{Acknowledgement, Echo, Round, Sender, Timer};
use crate::lazy::{Lazy, blank};
use crate::seq::{self, SeqNumber};
use crate::tcp::config::Config;
use crate::tcp::state::CongestionState;
use crate::time::Instant;

/// The state of loss recovery.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) state: CongestionState,
    /// `SND.NXT` when it began: it is over when all before is acknowledged.
    pub(crate) high_seq: SeqNumber,
    /// How much reordering the network does, in segments.
    pub(crate) reordering: u32,
    pub(crate) losses: Lazy<Losses>,
}

/// What is known of losses, of what may be some, and of reordering.
#[derive(Debug, PartialEq)]
pub(crate) struct Losses {
    /// `SND.UNA` when the window was reduced, while that may be undone.
    pub(crate) undo_marker: Option<SeqNumber>,
    /// Retransmissions since then that have not been reported as duplicates; `None` when that cannot be known.
    pub(crate) undo_retransmissions: Option<u32>,
    /// When something was sent again for the first time in this episode.
    pub(crate) retransmitted_at: Option<Instant>,
    /// RFC 5682: whether the time-out may have been spurious is being found out.
    pub(crate) frto: bool,
    /// RFC 5682 section 2.1 step 2b: new data comes before retransmissions.
    pub(crate) prefer_new: bool,
    pub(crate) tail_probe: Option<TailProbe>,
    /// The retransmission timer has run out: the first segment is sent again, whatever else is under way.
    pub(crate) timed_out: bool,
    /// The reordering timer has run out: until something else happens only what is lost is sent.
    pub(crate) only_lost: bool,
    /// Nothing is sent again before the next acknowledgement, or the timer.
    pub(crate) held: bool,
    /// How often the network reordered.
    pub(crate) reordering_seen: u32,
    /// Segments ever taken for lost.
    pub(crate) lost_total: u32,
    /// What TCP_INFO counts.
    pub(crate) total_retransmits: u32,
    pub(crate) dsack_duplicates: u32,
    pub(crate) bytes_retransmitted: u64,
}

blank!(
    Losses,
    Losses {
        undo_marker: None,
        undo_retransmissions: None,
        retransmitted_at: None,
        frto: false,
        prefer_new: false,
        tail_probe: None,
        timed_out: false,
        only_lost: false,
        held: false,
        reordering_seen: 0,
        lost_total: 0,
        total_retransmits: 0,
        dsack_duplicates: 0,
        bytes_retransmitted: 0,
    }
);

/// A tail loss probe that was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TailProbe {
    /// `SND.NXT` then.
    pub(crate) end: SeqNumber,
    /// Whether it was a retransmission, or new data.
    pub(crate) retransmission: bool,
}

/// net.ipv4.tcp_max_reordering.
const MAX_REORDERING: u32 = 300;

/// How long to wait at least before what the other end seems to have thrown away is sent again.
const RENEGING_WAIT: Duration = Duration::from_millis(10);

impl Recovery {
    pub(crate) fn new(config: &Config, iss: SeqNumber) -> Self {
        Self {
            state: CongestionState::Open,
            high_seq: iss,
            reordering: config.reordering,
            losses: Lazy::new(),
        }
    }

    /// Nothing that was sent again is on its way any more.
    pub(crate) fn forget_retransmission(&mut self) {
        if self.losses.retransmitted_at.is_some() {
            self.losses.retransmitted_at = None;
        }
    }

    /// RFC 8985 section 6.2 step 4: one widening of the reordering window a round trip.
    pub(crate) fn on_rate_sample(&mut self, rack: &mut Rack, prior_delivered: Option<u32>) {
        if prior_delivered.is_some_and(|prior| seq::before(prior, rack.changed_at)) {
            rack.dsack_seen = false;
        }
    }
}

impl Sender {
    /// SACK blocks: RFC 2018 section 5, RFC 2883 section 4.
    pub(crate) fn take_sack(&mut self, a: &Acknowledgement, round: &mut Round) {
        let blocks = a.sack.as_slice();
        let duplicate = match *blocks {
            [first, ..] if first.0.before(a.ack) => Some(first),
            [first, second, ..] if first.0.at_or_after(second.0) && first.1.at_or_before(second.1) => {
                Some(first)
            }
            _ => None,
        };
        if let Some(block) = duplicate {
            self.take_dsack(block, round);
        }
        let mut reordered_from: Option<SeqNumber> = None;
        for &(start, end) in &blocks[usize::from(duplicate.is_some())..] {
            // Only what is in flight can be sacked (RFC 2018 section 4; Linux's `tcp_is_sackblock_valid`).
            // A block that begins at SND.UNA makes no sense: what is there would have been acknowledged.
            if !start.before(end) || end.after(self.nxt) || !start.after(self.una) {
                continue;
            }
            let Self { scoreboard, rate, rack, min_rtt, recovery, .. } = self;
            scoreboard.sack(start, end, |record| {
                round.sacked = true;
                if !record.was_retransmitted() {
                    if record.start.before(round.highest_sacked) {
                        reordered_from =
                            Some(reordered_from.map_or(record.start, |s| s.earlier(record.start)));
                    }
                    if !record.end.after(recovery.high_seq) {
                        round.original_acked = true;
                    }
                    round.sacked_first.get_or_insert(record.sent_at);
                    round.sacked_last = Some(record.sent_at);
                }
                rate.on_delivered(a.now, &record.stamp, record.sent_at, 1);
                rack.advance(a.now, record, min_rtt);
            });
        }
        if let Some((start, end)) = duplicate.filter(|_| round.dsacked) {
            self.scoreboard.forget_copies(start, end);
        }
        let counts =
            self.recovery.state != CongestionState::Loss || self.recovery.losses.undo_marker.is_some();
        if let (Some(from), Some(highest), true) = (reordered_from, self.scoreboard.highest_sacked(), counts)
        {
            self.note_reordering(highest.saturating_since(from));
        }
    }

    /// RFC 5681 section 3.2 and what grew from it.
    pub(crate) fn recover(
        &mut self,
        config: &Config,
        now: Instant,
        echoed: Option<Echo>,
        duplicates: u32,
        round: &mut Round,
    ) {
        if self.packets_out() == 0 {
            self.scoreboard.emulate_sacked(0);
        }
        if round.marked {
            self.control.forbid_undo();
        }
        if self.has_reneged() && round.advanced {
            // Perhaps acknowledgements were only reordered: a moment later it is known (Linux's `tcp_check_sack_reneging`).
            let wait = (self.rtt.srtt().unwrap_or_default() / 2).max(RENEGING_WAIT);
            self.timer = Timer::Retransmit(now + wait);
            self.recovery.losses.held = true;
            round.rearm = false;
            return;
        }
        let state = self.recovery.state;
        if state == CongestionState::Open {
            self.recovery.forget_retransmission();
        }
        let is_over = state > CongestionState::Disorder && self.una.at_or_after(self.recovery.high_seq);
        if is_over && self.end_episode(now, echoed) {
            return;
        }
        match self.recovery.state {
            CongestionState::Recovery => {
                if !round.advanced {
                    if !self.sack {
                        self.emulate_sacked(duplicates);
                    }
                } else if self.try_undo_partial(now, echoed, round) {
                    // New data keeps the acknowledgements coming.
                    self.recovery.losses.held = true;
                    return;
                }
                if self.try_undo_dsack(now) {
                    self.try_to_open(now, round.marked);
                }
                self.identify_losses(config, now, round);
                if self.recovery.state != CongestionState::Recovery && self.scoreboard.lost_out() > 0 {
                    self.enter_recovery(now, round.marked); // what was for nothing is undone, and something else is lost
                }
            }
            CongestionState::Loss => {
                self.process_loss(now, echoed, duplicates, round);
                // Without SACK all that can be lost is taken for it since the time-out.
                if self.sack {
                    self.identify_losses(config, now, round);
                }
                if self.recovery.state == CongestionState::Open || round.lost_retransmission {
                    self.suspect(config, now, duplicates, round);
                }
            }
            _ => self.suspect(config, now, duplicates, round),
        }
    }

    /// All that was sent before the episode began is acknowledged. Returns whether nothing is left to be done.
    fn end_episode(&mut self, now: Instant, echoed: Option<Echo>) -> bool {
        match self.recovery.state {
            // Something above must be acknowledged first: else a late duplicate reduces the window again.
            CongestionState::Cwr if self.una != self.recovery.high_seq => {
                self.control.end_reduction(now);
                self.set_state(CongestionState::Open);
                false
            }
            CongestionState::Recovery => {
                if !self.sack {
                    self.scoreboard.forget_emulated(u32::MAX);
                }
                self.try_undo_recovery(now, echoed)
            }
            _ => false,
        }
    }

    /// No loss event is under way, or the last one was for nothing: does one begin?
    fn suspect(&mut self, config: &Config, now: Instant, duplicates: u32, round: &mut Round) {
        if !self.sack {
            if round.advanced {
                self.scoreboard.forget_emulated(u32::MAX);
            }
            self.emulate_sacked(duplicates);
        }
        if self.recovery.state <= CongestionState::Disorder {
            self.try_undo_dsack(now);
        }
        self.identify_losses(config, now, round);
        if self.scoreboard.lost_out() > 0 {
            // Fast recovery begins as soon as one segment is known to be lost.
            self.enter_recovery(now, round.marked);
        } else {
            self.try_to_open(now, round.marked);
        }
    }

    /// Without SACK each duplicate acknowledgement says that one segment has arrived.
    fn emulate_sacked(&mut self, duplicates: u32) {
        let before = self.scoreboard.sacked_out();
        if self.scoreboard.emulate_sacked(duplicates) && duplicates > 0 {
            self.note_duplicates_beyond(0);
        }
        self.rate.count_delivered(self.scoreboard.sacked_out().saturating_sub(before));
    }

    /// More duplicates than segments that can have arrived out of order: so the network reorders or repeats, by as many
    /// segments as there are (Linux's `tcp_check_reno_reordering`).
    pub(crate) fn note_duplicates_beyond(&mut self, acked: u32) {
        self.recovery.reordering = (self.packets_out() + acked).min(MAX_REORDERING);
        self.recovery.losses.reordering_seen = self.recovery.losses.reordering_seen.saturating_add(1);
    }

    /// RACK with SACK, else RFC 6582.
    fn identify_losses(&mut self, config: &Config, now: Instant, round: &mut Round) {
        if self.sack {
            let before = self.scoreboard.retransmitted_out();
            if self.rack(config, now) {
                round.rearm = false;
            }
            round.lost_retransmission |= before > self.scoreboard.retransmitted_out();
        } else {
            self.newreno_mark_lost(round.advanced);
        }
    }

    /// RFC 6582 section 3.2: the third duplicate, and each partial acknowledgement, say that the first one is lost.
    fn newreno_mark_lost(&mut self, advanced: bool) {
        let state = self.recovery.state;
        let third =
            state < CongestionState::Recovery && self.scoreboard.sacked_out() >= self.recovery.reordering;
        let partial = state >= CongestionState::Recovery && advanced;
        if (third || partial) && self.scoreboard.first().is_some_and(|first| !first.is_lost()) {
            let index = self.scoreboard.first_index();
            self.take_for_lost(index);
        }
    }

    pub(crate) fn take_for_lost(&mut self, index: u64) {
        let marked = self.scoreboard.mark_lost(index);
        self.count_lost(marked);
    }

    pub(crate) fn count_lost(&mut self, marked: bool) {
        if marked {
            self.recovery.losses.lost_total = self.recovery.losses.lost_total.wrapping_add(1);
        }
    }

    /// `marked`: an ECN mark came back with it, so that nothing can show it to be spurious.
    fn enter_recovery(&mut self, now: Instant, marked: bool) {
        self.forget_old_retransmission();
        self.begin_undo();
        self.control.forbid_undo();
        if !self.control.is_reducing() {
            self.control.enter_recovery(now, marked);
            self.ecn.on_reduction();
            // What a tail probe may yet find out is known (Linux's `tcp_init_cwnd_reduction`).
            self.recovery.losses.tail_probe = None;
            self.recovery.high_seq = self.nxt;
        }
        self.set_state(CongestionState::Recovery);
        self.recovery.losses.prefer_new = false;
        self.recovery.losses.held = false;
    }

    /// Congestion without loss: a mark came back, or a tail loss probe filled a hole. Nothing can show it to be spurious.
    pub(crate) fn enter_cwr(&mut self, now: Instant) {
        self.control.forbid_undo();
        if self.recovery.state < CongestionState::Cwr {
            self.recovery.losses.undo_marker = None;
            self.control.enter_cwr(now);
            self.recovery.losses.tail_probe = None;
            self.ecn.on_reduction();
            self.recovery.state = CongestionState::Cwr;
            self.recovery.high_seq = self.nxt;
        }
    }

    /// A window that goes down goes on doing so only in the states that say so.
    pub(crate) fn set_state(&mut self, state: CongestionState) {
        self.recovery.state = state;
        if !matches!(state, CongestionState::Cwr | CongestionState::Recovery) {
            self.control.leave_reduction();
        }
    }

    /// The retransmission timer ran out, or the other end has forgotten what it sacked.
    pub(crate) fn enter_loss(&mut self, config: &Config, now: Instant) {
        let new_recovery = self.recovery.state < CongestionState::Recovery;
        let reneged = self.has_reneged();
        if reneged {
            self.scoreboard.forget_sacked();
        }
        if !self.sack {
            self.scoreboard.forget_emulated(u32::MAX);
        }
        // RFC 8985 section 6.3: the first segment, and what RACK takes for lost; what was just sent is not.
        let first = self.scoreboard.first().map(|first| first.start);
        let recent = |record: &Record| {
            !reneged && self.sack && Some(record.start) != first && self.is_recent(now, record)
        };
        let lost: alloc::vec::Vec<u64> =
            self.scoreboard.indices_where(|record| !record.is_sacked() && !recent(record));
        for index in lost {
            self.take_for_lost(index);
        }
        let again = !(self.recovery.state <= CongestionState::Disorder
            || self.una.at_or_after(self.recovery.high_seq)
            || (self.recovery.state == CongestionState::Loss && self.retransmits == 0));
        if !again {
            self.begin_undo();
        }
        let in_flight = self.in_flight();
        self.control.enter_loss(now, in_flight, again);
        self.ecn.on_reduction();
        if self.recovery.state <= CongestionState::Disorder
            && self.scoreboard.sacked_out() >= config.reordering
        {
            self.recovery.reordering = self.recovery.reordering.min(config.reordering);
        }
        self.set_state(CongestionState::Loss);
        self.recovery.high_seq = self.nxt;
        self.recovery.losses.frto = config.frto && (new_recovery || self.retransmits > 0);
        self.recovery.losses.prefer_new = false;
        self.recovery.losses.tail_probe = None;
        self.recovery.losses.held = false;
        self.recovery.losses.timed_out = true;
    }

    /// RFC 5682 and the way out of the Loss state.
    fn process_loss(&mut self, now: Instant, echoed: Option<Echo>, duplicates: u32, round: &mut Round) {
        let recovered = self.una.at_or_after(self.recovery.high_seq);
        self.recovery.losses.prefer_new = false;
        if round.advanced && self.try_undo_loss(now, echoed, false) {
            self.recovery.losses.held = true;
            return;
        }
        if self.recovery.losses.frto {
            // Step 3b: data that was never sent again arrived, so not everything was lost.
            if round.original_acked && self.try_undo_loss(now, echoed, true) {
                self.recovery.losses.held = true;
                return;
            }
            if self.nxt.after(self.recovery.high_seq) {
                if round.sacked || duplicates > 0 {
                    self.recovery.losses.frto = false; // step 3a: the loss was real
                }
            } else if round.advanced && !recovered {
                // Step 2b: two new segments before anything else is sent again.
                self.recovery.high_seq = self.nxt;
                self.recovery.losses.prefer_new = true;
            }
        }
        if recovered {
            self.recovery.losses.held = true;
            self.try_undo_recovery(now, echoed);
            return;
        }
        if !self.sack {
            if self.nxt.after(self.recovery.high_seq) && duplicates > 0 {
                self.emulate_sacked(duplicates);
            } else if round.advanced {
                self.scoreboard.forget_emulated(u32::MAX);
            }
        }
    }

    /// The first segment after `SND.UNA` cannot be sacked, unless the other end threw it away again (RFC 2018 section 8).
    fn has_reneged(&self) -> bool {
        self.scoreboard.first().is_some_and(Record::is_sacked)
    }

    /// Whether the time of the first retransmission still means something: a copy is on its way, or the first segment is
    /// one that was sent again (Linux's `tcp_any_retrans_done`).
    pub(crate) fn has_retransmission(&self) -> bool {
        self.scoreboard.retransmitted_out() > 0
            || self.scoreboard.first().is_some_and(Record::was_retransmitted)
    }

    pub(crate) fn forget_old_retransmission(&mut self) {
        if !self.has_retransmission() {
            self.recovery.forget_retransmission();
        }
    }

    fn try_to_open(&mut self, now: Instant, marked: bool) {
        self.forget_old_retransmission();
        if marked {
            self.enter_cwr(now);
        }
        if self.recovery.state != CongestionState::Cwr {
            self.keep_open();
        }
    }

    pub(crate) fn keep_open(&mut self) {
        let disorder =
            self.scoreboard.sacked_out() > 0 || self.scoreboard.lost_out() > 0 || self.has_retransmission();
        let state = if disorder { CongestionState::Disorder } else { CongestionState::Open };
        if self.recovery.state != state {
            self.set_state(state);
            self.recovery.high_seq = self.nxt;
        }
    }

    /// Segments arrived `distance` bytes behind later ones that were not lost.
    pub(crate) fn note_reordering(&mut self, distance: u32) {
        if distance == 0 {
            return;
        }
        let segments = distance.div_ceil(u32::from(self.mss).max(1));
        self.recovery.losses.reordering_seen = self.recovery.losses.reordering_seen.saturating_add(1);
        if segments > self.recovery.reordering {
            self.recovery.reordering = segments.min(MAX_REORDERING);
        }
    }
}
