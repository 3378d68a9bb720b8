//! After a descriptor has been made, and what its socket then becomes: connected, listening, unconnected again.

use crate::pipe::ending;
use crate::pipe::meeting::{attach, descriptor, options};
use crate::state::descriptor_table::{self, Descriptor, Set};
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{self};
use crate::state::{Socket, config, family, log, phase, registrations, socket, trace};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// After a call that made `fd` something that is not a TCP socket.
pub(crate) fn made(fd: c_int) {
    if family::has_own_descriptors() {
        descriptor::forget(fd);
        descriptor_table::set_host(fd);
    }
}

/// After `socket()` made `fd`.
pub(crate) fn socket_made(fd: c_int, domain: c_int, kind: c_int, protocol: c_int) {
    let is_tcp = (domain == libc::AF_INET || domain == libc::AF_INET6)
        && kind & 0xf == libc::SOCK_STREAM
        && (protocol == 0 || protocol == libc::IPPROTO_TCP);
    if is_tcp {
        let flags =
            if kind & libc::SOCK_NONBLOCK != 0 { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        if descriptor::enter(fd, flags).is_some() {
            trace::created(fd);
        }
    } else {
        made(fd);
    }
}

/// After `accept()` on `listener` made `fd`.
pub(crate) fn accepted(listener: c_int, fd: c_int, flags: c_int) {
    let is_tcp = match descriptor::find(listener) {
        Descriptor::Socket(_) => true,
        // Above the cap, or before our start: ask.
        _ => kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0 as c_int) == Ok(libc::IPPROTO_TCP),
    };
    if !is_tcp {
        return made(fd);
    }
    let nonblock =
        if flags & libc::SOCK_NONBLOCK != 0 { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let Some(socket) = descriptor::enter(fd, SocketFlags::CONNECTED | SocketFlags::ACCEPTED | nonblock)
    else {
        return;
    };
    if let (Some(from), Some(to)) = (descriptor::socket(listener).and_then(Socket::entry), socket.entry()) {
        options::inherit(from, to);
    }
    if config::upgrades_at_once() {
        attach::consider(fd, socket);
    }
    if let Some(entry) = socket.entry() {
        trace::note(fd, entry);
    }
}

/// After `listen()` succeeded.
pub(crate) fn listening(fd: c_int) {
    if let Some(entry) = descriptor::socket(fd).and_then(Socket::entry) {
        entry.flags.set(SocketFlags::LISTENER, Ordering::Relaxed);
        Socket::stay_host(entry, Reason::NotConnected);
    }
}

/// After `connect()` succeeded, or said that it is under way.
pub(crate) fn connected(fd: c_int, at_once: bool) {
    let Some(socket) = descriptor::socket(fd) else { return };
    let Some(entry) = socket.entry() else { return };
    let before = entry.flags.set(SocketFlags::CONNECTED, Ordering::Relaxed);
    if at_once && !before.intersects(SocketFlags::CONNECTED) && config::upgrades_at_once() {
        attach::consider(fd, socket);
    }
    log::stays_host(entry);
    trace::note(fd, entry);
}

/// After `epoll_create` made `fd`.
pub(crate) fn set_made(fd: c_int) {
    made(fd);
    if !phase::is_ready() || !family::has_own_descriptors() {
        return;
    }
    let Some(socket_table) = socket_table::get() else { return };
    if let Some((slot, entry)) = socket_table.take_set() {
        registrations::begin(slot, entry);
        family::hold(&entry.holders);
        socket::refer_set(slot);
        let set = Set { slot, generation: entry.generation.load(Ordering::Relaxed) };
        if !descriptor_table::set_set(fd, set) {
            descriptor::release(fd, Descriptor::Set(set));
        }
    }
}

/// Before connect(AF_UNSPEC): the connection ends, the socket goes on.
pub(crate) fn disconnecting(fd: c_int) {
    let Some(socket) = descriptor::socket(fd) else { return };
    let Some(entry) = socket.entry() else { return };
    // What follows is a reset (tcp_disconnect in the kernel).
    entry.flags.set(SocketFlags::LINGER_RESET, Ordering::Relaxed);
    ending::leave(fd, socket, true);
    entry.readers.begin(socket.generation);
    entry.flags.keep(SocketFlags::NONBLOCK.bits(), Ordering::AcqRel);
    entry.calls.store(0, Ordering::Relaxed);
    entry.bytes.store(0, Ordering::Relaxed);
    entry.reason.store(Reason::Undecided as u32, Ordering::Relaxed);
    let state =
        if config::host_only().is_some() { socket_table::STATE_HOST } else { socket_table::STATE_UNDECIDED };
    entry.state.store(state, Ordering::Release);
}
