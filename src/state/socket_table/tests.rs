use super::*;
use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;

/// A socket table of this test's own.
fn socket_table() -> &'static SocketTable {
    let place =
        kernel::map_anonymous(size_of::<SocketTable>(), core::ptr::null_mut(), true).expect("address space");
    // SAFETY: a zeroed mapping of that size, kept until the process ends; zeroes are a valid socket table.
    unsafe { &*place.cast::<SocketTable>() }
}

/// Four threads take and give back; whoever holds something holds it alone.
fn churn(take: impl Fn() -> u32 + Sync, give_back: impl Fn(u32) + Sync) {
    let held = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for number in 0..4usize {
            let (held, take, give_back) = (&held, &take, &give_back);
            scope.spawn(move || {
                let mut own = Vec::new();
                for round in 0..2000 {
                    let index = take();
                    assert!(held.lock().unwrap().insert(index), "{index} was handed out twice");
                    own.push(index);
                    while own.len() > (number + round) % 5 {
                        let index = own.swap_remove((round * 7) % own.len());
                        assert!(held.lock().unwrap().remove(&index));
                        give_back(index);
                    }
                }
                own.into_iter().for_each(|index| {
                    assert!(held.lock().unwrap().remove(&index));
                    give_back(index);
                });
            });
        }
    });
    assert!(held.lock().unwrap().is_empty());
}

#[test]
fn no_socket_slot_is_handed_out_twice() {
    let socket_table = socket_table();
    churn(
        || socket_table.take_socket().expect("a slot").0,
        |slot| socket_table.free_socket(slot, socket_table.socket(slot).generation.load(Ordering::Relaxed)),
    );
    // Slots were used again: at most so many were held at a time.
    assert!(socket_table.sockets_used.load(Ordering::Relaxed) <= 4 * 5);
}

#[test]
fn no_registration_is_handed_out_twice() {
    let socket_table = socket_table();
    churn(
        || {
            let index = socket_table.take_registration().expect("a registration");
            socket_table.registration(index).set.store(1, Ordering::Relaxed);
            index
        },
        |index| socket_table.free_registration(index),
    );
    assert!(socket_table.registrations_used.load(Ordering::Relaxed) <= 4 * 5);
}

#[test]
fn no_set_is_handed_out_twice() {
    let socket_table = socket_table();
    churn(
        || socket_table.take_set().expect("a set").0,
        |slot| {
            socket_table.set(slot).generation.fetch_add(1, Ordering::AcqRel);
        },
    );
}

