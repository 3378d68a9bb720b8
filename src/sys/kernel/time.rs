//! The kernel's clocks.

use super::make;

/// Nanoseconds of the monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The same, as of the kernel's last tick: at most 10 ms old, and a quarter of the price.
pub(crate) fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// So many nanoseconds, as the kernel wants them.
pub(crate) fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    if crate::sys::clock::is_counter_forbidden() {
        let _ = call!(SYS_clock_gettime, clock, &raw mut time);
    } else {
        // SAFETY: `time` is writable; clock_gettime is not one of our exports and goes to the vDSO.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
