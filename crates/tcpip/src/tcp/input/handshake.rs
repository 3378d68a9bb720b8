//! The handshake of a connection that we began (RFC 9293 section 3.10.7.3), also when both ends began it at once.

use core::time::Duration;

use super::Segment;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::tcp::conn::{Connection, Pending};
use crate::tcp::context::Context;
use crate::tcp::ecn;
use crate::tcp::receiver::MAX_DELAY;
use crate::tcp::sender::Timer;
use crate::tcp::state::State;
use crate::wire::tcp::Flags;

/// Two ticks of Linux's clock (TCP_TIMEOUT_MIN).
const SYN_AFTER_RESET: Duration = Duration::from_millis(8);

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    pub(super) fn handle_syn_sent(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let header = segment.header;
        let has_ack = header.flags.contains(Flags::ACK);
        if has_ack && (header.ack.at_or_before(self.sender.iss) || header.ack.after(self.sender.nxt)) {
            if self.sender.retransmits == 0 {
                // It is of a connection from before, which the reset ends: then our SYN is welcome, and comes again at once.
                self.sender.timer = Timer::Retransmit(cx.now + SYN_AFTER_RESET);
            }
            if !header.flags.contains(Flags::RST) {
                self.reply_with_reset(cx, segment);
            }
            return;
        }
        // RFC 7323 section 3.2 says what an echo can be; Linux resets what echoes something else.
        if has_ack
            && let (Some(clock), Some(stamps)) = (&self.clock, header.options.timestamps)
            && stamps.echo != 0
        {
            let sent = clock.value(self.cold.syn_at);
            if stamps.echo.wrapping_sub(sent) > clock.value(cx.now).wrapping_sub(sent) {
                if !header.flags.contains(Flags::RST) {
                    self.reply_with_reset(cx, segment);
                }
                return;
            }
        }
        if header.flags.contains(Flags::RST) {
            // RFC 5961 section 3.2 has nothing against it here: the acknowledgement shows that it is the other end.
            if has_ack {
                cx.counters.attempt_fails += 1;
                self.on_reset(cx);
            }
            return;
        }
        if !header.flags.contains(Flags::SYN) {
            return;
        }
        self.heard_at = cx.now;
        self.receiver.begin(header.seq);
        self.take_syn_options(cx.config, cx.now, &header.options);
        self.begin_window(cx.config, u32::from(header.window)); // never scaled in a SYN
        let wanted = if has_ack { ecn::ACCEPT } else { ecn::ASK };
        self.sender.ecn.on &= header.flags.bits() & ecn::ASK.bits() == wanted.bits();
        self.sender.wl1 = header.seq;
        if has_ack {
            self.sender.una = header.ack;
            self.sender.counters.bytes_acked += 1; // the SYN, as Linux counts
            self.measure_handshake(cx, segment);
            self.establish(cx);
            // Linux drops data that comes with the answer, and so do we: it is sent again.
            self.receiver.ack.scheduled = true;
            if self.options.defer_accept > 0 {
                self.receiver.ack.deadline = Some(cx.now + MAX_DELAY);
            } else {
                self.receiver.ack.now = true;
            }
        } else {
            self.state = State::SynReceived;
            // The time-out is that of our SYN, as in Linux.
            self.pending = Pending::Syn;
        }
    }

    /// SYN-RECEIVED, after a simultaneous open. Returns whether the segment may be processed further.
    pub(super) fn finish_handshake(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) -> bool {
        let header = segment.header;
        if header.ack.at_or_before(self.sender.una) || header.ack.after(self.sender.nxt) {
            self.reply_with_reset(cx, segment);
            return false;
        }
        self.sender.una = self.sender.iss + 1;
        self.sender.counters.bytes_acked += 1;
        self.sender.wl1 = header.seq;
        let shift = if header.flags.contains(Flags::SYN) { 0 } else { self.sender.wscale };
        self.begin_window(cx.config, u32::from(header.window) << shift);
        self.measure_handshake(cx, segment);
        self.establish(cx);
        if self.fin_queued {
            self.state = State::FinWait1;
        }
        if header.flags.contains(Flags::SYN) {
            // The other end's SYN with its acknowledgement: nothing else is in it, but it wants to be answered, in case
            // ours got lost.
            self.receiver.ack.now = true;
            self.take_stamp(cx, header);
            // Its number came with the first SYN already.
            self.receiver.note_duplicate(cx.config, Some((header.seq, self.receiver.nxt)));
            return false;
        }
        true
    }

    /// The first round-trip time; not of a SYN that was sent again, unless timestamps tell which it was (RFC 6298
    /// section 3).
    fn measure_handshake(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        let rtt = if self.sender.retransmits == 0 {
            Some(cx.now - self.cold.syn_at)
        } else {
            match (&self.clock, segment.header.options.timestamps) {
                (Some(clock), Some(stamps)) => clock.echo(cx.now, stamps.echo).map(|echo| echo.age),
                _ => None,
            }
        };
        if let Some(rtt) = rtt {
            let rtt = rtt.max(core::time::Duration::from_micros(1));
            self.sender.rtt.on_sample(rtt, self.sender.una, self.sender.nxt);
            self.sender.min_rtt.on_sample(cx.now, rtt);
        }
        if self.sender.retransmits > 1 {
            // RFC 5681 section 3.1; Linux forgives one, which may have been the fault of the time-out of one second.
            self.sender.control.on_handshake_loss();
        }
    }
}
