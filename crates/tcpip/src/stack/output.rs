//! Builds the frames that are sent.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::Stack;
use super::demux::Flow;
use super::lifecycle::schedule;
use crate::buffer::{Memory, SendBuffer};
use crate::checksum::{self, finish, pseudo};
use crate::net::{LinkHeader, Path, Transmit};
use crate::slab::Key;
use crate::tcp::context::{Context, Reply};
use crate::tcp::ecn;
use crate::time::Instant;
use crate::wire::{eth, ip, tcp};

const TCP: u8 = 6;

/// Room for the headers of link, IP and TCP.
const HEADERS: usize = eth::Header::LEN + 40 + tcp::MAX_LEN;

impl<M: Memory> Stack<M> {
    pub(super) fn next_frame(&mut self, now: Instant, frame: &mut Vec<u8>) -> Option<Transmit> {
        if self.net.may_transmit() || !self.replies.is_empty() {
            let transmit = self.next_other_frame(now, frame);
            if transmit.is_some() {
                return transmit;
            }
        }
        while let Some(index) = self.ready.front() {
            let Some(key) = self.connections.key_at(index) else {
                self.ready.remove(index);
                continue;
            };
            if let Some(transmit) = self.emit_connection(now, key, frame) {
                return Some(transmit);
            }
        }
        self.take_failures(now);
        self.net.poll_transmit(now, frame)
    }

    /// One that belongs to no connection.
    #[inline(never)]
    fn next_other_frame(&mut self, now: Instant, frame: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.net.poll_transmit(now, frame) {
            return Some(transmit);
        }
        while let Some(reply) = self.replies.pop() {
            if let Some(transmit) = self.emit_reply(now, &reply, frame) {
                return Some(transmit);
            }
        }
        None
    }

    /// Looks the way to a connection's other end up again if routes have changed.
    pub(super) fn refresh_path(&mut self, now: Instant, key: Key) {
        let generation = self.net.generation();
        let Some(connection) = self.connections.get(key) else { return };
        if connection.path.is_known(generation) {
            return;
        }
        let path = self.net.route(Some(connection.ends.local().ip()), connection.ends.remote().ip());
        let gso_max = path.map_or(0, |path| self.net.capabilities(path.iface).gso_max);
        let Some((connection, mut cx)) = self.connection(now, key) else { return };
        connection.path.set(path, generation);
        connection.gso_max = gso_max.min(65_000) as u16;
        if let Some(path) = path {
            connection.set_path_mtu(&mut cx, path.mtu);
        }
    }

    /// What a connection has to send next. When it has nothing, it leaves the ready list; else it goes to its end, so
    /// that all get their turn.
    fn emit_connection(&mut self, now: Instant, key: Key, frame: &mut Vec<u8>) -> Option<Transmit> {
        let index = key.index();
        self.refresh_path(now, key);
        let Self { connections, config, replies, resources, counters, timers, ready, net, .. } = self;
        let connection = connections.get_mut(key)?;
        let mut cx = Context { now, config: &config.tcp, replies, resources, counters };
        // Sending, and finding nothing to send, sets timers.
        let Some(outgoing) = connection.transmit(&mut cx) else {
            schedule(timers, index, connection.deadline());
            ready.remove(index);
            return None;
        };
        let header = connection.header(&cx, outgoing.seq, outgoing.flags);
        schedule(timers, index, connection.deadline());
        ready.rotate();
        let segment = Segment {
            header: &header,
            len: outgoing.len as usize,
            gso_size: outgoing.gso_size,
            hop_limit: config.tcp.hop_limit,
            traffic_class: connection.options.traffic_class & !ecn::CODEPOINT | outgoing.ecn,
        };
        let ends = (connection.ends.local().ip(), connection.ends.remote().ip());
        let path = connection.path.take_up(|| net.route(Some(ends.0), ends.1));
        let tx = &connection.tx;
        let data = |frame: &mut Vec<u8>| tx.append_to(outgoing.offset as usize, segment.len, frame);
        write_segment(now, net, path, ends, &segment, data, frame)
    }

