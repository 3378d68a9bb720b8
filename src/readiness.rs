//! poll, select and epoll over pipes and kernel descriptors together.
//!
//! Everything that waits sleeps in the kernel's own call, with the pipes' kernel sockets among its
//! descriptors: a bell wakes it. What the kernel says of a pipe is then read as "look at it", never as the
//! answer.

pub(crate) mod epoll;
pub(crate) mod poll;
pub(crate) mod select;

use crate::error::Errno;
use crate::sys::handlers::Since;
use crate::sys::kernel;
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

/// When a wait ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<u64>);

impl Deadline {
    /// In so many nanoseconds, or never.
    pub(crate) fn after(nanoseconds: Option<u64>) -> Self {
        Self(nanoseconds.map(|time| match time {
            0 => 0,
            time => kernel::monotonic_ns().saturating_add(time),
        }))
    }

    /// Nanoseconds left; `None`: for ever.
    pub(crate) fn left(self) -> Option<u64> {
        self.0.map(|end| if end == 0 { 0 } else { end.saturating_sub(kernel::monotonic_ns()) })
    }

    /// The same, or in so many nanoseconds if that is earlier.
    pub(crate) fn at_most(self, nanoseconds: u64) -> Self {
        match self.0 {
            Some(0) => self,
            end => {
                Self(Self::after(Some(nanoseconds)).0.map(|limit| end.map_or(limit, |end| end.min(limit))))
            }
        }
    }

    /// Whether nothing may be waited for.
    pub(crate) fn is_now(self) -> bool {
        self.0 == Some(0)
    }

    /// What is left, as the kernel wants it.
    pub(crate) fn timespec(self) -> Option<libc::timespec> {
        self.left().map(|left| libc::timespec {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_nsec: (left % 1_000_000_000) as i64,
        })
    }
}
