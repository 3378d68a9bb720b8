//! Handles received frames.

use core::net::SocketAddr;

use super::Stack;
use super::demux::Flow;
use crate::buffer::Memory;
use crate::icmp::{ErrorKind, IcmpError};
use crate::net::{InterfaceId, RxMeta, Up};
use crate::tcp::conn::Pending;
use crate::tcp::context::Context;
use crate::tcp::ecn;
use crate::tcp::endpoint::Endpoint;
use crate::tcp::input::Segment;
use crate::tcp::state::State;
use crate::tcp::timewait::Verdict;
use crate::time::Instant;
use crate::wire::ip;
use crate::wire::tcp::{self, Flags};

const TCP: u8 = 6;

impl<M: Memory> Stack<M> {
    pub(super) fn receive(&mut self, now: Instant, interface: InterfaceId, frame: &[u8], meta: RxMeta) {
        let mut scratch = core::mem::take(&mut self.scratch);
        match self.net.receive(now, interface, frame, meta, &mut scratch) {
            Ok(Up::Tcp { ip, segment, gso_size }) => self.receive_tcp(now, &ip, segment, gso_size),
            Ok(Up::Error(error)) => self.receive_error(now, &error),
            Ok(Up::Done) | Err(_) => {}
        }
        self.scratch = scratch;
    }

    fn receive_tcp(&mut self, now: Instant, ip: &ip::Header, bytes: &[u8], gso_size: u16) {
        let (head, options) = match tcp::split(bytes) {
            Ok(parts) => parts,
            Err(reason) => {
                self.net.count(reason);
                self.counters.in_errs += 1;
                return;
            }
        };
        let mut header = tcp::Header::read(head);
        header.read_options(options);
        let payload = &bytes[tcp::MIN_LEN + options.len()..];
        let ends = (Endpoint::new(&ip.dst, header.dst_port), Endpoint::new(&ip.src, header.src_port));
        let ecn = ip.traffic_class & ecn::CODEPOINT;
        let segment = Segment { header: &header, payload, gso_size, ecn };
        self.counters.in_segs += u64::from(segment.count());
        let flow = (ends.0.into(), ends.1.into());
        match self.find_flow(ends.0, ends.1) {
            Some(Flow::Connection(index)) => {
                let Some(key) = self.connections.key_at(index) else { return };
                let Self { connections, config, replies, resources, counters, net, .. } = self;
                let Some(connection) = connections.get_mut(key) else { return };
                let mut cx = Context { now, config: &config.tcp, replies, resources, counters };
                connection.handle(&mut cx, &segment);
                // RFC 4861 section 7.3.1: an acknowledgement shows that the neighbour is there.
                if connection.sender.una == header.ack
                    && header.flags.contains(Flags::ACK)
                    && let Some(path) = connection.path.held()
                {
                    net.confirm(now, path);
                }
                self.settle(now, key);
            }
            Some(Flow::Handshake(index)) => self.continue_handshake(now, index, &segment),
            Some(Flow::TimeWait(index)) => self.receive_in_time_wait(now, index, flow, &segment),
            // RFC 9293 section 3.9.2.3 (MUST-57). Nothing that has a flow has an end that stands for many.
            None if self.net.is_group(ip.dst) || self.net.is_group(ip.src) => {}
            None => self.receive_unknown(now, flow, &segment, None),
        }
    }

    fn receive_in_time_wait(
        &mut self,
        now: Instant,
        index: u32,
        flow: (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
    ) {
        let Some(rest) = self.time_waits.at_mut(index) else { return };
        let verdict = rest.handle(&self.config.tcp, now, segment.header, segment.len());
        let until = now + self.config.tcp.time_wait;
        match verdict {
            Verdict::Ignore => {}
            Verdict::Restart => self.time_wait_timers.schedule(index, until),
            Verdict::Acknowledge(header) => {
                self.time_wait_timers.schedule(index, until);
                self.reply(flow.0, flow.1, header);
            }
            Verdict::End => self.end_time_wait(index),
            Verdict::Reopen(iss) => {
                let answer = rest.acknowledge(now);
                if self.find_listener(flow.0).is_none() {
                    return self.reply(flow.0, flow.1, answer);
                }
                self.counters.tw_recycled += 1;
                self.end_time_wait(index);
                self.receive_unknown(now, flow, segment, Some(iss));
            }
        }
    }

    /// RFC 9293 section 3.10.7.1 and 3.10.7.2: no connection has these addresses.
    pub(super) fn receive_unknown(
        &mut self,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        segment: &Segment<'_>,
        iss: Option<crate::seq::SeqNumber>,
    ) {
        if segment.header.flags.contains(Flags::RST) {
            return;
        }
        if let Some(listener) = self.find_listener(local)
            && self.receive_listening(now, listener, (local, remote), segment, iss)
        {
            return;
        }
        self.reply_with_reset(local, remote, segment);
    }

    /// A router, or the other end's host, reports what became of a segment of ours.
    pub(super) fn receive_error(&mut self, now: Instant, error: &IcmpError) {
        if error.protocol != TCP {
            return;
        }
        let index = match self.find_flow(error.local.into(), error.remote.into()) {
            Some(Flow::Connection(index)) => index,
            Some(Flow::Handshake(index)) => {
                let known = self.handshakes.at(index).is_some_and(|h| h.iss == error.seq);
                if known && error.fatal && !matches!(error.kind, ErrorKind::TooBig { .. }) {
                    self.end_handshake(index);
                }
                return;
            }
            _ => return,
        };
        let Some(key) = self.connections.key_at(index) else { return };
        let Some((connection, mut cx)) = self.connection(now, key) else { return };
        // RFC 5927 section 4.1: what is not in flight was not sent, or is long gone. Linux takes the next number as well.
        let in_flight =
            error.seq.at_or_after(connection.sender.una) && error.seq.at_or_before(connection.sender.nxt);
        if !in_flight {
            return;
        }
        match error.kind {
            ErrorKind::TooBig { mtu } => {
                let (remote, size) = (error.remote.ip(), connection.packet_size());
                let mtu = if mtu == 0 { crate::tcp::pmtu::next_plateau(size) } else { mtu };
                if mtu < size {
                    self.net.set_path_mtu(now, remote, mtu);
                    self.refresh_path(now, key);
                    if let Some((connection, _)) = self.connection(now, key)
                        && connection.state == State::SynSent
                    {
                        connection.pending = Pending::Syn;
                    }
                }
            }
            kind => {
                let Some(reason) = crate::tcp::pmtu::error_of(kind) else { return };
                connection.on_icmp_error(&mut cx, reason);
            }
        }
        self.settle(now, key);
    }
}
