//! Registrations of sockets and other descriptors with epoll sets, as data: what a set and its registrations say, how they are
//! found, and what the kernel is told of them. What they mean to a connection, `pipe::meeting::registered` knows; what they
//! mean to a wait, `readiness::epoll`.
//!
//! [`flags`] says what each may be; [`list`] has those of a set, [`hot`] those that its waits look at. Both lists change under the
//! set's [`lock`].

pub(crate) mod flags;
pub(crate) mod hot;
mod in_kernel;
pub(crate) mod list;
mod lock;
mod set;

pub(crate) use in_kernel::{ask_kernel, exchange, kernel_event, tell_kernel};
pub(crate) use set::{OpenSet, SetHeld};

use super::descriptor_table::{self, Descriptor, Set};
use super::lock::thread;
use super::socket_table::{self, Entry, Registration, SetEntry, SocketTable};
use crate::sys::clock;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use flags::RegFlags;
use in_kernel::delete_from_kernel;
use libc::{EPOLLET, epoll_event};

/// Our data: 16 bits that no pointer has on top, 24 random ones, 24 of index. A program's value that happens
/// to look like it is registered as managed too, so the program's 64 bits are exact, always.
const TAG_TOP: u64 = 0x5ac1 << 48;
const TAG_MASK: u64 = !0 << 24;

/// A new set.
pub(crate) fn begin(slot: u32, set: &SetEntry) {
    let mut mixed = clock::ticks() ^ u64::from(slot) << 40;
    mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    set.slot.store(slot, Ordering::Relaxed);
    set.prefix.store(TAG_TOP | (mixed >> 24 & 0x00ff_ffff) << 24, Ordering::Relaxed);
}

/// Whether 64 bits look like our tag in this set.
pub(crate) fn is_tag(set: &SetEntry, data: u64) -> bool {
    data & TAG_MASK == set.prefix.load(Ordering::Relaxed)
}

/// Keeps what the program asks of a registration.
pub(crate) fn keep(registration: &Registration, event: &epoll_event) {
    registration.events.store(event.events, Ordering::Relaxed);
    registration.data.store(event.u64, Ordering::Relaxed);
}

/// Whether a registration may stay with the kernel when the program deletes it.
pub(crate) fn can_park(set: &OpenSet<'_>, index: u32) -> bool {
    let flags = set.registration(index).flags.load(Ordering::Relaxed);
    flags & (RegFlags::MANAGED | RegFlags::NESTED | RegFlags::FOREIGN | RegFlags::ENDING) == RegFlags::MANAGED
        && set.watched.load(Ordering::Relaxed) == 0
}

/// Deletes from the kernel's set what the program has deleted.
pub(crate) fn flush_parked(set: &SetHeld<'_>) {
    if set.parked.load(Ordering::Relaxed) > 0 {
        hot::remove_parked(set, |registration| delete_from_kernel(set, registration));
    }
}

/// Before `fd` is closed, while the open file description has other names: the kernel would keep a
/// registration of that number, which nobody could delete any more.
pub(crate) fn forget_number(socket_table: &SocketTable, entry: &Entry, fd: c_int) {
    unregister_parked(socket_table, entry, |registration| registration.fd.load(Ordering::Relaxed) == fd);
}

/// Deletes those parked registrations of a socket that are `wanted`.
pub(crate) fn unregister_parked(
    socket_table: &SocketTable,
    entry: &Entry,
    wanted: impl Fn(&Registration) -> bool,
) {
    for (index, registration, slot) in of_socket(socket_table, entry) {
        if !registration.flags.load(Ordering::Relaxed).intersects(RegFlags::PARKED) || !wanted(registration) {
            continue;
        }
        // Of a set whose lock is not to be had they stay, and are ignored.
        if let Some(set) = open_set(socket_table, slot)
            && let Some(set) = set.lock()
            && entry.registrations.iter().any(|place| place.load(Ordering::Acquire) == index + 1)
            && registration.flags.load(Ordering::Relaxed).intersects(RegFlags::PARKED)
        {
            delete_from_kernel(&set, registration);
            list::remove(&set, index);
        }
    }
}

/// The last descriptor of a socket is closed: the kernel forgets its registrations, and so do we.
pub(crate) fn forget_socket(socket_table: &SocketTable, entry: &Entry) {
    for place in &entry.registrations {
        if let Some(index) = place.swap(0, Ordering::AcqRel).checked_sub(1) {
            let Some(slot) = socket_table.registration(index).set.load(Ordering::Acquire).checked_sub(1)
            else {
                continue;
            };
            // Otherwise it stays in the lists, without a socket, until the set is closed.
            let set = OpenSet::new(socket_table, NO_FD, slot);
            if let Some(set) = set.lock() {
                list::remove(&set, index);
            }
        }
    }
}

