//! Making and connecting sockets, addresses and options.

use super::{ensure_started, quietly};
use crate::error::{Errno, answer};
use crate::lifecycle;
use crate::pipe::connection::kept_options;
use crate::pipe::copying::buffers;
use crate::pipe::ending;
use crate::pipe::handoff::pin;
use crate::pipe::meeting::descriptor;
use crate::pipe::meeting::options::{self, Before};
use crate::pipe::transfer::write;
use crate::state::Socket;
use crate::sys::address::Address;
use crate::sys::{kernel, real};
use libc::{c_int, c_void, sockaddr, socklen_t};

/// `socket(2)`: makes a socket.
///
/// The kernel makes every socket. A TCP socket (`AF_INET` or `AF_INET6`, `SOCK_STREAM`) may come onto a pipe
/// once it is connected; a socket of another kind is the kernel's altogether.
///
/// # Errors
///
/// Those of socket(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: takes numbers only.
    let fd = unsafe { real::socket(domain, kind, protocol) };
    if fd >= 0 {
        quietly(|| {
            ensure_started();
            lifecycle::socket_made(fd, domain, kind, protocol);
        });
    }
    fd
}

/// `bind(2)`: gives a socket its local address. Behaves as the manual page says.
///
/// # Errors
///
/// Those of bind(2).
///
/// # Safety
///
/// `address` is null or valid for reading `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_bind(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of bind(2).
    unsafe { real::bind(fd, address, length) }
}

/// `listen(2)`: makes a socket accept connections. Behaves as the manual page says; `backlog` is the
/// kernel's, in connections.
///
/// # Errors
///
/// Those of listen(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_listen(fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: takes numbers only.
    let result = unsafe { real::listen(fd, backlog) };
    if result == 0 {
        quietly(|| lifecycle::listening(fd));
    }
    result
}

/// `accept(2)`: takes the next connection from a listening socket.
///
/// Behaves as the manual page says. With `SOCKSHIM_UPGRADE_AFTER=0` the new connection is prepared for a pipe
/// before the call returns.
///
/// # Errors
///
/// Those of accept(2).
///
/// # Safety
///
/// `address` is null, or valid for writing as many bytes as `length` says; `length` is null, or valid for
/// both.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_accept(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of accept(2).
    let accepted = unsafe { real::accept(fd, address, length) };
    if accepted >= 0 {
        quietly(|| lifecycle::accepted(fd, accepted, 0));
    }
    accepted
}

/// `accept4(2)`: takes the next connection from a listening socket, and sets `flags` on it. Otherwise as
/// `sockshim_accept`.
///
/// # Errors
///
/// Those of accept4(2).
///
/// # Safety
///
/// `address` is null, or valid for writing as many bytes as `length` says; `length` is null, or valid for
/// both.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller keeps the contract of accept4(2).
    let accepted = unsafe { real::accept4(fd, address, length, flags) };
    if accepted >= 0 {
        quietly(|| lifecycle::accepted(fd, accepted, flags));
    }
    accepted
}

/// `connect(2)`: connects a socket to an address.
///
/// Behaves as the manual page says. With `SOCKSHIM_UPGRADE_AFTER=0` the connection is prepared for a pipe
/// before the call returns. An address of the family `AF_UNSPEC` dissolves a connection; the other end sees a
/// reset, as with the kernel.
///
/// # Errors
///
/// Those of connect(2).
///
/// # Safety
///
/// `address` is null or valid for reading `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_connect(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    let shown = size_of::<libc::sa_family_t>();
    if length as usize >= shown
        && buffers::is_good(address, shown, false)
        // SAFETY: the family is the first field, and it is there.
        && c_int::from(unsafe { address.cast::<libc::sa_family_t>().read_unaligned() }) == libc::AF_UNSPEC
    {
        quietly(|| lifecycle::disconnecting(fd));
    }
    // SAFETY: the caller keeps the contract of connect(2).
    let result = unsafe { real::connect(fd, address, length) };
    note_connect(fd, result == 0);
    result
}

