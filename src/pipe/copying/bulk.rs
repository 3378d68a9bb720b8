//! Through the cache or past it: how long writes are copied into the ring.
//!
//! Stores past the cache (non-temporal ones) spare the two processors the transfer of each line between their caches.
//! Where the processors are far from each other that is several times as fast; where they share a cache it is
//! slower, and on one processor much slower (docs/performance.md). Which it is cannot be asked, and a virtual machine
//! changes it while it runs. So both ways are tried from time to time, and the better one is used in between.
//!
//! # Safety
//! The copy has the contract of `copy_nonoverlapping`.

use crate::pipe::connection;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::state::socket::Bulk;
use core::sync::atomic::Ordering;

/// Writes from this length on are long.
pub(crate) const LONG: usize = 16 * 1024;

/// Bytes after a change of ways that tell nothing: the reader still has those of the other way.
const SETTLING: u64 = 1 << 20;

/// Bytes of a trial, and bytes between two trials.
const TRIAL: u64 = 2 << 20;

const TERM: u64 = 256 << 20;

/// What [`Bulk::phase`] counts: the last bit says which way.
const TRY_CACHE: u32 = 0;

const TRY_PAST: u32 = 1;

const USE_CACHE: u32 = 2;

const USE_PAST: u32 = 3;

/// Whether a write of `length` bytes goes past the cache.
#[inline]
pub(crate) fn goes_past(held: &WriteHeld<'_>, length: usize) -> bool {
    length >= LONG
        && held.local.bulk.phase.load(Ordering::Relaxed) & 1 == 1
        && !connection::runs_here(&held.outgoing().consumer.cpu)
}

/// Learns from a long write that took so many ticks. Under the write lock.
pub(crate) fn learn(bulk: &Bulk, length: usize, ticks: u64) {
    let phase = bulk.phase.load(Ordering::Relaxed);
    let before = bulk.bytes.load(Ordering::Relaxed);
    if before < SETTLING {
        // However long it is: the first use of a buffer takes the time in which the kernel finds its pages.
        bulk.bytes.store((before + length as u64).min(SETTLING), Ordering::Relaxed);
        return;
    }
    let bytes = before + length as u64;
    let ticks = bulk.ticks.load(Ordering::Relaxed) + ticks;
    if bytes < if phase < USE_CACHE { TRIAL } else { TERM } {
        bulk.bytes.store(bytes, Ordering::Relaxed);
        bulk.ticks.store(ticks, Ordering::Relaxed);
        return;
    }
    let price = (ticks << 20) / (bytes - SETTLING);
    let next = match phase {
        TRY_CACHE => {
            bulk.price.store(price, Ordering::Relaxed);
            TRY_PAST
        }
        TRY_PAST if price < bulk.price.load(Ordering::Relaxed) => USE_PAST,
        TRY_PAST => USE_CACHE,
        _ => TRY_CACHE,
    };
    bulk.phase.store(next, Ordering::Relaxed);
    start_again(bulk);
}

/// What has been measured in this phase counts for nothing: the ring has been made larger.
pub(crate) fn start_again(bulk: &Bulk) {
    bulk.bytes.store(0, Ordering::Relaxed);
    bulk.ticks.store(0, Ordering::Relaxed);
}

/// Copies through the cache.
///
/// # Safety
/// As `core::ptr::copy_nonoverlapping`.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: both stretches are the caller's.
    unsafe { core::ptr::copy_nonoverlapping(from, to, length) };
}

/// Copies past the cache.
///
/// # Safety
/// As `core::ptr::copy_nonoverlapping`.
pub(crate) unsafe fn copy_past(from: *const u8, to: *mut u8, length: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    let before = to.align_offset(LINE).min(length);
    let lines = (length - before) / LINE;
    let after = before + lines * LINE;
    // SAFETY: the first stretch of the caller's.
    unsafe { core::ptr::copy_nonoverlapping(from, to, before) };
    for line in 0..lines {
        let place = before + line * LINE;
        let source = from.wrapping_add(place).cast::<__m128i>();
        let target = to.wrapping_add(place).cast::<__m128i>();
        // SAFETY: a line of the caller's, which needs no alignment to be read.
        let words = [0, 1, 2, 3].map(|at| unsafe { _mm_loadu_si128(source.wrapping_add(at)) });
        for (at, word) in words.into_iter().enumerate() {
            // SAFETY: the same line of the caller's other stretch, and `to + before` is aligned when there are lines.
            unsafe { _mm_stream_si128(target.wrapping_add(at), word) };
        }
    }
    // SAFETY: the last stretch of the caller's.
    unsafe {
        core::ptr::copy_nonoverlapping(from.wrapping_add(after), to.wrapping_add(after), length - after);
    }
    // These stores have no order of their own: they must be there before the publication.
    // SAFETY: every x86-64 processor has SSE.
    unsafe { _mm_sfence() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_no_other() {
        let from: Vec<u8> = (0..1000u32).map(|at| at as u8).collect();
        for start in [0, 1, 15, 63, 64, 65] {
            for length in [0, 1, 63, 64, 65, 127, 128, 200, 800] {
                let mut to = vec![0xee; 1000];
                // SAFETY: both have 1000 bytes.
                unsafe { copy_past(from[3..].as_ptr(), to[start..].as_mut_ptr(), length) };
                assert_eq!(to[start..start + length], from[3..3 + length]);
                assert!(to[..start].iter().chain(&to[start + length..]).all(|byte| *byte == 0xee));
            }
        }
    }

    /// Runs a stream whose two ways cost so many ticks a write; the ways that were taken, by phase.
    fn run(cache: u64, past: u64, bytes: u64) -> Vec<u32> {
        let bulk = Bulk::new();
        let mut phases = vec![TRY_CACHE];
        for _ in 0..bytes / 65536 {
            let phase = bulk.phase.load(Ordering::Relaxed);
            learn(&bulk, 65536, if phase & 1 == 1 { past } else { cache });
            let next = bulk.phase.load(Ordering::Relaxed);
            if next != phase {
                phases.push(next);
            }
        }
        phases
    }

    #[test]
    fn the_better_way_is_used_and_both_are_tried_again() {
        let round = TRIAL * 2 + TERM;
        assert_eq!(
            run(100, 90, round * 2)[..6],
            [TRY_CACHE, TRY_PAST, USE_PAST, TRY_CACHE, TRY_PAST, USE_PAST]
        );
        assert_eq!(run(90, 100, round)[..4], [TRY_CACHE, TRY_PAST, USE_CACHE, TRY_CACHE]);
        // No news, no change.
        assert_eq!(run(100, 100, round)[2], USE_CACHE);
    }

    #[test]
    fn what_was_measured_before_the_ring_grew_is_forgotten() {
        let bulk = Bulk::new();
        for ticks in [5, 7] {
            start_again(&bulk);
            learn(&bulk, SETTLING as usize + 1, 1000);
            learn(&bulk, 1, ticks);
        }
        assert_eq!(bulk.ticks.load(Ordering::Relaxed), 7);
        assert_eq!(bulk.phase.load(Ordering::Relaxed), TRY_CACHE);
    }
}
