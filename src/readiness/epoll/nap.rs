//! Naps of a wait in a set: on the words of its hot pipes, before it sleeps in the kernel.
//!
//! To be woken in the kernel's epoll_wait takes a byte through TCP, which somebody has to take away again; to be called by
//! a word (futex(2)) takes neither: see [`crate::pipe::waiting::nap`]. But who naps hears nothing of the kernel: of its own descriptors,
//! of cold pipes, of ends. So
//!
//! * a nap is for a few milliseconds, and where such things are told of there is none: see [`crate::state::naps`];
//! * while the pipes have always something the kernel is looked at once in a millisecond all the same (`wait.rs`);
//! * only one thread naps in a set, and while nobody sleeps in it: a call wakes all, and the kernel wakes one.

use super::hot;
use crate::pipe::connection::Pipe;
use crate::pipe::meeting::registered;
use crate::pipe::waiting::nap::{self, Joined};
use crate::state::arena::{self, Arena, FLAG_NO_SPACE, REGISTRATIONS, Registration, SetEntry};
use crate::state::lock::{self, Taken};
use crate::state::naps::LONGEST_US;
use crate::state::registrations::flags::{DISABLED, ENDING, FOREIGN, HOT, NESTED, PARKED};
use crate::state::registrations::{is_tag, lock_set};
use crate::sys::clock;
use crate::sys::deadline::Deadline;
use crate::sys::futex::{self, MOST, Words};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDNORM, epoll_event};

/// Naps in a row while all that was waited for ran on other processors, for all sets of the process.
static APART: AtomicU32 = AtomicU32::new(0);

/// What became of a nap.
pub(super) enum Napped {
    /// It was over, or cannot be here.
    Not,
    /// There may be something to tell.
    Look,
    /// A signal handler has run.
    Interrupted,
}

/// Naps until a hot pipe of the set has something.
#[inline(never)]
pub(super) fn nap(arena: &Arena, set: &SetEntry, deadline: Deadline) -> Napped {
    let now = clock::ticks();
    if !nap::is_possible()
        || !set.naps.may_begin(now)
        || nap::is_sleep_due(&APART, hot::shares_cpu(arena, set))
    {
        return Napped::Not;
    }
    let until = now.wrapping_add(clock::from_us(LONGEST_US)) | 1;
    // Who was killed in a nap does not keep others from it for longer.
    let other = set.napping.load(Ordering::Relaxed);
    let is_free = other == 0 || other.wrapping_sub(now).cast_signed() < 0;
    if !is_free || set.napping.compare_exchange(other, until, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        return Napped::Not;
    }
    let napped = nap_on_all(arena, set, deadline);
    let _ = set.napping.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
    napped
}

fn nap_on_all(arena: &Arena, set: &SetEntry, deadline: Deadline) -> Napped {
    let nanoseconds = deadline.left().unwrap_or(u64::MAX).min(LONGEST_US * 1000);
    let mut words = Words::new();
    // Under the lock: what others change they change before this, or they see that somebody naps.
    let taken = lock_set(set);
    words.add(&set.turn, set.turn.load(Ordering::Relaxed));
    let joined = match taken {
        Taken::Ours if !arena::others_asleep(&set.sleepers, lock::thread(), false) => {
            join_all(arena, set, &mut words)
        }
        _ => Joined::Cannot,
    };
    set.lock.release(taken);
    match joined {
        Joined::Cannot => return Napped::Not,
        Joined::Look => return Napped::Look,
        Joined::Napping if hot::any_bytes(arena, set) => return Napped::Look,
        Joined::Napping => {}
    }
    let Ok(called) = nap::on(&mut words, nanoseconds) else { return Napped::Interrupted };
    set.naps.note_end(clock::ticks(), called && hot::any_bytes(arena, set));
    if called { Napped::Look } else { Napped::Not }
}

/// Wants a call from every hot pipe of a set, if a nap hears of all that they wait for. Under the set's lock.
fn join_all(arena: &Arena, set: &SetEntry, words: &mut Words) -> Joined {
    let mut count = 0;
    let may_nap = for_each(arena, set, |registration, flags| match hears_of(registration, flags) {
        Some(pipe) => {
            count += usize::from(pipe.is_some());
            // Beside the set's own word.
            count < MOST
        }
        None => false,
    });
    let mut joined = Joined::Napping;
    // Not before it is certain: a call that nobody waits for costs its writer a system call.
    let all = may_nap
        && count > 0
        && for_each(arena, set, |registration, flags| {
            if let Some(Some(pipe)) = hears_of(registration, flags) {
                joined = nap::join(&pipe, words);
            }
            joined == Joined::Napping
        });
    if all || joined != Joined::Napping { joined } else { Joined::Cannot }
}

/// Calls `each` for the hot registrations that are waited for, until it says false.
fn for_each(arena: &Arena, set: &SetEntry, mut each: impl FnMut(&Registration, u32) -> bool) -> bool {
    let mut next = set.hot.load(Ordering::Relaxed);
    for _ in 0..REGISTRATIONS {
        let Some(index) = next.checked_sub(1) else { break };
        let registration = arena.registration(index);
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags & (DISABLED | PARKED) == 0 && !each(registration, flags) {
            return false;
        }
        next = registration.next_hot.load(Ordering::Relaxed);
    }
    true
}

/// The pipe whose writer calls for all that a registration waits for; `Some(None)`: it waits for nothing that comes from
/// there. `None`: no nap hears of it.
fn hears_of(registration: &Registration, flags: u32) -> Option<Option<Pipe>> {
    let wanted = registration.events.load(Ordering::Relaxed);
    if flags & (NESTED | FOREIGN | ENDING) != 0 || registration.told.load(Ordering::Relaxed) != 0 {
        return None;
    }
    let pipe = registered::pipe_of(registration)?;
    // Of room only the kernel tells. An edge of it there is not before it has been missing.
    let waits_for_room = wanted & EPOLLOUT as u32 != 0
        && (wanted & EPOLLET as u32 == 0 || pipe.entry.flags.load(Ordering::Relaxed) & FLAG_NO_SPACE != 0);
    if waits_for_room || nap::is_deaf(&pipe) {
        return None;
    }
    Some((wanted & (EPOLLIN | EPOLLRDNORM | EPOLLPRI) as u32 != 0).then_some(pipe))
}

/// Wakes who naps in a set: there is more to look at. Under its lock.
pub(super) fn end(set: &SetEntry) {
    let until = set.napping.load(Ordering::SeqCst);
    if until == 0 {
        return;
    }
    set.turn.fetch_add(1, Ordering::SeqCst);
    futex::wake(&set.turn);
    // Who was killed in a nap, or has jumped out of it, does not come back.
    let is_left =
        until.wrapping_sub(clock::ticks()).cast_signed() < -(clock::from_us(4 * LONGEST_US).cast_signed());
    if is_left {
        let _ = set.napping.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The kernel has told of these events at this time. What no nap would have heard of forbids naps for a while.
pub(super) fn note(arena: &Arena, set: &SetEntry, now: u64, told: &[epoll_event]) {
    let heard = |event: &epoll_event| {
        let registration = arena.registration(event.u64 as u32 & 0x00ff_ffff);
        is_tag(set, event.u64)
            && registration.flags.load(Ordering::Relaxed) & HOT != 0
            && event.events & !(EPOLLIN | EPOLLRDNORM) as u32 == 0
    };
    if !told.iter().all(heard) {
        set.naps.note_unheard(now);
    }
}
