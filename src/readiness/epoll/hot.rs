//! A wait's look at the hot registrations of a set.

use super::nested::{self, DEEPEST};
use super::reported::{Reported, first_publish_time};
use super::rooms::{awaits_room, news_of_room, waits_for_room};
use super::stuck;
use crate::pipe::connection::{Pipe, incoming_doorbells};
use crate::pipe::handoff::give_back;
use crate::pipe::lanes::unread;
use crate::pipe::meeting::registered;
use crate::pipe::waiting::room::{self, Room};
use crate::pipe::waiting::{events, wait};
use crate::state::flags::SocketFlags;
use crate::state::lock;
use crate::state::registrations::flags::{IDLE_ONE, RegFlags};
pub(super) use crate::state::registrations::hot::is_single;
use crate::state::registrations::hot::{retain, rotate};
use crate::state::registrations::{OpenSet, SetHeld, ask_kernel};
use crate::state::socket_table::{self, Registration, SocketTable};
use crate::sys::{clock, kernel};
use core::sync::atomic::Ordering;
use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLRDNORM};

/// Either says that there is something to read (epoll_ctl(2), poll(2)).
const READS: u32 = (EPOLLIN | EPOLLRDNORM) as u32;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::publish_time::PublishTime;

/// Scans without being ready after which a hot registration turns cold on its own.
const IDLE_SCANS: u32 = 64;
/// What the kernel reports of an end.
const ENDS: u32 = (EPOLLRDHUP | EPOLLHUP | EPOLLERR) as u32;

/// Adds what is ready among the hot registrations to what is reported already.
pub(super) fn collect(set: &SetHeld<'_>, reported: &mut Reported<'_>) {
    let began = if reported.is_ordered() { clock::ticks() } else { 0 };
    let mut looked = 0;
    let mut idle = false;
    retain(set, |index, registration| {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags.intersects(RegFlags::TOLD) {
            registration.flags.clear(RegFlags::TOLD, Ordering::Relaxed);
            looked += usize::from(!reported.is_full());
            return true;
        }
        if reported.is_full() {
            return true;
        }
        looked += 1;
        if flags.intersects(RegFlags::PARKED | RegFlags::DISABLED) {
            return flags.intersects(RegFlags::PARKED);
        }
        let Some(ready) = ready(set.table, registration) else { return false };
        if ready == 0 {
            if waits_for_room(registration, flags) {
                // Before a sleep it would be soon enough, but a program that only looks never sleeps.
                let _ = ask_kernel(set, index, registration, registration.events.load(Ordering::Relaxed));
            }
            if flags.idle_scans() >= IDLE_SCANS && !awaits_room(registration) && arm(set, index, registration)
            {
                return false;
            }
            registration.flags.add(IDLE_ONE, Ordering::Relaxed);
            idle = true;
            return true;
        }
        reported.add(index, registration, ready);
        true
    });
    // What came before the walk was there when it came by.
    if idle
        && let Some(latest) = reported.latest()
        && !latest.is_before(PublishTime::at(began))
    {
        look_for_earlier(set, reported, latest);
    }
    if reported.is_full() {
        rotate(set, looked);
    }
}

/// Reports at once a registration that the kernel has reported, so that it has the place among the kernel's own
/// descriptors that its doorbell had. [`collect`] must follow, under the same lock.
pub(super) fn report(set: &SetHeld<'_>, index: u32, said: u32, reported: &mut Reported<'_>) {
    if !note_reported(set, index, said) {
        return;
    }
    let registration = set.registration(index);
    if !registration.flags.load(Ordering::Relaxed).intersects(RegFlags::PARKED | RegFlags::DISABLED)
        && let Some(ready @ 1..) = ready(set.table, registration)
    {
        reported.add(index, registration, ready);
        registration.flags.set(RegFlags::TOLD, Ordering::Relaxed);
    }
}

