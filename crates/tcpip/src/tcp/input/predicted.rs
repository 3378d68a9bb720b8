//! Header prediction (Van Jacobson, 1990; Linux's `tcp_rcv_established`). While data flows, nearly every segment is either
//! the next data, or acknowledges whole segments that were sent once and in order. Few comparisons tell such a segment, and
//! for it most of RFC 9293 section 3.10.7.4 has nothing to do. What is left is done in that order; every other segment
//! takes the whole way.

use super::Segment;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::seq::{self, SeqNumber};
use crate::tcp::config::Config;
use crate::tcp::conn::{Connection, Events};
use crate::tcp::context::Context;
use crate::tcp::receiver::Stored;
use crate::tcp::sender::{Progress, Sender, Timer};
use crate::tcp::state::{CongestionState, State};
use crate::time::{Instant, Micros};
use crate::wire::tcp::{Flags, Header};

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Whether Linux's header prediction takes it for the next segment, in which nothing but data or an acknowledgement is
    /// new. Such data, if it acknowledges nothing, says nothing to the sending half; and after such an acknowledgement it is
    /// not looked whether to acknowledge as well.
    pub(super) fn is_predicted(&self, header: &Header) -> bool {
        self.state == State::Established
            && header.flags.without(Flags::PSH) == Flags::ACK
            && header.seq == self.receiver.nxt
            && header.options.sack.is_empty()
            && u32::from(header.window) << self.sender.wscale == self.sender.wnd
            && self.receiver.out_of_order().is_empty()
            && self.receiver.fin.is_none()
            && self.has_fresh_stamp(header)
    }

    fn has_fresh_stamp(&self, header: &Header) -> bool {
        match (&self.clock, header.options.timestamps) {
            (Some(clock), Some(stamps)) => !seq::before(stamps.value, clock.recent),
            (clock, _) => clock.is_none(),
        }
    }

    /// Takes a segment that was to be expected; `false` for another one, which has changed nothing.
    #[inline]
    pub(super) fn take_expected(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> bool {
        let header = segment.header;
        let expected = self.state == State::Established
            && header.flags.without(Flags::PSH) == Flags::ACK
            && header.seq == self.receiver.nxt
            && header.options.sack.is_empty()
            && !self.fin_queued
            && cx.config.header_prediction
            && self.has_fresh_stamp(header);
        if !expected {
            return false;
        }
        let ack = header.ack;
        let predicted = self.is_predicted(header);
        if segment.payload.is_empty() {
            if !self.sender.expects(ack) {
                return false;
            }
            cx.counters.tcp_hp_acks += 1;
            self.hear_expected(cx, header);
            self.take_expected_ack(cx, ack);
            if self.receiver.ack.scheduled && !predicted {
                self.schedule_ack(cx, Stored::InOrder); // as the long way does after each segment
            }
            return true;
        }
        let says_nothing = predicted && ack == self.sender.una;
        let room = self.receiver.room(&self.rx);
        let in_order = self.receiver.out_of_order().is_empty()
            && self.receiver.fin.is_none()
            && !self.read_closed
            && !cx.resources.is_exhausted();
        if !in_order || segment.payload.len() > room || !(says_nothing || self.sender.expects(ack)) {
            return false;
        }
        cx.counters.tcp_hp_hits += 1;
        self.hear_expected(cx, header);
        if !says_nothing {
            self.take_expected_ack(cx, ack);
        }
        self.take_urgent(segment);
        self.forget_stale_duplicate(predicted);
        self.take_expected_data(cx, segment);
        true
    }

    fn hear_expected(&mut self, cx: &Context<'_>, header: &Header) {
        self.hear(cx);
        self.take_stamp(cx, header);
        self.update_window(cx, header);
        // Whatever number another one had in the meantime (Linux's `tcp_update_wl`).
        self.sender.wl1 = header.seq;
    }

    fn take_expected_ack(&mut self, cx: &mut Context<'_>, ack: SeqNumber) {
        self.asked = true;
        let acked = self.sender.on_expected_ack(cx.config, cx.now, ack);
        self.after_ack(cx, acked);
    }

    /// As [`take_data`](Self::take_data) of data that is the next and fits, when nothing waits behind it.
    fn take_expected_data(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        self.tidy_later(cx);
        self.receiver.data_segments_in = self.receiver.data_segments_in.wrapping_add(segment.count());
        self.receiver.append(&mut self.rx, segment.payload);
        self.note_arrival(cx, segment, Stored::InOrder);
        self.events.raise(Events::READABLE);
        self.schedule_ack(cx, Stored::InOrder);
    }
}

impl Sender {
    /// Whether `ack` acknowledges whole segments, and nothing is known of those in flight but that they were sent once.
    #[inline]
    fn expects(&self, ack: SeqNumber) -> bool {
        ack.after(self.una)
            && ack.at_or_before(self.nxt)
            && self.recovery.state == CongestionState::Open
            && self.scoreboard.is_ordinary()
            && self.scoreboard.first().is_some_and(|first| first.end.at_or_before(ack))
            && self.recovery.losses.tail_probe.is_none()
    }

    /// As [`on_ack`](Self::on_ack) of one that was [expected](Self::expects). Returns how much it acknowledges.
    fn on_expected_ack(&mut self, config: &Config, now: Instant, ack: SeqNumber) -> u32 {
        let acked = ack.since(self.una);
        self.retransmits = 0;
        self.probes = 0;
        self.una = ack;
        self.counters.bytes_acked += u64::from(acked);
        let delivered_before = self.rate.delivered();
        let (mut first, mut last) = (None, (now, ack));
        let Self { scoreboard, rate, rack, .. } = self;
        scoreboard.pop_ordinary(ack, |record| {
            first.get_or_insert(record.sent_at);
            last = (record.sent_at, record.end);
            rate.on_delivered(now, &record.stamp, record.sent_at, 1);
        });
        // They were sent in order: the last one is all that RACK and the least round-trip time ask for.
        let (sent_at, end) = last;
        rack.advance_to(now, sent_at, end);
        let latest = Micros::between(sent_at, now);
        self.min_rtt.on_micros(now, latest);
        let rtt = Micros::between(first.unwrap_or(sent_at), now);
        self.rtt.on_micros(rtt, self.una, self.nxt);
        self.probe_backoff = 0;
        self.backoff = 0; // RFC 6298 section 5, Karn: a fresh measure ends the backoff
        self.update_reordering_window();
        let progress = Progress { advanced: true, in_order: true, sacked: false, rtt: Some(latest.into()) };
        self.adapt(config, now, delivered_before, 0, &progress);
        if self.packets_out() == 0 {
            self.timer = Timer::Idle;
        } else if !matches!(self.timer, Timer::Reorder(_)) {
            self.arm(config, now, true);
        }
        acked
    }
}
