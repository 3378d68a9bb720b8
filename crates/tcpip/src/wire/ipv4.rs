//! IPv4 headers (RFC 791).

use super::{DropReason, read_array, read_u16};
use crate::checksum::{finish, sum, sum_words};
use core::net::Ipv4Addr;

/// The header of a packet. Options are not kept: nothing here obeys one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The address of the sender.
    pub source: Ipv4Addr,
    /// The address of the receiver.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// How many more routers may forward the packet.
    pub ttl: u8,
    /// Differentiated services (RFC 2474) in the upper six bits, congestion notification (RFC 3168) in the lower two.
    pub traffic_class: u8,
    /// Tells fragments of one packet from those of others.
    pub ident: u16,
    /// Routers must not fragment it.
    pub dont_fragment: bool,
    /// Whether more fragments of the packet follow.
    pub more_fragments: bool,
    /// Where the payload belongs in the packet that was fragmented, in bytes.
    pub fragment_offset: u16,
}

impl Header {
    /// Bytes of a header without options, which is what [`emit`](Self::emit) writes.
    pub const LEN: usize = 20;

    /// An atomic packet with Linux's defaults.
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            traffic_class: 0,
            ident: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
        }
    }

    /// Whether the payload is a part of a packet.
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset > 0
    }

    /// Splits a packet; what a link appended to it is cut off (RFC 894: frames are padded to 60 bytes).
    ///
    /// # Errors
    ///
    /// One of the `Ipv4*` counters.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let Some((head, rest)) = packet.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DropReason::Ipv4Truncated);
        };
        if head[0] >> 4 != 4 {
            return Err(DropReason::Ipv4Version);
        }
        let header_len = usize::from(head[0] & 0xf) * 4;
        let total_len = usize::from(read_u16(head, 2));
        if header_len < Self::LEN || header_len > total_len {
            return Err(DropReason::Ipv4HeaderLength);
        }
        if total_len > packet.len() {
            return Err(DropReason::Ipv4Truncated);
        }
        if !sum(&packet[..header_len]).is_intact() {
            return Err(DropReason::Ipv4Checksum);
        }
        let (options, payload) = rest[..total_len - Self::LEN].split_at(header_len - Self::LEN);
        if !options.is_empty() {
            check_options(options)?;
        }
        Ok((Self::read(head), payload))
    }

    #[inline]
    fn read(head: &[u8; Self::LEN]) -> Self {
        let fragment = read_u16(head, 6);
        Self {
            source: Ipv4Addr::from(read_array::<4>(head, 12)),
            destination: Ipv4Addr::from(read_array::<4>(head, 16)),
            protocol: head[9],
            ttl: head[8],
            traffic_class: head[1],
            ident: read_u16(head, 4),
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            more_fragments: fragment & MORE_FRAGMENTS != 0,
            fragment_offset: (fragment & OFFSET) << 3,
        }
    }

    /// What an ICMP error tells of a packet: its header may be followed by as little as eight bytes of it, and its
    /// checksum and length may have been changed on the way (RFC 1812 §4.3.2.3 keeps the original only in intention).
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpOriginal`].
    pub fn parse_original(packet: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let head = packet.first_chunk::<{ Self::LEN }>().ok_or(DropReason::IcmpOriginal)?;
        let header_len = usize::from(head[0] & 0xf) * 4;
        if head[0] >> 4 != 4 || header_len < Self::LEN {
            return Err(DropReason::IcmpOriginal);
        }
        let payload = packet.get(header_len..).ok_or(DropReason::IcmpOriginal)?;
        Ok((Self::read(head), payload))
    }

    /// Writes it, for a payload of `payload_len` bytes, to the first [`LEN`](Self::LEN) bytes.
    ///
    /// A packet longer than 65,535 bytes, which only a device that segments may get, has the length 0, as Linux writes
    /// it there (`iph_set_totlen`).
    ///
    /// # Panics
    ///
    /// When there are fewer bytes.
    #[inline]
    pub fn emit(&self, payload_len: usize, to: &mut [u8]) {
        let head = to.first_chunk_mut::<{ Self::LEN }>().expect("room for a header");
        let total_len = u16::try_from(Self::LEN + payload_len).unwrap_or(0);
        let mut fragment = self.fragment_offset >> 3;
        if self.dont_fragment {
            fragment |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            fragment |= MORE_FRAGMENTS;
        }
        // As numbers, and not from the bytes that were just written: a load of several stores waits for all of them.
        let (source, destination) = (self.source.to_bits(), self.destination.to_bits());
        let words = [
            u32::from_be_bytes([0x45, self.traffic_class, 0, 0]) | u32::from(total_len),
            u32::from(self.ident) << 16 | u32::from(fragment),
            u32::from_be_bytes([self.ttl, self.protocol, 0, 0]),
            source,
            destination,
        ];
        let checksum = finish(sum_words(&words));
        for (bytes, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        head[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Options are skipped, once they are known to be well-formed and no source route.
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    const MAX_OPTIONS: u8 = 40;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            (END, _) => return Ok(()),
            (NO_OPERATION, _) => rest,
            (LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, _) => return Err(DropReason::Ipv4Options),
            (_, [len @ 2..=MAX_OPTIONS, ..]) => {
                rest.get(usize::from(*len) - 1..).ok_or(DropReason::Ipv4Options)?
            }
            _ => return Err(DropReason::Ipv4Options),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn packet(options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header = Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 17);
        let mut packet = alloc::vec![0; Header::LEN];
        header.emit(options.len() + payload.len(), &mut packet);
        packet.extend(options);
        packet.extend(payload);
        packet[0] = 0x40 | (5 + options.len() as u8 / 4);
        resum(&mut packet);
        packet
    }

    fn resum(packet: &mut [u8]) {
        packet[10..12].fill(0);
        let header_len = usize::from(packet[0] & 0xf) * 4;
        let checksum = finish(sum(&packet[..header_len.clamp(20, packet.len())]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    #[track_caller]
    fn refused(packet: &[u8], reason: DropReason) {
        assert_eq!(Header::parse(packet), Err(reason));
    }

    #[test]
    fn padding_of_the_link_is_cut_off() {
        let mut bytes = packet(&[], b"abc");
        bytes.extend([0; 23]);
        assert_eq!(Header::parse(&bytes).unwrap().1, b"abc");
    }

    #[test]
    fn harmless_options_are_skipped() {
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        assert_eq!(Header::parse(&packet(&record_route, b"abc")).unwrap().1, b"abc");
    }

    #[test]
    fn source_routes_and_malformed_options_are_refused() {
        for options in [[131, 3, 4, 0], [137, 3, 4, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
            refused(&packet(&options, b"abc"), DropReason::Ipv4Options);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let good = packet(&[], b"abcd");
        refused(&good[..19], DropReason::Ipv4Truncated);
        refused(&good[..23], DropReason::Ipv4Truncated);
        let mut bad = good.clone();
        bad[0] = 0x44;
        refused(&bad, DropReason::Ipv4HeaderLength);
        bad[0] = 0x4f;
        refused(&bad, DropReason::Ipv4HeaderLength);
        bad[0] = 0x65;
        refused(&bad, DropReason::Ipv4Version);
    }

    #[test]
    fn each_bit_of_the_header_is_covered_by_its_checksum() {
        let good = packet(&[], b"abcd");
        for bit in 32..Header::LEN * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            refused(&bad, DropReason::Ipv4Checksum);
        }
    }

    #[test]
    fn a_packet_for_a_segmenting_device_may_be_longer_than_its_length_field() {
        let header = Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 6);
        let mut bytes = [0; Header::LEN];
        header.emit(0x10000, &mut bytes);
        assert_eq!(read_u16(&bytes, 2), 0);
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            (source, destination, protocol, ttl) in (any::<u32>(), any::<u32>(), any::<u8>(), any::<u8>()),
            (traffic_class, ident, offset) in (any::<u8>(), any::<u16>(), 0u16..0x2000),
            (dont_fragment, more_fragments) in (any::<bool>(), any::<bool>()),
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = Header {
                source: source.into(), destination: destination.into(), protocol, ttl, traffic_class,
                ident, dont_fragment, more_fragments, fragment_offset: offset << 3,
            };
            let mut bytes = alloc::vec![0; Header::LEN];
            header.emit(payload.len(), &mut bytes);
            bytes.extend(&payload);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, &payload[..])));
            prop_assert_eq!(Header::parse_original(&bytes[..Header::LEN + payload.len().min(8)]).unwrap().0, header);
        }
    }
}
