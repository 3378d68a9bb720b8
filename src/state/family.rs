//! The processes that share the socket table, by fork: each counts as a holder of what it has.
//!
//! The family's numbers are those of the namespace in which it began (pid_namespaces(7)). A child that is born into
//! another one, a *foreign* one, has numbers that mean somebody else here, and sees nobody of the family by its number. So it
//! is known by its slot, where its parent has noted what it is called here, and it takes nobody for dead.

use super::process_name::ProcessName;
use super::registrations;
use super::socket_table::{self, CLAIMED, GHOST, PROCESSES, SocketTable};
use crate::sys::{clock, kernel, process, thread};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use once_cell::race::OnceRef;
use sockshim_ring::lock_word::OWNER;

/// This process's number, to tell a vfork child from it.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// The pid namespace in which the family began; 0: not known.
static NAMESPACE: AtomicU64 = AtomicU64::new(0);
/// Whether this process is a foreign process.
static FOREIGN: AtomicBool = AtomicBool::new(false);
/// This process's slot in the socket table.
static SLOT: AtomicU32 = AtomicU32::new(OVERFLOW);

/// What a fork does to a child, for one that no fork of libc's has made. By address: the child may find out when it takes any lock,
/// at the bottom of everything, and what is to be done reaches up to its connections, as with pthread_atfork(3).
static ON_COPY: OnceRef<'static, fn()> = OnceRef::new();

/// The slot of a child for which there was no other: what it holds is never known to be free again.
pub(crate) const OVERFLOW: u32 = PROCESSES as u32 - 1;
/// Slots of members. Those beyond are for children that find no place, until they have a table of their own.
pub(crate) const MEMBERS: usize = PROCESSES - 64;

pub(crate) type Holders = [AtomicU64; PROCESSES / 64];
/// A set of slots.
pub(crate) type Processes = [u64; PROCESSES / 64];

/// The first process of a family takes its slot. `on_copy` makes a member of a copy of it that asks for its number.
pub(crate) fn begin(socket_table: &SocketTable, own: &ProcessName, on_copy: &'static fn()) {
    PROCESS.store(own.number, Ordering::Release);
    NAMESPACE.store(own.namespace, Ordering::Relaxed);
    SLOT.store(0, Ordering::Release);
    socket_table.processes[0].store(own.number, Ordering::Release);
    let _ = ON_COPY.set(on_copy);
}

/// False in a vfork child (or one made by a raw `clone`), which must not change the parent's tables.
pub(crate) fn is_own_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == kernel::getpid()
}

/// Whether what happens to this process's descriptors happens to those in the table: also in a child that has the parent's
/// memory and descriptors, and so is a thread in all but name.
pub(crate) fn has_own_descriptors() -> bool {
    let (noted, number) = (PROCESS.load(Ordering::Relaxed), kernel::getpid());
    noted == number || kernel::share_descriptors(noted, number)
}

/// A fork that was a system call of the program's own is found out by the child, as soon as it asks for its number: it becomes
/// a member then.
fn become_known() {
    if thread::is_copy()
        && !is_own_process()
        && let Some(on_copy) = ON_COPY.get()
    {
        on_copy();
    }
}

/// Marks this process as a holder.
pub(crate) fn hold(holders: &Holders) {
    mark(holders, SLOT.load(Ordering::Acquire));
}

/// Unmarks this process. Whoever lets go does so first, and then looks whether it [`is_last`]: of several that let go at the
/// same time, at least one is.
pub(crate) fn unhold(holders: &Holders) {
    let slot = SLOT.load(Ordering::Acquire);
    if slot != OVERFLOW {
        unmark(holders, slot);
    }
}

/// Whether this process is the only holder. Dead ones do not count.
pub(crate) fn is_sole(socket_table: &SocketTable, holders: &Holders) -> bool {
    others(holders).all(|process| has_gone(socket_table, process))
}

/// Whether no other holder goes on with it: dead ones do not, and none that is about to end (see [`begin_to_leave`]).
pub(crate) fn is_last(socket_table: &SocketTable, holders: &Holders) -> bool {
    others(holders).all(|process| is_leaving(socket_table, process) || has_gone(socket_table, process))
}

