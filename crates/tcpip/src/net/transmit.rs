//! Sending: from a packet to a frame.

use super::{Complaint, IDENTS, InterfaceId, LinkHeader, MAX_FAILURES, Medium, Network, Path, Transmit};
use crate::icmp::{ErrorKind, IcmpError};
use crate::ip::address::is_possible_source;
use crate::ip::output::fragmented;
use crate::neighbour::{Action, Resolution};
use crate::time::Instant;
use crate::wire::eth::{self, EtherType};
use crate::wire::{DropReason, MacAddr, arp, icmp4, icmp6, ip, ipv4, ipv6, nd, protocol};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet that waits for [`Network::poll_transmit`].
#[derive(Debug)]
pub(super) struct Frame {
    interface: InterfaceId,
    link: [u8; eth::Header::LEN],
    link_len: usize,
    packet: Vec<u8>,
    /// As in [`Transmit`], but counted from the packet.
    checksum: Option<(u16, u16)>,
}

impl Network {
    /// Writes the header that the link of `path` wants in front of an IP packet.
    #[inline]
    pub fn link_header(&mut self, now: Instant, path: &Path, out: &mut [u8; eth::Header::LEN]) -> LinkHeader {
        let Medium::Ethernet { address } = self.capabilities(path.iface).medium else {
            return LinkHeader::Ready(0);
        };
        let link_address = match self.group_link_address(path.iface, path.next_hop) {
            Some(link_address) => link_address,
            None => match self.neighbours.resolve(now, path.iface, path.next_hop) {
                Resolution::LinkAddress(link_address) => link_address,
                Resolution::Pending => {
                    self.serve_neighbours(now);
                    return LinkHeader::Pending;
                }
                Resolution::Full => return LinkHeader::Unreachable,
            },
        };
        write_header(out, MacAddr(address), link_address, path.next_hop);
        LinkHeader::Ready(eth::Header::LEN)
    }

    /// Keeps a packet, whose checksums are complete, until its next hop answers. When there are too many the oldest
    /// ones go, as in Linux; when it never answers, [`failures`](Self::failures) tells.
    /// A packet that was to be cut into segments by the link cannot wait: it is dropped, as if it was lost.
    pub fn park(&mut self, now: Instant, path: &Path, packet: Vec<u8>) {
        if packet.len() > path.mtu as usize {
            self.counters.count(DropReason::TooLong);
            return;
        }
        match self.neighbours.park(path.iface, path.next_hop, packet) {
            Ok(dropped) => (0..dropped).for_each(|_| self.counters.count(DropReason::NeighbourQueueFull)),
            Err(reason) => self.counters.count(reason),
        }
        self.serve_neighbours(now);
    }

    /// Appends the next frame of ARP, neighbour discovery, ICMP or UDP, or one that was parked, to `out`.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Transmit> {
        self.serve_neighbours(now);
        let Frame { interface, link, link_len, packet, checksum } = self.queue.pop_front()?;
        out.extend_from_slice(&link[..link_len]);
        out.extend_from_slice(&packet);
        let checksum = checksum.map(|(start, offset)| (start + link_len as u16, offset));
        Some(Transmit { iface: interface, gso_size: 0, checksum })
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something.
    #[inline]
    pub(crate) fn may_transmit(&self) -> bool {
        self.has_frames() || self.neighbours.has_actions()
    }

    /// Whether frames are waiting.
    pub fn has_frames(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the queue has room for what we want to send; answers to others may fill it.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < self.config.transmit_queue
    }

    /// Whether packets on `path` would go out at once.
    pub(super) fn is_resolved(&self, path: &Path) -> bool {
        self.capabilities(path.iface).medium == Medium::Ip
            || self.group_link_address(path.iface, path.next_hop).is_some()
            || self.neighbours.is_resolved(path.iface, path.next_hop)
    }

    /// Sends the parts of a packet that its path takes.
    pub(super) fn send(
        &mut self,
        now: Instant,
        path: &Path,
        header: &ip::Header,
        payload: &[u8],
        checksum: Option<(u16, u16)>,
    ) {
        let ident = self.next_ident(header.dst);
        let mut packets = Vec::new();
        fragmented(header, ident, payload, path.mtu as usize, |packet| packets.push(packet));
        for packet in packets {
            self.send_packet(now, path, packet, checksum);
        }
    }

    /// Tells the fragments of a packet from those of others to the same destination. What one destination sees lets it
    /// neither guess another's nor count our packets to it (RFC 7739), as long as they do not share a counter.
    fn next_ident(&mut self, destination: IpAddr) -> u32 {
        let hash = self.ident_key.address(destination);
        let counter = &mut self.idents[hash as usize % IDENTS];
        *counter = counter.wrapping_add(1);
        hash.wrapping_add(*counter)
    }