/// Tells of what has come before `latest`, which has been found, to a connection that was looked at too early.
#[inline(never)]
fn look_for_earlier(set: &SetHeld<'_>, reported: &mut Reported<'_>, latest: PublishTime) {
    retain(set, |index, registration| {
        let flags = registration.flags.load(Ordering::Relaxed);
        // Those that were reported are not idle.
        if !reported.is_full()
            && !flags.intersects(RegFlags::PARKED | RegFlags::DISABLED)
            && flags.idle_scans() > 0
            && first_publish_time(registration).is_some_and(|time| time.is_before(latest))
            && let Some(ready @ 1..) = ready(set.table, registration)
        {
            reported.add(index, registration, ready);
        }
        true
    });
}

/// What a registration must report now; 0: nothing; `None`: it has nothing to look at any more.
// Not by itself, since it has several callers: 18 instructions of each wait.
#[inline(always)]
pub(super) fn ready(socket_table: &SocketTable, registration: &Registration) -> Option<u32> {
    let flags = registration.flags.load(Ordering::Relaxed);
    let wanted = registration.events.load(Ordering::Relaxed);
    if flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN) {
        return ready_other(socket_table, registration, flags, wanted);
    }
    let pipe = registered::pipe_of(registration)?.live()?;
    let mut reported = take_reported(registration);
    if reported & READS != 0 {
        incoming_doorbells::check_reported(&pipe);
    }
    let edge = wanted & EPOLLET as u32 != 0;
    if edge && pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::RING_FULL) {
        reported |= news_of_room(&pipe);
    }
    let found = found(registration, &pipe, wanted, flags, reported);
    // An end makes the socket readable: an edge, whether or not the program asks for EPOLLRDHUP.
    let ends = found & ENDS;
    let found = found & (wanted | (EPOLLERR | EPOLLHUP) as u32);
    if !edge || found == 0 {
        return Some(found);
    }
    let arrived = unread::arrived(&pipe);
    let news =
        flags.intersects(RegFlags::FRESH) || is_edge(registration, &pipe, found, ends, reported, arrived);
    if news {
        registration.reported.store(arrived, Ordering::Relaxed);
        registration.ended.fetch_or(ends, Ordering::Relaxed);
    }
    Some(if news { found } else { 0 })
}

/// What holds of a pipe now of what a registration asks: as the ring says, or the kernel.
#[inline(always)]
fn found(registration: &Registration, pipe: &Pipe, wanted: u32, flags: RegFlags, reported: u32) -> u32 {
    let asks = |event: i32| wanted & event as u32 != 0;
    let edge = asks(EPOLLET);
    let asks_room =
        asks(EPOLLOUT) && (!edge || flags.intersects(RegFlags::FRESH) || reported & EPOLLOUT as u32 != 0);
    let readable = unread::has_ring_bytes(pipe);
    // An edge reports all that holds.
    let tells_room = asks_room || (edge && readable && asks(EPOLLOUT));
    let by_ring = can_ring_say(pipe, flags, reported)
        && (!tells_room || events::at_hand(pipe, libc::POLLOUT).is_some());
    let found = if by_ring {
        let room = if tells_room { (EPOLLOUT | libc::EPOLLWRNORM) as u32 } else { 0 };
        room | if readable { READS } else { 0 }
    } else {
        let said = events::now(pipe, events::from_epoll(wanted) | libc::POLLRDHUP);
        u32::from(said as u16)
    };
    if found & ENDS != 0 {
        registration.flags.set(RegFlags::ENDING, Ordering::Relaxed);
    }
    if asks_room && found & EPOLLOUT as u32 == 0 {
        pipe.entry.flags.set(SocketFlags::NO_SPACE, Ordering::Relaxed);
    }
    found
}

/// Whether the ring alone can answer: nothing has ended, and there is no urgent data, before which its writer leaves the ring.
#[inline(always)]
fn can_ring_say(pipe: &Pipe, flags: RegFlags, reported: u32) -> bool {
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    is_ring(epoch)
        && incoming.epoch() == epoch
        && !pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SHUT_WRITE)
        && !flags.intersects(RegFlags::ENDING)
        && reported & (ENDS | libc::EPOLLPRI as u32) == 0
}

