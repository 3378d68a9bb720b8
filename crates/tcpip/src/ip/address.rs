//! The addresses of the stack, the choice of a source address, and addresses that no packet may have.

use super::route::{common_bits, contains};
use crate::ip::InterfaceId;
use crate::wire::nd::{ALL_NODES, solicited_node};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The link that the address is on.
    pub interface: InterfaceId,
    /// The address.
    pub address: IpAddr,
    /// The length of the link's prefix.
    pub prefix_len: u8,
}

impl Assigned {
    /// The broadcast address of its network. Links of two hosts have none (RFC 3021).
    fn broadcast(&self) -> Option<u32> {
        let IpAddr::V4(ours) = self.address else { return None };
        (self.prefix_len < 31).then(|| ours.to_bits() | u32::MAX >> self.prefix_len)
    }
}

/// The addresses of a stack: a handful, or some thousands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// All addresses, in the order in which they were added, which decides between equals.
    assigned: Vec<Assigned>,
    /// What each packet of IPv4 asks for, sorted: our addresses, and the broadcast addresses of our networks.
    local_v4: Vec<u32>,
    broadcasts: Vec<(u32, InterfaceId)>,
    /// The address that the last packet was for: mostly the next one is for it as well.
    recent: Option<IpAddr>,
}

/// Which hosts a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DestinationScope {
    /// This host alone.
    Us,
    /// This host among others: a broadcast, or a group that it belongs to.
    Group,
    /// Other hosts.
    Others,
}

impl Addresses {
    /// An empty list of addresses.
    pub(crate) const fn new() -> Self {
        Self { assigned: Vec::new(), local_v4: Vec::new(), broadcasts: Vec::new(), recent: None }
    }

    /// Adds one, or changes its prefix.
    pub(crate) fn add(&mut self, assigned: Assigned) {
        self.remove(assigned.address);
        self.assigned.push(assigned);
        self.sort();
    }

    /// Removes an address.
    pub(crate) fn remove(&mut self, address: IpAddr) -> Option<Assigned> {
        let place = self.assigned.iter().position(|assigned| assigned.address == address)?;
        let removed = self.assigned.remove(place);
        self.sort();
        Some(removed)
    }

    fn sort(&mut self) {
        let v4 = |assigned: &Assigned| match assigned.address {
            IpAddr::V4(address) => Some(address.to_bits()),
            IpAddr::V6(_) => None,
        };
        self.local_v4 = self.assigned.iter().filter_map(v4).collect();
        self.local_v4.sort_unstable();
        let broadcast = |assigned: &Assigned| Some((assigned.broadcast()?, assigned.interface));
        self.broadcasts = self.assigned.iter().filter_map(broadcast).collect();
        self.broadcasts.sort_unstable();
        self.broadcasts.dedup();
        self.recent = None;
    }

