//! UDP headers (RFC 768).

use super::{DropReason, protocol, read_u16};
use crate::checksum::{finish, pseudo, sum};
use core::net::IpAddr;

/// A datagram's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From which port; zero when no answer is expected.
    pub src_port: u16,
    /// The port of the receiver.
    pub dst_port: u16,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 8;
    /// Where in the header the checksum is.
    pub const CHECKSUM_OFFSET: u16 = 6;

    /// Splits a datagram. `trusted` says that the link vouches for the checksum.
    ///
    /// # Errors
    ///
    /// One of the `Udp*` reasons.
    pub fn parse(
        source: IpAddr,
        destination: IpAddr,
        datagram: &[u8],
        trusted: bool,
    ) -> Result<(Self, &[u8]), DropReason> {
        let head = datagram.first_chunk::<{ Self::LEN }>().ok_or(DropReason::UdpTruncated)?;
        let len = usize::from(read_u16(head, 4));
        if len < Self::LEN || len > datagram.len() {
            return Err(DropReason::UdpLength);
        }
        let datagram = &datagram[..len];
        let header = Self { src_port: read_u16(head, 0), dst_port: read_u16(head, 2) };
        if header.dst_port == 0 {
            return Err(DropReason::UdpPort);
        }
        match read_u16(head, 6) {
            // Not computed by the sender: only IPv4 allows that (RFC 8200 §8.1).
            0 if source.is_ipv4() => {}
            0 => return Err(DropReason::UdpChecksum),
            _ if trusted => {}
            _ => {
                let sum = pseudo(source, destination, protocol::UDP, len as u32) + sum(datagram);
                if !sum.is_intact() {
                    return Err(DropReason::UdpChecksum);
                }
            }
        }
        Ok((header, &datagram[Self::LEN..]))
    }

    /// Writes it in front of `payload`, which is what follows in `datagram`, with the whole checksum, or with the part
    /// that a device finishes.
    ///
    /// # Panics
    ///
    /// When the datagram is shorter than a header, or longer than 65,535 bytes.
    pub fn emit(&self, source: IpAddr, destination: IpAddr, datagram: &mut [u8], device_finishes: bool) {
        let len = u16::try_from(datagram.len()).expect("a datagram has at most 65,535 bytes");
        datagram[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        datagram[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        datagram[6..8].fill(0);
        let pseudo = pseudo(source, destination, protocol::UDP, u32::from(len));
        let checksum = if device_finishes {
            pseudo.value()
        } else {
            // Zero would say that there is none; all ones is the same number.
            match finish(pseudo + sum(datagram)) {
                0 => 0xffff,
                checksum => checksum,
            }
        };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const HERE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    const PORTS: Header = Header { src_port: 1000, dst_port: 2000 };

    #[test]
    fn no_checksum_is_taken_over_ipv4_and_refused_over_ipv6() {
        let mut datagram = [0; 12];
        PORTS.emit(HERE, THERE, &mut datagram, false);
        datagram[6..8].fill(0);
        assert!(Header::parse(HERE, THERE, &datagram, false).is_ok());
        assert_eq!(Header::parse(HERE6, HERE6, &datagram, false), Err(DropReason::UdpChecksum));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_and_what_follows_is_cut_off() {
        let mut datagram = [0; 12];
        PORTS.emit(HERE, THERE, &mut datagram, false);
        assert_eq!(Header::parse(HERE, THERE, &datagram[..7], false), Err(DropReason::UdpTruncated));
        assert_eq!(Header::parse(HERE, THERE, &datagram[..11], false), Err(DropReason::UdpLength));
        let mut longer = [9; 14];
        longer[..12].copy_from_slice(&datagram);
        assert_eq!(Header::parse(HERE, THERE, &longer, false), Ok((PORTS, &[0; 4][..])));
        datagram[5] = 7;
        assert_eq!(Header::parse(HERE, THERE, &datagram, true), Err(DropReason::UdpLength));
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        let mut datagram = [0; 10];
        PORTS.emit(HERE, THERE, &mut datagram, false);
        let filler = read_u16(&datagram, 6);
        datagram[8..].copy_from_slice(&filler.to_be_bytes());
        PORTS.emit(HERE, THERE, &mut datagram, false);
        assert_eq!(datagram[6..8], [0xff, 0xff]);
        assert!(Header::parse(HERE, THERE, &datagram, false).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed_and_each_damaged_bit_is_seen(
            payload in prop::collection::vec(any::<u8>(), 0..50),
            bit in any::<prop::sample::Index>(),
        ) {
            for (source, destination) in [(HERE, THERE), (HERE6, HERE6)] {
                let mut datagram = alloc::vec![0; Header::LEN];
                datagram.extend(&payload);
                PORTS.emit(source, destination, &mut datagram, false);
                prop_assert_eq!(Header::parse(source, destination, &datagram, false), Ok((PORTS, &payload[..])));
                let bit = bit.index(datagram.len() * 8);
                datagram[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Header::parse(source, destination, &datagram, false).is_err());
            }
        }
    }
}
