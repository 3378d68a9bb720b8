//! The first moments of a process, and its last.

use super::fork;
use crate::pipe::connection::transitions;
use crate::pipe::handoff::pin;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::process_name::ProcessName;
use crate::state::stale_files::{self, Care};
use crate::state::table_file::{self, TableFile};
use crate::state::{config, family, log, phase, rendezvous, socket, socket_table, trace};
use crate::sys::{clock, filter, folder, real, thread};
use core::ffi::{c_int, c_void};

/// Whether the process has another copy of this library, whose names come before ours: the program's calls reach that
/// one first. Two of them would each believe that a connection's bytes are its own to move. `ours` is the address of this
/// copy's `sockshim_reason`.
fn is_second_copy(ours: *const c_void) -> bool {
    // SAFETY: the name is a C string; nothing is called.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"sockshim_reason".as_ptr()) };
    // Null: the library is linked into the program itself, which exports nothing.
    !first.is_null() && first.cast_const() != ours
}

/// Starts once; called by the constructor, and by the calls that make sockets where no constructor ran. A
/// second thread does not wait: its descriptor is classified when it is used.
#[inline]
pub(crate) fn start(ours: *const c_void) {
    if phase::is_new() {
        begin(ours);
    }
}

/// Apart, because callers may be on a small stack.
#[cold]
#[inline(never)]
fn begin(ours: *const c_void) {
    if !phase::begin() {
        return;
    }
    real::resolve();
    if is_second_copy(ours) {
        // Never ready: everything is passed on, and the first copy does the work.
        return;
    }
    filter::look();
    thread::find_area();
    clock::start();
    thread::watch();
    config::read_environment();
    log::start();
    trace::start();
    let folder = folder::usable(config::folder());
    config::hide_from_program();
    let own = ProcessName::own();
    if let Some(folder) = &folder
        && filter::allows_fcntl()
    {
        stale_files::sweep(folder, Care::at_start(&own));
    }
    let file = folder.as_ref().and_then(|folder| TableFile::make(folder, &own, true));
    rendezvous::have(folder);
    let Some(socket_table) = socket_table::install(file.as_ref().map(|file| file.fd.as_raw()), &own) else {
        if let Some(file) = file {
            file.discard();
        }
        return;
    };
    if let Some(file) = file {
        file.keep(&own);
    }
    fork::begin(socket_table, &own);
    phase::be_ready();
}

/// Removes what killed processes have left in the folder, in a process that could not while it started: see [`filter`].
#[cold]
pub(crate) fn sweep() {
    if let Some(folder) = rendezvous::folder() {
        stale_files::sweep(folder, Care::at_start(&ProcessName::own()));
    }
}

/// Before the kernel closes what the process has: see [`pin::part`]. Removes what it leaves in the folder: segments
/// that nobody joined, and the table's file when the last process of the family ends.
pub(crate) fn finish() {
    let Some(socket_table) = socket_table::get() else { return };
    if !family::is_own_process() {
        return;
    }
    family::begin_to_leave(socket_table);
    for fd in 0..socket_table::highest() as c_int {
        if let Descriptor::Socket(socket) = descriptor_table::peek(fd) {
            pin::part(fd, socket);
        }
    }
    for socket in socket::held(socket_table) {
        transitions::forsake(socket_table, socket);
    }
    if family::is_last_of_family(socket_table)
        && let Some(folder) = rendezvous::folder()
    {
        table_file::remove(folder);
    }
}
