//! Epoll sets.
//!
//! The program's set is the kernel's set: kernel descriptors are registered as the program said, with its
//! data, and never looked at here. A TCP socket is remembered when it is registered; when it comes onto a
//! pipe its kernel registration becomes edge-triggered with *our* data (a tag), and the program's mask and
//! data are kept in shared memory, so that a set shared over fork reports an edge once.
//!
//! A managed registration is *hot* or *cold*. Cold: its doorbell is wanted, the kernel will report it. Hot: it had
//! something lately; every wait looks at its ring. All hot ones are armed and turn cold before a sleep, so a
//! wait costs what is active, not what is registered.

pub(crate) mod hot;
mod nested;
pub(crate) mod reported;
mod rooms;
mod stuck;
mod timed_wait;
pub(crate) mod wait;

use crate::error::Errno;
use crate::pipe::meeting::{attach, descriptor, registered};
use crate::pipe::waiting::room;
use crate::state::Socket;
use crate::state::descriptor_table::{Descriptor, Set};
use crate::state::lock::{self, Taken};
use crate::state::reason::Reason;
use crate::state::registrations::flags::{ASKS_ROOM, DISABLED, FOREIGN, FRESH, MANAGED, NESTED, PARKED};
use crate::state::registrations::{
    ask_kernel, can_park, flush_parked, is_tag, keep, kernel_event, list, lock_set, tell_kernel,
    unregister_parked,
};
use crate::state::socket_table::{
    self, Entry, FLAG_LISTENER, REGISTRATIONS, STATE_HOST, SetEntry, SocketTable,
};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, epoll_event};

/// What may stand beside EPOLLEXCLUSIVE (fs/eventpoll.c).
const EXCLUSIVE_TAKES: u32 =
    (EPOLLIN | EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)
        as u32;

/// epoll_ctl(2) on a set that we saw made.
///
/// # Errors
/// The kernel's.
pub(crate) fn ctl(
    fd: c_int,
    set: Set,
    operation: c_int,
    target: c_int,
    event: Option<epoll_event>,
) -> Result<(), Errno> {
    let socket_table = socket_table::get().ok_or(Errno(libc::EBADF))?;
    let entry = socket_table.set(set.slot);
    let kind = descriptor::find(target);
    if operation == libc::EPOLL_CTL_ADD
        && let Descriptor::Socket(socket) = kind
    {
        // Better managed from the start than upgraded later, which may report an edge once more.
        attach::prepare(target, socket);
        make_place(socket_table, socket);
    }
    if operation == libc::EPOLL_CTL_MOD
        && event.is_some()
        && let Descriptor::Socket(socket) = kind
    {
        attach::prepare_rearmed(target, socket, set.slot);
    }
    let interesting = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(|socket| {
            socket.flags.load(Ordering::Relaxed) & FLAG_LISTENER == 0
                && socket.state.load(Ordering::Relaxed) != STATE_HOST
        }),
        Descriptor::Set(_) => true,
        Descriptor::Host => {
            operation != libc::EPOLL_CTL_ADD && entry.managed.load(Ordering::Relaxed) > 0
                || event.is_some_and(|event| is_tag(entry, event.u64))
        }
    };
    let known = !interesting && entry.first.load(Ordering::Relaxed) == 0;
    if known
        || (!interesting && matches!(kind, Descriptor::Host) && entry.managed.load(Ordering::Relaxed) == 0)
    {
        return kernel::epoll_ctl(fd, operation, target, event.as_ref());
    }
    let taken = lock_set(entry);
    let result = if let Taken::Not(_) = taken {
        stuck::ctl(socket_table, fd, set, operation, target, event, kind, interesting)
    } else {
        ctl_locked(socket_table, fd, set, operation, target, event, kind, interesting)
    };
    entry.lock.release(taken);
    result
}

