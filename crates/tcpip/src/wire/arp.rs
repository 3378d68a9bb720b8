//! ARP for IPv4 over Ethernet (RFC 826).

use super::{DropReason, MacAddr, read_array, read_u16};
use core::net::Ipv4Addr;

/// Whether a packet is a question or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whether it is a question or an answer.
    pub operation: Operation,
    /// Who sends, and from which link-layer address.
    pub sender: (Ipv4Addr, MacAddr),
    /// About whom or to whom, and its link-layer address if that is known.
    pub target: (Ipv4Addr, MacAddr),
}

impl Packet {
    /// Length of the packet in bytes.
    pub const LEN: usize = 28;

    /// Parses an ARP packet.
    ///
    /// # Errors
    ///
    /// One of the `Arp*` reasons.
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        let bytes = payload.first_chunk::<{ Self::LEN }>().ok_or(DropReason::ArpTruncated)?;
        if bytes[..6] != ETHERNET_AND_IPV4 {
            return Err(DropReason::ArpUnsupported);
        }
        let operation = match read_u16(bytes, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(DropReason::ArpUnsupported),
        };
        let packet = Self {
            operation,
            sender: (Ipv4Addr::from(read_array::<4>(bytes, 14)), MacAddr(read_array(bytes, 8))),
            target: (Ipv4Addr::from(read_array::<4>(bytes, 24)), MacAddr(read_array(bytes, 18))),
        };
        // Linux's arp_process drops these too. A sender of 0.0.0.0 asks whether its address is free (RFC 5227).
        let (sender, link_address) = packet.sender;
        if sender.is_multicast()
            || sender.is_broadcast()
            || sender.is_loopback()
            || !link_address.is_unicast()
        {
            return Err(DropReason::ArpAddress);
        }
        Ok(packet)
    }

    /// Writes it to the first [`LEN`](Self::LEN) bytes.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn emit(&self, out: &mut [u8]) {
        out[..6].copy_from_slice(&ETHERNET_AND_IPV4);
        let operation = match self.operation {
            Operation::Request => 1u16,
            Operation::Reply => 2,
        };
        out[6..8].copy_from_slice(&operation.to_be_bytes());
        out[8..14].copy_from_slice(&self.sender.1.0);
        out[14..18].copy_from_slice(&self.sender.0.octets());
        out[18..24].copy_from_slice(&self.target.1.0);
        out[24..28].copy_from_slice(&self.target.0.octets());
    }
}

/// Hardware type 1 with addresses of 6 bytes, protocol 0x0800 with addresses of 4.
const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        operation: Operation::Request,
        sender: (Ipv4Addr::new(10, 0, 0, 1), MacAddr([2, 0, 0, 0, 0, 1])),
        target: (Ipv4Addr::new(10, 0, 0, 2), MacAddr([0; 6])),
    };

    fn bytes(packet: Packet) -> [u8; 28] {
        let mut bytes = [0; 28];
        packet.emit(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_emitted_is_parsed_with_padding_behind() {
        for operation in [Operation::Request, Operation::Reply] {
            let packet = Packet { operation, ..PACKET };
            let mut frame = [0; 46];
            packet.emit(&mut frame);
            assert_eq!(Packet::parse(&frame), Ok(packet));
        }
    }

    #[test]
    fn other_protocols_and_operations_are_refused() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 0), (7, 3)] {
            let mut bad = bytes(PACKET);
            bad[at] = value;
            assert_eq!(Packet::parse(&bad), Err(DropReason::ArpUnsupported));
        }
        assert_eq!(Packet::parse(&bytes(PACKET)[..27]), Err(DropReason::ArpTruncated));
    }

    #[test]
    fn a_sender_that_no_host_can_be_is_refused() {
        let here = PACKET.sender.1;
        for sender in [
            (Ipv4Addr::BROADCAST, here),
            (Ipv4Addr::new(224, 0, 0, 1), here),
            (Ipv4Addr::LOCALHOST, here),
            (PACKET.sender.0, MacAddr::BROADCAST),
            (PACKET.sender.0, MacAddr([0; 6])),
        ] {
            assert_eq!(Packet::parse(&bytes(Packet { sender, ..PACKET })), Err(DropReason::ArpAddress));
        }
    }

    #[test]
    fn asking_whether_an_address_is_free_is_taken() {
        let probe = Packet { sender: (Ipv4Addr::UNSPECIFIED, PACKET.sender.1), ..PACKET };
        assert_eq!(Packet::parse(&bytes(probe)), Ok(probe));
    }
}
