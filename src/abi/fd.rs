//! Closing and duplicating descriptors.
//!
//! `lifecycle` hears of every descriptor that goes away or gets a second name, and only if the kernel will
//! really do it: a refused call must leave a connection as it was.

use super::control::is_open;
use super::quietly;
use crate::lifecycle;
use crate::sys::{kernel, real};
use libc::{CLOSE_RANGE_UNSHARE, O_CLOEXEC, c_int, c_uint};

/// `close(2)`: closes a descriptor.
///
/// Behaves as the manual page says. The last close of a connection with bytes unread sends a reset, as with
/// the kernel. It never waits for the other end, except as `SO_LINGER` asks.
///
/// # Errors
///
/// `EBADF`, and what the kernel reports of the last close (`EINTR`, `EIO`).
///
/// # Safety
///
/// No other code relies on the descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_close(fd: c_int) -> c_int {
    let was_ours = quietly(|| lifecycle::closing(fd));
    // SAFETY: the caller gives the descriptor up.
    let result = unsafe { real::close(fd) };
    quietly(|| lifecycle::closed(fd, was_ours));
    result
}

/// `dup(2)`: gives a descriptor a second name, the lowest free number.
///
/// Behaves as the manual page says. A connection that becomes descriptor 0, 1 or 2 goes back to the kernel
/// for good, because stdio has it then.
///
/// # Errors
///
/// `EBADF`, `EMFILE`.
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_dup(old: c_int) -> c_int {
    // SAFETY: dup touches no memory.
    let new = unsafe { real::dup(old) };
    noted(old, new)
}

/// `dup2(2)`: makes `new` another name of `old`, closing what `new` was. Otherwise as `sockshim_dup`.
///
/// # Errors
///
/// `EBADF`, `EBUSY`, `EINTR`.
///
/// # Safety
///
/// No other code relies on what `new` was.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_dup2(old: c_int, new: c_int) -> c_int {
    if old == new || !replaceable(old, new) {
        // SAFETY: changes nothing; the kernel says what is wrong.
        return unsafe { real::dup2(old, new) };
    }
    quietly(|| lifecycle::replacing(old, new));
    // SAFETY: the caller gives up what `new` was.
    let new = unsafe { real::dup2(old, new) };
    noted(old, new)
}

/// `dup3(2)`: `sockshim_dup2` with `O_CLOEXEC`, refusing equal numbers.
///
/// # Errors
///
/// `EBADF`, `EBUSY`, `EINTR`, `EINVAL`.
///
/// # Safety
///
/// No other code relies on what `new` was.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if old == new || flags & !O_CLOEXEC != 0 || !replaceable(old, new) {
        // SAFETY: the kernel refuses this call, and says why.
        return unsafe { real::dup3(old, new, flags) };
    }
    quietly(|| lifecycle::replacing(old, new));
    // SAFETY: the caller gives up what `new` was.
    let new = unsafe { real::dup3(old, new, flags) };
    noted(old, new)
}

/// `close_range(2)`: closes all descriptors from `first` to `last`, or marks them close-on-exec. Behaves as
/// the manual page says.
///
/// # Errors
///
/// `EINVAL`, `EMFILE`, `ENOMEM`; `ENOSYS` on Linux before 5.9.
///
/// # Safety
///
/// No other code relies on the descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if closes_for_the_process(first, last, flags.cast_unsigned()) {
        quietly(|| lifecycle::closing_range(first, last));
    }
    // SAFETY: the caller gives the descriptors up.
    unsafe { real::close_range(first, last, flags) }
}

/// `closefrom(3)`: closes all descriptors from `low` on; a negative number means 0. Reports no error.
///
/// # Safety
///
/// No other code relies on the descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_closefrom(low: c_int) {
    quietly(|| lifecycle::closing_range(low.max(0).cast_unsigned(), c_uint::MAX));
    // SAFETY: the caller gives the descriptors up.
    unsafe { real::closefrom(low) }
}

/// Tells `lifecycle` of `new`, unless the call that should have made it failed.
fn noted(old: c_int, new: c_int) -> c_int {
    if new >= 0 {
        quietly(|| lifecycle::duplicated(old, new));
    }
    new
}

/// Whether `dup2(old, new)` will close `new`: `old` is open and `new` is a number that the limit allows.
fn replaceable(old: c_int, new: c_int) -> bool {
    is_open(old) && u64::try_from(new).is_ok_and(|new| new < kernel::descriptor_limit())
}

/// Whether `close_range` with these arguments takes the descriptors away from the whole process.
fn closes_for_the_process(first: c_uint, last: c_uint, flags: c_uint) -> bool {
    if first > last || flags & !CLOSE_RANGE_UNSHARE != 0 {
        return false; // an error, or CLOSE_RANGE_CLOEXEC, which closes nothing yet
    }
    // CLOSE_RANGE_UNSHARE closes in a private copy of the table; other threads keep theirs.
    flags & CLOSE_RANGE_UNSHARE == 0 || real::single_threaded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::CLOSE_RANGE_CLOEXEC;

    #[test]
    fn only_a_real_close_of_a_range_counts() {
        assert!(closes_for_the_process(3, 5, 0));
        assert!(closes_for_the_process(3, 3, 0));
        assert!(!closes_for_the_process(5, 3, 0));
        assert!(!closes_for_the_process(3, 5, CLOSE_RANGE_CLOEXEC));
        assert!(!closes_for_the_process(3, 5, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE));
        assert!(!closes_for_the_process(3, 5, 1 << 20));
    }

    #[test]
    fn a_closed_descriptor_replaces_nothing() {
        assert!(replaceable(1, 2));
        assert!(!replaceable(-1, 2));
        assert!(!replaceable(1_000_000_000, 2));
        assert!(!replaceable(1, -1));
    }
}
