//! Where packets go: the longest prefix that contains the destination wins (RFC 1122 §3.3.1, RFC 4632 §5.1).

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use crate::ip::InterfaceId;

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The router; without one the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The link that packets are sent on.
    pub interface: InterfaceId,
}

/// Routes by prefix. A look-up costs a search for each length that has routes, not for each route.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    v4: BTreeMap<u8, BTreeMap<u128, Route>>,
    v6: BTreeMap<u8, BTreeMap<u128, Route>>,
}

impl Routes {
    /// A table without routes.
    pub(crate) const fn new() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }

    /// Adds the route for `prefix`, or replaces it. Bits behind the first `len` are ignored; more than there are bits
    /// count as all of them.
    pub(crate) fn add(&mut self, prefix: IpAddr, len: u8, route: Route) {
        let len = len.min(bits_of(prefix));
        self.version_mut(prefix).entry(len).or_default().insert(masked(prefix, len), route);
    }

    /// Removes the route for exactly this prefix.
    pub(crate) fn remove(&mut self, prefix: IpAddr, len: u8) -> Option<Route> {
        let len = len.min(bits_of(prefix));
        let lengths = self.version_mut(prefix);
        let routes = lengths.get_mut(&len)?;
        let removed = routes.remove(&masked(prefix, len));
        if routes.is_empty() {
            lengths.remove(&len);
        }
        removed
    }

    /// The route of the longest prefix with `destination` in it.
    pub(crate) fn find(&self, destination: IpAddr) -> Option<Route> {
        let lengths = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().rev().find_map(|(len, routes)| routes.get(&masked(destination, *len)).copied())
    }

    const fn version_mut(&mut self, prefix: IpAddr) -> &mut BTreeMap<u8, BTreeMap<u128, Route>> {
        if prefix.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// Whether `address` is in the prefix of `len` bits that `prefix` begins with.
pub(crate) fn contains(prefix: IpAddr, len: u8, address: IpAddr) -> bool {
    prefix.is_ipv4() == address.is_ipv4() && masked(prefix, len) == masked(address, len)
}

/// How many bits two addresses of one version have in common at the beginning.
pub(crate) fn common_bits(a: IpAddr, b: IpAddr) -> u8 {
    ((left_aligned(a) ^ left_aligned(b)).leading_zeros() as u8).min(bits_of(a))
}

const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address in the uppermost bits.
const fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => (address.to_bits() as u128) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, len: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
    left_aligned(address) & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn via(interface: u8) -> Route {
        Route { gateway: None, interface: InterfaceId(interface) }
    }

    #[test]
    fn the_longest_prefix_wins_in_either_version() {
        let mut routes = Routes::new();
        routes.add(address("0.0.0.0"), 0, via(0));
        routes.add(address("10.0.0.0"), 8, via(1));
        routes.add(address("10.1.2.3"), 32, via(2));
        routes.add(address("fd00::"), 8, via(3));
        routes.add(address("fd00::1"), 128, via(4));
        for (destination, interface) in
            [("9.9.9.9", 0), ("10.9.9.9", 1), ("10.1.2.3", 2), ("fd11::", 3), ("fd00::1", 4)]
        {
            assert_eq!(routes.find(address(destination)), Some(via(interface)), "{destination}");
        }
        assert_eq!(routes.find(address("2001:db8::1")), None, "the other version's default does not count");
    }

    #[test]
    fn a_removed_route_uncovers_the_shorter_one() {
        let mut routes = Routes::new();
        routes.add(address("10.0.0.0"), 8, via(1));
        routes.add(address("10.1.0.0"), 16, via(2));
        assert_eq!(routes.remove(address("10.1.0.9"), 16), Some(via(2)));
        assert_eq!(routes.remove(address("10.1.0.0"), 16), None);
        assert_eq!(routes.find(address("10.1.2.3")), Some(via(1)));
    }

    #[test]
    fn the_common_bits_of_an_address_with_itself_are_all_of_them() {
        assert_eq!(common_bits(address("10.0.0.1"), address("10.0.0.1")), 32);
        assert_eq!(common_bits(address("fd00::1"), address("fd00::1")), 128);
        assert_eq!(common_bits(address("10.0.0.1"), address("10.0.0.3")), 30);
    }

    proptest! {
        #[test]
        fn a_look_up_agrees_with_a_search_through_all(
            prefixes in prop::collection::vec((0u32..64, 24u8..=32), 0..40),
            destinations in prop::collection::vec(0u32..64, 1..20),
        ) {
            let mut routes = Routes::new();
            let mut all: Vec<(IpAddr, u8, Route)> = Vec::new();
            for (index, (prefix, len)) in prefixes.into_iter().enumerate() {
                let prefix = IpAddr::V4(Ipv4Addr::from_bits(prefix << 2));
                routes.add(prefix, len, via(index as u8));
                all.retain(|(known, known_len, _)| *known_len != len || !contains(*known, len, prefix));
                all.push((prefix, len, via(index as u8)));
            }
            for destination in destinations {
                let destination = IpAddr::V4(Ipv4Addr::from_bits(destination << 2));
                let longest = all.iter()
                    .filter(|(prefix, len, _)| contains(*prefix, *len, destination))
                    .max_by_key(|(_, len, _)| *len);
                prop_assert_eq!(routes.find(destination), longest.map(|(_, _, route)| *route));
            }
        }
    }
}
