//! A connection: its two halves, its state, its timers.

use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::config::Config;
use super::context::Context;
use super::endpoint::Ends;
use super::push::Push;
use super::receiver::Receiver;
use super::sender::{Echo, Sender, Timer};
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::lazy::{Lazy, blank};
use crate::seq::{self, SeqNumber};
use crate::time::Instant;
use crate::wire::tcp::{Options, Timestamps};

/// One connection, with the buffers that the caller gave it.
#[derive(Debug)]
pub(crate) struct Connection<S, R> {
    pub(crate) state: State,
    pub(crate) ends: Ends,
    pub(crate) tx: S,
    pub(crate) rx: R,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) clock: Option<Clock>,
    /// The options; connections that have set none share them.
    pub(crate) options: Arc<SocketOptions>,
    /// The send buffer now (SO_SNDBUF as autotuning has it).
    pub(crate) send_limit: u32,
    /// What is sent before anything else.
    pub(crate) pending: Pending,
    /// The application writes no more: the FIN follows the data.
    pub(crate) fin_queued: bool,
    pub(crate) fin_acked: bool,
    /// The application reads no more.
    pub(crate) read_closed: bool,
    /// The application has closed the socket; the connection ends by itself.
    pub(crate) orphaned: bool,
    pub(crate) error: Option<Error>,
    /// What a router said last; it counts when the connection times out (Linux's `sk_err_soft`).
    pub(crate) soft_error: Option<Error>,
    pub(crate) events: Events,
    pub(crate) push: Push,
    /// The application found no room, or more room is worth telling.
    pub(crate) write_blocked: bool,
    /// Bytes of data that fit in a packet on the path, before options.
    pub(crate) path_mss: u16,
    /// The largest segment that the other end takes.
    pub(crate) peer_mss: u16,
    /// The largest packet payload that leaves at once; 0 without segmentation offload.
    pub(crate) gso_max: u16,
    pub(crate) cold: Lazy<ColdState>,
    /// When to check whether memory can be given back.
    pub(crate) tidy_at: Option<Instant>,
    /// Pages that it is charged with of the memory of all connections.
    pub(crate) charged: u16,
    /// When a segment arrived last.
    pub(crate) heard_at: Instant,
    pub(crate) keepalive_probes: u8,
    /// Something was sent since the sender last had nothing to send.
    pub(crate) sent_since: bool,
    /// Something other than a timer has asked since then what can leave.
    pub(crate) asked: bool,
    /// Nothing but pacing holds the sender back.
    pub(crate) paced: bool,
    /// The listener to whose queue it belongs until it is accepted.
    pub(crate) listener: Option<crate::slab::Key>,
    pub(crate) path: super::route::CachedPath,
}

/// The state that few connections need, or only for a while.
#[derive(Debug, PartialEq)]
pub(crate) struct ColdState {
    /// When the SYN was sent; until the handshake is over.
    pub(crate) syn_at: Instant,
    pub(crate) keepalive_at: Option<Instant>,
    /// When FIN-WAIT-2 ends without the other end's FIN.
    pub(crate) linger_at: Option<Instant>,
    /// When a segment out of window may be answered again.
    pub(crate) next_answer: Instant,
    /// When the window that is closed now was probed first.
    pub(crate) probed_since: Option<Instant>,
    /// Behind the urgent data that is not acknowledged (SND.UP).
    pub(crate) urgent_end: Option<SeqNumber>,
    /// The other end's urgent data (RCV.UP).
    pub(crate) mark: Option<Mark>,
}

blank!(
    ColdState,
    ColdState {
        syn_at: Instant::ZERO,
        keepalive_at: None,
        linger_at: None,
        next_answer: Instant::ZERO,
        probed_since: None,
        urgent_end: None,
        mark: None,
    }
);

/// Where the other end's urgent data ends: the number of its last byte, until the application has read beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) seq: SeqNumber,
    pub(crate) byte: Byte,
}

/// The urgent byte itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Byte {
    Awaited,
    Arrived(u8),
    Taken,
}

/// What leaves before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    Nothing,
    /// The SYN, or in SYN-RECEIVED the SYN with its acknowledgement.
    Syn,
    /// RFC 8985 section 7.3.
    TailProbe,
    /// Into a window that is zero or too small.
    WindowProbe,
    Keepalive,
}

