//! The first moments of a process, and its rendezvous folder.

use super::janitor::{self, Care};
use super::process_name::ProcessName;
use super::table::{self, Descriptor};
use super::table_file::{self, TableFile};
use super::{arena, config, fork, log, socket, trace};
use crate::pipe::{attach, pin};
use crate::sys::folder::{self, Path};
use crate::sys::{clock, filter, real, thread};
use core::ffi::{c_int, c_void};
use core::fmt::Write;
use core::sync::atomic::{AtomicU8, Ordering};
use once_cell::race::OnceBox;

/// 0: not started; 1: being started by some thread; 2: ready.
static PHASE: AtomicU8 = AtomicU8::new(0);
/// The folder, if it can be used.
static FOLDER: OnceBox<Option<Path>> = OnceBox::new();

/// Whether the tables can be used. Before, every call goes to the kernel.
#[inline]
pub(crate) fn is_ready() -> bool {
    PHASE.load(Ordering::Acquire) == 2
}

/// Whether the process has another copy of this library, whose names come before ours: the program's calls reach that
/// one first. `ours` is the address of this one's `sockshim_reason`. Two of them would each believe that a connection's bytes are its own to move.
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
    if PHASE.load(Ordering::Acquire) == 0 {
        begin(ours);
    }
}

/// Apart, because callers may be on a small stack.
#[cold]
#[inline(never)]
fn begin(ours: *const c_void) {
    if PHASE.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
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
    config::hide_from_guest();
    let own = ProcessName::own();
    if let Some(folder) = &folder
        && filter::allows_fcntl()
    {
        janitor::sweep(folder, Care::at_start(&own));
    }
    let file = folder.as_ref().and_then(|folder| TableFile::make(folder, &own, true));
    let _ = FOLDER.set(Box::new(folder));
    let Some(arena) = arena::install(file.as_ref().map(|file| file.fd), &own) else {
        if let Some(file) = file {
            file.discard();
        }
        return;
    };
    if let Some(file) = file {
        file.keep(&own);
    }
    fork::begin(arena, &own);
    PHASE.store(2, Ordering::Release);
}

/// The rendezvous folder, if it can be used.
pub(crate) fn folder() -> Option<&'static Path> {
    FOLDER.get()?.as_ref()
}

/// Removes what killed processes have left in the folder, in a process that could not while it started: see [`filter`].
#[cold]
pub(crate) fn sweep() {
    if let Some(Some(folder)) = FOLDER.get() {
        janitor::sweep(folder, Care::at_start(&ProcessName::own()));
    }
}

/// Path of a file in the rendezvous folder; `None` when there is no usable folder.
pub(crate) fn file(write: impl Fn(&mut Path) -> core::fmt::Result) -> Option<Path> {
    let mut path = folder()?.copy()?;
    path.write_char('/').ok()?;
    write(&mut path).ok()?;
    Some(path)
}

/// Before the kernel closes what the process has: see [`pin::part`]. Removes what it leaves in the folder: segments
/// that nobody joined, and the table's file when the last process of the family ends.
pub(crate) fn finish() {
    let Some(arena) = arena::get() else { return };
    if !fork::is_own_process() {
        return;
    }
    fork::begin_to_leave(arena);
    for fd in 0..arena::highest() as c_int {
        if let Descriptor::Socket(socket) = table::peek(fd) {
            pin::part(fd, socket);
        }
    }
    for socket in socket::held(arena) {
        attach::forsake(arena, socket);
    }
    if fork::is_last_of_family(arena)
        && let Some(folder) = folder()
    {
        table_file::remove(folder);
    }
}
