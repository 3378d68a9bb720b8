use super::*;
use crate::udp::{Options, UdpError};
use crate::wire::{eth, icmp4, icmp6, ipv4, ipv6, protocol, tcp};
use core::net::SocketAddr;

const LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const LINK: InterfaceId = InterfaceId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn host(link_address: [u8; 6], last: u8, mtu: u32) -> Network {
    let mut network = Network::new(Config::default(), [1, 2, 3, u64::from(last)]);
    let medium = Medium::Ethernet { address: link_address };
    let link = network.add_interface(Capabilities { medium, mtu, tx_checksum: false, gso_max: 0 });
    assert_eq!(link, LINK);
    network.add_address(link, IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 24);
    network.add_address(link, IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())), 64);
    network
}

/// Two hosts and the link between them.
struct Pair {
    now: Instant,
    a: Network,
    b: Network,
    /// What went over the link, from `a` (true) or `b`.
    seen: Vec<(bool, Vec<u8>)>,
}

impl Pair {
    fn new(mtu: u32) -> Self {
        Self {
            now: Instant::from_secs(100),
            a: host(LINK_ADDRESS, 1, mtu),
            b: host(OTHER_LINK_ADDRESS, 2, mtu),
            seen: Vec::new(),
        }
    }

    /// Carries frames until there are none, and returns the last thing that TCP got to see.
    #[track_caller]
    fn carry(&mut self) {
        for _ in 0..10_000 {
            let mut frame = Vec::new();
            let from_a = self.a.poll_transmit(self.now, &mut frame).is_some();
            if !from_a && self.b.poll_transmit(self.now, &mut frame).is_none() {
                return;
            }
            let to = if from_a { &mut self.b } else { &mut self.a };
            let _ = to.receive(self.now, LINK, &frame, RxMeta::default(), &mut Vec::new());
            self.seen.push((from_a, frame));
        }
        panic!("the hosts talk without end");
    }
}

fn received(network: &mut Network, packet: &[u8]) -> Result<Up<'static>, DropReason> {
    received_by(network, OTHER_LINK_ADDRESS, LINK_ADDRESS, packet)
}

/// Gives a host a packet in a frame; what is handed up must be nothing that borrows.
fn received_by(
    network: &mut Network,
    from: [u8; 6],
    to: [u8; 6],
    packet: &[u8],
) -> Result<Up<'static>, DropReason> {
    let frame = framed(from, to, packet);
    let mut scratch = Vec::new();
    match network.receive(Instant::from_secs(100), LINK, &frame, RxMeta::default(), &mut scratch)? {
        Up::Done => Ok(Up::Done),
        Up::Error(error) => Ok(Up::Error(error)),
        Up::Tcp { ip, gso_size, .. } => Ok(Up::Tcp { ip, segment: &[], gso_size }),
    }
}

fn framed(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let protocol = if packet[0] >> 4 == 6 { eth::EtherType::Ipv6 } else { eth::EtherType::Ipv4 };
    let header =
        eth::Header { destination: crate::wire::MacAddr(to), source: crate::wire::MacAddr(from), protocol };
    let mut frame = alloc::vec![0; eth::Header::LEN];
    header.emit(&mut frame);
    frame.extend_from_slice(packet);
    frame
}

fn packet(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ip::Header {
        src: ip(src),
        dst: ip(dst),
        protocol,
        hop_limit: 64,
        traffic_class: 0,
        id: 0,
        dont_fragment: true,
        payload_len: payload.len(),
    };
    let mut packet = alloc::vec![0; header.len()];
    header.emit(&mut packet);
    packet.extend_from_slice(payload);
    packet
}

fn udp_packet(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (end(src), end(dst));
    let mut datagram = alloc::vec![0; 8];
    datagram.extend_from_slice(payload);
    let header = crate::wire::udp::Header { src_port: src.port(), dst_port: dst.port() };
    header.emit(src.ip(), dst.ip(), &mut datagram, false);
    packet(&std::format!("{}", src.ip()), &std::format!("{}", dst.ip()), protocol::UDP, &datagram)
}

