//! The sending half of a connection: what is in flight, and how fast it may go.

pub(crate) mod recovery;

use core::time::Duration;

use super::chrono::Chrono;
use super::config::Config;
use super::congestion::{Ack, Controller};
use super::ecn::EcnState;
use super::pacing::Pacer;
use super::rate::RateEstimator;
use super::rtt::{MinRtt, RttEstimator};
use super::state::CongestionState;
use crate::lazy::Lazy;
use crate::seq::SeqNumber;
use crate::time::{Instant, Micros};
use crate::wire::tcp::SackBlocks;
use recovery::{Rack, Recovery, Scoreboard};

/// RFC 9293 section 3.3.1's send sequence variables, with everything that decides what leaves when.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) iss: SeqNumber,
    pub(crate) una: SeqNumber,
    pub(crate) nxt: SeqNumber,
    /// The window that the other end offers, and the segment that said so last.
    pub(crate) wnd: u32,
    pub(crate) wl1: SeqNumber,
    pub(crate) max_wnd: u32,
    /// By how much the window field of the other end's segments is shifted.
    pub(crate) wscale: u8,
    pub(crate) sack: bool,
    /// Bytes of data in a segment without SACK blocks.
    pub(crate) mss: u16,
    /// Behind the last partial segment that was sent (Minshall's variant of Nagle's algorithm).
    pub(crate) small: SeqNumber,
    pub(crate) scoreboard: Lazy<Scoreboard>,
    pub(crate) control: Controller,
    pub(crate) recovery: Recovery,
    pub(crate) ecn: EcnState,
    pub(crate) rack: Lazy<Rack>,
    pub(crate) rtt: RttEstimator,
    pub(crate) min_rtt: MinRtt,
    pub(crate) rate: RateEstimator,
    pub(crate) pacer: Pacer,
    /// SO_MAX_PACING_RATE, bytes a second.
    pub(crate) max_pacing_rate: u64,
    pub(crate) timer: Timer,
    /// Doublings of the retransmission time-out.
    pub(crate) backoff: u8,
    /// Doublings of that between probes of a closed window, those of the time-outs before them among them.
    pub(crate) probe_backoff: u8,
    /// Time-outs since the last progress.
    pub(crate) retransmits: u8,
    /// Zero-window probes without answer.
    pub(crate) probes: u8,
    /// When data was sent last.
    pub(crate) sent_at: Instant,
    pub(crate) counters: SenderCounters,
    pub(crate) chrono: Chrono,
}

/// What TCP_INFO counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct SenderCounters {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_acked: u64,
    pub(crate) segments_out: u32,
    pub(crate) data_segments_out: u32,
}

/// The one timer of the sending half: of these things only one can be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    Idle,
    /// RFC 6298.
    Retransmit(Instant),
    /// RFC 8985 section 7.
    TailLoss(Instant),
    /// RFC 8985 section 6.2, step 5.
    Reorder(Instant),
    /// RFC 9293 section 3.8.6.1.
    ZeroWindow(Instant),
}

impl Timer {
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Retransmit(at) | Self::TailLoss(at) | Self::Reorder(at) | Self::ZeroWindow(at) => Some(at),
        }
    }
}

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledgement {
    pub(crate) now: Instant,
    pub(crate) ack: SeqNumber,
    pub(crate) sack: SackBlocks,
    /// It came with data, or changed the window: then it is no duplicate (RFC 5681 section 2).
    pub(crate) carries_more: bool,
    /// When the segment that it answers was sent, by its timestamp echo, in milliseconds.
    pub(crate) echoed: Option<Echo>,
    /// The acknowledgement says that a mark arrived (RFC 3168 section 6.1.3).
    pub(crate) marked: bool,
    /// Segments that it stands for: several of them arrive as one super-segment.
    pub(crate) segments: u32,
}

/// A timestamp echo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo {
    /// How long ago it was sent, in the clock of timestamps.
    pub(crate) age: Duration,
    /// When that segment was sent.
    pub(crate) sent_at: Instant,
}

