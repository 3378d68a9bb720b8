//! ICMP (RFC 792, and RFC 1191 for the MTU in "fragmentation needed").

use super::{DropReason, read_array, read_u16};
use crate::checksum::{finish, sum};
use alloc::vec::Vec;

/// A message. What a host need not understand (RFC 1122 §3.2.2: unknown types are dropped silently) is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Are you there?
    EchoRequest(Echo<'a>),
    /// The answer to an echo request.
    EchoReply(Echo<'a>),
    /// A packet could not be delivered.
    Unreachable {
        /// Why; [`code`] names those that matter here.
        code: u8,
        /// For "fragmentation needed", the MTU of the next hop, or 0 from a router that is older than RFC 1191.
        mtu: u16,
        /// The begin of the packet.
        original: &'a [u8],
    },
    /// A router had no room for a packet; obsolete (RFC 6633).
    SourceQuench {
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
        /// 0: at the pointer.
        code: u8,
        /// The offset of the byte in question.
        pointer: u8,
        /// The begin of the packet.
        original: &'a [u8],
    },
}

/// Both kinds of echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Identifies the program that asked.
    pub ident: u16,
    /// The number of the request.
    pub sequence: u16,
    /// Data that the answer repeats.
    pub data: &'a [u8],
}

/// Codes of [`Message::Unreachable`] (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
pub mod code {
    /// The network is unreachable.
    pub const NETWORK: u8 = 0;
    /// The host is unreachable.
    pub const HOST: u8 = 1;
    /// Nobody takes the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens on the port.
    pub const PORT: u8 = 3;
    /// Too long to go on, and not to be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// The source route failed.
    pub const SOURCE_ROUTE: u8 = 5;
    /// The network is not known.
    pub const NETWORK_UNKNOWN: u8 = 6;
    /// The host is not known.
    pub const HOST_UNKNOWN: u8 = 7;
    /// The source is isolated.
    pub const SOURCE_ISOLATED: u8 = 8;
    /// The network, by an administrator.
    pub const NETWORK_PROHIBITED: u8 = 9;
    /// The host, by an administrator.
    pub const HOST_PROHIBITED: u8 = 10;
    /// The network for this type of service.
    pub const NETWORK_FOR_SERVICE: u8 = 11;
    /// The host for this type of service.
    pub const HOST_FOR_SERVICE: u8 = 12;
    /// Communication, by an administrator.
    pub const PROHIBITED: u8 = 13;
    /// The precedence violates the host's.
    pub const HOST_PRECEDENCE: u8 = 14;
    /// The precedence is below the least one.
    pub const PRECEDENCE_CUTOFF: u8 = 15;
}

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

const HEADER_LEN: usize = 8;

impl<'a> Message<'a> {
    /// Parses an ICMP message.
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpTruncated`], [`DropReason::IcmpChecksum`], [`DropReason::IcmpType`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::IcmpTruncated)?;
        if !sum(bytes).is_intact() {
            return Err(DropReason::IcmpChecksum);
        }
        let code = head[1];
        let echo = Echo { ident: read_u16(head, 4), sequence: read_u16(head, 6), data: rest };
        Ok(match (head[0], code) {
            (ECHO_REQUEST, 0) => Self::EchoRequest(echo),
            (ECHO_REPLY, 0) => Self::EchoReply(echo),
            (UNREACHABLE, ..=code::PRECEDENCE_CUTOFF) => {
                Self::Unreachable { code, mtu: read_u16(head, 6), original: rest }
            }
            (SOURCE_QUENCH, 0) => Self::SourceQuench { original: rest },
            (TIME_EXCEEDED, 0 | 1) => Self::TimeExceeded { code, original: rest },
            (PARAMETER_PROBLEM, 0..=2) => Self::ParameterProblem { code, pointer: head[4], original: rest },
            _ => return Err(DropReason::IcmpType),
        })
    }

    /// Appends the message to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let echo = |echo: &Echo<'a>| {
            let ([a, b], [c, d]) = (echo.ident.to_be_bytes(), echo.sequence.to_be_bytes());
            ([a, b, c, d], echo.data)
        };
        let (kind, code, (word, rest)) = match self {
            Self::EchoRequest(request) => (ECHO_REQUEST, 0, echo(request)),
            Self::EchoReply(reply) => (ECHO_REPLY, 0, echo(reply)),
            Self::Unreachable { code, mtu, original } => {
                (UNREACHABLE, *code, (u32::from(*mtu).to_be_bytes(), *original))
            }
            Self::SourceQuench { original } => (SOURCE_QUENCH, 0, ([0; 4], *original)),
            Self::TimeExceeded { code, original } => (TIME_EXCEEDED, *code, ([0; 4], *original)),
            Self::ParameterProblem { code, pointer, original } => {
                (PARAMETER_PROBLEM, *code, ([*pointer, 0, 0, 0], *original))
            }
        };
        let begin = out.len();
        out.extend([kind, code, 0, 0]);
        out.extend(word);
        out.extend(rest);
        let checksum = finish(sum(&out[begin..]));
        out[begin + 2..begin + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Whether the ICMP message in an IPv4 packet is an error, or may be one: RFC 1122 §3.2.2 forbids errors about them.
/// Also for messages that were cut off or that [`Message`] does not know.
pub fn may_be_error(bytes: &[u8]) -> bool {
    // Redirect (5) is an error in this sense; the other numbers are questions and answers.
    !matches!(read_kind(bytes), Some(ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18))
}

fn read_kind(bytes: &[u8]) -> Option<u8> {
    (!bytes.is_empty()).then(|| read_array::<1>(bytes, 0)[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn emitted(message: Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(
            which in 0..6,
            (a, b, code) in (any::<u16>(), any::<u16>(), any::<u8>()),
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let original = &data[..];
            let message = match which {
                0 => Message::EchoRequest(Echo { ident: a, sequence: b, data: original }),
                1 => Message::EchoReply(Echo { ident: a, sequence: b, data: original }),
                2 => Message::Unreachable { code: code % 16, mtu: a, original },
                3 => Message::SourceQuench { original },
                4 => Message::TimeExceeded { code: code % 2, original },
                _ => Message::ParameterProblem { code: code % 3, pointer: a as u8, original },
            };
            let bytes = emitted(message);
            prop_assert_eq!(Message::parse(&bytes), Ok(message));
            prop_assert_eq!(may_be_error(&bytes), which >= 2);
        }
    }

    #[test]
    fn unknown_types_codes_and_damage_are_refused() {
        let request = emitted(Message::EchoRequest(Echo { ident: 1, sequence: 2, data: b"x" }));
        assert_eq!(Message::parse(&request[..7]), Err(DropReason::IcmpTruncated));
        for (at, value, reason) in [(4, 9, DropReason::IcmpChecksum), (0, 13, DropReason::IcmpType)] {
            let mut bad = request.clone();
            bad[at] = value;
            if reason == DropReason::IcmpType {
                bad[2..4].fill(0);
                let checksum = finish(sum(&bad));
                bad[2..4].copy_from_slice(&checksum.to_be_bytes());
            }
            assert_eq!(Message::parse(&bad), Err(reason));
        }
    }
}
