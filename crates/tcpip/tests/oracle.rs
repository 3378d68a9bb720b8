//! Our parsers beside smoltcp's and etherparse's.

#[path = "common/oracle.rs"]
mod oracle;

use oracle::{DESTINATION, DESTINATION6, SOURCE, SOURCE6};
use proptest::prelude::*;
use sockshim_tcpip::wire::{MacAddr, arp, icmp4, icmp6, ipv4, ipv6, nd, udp};

/// Bytes that are nearly a header of one of the protocols: a valid one, with a few bytes changed and perhaps cut off.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..48);
    let valid =
        (0..8u8, any::<u32>(), payload).prop_map(|(which, word, payload)| valid(which, word, &payload));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (valid, changes, prop::option::of(any::<prop::sample::Index>())).prop_map(|(mut bytes, changes, cut)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    })
}

fn valid(which: u8, word: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let link_address = MacAddr([2, 0, 0, 0, 0, word as u8]);
    match which {
        0 => {
            bytes.resize(ipv4::Header::LEN, 0);
            let header = ipv4::Header { ident: word as u16, ..ipv4::Header::new(SOURCE, DESTINATION, 6) };
            header.emit(payload.len(), &mut bytes);
            bytes.extend(payload);
        }
        1 => {
            bytes.resize(ipv6::Header::LEN, 0);
            let next = [6, 0, 43, 44, 60, 59, 17, 58][word as usize % 8];
            ipv6::Header::new(SOURCE6, DESTINATION6, next).emit(payload.len(), &mut bytes);
            bytes.extend(payload);
        }
        2 => {
            bytes.resize(udp::Header::LEN, 0);
            bytes.extend(payload);
            let header = udp::Header { src_port: 5, dst_port: word as u16 };
            header.emit(SOURCE.into(), DESTINATION.into(), &mut bytes, false);
        }
        3 => {
            let echo = icmp4::Echo { ident: word as u16, sequence: 9, data: payload };
            icmp4::Message::EchoRequest(echo).emit(&mut bytes);
        }
        4 => {
            let mut original = vec![0; ipv4::Header::LEN];
            ipv4::Header::new(SOURCE, DESTINATION, 6).emit(payload.len(), &mut original);
            original.extend(payload);
            icmp4::Message::Unreachable { code: word as u8 % 16, mtu: 0, original: &original }
                .emit(&mut bytes);
        }
        5 => {
            let message = if word.is_multiple_of(2) {
                nd::Message::Solicitation { target: DESTINATION6, source: Some(link_address) }
            } else {
                let (router, overrides) = (word & 4 != 0, word & 8 != 0);
                let (target, link_address) = (DESTINATION6, Some(link_address));
                nd::Message::Advertisement { target, link_address, router, solicited: true, overrides }
            };
            icmp6::Message::Neighbour(message).emit(SOURCE6, DESTINATION6, &mut bytes);
        }
        6 => {
            bytes.resize(arp::Packet::LEN, 0);
            let operation =
                if word.is_multiple_of(2) { arp::Operation::Request } else { arp::Operation::Reply };
            let packet = arp::Packet {
                operation,
                sender: (SOURCE, link_address),
                target: (DESTINATION, link_address),
            };
            packet.emit(&mut bytes);
        }
        _ => {
            // A segment whose options are the payload.
            let options = &payload[..payload.len().min(40) & !3];
            bytes.resize(20, 7);
            bytes[12] = (5 + options.len() as u8 / 4) << 4;
            bytes[13] = word as u8;
            bytes.extend(options);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_as_others_read_them(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        oracle::all(&bytes);
    }

    #[test]
    fn packets_that_are_nearly_right_are_read_as_others_read_them(bytes in nearly()) {
        oracle::all(&bytes);
    }
}
