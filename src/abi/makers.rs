//! Calls that make descriptors which are never ours.
//!
//! They are interposed because a descriptor may have been closed where we could not see it: the kernel gives its
//! number out again here, and what the descriptor table still holds under that number must go.

use super::quietly;
use crate::lifecycle;
use crate::sys::real;
use libc::{c_char, c_int, c_uint, clockid_t, mode_t, sigset_t};

/// `open(2)`: opens a file. `mode` counts only with `O_CREAT` or `O_TMPFILE`. Behaves as the manual page
/// says; sockshim only notes that the number is not a connection's.
///
/// # Errors
///
/// Those of open(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller keeps the contract of open(2).
    made(unsafe { real::open(path, flags, mode) })
}

/// `open64(2)`: another name of `sockshim_open`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of open(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: `path` is the caller's, see # Safety.
    unsafe { sockshim_open(path, flags, mode) }
}

/// `openat(2)`: opens a file relative to a folder. `mode` counts only with `O_CREAT` or `O_TMPFILE`. Behaves
/// as the manual page says; sockshim only notes that the number is not a connection's.
///
/// # Errors
///
/// Those of openat(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_openat(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of openat(2).
    made(unsafe { real::openat(folder, path, flags, mode) })
}

/// `openat64(2)`: another name of `sockshim_openat`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of openat(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_openat64(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: `path` is the caller's, see # Safety.
    unsafe { sockshim_openat(folder, path, flags, mode) }
}

/// `creat(2)`: makes or truncates a file. Behaves as the manual page says; sockshim only notes that the
/// number is not a connection's.
///
/// # Errors
///
/// Those of creat(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_creat(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller keeps the contract of creat(2).
    made(unsafe { real::creat(path, mode) })
}

/// `creat64(2)`: another name of `sockshim_creat`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of creat(2).
///
/// # Safety
///
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_creat64(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller keeps the contract of creat(2).
    unsafe { sockshim_creat(path, mode) }
}

/// `eventfd(2)`: makes a counter to wait on. Behaves as the manual page says; sockshim only notes that the
/// number is not a connection's.
///
/// # Errors
///
/// Those of eventfd(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_eventfd(initial: c_uint, flags: c_int) -> c_int {
    // SAFETY: takes numbers only.
    made(unsafe { real::eventfd(initial, flags) })
}

/// `timerfd_create(2)`: makes a timer to wait on. Behaves as the manual page says; sockshim only notes that
/// the number is not a connection's.
///
/// # Errors
///
/// Those of timerfd_create(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_timerfd_create(clock: clockid_t, flags: c_int) -> c_int {
    // SAFETY: takes numbers only.
    made(unsafe { real::timerfd_create(clock, flags) })
}

/// `signalfd(2)`: makes or changes a descriptor that reads signals. Behaves as the manual page says; sockshim
/// only notes that the number is not a connection's.
///
/// # Errors
///
/// Those of signalfd(2).
///
/// # Safety
///
/// `mask` is valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of signalfd(2).
    made(unsafe { real::signalfd(fd, mask, flags) })
}

/// `memfd_create(2)`: makes an anonymous file. Behaves as the manual page says; sockshim only notes that the
/// number is not a connection's.
///
/// # Errors
///
/// Those of memfd_create(2).
///
/// # Safety
///
/// `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_memfd_create(name: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: the caller keeps the contract of memfd_create(2).
    made(unsafe { real::memfd_create(name, flags) })
}

/// `inotify_init(2)`: makes a descriptor that reads file events. Behaves as the manual page says; sockshim
/// only notes that the number is not a connection's.
///
/// # Errors
///
/// Those of inotify_init(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_inotify_init() -> c_int {
    // SAFETY: takes numbers only.
    made(unsafe { real::inotify_init() })
}

/// `inotify_init1(2)`: makes a descriptor that reads file events, with flags. Behaves as the manual page
/// says; sockshim only notes that the number is not a connection's.
///
/// # Errors
///
/// Those of inotify_init1(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_inotify_init1(flags: c_int) -> c_int {
    // SAFETY: takes numbers only.
    made(unsafe { real::inotify_init1(flags) })
}

/// `pipe(2)`: makes a pipe of the kernel. Behaves as the manual page says; sockshim only notes that the
/// numbers are not connections'.
///
/// # Errors
///
/// Those of pipe(2).
///
/// # Safety
///
/// `ends` is valid for writing two descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pipe(ends: *mut c_int) -> c_int {
    // SAFETY: the caller keeps the contract of pipe(2).
    let result = unsafe { real::pipe(ends) };
    // SAFETY: after success the kernel has stored two descriptors there.
    unsafe { made_pair(result, ends) }
}

/// `pipe2(2)`: makes a pipe of the kernel, with flags. Otherwise as `sockshim_pipe`.
///
/// # Errors
///
/// Those of pipe2(2).
///
/// # Safety
///
/// `ends` is valid for writing two descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pipe2(ends: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of pipe2(2).
    let result = unsafe { real::pipe2(ends, flags) };
    // SAFETY: after success the kernel has stored two descriptors there.
    unsafe { made_pair(result, ends) }
}

/// `socketpair(2)`: makes two connected sockets, which are the kernel's. Behaves as the manual page says.
///
/// # Errors
///
/// Those of socketpair(2).
///
/// # Safety
///
/// `pair` is valid for writing two descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
) -> c_int {
    // SAFETY: the caller keeps the contract of socketpair(2).
    let result = unsafe { real::socketpair(domain, kind, protocol, pair) };
    // SAFETY: after success the kernel has stored two descriptors there.
    unsafe { made_pair(result, pair) }
}

/// Tells `lifecycle` that `fd` is new, unless the call failed.
pub(super) fn made(fd: c_int) -> c_int {
    if fd >= 0 {
        quietly(|| lifecycle::made(fd));
    }
    fd
}

/// Tells `lifecycle` of both descriptors that a call stored in `pair`, unless it failed.
///
/// # Safety
///
/// If `result` is 0, `pair` is valid for reading two descriptors.
pub(super) unsafe fn made_pair(result: c_int, pair: *const c_int) -> c_int {
    if result == 0 {
        // SAFETY: the call that succeeded has stored two descriptors there.
        let [one, other] = unsafe { pair.cast::<[c_int; 2]>().read() };
        made(one);
        made(other);
    }
    result
}
