//! Timed waits of a wait in a set: on the words of its hot pipes, before it sleeps in the kernel.
//!
//! To be woken in the kernel's epoll_wait takes a byte through TCP, which somebody has to take away again; to be woken by a
//! word (futex(2)) takes neither: see [`crate::pipe::waiting::timed_wait`]. But a thread that waits on the futex hears nothing
//! of the kernel: of its own descriptors, of cold pipes, of ends. So
//!
//! * a timed wait is for a few milliseconds, and where such things are reported there is none: see [`crate::state::timed_waits`];
//! * while the pipes have always something the kernel is looked at once in a millisecond all the same (`wait.rs`);
//! * only one thread waits on the futex in a set, and while nobody sleeps in it: a futex wake wakes all, and the kernel wakes one.

use super::hot;
use crate::pipe::connection::Pipe;
use crate::pipe::meeting::registered;
use crate::pipe::waiting::events;
use crate::pipe::waiting::timed_wait::{self, Joined};
use crate::state::flags::SocketFlags;
use crate::state::lock;
use crate::state::registrations::flags::RegFlags;
use crate::state::registrations::{OpenSet, SetHeld, is_tag};
use crate::state::socket_table::{self, Registration, SetEntry};
use crate::state::timed_waits::LONGEST_US;
use crate::sys::clock;
use crate::sys::deadline::Deadline;
use crate::sys::futex::{self, MOST, Words};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDNORM, epoll_event};

/// Timed waits in a row while all that was waited for ran on other processors, for all sets of the process.
static APART: AtomicU32 = AtomicU32::new(0);

/// What became of a timed wait.
pub(super) enum TimedWait {
    /// It was over, or cannot be here.
    Not,
    /// There may be something to report.
    Look,
    /// A signal handler has run.
    Interrupted,
}

/// Waits on the futex until a hot pipe of the set has something.
#[inline(never)]
pub(super) fn wait(set: &OpenSet<'_>, deadline: Deadline) -> TimedWait {
    let now = clock::ticks();
    if !timed_wait::is_possible()
        || !set.timed_waits.may_begin(now)
        || timed_wait::is_sleep_due(&APART, hot::shares_cpu(set))
    {
        return TimedWait::Not;
    }
    let until = now.wrapping_add(clock::from_us(LONGEST_US)) | 1;
    // A thread that was killed in a timed wait does not keep others from it for longer.
    let other = set.timed_wait_until.load(Ordering::Relaxed);
    let is_free = other == 0 || other.wrapping_sub(now).cast_signed() < 0;
    if !is_free
        || set.timed_wait_until.compare_exchange(other, until, Ordering::SeqCst, Ordering::Relaxed).is_err()
    {
        return TimedWait::Not;
    }
    let result = wait_on_all(set, deadline);
    let _ = set.timed_wait_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
    result
}

fn wait_on_all(set: &OpenSet<'_>, deadline: Deadline) -> TimedWait {
    let nanoseconds = deadline.left().unwrap_or(u64::MAX).min(LONGEST_US * 1000);
    let mut words = Words::new();
    // Under the lock: what others change they change before this, or they see that somebody waits on the futex.
    let held = set.lock();
    words.add(&set.wake_word, set.wake_word.load(Ordering::Relaxed));
    let joined = match &held {
        Some(held)
            if held.is_first() && !socket_table::others_asleep(&set.sleepers, lock::thread(), false) =>
        {
            join_all(held, &mut words)
        }
        _ => Joined::Cannot,
    };
    drop(held);
    match joined {
        Joined::Cannot => return TimedWait::Not,
        Joined::Look => return TimedWait::Look,
        Joined::Waiting if hot::any_bytes(set) => return TimedWait::Look,
        Joined::Waiting => {}
    }
    let Ok(woken) = timed_wait::on(&mut words, nanoseconds) else { return TimedWait::Interrupted };
    set.timed_waits.note_end(clock::ticks(), woken && hot::any_bytes(set));
    if woken { TimedWait::Look } else { TimedWait::Not }
}

/// Wants a futex wake from every hot pipe of a set, if a timed wait hears of all that they wait for.
fn join_all(set: &SetHeld<'_>, words: &mut Words) -> Joined {
    let mut count = 0;
    let may_wait_timed = for_each(set, |registration, flags| match hears_of(registration, flags) {
        Some(pipe) => {
            count += usize::from(pipe.is_some());
            // Beside the set's own word.
            count < MOST
        }
        None => false,
    });
    let mut joined = Joined::Waiting;
    // Not before it is certain: a futex wake that nobody waits for costs its writer a system call.
    let all = may_wait_timed
        && count > 0
        && for_each(set, |registration, flags| {
            if let Some(Some(pipe)) = hears_of(registration, flags) {
                joined = timed_wait::join(&pipe, words);
            }
            joined == Joined::Waiting
        });
    if all || joined != Joined::Waiting { joined } else { Joined::Cannot }
}

/// Calls `each` for the hot registrations that are waited for, until it says false.
fn for_each(set: &OpenSet<'_>, mut each: impl FnMut(&Registration, RegFlags) -> bool) -> bool {
    set.hot_ones().all(|(_, registration)| {
        let flags = registration.flags.load(Ordering::Relaxed);
        flags.intersects(RegFlags::DISABLED | RegFlags::PARKED) || each(registration, flags)
    })
}

/// The pipe whose writer wakes for all that a registration waits for; `Some(None)`: it waits for nothing that comes from
/// there. `None`: no timed wait hears of it.
fn hears_of(registration: &Registration, flags: RegFlags) -> Option<Option<Pipe>> {
    let wanted = registration.events.load(Ordering::Relaxed);
    if flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN | RegFlags::ENDING)
        || registration.kernel_events.load(Ordering::Relaxed) != 0
    {
        return None;
    }
    let pipe = registered::pipe_of(registration)?;
    // Only the kernel reports room. An edge of it there is not before it has been missing.
    let waits_for_room = wanted & EPOLLOUT as u32 != 0
        && (wanted & EPOLLET as u32 == 0
            || pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NO_SPACE));
    if waits_for_room || timed_wait::is_deaf(&pipe) {
        return None;
    }
    Some((events::from_epoll(wanted) & events::COMING != 0).then_some(pipe))
}

/// Wakes the thread that waits on the futex in a set: there is more to look at. Under its lock.
pub(super) fn end(set: &SetEntry) {
    let until = set.timed_wait_until.load(Ordering::SeqCst);
    if until == 0 {
        return;
    }
    set.wake_word.fetch_add(1, Ordering::SeqCst);
    futex::wake(&set.wake_word);
    // A thread that was killed in a timed wait, or has jumped out of it, does not come back.
    let is_left =
        until.wrapping_sub(clock::ticks()).cast_signed() < -(clock::from_us(4 * LONGEST_US).cast_signed());
    if is_left {
        let _ = set.timed_wait_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The kernel has reported these events at this time. What no timed wait would have heard of forbids timed waits for a while.
pub(super) fn note(set: &OpenSet<'_>, now: u64, reported: &[epoll_event]) {
    let heard = |event: &epoll_event| {
        let registration = set.registration(event.u64 as u32 & 0x00ff_ffff);
        is_tag(set, event.u64)
            && registration.flags.load(Ordering::Relaxed).intersects(RegFlags::HOT)
            && event.events & !(EPOLLIN | EPOLLRDNORM) as u32 == 0
    };
    if !reported.iter().all(heard) {
        set.timed_waits.note_unheard(now);
    }
}
