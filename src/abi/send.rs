//! Sending: write, send and their relatives.

use super::socket::note_connect;
use super::{buffer, messages, one_by_one, quietly, rights, stream, vectors};
use crate::pipe::copying::buffers;
use crate::pipe::meeting::descriptor;
use crate::pipe::transfer::io;
use crate::state::reason::Reason;
use crate::state::{Socket, descriptor_table};
use crate::sys::real;
use libc::{
    c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, off64_t, size_t, sockaddr, socklen_t, ssize_t,
};

/// `write(2)`: writes to a descriptor.
///
/// Returns bytes. A non-blocking write to a pipe takes 4 MB at most; it may be short, or fail with `EAGAIN`,
/// when the ring is full and the other end reads, although the kernel would have room. The socket becomes
/// writable when the reader has made room, or 10 ms later if it stops to read. `SIGPIPE` comes as with the kernel.
///
/// # Errors
///
/// Those of write(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for reading `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of write(2).
        return unsafe { real::write(fd, buf, count) };
    }
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { write_socket(fd, buf, count) }
}

/// Apart, so that a call on another descriptor needs no stack.
///
/// # Safety
///
/// As write(2).
#[inline(never)]
unsafe fn write_socket(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller keeps the contract of write(2).
    let kernel = || unsafe { real::write(fd, buf, count) };
    match descriptor::socket(fd) {
        Some(socket) if count <= isize::MAX as usize => {
            let buffers = [iovec { iov_base: buf.cast_mut(), iov_len: count }];
            // SAFETY: the caller's buffer, see # Safety.
            unsafe { io::send(fd, socket, &buffers, 0, kernel) }
        }
        _ => kernel(),
    }
}

/// `writev(2)`: writes from up to 1024 buffers. Otherwise as `sockshim_write`.
///
/// # Errors
///
/// Those of writev(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for reading its length.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_writev(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of writev(2).
        return unsafe { real::writev(fd, iov, iovcnt) };
    }
    // SAFETY: the caller's buffers, see # Safety.
    let kernel = || unsafe { real::writev(fd, iov, iovcnt) };
    // SAFETY: the caller's array of buffers, see # Safety.
    match (descriptor::socket(fd), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: the caller's buffers, see # Safety.
        (Some(socket), Some(buffers)) => unsafe { io::send(fd, socket, buffers, 0, kernel) },
        _ => kernel(),
    }
}

/// `pwritev2(2)`: writes at an offset, in bytes, with flags.
///
/// On a pipe the offset is -1, and the flags are `RWF_NOWAIT` and `RWF_HIPRI`; the kernel refuses the rest on
/// a socket.
///
/// # Errors
///
/// Those of pwritev2(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for reading its length.
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
    // SAFETY: the caller's array of buffers, see # Safety.
    match (stream(fd, offset, flags), unsafe { vectors(iov, iovcnt as usize) }) {
        // SAFETY: the caller's buffers, see # Safety.
        (Some((socket, flags)), Some(buffers)) => unsafe { io::send(fd, socket, buffers, flags, kernel) },
        _ => kernel(),
    }
}

/// `pwritev64v2(2)`: another name of `sockshim_pwritev2`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of pwritev2(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `iov` holds `iovcnt` buffers, each of them valid for reading its length.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pwritev64v2(
    fd: c_int,
    iov: *const iovec,
    iovcnt: c_int,
    offset: off64_t,
    flags: c_int,
) -> ssize_t {
    // off_t is 64 bits wide here.
    // SAFETY: the caller keeps the contract of pwritev2(2).
    unsafe { sockshim_pwritev2(fd, iov, iovcnt, offset, flags) }
}

/// `send(2)`: sends on a socket.
///
/// `MSG_MORE` holds nothing back on a pipe. `MSG_OOB` and `MSG_ZEROCOPY` bring the connection back to the
/// kernel for good. Otherwise as `sockshim_write`.
///
/// # Errors
///
/// Those of send(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for reading `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_send(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of send(2).
        return unsafe { real::send(fd, buf, len, flags) };
    }
    // SAFETY: the caller's buffer, see # Safety.
    unsafe { send_socket(fd, buf, len, flags) }
}

/// Apart, so that a call on another descriptor needs no stack.
///
/// # Safety
///
/// As send(2).
#[inline(never)]
unsafe fn send_socket(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of send(2).
    let kernel = || unsafe { real::send(fd, buf, len, flags) };
    match descriptor::socket(fd) {
        None => kernel(),
        Some(socket) => {
            // SAFETY: the caller's buffer, see # Safety.
            unsafe { io::send(fd, socket, &[buffer(buf, len)], flags, kernel) }
        }
    }
}

