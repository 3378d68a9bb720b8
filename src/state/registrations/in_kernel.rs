//! What the kernel is told of registrations.

use super::OpenSet;
use super::flags::RegFlags;
use crate::error::Errno;
use crate::state::Socket;
use crate::state::descriptor_table::Descriptor;
use crate::state::socket_table::{Registration, SetEntry};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll_event};

/// What the kernel is told about a managed registration.
pub(crate) fn kernel_event(set: &SetEntry, index: u32, events: u32, kind: Descriptor) -> epoll_event {
    // What only our own waits look at may be too wide: it needs no change then.
    let wide = if set.watched.load(Ordering::Relaxed) == 0 { EPOLLIN | EPOLLRDHUP } else { 0 };
    let events = match kind {
        Descriptor::Socket(_) => (EPOLLET | wide) as u32 | asks_kernel(events),
        _ => events,
    };
    epoll_event { events, u64: set.prefix.load(Ordering::Relaxed) | u64::from(index) }
}

/// What of a socket the kernel is asked so that a pipe's `events` can be told. A doorbell comes as EPOLLIN, and with
/// EPOLLRDHUP an end is told from a doorbell.
const fn asks_kernel(events: u32) -> u32 {
    let reads = if events & (EPOLLIN | libc::EPOLLRDNORM) as u32 != 0 { EPOLLIN | EPOLLRDHUP } else { 0 };
    reads as u32 | events & (EPOLLRDHUP | EPOLLOUT | libc::EPOLLPRI) as u32
}

/// The program changes its mask on a socket. Unless others watch the set, the kernel must hear of it only when
/// it would report room in vain, or urgent data: so what most programs do between two requests needs no
/// system call.
pub(crate) fn tell_kernel(set: &OpenSet<'_>, index: u32, before: u32, after: u32) -> Result<(), Errno> {
    let registration = set.registration(index);
    let exact = set.watched.load(Ordering::Relaxed) != 0;
    let asks_room = registration.flags.load(Ordering::Relaxed).intersects(RegFlags::ASKS_ROOM);
    let room = asks_room && after & EPOLLOUT as u32 == 0;
    let changed = asks_kernel(before) ^ asks_kernel(after);
    let matters = if exact { changed != 0 } else { changed & libc::EPOLLPRI as u32 != 0 };
    if room || matters {
        let kept = if exact { after } else { after & !(EPOLLOUT as u32) };
        ask_kernel(set, index, registration, kept)?;
    }
    Ok(())
}

/// Sets the kernel's mask of a socket's registration.
pub(crate) fn ask_kernel(
    set: &OpenSet<'_>,
    index: u32,
    registration: &Registration,
    events: u32,
) -> Result<(), Errno> {
    let event = kernel_event(set, index, events, Descriptor::Socket(Socket { slot: 0, generation: 0 }));
    kernel::epoll_ctl(set.fd, libc::EPOLL_CTL_MOD, registration.fd.load(Ordering::Relaxed), Some(&event))?;
    if events & EPOLLOUT as u32 != 0 {
        registration.flags.set(RegFlags::ASKS_ROOM, Ordering::Relaxed);
    } else {
        registration.flags.clear(RegFlags::ASKS_ROOM, Ordering::Relaxed);
    }
    Ok(())
}

pub(super) fn delete_from_kernel(set: &OpenSet<'_>, registration: &Registration) {
    // It fails when the number is another file's by now; then nothing but an ignored event is left of it.
    let _ = kernel::epoll_ctl(set.fd, libc::EPOLL_CTL_DEL, registration.fd.load(Ordering::Relaxed), None);
}

/// Gives the kernel another event of a registration whose `wanted` the program has set: one with EPOLLEXCLUSIVE cannot be
/// modified (epoll_ctl(2)), and is made anew.
pub(crate) fn exchange(fd: c_int, target: c_int, wanted: u32, event: &epoll_event) -> Result<(), Errno> {
    if wanted & EPOLLEXCLUSIVE as u32 != 0 {
        kernel::epoll_ctl(fd, libc::EPOLL_CTL_DEL, target, None)?;
        return kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(event));
    }
    kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(event))
}
