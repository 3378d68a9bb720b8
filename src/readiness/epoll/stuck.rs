//! A set whose lock is not to be had: its owner is stopped, or frozen, in the middle of a walk over the lists.
//!
//! What it does yet when it goes on must find the lists as it left them. So nobody else changes them: whoever waits looks at every
//! registration in the table, through no list, and has the kernel report all of them; what the program adds is the
//! kernel's; and what it deletes is marked, and deleted later. All that is slower than with the lists, and the program gets
//! the same events.
//!
//! What was reported so is on no list: who has the lock next puts all registrations back on the hot one ([`hot::put_back`]).

use super::reported::Reported;
use super::{Wanted, add_unseen, check_exclusive, hot};
use crate::error::Errno;
use crate::state::descriptor_table::Descriptor;
use crate::state::reason::Reason;
use crate::state::registrations::flags::RegFlags;
use crate::state::registrations::{OpenSet, ask_kernel, can_park, keep, list, tell_kernel};
use crate::state::socket_table::{REGISTRATIONS, Registration};
use core::sync::atomic::Ordering;
use libc::{EPOLLEXCLUSIVE, EPOLLOUT, epoll_event};

/// Calls `each` for every registration of a set that the kernel knows by our tag.
fn for_each(set: &OpenSet<'_>, mut each: impl FnMut(u32, &Registration, RegFlags)) {
    set.overlooked.store(1, Ordering::Relaxed);
    let used = set.table.registrations_used.load(Ordering::Acquire).min(REGISTRATIONS as u32);
    for index in 0..used {
        let registration = set.registration(index);
        let flags = registration.flags.load(Ordering::Relaxed);
        if set.has(registration)
            && flags & (RegFlags::MANAGED | RegFlags::PARKED | RegFlags::DISABLED) == RegFlags::MANAGED
        {
            each(index, registration, flags);
        }
    }
}

/// As [`hot::note_reported`].
pub(super) fn note_reported(set: &OpenSet<'_>, index: u32, reported: u32) {
    set.overlooked.store(1, Ordering::Relaxed);
    hot::keep_reported(set, index, reported);
}

/// As [`hot::collect`].
pub(super) fn collect(set: &OpenSet<'_>, reported: &mut Reported<'_>) {
    for_each(set, |index, registration, _| {
        if !reported.is_full()
            && let Some(ready @ 1..) = hot::ready(set.table, registration)
        {
            reported.add(index, registration, ready);
        }
    });
}

/// As [`hot::arm_all`].
pub(super) fn arm_all(set: &OpenSet<'_>, depth: usize) -> bool {
    let mut quiet = true;
    for_each(set, |index, registration, flags| {
        if flags.intersects(RegFlags::NESTED) {
            quiet &= hot::arm_nested(set.table, registration, depth);
        } else if !flags.intersects(RegFlags::FOREIGN) {
            registration.flags.set(RegFlags::ARMED, Ordering::Relaxed);
            quiet &= hot::arm(set, index, registration);
        }
    });
    quiet
}

/// epoll_ctl(2).
pub(super) fn ctl(set: &OpenSet<'_>, wanted: &Wanted) -> Result<(), Errno> {
    let &Wanted { operation, target, event, kind, interesting } = wanted;
    let Some(index) = list::find(set, target, kind) else {
        return match (operation, event) {
            (libc::EPOLL_CTL_ADD, Some(event)) if interesting => {
                check_exclusive(event.events, kind)?;
                add_unseen(set.fd, target, &event, Reason::Stopped)
            }
            _ => wanted.by_kernel(set),
        };
    };
    let registration = set.registration(index);
    let flags = registration.flags.load(Ordering::Relaxed);
    let before = registration.events.load(Ordering::Relaxed);
    match (operation, event, flags.intersects(RegFlags::PARKED)) {
        (libc::EPOLL_CTL_ADD, Some(event), true) => {
            check_exclusive(event.events, kind)?;
            registration.reported.store(u64::MAX, Ordering::Relaxed);
            registration.ended.store(0, Ordering::Relaxed);
            set.parked.fetch_sub(1, Ordering::Relaxed);
            rouse(set, index, registration, before, &event)
        }
        (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _, true) => Err(Errno(libc::ENOENT)),
        (libc::EPOLL_CTL_MOD, Some(event), _)
            if !flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN)
                && flags.intersects(RegFlags::MANAGED) =>
        {
            if (before | event.events) & EPOLLEXCLUSIVE as u32 != 0 {
                return Err(Errno(libc::EINVAL));
            }
            rouse(set, index, registration, before, &event)
        }
        (libc::EPOLL_CTL_MOD, Some(event), _) if !flags.intersects(RegFlags::MANAGED) => {
            wanted.by_kernel(set)?;
            keep(registration, &event);
            Ok(())
        }
        (libc::EPOLL_CTL_DEL, _, _) => {
            if !can_park(set, index) {
                wanted.by_kernel(set)?;
                if let Descriptor::Socket(socket) = kind
                    && let Some(socket) = socket.entry()
                {
                    // It is not found any more: added again, it would be another.
                    socket.registrations.iter().for_each(|place| {
                        let _ = place.compare_exchange(index + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
                    });
                }
            }
            registration.flags.set(RegFlags::PARKED, Ordering::Relaxed);
            set.parked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        _ => wanted.by_kernel(set),
    }
}

/// Has the next wait look at a registration that is reported anew: the kernel, which every socket has room at some time, reports
/// of it.
fn rouse(
    set: &OpenSet<'_>,
    index: u32,
    registration: &Registration,
    before: u32,
    event: &epoll_event,
) -> Result<(), Errno> {
    set.overlooked.store(1, Ordering::Relaxed);
    tell_kernel(set, index, before, event.events)?;
    keep(registration, event);
    registration.flags.clear(RegFlags::PARKED | RegFlags::DISABLED, Ordering::Relaxed);
    registration.flags.set(RegFlags::FRESH, Ordering::Relaxed);
    ask_kernel(set, index, registration, event.events | EPOLLOUT as u32)
}
