//! io_uring, as far as it can be seen: rings that are asked for with `syscall`.
//!
//! What a ring does with a socket passes everybody by. So the connections of a process that has one stay with the
//! kernel: that is always right. libuv, though, makes a ring for itself in every program, to register with epoll
//! through it, and does without where the kernel refuses: there it pays to refuse (docs/environment.md).

use super::makers::made;
use super::quietly;
use crate::error::Errno;
use crate::registry::config::{self, Rings};
use crate::registry::lifecycle;
use libc::{c_int, c_long};

/// `io_uring_setup(2)`; `kernel` makes the call.
pub(super) fn setup(kernel: impl FnOnce() -> c_long) -> c_long {
    if quietly(is_denied) {
        // As with kernel.io_uring_disabled = 2.
        Errno(libc::EPERM).store();
        return -1;
    }
    let ring = kernel();
    if ring >= 0 {
        quietly(lifecycle::ring_made);
    }
    c_long::from(made(ring as c_int))
}

/// `io_uring_enter(2)`, `io_uring_register(2)`: there is a ring, whoever made it.
pub(super) fn using(kernel: impl FnOnce() -> c_long) -> c_long {
    quietly(lifecycle::ring_made);
    kernel()
}

fn is_denied() -> bool {
    match config::rings() {
        Rings::Allow => false,
        Rings::Deny => true,
        Rings::ByProgram => is_libuv(),
    }
}

/// Whether libuv is in this process, where it can be seen: as a library, or in a program that exports it as node
/// does.
fn is_libuv() -> bool {
    // SAFETY: a C string; looking a name up calls nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"uv_loop_init".as_ptr()) };
    !found.is_null()
}
