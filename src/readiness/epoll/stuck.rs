//! A set whose lock is not to be had: its owner is stopped, or frozen, in the middle of a walk over the lists.
//!
//! What it does yet when it goes on must find the lists as it left them. So nobody else changes them: whoever waits looks at every
//! registration in the table, through no list, and has the kernel report all of them; what the program adds is the
//! kernel's; and what it deletes is marked, and deleted later. All that is slower than with the lists, and the program gets
//! the same events.

use super::reported::Reported;
use super::{add_unseen, check_exclusive, hot};
use crate::error::Errno;
use crate::state::descriptor_table::{Descriptor, Set};
use crate::state::reason::Reason;
use crate::state::registrations::flags::{ARMED, DISABLED, FOREIGN, FRESH, MANAGED, NESTED, PARKED};
use crate::state::registrations::{ask_kernel, can_park, keep, list, tell_kernel};
use crate::state::socket_table::{REGISTRATIONS, Registration, SetEntry, SocketTable};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{EPOLLEXCLUSIVE, EPOLLOUT, epoll_event};

/// Calls `each` for every registration of a set that the kernel knows by our tag.
fn for_each(socket_table: &SocketTable, set: &SetEntry, mut each: impl FnMut(u32, &Registration, u32)) {
    let slot = set.slot.load(Ordering::Relaxed).wrapping_add(1);
    let used = socket_table.registrations_used.load(Ordering::Acquire).min(REGISTRATIONS as u32);
    for index in 0..used {
        let registration = socket_table.registration(index);
        let flags = registration.flags.load(Ordering::Relaxed);
        if registration.set.load(Ordering::Relaxed) == slot
            && flags & (MANAGED | PARKED | DISABLED) == MANAGED
        {
            each(index, registration, flags);
        }
    }
}

/// As [`hot::note_reported`].
pub(super) fn note_reported(socket_table: &SocketTable, set: &SetEntry, index: u32, reported: u32) {
    hot::keep_reported(socket_table, set, index, reported);
}

/// As [`hot::collect`].
pub(super) fn collect(socket_table: &SocketTable, set: &SetEntry, reported: &mut Reported<'_>) {
    for_each(socket_table, set, |index, registration, _| {
        if !reported.is_full()
            && let Some(ready @ 1..) = hot::ready(socket_table, registration)
        {
            reported.add(index, registration, ready);
        }
    });
}

/// As [`hot::arm_all`].
pub(super) fn arm_all(socket_table: &SocketTable, fd: c_int, set: &SetEntry, depth: usize) -> bool {
    let mut quiet = true;
    for_each(socket_table, set, |index, registration, flags| {
        if flags & NESTED != 0 {
            quiet &= hot::arm_nested(socket_table, registration, depth);
        } else if flags & FOREIGN == 0 {
            registration.flags.fetch_or(ARMED, Ordering::Relaxed);
            quiet &= hot::arm(fd, set, index, registration);
        }
    });
    quiet
}

/// epoll_ctl(2).
#[expect(clippy::too_many_arguments, reason = "epoll_ctl's own four, and what was looked up for them")]
pub(super) fn ctl(
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
    let (Some(index), Some(registration)) = (found, found.map(|index| socket_table.registration(index)))
    else {
        return match (operation, event) {
            (libc::EPOLL_CTL_ADD, Some(event)) if interesting => {
                check_exclusive(event.events, kind)?;
                add_unseen(fd, target, &event, Reason::Stopped)
            }
            _ => kernel::epoll_ctl(fd, operation, target, event.as_ref()),
        };
    };
    let flags = registration.flags.load(Ordering::Relaxed);
    let before = registration.events.load(Ordering::Relaxed);
    match (operation, event, flags & PARKED != 0) {
        (libc::EPOLL_CTL_ADD, Some(event), true) => {
            check_exclusive(event.events, kind)?;
            registration.reported.store(u64::MAX, Ordering::Relaxed);
            registration.ended.store(0, Ordering::Relaxed);
            entry.parked.fetch_sub(1, Ordering::Relaxed);
            rouse(fd, entry, index, registration, before, &event)
        }
        (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _, true) => Err(Errno(libc::ENOENT)),
        (libc::EPOLL_CTL_MOD, Some(event), _) if flags & (NESTED | FOREIGN) == 0 && flags & MANAGED != 0 => {
            if (before | event.events) & EPOLLEXCLUSIVE as u32 != 0 {
                return Err(Errno(libc::EINVAL));
            }
            rouse(fd, entry, index, registration, before, &event)
        }
        (libc::EPOLL_CTL_MOD, Some(event), _) if flags & MANAGED == 0 => {
            kernel::epoll_ctl(fd, operation, target, Some(&event))?;
            keep(registration, &event);
            Ok(())
        }
        (libc::EPOLL_CTL_DEL, _, _) => {
            if !can_park(socket_table, entry, index) {
                kernel::epoll_ctl(fd, operation, target, event.as_ref())?;
                if let Descriptor::Socket(socket) = kind
                    && let Some(socket) = socket.entry()
                {
                    // It is not found any more: added again, it would be another.
                    socket.registrations.iter().for_each(|place| {
                        let _ = place.compare_exchange(index + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
                    });
                }
            }
            registration.flags.fetch_or(PARKED, Ordering::Relaxed);
            entry.parked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        _ => kernel::epoll_ctl(fd, operation, target, event.as_ref()),
    }
}

/// Has the next wait look at a registration that is reported anew: the kernel, which every socket has room at some time, reports
/// of it.
fn rouse(
    fd: c_int,
    set: &SetEntry,
    index: u32,
    registration: &Registration,
    before: u32,
    event: &epoll_event,
) -> Result<(), Errno> {
    tell_kernel(fd, set, index, before, event.events)?;
    keep(registration, event);
    registration.flags.fetch_and(!(PARKED | DISABLED), Ordering::Relaxed);
    registration.flags.fetch_or(FRESH, Ordering::Relaxed);
    ask_kernel(fd, set, index, registration, event.events | EPOLLOUT as u32)
}
