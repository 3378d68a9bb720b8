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
use crate::state::flags::SocketFlags;
use crate::state::lock;
use crate::state::reason::Reason;
use crate::state::registrations::flags::RegFlags;
use crate::state::registrations::{
    OpenSet, SetHeld, ask_kernel, can_park, flush_parked, is_tag, keep, kernel_event, list, tell_kernel,
    unregister_parked,
};
use crate::state::socket_table::{self, Entry, STATE_HOST, SocketTable};
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
    let set = OpenSet::new(socket_table, fd, set.slot);
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
        attach::prepare_rearmed(target, socket, set.slot());
    }
    let interesting = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(|socket| {
            !socket.flags.load(Ordering::Relaxed).intersects(SocketFlags::LISTENER)
                && socket.state.load(Ordering::Relaxed) != STATE_HOST
        }),
        Descriptor::Set(_) => true,
        Descriptor::Host => {
            operation != libc::EPOLL_CTL_ADD && set.managed.load(Ordering::Relaxed) > 0
                || event.is_some_and(|event| is_tag(&set, event.u64))
        }
    };
    let known = !interesting && set.first.load(Ordering::Relaxed) == 0;
    if known || (!interesting && matches!(kind, Descriptor::Host) && set.managed.load(Ordering::Relaxed) == 0)
    {
        return kernel::epoll_ctl(fd, operation, target, event.as_ref());
    }
    let wanted = Wanted { operation, target, event, kind, interesting };
    match set.lock() {
        Some(held) => ctl_locked(&held, &wanted),
        None => stuck::ctl(&set, &wanted),
    }
}

/// What epoll_ctl(2) was called with, and what was looked up for it.
struct Wanted {
    operation: c_int,
    target: c_int,
    event: Option<epoll_event>,
    kind: Descriptor,
    /// Whether it concerns what may be on a pipe.
    interesting: bool,
}

impl Wanted {
    /// The call as it is.
    fn by_kernel(&self, set: &OpenSet<'_>) -> Result<(), Errno> {
        kernel::epoll_ctl(set.fd, self.operation, self.target, self.event.as_ref())
    }
}

fn ctl_locked(set: &SetHeld<'_>, wanted: &Wanted) -> Result<(), Errno> {
    let Some(index) = list::find(set, wanted.target, wanted.kind) else {
        return match (wanted.operation, wanted.event) {
            (libc::EPOLL_CTL_ADD, Some(event)) if wanted.interesting => {
                check_exclusive(event.events, wanted.kind)?;
                add(set, wanted, event)
            }
            _ => wanted.by_kernel(set),
        };
    };
    let registration = set.registration(index);
    let flags = registration.flags.load(Ordering::Relaxed);
    match (wanted.operation, wanted.event) {
        (libc::EPOLL_CTL_ADD, Some(event)) if wanted.interesting => {
            check_exclusive(event.events, wanted.kind)?;
            if !flags.intersects(RegFlags::PARKED) {
                return add(set, wanted, event);
            }
            unpark(set, index, &event);
            Ok(())
        }
        (libc::EPOLL_CTL_MOD, Some(_)) | (libc::EPOLL_CTL_DEL, _) if flags.intersects(RegFlags::PARKED) => {
            Err(Errno(libc::ENOENT))
        }
        (libc::EPOLL_CTL_MOD, Some(event)) if !flags.intersects(RegFlags::MANAGED) => {
            wanted.by_kernel(set)?;
            keep(registration, &event);
            Ok(())
        }
        (libc::EPOLL_CTL_MOD, Some(event)) => modify(set, index, &event),
        (libc::EPOLL_CTL_DEL, _) if can_park(set, index) => {
            registration.flags.set(RegFlags::PARKED, Ordering::Relaxed);
            set.parked.fetch_add(1, Ordering::Relaxed);
            // There it is found before the next sleep.
            registered::activate(set, index);
            Ok(())
        }
        (libc::EPOLL_CTL_DEL, _) => {
            let result = wanted.by_kernel(set);
            list::remove(set, index);
            result
        }
        _ => wanted.by_kernel(set),
    }
}

fn add(set: &SetHeld<'_>, wanted: &Wanted, event: epoll_event) -> Result<(), Errno> {
    let &Wanted { target, kind, .. } = wanted;
    let managed = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(is_ready_reader),
        Descriptor::Set(inner) => {
            watch(&OpenSet::new(set.table, target, inner.slot));
            true
        }
        Descriptor::Host => true,
    };
    let Some(index) = set.table.take_registration() else {
        return add_unseen(set.fd, target, &event, Reason::TableFull);
    };
    // For room the kernel is asked before a sleep (`hot::arm`).
    let exact = set.watched.load(Ordering::Relaxed) != 0 || !matches!(kind, Descriptor::Socket(_));
    let asked = if exact { event.events } else { event.events & !(EPOLLOUT as u32) };
    let given = if managed { kernel_event(set, index, asked, kind) } else { event };
    if let Err(error) = kernel::epoll_ctl(set.fd, libc::EPOLL_CTL_ADD, target, Some(&given)) {
        set.registration(index).set.store(u32::MAX, Ordering::Relaxed);
        set.table.free_registration(index);
        return Err(error);
    }
    let registration = set.registration(index);
    keep(registration, &event);
    if !list::insert(set, index, target, kind, managed) {
        // More sets than a socket can remember.
        let _ = kernel::epoll_ctl(set.fd, libc::EPOLL_CTL_MOD, target, Some(&event));
        descriptor::pin(target, Reason::UnknownSet);
        return Ok(());
    }
    if managed {
        if asked & EPOLLOUT as u32 != 0 {
            registration.flags.set(RegFlags::ASKS_ROOM, Ordering::Relaxed);
        }
        registered::activate(set, index);
        nested::count(set);
        poke(set, index);
    }
    Ok(())
}

