//! Congestion control: how many segments may be in flight.
//!
//! [`Congestion`] is one algorithm: how the window grows, and how far it falls. [`Controller`] owns the window and does
//! what is the same under each algorithm: the reductions of fast recovery, ECN and time-outs, taking back a reduction
//! that turns out spurious, and windows that the sender did not use.
//!
//! Windows count segments, as Linux does (RFC 5681 counts bytes): TCP_INFO reports segments, and a flow of small
//! segments is then not slowed down.

mod cubic;
mod hystart;
mod prr;
mod reno;

use alloc::boxed::Box;
use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

pub use cubic::Cubic;
pub use reno::NewReno;

use crate::seq::SeqNumber;
use crate::time::Instant;
use prr::Prr;

/// `ssthresh` before the first congestion event: Linux's `TCP_INFINITE_SSTHRESH`.
pub const INFINITE_SSTHRESH: u32 = 0x7fff_ffff;

/// RFC 6928: ten segments.
pub const INITIAL_WINDOW: u32 = 10;

/// A congestion control algorithm.
pub trait Congestion: fmt::Debug + Send {
    /// As in the socket option TCP_CONGESTION.
    fn name(&self) -> &'static str;

    /// Segments were delivered and the window was full enough to grow (RFC 7661 says why that matters).
    fn on_ack(&mut self, window: &mut Window, ack: &Ack);

    /// Segments were delivered, and the window was not full.
    fn on_unused(&mut self, _now: Instant) {}

    /// A round-trip time was measured; called before `on_ack`, also when the window may not grow.
    fn on_rtt(&mut self, _window: &mut Window, _ack: &Ack, _rtt: Duration) {}

    /// The network is congested: answers the new `ssthresh`, to which the controller takes the window.
    fn on_congestion(&mut self, window: &Window, event: Event, now: Instant) -> u32;

    /// The last congestion event was none. The controller has restored window and `ssthresh` already.
    fn on_spurious(&mut self, _window: &mut Window) {}

    /// Sending starts again after nothing was in flight since `since`.
    fn on_restart(&mut self, _since: Instant, _now: Instant) {}

    /// What the inspector shows.
    fn snapshot(&self, window: &Window) -> Snapshot;

    /// A fresh instance for a connection that a listener makes.
    fn fresh(&self) -> Box<dyn Congestion>;
}

/// What showed that the path is congested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Loss found by acknowledgements, or an ECN mark.
    Loss,
    /// The retransmission timer ran out.
    Timeout,
}

/// The algorithms of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// RFC 5681 with RFC 6582's recovery.
    NewReno,
    /// RFC 9438 with RFC 9406's slow start.
    #[default]
    Cubic,
}

impl Algorithm {
    /// By the name that TCP_CONGESTION takes.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reno" => Some(Self::NewReno),
            "cubic" => Some(Self::Cubic),
            _ => None,
        }
    }

    /// The name that TCP_CONGESTION gives.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewReno => "reno",
            Self::Cubic => "cubic",
        }
    }

    /// An instance for one connection.
    pub fn build(self) -> Box<dyn Congestion> {
        match self {
            Self::NewReno => Box::new(NewReno),
            Self::Cubic => Box::new(Cubic::default()),
        }
    }
}

/// What one acknowledgement says to congestion control.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// When it arrived.
    pub now: Instant,
    /// Segments that it newly reports as delivered, cumulatively or selectively.
    pub delivered: u32,
    /// Segments that were found lost on its account.
    pub lost: u32,
    /// Segments in flight after it: sent, and neither delivered nor lost.
    pub in_flight: u32,
    /// Whether it moved `SND.UNA`.
    pub advanced: bool,
    /// Whether the window may grow on it: RFC 5681 lets it for what is acknowledged in order, and Linux for the rest
    /// only where the network is known to reorder (`tcp_may_raise_cwnd`).
    pub may_grow: bool,
    /// Its round-trip sample, if it gave one.
    pub rtt: Option<Duration>,
    /// `SND.UNA` after it.
    pub snd_una: SeqNumber,
    /// `SND.NXT`.
    pub snd_nxt: SeqNumber,
}

/// The congestion window, which algorithms change in [`Congestion::on_ack`].
#[derive(Debug, Clone)]
pub struct Window {
    /// Segments that may be in flight.
    pub cwnd: u32,
    /// Below it the window grows by slow start.
    pub ssthresh: u32,
    /// Delivered segments that have not yet counted towards growth in congestion avoidance.
    pending: u32,
    /// `cwnd` before the last congestion event.
    prior: u32,
}

