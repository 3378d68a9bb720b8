//! A clock that costs next to nothing: for learning, rate limits and patience, never for the program.
//!
//! It is the time stamp counter, whose rate is found out by the kernel's clock. A program may forbid the
//! counter (PR_SET_TSC in prctl(2), and seccomp's strict mode, which does it, too): reading it is a SIGSEGV then, in the kernel's
//! vDSO as well. From then on the kernel is asked by a system call, and its time converted, so that what was noted before
//! still means something; and where no system call may be made, each look at the clock counts for a microsecond.

use super::kernel;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Where the time comes from: one of these.
static SOURCE: AtomicU8 = AtomicU8::new(COUNTER);
const COUNTER: u8 = 0;
/// The kernel's clock as its vDSO tells it: the counter is not good for a clock here.
const VDSO: u8 = 1;
/// The kernel's clock by a system call: nobody may read the counter.
const CALL: u8 = 2;

/// Ticks in a microsecond.
static PER_US: AtomicU64 = AtomicU64::new(GUESS);
/// Until the rate is known.
const GUESS: u64 = 2500;
/// Of a clock whose ticks are nanoseconds.
const NANOSECONDS: u64 = 1000;
/// Nanoseconds after which the rate can be told to a hundredth.
const LONG_ENOUGH: u64 = 1_000_000;

/// The same moment by the counter and by the kernel's clock, at first early in the process's life; 0: not noted.
static FIRST_TICKS: AtomicU64 = AtomicU64::new(0);
static FIRST_NS: AtomicU64 = AtomicU64::new(0);
/// Whether the rate is known.
static IS_CALIBRATED: AtomicU8 = AtomicU8::new(0);

/// Where no system call may be made: looks at the clock, each in nanoseconds.
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// The time, in ticks.
#[inline]
pub(crate) fn ticks() -> u64 {
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        return counter();
    }
    by_kernel()
}

/// So many microseconds in ticks.
#[inline]
pub(crate) fn from_us(microseconds: u64) -> u64 {
    microseconds.wrapping_mul(PER_US.load(Ordering::Relaxed))
}

/// Whether the vDSO must not be used, because it reads the counter.
pub(crate) fn is_counter_forbidden() -> bool {
    SOURCE.load(Ordering::Acquire) == CALL
}

#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cold]
fn by_kernel() -> u64 {
    let ns = if is_counter_forbidden() && kernel::is_restricted() {
        LOOKS.fetch_add(1000, Ordering::Relaxed)
    } else {
        kernel::monotonic_ns()
    };
    convert(ns, FIRST_NS.load(Ordering::Relaxed), FIRST_TICKS.load(Ordering::Relaxed))
}

/// What the counter would say at a time by the kernel's clock.
fn convert(ns: u64, first_ns: u64, first_ticks: u64) -> u64 {
    let passed = u128::from(ns.wrapping_sub(first_ns)) * u128::from(PER_US.load(Ordering::Relaxed)) / 1000;
    first_ticks.wrapping_add(passed as u64)
}

/// Finds out which clock there is. Called once, while the process starts. Nobody has forbidden the counter yet: who inherits
/// that does not start, because the dynamic linker reads it.
pub(crate) fn start() {
    if is_steady() {
        calibrate();
    } else {
        SOURCE.store(VDSO, Ordering::Relaxed);
        PER_US.store(NANOSECONDS, Ordering::Relaxed);
    }
}

/// Finds out how fast the counter is, once enough time has passed since this was first asked. For paths that are not hot: it
/// looks at the kernel's clock.
pub(crate) fn calibrate() {
    if IS_CALIBRATED.load(Ordering::Relaxed) != 0 || SOURCE.load(Ordering::Relaxed) != COUNTER {
        return;
    }
    let Some((ticks, ns)) = moment() else { return };
    let first = FIRST_NS.load(Ordering::Acquire);
    if first == 0 {
        FIRST_TICKS.store(ticks, Ordering::Relaxed);
        FIRST_NS.store(ns, Ordering::Release);
    } else if let Some(rate) =
        rate(ticks.wrapping_sub(FIRST_TICKS.load(Ordering::Relaxed)), ns.wrapping_sub(first))
    {
        PER_US.store(rate, Ordering::Relaxed);
        IS_CALIBRATED.store(1, Ordering::Relaxed);
    }
}