/// After a call that connects; the reason why it did not succeed is in `errno`, and stays there.
pub(super) fn note_connect(fd: c_int, succeeded: bool) {
    quietly(|| match (succeeded, Errno::last().0) {
        // Some programs connect a second time to collect the result.
        (true, _) | (_, libc::EISCONN) => lifecycle::connected(fd, true),
        (_, libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => lifecycle::connected(fd, false),
        _ => {}
    });
}

/// `shutdown(2)`: ends one or both directions of a connection.
///
/// What is unread in shared memory when `SHUT_WR` is asked for is still delivered, before the end of the
/// stream. After `SHUT_RD` the other end's bytes meet the kernel, which may answer with a reset, as it does
/// without sockshim.
///
/// # Errors
///
/// Those of shutdown(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_shutdown(fd: c_int, how: c_int) -> c_int {
    let Some(socket) = descriptor::socket(fd) else {
        // SAFETY: takes numbers only.
        return unsafe { real::shutdown(fd, how) };
    };
    let writes = matches!(how, libc::SHUT_WR | libc::SHUT_RDWR) && quietly(|| write::finish(fd, socket));
    let reads = matches!(how, libc::SHUT_RD | libc::SHUT_RDWR) && quietly(|| pin::shut_read(socket));
    // SAFETY: takes numbers only.
    let result = unsafe { real::shutdown(fd, how) };
    // A socket that is not connected is shut for the time when it is, although the call fails (inet_shutdown in
    // net/ipv4/af_inet.c).
    if result != 0 && Errno::last().0 != libc::ENOTCONN {
        quietly(|| {
            if writes {
                write::go_on(socket);
            }
            if reads {
                pin::accept_again(socket);
            }
        });
    }
    result
}

/// `getsockname(2)`: tells the local address. Behaves as the manual page says.
///
/// # Errors
///
/// Those of getsockname(2).
///
/// # Safety
///
/// `address` is null, or valid for writing as many bytes as `length` says; `length` is null, or valid for
/// both.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_getsockname(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of getsockname(2).
    unsafe { real::getsockname(fd, address, length) }
}

/// `getpeername(2)`: tells the peer's address.
///
/// It still answers after a reset that was caused by nothing but an unread doorbell byte, as it does after an
/// ordinary end of the stream.
///
/// # Errors
///
/// Those of getpeername(2).
///
/// # Safety
///
/// `address` is null, or valid for writing as many bytes as `length` says; `length` is null, or valid for
/// both.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_getpeername(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of getpeername(2).
    let result = unsafe { real::getpeername(fd, address, length) };
    if result < 0
        && Errno::last().0 == libc::ENOTCONN
        && let Some(peer) = descriptor::socket(fd).and_then(options::peer_after_reset)
    {
        // SAFETY: address and length are the caller's, see # Safety.
        return answer(unsafe { put_address(&peer, address, length) }) as c_int;
    }
    result
}

/// `getsockopt(2)`: reads a socket option.
///
/// `TCP_NODELAY` and `TCP_CORK` are told as the program has set them, although the kernel's socket has other
/// values while the connection is on a pipe. `SO_ERROR` leaves out a reset that was caused by nothing but an
/// unread doorbell byte. The byte counts of `TCP_INFO` are the kernel's: they leave out what went through
/// shared memory, and include doorbell bytes.
///
/// # Errors
///
/// Those of getsockopt(2).
///
/// # Safety
///
/// `length` is valid for reading and writing, and `value` for writing as many bytes as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if let Some(entry) = descriptor::socket(fd).and_then(Socket::entry)
        && let Some(kept) = kept_options::kept(entry, level, name)
    {
        // SAFETY: the caller keeps the contract of getsockopt(2).
        return answer(unsafe { put_option(kept, value, length) }) as c_int;
    }
    if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR)
        && let Some(socket) = descriptor::socket(fd)
        && let Ok(error) = kernel::sockopt(fd, level, name, 0 as c_int)
    {
        let error = quietly(|| ending::pending_error(socket, error));
        // SAFETY: value and length are the caller's, see # Safety.
        return answer(unsafe { put_option(error, value, length) }) as c_int;
    }
    // SAFETY: value and length are the caller's, see # Safety.
    unsafe { real::getsockopt(fd, level, name, value, length) }
}

