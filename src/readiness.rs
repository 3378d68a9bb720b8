//! poll, select and epoll over pipes and kernel descriptors together.
//!
//! Everything that waits sleeps in the kernel's own call, with the pipes' kernel sockets among its
//! descriptors: a doorbell wakes it. What the kernel says of a pipe is then read as "look at it", never as the
//! answer.

pub(crate) mod epoll;
pub(crate) mod poll;
pub(crate) mod select;

use crate::error::Errno;
use crate::sys::handlers::Since;
use libc::sigset_t;

/// Before a wait goes to sleep: EINTR if a signal handler has run since it began. Waits end with it whatever the handler's
/// flags are (signal(7)).
///
/// # Errors
/// EINTR.
///
/// # Safety
/// `mask` is null or a signal mask: the handlers of what it blocks are not the wait's.
unsafe fn check_interrupted(since: Since, mask: *const sigset_t) -> Result<(), Errno> {
    if !since.has_any() {
        return Ok(());
    }
    // SAFETY: the first word of a set is all that the kernel knows.
    let blocked = if mask.is_null() { 0 } else { unsafe { mask.cast::<u64>().read() } };
    if since.ends_wait(blocked) { Err(Errno(libc::EINTR)) } else { Ok(()) }
}
