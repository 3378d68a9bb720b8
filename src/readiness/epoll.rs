//! Epoll sets.
//!
//! The program's set is the kernel's set: kernel descriptors are registered as the program said, with its
//! data, and never looked at here. A TCP socket is remembered when it is registered; when it comes onto a
//! pipe its kernel registration becomes edge-triggered with *our* data (a tag), and the program's mask and
//! data are kept in shared memory, so that a set shared over fork reports an edge once.
//!
//! A managed registration is *hot* or *cold*. Cold: its bell is wanted, the kernel will tell. Hot: it had
//! something lately; every wait looks at its ring. All hot ones are armed and turn cold before a sleep, so a
//! wait costs what is active, not what is registered.

pub(crate) mod hot;
pub(crate) mod list;
mod nap;
mod nested;
mod rooms;
mod stuck;
pub(crate) mod told;
pub(crate) mod wait;

use crate::error::Errno;
use crate::pipe::{Pipe, attach, io, room};
use crate::state::arena::{
    self, Arena, Entry, FLAG_LISTENER, REGISTRATIONS, Registration, STATE_HOST, SetEntry,
};
use crate::state::lock::{self, Taken};
use crate::state::reason::Reason;
use crate::state::table::{self, Descriptor, Set};
use crate::state::{Socket, lifecycle};
use crate::sys::{clock, kernel};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll_event};

/// Our data: 16 bits that no pointer has on top, 24 random ones, 24 of index. A program's value that happens
/// to look like it is registered as managed too, so the program's 64 bits are exact, always.
const TAG_TOP: u64 = 0x5ac1 << 48;
const TAG_MASK: u64 = !0 << 24;

/// The kernel's registration carries our tag.
pub(crate) const MANAGED: u32 = 1;
/// What may stand beside EPOLLEXCLUSIVE (fs/eventpoll.c).
const EXCLUSIVE_TAKES: u32 =
    (EPOLLIN | EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)
        as u32;

/// On the hot list.
pub(crate) const HOT: u32 = 2;
/// One-shot, and reported.
pub(crate) const DISABLED: u32 = 4;
/// Added or modified since the last report: report whatever is ready.
pub(crate) const FRESH: u32 = 8;
/// The kernel said that it ends: always ask it.
pub(crate) const ENDING: u32 = 16;
/// A nested epoll set.
pub(crate) const NESTED: u32 = 32;
/// Neither socket nor set of ours: only its data is translated.
pub(crate) const FOREIGN: u32 = 64;
/// Hot, and with a bell wanted while a thread of the set sleeps.
pub(crate) const ARMED: u32 = 128;
/// Deleted by the program, and not yet by us: many programs add a descriptor again at once (redis-benchmark
/// twice for each request). What the kernel tells meanwhile is ignored; before a sleep it is really deleted.
pub(crate) const PARKED: u32 = 256;
/// The kernel's registration of a socket asks for EPOLLOUT. Only before a sleep: whoever is awake looks.
pub(crate) const ASKS_ROOM: u32 = 512;
/// Told by the wait under way, in the place that the kernel gave it.
pub(crate) const TOLD: u32 = 1024;
/// From here on: scans since it was last ready.
pub(crate) const IDLE_ONE: u32 = 1 << 16;

/// A new set.
pub(crate) fn begin(slot: u32, set: &SetEntry) {
    let mut mixed = clock::ticks() ^ u64::from(slot) << 40;
    mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    set.slot.store(slot, Ordering::Relaxed);
    set.prefix.store(TAG_TOP | (mixed >> 24 & 0x00ff_ffff) << 24, Ordering::Relaxed);
}

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
    let arena = arena::get().ok_or(Errno(libc::EBADF))?;
    let entry = arena.set(set.slot);
    let kind = table::find(target);
    if operation == libc::EPOLL_CTL_ADD
        && let Descriptor::Socket(socket) = kind
    {
        // Better managed from the start than upgraded later, which may report an edge once more.
        attach::prepare(target, socket);
        make_place(arena, socket);
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
        stuck::ctl(arena, fd, set, operation, target, event, kind, interesting)
    } else {
        ctl_locked(arena, fd, set, operation, target, event, kind, interesting)
    };
    entry.lock.release(taken);
    result
}

