//! Waiting for readiness: select, poll, epoll.

use super::{ensure_started, quietly};
use crate::error::{Errno, answer};
use crate::lifecycle;
use crate::pipe::copying::buffers;
use crate::pipe::meeting::descriptor;
use crate::readiness::select::{self, Sets};
use crate::readiness::{epoll, poll};
use crate::state::descriptor_table::Set;
use crate::state::reason::Reason;
use crate::sys::deadline::Deadline;
use crate::sys::real;
use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use std::ptr;

/// `select(2)`: waits until a descriptor of three sets is ready.
///
/// `timeout`, in seconds and microseconds, holds what is left of it afterwards, as always on Linux. Sets may
/// be longer than `FD_SETSIZE` bits. An event of a descriptor that is no pipe may be reported 5 ms late while
/// pipes are busy.
///
/// # Errors
///
/// Those of select(2).
///
/// # Safety
///
/// Each set is null, or holds `nfds` bits; `timeout` is null, or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_select(
    nfds: c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller keeps the contract of select(2).
    let kernel = || unsafe { real::select(nfds, readfds, writefds, exceptfds, timeout) };
    let sets = Sets { read: readfds.cast(), write: writefds.cast(), except: exceptfds.cast() };
    if !sets.are_there(nfds) || !(timeout.is_null() || buffers::is_good(timeout, size_of::<timeval>(), true))
    {
        return kernel();
    }
    // SAFETY: null, or found to be there above; the caller lends it, see # Safety.
    let time = unsafe { timeout.as_mut() };
    // More than a second of microseconds is as good as any time (fs/select.c).
    let sane = time.as_ref().is_none_or(|time| time.tv_sec >= 0 && time.tv_usec >= 0);
    if nfds <= 0 || !sane || !sets.concern(nfds) {
        return kernel();
    }
    let limit = time.as_ref().map(|time| {
        let seconds = (time.tv_sec as u64).saturating_mul(1_000_000_000);
        seconds.saturating_add((time.tv_usec as u64).saturating_mul(1000))
    });
    let deadline = Deadline::after(limit);
    // SAFETY: `are_there` has found the caller's sets; there is no mask.
    let result = unsafe { select::select(nfds, sets, deadline, ptr::null()) };
    if let (Some(time), Some(left)) = (time, deadline.left()) {
        // Linux tells what is left (select(2)).
        time.tv_sec = (left / 1_000_000_000) as i64;
        time.tv_usec = (left % 1_000_000_000 / 1000) as i64;
    }
    answer(result) as c_int
}

/// `pselect(2)`: waits as `sockshim_select`, with a signal mask. `timeout`, in seconds and nanoseconds, is
/// not changed.
///
/// # Errors
///
/// Those of pselect(2).
///
/// # Safety
///
/// Each set is null, or holds `nfds` bits; `timeout` and `sigmask` are null, or valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pselect(
    nfds: c_int,
    readfds: *mut fd_set,
    writefds: *mut fd_set,
    exceptfds: *mut fd_set,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    let sets = Sets { read: readfds.cast(), write: writefds.cast(), except: exceptfds.cast() };
    // SAFETY: the caller keeps the contract of pselect(2).
    match unsafe { nanoseconds(timeout) } {
        Ok(time) if nfds > 0 && sets.are_there(nfds) && sets.concern(nfds) => {
            // SAFETY: `are_there` has found the caller's sets; the mask is the caller's, see # Safety.
            answer(unsafe { select::select(nfds, sets, Deadline::after(time), sigmask) }) as c_int
        }
        // SAFETY: sets, time and mask are the caller's, see # Safety.
        _ => unsafe { real::pselect(nfds, readfds, writefds, exceptfds, timeout, sigmask) },
    }
}

/// `poll(2)`: waits until one of several descriptors is ready.
///
/// `timeout` is in milliseconds; a negative one waits for ever. An event of a descriptor that is no pipe may
/// be told 5 ms late while pipes are busy.
///
/// # Errors
///
/// Those of poll(2).
///
/// # Safety
///
/// `fds` is valid for reading and writing `nfds` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of poll(2).
    let Some(entries) = (unsafe { array(fds, nfds) }) else {
        // SAFETY: the caller's entries, see # Safety.
        return unsafe { real::poll(fds, nfds, timeout) };
    };
    let time = from_milliseconds(timeout);
    // SAFETY: there is no mask, so the caller owes nothing but the entries.
    answer(unsafe { poll::poll(entries, Deadline::after(time), ptr::null()) }) as c_int
}

