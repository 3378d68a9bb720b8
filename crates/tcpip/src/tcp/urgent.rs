//! Urgent data (RFC 9293 section 3.8.5), as Linux and most programs have it: the pointer names the byte after the last
//! urgent one (RFC 6093 section 2), of which an application gets one out of band.
//!
//! The state of both directions lies in [`ColdState`](super::conn::ColdState): few connections ever have urgent data.

use super::conn::{Byte, Connection, Events, Mark};
use super::context::Context;
use super::input::Segment;
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::seq::SeqNumber;
use crate::wire::tcp::Flags;

/// Sends urgent data.
impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// What was written up to here is urgent (Linux's `tcp_mark_urg`).
    pub(crate) fn mark_urgent(&mut self) {
        self.cold.urgent_end = Some(self.data_end());
    }

    /// Urgent data is not acknowledged yet.
    #[inline]
    pub(crate) fn is_urgent(&self) -> bool {
        self.cold.urgent_end.is_some()
    }

    /// Something was acknowledged.
    pub(crate) fn end_urgent_mode(&mut self) {
        if self.cold.urgent_end.is_some_and(|end| end.at_or_before(self.sender.una)) {
            self.cold.urgent_end = None;
        }
    }

    /// The pointer of a segment with that number. The field may not reach the end; then all that is new is urgent, and
    /// what was sent long before leaves without it.
    pub(crate) fn urgent_pointer(&self, seq: SeqNumber) -> Option<u16> {
        let end = self.cold.urgent_end.filter(|&end| seq.before(end))?;
        let farthest = seq + u32::from(u16::MAX);
        u16::try_from(end.since(seq)).ok().or_else(|| farthest.after(self.sender.nxt).then_some(u16::MAX))
    }

    /// Whether a probe with the first number not acknowledged can name the end of urgent data.
    pub(crate) fn may_probe_urgently(&self) -> bool {
        let una = self.sender.una;
        self.cold.urgent_end.is_some_and(|end| end.after(una) && end.since(una) <= u32::from(u16::MAX))
    }
}

/// Receives urgent data.
impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Linux's `tcp_urg`.
    #[inline]
    pub(crate) fn take_urgent(&mut self, segment: &Segment<'_>) {
        if segment.header.flags.contains(Flags::URG) || self.cold.mark.is_some() {
            self.take_urgent_segment(segment);
        }
    }

    #[cold]
    fn take_urgent_segment(&mut self, segment: &Segment<'_>) {
        if !self.state.can_receive() {
            return; // RFC 9293 section 3.10.7.4, sixth step: this should not occur
        }
        let header = segment.header;
        if header.flags.contains(Flags::URG) {
            self.take_pointer(header.seq + u32::from(header.urgent.saturating_sub(1)));
        }
        if let Some(Mark { seq, byte: Byte::Awaited }) = self.cold.mark
            && let Some(&byte) = segment.payload.get(seq.since(header.seq) as usize)
        {
            self.cold.mark = Some(Mark { seq, byte: Byte::Arrived(byte) });
            self.events.raise(Events::READABLE);
        }
    }

    /// A pointer to a byte that has arrived, or that does not go beyond the one before, is old (Linux's
    /// `tcp_check_urg`).
    fn take_pointer(&mut self, seq: SeqNumber) {
        let known = self.cold.mark.map(|mark| mark.seq);
        if seq.before(self.receiver.nxt) || known.is_some_and(|known| !seq.after(known)) {
            return;
        }
        self.events.raise(Events::URGENT);
        // The application stands before an urgent byte, which does not become part of the stream now.
        if known == Some(self.read_end()) && !self.options.oob_inline {
            self.rx.read(&mut [0]);
        }
        self.cold.mark = Some(Mark { seq, byte: Byte::Awaited });
    }

    /// The number of the next byte that the application reads.
    fn read_end(&self) -> SeqNumber {
        self.receiver.nxt - u32::from(self.has_fin()) - self.rx.readable() as u32
    }

    /// Bytes before the mark.
    fn before_mark(&self) -> Option<usize> {
        self.cold.mark.map(|mark| mark.seq.saturating_since(self.read_end()) as usize)
    }

    /// Bytes that can be read before the mark, or all if the next one is not kept out of the stream (Linux's `tcp_inq`).
    pub(crate) fn readable(&self) -> usize {
        let readable = self.rx.readable();
        match self.before_mark() {
            Some(before) if !self.options.oob_inline => readable.min(before),
            _ => readable,
        }
    }

    /// SIOCATMARK: the next byte is the last urgent one.
    pub(crate) fn at_mark(&self) -> bool {
        self.before_mark() == Some(0)
    }

    /// POLLPRI.
    pub(crate) fn has_urgent_byte(&self) -> bool {
        self.cold.mark.is_some_and(|mark| matches!(mark.byte, Byte::Arrived(_)))
    }

    /// Reads up to the mark; from there, without the urgent byte (Linux's `tcp_recvmsg_locked`).
    #[cold]
    pub(crate) fn read_by_mark(&mut self, cx: &mut Context<'_>, data: &mut [u8]) -> usize {
        match self.before_mark() {
            Some(before) if before > 0 => {
                let len = data.len().min(before);
                return self.rx.read(&mut data[..len]);
            }
            Some(_) if !self.options.oob_inline && !data.is_empty() && self.rx.read(&mut [0]) > 0 => {
                self.consumed(cx);
            }
            _ => {}
        }
        self.rx.read(data)
    }

    /// The application has read something: maybe beyond the mark.
    #[cold]
    pub(crate) fn pass_mark(&mut self) {
        let end = self.read_end();
        if self.cold.mark.is_some_and(|mark| end.after(mark.seq)) {
            self.cold.mark = None;
        }
    }

    /// MSG_OOB (Linux's `tcp_recv_urg`); nothing when the stream ended before the byte.
    pub(crate) fn recv_urgent(&mut self, peek: bool) -> Result<Option<u8>, Error> {
        let Some(mark) = self.cold.mark.filter(|_| !self.options.oob_inline) else {
            return Err(Error::Invalid);
        };
        match mark.byte {
            Byte::Taken => Err(Error::Invalid),
            _ if self.state == State::Closed && !self.has_fin() => Err(Error::NotConnected),
            Byte::Arrived(byte) => {
                if !peek {
                    self.cold.mark = Some(Mark { byte: Byte::Taken, ..mark });
                }
                Ok(Some(byte))
            }
            Byte::Awaited if self.is_at_end() => Ok(None),
            Byte::Awaited => Err(Error::WouldBlock),
        }
    }
}