fn tcp_packet(src: &str, dst: &str) -> Vec<u8> {
    let (source, destination) = (end(src), end(dst));
    let header = tcp::Header {
        src_port: source.port(),
        dst_port: destination.port(),
        seq: crate::seq::SeqNumber::new(0x0102_0304),
        ack: crate::seq::SeqNumber::new(0),
        flags: tcp::Flags::SYN,
        window: 1000,
        urgent: 0,
        options: tcp::Options::default(),
    };
    let mut segment = alloc::vec![0; header.len()];
    header.emit(&mut segment);
    let pseudo = crate::checksum::pseudo(source.ip(), destination.ip(), protocol::TCP, segment.len() as u32);
    let checksum = crate::checksum::finish(pseudo + crate::checksum::sum(&segment));
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet(&std::format!("{}", source.ip()), &std::format!("{}", destination.ip()), protocol::TCP, &segment)
}

/// The ICMP error that a host wants to send: type, code and the packet it quotes.
#[track_caller]
fn complaint(network: &mut Network) -> Option<(u8, u8, Vec<u8>)> {
    let now = Instant::from_secs(100);
    loop {
        let mut frame = Vec::new();
        network.poll_transmit(now, &mut frame)?;
        match frame[12..14] {
            [0x08, 0x06] => {
                // Tell it our link-layer address, so that what it has to say gets out.
                let question = crate::wire::arp::Packet::parse(&frame[14..]).unwrap();
                let answer = crate::wire::arp::Packet {
                    operation: crate::wire::arp::Operation::Reply,
                    sender: (question.target.0, crate::wire::MacAddr(OTHER_LINK_ADDRESS)),
                    target: question.sender,
                };
                let mut bytes = framed(OTHER_LINK_ADDRESS, LINK_ADDRESS, &[0x45; 28]);
                bytes[12..14].copy_from_slice(&[8, 6]);
                answer.emit(&mut bytes[14..]);
                network.receive(now, LINK, &bytes, RxMeta::default(), &mut Vec::new()).unwrap();
            }
            [0x08, 0x00] => {
                let (_, payload) = ipv4::Header::parse(&frame[14..]).unwrap();
                icmp4::Message::parse(payload).unwrap();
                return Some((payload[0], payload[1], payload[8..].to_vec()));
            }
            _ => {
                let (header, payload) = ipv6::Header::parse(&frame[14..]).unwrap();
                if let Ok(icmp6::Message::Neighbour(question)) =
                    icmp6::Message::parse(header.source, header.destination, header.hop_limit, payload)
                {
                    let crate::wire::nd::Message::Solicitation { target, .. } = question else { continue };
                    let answer = crate::wire::nd::Message::Advertisement {
                        target,
                        link_address: Some(crate::wire::MacAddr(OTHER_LINK_ADDRESS)),
                        router: false,
                        solicited: true,
                        overrides: true,
                    };
                    let mut message = Vec::new();
                    icmp6::Message::Neighbour(answer).emit(target, header.source, &mut message);
                    let mut bytes = alloc::vec![0; ipv6::Header::LEN];
                    let outer = ipv6::Header {
                        hop_limit: 255,
                        ..ipv6::Header::new(target, header.source, protocol::ICMPV6)
                    };
                    outer.emit(message.len(), &mut bytes);
                    bytes.extend(message);
                    received(network, &bytes).unwrap();
                    continue;
                }
                return Some((payload[0], payload[1], payload[8..].to_vec()));
            }
        }
    }
}

