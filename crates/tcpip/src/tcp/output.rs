//! What leaves now (RFC 9293 section 3.8.6, RFC 5681, RFC 8985).

use super::chrono::Waiting;
use super::config::Config;
use super::congestion::Transmitted;
use super::conn::{Connection, Pending};
use super::context::Context;
use super::ecn;
use super::pacing::Pacer;
use super::sender::Timer;
use super::sender::recovery::TailProbe;
use super::state::{CongestionState, State};
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::seq::SeqNumber;
use crate::time::Micros;
use crate::wire::tcp::{Flags, Header, Options};

/// A segment, or a super-segment, that is to leave. [`Connection::header`] is the rest of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    pub(crate) seq: SeqNumber,
    pub(crate) flags: Flags,
    /// Its data, in the send buffer.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    /// The size of each segment of a super-segment; 0 for one segment.
    pub(crate) gso_size: u16,
    /// The IP header's two bits of ECN.
    pub(crate) ecn: u8,
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// What leaves next, if anything: handshake, probes, what is lost, new data, acknowledgements, in that order.
    pub(crate) fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        self.paced = false;
        let outgoing = match self.state {
            State::Closed | State::Listen | State::TimeWait => None,
            State::SynSent => self.transmit_syn(cx),
            State::SynReceived => self.transmit_syn(cx).or_else(|| self.transmit_ack()),
            _ => self
                .transmit_probe(cx)
                .or_else(|| self.transmit_instead_of_lost(cx))
                .or_else(|| self.transmit_lost(cx))
                .or_else(|| self.transmit_new(cx))
                .or_else(|| self.transmit_ack()),
        };
        match &outgoing {
            Some(outgoing) => {
                cx.counters.out_segs += outgoing.segments();
                let segments = outgoing.segments() as u32;
                self.sender.counters.segments_out = self.sender.counters.segments_out.wrapping_add(segments);
            }
            None => self.run_dry(cx),
        }
        outgoing
    }

    fn transmit_syn(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if core::mem::replace(&mut self.pending, Pending::Nothing) != Pending::Syn {
            return None;
        }
        let answer = self.state == State::SynReceived;
        let mut flags = if answer { Flags::SYN | Flags::ACK } else { Flags::SYN };
        // A SYN that comes again asks no more: a box on the way may have taken offence (RFC 3168 section 6.1.1.1).
        if self.sender.ecn.on && self.sender.retransmits == 0 {
            flags |= if answer { ecn::ACCEPT } else { ecn::ASK };
        }
        if self.sender.retransmits == 0 {
            self.cold.syn_at = cx.now;
        }
        Some(Outgoing { seq: self.sender.iss, flags, offset: 0, len: 0, gso_size: 0, ecn: 0 })
    }

    fn transmit_probe(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        match core::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing | Pending::Syn => None,
            Pending::Keepalive => Some(self.empty_probe()),
            Pending::WindowProbe => {
                cx.counters.tcp_win_probe += 1;
                self.wake_up(cx)
            }
            Pending::TailProbe => self.tail_probe(cx),
        }
    }

    /// RFC 9293 section 3.8.6.1: as much as the window takes, or nothing at all, with a number from before the window, so
    /// that the other end must answer. (RFC 9293 sends a byte; Linux does not spoil the stream with one.)
    fn wake_up(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        let room = self.sender.window_end().saturating_since(self.sender.nxt);
        let unsent = self.unsent();
        if room > 0 && (unsent > 0 || self.fin_unsent()) {
            self.forget_probes();
            let record = self.push.record_end().map_or(unsent, |end| end.since(self.sender.nxt).min(unsent));
            let len = record.min(room).min(self.current_mss());
            let fin = self.fin_unsent() && len == unsent && room > len;
            // What is in flight now has the time-out of any other data, and no tail probe (Linux's `tcp_send_probe0`).
            self.sender.probe_backoff = 0;
            let mut outgoing = self.send_new(cx, len, 0, fin);
            self.sent_since = false; // a probe tells nothing of the congestion window
            self.sender.timer = Timer::Retransmit(cx.now + self.sender.rto(cx.config));
            if len > 0 {
                // Linux wants the application over there to make room.
                outgoing.flags |= Flags::PSH;
                self.sender.scoreboard.end_burst(true);
            }
            return Some(outgoing);
        }
        if self.may_probe_urgently() {
            // A number that is acceptable, so that the pointer counts; the probe that must be answered comes next.
            self.pending = Pending::Keepalive;
            return Some(Outgoing::empty(self.sender.una));
        }
        Some(self.empty_probe())
    }

    fn empty_probe(&self) -> Outgoing {
        Outgoing::empty(self.sender.una - 1)
    }

    /// RFC 8985 section 7.3: new data if there is some, else the last segment again.
    fn tail_probe(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        // One at a time: what the timer is set to is what is left of the time-out.
        if self.sender.packets_out() == 0 || self.sender.recovery.losses.tail_probe.is_some() {
            return None;
        }
        let mss = self.current_mss();
        let room = self.sender.window_end().saturating_since(self.sender.nxt);
        let unsent = self.unsent();
        let len = unsent.min(mss);
        let fin_alone = unsent == 0 && self.fin_unsent() && room > 0;
        let outgoing = if (len > 0 && len <= room) || fin_alone {
            let fin = fin_alone || (self.fin_unsent() && len == unsent && room > len);
            let outgoing = self.send_new(cx, len, 0, fin);
            self.sender.recovery.losses.tail_probe =
                Some(TailProbe { end: self.sender.nxt, retransmission: false });
            outgoing
        } else {
            let index = self.sender.scoreboard.last_index()?;
            if self.is_beyond_window(index) {
                return None;
            }
            let outgoing = self.send_again(cx, index, 1, true);
            self.sender.recovery.losses.tail_probe =
                Some(TailProbe { end: self.sender.nxt, retransmission: true });
            outgoing
        };
        cx.counters.tcp_loss_probes += 1;
        self.sender.timer = Timer::Retransmit(cx.now + self.sender.rto(cx.config));
        Some(outgoing)
    }

    /// RFC 5682 section 2.1 step 2b: after a time-out that may be spurious, new data goes first. If there is none, or no
    /// room for it, it cannot be found out, and the time-out counts.
    fn transmit_instead_of_lost(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if !self.sender.recovery.losses.prefer_new {
            return None;
        }
        // Nothing holds it back, as in Linux: it has to be found out.
        let at_once = core::mem::replace(&mut self.push.at_once, true);
        let outgoing = self.transmit_new(cx);
        self.push.at_once = at_once;
        let sent = self.sender.nxt.after(self.sender.recovery.high_seq);
        if outgoing.is_none() && !sent && !self.paced {
            self.sender.recovery.losses.prefer_new = false;
            self.sender.recovery.losses.frto = false;
        }
        outgoing
    }

    /// What is lost is sent again before anything new (RFC 6675 section 5, step C).
    fn transmit_lost(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        let sender = &mut self.sender;
        let losses = &sender.recovery.losses;
        if sender.recovery.state < CongestionState::Recovery || losses.prefer_new || losses.held {
            return None;
        }
        let index = sender.scoreboard.next_waiting()?;
        let quota = sender.control.cwnd().saturating_sub(sender.in_flight());
        // As many are on their way again as are lost: those that are not lost any more are waited for first, as in Linux.
        let enough =
            sender.scoreboard.retransmitted_out() >= sender.scoreboard.lost_out() && !losses.timed_out;
        if quota == 0 || enough {
            return None;
        }
        if !sender.pacer.may_send(cx.now) {
            self.paced = true;
            return None;
        }
        if self.is_beyond_window(index) {
            return None;
        }
        let most = quota.min(self.burst(cx.config));
        self.sender.recovery.losses.timed_out = false;
        Some(self.send_again(cx, index, most, false))
    }

    /// The other end took its promise back (RFC 9293 section 3.8.6): only the first segment probes that, as in Linux.
    fn is_beyond_window(&self, index: u64) -> bool {
        let sender = &self.sender;
        let start = sender.scoreboard.get(index).map_or(sender.una, |record| record.start);
        start != sender.una && start.at_or_after(sender.window_end())
    }

    /// Segments that may leave in one go.
    fn burst(&self, config: &Config) -> u32 {
        // Each segment has a pointer of its own.
        if self.gso_max == 0 || self.is_urgent() {
            return 1;
        }
        let mss = self.current_mss();
        let (rate, min_rtt) = (self.sender.pacer.rate(), self.sender.min_rtt.get());
        Pacer::burst(rate, mss, self.gso_max.into(), min_rtt, config.min_burst)
    }

    /// RFC 9293 section 3.7.4 (Nagle), 3.8.6.2.1 (silly window avoidance), and the congestion window.
    fn transmit_new(&mut self, cx: &mut Context<'_>) -> Option<Outgoing> {
        if !self.state.can_transmit() || (self.sender.recovery.losses.only_lost && !self.asked) {
            return None;
        }
        let unsent = self.unsent();
        let fin = self.fin_unsent();
        if unsent == 0 && !fin {
            return None;
        }
        let mss = self.current_mss();
        let room = self.sender.window_end().saturating_since(self.sender.nxt);
        let quota = self.sender.control.cwnd().saturating_sub(self.sender.in_flight());
        if quota == 0 {
            return None;
        }
        if unsent == 0 {
            return (room > 0).then(|| self.send_new(cx, 0, 0, true));
        }
        if !self.sender.pacer.may_send(cx.now) {
            self.paced = true;
            return None;
        }
        let burst = if self.sender.ecn.has_news() { 1 } else { self.burst(cx.config) };
        let segments = quota.min(burst).min((self.sender.control.cwnd() / 2).max(1));
        let record = self.push.record_end().map_or(unsent, |end| end.since(self.sender.nxt).min(unsent));
        let full = segments.saturating_mul(mss);
        let (most, tail) = if full <= record { (full, 0) } else { (record, record % mss) };
        // The last piece of a stream that ends here waits for nothing, nor does what nothing can be added to.
        let tail_may_leave = most == record && (tail == 0 || record < unsent || self.may_send_partial(fin));
        let mut len = if tail_may_leave { most } else { most - tail };
        if len > room {
            len = room / mss * mss; // whole segments only: the other end's window is not to be chopped up
        }
        if len == 0 {
            return None;
        }
        let fin = fin && len == unsent && room > len;
        let gso_size = if len > mss { mss as u16 } else { 0 };
        Some(self.send_new(cx, len, gso_size, fin))
    }

    /// Whether a segment that is not full may leave (RFC 9293 section 3.7.4, in Minshall's variant: one small segment in
    /// flight at a time).
    fn may_send_partial(&self, fin: bool) -> bool {
        if fin {
            return true;
        }
        // As in Linux, urgent data waits for nothing either.
        if self.push.at_once || self.is_urgent() {
            return true;
        }
        if self.options.cork || self.push.more {
            return false;
        }
        self.options.nodelay || self.sender.packets_out() == 0 || !self.sender.small.after(self.sender.una)
    }

    /// Sends data for the first time.
    fn send_new(&mut self, cx: &Context<'_>, len: u32, gso_size: u16, fin: bool) -> Outgoing {
        let start = self.sender.nxt;
        let data_end = start + len;
        let size = if gso_size > 0 { u32::from(gso_size) } else { len.max(1) };
        let offset = start.since(self.sender.una);
        let was_empty = self.sender.packets_out() == 0;
        let stamp = self.sender.rate.on_sent(cx.now, self.sender.packets_out());
        let scoreboard = &mut *self.sender.scoreboard;
        let mut at = start;
        while at.before(data_end) || (fin && at == data_end && len == 0) {
            let mut end = (at + size).earlier(data_end);
            if fin && end == data_end {
                end += 1;
            }
            scoreboard.push(at, end, cx.now, stamp);
            at = end;
            if at.after(data_end) {
                break;
            }
        }
        self.sender.nxt = at;
        let mss = self.current_mss();
        if len != mss && !len.is_multiple_of(mss) {
            self.sender.small = self.sender.nxt;
        }
        let segments = if len <= size { 1 } else { len.div_ceil(size) };
        self.sent_since = true;
        self.sent(cx, len, segments);
        self.sender.control.on_sent(segments);
        if was_empty || !matches!(self.sender.timer, Timer::Retransmit(_) | Timer::Reorder(_)) {
            self.sender.arm(cx.config, cx.now, was_empty);
        } else if let Some(at) = self.sender.tail_probe_deadline(cx.config, cx.now, false) {
            // Linux schedules a probe with all that is new, also in place of the reordering timer: the next
            // acknowledgement looks for losses anyway.
            self.sender.timer = Timer::TailLoss(at);
        }
        let mut flags = Flags::ACK;
        if fin {
            flags |= Flags::FIN;
        }
        let record = self.push.record_end() == Some(data_end);
        self.push.sent(data_end);
        // RFC 9293 section 3.9.1.2 (MUST-60): PSH on what empties the buffer.
        let pushed = len > 0 && (record || (self.unsent() == 0 && self.push.at_end));
        self.sender.scoreboard.end_burst(pushed);
        // Linux sets it on every super-segment, so that the other end does not wait for more to put together.
        if pushed || segments > 1 {
            flags |= Flags::PSH;
        }
        // RFC 3168 section 6.1.5 and 6.1.4: new data only, no retransmissions and no bare acknowledgements.
        let capable = self.sender.ecn.on && len > 0;
        if capable {
            flags |= self.sender.ecn.data_flags();
        }
        let ecn = if capable { ecn::CAPABLE } else { ecn::NOT_CAPABLE };
        Outgoing { seq: start, flags, offset, len, gso_size, ecn }
    }

    /// Sends up to `most` segments again, from `index` on; or one, as a probe of the tail.
    fn send_again(&mut self, cx: &mut Context<'_>, index: u64, most: u32, probe: bool) -> Outgoing {
        let mss = self.current_mss();
        if self
            .sender
            .scoreboard
            .get(index)
            .is_some_and(|record| record.end.since(record.start) > u32::from(self.sender.mss) + 1)
        {
            self.sender.scoreboard.split(u32::from(self.sender.mss)); // the path became narrower
        }
        let indices = if most > 1 { self.sender.scoreboard.run(index, most, mss) } else { index..index + 1 };
        let indices = if indices.is_empty() { index..index + 1 } else { indices };
        let data_end = self.data_end();
        let start = self.sender.scoreboard.get(index).map_or(self.sender.una, |record| record.start);
        let mut end = start;
        let mut segments = 0;
        let mut pushed = false;
        for index in indices {
            let Some(record) = self.sender.scoreboard.get(index) else { break };
            // Several go together only as far as the window reaches (Linux's `tcp_retransmit_skb`).
            if segments > 0 && record.end.after(self.sender.window_end()) {
                break;
            }
            end = record.end;
            pushed = record.is_pushed();
            segments += 1;
            let stamp = self.sender.rate.on_sent(cx.now, self.sender.packets_out());
            if probe {
                self.sender.scoreboard.probed(index, cx.now, stamp);
            } else {
                self.sender.scoreboard.retransmitted(index, cx.now, stamp);
            }
        }
        // Linux cuts its buffers where a part is sent again.
        self.sender.scoreboard.cut_before(start);
        self.sender.scoreboard.cut_before(end);
        let fin = end.after(data_end);
        let len = end.earlier(data_end).since(start);
        if !probe {
            self.sender.note_retransmission(cx.now, segments);
        }
        self.sender.recovery.losses.total_retransmits =
            self.sender.recovery.losses.total_retransmits.wrapping_add(segments);
        self.sender.recovery.losses.bytes_retransmitted += u64::from(len);
        cx.counters.retrans_segs += u64::from(segments);
        self.sent(cx, len, segments);
        if !probe {
            self.sender.control.on_sent(segments);
        }
        if index == self.sender.scoreboard.first_index() && !matches!(self.sender.timer, Timer::Reorder(_)) {
            self.sender.timer = Timer::Retransmit(cx.now + self.sender.rto(cx.config));
        }
        let mut flags = Flags::ACK;
        if fin {
            flags |= Flags::FIN;
        }
        if pushed || segments > 1 {
            flags |= Flags::PSH;
        }
        let offset = start.since(self.sender.una);
        let gso_size = if segments > 1 { mss as u16 } else { 0 };
        Outgoing { seq: start, flags, offset, len, gso_size, ecn: 0 }
    }

    fn sent(&mut self, cx: &Context<'_>, len: u32, segments: u32) {
        self.tidy_later(cx);
        let sender = &mut self.sender;
        if len > 0 {
            sender.sent_at = cx.now;
        }
        sender.counters.bytes_sent += u64::from(len);
        sender.counters.data_segments_out = sender.counters.data_segments_out.wrapping_add(segments);
        // SO_MAX_PACING_RATE switches pacing on, in Linux as well.
        if cx.config.pacing || sender.max_pacing_rate != u64::MAX {
            sender.pacer.on_sent(cx.now, len, segments);
        }
        // An answer: the other end's next acknowledgement may come with data (Linux's pingpong mode).
        if len > 0 && Micros::between(self.receiver.ack.received_at, cx.now) < self.receiver.ack.delay {
            self.receiver.ack.interactive = true;
        }
    }

    fn transmit_ack(&self) -> Option<Outgoing> {
        if !self.receiver.ack.now && self.receiver.ack.duplicates == 0 {
            return None;
        }
        // The other end shrank its window, by more than what its scale rounds (Linux's `tcp_acceptable_seq`).
        let (end, nxt) = (self.sender.window_end(), self.sender.nxt);
        let rounded = self.receiver.scaled && nxt.saturating_since(end) < 1 << self.receiver.wscale;
        let seq = if end.before(nxt) && !rounded { end } else { nxt };
        Some(Outgoing::empty(seq))
    }

    /// The header of a SYN.
    #[cold]
    fn syn_header(&mut self, cx: &Context<'_>, flags: Flags) -> Header {
        // A window in a SYN is not scaled (RFC 7323 section 2.2).
        let window = self.receiver.choose_window(0, self.rx.capacity(), false).min(u32::from(u16::MAX));
        // Whole segments, as Linux announces.
        let mss = u32::from(self.receiver.advertised_mss).max(1);
        let window = if window > mss { window / mss * mss } else { window };
        self.receiver.advertised(window);
        let (src_port, dst_port) = self.ends.ports();
        Header {
            src_port,
            dst_port,
            seq: self.sender.iss,
            ack: if flags.contains(Flags::ACK) { self.receiver.nxt } else { SeqNumber::new(0) },
            flags,
            window: window as u16,
            urgent: 0,
            options: self.syn_options(cx.now),
        }
    }

    /// The header of what is to leave next, with acknowledgement, window and options; the acknowledgement counts as sent.
    #[inline]
    pub(crate) fn header(&mut self, cx: &Context<'_>, seq: SeqNumber, flags: Flags) -> Header {
        if flags.contains(Flags::SYN) {
            return self.syn_header(cx, flags);
        }
        let pressed = cx.resources.is_pressed();
        let window = self.receiver.choose_window(self.rx.readable(), self.rx.capacity(), pressed);
        let window = window.min(u32::from(u16::MAX) << self.receiver.wscale);
        self.receiver.advertised(window);
        self.receiver.ack.on_sent();
        let mut options =
            Options { timestamps: self.clock.map(|clock| clock.stamps(cx.now)), ..Options::default() };
        if self.sender.sack && self.receiver.block_count() > 0 {
            options.sack = self.receiver.take_blocks(self.max_blocks());
        }
        let mut flags = flags | self.sender.ecn.echo_flags();
        let urgent = self.urgent_pointer(seq);
        if urgent.is_some() {
            flags |= Flags::URG;
        }
        let (src_port, dst_port) = self.ends.ports();
        Header {
            src_port,
            dst_port,
            seq,
            ack: self.receiver.nxt,
            flags,
            window: (window >> self.receiver.wscale) as u16,
            urgent: urgent.unwrap_or(0),
            options,
        }
    }

    /// Nothing more leaves now: why?
    fn run_dry(&mut self, cx: &mut Context<'_>) {
        if !self.state.can_transmit() {
            self.sender.chrono.set(cx.now, Waiting::Idle);
            return;
        }
        let unsent = self.unsent();
        let has_more = unsent > 0 || self.fin_unsent();
        let packets_out = self.sender.packets_out();
        let in_flight = self.sender.in_flight();
        let cwnd = self.sender.control.cwnd();
        let (sent, asked) = (core::mem::take(&mut self.sent_since), core::mem::take(&mut self.asked));
        if asked && self.sender.recovery.losses.only_lost {
            self.sender.recovery.losses.only_lost = false;
        }
        // Only where there was something new (Linux's `tcp_write_xmit`): what a timer sends again tells nothing of the window.
        if sent || (asked && has_more && in_flight >= cwnd) {
            self.sender.control.on_transmit(&Transmitted {
                now: cx.now,
                packets_out,
                limited: in_flight >= cwnd || (self.paced && has_more),
                starved: self.sender.recovery.state == CongestionState::Open && !self.write_blocked,
                shrinks: cx.config.slow_start_after_idle,
                snd_una: self.sender.una,
                snd_nxt: self.sender.nxt,
                rto: self.sender.rto(cx.config),
            });
        }
        let waiting = self.waiting();
        self.sender.chrono.set(cx.now, waiting);
        if unsent < self.current_mss() && in_flight < cwnd && !self.sender.scoreboard.has_waiting() {
            self.sender.rate.set_app_limited(in_flight);
        }
        // RFC 9293 section 3.8.6.1: nothing is in flight, so no acknowledgement will say that the window opened; nor
        // that a corked piece has waited long enough.
        if packets_out == 0 && has_more && !self.paced && matches!(self.sender.timer, Timer::Idle) {
            self.sender.timer = Timer::ZeroWindow(cx.now + self.sender.rto(cx.config));
        }
    }
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// What the sender waits for, when it has sent what it can.
    fn waiting(&self) -> Waiting {
        let unsent = self.unsent();
        let next = unsent.min(self.current_mss());
        if unsent == 0 && self.sender.packets_out() == 0 {
            Waiting::Idle
        } else if unsent > 0 && self.sender.nxt.since(self.sender.una) + next > self.sender.wnd {
            Waiting::Window
        } else if unsent == 0 && self.write_blocked && !self.fin_queued && !self.sender.control.is_used() {
            Waiting::Buffer
        } else {
            Waiting::Busy
        }
    }
}

impl Outgoing {
    pub(crate) fn segments(&self) -> u64 {
        match self.gso_size {
            0 => 1,
            size => u64::from(self.len).div_ceil(u64::from(size)),
        }
    }

    const fn empty(seq: SeqNumber) -> Self {
        Self { seq, flags: Flags::ACK, offset: 0, len: 0, gso_size: 0, ecn: 0 }
    }
}
