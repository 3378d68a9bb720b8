//! A process leaves its family: from now on it has a socket table of its own.
//!
//! Who shares a table can make the others wait, and spoil their books: its words are locks, counters and lists. So a process
//! whose user changes shares none any more, for whoever takes it over then must not reach those that kept their privileges;
//! nor does a child for which the table has no place.
//!
//! The new table is a copy that takes the place of the old one, at the same address: every slot, and every descriptor's word,
//! stays what it was. What only this process held moves along, with its pipe. A connection that others hold too goes back to
//! the kernel's lane first. After that all that is left to agree about is what lies unread in the ring, and the positions of
//! that are in the segment, which both have: whoever reads first gets it. Each goes on to count the other as a holder, a
//! *ghost*, until its process ends.

use crate::pipe::handoff::pin;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::family::{self, Processes};
use crate::state::lock::Taken;
use crate::state::process_name::ProcessName;
use crate::state::reason::Reason;
use crate::state::socket::{self, Walk};
use crate::state::socket_table::{
    self, Entry, STATE_HOST, STATE_PIPE, STATE_WAITING, SocketTable, forget_sleepers,
};
use crate::state::table_file::{self, TableFile};
use crate::state::{phase, registrations, rendezvous};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// What is prepared while this process may still make files in the rendezvous folder.
pub(crate) struct Departure {
    own: ProcessName,
    file: Option<TableFile>,
}

impl Departure {
    /// `None`: there is nobody to leave.
    pub(crate) fn prepare() -> Option<Self> {
        let socket_table = socket_table::get()?;
        let shares = phase::is_ready()
            && !kernel::is_restricted()
            && family::is_own_process()
            && !family::is_alone(socket_table);
        shares.then(Self::begin)
    }

    /// The same of a child, which has somebody to leave.
    pub(crate) fn begin() -> Self {
        let own = ProcessName::own();
        Self { own, file: rendezvous::folder().and_then(|folder| TableFile::make(folder, &own, false)) }
    }

    /// There is no reason any more.
    pub(crate) fn cancel(self) {
        if let Some(file) = self.file {
            file.discard();
        }
    }

    /// Leaves the family. Where there is no memory for a table of its own, this process stays. `has_threads`: others beside
    /// this one may be inside calls.
    pub(crate) fn leave(self, reason: Reason, has_threads: bool) {
        let Some(socket_table) = socket_table::get() else { return self.cancel() };
        give_back(socket_table, reason);
        if has_threads {
            lock_all(socket_table);
        }
        if !self.take_a_copy(socket_table, has_threads) && has_threads {
            unlock_all(socket_table);
        }
    }

    fn take_a_copy(self, socket_table: &'static SocketTable, has_threads: bool) -> bool {
        let size = size_of::<SocketTable>();
        let place = core::ptr::from_ref(socket_table).cast_mut().cast::<u8>();
        let copy = socket_table.copy(self.file.as_ref().map(|file| file.fd.as_raw()));
        // By the new address the old table is put in order when it has been left.
        let left = copy.and_then(|_| kernel::map_again(place, size).ok());
        if let (Some(copy), Some(left)) = (copy, left) {
            // SAFETY: a mapping of that size, which holds only atomics, and is not used by anybody else.
            let slot = settle(unsafe { &*copy.cast::<SocketTable>() }, &self.own, has_threads);
            if kernel::move_mapping(copy, size, place).is_ok() {
                let before = family::have_slot(slot);
                // SAFETY: a second mapping of the socket table.
                vacate(unsafe { &*left.cast::<SocketTable>() }, before);
                kernel::unmap(left, size);
                match self.file {
                    Some(file) => file.keep(&self.own),
                    None => table_file::have_none(),
                }
                return true;
            }
        }
        [copy, left].into_iter().flatten().for_each(|mapping| kernel::unmap(mapping, size));
        self.cancel();
        false
    }
}

