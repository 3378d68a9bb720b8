//! Kernel options while a lane is open.
//!
//! A doorbell must leave at once: with Nagle's algorithm or a cork it would be 40 to 200 ms late. So the kernel
//! socket runs with TCP_NODELAY on and TCP_CORK off; what the program set is kept here and told to it.
//!
//! The last doorbell may be unacknowledged when the connection comes back to the kernel, which under Nagle's algorithm
//! (RFC 1122 section 4.2.3.4) would hold back the next small write for it. So TCP_NODELAY comes back a write later.

use crate::error::Errno;
use crate::pipe::connection::kept_options::{self, Kept, NODELAY};
use crate::pipe::connection::{self, NO_FD, Pipe};
use crate::pipe::ending;
use crate::pipe::handoff::pin;
use crate::pipe::lanes::{grow, reader};
use crate::state::Socket;
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{Entry, STATE_HOST, STATE_PIPE};
use crate::sys::address::Address;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// Keeps a value that the program sets; false for the kernel to take it.
pub(crate) fn keep(entry: &Entry, level: c_int, name: c_int, value: c_int) -> bool {
    let Some(option) = Kept::of(level, name) else { return false };
    if option.name == NODELAY.name && value != 0 && kept_options::is_nagle_due(entry) {
        // It never begins; and the kernel sends what a cork holds, as it does at this call (tcp(7)).
        entry.options.fetch_and(!option.mark, Ordering::AcqRel);
        return false;
    }
    let keep = |options: u32| {
        let others = options & !option.value;
        (options & option.mark != 0).then_some(if value != 0 { others | option.value } else { others })
    };
    entry.options.fetch_update(Ordering::AcqRel, Ordering::Relaxed, keep).is_ok()
}

/// What becomes of a setsockopt before the kernel sees it.
pub(crate) enum Before {
    /// The kernel takes it.
    Kernel,
    /// Kept here; the kernel's value stays ours.
    Kept,
    Refused(Errno),
}

/// Before `setsockopt`: what a lane cannot honour brings the connection back to the kernel.
pub(crate) fn before(fd: c_int, socket: Socket, level: c_int, name: c_int, value: Option<c_int>) -> Before {
    let Some(entry) = socket.entry() else { return Before::Kernel };
    if let Some(value) = value
        && keep(entry, level, name, value)
    {
        return Before::Kept;
    }
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_ULP)
        && entry.state.load(Ordering::Relaxed) != STATE_HOST
    {
        // As if the module were absent: the program does its own TLS, over the pipe.
        return Before::Refused(Errno(libc::ENOENT));
    }
    if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT)
        && let Some(value) = value
    {
        // A low-water mark is the kernel's to watch, for as long as there is one.
        if (0..=1).contains(&value) {
            entry.flags.clear(SocketFlags::LOW_WATER, Ordering::Relaxed);
            if entry.reason.load(Ordering::Relaxed) == Reason::LowWater as u32 {
                pin::resume(socket);
            }
        } else {
            entry.flags.set(SocketFlags::LOW_WATER, Ordering::Relaxed);
            if entry.state.load(Ordering::Relaxed) == STATE_PIPE {
                pin::pin(fd, socket, Reason::LowWater);
            }
        }
    }
    let binds = matches!((level, name), (libc::SOL_SOCKET, libc::SO_BINDTODEVICE | SO_BINDTOIFINDEX));
    // On a connection: to a device that it may not run over.
    let moves = binds && entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::CONNECTED);
    if moves || needs_kernel(level, name, value) {
        entry.flags.set(SocketFlags::KERNEL_OPTION, Ordering::Relaxed);
        pin::pin(fd, socket, Reason::Option);
    }
    Before::Kernel
}

/// After `setsockopt` has changed a buffer: both rings learn of it.
pub(crate) fn resized(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if let Some(pipe) = connection::writing_pipe(fd, socket, entry) {
        grow::fit(&pipe);
    }
    if let Some(pipe) = connection::reading_pipe(fd, socket, entry) {
        reader::fit(&pipe);
    }
}

