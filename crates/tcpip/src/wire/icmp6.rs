//! ICMPv6 (RFC 4443). Neighbour discovery is in [`nd`].

use super::{DropReason, nd, protocol, read_u16, read_u32};
use crate::checksum::{finish, pseudo, sum};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

pub use super::icmp4::Echo;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet could not be delivered.
    Unreachable {
        /// Why; [`code`] names them.
        code: u8,
        /// The begin of the packet.
        original: &'a [u8],
    },
    /// A packet was too long for a link.
    TooBig {
        /// The link's MTU.
        mtu: u32,
        /// The begin of the packet.
        original: &'a [u8],
    },
    /// A packet, or one of its fragments, was on its way for too long.
    TimeExceeded {
        /// 0: hops, 1: reassembly.
        code: u8,
        /// The begin of the packet.
        original: &'a [u8],
    },
    /// A header made no sense.
    ParameterProblem {
        /// 0: an erroneous field, 1: an unknown next header, 2: an unknown option.
        code: u8,
        /// The offset of the byte in question.
        pointer: u32,
        /// The begin of the packet.
        original: &'a [u8],
    },
    /// Are you there?
    EchoRequest(Echo<'a>),
    /// The answer to an echo request.
    EchoReply(Echo<'a>),
    /// A message of neighbour discovery.
    Neighbour(nd::Message),
}

/// Codes of [`Message::Unreachable`] (RFC 4443 §3.1).
pub mod code {
    /// There is no route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// An administrator forbids it.
    pub const PROHIBITED: u8 = 1;
    /// The destination is beyond the scope of the source.
    pub const BEYOND_SCOPE: u8 = 2;
    /// The address is unreachable.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens on the port.
    pub const PORT: u8 = 4;
    /// The policy forbids the source.
    pub const SOURCE_POLICY: u8 = 5;
    /// The route rejects such packets.
    pub const REJECT_ROUTE: u8 = 6;
}

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

const HEADER_LEN: usize = 8;

impl<'a> Message<'a> {
    /// Reads what came in a packet with these addresses and this hop limit.
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`], [`DropReason::IcmpType`],
    /// [`DropReason::NdiscInvalid`].
    pub fn parse(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        hop_limit: u8,
        bytes: &'a [u8],
    ) -> Result<Self, DropReason> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::IcmpTruncated)?;
        if !checked(source, destination, bytes).is_intact() {
            return Err(DropReason::IcmpChecksum);
        }
        let (kind, code) = (head[0], head[1]);
        let echo = Echo { ident: read_u16(head, 4), sequence: read_u16(head, 6), data: rest };
        Ok(match (kind, code) {
            (UNREACHABLE, ..=code::REJECT_ROUTE) => Self::Unreachable { code, original: rest },
            // RFC 4443 §3.2: the code is ignored.
            (TOO_BIG, _) => Self::TooBig { mtu: read_u32(head, 4), original: rest },
            (TIME_EXCEEDED, 0 | 1) => Self::TimeExceeded { code, original: rest },
            (PARAMETER_PROBLEM, 0..=2) => {
                Self::ParameterProblem { code, pointer: read_u32(head, 4), original: rest }
            }
            (ECHO_REQUEST, 0) => Self::EchoRequest(echo),
            (ECHO_REPLY, 0) => Self::EchoReply(echo),
            (nd::SOLICITATION | nd::ADVERTISEMENT, _) => {
                Self::Neighbour(nd::Message::parse(source, destination, hop_limit, bytes)?)
            }
            _ => return Err(DropReason::IcmpType),
        })
    }

    /// Appends it with the checksum for these addresses.
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr, out: &mut Vec<u8>) {
        let echo = |echo: &Echo<'a>| {
            let ([a, b], [c, d]) = (echo.ident.to_be_bytes(), echo.sequence.to_be_bytes());
            ([a, b, c, d], echo.data)
        };
        let begin = out.len();
        let (kind, code, (word, rest)) = match self {
            Self::Unreachable { code, original } => (UNREACHABLE, *code, ([0; 4], *original)),
            Self::TooBig { mtu, original } => (TOO_BIG, 0, (mtu.to_be_bytes(), *original)),
            Self::TimeExceeded { code, original } => (TIME_EXCEEDED, *code, ([0; 4], *original)),
            Self::ParameterProblem { code, pointer, original } => {
                (PARAMETER_PROBLEM, *code, (pointer.to_be_bytes(), *original))
            }
            Self::EchoRequest(request) => (ECHO_REQUEST, 0, echo(request)),
            Self::EchoReply(reply) => (ECHO_REPLY, 0, echo(reply)),
            Self::Neighbour(message) => {
                message.emit(out);
                return fill_checksum(source, destination, &mut out[begin..]);
            }
        };
        out.extend([kind, code, 0, 0]);
        out.extend(word);
        out.extend(rest);
        fill_checksum(source, destination, &mut out[begin..]);
    }
}

/// Whether the ICMPv6 message in a packet is an error, or may be one: RFC 4443 §2.4 e forbids errors about errors and
/// redirects. Also for messages that were cut off.
pub fn may_be_error(bytes: &[u8]) -> bool {
    const REDIRECT: u8 = 137;
    bytes.first().is_none_or(|&kind| kind < 128 || kind == REDIRECT)
}

fn checked(source: Ipv6Addr, destination: Ipv6Addr, bytes: &[u8]) -> crate::checksum::Sum {
    pseudo(IpAddr::V6(source), IpAddr::V6(destination), protocol::ICMPV6, bytes.len() as u32) + sum(bytes)
}

fn fill_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &mut [u8]) {
    let checksum = finish(checked(source, destination, message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const THERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            which in 0..6,
            (a, b, code, word) in (any::<u16>(), any::<u16>(), any::<u8>(), any::<u32>()),
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let original = &data[..];
            let message = match which {
                0 => Message::EchoRequest(Echo { ident: a, sequence: b, data: original }),
                1 => Message::EchoReply(Echo { ident: a, sequence: b, data: original }),
                2 => Message::Unreachable { code: code % 7, original },
                3 => Message::TooBig { mtu: word, original },
                4 => Message::TimeExceeded { code: code % 2, original },
                _ => Message::ParameterProblem { code: code % 3, pointer: word, original },
            };
            let mut bytes = Vec::new();
            message.emit(HERE, THERE, &mut bytes);
            prop_assert_eq!(Message::parse(HERE, THERE, 64, &bytes), Ok(message));
            prop_assert_eq!(may_be_error(&bytes), which >= 2);
            prop_assert_eq!(Message::parse(HERE, HERE, 64, &bytes), Err(DropReason::IcmpChecksum));
        }
    }
}