#[test]
fn a_datagram_finds_its_neighbour_and_its_socket() {
    for (a, b) in [("10.0.0.1", "10.0.0.2:7"), ("fd00::1", "[fd00::2]:7")] {
        let mut pair = Pair::new(1500);
        let here = pair.a.udp_bind(SocketAddr::new(ip(a), 9), Options::default()).unwrap();
        let there = pair.b.udp_bind(end(b), Options::default()).unwrap();
        pair.a.udp_send(pair.now, here, b"hello", Some(end(b))).unwrap();
        pair.carry();
        assert_eq!(pair.b.poll_udp(), Some(there));
        let datagram = pair.b.udp_receive(there).unwrap();
        assert_eq!((datagram.from, &datagram.bytes[..]), (SocketAddr::new(ip(a), 9), &b"hello"[..]));
        assert_eq!(pair.b.udp_receive(there), Err(UdpError::WouldBlock));
        // Question, answer, datagram: `b` learned `a` from the question.
        assert_eq!(pair.seen.iter().map(|(from_a, _)| *from_a).collect::<Vec<_>>(), [true, false, true]);
        pair.b.udp_send(pair.now, there, b"hello to you", Some(datagram.from)).unwrap();
        pair.carry();
        assert_eq!(pair.a.udp_receive(here).unwrap().bytes, b"hello to you");
        assert_eq!(pair.seen.len(), 4);
        assert_eq!((pair.a.counters().total(), pair.b.counters().total()), (0, 0));
    }
}

#[test]
fn a_long_datagram_crosses_in_fragments() {
    for (a, b) in [("10.0.0.1:9", "10.0.0.2:7"), ("[fd00::1]:9", "[fd00::2]:7")] {
        let mut pair = Pair::new(1400);
        let here = pair.a.udp_bind(end(a), Options::default()).unwrap();
        let there = pair.b.udp_bind(end(b), Options::default()).unwrap();
        let bytes: Vec<u8> = (0..60_000u32).map(|n| (n * 7) as u8).collect();
        pair.a.udp_send(pair.now, here, &bytes, Some(end(b))).unwrap();
        pair.carry();
        assert_eq!(pair.b.udp_receive(there).unwrap().bytes, bytes);
        assert!(pair.seen.iter().all(|(_, frame)| frame.len() <= 1414));
        assert_eq!(pair.b.reassembly().memory(), 0);
    }
}

#[test]
fn echo_requests_are_answered_with_what_they_carry() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let mut message = Vec::new();
    icmp4::Message::EchoRequest(icmp4::Echo { ident: 5, sequence: 6, data: b"ping" }).emit(&mut message);
    assert_eq!(received(&mut host, &packet("10.0.0.2", "10.0.0.1", 1, &message)), Ok(Up::Done));
    assert_eq!(complaint(&mut host), Some((0, 0, b"ping".to_vec())));
    let broadcast = packet("10.0.0.2", "10.0.0.255", 1, &message);
    assert_eq!(received(&mut host, &broadcast), Err(DropReason::IcmpBroadcast));

    let mut message = Vec::new();
    let (from, to) = ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap());
    icmp6::Message::EchoRequest(icmp4::Echo { ident: 5, sequence: 6, data: b"ping" }).emit(
        from,
        to,
        &mut message,
    );
    assert_eq!(received(&mut host, &packet("fd00::2", "fd00::1", 58, &message)), Ok(Up::Done));
    assert_eq!(complaint(&mut host), Some((129, 0, b"ping".to_vec())));
}

#[test]
fn a_port_without_socket_is_complained_about_with_the_packet() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    for (src, dst, error) in [("10.0.0.2:5", "10.0.0.1:6", (3, 3)), ("[fd00::2]:5", "[fd00::1]:6", (1, 4))] {
        let packet = udp_packet(src, dst, b"anybody?");
        assert_eq!(received(&mut host, &packet), Err(DropReason::UdpPort));
        assert_eq!(complaint(&mut host), Some((error.0, error.1, packet)));
    }
    assert_eq!(host.counters().of(DropReason::UdpPort), 2);
}