#[test]
fn a_slot_that_changed_hands_has_another_generation_and_no_past() {
    let socket_table = socket_table();
    let (slot, entry) = socket_table.take_socket().expect("a slot");
    let first = entry.generation.load(Ordering::Relaxed);
    assert_eq!(first & 1, 1);
    entry.flags.store(SocketFlags::CONNECTED, Ordering::Relaxed);
    entry.pending_error.store(libc::EPIPE, Ordering::Relaxed);
    entry.counters.sent.store(7, Ordering::Relaxed);
    enroll(&entry.sleepers, 5);
    socket_table.free_socket(slot, first);
    socket_table.free_socket(slot, first);
    assert_eq!(entry.generation.load(Ordering::Relaxed) & 1, 0);
    assert_eq!(socket_table.totals.sent.load(Ordering::Relaxed), 7);

    let (again, entry) = socket_table.take_socket().expect("a slot");
    assert_eq!(again, slot);
    assert_ne!(entry.generation.load(Ordering::Relaxed), first);
    assert_eq!(entry.flags.load(Ordering::Relaxed), SocketFlags::empty());
    for word in [&entry.state, &entry.sleepers[0]] {
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
    assert_eq!(entry.pending_error.load(Ordering::Relaxed), 0);
    assert_eq!(entry.counters.sent.load(Ordering::Relaxed), 0);
    // It was given back once, so it is not there a second time.
    assert_ne!(socket_table.take_socket().expect("a slot").0, slot);
}

#[test]
fn a_full_table_says_so() {
    let socket_table = socket_table();
    let taken: HashSet<_> = std::iter::from_fn(|| socket_table.take_set()).map(|(slot, _)| slot).collect();
    assert_eq!(taken.len(), SETS);
    socket_table.set(3).generation.fetch_add(1, Ordering::AcqRel);
    assert_eq!(socket_table.take_set().map(|(slot, _)| slot), Some(3));
}

#[test]
fn indices_from_shared_memory_are_bounded() {
    let socket_table = socket_table();
    for index in [SOCKETS as u32, u32::MAX] {
        let _ = socket_table.socket(index);
        let _ = socket_table.set(index);
        let _ = socket_table.registration(index);
    }
    socket_table.sockets_used.store(u32::MAX, Ordering::Relaxed);
    assert!(socket_table.take_socket().is_none());
}

#[test]
fn sleepers_find_a_place_and_leave_it() {
    let sleepers = [const { AtomicU32::new(0) }; SLEEPERS];
    let me = crate::state::lock::thread();
    let place = enroll(&sleepers, me);
    assert!(!others_asleep(&sleepers, me, false));
    assert!(others_asleep(&sleepers, me + 1, false));
    leave(&sleepers, place, me + 1);
    assert!(others_asleep(&sleepers, me + 1, false));
    leave(&sleepers, place, me);
    assert!(!others_asleep(&sleepers, me + 1, false));
    leave(&sleepers, SLEEPERS, me);
}

#[test]
fn more_sleepers_than_places_are_counted() {
    let sleepers = [const { AtomicU32::new(0) }; SLEEPERS];
    let me = crate::state::lock::thread();
    let places: Vec<usize> = (0..3 * SLEEPERS).map(|_| enroll(&sleepers, me)).collect();
    let named: HashSet<usize> = places[..MORE].iter().copied().collect();
    assert_eq!(named.len(), MORE);
    assert!(places[MORE..].iter().all(|place| *place == MORE));
    assert!(others_asleep(&sleepers, me, true));
    places.iter().for_each(|place| leave(&sleepers, *place, me));
    leave(&sleepers, MORE, me);
    assert!(sleepers.iter().all(|slot| slot.load(Ordering::Relaxed) == 0));
}

#[test]
fn the_places_of_the_dead_are_taken() {
    let sleepers = [const { AtomicU32::new(0) }; SLEEPERS];
    let me = crate::state::lock::thread();
    let dead = dead_thread();
    (0..MORE).for_each(|_| _ = enroll(&sleepers, dead));
    let places: HashSet<_> = (0..MORE).map(|_| enroll(&sleepers, me)).collect();
    assert_eq!(places.len(), MORE);
    assert!(!others_asleep(&sleepers, me, false));
}

/// The number of a thread that has ended.
fn dead_thread() -> u32 {
    let dead = thread::spawn(crate::state::lock::thread).join().unwrap();
    while kernel::exists(dead) {
        thread::yield_now();
    }
    dead
}

#[test]
fn dead_sleepers_are_reaped_when_asked() {
    let sleepers = [const { AtomicU32::new(0) }; SLEEPERS];
    let me = crate::state::lock::thread();
    enroll(&sleepers, dead_thread());
    assert!(others_asleep(&sleepers, me, false));
    assert!(!others_asleep(&sleepers, me, true));
    assert!(sleepers.iter().all(|slot| slot.load(Ordering::Relaxed) == 0));
}

#[test]
fn the_layout_is_what_ss_of_this_version_expects() {
    assert_eq!(size_of::<Entry>() % 128, 0);
    assert_eq!(size_of::<Registration>(), 64);
    assert_eq!(core::mem::offset_of!(SocketTable, magic), 0);
    assert_eq!(core::mem::offset_of!(SocketTable, version), 8);
}
