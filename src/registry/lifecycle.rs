//! What the registry must hear of a descriptor's life. Called by `abi` around the kernel's calls.

use super::reason::Reason;
use libc::c_int;

/// After a call that made `fd` something that is not a TCP socket.
pub(crate) fn made(_fd: c_int) {}

/// Before the kernel closes `fd`. The caller goes on to close it.
pub(crate) fn closing(_fd: c_int) {}

/// Before the kernel closes every descriptor from `first` to `last` (both included).
pub(crate) fn closing_range(_first: u32, _last: u32) {}

/// Before `dup2(old, new)`, which closes `new`. Not called when `old == new`.
pub(crate) fn replacing(_old: c_int, _new: c_int) {}

/// After `new` became another name for `old`'s open file description.
pub(crate) fn duplicated(_old: c_int, _new: c_int) {}

/// `fd` goes back to the kernel for good, because of `reason`. Returns the ring bytes that could not follow.
pub(crate) fn pin(_fd: c_int, _reason: Reason) {}

/// Before `exec`: every descriptor that survives it goes back to the kernel lane.
pub(crate) fn before_exec() {}

/// `exec` returned, so it failed: the lanes may open again.
pub(crate) fn exec_failed() {}

/// Before the program installs a seccomp filter: all connections go back to the kernel for good.
pub(crate) fn before_seccomp() {}

/// Moves up to `buf.len()` unread ring bytes of `fd` out of the ring, for stdio to serve first.
pub(crate) fn take_unread(_fd: c_int, _buf: &mut [u8]) -> usize {
    0
}