    /// All assigned addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Assigned> {
        self.assigned.iter()
    }

    /// Whether an address is ours, on whichever link: a host answers for all of its addresses on each of its links (the
    /// weak model of RFC 1122 §3.3.4.2, and Linux's). All of 127.0.0.0/8 is.
    #[inline]
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        let assigned = match address {
            IpAddr::V4(address) => self.local_v4.binary_search(&address.to_bits()).is_ok(),
            IpAddr::V6(_) => self.assigned.iter().any(|assigned| assigned.address == address),
        };
        assigned || address.is_loopback()
    }

    /// Which hosts a packet is for that arrived on `interface`.
    #[inline]
    pub(crate) fn destination_scope(
        &mut self,
        interface: InterfaceId,
        destination: IpAddr,
    ) -> DestinationScope {
        if self.recent == Some(destination) {
            return DestinationScope::Us;
        }
        self.look_up(interface, destination)
    }

    fn look_up(&mut self, interface: InterfaceId, destination: IpAddr) -> DestinationScope {
        if self.is_local(destination) {
            self.recent = Some(destination);
            return DestinationScope::Us;
        }
        let in_group = match destination {
            IpAddr::V4(Ipv4Addr::BROADCAST) => true,
            IpAddr::V4(address) if address.is_multicast() => address == ALL_SYSTEMS,
            IpAddr::V4(address) => self.is_subnet_broadcast(interface, address),
            IpAddr::V6(address) if address.is_multicast() => {
                address == ALL_NODES
                    || self.assigned.iter().any(|assigned| is_solicited_node(assigned, address))
            }
            IpAddr::V6(_) => false,
        };
        if in_group { DestinationScope::Group } else { DestinationScope::Others }
    }

    /// Whether IPv4 packets for `address` go to all hosts of a link.
    #[inline]
    pub(crate) fn is_subnet_broadcast(&self, interface: InterfaceId, address: Ipv4Addr) -> bool {
        self.broadcasts.binary_search(&(address.to_bits(), interface)).is_ok()
    }

    /// Whether it is the broadcast address of the network of any link.
    pub(crate) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.broadcasts.binary_search_by_key(&address.to_bits(), |(broadcast, _)| *broadcast).is_ok()
    }

    /// The address with which packets for `destination` leave by `interface`, when the next hop is `next_hop`.
    pub(crate) fn source(
        &self,
        interface: InterfaceId,
        destination: IpAddr,
        next_hop: IpAddr,
    ) -> Option<IpAddr> {
        if self.is_local(destination) {
            // To ourselves, packets come from the address that they go to, as in Linux.
            return Some(destination);
        }
        let version = |assigned: &&Assigned| assigned.address.is_ipv4() == destination.is_ipv4();
        let here = |assigned: &&Assigned| assigned.interface == interface;
        let not_loopback = |assigned: &&Assigned| !assigned.address.is_loopback();
        let best = |candidates: &mut dyn Iterator<Item = &Assigned>| match destination {
            IpAddr::V4(_) => best_v4(candidates, next_hop),
            IpAddr::V6(destination) => best_v6(candidates, destination),
        };
        // Other links' addresses serve when this one has none (RFC 6724 rule 5 prefers its own).
        best(&mut self.assigned.iter().filter(version).filter(here))
            .or_else(|| best(&mut self.assigned.iter().filter(version).filter(not_loopback)))
    }
}

/// The address on the next hop's network, or the first one, as `inet_select_addr` in Linux.
fn best_v4(candidates: &mut dyn Iterator<Item = &Assigned>, next_hop: IpAddr) -> Option<IpAddr> {
    let mut first = None;
    for assigned in candidates {
        if contains(assigned.address, assigned.prefix_len, next_hop) {
            return Some(assigned.address);
        }
        first.get_or_insert(assigned.address);
    }
    first
}

/// RFC 6724 §5, the rules that can tell our addresses apart: 2, an appropriate scope; 8, the longest matching prefix.
/// Rule 1 was applied before, the others need addresses with a lifetime, homes or labels.
fn best_v6(candidates: &mut dyn Iterator<Item = &Assigned>, destination: Ipv6Addr) -> Option<IpAddr> {
    let wanted = scope(destination);
    let rank = |assigned: &&Assigned| {
        let IpAddr::V6(address) = assigned.address else { return None };
        let own = scope(address);
        // Wide enough comes first; among those the narrowest, otherwise the widest.
        let enough = own >= wanted;
        let fit = if enough { u8::MAX - own } else { own };
        let common = common_bits(address.into(), destination.into()).min(assigned.prefix_len);
        Some((enough, fit, common))
    };
    let mut best: Option<&Assigned> = None;
    for assigned in candidates {
        if best.is_none_or(|best| rank(&assigned) > rank(&best)) {
            best = Some(assigned);
        }
    }
    best.map(|assigned| assigned.address)
}

/// The scope of an address, numbered as multicast scopes are (RFC 6724 §3.1).
const fn scope(address: Ipv6Addr) -> u8 {
    const LINK: u8 = 0x2;
    const SITE: u8 = 0x5;
    const GLOBAL: u8 = 0xe;
    let first = address.segments()[0];
    if first >> 8 == 0xff {
        (first & 0xf) as u8
    } else if first & 0xffc0 == 0xfe80 || address.is_loopback() {
        LINK
    } else if first & 0xffc0 == 0xfec0 {
        SITE
    } else {
        GLOBAL
    }
}

