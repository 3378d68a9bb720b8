//! Both versions of IP behind one header: what a transport knows of the packet it is in.

use super::{ipv4, ipv6};
use core::net::IpAddr;

/// The header of a packet that is no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The address of the sender.
    pub src: IpAddr,
    /// The address of the receiver.
    pub dst: IpAddr,
    /// What the payload is.
    pub protocol: u8,
    /// How many more routers may forward the packet.
    pub hop_limit: u8,
    /// Differentiated services in the upper six bits, congestion notification in the lower two.
    pub traffic_class: u8,
    /// IPv4's identification.
    pub id: u16,
    /// Routers must not fragment it; so for every IPv6 packet.
    pub dont_fragment: bool,
    /// Bytes of the payload.
    pub payload_len: usize,
}

impl Header {
    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        match self.src {
            IpAddr::V4(_) => ipv4::Header::LEN,
            IpAddr::V6(_) => ipv6::Header::LEN,
        }
    }

    /// Writes it, with the checksum that IPv4 has, and returns its length.
    ///
    /// # Panics
    ///
    /// When `out` is shorter, or the addresses are of different versions.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        match (self.src, self.dst) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    ttl: self.hop_limit,
                    traffic_class: self.traffic_class,
                    ident: self.id,
                    dont_fragment: self.dont_fragment,
                    ..ipv4::Header::new(source, destination, self.protocol)
                };
                header.emit(self.payload_len, out);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    hop_limit: self.hop_limit,
                    traffic_class: self.traffic_class,
                    ..ipv6::Header::new(source, destination, self.protocol)
                };
                header.emit(self.payload_len, out);
            }
            _ => unreachable!("a packet has addresses of one version"),
        }
        self.len()
    }

    /// Of an IPv4 packet.
    #[inline]
    pub(crate) const fn of_v4(header: &ipv4::Header, payload_len: usize) -> Self {
        Self {
            src: IpAddr::V4(header.source),
            dst: IpAddr::V4(header.destination),
            protocol: header.protocol,
            hop_limit: header.ttl,
            traffic_class: header.traffic_class,
            id: header.ident,
            dont_fragment: header.dont_fragment,
            payload_len,
        }
    }

    /// Of an IPv6 packet whose extension headers led to `protocol`.
    #[inline]
    pub(crate) const fn of_v6(header: &ipv6::Header, protocol: u8, payload_len: usize) -> Self {
        Self {
            src: IpAddr::V6(header.source),
            dst: IpAddr::V6(header.destination),
            protocol,
            hop_limit: header.hop_limit,
            traffic_class: header.traffic_class,
            id: 0,
            dont_fragment: true,
            payload_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn both_versions_are_emitted_as_parsed() {
        let v4 = Header {
            src: Ipv4Addr::new(10, 0, 0, 1).into(),
            dst: Ipv4Addr::new(10, 0, 0, 2).into(),
            protocol: 6,
            hop_limit: 9,
            traffic_class: 0x2a,
            id: 77,
            dont_fragment: false,
            payload_len: 3,
        };
        let mut bytes = [0; 64];
        assert_eq!(v4.emit(&mut bytes), 20);
        let (parsed, payload) = ipv4::Header::parse(&bytes).unwrap();
        assert_eq!(Header::of_v4(&parsed, payload.len()), v4);

        let v6 = Header {
            src: Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8).into(),
            dst: Ipv6Addr::LOCALHOST.into(),
            id: 0,
            dont_fragment: true,
            ..v4
        };
        assert_eq!(v6.emit(&mut bytes), 40);
        let (parsed, payload) = ipv6::Header::parse(&bytes).unwrap();
        assert_eq!(Header::of_v6(&parsed, parsed.next_header, payload.len()), v6);
    }
}
