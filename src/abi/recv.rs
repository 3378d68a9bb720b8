//! Receiving: read, recv and their relatives.

use super::poll::nanoseconds;
use super::socket::room;
use super::{buffer, inq, messages, one_by_one, quietly, rights, stream, vectors};
use crate::error::Errno;
use crate::pipe::copying::buffers;
use crate::pipe::ending;
use crate::pipe::lanes::unread;
use crate::pipe::meeting::descriptor;
use crate::pipe::transfer::io;
use crate::state::descriptor_table;
use crate::sys::deadline::Deadline;
use crate::sys::{kernel, real};
use libc::{
    c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, off64_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec,
};

/// `read(2)`: reads from a descriptor.
///
/// Returns bytes, 0 at the end of the stream; there may be fewer than `count`, as the manual page allows. A
/// thread that sleeps here while another one closes the descriptor gets `EBADF` when something arrives.
///
/// # Errors
///
/// Those of read(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for writing `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of read(2).
        return unsafe { real::read(fd, buf, count) };
    }
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { read_socket(fd, buf, count) }
}

/// Apart, so that a call on another descriptor needs no stack.
///
/// # Safety
///
/// As read(2).
#[inline(never)]
unsafe fn read_socket(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller keeps the contract of read(2).
    let kernel = || unsafe { real::read(fd, buf, count) };
    match descriptor::socket(fd) {
        // The kernel answers these two without looking at the stream.
        Some(socket) if count > 0 && count <= isize::MAX as usize => {
            // SAFETY: the caller's buffer, see # Safety.
            unsafe { io::receive(fd, socket, &[iovec { iov_base: buf, iov_len: count }], 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `readv(2)`: reads into up to 1024 buffers. Otherwise as `sockshim_read`.
///
/// # Errors
///
/// Those of readv(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for writing its length.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_readv(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of readv(2).
        return unsafe { real::readv(fd, iov, iovcnt) };
    }
    // SAFETY: the caller's buffers, see # Safety.
    let kernel = || unsafe { real::readv(fd, iov, iovcnt) };
    // SAFETY: the caller's array of buffers, see # Safety.
    match (descriptor::socket(fd), unsafe { vectors(iov, iovcnt as usize) }) {
        (Some(socket), Some(buffers)) if buffers.iter().any(|buffer| buffer.iov_len > 0) => {
            // SAFETY: the caller's buffers, see # Safety.
            unsafe { io::receive(fd, socket, buffers, 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `preadv2(2)`: reads at an offset, in bytes, with flags.
///
/// On a pipe the offset is -1, and the flags are `RWF_NOWAIT` and `RWF_HIPRI`; the kernel refuses the rest on
/// a socket.
///
/// # Errors
///
/// Those of preadv2(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for writing its length.
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
    // SAFETY: the caller's array of buffers, see # Safety.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: the caller's buffers, see # Safety.
        (Some((socket, flags)), Some(buffers)) if buffers.iter().any(|buffer| buffer.iov_len > 0) => unsafe {
            io::receive(fd, socket, buffers, flags, kernel)
        },
        _ => kernel(),
    }
}

/// `preadv64v2(2)`: another name of `sockshim_preadv2`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of preadv2(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for writing its length.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_preadv64v2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off64_t,
    flags: c_int,
) -> ssize_t {
    // off_t is 64 bits wide here.
    // SAFETY: the caller keeps the contract of preadv2(2).
    unsafe { sockshim_preadv2(fd, iov, iovcnt, offset, flags) }
}

/// `recv(2)`: receives from a socket.
///
/// Returns bytes. `MSG_PEEK` does not look past a change between shared memory and the kernel: it may show
/// fewer bytes than are waiting, and never none when some are. `MSG_OOB` and `MSG_ERRQUEUE` are the kernel's.
///
/// # Errors
///
/// Those of recv(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for writing `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recv(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of recv(2).
        return unsafe { real::recv(fd, buf, len, flags) };
    }
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { recv_socket(fd, buf, len, flags) }
}

/// Apart, so that a call on another descriptor needs no stack.
///
/// # Safety
///
/// As recv(2).
#[inline(never)]
unsafe fn recv_socket(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of recv(2).
    let kernel = || unsafe { real::recv(fd, buf, len, flags) };
    match descriptor::socket(fd) {
        None => kernel(),
        // SAFETY: the caller's buffer, see # Safety.
        Some(socket) => unsafe { io::receive(fd, socket, &[buffer(buf, len)], flags, kernel) },
    }
}

/// `recvfrom(2)`: receives, and tells the sender's address. On a connected TCP socket, which tells none,
/// `length` becomes 0. Otherwise as `sockshim_recv`.
///
/// # Errors
///
/// Those of recvfrom(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for writing `len` bytes. `address` is null, or valid for writing as many bytes as `length`
/// says; `length` is valid for reading and writing then.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of recvfrom(2).
        return unsafe { real::recvfrom(fd, buf, len, flags, address, length) };
    }
    // SAFETY: buffer, address and length are the caller's, see # Safety.
    let kernel = || unsafe { real::recvfrom(fd, buf, len, flags, address, length) };
    let Some(socket) = descriptor::socket(fd) else { return kernel() };
    // SAFETY: the caller's buffer, see # Safety.
    let received = unsafe { io::receive(fd, socket, &[buffer(buf, len)], flags, kernel) };
    if received >= 0 && !address.is_null() {
        // A connected stream tells no address: the kernel answers a length of 0.
        // SAFETY: the caller's length, see # Safety.
        match unsafe { room(length) } {
            // SAFETY: `room` has found it there.
            Ok(_) => unsafe { length.write_unaligned(0) },
            Err(error) => return error.fail(),
        }
    }
    received
}

/// `recvmsg(2)`: receives into several buffers, with control messages.
///
/// Bytes from shared memory have no control messages, except for the one of `TCP_INQ`. Descriptors that come
/// with `SCM_RIGHTS` are looked at when they are first used. Otherwise as `sockshim_recv`.
///
/// # Errors
///
/// Those of recvmsg(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `msg` is valid for reading and writing, and so are the memories that it names, by their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    let mut by_kernel = false;
    let mut kernel = || {
        by_kernel = true;
        // SAFETY: the caller keeps the contract of recvmsg(2).
        unsafe { real::recvmsg(fd, msg, flags) }
    };
    let Some(socket) = descriptor::socket(fd) else {
        // SAFETY: the caller's message, see # Safety.
        let received = unsafe { real::recvmsg(fd, msg, flags) };
        if received >= 0 {
            // SAFETY: the kernel has just written to it, so it is there.
            let message = unsafe { &*msg };
            // SAFETY: the kernel has just filled it in.
            quietly(|| unsafe { rights::received(message) });
        }
        return received;
    };
    if !buffers::is_good(msg, size_of::<msghdr>(), true) {
        return Errno(libc::EFAULT).fail();
    }
    // SAFETY: `is_good` has found it there.
    let message = unsafe { *msg };
    // SAFETY: the buffers of the caller's message, see # Safety.
    let Some(buffers) = (unsafe { vectors(message.msg_iov, message.msg_iovlen) }) else { return kernel() };
    // SAFETY: the caller's buffers, see # Safety.
    let received = unsafe { io::receive(fd, socket, buffers, flags, kernel) };
    if received >= 0 {
        // SAFETY: `is_good` has found it there.
        let message = unsafe { &mut *msg };
        if !message.msg_name.is_null() {
            message.msg_namelen = 0;
        }
        if !by_kernel {
            message.msg_flags = flags & libc::MSG_CMSG_CLOEXEC | flags & libc::MSG_OOB;
            quietly(|| inq::received(fd, socket, message));
        }
    }
    received
}