#[expect(clippy::too_many_arguments, reason = "epoll_ctl's own four, and what was looked up for them")]
fn ctl_locked(
    arena: &Arena,
    fd: c_int,
    set: Set,
    operation: c_int,
    target: c_int,
    event: Option<epoll_event>,
    kind: Descriptor,
    interesting: bool,
) -> Result<(), Errno> {
    let entry = arena.set(set.slot);
    let found = list::find(arena, entry, set.slot, target, kind);
    let parked = found.filter(|index| arena.registration(*index).flags.load(Ordering::Relaxed) & PARKED != 0);
    match (operation, found, event) {
        (libc::EPOLL_CTL_ADD, _, Some(event)) => {
            if !interesting {
                return kernel::epoll_ctl(fd, operation, target, Some(&event));
            }
            check_exclusive(event.events, kind)?;
            match parked {
                Some(index) => {
                    unpark(arena, fd, entry, index, &event);
                    Ok(())
                }
                None => add(arena, fd, set, target, event, kind),
            }
        }
        (libc::EPOLL_CTL_MOD, _, Some(_)) | (libc::EPOLL_CTL_DEL, ..) if parked.is_some() => {
            Err(Errno(libc::ENOENT))
        }
        (libc::EPOLL_CTL_MOD, Some(index), Some(event)) => {
            let registration = arena.registration(index);
            if registration.flags.load(Ordering::Relaxed) & MANAGED == 0 {
                kernel::epoll_ctl(fd, operation, target, Some(&event))?;
                keep(registration, &event);
                return Ok(());
            }
            modify(arena, fd, entry, index, &event)
        }
        (libc::EPOLL_CTL_DEL, Some(index), _) if can_park(arena, entry, index) => {
            arena.registration(index).flags.fetch_or(PARKED, Ordering::Relaxed);
            entry.parked.fetch_add(1, Ordering::Relaxed);
            // There it is found before the next sleep.
            hot::warm(arena, entry, index);
            Ok(())
        }
        (libc::EPOLL_CTL_DEL, Some(index), _) => {
            let result = kernel::epoll_ctl(fd, operation, target, event.as_ref());
            list::remove(arena, index);
            result
        }
        _ => kernel::epoll_ctl(fd, operation, target, event.as_ref()),
    }
}

fn add(
    arena: &Arena,
    fd: c_int,
    set: Set,
    target: c_int,
    event: epoll_event,
    kind: Descriptor,
) -> Result<(), Errno> {
    let entry = arena.set(set.slot);
    let managed = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(is_ready_reader),
        Descriptor::Set(inner) => {
            watch(arena, target, inner.slot);
            true
        }
        Descriptor::Host => true,
    };
    let Some(index) = arena.take_registration() else {
        return add_unseen(fd, target, &event, Reason::TableFull);
    };
    // For room the kernel is asked before a sleep (`hot::arm`).
    let exact = entry.watched.load(Ordering::Relaxed) != 0 || !matches!(kind, Descriptor::Socket(_));
    let asked = if exact { event.events } else { event.events & !(EPOLLOUT as u32) };
    let given = if managed { kernel_event(entry, index, asked, kind) } else { event };
    if let Err(error) = kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(&given)) {
        arena.registration(index).set.store(u32::MAX, Ordering::Relaxed);
        arena.free_registration(index);
        return Err(error);
    }
    let registration = arena.registration(index);
    keep(registration, &event);
    if !list::insert(arena, set, index, target, kind, managed) {
        // More sets than a socket can remember.
        let _ = kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(&event));
        lifecycle::pin(target, Reason::UnknownSet);
        return Ok(());
    }
    if managed {
        if asked & EPOLLOUT as u32 != 0 {
            registration.flags.fetch_or(ASKS_ROOM, Ordering::Relaxed);
        }
        hot::warm(arena, entry, index);
        nested::count(entry);
        poke(arena, fd, entry, index);
    }
    Ok(())
}

/// What the kernel refuses beside EPOLLEXCLUSIVE, which it is not told of.
fn check_exclusive(events: u32, kind: Descriptor) -> Result<(), Errno> {
    let is_wrong = events & !EXCLUSIVE_TAKES != 0 || matches!(kind, Descriptor::Set(_));
    if events & EPOLLEXCLUSIVE as u32 != 0 && is_wrong { Err(Errno(libc::EINVAL)) } else { Ok(()) }
}

