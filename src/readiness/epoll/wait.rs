//! epoll_wait(2) and its relatives.

use super::reported::{MOST, Reported};
use super::timed_wait::{self, TimedWait};
use super::{hot, is_tag, poke, stuck};
use crate::error::{Errno, answer};
use crate::pipe::copying::buffers;
use crate::pipe::waiting::{room, spin};
use crate::readiness::check_interrupted;
use crate::state::descriptor_table::Set;
use crate::state::lock;
use crate::state::registrations::{OpenSet, SetHeld};
use crate::state::socket_table::{self, SetEntry};
use crate::sys::deadline::Deadline;
use crate::sys::handlers::Since;
use crate::sys::{cancel, clock, kernel, real};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{epoll_event, sigset_t};

/// Microseconds after which the kernel's own descriptors are looked at although pipes are ready; and while timed waits pay,
/// because such descriptors have reported nothing for long.
const LOOK_EVERY_US: u64 = 200;
const LOOK_SELDOM_US: u64 = 1000;

/// Spins of one wait that may find something of which then nothing is reported; and looks, after which it waits on the futex
/// between them.
const SPINS_IN_VAIN: u32 = 3;
const LOOKS_IN_VAIN: u32 = 100;

/// How well spinning paid lately in waits, for all sets of the process.
static SPIN: AtomicU32 = AtomicU32::new(0);

/// epoll_wait(2) that does not wait, on a set that holds no socket of ours; in as few instructions as can be. `None`: it
/// holds one, and nothing has happened.
///
/// Not by libc's function: after a system call a processor mostly guesses wrong where a function returns to, and that
/// would be one function more.
///
/// # Safety
/// As for [`wait`].
#[inline(always)]
pub(crate) unsafe fn look(fd: c_int, set: Set, events: *mut epoll_event, most: c_int) -> Option<c_int> {
    let socket_table = socket_table::get()?;
    let entry = socket_table.set(set.slot);
    if entry.first.load(Ordering::Acquire) != 0 {
        return None;
    }
    cancel::point();
    let reported = answer(kernel::epoll_look(fd, events, most)) as c_int;
    for place in 0..reported.max(0) as usize {
        // SAFETY: the kernel has just filled that many.
        let event = unsafe { events.wrapping_add(place).read() };
        if is_tag(entry, event.u64) {
            // SAFETY: the kernel has just filled that many.
            let out = unsafe { core::slice::from_raw_parts_mut(events, reported as usize) };
            return Some(report(&OpenSet::new(socket_table, fd, set.slot), out, reported as usize) as c_int);
        }
    }
    Some(reported)
}

/// epoll_pwait2(2) on a set that we saw made. `limit` is in nanoseconds, `None` for ever; `kernel` makes the
/// call that the program made.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `events` has room for `most` events, unless the kernel says EFAULT; `mask` is null or a signal mask.
#[inline]
pub(crate) unsafe fn wait(
    fd: c_int,
    set: Set,
    events: *mut epoll_event,
    most: c_int,
    limit: Option<u64>,
    mask: *const sigset_t,
    kernel: impl FnOnce() -> c_int,
) -> c_int {
    let Some(socket_table) = socket_table::get() else { return kernel() };
    let set = OpenSet::new(socket_table, fd, set.slot);
    if set.first.load(Ordering::Acquire) != 0 {
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        let found = unsafe { wait_for_pipes(&set, events, most, Deadline::after(limit), mask) };
        return answer(found) as c_int;
    }
    // No socket of ours in it, though one may come while we wait: it wakes us (`epoll::poke`), and then there
    // are tags to translate.
    let since = if limit.is_some_and(|limit| limit > 0) { kernel::coarse_ns() } else { 0 };
    let me = lock::thread();
    let place = (limit != Some(0)).then(|| socket_table::enroll(&set.sleepers, me));
    let reported = kernel();
    if let Some(place) = place {
        socket_table::leave(&set.sleepers, place, me);
    }
    if reported <= 0 {
        return reported;
    }
    // SAFETY: the kernel has just filled that many.
    let out = unsafe { core::slice::from_raw_parts_mut(events, reported as usize) };
    if !out.iter().any(|event| is_tag(&set, event.u64)) {
        return reported;
    }
    let count = report(&set, out, reported as usize);
    if count > 0 || limit == Some(0) {
        return count as c_int;
    }
    // The coarse clock may be a tick (10 ms at most) behind: rather late than early.
    let left =
        limit.map(|limit| limit.saturating_sub(kernel::coarse_ns().saturating_sub(since + 10_000_000)));
    // SAFETY: `events` and `mask` are the program's, as the caller says.
    answer(unsafe { wait_for_pipes(&set, events, most, Deadline::after(left), mask) }) as c_int
}

