//! IPv6 headers and the extension headers behind them (RFC 8200).

use super::{DropReason, protocol, read_array, read_u16, read_u32};
use core::net::Ipv6Addr;

/// The fixed header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The address of the sender.
    pub source: Ipv6Addr,
    /// The address of the receiver.
    pub destination: Ipv6Addr,
    /// The header that follows: an extension or what the payload is.
    pub next_header: u8,
    /// How many more routers may forward the packet.
    pub hop_limit: u8,
    /// Differentiated services (RFC 2474) in the upper six bits, congestion notification (RFC 3168) in the lower two.
    pub traffic_class: u8,
    /// 20 bits, the same for the packets of one flow (RFC 6437).
    pub flow_label: u32,
}

impl Header {
    /// Length of the header in bytes.
    pub const LEN: usize = 40;

    /// A packet with Linux's defaults.
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8) -> Self {
        Self { source, destination, next_header, hop_limit: 64, traffic_class: 0, flow_label: 0 }
    }

    /// Splits a packet; what a link appended to it is cut off.
    ///
    /// # Errors
    ///
    /// [`DropReason::Ipv6Truncated`], [`DropReason::Ipv6Version`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let Some((head, rest)) = packet.split_first_chunk::<{ Self::LEN }>() else {
            return Err(DropReason::Ipv6Truncated);
        };
        if head[0] >> 4 != 6 {
            return Err(DropReason::Ipv6Version);
        }
        let payload = rest.get(..usize::from(read_u16(head, 4))).ok_or(DropReason::Ipv6Truncated)?;
        Ok((Self::read(head), payload))
    }

    /// What an ICMPv6 error tells of a packet, which may be cut off anywhere behind the header (RFC 4443 §2.4 c).
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpOriginal`].
    pub fn parse_original(packet: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        match packet.split_first_chunk::<{ Self::LEN }>() {
            Some((head, rest)) if head[0] >> 4 == 6 => Ok((Self::read(head), rest)),
            _ => Err(DropReason::IcmpOriginal),
        }
    }

    #[inline]
    fn read(head: &[u8; Self::LEN]) -> Self {
        let first = read_u32(head, 0);
        Self {
            source: Ipv6Addr::from(read_array::<16>(head, 8)),
            destination: Ipv6Addr::from(read_array::<16>(head, 24)),
            next_header: head[6],
            hop_limit: head[7],
            traffic_class: (first >> 20) as u8,
            flow_label: first & FLOW_LABEL,
        }
    }

    /// Writes it, for a payload of `payload_len` bytes with extension headers, to the first [`LEN`](Self::LEN) bytes.
    ///
    /// A payload longer than 65,535 bytes, which only a device that segments may get, has the length 0, as Linux
    /// writes it there (`ipv6_set_payload_len`).
    ///
    /// # Panics
    ///
    /// When there are fewer bytes.
    #[inline]
    pub fn emit(&self, payload_len: usize, to: &mut [u8]) {
        let head = to.first_chunk_mut::<{ Self::LEN }>().expect("room for a header");
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & FLOW_LABEL);
        head[..4].copy_from_slice(&first.to_be_bytes());
        head[4..6].copy_from_slice(&u16::try_from(payload_len).unwrap_or(0).to_be_bytes());
        head[6] = self.next_header;
        head[7] = self.hop_limit;
        head[8..24].copy_from_slice(&self.source.octets());
        head[24..40].copy_from_slice(&self.destination.octets());
    }
}

const FLOW_LABEL: u32 = 0xf_ffff;

/// What stands behind the extension headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The payload and its protocol.
    Whole {
        /// The protocol of the payload.
        protocol: u8,
        /// The bytes of it.
        bytes: &'a [u8],
    },
    /// A part of a packet that was fragmented.
    Part {
        /// The fragment header.
        fragment: Fragment,
        /// The bytes of it, which begin with more extension headers when it is the first.
        bytes: &'a [u8],
    },
    /// Nothing (RFC 8200 §4.7).
    Nothing,
}

/// The fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The header behind the fragment header in the packet that was fragmented.
    pub next_header: u8,
    /// Where the part belongs, in bytes.
    pub offset: u16,
    /// Whether more fragments of the packet follow.
    pub more: bool,
    /// Tells fragments of one packet from those of others.
    pub ident: u32,
}

impl Fragment {
    /// Length of the extension header in bytes.
    pub const LEN: usize = 8;

    /// Writes it to the first [`LEN`](Self::LEN) bytes.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn emit(&self, to: &mut [u8]) {
        to[0] = self.next_header;
        to[1] = 0;
        to[2..4].copy_from_slice(&(self.offset & !7 | u16::from(self.more)).to_be_bytes());
        to[4..8].copy_from_slice(&self.ident.to_be_bytes());
    }
}

/// Why extension headers were refused, and what the sender is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionDrop {
    /// The reason under which the drop is counted.
    pub reason: DropReason,
    /// The parameter problem that goes back, if one does.
    pub problem: Option<ParameterProblem>,
}

impl ExtensionDrop {
    const fn silent(reason: DropReason) -> Self {
        Self { reason, problem: None }
    }
}

/// An ICMPv6 parameter problem to send (RFC 4443 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterProblem {
    /// 0: an erroneous field, 1: an unknown next header, 2: an unknown option.
    pub code: u8,
    /// Where in the packet, counted from the fixed header.
    pub pointer: u32,
    /// Also when the packet was for a group (RFC 4443 §2.4 e.3, the exception).
    pub even_to_multicast: bool,
}

/// Extension headers that are followed. Linux lets a packet have as many as fit; no sender needs more than these,
/// and each costs time (RFC 8504 §5.3 allows a limit).
const MAX_EXTENSIONS: usize = 8;

/// Walks the extension headers in `bytes`, which stand `at` bytes behind the begin of the packet.
///
/// `at` is [`Header::LEN`] for what [`Header::parse`] returned.
///
/// # Errors
///
/// When a header is malformed or asks for what is not to be done.
#[inline]
pub fn payload(next_header: u8, bytes: &[u8], at: usize) -> Result<Payload<'_>, ExtensionDrop> {
    match next_header {
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
            Ok(Payload::Whole { protocol: next_header, bytes })
        }
        _ => walk(next_header, bytes, at),
    }
}

#[cold]
fn walk(mut next_header: u8, mut bytes: &[u8], mut at: usize) -> Result<Payload<'_>, ExtensionDrop> {
    let truncated = ExtensionDrop::silent(DropReason::Ipv6Extension);
    // Where the number of the header that is looked at was read: what a parameter problem points to.
    let mut named_at = 6;
    for position in 0..=MAX_EXTENSIONS {
        let len = match next_header {
            protocol::IPV6_NO_NEXT => return Ok(Payload::Nothing),
            protocol::IPV6_FRAGMENT => {
                let head = bytes.first_chunk::<{ Fragment::LEN }>().ok_or(truncated)?;
                let offset = read_u16(head, 2);
                let fragment = Fragment {
                    next_header: head[0],
                    offset: offset & !7,
                    more: offset & 1 != 0,
                    ident: read_u32(head, 4),
                };
                let rest = &bytes[Fragment::LEN..];
                if fragment.offset > 0 || fragment.more {
                    return Ok(Payload::Part { fragment, bytes: rest });
                }
                // An atomic fragment is a packet like any other (RFC 6946).
                Fragment::LEN
            }
            // Only directly behind the fixed header (RFC 8200 §4.1); elsewhere its number is not known.
            protocol::IPV6_HOP_BY_HOP if position > 0 => {
                return Err(ExtensionDrop {
                    reason: DropReason::Ipv6Extension,
                    problem: Some(ParameterProblem { code: 1, pointer: named_at, even_to_multicast: false }),
                });
            }
            protocol::IPV6_HOP_BY_HOP | protocol::IPV6_ROUTING | protocol::IPV6_DESTINATION => {
                let len = extension_len(bytes).ok_or(truncated)?;
                if next_header == protocol::IPV6_ROUTING {
                    check_routing(bytes, at)?;
                } else {
                    check_options(&bytes[..len], at)?;
                }
                len
            }
            _ => return Ok(Payload::Whole { protocol: next_header, bytes }),
        };
        next_header = bytes[0];
        named_at = at as u32;
        bytes = &bytes[len..];
        at += len;
    }
    Err(truncated)
}

/// The protocol of a packet that an ICMPv6 error quotes, and its bytes. Nothing is checked but lengths: our own stack
/// or its peer's made the packet.
///
/// # Errors
///
/// [`DropReason::IcmpOriginal`].
pub fn original_payload(mut next_header: u8, mut bytes: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    for _ in 0..=MAX_EXTENSIONS {
        let len = match next_header {
            protocol::IPV6_FRAGMENT => {
                let head = bytes.first_chunk::<{ Fragment::LEN }>().ok_or(DropReason::IcmpOriginal)?;
                if read_u16(head, 2) & !7 != 0 {
                    // Not the first: no ports in it.
                    return Err(DropReason::IcmpOriginal);
                }
                Fragment::LEN
            }
            protocol::IPV6_HOP_BY_HOP | protocol::IPV6_ROUTING | protocol::IPV6_DESTINATION => {
                extension_len(bytes).ok_or(DropReason::IcmpOriginal)?
            }
            _ => return Ok((next_header, bytes)),
        };
        next_header = bytes[0];
        bytes = &bytes[len..];
    }
    Err(DropReason::IcmpOriginal)
}

fn extension_len(bytes: &[u8]) -> Option<usize> {
    let len = (usize::from(*bytes.get(1)?) + 1) * 8;
    (len <= bytes.len()).then_some(len)
}

/// This is a host: with no segments left a routing header is skipped, otherwise the packet should travel on, which
/// type 0 must not (RFC 5095) and others need not (RFC 8200 §4.4).
fn check_routing(bytes: &[u8], at: usize) -> Result<(), ExtensionDrop> {
    if bytes[3] == 0 {
        return Ok(());
    }
    Err(ExtensionDrop {
        reason: DropReason::Ipv6Routing,
        problem: Some(ParameterProblem { code: 0, pointer: at as u32 + 2, even_to_multicast: false }),
    })
}

/// Skips the options that may be skipped (RFC 8200 §4.2: the two highest bits say so).
fn check_options(header: &[u8], at: usize) -> Result<(), ExtensionDrop> {
    const PAD1: u8 = 0;
    let mut place = 2;
    while place < header.len() {
        let kind = header[place];
        if kind == PAD1 {
            place += 1;
            continue;
        }
        let end = header.get(place + 1).map_or(usize::MAX, |len| place + 2 + usize::from(*len));
        if end > header.len() {
            return Err(ExtensionDrop::silent(DropReason::Ipv6Extension));
        }
        let known = matches!(kind, PAD_N | ROUTER_ALERT);
        let problem = |even_to_multicast| {
            Some(ParameterProblem { code: 2, pointer: (at + place) as u32, even_to_multicast })
        };
        let problem = match kind >> 6 {
            _ if known => None,
            0 => None,
            1 => return Err(ExtensionDrop::silent(DropReason::Ipv6Option)),
            2 => problem(true),
            _ => problem(false),
        };
        if problem.is_some() {
            return Err(ExtensionDrop { reason: DropReason::Ipv6Option, problem });
        }
        place = end;
    }
    Ok(())
}

const PAD_N: u8 = 1;
const ROUTER_ALERT: u8 = 5;

#[cfg(test)]
mod tests;
