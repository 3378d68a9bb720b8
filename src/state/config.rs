//! The environment's knobs, read once at start.

use super::reason::Reason;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bytes after which a connection is worth a pipe (`SOCKSHIM_UPGRADE_AFTER`); [`UNSET`]: [`DEFAULT_BYTES`]
/// or [`DEFAULT_CALLS`], whichever comes first.
static UPGRADE_AFTER: AtomicU64 = AtomicU64::new(UNSET);
/// `SOCKSHIM_PATH=host`.
static HOST_ONLY: AtomicBool = AtomicBool::new(false);
/// The process has an io_uring.
static HAS_IO_URING: AtomicBool = AtomicBool::new(false);
/// Who may have one (`SOCKSHIM_IO_URING`): a number of [`Rings`].
static RINGS: AtomicU32 = AtomicU32::new(Rings::ByProgram as u32);
/// Largest capacity of a ring (`SOCKSHIM_RING_MAX`).
static RING_MAX: AtomicU32 = AtomicU32::new(sockshim_ring::layout::MAX_CAPACITY);
/// Longest spin before a sleep, in microseconds (`SOCKSHIM_SPIN_US`, or by profile).
static SPIN_US: AtomicU32 = AtomicU32::new(DEFAULT_SPIN_US);

const UNSET: u64 = u64::MAX;
/// A set-up is earned back after some thirty round trips (docs/benchmarks.md, "When to upgrade"); connections
/// that end before should not pay for it.
const DEFAULT_BYTES: u64 = 256 * 1024;
const DEFAULT_CALLS: u32 = 64;
/// What a sleep and a wake-up across processors cost.
const DEFAULT_SPIN_US: u32 = 50;

/// What becomes of the request for an io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rings {
    /// libuv does without; everybody else gets it.
    ByProgram,
    Allow,
    Deny,
}

/// Reads the environment. Called once, while the process starts.
pub(crate) fn read_environment() {
    read_from(variable);
}

/// The same, from wherever `variable` finds its values.
pub(crate) fn read_from<'a>(variable: impl Fn(&CStr) -> Option<&'a CStr>) {
    let number = |name: &CStr| -> Option<u64> { variable(name)?.to_str().ok()?.trim().parse().ok() };
    if let Some(bytes) = number(c"SOCKSHIM_UPGRADE_AFTER") {
        UPGRADE_AFTER.store(bytes.min(UNSET - 1), Ordering::Relaxed);
    }
    if variable(c"SOCKSHIM_PATH").is_some_and(|path| path.to_bytes() == b"host") {
        HOST_ONLY.store(true, Ordering::Relaxed);
    }
    match variable(c"SOCKSHIM_IO_URING").map(CStr::to_bytes) {
        Some(b"allow") => RINGS.store(Rings::Allow as u32, Ordering::Relaxed),
        Some(b"deny") => RINGS.store(Rings::Deny as u32, Ordering::Relaxed),
        _ => {}
    }
    if variable(c"SOCKSHIM_HANDOFF_ONLY").is_some() {
        IS_HANDOFF_ONLY.store(true, Ordering::Relaxed);
        HOST_ONLY.store(true, Ordering::Relaxed);
    }
    match variable(c"SOCKSHIM_PROFILE").map(CStr::to_bytes) {
        Some(b"safe") => SPIN_US.store(0, Ordering::Relaxed),
        Some(b"latency") => SPIN_US.store(200, Ordering::Relaxed),
        Some(b"throughput") => SPIN_US.store(20, Ordering::Relaxed),
        _ => {}
    }
    if let Some(spin) = number(c"SOCKSHIM_SPIN_US") {
        SPIN_US.store(spin.min(100_000) as u32, Ordering::Relaxed);
    }
    if let Some(largest) = number(c"SOCKSHIM_RING_MAX") {
        let bounded = largest.clamp(4096, u64::from(sockshim_ring::layout::MAX_CAPACITY)) as u32;
        RING_MAX.store(1 << bounded.ilog2(), Ordering::Relaxed);
    }
}

/// In an environment: sockshim was put into this program only to hand bytes over; see `abi::process::handoff_only`.
pub(crate) const HANDOFF_ONLY: &[u8] = b"SOCKSHIM_HANDOFF_ONLY=1";

/// In such a program, takes everything of ours out of the environment: neither it nor its children see it. Called
/// once, when the environment has been read.
pub(crate) fn hide_from_program() {
    unsafe extern "C" {
        static environ: *mut *mut libc::c_char;
    }
    if !IS_HANDOFF_ONLY.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: libc's array, which ends with a null; while the process starts no other thread looks at it.
    let mut from = unsafe { environ };
    let mut to = from;
    loop {
        // SAFETY: not past the null, with which the loop ends.
        let entry = unsafe { from.read() };
        // SAFETY: an entry of the environment.
        let text = if entry.is_null() { c"" } else { unsafe { CStr::from_ptr(entry) } }.to_bytes();
        let kept = match text.strip_prefix(PRELOAD) {
            // Ours is the first of the list.
            Some(list) => list.iter().position(|byte| *byte == b':').map(|colon| {
                // The name once more, in front of what was there before us.
                let start = entry.wrapping_add(colon + 1);
                // SAFETY: within the entry, whose memory is the process's own.
                unsafe { core::ptr::copy_nonoverlapping(PRELOAD.as_ptr(), start.cast(), PRELOAD.len()) };
                start
            }),
            None if text.starts_with(b"SOCKSHIM_") => None,
            None => Some(entry),
        };
        if let Some(kept) = kept {
            // SAFETY: `to` is not beyond `from`.
            unsafe { to.write(kept) };
            to = to.wrapping_add(1);
        }
        if entry.is_null() {
            return;
        }
        from = from.wrapping_add(1);
    }
}

