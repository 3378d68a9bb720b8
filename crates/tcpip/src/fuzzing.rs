//! Bytes that nobody vouches for, and what must hold whatever they are. `fuzz/` calls these functions from libFuzzer, the
//! tests below from `cargo test`.

use crate::checksum::{finish, pseudo, sum};
use crate::ip::reassembly::{Config, Reassembly};
use crate::net::{self, Capabilities, InterfaceId, Medium, Network, RxMeta, Up};
use crate::table::HashKey;
use crate::time::Instant;
use crate::udp;
use crate::wire::{MacAddr, eth, icmp6, ipv4, ipv6, protocol, tcp, virtio};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

const LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LINK: InterfaceId = InterfaceId(1);
const TUNNEL: InterfaceId = InterfaceId(2);

/// Frames with an offload header, one after the other: the first byte of each says how it comes, the next two how
/// long it is. What the network sends it must be able to read itself, and its caps hold.
pub fn frames(mut bytes: &[u8]) {
    let mut network = small_network();
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7);
    let socket = network.udp_bind(any, udp::Options { receive_buffer: 4000, ..udp::Options::default() });
    let socket = socket.expect("the port is free");
    let mut now = Instant::from_secs(1);
    while let [how, low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high & 0xf])).min(rest.len());
        let (frame, rest) = rest.split_at(len);
        bytes = rest;
        let interface = if how & 1 == 0 { LINK } else { TUNNEL };
        let Ok((offload, frame)) = virtio::Header::parse(frame) else { continue };
        let mut frame = frame.to_vec();
        if how & 2 == 0 {
            repair(if interface == LINK { frame.get_mut(eth::Header::LEN..) } else { Some(&mut frame) });
        }
        let meta = RxMeta {
            checksum_ok: offload.data_valid || offload.needs_checksum.is_some(),
            gso_size: offload.segments.map_or(0, |segments| segments.size),
        };
        let dropped = network.counters().total();
        let mut scratch = Vec::new();
        match network.receive(now, interface, &frame, meta, &mut scratch) {
            Ok(Up::Tcp { ip, segment, .. }) => {
                assert_eq!(ip.payload_len, segment.len());
                assert!(network.is_local(ip.dst));
                let _ = tcp::parse(segment);
            }
            Ok(Up::Error(error)) => assert!(network.is_local(error.local.ip())),
            Ok(Up::Done) => {}
            Err(_) => assert!(network.counters().total() > dropped, "what is dropped is counted"),
        }
        match how >> 2 & 7 {
            0 => now += Duration::from_secs(1),
            1 => now += Duration::from_secs(40),
            2 => {
                let _ = network.udp_receive(socket);
            }
            3 => {
                let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, how >> 5).into(), 9);
                let _ = network.udp_send(now, socket, &[*how; 200], Some(to));
            }
            _ => {}
        }
        network.handle_timeout(now);
        while network.failures().is_some() {}
        if how & 0x80 == 0 {
            sent(&mut network, now);
        }
        assert!(network.reassembly().memory() <= 4000);
        assert!(network.neighbours().len() <= 8);
        assert!(network.neighbours().pending() <= 4000);
    }
    // Nothing asks for time without end.
    for _ in 0..1000 {
        let Some(next) = network.poll_timeout() else { break };
        now = now.max(next);
        network.handle_timeout(now);
        sent(&mut network, now);
    }
    assert_eq!(network.poll_timeout(), None);
    assert!(network.reassembly().is_empty());
    assert_eq!((network.reassembly().memory(), network.neighbours().pending()), (0, 0));
}

/// A network with a link of each kind, addresses of both versions on each, and low limits.
fn small_network() -> Network {
    let mut config = net::Config::default();
    config.reassembly.memory = 4000;
    config.neighbours.entries = 8;
    config.neighbours.pending = 2000;
    config.neighbours.pending_in_all = 4000;
    config.transmit_queue = 16;
    let mut network = Network::new(config, [1, 2, 3, 4]);
    let mtu = 1500;
    let ethernet = Medium::Ethernet { address: LINK_ADDRESS };
    network.add_interface(Capabilities { medium: ethernet, mtu, tx_checksum: false, gso_max: 0 });
    network.add_interface(Capabilities { medium: Medium::Ip, mtu, tx_checksum: true, gso_max: 0 });
    network.add_address(LINK, Ipv4Addr::new(10, 0, 0, 1).into(), 24);
    network.add_address(LINK, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), 64);
    network.add_address(TUNNEL, Ipv4Addr::new(10, 1, 0, 1).into(), 24);
    network.add_address(TUNNEL, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), 64);
    network
}

