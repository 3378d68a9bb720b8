//! Two parsers of other people beside ours, smoltcp's and etherparse's: what ours takes, they read in the same way, and
//! what ours refuses, they refuse, except where ours is stricter on purpose. The tests call this with made-up packets,
//! libFuzzer with its own.

use smoltcp::wire as theirs;
use sockshim_tcpip::checksum::{Sum, finish, pseudo, sum};
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::wire::{DropReason, arp, eth, icmp4, icmp6, ipv4, ipv6, nd, protocol, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const DESTINATION6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// Gives the bytes to each parser as what it reads: as they are, and with the right checksum.
pub(crate) fn all(bytes: &[u8]) {
    frame(bytes);
    ipv6_packet(bytes);
    tcp_segment(bytes);
    arp_packet(bytes);
    let (source6, destination6) = (SOURCE6.into(), DESTINATION6.into());
    let header_len = bytes.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    let datagram_len = bytes.get(4..6).map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
    let len = bytes.len() as u32;
    let udp = |source, destination| pseudo(source, destination, protocol::UDP, datagram_len as u32);
    for read in [ipv4_packet, udp_datagram, icmp4_message, icmp6_message] {
        read(bytes);
    }
    ipv4_packet(&repaired(bytes, header_len, 10, Sum::default()));
    udp_datagram(&repaired(bytes, datagram_len, 6, udp(SOURCE.into(), DESTINATION.into())));
    udp_datagram(&repaired(bytes, datagram_len, 6, udp(source6, destination6)));
    icmp4_message(&repaired(bytes, bytes.len(), 2, Sum::default()));
    let start = pseudo(source6, destination6, protocol::ICMPV6, len);
    icmp6_message(&repaired(bytes, bytes.len(), 2, start));
}

/// With the checksum at `field` that makes `start` and the first `len` bytes intact.
fn repaired(bytes: &[u8], len: usize, field: usize, start: Sum) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if field + 2 <= len && len <= bytes.len() {
        bytes[field..field + 2].fill(0);
        let checksum = finish(start + sum(&bytes[..len]));
        bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// Under libFuzzer smoltcp takes every checksum (its `cfg!(fuzzing)`): then it cannot judge this refusal.
const THEIRS_CHECK_SUMS: bool = !cfg!(fuzzing);

fn frame(bytes: &[u8]) {
    let other = theirs::EthernetFrame::new_checked(bytes);
    match eth::Header::parse(bytes) {
        Ok((header, payload)) => {
            let other = other.expect("smoltcp reads the frame");
            assert_eq!(header.destination.0, other.dst_addr().0);
            assert_eq!(header.source.0, other.src_addr().0);
            assert_eq!(header.protocol.number(), u16::from(other.ethertype()));
            assert_eq!(payload, other.payload());
        }
        Err(DropReason::EthernetType) => {}
        Err(_) => assert!(other.is_err()),
    }
}

fn ipv4_packet(bytes: &[u8]) {
    let other = theirs::Ipv4Packet::new_checked(bytes)
        .ok()
        .filter(|other| other.version() == 4 && other.verify_checksum());
    match ipv4::Header::parse(bytes) {
        Ok((header, payload)) => {
            let other = other.expect("smoltcp reads the packet");
            assert_eq!(header.source, other.src_addr());
            assert_eq!(header.destination, other.dst_addr());
            assert_eq!(header.protocol, u8::from(other.next_header()));
            assert_eq!(header.ttl, other.hop_limit());
            assert_eq!(header.traffic_class, other.dscp() << 2 | other.ecn());
            assert_eq!(header.ident, other.ident());
            assert_eq!(header.dont_fragment, other.dont_frag());
            assert_eq!(header.more_fragments, other.more_frags());
            assert_eq!(header.fragment_offset, other.frag_offset());
            assert_eq!(payload, other.payload());
            let (third, _) = etherparse::Ipv4Header::from_slice(bytes).expect("etherparse reads the header");
            assert_eq!(
                (header.source.octets(), header.destination.octets()),
                (third.source, third.destination)
            );
            assert_eq!(header.fragment_offset, third.fragment_offset.byte_offset());
            assert_eq!(usize::from(third.total_len), payload.len() + third.header_len());
        }
        Err(DropReason::Ipv4Options) => assert!(other.is_some()),
        Err(DropReason::Ipv4Checksum) if !THEIRS_CHECK_SUMS => {}
        Err(reason) => assert!(other.is_none(), "{reason}"),
    }
}

fn ipv6_packet(bytes: &[u8]) {
    let other = theirs::Ipv6Packet::new_checked(bytes).ok().filter(|other| other.version() == 6);
    match ipv6::Header::parse(bytes) {
        Ok((header, payload)) => {
            let other = other.expect("smoltcp reads the packet");
            assert_eq!(header.source, other.src_addr());
            assert_eq!(header.destination, other.dst_addr());
            assert_eq!(header.next_header, u8::from(other.next_header()));
            assert_eq!(header.hop_limit, other.hop_limit());
            assert_eq!(header.traffic_class, other.traffic_class());
            assert_eq!(header.flow_label, other.flow_label());
            assert_eq!(payload, other.payload());
            let (third, _) = etherparse::Ipv6Header::from_slice(bytes).expect("etherparse reads the header");
            assert_eq!(header.flow_label, third.flow_label.value());
            extensions(header, payload);
        }
        Err(reason) => assert!(other.is_none(), "{reason}"),
    }
}

/// Where our walk over extension headers ends with a payload, etherparse's ends too.
fn extensions(header: ipv6::Header, bytes: &[u8]) {
    let ours = ipv6::payload(header.next_header, bytes, ipv6::Header::LEN);
    let Ok(ipv6::Payload::Whole { protocol, bytes: payload }) = ours else { return };
    // etherparse knows headers that ours hands on as an unknown protocol.
    let unknown_here = [51, 135, 139, 140].contains(&protocol);
    // It keeps one header of each kind and stops at a second, which RFC 8200 §4.1 has a receiver take.
    let mut seen = [0; 256];
    let (mut next, mut rest) = (header.next_header, bytes);
    while rest.len() != payload.len() {
        seen[usize::from(next)] += 1;
        let len = if next == 44 { 8 } else { (usize::from(rest[1]) + 1) * 8 };
        (next, rest) = (rest[0], &rest[len..]);
    }
    if unknown_here || seen.iter().any(|times| *times > 1) {
        return;
    }
    let first = etherparse::IpNumber(header.next_header);
    if let Ok((_, third, rest)) = etherparse::Ipv6Extensions::from_slice(first, bytes)
        && rest.len() == payload.len()
    {
        assert_eq!(protocol, third.0);
    }
}

fn tcp_segment(bytes: &[u8]) {
    let other = theirs::TcpPacket::new_checked(bytes);
    let third = etherparse::TcpHeader::from_slice(bytes);
    match tcp::parse(bytes) {
        Ok((header, offset)) => {
            let other = other.expect("smoltcp reads the segment");
            let (third, rest) = third.expect("etherparse reads the segment");
            assert_eq!((header.src_port, header.dst_port), (other.src_port(), other.dst_port()));
            assert_eq!(header.seq.get(), other.seq_number().0 as u32);
            assert_eq!(header.ack.get(), other.ack_number().0 as u32);
            assert_eq!(header.window, other.window_len());
            assert_eq!(header.urgent, other.urgent_at());
            assert_eq!(&bytes[offset..], other.payload());
            assert_eq!(&bytes[offset..], rest);
            for (flag, smoltcp, etherparse) in [
                (tcp::Flags::FIN, other.fin(), third.fin),
                (tcp::Flags::SYN, other.syn(), third.syn),
                (tcp::Flags::RST, other.rst(), third.rst),
                (tcp::Flags::PSH, other.psh(), third.psh),
                (tcp::Flags::ACK, other.ack(), third.ack),
                (tcp::Flags::URG, other.urg(), third.urg),
                (tcp::Flags::ECE, other.ece(), third.ece),
                (tcp::Flags::CWR, other.cwr(), third.cwr),
                (tcp::Flags::NS, other.ns(), third.ns),
            ] {
                assert_eq!(header.flags.contains(flag), smoltcp, "{flag:?}");
                assert_eq!(header.flags.contains(flag), etherparse, "{flag:?}");
            }
            options(&header, other.options());
        }
        Err(reason) => assert!(other.is_err() && third.is_err(), "{reason}"),
    }
}

fn options(header: &tcp::Header, mut bytes: &[u8]) {
    let mut expected = tcp::Options::default();
    let mut blocks: Vec<(SeqNumber, SeqNumber)> = Vec::new();
    let syn = header.flags.contains(tcp::Flags::SYN);
    while !bytes.is_empty() {
        // smoltcp gives the segment up at an option that we, as Linux, skip or stop at.
        let Ok((rest, option)) = theirs::TcpOption::parse(bytes) else { return };
        bytes = rest;
        match option {
            theirs::TcpOption::EndOfList => break,
            theirs::TcpOption::MaxSegmentSize(mss) if syn && mss > 0 => expected.mss = Some(mss),
            theirs::TcpOption::WindowScale(shift) if syn => expected.window_scale = Some(shift.min(14)),
            theirs::TcpOption::SackPermitted if syn => expected.sack_permitted = true,
            theirs::TcpOption::TimeStamp { tsval, tsecr } => {
                expected.timestamps = Some(tcp::Timestamps { value: tsval, echo: tsecr });
            }
            theirs::TcpOption::SackRange(ranges) => {
                let ranges = ranges.into_iter().flatten();
                blocks = ranges.map(|(from, to)| (SeqNumber::new(from), SeqNumber::new(to))).collect();
            }
            _ => {}
        }
    }
    // smoltcp keeps three blocks of four.
    let ours = header.options.sack.as_slice();
    assert_eq!(&ours[..ours.len().min(3)], &blocks[..]);
    expected.sack = header.options.sack;
    assert_eq!(header.options, expected);
}

fn udp_datagram(bytes: &[u8]) {
    let addresses = |v6| -> (IpAddr, IpAddr) {
        if v6 { (SOURCE6.into(), DESTINATION6.into()) } else { (SOURCE.into(), DESTINATION.into()) }
    };
    for v6 in [false, true] {
        let (source, destination) = addresses(v6);
        let other = theirs::UdpPacket::new_checked(bytes);
        match udp::Header::parse(source, destination, bytes, false) {
            Ok((header, payload)) => {
                let other = other.expect("smoltcp reads the datagram");
                assert!(other.verify_checksum(&source.into(), &destination.into()));
                assert_eq!((header.src_port, header.dst_port), (other.src_port(), other.dst_port()));
                assert_eq!(payload, other.payload());
            }
            Err(DropReason::UdpPort) => assert_eq!(other.expect("it is read").dst_port(), 0),
            Err(DropReason::UdpChecksum) => {
                let other = other.expect("only its checksum is wrong");
                let right = other.verify_checksum(&source.into(), &destination.into());
                assert!(other.checksum() == 0 || !right || !THEIRS_CHECK_SUMS);
            }
            Err(reason) => assert!(other.is_err(), "{reason}"),
        }
    }
}

fn icmp4_message(bytes: &[u8]) {
    let caps = smoltcp::phy::ChecksumCapabilities::default();
    let other = theirs::Icmpv4Packet::new_checked(bytes)
        .ok()
        .and_then(|packet| theirs::Icmpv4Repr::parse(&packet, &caps).ok());
    match (icmp4::Message::parse(bytes), other) {
        (
            Ok(icmp4::Message::EchoRequest(echo)),
            Some(theirs::Icmpv4Repr::EchoRequest { ident, seq_no, data }),
        )
        | (
            Ok(icmp4::Message::EchoReply(echo)),
            Some(theirs::Icmpv4Repr::EchoReply { ident, seq_no, data }),
        ) => assert_eq!((echo.ident, echo.sequence, echo.data), (ident, seq_no, data)),
        (
            Ok(icmp4::Message::Unreachable { original, .. } | icmp4::Message::TimeExceeded { original, .. }),
            Some(
                theirs::Icmpv4Repr::DstUnreachable { header, data, .. }
                | theirs::Icmpv4Repr::TimeExceeded { header, data, .. },
            ),
        ) => {
            // smoltcp does not look at the version of what is quoted.
            if let Ok((quoted, payload)) = ipv4::Header::parse_original(original) {
                assert_eq!((quoted.source, quoted.destination), (header.src_addr, header.dst_addr));
                assert!(payload.starts_with(data) || data.starts_with(payload));
            }
        }
        // smoltcp wants a whole header in an error, and knows neither quench nor problems; unknown codes it takes.
        (
            Ok(
                icmp4::Message::Unreachable { .. }
                | icmp4::Message::TimeExceeded { .. }
                | icmp4::Message::SourceQuench { .. }
                | icmp4::Message::ParameterProblem { .. },
            ),
            None,
        )
        | (Err(DropReason::IcmpType), _)
        | (Err(_), None) => {}
        (Err(DropReason::IcmpChecksum), _) if !THEIRS_CHECK_SUMS => {}
        (ours, other) => panic!("{ours:?} {other:?}"),
    }
}

fn icmp6_message(bytes: &[u8]) {
    let caps = smoltcp::phy::ChecksumCapabilities::default();
    let other = theirs::Icmpv6Packet::new_checked(bytes)
        .ok()
        .and_then(|packet| theirs::Icmpv6Repr::parse(&SOURCE6, &DESTINATION6, &packet, &caps).ok());
    let ours = icmp6::Message::parse(SOURCE6, DESTINATION6, nd::HOP_LIMIT, bytes);
    match (ours, other) {
        (
            Ok(icmp6::Message::EchoRequest(echo)),
            Some(theirs::Icmpv6Repr::EchoRequest { ident, seq_no, data }),
        )
        | (
            Ok(icmp6::Message::EchoReply(echo)),
            Some(theirs::Icmpv6Repr::EchoReply { ident, seq_no, data }),
        ) => assert_eq!((echo.ident, echo.sequence, echo.data), (ident, seq_no, data)),
        (Ok(icmp6::Message::Neighbour(ours)), Some(theirs::Icmpv6Repr::Ndisc(other))) => {
            match (ours, other) {
                (
                    nd::Message::Solicitation { target, source },
                    theirs::NdiscRepr::NeighborSolicit { target_addr, lladdr },
                ) => {
                    assert_eq!(target, target_addr);
                    // Of two such options we take the first, as Linux does (`ndisc_parse_options`); smoltcp the last.
                    if let (32, Some(source), Some(lladdr)) = (bytes.len(), source, lladdr) {
                        assert_eq!(&source.0, lladdr.as_bytes());
                    }
                }
                (
                    nd::Message::Advertisement { target, solicited, router, overrides, .. },
                    theirs::NdiscRepr::NeighborAdvert { flags, target_addr, .. },
                ) => {
                    assert_eq!(target, target_addr);
                    assert_eq!(solicited, flags.contains(theirs::NdiscNeighborFlags::SOLICITED));
                    assert_eq!(router, flags.contains(theirs::NdiscNeighborFlags::ROUTER));
                    assert_eq!(overrides, flags.contains(theirs::NdiscNeighborFlags::OVERRIDE));
                }
                (ours, other) => panic!("{ours:?} {other:?}"),
            }
        }
        _ => {}
    }
}

fn arp_packet(bytes: &[u8]) {
    let other =
        theirs::ArpPacket::new_checked(bytes).ok().and_then(|packet| theirs::ArpRepr::parse(&packet).ok());
    match (arp::Packet::parse(bytes), other) {
        (Ok(ours), Some(theirs::ArpRepr::EthernetIpv4 { operation, source_hardware_addr, .. })) => {
            let Some(theirs::ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. }) =
                other
            else {
                return;
            };
            assert_eq!(ours.sender, (source_protocol_addr, eth::MacAddr(source_hardware_addr.0)));
            assert_eq!(ours.target.0, target_protocol_addr);
            let request = operation == theirs::ArpOperation::Request;
            assert_eq!(ours.operation == arp::Operation::Request, request);
        }
        (Ok(ours), other) => panic!("{ours:?} {other:?}"),
        (Err(DropReason::ArpAddress), Some(_)) | (Err(_), None) => {}
        (Err(reason), Some(theirs::ArpRepr::EthernetIpv4 { operation, .. })) => {
            assert!(matches!(operation, theirs::ArpOperation::Unknown(_)), "{reason}");
        }
        (Err(reason), other) => panic!("{reason} {other:?}"),
    }
}