/// Options that mean something for every byte, and that only the kernel can do.
fn needs_kernel(level: c_int, name: c_int, value: Option<c_int>) -> bool {
    match (level, name) {
        // Off is a negative offset.
        (libc::SOL_SOCKET, libc::SO_PEEK_OFF) => value.is_none_or(|offset| offset >= 0),
        (
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER
            | libc::SO_ATTACH_BPF
            | libc::SO_ZEROCOPY
            | libc::SO_TIMESTAMP
            | libc::SO_TIMESTAMPNS
            | libc::SO_TIMESTAMPING
            | SO_TIMESTAMP_NEW
            | SO_TIMESTAMPNS_NEW
            | SO_TIMESTAMPING_NEW
            | libc::SO_MAX_PACING_RATE
            | libc::SO_TXTIME,
        )
        | (libc::IPPROTO_TCP, libc::TCP_REPAIR | TCP_INQ) => value != Some(0),
        _ => false,
    }
}

const SO_BINDTOIFINDEX: c_int = 62;

/// asm-generic/socket.h: the same with 64-bit times.
const SO_TIMESTAMP_NEW: c_int = 63;

const SO_TIMESTAMPNS_NEW: c_int = 64;

const SO_TIMESTAMPING_NEW: c_int = 65;

/// linux/tcp.h: a control message with each receive.
pub(crate) const TCP_INQ: c_int = 36;

/// What a connection has from the listener that accepted it, as far as it concerns us.
pub(crate) fn inherit(from: &Entry, to: &Entry) {
    let inherited = from.flags.load(Ordering::Relaxed)
        & (SocketFlags::LINGER_RESET
            | SocketFlags::LOW_WATER
            | SocketFlags::KERNEL_OPTION
            | SocketFlags::TIMED);
    to.flags.set(inherited, Ordering::Relaxed);
    if inherited.intersects(SocketFlags::KERNEL_OPTION) {
        Socket::stay_host(to, Reason::Option);
    }
}

/// What was set on a socket before this process got it.
pub(crate) fn learn(fd: c_int, entry: &Entry) {
    let get = |level, name| kernel::sockopt(fd, level, name, 0 as c_int);
    if matches!(get(libc::SOL_SOCKET, libc::SO_RCVLOWAT), Ok(2..)) {
        entry.flags.set(SocketFlags::LOW_WATER, Ordering::Relaxed);
    }
    let off = libc::linger { l_onoff: 0, l_linger: 0 };
    if matches!(
        kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, off),
        Ok(libc::linger { l_onoff: 1.., l_linger: 0 })
    ) {
        entry.flags.set(SocketFlags::LINGER_RESET, Ordering::Relaxed);
    }
    if kernel::receive_timeout(fd).is_some() {
        entry.flags.set(SocketFlags::TIMED, Ordering::Relaxed);
    }
    let reported = [
        (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
        (libc::IPPROTO_TCP, TCP_INQ),
    ];
    if reported.into_iter().any(|(level, name)| get(level, name).is_ok_and(|value| value != 0)) {
        entry.flags.set(SocketFlags::KERNEL_OPTION, Ordering::Relaxed);
    }
}

/// Remembers whether close means reset.
pub(crate) fn keep_linger(socket: Socket, resets: bool) {
    let Some(entry) = socket.entry() else { return };
    if resets {
        entry.flags.set(SocketFlags::LINGER_RESET, Ordering::Relaxed);
    } else {
        entry.flags.clear(SocketFlags::LINGER_RESET, Ordering::Relaxed);
    }
}

/// Remembers whether reads have a time-out.
pub(crate) fn keep_time(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if kernel::receive_timeout(fd).is_none() {
        entry.flags.clear(SocketFlags::TIMED, Ordering::Relaxed);
    } else {
        entry.flags.set(SocketFlags::TIMED, Ordering::Relaxed);
    }
}

/// The other end's name, when the kernel has forgotten it because a doorbell nobody read made its FIN a RST.
pub(crate) fn peer_after_reset(socket: Socket) -> Option<Address> {
    let entry = socket.entry()?;
    let pipe = Pipe::of(NO_FD, socket, entry)?;
    // After the ends of both directions the kernel forgets it in any case.
    let is_over = entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SHUT_WRITE);
    if is_over || !ending::is_false_reset(&pipe) {
        return None;
    }
    let mut address = Address::load(&entry.peer);
    if u16::from_ne_bytes([address.bytes[0], address.bytes[1]]) == libc::AF_INET as u16 {
        address.length = 16;
    }
    Some(address)
}
