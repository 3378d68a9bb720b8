//! From packets to connections: a hash table of indices.
//!
//! An entry is a hash and an index, eight bytes, and one byte more of hashbrown's. What an index stands for, the caller
//! compares: the table knows no keys.
//!
//! The hash has a secret key: a peer that chooses its ports cannot aim at one place of the table.

use core::net::IpAddr;
use hashbrown::HashTable;

/// Indices by 32-bit hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(HashTable<(u32, u32)>);

/// The place is taken from the low bits, and what tells neighbours apart from the highest seven.
const fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

impl Table {
    /// Without entries and without memory.
    pub(crate) const fn new() -> Self {
        Self(HashTable::new())
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first index under `hash` that `is` says is the one.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.0.find(spread(hash), |entry| entry.0 == hash && is(entry.1)).map(|entry| entry.1)
    }

    /// Puts an index in. Whether it is there already is not looked at.
    pub(crate) fn insert(&mut self, hash: u32, index: u32) {
        self.0.insert_unique(spread(hash), (hash, index), |entry| spread(entry.0));
    }

    /// Takes an index out; `false` when it was not there.
    pub(crate) fn remove(&mut self, hash: u32, index: u32) -> bool {
        let found = self.0.find_entry(spread(hash), |entry| *entry == (hash, index));
        found.map(|entry| entry.remove()).is_ok()
    }
}

/// The secret of the hashes of one stack.
#[derive(Clone)]
pub struct HashKey([u64; 4]);

impl HashKey {
    /// From the caller's randomness.
    pub const fn new(secret: [u64; 2]) -> Self {
        // Four words that are as secret as two: each step of the hash has its own. Odd constants of splitmix64.
        let [a, b] = secret;
        Self([
            a,
            b,
            fold(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xbf58_476d_1ce4_e5b9),
            fold(b ^ 0x94d0_49bb_1331_11eb, a ^ 0x9e37_79b9_7f4a_7c15),
        ])
    }

    /// The hash of a connection's two addresses and ports.
    #[inline]
    pub fn flow(&self, local: (IpAddr, u16), remote: (IpAddr, u16)) -> u32 {
        let ports = u64::from(local.1) << 16 | u64::from(remote.1);
        match (local.0, remote.0) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let addresses = u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits());
                self.hash(addresses, ports)
            }
            (local, remote) => {
                let state = self.absorb(self.absorb(0, local), remote);
                self.hash(state, ports)
            }
        }
    }

    /// The hash of a local address, or of any, and a port.
    #[inline]
    pub fn endpoint(&self, local: Option<IpAddr>, port: u16) -> u32 {
        const ANY: u64 = 1 << 33;
        let address = match local {
            None => ANY,
            Some(IpAddr::V4(address)) => u64::from(address.to_bits()),
            Some(address) => self.absorb(0, address),
        };
        self.hash(address, u64::from(port) << 32)
    }

    /// The hash of a number.
    pub fn number(&self, number: u64) -> u32 {
        self.hash(number, u64::MAX) // no port is as large
    }

    /// The hash of an address.
    #[inline]
    pub fn address(&self, address: IpAddr) -> u32 {
        self.endpoint(Some(address), 0)
    }

    #[inline]
    fn absorb(&self, state: u64, address: IpAddr) -> u64 {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        fold(state ^ (bits >> 64) as u64 ^ self.0[2], bits as u64 ^ self.0[3])
    }

    /// Two multiplications, each folded: the second spreads what an input that cancels a key word leaves of the first.
    #[inline]
    fn hash(&self, a: u64, b: u64) -> u32 {
        let mixed = fold(a ^ self.0[0], b ^ self.0[1]);
        let hash = fold(mixed ^ a ^ self.0[2], b.rotate_left(32) ^ self.0[3]);
        (hash ^ hash >> 32) as u32
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// Both halves of a product, together.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// Few hashes, at both ends of a small table: runs that wrap and that meet.
    fn any_hash() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..4, 12u32..20, Just(u32::MAX), any::<u32>()]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        Remove(prop::sample::Index),
        RemoveStranger(u32),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => any_hash().prop_map(Step::Insert),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any_hash().prop_map(Step::RemoveStranger),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec(any_step(), 0..300)) {
            let mut table = Table::new();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (index, step) in steps.into_iter().enumerate() {
                let index = index as u32;
                match step {
                    Step::Insert(hash) => {
                        table.insert(hash, index);
                        model.insert(index, hash);
                    }
                    Step::Remove(which) if !model.is_empty() => {
                        let mut known: Vec<u32> = model.keys().copied().collect();
                        known.sort_unstable();
                        let index = *which.get(&known);
                        prop_assert!(table.remove(model.remove(&index).unwrap(), index));
                    }
                    Step::Remove(_) => {}
                    Step::RemoveStranger(hash) => prop_assert!(!table.remove(hash, index)),
                }
                prop_assert_eq!(table.0.len(), model.len());
                for (&index, &hash) in &model {
                    prop_assert_eq!(table.find(hash, |found| found == index), Some(index));
                }
            }
            for (index, hash) in model {
                prop_assert!(table.remove(hash, index));
                prop_assert_eq!(table.find(hash, |found| found == index), None);
            }
            prop_assert!(table.is_empty());
        }

        #[test]
        fn all_indices_under_a_hash_are_offered(hashes in prop::collection::vec(any_hash(), 1..40), asked in any_hash()) {
            let mut table = Table::new();
            for (index, hash) in hashes.iter().enumerate() {
                table.insert(*hash, index as u32);
            }
            let mut offered = HashSet::new();
            prop_assert_eq!(table.find(asked, |index| { offered.insert(index as usize); false }), None);
            let expected = (0..hashes.len()).filter(|&index| hashes[index] == asked).collect();
            prop_assert_eq!(offered, expected);
        }
    }

    #[test]
    fn an_empty_table_finds_nothing_and_has_no_memory() {
        let mut table = Table::new();
        assert_eq!(table.find(7, |_| true), None);
        assert!(!table.remove(7, 1));
        assert_eq!(table.0.capacity(), 0);
    }

    #[test]
    fn flows_that_differ_in_a_port_or_are_turned_round_hash_apart() {
        let key = HashKey::new([1, 2]);
        let v4 = |last: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let v6 = |last: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
        let mut seen = HashSet::new();
        for (here, there) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            for port in 1..=1000 {
                assert!(seen.insert(key.flow((here, port), (there, 80))));
                assert!(seen.insert(key.flow((there, 80), (here, port))));
            }
            assert!(seen.insert(key.endpoint(Some(here), 80)));
        }
        assert!(seen.insert(key.endpoint(None, 80)));
    }

    #[test]
    fn another_secret_gives_other_hashes() {
        let flow = |secret| {
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            HashKey::new(secret).flow((here, 1), (here, 2))
        };
        assert_ne!(flow([1, 2]), flow([1, 3]));
        assert_ne!(flow([1, 2]), flow([2, 2]));
    }

    #[test]
    fn ports_in_a_row_spread_over_the_table() {
        let key = HashKey::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
        let here = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1));
        let places: HashSet<u32> =
            (0..4096).map(|port| key.flow((here, 80), (here, port)) & 0xffff).collect();
        // 4,096 balls in 65,536 bins leave 3,971 bins hit on average, with a deviation of 11.
        assert!(places.len() > 3900, "{}", places.len());
    }
}
