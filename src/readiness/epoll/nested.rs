//! Epoll sets that are registered in other epoll sets.
//!
//! An edge-triggered registration of a set reports everything that happens in that set. Where the kernel hears of it, by
//! doorbells and by what goes through it, it reports it. A hot pipe rings no doorbell: what its writer has published since the last
//! look is found by that look, and counted in the set that the pipe is in. Each registration of that set, there may be
//! several, keeps the count that it has reported.

use crate::pipe::meeting::registered;
use crate::state::registrations::OpenSet;
use crate::state::registrations::flags::RegFlags;
use crate::state::socket_table::{Registration, SETS, SetEntry, SocketTable};
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLIN, EPOLLRDNORM};
use sockshim_ring::sleep::DOORBELL;

/// How deep the kernel lets sets be nested (`EP_MAX_NESTS` in fs/eventpoll.c).
pub(super) const DEEPEST: usize = 5;

/// The set that a registration is of.
pub(super) fn inner<'a>(socket_table: &'a SocketTable, registration: &Registration) -> OpenSet<'a> {
    let slot = registration.slot.load(Ordering::Relaxed) % SETS as u32;
    OpenSet::new(socket_table, registration.fd.load(Ordering::Relaxed), slot)
}

/// Whether something has happened in a nested set since its edge-triggered registration last reported.
pub(super) fn has_news(socket_table: &SocketTable, registration: &Registration, depth: usize) -> bool {
    registration.flags.load(Ordering::Relaxed).intersects(RegFlags::FRESH)
        || registration.kernel_events.load(Ordering::Relaxed) != 0
        || registration.reported.load(Ordering::Relaxed) != news(&inner(socket_table, registration), depth)
}

/// Whether a nested set that is readable is reported: at each look, or only after something has happened in it.
pub(super) fn may_report(socket_table: &SocketTable, registration: &Registration, depth: usize) -> bool {
    registration.events.load(Ordering::Relaxed) & EPOLLET as u32 == 0
        || has_news(socket_table, registration, depth)
}

/// The same for the look that reports, after the kernel has `reported` so much. Under the lock of the set around it.
pub(super) fn take_news(socket_table: &SocketTable, registration: &Registration, reported: u32) -> bool {
    if registration.events.load(Ordering::Relaxed) & EPOLLET as u32 == 0 {
        return true;
    }
    let set = inner(socket_table, registration);
    if reported != 0 {
        follow_doorbells(&set, 0);
    }
    let news = news(&set, 0);
    let before = registration.reported.swap(news, Ordering::Relaxed);
    reported != 0 || before != news || registration.flags.load(Ordering::Relaxed).intersects(RegFlags::FRESH)
}

/// What has happened so far in a set and in those within it: a number that changes with each event.
fn news(set: &OpenSet<'_>, depth: usize) -> u64 {
    let mut within = 0_u64;
    for (_, registration) in set.hot_ones() {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags & (RegFlags::NESTED | RegFlags::DISABLED) == RegFlags::NESTED && depth < DEEPEST {
            within = within.wrapping_add(news(&inner(set.table, registration), depth + 1));
        } else if !flags.intersects(RegFlags::NESTED | RegFlags::FOREIGN | RegFlags::PARKED)
            && let Some(pipe) = registered::pipe_of(registration)
        {
            let tail = registered::tail(&pipe);
            if registration.noted.load(Ordering::Acquire) != tail {
                let wanted = registration.events.load(Ordering::Relaxed) & (EPOLLIN | EPOLLRDNORM) as u32;
                if wanted != 0 && !flags.intersects(RegFlags::DISABLED) {
                    count(set);
                }
                // After the count: who finds it noted finds it counted. Two looks at once may count it twice.
                registration.noted.store(tail, Ordering::Release);
            }
        }
    }
    within.wrapping_add(set.news.load(Ordering::Relaxed).into())
}

/// Something has happened in a set; of interest if others look at it.
pub(super) fn count(set: &SetEntry) {
    if set.watched.load(Ordering::Relaxed) != 0 {
        set.news.fetch_add(1, Ordering::Relaxed);
    }
}

/// The kernel has reported a set: the pipes in it that have rung are looked at from now on.
fn follow_doorbells(set: &OpenSet<'_>, depth: usize) {
    let held = set.lock();
    for (index, registration) in set.all() {
        let flags = registration.flags.load(Ordering::Relaxed);
        if flags.intersects(RegFlags::NESTED) {
            if depth < DEEPEST {
                follow_doorbells(&inner(set.table, registration), depth + 1);
            }
        } else if !flags.intersects(RegFlags::FOREIGN | RegFlags::PARKED)
            && let Some(pipe) = registered::pipe_of(registration)
        {
            // Without the lock the lists are not ours to change: see `stuck`.
            if let Some(held) = &held
                && !flags.intersects(RegFlags::HOT)
                && pipe.incoming().need_wakeup() & DOORBELL == 0
            {
                registered::activate(held, index);
            }
            registered::note(registration, &pipe);
        }
    }
}
