//! Moving bytes.

use super::{quietly, rights};
use crate::error::{Errno, answer, outcome};
use crate::pipe::{buffers, io};
use crate::readiness::Deadline;
use crate::registry::reason::Reason;
use crate::registry::{Socket, lifecycle, table};
use crate::sys::real;
use libc::{
    c_int, c_uint, c_void, iovec, loff_t, mmsghdr, msghdr, off_t, off64_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec,
};

/// `read(2)`: reads from a descriptor.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller keeps the contract of read(2).
    let kernel = || unsafe { real::read(fd, buf, count) };
    match table::socket(fd) {
        // The kernel answers these two without looking at the stream.
        Some(socket) if count > 0 && count <= isize::MAX as usize => {
            // SAFETY: as above.
            unsafe { io::receive(fd, socket, &[iovec { iov_base: buf, iov_len: count }], 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `readv(2)`: reads into several buffers.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_readv(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of readv(2).
    let kernel = || unsafe { real::readv(fd, iov, iovcnt) };
    // SAFETY: as above.
    match (table::socket(fd), unsafe { vectors(iov, iovcnt as usize) }) {
        (Some(socket), Some(buffers)) if buffers.iter().any(|buffer| buffer.iov_len > 0) => {
            // SAFETY: as above.
            unsafe { io::receive(fd, socket, buffers, 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `write(2)`: writes to a descriptor.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller keeps the contract of write(2).
    let kernel = || unsafe { real::write(fd, buf, count) };
    match table::socket(fd) {
        Some(socket) if count <= isize::MAX as usize => {
            let buffers = [iovec { iov_base: buf.cast_mut(), iov_len: count }];
            // SAFETY: as above.
            unsafe { io::send(fd, socket, &buffers, 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `writev(2)`: writes from several buffers.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_writev(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of writev(2).
    let kernel = || unsafe { real::writev(fd, iov, iovcnt) };
    // SAFETY: as above.
    match (table::socket(fd), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: as above.
        (Some(socket), Some(buffers)) => unsafe { io::send(fd, socket, buffers, 0, kernel) },
        _ => kernel(),
    }
}

/// `recv(2)`: receives from a socket.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recv(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of recv(2).
    let kernel = || unsafe { real::recv(fd, buf, len, flags) };
    match table::socket(fd) {
        None => kernel(),
        // SAFETY: as above.
        Some(socket) => {
            let buffers = [iovec { iov_base: buf, iov_len: len.min(buffers::MOST) }];
            // SAFETY: as above.
            unsafe { io::receive(fd, socket, &buffers, flags, kernel) }
        }
    }
}

/// `recvfrom(2)`: receives, and tells the sender's address.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of recvfrom(2).
    let kernel = || unsafe { real::recvfrom(fd, buf, len, flags, address, length) };
    let Some(socket) = table::socket(fd) else { return kernel() };
    let buffers = [iovec { iov_base: buf, iov_len: len.min(buffers::MOST) }];
    // SAFETY: as above.
    let received = unsafe { io::receive(fd, socket, &buffers, flags, kernel) };
    if received >= 0 && !address.is_null() && !length.is_null() {
        // A connected stream tells no address: the kernel answers a length of 0.
        // SAFETY: as above.
        unsafe { length.write(0) };
    }
    received
}

/// `recvmsg(2)`: receives with control messages.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of recvmsg(2).
    let kernel = || unsafe { real::recvmsg(fd, msg, flags) };
    let Some(socket) = table::socket(fd) else {
        let received = kernel();
        if received >= 0 {
            // SAFETY: the kernel has just filled the message in.
            quietly(|| unsafe { rights::received(&*msg) });
        }
        return received;
    };
    if !buffers::is_good(msg, size_of::<msghdr>(), true) {
        return kernel();
    }
    // SAFETY: as above, and it is there.
    let message = unsafe { *msg };
    // SAFETY: as above.
    let Some(buffers) = (unsafe { vectors(message.msg_iov, message.msg_iovlen) }) else { return kernel() };
    // SAFETY: as above.
    let received = unsafe { io::receive(fd, socket, buffers, flags, kernel) };
    if received >= 0 {
        // SAFETY: as above.
        let message = unsafe { &mut *msg };
        if !message.msg_name.is_null() {
            message.msg_namelen = 0;
        }
        if socket.entry().is_some_and(|entry| io::reading_pipe(socket, entry).is_some()) {
            message.msg_controllen = 0;
            message.msg_flags = 0;
        }
    }
    received
}

/// `recvmmsg(2)`: receives several messages.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let messages = count.min(1024) as usize * size_of::<mmsghdr>();
    if table::socket(fd).is_none() || !buffers::is_good(msgs, messages, true) {
        // SAFETY: the caller keeps the contract of recvmmsg(2).
        let received = unsafe { real::recvmmsg(fd, msgs, count, flags, timeout) };
        for index in 0..received.max(0) as usize {
            // SAFETY: the kernel has just filled that many.
            quietly(|| unsafe { rights::received(&(*msgs.add(index)).msg_hdr) });
        }
        return received;
    }
    // SAFETY: as above.
    let limit = unsafe { timeout.as_ref() };
    let limit = Deadline::after(limit.map(|time| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64));
    let mut flags = flags;
    for index in 0..count.min(1024) as usize {
        // SAFETY: as above.
        let message = unsafe { &mut *msgs.add(index) };
        // SAFETY: as above.
        let received =
            unsafe { sockshim_recvmsg(fd, &raw mut message.msg_hdr, flags & !libc::MSG_WAITFORONE) };
        if received < 0 {
            return if index > 0 { index as c_int } else { -1 };
        }
        message.msg_len = received as c_uint;
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        if limit.left() == Some(0) {
            return index as c_int + 1;
        }
    }
    count.min(1024) as c_int
}

/// `send(2)`: sends on a socket.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_send(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of send(2).
    let kernel = || unsafe { real::send(fd, buf, len, flags) };
    match table::socket(fd) {
        None => kernel(),
        // SAFETY: as above.
        Some(socket) => {
            let buffers = [iovec { iov_base: buf.cast_mut(), iov_len: len.min(buffers::MOST) }];
            // SAFETY: as above.
            unsafe { io::send(fd, socket, &buffers, flags, kernel) }
        }
    }
}

/// `sendto(2)`: sends to an address.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of sendto(2).
    let kernel = || unsafe { real::sendto(fd, buf, len, flags, address, length) };
    match table::socket(fd) {
        None => kernel(),
        Some(socket) => {
            let buffers = [iovec { iov_base: buf.cast_mut(), iov_len: len.min(buffers::MOST) }];
            // SAFETY: as above.
            unsafe { io::send(fd, socket, &buffers, flags, kernel) }
        }
    }
}

/// `sendmsg(2)`: sends with control messages.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of sendmsg(2).
    let kernel = || unsafe { real::sendmsg(fd, msg, flags) };
    if !buffers::is_good(msg, size_of::<msghdr>(), false) {
        return kernel();
    }
    // SAFETY: as above, and it is there.
    let message = unsafe { &*msg };
    let Some(socket) = table::socket(fd) else {
        // SAFETY: as above.
        quietly(|| unsafe { rights::sending(message) });
        return kernel();
    };
    if message.msg_controllen > 0 {
        quietly(|| lifecycle::pin(fd, Reason::Option));
    }
    // SAFETY: as above.
    let Some(buffers) = (unsafe { vectors(message.msg_iov, message.msg_iovlen) }) else { return kernel() };
    // SAFETY: as above.
    unsafe { io::send(fd, socket, buffers, flags, kernel) }
}

/// `sendmmsg(2)`: sends several messages.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let messages = count.min(1024) as usize;
    let good = buffers::is_good(msgs, messages * size_of::<mmsghdr>(), true);
    if table::socket(fd).is_none() || !good {
        for index in 0..if good { messages } else { 0 } {
            // SAFETY: the caller keeps the contract of sendmmsg(2).
            quietly(|| unsafe { rights::sending(&(*msgs.add(index)).msg_hdr) });
        }
        // SAFETY: as above.
        return unsafe { real::sendmmsg(fd, msgs, count, flags) };
    }
    for index in 0..count.min(1024) as usize {
        // SAFETY: as above.
        let message = unsafe { &mut *msgs.add(index) };
        // SAFETY: as above.
        let wanted: usize = unsafe { vectors(message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) }
            .map_or(0, buffers::length);
        // SAFETY: as above.
        let sent = unsafe { sockshim_sendmsg(fd, &raw const message.msg_hdr, flags) };
        if sent < 0 {
            return if index > 0 { index as c_int } else { -1 };
        }
        message.msg_len = sent as c_uint;
        if (sent as usize) < wanted {
            return index as c_int + 1;
        }
    }
    count.min(1024) as c_int
}

/// `preadv2(2)`: reads at an offset (-1: the current one) with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_preadv2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of preadv2(2).
    let kernel = || unsafe { real::preadv2(fd, iov, iovcnt, offset, flags) };
    // SAFETY: as above.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: as above.
        (Some((socket, flags)), Some(buffers)) => unsafe { io::receive(fd, socket, buffers, flags, kernel) },
        _ => kernel(),
    }
}

/// `pwritev2(2)`: writes at an offset (-1: the current one) with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pwritev2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of pwritev2(2).
    let kernel = || unsafe { real::pwritev2(fd, iov, iovcnt, offset, flags) };
    // SAFETY: as above.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: as above.
        (Some((socket, flags)), Some(buffers)) => unsafe { io::send(fd, socket, buffers, flags, kernel) },
        _ => kernel(),
    }
}

/// `preadv2(2)`: reads at an offset (-1: the current one) with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_preadv64v2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off64_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of preadvv2(2).
    let kernel = || unsafe { real::preadv64v2(fd, iov, iovcnt, offset, flags) };
    // SAFETY: as above.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: as above.
        (Some((socket, flags)), Some(buffers)) => unsafe { io::receive(fd, socket, buffers, flags, kernel) },
        _ => kernel(),
    }
}