/// Takes what the network wants to send, and reads it as a receiver would.
fn sent(network: &mut Network, now: Instant) {
    let mut frames = 0;
    loop {
        let mut frame = Vec::new();
        let Some(transmit) = network.poll_transmit(now, &mut frame) else { return };
        frames += 1;
        assert!(frames < 1000, "one frame does not cause so many");
        let packet = match network.capabilities(transmit.iface).medium {
            Medium::Ip => &frame[..],
            Medium::Ethernet { .. } => {
                let (header, packet) = eth::Header::parse(&frame).expect("we send frames that we can read");
                assert_eq!(header.source, MacAddr(LINK_ADDRESS));
                if header.protocol == eth::EtherType::Arp {
                    continue;
                }
                packet
            }
        };
        assert!(packet.len() <= network.capabilities(transmit.iface).mtu as usize);
        match packet[0] >> 4 {
            4 => assert!(ipv4::Header::parse(packet).is_ok()),
            _ => {
                let (header, rest) = ipv6::Header::parse(packet).expect("we send packets that we can read");
                assert!(ipv6::payload(header.next_header, rest, ipv6::Header::LEN).is_ok());
                if header.next_header == protocol::ICMPV6 {
                    let read =
                        icmp6::Message::parse(header.source, header.destination, header.hop_limit, rest);
                    assert!(read.is_ok(), "{read:?}");
                }
            }
        }
    }
}