/// [`wait`] on a set that holds a socket of ours, which may be on a pipe.
///
/// # Safety
/// As for [`wait`].
#[inline(never)]
unsafe fn wait_for_pipes(
    set: &OpenSet<'_>,
    events: *mut epoll_event,
    most: c_int,
    deadline: Deadline,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    cancel::point();
    let there = most > 0 && buffers::is_good(events, most.min(64) as usize * size_of::<epoll_event>(), true);
    if set.managed.load(Ordering::Acquire) == 0 || !there {
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        return unsafe { wait_plain(set, events, most, deadline, mask) };
    }
    // SAFETY: `events` and `mask` are the program's, as the caller says.
    let out = unsafe { core::slice::from_raw_parts_mut(events, most as usize) };
    let generation = set.generation.load(Ordering::Acquire);
    let mut in_vain = 0;
    // Known from the first look on that has found nothing.
    let mut began = None;
    loop {
        let now = clock::ticks();
        let is_hot = set.hot.load(Ordering::Acquire) != 0;
        let overdue = is_overdue(set, now);
        // The kernel's call would still have the set that another thread has closed meanwhile; a thread that spins, waits on
        // the futex or looks has not.
        let is_gone = || set.generation.load(Ordering::Acquire) != generation;
        if in_vain > 0 && is_gone() {
            return Err(Errno(libc::EBADF));
        }
        // After a spin or a timed wait the pipes first, and the kernel only if they had nothing.
        if is_hot && (in_vain > 0 || !overdue) {
            let count = report(set, out, 0);
            if count > 0 {
                return Ok(count);
            }
        }
        if is_hot && overdue || deadline.is_now() {
            // The kernel's own descriptors first: a pipe that is always ready must not starve them.
            let reported = kernel::epoll_now(set.fd, out)?;
            note_look(set, now, &out[..reported], out.len());
            let count = report(set, out, reported);
            if count > 0 || deadline.is_now() {
                return Ok(count);
            }
        }
        let since = *began.get_or_insert_with(Since::now);
        // What it was is gone, or nothing that this thread may have: no reason not to sleep.
        if is_hot && in_vain < SPINS_IN_VAIN && spin_for(set) {
            in_vain += 1;
            continue;
        }
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        unsafe { check_interrupted(since, mask) }?;
        // With a mask of the wait's own its handlers run in the kernel's call only.
        if is_hot && in_vain < SPINS_IN_VAIN && mask.is_null() {
            match timed_wait::wait(set, deadline) {
                TimedWait::Not if is_gone() => return Err(Errno(libc::EBADF)),
                TimedWait::Not => {}
                TimedWait::Look => {
                    in_vain += 1;
                    continue;
                }
                TimedWait::Interrupted if is_gone() => return Err(Errno(libc::EINTR)),
                TimedWait::Interrupted => {
                    let count = report(set, out, 0);
                    return if count > 0 { Ok(count) } else { Err(Errno(libc::EINTR)) };
                }
            }
        }
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        match unsafe { sleep(set, out, deadline, mask, since) } {
            Ok(Slept::Until { reported, is_short }) => {
                note_look(set, clock::ticks(), &out[..reported], out.len());
                let count = report(set, out, reported);
                if count > 0 || reported == 0 && !is_short {
                    return Ok(count);
                }
            }
            Ok(Slept::OnWhatIsGone) => return Ok(0),
            Ok(Slept::Not) => {}
            Err(error) => return Err(error),
        }
        if deadline.left() == Some(0) {
            let count = report(set, out, 0);
            return Ok(count);
        }
        in_vain += 1;
        if in_vain > LOOKS_IN_VAIN && !kernel::sleep_us(100) {
            return Err(Errno(libc::EINTR));
        }
    }
}

