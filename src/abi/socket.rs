//! Making and connecting sockets, addresses and options.

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
    unsafe { real::socket(domain, kind, protocol) }
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
    unsafe { real::listen(fd, backlog) }
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
    unsafe { real::accept(fd, address, length) }
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
    unsafe { real::accept4(fd, address, length, flags) }
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
    unsafe { real::connect(fd, address, length) }
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
    unsafe { real::getpeername(fd, address, length) }
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
    // SAFETY: the caller keeps the contract of getsockopt(2).
    unsafe { real::getsockopt(fd, level, name, value, length) }
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
    // SAFETY: the caller keeps the contract of setsockopt(2).
    unsafe { real::setsockopt(fd, level, name, value, length) }
}
