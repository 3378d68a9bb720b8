//! Epoll sets.

use super::make;
use crate::error::Errno;
use core::ffi::c_int;

pub(crate) fn epoll_ctl(
    set: c_int,
    operation: c_int,
    fd: c_int,
    event: Option<&libc::epoll_event>,
) -> Result<(), Errno> {
    let event = event.map_or(core::ptr::null(), core::ptr::from_ref);
    call!(SYS_epoll_ctl, set, operation, fd, event).map(drop)
}

pub(crate) fn epoll_now(set: c_int, events: &mut [libc::epoll_event]) -> Result<usize, Errno> {
    epoll_look(set, events.as_mut_ptr(), events.len() as c_int)
}

/// epoll_wait(2) that does not wait, into the program's own array.
#[inline(always)]
pub(crate) fn epoll_look(set: c_int, events: *mut libc::epoll_event, most: c_int) -> Result<usize, Errno> {
    call!(SYS_epoll_wait, set, events, most, 0)
}