#[test]
fn nobody_complains_about_broadcasts_errors_and_impossible_senders() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    for src in ["10.0.0.255:5", "224.0.0.1:5", "0.0.0.0:5", "127.0.0.1:5"] {
        let packet = udp_packet(src, "10.0.0.1:6", b"");
        assert_eq!(received(&mut host, &packet), Err(DropReason::Ipv4Address), "{src}");
    }
    let to_all = udp_packet("10.0.0.2:5", "10.0.0.255:6", b"");
    assert_eq!(received(&mut host, &to_all), Err(DropReason::UdpPort));
    let in_a_broadcast = udp_packet("10.0.0.2:5", "10.0.0.1:6", b"");
    let result = received_by(&mut host, OTHER_LINK_ADDRESS, [0xff; 6], &in_a_broadcast);
    assert_eq!(result, Err(DropReason::UdpPort));
    let elsewhere = received_by(&mut host, OTHER_LINK_ADDRESS, [2, 0, 0, 0, 0, 9], &in_a_broadcast);
    assert_eq!(elsewhere, Err(DropReason::EthernetOtherAddress));
    assert_eq!(complaint(&mut host), None);
}

#[test]
fn complaints_are_limited_to_six_at_once_for_a_destination() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let packet = udp_packet("10.0.0.2:5", "10.0.0.1:6", b"");
    for _ in 0..20 {
        let _ = received(&mut host, &packet);
    }
    let mut complaints = 0;
    while complaint(&mut host).is_some() {
        complaints += 1;
    }
    assert_eq!(complaints, 6);
}

#[test]
fn an_unknown_protocol_is_complained_about() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let v4 = packet("10.0.0.2", "10.0.0.1", 200, b"?");
    assert_eq!(received(&mut host, &v4), Err(DropReason::Protocol));
    assert_eq!(complaint(&mut host), Some((3, 2, v4)));
    let v6 = packet("fd00::2", "fd00::1", 200, b"?");
    assert_eq!(received(&mut host, &v6), Err(DropReason::Protocol));
    assert_eq!(complaint(&mut host), Some((4, 1, v6)));
}

#[test]
fn tcp_goes_up_when_it_is_intact_and_for_us_alone() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    for (src, dst) in [("10.0.0.2:5", "10.0.0.1:6"), ("[fd00::2]:5", "[fd00::1]:6")] {
        let good = tcp_packet(src, dst);
        assert!(matches!(received(&mut host, &good), Ok(Up::Tcp { ip, .. }) if ip.payload_len == 20));
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(received(&mut host, &bad), Err(DropReason::TcpChecksum));
        let trusted = RxMeta { checksum_ok: true, gso_size: 1448 };
        let frame = framed(OTHER_LINK_ADDRESS, LINK_ADDRESS, &bad);
        let mut scratch = Vec::new();
        let up = host.receive(Instant::ZERO, LINK, &frame, trusted, &mut scratch);
        assert!(matches!(up, Ok(Up::Tcp { gso_size: 1448, .. })));
        let up = received_by(&mut host, OTHER_LINK_ADDRESS, [0xff; 6], &good);
        assert_eq!(up, Err(DropReason::TcpAddress));
    }
    let others = tcp_packet("10.0.0.2:5", "10.0.0.3:6");
    assert_eq!(received(&mut host, &others), Err(DropReason::NotLocal));
    let all = tcp_packet("10.0.0.2:5", "10.0.0.255:6");
    assert_eq!(received(&mut host, &all), Err(DropReason::TcpAddress));
}

#[test]
fn an_error_about_a_segment_of_ours_goes_up_and_others_do_not() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let ours = tcp_packet("10.0.0.1:6", "10.0.0.9:5");
    let quoted = |original: &[u8]| {
        let mut message = Vec::new();
        icmp4::Message::Unreachable { code: 4, mtu: 1400, original: &original[..28] }.emit(&mut message);
        packet("10.0.0.254", "10.0.0.1", 1, &message)
    };
    let error = IcmpError {
        local: end("10.0.0.1:6"),
        remote: end("10.0.0.9:5"),
        protocol: protocol::TCP,
        seq: crate::seq::SeqNumber::new(0x0102_0304),
        kind: ErrorKind::TooBig { mtu: 1400 },
        fatal: false,
    };
    assert_eq!(received(&mut host, &quoted(&ours)), Ok(Up::Error(error)));
    let theirs = tcp_packet("10.0.0.7:6", "10.0.0.9:5");
    assert_eq!(received(&mut host, &quoted(&theirs)), Err(DropReason::IcmpOriginal));
}

