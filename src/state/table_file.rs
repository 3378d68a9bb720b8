//! The socket table as a file in the rendezvous folder, so that `sockshim ss` can look; not needed for anything else.

use super::process_name::{ProcessName, Stored};
use super::socket_table::{self, SocketTable};
use super::{family, stale_files};
use crate::sys::folder::PathBuffer;
use crate::sys::kernel::{self, Fd};
use crate::sys::probe;
use core::ffi::c_int;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

/// In whose name the file was made that the process's family has, and one more than its instance; 0: the table is not a file.
static MAKER: Stored = Stored::new();
static INSTANCE: AtomicU32 = AtomicU32::new(0);

/// A process that executes itself anew may leave children that go on with its table: more such tables than this
/// have no file.
pub(crate) const INSTANCES: u32 = 16;

/// A file for a table of this process, which nobody uses yet.
pub(crate) struct TableFile {
    pub(crate) fd: Fd,
    path: PathBuffer,
    instance: u32,
}

impl TableFile {
    /// `is_new`: the process has executed a program, and is no member of a family yet.
    pub(crate) fn make(folder: &PathBuffer, own: &ProcessName, is_new: bool) -> Option<Self> {
        let file = (0..INSTANCES).find_map(|instance| {
            let path = named(folder, own, instance)?;
            let make =
                || kernel::open(path.as_c_str(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600).ok();
            let fd = make().or_else(|| {
                // An older process of that name is gone, or it was this one, and its children go on.
                if stale_files::remove_unused(&path) {
                    return make();
                }
                if is_new {
                    resign(&path, own);
                }
                None
            })?;
            Some(Self { fd, path, instance })
        })?;
        let usable = kernel::file_size_limit() == u64::MAX
            && kernel::truncate(file.fd.as_raw(), size_of::<SocketTable>()).is_ok();
        // The pages of a table are given as it is used; when tmpfs is nearly full, anonymous memory is safer.
        if usable && has_room(file.fd.as_raw()) {
            return Some(file);
        }
        file.discard();
        None
    }

    /// It is not needed after all.
    pub(crate) fn discard(self) {
        kernel::unlink(self.path.as_c_str());
    }

    /// It is mapped: the process's table from now on.
    pub(crate) fn keep(self, own: &ProcessName) {
        MAKER.store(own);
        INSTANCE.store(self.instance + 1, Ordering::Release);
    }
}

/// The process's table is not a file.
pub(crate) fn have_none() {
    INSTANCE.store(0, Ordering::Release);
}

/// The last process of the family ends.
pub(crate) fn remove(folder: &PathBuffer) {
    let instance = INSTANCE.swap(0, Ordering::AcqRel);
    if let Some(path) = instance.checked_sub(1).and_then(|instance| named(folder, &MAKER.load(), instance)) {
        kernel::unlink(path.as_c_str());
    }
}

/// Gives the head of a table its pages.
fn has_room(fd: c_int) -> bool {
    let head = offset_of!(SocketTable, sockets).next_multiple_of(4096);
    kernel::map_shared(fd, head).is_ok_and(|place| {
        let given = probe::populate(place, head);
        kernel::unmap(place, head);
        given.is_ok()
    })
}

fn named(folder: &PathBuffer, maker: &ProcessName, instance: u32) -> Option<PathBuffer> {
    let mut path = folder.copy()?;
    maker.name_table(socket_table::VERSION, instance, &mut path).ok()?;
    Some(path)
}

/// This process is no member any more of the family of this table, if it was before it executed itself anew. Another one
/// may have the same number elsewhere, and its table the same name where there is no /proc.
fn resign(path: &PathBuffer, own: &ProcessName) {
    if !own.is_certain() {
        return;
    }
    let Ok(fd) = kernel::open_quickly(path.as_c_str(), libc::O_RDWR) else { return };
    let size = size_of::<SocketTable>();
    let is_table = matches!(kernel::file_facts(fd.as_raw()), Ok((mode, owner, length))
        if mode & libc::S_IFMT == libc::S_IFREG && owner == kernel::geteuid() && length == size);
    if is_table && let Ok(place) = kernel::map_shared(fd.as_raw(), size) {
        // SAFETY: a mapping of that size, which holds only atomics.
        let socket_table = unsafe { &*place.cast::<SocketTable>() };
        if socket_table.maker.load() == *own {
            family::resign(socket_table);
        }
        kernel::unmap(place, size);
    }
}