/// Slots of the other holders; those beyond the table are one.
pub(crate) fn others(holders: &Holders) -> impl Iterator<Item = u32> + '_ {
    let own = SLOT.load(Ordering::Acquire);
    holders.iter().zip(0..).flat_map(move |(word, index)| {
        let mut bits = word.load(Ordering::SeqCst);
        core::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros())?;
            bits &= bits - 1;
            Some(index * 64 + bit)
        })
        .filter(move |process| *process != own || own == OVERFLOW)
    })
}

fn has_gone(socket_table: &SocketTable, process: u32) -> bool {
    process != OVERFLOW
        && has_ended(socket_table.processes[process as usize % PROCESSES].load(Ordering::Acquire))
}

fn is_leaving(socket_table: &SocketTable, process: u32) -> bool {
    socket_table.leaving[process as usize / 64 % socket_table.leaving.len()].load(Ordering::SeqCst)
        & 1 << (process % 64)
        != 0
}

/// Whether `thread` can be one of this family's: not when the family's processes are all known, and none has it.
pub(crate) fn may_be_member(socket_table: &SocketTable, thread: u32) -> bool {
    let mut all_known = true;
    let found = socket_table.processes.iter().any(|word| match word.load(Ordering::Acquire) {
        0 => false,
        number if number & CLAIMED != 0 => {
            all_known = false;
            false
        }
        number if number & GHOST != 0 => false,
        number => kernel::is_thread_of(number, thread),
    });
    found
        || !all_known
        || socket_table.processes[..OVERFLOW as usize].iter().all(|word| word.load(Ordering::Acquire) != 0)
}

/// Says that this process ends, before it looks what it is the last to do. Of several that end at the same time, at least
/// one is the last.
pub(crate) fn begin_to_leave(socket_table: &SocketTable) {
    let slot = SLOT.load(Ordering::Acquire);
    if slot != OVERFLOW {
        socket_table.leaving[slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::SeqCst);
    }
}

/// Whether no other process of the family goes on.
pub(crate) fn is_last_of_family(socket_table: &SocketTable) -> bool {
    let own = SLOT.load(Ordering::Acquire);
    socket_table.processes.iter().zip(0..).all(|(word, other)| {
        let number = word.load(Ordering::SeqCst);
        number == 0
            || number & GHOST != 0
            || other == own
            || is_leaving(socket_table, other)
            || has_ended(number)
    })
}

/// Whether this process shares its table with no other one.
pub(crate) fn is_alone(socket_table: &SocketTable) -> bool {
    let own = SLOT.load(Ordering::Acquire);
    socket_table.processes.iter().zip(0..).all(|(word, other)| {
        let number = word.load(Ordering::Acquire);
        number == 0 || number & GHOST != 0 || other == own || has_ended(number)
    })
}

/// In its own copy of a table this process is alone, but for ghosts. Its slot there, and what it will be once the copy is the
/// table: see [`have_slot`].
pub(crate) fn settle(copy: &SocketTable, ghosts: &Processes) -> u32 {
    let own = SLOT.load(Ordering::Acquire);
    for (slot, word) in copy.processes.iter().enumerate().filter(|(slot, _)| *slot != own as usize) {
        let is_ghost = slot != OVERFLOW as usize && ghosts[slot / 64] >> (slot % 64) & 1 == 1;
        let number = word.load(Ordering::Relaxed);
        word.store(if is_ghost { number | GHOST } else { 0 }, Ordering::Relaxed);
    }
    copy.leaving.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    if own != OVERFLOW {
        return own;
    }
    let Some(slot) = copy.processes[..MEMBERS].iter().position(|word| word.load(Ordering::Relaxed) == 0)
    else {
        return OVERFLOW;
    };
    copy.processes[slot].store(PROCESS.load(Ordering::Acquire), Ordering::Relaxed);
    slot as u32
}

