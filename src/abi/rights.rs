//! Descriptors that travel in messages (SCM_RIGHTS, unix(7)).

use crate::lifecycle;
use crate::pipe::copying::buffers;
use crate::state::descriptor_table;
use libc::{CMSG_DATA, CMSG_FIRSTHDR, CMSG_NXTHDR, c_int, msghdr};

/// Calls `each` for every descriptor in the control part of a message.
///
/// # Safety
///
/// The message is one that the kernel accepts or has filled in.
unsafe fn descriptors(message: &msghdr, mut each: impl FnMut(c_int)) {
    if message.msg_control.is_null() || message.msg_controllen == 0 {
        return;
    }
    // SAFETY: the caller says that the control part is there; the macro stays within `msg_controllen`.
    let mut header = unsafe { CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header within `msg_controllen`, as the macros answer.
    while let Some(part) = unsafe { header.as_ref() } {
        if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: arithmetic: the data follow the header.
            let data = unsafe { CMSG_DATA(part) };
            let used = data as usize - header as usize;
            for index in 0..part.cmsg_len.saturating_sub(used) / size_of::<c_int>() {
                // SAFETY: one of the descriptors that `cmsg_len` counts.
                each(unsafe { data.cast::<c_int>().wrapping_add(index).read_unaligned() });
            }
        }
        // SAFETY: the macro stays within `msg_controllen`.
        header = unsafe { CMSG_NXTHDR(message, header) };
    }
}

/// Before a message is sent: connections in it go back to the kernel, which carries them on.
///
/// # Safety
///
/// The contract of sendmsg(2).
pub(super) unsafe fn sending(message: &msghdr) {
    // The kernel refuses more than this (optmem_max), and what is not there.
    const MOST: usize = 1 << 20;
    let length = message.msg_controllen;
    if length > MOST || !buffers::is_good(message.msg_control, length, false) {
        return;
    }
    // SAFETY: `is_good` has found the control part there; the caller's message is one for sendmsg(2).
    unsafe { descriptors(message, lifecycle::sent_away) };
}

/// After a message has come: its descriptors are looked at when they are used.
///
/// # Safety
///
/// The kernel has filled the message.
pub(super) unsafe fn received(message: &msghdr) {
    // SAFETY: the kernel has filled the message in, as the caller says.
    unsafe {
        descriptors(message, |fd| {
            lifecycle::made(fd);
            descriptor_table::look_again(fd);
        })
    };
}
