//! Headers as they are on the wire: parsed into values that can only be legal, and emitted from them.
//!
//! **Panics.** Nothing that parses panics, whatever the bytes: each parser checks lengths before it reads and says with
//! a [`DropReason`] why it refused. What emits panics when the buffer is too small, which only our own mistake can cause.
//!
//! **Copies.** Headers are copied into small values, payloads are slices of the frame.

pub mod arp;
mod drop_reason;
pub mod eth;
pub mod icmp4;
pub mod icmp6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod tcp;
pub mod udp;
pub mod virtio;

pub use drop_reason::{DropCounters, DropReason};
pub use eth::MacAddr;

/// Numbers of protocols and extension headers, as IANA assigns them.
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// RFC 8200 §4.3.
    pub const IPV6_HOP_BY_HOP: u8 = 0;
    /// RFC 8200 §4.4.
    pub const IPV6_ROUTING: u8 = 43;
    /// RFC 8200 §4.5.
    pub const IPV6_FRAGMENT: u8 = 44;
    /// RFC 8200 §4.7.
    pub const IPV6_NO_NEXT: u8 = 59;
    /// RFC 8200 §4.6.
    pub const IPV6_DESTINATION: u8 = 60;
}

#[inline]
fn read_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[inline]
fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(read_array(bytes, at))
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(read_array(bytes, at))
}
