//! How much is left to read, in a control message with each receive (TCP_INQ, linux/tcp.h). The option brings a connection
//! back to the kernel, which tells of its own queue; here it is told with those bytes that were in the ring by then.

use crate::pipe::copying::buffers;
use crate::pipe::lanes::unread;
use crate::pipe::meeting::options::TCP_INQ;
use crate::state::Socket;
use crate::state::flags::SocketFlags;
use crate::sys::kernel;
use core::sync::atomic::Ordering;
use libc::{CMSG_LEN, CMSG_SPACE, c_int, cmsghdr, msghdr};

/// Fills in the control part of a message whose bytes came from a ring.
pub(super) fn received(fd: c_int, socket: Socket, message: &mut msghdr) {
    let room = core::mem::take(&mut message.msg_controllen);
    let is_asked = || kernel::sockopt(fd, libc::IPPROTO_TCP, TCP_INQ, 0 as c_int) == Ok(1);
    let has_option = socket
        .entry()
        .is_some_and(|entry| entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::KERNEL_OPTION));
    if !has_option || !is_asked() {
        return;
    }
    if message.msg_control.is_null() || room < size_of::<cmsghdr>() {
        message.msg_flags |= libc::MSG_CTRUNC;
        return;
    }
    // SAFETY: arithmetic.
    let length = (unsafe { CMSG_LEN(4) } as usize).min(room);
    if !buffers::is_good(message.msg_control.cast::<u8>(), length, true) {
        return;
    }
    let queued = kernel::queued(fd).map_or(0, |bytes| bytes as c_int);
    let mut left = unread::unread(socket, queued);
    if left == 0 && kernel::poll_now(fd, libc::POLLRDHUP) & libc::POLLRDHUP != 0 {
        // An end is worth a read, too (tcp_inq_hint in net/ipv4/tcp.c).
        left = 1;
    }
    let header = message.msg_control.cast::<cmsghdr>();
    let part = cmsghdr { cmsg_len: length, cmsg_level: libc::IPPROTO_TCP, cmsg_type: TCP_INQ };
    let value = left.to_ne_bytes();
    // SAFETY: `is_good` has found `length` bytes there, and a header is no longer.
    unsafe { header.write_unaligned(part) };
    let data = header.wrapping_add(1).cast::<u8>();
    // SAFETY: what is left of these bytes follows the header, and is no longer than the value.
    unsafe { data.copy_from_nonoverlapping(value.as_ptr(), length - size_of::<cmsghdr>()) };
    if length < size_of::<cmsghdr>() + value.len() {
        message.msg_flags |= libc::MSG_CTRUNC;
    }
    // SAFETY: arithmetic.
    message.msg_controllen = (unsafe { CMSG_SPACE(4) } as usize).min(room);
}