impl Sender {
    pub(crate) fn new(config: &Config, iss: SeqNumber) -> Self {
        Self {
            iss,
            una: iss,
            nxt: iss,
            wnd: 0,
            wl1: SeqNumber::new(0),
            max_wnd: 0,
            wscale: 0,
            sack: false,
            mss: super::DEFAULT_MSS,
            small: iss,
            scoreboard: Lazy::default(),
            control: Controller::new(config.algorithm.build(), config.initial_window),
            recovery: Recovery::new(config, iss),
            ecn: EcnState::default(),
            rack: Lazy::default(),
            rtt: RttEstimator::new(config.min_rto, config.max_rto),
            min_rtt: MinRtt::default(),
            rate: RateEstimator::default(),
            pacer: Pacer::default(),
            max_pacing_rate: u64::MAX,
            timer: Timer::Idle,
            backoff: 0,
            probe_backoff: 0,
            retransmits: 0,
            probes: 0,
            sent_at: Instant::ZERO,
            counters: SenderCounters::default(),
            chrono: Chrono::default(),
        }
    }

    /// Nothing is in flight: what tells of that needs no memory.
    pub(crate) fn give_back(&mut self) {
        self.scoreboard.give_back();
        self.rate.give_back();
        self.recovery.losses.tidy();
        if self.rack.has_learned_nothing() {
            self.rack.give_back();
        }
    }

    pub(crate) fn packets_out(&self) -> u32 {
        self.scoreboard.packets_out()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.scoreboard.in_flight()
    }

    /// The first sequence number that the other end has no room for.
    pub(crate) fn window_end(&self) -> SeqNumber {
        self.una + self.wnd
    }

    /// The time-out with its backoff (RFC 6298 section 5.5).
    pub(crate) fn rto(&self, config: &Config) -> Duration {
        let rto = self.rtt.rto();
        if self.backoff == 0 {
            return rto;
        }
        rto.checked_mul(1 << self.backoff.min(20)).unwrap_or(config.max_rto).min(config.max_rto)
    }

    /// The time to the next probe of a closed window (RFC 9293 section 3.8.6.1).
    pub(crate) fn probe_wait(&self, config: &Config) -> Duration {
        let wait = self.rto(config).checked_mul(1 << self.probe_backoff.min(20));
        wait.unwrap_or(config.max_rto).min(config.max_rto)
    }

    #[inline]
    pub(crate) fn rto_micros(&self, config: &Config) -> Micros {
        if self.backoff == 0 { self.rtt.rto_micros() } else { self.rto(config).into() }
    }

    /// RFC 9293 section 3.10.7.4, fifth step, and everything that RFCs 2018 to 9438 added to it. The caller has checked
    /// that `ack` is neither older than the window nor newer than `SND.NXT`, and has updated the window. Returns how many
    /// sequence numbers it acknowledges.
    pub(crate) fn on_ack(&mut self, config: &Config, a: &Acknowledgement) -> u32 {
        let prior_una = self.una;
        let prior_packets = self.packets_out();
        let mut round = Round::new(self, prior_una);
        if a.ack.after(self.una) {
            round.advanced = true;
            self.retransmits = 0;
            self.una = a.ack;
        }
        if self.recovery.losses.held {
            self.recovery.losses.held = false;
        }
        if self.sack && !a.sack.is_empty() {
            self.take_sack(a, &mut round);
        }
        if a.ack.before(self.una) {
            // One that was overtaken says what is lost, and nothing of the window or of time (Linux's `tcp_ack`).
            self.recover(config, a.now, a.echoed, 0, &mut round);
            return 0;
        }
        self.probes = 0;
        let acked = self.una.since(prior_una);
        self.counters.bytes_acked += u64::from(acked);
        if prior_packets == 0 {
            self.take_tail_probe(a, &mut round);
            if round.dsacked {
                // All has arrived, and some of it twice: perhaps the last reduction was for nothing.
                self.recover(config, a.now, a.echoed, 0, &mut round);
            }
            return acked;
        }
        self.take_cumulative(a, &mut round);
        self.take_rtt(a, &mut round);
        self.update_reordering_window();
        self.take_tail_probe(a, &mut round);
        let duplicate = !(round.advanced || a.carries_more);
        let dubious = duplicate
            || round.sacked
            || round.dsacked
            || a.marked
            || self.recovery.state != CongestionState::Open;
        if dubious {
            let duplicates = if duplicate && !round.dsacked { a.segments.max(1) } else { 0 };
            round.marked = a.marked;
            self.recover(config, a.now, a.echoed, duplicates, &mut round);
        }
        let lost = self.recovery.losses.lost_total.wrapping_sub(round.lost_before);
        self.adapt(
            config,
            a.now,
            round.delivered_before,
            lost,
            &Progress {
                advanced: round.advanced,
                in_order: round.acked_packets > 0,
                sacked: round.sacked,
                rtt: round.rtt,
            },
        );
        if self.packets_out() == 0 {
            self.timer = Timer::Idle;
        } else if round.rearm || matches!(self.timer, Timer::Idle) {
            self.arm(config, a.now, true);
        }
        acked
    }

