//! ICMP errors: what they mean for a socket, and the limits on those that we send.

use crate::seq::SeqNumber;
use crate::table::HashKey;
use crate::time::Instant;
use crate::wire::{DropReason, icmp4, ipv4, ipv6, protocol};
use alloc::boxed::Box;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// An error about a packet that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The address of our end.
    pub local: SocketAddr,
    /// The address of the other end.
    pub remote: SocketAddr,
    /// Which transport it is about.
    pub protocol: u8,
    /// For TCP, the number of the segment: one that is not in flight tells of a forged error (RFC 5927 §4.1).
    pub seq: SeqNumber,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// Waiting will not help. Linux's tables `icmp_err_convert` and `icmpv6_err_convert` call it fatal. RFC 1122
    /// §4.2.3.9 asks a TCP that has been established to carry on even so, and Linux does.
    pub fatal: bool,
}

/// The kinds of errors, one for each error number that Linux uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// `EMSGSIZE`: longer than a link on the path allows.
    TooBig {
        /// The link's MTU; 0 when the router does not say (RFC 1191 §5).
        mtu: u32,
    },
    /// `ENETUNREACH`.
    NetUnreachable,
    /// `EHOSTUNREACH`.
    HostUnreachable,
    /// `ECONNREFUSED`.
    PortUnreachable,
    /// `ENOPROTOOPT`.
    ProtocolUnreachable,
    /// `EOPNOTSUPP`.
    SourceRouteFailed,
    /// `EHOSTDOWN`.
    HostDown,
    /// `ENONET`.
    HostIsolated,
    /// `EACCES`; IPv6 only, for IPv4 Linux says `EHOSTUNREACH` or `ENETUNREACH`.
    Prohibited,
    /// `EHOSTUNREACH`: too many hops.
    TimeExceeded,
    /// `EPROTO`.
    ParameterProblem,
}

impl ErrorKind {
    /// Of an ICMP message, and whether it is fatal. None for source quench, which RFC 6633 §5 has ignored, and for
    /// what is no error.
    pub const fn of_v4(message: &icmp4::Message<'_>) -> Option<(Self, bool)> {
        use icmp4::code;
        let unreachable = match *message {
            icmp4::Message::Unreachable { code, mtu, .. } => (code, mtu),
            // Code 1 tells of our fragments alone, and says nothing of the way.
            icmp4::Message::TimeExceeded { .. } => return Some((Self::TimeExceeded, false)),
            icmp4::Message::ParameterProblem { .. } => return Some((Self::ParameterProblem, true)),
            _ => return None,
        };
        Some(match unreachable {
            (code::NETWORK | code::NETWORK_FOR_SERVICE, _) => (Self::NetUnreachable, false),
            (code::NETWORK_UNKNOWN | code::NETWORK_PROHIBITED, _) => (Self::NetUnreachable, true),
            (code::HOST | code::HOST_FOR_SERVICE, _) => (Self::HostUnreachable, false),
            (code::PROTOCOL, _) => (Self::ProtocolUnreachable, true),
            (code::PORT, _) => (Self::PortUnreachable, true),
            (code::FRAGMENTATION_NEEDED, mtu) => (Self::TooBig { mtu: mtu as u32 }, false),
            (code::SOURCE_ROUTE, _) => (Self::SourceRouteFailed, false),
            (code::HOST_UNKNOWN, _) => (Self::HostDown, true),
            (code::SOURCE_ISOLATED, _) => (Self::HostIsolated, true),
            _ => (Self::HostUnreachable, true),
        })
    }

    /// The kind of an ICMPv6 error, and whether it is fatal.
    pub const fn of_v6(message: &crate::wire::icmp6::Message<'_>) -> Option<(Self, bool)> {
        use crate::wire::icmp6::{Message, code};
        Some(match *message {
            Message::Unreachable { code: code::NO_ROUTE, .. } => (Self::NetUnreachable, false),
            Message::Unreachable { code: code::BEYOND_SCOPE | code::ADDRESS, .. } => {
                (Self::HostUnreachable, false)
            }
            Message::Unreachable { code: code::PORT, .. } => (Self::PortUnreachable, true),
            Message::Unreachable { .. } => (Self::Prohibited, true),
            Message::TooBig { mtu, .. } => (Self::TooBig { mtu }, false),
            Message::TimeExceeded { .. } => (Self::TimeExceeded, false),
            Message::ParameterProblem { .. } => (Self::ParameterProblem, true),
            _ => return None,
        })
    }
}

