//! What fork does to the tables: parent and child go on with the same sockets, so each counts as a holder.

use super::arena::{self, Arena, CLAIMED, PROCESSES};
use super::{lock, socket};
use crate::sys::kernel;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// This process's number, to tell a vfork child from it.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// This process's slot in the arena.
static SLOT: AtomicU32 = AtomicU32::new(OVERFLOW);

thread_local! {
    /// The slot that this thread's fork has claimed for the child; several threads may fork at the same time.
    static CHILD_SLOT: Cell<u32> = const { Cell::new(OVERFLOW) };
}

/// The slot of processes beyond the table: what they held is never known to be free again.
const OVERFLOW: u32 = PROCESSES as u32 - 1;

type Holders = [AtomicU64; PROCESSES / 64];

/// The first process of a family takes its slot.
pub(crate) fn begin(arena: &Arena) {
    PROCESS.store(kernel::getpid(), Ordering::Release);
    SLOT.store(0, Ordering::Release);
    arena.processes[0].store(kernel::getpid(), Ordering::Release);
    // SAFETY: the handlers are functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// False in a vfork child (or one made by a raw `clone`), which must not change the parent's tables.
pub(crate) fn is_own_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == kernel::getpid()
}

/// Marks this process as a holder.
pub(crate) fn hold(holders: &Holders) {
    mark(holders, SLOT.load(Ordering::Acquire));
}

/// Unmarks this process; true when nobody holds it any more. Dead ones do not count.
pub(crate) fn unhold(arena: &Arena, holders: &Holders) -> bool {
    let slot = SLOT.load(Ordering::Acquire);
    if slot == OVERFLOW {
        return is_free(holders);
    }
    unmark(holders, slot);
    is_sole(arena, holders)
}

/// Whether this process is the only holder. Dead ones do not count.
pub(crate) fn is_sole(arena: &Arena, holders: &Holders) -> bool {
    let slot = SLOT.load(Ordering::Acquire) as usize;
    for (index, word) in holders.iter().enumerate() {
        let mut bits = word.load(Ordering::Acquire);
        while bits != 0 {
            let process = index * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if process == slot {
                continue;
            }
            let number = arena.processes[process].load(Ordering::Acquire);
            if process == OVERFLOW as usize || number & CLAIMED != 0 || kernel::lives(number) {
                return false;
            }
        }
    }
    true
}

/// Whether `thread` can be one of this family's: not when the family's processes are all known, and none has it.
pub(crate) fn may_be_member(arena: &Arena, thread: u32) -> bool {
    let mut all_known = true;
    let found = arena.processes.iter().any(|word| match word.load(Ordering::Acquire) {
        0 => false,
        number if number & CLAIMED != 0 => {
            all_known = false;
            false
        }
        number => kernel::is_thread_of(number, thread),
    });
    found
        || !all_known
        || arena.processes[..OVERFLOW as usize].iter().all(|word| word.load(Ordering::Acquire) != 0)
}

/// Says that this process ends; true when no other process of the family goes on. Of several that end at
/// the same time, at least one is the last.
pub(crate) fn leave(arena: &Arena) -> bool {
    let slot = SLOT.load(Ordering::Acquire);
    if slot != OVERFLOW {
        arena.leaving[slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::SeqCst);
    }
    let own = PROCESS.load(Ordering::Relaxed);
    arena.processes.iter().enumerate().all(|(slot, word)| {
        let number = word.load(Ordering::SeqCst);
        number == 0
            || number == own
            || arena.leaving[slot / 64].load(Ordering::SeqCst) & 1 << (slot % 64) != 0
            || (number & CLAIMED == 0 && !kernel::lives(number))
    })
}