/// `pwritev2(2)`: writes at an offset (-1: the current one) with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pwritev64v2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off64_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of pwritevv2(2).
    let kernel = || unsafe { real::pwritev64v2(fd, iov, iovcnt, offset, flags) };
    // SAFETY: as above.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: as above.
        (Some((socket, flags)), Some(buffers)) => unsafe { io::send(fd, socket, buffers, flags, kernel) },
        _ => kernel(),
    }
}

/// `read(2)`: `read`, as compiled with `_FORTIFY_SOURCE`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_read_chk(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    size: size_t,
) -> ssize_t {
    if count > size {
        // SAFETY: the caller keeps the contract of read(2); glibc ends the program here.
        return unsafe { real::__read_chk(fd, buf, count, size) };
    }
    // SAFETY: as above.
    unsafe { sockshim_read(fd, buf, count) }
}

/// `recv(2)`: `recv`, as compiled with `_FORTIFY_SOURCE`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
) -> ssize_t {
    if len > size {
        // SAFETY: the caller keeps the contract of recv(2); glibc ends the program here.
        return unsafe { real::__recv_chk(fd, buf, len, size, flags) };
    }
    // SAFETY: as above.
    unsafe { sockshim_recv(fd, buf, len, flags) }
}

/// `recvfrom(2)`: `recvfrom`, as compiled with `_FORTIFY_SOURCE`.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    size: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    if len > size {
        // SAFETY: the caller keeps the contract of recvfrom(2); glibc ends the program here.
        return unsafe { real::__recvfrom_chk(fd, buf, len, size, flags, address, length) };
    }
    // SAFETY: as above.
    unsafe { sockshim_recvfrom(fd, buf, len, flags, address, length) }
}

