//! Moving bytes.

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
    unsafe { real::read(fd, buf, count) }
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
    unsafe { real::readv(fd, iov, iovcnt) }
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
    unsafe { real::write(fd, buf, count) }
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
    unsafe { real::writev(fd, iov, iovcnt) }
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
    unsafe { real::recv(fd, buf, len, flags) }
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
    unsafe { real::recvfrom(fd, buf, len, flags, address, length) }
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
    unsafe { real::recvmsg(fd, msg, flags) }
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
    // SAFETY: the caller keeps the contract of recvmmsg(2).
    unsafe { real::recvmmsg(fd, msgs, count, flags, timeout) }
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
    unsafe { real::send(fd, buf, len, flags) }
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
    unsafe { real::sendto(fd, buf, len, flags, address, length) }
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
    unsafe { real::sendmsg(fd, msg, flags) }
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
    // SAFETY: the caller keeps the contract of sendmmsg(2).
    unsafe { real::sendmmsg(fd, msgs, count, flags) }
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
    unsafe { real::preadv2(fd, iov, iovcnt, offset, flags) }
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
    unsafe { real::pwritev2(fd, iov, iovcnt, offset, flags) }
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
    // SAFETY: the caller keeps the contract of preadv2(2).
    unsafe { real::preadv64v2(fd, iov, iovcnt, offset, flags) }
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
    // SAFETY: the caller keeps the contract of pwritev2(2).
    unsafe { real::pwritev64v2(fd, iov, iovcnt, offset, flags) }
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
    // SAFETY: the caller keeps the contract of read(2).
    unsafe { real::__read_chk(fd, buf, count, size) }
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
    // SAFETY: the caller keeps the contract of recv(2).
    unsafe { real::__recv_chk(fd, buf, len, size, flags) }
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
    // SAFETY: the caller keeps the contract of recvfrom(2).
    unsafe { real::__recvfrom_chk(fd, buf, len, size, flags, address, length) }
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
    unsafe { real::sendfile(out_fd, in_fd, offset, count) }
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
    // SAFETY: the caller keeps the contract of sendfile(2).
    unsafe { real::sendfile64(out_fd, in_fd, offset, count) }
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
    unsafe { real::splice(fd_in, off_in, fd_out, off_out, len, flags) }
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
