//! Receiving: from a frame to the protocol that it is for.

use super::{Complaint, DestinationScope, InterfaceId, Medium, Network, RxMeta, Up};
use crate::checksum::{pseudo, sum};
use crate::icmp::{ErrorKind, IcmpError};
use crate::ip::address::is_possible_source;
use crate::neighbour::Advertisement;
use crate::time::Instant;
use crate::wire::eth::{self, EtherType};
use crate::wire::{DropReason, MacAddr, arp, icmp4, icmp6, ip, ipv4, ipv6, nd, protocol, tcp, udp};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A packet that is being received.
#[derive(Clone, Copy)]
struct Arrival {
    now: Instant,
    interface: InterfaceId,
    meta: RxMeta,
    /// The frame was for our link-layer address alone.
    unicast_frame: bool,
}

impl Network {
    /// Takes a frame that came over a link. `scratch` holds the packet when this frame was the missing fragment of it.
    ///
    /// # Errors
    ///
    /// Why it was dropped, which has been counted.
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        frame: &'a [u8],
        meta: RxMeta,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Up<'a>, DropReason> {
        let arrival = Arrival { now, interface, meta, unicast_frame: true };
        let result = match self.capabilities(interface).medium {
            Medium::Ip => self.packet(arrival, frame, scratch),
            Medium::Ethernet { address } => self.ethernet(arrival, MacAddr(address), frame, scratch),
        };
        if let Err(reason) = result {
            self.counters.count(reason);
        }
        result
    }

    #[inline]
    fn ethernet<'a>(
        &mut self,
        mut arrival: Arrival,
        link_address: MacAddr,
        frame: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Up<'a>, DropReason> {
        let (header, payload) = eth::Header::parse(frame)?;
        arrival.unicast_frame = header.destination == link_address;
        if !arrival.unicast_frame && !header.destination.is_multicast() {
            return Err(DropReason::EthernetOtherAddress);
        }
        match (header.protocol, payload.first().map(|byte| byte >> 4)) {
            (EtherType::Ipv4, Some(4)) | (EtherType::Ipv6, Some(6)) => self.packet(arrival, payload, scratch),
            (EtherType::Ipv4, _) => Err(DropReason::Ipv4Version),
            (EtherType::Ipv6, _) => Err(DropReason::Ipv6Version),
            (EtherType::Arp, _) => self.arp(arrival, link_address, payload).map(|()| Up::Done),
        }
    }

    #[inline]
    fn packet<'a>(
        &mut self,
        arrival: Arrival,
        packet: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Up<'a>, DropReason> {
        match packet.first().map(|byte| byte >> 4) {
            Some(6) => self.ipv6(arrival, packet, Some(scratch)),
            _ => self.ipv4(arrival, packet, Some(scratch)),
        }
    }

    /// Without `scratch` the packet was put together, and is no fragment again.
    #[inline]
    fn ipv4<'a>(
        &mut self,
        arrival: Arrival,
        packet: &'a [u8],
        scratch: Option<&'a mut Vec<u8>>,
    ) -> Result<Up<'a>, DropReason> {
        let (header, payload) = ipv4::Header::parse(packet)?;
        let packet = &packet[..packet.len().min(ipv4_len(packet))];
        let looped = arrival.interface == InterfaceId::LOOPBACK;
        if !is_possible_source(header.source.into(), looped)
            || self.addresses.is_subnet_broadcast(arrival.interface, header.source)
            || (header.destination.is_loopback() && !looped)
        {
            return Err(DropReason::Ipv4Address);
        }
        let destination_scope =
            self.addresses.destination_scope(arrival.interface, header.destination.into());
        if destination_scope == DestinationScope::Others {
            return Err(DropReason::NotLocal);
        }
        if header.is_fragment() {
            let scratch = scratch.ok_or(DropReason::FragmentInvalid)?;
            if !self.reassembly.add_v4(arrival.now, &header, packet, payload, scratch)? {
                return Ok(Up::Done);
            }
            // The checksum of a link is one fragment's, and not the whole's.
            let arrival = Arrival { meta: RxMeta::default(), ..arrival };
            return self.ipv4(arrival, scratch, None);
        }
        let ip = ip::Header::of_v4(&header, payload.len());
        match header.protocol {
            protocol::TCP => {
                tcp_arrives(arrival, destination_scope, &ip, payload)?;
                Ok(Up::Tcp { ip, segment: payload, gso_size: arrival.meta.gso_size })
            }
            protocol::UDP => self.udp(arrival, destination_scope, ip, packet, payload),
            protocol::ICMP => self.icmp4(arrival, destination_scope, &header, payload),
            _ => self.unknown_protocol(arrival, destination_scope, packet, 9),
        }
    }

    /// As [`ipv4`](Self::ipv4).
    #[inline]
    fn ipv6<'a>(
        &mut self,
        arrival: Arrival,
        packet: &'a [u8],
        scratch: Option<&'a mut Vec<u8>>,
    ) -> Result<Up<'a>, DropReason> {
        let (header, rest) = ipv6::Header::parse(packet)?;
        let packet = &packet[..ipv6::Header::LEN + rest.len()];
        let looped = arrival.interface == InterfaceId::LOOPBACK;
        // Who has no address yet may ask for the neighbour who has it; a mapped address is on no wire.
        let nobody = header.source.is_unspecified();
        if (!nobody && !is_possible_source(header.source.into(), looped))
            || (header.destination.is_loopback() && !looped)
            || header.source.to_ipv4_mapped().is_some()
        {
            return Err(DropReason::Ipv6Address);
        }
        let destination_scope =
            self.addresses.destination_scope(arrival.interface, header.destination.into());
        if destination_scope == DestinationScope::Others {
            return Err(DropReason::NotLocal);
        }
        let payload = match ipv6::payload(header.next_header, rest, ipv6::Header::LEN) {
            Ok(payload) => payload,
            Err(refused) => {
                if let Some(problem) = refused.problem
                    && (destination_scope == DestinationScope::Us || problem.even_to_multicast)
                {
                    self.send_error(arrival.now, packet, Complaint::Header(problem));
                }
                return Err(refused.reason);
            }
        };
        let (protocol, payload) = match payload {
            ipv6::Payload::Whole { protocol, bytes } => (protocol, bytes),
            ipv6::Payload::Nothing => return Ok(Up::Done),
            ipv6::Payload::Part { fragment, bytes } => {
                let scratch = scratch.ok_or(DropReason::FragmentInvalid)?;
                if !self.reassembly.add_v6(arrival.now, &header, fragment, packet, bytes, scratch)? {
                    return Ok(Up::Done);
                }
                let arrival = Arrival { meta: RxMeta::default(), ..arrival };
                return self.ipv6(arrival, scratch, None);
            }
        };
        if nobody && protocol != protocol::ICMPV6 {
            return Err(DropReason::Ipv6Address);
        }
        let ip = ip::Header::of_v6(&header, protocol, payload.len());
        match protocol {
            protocol::TCP => {
                tcp_arrives(arrival, destination_scope, &ip, payload)?;
                Ok(Up::Tcp { ip, segment: payload, gso_size: arrival.meta.gso_size })
            }
            protocol::UDP => self.udp(arrival, destination_scope, ip, packet, payload),
            protocol::ICMPV6 => self.icmp6(arrival, destination_scope, &header, payload),
            // Directly behind the fixed header in nearly all packets; behind others Linux points here as well.
            _ => self.unknown_protocol(arrival, destination_scope, packet, 6),
        }
    }

    fn udp<'a>(
        &mut self,
        arrival: Arrival,
        destination_scope: DestinationScope,
        ip: ip::Header,
        packet: &[u8],
        payload: &[u8],
    ) -> Result<Up<'a>, DropReason> {
        let result = self.deliver(arrival, ip, payload);
        // No complaints about what many got (RFC 1122 §3.2.2).
        if result == Err(DropReason::UdpPort)
            && destination_scope == DestinationScope::Us
            && arrival.unicast_frame
        {
            self.send_error(arrival.now, packet, Complaint::Port);
        }
        result.map(|()| Up::Done)
    }

    fn deliver(&mut self, arrival: Arrival, ip: ip::Header, payload: &[u8]) -> Result<(), DropReason> {
        let (header, bytes) = udp::Header::parse(ip.src, ip.dst, payload, arrival.meta.checksum_ok)?;
        let from = SocketAddr::new(ip.src, header.src_port);
        let to = SocketAddr::new(ip.dst, header.dst_port);
        self.udp.deliver(from, to, ip.traffic_class, bytes, arrival.meta.gso_size)
    }

    #[cold]
    fn unknown_protocol<'a>(
        &mut self,
        arrival: Arrival,
        destination_scope: DestinationScope,
        packet: &[u8],
        named_at: u32,
    ) -> Result<Up<'a>, DropReason> {
        if destination_scope == DestinationScope::Us && arrival.unicast_frame {
            self.send_error(arrival.now, packet, Complaint::Protocol { named_at });
        }
        Err(DropReason::Protocol)
    }

    fn arp(&mut self, arrival: Arrival, link_address: MacAddr, payload: &[u8]) -> Result<(), DropReason> {
        let packet = arp::Packet::parse(payload)?;
        let (sender, sender_link_address) = packet.sender;
        let for_us = self.addresses.destination_scope(arrival.interface, packet.target.0.into())
            == DestinationScope::Us
            && !packet.target.0.is_loopback();
        if self.is_local(sender.into()) {
            // From ourselves, or from a host with our address: neither is a neighbour.
            return Err(DropReason::ArpAddress);
        }
        match packet.operation {
            arp::Operation::Request if for_us => {
                // Who only asks whether the address is free (RFC 5227) has none yet, but gets the answer.
                if !sender.is_unspecified() {
                    self.neighbours.heard_question(arrival.interface, sender.into(), sender_link_address);
                }
                let answer = arp::Packet {
                    operation: arp::Operation::Reply,
                    sender: (packet.target.0, link_address),
                    target: packet.sender,
                };
                self.send_arp(arrival.interface, sender_link_address, &answer);
            }
            // Told to everybody: whoever knows the sender learns its new link-layer address. An answer that is not for us tells
            // as much.
            _ => {
                let answer = Advertisement {
                    link_address: Some(sender_link_address),
                    solicited: packet.operation == arp::Operation::Reply && for_us && arrival.unicast_frame,
                    overrides: true,
                };
                self.neighbours.heard_answer(arrival.now, arrival.interface, sender.into(), answer);
            }
        }
        self.serve_neighbours(arrival.now);
        Ok(())
    }

    #[cold]
    fn icmp4<'a>(
        &mut self,
        arrival: Arrival,
        destination_scope: DestinationScope,
        header: &ipv4::Header,
        payload: &[u8],
    ) -> Result<Up<'a>, DropReason> {
        let message = icmp4::Message::parse(payload)?;
        match message {
            icmp4::Message::EchoRequest(_) if destination_scope == DestinationScope::Group => {
                Err(DropReason::IcmpBroadcast)
            }
            icmp4::Message::EchoRequest(echo) => {
                if self.config.answer_echo {
                    let mut answer = Vec::with_capacity(payload.len());
                    icmp4::Message::EchoReply(echo).emit(&mut answer);
                    let (from, to): (Ipv4Addr, Ipv4Addr) = (header.destination, header.source);
                    // As Linux: the answer has the service of the question (RFC 1122 §3.2.2.6).
                    self.answer(arrival.now, from.into(), to.into(), header.traffic_class & !3, &answer);
                }
                Ok(Up::Done)
            }
            // Nobody here asks.
            icmp4::Message::EchoReply(_) => Err(DropReason::IcmpType),
            icmp4::Message::Unreachable { original, .. }
            | icmp4::Message::TimeExceeded { original, .. }
            | icmp4::Message::ParameterProblem { original, .. } => {
                let (kind, fatal) = ErrorKind::of_v4(&message).ok_or(DropReason::IcmpType)?;
                self.reported(arrival.now, original, kind, fatal)
            }
            icmp4::Message::SourceQuench { .. } => Err(DropReason::IcmpType),
        }
    }

    #[cold]
    fn icmp6<'a>(
        &mut self,
        arrival: Arrival,
        destination_scope: DestinationScope,
        header: &ipv6::Header,
        payload: &[u8],
    ) -> Result<Up<'a>, DropReason> {
        let message = icmp6::Message::parse(header.source, header.destination, header.hop_limit, payload)?;
        match message {
            icmp6::Message::Neighbour(message) => {
                self.neighbour_discovery(arrival, header, message).map(|()| Up::Done)
            }
            _ if header.source.is_unspecified() => Err(DropReason::Ipv6Address),
            icmp6::Message::EchoRequest(echo) => {
                // Unlike IPv4's, a question to a group is answered, from an address of ours (RFC 4443 §4.2).
                let from = match destination_scope {
                    DestinationScope::Us => Some(IpAddr::V6(header.destination)),
                    _ => self.route(None, header.source.into()).map(|path| path.source),
                };
                if let Some(IpAddr::V6(from)) = from.filter(|_| self.config.answer_echo) {
                    let mut answer = Vec::with_capacity(payload.len());
                    icmp6::Message::EchoReply(echo).emit(from, header.source, &mut answer);
                    let to: Ipv6Addr = header.source;
                    self.answer(arrival.now, from.into(), to.into(), 0, &answer);
                }
                Ok(Up::Done)
            }
            icmp6::Message::EchoReply(_) => Err(DropReason::IcmpType),
            icmp6::Message::Unreachable { original, .. }
            | icmp6::Message::TooBig { original, .. }
            | icmp6::Message::TimeExceeded { original, .. }
            | icmp6::Message::ParameterProblem { original, .. } => {
                let (kind, fatal) = ErrorKind::of_v6(&message).ok_or(DropReason::IcmpType)?;
                self.reported(arrival.now, original, kind, fatal)
            }
        }
    }

    fn neighbour_discovery(
        &mut self,
        arrival: Arrival,
        header: &ipv6::Header,
        message: nd::Message,
    ) -> Result<(), DropReason> {
        let Medium::Ethernet { address } = self.capabilities(arrival.interface).medium else {
            return Err(DropReason::NdiscInvalid);
        };
        match message {
            nd::Message::Solicitation { target, source } => {
                if !self.is_local(target.into()) || target.is_loopback() {
                    return Err(DropReason::NotLocal);
                }
                let probe = header.source.is_unspecified();
                if let Some(link_address) = source {
                    self.neighbours.heard_question(arrival.interface, header.source.into(), link_address);
                }
                // RFC 4861 §7.2.4: to all nodes when the asker has no address.
                let to = if probe { nd::ALL_NODES } else { header.source };
                let answer = nd::Message::Advertisement {
                    target,
                    link_address: Some(MacAddr(address)),
                    router: false,
                    solicited: !probe,
                    overrides: true,
                };
                self.send_discovery(arrival.now, arrival.interface, target, to, source, answer);
            }
            nd::Message::Advertisement { target, link_address, solicited, overrides, .. } => {
                if self.is_local(target.into()) {
                    return Err(DropReason::NdiscInvalid);
                }
                let answer = Advertisement { link_address, solicited, overrides };
                self.neighbours.heard_answer(arrival.now, arrival.interface, target.into(), answer);
            }
        }
        self.serve_neighbours(arrival.now);
        Ok(())
    }

    /// Tells the transport of an error about a packet of ours.
    fn reported<'a>(
        &mut self,
        now: Instant,
        original: &[u8],
        kind: ErrorKind,
        fatal: bool,
    ) -> Result<Up<'a>, DropReason> {
        let error = IcmpError::about(original, kind, fatal)?;
        if !self.is_local(error.local.ip()) {
            return Err(DropReason::IcmpOriginal);
        }
        if error.protocol == protocol::TCP {
            return Ok(Up::Error(error));
        }
        if !self.udp.report(&error) {
            return Err(DropReason::IcmpOriginal);
        }
        if let ErrorKind::TooBig { mtu } = kind {
            self.set_path_mtu(now, error.remote.ip(), mtu);
        }
        Ok(Up::Done)
    }
}

/// Bytes of an IPv4 packet that has been parsed.
fn ipv4_len(packet: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([packet[2], packet[3]]))
}

/// Whether a segment is intact and for us alone.
#[inline(always)] // else the header is written in pieces, and waits for the memory when it is read again at once
fn tcp_arrives(
    arrival: Arrival,
    destination_scope: DestinationScope,
    ip: &ip::Header,
    segment: &[u8],
) -> Result<(), DropReason> {
    // RFC 9293 §3.9.2.3 (MUST-57): TCP has one other end.
    if destination_scope == DestinationScope::Group || !arrival.unicast_frame {
        return Err(DropReason::TcpAddress);
    }
    if !arrival.meta.checksum_ok {
        if segment.len() < tcp::MIN_LEN {
            return Err(DropReason::TcpTruncated);
        }
        let pseudo = pseudo(ip.src, ip.dst, protocol::TCP, segment.len() as u32);
        if !(pseudo + sum(segment)).is_intact() {
            return Err(DropReason::TcpChecksum);
        }
    }
    Ok(())
}