/// Whether a registration may stay with the kernel when the program deletes it.
fn can_park(arena: &Arena, set: &SetEntry, index: u32) -> bool {
    let flags = arena.registration(index).flags.load(Ordering::Relaxed);
    flags & (MANAGED | NESTED | FOREIGN | ENDING) == MANAGED && set.watched.load(Ordering::Relaxed) == 0
}

/// The program adds again what it had deleted.
fn unpark(arena: &Arena, fd: c_int, set: &SetEntry, index: u32, event: &epoll_event) {
    let registration = arena.registration(index);
    let _ = tell_kernel(fd, set, index, registration.events.load(Ordering::Relaxed), event.events);
    keep(registration, event);
    // What the kernel has told meanwhile stays: it tells an end once.
    registration.reported.store(u64::MAX, Ordering::Relaxed);
    registration.ended.store(0, Ordering::Relaxed);
    registration.flags.fetch_and(!(PARKED | DISABLED), Ordering::Relaxed);
    registration.flags.fetch_or(FRESH, Ordering::Relaxed);
    set.parked.fetch_sub(1, Ordering::Relaxed);
    hot::warm(arena, set, index);
    nested::count(set);
    poke(arena, fd, set, index);
}

/// Somebody looks at the set from outside, by poll(2) or another set: from now on the kernel's set must say no
/// more than the program's would.
pub(crate) fn watch(arena: &Arena, fd: c_int, slot: u32) {
    let set = arena.set(slot);
    if set.watched.load(Ordering::Relaxed) != 0 {
        return;
    }
    let taken = lock_set(set);
    set.watched.store(1, Ordering::Relaxed);
    if !matches!(taken, Taken::Not(_)) {
        flush_parked(arena, fd, set);
    }
    let mut next = set.first.load(Ordering::Relaxed);
    for _ in 0..REGISTRATIONS {
        let Some(index) = next.checked_sub(1) else { break };
        let registration = arena.registration(index);
        if registration.flags.load(Ordering::Relaxed) & (MANAGED | NESTED | FOREIGN) == MANAGED {
            if let Some(pipe) = pipe_of(registration) {
                room::forget(&pipe);
            }
            let _ = ask_kernel(fd, set, index, registration, registration.events.load(Ordering::Relaxed));
        }
        next = registration.next.load(Ordering::Relaxed);
    }
    set.lock.release(taken);
}

/// Deletes from the kernel's set what the program has deleted. Under the set's lock.
fn flush_parked(arena: &Arena, fd: c_int, set: &SetEntry) {
    if set.parked.load(Ordering::Relaxed) > 0 {
        hot::remove_parked(arena, set, |registration| delete_from_kernel(fd, registration));
    }
}

fn delete_from_kernel(fd: c_int, registration: &Registration) {
    // It fails when the number is another file's by now; then nothing but an ignored event is left of it.
    let _ = kernel::epoll_ctl(fd, libc::EPOLL_CTL_DEL, registration.fd.load(Ordering::Relaxed), None);
}

/// A socket remembers a few sets only: those that it has left make place.
fn make_place(arena: &Arena, socket: Socket) {
    if let Some(entry) = socket.entry()
        && entry.registrations.iter().all(|place| place.load(Ordering::Relaxed) != 0)
    {
        unregister_parked(arena, entry, |_| true);
    }
}

/// Before `fd` is closed, while the open file description has other names: the kernel would keep a
/// registration of that number, which nobody could delete any more.
pub(crate) fn forget_number(arena: &Arena, entry: &Entry, fd: c_int) {
    unregister_parked(arena, entry, |registration| registration.fd.load(Ordering::Relaxed) == fd);
}

/// Deletes those parked registrations of a socket that are `wanted`.
fn unregister_parked(arena: &Arena, entry: &Entry, wanted: impl Fn(&Registration) -> bool) {
    for place in &entry.registrations {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { continue };
        let registration = arena.registration(index);
        if registration.flags.load(Ordering::Relaxed) & PARKED == 0 || !wanted(registration) {
            continue;
        }
        let Some(slot) = registration.set.load(Ordering::Acquire).checked_sub(1) else { continue };
        let set = arena.set(slot);
        let Some(fd) = descriptor_of(slot, set) else { continue };
        let taken = lock_set(set);
        // Of a set whose lock is not to be had they stay, and are ignored.
        if !matches!(taken, Taken::Not(_))
            && place.load(Ordering::Acquire) == index + 1
            && registration.flags.load(Ordering::Relaxed) & PARKED != 0
        {
            delete_from_kernel(fd, registration);
            list::remove(arena, index);
        }
        set.lock.release(taken);
    }
}

