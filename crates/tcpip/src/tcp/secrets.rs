//! Numbers that an attacker must not guess, and that are the same whenever they are asked for: keyed hashes of a
//! connection's addresses.

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use alloc::boxed::Box;
use siphasher::sip::SipHasher24;

use crate::seq::SeqNumber;
use crate::time::Instant;

/// The keys of a stack.
#[derive(Clone)]
pub(crate) struct Secrets {
    keys: [u64; 4],
    /// RFC 6056 section 3.3.4: counters that make the ports of one destination differ.
    perturbation: Box<[u16; 256]>,
}

impl core::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secrets")
    }
}

/// What a hash is for: hashes for different purposes say nothing about each other.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Purpose {
    Sequence,
    Clock,
    Port,
    Cookie,
}

impl Secrets {
    pub(crate) fn new(keys: [u64; 4]) -> Self {
        Self { keys, perturbation: Box::new([0; 256]) }
    }

    fn hash(&self, purpose: Purpose, local: SocketAddr, remote: SocketAddr, extra: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.keys[0] ^ self.keys[2], self.keys[1] ^ self.keys[3]);
        hasher.write_u8(purpose as u8);
        write_address(&mut hasher, local.ip());
        write_address(&mut hasher, remote.ip());
        hasher.write_u16(local.port());
        hasher.write_u16(remote.port());
        hasher.write_u64(extra);
        hasher.finish()
    }

    /// RFC 6528: a new connection of the same addresses begins behind the numbers of the last one. Linux's clock ticks
    /// each 64 ns where RFC 9293 section 3.4.1 has 4 us.
    pub(crate) fn initial_sequence(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> SeqNumber {
        SeqNumber::new(self.hash(Purpose::Sequence, local, remote, 0) as u32) + (now.as_nanos() >> 6) as u32
    }

    /// RFC 7323 section 7.1: what is added to the clock of timestamps.
    pub(crate) fn clock_offset(&self, local: IpAddr, remote: IpAddr) -> u32 {
        self.hash(Purpose::Clock, SocketAddr::new(local, 0), SocketAddr::new(remote, 0), 0) as u32
    }

    /// RFC 6056 section 3.3.4: the first port of `range` that `is_free`.
    pub(crate) fn port(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        range: &RangeInclusive<u16>,
        mut is_free: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let count = u32::from(range.end().checked_sub(*range.start())?) + 1;
        let hash = self.hash(Purpose::Port, SocketAddr::new(local, 0), remote, 0);
        let slot = &mut self.perturbation[(hash >> 56) as usize];
        let start = hash as u32 & 0x00ff_ffff;
        for step in 0..count {
            let offset = (start + u32::from(*slot) + step) % count;
            let port = range.start() + offset as u16;
            if is_free(port) {
                *slot = slot.wrapping_add(1 + step as u16);
                return Some(port);
            }
        }
        None
    }

    pub(crate) fn cookie(&self, local: SocketAddr, remote: SocketAddr, extra: u64) -> u32 {
        self.hash(Purpose::Cookie, local, remote, extra) as u32
    }
}

fn write_address(hasher: &mut SipHasher24, address: IpAddr) {
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (SocketAddr, SocketAddr) {
        ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:5000".parse().unwrap())
    }

    #[test]
    fn numbers_of_the_same_addresses_grow_with_time() {
        let (secrets, (local, remote)) = (Secrets::new([1, 2, 3, 4]), addresses());
        let first = secrets.initial_sequence(Instant::from_secs(1), local, remote);
        let second = secrets.initial_sequence(Instant::from_secs(2), local, remote);
        assert_eq!(second.since(first), 1_000_000_000 / 64);
    }

    #[test]
    fn other_keys_and_other_addresses_give_other_numbers() {
        let (local, remote) = addresses();
        let number = |keys, local| Secrets::new(keys).initial_sequence(Instant::ZERO, local, remote);
        assert_ne!(number([1, 2, 3, 4], local), number([1, 2, 3, 5], local));
        assert_ne!(number([1, 2, 3, 4], local), number([1, 2, 3, 4], "10.0.0.1:81".parse().unwrap()));
    }

    #[test]
    fn ports_are_all_given_out_and_never_twice() {
        let (local, remote) = addresses();
        let mut secrets = Secrets::new([1, 2, 3, 4]);
        let mut taken = alloc::collections::BTreeSet::new();
        while let Some(port) = secrets.port(local.ip(), remote, &(100..=199), |port| !taken.contains(&port)) {
            assert!(taken.insert(port));
        }
        assert_eq!(taken.len(), 100);
    }
}