/// Makes the checksums right, so that what is behind them is reached.
fn repair(packet: Option<&mut [u8]>) {
    let Some(packet) = packet else { return };
    let (source, destination, protocol, at): (IpAddr, IpAddr, u8, usize) = match packet.first() {
        Some(first) if first >> 4 == 4 => {
            let len = usize::from(first & 0xf) * 4;
            if len < 20 || packet.len() < len {
                return;
            }
            packet[10..12].fill(0);
            let checksum = finish(sum(&packet[..len]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            let Ok((header, _)) = ipv4::Header::parse(packet) else { return };
            (header.source.into(), header.destination.into(), header.protocol, len)
        }
        _ => {
            let Ok((header, rest)) = ipv6::Header::parse(packet) else { return };
            let Ok(ipv6::Payload::Whole { protocol, bytes }) =
                ipv6::payload(header.next_header, rest, ipv6::Header::LEN)
            else {
                return;
            };
            let at = ipv6::Header::LEN + rest.len() - bytes.len();
            (header.source.into(), header.destination.into(), protocol, at)
        }
    };
    let end = match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => ipv6::Header::LEN + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    };
    let payload = &mut packet[at..end];
    let (field, with_pseudo) = match protocol {
        protocol::TCP => (16, true),
        protocol::UDP => (6, true),
        protocol::ICMP => (2, false),
        protocol::ICMPV6 => (2, true),
        _ => return,
    };
    if payload.len() < field + 2 {
        return;
    }
    payload[field..field + 2].fill(0);
    let mut total = sum(payload);
    if with_pseudo {
        total = pseudo(source, destination, protocol, payload.len() as u32) + total;
    }
    payload[field..field + 2].copy_from_slice(&finish(total).to_be_bytes());
}

/// Fragments of four packets, three bytes each: which and whether more follow, where, and how long. All bytes of a
/// packet tell their place, so that a packet that comes out says whether it was put together rightly.
pub fn fragments(bytes: &[u8]) {
    const MEMORY: usize = 6000;
    let config = Config { memory: MEMORY, ..Config::default() };
    let mut reassembly = Reassembly::new(config, HashKey::new([1, 2]));
    let content = |ident: u8, at: usize| ident ^ (at as u8).wrapping_mul(31) ^ (at >> 8) as u8;
    let mut now = Instant::ZERO;
    let mut out = Vec::new();
    for step in bytes.chunks_exact(3) {
        let [how, place, len] = [step[0], step[1], step[2]];
        let (ident, more) = (how & 3, how & 4 != 0);
        let offset = usize::from(place) * 8;
        let payload: Vec<u8> = (offset..offset + usize::from(len)).map(|at| content(ident, at)).collect();
        let result = if how & 8 == 0 {
            let header = ipv4::Header {
                ident: u16::from(ident),
                traffic_class: how >> 4 & 3,
                more_fragments: more,
                fragment_offset: offset as u16,
                ..ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1), 17)
            };
            reassembly.add_v4(now, &header, &payload, &payload, &mut out)
        } else {
            let header = ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, protocol::IPV6_FRAGMENT);
            let fragment =
                ipv6::Fragment { next_header: 17, offset: offset as u16, more, ident: u32::from(ident) };
            reassembly.add_v6(now, &header, fragment, &payload, &payload, &mut out)
        };
        assert!(reassembly.memory() <= MEMORY);
        if result == Ok(true) {
            let payload = match out[0] >> 4 {
                4 => ipv4::Header::parse(&out).map(|(_, payload)| payload),
                _ => ipv6::Header::parse(&out).map(|(_, payload)| payload),
            };
            let payload = payload.expect("what comes out is a packet");
            assert!(payload.iter().enumerate().all(|(at, byte)| *byte == content(ident, at)));
        }
        if how & 0xc0 == 0xc0 {
            now += Duration::from_secs(20);
            while reassembly.expire(now).is_some() {}
        }
    }
    now += Duration::from_secs(1000);
    while reassembly.expire(now).is_some() {}
    assert!(reassembly.is_empty());
    assert_eq!((reassembly.memory(), reassembly.poll_timeout()), (0, None));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of one frame behind their header, for a network of [`frames`].
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let v4 = (any::<u8>(), any::<u8>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(kind, fragment, ident, payload)| {
                let protocol = [1, 6, 17, 17, 200][usize::from(kind) % 5];
                let header = ipv4::Header {
                    ident: ident % 4,
                    more_fragments: fragment & 3 == 1,
                    fragment_offset: u16::from(fragment >> 6) * 8,
                    ..ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1), protocol)
                };
                let mut packet = alloc::vec![0; ipv4::Header::LEN];
                header.emit(payload.len(), &mut packet);
                (0x0800u16, [packet, payload].concat())
            });
        let v6 = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(kind, payload)| {
            let next = [0, 6, 17, 43, 44, 58, 58, 60][usize::from(kind) % 8];
            let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
            let mut packet = alloc::vec![0; ipv6::Header::LEN];
            let header = ipv6::Header {
                hop_limit: 255,
                ..ipv6::Header::new(source, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), next)
            };
            header.emit(payload.len(), &mut packet);
            (0x86dd, [packet, payload].concat())
        });
        let other = prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| (0x0806, bytes));
        (any::<u8>(), prop_oneof![v4, v6, other]).prop_map(|(how, (protocol, packet))| {
            let mut frame = Vec::from([0; virtio::Header::LEN]);
            if how & 1 == 0 {
                frame.extend(LINK_ADDRESS);
                frame.extend([2, 0, 0, 0, 0, 2]);
                frame.extend(protocol.to_be_bytes());
            }
            frame.extend(packet);
            let [low, high] = (frame.len() as u16).to_le_bytes();
            [&[how, low, high][..], &frame].concat()
        })
    }

    proptest! {
        #[test]
        fn any_frames_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            frames(&bytes);
        }

        #[test]
        fn frames_of_known_protocols_do_no_harm(all in prop::collection::vec(any_frame(), 0..30)) {
            frames(&all.concat());
        }

        #[test]
        fn any_fragments_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fragments(&bytes);
        }

        #[test]
        fn small_fragments_do_no_harm(steps in prop::collection::vec((any::<u8>(), 0u8..5, 1u8..25), 0..200)) {
            let bytes: Vec<u8> = steps.into_iter().flat_map(|(how, place, len)| [how & 0x3f, place, len]).collect();
            fragments(&bytes);
        }
    }
}