/// No room to remember it: the socket stays with (or goes back to) the kernel.
fn add_unseen(fd: c_int, target: c_int, event: &epoll_event, reason: Reason) -> Result<(), Errno> {
    lifecycle::pin(target, reason);
    kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(event))
}

fn modify(arena: &Arena, fd: c_int, set: &SetEntry, index: u32, event: &epoll_event) -> Result<(), Errno> {
    let registration = arena.registration(index);
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
    hot::warm(arena, set, index);
    nested::count(set);
    poke(arena, fd, set, index);
    Ok(())
}

/// What the kernel is told about a managed registration.
fn kernel_event(set: &SetEntry, index: u32, events: u32, kind: Descriptor) -> epoll_event {
    // What only our own waits look at may be too wide: it needs no change then.
    let wide = if set.watched.load(Ordering::Relaxed) == 0 { EPOLLIN | EPOLLRDHUP } else { 0 };
    let events = match kind {
        Descriptor::Socket(_) => (EPOLLET | wide) as u32 | asks_kernel(events),
        _ => events,
    };
    epoll_event { events, u64: set.prefix.load(Ordering::Relaxed) | u64::from(index) }
}

/// What of a socket the kernel is asked so that a pipe's `events` can be told. A bell comes as EPOLLIN, and with
/// EPOLLRDHUP an end is told from a bell.
const fn asks_kernel(events: u32) -> u32 {
    let reads = if events & (EPOLLIN | libc::EPOLLRDNORM) as u32 != 0 { EPOLLIN | EPOLLRDHUP } else { 0 };
    reads as u32 | events & (EPOLLRDHUP | EPOLLOUT | libc::EPOLLPRI) as u32
}

/// The program changes its mask on a socket. Unless others watch the set, the kernel must hear of it only when
/// it would tell of room in vain, or of urgent data: so what most programs do between two requests needs no
/// system call.
fn tell_kernel(fd: c_int, set: &SetEntry, index: u32, before: u32, after: u32) -> Result<(), Errno> {
    let Some(arena) = arena::get() else { return Ok(()) };
    let registration = arena.registration(index);
    let exact = set.watched.load(Ordering::Relaxed) != 0;
    let asks_room = registration.flags.load(Ordering::Relaxed) & ASKS_ROOM != 0;
    let room = asks_room && after & EPOLLOUT as u32 == 0;
    let changed = asks_kernel(before) ^ asks_kernel(after);
    let matters = if exact { changed != 0 } else { changed & libc::EPOLLPRI as u32 != 0 };
    if room || matters {
        let kept = if exact { after } else { after & !(EPOLLOUT as u32) };
        ask_kernel(fd, set, index, registration, kept)?;
    }
    Ok(())
}

/// Sets the kernel's mask of a socket's registration.
fn ask_kernel(
    fd: c_int,
    set: &SetEntry,
    index: u32,
    registration: &Registration,
    events: u32,
) -> Result<(), Errno> {
    let event = kernel_event(set, index, events, Descriptor::Socket(Socket { slot: 0, generation: 0 }));
    kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, registration.fd.load(Ordering::Relaxed), Some(&event))?;
    if events & EPOLLOUT as u32 != 0 {
        registration.flags.fetch_or(ASKS_ROOM, Ordering::Relaxed);
    } else {
        registration.flags.fetch_and(!ASKS_ROOM, Ordering::Relaxed);
    }
    Ok(())
}

fn keep(registration: &Registration, event: &epoll_event) {
    registration.events.store(event.events, Ordering::Relaxed);
    registration.data.store(event.u64, Ordering::Relaxed);
}

/// A thread that sleeps in this set already must hear of a pipe that is ready now. The kernel cannot see the
/// ring, but every socket of ours is writable: asking for that wakes the sleeper, which then looks.
fn poke(arena: &Arena, fd: c_int, set: &SetEntry, index: u32) {
    nap::end(set);
    if !arena::others_asleep(&set.sleepers, lock::thread(), false) {
        return;
    }
    let registration = arena.registration(index);
    if registration.flags.load(Ordering::Relaxed) & (NESTED | FOREIGN) != 0 {
        return;
    }
    let events = registration.events.load(Ordering::Relaxed) | EPOLLOUT as u32;
    let _ = ask_kernel(fd, set, index, registration, events);
}