impl Window {
    fn new(initial: u32) -> Self {
        Self { cwnd: initial, ssthresh: INFINITE_SSTHRESH, pending: 0, prior: 0 }
    }

    /// RFC 5681 section 3.1.
    pub fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// The window before the last congestion event.
    pub fn prior(&self) -> u32 {
        self.prior
    }

    /// Grows by one segment for each one delivered, up to `ssthresh`; returns how many are left for congestion
    /// avoidance. RFC 5681's limit of one per acknowledgement is not kept, nor by Linux: receivers acknowledge
    /// whole super-segments.
    pub fn slow_start(&mut self, delivered: u32) -> u32 {
        let grown = self.cwnd.saturating_add(delivered).min(self.ssthresh);
        let left = delivered - (grown - self.cwnd);
        self.cwnd = grown;
        left
    }

    /// Grows by one segment for each `per_segment` delivered ones.
    pub fn avoid(&mut self, per_segment: u32, delivered: u32) {
        let per_segment = per_segment.max(1);
        // The divisor fell since the count began (Linux does the same): one step, not several at once.
        if self.pending >= per_segment {
            self.pending = 0;
            self.cwnd = self.cwnd.saturating_add(1);
        }
        self.pending = self.pending.saturating_add(delivered);
        self.cwnd = self.cwnd.saturating_add(self.pending / per_segment);
        self.pending %= per_segment;
    }
}

/// What an inspector shows of congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// As in TCP_CONGESTION.
    pub name: &'static str,
    /// How the window grows now.
    pub phase: Phase,
    /// Segments that may be in flight.
    pub cwnd: u32,
    /// Below it the window grows by slow start.
    pub ssthresh: u32,
    /// CUBIC's variables.
    pub cubic: Option<cubic::Shown>,
}

/// How the window grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// By one segment for each one delivered.
    SlowStart,
    /// RFC 9406: the delay grew; by a quarter of that until it is clear whether it stays.
    ConservativeSlowStart,
    /// As the algorithm says.
    Avoidance,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::SlowStart => "slow-start",
            Phase::ConservativeSlowStart => "conservative-slow-start",
            Phase::Avoidance => "avoidance",
        };
        write!(f, "{} {phase} cwnd:{}", self.name, self.cwnd)?;
        if self.ssthresh < INFINITE_SSTHRESH {
            write!(f, " ssthresh:{}", self.ssthresh)?;
        }
        if let Some(cubic) = self.cubic {
            write!(f, " {cubic}")?;
        }
        Ok(())
    }
}

/// The window of one connection, and everything that changes it.
#[derive(Debug)]
pub struct Controller {
    window: Window,
    algorithm: Box<dyn Congestion>,
    /// While the window goes down to `ssthresh` (fast recovery, or CWR after an ECN mark).
    reduction: Option<Box<Prr>>,
    /// `ssthresh` before the last event, while that can still be undone.
    prior_ssthresh: Option<NonZeroU32>,
    usage: Usage,
}

/// How much of the window the sender used: a window that was not full says nothing about the network (RFC 7661).
#[derive(Debug, Clone, Default)]
struct Usage {
    limited: bool,
    /// A window was measured.
    begun: bool,
    /// The window of the beginning, which is always left.
    initial: u16,
    /// The most segments in flight in the last window.
    peak: u32,
    /// The last window ends when this is acknowledged.
    until: SeqNumber,
    /// The most segments in flight since the window was last full, and when that was.
    used: u32,
    full_at: Option<Instant>,
}

impl Controller {
    /// The state of a new connection.
    pub fn new(algorithm: Box<dyn Congestion>, initial: u32) -> Self {
        Self {
            window: Window::new(initial.max(1)),
            algorithm,
            reduction: None,
            prior_ssthresh: None,
            usage: Usage { initial: u16::try_from(initial.max(1)).unwrap_or(u16::MAX), ..Usage::default() },
        }
    }

    /// Segments that may be in flight.
    pub fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    /// Below it the window grows by slow start; TCP_INFO reports it.
    pub fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    /// The window and its threshold.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Whether the window is going down in fast recovery or after an ECN mark.
    pub fn is_reducing(&self) -> bool {
        self.reduction.is_some()
    }

