//! The header with which a TAP device, a packet socket or a virtio queue hands over checksums and segmentation
//! (virtio 1.2 §5.1.6, `struct virtio_net_hdr_mrg_rxbuf` in linux/virtio_net.h), little endian.

use super::DropReason;

/// The header in front of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The checksum that is still to be computed, if one is.
    pub needs_checksum: Option<Checksum>,
    /// The device saw that the checksums are right.
    pub data_valid: bool,
    /// What the frame is to be cut into, or was put together from.
    pub segments: Option<Segments>,
    /// Bytes of headers that each segment gets; a hint.
    pub header_len: u16,
}

/// A checksum that was left for later: the field holds the sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where what is summed begins, counted from the frame.
    pub start: u16,
    /// Where the sum goes, counted from there.
    pub offset: u16,
}

/// A frame that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// The kind of segments that the frame is divided into.
    pub kind: SegmentKind,
    /// Bytes of payload in each but the last.
    pub size: u16,
    /// The first has CWR set and the others must not (RFC 3168 §6.1.2).
    pub ecn: bool,
}

/// How a frame is segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams, over IPv4 or IPv6.
    Udp,
}

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl Header {
    /// Bytes of it, with the number of buffers at its end: what `TUNSETVNETHDRSZ` is set to.
    pub const LEN: usize = 12;

    /// Splits what a device handed over, and checks what a frame's parser would trust.
    ///
    /// # Errors
    ///
    /// [`DropReason::OffloadTruncated`], [`DropReason::OffloadInvalid`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let Some((head, frame)) = bytes.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DropReason::OffloadTruncated);
        };
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let needs_checksum =
            (head[0] & NEEDS_CSUM != 0).then(|| Checksum { start: word(6), offset: word(8) });
        if let Some(Checksum { start, offset }) = needs_checksum
            && usize::from(start) + usize::from(offset) + 2 > frame.len()
        {
            return Err(DropReason::OffloadInvalid);
        }
        let kind = match head[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(SegmentKind::Tcp4),
            GSO_TCPV6 => Some(SegmentKind::Tcp6),
            GSO_UDP_L4 => Some(SegmentKind::Udp),
            // Fragmentation by the device (3) was dropped by Linux, and is not asked for.
            _ => return Err(DropReason::OffloadInvalid),
        };
        let segments = match (kind, word(4)) {
            (None, _) => None,
            (Some(_), 0) => return Err(DropReason::OffloadInvalid),
            (Some(kind), size) => Some(Segments { kind, size, ecn: head[1] & GSO_ECN != 0 }),
        };
        let header =
            Self { needs_checksum, data_valid: head[0] & DATA_VALID != 0, segments, header_len: word(2) };
        Ok((header, frame))
    }

    /// Writes it to the first [`LEN`](Self::LEN) bytes.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn emit(&self, out: &mut [u8]) {
        let head = out.first_chunk_mut::<{ Self::LEN }>().expect("room for a header");
        let Checksum { start, offset } = self.needs_checksum.unwrap_or(Checksum { start: 0, offset: 0 });
        head[0] = if self.needs_checksum.is_some() { NEEDS_CSUM } else { 0 }
            | if self.data_valid { DATA_VALID } else { 0 };
        head[1] = match self.segments {
            None => GSO_NONE,
            Some(Segments { kind, ecn, .. }) => {
                let kind = match kind {
                    SegmentKind::Tcp4 => GSO_TCPV4,
                    SegmentKind::Tcp6 => GSO_TCPV6,
                    SegmentKind::Udp => GSO_UDP_L4,
                };
                kind | if ecn { GSO_ECN } else { 0 }
            }
        };
        let size = self.segments.map_or(0, |segments| segments.size);
        for (at, word) in [(2, self.header_len), (4, size), (6, start), (8, offset), (10, 0)] {
            head[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        let kind = prop_oneof![Just(SegmentKind::Tcp4), Just(SegmentKind::Tcp6), Just(SegmentKind::Udp)];
        let segments =
            (kind, 1..=u16::MAX, any::<bool>()).prop_map(|(kind, size, ecn)| Segments { kind, size, ecn });
        let checksum = (0u16..50, 0u16..40).prop_map(|(start, offset)| Checksum { start, offset });
        (prop::option::of(checksum), any::<bool>(), prop::option::of(segments), any::<u16>()).prop_map(
            |(needs_checksum, data_valid, segments, header_len)| Header {
                needs_checksum,
                data_valid,
                segments,
                header_len,
            },
        )
    }

    #[test]
    fn a_super_segment_is_written_as_linux_reads_it() {
        let header = Header {
            needs_checksum: Some(Checksum { start: 34, offset: 16 }),
            data_valid: false,
            segments: Some(Segments { kind: SegmentKind::Tcp4, size: 1448, ecn: true }),
            header_len: 66,
        };
        let mut bytes = [0xaa; 12];
        header.emit(&mut bytes);
        assert_eq!(bytes, [1, 0x81, 66, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn what_contradicts_the_frame_is_refused() {
        let with = |edit: fn(&mut [u8])| {
            let mut bytes = [0; 32];
            edit(&mut bytes);
            Header::parse(&bytes).map(|(header, _)| header)
        };
        assert_eq!(with(|_| ()), Ok(Header::default()));
        assert_eq!(with(|b| (b[0], b[6]) = (1, 19)), Err(DropReason::OffloadInvalid));
        assert_eq!(with(|b| b[1] = GSO_TCPV4), Err(DropReason::OffloadInvalid));
        assert_eq!(with(|b| (b[1], b[4]) = (3, 100)), Err(DropReason::OffloadInvalid));
        assert_eq!(Header::parse(&[0; 11]), Err(DropReason::OffloadTruncated));
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(header in any_header()) {
            let mut bytes = [7; 12 + 100];
            header.emit(&mut bytes);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, &[7; 100][..])));
        }
    }
}