/// Timestamps (RFC 7323 sections 3 to 5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Added to the time, so that connections cannot be told to be of one machine.
    pub(crate) offset: u32,
    /// TS.Recent, and when it was that.
    pub(crate) recent: u32,
    pub(crate) recent_at: Instant,
}

/// RFC 7323 section 5.5: after 24 days without a segment TS.Recent says nothing.
const PAWS_EXPIRES: Duration = Duration::from_secs(24 * 24 * 3600);

impl Clock {
    pub(crate) fn value(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.offset)
    }

    pub(crate) fn stamps(&self, now: Instant) -> Timestamps {
        Timestamps { value: self.value(now), echo: self.recent }
    }

    /// When the segment was sent that an echo answers; `None` for an echo that cannot be right.
    pub(crate) fn echo(&self, now: Instant, echo: u32) -> Option<Echo> {
        let age = self.value(now).wrapping_sub(echo);
        if age > 1 << 30 || echo == 0 {
            return None;
        }
        let age = Duration::from_millis(u64::from(age));
        Some(Echo { age, sent_at: Instant::from_millis(now.as_millis()) - age })
    }

    /// RFC 7323 section 5.3, R1: an old duplicate.
    pub(crate) fn is_old(&self, now: Instant, value: u32) -> bool {
        seq::before(value, self.recent) && now - self.recent_at < PAWS_EXPIRES
    }

    /// A segment at the left edge of the window. Returns whether TS.Recent is its timestamp now.
    pub(crate) fn update(&mut self, now: Instant, value: u32) -> bool {
        let newer = !seq::before(value, self.recent) || now - self.recent_at >= PAWS_EXPIRES;
        if newer {
            self.recent = value;
            self.recent_at = now;
        }
        newer
    }
}

/// What an application can set on a socket.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// TCP_CORK.
    pub cork: bool,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// TCP_KEEPIDLE; `None` for the stack's.
    pub keepalive_time: Option<Duration>,
    /// TCP_KEEPINTVL.
    pub keepalive_interval: Option<Duration>,
    /// TCP_KEEPCNT.
    pub keepalive_probes: Option<u8>,
    /// TCP_USER_TIMEOUT (RFC 5482); `None` for the stack's number of retries.
    pub user_timeout: Option<Duration>,
    /// TCP_MAXSEG.
    pub max_segment: Option<u16>,
    /// SO_SNDBUF: autotuning leaves it alone.
    pub send_buffer: Option<u32>,
    /// SO_RCVBUF: autotuning leaves it alone.
    pub receive_buffer: Option<u32>,
    /// TCP_CONGESTION.
    pub algorithm: Option<super::congestion::Algorithm>,
    /// TCP_LINGER2: how long a closed socket waits for the other end's FIN. Zero, which is a negative number in Linux, is not
    /// at all: it is reset instead.
    pub fin_timeout: Option<Duration>,
    /// TCP_DEFER_ACCEPT, as a number of times that the answer to a SYN is sent again: until then a connection is not there
    /// for `accept` before data has come. Of a socket that connects, the handshake's last acknowledgement waits for data.
    pub defer_accept: u8,
    /// TCP_SYNCNT.
    pub syn_retries: Option<u8>,
    /// TCP_NOTSENT_LOWAT.
    pub unsent_low_water: Option<u32>,
    /// SO_MAX_PACING_RATE, bytes a second.
    pub max_pacing_rate: Option<u64>,
    /// IP_TOS and IPV6_TCLASS (RFC 9293 section 3.9.2, MUST-48). The two bits of ECN are not the application's.
    pub traffic_class: u8,
    /// SO_OOBINLINE: urgent data stays in the stream.
    pub oob_inline: bool,
    /// The size at which send buffers begin, as the stack is configured.
    send_limit: u32,
}

impl SocketOptions {
    /// Bytes that the send buffer takes at first (SO_SNDBUF).
    pub fn send_limit(&self) -> u32 {
        self.send_buffer.unwrap_or(self.send_limit)
    }

    /// The segment size that we announce (RFC 9293 section 3.7.1): what our link takes, whatever is known of the path from
    /// here to there.
    pub(crate) fn announced_mss(&self, config: &Config, remote: IpAddr, link_mtu: u32) -> u16 {
        let size = config.segment_size(remote, link_mtu);
        self.max_segment.map_or(size, |max| max.min(size))
    }

