//! A segment arrives (RFC 9293 section 3.10.7).

mod data;
mod handshake;
mod predicted;

use super::conn::{Connection, Events};
use super::context::{Context, Reply, bare, may_answer_invalid};
use super::sender::{Acknowledgement, Timer};
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::seq::SeqNumber;
use crate::wire::tcp::{Flags, Header};

/// By how much a stamp may be behind TS.Recent: segments of one moment may have been stamped in another order than they
/// were sent (Linux's TCP_PAWS_WINDOW).
const PAWS_SLACK: u32 = 1;

/// A segment, or several that a link put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    /// The size of each of several; 0 for one.
    pub(crate) gso_size: u16,
    /// The IP header's two bits of ECN.
    pub(crate) ecn: u8,
}

impl Segment<'_> {
    /// Its length in sequence numbers.
    pub(crate) fn len(&self) -> u32 {
        let flags = self.header.flags;
        self.payload.len() as u32
            + u32::from(flags.contains(Flags::SYN))
            + u32::from(flags.contains(Flags::FIN))
    }

    pub(crate) fn end(&self) -> SeqNumber {
        self.header.seq + self.len()
    }

    /// How many segments the other end sent.
    pub(crate) fn count(&self) -> u32 {
        match self.gso_size {
            0 => 1,
            size => (self.payload.len() as u32).div_ceil(u32::from(size)).max(1),
        }
    }
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Processes a segment of this connection.
    pub(crate) fn handle(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        self.receiver.segments_in = self.receiver.segments_in.wrapping_add(segment.count());
        match self.state {
            State::Closed | State::Listen | State::TimeWait => {}
            State::SynSent => self.handle_syn_sent(cx, segment),
            _ => {
                if !self.take_expected(cx, segment) && self.validate(cx, segment) {
                    self.handle_valid(cx, segment);
                }
            }
        }
    }

    /// RFC 9293 section 3.10.7.4, first to fourth step, with RFC 7323 section 5.3 and RFC 5961 before them.
    fn validate(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> bool {
        let header = segment.header;
        if !header.flags.intersects(Flags::ACK | Flags::RST | Flags::SYN) {
            return false; // section 3.10.7.4, fifth step; Linux looks at this first, so that nothing answers it
        }
        let reset = header.flags.contains(Flags::RST);
        if let (Some(clock), Some(stamps)) = (&self.clock, header.options.timestamps)
            && clock.is_old(cx.now, stamps.value)
            && clock.recent.wrapping_sub(stamps.value) > PAWS_SLACK
            && !(segment.len() > 0 && self.receiver.is_late(stamps.value))
            && !self.is_disordered_ack(cx, segment)
            && !reset
        {
            if segment.len() == 0 && header.flags.contains(Flags::ACK) && header.seq.before(self.receiver.nxt)
            {
                return false; // an acknowledgement from before, which many networks bring: no reason to answer
            }
            cx.counters.paws_estab_rejected += 1;
            if !header.flags.contains(Flags::SYN) {
                self.answer_invalid(cx, segment);
                return false;
            }
        }
        if !self.receiver.is_acceptable(header.seq, segment.end()) {
            if reset {
                // The other end may have seen our FIN and reset from before its own.
                if self.is_reset_behind(header.seq) {
                    self.on_reset(cx);
                }
                return false;
            }
            if header.flags.contains(Flags::SYN) {
                return self.challenge_syn(cx, segment);
            }
            self.answer_invalid(cx, segment);
            return false;
        }
        if reset {
            // RFC 5961 section 3.2, and Linux's addition: behind the last block that we reported is right as well,
            // because that is what the other end's SND.NXT can look like to it.
            let behind_blocks = self.sender.sack && self.receiver.last_reported() == Some(header.seq);
            if header.seq == self.receiver.nxt || behind_blocks || self.is_reset_behind(header.seq) {
                self.on_reset(cx);
            } else {
                self.challenge(cx);
            }
            return false;
        }
        if header.flags.contains(Flags::SYN) {
            return self.challenge_syn(cx, segment);
        }
        if !header.flags.contains(Flags::ACK) {
            return false;
        }
        true
    }

    /// A SYN in a synchronised state: RFC 5961 section 4.2.
    fn challenge_syn(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> bool {
        let header = segment.header;
        // Simultaneous open: the answer to our SYN is a SYN itself, with the other end's number of before.
        let simultaneous = self.state == State::SynReceived
            && header.flags.contains(Flags::ACK)
            && segment.len() == 1
            && header.seq + 1 == self.receiver.nxt
            && header.ack == self.sender.nxt;
        if simultaneous {
            return true;
        }
        cx.counters.tcp_syn_challenge += 1;
        self.challenge(cx);
        false
    }

    /// RFC 5961 section 3.2's case of a reset from before the other end's FIN (Linux's `tcp_reset_check`).
    fn is_reset_behind(&self, seq: SeqNumber) -> bool {
        seq + 1 == self.receiver.nxt
            && matches!(self.state, State::CloseWait | State::LastAck | State::Closing)
    }

    /// A pure acknowledgement that was overtaken by another says nothing wrong (Linux's `tcp_disordered_ack`).
    fn is_disordered_ack(&self, cx: &Context<'_>, segment: &Segment<'_>) -> bool {
        let (Some(clock), Some(stamps)) = (&self.clock, segment.header.options.timestamps) else {
            return false;
        };
        let header = segment.header;
        // RFC 7323 has clocks between 1 ms and 1 s; some tick 1,200 times a second.
        let replay = self.sender.rto(cx.config).as_millis() * 12 / 10;
        segment.len() == 0
            && header.seq == self.receiver.nxt
            && header.ack == self.sender.una
            && !self.may_update_window(header)
            && u128::from(clock.recent.wrapping_sub(stamps.value)) <= replay
    }

    /// RFC 9293 section 3.10.7.4: a segment out of window is acknowledged, so that both ends agree again. Limited, so
    /// that two ends which disagree do not answer each other for ever.
    fn answer_invalid(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let header = segment.header;
        // What takes up numbers is no acknowledgement, so that no loop comes of it (Linux's `tcp_oow_rate_limited`).
        if segment.len() > 0 {
            if header.seq.before(self.receiver.nxt) {
                self.receiver.ack.enter_quick(self.receiver.window());
                let end = segment.end().earlier(self.receiver.nxt);
                self.receiver.note_duplicate(cx.config, Some((header.seq, end)));
            }
            self.receiver.ack.now = true;
            return;
        }
        if may_answer_invalid(&mut self.cold.next_answer, cx.config.invalid_ratelimit, cx.now) {
            self.receiver.ack.now = true;
        }
    }

    /// RFC 5961: asks the other end to show that it knows our numbers. Limited for each connection (section 7); a count that
    /// connections share would tell one of them what happens to others (CVE-2016-5696).
    fn challenge(&mut self, cx: &mut Context<'_>) {
        if may_answer_invalid(&mut self.cold.next_answer, cx.config.invalid_ratelimit, cx.now) {
            cx.counters.tcp_challenge_ack += 1;
            self.receiver.ack.now = true;
        }
    }

    fn on_reset(&mut self, cx: &mut Context<'_>) {
        cx.counters.estab_resets += 1;
        let error = match self.state {
            State::SynSent => Error::ConnectionRefused,
            State::CloseWait => Error::BrokenPipe,
            _ => Error::ConnectionReset,
        };
        self.end(Some(error));
    }

    /// Sends a reset with the numbers that the other end expects, and ends.
    pub(crate) fn reset(&mut self, cx: &mut Context<'_>, error: Option<Error>) {
        if self.state.is_synchronized() || self.state == State::SynReceived {
            cx.counters.out_rsts += 1;
            let header = self.header(cx, self.sender.nxt, Flags::RST | Flags::ACK);
            cx.replies.push(Reply {
                local: self.ends.local().into(),
                remote: self.ends.remote().into(),
                header,
            });
        }
        self.end(error);
    }

    /// Fifth step and the following.
    fn handle_valid(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let header = segment.header;
        if self.state == State::SynReceived && !self.finish_handshake(cx, segment) {
            return;
        }
        if header.ack.after(self.sender.nxt) {
            return self.challenge(cx); // RFC 5961 section 5.2
        }
        if !self.check_ack(cx, header) {
            return;
        }
        self.hear(cx);
        let predicted = self.is_predicted(header);
        let says_nothing = predicted && !segment.payload.is_empty() && header.ack == self.sender.una;
        self.asked |= !says_nothing;
        if says_nothing {
            self.take_stamp(cx, header);
            self.update_window(cx, header);
            self.sender.wl1 = header.seq;
        } else if header.ack.at_or_after(self.sender.una) {
            // Of one that was overtaken the stamp is old as well.
            self.take_stamp(cx, header);
            self.take_ack(cx, segment);
        } else if self.sender.sack && !header.options.sack.is_empty() {
            // An old acknowledgement may still tell of blocks.
            self.take_ack(cx, segment);
        }
        if self.state == State::Closed {
            return;
        }
        self.take_urgent(segment);
        self.take_data(cx, segment, predicted);
    }

    /// The other end is there.
    #[inline]
    fn hear(&mut self, cx: &Context<'_>) {
        self.heard_at = cx.now;
        self.push.more = false;
        self.keepalive_probes = 0;
    }

    /// RFC 7323 section 4.3.
    #[inline]
    pub(super) fn take_stamp(&mut self, cx: &Context<'_>, header: &Header) {
        if let (Some(clock), Some(stamps)) = (&mut self.clock, header.options.timestamps)
            && header.seq.at_or_before(self.receiver.wup)
            && clock.update(cx.now, stamps.value)
            && self.receiver.out_of_order().is_empty()
        {
            self.receiver.last_contiguous = (self.receiver.nxt, stamps.value);
        }
    }

    /// RFC 5961 section 5.2: an acknowledgement that is much too old.
    fn check_ack(&mut self, cx: &mut Context<'_>, header: &Header) -> bool {
        // Nothing from before the first byte is one of ours.
        let acked = u32::try_from(self.sender.counters.bytes_acked).unwrap_or(u32::MAX);
        let oldest = self.sender.una - self.sender.max_wnd.min(acked).min(1 << 30);
        if header.ack.before(oldest) {
            self.challenge(cx);
            return false;
        }
        true
    }

    fn take_ack(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let header = segment.header;
        // The other end's window may be small now, so the answer must not wait (Linux's `tcp_ecn_accept_cwr`).
        self.receiver.ack.now |= self.sender.ecn.take_reduction(header.flags) && segment.len() > 0;
        let window_changed = header.ack.at_or_after(self.sender.una) && self.update_window(cx, header);
        let acknowledgement = Acknowledgement {
            now: cx.now,
            ack: header.ack,
            sack: header.options.sack,
            carries_more: window_changed || !segment.payload.is_empty() || header.flags.contains(Flags::FIN),
            echoed: match (&self.clock, header.options.timestamps) {
                (Some(clock), Some(stamps)) => clock.echo(cx.now, stamps.echo),
                _ => None,
            },
            marked: self.sender.ecn.on
                && header.flags.contains(Flags::ECE)
                && !header.flags.contains(Flags::SYN),
            segments: segment.count(),
        };
        let acked = self.sender.on_ack(cx.config, &acknowledgement);
        self.after_ack(cx, acked);
    }

    /// What follows from so many sequence numbers being acknowledged.
    fn after_ack(&mut self, cx: &mut Context<'_>, acked: u32) {
        if self.is_urgent() {
            self.end_urgent_mode();
        }
        let data = (acked as usize).min(self.tx.len());
        if data > 0 {
            self.tx.release(data);
            self.soft_error = None;
            self.grow_send_buffer(cx);
        }
        if acked as usize > data {
            self.fin_acked = true;
            self.on_fin_acked(cx);
        }
        if self.sender.packets_out() == 0 && matches!(self.sender.timer, Timer::ZeroWindow(_)) {
            if self.needed_room() <= self.sender.window_end().saturating_since(self.sender.nxt) {
                self.sender.timer = Timer::Idle;
                self.sender.probe_backoff = 0;
                self.forget_probes();
            } else {
                // The window is still closed, but the other end is there.
                self.sender.timer = Timer::ZeroWindow(cx.now + self.sender.probe_wait(cx.config));
            }
        }
    }

    /// RFC 9293 section 3.10.7.4, fifth step: SND.WND, and which segment may change it. Returns whether this one does, if
    /// only to what it was: then it is no duplicate, as in Linux (`tcp_may_update_window`).
    fn update_window(&mut self, cx: &Context<'_>, header: &Header) -> bool {
        if !self.may_update_window(header) {
            return false;
        }
        let window = u32::from(header.window) << self.sender.wscale;
        let sender = &mut self.sender;
        sender.wl1 = header.seq;
        let changed = sender.wnd != window;
        sender.wnd = window;
        if window > sender.max_wnd {
            sender.max_wnd = window;
            self.update_mss(cx.config);
        }
        if changed && self.unsent() > 0 {
            self.restart(cx);
        }
        true
    }

    fn may_update_window(&self, header: &Header) -> bool {
        let sender = &self.sender;
        let window = u32::from(header.window) << sender.wscale;
        header.ack.after(sender.una)
            || header.seq.after(sender.wl1)
            || (header.seq == sender.wl1 && (window > sender.wnd || window == 0))
    }

    fn grow_send_buffer(&mut self, cx: &Context<'_>) {
        if self.options.send_buffer.is_none() && !cx.resources.is_pressed() {
            let (cwnd, mss) = (self.sender.control.cwnd(), self.sender.mss);
            self.send_limit = super::tune::send_limit(cx.config, self.send_limit, cwnd, mss);
        }
        self.wake_writer(cx);
    }

    /// Tells the application that there is room, if it wants to know. Returns whether it does.
    pub(crate) fn wake_writer(&mut self, cx: &Context<'_>) -> bool {
        let wakes = self.write_blocked && self.is_writable(cx);
        if wakes {
            self.write_blocked = false;
            self.events.raise(Events::WRITABLE);
        }
        wakes
    }

    /// A third of the buffer is free (Linux's `sk_stream_is_writeable`), and not too much is unsent.
    pub(crate) fn is_writable(&self, cx: &Context<'_>) -> bool {
        let held = self.tx.len() as u64;
        let low_water = self.options.unsent_low_water.unwrap_or(cx.config.unsent_low_water);
        held * 3 <= self.affordable(cx) as u64 * 2 && self.unsent() < low_water
    }

    pub(crate) fn send_capacity(&self) -> u32 {
        let limit = self.options.send_buffer.unwrap_or(self.send_limit);
        limit.min(u32::try_from(self.tx.capacity()).unwrap_or(u32::MAX))
    }

    fn on_fin_acked(&mut self, cx: &mut Context<'_>) {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                if self.orphaned && !self.linger(cx) {
                    let (local, remote) = (self.ends.local().into(), self.ends.remote().into());
                    let header = bare(local, remote, self.sender.nxt, SeqNumber::new(0), Flags::RST);
                    cx.counters.out_rsts += 1;
                    cx.replies.push(Reply { local, remote, header });
                    self.end(None);
                }
            }
            State::Closing => self.state = State::TimeWait,
            State::LastAck => self.end(None),
            _ => {}
        }
    }
}