impl IcmpError {
    /// The error about the packet that begins with `original`, which we sent.
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpOriginal`] when the quote does not say whose packet it was.
    pub fn about(original: &[u8], kind: ErrorKind, fatal: bool) -> Result<Self, DropReason> {
        let (local, remote, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) =
            match original.first().map(|byte| byte >> 4) {
                Some(4) => {
                    let (header, rest) = ipv4::Header::parse_original(original)?;
                    if header.fragment_offset > 0 {
                        return Err(DropReason::IcmpOriginal);
                    }
                    (header.source.into(), header.destination.into(), header.protocol, rest)
                }
                Some(6) => {
                    let (header, rest) = ipv6::Header::parse_original(original)?;
                    let (protocol, rest) = ipv6::original_payload(header.next_header, rest)?;
                    (header.source.into(), header.destination.into(), protocol, rest)
                }
                _ => return Err(DropReason::IcmpOriginal),
            };
        if !matches!(protocol, protocol::TCP | protocol::UDP) {
            return Err(DropReason::IcmpOriginal);
        }
        // RFC 792 promises eight bytes: both ports, and TCP's sequence number.
        let [a, b, c, d, seq @ ..] = *transport.first_chunk::<8>().ok_or(DropReason::IcmpOriginal)?;
        Ok(Self {
            local: SocketAddr::new(local, u16::from_be_bytes([a, b])),
            remote: SocketAddr::new(remote, u16::from_be_bytes([c, d])),
            protocol,
            seq: SeqNumber::new(u32::from_be_bytes(seq)),
            kind,
            fatal,
        })
    }
}

/// How many errors we send: in all (Linux: `icmp_msgs_per_sec`, `icmp_msgs_burst`) and to one destination
/// (`icmp_ratelimit`, one a second with a burst of six). RFC 1812 §4.3.2.8 and RFC 4443 §2.4 f want such limits.
///
/// The limit of all is shared by those who do not trust each other: one who can count exactly how many errors are left
/// learns what others have asked for, and finds the port of a socket by it (CVE-2020-25705, "SAD DNS"). So each error costs
/// nothing, one or two, at random, as in Linux (`icmp_global_consume`): one in the mean.
#[derive(Debug)]
pub(crate) struct RateLimit {
    key: HashKey,
    all: Bucket,
    /// Errors that were sent: hashed with the key, the count serves as a random number.
    sent: u64,
    /// Destinations with equal hashes share a bucket: an attacker cannot create more buckets.
    destinations: Box<[Bucket; DESTINATIONS]>,
}

const DESTINATIONS: usize = 256;

/// A bucket of tokens, counted in the time that it takes to fill it so far.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    credit: Duration,
    at: Instant,
}

impl RateLimit {
    /// Makes limits whose buckets are full.
    pub(crate) fn new(key: HashKey) -> Self {
        let full = Bucket { credit: Duration::MAX, at: Instant::ZERO };
        Self { key, all: full, sent: 0, destinations: Box::new([full; DESTINATIONS]) }
    }

    /// Whether an error may go to `destination` now.
    pub(crate) fn allow(&mut self, now: Instant, destination: IpAddr) -> bool {
        let bucket = &mut self.destinations[self.key.address(destination) as usize % DESTINATIONS];
        if !bucket.take(now, Duration::from_secs(1), 6, 1) {
            return false;
        }
        let price = self.key.number(self.sent) % 3;
        let allowed = self.all.take(now, Duration::from_millis(1), 50, price);
        self.sent += u64::from(allowed);
        allowed
    }
}

impl Bucket {
    /// Takes `price` tokens from a bucket that gets one each `interval` and holds `burst` of them, if there is one.
    fn take(&mut self, now: Instant, interval: Duration, burst: u32, price: u32) -> bool {
        let credit = self.credit.saturating_add(now.saturating_duration_since(self.at)).min(interval * burst);
        self.at = now;
        let allowed = credit >= interval;
        self.credit = if allowed { credit.saturating_sub(interval * price) } else { credit };
        allowed
    }
}

#[cfg(test)]
mod tests;
