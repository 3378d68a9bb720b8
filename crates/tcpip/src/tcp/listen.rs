//! Listeners: handshakes that others began (RFC 9293 section 3.10.7.2), and connections that wait to be accepted.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::config::Config;
use super::conn::SocketOptions;
use super::cookies::SynCookie;
use super::ecn::{self, Ecn};
use super::endpoint::Endpoint;
use crate::seq::SeqNumber;
use crate::slab::Key;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options, Timestamps};

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Any address when there is none.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    /// Connections that wait for `accept`, and how many may.
    pub(crate) queue: VecDeque<Key>,
    pub(crate) backlog: u32,
    /// Handshakes under way.
    pub(crate) handshakes: u32,
    pub(crate) options: Arc<SocketOptions>,
    /// Until when acknowledgements of cookies are looked for.
    pub(crate) cookies_until: Instant,
}

impl Listener {
    /// Linux lets one more in than the backlog says.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() as u32 > self.backlog
    }

    /// RFC 4987 section 3.2: the queue of handshakes has its own limit, which is the backlog in Linux as well.
    pub(crate) fn has_too_many_handshakes(&self) -> bool {
        self.handshakes > self.backlog
    }
}

/// A handshake that another began: SYN-RECEIVED. It is small, because anybody can make us keep one.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) listener: Key,
    /// When it was answered last.
    pub(crate) sent_at: Instant,
    /// Milliseconds between the first answer and the last.
    span: u16,
    pub(crate) iss: SeqNumber,
    pub(crate) irs: SeqNumber,
    pub(crate) recent: u32,
    /// None if the other end has no timestamps.
    clock_offset: u32,
    pub(crate) peer_mss: u16,
    pub(crate) our_mss: u16,
    pub(crate) window: u16,
    /// [`NO_SHIFT`] if the other end has no scale.
    peer_shift: u8,
    pub(crate) our_shift: u8,
    /// [`SACK`], [`ECN`] and [`CLOCK`]: what both ends have; and [`ACKED`].
    capabilities: u8,
    /// How often the timer had it answered again.
    pub(crate) retries: u8,
    /// When a segment out of turn may be answered again, in milliseconds of a clock that wraps: a handshake is over long
    /// before that matters.
    next_answer: u32,
}

/// Bytes of the timestamps option with its padding.
const TIMESTAMPS_LEN: u16 = 12;

const SACK: u8 = 1;
const ECN: u8 = 2;
/// The other end has acknowledged, and the listener waits for data.
const ACKED: u8 = 4;
/// Both ends have timestamps.
const CLOCK: u8 = 8;
/// The SYN came again.
const ASKED_AGAIN: u8 = 16;
/// No shift is larger than 14 (RFC 7323 section 2.3).
const NO_SHIFT: u8 = u8::MAX;

/// The first wait for an answer (RFC 6298 section 2.1).
pub(crate) const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

impl Handshake {
    /// What the other end's SYN asks for and we have.
    pub(crate) fn new(
        config: &Config,
        (local, remote): (SocketAddr, SocketAddr),
        listener: Key,
        now: Instant,
        syn: &Header,
        iss: SeqNumber,
        setup: &Setup,
    ) -> Self {
        let options = &syn.options;
        let default = if remote.is_ipv4() { super::DEFAULT_MSS } else { super::DEFAULT_MSS_V6 };
        let sack = config.sack && options.sack_permitted;
        let ecn = config.ecn != Ecn::Off && syn.flags.contains(ecn::ASK);
        let scaling = config.window_scaling && options.window_scale.is_some();
        let clock_offset = options.timestamps.filter(|_| config.timestamps).map(|_| setup.clock_offset);
        // Whole segments, as Linux announces: timestamps take their part of each.
        let taken = if clock_offset.is_some() { TIMESTAMPS_LEN } else { 0 };
        let data = setup.mss.saturating_sub(taken).max(1);
        let whole = setup.space / data * data;
        Self {
            local: local.into(),
            remote: remote.into(),
            listener,
            sent_at: now,
            span: 0,
            iss,
            irs: syn.seq,
            recent: options.timestamps.map_or(0, |stamps| stamps.value),
            clock_offset: clock_offset.unwrap_or(0),
            peer_mss: options.mss.unwrap_or(default).max(config.min_mss),
            our_mss: setup.mss,
            window: if whole > 0 { whole } else { setup.space },
            peer_shift: options.window_scale.filter(|_| scaling).unwrap_or(NO_SHIFT),
            our_shift: if scaling { setup.shift } else { 0 },
            capabilities: if sack { SACK } else { 0 }
                | if ecn { ECN } else { 0 }
                | if clock_offset.is_some() { CLOCK } else { 0 },
            retries: 0,
            next_answer: now.as_millis() as u32,
        }
    }

    /// With nothing agreed on but the segment size.
    pub(crate) fn plain(self) -> Self {
        Self { peer_shift: NO_SHIFT, our_shift: 0, capabilities: 0, ..self }
    }

    pub(crate) fn sack(&self) -> bool {
        self.capabilities & SACK != 0
    }

    /// What is added to our clock of timestamps, if both ends have those.
    pub(crate) fn clock_offset(&self) -> Option<u32> {
        (self.capabilities & CLOCK != 0).then_some(self.clock_offset)
    }

