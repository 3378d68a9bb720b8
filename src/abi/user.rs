//! Changes of the process's user: others that keep theirs must not share memory with it any more (see
//! `crate::lifecycle::split`).

use super::quietly;
use crate::lifecycle::split::Departure;
use crate::state::reason::Reason;
use crate::sys::{kernel, real};
use libc::{c_int, uid_t};

/// Makes a call that may change the user.
pub(super) fn changing<T>(call: impl FnOnce() -> T) -> T {
    let prepared = quietly(|| Departure::prepare().map(|departure| (departure, kernel::users())));
    let result = call();
    if let Some((departure, before)) = prepared {
        quietly(|| match kernel::users() == before {
            true => departure.cancel(),
            false => departure.leave(Reason::OtherUser, !real::single_threaded()),
        });
    }
    result
}

/// `setuid(2)`: sets the effective user, and a privileged process's other users.
///
/// Behaves as the manual page says. A process that becomes another user shares no memory with its parent and
/// children any more, except the rings of connections; connections that others hold, too, go back to the
/// kernel for good.
///
/// # Errors
///
/// Those of setuid(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setuid(user: uid_t) -> c_int {
    // SAFETY: takes numbers only.
    changing(|| unsafe { real::setuid(user) })
}

/// `seteuid(2)`: sets the effective user. Otherwise as `sockshim_setuid`.
///
/// # Errors
///
/// Those of seteuid(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_seteuid(effective: uid_t) -> c_int {
    // SAFETY: takes numbers only.
    changing(|| unsafe { real::seteuid(effective) })
}

/// `setreuid(2)`: sets the real and the effective user. Otherwise as `sockshim_setuid`.
///
/// # Errors
///
/// Those of setreuid(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setreuid(real: uid_t, effective: uid_t) -> c_int {
    // SAFETY: takes numbers only.
    changing(|| unsafe { real::setreuid(real, effective) })
}

/// `setresuid(2)`: sets the real, the effective and the saved user. Otherwise as `sockshim_setuid`.
///
/// # Errors
///
/// Those of setresuid(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int {
    // SAFETY: takes numbers only.
    changing(|| unsafe { real::setresuid(real, effective, saved) })
}

/// `setfsuid(2)`: sets the user that counts for files, and returns the one before. Otherwise as
/// `sockshim_setuid`; it reports no error.
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setfsuid(user: uid_t) -> c_int {
    // SAFETY: takes numbers only.
    changing(|| unsafe { real::setfsuid(user) })
}
