//! Waiting for readiness: select, poll, epoll.

use crate::sys::real;
use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

/// `select(2)`: waits until a descriptor of three sets is ready.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_select(
    nfds: c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller keeps the contract of select(2).
    unsafe { real::select(nfds, readfds, writefds, exceptfds, timeout) }
}

/// `pselect(2)`: waits with a signal mask.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pselect(
    nfds: c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of pselect(2).
    unsafe { real::pselect(nfds, readfds, writefds, exceptfds, timeout, sigmask) }
}

/// `poll(2)`: waits until one of several descriptors is ready.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of poll(2).
    unsafe { real::poll(fds, nfds, timeout) }
}

/// `ppoll(2)`: waits with a signal mask.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_ppoll(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of ppoll(2).
    unsafe { real::ppoll(fds, nfds, timeout, sigmask) }
}

/// `poll(2)`: `poll`, as compiled with `_FORTIFY_SOURCE`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_poll_chk(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: c_int,
    size: size_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of poll(2).
    unsafe { real::__poll_chk(fds, nfds, timeout, size) }
}

/// `ppoll(2)`: `ppoll`, as compiled with `_FORTIFY_SOURCE`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_ppoll_chk(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
    size: size_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of ppoll(2).
    unsafe { real::__ppoll_chk(fds, nfds, timeout, sigmask, size) }
}

/// `epoll_create(2)`: makes an epoll set.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_create(size: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_create(2).
    unsafe { real::epoll_create(size) }
}

/// `epoll_create1(2)`: makes an epoll set, with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_create1(flags: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_create1(2).
    unsafe { real::epoll_create1(flags) }
}

/// `epoll_ctl(2)`: changes an epoll set.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_ctl(2).
    unsafe { real::epoll_ctl(epfd, op, fd, event) }
}

/// `epoll_wait(2)`: waits for events of an epoll set.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_wait(2).
    unsafe { real::epoll_wait(epfd, events, maxevents, timeout) }
}

/// `epoll_pwait(2)`: waits with a signal mask.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_pwait(2).
    unsafe { real::epoll_pwait(epfd, events, maxevents, timeout, sigmask) }
}

/// `epoll_pwait2(2)`: waits with a signal mask and a `timespec`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_pwait2(2).
    unsafe { real::epoll_pwait2(epfd, events, maxevents, timeout, sigmask) }
}
