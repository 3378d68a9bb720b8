//! The hot registrations of a set: those that every wait looks at.

use super::flags::RegFlags;
use super::list;
use super::{OpenSet, SetHeld};
use crate::state::socket_table::{REGISTRATIONS, Registration};
use core::sync::atomic::{AtomicU32, Ordering};

/// Puts a registration at the end of the list, unless it is there: what became ready first is reported first, as in the kernel's
/// list. What its flags were before.
#[inline]
pub(crate) fn append(set: &SetHeld<'_>, index: u32) -> RegFlags {
    let registration = set.registration(index);
    let flags = registration.flags.set(RegFlags::HOT, Ordering::Relaxed);
    if !flags.intersects(RegFlags::HOT) {
        registration.next_hot.store(0, Ordering::Relaxed);
        end(set).store(index + 1, Ordering::Release);
        set.last_hot.store(index + 1, Ordering::Relaxed);
    }
    flags
}

/// The link at the end of the list. A thread that was killed in the middle of a change has left `last_hot` a step behind.
fn end<'a>(set: &'a SetHeld<'_>) -> &'a AtomicU32 {
    let mut link = match set.last_hot.load(Ordering::Relaxed).checked_sub(1) {
        Some(last) if set.hot.load(Ordering::Relaxed) != 0 => &set.registration(last).next_hot,
        _ => &set.hot,
    };
    for _ in 0..REGISTRATIONS {
        let Some(index) = link.load(Ordering::Relaxed).checked_sub(1) else { break };
        link = &set.registration(index).next_hot;
    }
    link
}

/// Takes a registration off the list.
pub(super) fn deactivate(set: &SetHeld<'_>, index: u32) {
    retain(set, |current, _| current != index);
}

/// Calls `each` for every hot registration; those for which it says false turn cold.
#[inline(always)]
pub(crate) fn retain(set: &SetHeld<'_>, mut each: impl FnMut(u32, &Registration) -> bool) {
    let (mut link, mut before) = (&set.hot, 0);
    for _ in 0..REGISTRATIONS {
        let here = link.load(Ordering::Relaxed);
        let Some(index) = here.checked_sub(1) else { break };
        let registration = set.registration(index);
        if each(index, registration) {
            (link, before) = (&registration.next_hot, here);
        } else {
            let next = registration.next_hot.load(Ordering::Relaxed);
            if next == 0 {
                set.last_hot.store(before, Ordering::Relaxed);
            }
            link.store(next, Ordering::Relaxed);
            registration.flags.clear(RegFlags::HOT, Ordering::Relaxed);
        }
    }
}

/// Takes every parked registration out of the set, after `last` has been done with it.
pub(super) fn remove_parked(set: &SetHeld<'_>, last: impl Fn(&Registration)) {
    for (index, registration) in set.hot_ones() {
        if registration.flags.load(Ordering::Relaxed).intersects(RegFlags::PARKED) {
            last(registration);
            list::remove(set, index);
        }
    }
}

/// Moves the first `count` hot registrations behind the others, so that a short answer is fair.
pub(crate) fn rotate(set: &SetHeld<'_>, count: usize) {
    let first = set.hot.load(Ordering::Relaxed);
    let mut link = &set.hot;
    let mut last_moved = None;
    for _ in 0..count {
        let Some(index) = link.load(Ordering::Relaxed).checked_sub(1) else { return };
        last_moved = Some(index);
        link = &set.registration(index).next_hot;
    }
    let Some(last_moved) = last_moved else { return };
    let rest = link.load(Ordering::Relaxed);
    if rest == 0 {
        return;
    }
    end(set).store(first, Ordering::Relaxed);
    set.registration(last_moved).next_hot.store(0, Ordering::Relaxed);
    set.hot.store(rest, Ordering::Relaxed);
    set.last_hot.store(last_moved + 1, Ordering::Relaxed);
}

/// Whether there is at most one hot registration.
pub(crate) fn is_single(set: &OpenSet<'_>) -> bool {
    set.hot_ones().nth(1).is_none()
}
