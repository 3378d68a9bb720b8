//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and the pseudo-headers.
//!
//! A one's complement sum does not care about byte order as long as all of it uses the same one (RFC 1071 §2 B), so
//! words are added as the machine loads them and the result is swapped once. A sum modulo 2^64 - 1 is one modulo 2^16 - 1
//! as well, so words are as wide as registers: two instructions for eight bytes, the second of which counts carries. Wider
//! registers, where there are such, sum words of four bytes side by side.

#[cfg(target_arch = "x86_64")]
mod wide;

use core::net::IpAddr;
use core::ops::Add;

/// The sum of a packet's parts, in the order in which they follow each other: `sum(head) + sum(body)`.
///
/// Parts may have odd lengths: a packet's payload can lie in two pieces of a ring that wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Folded to 16 bits after each part, in network order.
    sum: u16,
    /// The parts so far have an odd length: the next one is shifted by a byte (RFC 1071 §2 B again).
    odd: bool,
}

/// The sum of `bytes`.
#[inline]
pub fn sum(bytes: &[u8]) -> Sum {
    if bytes.len() >= BLOCK {
        return long_sum(bytes);
    }
    Sum { sum: fold(tail_sum(bytes)), odd: bytes.len() % 2 == 1 }
}

#[inline(never)]
fn long_sum(bytes: &[u8]) -> Sum {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = wide::sum(bytes) {
        let rest = bytes.as_chunks::<4>().1;
        return Sum { sum: fold(u128::from(sum) + tail_sum(rest)), odd: bytes.len() % 2 == 1 };
    }
    portable_sum(bytes)
}

fn portable_sum(bytes: &[u8]) -> Sum {
    let mut blocks = bytes.chunks_exact(BLOCK);
    let sum: u128 = (&mut blocks).map(block_sum).sum();
    Sum { sum: fold(sum + tail_sum(blocks.remainder())), odd: bytes.len() % 2 == 1 }
}

/// The sum of words that go out in network order.
#[inline]
pub fn sum_words(words: &[u32]) -> Sum {
    Sum { sum: reduce(words.iter().map(|&word| u128::from(word)).sum()), odd: false }
}

/// The sum of the pseudo-header in front of `len` bytes of `protocol` (RFC 9293 §3.1, RFC 768; RFC 8200 §8.1).
///
/// For a device that is to finish the checksum, this sum ([`Sum::value`]) is what the checksum field holds.
#[inline]
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: u32) -> Sum {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            u128::from(source.to_bits()) + u128::from(destination.to_bits())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let halves = |address: u128| (address >> 64) + u128::from(address as u64);
            halves(source.to_bits()) + halves(destination.to_bits())
        }
        _ => unreachable!("a packet has addresses of one version"),
    };
    Sum { sum: reduce(addresses + u128::from(len) + u128::from(protocol)), odd: false }
}

/// The value of the checksum field for a sum.
#[inline]
pub const fn finish(sum: Sum) -> u16 {
    !sum.sum
}

impl Sum {
    /// The sum of one 16-bit word.
    pub const fn word(word: u16) -> Self {
        Self { sum: word, odd: false }
    }

    /// The sum itself, not complemented: what the checksum field holds when a device is to finish the checksum.
    pub const fn value(self) -> u16 {
        self.sum
    }

    /// Whether a packet that contains its checksum is intact: the sum over all of it is all ones, "minus zero".
    pub const fn is_intact(self) -> bool {
        self.sum == 0xffff
    }
}

impl Add for Sum {
    type Output = Self;

    #[inline]
    fn add(self, next: Self) -> Self {
        let shifted = if self.odd { next.sum.swap_bytes() } else { next.sum };
        Self { sum: add(self.sum, shifted), odd: self.odd != next.odd }
    }
}

