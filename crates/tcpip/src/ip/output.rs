//! Packets on their way out that are longer than the link or the path takes (RFC 791 §3.2, RFC 8200 §4.5).

use crate::wire::{ip, ipv4, ipv6, protocol};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Cuts `payload` into packets of at most `mtu` bytes behind `header`, and gives each to `send`.
///
/// IPv4 fragments carry `ident` in its lower 16 bits, IPv6's all of it. A payload that fits goes out whole.
pub(crate) fn fragmented(
    header: &ip::Header,
    ident: u32,
    payload: &[u8],
    mtu: usize,
    mut send: impl FnMut(Vec<u8>),
) {
    if header.len() + payload.len() <= mtu {
        let mut packet = alloc::vec![0; header.len()];
        ip::Header { payload_len: payload.len(), ..*header }.emit(&mut packet);
        packet.extend_from_slice(payload);
        return send(packet);
    }
    let extra = if header.src.is_ipv4() { 0 } else { ipv6::Fragment::LEN };
    // All but the last have a multiple of eight bytes; a link with no room for eight is none.
    let room = (mtu.saturating_sub(header.len() + extra) & !7).max(8);
    for (number, bytes) in payload.chunks(room).enumerate() {
        let offset = number * room;
        let more = offset + bytes.len() < payload.len();
        let mut packet = alloc::vec![0; header.len() + extra];
        match (header.src, header.dst) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4::Header {
                ttl: header.hop_limit,
                traffic_class: header.traffic_class,
                ident: ident as u16,
                dont_fragment: false,
                more_fragments: more,
                fragment_offset: offset as u16,
                ..ipv4::Header::new(source, destination, header.protocol)
            }
            .emit(bytes.len(), &mut packet),
            _ => {
                let outer = ip::Header {
                    protocol: protocol::IPV6_FRAGMENT,
                    payload_len: extra + bytes.len(),
                    ..*header
                };
                let begin = outer.emit(&mut packet);
                let fragment =
                    ipv6::Fragment { next_header: header.protocol, offset: offset as u16, more, ident };
                fragment.emit(&mut packet[begin..]);
            }
        }
        packet.extend_from_slice(bytes);
        send(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::reassembly::{Config, Reassembly};
    use crate::table::HashKey;
    use crate::time::Instant;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn header(v6: bool, payload_len: usize) -> ip::Header {
        let v4 = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
        let v6_pair = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into());
        let (src, dst) = if v6 { v6_pair } else { v4 };
        ip::Header {
            src,
            dst,
            protocol: 17,
            hop_limit: 64,
            traffic_class: 2,
            id: 9,
            dont_fragment: false,
            payload_len,
        }
    }

    #[test]
    fn what_fits_goes_out_whole() {
        for (v6, mtu) in [(false, 120), (true, 140)] {
            let mut packets = Vec::new();
            fragmented(&header(v6, 100), 7, &[5; 100], mtu, |packet| packets.push(packet));
            assert_eq!(packets.len(), 1);
            assert_eq!(packets[0].len(), mtu);
        }
    }

    proptest! {
        #[test]
        fn fragments_fit_the_link_and_come_together_in_any_order(
            v6: bool,
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtu in 100usize..1600,
            seed: u64,
        ) {
            let mut packets = Vec::new();
            let header = header(v6, payload.len());
            fragmented(&header, 0x0001_0007, &payload, mtu, |packet| packets.push(packet));
            let mut whole = Vec::new();
            let mut reassembly = Reassembly::new(Config::default(), HashKey::new([1, 2]));
            if packets.len() > 1 {
                let mut complete = 0;
                let places = packets.len() as u64;
                packets.rotate_left((seed % places) as usize);
                packets.swap(0, (seed / places % places) as usize);
                for packet in &packets {
                    prop_assert!(packet.len() <= mtu);
                    complete += u32::from(if v6 {
                        let (header, rest) = ipv6::Header::parse(packet).unwrap();
                        let ipv6::Payload::Part { fragment, bytes } = ipv6::payload(header.next_header, rest, 40).unwrap()
                        else { panic!() };
                        reassembly.add_v6(Instant::ZERO, &header, fragment, packet, bytes, &mut whole).unwrap()
                    } else {
                        let (header, bytes) = ipv4::Header::parse(packet).unwrap();
                        reassembly.add_v4(Instant::ZERO, &header, packet, bytes, &mut whole).unwrap()
                    });
                }
                prop_assert_eq!(complete, 1);
                prop_assert_eq!(reassembly.memory(), 0);
            } else {
                whole = packets.pop().unwrap();
            }
            if v6 {
                let (parsed, rest) = ipv6::Header::parse(&whole).unwrap();
                prop_assert_eq!(rest, &payload[..]);
                prop_assert_eq!(parsed.next_header, 17);
            } else {
                let (parsed, rest) = ipv4::Header::parse(&whole).unwrap();
                prop_assert_eq!(rest, &payload[..]);
                prop_assert!(!parsed.is_fragment());
            }
        }
    }
}