#[expect(clippy::too_many_arguments, reason = "epoll_ctl's own four, and what was looked up for them")]
fn ctl_locked(
    socket_table: &SocketTable,
    fd: c_int,
    set: Set,
    operation: c_int,
    target: c_int,
    event: Option<epoll_event>,
    kind: Descriptor,
    interesting: bool,
) -> Result<(), Errno> {
    let entry = socket_table.set(set.slot);
    let found = list::find(socket_table, entry, set.slot, target, kind);
    let parked =
        found.filter(|index| socket_table.registration(*index).flags.load(Ordering::Relaxed) & PARKED != 0);
    match (operation, found, event) {
        (libc::EPOLL_CTL_ADD, _, Some(event)) => {
            if !interesting {
                return kernel::epoll_ctl(fd, operation, target, Some(&event));
            }
            check_exclusive(event.events, kind)?;
            match parked {
                Some(index) => {
                    unpark(socket_table, fd, entry, index, &event);
                    Ok(())
                }
                None => add(socket_table, fd, set, target, event, kind),
            }
        }
        (libc::EPOLL_CTL_MOD, _, Some(_)) | (libc::EPOLL_CTL_DEL, ..) if parked.is_some() => {
            Err(Errno(libc::ENOENT))
        }
        (libc::EPOLL_CTL_MOD, Some(index), Some(event)) => {
            let registration = socket_table.registration(index);
            if registration.flags.load(Ordering::Relaxed) & MANAGED == 0 {
                kernel::epoll_ctl(fd, operation, target, Some(&event))?;
                keep(registration, &event);
                return Ok(());
            }
            modify(socket_table, fd, entry, index, &event)
        }
        (libc::EPOLL_CTL_DEL, Some(index), _) if can_park(socket_table, entry, index) => {
            socket_table.registration(index).flags.fetch_or(PARKED, Ordering::Relaxed);
            entry.parked.fetch_add(1, Ordering::Relaxed);
            // There it is found before the next sleep.
            registered::activate(socket_table, entry, index);
            Ok(())
        }
        (libc::EPOLL_CTL_DEL, Some(index), _) => {
            let result = kernel::epoll_ctl(fd, operation, target, event.as_ref());
            list::remove(socket_table, index);
            result
        }
        _ => kernel::epoll_ctl(fd, operation, target, event.as_ref()),
    }
}

fn add(
    socket_table: &SocketTable,
    fd: c_int,
    set: Set,
    target: c_int,
    event: epoll_event,
    kind: Descriptor,
) -> Result<(), Errno> {
    let entry = socket_table.set(set.slot);
    let managed = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(is_ready_reader),
        Descriptor::Set(inner) => {
            watch(socket_table, target, inner.slot);
            true
        }
        Descriptor::Host => true,
    };
    let Some(index) = socket_table.take_registration() else {
        return add_unseen(fd, target, &event, Reason::TableFull);
    };
    // For room the kernel is asked before a sleep (`hot::arm`).
    let exact = entry.watched.load(Ordering::Relaxed) != 0 || !matches!(kind, Descriptor::Socket(_));
    let asked = if exact { event.events } else { event.events & !(EPOLLOUT as u32) };
    let given = if managed { kernel_event(entry, index, asked, kind) } else { event };
    if let Err(error) = kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(&given)) {
        socket_table.registration(index).set.store(u32::MAX, Ordering::Relaxed);
        socket_table.free_registration(index);
        return Err(error);
    }
    let registration = socket_table.registration(index);
    keep(registration, &event);
    if !list::insert(socket_table, set, index, target, kind, managed) {
        // More sets than a socket can remember.
        let _ = kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(&event));
        descriptor::pin(target, Reason::UnknownSet);
        return Ok(());
    }
    if managed {
        if asked & EPOLLOUT as u32 != 0 {
            registration.flags.fetch_or(ASKS_ROOM, Ordering::Relaxed);
        }
        registered::activate(socket_table, entry, index);
        nested::count(entry);
        poke(socket_table, fd, entry, index);
    }
    Ok(())
}

/// What the kernel refuses beside EPOLLEXCLUSIVE, which it does not hear of.
fn check_exclusive(events: u32, kind: Descriptor) -> Result<(), Errno> {
    let is_wrong = events & !EXCLUSIVE_TAKES != 0 || matches!(kind, Descriptor::Set(_));
    if events & EPOLLEXCLUSIVE as u32 != 0 && is_wrong { Err(Errno(libc::EINVAL)) } else { Ok(()) }
}