/// The last descriptor of a set is closed.
pub(crate) fn free_set(socket_table: &SocketTable, slot: u32, generation: u32) {
    let set = OpenSet::new(socket_table, NO_FD, slot);
    // From somebody who does not run, in the middle of a change of its lists: nobody may use them again.
    let Some(set) = set.lock() else { return };
    while let Some(index) = set.first.load(Ordering::Acquire).checked_sub(1) {
        let before = set.first.load(Ordering::Relaxed);
        list::remove(&set, index);
        if set.first.load(Ordering::Relaxed) == before {
            break;
        }
    }
    drop(set);
    let _ = socket_table.set(slot).generation.compare_exchange(
        generation,
        generation.wrapping_add(1),
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
}

/// Whether a registration is one-shot: only the kernel knows whether it has reported it. So the connection comes
/// onto its pipe when the program arms it again, which is just about to happen to `rearmed` (a set's slot and a
/// descriptor).
pub(crate) fn waits_for_rearm(entry: &Entry, rearmed: Option<(u32, c_int)>) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    entry.registrations.iter().any(|place| {
        let Some(index) = place.load(Ordering::Acquire).checked_sub(1) else { return false };
        let registration = socket_table.registration(index);
        !registration.flags.load(Ordering::Relaxed).intersects(RegFlags::MANAGED)
            && registration.events.load(Ordering::Relaxed) & libc::EPOLLONESHOT as u32 != 0
            && rearmed.is_none_or(|(slot, fd)| {
                registration.set.load(Ordering::Relaxed) != slot + 1
                    || registration.fd.load(Ordering::Relaxed) != fd
            })
    })
}

/// The registrations of a socket that has gone back to the kernel for good become the program's own again.
pub(crate) fn downgrade(entry: &Entry) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    for (index, registration, slot) in of_socket(socket_table, entry) {
        let Some(set) = open_set(socket_table, slot) else { return false };
        let Some(set) = set.lock() else { return false };
        let flags = registration.flags.load(Ordering::Relaxed);
        if set.is_first() && flags.intersects(RegFlags::PARKED) {
            delete_from_kernel(&set, registration);
            list::remove(&set, index);
        } else if set.is_first() && flags.intersects(RegFlags::MANAGED) {
            let mut events = registration.events.load(Ordering::Relaxed);
            if flags.intersects(RegFlags::DISABLED) {
                events &= (EPOLLET | libc::EPOLLONESHOT) as u32;
            }
            let event = epoll_event { events, u64: registration.data.load(Ordering::Relaxed) };
            let target = registration.fd.load(Ordering::Relaxed);
            let _ = exchange(set.fd, target, events, &event);
            hot::deactivate(&set, index);
            registration.flags.clear(RegFlags::MANAGED, Ordering::Relaxed);
            set.managed.fetch_sub(1, Ordering::Release);
        }
    }
    true
}

/// For a set of which only the lists change, and the kernel is told nothing.
const NO_FD: c_int = -1;

/// The set at `slot`, if this process has it open.
pub(crate) fn open_set(socket_table: &SocketTable, slot: u32) -> Option<OpenSet<'_>> {
    let generation = socket_table.set(slot).generation.load(Ordering::Acquire);
    let wanted = Descriptor::Set(Set { slot, generation });
    let fd = (0..socket_table::highest() as c_int).find(|fd| descriptor_table::peek(*fd) == wanted)?;
    Some(OpenSet::new(socket_table, fd, slot))
}

/// The registrations of a socket, each with its index and the slot of its set.
pub(crate) fn of_socket<'a>(
    socket_table: &'a SocketTable,
    entry: &'a Entry,
) -> impl Iterator<Item = (u32, &'a Registration, u32)> {
    entry.registrations.iter().filter_map(|place| {
        let index = place.load(Ordering::Acquire).checked_sub(1)?;
        let registration = socket_table.registration(index);
        let slot = registration.set.load(Ordering::Acquire).checked_sub(1)?;
        Some((index, registration, slot))
    })
}

/// Whether a set relies on a doorbell of this connection: another thread sleeps in it, or the registration is cold.
pub(crate) fn relies_on_doorbells(entry: &Entry) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    let me = thread();
    of_socket(socket_table, entry).any(|(_, registration, slot)| {
        let set = socket_table.set(slot);
        let cold = registration.flags.load(Ordering::Acquire)
            & (RegFlags::MANAGED | RegFlags::HOT | RegFlags::DISABLED | RegFlags::PARKED)
            == RegFlags::MANAGED;
        // Of a set that others look at, not all sleepers are known.
        cold || set.watched.load(Ordering::Relaxed) != 0
            || socket_table::others_asleep(&set.sleepers, me, true)
    })
}
