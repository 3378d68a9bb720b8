//! The first moments of a process, and its rendezvous folder.

use super::table::{self, Descriptor};
use super::{arena, config, fork, janitor, log, socket, trace};
use crate::pipe::{attach, pin};
use crate::sys::folder::{self, Path};
use crate::sys::{clock, kernel, real, thread};
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use once_cell::race::OnceBox;

/// 0: not started; 1: being started by some thread; 2: ready.
static PHASE: AtomicU8 = AtomicU8::new(0);
/// The folder, if it can be used.
static FOLDER: OnceBox<Option<Path>> = OnceBox::new();

/// The process number in the name of the table's file; 0: the table is not a file.
static TABLE: AtomicU32 = AtomicU32::new(0);
/// The other number in it: how many tables of that process number were in use when it was made.
static INSTANCE: AtomicU32 = AtomicU32::new(0);
/// A process that executes itself anew may leave children that go on with its table: more such tables than this
/// have no file.
const INSTANCES: u32 = 16;

/// Whether the tables can be used. Before, every call goes to the kernel.
#[inline]
pub(crate) fn is_ready() -> bool {
    PHASE.load(Ordering::Acquire) == 2
}

/// Starts once; called by the constructor, and by the calls that make sockets where no constructor ran. A
/// second thread does not wait: its descriptor is classified when it is used.
pub(crate) fn start() {
    if PHASE.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    real::resolve();
    thread::find_area();
    clock::start();
    config::read_environment();
    log::start();
    trace::start();
    let folder = folder::usable(config::folder());
    config::hide_from_guest();
    if let Some(folder) = &folder {
        janitor::sweep(folder, janitor::AT_START);
    }
    let file = folder.as_ref().and_then(open_table);
    let _ = FOLDER.set(Box::new(folder));
    let installed = arena::install(file);
    if let Some(fd) = file {
        kernel::close(fd);
    }
    if installed && let Some(arena) = arena::get() {
        fork::begin(arena);
        if file.is_some() {
            TABLE.store(kernel::getpid(), Ordering::Release);
        }
        PHASE.store(2, Ordering::Release);
    }
}

/// Path of a file in the rendezvous folder; `None` when there is no usable folder.
pub(crate) fn file(write: impl Fn(&mut Path) -> core::fmt::Result) -> Option<Path> {
    let mut path = (*FOLDER.get()?)?;
    path.write_char('/').ok()?;
    write(&mut path).ok()?;
    Some(path)
}

/// The process's table as a file, so that `sockshim ss` can look; not needed for anything else.
fn open_table(folder: &Path) -> Option<i32> {
    let (path, fd) = (0..INSTANCES).find_map(|instance| {
        let mut path = *folder;
        path.write_char('/').ok()?;
        name_table(&mut path, kernel::getpid(), instance).ok()?;
        INSTANCE.store(instance, Ordering::Relaxed);
        let make = || kernel::open(path.as_c_str(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600).ok();
        let fd = make().or_else(|| {
            // An older process of that number is gone, or it was this one, and its children go on.
            if janitor::remove_unused(&path) {
                return make();
            }
            resign(&path);
            None
        })?;
        Some((path, fd))
    })?;
    let usable =
        kernel::file_size_limit() == u64::MAX && kernel::truncate(fd, size_of::<arena::Arena>()).is_ok();
    // The pages of a table are given as it is used; when tmpfs is nearly full, anonymous memory is safer.
    if usable && kernel::allocate(fd, 0, TABLE_HEAD).is_ok() {
        return Some(fd);
    }
    kernel::close(fd);
    kernel::unlink(path.as_c_str());
    None
}

/// This process is no member any more of the family of this table, to which it belonged before it executed itself anew.
fn resign(path: &Path) {
    let Ok(fd) = kernel::open_quickly(path.as_c_str(), libc::O_RDWR) else {
        return;
    };
    let size = size_of::<arena::Arena>();
    let is_table = matches!(kernel::file_facts(fd), Ok((mode, owner, length))
        if mode & libc::S_IFMT == libc::S_IFREG && owner == kernel::geteuid() && length == size);
    if is_table && let Ok(place) = kernel::map_shared(fd, size) {
        // SAFETY: a mapping of that size, which holds only atomics.
        fork::resign(unsafe { &*place.cast::<arena::Arena>() });
        kernel::unmap(place, size);
    }
    kernel::close(fd);
}

const TABLE_HEAD: usize = 64 * 1024;

fn name_table(path: &mut Path, process: u32, instance: u32) -> core::fmt::Result {
    write!(path, "table{}-{process}", arena::VERSION)?;
    if instance > 0 { write!(path, ".{instance}") } else { Ok(()) }
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
    if !fork::is_last_of_family(arena) {
        return;
    }
    let first = TABLE.swap(0, Ordering::AcqRel);
    if first != 0
        && let Some(path) = file(|path| name_table(path, first, INSTANCE.load(Ordering::Relaxed)))
    {
        kernel::unlink(path.as_c_str());
    }
}
