//! Handshakes that others begin.

use core::net::SocketAddr;

use super::Stack;
use super::demux::Flow;
use crate::buffer::{Memory, ReceiveBuffer};
use crate::seq::{self, SeqNumber};
use crate::slab::Key;
use crate::tcp::conn::{Clock, Connection, window_shift};
use crate::tcp::context::Reply;
use crate::tcp::cookies::{Remembered, SynCookie, VALID};
use crate::tcp::ecn;
use crate::tcp::input::Segment;
use crate::tcp::listen::{Handshake, Setup};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options};

impl<M: Memory> Stack<M> {
    /// A segment for a listener (RFC 9293 section 3.10.7.2). Returns whether that was all; else it is reset.
    pub(super) fn receive_listening(
        &mut self,
        now: Instant,
        listener: Key,
        flow: (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
        iss: Option<SeqNumber>,
    ) -> bool {
        let flags = segment.header.flags;
        if flags.contains(Flags::ACK) {
            return !flags.contains(Flags::SYN) && self.take_cookie(now, listener, flow, segment);
        }
        if !flags.contains(Flags::SYN) || flags.contains(Flags::FIN) {
            // Linux drops SYN with FIN, which no honest program sends.
            return true;
        }
        self.begin_handshake(now, listener, flow, segment, iss);
        true
    }

    fn begin_handshake(
        &mut self,
        now: Instant,
        listener_key: Key,
        (local, remote): (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
        iss: Option<SeqNumber>,
    ) {
        let syn = &ecn::heard(segment.header, segment.ecn);
        let Some(setup) = self.setup_for(listener_key, local, remote) else { return };
        let config = &self.config.tcp;
        let Some(listener) = self.listeners.get_mut(listener_key) else { return };
        if listener.is_full() {
            self.counters.listen_overflows += 1;
            self.counters.listen_drops += 1;
            return;
        }
        let too_many =
            listener.has_too_many_handshakes() || self.handshakes.len() >= config.max_syn_backlog as usize;
        let with_cookie = too_many && config.syn_cookies && iss.is_none();
        if too_many && !with_cookie {
            self.counters.listen_drops += 1;
            return;
        }
        let iss = iss.unwrap_or_else(|| self.secrets.initial_sequence(now, local, remote));
        let handshake = Handshake::new(config, (local, remote), listener_key, now, syn, iss, &setup);
        if with_cookie {
            // A cookie without a timestamp has room for the segment size only (Linux clears these, too).
            let handshake = if handshake.clock_offset().is_some() { handshake } else { handshake.plain() };
            let remembered = Remembered {
                mss: handshake.peer_mss,
                shift: handshake.peer_shift(),
                sack: handshake.sack(),
                ecn: handshake.ecn(),
            };
            listener.cookies_until = now + VALID;
            let cookie = SynCookie::new(&self.secrets, now, (local, remote), syn.seq, remembered);
            self.counters.syncookies_sent += 1;
            self.reply(local, remote, handshake.answer_with(&cookie, now));
            return;
        }
        listener.handshakes += 1;
        let (answer, deadline) = (handshake.answer(now), handshake.deadline(config));
        let index = self.handshakes.insert(handshake).index();
        self.flows.insert(local, remote, Flow::Handshake(index));
        self.handshake_timers.schedule(index, deadline);
        self.reply(local, remote, answer);
    }

    /// Our parameters for a handshake with that other end.
    fn setup_for(&self, listener: Key, local: SocketAddr, remote: SocketAddr) -> Option<Setup> {
        let path = self.net.route(Some(local.ip()), remote.ip())?;
        let options = &self.listeners.get(listener)?.options;
        let config = &self.config.tcp;
        let mss = options.announced_mss(config, remote.ip(), path.link_mtu);
        let space = options.receive_buffer.unwrap_or(config.receive_buffer.0).min(u32::from(u16::MAX));
        Some(Setup {
            mss,
            space: space as u16,
            shift: if config.window_scaling { window_shift(config, options) } else { 0 },
            clock_offset: self.secrets.clock_offset(local.ip(), remote.ip()),
        })
    }

    /// A segment of a handshake under way (Linux's `tcp_check_req`).
    pub(super) fn continue_handshake(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(handshake) = self.handshakes.at_mut(index) else { return };
        let header = segment.header;
        let (local, remote) = (SocketAddr::from(handshake.local), SocketAddr::from(handshake.remote));
        let limit = self.config.tcp.invalid_ratelimit;
        let flags = header.flags;
        let old = handshake.clock_offset().is_some()
            && header.options.timestamps.is_some_and(|stamps| seq::before(stamps.value, handshake.recent));
        let only_syn = flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK | Flags::RST);
        if header.seq == handshake.irs && only_syn && !old {
            // It came again: so does the answer.
            if handshake.may_answer(limit, now) {
                handshake.ask_again(now);
                let (answer, deadline) = (handshake.answer(now), handshake.deadline(&self.config.tcp));
                // The wait for an acknowledgement begins anew (Linux's `tcp_check_req`).
                self.handshake_timers.schedule(index, deadline);
                self.reply(local, remote, answer);
            }
            return;
        }
        // A reset counts by its number alone (RFC 9293 section 3.10.7.4, second step before the fifth).
        if flags.contains(Flags::ACK) && !flags.contains(Flags::RST) && header.ack != handshake.iss + 1 {
            // It is about another connection (RFC 9293 section 3.10.7.4, fifth step).
            self.reply_with_reset(local, remote, segment);
            return;
        }
        let next = handshake.irs + 1;
        let end = segment.end();
        let window_end = next + u32::from(handshake.window);
        // Linux's `tcp_in_window`.
        let acceptable = header.seq == next
            || (end.after(next) && header.seq.before(window_end))
            || (header.seq == window_end && end == window_end);
        let invalid = old || !acceptable || handshake.echoes_wrongly(header);
        let reset = flags.contains(Flags::RST);
        if reset && !invalid && header.seq == next {
            self.counters.attempt_fails += 1;
            self.end_handshake(index);
            return;
        }
        // A reset with another number, and a SYN with the number of the first one, are challenged (RFC 5961 sections 3.2
        // and 4).
        if invalid || reset || (flags.contains(Flags::SYN) && header.seq == handshake.irs) {
            // Data is no acknowledgement, so answers to it cannot go round in a loop and need no limit.
            let unlimited = invalid && segment.len() > 0 && !flags.contains(Flags::SYN);
            if !(invalid && reset) && (unlimited || handshake.may_answer(limit, now)) {
                let answer = handshake.acknowledge(now);
                self.reply(local, remote, answer);
            }
            return;
        }
        if flags.contains(Flags::SYN) {
            self.end_handshake(index);
            self.reply_with_reset(local, remote, segment);
            return;
        }
        if !flags.contains(Flags::ACK) {
            return;
        }
        let defer_accept = self.listeners.get(handshake.listener).map_or(0, |it| it.options.defer_accept);
        if end == next && handshake.defer(defer_accept) {
            return;
        }
        let handshake = handshake.clone();
        if self.is_queue_full(&handshake) {
            return; // the other end, or our timer, will try again
        }
        self.end_handshake(index);
        self.finish_handshake(now, &handshake, segment);
    }

    fn is_queue_full(&mut self, handshake: &Handshake) -> bool {
        let full = self.listeners.get(handshake.listener).is_some_and(super::Listener::is_full);
        if full {
            self.counters.listen_overflows += 1;
            self.counters.listen_drops += 1;
            if self.config.tcp.abort_on_overflow {
                let (local, remote) = (handshake.local.into(), handshake.remote.into());
                let header = crate::tcp::context::bare(
                    local,
                    remote,
                    handshake.iss + 1,
                    SeqNumber::new(0),
                    Flags::RST,
                );
                self.counters.out_rsts += 1;
                self.reply(local, remote, header);
            }
        }
        full
    }

    pub(super) fn end_handshake(&mut self, index: u32) {
        let Some(key) = self.handshakes.key_at(index) else { return };
        let Some(handshake) = self.handshakes.remove(key) else { return };
        self.handshake_timers.cancel(index);
        self.flows.remove(handshake.local.into(), handshake.remote.into(), Flow::Handshake(index));
        if let Some(listener) = self.listeners.get_mut(handshake.listener) {
            listener.handshakes -= 1;
        }
    }

    /// An acknowledgement that belongs to no connection: it may answer a SYN cookie.
    fn take_cookie(
        &mut self,
        now: Instant,
        listener_key: Key,
        (local, remote): (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
    ) -> bool {
        let header = segment.header;
        let Some(listener) = self.listeners.get(listener_key) else { return false };
        if now > listener.cookies_until {
            return false;
        }
        let (irs, iss) = (header.seq - 1, header.ack - 1);
        let echo = header.options.timestamps.map(|stamps| stamps.echo);
        let Some(remembered) = SynCookie::check(&self.secrets, now, (local, remote), irs, iss, echo) else {
            self.counters.syncookies_failed += 1;
            return false;
        };
        let Some(setup) = self.setup_for(listener_key, local, remote) else { return false };
        self.counters.syncookies_recv += 1;
        let syn = Header {
            seq: irs,
            flags: if remembered.ecn { Flags::SYN | ecn::ASK } else { Flags::SYN },
            options: Options {
                mss: Some(remembered.mss),
                window_scale: remembered.shift,
                sack_permitted: remembered.sack,
                ..header.options
            },
            ..*header
        };
        let mut handshake =
            Handshake::new(&self.config.tcp, (local, remote), listener_key, now, &syn, iss, &setup);
        handshake.retries = 1; // the time that it took is unknown
        if !self.is_queue_full(&handshake) {
            self.finish_handshake(now, &handshake, segment);
        }
        true
    }

    /// The handshake is over: there is a connection, which takes the segment.
    fn finish_handshake(&mut self, now: Instant, handshake: &Handshake, segment: &Segment<'_>) {
        let (local, remote) = (SocketAddr::from(handshake.local), SocketAddr::from(handshake.remote));
        let Some(listener) = self.listeners.get(handshake.listener) else {
            let reply = Reply::reset(local, remote, segment.header, segment.len());
            self.reply(local, remote, reply.header);
            return;
        };
        let options = listener.options.clone();
        let Some(buffers) = self.memory.open() else {
            self.counters.listen_drops += 1;
            return;
        };
        let config = &self.config.tcp;
        let mut connection = Connection::new(config, (local, remote), buffers, handshake.iss, options);
        connection.accept_handshake(config, now, handshake, segment.header);
        connection.listener = Some(handshake.listener);
        let key = self.connections.insert(connection);
        self.flows.insert(local, remote, Flow::Connection(key.index()));
        self.counters.passive_opens += 1;
        self.refresh_path(now, key);
        if let Some((connection, mut cx)) = self.connection(now, key) {
            connection.establish(&mut cx);
            connection.handle(&mut cx, segment);
        }
        if let Some(listener) = self.listeners.get_mut(handshake.listener) {
            listener.queue.push_back(key);
            self.acceptable.push_back(handshake.listener);
        }
        self.settle(now, key);
    }
}

impl<S: crate::buffer::SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Takes over the results of the handshake.
    fn accept_handshake(
        &mut self,
        config: &crate::tcp::Config,
        now: Instant,
        handshake: &Handshake,
        ack: &Header,
    ) {
        self.receiver.begin(handshake.irs);
        self.receiver.wscale = handshake.our_shift;
        self.receiver.scaled = handshake.peer_shift().is_some();
        self.receiver.advertised_mss = handshake.our_mss;
        self.receiver.wnd = u32::from(handshake.window);
        self.sender.una = handshake.iss + 1;
        self.sender.nxt = self.sender.una;
        self.sender.sack = handshake.sack();
        self.sender.ecn.on = handshake.ecn();
        self.sender.wscale = handshake.peer_shift().unwrap_or(0);
        self.sender.wnd = u32::from(ack.window) << self.sender.wscale;
        self.sender.max_wnd = self.sender.wnd;
        self.sender.wl1 = ack.seq;
        self.clock =
            handshake.clock_offset().map(|offset| Clock { offset, recent: handshake.recent, recent_at: now });
        self.receiver.last_contiguous = (self.receiver.nxt, handshake.recent);
        self.peer_mss = handshake.peer_mss;
        self.update_mss(config);
        self.heard_at = now;
        let rtt = match (&self.clock, ack.options.timestamps) {
            _ if handshake.retries == 0 && !handshake.was_asked_again() => Some(now - handshake.sent_at),
            (Some(clock), Some(stamps)) => clock.echo(now, stamps.echo).map(|echo| echo.age),
            _ => None,
        };
        if let Some(rtt) = rtt {
            let rtt = rtt.max(core::time::Duration::from_micros(1));
            self.sender.rtt.on_sample(rtt, self.sender.una, self.sender.nxt);
            self.sender.min_rtt.on_sample(now, rtt);
        }
        if handshake.retries > 1 {
            self.sender.control.on_handshake_loss();
        }
    }
}