static IS_HANDOFF_ONLY: AtomicBool = AtomicBool::new(false);
const PRELOAD: &[u8] = b"LD_PRELOAD=";

/// The rendezvous folder that the environment names.
pub(crate) fn folder() -> Option<&'static CStr> {
    variable(c"SOCKSHIM_DIR")
}

/// File to which the phases of every socket's life are appended.
pub(crate) fn trace() -> Option<&'static CStr> {
    variable(c"SOCKSHIM_TRACE")
}

/// Whether to say on standard error which connections stay with the kernel (`SOCKSHIM_LOG`).
pub(crate) fn log() -> bool {
    variable(c"SOCKSHIM_LOG").is_some_and(|value| value.to_bytes() == b"1")
}

/// Why every connection stays with the kernel, if it does.
pub(crate) fn host_only() -> Option<Reason> {
    if HOST_ONLY.load(Ordering::Relaxed) {
        return Some(Reason::Configured);
    }
    HAS_IO_URING.load(Ordering::Relaxed).then_some(Reason::IoUring)
}

/// Notes that there is an io_uring; true for the first.
pub(crate) fn ring_made() -> bool {
    !HAS_IO_URING.swap(true, Ordering::Relaxed)
}

pub(crate) fn rings() -> Rings {
    match RINGS.load(Ordering::Relaxed) {
        ring if ring == Rings::Allow as u32 => Rings::Allow,
        ring if ring == Rings::Deny as u32 => Rings::Deny,
        _ => Rings::ByProgram,
    }
}

/// Whether connections upgrade at connect and accept, before the first byte.
pub(crate) fn upgrades_at_once() -> bool {
    UPGRADE_AFTER.load(Ordering::Relaxed) == 0
}

/// Whether a connection that moved `bytes` in `calls` calls is worth a pipe.
pub(crate) fn worth_upgrading(calls: u32, bytes: u64) -> bool {
    match UPGRADE_AFTER.load(Ordering::Relaxed) {
        UNSET => calls >= DEFAULT_CALLS || bytes >= DEFAULT_BYTES,
        limit => bytes >= limit,
    }
}

pub(crate) fn ring_max() -> u32 {
    RING_MAX.load(Ordering::Relaxed)
}

pub(crate) fn spin_us() -> u32 {
    SPIN_US.load(Ordering::Relaxed)
}

/// A variable of the environment. The strings of the initial environment outlive the process's use of them.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: `name` is a C string; getenv is not one of our exports; at start no thread changes the
    // environment, and later callers use the value at once.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: what getenv finds is a C string, which lives as the environment does.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs `name` again in a process with these variables: the environment is read once in each.
    fn with(name: &str, variables: &[(&str, &str)]) {
        let mut test = Command::new(std::env::current_exe().expect("the test's own path"));
        test.args([&format!("state::config::tests::{name}"), "--exact", "--ignored"]);
        let status = test.envs(variables.iter().copied()).output().expect("the test runs").status;
        assert!(status.success(), "{name} with {variables:?}");
    }

    #[test]
    fn nonsense_is_bounded_or_ignored() {
        with("defaults", &[]);
        with(
            "defaults",
            &[("SOCKSHIM_UPGRADE_AFTER", "soon"), ("SOCKSHIM_SPIN_US", "-1"), ("SOCKSHIM_RING_MAX", "")],
        );
        with("defaults", &[("SOCKSHIM_PROFILE", "fast"), ("SOCKSHIM_PATH", "auto")]);
        with(
            "smallest",
            &[("SOCKSHIM_UPGRADE_AFTER", "0"), ("SOCKSHIM_SPIN_US", "0"), ("SOCKSHIM_RING_MAX", "1")],
        );
        with(
            "smallest",
            &[("SOCKSHIM_UPGRADE_AFTER", " 0 "), ("SOCKSHIM_PROFILE", "safe"), ("SOCKSHIM_RING_MAX", "8191")],
        );
        let most = u64::MAX.to_string();
        with(
            "largest",
            &[("SOCKSHIM_UPGRADE_AFTER", &most), ("SOCKSHIM_SPIN_US", &most), ("SOCKSHIM_RING_MAX", &most)],
        );
    }

    #[test]
    #[ignore = "run by nonsense_is_bounded_or_ignored"]
    fn defaults() {
        read_environment();
        assert_eq!((host_only(), rings()), (None, Rings::ByProgram));
        assert!(!upgrades_at_once());
        assert!(!worth_upgrading(DEFAULT_CALLS - 1, DEFAULT_BYTES - 1));
        assert!(worth_upgrading(DEFAULT_CALLS, 0) && worth_upgrading(0, DEFAULT_BYTES));
        assert_eq!((ring_max(), spin_us()), (sockshim_ring::layout::MAX_CAPACITY, DEFAULT_SPIN_US));
    }

    #[test]
    #[ignore = "run by nonsense_is_bounded_or_ignored"]
    fn smallest() {
        read_environment();
        assert!(upgrades_at_once() && worth_upgrading(0, 0));
        assert_eq!((ring_max(), spin_us()), (4096, 0));
    }

    #[test]
    #[ignore = "run by nonsense_is_bounded_or_ignored"]
    fn largest() {
        read_environment();
        assert!(!upgrades_at_once() && !worth_upgrading(u32::MAX, u64::MAX - 2));
        assert_eq!((ring_max(), spin_us()), (sockshim_ring::layout::MAX_CAPACITY, 100_000));
    }
}