/// What the kernel refuses beside EPOLLEXCLUSIVE, which it does not hear of.
fn check_exclusive(events: u32, kind: Descriptor) -> Result<(), Errno> {
    let is_wrong = events & !EXCLUSIVE_TAKES != 0 || matches!(kind, Descriptor::Set(_));
    if events & EPOLLEXCLUSIVE as u32 != 0 && is_wrong { Err(Errno(libc::EINVAL)) } else { Ok(()) }
}

/// The program adds again what it had deleted.
fn unpark(set: &SetHeld<'_>, index: u32, event: &epoll_event) {
    let registration = set.registration(index);
    let _ = tell_kernel(set, index, registration.events.load(Ordering::Relaxed), event.events);
    keep(registration, event);
    // What the kernel has reported meanwhile stays: it reports an end once.
    registration.reported.store(u64::MAX, Ordering::Relaxed);
    registration.ended.store(0, Ordering::Relaxed);
    registration.flags.clear(RegFlags::PARKED | RegFlags::DISABLED, Ordering::Relaxed);
    registration.flags.set(RegFlags::FRESH, Ordering::Relaxed);
    set.parked.fetch_sub(1, Ordering::Relaxed);
    registered::activate(set, index);
    nested::count(set);
    poke(set, index);
}

/// Somebody looks at the set from outside, by poll(2) or another set: from now on the kernel's set must say no
/// more than the program's would.
pub(crate) fn watch(set: &OpenSet<'_>) {
    if set.watched.load(Ordering::Relaxed) != 0 {
        return;
    }
    let held = set.lock();
    set.watched.store(1, Ordering::Relaxed);
    if let Some(held) = &held {
        flush_parked(held);
    }
    for (index, registration) in set.all() {
        if registration.flags.load(Ordering::Relaxed)
            & (RegFlags::MANAGED | RegFlags::NESTED | RegFlags::FOREIGN)
            == RegFlags::MANAGED
        {
            if let Some(pipe) = registered::pipe_of(registration) {
                room::forget(&pipe);
            }
            let _ = ask_kernel(set, index, registration, registration.events.load(Ordering::Relaxed));
        }
    }
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

fn modify(set: &SetHeld<'_>, index: u32, event: &epoll_event) -> Result<(), Errno> {
    let registration = set.registration(index);
    let target = registration.fd.load(Ordering::Relaxed);
    let before = registration.events.load(Ordering::Relaxed);
    if (before | event.events) & EPOLLEXCLUSIVE as u32 != 0 {
        // Not allowed (epoll_ctl(2)); the kernel knows nothing of the flag here.
        return Err(Errno(libc::EINVAL));
    }
    if registration.flags.load(Ordering::Relaxed).intersects(RegFlags::NESTED | RegFlags::FOREIGN) {
        let event = kernel_event(set, index, event.events, Descriptor::Host);
        kernel::epoll_ctl(set.fd, libc::EPOLL_CTL_MOD, target, Some(&event))?;
    } else {
        tell_kernel(set, index, before, event.events)?;
    }
    keep(registration, event);
    registration.flags.clear(RegFlags::DISABLED, Ordering::Relaxed);
    registration.flags.set(RegFlags::FRESH, Ordering::Relaxed);
    registered::activate(set, index);
    nested::count(set);
    poke(set, index);
    Ok(())
}

/// A thread that sleeps in this set already must hear of a pipe that is ready now. The kernel cannot see the
/// ring, but every socket of ours is writable: asking for that wakes the sleeper, which then looks.
fn poke(set: &OpenSet<'_>, index: u32) {
    timed_wait::end(set);
    if !socket_table::others_asleep(&set.sleepers, lock::thread(), false) {
        return;
    }
    let registration = set.registration(index);
    if registration.flags.load(Ordering::Relaxed).intersects(RegFlags::NESTED | RegFlags::FOREIGN) {
        return;
    }
    let events = registration.events.load(Ordering::Relaxed) | EPOLLOUT as u32;
    let _ = ask_kernel(set, index, registration, events);
}

/// Whether the socket's kernel registration must be managed.
fn is_ready_reader(entry: &Entry) -> bool {
    entry.readers.is_ready()
}
