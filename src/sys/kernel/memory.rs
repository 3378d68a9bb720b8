//! Memory mappings.

use super::make;
use crate::error::Errno;
use crate::sys::filter;
use core::ffi::c_int;

/// A shared mapping of a file.
pub(crate) fn map_shared(fd: c_int, size: usize) -> Result<*mut u8, Errno> {
    map_shared_part(fd, 0, size, core::ptr::null_mut())
}

/// A shared mapping of a part of a file, over `place` if that is not null.
pub(crate) fn map_shared_part(
    fd: c_int,
    offset: usize,
    size: usize,
    place: *mut u8,
) -> Result<*mut u8, Errno> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | fixed;
    call!(SYS_mmap, place, size, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        .map(|address| address as *mut u8)
}

/// Anonymous memory, shared over fork or private, over `place` if that is not null.
pub(crate) fn map_anonymous(size: usize, place: *mut u8, shared: bool) -> Result<*mut u8, Errno> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    call!(SYS_mmap, place, size, libc::PROT_READ | libc::PROT_WRITE, flags, -1isize, 0)
        .map(|address| address as *mut u8)
}

/// Memory of this process that is not locked, even where all new memory is (MCL_FUTURE of mlockall(2)): there are no pages yet that
/// could be.
pub(crate) fn map_unlocked(size: usize) -> Result<*mut u8, Errno> {
    if filter::is_inherited() {
        return map_anonymous(size, core::ptr::null_mut(), false);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let place = call!(SYS_mmap, 0, size, libc::PROT_NONE, flags, -1isize, 0)? as *mut u8;
    let _ = call!(SYS_munlock, place, size);
    match call!(SYS_mprotect, place, size, libc::PROT_READ | libc::PROT_WRITE) {
        Ok(_) => Ok(place),
        Err(error) => {
            unmap(place, size);
            Err(error)
        }
    }
}

/// Whether a page is in memory (mincore(2)). Where a filter may forbid the call: not known to be.
pub(crate) fn is_resident(page: *mut u8) -> bool {
    let mut there = 0u8;
    !filter::is_inherited() && call!(SYS_mincore, page, 4096usize, &raw mut there).is_ok() && there & 1 == 1
}

/// A child that gets a copy of the memory finds these pages empty (Linux 4.14).
pub(crate) fn wipe_on_fork(address: *const u8, length: usize) {
    let _ = call!(SYS_madvise, address, length, libc::MADV_WIPEONFORK);
}

/// The same shared mapping at one more address.
pub(crate) fn map_again(address: *mut u8, size: usize) -> Result<*mut u8, Errno> {
    call!(SYS_mremap, address, 0, size, libc::MREMAP_MAYMOVE).map(|address| address as *mut u8)
}

/// Moves a mapping over another one.
pub(crate) fn move_mapping(from: *mut u8, size: usize, to: *mut u8) -> Result<(), Errno> {
    call!(SYS_mremap, from, size, size, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to).map(drop)
}

pub(crate) fn unmap(address: *mut u8, size: usize) {
    let _ = call!(SYS_munmap, address, size);
}

/// The same as far as it is in memory.
///
/// # Errors
/// EAGAIN: it is not. EOPNOTSUPP: this file system cannot tell (preadv2(2), RWF_NOWAIT).
pub(crate) fn read_from_memory(
    fd: c_int,
    to: *mut u8,
    length: usize,
    offset: Option<u64>,
) -> Result<usize, Errno> {
    let piece = libc::iovec { iov_base: to.cast(), iov_len: length };
    // On 64 bits the offset's upper half is always 0; -1: the file's own position.
    let (low, high) = (offset.unwrap_or(u64::MAX), 0);
    match call!(SYS_preadv2, fd, &raw const piece, 1, low, high, libc::RWF_NOWAIT) {
        // A kernel without the call, or without the flag.
        Err(Errno(libc::ENOSYS | libc::EINVAL)) => Err(Errno(libc::EOPNOTSUPP)),
        result => result,
    }
}