/// Whether something has happened since the last report: data, an end, or what the kernel reported.
fn is_edge(
    registration: &Registration,
    pipe: &Pipe,
    found: u32,
    ends: u32,
    reported: u32,
    arrived: u64,
) -> bool {
    let data = found & READS != 0 && registration.reported.load(Ordering::Relaxed) != arrived;
    let end = ends & !registration.ended.load(Ordering::Relaxed) != 0;
    // The kernel reports everything that holds; room is news only after there was none.
    // A write that is under way may be about to say so, and what the kernel reports it reports once.
    let is_sending = !pipe.entry.writers.is_empty();
    let room = reported & found & EPOLLOUT as u32 != 0
        && (is_sending || pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NO_SPACE));
    let sets = pipe.entry.registrations.iter().filter(|place| place.load(Ordering::Acquire) != 0).count();
    if room && sets == 1 && !is_sending {
        // With several sets it is news for each of them; an edge more does no harm.
        pipe.entry.flags.clear(SocketFlags::NO_SPACE, Ordering::Relaxed);
    }
    let urgent = reported & found & libc::EPOLLPRI as u32 != 0;
    data || end || room || urgent
}

/// What the kernel reported since the last look.
fn take_reported(registration: &Registration) -> u32 {
    registration.kernel_events.swap(0, Ordering::Relaxed)
}

/// Keeps what the kernel reported about a registration, for the look that follows. False when it is none of the set's any more.
pub(super) fn note_reported(set: &SetHeld<'_>, index: u32, reported: u32) -> bool {
    let is_there = keep_reported(set, index, reported);
    if is_there {
        registered::activate(set, index);
    }
    is_there
}

/// The same, without a change of the lists.
pub(super) fn keep_reported(set: &OpenSet<'_>, index: u32, reported: u32) -> bool {
    let registration = set.registration(index);
    let flags = registration.flags.load(Ordering::Relaxed);
    if !flags.intersects(RegFlags::MANAGED) || !set.has(registration) {
        // It was removed, or given back, while the event was on its way.
        return false;
    }
    registration.kernel_events.fetch_or(reported, Ordering::Relaxed);
    true
}

/// Nested sets, and descriptors whose data only looks like ours.
fn ready_other(
    socket_table: &SocketTable,
    registration: &Registration,
    flags: RegFlags,
    wanted: u32,
) -> Option<u32> {
    let reported = take_reported(registration);
    if flags.intersects(RegFlags::FOREIGN) {
        // The kernel's answer is exact; without one there is nothing to look at.
        return if reported != 0 { Some(reported) } else { None };
    }
    if !nested::take_news(socket_table, registration, reported) {
        return Some(0);
    }
    let readable = is_readable(&nested::inner(socket_table, registration));
    Some(if readable { wanted & READS } else { 0 })
}

/// Whether a wait in a set would find anything: what poll(2) says of an epoll descriptor.
pub(crate) fn is_readable(set: &OpenSet<'_>) -> bool {
    if has_ready(set, 0) {
        return true;
    }
    super::watch(set);
    if kernel::poll_now(set.fd, libc::POLLIN) & libc::POLLIN == 0 {
        return false;
    }
    // Doorbells that nobody has taken hold the kernel's answer up.
    settle_all(set, 0);
    kernel::poll_now(set.fd, libc::POLLIN) & libc::POLLIN != 0
}

/// Takes the doorbells of every pipe in a set, and in the sets within it.
fn settle_all(set: &OpenSet<'_>, depth: usize) {
    for (_, registration) in set.all() {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags.intersects(RegFlags::NESTED) && depth < DEEPEST {
            settle_all(&nested::inner(set.table, registration), depth + 1);
        } else if !flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN)
            && let Some(pipe) = registered::pipe_of(registration).and_then(|pipe| pipe.live())
        {
            wait::settle(&pipe);
        }
    }
}

/// Whether a wait in the set would find a pipe ready; takes nothing. Without its lock.
pub(crate) fn has_ready(set: &OpenSet<'_>, depth: usize) -> bool {
    for (_, registration) in set.hot_ones() {
        let flags = registration.flags.load(Ordering::Relaxed);
        if !flags.intersects(RegFlags::DISABLED | RegFlags::FOREIGN | RegFlags::PARKED) {
            if flags.intersects(RegFlags::NESTED) {
                if depth < DEEPEST
                    && nested::may_report(set.table, registration, depth + 1)
                    && has_ready(&nested::inner(set.table, registration), depth + 1)
                {
                    return true;
                }
            } else if let Some(pipe) = registered::pipe_of(registration)
                && is_ready_quietly(registration, &pipe)
            {
                return true;
            }
        }
    }
    false
}

