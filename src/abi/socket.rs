//! Making and connecting sockets, addresses and options.

use super::quietly;
use crate::error::{Errno, answer};
use crate::pipe::options::{self, Before};
use crate::pipe::{end, write};
use crate::registry::{Socket, lifecycle, table};
use crate::sys::kernel::Address;
use crate::sys::real;
use libc::{c_int, c_void, sockaddr, socklen_t};

/// `socket(2)`: makes a socket.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of socket(2).
    let fd = unsafe { real::socket(domain, kind, protocol) };
    if fd >= 0 {
        quietly(|| lifecycle::socket_made(fd, domain, kind, protocol));
    }
    fd
}

/// `bind(2)`: gives a socket its local address.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_bind(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of bind(2).
    unsafe { real::bind(fd, address, length) }
}

/// `listen(2)`: makes a socket accept connections.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_listen(fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of listen(2).
    let result = unsafe { real::listen(fd, backlog) };
    if result == 0 {
        quietly(|| lifecycle::listening(fd));
    }
    result
}

/// `accept(2)`: takes the next connection from a listening socket.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
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

/// `accept4(2)`: takes the next connection, with flags.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
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
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_connect(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    // SAFETY: the caller keeps the contract of connect(2).
    let family = unsafe { address.as_ref() }.map(|address| c_int::from(address.sa_family));
    if family == Some(libc::AF_UNSPEC) && length as usize >= size_of::<libc::sa_family_t>() {
        quietly(|| lifecycle::disconnecting(fd));
    }
    // SAFETY: as above.
    let result = unsafe { real::connect(fd, address, length) };
    if table::socket(fd).is_some() {
        let errno = Errno::last();
        match (result, errno.0) {
            // Some programs connect a second time to collect the result.
            (0, _) | (_, libc::EISCONN) => lifecycle::connected(fd, true),
            (_, libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => lifecycle::connected(fd, false),
            _ => {}
        }
        errno.store();
    }
    result
}

/// `shutdown(2)`: ends one or both directions of a connection.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_shutdown(fd: c_int, how: c_int) -> c_int {
    if (how == libc::SHUT_WR || how == libc::SHUT_RDWR)
        && let Some(socket) = table::socket(fd)
    {
        quietly(|| write::finish(fd, socket));
    }
    // SAFETY: the caller keeps the contract of shutdown(2).
    unsafe { real::shutdown(fd, how) }
}

/// `getsockname(2)`: tells the local address.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
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
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
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
        && !address.is_null()
        && !length.is_null()
        && let Some(peer) = table::socket(fd).and_then(options::peer_after_reset)
    {
        // SAFETY: as above.
        unsafe { put_address(&peer, address, length) };
        return 0;
    }
    result
}

/// `getsockopt(2)`: reads a socket option.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if let Some(entry) = table::socket(fd).and_then(Socket::entry)
        && let Some(kept) = options::kept(entry, level, name)
        && !value.is_null()
        && !length.is_null()
    {
        // SAFETY: the caller keeps the contract of getsockopt(2).
        return unsafe { put_option(kept, value, length) };
    }
    // SAFETY: as above.
    let result = unsafe { real::getsockopt(fd, level, name, value, length) };
    if result == 0
        && (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR)
        && let Some(socket) = table::socket(fd)
    {
        // SAFETY: the kernel has just stored an int there.
        let error = unsafe { &mut *value.cast::<c_int>() };
        *error = quietly(|| end::pending_error(socket, *error));
    }
    result
}

/// `setsockopt(2)`: sets a socket option.
///
/// # Errors
///
/// As the manual page.
///
/// # Safety
///
/// As the manual page asks: pointers are valid for the lengths given.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let Some(socket) = table::socket(fd) else {
        // SAFETY: the caller keeps the contract of setsockopt(2).
        return unsafe { real::setsockopt(fd, level, name, value, length) };
    };
    let number = if !value.is_null() && length as usize >= size_of::<c_int>() {
        // SAFETY: as above.
        Some(unsafe { value.cast::<c_int>().read_unaligned() })
    } else {
        None
    };
    match quietly(|| options::before(fd, socket, level, name, number)) {
        Before::Kept => return 0,
        Before::Refused(error) => return answer(Err(error)) as c_int,
        Before::Kernel => {}
    }
    // SAFETY: as above.
    let result = unsafe { real::setsockopt(fd, level, name, value, length) };
    if result != 0 || level != libc::SOL_SOCKET {
        return result;
    }
    match name {
        libc::SO_LINGER if length as usize >= size_of::<libc::linger>() => {
            // SAFETY: the kernel has just read it.
            let linger = unsafe { value.cast::<libc::linger>().read_unaligned() };
            options::keep_linger(socket, linger.l_onoff != 0 && linger.l_linger == 0);
        }
        libc::SO_SNDBUF | libc::SO_SNDBUFFORCE | libc::SO_RCVBUF | libc::SO_RCVBUFFORCE => {
            quietly(|| options::resized(fd, socket));
        }
        _ => {}
    }
    result
}

/// Stores an address the way the kernel does: as much as there is room for, and its whole length.
///
/// # Safety
///
/// The contract of getpeername(2).
unsafe fn put_address(from: &Address, to: *mut sockaddr, length: *mut socklen_t) {
    // SAFETY: upheld by the caller.
    let room = unsafe { length.read() }.min(from.length);
    // SAFETY: upheld by the caller; `room` fits both.
    unsafe { std::ptr::copy_nonoverlapping(from.bytes.as_ptr(), to.cast::<u8>(), room as usize) };
    // SAFETY: upheld by the caller.
    unsafe { length.write(from.length) };
}

/// Stores an option's value the way the kernel does.
///
/// # Safety
///
/// The contract of getsockopt(2); neither pointer is null.
unsafe fn put_option(number: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int {
    // SAFETY: upheld by the caller.
    let room = unsafe { length.read() } as c_int;
    if room < 0 {
        return answer(Err(Errno(libc::EINVAL))) as c_int;
    }
    let room = room.min(size_of::<c_int>() as c_int);
    // SAFETY: upheld by the caller; `room` fits both.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const number).cast::<u8>(), value.cast::<u8>(), room as usize)
    };
    // SAFETY: upheld by the caller.
    unsafe { length.write(room as socklen_t) };
    0
}