/// The holders of what this process has kept in a copy.
pub(crate) fn settle_holders(holders: &Holders, own: u32, is_haunted: bool) {
    unmark(holders, OVERFLOW);
    if !is_haunted {
        holders.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    mark(holders, own);
}

/// This process has another slot from now on; returns the one before.
pub(crate) fn have_slot(slot: u32) -> u32 {
    SLOT.swap(slot, Ordering::AcqRel)
}

/// Whether nobody holds it any more, now that the process at `slot` does not.
pub(crate) fn let_go(holders: &Holders, slot: u32) -> bool {
    slot != OVERFLOW && unmark(holders, slot) && is_free(holders)
}

/// The process at `slot` has left the family; `haunts`: it still counts as a holder of something.
pub(crate) fn depart(left: &SocketTable, slot: u32, haunts: bool) {
    if slot != OVERFLOW {
        let word = &left.processes[slot as usize % PROCESSES];
        if haunts {
            word.fetch_or(GHOST, Ordering::AcqRel);
        } else {
            word.store(0, Ordering::Release);
        }
    }
}

/// Whether a thread that is named in the table is one of this process's.
pub(crate) fn is_own_thread(thread: u32) -> bool {
    let process = PROCESS.load(Ordering::Relaxed);
    match thread & FOREIGN_THREAD {
        0 => !FOREIGN.load(Ordering::Relaxed) && kernel::is_thread_of(process, thread),
        _ => (thread & !FOREIGN_THREAD) >> SERIAL_BITS == SLOT.load(Ordering::Acquire),
    }
}

/// What `socket_table` says of a process of this number was said of the one that it was before `exec`: that one is gone.
pub(crate) fn resign(socket_table: &SocketTable) {
    /// No process has such a number (PID_MAX_LIMIT in the kernel).
    const GONE: u32 = 1 << 30;
    for word in &socket_table.processes {
        let _ = word.compare_exchange(kernel::getpid(), GONE, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// [`reap`], unless that was tried a moment ago: a table that is full stays so for as long as nobody closes or dies, and
/// every socket that is made would pay for a look at all processes.
pub(crate) fn reap_if_due(socket_table: &SocketTable) {
    /// Share of the time that may go into it.
    const ONE_IN: u64 = 100;
    /// When the last one ended, and how long it took, in ticks.
    static LAST: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let [end, cost] = LAST.each_ref().map(|ticks| ticks.load(Ordering::Relaxed));
    let start = clock::ticks();
    if end != 0 && start.wrapping_sub(end) < cost.saturating_mul(ONE_IN) {
        return;
    }
    reap(socket_table);
    let end = clock::ticks();
    LAST[0].store(end, Ordering::Relaxed);
    LAST[1].store(end.wrapping_sub(start), Ordering::Relaxed);
}

/// Frees what dead processes of the family held.
pub(crate) fn reap(socket_table: &SocketTable) {
    let own = SLOT.load(Ordering::Acquire) as usize;
    let mut dead = [0u64; PROCESSES / 64];
    for (slot, word) in socket_table.processes.iter().enumerate() {
        let number = word.load(Ordering::Acquire);
        let is_ours = number != 0
            && slot != own
            && has_ended(number)
            && word.compare_exchange(number, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_ours {
            dead[slot / 64] |= 1 << (slot % 64);
        }
    }
    if dead.iter().all(|word| *word == 0) {
        return;
    }
    // Whether it was held by dead processes alone.
    let is_left = |generation: u32, holders: &Holders| {
        let mut found = false;
        for (word, dead) in holders.iter().zip(dead) {
            found |= word.load(Ordering::Relaxed) & dead != 0
                && word.fetch_and(!dead, Ordering::SeqCst) & dead != 0;
        }
        generation & 1 == 1 && found && is_free(holders)
    };
    for (socket, entry) in socket_table.sockets.iter().enumerate().take(used(&socket_table.sockets_used)) {
        let generation = entry.generation.load(Ordering::Acquire);
        if is_left(generation, &entry.holders) {
            socket_table.free_socket(socket as u32, generation);
        }
    }
    for (set, entry) in socket_table.sets.iter().enumerate().take(used(&socket_table.sets_used)) {
        let generation = entry.generation.load(Ordering::Acquire);
        if is_left(generation, &entry.holders) {
            registrations::free_set(socket_table, set as u32, generation);
        }
    }
    for (slot, word) in socket_table.processes.iter().enumerate() {
        if dead[slot / 64] >> (slot % 64) & 1 == 1 {
            word.store(0, Ordering::Release);
        }
    }
}

/// Whether this process is a foreign process.
pub(crate) fn is_foreign() -> bool {
    FOREIGN.load(Ordering::Relaxed)
}

/// This process is a child, for which its parent has claimed a slot.
pub(crate) fn be_child(slot: u32) {
    if is_elsewhere() {
        FOREIGN.store(true, Ordering::Relaxed);
    }
    PROCESS.store(kernel::getpid(), Ordering::Release);
    let Some(socket_table) = socket_table::get() else { return };
    SLOT.store(slot, Ordering::Release);
    if slot != OVERFLOW && !FOREIGN.load(Ordering::Relaxed) {
        socket_table.processes[slot as usize % PROCESSES].store(kernel::getpid(), Ordering::Release);
    }
}

/// Whether this process is in another namespace than the one in which the family began.
fn is_elsewhere() -> bool {
    let begun = NAMESPACE.load(Ordering::Relaxed);
    match process::namespace() {
        Some(here) if begun != 0 => here != begun,
        // A parent in the same namespace has a number in it.
        _ => kernel::getppid() == 0,
    }
}

/// Whether a process of the family has ended, by what its slot says. False when that cannot be told.
fn has_ended(number: u32) -> bool {
    // A parent lives, or it would be another; that takes one call instead of three.
    let process = number & !GHOST;
    let lives = || kernel::is_restricted() || process == kernel::getppid() || kernel::lives(process);
    number & CLAIMED == 0 && !FOREIGN.load(Ordering::Relaxed) && !lives()
}

/// A number for a thread of this process, if it is a foreign process: no two threads of the family's foreign processes have the
/// same.
pub(crate) fn foreign_thread() -> Option<u32> {
    become_known();
    if !FOREIGN.load(Ordering::Relaxed) {
        return None;
    }
    let serial = socket_table::get()?.foreign_threads.fetch_add(1, Ordering::Relaxed);
    Some(FOREIGN_THREAD | SLOT.load(Ordering::Acquire) << SERIAL_BITS | serial & ((1 << SERIAL_BITS) - 1))
}

/// What a thread's number says of it.
pub(crate) enum Known {
    /// A thread of the namespace in which the family began, as seen from there.
    Here(u32),
    /// One of a foreign process whose first thread has this number, as seen from there.
    Foreign(u32),
    /// A foreign process of which nothing is left.
    Gone,
    /// Nothing that this process can know.
    Nothing,
}

pub(crate) fn known(thread: u32) -> Known {
    if FOREIGN.load(Ordering::Relaxed) {
        return Known::Nothing;
    }
    if thread & FOREIGN_THREAD == 0 {
        return Known::Here(thread);
    }
    let slot = (thread & !FOREIGN_THREAD) >> SERIAL_BITS;
    match socket_table::get().and_then(|socket_table| socket_table.processes.get(slot as usize)) {
        Some(word) if slot != OVERFLOW => match word.load(Ordering::Acquire) {
            0 => Known::Gone,
            number if number & CLAIMED != 0 => Known::Nothing,
            // It has left, and left no lock behind.
            number if number & GHOST != 0 => Known::Gone,
            number => Known::Foreign(number),
        },
        _ => Known::Nothing,
    }
}

/// Mark of a foreign process's threads: beyond all thread numbers (there are 2^22 at most), and no mark of a lock.
const FOREIGN_THREAD: u32 = 1 << 29;
const SERIAL_BITS: u32 = 20;
const _: () = assert!((PROCESSES as u32) << SERIAL_BITS <= FOREIGN_THREAD && FOREIGN_THREAD & OWNER != 0);

fn used(count: &AtomicU32) -> usize {
    count.load(Ordering::Acquire) as usize
}

pub(crate) fn mark(holders: &Holders, process: u32) {
    holders[process as usize / 64 % holders.len()].fetch_or(1 << (process % 64), Ordering::SeqCst);
}

/// True when the mark was there.
pub(crate) fn unmark(holders: &Holders, process: u32) -> bool {
    let bit = 1 << (process % 64);
    holders[process as usize / 64 % holders.len()].fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

fn is_free(holders: &Holders) -> bool {
    holders.iter().all(|word| word.load(Ordering::Acquire) == 0)
}
