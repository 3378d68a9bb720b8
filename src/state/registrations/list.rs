//! The registrations of a set: a list in shared memory, under the set's lock.

use super::flags::RegFlags;
use super::{OpenSet, SetHeld};
use crate::state::descriptor_table::Descriptor;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// The registration of `target` in a set.
pub(crate) fn find(set: &OpenSet<'_>, target: c_int, kind: Descriptor) -> Option<u32> {
    let is_it = |index: &u32| {
        let registration = set.registration(*index);
        set.has(registration) && registration.fd.load(Ordering::Relaxed) == target
    };
    if let Descriptor::Socket(socket) = kind {
        let entry = socket.entry()?;
        let places = entry.registrations.iter();
        return places.filter_map(|place| place.load(Ordering::Acquire).checked_sub(1)).find(is_it);
    }
    // Sets within sets and look-alike data are rare.
    set.all().map(|(index, _)| index).find(is_it)
}

/// Enters a registration that has just been taken; false when the socket cannot remember it.
pub(crate) fn insert(set: &SetHeld<'_>, index: u32, target: c_int, kind: Descriptor, managed: bool) -> bool {
    let registration = set.registration(index);
    let (slot, generation, mut flags) = match kind {
        Descriptor::Socket(socket) => (socket.slot, socket.generation, RegFlags::FRESH),
        Descriptor::Set(inner) => (inner.slot, inner.generation, RegFlags::FRESH | RegFlags::NESTED),
        Descriptor::Host => (0, 0, RegFlags::FRESH | RegFlags::FOREIGN),
    };
    if managed {
        flags |= RegFlags::MANAGED;
    }
    registration.set.store(set.slot().wrapping_add(1), Ordering::Relaxed);
    registration.slot.store(slot, Ordering::Relaxed);
    registration.generation.store(generation, Ordering::Relaxed);
    registration.fd.store(target, Ordering::Relaxed);
    registration.reported.store(u64::MAX, Ordering::Relaxed);
    registration.kernel_events.store(0, Ordering::Relaxed);
    registration.ended.store(0, Ordering::Relaxed);
    registration.flags.store(flags, Ordering::Relaxed);
    let remembered = match kind {
        Descriptor::Socket(socket) => socket.entry().is_some_and(|entry| {
            entry.registrations.iter().any(|place| {
                place.compare_exchange(0, index + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            })
        }),
        _ => true,
    };
    if !remembered {
        set.table.free_registration(index);
        return false;
    }
    let first = set.first.load(Ordering::Relaxed);
    registration.next.store(first, Ordering::Relaxed);
    registration.previous.store(0, Ordering::Relaxed);
    if let Some(first) = first.checked_sub(1) {
        set.registration(first).previous.store(index + 1, Ordering::Relaxed);
    }
    set.first.store(index + 1, Ordering::Release);
    if managed {
        set.managed.fetch_add(1, Ordering::Release);
    }
    true
}

/// Takes a registration out of its set, its socket and the hot list, and frees it.
pub(crate) fn remove(set: &SetHeld<'_>, index: u32) {
    let registration = set.registration(index);
    if !set.has(registration) {
        return;
    }
    let flags = registration.flags.load(Ordering::Relaxed);
    if flags.intersects(RegFlags::HOT) {
        super::hot::deactivate(set, index);
    }
    let (next, previous) =
        (registration.next.load(Ordering::Relaxed), registration.previous.load(Ordering::Relaxed));
    match previous.checked_sub(1) {
        Some(previous) => set.registration(previous).next.store(next, Ordering::Relaxed),
        None => set.first.store(next, Ordering::Relaxed),
    }
    if let Some(next) = next.checked_sub(1) {
        set.registration(next).previous.store(previous, Ordering::Relaxed);
    }
    if !flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN) {
        let socket = set.table.socket(registration.slot.load(Ordering::Relaxed));
        for place in &socket.registrations {
            let _ = place.compare_exchange(index + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    if flags.intersects(RegFlags::MANAGED) {
        set.managed.fetch_sub(1, Ordering::Release);
    }
    if flags.intersects(RegFlags::PARKED) {
        set.parked.fetch_sub(1, Ordering::Relaxed);
    }
    set.table.free_registration(index);
}
