//! What an application asks of a connection (RFC 9293 section 3.10.2 to 3.10.6, with the meaning that Linux's calls have).

use super::conn::Connection;
use super::context::Context;
use super::push::SendFlags;
use super::resources::ALWAYS;
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::time::Instant;

/// What `shutdown` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// SHUT_RD.
    Read,
    /// SHUT_WR.
    Write,
    /// SHUT_RDWR.
    Both,
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// SEND.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        flags: SendFlags,
    ) -> Result<usize, Error> {
        self.check_send()?;
        if data.is_empty() {
            return Ok(0);
        }
        let capacity = self.affordable(cx);
        let behind = self.unsent() > 0;
        let count = self.tx.write(data, capacity);
        if count > 0 {
            if !behind {
                self.restart(cx);
            }
            self.asked = true;
        }
        if flags.urgent && count > 0 {
            self.mark_urgent();
        }
        let end = self.data_end();
        if count < data.len() {
            self.write_blocked = true;
            if count > 0 {
                self.push.wrote(end, SendFlags::default(), behind);
            }
        } else {
            self.push.wrote(end, flags, behind);
        }
        if !self.is_writable(cx) {
            self.write_blocked = true;
        }
        if count == 0 { Err(Error::WouldBlock) } else { Ok(count) }
    }

    /// There is something to send after nothing was sent for a while. Asked when it is written and when the other end's
    /// window has changed, as in Linux (`tcp_slow_start_after_idle_check`), and not with each probe of a closed one.
    pub(crate) fn restart(&mut self, cx: &Context<'_>) {
        let sender = &mut self.sender;
        if sender.packets_out() == 0 && sender.sent_at > Instant::ZERO {
            // With its backoff, which ends with a measure (Karn); probes of a closed window back off for themselves.
            let (last, rto) = (sender.sent_at, sender.rto(cx.config));
            sender.control.on_restart(last, cx.now, rto, cx.config.slow_start_after_idle);
        }
    }

    /// Whether data can be sent at all.
    pub(crate) fn check_send(&mut self) -> Result<(), Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.fin_queued {
            return Err(Error::BrokenPipe);
        }
        match self.state {
            State::Established | State::CloseWait => Ok(()),
            State::SynSent | State::SynReceived => {
                self.write_blocked = true;
                Err(Error::WouldBlock)
            }
            _ => Err(Error::BrokenPipe),
        }
    }

    /// RECEIVE; `Ok(0)` at the end of the stream.
    pub(crate) fn recv(&mut self, cx: &mut Context<'_>, data: &mut [u8]) -> Result<usize, Error> {
        let marked = self.cold.mark.is_some();
        let count = if marked { self.read_by_mark(cx, data) } else { self.rx.read(data) };
        if count > 0 {
            self.consumed(cx);
            return Ok(count);
        }
        self.check_receive()?;
        if data.is_empty() || self.is_at_end() { Ok(0) } else { Err(Error::WouldBlock) }
    }

    /// [`recv`](Self::recv) that leaves the data where it is.
    pub(crate) fn peek(&mut self, data: &mut [u8]) -> Result<usize, Error> {
        let most = data.len().min(self.readable());
        let count = self.rx.peek(0, &mut data[..most]);
        if count > 0 {
            return Ok(count);
        }
        self.check_receive()?;
        if data.is_empty() || self.is_at_end() { Ok(0) } else { Err(Error::WouldBlock) }
    }

    pub(crate) fn check_receive(&mut self) -> Result<(), Error> {
        if self.receiver.fin.is_some_and(|fin| fin.before(self.receiver.nxt)) {
            return Ok(()); // after the end of the stream errors are for those who write (Linux's SOCK_DONE)
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.state {
            State::SynSent | State::SynReceived => Err(Error::WouldBlock),
            _ => Ok(()),
        }
    }

    /// Whether nothing more will arrive, or is wanted.
    pub(crate) fn is_at_end(&self) -> bool {
        self.read_closed
            || self.state == State::Closed
            || self.receiver.fin.is_some_and(|fin| fin.before(self.receiver.nxt))
    }

    /// The application has taken data: is the window to be announced (RFC 9293 section 3.8.6.2.2), or the data
    /// acknowledged now? Linux's `tcp_cleanup_rbuf`.
    pub(crate) fn consumed(&mut self, cx: &mut Context<'_>) {
        self.tidy_later(cx);
        if self.cold.mark.is_some() {
            self.pass_mark();
        }
        let readable = self.rx.readable();
        let copied = self.receiver.nxt - readable as u32;
        let (limit, mss) = (self.receiver.limit, self.receiver.advertised_mss);
        if let Some(limit) = self.receiver.tune.on_read(cx.config, cx.now, copied, limit, mss)
            && !cx.resources.is_pressed()
        {
            self.receiver.limit = limit.min(u32::try_from(self.rx.capacity()).unwrap_or(u32::MAX));
        }
        if !self.state.is_synchronized() {
            return;
        }
        let receiver = &mut self.receiver;
        if receiver.ack.scheduled
            && (receiver.nxt.since(receiver.wup) > u32::from(receiver.ack.mss)
                || (readable == 0
                    && (receiver.ack.pushed_again || receiver.ack.pushed && !receiver.ack.interactive)))
        {
            receiver.ack.now = true;
        }
        let window = receiver.window();
        if !receiver.ack.now && self.state.can_receive() && u64::from(window) * 2 <= u64::from(receiver.limit)
        {
            let offer = receiver.choose_window(readable, self.rx.capacity(), cx.resources.is_pressed());
            if offer > 0 && u64::from(offer) >= u64::from(window) * 2 {
                receiver.ack.now = true;
            }
        }
    }

    /// CLOSE of one direction, or both.
    pub(crate) fn shutdown(&mut self, _cx: &mut Context<'_>, how: How) -> Result<(), Error> {
        match self.state {
            State::Closed => return Err(Error::NotConnected),
            State::SynSent | State::SynReceived | State::Listen if self.error.is_none() => {
                // Linux ends the attempt; nothing was promised yet.
                if self.state == State::SynSent && how != How::Read {
                    self.end(None);
                }
                return Err(Error::NotConnected);
            }
            _ => {}
        }
        if how != How::Write {
            self.read_closed = true;
        }
        if how != How::Read {
            self.queue_fin();
        }
        Ok(())
    }

    fn queue_fin(&mut self) {
        if self.fin_queued {
            return;
        }
        let next = match self.state {
            State::Established => State::FinWait1,
            State::SynReceived => State::SynReceived, // FIN-WAIT-1 once the handshake is over
            State::CloseWait => State::LastAck,
            _ => return,
        };
        self.fin_queued = true;
        self.asked = true;
        self.state = next;
    }

    /// TCP_QUICKACK. On: what waits is acknowledged at once, and what arrives is not held back for an answer. Off: the
    /// application is going to answer, and acknowledgements travel with that (Linux's pingpong mode).
    pub(crate) fn set_quick_ack(&mut self, on: bool) {
        let ack = &mut self.receiver.ack;
        ack.interactive = !on;
        ack.now |= on && ack.scheduled;
    }

    /// CLOSE: the application lets go of the socket.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        if self.orphaned {
            return;
        }
        self.orphan(cx);
        if self.state == State::Closed {
            return;
        }
        if self.state == State::SynSent {
            self.end(None);
            return;
        }
        // RFC 2525 section 2.17, RFC 9293 section 3.6.1: unread data is lost, and the other end is told.
        if self.rx.readable() > 0 {
            cx.counters.tcp_abort_on_close += 1;
            self.reset(cx, None);
            return;
        }
        self.queue_fin();
        if self.state == State::FinWait2 && !self.linger(cx) {
            self.reset(cx, None);
        }
        if self.is_unaffordable(cx, 0) {
            cx.counters.tcp_abort_on_memory += 1;
            self.reset(cx, None);
        }
    }

    /// FIN-WAIT-2 of a closed socket: waits for the other end's FIN, unless that is not wanted (TCP_LINGER2).
    pub(crate) fn linger(&mut self, cx: &Context<'_>) -> bool {
        let timeout = self.options.fin_timeout.unwrap_or(cx.config.fin_timeout);
        self.cold.linger_at = Some(cx.now + timeout);
        !timeout.is_zero()
    }

    /// The application has no socket any more.
    fn orphan(&mut self, cx: &mut Context<'_>) {
        cx.resources.orphans += u32::from(!self.orphaned);
        self.orphaned = true;
        self.read_closed = true;
    }

    /// ABORT.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>) {
        self.orphan(cx);
        // Linux resets only where the other end could be waiting (`tcp_need_reset`).
        if matches!(
            self.state,
            State::Established
                | State::CloseWait
                | State::FinWait1
                | State::FinWait2
                | State::SynReceived
                | State::Closing
                | State::LastAck
        ) {
            self.reset(cx, None);
        } else {
            self.end(None);
        }
    }

    /// Bytes of memory in its buffers.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.tx.memory() + self.rx.memory()
    }

    /// Bytes that may lie in the send buffer now.
    pub(crate) fn affordable(&self, cx: &Context<'_>) -> usize {
        let capacity = self.send_capacity() as usize;
        if cx.resources.is_exhausted() { capacity.min(ALWAYS) } else { capacity }
    }
}