/// `recvmmsg(2)`: receives up to 1024 messages.
///
/// On a pipe, as in the kernel, `timeout` is looked at after each message, and holds what is left of it
/// afterwards.
///
/// # Errors
///
/// Those of recvmmsg(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `msgs` is valid for `count` messages, each as `sockshim_recvmsg` asks; `timeout` is null, or valid for
/// reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_recvmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: the caller's messages, see # Safety.
    let (socket, messages) = (descriptor::socket(fd), unsafe { messages(msgs, count) });
    if messages.is_none() && socket.and_then(unread::unread_at_hand).is_some_and(|unread| unread > 0) {
        // The kernel, which sees no bytes, might say EAGAIN before it looks.
        return Errno(libc::EFAULT).fail();
    }
    let (Some(_), Some(messages)) = (socket, messages) else {
        // SAFETY: the caller's messages and time, see # Safety.
        let received = unsafe { real::recvmmsg(fd, msgs, count, flags, timeout) };
        for index in 0..received.max(0) as usize {
            // SAFETY: the kernel has just written to it, so it is there.
            let message = unsafe { &*msgs.wrapping_add(index) };
            // SAFETY: the kernel has just filled it in.
            quietly(|| unsafe { rights::received(&message.msg_hdr) });
        }
        return received;
    };
    // An error that waits is told first, and is told once, as the kernel does.
    let error =
        descriptor::socket(fd).map_or(0, |socket| ending::pending_error(socket, kernel::take_error(fd)));
    if error != 0 {
        return Errno(error).fail();
    }
    // SAFETY: the caller's time, see # Safety.
    let limit = match unsafe { nanoseconds(timeout) } {
        Ok(limit) => Deadline::after(limit),
        Err(error) => return error.fail(),
    };
    let mut now = flags & !libc::MSG_WAITFORONE;
    let received = one_by_one(messages, |message| {
        // SAFETY: a message of the caller's, see # Safety.
        let received = unsafe { sockshim_recvmsg(fd, message, now) };
        if flags & libc::MSG_WAITFORONE != 0 {
            now |= libc::MSG_DONTWAIT;
        }
        (received, limit.left() != Some(0))
    });
    if let (Some(left), 1..) = (limit.timespec(), received) {
        if !buffers::is_good(timeout, size_of::<timespec>(), true) {
            return Errno(libc::EFAULT).fail();
        }
        // SAFETY: `is_good` has found it there.
        unsafe { timeout.write_unaligned(left) };
    }
    received
}

/// `read(2)`, as compiled with `_FORTIFY_SOURCE`: ends the program when `count` is above `size`.
///
/// # Errors
///
/// Those of read(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for writing `count` bytes.
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
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { sockshim_read(fd, buf, count) }
}

/// `recv(2)`, as compiled with `_FORTIFY_SOURCE`: ends the program when `len` is above `size`.
///
/// # Errors
///
/// Those of recv(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for writing `len` bytes.
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
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { sockshim_recv(fd, buf, len, flags) }
}

/// `recvfrom(2)`, as compiled with `_FORTIFY_SOURCE`: ends the program when `len` is above `size`.
///
/// # Errors
///
/// Those of recvfrom(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// As for `sockshim_recvfrom`.
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
    // SAFETY: buffer, address and length are the caller's, see # Safety.
    unsafe { sockshim_recvfrom(fd, buf, len, flags, address, length) }
}