    fn send_packet(&mut self, now: Instant, path: &Path, packet: Vec<u8>, checksum: Option<(u16, u16)>) {
        let mut link = [0; eth::Header::LEN];
        match self.link_header(now, path, &mut link) {
            LinkHeader::Ready(link_len) => {
                self.enqueue(Frame { interface: path.iface, link, link_len, packet, checksum });
            }
            LinkHeader::Pending => self.park(now, path, packet),
            LinkHeader::Unreachable => self.counters.count(DropReason::NeighbourTableFull),
        }
    }

    fn enqueue(&mut self, frame: Frame) {
        // Twice the cap at which senders wait: answers and fragments find room beside them.
        if self.queue.len() >= 2 * self.config.transmit_queue {
            self.counters.count(DropReason::TransmitQueueFull);
            return;
        }
        self.queue.push_back(frame);
    }

    /// Does what the neighbours ask for.
    pub(super) fn serve_neighbours(&mut self, now: Instant) {
        while let Some(action) = self.neighbours.poll_action() {
            match action {
                Action::Ask { interface, address, link_address } => {
                    self.ask(now, interface, address, link_address)
                }
                Action::Send { interface, link_address, packet } => {
                    let Medium::Ethernet { address } = self.capabilities(interface).medium else { continue };
                    let mut link = [0; eth::Header::LEN];
                    let version = match packet.first().map(|byte| byte >> 4) {
                        Some(6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    };
                    write_header(&mut link, MacAddr(address), link_address, version);
                    let link_len = eth::Header::LEN;
                    self.enqueue(Frame { interface, link, link_len, packet, checksum: None });
                }
                Action::Fail { packet } => {
                    self.counters.count(DropReason::NeighbourUnreachable);
                    self.fail(&packet);
                }
            }
        }
    }

    fn fail(&mut self, packet: &[u8]) {
        let Ok(error) = IcmpError::about(packet, ErrorKind::HostUnreachable, false) else { return };
        if error.protocol == protocol::UDP {
            self.udp.report(&error);
        } else if self.failures.len() < MAX_FAILURES {
            self.failures.push_back(error);
        }
    }

    /// Asks who has `address`: the link-layer address that had it, or everybody.
    fn ask(&mut self, now: Instant, interface: InterfaceId, address: IpAddr, link_address: Option<MacAddr>) {
        let Medium::Ethernet { address: ours } = self.capabilities(interface).medium else { return };
        // Without an address of ours there could be no answer.
        let Some(source) = self.addresses.source(interface, address, address) else { return };
        match (source, address) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let question = arp::Packet {
                    operation: arp::Operation::Request,
                    sender: (source, MacAddr(ours)),
                    target: (target, MacAddr::default()),
                };
                self.send_arp(interface, link_address.unwrap_or(MacAddr::BROADCAST), &question);
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let question = nd::Message::Solicitation { target, source: Some(MacAddr(ours)) };
                let to = if link_address.is_some() { target } else { nd::solicited_node(target) };
                self.send_discovery(now, interface, source, to, link_address, question);
            }
            _ => {}
        }
    }

    pub(super) fn send_arp(&mut self, interface: InterfaceId, to: MacAddr, packet: &arp::Packet) {
        let mut link = [0; eth::Header::LEN];
        let header = eth::Header { destination: to, source: packet.sender.1, protocol: EtherType::Arp };
        header.emit(&mut link);
        let mut bytes = alloc::vec![0; arp::Packet::LEN];
        packet.emit(&mut bytes);
        let link_len = eth::Header::LEN;
        self.enqueue(Frame { interface, link, link_len, packet: bytes, checksum: None });
    }

    /// Sends a message of neighbour discovery, to `link_address` if that is known.
    pub(super) fn send_discovery(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        link_address: Option<MacAddr>,
        message: nd::Message,
    ) {
        let mut payload = Vec::new();
        icmp6::Message::Neighbour(message).emit(source, destination, &mut payload);
        let header = ip::Header {
            src: source.into(),
            dst: destination.into(),
            protocol: protocol::ICMPV6,
            hop_limit: nd::HOP_LIMIT,
            traffic_class: 0,
            id: 0,
            dont_fragment: true,
            payload_len: payload.len(),
        };
        let mut packet = alloc::vec![0; ipv6::Header::LEN];
        header.emit(&mut packet);
        packet.extend(payload);
        let Medium::Ethernet { address } = self.capabilities(interface).medium else { return };
        if let Some(link_address) =
            link_address.or_else(|| self.group_link_address(interface, destination.into()))
        {
            let mut link = [0; eth::Header::LEN];
            write_header(&mut link, MacAddr(address), link_address, destination.into());
            let link_len = eth::Header::LEN;
            self.enqueue(Frame { interface, link, link_len, packet, checksum: None });
            return;
        }
        let mtu = self.capabilities(interface).mtu;
        let path = Path {
            iface: interface,
            source: source.into(),
            next_hop: destination.into(),
            mtu,
            link_mtu: mtu,
        };
        self.send_packet(now, &path, packet, None);
    }

    /// Sends an ICMP message in answer to a packet.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        from: IpAddr,
        to: IpAddr,
        traffic_class: u8,
        message: &[u8],
    ) {
        let Some(path) = self.route(Some(from), to) else {
            self.counters.count(DropReason::NoRoute);
            return;
        };
        let protocol = if to.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let header = ip::Header {
            src: from,
            dst: to,
            protocol,
            hop_limit: self.config.hop_limit,
            traffic_class,
            id: 0,
            dont_fragment: true,
            payload_len: message.len(),
        };
        self.send(now, &path, &header, message, None);
    }

    /// Complains to the sender of `packet`, unless that could cause a storm (RFC 1122 §3.2.2, RFC 4443 §2.4 e, f). That
    /// the packet was for us alone is the caller's check.
    pub(super) fn send_error(&mut self, now: Instant, packet: &[u8], complaint: Complaint) {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => self.send_error_v4(now, packet, complaint),
            Some(6) => self.send_error_v6(now, packet, complaint),
            _ => {}
        }
    }

    fn send_error_v4(&mut self, now: Instant, packet: &[u8], complaint: Complaint) {
        let Ok((header, payload)) = ipv4::Header::parse_original(packet) else { return };
        let about_error = header.protocol == protocol::ICMP && icmp4::may_be_error(payload);
        if header.fragment_offset > 0
            || about_error
            || !is_possible_source(header.source.into(), true)
            || !self.error_limit.allow(now, header.source.into())
        {
            return;
        }
        // As Linux: at most 576 bytes in all (RFC 1812 §4.3.2.3).
        const LEN: usize = 576 - ipv4::Header::LEN - 8;
        let original = &packet[..packet.len().min(LEN)];
        let message = match complaint {
            Complaint::Port => icmp4::Message::Unreachable { code: icmp4::code::PORT, mtu: 0, original },
            Complaint::Protocol { .. } => {
                icmp4::Message::Unreachable { code: icmp4::code::PROTOCOL, mtu: 0, original }
            }
            Complaint::ReassemblyTime => icmp4::Message::TimeExceeded { code: 1, original },
            Complaint::Header(_) => return,
        };
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        // Precedence 6, internetwork control (RFC 1812 §4.3.2.5), and the rest of the packet's service, as Linux.
        const CONTROL: u8 = 0xc0;
        let class = header.traffic_class & 0x1e | CONTROL;
        self.answer(now, header.destination.into(), header.source.into(), class & !3, &bytes);
    }

    fn send_error_v6(&mut self, now: Instant, packet: &[u8], complaint: Complaint) {
        let Ok((header, payload)) = ipv6::Header::parse_original(packet) else { return };
        let inner = ipv6::original_payload(header.next_header, payload);
        let about_error =
            inner.is_ok_and(|(protocol, bytes)| protocol == protocol::ICMPV6 && icmp6::may_be_error(bytes));
        if about_error
            || !is_possible_source(header.source.into(), true)
            || !self.error_limit.allow(now, header.source.into())
        {
            return;
        }
        const LEN: usize = 1280 - ipv6::Header::LEN - 8;
        let original = &packet[..packet.len().min(LEN)];
        let message = match complaint {
            Complaint::Port => icmp6::Message::Unreachable { code: icmp6::code::PORT, original },
            Complaint::Protocol { named_at } => {
                icmp6::Message::ParameterProblem { code: 1, pointer: named_at, original }
            }
            Complaint::ReassemblyTime => icmp6::Message::TimeExceeded { code: 1, original },
            Complaint::Header(problem) => {
                icmp6::Message::ParameterProblem { code: problem.code, pointer: problem.pointer, original }
            }
        };
        let own = (!header.destination.is_multicast()).then(|| header.destination.into());
        let Some(Path { source: IpAddr::V6(from), .. }) = self.route(own, header.source.into()) else {
            return;
        };
        let mut bytes = Vec::new();
        message.emit(from, header.source, &mut bytes);
        self.answer(now, from.into(), header.source.into(), 0, &bytes);
    }

    /// The link-layer address of an address that stands for many.
    #[inline]
    fn group_link_address(&self, interface: InterfaceId, address: IpAddr) -> Option<MacAddr> {
        match address {
            IpAddr::V4(address) if address.is_multicast() => Some(MacAddr::of_group_v4(address)),
            IpAddr::V4(address)
                if address.is_broadcast() || self.addresses.is_subnet_broadcast(interface, address) =>
            {
                Some(MacAddr::BROADCAST)
            }
            IpAddr::V6(address) if address.is_multicast() => Some(MacAddr::of_group_v6(address)),
            _ => None,
        }
    }
}

#[inline]
fn write_header(out: &mut [u8; eth::Header::LEN], source: MacAddr, destination: MacAddr, version: IpAddr) {
    let protocol = if version.is_ipv4() { EtherType::Ipv4 } else { EtherType::Ipv6 };
    eth::Header { destination, source, protocol }.emit(out);
}