/// `sendto(2)`: sends to an address, which a connected TCP socket ignores. With `MSG_FASTOPEN` it connects
/// first. Otherwise as `sockshim_send`.
///
/// # Errors
///
/// Those of sendto(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `buf` is valid for reading `len` bytes; `address` is null, or valid for reading `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    if descriptor_table::is_host(fd) {
        // SAFETY: the caller keeps the contract of sendto(2).
        return unsafe { real::sendto(fd, buf, len, flags, address, length) };
    }
    // SAFETY: buffer and address are the caller's, see # Safety.
    let kernel = || unsafe { real::sendto(fd, buf, len, flags, address, length) };
    match descriptor::socket(fd) {
        None => kernel(),
        Some(socket) if flags & libc::MSG_FASTOPEN != 0 => connect_and_send(fd, socket, kernel),
        Some(socket) => {
            // SAFETY: the caller's buffer, see # Safety.
            unsafe { io::send(fd, socket, &[buffer(buf, len)], flags, kernel) }
        }
    }
}

/// With `MSG_FASTOPEN` a send is connect(2) first, and so takes no bytes of a connection that is there already (`EISCONN`).
fn connect_and_send(fd: c_int, socket: Socket, kernel: impl FnOnce() -> ssize_t) -> ssize_t {
    let sent = kernel();
    note_connect(fd, sent >= 0);
    if let (Some(entry), 1..) = (socket.entry(), sent) {
        quietly(|| io::note_sent(fd, socket, entry, sent as usize));
    }
    sent
}

/// `sendmsg(2)`: sends from several buffers, with control messages.
///
/// A message with control messages brings a TCP connection on which it is sent back to the kernel for good,
/// and so does `SCM_RIGHTS` with the connections that are sent away. Otherwise as `sockshim_send`.
///
/// # Errors
///
/// Those of sendmsg(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `msg` is valid for reading, and so are the memories that it names, by their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller keeps the contract of sendmsg(2).
    let kernel = || unsafe { real::sendmsg(fd, msg, flags) };
    if !buffers::is_good(msg, size_of::<msghdr>(), false) {
        return kernel();
    }
    // SAFETY: `is_good` has found it there.
    let message = unsafe { &*msg };
    let Some(socket) = descriptor::socket(fd) else {
        // SAFETY: the caller's message, see # Safety.
        quietly(|| unsafe { rights::sending(message) });
        return kernel();
    };
    if message.msg_controllen > 0 {
        quietly(|| descriptor::pin(fd, Reason::Option));
    }
    if flags & libc::MSG_FASTOPEN != 0 {
        return connect_and_send(fd, socket, kernel);
    }
    // SAFETY: the buffers of the caller's message, see # Safety.
    let Some(buffers) = (unsafe { vectors(message.msg_iov, message.msg_iovlen) }) else { return kernel() };
    // SAFETY: the caller's buffers, see # Safety.
    unsafe { io::send(fd, socket, buffers, flags, kernel) }
}

/// `sendmmsg(2)`: sends up to 1024 messages, each as `sockshim_sendmsg`. It ends after the first one that is
/// sent in part.
///
/// # Errors
///
/// Those of sendmmsg(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `msgs` is valid for reading and writing `count` messages, each as `sockshim_sendmsg` asks.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendmmsg(
    fd: c_int,
    msgs: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let is_ours = descriptor::socket(fd).is_some();
    // SAFETY: the caller's messages, see # Safety.
    match unsafe { messages(msgs, count) } {
        Some(messages) if is_ours => {
            return one_by_one(messages, |message| {
                // SAFETY: the buffers of a message of the caller's, see # Safety.
                let wanted =
                    unsafe { vectors(message.msg_iov, message.msg_iovlen) }.map_or(0, buffers::length);
                // SAFETY: a message of the caller's, see # Safety.
                let sent = unsafe { sockshim_sendmsg(fd, message, flags) };
                (sent, sent as usize >= wanted)
            });
        }
        messages => messages.into_iter().flatten().for_each(|message| {
            // SAFETY: a message of the caller's, see # Safety.
            quietly(|| unsafe { rights::sending(&message.msg_hdr) });
        }),
    }
    // SAFETY: the caller's messages, see # Safety.
    unsafe { real::sendmmsg(fd, msgs, count, flags) }
}