/// `ppoll(2)`: waits as `sockshim_poll`, with a signal mask. `timeout` is in seconds and nanoseconds, and is
/// not changed.
///
/// # Errors
///
/// Those of ppoll(2).
///
/// # Safety
///
/// `fds` is valid for reading and writing `nfds` entries; `timeout` and `sigmask` are null, or valid for
/// reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_ppoll(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's entries, see # Safety.
    let entries = unsafe { array(fds, nfds) };
    // SAFETY: the caller's time, see # Safety.
    match (entries, unsafe { nanoseconds(timeout) }) {
        (Some(entries), Ok(time)) => {
            // SAFETY: the caller's mask, see # Safety.
            answer(unsafe { poll::poll(entries, Deadline::after(time), sigmask) }) as c_int
        }
        // SAFETY: entries, time and mask are the caller's, see # Safety.
        _ => unsafe { real::ppoll(fds, nfds, timeout, sigmask) },
    }
}

/// `poll(2)`, as compiled with `_FORTIFY_SOURCE`: ends the program when `nfds` entries need more than `size`
/// bytes.
///
/// # Errors
///
/// Those of poll(2).
///
/// # Safety
///
/// As for `sockshim_poll`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_poll_chk(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: c_int,
    size: size_t,
) -> c_int {
    if (nfds as usize).saturating_mul(size_of::<pollfd>()) > size {
        // SAFETY: the caller keeps the contract of poll(2); glibc ends the program here.
        return unsafe { real::__poll_chk(fds, nfds, timeout, size) };
    }
    // SAFETY: the caller owes this call what it owes the other one, see # Safety.
    unsafe { sockshim_poll(fds, nfds, timeout) }
}

/// `ppoll(2)`, as compiled with `_FORTIFY_SOURCE`: ends the program when `nfds` entries need more than `size`
/// bytes.
///
/// # Errors
///
/// Those of ppoll(2).
///
/// # Safety
///
/// As for `sockshim_ppoll`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_ppoll_chk(
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: *const timespec,
    sigmask: *const sigset_t,
    size: size_t,
) -> c_int {
    if (nfds as usize).saturating_mul(size_of::<pollfd>()) > size {
        // SAFETY: the caller keeps the contract of ppoll(2); glibc ends the program here.
        return unsafe { real::__ppoll_chk(fds, nfds, timeout, sigmask, size) };
    }
    // SAFETY: the caller owes this call what it owes the other one, see # Safety.
    unsafe { sockshim_ppoll(fds, nfds, timeout, sigmask) }
}

/// `epoll_create(2)`: makes an epoll set. Behaves as the manual page says.
///
/// Sets beyond 1,024 in a process and the children that it has forked are the kernel's, and the connections
/// in them go back to it.
///
/// # Errors
///
/// Those of epoll_create(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_create(size: c_int) -> c_int {
    // SAFETY: takes numbers only.
    set_made(unsafe { real::epoll_create(size) })
}

/// `epoll_create1(2)`: makes an epoll set, with flags. Otherwise as `sockshim_epoll_create`.
///
/// # Errors
///
/// Those of epoll_create1(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_create1(flags: c_int) -> c_int {
    // SAFETY: takes numbers only.
    set_made(unsafe { real::epoll_create1(flags) })
}

/// `epoll_ctl(2)`: changes an epoll set. Behaves as the manual page says, with level, edge, one-shot,
/// exclusive and nested registrations.
///
/// A connection that is added to a fifth set, or to a set that sockshim did not see being made, goes back to
/// the kernel for good.
///
/// # Errors
///
/// Those of epoll_ctl(2).
///
/// # Safety
///
/// `event` is null, or valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let Some(set) = descriptor::set(epfd) else {
        // SAFETY: the caller keeps the contract of epoll_ctl(2).
        let result = unsafe { real::epoll_ctl(epfd, op, fd, event) };
        if result == 0 && op == libc::EPOLL_CTL_ADD {
            // A set that we did not see made: nobody could translate for it.
            quietly(|| descriptor::pin(fd, Reason::UnknownSet));
        }
        return result;
    };
    let event = if buffers::is_good(event, size_of::<epoll_event>(), false) {
        // SAFETY: `is_good` has found it there.
        Some(unsafe { event.read_unaligned() })
    } else {
        None
    };
    match epoll::ctl(epfd, set, op, fd, event) {
        Ok(()) => 0,
        Err(error) => error.fail(),
    }
}

/// `epoll_wait(2)`: waits for events of an epoll set.
///
/// `timeout` is in milliseconds; a negative one waits for ever. Pipes are reported in the order in which they
/// were written to. An event of a descriptor that is no pipe may be reported 5 ms late while pipes are busy.
///
/// # Errors
///
/// Those of epoll_wait(2).
///
/// # Safety
///
/// `events` is valid for writing `maxevents` events.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_wait(2).
    let kernel = || unsafe { real::epoll_wait(epfd, events, maxevents, timeout) };
    let Some(set) = descriptor::set(epfd) else { return kernel() };
    if timeout == 0
        // SAFETY: the caller's events, see # Safety.
        && let Some(reported) = unsafe { epoll::wait::look(epfd, set, events, maxevents) }
    {
        return reported;
    }
    // SAFETY: the caller's events, see # Safety.
    unsafe { wait_longer(epfd, set, events, maxevents, timeout) }
}