#[test]
fn a_connected_datagram_socket_is_told_of_a_refusal_once() {
    let mut pair = Pair::new(1500);
    let here = pair.a.udp_bind(end("0.0.0.0:0"), Options::default()).unwrap();
    pair.a.udp_connect(here, end("10.0.0.2:7")).unwrap();
    assert_eq!(pair.a.udp_local(here).unwrap().ip(), ip("10.0.0.1"));
    pair.a.udp_send(pair.now, here, b"?", None).unwrap();
    pair.carry();
    assert_eq!(pair.a.poll_udp(), Some(here));
    assert_eq!(pair.a.udp_receive(here), Err(UdpError::Reported(ErrorKind::PortUnreachable)));
    assert_eq!(pair.a.udp_receive(here), Err(UdpError::WouldBlock));
}

#[test]
fn a_too_big_makes_datagrams_to_that_host_shorter_and_is_forgotten_in_time() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    host.add_route(ip("0.0.0.0"), 0, Some(ip("10.0.0.254")), LINK);
    let far = end("192.0.2.1:7");
    let here = host.udp_bind(end("10.0.0.1:9"), Options::default()).unwrap();
    host.udp_connect(here, far).unwrap();
    let original = udp_packet("10.0.0.1:9", "192.0.2.1:7", b"");
    let mut message = Vec::new();
    icmp4::Message::Unreachable { code: 4, mtu: 1000, original: &original }.emit(&mut message);
    let generation = host.generation();
    assert_eq!(received(&mut host, &packet("10.0.0.254", "10.0.0.1", 1, &message)), Ok(Up::Done));
    let path = host.route(None, far.ip()).unwrap();
    assert_eq!((path.mtu, path.next_hop), (1000, ip("10.0.0.254")));
    assert_ne!(host.generation(), generation);
    let later = host.poll_timeout().unwrap();
    assert_eq!(later, Instant::from_secs(100) + Config::default().path_mtu_time);
    host.handle_timeout(later);
    assert_eq!(host.route(None, far.ip()).unwrap().mtu, 1500);
    assert_eq!(host.set_path_mtu(later, far.ip(), 68), 552, "the least that is believed");
}

#[test]
fn path_mtus_have_a_cap() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    host.add_route(ip("0.0.0.0"), 0, Some(ip("10.0.0.254")), LINK);
    let far = |n: u32| core::net::IpAddr::from(core::net::Ipv4Addr::from(0xc000_0000 + n));
    for n in 0..3000 {
        host.set_path_mtu(Instant::from_secs(100), far(n), 1000);
    }
    let remembered = (0..3000).filter(|&n| host.route(None, far(n)).unwrap().mtu == 1000).count();
    assert_eq!(remembered, 1024);
    assert_eq!(host.route(None, far(2999)).unwrap().mtu, 1000, "the newest is among them");
}

#[test]
fn what_fails_to_find_its_neighbour_is_reported() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let mut now = Instant::from_secs(100);
    let path = host.route(None, ip("10.0.0.9")).unwrap();
    let mut link = [0; 14];
    assert_eq!(host.link_header(now, &path, &mut link), LinkHeader::Pending);
    host.park(now, &path, tcp_packet("10.0.0.1:6", "10.0.0.9:5"));
    let mut questions = 0;
    while let Some(next) = host.poll_timeout() {
        now = now.max(next);
        while host.poll_transmit(now, &mut Vec::new()).is_some() {
            questions += 1;
        }
        host.handle_timeout(now);
    }
    assert_eq!(questions, 3);
    let error = host.failures().unwrap();
    assert_eq!((error.local, error.remote), (end("10.0.0.1:6"), end("10.0.0.9:5")));
    assert_eq!(error.kind, ErrorKind::HostUnreachable);
    assert_eq!(host.failures(), None);
    assert_eq!((host.neighbours().len(), host.neighbours().pending()), (0, 0));
}

