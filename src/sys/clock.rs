//! A clock that costs next to nothing: for learning, rate limits and patience, never for the program.

/// Ticks per microsecond, roughly.
const PER_US: u64 = 2500;

/// The time stamp counter: cheap, and monotonic enough for what it is for.
#[inline]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    super::kernel::monotonic_ns()
}

/// So many microseconds in ticks.
#[inline]
pub(crate) fn from_us(microseconds: u64) -> u64 {
    microseconds * PER_US
}