    pub(crate) fn ecn(&self) -> bool {
        self.capabilities & ECN != 0
    }

    /// Whether an acknowledgement without data is not enough yet for a listener with this TCP_DEFER_ACCEPT (Linux's
    /// `tcp_check_req`).
    pub(crate) fn defer(&mut self, defer_accept: u8) -> bool {
        let defers = self.retries < defer_accept;
        self.capabilities |= if defers { ACKED } else { 0 };
        defers
    }

    /// What the timer is to do (Linux's `syn_ack_recalc`).
    pub(crate) fn on_timeout(&self, config: &Config, defer_accept: u8) -> Timeout {
        let waits = self.capabilities & ACKED != 0;
        if self.retries >= config.synack_retries && !(waits && self.retries < defer_accept) {
            Timeout::GiveUp
        } else if waits && self.retries + 1 < defer_accept {
            Timeout::Wait
        } else {
            Timeout::Answer
        }
    }

    /// The answer to the SYN.
    pub(crate) fn answer(&self, now: Instant) -> Header {
        let (local, remote) = (SocketAddr::from(self.local), SocketAddr::from(self.remote));
        Header {
            src_port: local.port(),
            dst_port: remote.port(),
            seq: self.iss,
            ack: self.irs + 1,
            flags: if self.ecn() { Flags::SYN | Flags::ACK | ecn::ACCEPT } else { Flags::SYN | Flags::ACK },
            window: self.window,
            urgent: 0,
            options: Options {
                mss: Some(self.our_mss),
                window_scale: self.peer_shift().map(|_| self.our_shift),
                sack_permitted: self.sack(),
                timestamps: self.stamps(now),
                ..Options::default()
            },
        }
    }

    /// The answer that carries a cookie instead of being remembered.
    pub(crate) fn answer_with(&self, cookie: &SynCookie, now: Instant) -> Header {
        let mut header = Self { iss: cookie.iss, ..self.clone() }.answer(now);
        if let Some(stamps) = &mut header.options.timestamps {
            stamps.value = cookie.stamp(stamps.value);
        }
        header
    }

    fn stamps(&self, now: Instant) -> Option<Timestamps> {
        let offset = self.clock_offset()?;
        Some(Timestamps { value: (now.as_millis() as u32).wrapping_add(offset), echo: self.recent })
    }

    /// A bare acknowledgement, for a segment that is out of window.
    pub(crate) fn acknowledge(&self, now: Instant) -> Header {
        Header {
            seq: self.iss + 1,
            flags: Flags::ACK,
            window: self.window >> self.our_shift,
            options: Options { timestamps: self.stamps(now), ..Options::default() },
            ..self.answer(now)
        }
    }

    /// Whether a segment may be answered out of turn: not sooner after the last answer than `limit`.
    pub(crate) fn may_answer(&mut self, limit: Duration, now: Instant) -> bool {
        let now = now.as_millis() as u32;
        let may = (now.wrapping_sub(self.next_answer) as i32) >= 0;
        if may {
            self.next_answer = now.wrapping_add(u32::try_from(limit.as_millis()).unwrap_or(u32::MAX / 2));
        }
        may
    }

    /// What it echoes is no stamp of our answers (Linux's check of TSEcr in `tcp_check_req`).
    pub(crate) fn echoes_wrongly(&self, header: &Header) -> bool {
        let (Some(ours), Some(stamps)) = (self.stamps(self.sent_at), header.options.timestamps) else {
            return false;
        };
        let after = stamps.echo.wrapping_sub(ours.value) as i32;
        stamps.echo != 0 && (after > 0 || after < -i32::from(self.span))
    }

    /// The answer is sent again because the SYN came again.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        self.sent_again(now);
        self.capabilities |= ASKED_AGAIN;
    }

    /// It was answered again because the other end asked: then an acknowledgement is ambiguous as well.
    pub(crate) fn was_asked_again(&self) -> bool {
        self.capabilities & ASKED_AGAIN != 0
    }

    /// By how much the other end's windows are shifted, if they are.
    pub(crate) fn peer_shift(&self) -> Option<u8> {
        (self.peer_shift != NO_SHIFT).then_some(self.peer_shift)
    }

    /// The answer is sent once more.
    pub(crate) fn sent_again(&mut self, now: Instant) {
        // Between the stamps, which are whole milliseconds, and not between the moments.
        let span = u64::from(self.span) + now.as_millis().saturating_sub(self.sent_at.as_millis());
        self.span = u16::try_from(span).unwrap_or(u16::MAX);
        self.sent_at = now;
    }

    /// When the answer is sent again, with exponential backoff.
    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        self.sent_at + (FIRST_TIMEOUT * (1 << self.retries.min(20))).min(config.max_rto)
    }
}

/// What happens to a handshake whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeout {
    GiveUp,
    /// The handshake is acknowledged: only data is missing (TCP_DEFER_ACCEPT).
    Wait,
    /// The answer is sent again: the last time to find out whether the other end is there.
    Answer,
}

/// What we bring to a handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) mss: u16,
    /// Room for data.
    pub(crate) space: u16,
    pub(crate) shift: u8,
    pub(crate) clock_offset: u32,
}
