//! What a router says about a packet that is too big for the next link.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::{Frame, fold, sum};

/// The answer to `frame` from a router before a link with that MTU: RFC 1191 section 4 or RFC 4443 section 3.2.
pub(super) fn too_big(frame: &Frame, mtu: usize) -> Option<Frame> {
    let mtu = u32::try_from(mtu).ok()?;
    let bytes = match frame.addresses()? {
        (IpAddr::V4(source), IpAddr::V4(_)) => {
            let quoted = &frame.bytes[..frame.bytes.len().min(576 - 28)];
            let mut message = alloc::vec![3, 4, 0, 0];
            message.extend_from_slice(&mtu.to_be_bytes());
            message.extend_from_slice(quoted);
            let checksum = !fold(sum(&message));
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut packet = alloc::vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            packet[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
            packet.extend_from_slice(&ROUTER_V4.octets());
            packet.extend_from_slice(&source.octets());
            let checksum = !fold(sum(&packet));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            packet.extend_from_slice(&message);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(_)) => {
            let quoted = &frame.bytes[..frame.bytes.len().min(1280 - 48)];
            let mut message = alloc::vec![2, 0, 0, 0];
            message.extend_from_slice(&mtu.to_be_bytes());
            message.extend_from_slice(quoted);
            let mut addresses = Vec::from(ROUTER_V6.octets());
            addresses.extend_from_slice(&source.octets());
            let checksum = !fold(sum(&message) + sum(&addresses) + message.len() as u64 + 58);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut packet = alloc::vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            packet[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
            packet.extend_from_slice(&addresses);
            packet.extend_from_slice(&message);
            packet
        }
        _ => return None,
    };
    Some(Frame::new(bytes))
}

/// The router's own addresses: of the blocks for documentation.
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