    /// Options as they are before the program sets any.
    pub fn new(config: &Config) -> Self {
        Self {
            nodelay: false,
            cork: false,
            keepalive: false,
            keepalive_time: None,
            keepalive_interval: None,
            keepalive_probes: None,
            user_timeout: None,
            max_segment: None,
            send_buffer: None,
            receive_buffer: None,
            algorithm: None,
            fin_timeout: None,
            defer_accept: 0,
            syn_retries: None,
            unsent_low_water: None,
            max_pacing_rate: None,
            traffic_class: 0,
            oob_inline: false,
            send_limit: config.send_buffer.0,
        }
    }
}

/// What happened, for the application: one bit for each [`Event`](crate::stack::Event).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Events(u8);

impl Events {
    pub(crate) const CONNECTED: u8 = 1;
    pub(crate) const URGENT: u8 = 2;
    pub(crate) const READABLE: u8 = 4;
    pub(crate) const WRITABLE: u8 = 8;
    pub(crate) const HUNG_UP: u8 = 16;
    pub(crate) const FAILED: u8 = 32;
    pub(crate) const CLOSED: u8 = 64;

    pub(crate) fn raise(&mut self, event: u8) {
        self.0 |= event;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Takes the lowest bit.
    pub(crate) fn take(&mut self) -> u8 {
        let bit = self.0 & self.0.wrapping_neg();
        self.0 &= !bit;
        bit
    }
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    pub(crate) fn new(
        config: &Config,
        ends: (SocketAddr, SocketAddr),
        (tx, rx): (S, R),
        iss: SeqNumber,
        options: Arc<SocketOptions>,
    ) -> Self {
        let limit = options.receive_buffer.unwrap_or(config.receive_buffer.0);
        let mut sender = Sender::new(config, iss);
        let mut receiver = Receiver::new(limit.min(u32::try_from(rx.capacity()).unwrap_or(u32::MAX)));
        receiver.tune.fixed = options.receive_buffer.is_some();
        sender.max_pacing_rate = options.max_pacing_rate.unwrap_or(u64::MAX);
        if let Some(algorithm) = options.algorithm {
            sender.control.set_algorithm(algorithm.build());
        }
        Self {
            state: State::Closed,
            ends: ends.into(),
            tx,
            rx,
            sender,
            receiver,
            clock: None,
            send_limit: options.send_limit,
            options,
            pending: Pending::Nothing,
            fin_queued: false,
            fin_acked: false,
            read_closed: false,
            orphaned: false,
            error: None,
            soft_error: None,
            events: Events::default(),
            push: Push::new(),
            write_blocked: false,
            path_mss: super::DEFAULT_MSS,
            peer_mss: super::DEFAULT_MSS,
            gso_max: 0,
            cold: Lazy::new(),
            tidy_at: None,
            charged: 0,
            heard_at: Instant::ZERO,
            keepalive_probes: 0,
            sent_since: false,
            asked: false,
            paced: false,
            listener: None,
            path: super::route::CachedPath::default(),
        }
    }

    /// RFC 9293 section 3.10.1, active OPEN.
    pub(crate) fn connect(&mut self, cx: &mut Context<'_>, clock_offset: u32, link_mtu: u32) {
        let config = cx.config;
        self.state = State::SynSent;
        self.receiver.scaled = config.window_scaling;
        self.receiver.wscale = if config.window_scaling { window_shift(config, &self.options) } else { 0 };
        let remote = self.ends.remote().ip();
        self.receiver.advertised_mss = self.options.announced_mss(config, remote, link_mtu);
        self.sender.mss = self.path_mss;
        self.sender.sack = config.sack;
        self.sender.ecn.on = config.ecn == super::ecn::Ecn::Ask;
        if config.timestamps {
            self.clock = Some(Clock { offset: clock_offset, recent: 0, recent_at: cx.now });
        }
        self.sender.nxt = self.sender.iss + 1;
        self.pending = Pending::Syn;
        self.cold.syn_at = cx.now;
        self.heard_at = cx.now;
        self.sender.timer = Timer::Retransmit(cx.now + self.sender.rto(config));
    }

    /// The options of our SYN, or of our answer to one.
    pub(crate) fn syn_options(&self, now: Instant) -> Options {
        Options {
            mss: Some(self.receiver.advertised_mss),
            window_scale: self.receiver.scaled.then_some(self.receiver.wscale),
            sack_permitted: self.sender.sack,
            timestamps: self.clock.map(|clock| clock.stamps(now)),
            ..Options::default()
        }
    }

    /// What the other end's SYN says about it.
    pub(crate) fn take_syn_options(&mut self, config: &Config, now: Instant, options: &Options) {
        match options.window_scale {
            Some(shift) if self.receiver.scaled => self.sender.wscale = shift,
            _ => {
                self.receiver.scaled = false;
                self.sender.wscale = 0;
                self.receiver.wscale = 0;
            }
        }
        self.sender.sack &= options.sack_permitted;
        match (options.timestamps, &mut self.clock) {
            (Some(stamps), Some(clock)) => {
                clock.recent = stamps.value;
                clock.recent_at = now;
                self.receiver.last_contiguous = (self.receiver.nxt, stamps.value);
            }
            _ => self.clock = None,
        }
        // RFC 9293 section 3.7.1 (MUST-15): 536 when nothing is said, or 1220 for IPv6.
        let default =
            if self.ends.remote().ip().is_ipv4() { super::DEFAULT_MSS } else { super::DEFAULT_MSS_V6 };
        self.peer_mss = options.mss.unwrap_or(default).max(config.min_mss);
        self.update_mss(config);
        self.receiver.ack.mss = self.sender.mss.min(super::DEFAULT_MSS.max(88));
    }

    /// The first window that the other end gives.
    pub(crate) fn begin_window(&mut self, config: &Config, window: u32) {
        self.sender.wnd = window;
        self.sender.max_wnd = window;
        self.update_mss(config);
    }

    /// The size of segments follows from what the path and the other end take, less the options of each segment
    /// (RFC 6691).
    pub(crate) fn update_mss(&mut self, config: &Config) {
        let mut mss = self.path_mss.min(self.peer_mss);
        if let Some(max) = self.options.max_segment {
            mss = mss.min(max);
        }
        // The window of a tiny receiver is filled by two segments rather than one (Linux's `tcp_bound_to_half_wnd`).
        let half = self.sender.max_wnd / 2;
        if self.sender.max_wnd > u32::from(super::DEFAULT_MSS) && u32::from(mss) > half {
            mss = mss.min(u16::try_from(half).unwrap_or(u16::MAX).max(68));
        }
        if self.clock.is_some() {
            mss = mss.saturating_sub(12);
        }
        self.sender.mss = mss.max(config.min_mss.saturating_sub(12)).max(8);
    }

    /// What fits into a segment now, beside the SACK blocks that it must carry.
    pub(crate) fn current_mss(&self) -> u32 {
        let blocks = match self.receiver.block_count() {
            0 => 0,
            count if self.sender.sack => 4 + 8 * count.min(self.max_blocks()),
            _ => 0,
        };
        u32::from(self.sender.mss).saturating_sub(blocks as u32).max(8)
    }

    pub(crate) fn max_blocks(&self) -> usize {
        if self.clock.is_some() { 3 } else { 4 }
    }

    /// The handshake is over.
    pub(crate) fn establish(&mut self, cx: &mut Context<'_>) {
        self.state = State::Established;
        let next_answer = self.cold.next_answer;
        self.cold.give_back();
        if next_answer > cx.now {
            self.cold.next_answer = next_answer; // the limit is for all of the connection
        }
        self.sender.retransmits = 0;
        self.sender.backoff = 0;
        self.sender.timer = Timer::Idle;
        self.sender.small = self.sender.una;
        self.sender.recovery.high_seq = self.sender.una;
        self.sender.recovery.forget_retransmission();
        self.receiver.ack.received_at = cx.now;
        // The other end's segments are guessed to be like ours, until some have come (Linux's `tcp_initialize_rcv_mss`).
        self.receiver.ack.mss = super::DEFAULT_MSS.min(self.sender.mss).max(88);
        self.pending = Pending::Nothing;
        self.sender.control.begin(cx.now);
        self.sender.update_pacing();
        self.start_keepalive(cx);
        self.events.raise(Events::CONNECTED | Events::WRITABLE);
    }

    pub(crate) fn start_keepalive(&mut self, cx: &Context<'_>) {
        let on = self.options.keepalive && self.state.is_synchronized();
        let time = self.options.keepalive_time.unwrap_or(cx.config.keepalive_time);
        let at = on.then(|| self.heard_at.max(cx.now - time) + time);
        if at != self.cold.keepalive_at {
            self.cold.keepalive_at = at;
        }
    }

    /// Behind the data that the application has written.
    pub(crate) fn data_end(&self) -> SeqNumber {
        if self.fin_acked { self.sender.una - 1 } else { self.sender.una + self.tx.len() as u32 }
    }

    /// Bytes that were never sent.
    pub(crate) fn unsent(&self) -> u32 {
        self.data_end().saturating_since(self.sender.nxt)
    }

    /// Whether the FIN is still to be sent for the first time.
    pub(crate) fn fin_unsent(&self) -> bool {
        self.fin_queued && !self.fin_acked && self.sender.nxt.at_or_before(self.data_end())
    }

    /// The window is open: the next time that it closes is another one.
    pub(crate) fn forget_probes(&mut self) {
        if self.cold.probed_since.is_some() {
            self.cold.probed_since = None;
        }
    }

    /// Room that the other end must have for the next segment: its first number at least.
    pub(crate) fn needed_room(&self) -> u32 {
        match self.unsent() {
            0 => self.fin_unsent().into(),
            unsent => unsent.min(self.current_mss()),
        }
    }

    /// Changes options, and what follows from them.
    pub(crate) fn change_options(&mut self, cx: &mut Context<'_>, change: impl FnOnce(&mut SocketOptions)) {
        let before = self.options.clone();
        change(Arc::make_mut(&mut self.options));
        if self.options.algorithm != before.algorithm
            && let Some(algorithm) = self.options.algorithm
        {
            self.sender.control.set_algorithm(algorithm.build());
        }
        if self.options.receive_buffer != before.receive_buffer
            && let Some(limit) = self.options.receive_buffer
        {
            self.receiver.limit = limit.min(u32::try_from(self.rx.capacity()).unwrap_or(u32::MAX));
            self.receiver.tune.fixed = true;
        }
        if self.options.max_pacing_rate != before.max_pacing_rate {
            self.sender.max_pacing_rate = self.options.max_pacing_rate.unwrap_or(u64::MAX);
            self.sender.update_pacing();
        }
        if self.options.max_segment != before.max_segment {
            self.update_mss(cx.config);
        }
        if before.cork && !self.options.cork {
            self.push.more = false;
            self.asked = true;
        }
        self.start_keepalive(cx);
    }

    /// The connection is over.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.sender.timer = Timer::Idle;
        self.sender.give_back();
        self.receiver.forget_out_of_order();
        self.receiver.ack.deadline = None;
        self.receiver.ack.now = false;
        self.receiver.ack.duplicates = 0;
        let mark = self.cold.mark;
        self.cold.give_back();
        if mark.is_some() {
            self.cold.mark = mark; // what has arrived can still be read
        }
        self.path.give_back();
        self.tidy_at = None;
        self.pending = Pending::Nothing;
        if let Some(error) = error {
            self.error = Some(error);
            self.events.raise(Events::FAILED);
        }
        self.events.raise(Events::READABLE | Events::HUNG_UP | Events::CLOSED);
    }

    /// When something is to be done next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let paced = self.paced.then(|| self.sender.pacer.next_send());
        let (timer, ack) = (self.sender.timer.deadline(), self.receiver.ack.deadline);
        let ColdState { keepalive_at, linger_at, .. } = *self.cold;
        let mut first = Instant::MAX;
        for at in [timer, ack, keepalive_at, linger_at, self.tidy_at, paced] {
            first = first.min(at.unwrap_or(Instant::MAX));
        }
        (first < Instant::MAX).then_some(first)
    }
}

/// By how much the window must be shifted so that the largest buffer can be advertised (RFC 7323 section 2.3): the one that
/// was set, or else the largest that autotuning makes.
pub(crate) fn window_shift(config: &Config, options: &SocketOptions) -> u8 {
    let space = options.receive_buffer.unwrap_or(config.receive_buffer.1);
    let mut shift = 0;
    while space >> shift > u32::from(u16::MAX) && shift < 14 {
        shift += 1;
    }
    shift
}