    /// What an acknowledgement says about the speed of the network.
    #[inline]
    pub(crate) fn adapt(
        &mut self,
        config: &Config,
        now: Instant,
        delivered_before: u32,
        lost: u32,
        progress: &Progress,
    ) {
        let sample = self.rate.finish(now, lost, self.min_rtt.get());
        self.recovery.on_rate_sample(&mut self.rack, sample.as_ref().map(|sample| sample.prior_delivered));
        self.control.on_ack(&Ack {
            now,
            delivered: self.rate.delivered().wrapping_sub(delivered_before),
            lost,
            in_flight: self.in_flight(),
            advanced: progress.advanced,
            may_grow: progress.in_order || (progress.sacked && self.recovery.reordering > config.reordering),
            rtt: progress.rtt,
            snd_una: self.una,
            snd_nxt: self.nxt,
        });
        self.update_pacing();
    }

    /// Takes what was acknowledged cumulatively off the scoreboard.
    fn take_cumulative(&mut self, a: &Acknowledgement, round: &mut Round) {
        let mut acked_packets = 0;
        // The first segment that was delivered after later ones, without having been sent again.
        let mut reordered_from: Option<SeqNumber> = None;
        // Without SACK one of them fills the hole, and duplicates have told of the next ones already.
        let mut counted = if self.sack { 0 } else { self.scoreboard.sacked_out() };
        while let Some(record) = self.scoreboard.pop_acked(self.una) {
            acked_packets += 1;
            round.retransmission_acked |= record.was_retransmitted();
            if record.is_sacked() {
                // It was counted as delivered when it was sacked.
                continue;
            }
            if !record.was_retransmitted() {
                if record.start.before(round.highest_sacked) {
                    reordered_from = Some(reordered_from.map_or(record.start, |s| s.earlier(record.start)));
                }
                if !record.end.after(self.recovery.high_seq) {
                    round.original_acked = true;
                }
                round.first_sent.get_or_insert(record.sent_at);
                round.last_sent = Some(record.sent_at);
            }
            let known = acked_packets > 1 && counted > 0;
            counted -= u32::from(known);
            self.rate.on_delivered(a.now, &record.stamp, record.sent_at, u32::from(!known));
            // An echo from before it was sent last: this is an earlier copy, which says nothing of that time.
            let earlier = a.echoed.is_some_and(|echo| echo.sent_at.as_millis() < record.sent_at.as_millis());
            if !(record.was_retransmitted() && earlier) {
                self.rack.advance(a.now, &record, &self.min_rtt);
            }
        }
        if acked_packets > 0 {
            round.rearm = true;
            round.acked_packets = acked_packets;
            if !self.sack {
                if self.scoreboard.forget_emulated(acked_packets.saturating_sub(1)) {
                    self.note_duplicates_beyond(acked_packets);
                }
                if round.retransmission_acked {
                    // Without SACK it cannot be known what it was that arrived.
                    round.original_acked = false;
                }
            }
        }
        if let Some(from) = reordered_from
            && self.sack
        {
            let highest = self.scoreboard.highest_sacked().unwrap_or(self.una);
            self.note_reordering(highest.saturating_since(from));
        }
    }

    /// RFC 6298 section 3 (Karn's algorithm), RFC 7323 section 4.
    fn take_rtt(&mut self, a: &Acknowledgement, round: &mut Round) {
        let exact = if round.retransmission_acked { None } else { round.first_sent };
        let exact = exact.or(round.sacked_first);
        let mut rtt = exact.map(|sent| a.now - sent);
        // An exact measure is better than a timestamp, which counts milliseconds; after a retransmission it is all
        // there is, and says which copy was acknowledged. Only for a segment that acknowledges something new
        // (RFC 7323 section 4.1).
        if rtt.is_none()
            && round.acked_packets > 0
            && let Some(echo) = a.echoed
        {
            rtt = Some(echo.age.max(Duration::from_millis(1)));
        }
        // The most recent one tells congestion control about now.
        let latest = round.sacked_last.or(round.last_sent.filter(|_| !round.retransmission_acked));
        round.rtt = latest.map(|sent| a.now - sent).or(rtt);
        if let Some(rtt) = round.rtt {
            self.min_rtt.on_sample(a.now, rtt.max(Duration::from_nanos(1)));
        }
        if let Some(rtt) = rtt {
            self.rtt.on_sample(rtt, self.una, self.nxt);
            self.probe_backoff = 0;
            self.backoff = 0; // RFC 6298 section 5, Karn: a fresh measure ends the backoff
            // What was sacked puts the time-out off only if it was sent before the first segment was sent last: else the
            // time-out would never come while others arrive (Linux's `tcp_clean_rtx_queue`).
            if let (Some(sacked), Some(first)) = (round.sacked_first, self.scoreboard.first()) {
                round.rearm |= sacked < first.sent_at;
            }
        }
    }