/// The program adds again what it had deleted.
fn unpark(socket_table: &SocketTable, fd: c_int, set: &SetEntry, index: u32, event: &epoll_event) {
    let registration = socket_table.registration(index);
    let _ = tell_kernel(fd, set, index, registration.events.load(Ordering::Relaxed), event.events);
    keep(registration, event);
    // What the kernel has reported meanwhile stays: it reports an end once.
    registration.reported.store(u64::MAX, Ordering::Relaxed);
    registration.ended.store(0, Ordering::Relaxed);
    registration.flags.fetch_and(!(PARKED | DISABLED), Ordering::Relaxed);
    registration.flags.fetch_or(FRESH, Ordering::Relaxed);
    set.parked.fetch_sub(1, Ordering::Relaxed);
    registered::activate(socket_table, set, index);
    nested::count(set);
    poke(socket_table, fd, set, index);
}

/// Somebody looks at the set from outside, by poll(2) or another set: from now on the kernel's set must say no
/// more than the program's would.
pub(crate) fn watch(socket_table: &SocketTable, fd: c_int, slot: u32) {
    let set = socket_table.set(slot);
    if set.watched.load(Ordering::Relaxed) != 0 {
        return;
    }
    let taken = lock_set(set);
    set.watched.store(1, Ordering::Relaxed);
    if !matches!(taken, Taken::Not(_)) {
        flush_parked(socket_table, fd, set);
    }
    let mut next = set.first.load(Ordering::Relaxed);
    for _ in 0..REGISTRATIONS {
        let Some(index) = next.checked_sub(1) else { break };
        let registration = socket_table.registration(index);
        if registration.flags.load(Ordering::Relaxed) & (MANAGED | NESTED | FOREIGN) == MANAGED {
            if let Some(pipe) = registered::pipe_of(registration) {
                room::forget(&pipe);
            }
            let _ = ask_kernel(fd, set, index, registration, registration.events.load(Ordering::Relaxed));
        }
        next = registration.next.load(Ordering::Relaxed);
    }
    set.lock.release(taken);
}

/// A socket remembers a few sets only: those that it has left make place.
fn make_place(socket_table: &SocketTable, socket: Socket) {
    if let Some(entry) = socket.entry()
        && entry.registrations.iter().all(|place| place.load(Ordering::Relaxed) != 0)
    {
        unregister_parked(socket_table, entry, |_| true);
    }
}

/// No room to remember it: the socket stays with (or goes back to) the kernel.
fn add_unseen(fd: c_int, target: c_int, event: &epoll_event, reason: Reason) -> Result<(), Errno> {
    descriptor::pin(target, reason);
    kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(event))
}

fn modify(
    socket_table: &SocketTable,
    fd: c_int,
    set: &SetEntry,
    index: u32,
    event: &epoll_event,
) -> Result<(), Errno> {
    let registration = socket_table.registration(index);
    let target = registration.fd.load(Ordering::Relaxed);
    let before = registration.events.load(Ordering::Relaxed);
    if (before | event.events) & EPOLLEXCLUSIVE as u32 != 0 {
        // Not allowed (epoll_ctl(2)); the kernel knows nothing of the flag here.
        return Err(Errno(libc::EINVAL));
    }
    if registration.flags.load(Ordering::Relaxed) & (NESTED | FOREIGN) != 0 {
        let event = kernel_event(set, index, event.events, Descriptor::Host);
        kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(&event))?;
    } else {
        tell_kernel(fd, set, index, before, event.events)?;
    }
    keep(registration, event);
    registration.flags.fetch_and(!DISABLED, Ordering::Relaxed);
    registration.flags.fetch_or(FRESH, Ordering::Relaxed);
    registered::activate(socket_table, set, index);
    nested::count(set);
    poke(socket_table, fd, set, index);
    Ok(())
}

/// A thread that sleeps in this set already must hear of a pipe that is ready now. The kernel cannot see the
/// ring, but every socket of ours is writable: asking for that wakes the sleeper, which then looks.
fn poke(socket_table: &SocketTable, fd: c_int, set: &SetEntry, index: u32) {
    timed_wait::end(set);
    if !socket_table::others_asleep(&set.sleepers, lock::thread(), false) {
        return;
    }
    let registration = socket_table.registration(index);
    if registration.flags.load(Ordering::Relaxed) & (NESTED | FOREIGN) != 0 {
        return;
    }
    let events = registration.events.load(Ordering::Relaxed) | EPOLLOUT as u32;
    let _ = ask_kernel(fd, set, index, registration, events);
}

/// Whether the socket's kernel registration must be managed.
fn is_ready_reader(entry: &Entry) -> bool {
    entry.readers.is_ready()
}