/// [`sockshim_epoll_wait`] on a set that may hold a socket of ours, or that may have to wait.
///
/// # Safety
///
/// As for [`sockshim_epoll_wait`].
#[inline(never)]
unsafe fn wait_longer(
    epfd: c_int,
    set: Set,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's events, see # Safety.
    let kernel = || unsafe { real::epoll_wait(epfd, events, maxevents, timeout) };
    let limit = from_milliseconds(timeout);
    // SAFETY: the caller's events, see # Safety; there is no mask.
    unsafe { epoll::wait::wait(epfd, set, events, maxevents, limit, ptr::null(), kernel) }
}

/// `epoll_pwait(2)`: waits as `sockshim_epoll_wait`, with a signal mask.
///
/// # Errors
///
/// Those of epoll_pwait(2).
///
/// # Safety
///
/// `events` is valid for writing `maxevents` events; `sigmask` is null, or valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_pwait(2).
    let kernel = || unsafe { real::epoll_pwait(epfd, events, maxevents, timeout, sigmask) };
    let Some(set) = descriptor::set(epfd) else { return kernel() };
    let limit = from_milliseconds(timeout);
    // SAFETY: events and mask are the caller's, see # Safety.
    unsafe { epoll::wait::wait(epfd, set, events, maxevents, limit, sigmask, kernel) }
}

/// `epoll_pwait2(2)`: waits as `sockshim_epoll_pwait`, with a `timeout` in seconds and nanoseconds; null
/// waits for ever.
///
/// # Errors
///
/// Those of epoll_pwait2(2).
///
/// # Safety
///
/// `events` is valid for writing `maxevents` events; `timeout` and `sigmask` are null, or valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: *const timespec,
    sigmask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of epoll_pwait2(2).
    let kernel = || unsafe { real::epoll_pwait2(epfd, events, maxevents, timeout, sigmask) };
    // SAFETY: the caller's time, see # Safety.
    match (descriptor::set(epfd), unsafe { nanoseconds(timeout) }) {
        (Some(set), Ok(limit)) => {
            // SAFETY: events and mask are the caller's, see # Safety.
            unsafe { epoll::wait::wait(epfd, set, events, maxevents, limit, sigmask, kernel) }
        }
        _ => kernel(),
    }
}

/// The default of `fs.nr_open`, which RLIMIT_NOFILE cannot pass; the kernel takes longer arrays where it is higher.
pub(crate) const MOST_DESCRIPTORS: nfds_t = 1 << 20;

/// The program's array, if any of its descriptors concerns us and the kernel need not refuse it.
///
/// # Safety
///
/// The contract of poll(2).
#[inline(always)]
unsafe fn array<'a>(fds: *mut pollfd, nfds: nfds_t) -> Option<&'a mut [pollfd]> {
    if nfds == 0
        || nfds > MOST_DESCRIPTORS
        || !buffers::is_good(fds, nfds as usize * size_of::<pollfd>(), true)
    {
        return None;
    }
    // SAFETY: `is_good` has found the entries there, and the caller lends them until the call ends.
    let entries = unsafe { std::slice::from_raw_parts_mut(fds, nfds as usize) };
    poll::concerns(entries).then_some(entries)
}

/// A timeout of poll(2) in nanoseconds; `None`, from a negative one: for ever.
fn from_milliseconds(timeout: c_int) -> Option<u64> {
    u64::try_from(timeout).ok().map(|milliseconds| milliseconds * 1_000_000)
}

/// A timeout in nanoseconds; `None`: for ever.
///
/// # Errors
///
/// `EFAULT`: it is not there. `EINVAL`: it is not a time.
///
/// # Safety
///
/// `time` is null or the program's.
pub(super) unsafe fn nanoseconds(time: *const timespec) -> Result<Option<u64>, Errno> {
    if time.is_null() {
        return Ok(None);
    }
    if !buffers::is_good(time, size_of::<timespec>(), false) {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: `is_good` has found it there.
    let time = unsafe { time.read_unaligned() };
    if time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec) {
        return Err(Errno(libc::EINVAL));
    }
    Ok(Some((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)))
}

/// Notes a new set.
fn set_made(fd: c_int) -> c_int {
    if fd >= 0 {
        quietly(|| {
            ensure_started();
            lifecycle::set_made(fd);
        });
    }
    fd
}