/// The same moment by the counter and by the kernel's clock, unless somebody else ran in between each time.
fn moment() -> Option<(u64, u64)> {
    const TRIES: u32 = 8;
    /// Ticks: some microseconds.
    const CLOSE: u64 = 20_000;
    (0..TRIES).find_map(|_| {
        let (before, ns, after) = (counter(), kernel::monotonic_ns(), counter());
        (after.wrapping_sub(before) < CLOSE).then_some((before, ns))
    })
}

/// Ticks in a microsecond, if that can be told already: whatever the kernel's clock may say, a rate that a processor can have.
fn rate(ticks: u64, ns: u64) -> Option<u64> {
    let rate = || u128::from(ticks) * 1000 / u128::from(ns);
    (ns >= LONG_ENOUGH).then(|| rate().clamp(SLOWEST, FASTEST) as u64)
}

/// 10 MHz and 100 GHz.
const SLOWEST: u128 = 10;
const FASTEST: u128 = 100_000;

/// The program forbids its threads to read the counter, or is about to. It may forbid it to one thread and allow it to another:
/// it is not read again.
pub(crate) fn forbid_counter() {
    if !is_counter_forbidden() {
        calibrate();
        IS_CALIBRATED.store(1, Ordering::Relaxed);
        if let Some((ticks, ns)) = moment() {
            // From here on: the rate is not so exact that the time of hours could be converted.
            FIRST_TICKS.store(ticks, Ordering::Relaxed);
            FIRST_NS.store(ns, Ordering::Relaxed);
            LOOKS.store(ns, Ordering::Relaxed);
        }
        SOURCE.store(CALL, Ordering::Release);
    }
}

/// Whether the counter goes on at one speed, whatever the processor does, and is the same on all processors: the
/// invariant TSC of the processor's manual. Hypervisors do not say so of theirs, because a machine may move to another host;
/// that is steady enough.
fn is_steady() -> bool {
    use core::arch::x86_64::{__cpuid, __get_cpuid_max};
    const HYPERVISOR: u32 = 1 << 31;
    const POWER: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    let is_virtual = __cpuid(1).ecx & HYPERVISOR != 0;
    is_virtual || __get_cpuid_max(0x8000_0000).0 >= POWER && __cpuid(POWER).edx & INVARIANT_TSC != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_told_when_enough_time_has_passed() {
        assert_eq!(rate(2_000_000, LONG_ENOUGH - 1), None);
        assert_eq!(rate(2_000_000, 1_000_000), Some(2000));
        assert_eq!(rate(3_700_000_000, 1_000_000_000), Some(3700));
        assert_eq!((rate(0, 1_000_000_000), rate(u64::MAX, LONG_ENOUGH)), (Some(10), Some(100_000)));
    }

    /// With the clock of the process, which another test may have forbidden meanwhile: so in a process of its own.
    #[test]
    fn a_millisecond_is_one_by_every_source() {
        let mut test = std::process::Command::new(std::env::current_exe().expect("the test's own path"));
        test.args(["sys::clock::tests::each_source", "--exact", "--ignored", "--nocapture"]);
        let result = test.output().expect("the test runs");
        assert!(result.status.success(), "{result:?}");
    }

    #[test]
    #[ignore = "run by a_millisecond_is_one_by_every_source"]
    fn each_source() {
        let measure = |what: &str| {
            // Between two looks at the kernel's clock there are two at ours, and the other way round.
            let [outer, inner] = [|| kernel::monotonic_ns(), ticks as fn() -> u64];
            let start = (outer(), inner(), outer());
            std::thread::sleep(core::time::Duration::from_millis(20));
            let end = (outer(), inner(), outer());
            let (least, most) = ((end.0 - start.2) / 1000, (end.2 - start.0) / 1000 + 1);
            let passed = end.1.wrapping_sub(start.1);
            let range = from_us(least - least / 50)..=from_us(most + most / 50);
            assert!(range.contains(&passed), "{what}: {passed} ticks in {least} to {most} us, {range:?}");
        };
        start();
        std::thread::sleep(core::time::Duration::from_millis(20));
        calibrate();
        measure("as it is");
        let before = ticks();
        forbid_counter();
        let after = ticks();
        assert!(after.wrapping_sub(before) < from_us(10_000_000), "it goes on: {before}, {after}");
        assert!(is_counter_forbidden());
        measure("by system calls");
        kernel::restrict();
        let looks = [ticks(), ticks(), ticks()];
        assert!(looks.is_sorted() && looks[0] != looks[2], "{looks:?}");
    }
}
