//! What a descriptor is: the table is asked, and a number that it has never seen is looked at.
//!
//! A descriptor's word is taken away *before* the kernel closes it: afterwards another thread may have got
//! the number already.

use crate::pipe::ending;
use crate::pipe::handoff::pin;
use crate::pipe::meeting::options;
use crate::state::descriptor_table::{self, Descriptor, Set};
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{self};
use crate::state::{
    Socket, addresses, config, family, phase, registrations, rings, socket as sockets, trace,
};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// What `fd` is: one look-up, unless it was never seen.
#[inline]
pub(crate) fn find(fd: c_int) -> Descriptor {
    match descriptor_table::known(fd) {
        Some(descriptor) => descriptor,
        None => classify(fd),
    }
}

/// The TCP socket behind `fd`, if it is one.
#[inline]
pub(crate) fn socket(fd: c_int) -> Option<Socket> {
    match find(fd) {
        Descriptor::Socket(socket) => Some(socket),
        _ => None,
    }
}

/// The epoll set behind `fd`, if it is one that we saw made.
#[inline]
pub(crate) fn set(fd: c_int) -> Option<Set> {
    match find(fd) {
        Descriptor::Set(set) => Some(set),
        _ => None,
    }
}

/// First sight of a number: inherited, or made by a call that nobody can see.
#[cold]
fn classify(fd: c_int) -> Descriptor {
    if !phase::is_ready() || kernel::is_restricted() || !family::has_own_descriptors() {
        return Descriptor::Host;
    }
    match kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0 as c_int) {
        Ok(libc::IPPROTO_TCP) => {
            inherited(fd);
            descriptor_table::peek(fd)
        }
        Err(error) if error.0 == libc::EBADF => Descriptor::Host,
        _ => {
            descriptor_table::set_host_if_unknown(fd);
            descriptor_table::peek(fd)
        }
    }
}

/// A number that is looked at for the first time is a TCP socket: inherited, or received by other means.
/// Other processes may hold it too, unknown to us, so a connection stays with the kernel.
fn inherited(fd: c_int) {
    if is_another_name(fd) {
        return;
    }
    let Some(socket) = enter(fd, SocketFlags::empty()) else { return };
    let Some(entry) = socket.entry() else { return };
    let listens = kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 0 as c_int) == Ok(1);
    if listens {
        entry.flags.set(SocketFlags::LISTENER, Ordering::Relaxed);
        options::learn(fd, entry);
    } else if kernel::peer_address(fd).is_ok() {
        entry.flags.set(SocketFlags::CONNECTED, Ordering::Relaxed);
    }
    Socket::stay_host(entry, if listens { Reason::NotConnected } else { Reason::Inherited });
    pin::adopt(fd, socket);
    if entry.state.load(Ordering::Acquire) == socket_table::STATE_PINNED {
        gather(fd, socket);
    }
}

/// Whether `fd` is another number of a socket that we know: made by a system call of the program's own.
fn is_another_name(fd: c_int) -> bool {
    let Ok(cookie) = kernel::cookie(fd) else { return false };
    let mut asked = 0;
    let known = (0..socket_table::highest() as c_int).filter(|&other| other != fd).find_map(|other| {
        let Descriptor::Socket(socket) = descriptor_table::peek(other) else { return None };
        let found = match socket.entry()?.cookie.load(Ordering::Relaxed) {
            // Only a connection that has met its other end has been asked for it.
            0 if asked == MOST_GATHERED => return None,
            0 => {
                asked += 1;
                kernel::cookie(other).ok()?
            }
            noted => noted,
        };
        (found == cookie).then_some(socket)
    });
    known.is_some_and(|socket| {
        socket.refer();
        if !descriptor_table::set_socket_if_unknown(fd, socket) {
            socket.unrefer();
            // Another thread was faster; or it is beyond the table.
            return !descriptor_table::is_unknown(fd) && (fd as usize) < descriptor_table::CAP;
        }
        if (0..=2).contains(&fd) {
            pin(fd, Reason::Stdio);
        }
        true
    })
}

/// Other numbers of a socket that came with unread bytes: these are to be read by every one of its names.
fn gather(fd: c_int, socket: Socket) {
    let Ok(cookie) = kernel::cookie(fd) else { return };
    for other in (0..MOST_GATHERED).filter(|&other| other != fd) {
        if matches!(descriptor_table::peek(other), Descriptor::Host) && kernel::cookie(other) == Ok(cookie) {
            socket.refer();
            if !descriptor_table::set_socket(other, socket) {
                socket.unrefer();
            }
        }
    }
}

/// Numbers that are looked at for it.
const MOST_GATHERED: c_int = 1024;