/// `setsockopt(2)`: sets a socket option.
///
/// Options that only the kernel can serve bring the connection back to it for good: socket filters,
/// `SO_ZEROCOPY`, time stamps, `SO_PEEK_OFF`, `TCP_REPAIR`, `TCP_INQ` and some more. `SO_RCVLOWAT` above 1
/// does so for as long as it is. Once `SO_RCVBUF` or `SO_SNDBUF` (bytes) is set, the ring takes at most as
/// much again. docs/compatibility.md lists them all.
///
/// # Errors
///
/// Those of setsockopt(2), and `ENOENT` for `TCP_ULP` on a pipe, as from a kernel without that module.
///
/// # Safety
///
/// `value` is valid for reading `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let Some(socket) = descriptor::socket(fd) else {
        // SAFETY: the caller keeps the contract of setsockopt(2).
        return unsafe { real::setsockopt(fd, level, name, value, length) };
    };
    let number =
        if length as usize >= size_of::<c_int>() && buffers::is_good(value, size_of::<c_int>(), false) {
            // SAFETY: `is_good` has found it there.
            Some(unsafe { value.cast::<c_int>().read_unaligned() })
        } else {
            None
        };
    match quietly(|| options::before(fd, socket, level, name, number)) {
        Before::Kept => return 0,
        // The kernel looks at the value first.
        Before::Refused(error) if length > 0 && buffers::is_good(value, 1, false) => {
            return error.fail();
        }
        Before::Refused(_) | Before::Kernel => {}
    }
    // SAFETY: the caller's value, see # Safety.
    let result = unsafe { real::setsockopt(fd, level, name, value, length) };
    if result != 0 || level != libc::SOL_SOCKET {
        return result;
    }
    const SO_RCVTIMEO_NEW: c_int = 66;
    match name {
        libc::SO_LINGER if length as usize >= size_of::<libc::linger>() => {
            // SAFETY: the kernel has just read it.
            let linger = unsafe { value.cast::<libc::linger>().read_unaligned() };
            options::keep_linger(socket, linger.l_onoff != 0 && linger.l_linger == 0);
        }
        libc::SO_SNDBUF | libc::SO_SNDBUFFORCE | libc::SO_RCVBUF | libc::SO_RCVBUFFORCE => {
            quietly(|| options::resized(fd, socket));
        }
        libc::SO_RCVTIMEO | SO_RCVTIMEO_NEW => quietly(|| options::keep_time(fd, socket)),
        _ => {}
    }
    result
}

/// Stores an address the way the kernel does: as much as there is room for, and its whole length.
///
/// # Errors
///
/// As getpeername(2).
///
/// # Safety
///
/// The contract of getpeername(2).
unsafe fn put_address(from: &Address, to: *mut sockaddr, length: *mut socklen_t) -> Result<usize, Errno> {
    // SAFETY: the caller's length, see # Safety.
    let room = unsafe { room(length) }?.min(from.length);
    if room > 0 && !buffers::is_good(to, room as usize, true) {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: `is_good` has found `room` bytes there, and the source has as many.
    unsafe { std::ptr::copy_nonoverlapping(from.bytes.as_ptr(), to.cast::<u8>(), room as usize) };
    // SAFETY: `room` has found it there.
    unsafe { length.write_unaligned(from.length) };
    Ok(0)
}

/// Stores an option's value the way the kernel does.
///
/// # Errors
///
/// As getsockopt(2).
///
/// # Safety
///
/// The contract of getsockopt(2).
unsafe fn put_option(number: c_int, value: *mut c_void, length: *mut socklen_t) -> Result<usize, Errno> {
    // SAFETY: the caller's length, see # Safety.
    let room = unsafe { room(length) }?.min(size_of::<c_int>() as socklen_t);
    // SAFETY: `room` has seen that it is there.
    unsafe { length.write_unaligned(room) };
    if room > 0 && !buffers::is_good(value, room as usize, true) {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: `is_good` has found `room` bytes there, and the source has as many.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const number).cast::<u8>(), value.cast::<u8>(), room as usize)
    };
    Ok(0)
}

/// How much room the program says that it has.
///
/// # Errors
///
/// `EFAULT`: the length is not there. `EINVAL`: it is negative.
///
/// # Safety
///
/// `length` is the program's.
pub(super) unsafe fn room(length: *mut socklen_t) -> Result<socklen_t, Errno> {
    if !buffers::is_good(length, size_of::<socklen_t>(), true) {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: `is_good` has found it there.
    let room = unsafe { length.read_unaligned() };
    if room.cast_signed() < 0 { Err(Errno(libc::EINVAL)) } else { Ok(room) }
}
