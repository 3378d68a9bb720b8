//! The lock of an epoll set.

use crate::state::lock::{self, Taken};
use crate::state::socket_table::{SETS, SetEntry};
use core::sync::atomic::{AtomicU64, Ordering};

/// The lock of a set. Not taken from an owner that does not let go: what it does yet with the lists, when it goes on, cannot be
/// undone. Until then the set is used without it: see `readiness::epoll::stuck`.
#[inline]
pub(super) fn take(set: &SetEntry) -> Taken {
    set.lock.take_at_once(|| {}).unwrap_or_else(|| wait(set))
}

/// What was in the lock of each set when this process last waited for it in vain: it does so once, not in each call.
static SEEN: [AtomicU64; SETS] = [const { AtomicU64::new(0) }; SETS];

/// Waits for an owner that only waits for a processor.
const MOST_ROUNDS: usize = 10;

/// Waits for a set's lock.
#[cold]
#[inline(never)]
fn wait(set: &SetEntry) -> Taken {
    let seen = &SEEN[set.slot.load(Ordering::Relaxed) as usize % SETS];
    if let Some(taken) = set.lock.not_if_still(seen.load(Ordering::Relaxed)) {
        return taken;
    }
    let mut taken = set.lock.take_after(false, || {});
    for _ in 0..MOST_ROUNDS {
        // Two that report one connection at the same time may report it twice: not before it is hopeless.
        let Taken::Not(owner) = taken else { break };
        if !lock::may_run(owner) {
            break;
        }
        taken = set.lock.take_after(false, || {});
    }
    seen.store(if let Taken::Not(seen) = taken { seen.bits() } else { 0 }, Ordering::Relaxed);
    taken
}
