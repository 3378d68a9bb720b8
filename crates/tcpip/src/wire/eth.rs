//! Ethernet II frames (RFC 894, RFC 2464), and the addresses that multicast maps to.

use super::{DropReason, read_array, read_u16};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address: every host on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether frames for it go to a group of hosts, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a single host can have it.
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Where frames for an IPv4 group go (RFC 1112 §6.4).
    pub const fn of_group_v4(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// Where frames for an IPv6 group go (RFC 2464 §7).
    pub const fn of_group_v6(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The protocols in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// RFC 894.
    Ipv4,
    /// RFC 826.
    Arp,
    /// RFC 2464.
    Ipv6,
}

impl EtherType {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The link-layer address of the receiver.
    pub destination: MacAddr,
    /// The link-layer address of the sender.
    pub source: MacAddr,
    /// The protocol of the payload.
    pub protocol: EtherType,
}

impl Header {
    /// Length of the header in bytes.
    pub const LEN: usize = 14;

    /// Splits a frame.
    ///
    /// # Errors
    ///
    /// [`DropReason::EthernetTruncated`], [`DropReason::EthernetType`].
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let Some((head, payload)) = frame.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DropReason::EthernetTruncated);
        };
        let protocol = match read_u16(head, 12) {
            0x0800 => EtherType::Ipv4,
            0x0806 => EtherType::Arp,
            0x86dd => EtherType::Ipv6,
            _ => return Err(DropReason::EthernetType),
        };
        let header = Self {
            destination: MacAddr(read_array(head, 0)),
            source: MacAddr(read_array(head, 6)),
            protocol,
        };
        Ok((header, payload))
    }

    /// Writes it to the first [`LEN`](Self::LEN) bytes.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn emit(&self, to: &mut [u8]) {
        to[..6].copy_from_slice(&self.destination.0);
        to[6..12].copy_from_slice(&self.source.0);
        to[12..14].copy_from_slice(&self.protocol.number().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_map_to_their_link_addresses() {
        let v4 = MacAddr::of_group_v4(Ipv4Addr::new(239, 255, 0, 1));
        assert_eq!(std::format!("{v4}"), "01:00:5e:7f:00:01");
        let v6 = MacAddr::of_group_v6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3456));
        assert_eq!(std::format!("{v6}"), "33:33:ff:12:34:56");
        assert!(v4.is_multicast() && v6.is_multicast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::default().is_unicast());
    }

    #[test]
    fn a_frame_is_split_and_joined_again() {
        let frame = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xdd, 99];
        let (header, payload) = Header::parse(&frame).unwrap();
        assert_eq!(payload, [99]);
        let mut written = [0; 14];
        header.emit(&mut written);
        assert_eq!(written, frame[..14]);
    }

    #[test]
    fn a_short_frame_and_a_strange_type_are_refused() {
        assert_eq!(Header::parse(&[0; 13]), Err(DropReason::EthernetTruncated));
        assert_eq!(Header::parse(&[0; 14]), Err(DropReason::EthernetType));
    }
}
