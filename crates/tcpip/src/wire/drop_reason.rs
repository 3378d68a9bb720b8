//! Why a packet was not taken. Each reason has a counter: a peer that sends garbage shows in the statistics.

use core::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $text:literal,)+) => {
        /// Why a packet, or a part of it, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name that statistics show.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The offload header in front of the frame is cut short.
    OffloadTruncated => "offload truncated",
    /// The offload header contradicts itself or the frame.
    OffloadInvalid => "offload invalid",
    /// The Ethernet header is cut short.
    EthernetTruncated => "ethernet truncated",
    /// An Ethernet frame for another link-layer address.
    EthernetOtherAddress => "ethernet for another link-layer address",
    /// An Ethernet frame of a protocol that is not spoken here.
    EthernetType => "ethernet type unknown",
    /// ARP is cut short.
    ArpTruncated => "arp truncated",
    /// ARP, but not for IPv4 over Ethernet, or neither request nor reply.
    ArpUnsupported => "arp unsupported",
    /// ARP whose sender has an address that no host can have.
    ArpAddress => "arp address invalid",
    /// IPv4 is cut short, or says that it is longer than the frame.
    Ipv4Truncated => "ipv4 truncated",
    /// Not version 4.
    Ipv4Version => "ipv4 version",
    /// A header length below 20 bytes or beyond the total length.
    Ipv4HeaderLength => "ipv4 header length",
    /// The header's checksum does not match.
    Ipv4Checksum => "ipv4 checksum",
    /// Malformed options, or source routing, which RFC 6274 §3.13.2 and Linux's default refuse.
    Ipv4Options => "ipv4 options",
    /// A source or destination that no packet on a wire may have.
    Ipv4Address => "ipv4 address invalid",
    /// IPv6 is cut short, or says that it is longer than the frame.
    Ipv6Truncated => "ipv6 truncated",
    /// Not version 6.
    Ipv6Version => "ipv6 version",
    /// A source or destination that no packet on a wire may have.
    Ipv6Address => "ipv6 address invalid",
    /// Extension headers that are cut short, out of place, or more than any sender needs.
    Ipv6Extension => "ipv6 extension header",
    /// An option that says to drop the packet if it is not known (RFC 8200 §4.2).
    Ipv6Option => "ipv6 option",
    /// A routing header with segments left (RFC 5095).
    Ipv6Routing => "ipv6 routing header",
    /// A next header that is not spoken here.
    Protocol => "protocol unknown",
    /// TCP is cut short.
    TcpTruncated => "tcp truncated",
    /// A data offset below 20 bytes or beyond the segment.
    TcpDataOffset => "tcp data offset",
    /// TCP's checksum does not match.
    TcpChecksum => "tcp checksum",
    /// Port zero, or a source that is no host (RFC 9293 §3.9.2.3, MUST-63).
    TcpAddress => "tcp address invalid",
    /// UDP is cut short.
    UdpTruncated => "udp truncated",
    /// A length below 8 bytes or beyond the packet.
    UdpLength => "udp length",
    /// UDP's checksum does not match, or is missing over IPv6 (RFC 8200 §8.1).
    UdpChecksum => "udp checksum",
    /// No socket has the port.
    UdpPort => "udp port unreachable",
    /// The socket's queue of datagrams is full.
    UdpQueueFull => "udp queue full",
    /// ICMP is cut short.
    IcmpTruncated => "icmp truncated",
    /// ICMP's checksum does not match.
    IcmpChecksum => "icmp checksum",
    /// A type or code that means nothing here.
    IcmpType => "icmp type unknown",
    /// An error about a packet that is too short to tell whose it was, or that nobody here sent.
    IcmpOriginal => "icmp about an unknown packet",
    /// Echo requests to a broadcast or multicast address (RFC 1122 §3.2.2.6 allows to ignore them, as Linux does).
    IcmpBroadcast => "icmp to broadcast",
    /// Neighbour discovery that fails a check of RFC 4861 §7.1, such as a hop limit below 255.
    NdiscInvalid => "ndisc invalid",
    /// A fragment whose length or position cannot be (RFC 8200 §4.5, RFC 791 §3.2).
    FragmentInvalid => "fragment invalid",
    /// Fragments that overlap (RFC 5722, RFC 1858).
    FragmentOverlap => "fragment overlaps",
    /// No memory left within the cap for fragments.
    FragmentMemory => "fragment memory",
    /// Fragments that waited too long for the others.
    FragmentTimeout => "fragment timeout",
    /// For an address that is not ours: this is a host, no router.
    NotLocal => "not for us",
    /// Nothing says where packets for the destination go.
    NoRoute => "no route",
    /// The neighbour does not answer.
    NeighbourUnreachable => "neighbour unreachable",
    /// Too many packets wait for a neighbour's answer.
    NeighbourQueueFull => "neighbour queue full",
    /// Longer than the link takes, and not to be cut.
    TooLong => "too long",
    /// Too many frames wait to be sent.
    TransmitQueueFull => "transmit queue full",
    /// Too many neighbours.
    NeighbourTableFull => "neighbour table full",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for DropReason {}

/// How often each [`DropReason`] happened.
#[derive(Clone)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// DropCounters that are all zero.
    pub const fn new() -> Self {
        Self([0; DropReason::ALL.len()])
    }

    /// Counts a packet that was dropped.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How often it happened.
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many packets were refused.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that have occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(|&reason| (reason, self.of(reason))).filter(|(_, times)| *times > 0)
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DropCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(reason, times)| (reason.name(), times))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let mut counters = DropCounters::new();
        for (times, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, times, "{reason}");
            for _ in 0..=times {
                counters.count(*reason);
            }
        }
        for (times, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(counters.of(*reason), times as u64 + 1);
            assert!(DropReason::ALL.iter().all(|other| other == reason || other.name() != reason.name()));
        }
    }

    #[test]
    fn only_what_happened_is_shown() {
        let mut counters = DropCounters::new();
        counters.count(DropReason::TcpChecksum);
        counters.count(DropReason::TcpChecksum);
        assert_eq!(std::format!("{counters:?}"), r#"{"tcp checksum": 2}"#);
        assert_eq!(counters.total(), 2);
    }
}
