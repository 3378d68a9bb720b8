//! Packets on the way: what a network interface and boxes in the network do to them.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;

/// An IP packet on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From its IP header on.
    pub bytes: Vec<u8>,
    /// Of a super-segment: the payload of each segment it stands for, as in `virtio_net_hdr`. Zero: a plain packet.
    pub gso_size: u16,
}

/// Where things are in a packet that carries TCP.
#[derive(Debug, Clone)]
pub struct TcpLayout {
    /// Where the TCP header begins.
    pub tcp: usize,
    /// Where the payload lies in the frame.
    pub payload: Range<usize>,
}

impl Frame {
    /// A plain packet.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, gso_size: 0 }
    }

    /// Its addresses, if it is an IP packet.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let b = &self.bytes;
        match b.first()? >> 4 {
            4 => {
                let part = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(b.get(at..at + 4)?).ok()?));
                Some((part(12)?, part(16)?))
            }
            6 => {
                let part = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(b.get(at..at + 16)?).ok()?));
                Some((part(8)?, part(24)?))
            }
            _ => None,
        }
    }

    /// Where its TCP header is, unless it carries something else, a fragment, or IPv6 extension headers.
    pub fn tcp(&self) -> Option<TcpLayout> {
        let b = &self.bytes;
        let (tcp, protocol) = match b.first()? >> 4 {
            4 if u16::from_be_bytes([*b.get(6)?, *b.get(7)?]) & 0x3fff == 0 => {
                (usize::from(b[0] & 15) * 4, *b.get(9)?)
            }
            6 => (40, *b.get(6)?),
            _ => return None,
        };
        let payload = tcp + usize::from(*b.get(tcp + 12)? >> 4) * 4;
        // A header has 20 bytes at least, whatever it says itself.
        (protocol == 6 && (tcp + 20..=b.len()).contains(&payload))
            .then_some(TcpLayout { tcp, payload: payload..b.len() })
    }

    /// Bytes that it takes on a link, with the headers that each segment of it gets.
    pub fn wire_len(&self) -> usize {
        let Some(layout) = self.super_segment() else { return self.bytes.len() };
        let segments = layout.payload.len().div_ceil(usize::from(self.gso_size)).max(1);
        self.bytes.len() + (segments - 1) * layout.payload.start
    }

    /// The size of its largest packet.
    pub fn packet_len(&self) -> usize {
        self.super_segment().map_or(self.bytes.len(), |layout| {
            layout.payload.start + layout.payload.len().min(usize::from(self.gso_size))
        })
    }

    /// Cuts a super-segment into its segments, as an interface with TSO does. Anything else stays as it is.
    pub fn split(self) -> Vec<Self> {
        let Some(layout) = self.super_segment() else { return alloc::vec![Self { gso_size: 0, ..self }] };
        let head = &self.bytes[..layout.payload.start];
        let payload = &self.bytes[layout.payload.clone()];
        let pieces = payload.len().div_ceil(usize::from(self.gso_size)).max(1);
        let mut segments = Vec::with_capacity(pieces);
        for (i, piece) in payload.chunks(usize::from(self.gso_size)).enumerate() {
            let mut bytes = Vec::with_capacity(head.len() + piece.len());
            bytes.extend_from_slice(head);
            bytes.extend_from_slice(piece);
            let tcp = &mut bytes[layout.tcp..];
            add_be32(&mut tcp[4..8], (i * usize::from(self.gso_size)) as u32);
            if i + 1 < pieces {
                tcp[13] &= !(FIN | PSH); // the last one carries them
            }
            if i > 0 {
                tcp[13] &= !CWR; // RFC 3168: once
            }
            if bytes[0] >> 4 == 4 {
                let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(i as u16);
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
            }
            let mut segment = Self::new(bytes);
            segment.set_length();
            segment.complete_checksum(layout.tcp, 16);
            segments.push(segment);
        }
        segments
    }

    /// Whether a packet with TCP has the lengths and checksums that it should have.
    pub fn is_intact(&self) -> bool {
        let Some(layout) = self.tcp() else { return false };
        let b = &self.bytes;
        let (len, header) = match b[0] >> 4 {
            4 => (u16::from_be_bytes([b[2], b[3]]).into(), fold(sum(&b[..layout.tcp]))),
            _ => (40 + usize::from(u16::from_be_bytes([b[4], b[5]])), 0xffff),
        };
        len == b.len()
            && header == 0xffff
            && fold(self.pseudo_header_sum(layout.tcp) + sum(&b[layout.tcp..])) == 0xffff
    }

    /// Appends the payload of the packet that follows in the same flow, as an interface with GRO does. Says whether it
    /// could; if not, nothing has changed. The caller knows that both are intact: nobody checks that afterwards.
    pub fn merge(&mut self, next: &Self, max: usize) -> bool {
        let (Some(mine), Some(theirs)) = (self.tcp(), next.tcp()) else { return false };
        let size = if self.gso_size == 0 { mine.payload.len() } else { usize::from(self.gso_size) };
        let (a, b) =
            (&self.bytes[mine.tcp..mine.payload.start], &next.bytes[theirs.tcp..theirs.payload.start]);
        let follows = be32(&a[4..8]).wrapping_add(mine.payload.len() as u32) == be32(&b[4..8]);
        // Equal but for sequence number, window, PSH, checksum and time stamps: RFC-wise nobody misses those.
        let alike = mine.payload.start == theirs.payload.start
            && self.addresses() == next.addresses()
            && self.bytes[1] == next.bytes[1]
            && a[..4] == b[..4]
            && a[8..13] == b[8..13]
            && a[13] & !PSH == ACK
            && b[13] & !PSH == ACK
            && a[20..] == b[20..];
        let whole = mine.payload.len() % size.max(1) == 0;
        if !follows || !alike || !whole || next.gso_size != 0 || theirs.payload.is_empty() {
            return false;
        }
        if theirs.payload.len() > size || self.bytes.len() + theirs.payload.len() > max {
            return false;
        }
        self.bytes[mine.tcp + 13] |= next.bytes[theirs.tcp + 13] & PSH;
        self.bytes.extend_from_slice(&next.bytes[theirs.payload]);
        self.gso_size = size as u16;
        self.set_length();
        true
    }

    /// Fills in a checksum of which the field holds the sum of the pseudo header only, as `VIRTIO_NET_HDR_F_NEEDS_CSUM`
    /// asks; what the field holds is not used: the pseudo header's length would be that of a super-segment.
    pub fn complete_checksum(&mut self, start: usize, offset: usize) {
        let pseudo = self.pseudo_header_sum(start);
        let Some(field) = self.bytes.get_mut(start + offset..start + offset + 2) else { return };
        field.fill(0);
        let sum = !fold(pseudo + sum(&self.bytes[start..]));
        self.bytes[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether the sender takes part in ECN (RFC 3168 section 5).
    pub fn is_ecn_capable(&self) -> bool {
        matches!(self.traffic_class() & 3, 1 | 2)
    }

    /// Marks it as having met congestion.
    pub fn mark_congestion(&mut self) {
        match self.bytes.first().map(|b| b >> 4) {
            Some(4) if self.bytes.len() >= 20 => {
                // RFC 1624, as routers do it: a checksum that was wrong stays wrong.
                let before = u64::from(self.bytes[1]);
                self.bytes[1] |= 3;
                let checksum = u64::from(!u16::from_be_bytes([self.bytes[10], self.bytes[11]]));
                let changed = !fold(checksum + (0xffff - before) + u64::from(self.bytes[1]));
                self.bytes[10..12].copy_from_slice(&changed.to_be_bytes());
            }
            Some(6) if self.bytes.len() >= 2 => self.bytes[1] |= 0x30,
            _ => {}
        }
    }

    /// Whether routers may not cut it into fragments.
    pub fn dont_fragment(&self) -> bool {
        self.bytes.first().is_some_and(|b| b >> 4 == 6) || self.bytes.get(6).is_some_and(|b| b & 0x40 != 0)
    }

    fn traffic_class(&self) -> u8 {
        match self.bytes[..] {
            [b, class, ..] if b >> 4 == 4 => class,
            [a, b, ..] => a << 4 | b >> 4,
            _ => 0,
        }
    }

    fn super_segment(&self) -> Option<TcpLayout> {
        if self.gso_size == 0 { None } else { self.tcp() }
    }

    /// The length in the IP header, and IPv4's checksum.
    fn set_length(&mut self) {
        let len = self.bytes.len();
        if self.bytes[0] >> 4 == 4 {
            let header = usize::from(self.bytes[0] & 15) * 4;
            self.bytes[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
            self.bytes[10..12].fill(0);
            let sum = !fold(sum(&self.bytes[..header]));
            self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            self.bytes[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap_or(u16::MAX).to_be_bytes());
        }
    }

    fn pseudo_header_sum(&self, start: usize) -> u64 {
        let (addresses, protocol) = match self.bytes[0] >> 4 {
            4 => (&self.bytes[12..20], self.bytes[9]),
            _ => (&self.bytes[8..40], self.bytes[6]),
        };
        sum(addresses) + u64::from(protocol) + (self.bytes.len() - start) as u64
    }
}

/// RFC 1071, without the complement and the carries. Written apart from the stack's own on purpose: one checks the other.
pub(super) fn sum(data: &[u8]) -> u64 {
    let pairs = data.chunks_exact(2);
    let odd = pairs.remainder().first().map_or(0, |&b| u64::from(b) << 8);
    pairs.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>() + odd
}

/// Folds the carries of a sum into its low 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn add_be32(bytes: &mut [u8], n: u32) {
    let sum = be32(bytes).wrapping_add(n);
    bytes.copy_from_slice(&sum.to_be_bytes());
}

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet of a flow, with correct checksums.
    fn segment(seq: u32, flags: u8, payload: &[u8]) -> Frame {
        let mut bytes = alloc::vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend_from_slice(&[0x10, 0, 0x20, 0]);
        bytes.extend_from_slice(&seq.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(payload);
        let mut frame = Frame::new(bytes);
        frame.set_length();
        frame.complete_checksum(20, 16);
        frame
    }

    #[test]
    fn merging_and_splitting_are_inverse() {
        let payload: Vec<u8> = (0..250).collect();
        let pieces: Vec<_> = (0..3)
            .map(|i| {
                segment(
                    1000 + i * 100,
                    if i == 2 { ACK | PSH } else { ACK },
                    &payload[i as usize * 100..][..if i == 2 { 50 } else { 100 }],
                )
            })
            .collect();
        let mut whole = pieces[0].clone();
        assert!(whole.merge(&pieces[1], 65535) && whole.merge(&pieces[2], 65535));
        assert_eq!((whole.gso_size, whole.wire_len(), whole.packet_len()), (100, 250 + 3 * 40, 140));
        let again = whole.split();
        assert!(again.iter().all(Frame::is_intact));
        let payloads: Vec<_> = again.iter().map(|f| &f.bytes[40..]).collect();
        assert_eq!(payloads, pieces.iter().map(|f| &f.bytes[40..]).collect::<Vec<_>>());
        let flags: Vec<_> = again.iter().map(|f| f.bytes[33]).collect();
        assert_eq!(flags, [ACK, ACK, ACK | PSH]);
    }

    #[test]
    fn a_header_that_says_it_is_shorter_than_any_is_none() {
        let mut damaged = segment(0, ACK, b"data");
        for words in 0..5 {
            damaged.bytes[32] = words << 4;
            assert!(damaged.tcp().is_none());
            assert!(!damaged.clone().merge(&segment(4, ACK, b"data"), 65535));
            assert!(!segment(0, ACK, b"data").merge(&damaged, 65535));
        }
    }

    #[test]
    fn a_mark_keeps_a_right_checksum_right_and_a_wrong_one_wrong() {
        for class in [1, 2, 0xb9] {
            let mut frame = segment(0, ACK, b"data");
            frame.bytes[1] = class;
            frame.set_length();
            assert!(frame.is_ecn_capable() && frame.is_intact());
            let mut damaged = frame.clone();
            frame.mark_congestion();
            assert!(frame.is_intact());
            assert_eq!(frame.bytes[1], class | 3);
            damaged.bytes[0] = 0x4f; // a header longer than the packet
            damaged.mark_congestion();
            assert!(!damaged.is_intact());
            assert_eq!(damaged.bytes.len(), 44);
        }
    }

    #[test]
    fn only_what_follows_is_merged() {
        let mut first = segment(1000, ACK, &[1; 100]);
        for (other, why) in [
            (segment(1200, ACK, &[2; 100]), "a gap"),
            (segment(1100, ACK | FIN, &[2; 100]), "the end"),
            (segment(1100, ACK, &[2; 101]), "larger than the first"),
            (segment(1100, ACK, &[]), "no payload"),
        ] {
            assert!(!first.merge(&other, 65535), "{why}");
        }
        assert!(first.merge(&segment(1100, ACK, &[2; 40]), 65535));
        assert!(!first.merge(&segment(1140, ACK, &[2; 40]), 65535), "the last one was short");
    }

    #[test]
    fn a_mark_keeps_the_header_intact() {
        let mut frame = segment(0, ACK, &[0; 9]);
        frame.bytes[1] = 2;
        frame.set_length();
        assert!(frame.is_ecn_capable());
        frame.mark_congestion();
        assert!(frame.is_intact() && !frame.is_ecn_capable());
    }
}