    /// As in TCP_CONGESTION.
    pub fn name(&self) -> &'static str {
        self.algorithm.name()
    }

    /// What the inspector shows.
    pub fn snapshot(&self) -> Snapshot {
        self.algorithm.snapshot(&self.window)
    }

    /// TCP_CONGESTION on a living connection: the window stays.
    pub fn set_algorithm(&mut self, algorithm: Box<dyn Congestion>) {
        self.algorithm = algorithm;
    }

    /// The controller of a connection that a listener makes.
    pub fn fresh(&self) -> Self {
        Self::new(self.algorithm.fresh(), self.usage.initial.into())
    }

    /// The connection is there: the window counts as used until now.
    pub fn begin(&mut self, now: Instant) {
        self.usage.full_at = Some(now);
    }

    /// The SYN or its answer was retransmitted: RFC 5681 section 3.1 lets the window begin at one segment.
    pub fn on_handshake_loss(&mut self) {
        self.window.cwnd = 1;
    }

    /// An acknowledgement that reports deliveries, or losses, or both.
    pub fn on_ack(&mut self, ack: &Ack) {
        if let Some(rtt) = ack.rtt {
            self.algorithm.on_rtt(&mut self.window, ack, rtt);
        }
        if let Some(prr) = &mut self.reduction {
            self.window.cwnd = prr.on_ack(ack, self.window.ssthresh, self.window.cwnd);
        } else if ack.delivered > 0 && ack.may_grow {
            // While it is acknowledged the window is in use (Linux's `tcp_cong_avoid`).
            self.usage.full_at = Some(ack.now);
            match self.is_used() {
                true => self.algorithm.on_ack(&mut self.window, ack),
                false => self.algorithm.on_unused(ack.now),
            }
        }
    }

    /// A segment was sent or sent again while the window goes down.
    pub fn on_sent(&mut self, segments: u32) {
        if let Some(prr) = &mut self.reduction {
            prr.on_sent(segments);
        }
    }

    /// Fast recovery begins: loss was found by acknowledgements. `marked` says that there was an ECN mark as well.
    pub fn enter_recovery(&mut self, now: Instant, marked: bool) {
        if self.reduction.is_none() {
            self.prior_ssthresh = NonZeroU32::new(self.current_ssthresh()).filter(|_| !marked);
            self.begin_reduction(now);
        }
    }

    /// Fast recovery has begun, and not with an acknowledgement: lets the first segment be sent again. `again` says that the
    /// window was going down already, for an ECN mark: then it goes on as before.
    pub fn allow_retransmission(&mut self, in_flight: u32, again: bool) {
        self.window.cwnd = match &mut self.reduction {
            Some(prr) if again => prr.on_delivery(1, false, in_flight, self.window.ssthresh),
            _ => in_flight + 1,
        };
    }

    /// An ECN mark (RFC 3168 section 6.1.2): the window goes down as in fast recovery, and nothing can show that to be
    /// spurious.
    pub fn enter_cwr(&mut self, now: Instant) {
        if self.reduction.is_none() {
            self.prior_ssthresh = None;
            self.begin_reduction(now);
        }
    }

    /// A tail loss probe filled a hole (RFC 8985 section 7.4.2): a reduction of its own, whatever is under way.
    pub fn reduce_again(&mut self, now: Instant) {
        self.begin_reduction(now);
    }

    /// A mark came back: the reduction under way is for something.
    pub fn forbid_undo(&mut self) {
        self.prior_ssthresh = None;
    }

    /// Recovery or CWR is over: the window is `ssthresh`.
    pub fn end_reduction(&mut self, now: Instant) {
        if self.reduction.take().is_some() && self.window.ssthresh < INFINITE_SSTHRESH {
            self.window.cwnd = self.window.ssthresh.max(1);
            self.usage.full_at = Some(now);
        }
    }

    /// It is over, because it was for nothing, or something worse happened: the window stays where it is.
    pub fn leave_reduction(&mut self) {
        self.reduction = None;
    }

    /// The retransmission timer ran out (RFC 5681 section 3.1, RFC 8985 section 6.3). `again` says that this is the
    /// same loss event as the last one: `ssthresh` is not lowered twice.
    pub fn enter_loss(&mut self, now: Instant, in_flight: u32, again: bool) {
        if !again {
            self.prior_ssthresh = NonZeroU32::new(self.current_ssthresh());
            self.window.prior = self.window.cwnd;
            self.window.ssthresh = self.algorithm.on_congestion(&self.window, Event::Timeout, now);
        }
        self.reduction = None;
        // What is not known to be lost keeps its place: RFC 5681's loss window of one is for the segment sent now.
        self.window.cwnd = in_flight + 1;
        self.window.pending = 0;
        self.usage.full_at = Some(now);
    }

    /// The last reduction was for nothing (RFC 3522, RFC 5682, RFC 2883): takes it back, and says whether there was
    /// one to take back.
    pub fn undo(&mut self, now: Instant) -> bool {
        self.usage.full_at = Some(now);
        let Some(ssthresh) = self.prior_ssthresh.take() else { return false };
        self.window.cwnd = self.window.cwnd.max(self.window.prior);
        self.window.ssthresh = self.window.ssthresh.max(ssthresh.get());
        self.algorithm.on_spurious(&mut self.window);
        true
    }

    /// Segments went out, or could not: `limited` when the congestion window was what held the sender back. `open` says
    /// that no loss event is under way and the sender has nothing left to send.
    pub fn on_transmit(&mut self, sent: &Transmitted) {
        let usage = &mut self.usage;
        let window_over = !usage.begun || !sent.snd_una.before(usage.until);
        if window_over || sent.limited || (!usage.limited && sent.packets_out > usage.peak) {
            usage.limited = sent.limited;
            usage.peak = sent.packets_out;
            usage.begun = true;
            usage.until = sent.snd_nxt;
        }
        if self.is_used() {
            self.usage.used = 0;
            self.usage.full_at = Some(sent.now);
            return;
        }
        let usage = &mut self.usage;
        usage.used = usage.used.max(sent.packets_out);
        let full_at = *usage.full_at.get_or_insert(sent.now);
        if sent.shrinks && sent.now.saturating_duration_since(full_at) >= sent.rto {
            if sent.starved {
                self.shrink_to_use();
            }
            self.usage.full_at = Some(sent.now);
        }
    }

    /// Sends after nothing was sent since `last`: an old window says little about the network of now (RFC 2861, and
    /// RFC 5681 section 4.1). `slow_start_after_idle` is Linux's sysctl of that name.
    pub fn on_restart(&mut self, last: Instant, now: Instant, rto: Duration, slow_start_after_idle: bool) {
        self.algorithm.on_restart(last, now);
        let idle = now.saturating_duration_since(last);
        if !slow_start_after_idle || idle <= rto || rto.is_zero() {
            return;
        }
        self.window.ssthresh = self.current_ssthresh();
        let floor = u32::from(self.usage.initial).min(self.window.cwnd);
        let halvings = u32::try_from((idle.as_nanos() - 1) / rto.as_nanos()).unwrap_or(u32::MAX).min(31);
        self.window.cwnd = (self.window.cwnd >> halvings).max(floor);
        self.usage.used = 0;
        self.usage.full_at = Some(now);
    }

    /// Whether the sender uses the window, so that it may grow. In slow start half of it is enough: it doubles in a
    /// round trip.
    pub fn is_used(&self) -> bool {
        self.usage.limited
            || (self.window.in_slow_start() && self.window.cwnd < self.usage.peak.saturating_mul(2))
    }

    /// RFC 2861 section 3.1: half-way from the window to what was used of it.
    fn shrink_to_use(&mut self) {
        let used = self.usage.used.max(self.usage.initial.into());
        if used < self.window.cwnd {
            self.window.ssthresh = self.current_ssthresh();
            self.window.cwnd = (self.window.cwnd + used) / 2;
        }
        self.usage.used = 0;
    }

    /// The threshold to remember: at least three quarters of a window that works.
    fn current_ssthresh(&self) -> u32 {
        if self.reduction.is_some() {
            return self.window.ssthresh;
        }
        self.window.ssthresh.max(self.window.cwnd / 2 + self.window.cwnd / 4)
    }

    fn begin_reduction(&mut self, now: Instant) {
        self.window.prior = self.window.cwnd;
        self.window.pending = 0;
        self.window.ssthresh = self.algorithm.on_congestion(&self.window, Event::Loss, now);
        self.reduction = Some(Box::new(Prr::new(self.window.prior)));
    }
}

/// What [`Controller::on_transmit`] learns.
#[derive(Debug, Clone, Copy)]
pub struct Transmitted {
    /// The time of sending.
    pub now: Instant,
    /// Segments sent and not acknowledged cumulatively.
    pub packets_out: u32,
    /// The congestion window held the sender back.
    pub limited: bool,
    /// No loss event is under way, and the application does not wait for room to write: what holds the sender back is that
    /// nothing more is given to it, or the other end's window.
    pub starved: bool,
    /// A window that is not used for a while becomes smaller.
    pub shrinks: bool,
    /// `SND.UNA`.
    pub snd_una: SeqNumber,
    /// `SND.NXT`.
    pub snd_nxt: SeqNumber,
    /// The retransmission time-out.
    pub rto: Duration,
}

#[cfg(test)]
mod tests;
