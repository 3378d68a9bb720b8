//! Sockets: calls, options, queues, ends.

use super::{files::Fd, make};
use crate::error::Errno;
use crate::sys::address::Address;
use crate::sys::filter;
use core::ffi::c_int;
use core::mem::size_of;

/// Receives into one buffer.
pub(crate) fn recv(fd: c_int, buffer: *mut u8, length: usize, flags: c_int) -> Result<usize, Errno> {
    call!(SYS_recvfrom, fd, buffer, length, flags, 0, 0)
}

pub(crate) fn recvmsg(fd: c_int, message: &mut libc::msghdr, flags: c_int) -> Result<usize, Errno> {
    call!(SYS_recvmsg, fd, &raw mut *message, flags)
}

pub(crate) fn send(fd: c_int, bytes: &[u8], flags: c_int) -> Result<usize, Errno> {
    call!(SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, 0, 0)
}

/// What poll(2) says of one descriptor at once.
pub(crate) fn poll_now(fd: c_int, events: i16) -> i16 {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    match call!(SYS_poll, &raw mut entry, 1, 0) {
        Ok(_) => entry.revents,
        Err(_) => 0,
    }
}

/// poll(2) of several descriptors at once, without waiting.
pub(crate) fn poll_many_now(entries: &mut [libc::pollfd]) -> Result<usize, Errno> {
    call!(SYS_poll, entries.as_mut_ptr(), entries.len(), 0)
}

/// A socket option of exactly the size of `T`, which must be plain data.
pub(crate) fn sockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, mut initial: T) -> Result<T, Errno> {
    let mut length = size_of::<T>() as u32;
    call!(SYS_getsockopt, fd, level, name, &raw mut initial, &raw mut length)?;
    Ok(initial)
}

pub(crate) fn set_sockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, new: &T) -> Result<(), Errno> {
    call!(SYS_setsockopt, fd, level, name, core::ptr::from_ref(new), size_of::<T>()).map(drop)
}

/// SO_ERROR, which is 0 from then on.
pub(crate) fn take_error(fd: c_int) -> c_int {
    sockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0).unwrap_or(0)
}

/// SO_RCVTIMEO in nanoseconds; `None`: for ever.
pub(crate) fn receive_timeout(fd: c_int) -> Option<u64> {
    timeout(fd, libc::SO_RCVTIMEO)
}

/// Whether SO_SNDTIMEO is set.
pub(crate) fn has_send_timeout(fd: c_int) -> bool {
    timeout(fd, libc::SO_SNDTIMEO).is_some()
}

fn timeout(fd: c_int, name: c_int) -> Option<u64> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let time = sockopt(fd, libc::SOL_SOCKET, name, zero).unwrap_or(zero);
    let time = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_usec as u64 * 1000);
    (time > 0).then_some(time)
}

pub(crate) fn cookie(fd: c_int) -> Result<u64, Errno> {
    sockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, 0u64)
}

/// Cookie of the socket's network namespace.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14.
pub(crate) fn namespace_cookie(fd: c_int) -> Result<u64, Errno> {
    const SO_NETNS_COOKIE: c_int = 71;
    sockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64)
}

/// The size of a socket's buffer (`SO_SNDBUF` or `SO_RCVBUF`), if the program has set it: then the kernel leaves it
/// alone.
pub(crate) fn fixed_buffer(fd: c_int, name: c_int) -> Option<c_int> {
    // linux/socket.h, asm-generic/socket.h: both since Linux 5.15
    const SO_BUF_LOCK: c_int = 72;
    const SOCK_SNDBUF_LOCK: c_int = 1;
    const SOCK_RCVBUF_LOCK: c_int = 2;
    let lock = if name == libc::SO_SNDBUF { SOCK_SNDBUF_LOCK } else { SOCK_RCVBUF_LOCK };
    let locks: c_int = sockopt(fd, libc::SOL_SOCKET, SO_BUF_LOCK, 0).unwrap_or(0);
    if locks & lock == 0 { None } else { sockopt(fd, libc::SOL_SOCKET, name, 0).ok() }
}

/// Bytes waiting in the receive queue (SIOCINQ).
pub(crate) fn queued(fd: c_int) -> Result<usize, Errno> {
    let mut count: c_int = 0;
    call!(SYS_ioctl, fd, libc::FIONREAD, &raw mut count)?;
    Ok(count.max(0) as usize)
}

/// Bytes that were written and have not been sent yet (SIOCOUTQNSD).
pub(crate) fn unsent(fd: c_int) -> Result<usize, Errno> {
    const SIOCOUTQNSD: usize = 0x894B;
    let mut count: c_int = 0;
    call!(SYS_ioctl, fd, SIOCOUTQNSD, &raw mut count)?;
    Ok(count.max(0) as usize)
}

/// Whether the next byte of the kernel's stream is marked as urgent (sockatmark(3)).
#[cold]
pub(crate) fn at_mark(fd: c_int) -> bool {
    const SIOCATMARK: usize = 0x8905;
    let mut marked: c_int = 0;
    call!(SYS_ioctl, fd, SIOCATMARK, &raw mut marked).is_ok() && marked != 0
}

/// Whether the open file description is non-blocking.
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    if !filter::allows_fcntl() {
        return filter::flags(fd).is_some_and(|flags| flags & libc::O_NONBLOCK != 0);
    }
    matches!(call!(SYS_fcntl, fd, libc::F_GETFL), Ok(flags) if flags as c_int & libc::O_NONBLOCK != 0)
}

/// Whether a program that is executed will have this descriptor.
pub(crate) fn survives_exec(fd: c_int) -> bool {
    if !filter::allows_fcntl() {
        return filter::flags(fd).is_some_and(|flags| flags & libc::O_CLOEXEC == 0);
    }
    matches!(call!(SYS_fcntl, fd, libc::F_GETFD), Ok(flags) if flags as c_int & libc::FD_CLOEXEC == 0)
}

pub(crate) fn local_address(fd: c_int) -> Result<Address, Errno> {
    let mut address = Address::EMPTY;
    call!(SYS_getsockname, fd, address.bytes.as_mut_ptr(), &raw mut address.length)?;
    Ok(address)
}

pub(crate) fn peer_address(fd: c_int) -> Result<Address, Errno> {
    let mut address = Address::EMPTY;
    call!(SYS_getpeername, fd, address.bytes.as_mut_ptr(), &raw mut address.length)?;
    Ok(address)
}

/// A netlink socket for `sock_diag`.
pub(crate) fn diag_socket() -> Result<Fd, Errno> {
    const NETLINK_SOCK_DIAG: c_int = 4;
    call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG).map(Fd::new)
}

/// Ends both directions of a connection.
pub(crate) fn shutdown(fd: c_int) {
    let _ = call!(SYS_shutdown, fd, libc::SHUT_RDWR);
}

/// Ends a connection as a reset that has come does: what is unread is thrown away, and the other end gets a reset, too.
pub(crate) fn reset(fd: c_int) {
    // SAFETY: all zeroes are an address, of no family.
    let nowhere: libc::sockaddr = unsafe { core::mem::zeroed() };
    // It dissolves the association (connect(2)); where one is left that makes a reset (tcp_disconnect in the kernel).
    let _ = call!(SYS_connect, fd, &raw const nowhere, size_of::<libc::sockaddr>());
    // That fails now, but it is noted: reads find an end, and writes EPIPE (inet_shutdown in net/ipv4/af_inet.c).
    shutdown(fd);
    // The caller reports the error itself.
    let _ = sockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0 as c_int);
}