/// The checksum after one 16-bit word of what it covers changed from `old` to `new` (RFC 1624 §3, equation 3).
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// Copies `from` to `to` and returns its sum: one pass over payloads that lie in the nearest cache.
///
/// # Panics
///
/// When the lengths differ.
pub fn copy_and_sum(to: &mut [u8], from: &[u8]) -> Sum {
    assert_eq!(to.len(), from.len(), "a copy has the length of its source");
    let mut sum = 0u128;
    let mut targets = to.chunks_exact_mut(BLOCK);
    let mut blocks = from.chunks_exact(BLOCK);
    for (target, block) in (&mut targets).zip(&mut blocks) {
        target.copy_from_slice(block);
        sum += block_sum(block);
    }
    targets.into_remainder().copy_from_slice(blocks.remainder());
    Sum { sum: fold(sum + tail_sum(blocks.remainder())), odd: from.len() % 2 == 1 }
}

/// Bytes per pass of the inner loop.
const BLOCK: usize = 64;

/// Two sums, which a processor computes in parallel.
#[inline]
fn block_sum(block: &[u8]) -> u128 {
    let (first, second) = block.split_at(BLOCK / 2);
    words(first) + words(second)
}

/// The sum of whole words of eight bytes.
#[inline]
fn words(bytes: &[u8]) -> u128 {
    bytes.as_chunks().0.iter().map(|word| u128::from(u64::from_ne_bytes(*word))).sum()
}

/// Handles the bytes after the last whole word without a loop or a call, because headers are short.
#[inline]
fn tail_sum(bytes: &[u8]) -> u128 {
    let (_, mut rest) = bytes.as_chunks::<8>();
    let mut last = 0;
    if let Some((word, more)) = rest.split_first_chunk() {
        last += u64::from(u32::from_ne_bytes(*word));
        rest = more;
    }
    if let Some((word, more)) = rest.split_first_chunk() {
        last += u64::from(u16::from_ne_bytes(*word));
        rest = more;
    }
    if let [byte] = rest {
        last += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    words(bytes) + u128::from(last)
}

/// Folds a sum in the machine's byte order to 16 bits in network order.
const fn fold(sum: u128) -> u16 {
    u16::from_be(reduce(sum))
}

/// Folds a sum to 16 bits, with end-around carry.
const fn reduce(sum: u128) -> u16 {
    let sum = (sum as u64 as u128) + (sum >> 64);
    let (sum, carry) = (sum as u64).overflowing_add((sum >> 64) as u64);
    let sum = sum + carry as u64;
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// One's complement addition, with end-around carry.
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.value(), 0xddf2);
        assert_eq!(finish(sum), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_megabyte_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 1 << 20];
        assert_eq!(finish(sum(&bytes)), reference(&bytes));
    }

    proptest! {
        #[test]
        fn any_bytes_sum_as_word_by_word(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(finish(sum(&bytes)), reference(&bytes));
            prop_assert_eq!(portable_sum(&bytes), sum(&bytes), "whatever the processor has");
        }

        #[test]
        fn parts_of_any_length_sum_as_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(0usize..300, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut total, mut at) = (Sum::default(), 0);
            for cut in cuts {
                total = total + sum(&bytes[at..cut]);
                at = cut;
            }
            prop_assert_eq!(finish(total), reference(&bytes));
        }

        #[test]
        fn a_copy_is_equal_and_has_the_sum_of_its_source(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut copy = vec![0; bytes.len()];
            prop_assert_eq!(copy_and_sum(&mut copy, &bytes), sum(&bytes));
            prop_assert_eq!(copy, bytes);
        }

        #[test]
        fn an_updated_word_leaves_the_packet_intact(
            mut bytes in prop::collection::vec(any::<u8>(), 8..64),
            new in any::<u16>(),
        ) {
            bytes.truncate(bytes.len() & !1);
            bytes[..2].fill(0);
            let checksum = finish(sum(&bytes));
            let old = u16::from_be_bytes(bytes[4..6].try_into().unwrap());
            bytes[4..6].copy_from_slice(&new.to_be_bytes());
            // The two zeros of one's complement are the same number: compare by what a receiver checks.
            let updated = update(checksum, old, new);
            bytes[..2].copy_from_slice(&updated.to_be_bytes());
            prop_assert!(sum(&bytes).is_intact() || bytes.iter().all(|byte| *byte == 0));
        }
    }
}