/// `sendfile(2)`: moves bytes from a file to a descriptor.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendfile(
    out_fd: c_int,
    in_fd: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of sendfile(2).
    let kernel = || unsafe { real::sendfile(out_fd, in_fd, offset, count) };
    let Some(socket) = table::socket(out_fd) else { return kernel() };
    // SAFETY: as above.
    let from = unsafe { offset.as_mut() };
    let start = match &from {
        Some(offset) if **offset < 0 => return kernel(),
        Some(offset) => Some(**offset as u64),
        None => None,
    };
    match io::send_file(out_fd, socket, in_fd, start, count, kernel) {
        io::FileSent::ByKernel(sent) => sent,
        io::FileSent::ByRing(result) => {
            if let (Some(offset), Ok(sent)) = (from, &result) {
                *offset += *sent as off_t;
            }
            answer(result)
        }
    }
}

/// `sendfile(2)`: moves bytes from a file to a descriptor.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendfile64(
    out_fd: c_int,
    in_fd: c_int,
    offset: *mut off64_t,
    count: size_t,
) -> ssize_t {
    // off_t is 64 bits wide here.
    // SAFETY: the caller keeps the contract of sendfile(2).
    unsafe { sockshim_sendfile(out_fd, in_fd, offset, count) }
}

/// `splice(2)`: moves bytes between a pipe and a descriptor.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_splice(
    fd_in: c_int,
    off_in: *mut loff_t,
    fd_out: c_int,
    off_out: *mut loff_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of splice(2).
    let kernel = || unsafe { real::splice(fd_in, off_in, fd_out, off_out, len, flags) };
    if let Some(socket) = table::socket(fd_out) {
        return io::send_by_kernel(fd_out, socket, kernel);
    }
    match table::socket(fd_in) {
        Some(socket) if off_in.is_null() && off_out.is_null() => {
            splice_from(fd_in, socket, fd_out, len, flags, kernel)
        }
        _ => kernel(),
    }
}