/// Whether a packet on a wire may come from `source` to a transport: not from a group, a broadcast or an unspecified address, and from
/// the loopback network only over the loopback (RFC 1122 §3.2.1.3; Linux's martians).
#[inline]
pub(crate) fn is_possible_source(source: IpAddr, looped: bool) -> bool {
    if source.is_loopback() {
        return looped;
    }
    let group = match source {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(group || source.is_multicast() || source.is_unspecified())
}

/// The group of all hosts on a link (RFC 1112).
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

fn is_solicited_node(assigned: &Assigned, group: Ipv6Addr) -> bool {
    matches!(assigned.address, IpAddr::V6(address) if solicited_node(address) == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: InterfaceId = InterfaceId(1);
    const OTHER_LINK: InterfaceId = InterfaceId(2);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses(all: &[(InterfaceId, &str, u8)]) -> Addresses {
        let mut addresses = Addresses::new();
        for (interface, address, prefix_len) in all {
            addresses.add(Assigned { interface: *interface, address: ip(address), prefix_len: *prefix_len });
        }
        addresses
    }

    #[test]
    fn unicast_broadcast_and_groups_are_told_apart() {
        let mut ours =
            addresses(&[(LINK, "10.0.0.1", 24), (LINK, "fe80::12:3456", 64), (OTHER_LINK, "10.1.0.1", 31)]);
        for (destination, destination_scope) in [
            ("10.0.0.1", DestinationScope::Us),
            ("10.1.0.1", DestinationScope::Us),
            ("10.0.0.255", DestinationScope::Group),
            ("255.255.255.255", DestinationScope::Group),
            ("224.0.0.1", DestinationScope::Group),
            ("224.0.0.251", DestinationScope::Others),
            ("10.0.0.2", DestinationScope::Others),
            ("10.1.0.0", DestinationScope::Others),
            ("fe80::12:3456", DestinationScope::Us),
            ("ff02::1", DestinationScope::Group),
            ("ff02::1:ff12:3456", DestinationScope::Group),
            ("ff02::1:ff12:3457", DestinationScope::Others),
            ("fe80::1", DestinationScope::Others),
        ] {
            assert_eq!(ours.destination_scope(LINK, ip(destination)), destination_scope, "{destination}");
        }
    }

    #[test]
    fn packets_leave_with_the_address_on_the_network_of_the_next_hop() {
        let ours =
            addresses(&[(LINK, "10.0.0.1", 24), (LINK, "192.168.0.1", 16), (OTHER_LINK, "172.16.0.1", 12)]);
        assert_eq!(ours.source(LINK, ip("1.1.1.1"), ip("192.168.3.3")), Some(ip("192.168.0.1")));
        assert_eq!(ours.source(LINK, ip("1.1.1.1"), ip("9.9.9.9")), Some(ip("10.0.0.1")));
        assert_eq!(ours.source(OTHER_LINK, ip("1.1.1.1"), ip("9.9.9.9")), Some(ip("172.16.0.1")));
        assert_eq!(ours.source(InterfaceId(7), ip("1.1.1.1"), ip("9.9.9.9")), Some(ip("10.0.0.1")));
        assert_eq!(ours.source(LINK, ip("fd00::1"), ip("fd00::1")), None);
    }

    #[test]
    fn to_ourselves_packets_leave_with_the_address_they_go_to() {
        let ours = addresses(&[(LINK, "10.0.0.1", 24), (LINK, "10.0.0.2", 24)]);
        assert_eq!(ours.source(LINK, ip("10.0.0.2"), ip("10.0.0.2")), Some(ip("10.0.0.2")));
        assert_eq!(ours.source(LINK, ip("127.0.0.5"), ip("127.0.0.5")), Some(ip("127.0.0.5")));
    }

    #[test]
    fn ipv6_sources_have_the_scope_and_the_prefix_of_the_destination() {
        let ours =
            addresses(&[(LINK, "fe80::1", 64), (LINK, "2001:db8:1::1", 64), (LINK, "2001:db8:2::1", 64)]);
        for (destination, source) in [
            ("fe80::9", "fe80::1"),
            ("ff02::1", "fe80::1"),
            ("2001:db8:2::9", "2001:db8:2::1"),
            ("2001:db8:1:7::9", "2001:db8:1::1"),
            ("2a00::1", "2001:db8:1::1"),
        ] {
            let destination = ip(destination);
            assert_eq!(ours.source(LINK, destination, destination), Some(ip(source)), "{destination}");
        }
        let narrow = addresses(&[(LINK, "fe80::1", 64)]);
        assert_eq!(narrow.source(LINK, ip("2a00::1"), ip("fe80::2")), Some(ip("fe80::1")));
    }

    #[test]
    fn no_packet_comes_from_a_group_from_nobody_or_over_a_wire_from_the_loopback() {
        for source in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "::", "ff02::1"] {
            assert!(!is_possible_source(ip(source), true), "{source}");
        }
        assert!(is_possible_source(ip("10.0.0.1"), false));
        assert!(!is_possible_source(ip("127.0.0.1"), false));
        assert!(is_possible_source(ip("::1"), true));
    }
}