#[test]
fn what_only_a_segmenting_link_could_send_does_not_wait() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let path = host.route(None, ip("10.0.0.9")).unwrap();
    let pending = host.link_header(Instant::ZERO, &path, &mut [0; 14]);
    assert_eq!(pending, LinkHeader::Pending);
    host.park(Instant::ZERO, &path, alloc::vec![0x45; 1501]);
    assert_eq!(host.neighbours().pending(), 0);
    assert_eq!(host.counters().of(DropReason::TooLong), 1);
}

#[test]
fn groups_are_told_from_hosts() {
    let host = host(LINK_ADDRESS, 1, 1500);
    for group in ["224.0.0.1", "255.255.255.255", "10.0.0.255", "ff02::1"] {
        assert!(host.is_group(ip(group)), "{group}");
    }
    for one in ["10.0.0.1", "10.0.0.254", "10.0.1.255", "fd00::1"] {
        assert!(!host.is_group(ip(one)), "{one}");
    }
}

#[test]
fn packets_to_ourselves_go_over_the_loopback() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    for address in ["10.0.0.1", "127.0.0.5", "::1", "fd00::1"] {
        let path = host.route(None, ip(address)).unwrap();
        assert_eq!((path.iface, path.source), (InterfaceId::LOOPBACK, ip(address)));
        let here = host.udp_bind(SocketAddr::new(ip(address), 9), Options::default()).unwrap();
        host.udp_send(Instant::ZERO, here, b"me", Some(SocketAddr::new(ip(address), 9))).unwrap();
        let mut packet = Vec::new();
        let sent = host.poll_transmit(Instant::ZERO, &mut packet).unwrap();
        assert_eq!(sent.iface, InterfaceId::LOOPBACK);
        let meta = RxMeta { checksum_ok: sent.checksum.is_some(), gso_size: 0 };
        let mut scratch = Vec::new();
        let up = host.receive(Instant::ZERO, InterfaceId::LOOPBACK, &packet, meta, &mut scratch);
        assert_eq!(up, Ok(Up::Done));
        assert_eq!(host.udp_receive(here).unwrap().bytes, b"me");
    }
    let from_outside = udp_packet("10.0.0.2:5", "127.0.0.1:9", b"");
    assert_eq!(received(&mut host, &from_outside), Err(DropReason::Ipv4Address));
}

#[test]
fn groups_go_to_their_link_addresses_without_asking() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let here = host.udp_bind(end("0.0.0.0:9"), Options::default()).unwrap();
    let there = host.udp_bind(end("[::]:10"), Options::default()).unwrap();
    host.udp_send(Instant::ZERO, here, b"", Some(end("224.0.0.251:5353"))).unwrap();
    host.udp_send(Instant::ZERO, here, b"", Some(end("10.0.0.255:9"))).unwrap();
    host.udp_send(Instant::ZERO, there, b"", Some(end("[ff02::fb]:5353"))).unwrap();
    for link_address in [[1, 0, 0x5e, 0, 0, 0xfb], [0xff; 6], [0x33, 0x33, 0, 0, 0, 0xfb]] {
        let mut frame = Vec::new();
        assert!(host.poll_transmit(Instant::ZERO, &mut frame).is_some());
        assert_eq!(frame[..6], link_address);
    }
}

#[test]
fn without_a_route_nothing_goes_out() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let here = host.udp_bind(end("0.0.0.0:9"), Options::default()).unwrap();
    let sent = host.udp_send(Instant::ZERO, here, b"", Some(end("192.0.2.1:1")));
    assert_eq!(sent, Err(UdpError::NetUnreachable));
    assert_eq!(host.route(Some(ip("10.0.0.1")), ip("2001:db8::1")), None);
    host.remove_address(ip("10.0.0.1"));
    assert_eq!(host.route(None, ip("10.0.0.2")), None);
    assert_eq!(host.udp_bind(end("10.0.0.1:9"), Options::default()), Err(UdpError::AddressNotAvailable));
}