/// The registrations of a socket that comes onto a pipe become managed. False when one cannot be reached.
pub(crate) fn upgrade(pipe: &Pipe) -> bool {
    let Some(arena) = arena::get() else { return false };
    for place in &pipe.entry.registrations {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { continue };
        let registration = arena.registration(index);
        let Some(slot) = registration.set.load(Ordering::Acquire).checked_sub(1) else { continue };
        let set = arena.set(slot);
        let Some(fd) = descriptor_of(slot, set) else { return false };
        let taken = lock_set(set);
        if let Taken::Not(_) = taken {
            return false;
        }
        let target = registration.fd.load(Ordering::Relaxed);
        let events = registration.events.load(Ordering::Relaxed);
        let event = kernel_event(set, index, events, Descriptor::Socket(pipe.socket));
        // Before the kernel can tell with our tag.
        set.managed.fetch_add(1, Ordering::Release);
        let result = if events & EPOLLEXCLUSIVE as u32 != 0 {
            kernel::epoll_ctl(fd, libc::EPOLL_CTL_DEL, target, None)
                .and_then(|()| kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(&event)))
        } else {
            kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(&event))
        };
        if result.is_ok() {
            // Whether the kernel has told the program of what is unread cannot be known: it is told (again).
            let mut flags = MANAGED | FRESH;
            if events & EPOLLOUT as u32 != 0 {
                flags |= ASKS_ROOM;
            }
            if events & libc::EPOLLONESHOT as u32 != 0 {
                // The program is about to say that it wants the next one: see `waits_for_rearm`.
                flags |= DISABLED;
            }
            registration.flags.fetch_or(flags, Ordering::Relaxed);
            hot::warm(arena, set, index);
        } else {
            set.managed.fetch_sub(1, Ordering::Release);
        }
        set.lock.release(taken);
        if result.is_err() {
            return false;
        }
    }
    true
}

/// Whether a registration is one-shot: only the kernel knows whether it has told of it. So the connection comes
/// onto its pipe when the program arms it again, which is just about to happen to `rearmed` (a set's slot and a
/// descriptor).
pub(crate) fn waits_for_rearm(entry: &Entry, rearmed: Option<(u32, c_int)>) -> bool {
    let Some(arena) = arena::get() else { return false };
    entry.registrations.iter().any(|place| {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { return false };
        let registration = arena.registration(index);
        registration.flags.load(Ordering::Relaxed) & MANAGED == 0
            && registration.events.load(Ordering::Relaxed) & libc::EPOLLONESHOT as u32 != 0
            && rearmed.is_none_or(|(slot, fd)| {
                registration.set.load(Ordering::Relaxed) != slot + 1
                    || registration.fd.load(Ordering::Relaxed) != fd
            })
    })
}

/// The registrations of a socket that has gone back to the kernel for good become the program's own again.
pub(crate) fn downgrade(pipe: &Pipe) -> bool {
    let Some(arena) = arena::get() else { return false };
    for place in &pipe.entry.registrations {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { continue };
        let registration = arena.registration(index);
        let Some(slot) = registration.set.load(Ordering::Acquire).checked_sub(1) else { continue };
        let set = arena.set(slot);
        let Some(fd) = descriptor_of(slot, set) else { return false };
        let taken = lock_set(set);
        if let Taken::Not(_) = taken {
            return false;
        }
        let flags = registration.flags.load(Ordering::Relaxed);
        if taken == Taken::Ours && flags & PARKED != 0 {
            delete_from_kernel(fd, registration);
            list::remove(arena, index);
        } else if taken == Taken::Ours && flags & MANAGED != 0 {
            let mut events = registration.events.load(Ordering::Relaxed);
            if flags & DISABLED != 0 {
                events &= (EPOLLET | libc::EPOLLONESHOT) as u32;
            }
            let event = epoll_event { events, u64: registration.data.load(Ordering::Relaxed) };
            let target = registration.fd.load(Ordering::Relaxed);
            let _ = if events & EPOLLEXCLUSIVE as u32 != 0 {
                kernel::epoll_ctl(fd, libc::EPOLL_CTL_DEL, target, None)
                    .and_then(|()| kernel::epoll_ctl(fd, libc::EPOLL_CTL_ADD, target, Some(&event)))
            } else {
                kernel::epoll_ctl(fd, libc::EPOLL_CTL_MOD, target, Some(&event))
            };
            hot::cool(arena, set, index);
            registration.flags.fetch_and(!MANAGED, Ordering::Relaxed);
            set.managed.fetch_sub(1, Ordering::Release);
        }
        set.lock.release(taken);
    }
    true
}

