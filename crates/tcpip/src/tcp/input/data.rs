//! Data and FIN arrive (RFC 9293 section 3.10.7.4, seventh and eighth step).

use super::Segment;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::tcp::conn::{Connection, Events};
use crate::tcp::context::{Context, Reply};
use crate::tcp::ecn;
use crate::tcp::receiver::{Sized, Stored};
use crate::tcp::state::State;
use crate::wire::tcp::{Flags, MIN_LEN};

/// Bytes that timestamps take in a header.
const STAMPS: usize = 12;

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    pub(super) fn take_data(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>, predicted: bool) {
        let header = segment.header;
        let fin = header.flags.contains(Flags::FIN);
        if segment.payload.is_empty() && !fin {
            if self.receiver.ack.scheduled && !predicted {
                // Linux looks whether to acknowledge after each segment, but not after those.
                self.schedule_ack(cx, Stored::InOrder);
            }
            return;
        }
        let data_end = header.seq + segment.payload.len() as u32;
        if !self.state.can_receive() {
            // Bytes on both sides of where the stream ended: its FIN was wrong (Linux's `tcp_rcv_state_process`).
            if header.seq.before(self.receiver.nxt) && data_end.after(self.receiver.nxt) {
                let error =
                    if self.state == State::CloseWait { Error::BrokenPipe } else { Error::ConnectionReset };
                return self.refuse_data(cx, segment, error);
            }
            // After its FIN the other end has nothing to send; what comes again is acknowledged again.
            if segment.end().at_or_before(self.receiver.nxt) {
                self.receiver.ack.now = true;
                self.receiver.note_duplicate(cx.config, Some((header.seq, segment.end())));
            }
            return;
        }
        let unwanted =
            self.read_closed && (self.orphaned || matches!(self.state, State::FinWait1 | State::FinWait2));
        if unwanted && data_end.after(self.receiver.nxt) {
            // RFC 2525 section 2.17: nobody will read it, and the other end should know. Nor what is missing before a FIN.
            return self.refuse_data(cx, segment, Error::ConnectionReset);
        }
        self.tidy_later(cx);
        self.forget_stale_duplicate(predicted);
        self.receiver.data_segments_in = self.receiver.data_segments_in.wrapping_add(segment.count());
        let before = self.receiver.nxt;
        // A closed window leaves room for a FIN; the other end may go on asking until it is acknowledged.
        let full = self.receiver.window() == 0;
        let mut stored = if segment.payload.is_empty() {
            self.take_lone_fin(cx, segment)
        } else {
            let scarce = cx.resources.is_exhausted();
            self.receiver.store(cx.config, &mut self.rx, header.seq, segment.payload, scarce)
        };
        if stored == Stored::Duplicate && fin && segment.end().at_or_before(before) {
            self.receiver.note_duplicate(cx.config, Some((header.seq, segment.end()))); // the FIN as well
        } else if stored == Stored::Duplicate && fin && data_end == before {
            stored = Stored::InOrder; // the FIN is new
        }
        if fin && data_end.at_or_after(self.receiver.nxt) && stored != Stored::NoRoom {
            self.receiver.fin = Some(data_end);
        }
        self.note_arrival(cx, segment, stored);
        let closed = self.receiver.fin == Some(self.receiver.nxt);
        if closed {
            self.on_fin(cx);
            // The FIN came first, and this filled the gap before it (RFC 5681 section 4.2).
            self.receiver.ack.now |= full || !fin;
            if fin && stored == Stored::FilledGap {
                stored = Stored::InOrder; // nothing waits any more: it ends the stream as any other would
            }
        }
        if self.receiver.nxt != before {
            self.events.raise(Events::READABLE);
        }
        self.schedule_ack(cx, stored);
    }

    /// A FIN without data. Returns how it relates to what has arrived.
    fn take_lone_fin(&mut self, cx: &Context<'_>, segment: &Segment<'_>) -> Stored {
        let (seq, end) = (segment.header.seq, segment.end());
        if seq.after(self.receiver.nxt) {
            if self.receiver.fin == Some(seq) {
                self.receiver.note_duplicate(cx.config, Some((seq, end)));
            }
            self.receiver.note_fin_out_of_order(seq);
            Stored::OutOfOrder
        } else if end.at_or_before(self.receiver.nxt) {
            self.receiver.note_duplicate(cx.config, Some((seq, end)));
            Stored::Duplicate
        } else {
            Stored::InOrder
        }
    }

    /// What came twice is reported by the acknowledgement of the segment that it came with, also if that is delayed, but
    /// not once more has come, unless header prediction took that (Linux's `tcp_data_queue`).
    #[inline]
    pub(super) fn forget_stale_duplicate(&mut self, predicted: bool) {
        if !predicted {
            self.receiver.forget_duplicate();
        }
    }

    /// Resets the connection for data that nobody can read.
    #[cold]
    fn refuse_data(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>, error: Error) {
        cx.counters.tcp_abort_on_data += 1;
        self.reply_with_reset(cx, segment);
        self.end(Some(error));
    }

    /// Answers a segment with the reset that RFC 9293 section 3.10.7.1 describes.
    pub(super) fn reply_with_reset(&self, cx: &mut Context<'_>, segment: &Segment<'_>) {
        cx.counters.out_rsts += 1;
        let (local, remote) = (self.ends.local().into(), self.ends.remote().into());
        cx.replies.push(Reply::reset(local, remote, segment.header, segment.len()));
    }

    /// What the arrival means for acknowledgements and the size of the buffer.
    #[inline]
    pub(super) fn note_arrival(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>, stored: Stored) {
        let header = segment.header;
        let window = self.receiver.window();
        let size = if segment.gso_size > 0 { usize::from(segment.gso_size) } else { segment.payload.len() };
        let remnants = Flags::FIN | Flags::URG | Flags::SYN | Flags::PSH;
        let sized = Sized {
            len: size,
            options: header.len() - MIN_LEN,
            stamps: if self.clock.is_some() { STAMPS } else { 0 },
            push: header.flags.contains(Flags::PSH),
            remnant: header.flags.intersects(remnants),
        };
        match stored {
            // A FIN alone says nothing about how data arrives; only of one that waits the mark counts (Linux's
            // `tcp_data_queue_ofo`).
            Stored::OutOfOrder if segment.payload.is_empty() => self.take_mark(segment.ecn),
            _ if segment.payload.is_empty() => {}
            // That all of it waits already, Linux finds out when it puts it to what waits (`tcp_data_queue_ofo`): it is
            // acknowledged at once, and what comes later is not on its account.
            _ if stored == Stored::OutOfOrder
                || (stored == Stored::Duplicate && header.seq.after(self.receiver.nxt)) =>
            {
                // It says nothing of the pace at which the stream arrives.
                cx.counters.tcp_ofo_queue += 1;
                self.take_mark(segment.ecn);
                self.receiver.ack.measure(sized, self.receiver.advertised_mss);
            }
            Stored::InOrder | Stored::FilledGap => {
                let rto = self.sender.rto_micros(cx.config);
                let limit = self.receiver.advertised_mss;
                self.receiver.ack.on_data(cx.now, sized, window, limit, rto);
                self.take_mark(segment.ecn);
                self.measure_receiver_rtt(cx, segment, size);
            }
            Stored::Duplicate => self.receiver.ack.enter_quick(window),
            Stored::OutOfOrder | Stored::NoRoom => {
                cx.counters.tcp_ofo_drop += 1;
                self.receiver.ack.enter_quick(window);
            }
        }
    }

    fn measure_receiver_rtt(&mut self, cx: &mut Context<'_>, segment: &Segment<'_>, size: usize) {
        match (&self.clock, segment.header.options.timestamps) {
            (Some(clock), Some(stamps)) => {
                if size >= usize::from(self.receiver.ack.mss)
                    && let Some(echo) = clock.echo(cx.now, stamps.echo)
                {
                    self.receiver.tune.on_echo(echo.age);
                }
            }
            _ => self.receiver.tune.on_data(cx.now, self.receiver.nxt, self.receiver.window()),
        }
    }

    /// When to acknowledge (Linux's `__tcp_ack_snd_check`): two segments at the latest (RFC 9293 section 3.8.6.3, SHLD-19),
    /// at once what is out of order (RFC 5681 section 4.2).
    #[inline]
    pub(super) fn schedule_ack(&mut self, cx: &mut Context<'_>, stored: Stored) {
        if !self.state.is_synchronized() {
            return;
        }
        let readable = self.rx.readable();
        let receiver = &mut self.receiver;
        let urgent = match stored {
            Stored::InOrder => {
                let unacknowledged = receiver.nxt.since(receiver.wup);
                let pressed = cx.resources.is_pressed();
                let window_moves =
                    receiver.choose_window(readable, self.rx.capacity(), pressed) >= receiver.window();
                (unacknowledged > u32::from(receiver.ack.mss) && window_moves)
                    || receiver.ack.is_quick()
                    || !receiver.out_of_order().is_empty()
                    || receiver.fin.is_some_and(|fin| fin.after(receiver.nxt)) // it waits as well
            }
            _ => true,
        };
        if urgent || receiver.ack.now {
            receiver.ack.scheduled = true;
            receiver.ack.now = true;
            if !matches!(stored, Stored::InOrder | Stored::FilledGap) && !self.sender.sack {
                // A sender without SACK counts them.
                receiver.ack.duplicates = receiver.ack.duplicates.saturating_add(1);
            }
        } else {
            receiver.ack.delay(cx.now, self.sender.rtt.srtt());
        }
    }

    /// Data arrives, marked or not.
    fn take_mark(&mut self, codepoint: u8) {
        if self.sender.ecn.take_mark(codepoint) {
            self.receiver.ack.enter_quick_for(self.receiver.window(), ecn::QUICK);
        }
    }

    /// Handles a FIN: the eighth step of RFC 9293 §3.10.7.4.
    fn on_fin(&mut self, _cx: &mut Context<'_>) {
        self.receiver.nxt += 1;
        self.receiver.forget_out_of_order();
        self.receiver.ack.scheduled = true;
        self.events.raise(Events::READABLE);
        match self.state {
            State::Established => {
                self.state = State::CloseWait;
                self.receiver.forget_duplicate();
                // The application will close soon, and the acknowledgement can go with that; Linux does so, too.
                self.receiver.ack.interactive = true;
            }
            State::FinWait1 => {
                self.receiver.ack.now = true;
                self.state = State::Closing;
                self.events.raise(Events::HUNG_UP);
            }
            State::FinWait2 => {
                self.receiver.ack.now = true;
                self.state = State::TimeWait;
                self.events.raise(Events::HUNG_UP);
            }
            _ => {}
        }
    }
}