/// Whether `fd`, which the table says is `socket`, is something else: the number was closed and given out again by system
/// calls of the program's own. Then the table forgets it, and what it is now is found out at the next call.
#[cold]
pub(crate) fn is_replaced(fd: c_int, socket: Socket) -> bool {
    let noted = socket.entry().map_or(0, |entry| entry.cookie.load(Ordering::Relaxed));
    let is_replaced = noted != 0
        && family::has_own_descriptors()
        && !kernel::is_restricted()
        && kernel::cookie(fd) != Ok(noted)
        && descriptor_table::begin_close_of(fd, socket);
    if is_replaced {
        descriptor_table::set_host(fd);
        release(-1, Descriptor::Socket(socket));
        descriptor_table::end_close(fd);
    }
    is_replaced
}

/// A new TCP socket at `fd`.
pub(crate) fn enter(fd: c_int, flags: SocketFlags) -> Option<Socket> {
    if !phase::is_ready() || !family::has_own_descriptors() {
        return None;
    }
    forget(fd);
    descriptor_table::set_host(fd);
    if fd as usize >= descriptor_table::CAP {
        return None;
    }
    let Some(socket) = Socket::create(flags) else {
        descriptor_table::leave_out(fd);
        return None;
    };
    if let Some(entry) = socket.entry() {
        entry.number.store(fd as u32 + 1, Ordering::Relaxed);
        if kernel::is_restricted() {
            Socket::stay_host(entry, Reason::Seccomp);
        } else if let Some(reason) = config::host_only() {
            Socket::stay_host(entry, reason);
        }
    }
    descriptor_table::set_socket(fd, socket);
    Some(socket)
}

/// What the table still believes of a number that the kernel has given out anew: it was closed unseen.
pub(crate) fn forget(fd: c_int) {
    match descriptor_table::peek(fd) {
        Descriptor::Host => {}
        stale => {
            descriptor_table::set_host(fd);
            release(-1, stale);
        }
    }
}

/// One descriptor less. `fd` is still open, or -1 when the kernel has closed it already.
pub(crate) fn release(fd: c_int, descriptor: Descriptor) {
    let Some(socket_table) = socket_table::get() else { return };
    match descriptor {
        Descriptor::Host => {}
        Descriptor::Socket(socket) => {
            let Some(entry) = socket.entry() else { return };
            let leaves = socket.unrefer();
            if leaves {
                family::unhold(&entry.holders);
            }
            let last = leaves && family::is_last(socket_table, &entry.holders);
            if !last {
                registrations::forget_number(socket_table, entry, fd);
            }
            if leaves {
                if last {
                    trace::closing(fd, entry);
                }
                ending::leave(fd, socket, last);
                // One that is about to end uses its entry yet: the next look frees it.
                if last && family::is_sole(socket_table, &entry.holders) {
                    registrations::forget_socket(socket_table, entry);
                    socket_table.free_socket(socket.slot, socket.generation);
                }
            } else if fd >= 0 && entry.number.load(Ordering::Relaxed) == fd as u32 + 1 {
                // It goes on under another number, by which `ss` cannot find its addresses.
                addresses::learn(fd, entry);
                entry.number.store(0, Ordering::Relaxed);
            }
        }
        Descriptor::Set(set) => {
            let entry = socket_table.set(set.slot);
            let current = entry.generation.load(Ordering::Acquire) == set.generation;
            if current && sockets::unrefer_set(set.slot) {
                family::unhold(&entry.holders);
                if family::is_sole(socket_table, &entry.holders) {
                    registrations::free_set(socket_table, set.slot, set.generation);
                }
            }
        }
    }
}

/// `fd` goes back to the kernel for good, because of `reason`.
pub(crate) fn pin(fd: c_int, reason: Reason) {
    if let Some(socket) = socket(fd) {
        pin::pin(fd, socket, reason);
    }
}

/// Before the program installs a seccomp filter: all connections go back to the kernel for good.
pub(crate) fn before_seccomp() {
    // Afterwards nobody can be asked what an inherited number is.
    const INHERITED: u32 = 256;
    for fd in 0..socket_table::highest().max(INHERITED) as c_int {
        if let Descriptor::Socket(_) = find(fd) {
            pin(fd, Reason::Seccomp);
        }
    }
}

/// The process has an io_uring, whose doings cannot be seen: all connections are the kernel's from now on.
pub(crate) fn ring_made() {
    if !family::is_own_process() || !config::ring_made() {
        return;
    }
    for fd in 0..socket_table::highest() as c_int {
        if let Descriptor::Socket(_) = descriptor_table::peek(fd) {
            pin(fd, Reason::IoUring);
        }
    }
}

/// Before a connection meets its other end: the process may have an io_uring that nobody saw being made.
#[inline(never)]
pub(crate) fn look_for_ring() {
    if config::host_only().is_none() && rings::is_there() {
        ring_made();
    }
}