#[test]
fn a_sender_waits_when_the_link_is_behind_and_answers_have_a_cap() {
    let mut pair = Pair::new(1500);
    let here = pair.a.udp_bind(end("10.0.0.1:9"), Options::default()).unwrap();
    let there = end("10.0.0.2:7");
    pair.a.udp_send(pair.now, here, b"", Some(there)).unwrap();
    pair.carry();
    let sent = (0..2000).take_while(|_| pair.a.udp_send(pair.now, here, b"", Some(there)).is_ok()).count();
    assert_eq!(sent, Config::default().transmit_queue);
    let mut message = Vec::new();
    icmp4::Message::EchoRequest(icmp4::Echo { ident: 5, sequence: 6, data: b"ping" }).emit(&mut message);
    let request = packet("10.0.0.2", "10.0.0.1", 1, &message);
    for _ in 0..3000 {
        received(&mut pair.a, &request).unwrap();
    }
    assert_eq!(pair.a.queue.len(), 2 * Config::default().transmit_queue);
    assert!(pair.a.counters().of(DropReason::TransmitQueueFull) > 0);
}

#[test]
fn datagrams_that_a_link_put_together_are_taken_apart() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let here = host.udp_bind(end("10.0.0.1:9"), Options::default()).unwrap();
    let frame = framed(OTHER_LINK_ADDRESS, LINK_ADDRESS, &udp_packet("10.0.0.2:5", "10.0.0.1:9", b"aabbc"));
    let meta = RxMeta { checksum_ok: true, gso_size: 2 };
    assert_eq!(host.receive(Instant::ZERO, LINK, &frame, meta, &mut Vec::new()), Ok(Up::Done));
    for part in [&b"aa"[..], b"bb", b"c"] {
        assert_eq!(host.udp_receive(here).unwrap().bytes, part);
    }
}

#[test]
fn an_address_that_is_asked_for_before_use_is_defended() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let target: Ipv6Addr = "fd00::1".parse().unwrap();
    let group = crate::wire::nd::solicited_node(target);
    let mut message = Vec::new();
    let probe = crate::wire::nd::Message::Solicitation { target, source: None };
    icmp6::Message::Neighbour(probe).emit(Ipv6Addr::UNSPECIFIED, group, &mut message);
    let header = ipv6::Header { hop_limit: 255, ..ipv6::Header::new(Ipv6Addr::UNSPECIFIED, group, 58) };
    let mut bytes = alloc::vec![0; ipv6::Header::LEN];
    header.emit(message.len(), &mut bytes);
    bytes.extend(message);
    let link_address = crate::wire::MacAddr::of_group_v6(group).0;
    assert_eq!(received_by(&mut host, OTHER_LINK_ADDRESS, link_address, &bytes), Ok(Up::Done));
    let mut frame = Vec::new();
    assert!(host.poll_transmit(Instant::ZERO, &mut frame).is_some());
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1], "to all nodes");
    assert_eq!(host.neighbours().len(), 0, "nobody is known by it");
}

#[test]
fn fragments_that_stay_alone_are_reported_when_their_time_is_over() {
    let mut host = host(LINK_ADDRESS, 1, 1500);
    let mut packet = udp_packet("10.0.0.2:5", "10.0.0.1:6", &[0; 24]);
    packet[6] = 0x20;
    packet[10..12].fill(0);
    let checksum = crate::checksum::finish(crate::checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(received(&mut host, &packet), Ok(Up::Done));
    assert_eq!(host.reassembly().len(), 1);
    let over = Instant::from_secs(131);
    host.handle_timeout(over);
    assert_eq!(host.reassembly().len(), 0);
    assert_eq!(host.counters().of(DropReason::FragmentTimeout), 1);
    assert_eq!(complaint(&mut host), Some((11, 1, packet)));
}