fn is_ready_quietly(registration: &Registration, pipe: &Pipe) -> bool {
    let wanted = registration.events.load(Ordering::Relaxed);
    let flags = registration.flags.load(Ordering::Relaxed);
    let is_edge = wanted & EPOLLET as u32 != 0 && !flags.intersects(RegFlags::FRESH);
    if wanted & READS != 0 && unread::has_ring_bytes(pipe) {
        return !is_edge || !is_reported(registration, pipe);
    }
    if is_edge {
        return registration.kernel_events.load(Ordering::Relaxed) & (wanted | ENDS) != 0;
    }
    let incoming = pipe.incoming();
    let asks_kernel = !is_ring(incoming.reader_epoch())
        || incoming.epoch() != incoming.reader_epoch()
        || flags.intersects(RegFlags::ENDING)
        || wanted & EPOLLOUT as u32 != 0;
    asks_kernel && pipe.live().is_some_and(|pipe| events::now(&pipe, events::from_epoll(wanted)) != 0)
}

/// Whether all that has arrived was reported.
fn is_reported(registration: &Registration, pipe: &Pipe) -> bool {
    let Some(pipe) = pipe.live() else { return true };
    let arrived = unread::arrived(&pipe);
    registration.reported.load(Ordering::Relaxed) == arrived
}

/// Wants a doorbell for a registration; true when there is still nothing to report, so it may turn cold.
pub(super) fn arm(set: &OpenSet<'_>, index: u32, registration: &Registration) -> bool {
    let flags = registration.flags.load(Ordering::Relaxed);
    if flags.intersects(RegFlags::NESTED) {
        return false;
    }
    let Some(pipe) = registered::pipe_of(registration) else { return true };
    let Some(pipe) = pipe.live() else { return true };
    let wanted = registration.events.load(Ordering::Relaxed);
    let incoming = pipe.incoming();
    let epoch = incoming.epoch();
    wait::settle(&pipe);
    incoming_doorbells::want_doorbell(&pipe);
    if wanted & EPOLLOUT as u32 != 0 {
        let room = room::await_it(&pipe);
        if room == Room::GivenUp || room == Room::KernelSays && !flags.intersects(RegFlags::ASKS_ROOM) {
            // From the kernel, which alone can wake for it. It reports at once when there is room by now.
            let _ = ask_kernel(set, index, registration, wanted);
        }
        if matches!(room, Room::GivenUp | Room::Some) {
            return false;
        }
    }
    if registration.kernel_events.load(Ordering::Relaxed) != 0
        || incoming.epoch() != epoch
        || give_back::is_due(&pipe)
    {
        return false;
    }
    if wanted & EPOLLET as u32 == 0 || flags.intersects(RegFlags::FRESH) {
        // The kernel reports its bytes, of room and of an end once. Another thread may have read a part of them, and armed
        // the registration again after this one's last look.
        return !is_ready_quietly(registration, &pipe);
    }
    // Edge-triggered, and reported already: the next publication rings.
    !unread::has_bytes_next(&pipe) || wanted & READS == 0 || is_reported(registration, &pipe)
}

/// Makes every registration hot again after somebody has looked without the lock, who cannot change the lists. The kernel has
/// told that thread of what may not have been read yet, and tells it once. Not inside a call that a signal has interrupted, perhaps
/// in the middle of a walk: that call, or the next one, does it.
#[inline]
pub(super) fn put_back(set: &SetHeld<'_>) {
    if set.is_first() && set.overlooked.load(Ordering::Relaxed) != 0 {
        put_all_back(set);
    }
}

#[cold]
#[inline(never)]
fn put_all_back(set: &SetHeld<'_>) {
    set.overlooked.store(0, Ordering::Relaxed);
    for (index, registration) in set.all() {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags & (RegFlags::MANAGED | RegFlags::HOT) == RegFlags::MANAGED {
            registered::activate(set, index);
        }
    }
}