    /// The rate also decides the size of bursts, so it is kept where nothing is paced as well.
    pub(crate) fn update_pacing(&mut self) {
        let rate = Pacer::rate_for(
            self.control.cwnd(),
            self.control.ssthresh(),
            self.packets_out(),
            u32::from(self.mss),
            self.rtt.srtt_micros(),
        );
        // Zero is "not known yet": unpaced, except for one who wants it slower.
        let rate = if rate == 0 { u64::MAX } else { rate }.min(self.max_pacing_rate);
        self.pacer.set_rate(if rate == u64::MAX { 0 } else { rate });
    }

    /// Sets the timer anew: a tail loss probe if one makes sense, else the retransmission time-out. `progress` says that
    /// something was delivered, and not only more sent.
    pub(crate) fn arm(&mut self, config: &Config, now: Instant, progress: bool) {
        if self.packets_out() == 0 {
            self.timer = Timer::Idle;
            return;
        }
        self.timer = match self.tail_probe_deadline(config, now, progress) {
            Some(at) => Timer::TailLoss(at),
            None => Timer::Retransmit(self.rto_deadline(config, now)),
        };
    }

    /// RFC 6298 section 5.3 restarts the timer from now on each acknowledgement; when a probe or the reordering timer
    /// had its place meanwhile, Linux counts from the time at which the first segment was sent (`tcp_rearm_rto`).
    pub(crate) fn rto_deadline(&self, config: &Config, now: Instant) -> Instant {
        let rto = self.rto(config);
        if let (Timer::TailLoss(_) | Timer::Reorder(_), Some(first)) = (self.timer, self.scoreboard.first()) {
            return (first.sent_at + rto).max(now + Duration::from_millis(1));
        }
        now + rto
    }
}

/// What one acknowledgement brings.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `SND.UNA` moved.
    pub(crate) advanced: bool,
    /// Whole segments were acknowledged cumulatively.
    pub(crate) in_order: bool,
    /// Something was sacked for the first time.
    pub(crate) sacked: bool,
    pub(crate) rtt: Option<Duration>,
}

/// What is learned while one acknowledgement is processed.
#[derive(Debug)]
pub(crate) struct Round {
    /// `SND.UNA` moved.
    pub(crate) advanced: bool,
    pub(crate) prior_una: SeqNumber,
    /// Something was sacked for the first time.
    pub(crate) sacked: bool,
    /// A duplicate was reported (RFC 2883).
    pub(crate) dsacked: bool,
    /// A duplicate of a tail probe was reported.
    pub(crate) probe_dsacked: bool,
    /// A mark was reported (RFC 3168).
    pub(crate) marked: bool,
    /// A segment that was never sent again, and was sent before the time-out, was delivered.
    pub(crate) original_acked: bool,
    pub(crate) retransmission_acked: bool,
    pub(crate) acked_packets: u32,
    /// A retransmission was found lost.
    pub(crate) lost_retransmission: bool,
    /// Where the highest sacked segment ended before.
    pub(crate) highest_sacked: SeqNumber,
    pub(crate) first_sent: Option<Instant>,
    pub(crate) last_sent: Option<Instant>,
    pub(crate) sacked_first: Option<Instant>,
    pub(crate) sacked_last: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) rearm: bool,
    pub(crate) delivered_before: u32,
    pub(crate) lost_before: u32,
}

impl Round {
    fn new(sender: &Sender, prior_una: SeqNumber) -> Self {
        Self {
            advanced: false,
            prior_una,
            sacked: false,
            dsacked: false,
            probe_dsacked: false,
            marked: false,
            original_acked: false,
            retransmission_acked: false,
            acked_packets: 0,
            lost_retransmission: false,
            highest_sacked: sender.scoreboard.highest_sacked().unwrap_or(prior_una),
            first_sent: None,
            last_sent: None,
            sacked_first: None,
            sacked_last: None,
            rtt: None,
            rearm: false,
            delivered_before: sender.rate.delivered(),
            lost_before: sender.recovery.losses.lost_total,
        }
    }
}