/// `tee(2)`: copies bytes from one pipe to another.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_tee(
    fd_in: c_int,
    fd_out: c_int,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of tee(2).
    unsafe { real::tee(fd_in, fd_out, len, flags) }
}

/// The program's array of buffers, unless the kernel must refuse it.
///
/// # Safety
///
/// The program's `readv` contract.
unsafe fn vectors<'a>(iov: *const iovec, count: usize) -> Option<&'a [iovec]> {
    const IOV_MAX: usize = 1024;
    if count == 0 || count > IOV_MAX || !buffers::is_good(iov, count * size_of::<iovec>(), false) {
        return None;
    }
    // SAFETY: upheld by the caller.
    Some(unsafe { core::slice::from_raw_parts(iov, count) })
}

/// The socket of ours behind `fd`, and `recv`'s flags for those of `preadv2`, if this is stream I/O.
fn stream(fd: c_int, offset: off64_t, flags: c_int) -> Option<(Socket, c_int)> {
    let socket = table::socket(fd)?;
    let known = libc::RWF_NOWAIT | libc::RWF_HIPRI;
    let ours = if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 };
    (offset == -1 && flags & !known == 0).then_some((socket, ours))
}

/// `splice` from a socket of ours into a pipe: peek, write, and only then take, so that what the pipe does
/// not accept stays where it was.
fn splice_from(
    fd: c_int,
    socket: Socket,
    to: c_int,
    len: size_t,
    flags: c_uint,
    kernel: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if socket.entry().is_none_or(|entry| io::reading_pipe(socket, entry).is_none()) {
        return kernel();
    }
    let mut room = [0u8; 16 << 10];
    let wait = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
    let place = |len: usize, room: &mut [u8]| [iovec { iov_base: room.as_mut_ptr().cast(), iov_len: len }];
    let wanted = len.min(room.len());
    let buffers = place(wanted, &mut room);
    // SAFETY: the buffer is ours.
    let seen = unsafe { io::receive(fd, socket, &buffers, libc::MSG_PEEK | wait, || -1) };
    if seen <= 0 {
        return seen;
    }
    // SAFETY: the bytes are there.
    let written = match outcome(unsafe { real::write(to, room.as_ptr().cast(), seen as usize) }) {
        Ok(written) => written,
        Err(error) => return answer(Err(error)),
    };
    let errno = Errno::last();
    let taken = place(written, &mut room);
    // SAFETY: as above.
    unsafe { io::receive(fd, socket, &taken, libc::MSG_DONTWAIT, || -1) };
    errno.store();
    written as ssize_t
}