/// Connections that others hold too go on in the kernel.
fn give_back(socket_table: &SocketTable, reason: Reason) {
    let walk = Walk::begin();
    for fd in 0..socket_table::highest() as c_int {
        if let Descriptor::Socket(socket) = descriptor_table::peek(fd)
            && let Some(entry) = socket.entry()
            && walk.is_new(socket)
            && matches!(entry.state.load(Ordering::Acquire), STATE_WAITING | STATE_PIPE)
            && !family::is_sole(socket_table, &entry.holders)
        {
            pin::pin(fd, socket, reason);
        }
    }
}

/// Nobody is in the middle of anything: other threads wait until the table has been replaced. In the order of
/// ARCHITECTURE.md, each lock for as long as one is waited for.
fn lock_all(socket_table: &SocketTable) {
    for set in socket::held_sets(socket_table) {
        let _ = socket_table.set(set).lock.take();
    }
    for socket in socket::held(socket_table) {
        let entry = socket_table.socket(socket.slot);
        entry.read_lock.take_back();
        entry.write_lock.take_back();
    }
}

/// Gives back what [`lock_all`] took.
fn unlock_all(socket_table: &SocketTable) {
    for socket in socket::held(socket_table) {
        unlock(socket_table.socket(socket.slot));
    }
    for set in socket::held_sets(socket_table) {
        socket_table.set(set).lock.release(Taken::Ours);
    }
}

/// Of locks that this thread does not have nothing becomes.
fn unlock(entry: &Entry) {
    entry.write_lock.lock.release(Taken::Ours);
    entry.read_lock.lock.release(Taken::Ours);
}

/// Whether this process and others go on to count each other as holders: not of what has only a place in the table.
fn is_haunted(entry: &Entry) -> bool {
    entry.state.load(Ordering::Acquire) != STATE_HOST && family::others(&entry.holders).next().is_some()
}

/// Makes a copy this process's own; its slot there. What the others' threads are doing right now is none of its business.
fn settle(copy: &SocketTable, own: &ProcessName, has_threads: bool) -> u32 {
    copy.maker.store(own);
    copy.keep_only(socket::is_held, socket::is_held_set);
    let mut ghosts = Processes::default();
    for socket in socket::held(copy) {
        let entry = copy.socket(socket.slot);
        entry.read_lock.reset();
        entry.write_lock.reset();
        if is_haunted(entry) {
            family::others(&entry.holders)
                .for_each(|process| ghosts[process as usize / 64] |= 1 << (process % 64));
            forget_sleepers(&entry.sleepers, |thread| !family::is_own_thread(thread));
            for calls in [&entry.readers, &entry.writers] {
                if !has_threads && !calls.is_ready() {
                    calls.begin(socket.generation);
                }
            }
        }
    }
    let slot = family::settle(copy, &ghosts);
    for socket in socket::held(copy) {
        let entry = copy.socket(socket.slot);
        family::settle_holders(&entry.holders, slot, is_haunted(entry));
    }
    for set in socket::held_sets(copy) {
        let entry = copy.set(set);
        entry.lock.reset();
        forget_sleepers(&entry.sleepers, |thread| !family::is_own_thread(thread));
        family::settle_holders(&entry.holders, slot, false);
    }
    slot
}

/// Takes what was this process's out of the table that it has left; it had that slot there.
fn vacate(left: &SocketTable, slot: u32) {
    let mut haunts = false;
    for socket in socket::held(left) {
        let entry = left.socket(socket.slot);
        unlock(entry);
        forget_sleepers(&entry.sleepers, family::is_own_thread);
        if is_haunted(entry) {
            haunts = true;
        } else if family::let_go(&entry.holders, slot) {
            registrations::forget_socket(left, entry);
            left.free_socket(socket.slot, socket.generation);
        }
    }
    for set in socket::held_sets(left) {
        let entry = left.set(set);
        let generation = entry.generation.load(Ordering::Acquire);
        entry.lock.release(Taken::Ours);
        forget_sleepers(&entry.sleepers, family::is_own_thread);
        if family::let_go(&entry.holders, slot) {
            registrations::free_set(left, set, generation);
        }
    }
    family::depart(left, slot, haunts);
}
