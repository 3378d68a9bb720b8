//! The sum of long parts with registers of 32 bytes, where the processor has them: a third of the time.
#![allow(unsafe_code, reason = "what only some processors can do must be asked for before it is called")]

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::sync::atomic::{AtomicU8, Ordering};

/// The sum of the whole words of four bytes, or nothing where there are no such registers.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> Option<u64> {
    // SAFETY: the processor has AVX2.
    has_avx2().then(|| unsafe { sum_avx2(bytes) })
}

/// The compiler makes what its name says of it. Sums of half a register's words overflow behind 16 GB.
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

#[inline]
fn has_avx2() -> bool {
    /// What was found; zero before it was asked for, since asking takes a virtual machine microseconds.
    static FOUND: AtomicU8 = AtomicU8::new(0);
    match FOUND.load(Ordering::Relaxed) {
        0 => {
            let found = ask();
            FOUND.store(1 + u8::from(found), Ordering::Relaxed);
            found
        }
        found => found == 2,
    }
}

/// Intel's manual, volume 1, section 14.7.1: the processor has AVX2, and the system keeps the registers.
#[cold]
fn ask() -> bool {
    const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
    const AVX2: u32 = 1 << 5;
    const SSE_AND_AVX_STATE: u64 = 1 << 1 | 1 << 2;
    if cfg!(miri) || __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE_AND_AVX != OSXSAVE_AND_AVX {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let kept = unsafe { _xgetbv(0) };
    kept & SSE_AND_AVX_STATE == SSE_AND_AVX_STATE && __cpuid_count(7, 0).ebx & AVX2 != 0
}