/// Whether it is time to look at the kernel's own descriptors.
fn is_overdue(set: &SetEntry, now: u64) -> bool {
    let passed = now.wrapping_sub(set.looked.load(Ordering::Relaxed));
    passed > clock::from_us(LOOK_EVERY_US)
        && (passed > clock::from_us(LOOK_SELDOM_US) || !set.timed_waits.pay(now))
}

/// The kernel has reported these events, where there was room for so many. While it may have more to report of its own
/// descriptors it is asked in each wait; after that not before a spin is over. A doorbell is no such event.
fn note_look(set: &OpenSet<'_>, now: u64, reported: &[epoll_event], room: usize) {
    timed_wait::note(set, now, reported);
    let has_more = reported.len() == room || reported.iter().any(|event| !is_tag(set, event.u64));
    set.looked.store(if has_more { 0 } else { now }, Ordering::Relaxed);
}

/// A set without pipes: the kernel's call. A pipe may come into it meanwhile.
///
/// # Safety
/// As for [`wait`].
unsafe fn wait_plain(
    set: &OpenSet<'_>,
    events: *mut epoll_event,
    most: c_int,
    deadline: Deadline,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    if most > 0 && set.managed.load(Ordering::Acquire) > 0 && hot::has_ready(set, 0) {
        // There would be something to store, but not where the program says.
        return Err(Errno(libc::EFAULT));
    }
    let me = lock::thread();
    let generation = set.generation.load(Ordering::Acquire);
    loop {
        let place = socket_table::enroll(&set.sleepers, me);
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        let reported = unsafe { kernel_wait(set.fd, events, most, deadline, mask) };
        let errno = Errno::last();
        socket_table::leave(&set.sleepers, place, me);
        if reported < 0 {
            return Err(errno);
        }
        if reported == 0 {
            return Ok(0);
        }
        if set.generation.load(Ordering::Acquire) != generation {
            // Closed by another thread; what is in its place now is another set.
            return Err(Errno(libc::EBADF));
        }
        // SAFETY: the kernel has just filled that many.
        let out = unsafe { core::slice::from_raw_parts_mut(events, most as usize) };
        let count = report(set, out, reported as usize);
        if count > 0 || deadline.left() == Some(0) {
            return Ok(count);
        }
    }
}

/// How a sleep ended.
enum Slept {
    /// Until so many events were reported, or the time was over.
    Until {
        reported: usize,
        /// The time was shorter than the program's.
        is_short: bool,
    },
    /// Until the time was over; another thread has closed the set meanwhile.
    OnWhatIsGone,
    /// Something is ready.
    Not,
}

/// Sleeps in the kernel, with a doorbell wanted for every pipe.
///
/// # Safety
/// As for [`wait`].
#[inline(never)]
unsafe fn sleep(
    set: &OpenSet<'_>,
    out: &mut [epoll_event],
    deadline: Deadline,
    mask: *const sigset_t,
    since: Since,
) -> Result<Slept, Errno> {
    let me = lock::thread();
    let generation = set.generation.load(Ordering::Acquire);
    let place = socket_table::enroll(&set.sleepers, me);
    let promises = room::promises();
    let quiet = match set.lock() {
        Some(held) if held.is_first() => {
            hot::put_back(&held);
            super::flush_parked(&held);
            hot::arm_all(&held, 0)
        }
        Some(_) => true,
        None => stuck::arm_all(set, 0),
    };
    // SAFETY: `events` and `mask` are the program's, as the caller says.
    let interrupted = if quiet { unsafe { check_interrupted(since, mask) } } else { Ok(()) };
    if !quiet || interrupted.is_err() {
        socket_table::leave(&set.sleepers, place, me);
        return interrupted.map(|()| Slept::Not);
    }
    // Room in a ring is not waited for without limit.
    let is_short = room::promises() != promises;
    let until = if is_short { deadline.at_most(room::PATIENCE_NS) } else { deadline };
    // SAFETY: `events` and `mask` are the program's, as the caller says; a thread cancelled in here leaves its place, from which it is reaped.
    let reported = unsafe { kernel_wait(set.fd, out.as_mut_ptr(), out.len() as c_int, until, mask) };
    let errno = Errno::last();
    socket_table::leave(&set.sleepers, place, me);
    if set.generation.load(Ordering::Acquire) != generation {
        // Closed by another thread; what is in its place now is another set.
        return if reported == 0 { Ok(Slept::OnWhatIsGone) } else { Err(Errno(libc::EBADF)) };
    }
    if let Some(held) = set.lock().filter(SetHeld::is_first) {
        hot::disarm_all(&held);
    }
    if reported < 0 {
        return Err(errno);
    }
    Ok(Slept::Until { reported: reported as usize, is_short })
}