    #[inline(never)]
    fn emit_reply(&mut self, now: Instant, reply: &Reply, frame: &mut Vec<u8>) -> Option<Transmit> {
        let path = self.net.route(Some(reply.local.ip()), reply.remote.ip());
        let segment = Segment {
            header: &reply.header,
            len: 0,
            gso_size: 0,
            hop_limit: self.config.tcp.hop_limit,
            traffic_class: self.traffic_class_of(reply.local, reply.remote) & !ecn::CODEPOINT,
        };
        self.counters.out_segs += 1;
        write_segment(
            now,
            &mut self.net,
            path.as_ref(),
            (reply.local.ip(), reply.remote.ip()),
            &segment,
            |_| {},
            frame,
        )
    }

    /// That of the socket to which a reply belongs: a connection, or the listener before there is one.
    fn traffic_class_of(&self, local: SocketAddr, remote: SocketAddr) -> u8 {
        let connection = match self.find_flow(local.into(), remote.into()) {
            Some(Flow::Connection(index)) => self.connections.at(index),
            _ => None,
        };
        let listener = || self.listeners.get(self.find_listener(local)?);
        connection
            .map(|connection| connection.options.traffic_class)
            .or_else(|| listener().map(|listener| listener.options.traffic_class))
            .unwrap_or(0)
    }
}

struct Segment<'a> {
    header: &'a tcp::Header,
    /// Length of the data in bytes.
    len: usize,
    gso_size: u16,
    hop_limit: u8,
    traffic_class: u8,
}

/// Writes a frame, for which `data` appends the segment's; nothing when the neighbour's address must be asked for first, and
/// the segment is parked meanwhile.
#[inline(always)] // what is written in pieces and read again at once, for a copy of it, waits for the memory
fn write_segment(
    now: Instant,
    net: &mut crate::net::Network,
    path: Option<&Path>,
    (local, remote): (IpAddr, IpAddr),
    segment: &Segment<'_>,
    data: impl FnOnce(&mut Vec<u8>),
    frame: &mut Vec<u8>,
) -> Option<Transmit> {
    let path = path?;
    let mut headers = [0; HEADERS];
    let mut link = [0; eth::Header::LEN];
    let link_len = match net.link_header(now, path, &mut link) {
        LinkHeader::Ready(len) => Some(len),
        LinkHeader::Pending => None,
        LinkHeader::Unreachable => return None,
    };
    let at = link_len.unwrap_or(0);
    headers[..at].copy_from_slice(&link[..at]);
    let tcp_len = segment.header.len();
    let ip = ip::Header {
        src: local,
        dst: remote,
        protocol: TCP,
        hop_limit: segment.hop_limit,
        traffic_class: segment.traffic_class,
        id: 0,
        dont_fragment: true,
        payload_len: tcp_len + segment.len,
    };
    let ip_len = ip.emit(&mut headers[at..]);
    let tcp_at = at + ip_len;
    segment.header.emit(&mut headers[tcp_at..]);
    let end = tcp_at + tcp_len;
    let sum = pseudo(local, remote, TCP, ip.payload_len as u32);
    let field = tcp_at + usize::from(tcp::CHECKSUM_OFFSET);
    let offload = link_len.is_some() && net.capabilities(path.iface).tx_checksum;
    frame.reserve(end + segment.len);
    frame.extend_from_slice(&headers[..end]);
    data(frame);
    frame.resize(end + segment.len, 0);
    let value = if offload {
        sum.value()
    } else {
        // The checksum is that of the copy: another process may write to the original.
        finish(sum + checksum::sum(&headers[tcp_at..end]) + checksum::sum(&frame[end..]))
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    if link_len.is_none() {
        let packet = core::mem::take(frame);
        net.park(now, path, packet);
        return net.poll_transmit(now, frame);
    }
    Some(Transmit {
        iface: path.iface,
        gso_size: segment.gso_size,
        checksum: offload.then_some((tcp_at as u16, tcp::CHECKSUM_OFFSET)),
    })
}
