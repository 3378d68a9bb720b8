//! What fork does to the tables: parent and child go on with the same sockets, so each counts as a holder.

use super::split::Departure;
use crate::state::family::{self, MEMBERS};
use crate::state::process_name::ProcessName;
use crate::state::reason::Reason;
use crate::state::socket;
use crate::state::socket_table::{self, CLAIMED, PROCESSES, SocketTable};
use crate::sys::thread;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

thread_local! {
    /// The slot that this thread's fork has claimed for the child; several threads may fork at the same time.
    static CHILD_SLOT: Cell<u32> = const { Cell::new(family::OVERFLOW) };
}

/// The first process of a family.
pub(crate) fn begin(socket_table: &SocketTable, own: &ProcessName) {
    const ON_COPY: fn() = become_known;
    family::begin(socket_table, own, &ON_COPY);
    // SAFETY: the handlers are functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// This process was made by a system call of the program's own.
fn become_known() {
    prepare();
    child();
}

/// fork has failed: the child's slot is given back.
pub(crate) fn failed() {
    let slot = CHILD_SLOT.replace(family::OVERFLOW);
    let Some(socket_table) = socket_table::get() else { return };
    if slot != family::OVERFLOW {
        for socket in socket::held(socket_table) {
            family::unmark(&socket_table.socket(socket.slot).holders, slot);
        }
        for set in socket::held_sets(socket_table) {
            family::unmark(&socket_table.set(set).holders, slot);
        }
        socket_table.processes[slot as usize].store(0, Ordering::Release);
    }
}

/// fork has made a process, which may be killed before it says so itself.
pub(crate) fn made(child: u32) {
    let slot = CHILD_SLOT.replace(family::OVERFLOW);
    if let Some(socket_table) = socket_table::get()
        && slot != family::OVERFLOW
        && !family::is_foreign()
    {
        let word = &socket_table.processes[slot as usize % PROCESSES];
        let _ = word.compare_exchange(CLAIMED, child, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn claim(socket_table: &SocketTable) -> u32 {
    let free =
        |word: &AtomicU32| word.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let members = || socket_table.processes[..MEMBERS].iter().position(free);
    let found = members().or_else(|| {
        family::reap_if_due(socket_table);
        members().or_else(|| {
            let births = &socket_table.processes[MEMBERS..family::OVERFLOW as usize];
            births.iter().position(free).map(|place| MEMBERS + place)
        })
    });
    found.map_or(family::OVERFLOW, |slot| slot as u32)
}

pub(crate) extern "C" fn prepare() {
    let Some(socket_table) = socket_table::get() else { return };
    let slot = claim(socket_table);
    socket_table.leaving[slot as usize / 64].fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
    for socket in socket::held(socket_table) {
        family::mark(&socket_table.socket(socket.slot).holders, slot);
    }
    for set in socket::held_sets(socket_table) {
        family::mark(&socket_table.set(set).holders, slot);
    }
    CHILD_SLOT.set(slot);
}

extern "C" fn parent() {}

pub(crate) extern "C" fn child() {
    thread::renew();
    let slot = CHILD_SLOT.get();
    family::be_child(slot);
    if slot as usize >= MEMBERS && socket_table::get().is_some() {
        Departure::begin().leave(Reason::TableFull, false);
    }
}