/// Wants a doorbell for every hot registration before a sleep, and those of nested sets. False when something
/// is ready after all.
pub(crate) fn arm_all(set: &SetHeld<'_>, depth: usize) -> bool {
    let mut quiet = true;
    retain(set, |index, registration| {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags.intersects(RegFlags::PARKED) {
            return true;
        }
        if flags.intersects(RegFlags::DISABLED | RegFlags::FOREIGN) {
            return false;
        }
        if flags.intersects(RegFlags::NESTED) {
            // What was reported, or does not count here, keeps nobody awake. The next publication rings.
            quiet &= arm_nested(set.table, registration, depth)
                || !nested::may_report(set.table, registration, depth + 1);
            // Always looked at: the kernel does not know what is in the rings of the inner set.
            return true;
        }
        if !arm(set, index, registration) {
            quiet = false;
            return true;
        }
        // What was active lately stays hot over the sleep; see `disarm_all`.
        registration.flags.set(RegFlags::ARMED, Ordering::Relaxed);
        flags.idle_scans() < IDLE_SCANS || awaits_room(registration)
    });
    quiet
}

/// The same for a set within the set.
pub(super) fn arm_nested(socket_table: &SocketTable, registration: &Registration, depth: usize) -> bool {
    if depth >= nested::DEEPEST {
        return true;
    }
    arm_whole(&nested::inner(socket_table, registration), depth + 1)
}

/// The same, of a set that is looked at from outside.
pub(crate) fn arm_whole(set: &OpenSet<'_>, depth: usize) -> bool {
    match set.lock() {
        Some(held) => {
            put_back(&held);
            arm_all(&held, depth)
        }
        None => stuck::arm_all(set, depth),
    }
}

/// After a sleep: while this thread is awake and looks at the hot pipes by itself, their writers need not ring.
/// One doorbell wakes it, not one per pipe.
pub(super) fn disarm_all(set: &SetHeld<'_>) {
    // Those who sleep in a set around this one are not known here.
    let is_watched = set.watched.load(Ordering::Relaxed) != 0;
    if is_watched || socket_table::others_asleep(&set.sleepers, lock::thread(), true) {
        return;
    }
    retain(set, |index, registration| {
        let flags = registration.flags.clear(RegFlags::ARMED, Ordering::Relaxed);
        if flags.intersects(RegFlags::ARMED)
            && let Some(pipe) = registered::pipe_of(registration)
        {
            // Under the lock under which others say that they want a doorbell.
            let held = pipe.lock_reads();
            let alone = pipe.entry.registrations.iter().all(|place| {
                let other = place.load(Ordering::Acquire);
                other == 0 || other == index + 1
            });
            if alone && !socket_table::others_asleep(&pipe.entry.sleepers, 0, true) {
                held.incoming().unwant_doorbell();
            }
        }
        true
    });
}

/// Whether any hot registration has ring bytes; the look of a spinning waiter, without the lock.
pub(super) fn any_bytes(set: &OpenSet<'_>) -> bool {
    set.hot_ones().any(|(_, registration)| {
        if registration
            .flags
            .load(Ordering::Relaxed)
            .intersects(RegFlags::DISABLED | RegFlags::NESTED | RegFlags::FOREIGN | RegFlags::PARKED)
        {
            return false;
        }
        let Some(pipe) = registered::pipe_of(registration) else { return false };
        let incoming = pipe.incoming();
        let wanted = registration.events.load(Ordering::Relaxed);
        let edge = wanted & EPOLLET as u32 != 0;
        wanted & READS != 0 && incoming.has_bytes() && (!edge || !is_reported(registration, &pipe))
            || incoming.epoch() != incoming.reader_epoch()
            || wanted & EPOLLOUT as u32 != 0 && room::has_come(&pipe)
    })
}

/// Whether the producer of any hot pipe last ran on this processor.
pub(super) fn shares_cpu(set: &OpenSet<'_>) -> bool {
    const LOOKS: usize = 4;
    set.hot_ones()
        .take(LOOKS)
        .any(|(_, registration)| registered::pipe_of(registration).is_some_and(|pipe| pipe.is_writer_here()))
}