/// A descriptor of this process for a set.
fn descriptor_of(slot: u32, set: &SetEntry) -> Option<c_int> {
    let wanted = Descriptor::Set(Set { slot, generation: set.generation.load(Ordering::Acquire) });
    (0..arena::highest() as c_int).find(|fd| table::peek(*fd) == wanted)
}

/// Whether a set relies on a bell of this pipe: another thread sleeps in it, or the registration is cold.
pub(crate) fn relies_on_bells(pipe: &Pipe) -> bool {
    let Some(arena) = arena::get() else { return false };
    let me = lock::thread();
    pipe.entry.registrations.iter().any(|place| {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { return false };
        let registration = arena.registration(index);
        let Some(slot) = registration.set.load(Ordering::Acquire).checked_sub(1) else { return false };
        let cold =
            registration.flags.load(Ordering::Acquire) & (MANAGED | HOT | DISABLED | PARKED) == MANAGED;
        let set = arena.set(slot);
        // Of a set that others look at, not all sleepers are known.
        cold || set.watched.load(Ordering::Relaxed) != 0 || arena::others_asleep(&set.sleepers, me, true)
    })
}

/// The last descriptor of a socket is closed: the kernel forgets its registrations, and so do we.
pub(crate) fn forget_socket(arena: &Arena, entry: &Entry) {
    for place in &entry.registrations {
        if let Some(index) = place.swap(0, Ordering::AcqRel).checked_sub(1) {
            let Some(slot) = arena.registration(index).set.load(Ordering::Acquire).checked_sub(1) else {
                continue;
            };
            let set = arena.set(slot);
            let taken = lock_set(set);
            // Otherwise it stays in the lists, without a socket, until the set is closed.
            if !matches!(taken, Taken::Not(_)) {
                list::remove(arena, index);
            }
            set.lock.release(taken);
        }
    }
}

/// The last descriptor of a set is closed.
pub(crate) fn free_set(arena: &Arena, slot: u32, generation: u32) {
    let set = arena.set(slot);
    let taken = lock_set(set);
    if let Taken::Not(_) = taken {
        // Somebody who does not run is in the middle of a change of its lists: nobody may use them again.
        return;
    }
    while let Some(index) = set.first.load(Ordering::Acquire).checked_sub(1) {
        let before = set.first.load(Ordering::Relaxed);
        list::remove(arena, index);
        if set.first.load(Ordering::Relaxed) == before {
            break;
        }
    }
    set.lock.release(taken);
    let _ = set.generation.compare_exchange(
        generation,
        generation.wrapping_add(1),
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
}

/// The lock of a set. Not taken from an owner that does not let go: what it does yet with the lists, when it goes on, cannot be
/// undone. Until then the set is used without it: see [`stuck`].
#[inline]
pub(crate) fn lock_set(set: &SetEntry) -> Taken {
    set.lock.take_at_once(|| {}).unwrap_or_else(|| stuck::wait(set))
}

/// Whether the socket's kernel registration must be managed.
fn is_ready_reader(entry: &Entry) -> bool {
    entry.readers.is_ready()
}

/// Whether 64 bits look like our tag in this set.
fn is_tag(set: &SetEntry, data: u64) -> bool {
    data & TAG_MASK == set.prefix.load(Ordering::Relaxed)
}

/// The pipe of a registration, if it still has one.
fn pipe_of(registration: &Registration) -> Option<Pipe> {
    let socket = Socket {
        slot: registration.slot.load(Ordering::Relaxed),
        generation: registration.generation.load(Ordering::Relaxed),
    };
    let entry = socket.entry()?;
    io::reading_pipe(socket, entry)
}