/// What `arena` says of a process of this number was said of the one that it was before `exec`: that one is gone.
pub(crate) fn resign(arena: &Arena) {
    /// No process has such a number (PID_MAX_LIMIT in the kernel).
    const GONE: u32 = 1 << 30;
    for word in &arena.processes {
        let _ = word.compare_exchange(kernel::getpid(), GONE, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Frees what dead processes of the family held.
pub(crate) fn reap(arena: &Arena) {
    let own = PROCESS.load(Ordering::Relaxed);
    for (slot, word) in arena.processes.iter().enumerate() {
        let number = word.load(Ordering::Acquire);
        if number == 0 || number == own || number & CLAIMED != 0 || kernel::lives(number) {
            continue;
        }
        if word.compare_exchange(number, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            continue;
        }
        for (socket, entry) in arena.sockets.iter().enumerate().take(used(&arena.sockets_used)) {
            let generation = entry.generation.load(Ordering::Acquire);
            if generation & 1 == 1 && unmark(&entry.holders, slot as u32) && is_free(&entry.holders) {
                arena.free_socket(socket as u32, generation);
            }
        }
        for (set, entry) in arena.sets.iter().enumerate().take(used(&arena.sets_used)) {
            let generation = entry.generation.load(Ordering::Acquire);
            if generation & 1 == 1 && unmark(&entry.holders, slot as u32) && is_free(&entry.holders) {
                crate::readiness::epoll::free_set(arena, set as u32, generation);
            }
        }
        word.store(0, Ordering::Release);
    }
}

/// fork has failed: the child's slot is given back.
pub(crate) fn failed() {
    let slot = CHILD_SLOT.replace(OVERFLOW);
    let Some(arena) = arena::get() else { return };
    if slot != OVERFLOW {
        for socket in socket::held(arena) {
            unmark(&arena.socket(socket.slot).holders, slot);
        }
        for set in socket::held_sets(arena) {
            unmark(&arena.set(set).holders, slot);
        }
        arena.processes[slot as usize].store(0, Ordering::Release);
    }
}

/// fork has made a process, which may be killed before it says so itself.
pub(crate) fn made(child: u32) {
    let slot = CHILD_SLOT.replace(OVERFLOW);
    if let Some(arena) = arena::get()
        && slot != OVERFLOW
    {
        let word = &arena.processes[slot as usize % PROCESSES];
        let _ = word.compare_exchange(CLAIMED, child, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn claim(arena: &Arena) -> u32 {
    let free =
        |word: &AtomicU32| word.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let places = &arena.processes[..OVERFLOW as usize];
    if let Some(slot) = places.iter().position(free) {
        return slot as u32;
    }
    reap(arena);
    places.iter().position(free).map_or(OVERFLOW, |slot| slot as u32)
}

extern "C" fn prepare() {
    let Some(arena) = arena::get() else { return };
    let slot = claim(arena);
    arena.leaving[slot as usize / 64].fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
    for socket in socket::held(arena) {
        mark(&arena.socket(socket.slot).holders, slot);
    }
    for set in socket::held_sets(arena) {
        mark(&arena.set(set).holders, slot);
    }
    CHILD_SLOT.set(slot);
}

extern "C" fn parent() {}

extern "C" fn child() {
    lock::forget_thread();
    PROCESS.store(kernel::getpid(), Ordering::Release);
    let Some(arena) = arena::get() else { return };
    let slot = CHILD_SLOT.get();
    SLOT.store(slot, Ordering::Release);
    if slot != OVERFLOW {
        arena.processes[slot as usize % PROCESSES].store(kernel::getpid(), Ordering::Release);
    }
}

fn used(count: &AtomicU32) -> usize {
    count.load(Ordering::Acquire) as usize
}

fn mark(holders: &Holders, process: u32) {
    holders[process as usize / 64 % holders.len()].fetch_or(1 << (process % 64), Ordering::AcqRel);
}

/// True when the mark was there.
fn unmark(holders: &Holders, process: u32) -> bool {
    let bit = 1 << (process % 64);
    holders[process as usize / 64 % holders.len()].fetch_and(!bit, Ordering::AcqRel) & bit != 0
}

fn is_free(holders: &Holders) -> bool {
    holders.iter().all(|word| word.load(Ordering::Acquire) == 0)
}
