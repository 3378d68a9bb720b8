//! Files and descriptors of them.

use super::{limits::file_size_limits, make};
use crate::error::Errno;
use crate::sys::filter;
use core::ffi::{CStr, c_int};

/// A descriptor of ours, which its drop closes. std's `OwnedFd` would call libc's close, which is one of our own exports.
#[derive(Debug)]
pub(crate) struct Fd(c_int);

impl Fd {
    /// What a system call has just made.
    pub(super) fn new(made: usize) -> Self {
        Self(made as c_int)
    }

    pub(crate) fn as_raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = call!(SYS_close, self.0);
    }
}

pub(crate) fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Fd, Errno> {
    call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, mode).map(Fd::new)
}

/// Opens a file that others may have made, and waits for none of them: neither for the holder of a lease on it (fcntl(2),
/// F_SETLEASE), nor for the other end of a FIFO.
pub(crate) fn open_quickly(path: &CStr, flags: c_int) -> Result<Fd, Errno> {
    open(path, flags | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)
}

pub(crate) fn write(fd: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    call!(SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Gives a file a second name.
pub(crate) fn link(path: &CStr, new: &CStr) {
    let _ = call!(SYS_linkat, libc::AT_FDCWD, path.as_ptr(), libc::AT_FDCWD, new.as_ptr(), 0);
}

pub(crate) fn exists_file(path: &CStr) -> bool {
    call!(SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::F_OK).is_ok()
}

/// Whether there was such a file.
pub(crate) fn unlink(path: &CStr) -> bool {
    call!(SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0).is_ok()
}

pub(crate) fn mkdir(path: &CStr, mode: u32) -> Result<(), Errno> {
    call!(SYS_mkdirat, libc::AT_FDCWD, path.as_ptr(), mode).map(drop)
}

pub(crate) fn truncate(fd: c_int, size: usize) -> Result<(), Errno> {
    call!(SYS_ftruncate, fd, size).map(drop)
}

fn stat(fd: c_int) -> Result<libc::stat, Errno> {
    // SAFETY: an all-zero stat is a valid value.
    let mut facts = unsafe { core::mem::zeroed() };
    call!(SYS_fstat, fd, &raw mut facts)?;
    Ok(facts)
}

/// Type bits and permissions, owner and size of an open file.
pub(crate) fn file_facts(fd: c_int) -> Result<(u32, u32, usize), Errno> {
    let facts = stat(fd)?;
    Ok((facts.st_mode, facts.st_uid, facts.st_size as usize))
}

/// The inode of an open file.
pub(crate) fn inode(fd: c_int) -> Result<u64, Errno> {
    stat(fd).map(|facts| facts.st_ino)
}

/// Seconds since an open file was last changed.
pub(crate) fn age(fd: c_int) -> Option<i64> {
    let facts = stat(fd).ok()?;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    call!(SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut now).ok()?;
    Some(now.tv_sec.saturating_sub(facts.st_mtime))
}

/// Directory entries as `linux_dirent64`; how many bytes of them there are.
pub(crate) fn directory_entries(folder: c_int, buffer: &mut [u64]) -> Result<usize, Errno> {
    call!(SYS_getdents64, folder, buffer.as_mut_ptr(), size_of_val(buffer))
}

/// Where a symbolic link in an open folder leads; how many bytes of the buffer that took.
pub(crate) fn link_target(folder: c_int, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    call!(SYS_readlinkat, folder, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

/// The working directory's path, with the zero at its end.
pub(crate) fn working_directory(buffer: &mut [u8]) -> Result<usize, Errno> {
    call!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len())
}

/// Whether nobody has a file open for writing, or mapped from such an opening, in whatever process and
/// pid namespace: a read lease (fcntl(2)) is given only then. `fd` is a read-only opening of a file of ours; the
/// lease lasts until it is closed.
pub(crate) fn has_no_writer(fd: c_int) -> bool {
    // Whoever opens the file meanwhile waits for our close, and we get a signal: one that is ignored.
    const F_SETSIG: c_int = 10;
    filter::allows_fcntl()
        && call!(SYS_fcntl, fd, F_SETSIG, libc::SIGURG).is_ok()
        && call!(SYS_fcntl, fd, libc::F_SETLEASE, libc::F_RDLCK).is_ok()
}

/// Gives a file of ours a size beyond RLIMIT_FSIZE, for which [`truncate`] would raise SIGXFSZ: the limit is lifted for a
/// moment.
///
/// # Errors
/// EPERM: that is not allowed.
pub(crate) fn truncate_beyond_limit(fd: c_int, size: usize) -> Result<(), Errno> {
    let limits = file_size_limits();
    let [soft, hard] = limits;
    if soft >= size as u64 {
        return truncate(fd, size);
    }
    let lifted = [size as u64, hard.max(size as u64)];
    call!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &raw const lifted, 0)?;
    let result = truncate(fd, size);
    let _ = call!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &raw const limits, 0);
    result
}

/// Reads from a file at `offset`, or at its own position.
pub(crate) fn read_file(fd: c_int, to: *mut u8, length: usize, offset: Option<u64>) -> Result<usize, Errno> {
    match offset {
        Some(offset) => call!(SYS_pread64, fd, to, length, offset),
        None => call!(SYS_read, fd, to, length),
    }
}

/// A file's own position.
pub(crate) fn file_position(fd: c_int) -> Result<u64, Errno> {
    call!(SYS_lseek, fd, 0, libc::SEEK_CUR).map(|position| position as u64)
}

/// Moves a file's own position back.
pub(crate) fn rewind(fd: c_int, count: usize) {
    let _ = call!(SYS_lseek, fd, (count as isize).wrapping_neg(), libc::SEEK_CUR);
}

/// Whether `fd` is a regular file.
pub(crate) fn is_file(fd: c_int) -> bool {
    matches!(file_facts(fd), Ok((mode, _, _)) if mode & libc::S_IFMT == libc::S_IFREG)
}

/// Whether `fd` is a pipe(2).
pub(crate) fn is_pipe(fd: c_int) -> bool {
    matches!(file_facts(fd), Ok((mode, _, _)) if mode & libc::S_IFMT == libc::S_IFIFO)
}