/// The kernel's call that waits, by the oldest name that can do it.
///
/// # Safety
/// As for [`wait`].
unsafe fn kernel_wait(
    fd: c_int,
    events: *mut epoll_event,
    most: c_int,
    deadline: Deadline,
    mask: *const sigset_t,
) -> isize {
    let left = deadline.left();
    // Whole milliseconds are what every kernel and every seccomp filter knows.
    if left.is_none_or(|left| left % 1_000_000 == 0 && left / 1_000_000 <= c_int::MAX as u64) {
        let milliseconds = left.map_or(-1, |left| (left / 1_000_000) as c_int);
        if mask.is_null() {
            // SAFETY: `events` and `mask` are the program's, as the caller says.
            return unsafe { real::epoll_wait(fd, events, most, milliseconds) } as isize;
        }
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        return unsafe { real::epoll_pwait(fd, events, most, milliseconds, mask) } as isize;
    }
    let time = deadline.timespec();
    // SAFETY: `events` and `mask` are the program's, as the caller says; `time` lives across the call.
    let reported = unsafe {
        real::epoll_pwait2(
            fd,
            events,
            most,
            time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref),
            mask,
        )
    } as isize;
    if reported < 0 && Errno::last().0 == libc::ENOSYS {
        let milliseconds = left.map_or(-1, |left| left.div_ceil(1_000_000).min(c_int::MAX as u64) as c_int);
        // SAFETY: `events` and `mask` are the program's, as the caller says.
        return unsafe { real::epoll_pwait(fd, events, most, milliseconds, mask) } as isize;
    }
    reported
}

/// Reports what the kernel has said, which is in the first `said` of `out`, in its order: a pipe where its doorbell was. And the
/// other hot pipes that are ready. How many events there are.
fn report(set: &OpenSet<'_>, out: &mut [epoll_event], said: usize) -> usize {
    let has_doorbells = out[..said].iter().any(|event| is_tag(set, event.u64));
    let has_hot = || set.hot.load(Ordering::Acquire) != 0 || set.overlooked.load(Ordering::Relaxed) != 0;
    if !has_doorbells && (out.len() == said || !has_hot()) {
        return said;
    }
    // Without doorbells all that the kernel has said stays where it is.
    let (kept, said) = if has_doorbells { (0, said) } else { (said, 0) };
    let out = &mut out[kept..];
    let held = set.lock();
    if let Some(held) = &held {
        hot::put_back(held);
    }
    let mut publish_times;
    let several = has_doorbells || out.len() > 1 && !hot::is_single(set);
    let mut reported = Reported::new(
        out,
        if several {
            publish_times = [None; MOST];
            Some(&mut publish_times)
        } else {
            None
        },
    );
    // A signal handler that interrupted a walk over the lists sees the kernel's descriptors only.
    let first = held.as_ref().filter(|held| held.is_first());
    for place in 0..said {
        let event = reported.said(place);
        let index = event.u64 as u32 & 0x00ff_ffff;
        if !is_tag(set, event.u64) {
            reported.add_foreign(event);
        } else if let Some(held) = first {
            hot::report(held, index, event.events, &mut reported);
        } else if let Some(held) = &held {
            hot::note_reported(held, index, event.events);
        } else {
            stuck::note_reported(set, index, event.events);
        }
    }
    match (first, &held) {
        (Some(held), _) => hot::collect(held, &mut reported),
        (None, Some(_)) => {}
        (None, None) => stuck::collect(set, &mut reported),
    }
    if let Some(index) = reported.level {
        // One doorbell wakes one waiter, who wakes the next one (ep_done_scan in fs/eventpoll.c).
        poke(set, index);
    }
    drop(held);
    kept + reported.count
}

/// Spins for a pipe that was active lately.
fn spin_for(set: &OpenSet<'_>) -> bool {
    if !spin::is_worth(&SPIN) {
        return false;
    }
    spin::until(&SPIN, || hot::any_bytes(set), || hot::shares_cpu(set))
}
