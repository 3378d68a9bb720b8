//! Whether memory is there, and making it be there, before it is touched: with an error instead of a signal.
//!
//! Linux 5.14 has madvise(2)'s MADV_POPULATE_READ and MADV_POPULATE_WRITE for this. On older kernels, and where a
//! filter may forbid madvise, it is a futex call, which reads the word at its address, or adds 0 to it, and wakes nobody.
//!
//! # Safety
//! The kernel checks the addresses that it gets, and changes nothing there.

use super::raw::{self, Word};
use super::{filter, kernel};
use crate::error::Errno;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const MADV_POPULATE_READ: c_int = 22;
const MADV_POPULATE_WRITE: c_int = 23;
const PAGE: usize = 4096;

/// The kernel does not know the advice.
static HAS_NO_ADVICE: AtomicBool = AtomicBool::new(false);

/// Gives pages to a stretch of a mapping.
///
/// # Errors
/// EFAULT: there is none to give.
pub(crate) fn populate(address: *mut u8, length: usize) -> Result<(), Errno> {
    if let Some(result) = advise(address as usize, length, MADV_POPULATE_WRITE) {
        return result;
    }
    let first = address as usize & !(PAGE - 1);
    (first..address as usize + length).step_by(PAGE).try_for_each(|page| touch(page, true))
}

/// Whether pages of the program's, `length` bytes, can all be read, or written. Under a filter of the program's the copy
/// finds out.
#[cold]
pub(crate) fn is_accessible(page: usize, length: usize, write: bool) -> bool {
    if kernel::is_restricted() {
        return true;
    }
    let advice = if write { MADV_POPULATE_WRITE } else { MADV_POPULATE_READ };
    match advise(page, length, advice) {
        Some(Ok(())) => true,
        // Not mapped, beyond the end of a file, no permission.
        Some(Err(Errno(libc::EFAULT | libc::ENOMEM | libc::EHWPOISON))) => false,
        // Memory of a device, which the kernel's own copy would take; or it could not tell (EAGAIN, EINTR).
        Some(Err(_)) | None => {
            let end = page.saturating_add(length);
            (page..end).step_by(PAGE).all(|page| touch(page, write) != Err(Errno(libc::EFAULT)))
        }
    }
}

/// madvise(2); `None`: not here.
fn advise(address: usize, length: usize, advice: c_int) -> Option<Result<(), Errno>> {
    if HAS_NO_ADVICE.load(Ordering::Relaxed) || filter::is_inherited() {
        return None;
    }
    let madvise = |address: usize, length: usize| {
        // SAFETY: see the module.
        raw::outcome(unsafe { raw::syscall3(libc::SYS_madvise, address, length, advice.word()) }).map(drop)
    };
    let result = madvise(address, length);
    // Of a stretch of nothing the kernel says whether it knows the advice.
    if matches!(result, Err(Errno(libc::EINVAL | libc::EPERM | libc::ENOSYS))) && madvise(0, 0).is_err() {
        HAS_NO_ADVICE.store(true, Ordering::Relaxed);
        return None;
    }
    Some(result)
}

/// Lets the kernel read or write the first word of a page, without a change.
fn touch(page: usize, write: bool) -> Result<(), Errno> {
    // FUTEX_WAKE_OP of futex(2): add 0, and wake one if the old value is the one compared with.
    const ADD: usize = 1 << 28;
    const UNLIKELY: usize = 0x5a5;
    /// Nobody waits here.
    static NOBODY: AtomicU32 = AtomicU32::new(0);
    let nobody = NOBODY.as_ptr().word();
    let (first, operation, second, value) = if write {
        (nobody, libc::FUTEX_WAKE_OP, page, ADD | UNLIKELY)
    } else {
        // It compares before it wakes none and moves none.
        (page, libc::FUTEX_CMP_REQUEUE, nobody, 0)
    };
    let operation = (operation | libc::FUTEX_PRIVATE_FLAG).word();
    // SAFETY: see the module.
    let result = unsafe { raw::syscall6(libc::SYS_futex, first, operation, 0, 0, second, value) };
    match raw::outcome(result) {
        Err(Errno(libc::EFAULT | libc::ENOMEM | libc::EHWPOISON)) => Err(Errno(libc::EFAULT)),
        // The value is another one; or a filter, or an emulation of the kernel, does not know the call.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::null_mut;

    const READ: c_int = libc::PROT_READ;
    const BOTH: c_int = libc::PROT_READ | libc::PROT_WRITE;

    fn map(protection: c_int, kind: c_int, fd: c_int) -> usize {
        // SAFETY: new memory.
        let place = unsafe { libc::mmap(null_mut(), PAGE, protection, kind, fd, 0) };
        assert_ne!(place, libc::MAP_FAILED);
        place as usize
    }

    fn anonymous(protection: c_int) -> usize {
        map(protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    #[test]
    fn memory_that_is_there_is_told_from_memory_that_is_not() {
        let nowhere = anonymous(libc::PROT_NONE);
        let (readable, writable) = (anonymous(READ), anonymous(BOTH));
        // SAFETY: a name, and no pointers besides.
        let empty = map(BOTH, libc::MAP_SHARED, unsafe { libc::memfd_create(c"empty".as_ptr(), 0) });
        for (page, may_read, may_write) in [
            (0, false, false),
            (nowhere, false, false),
            (readable, true, false),
            (writable, true, true),
            (empty, false, false),
            (usize::MAX & !(PAGE - 1), false, false),
        ] {
            for (write, expected) in [(false, may_read), (true, may_write)] {
                assert_eq!(touch(page, write).is_ok(), expected, "{page:x} {write}");
                assert_eq!(is_accessible(page, PAGE, write), expected, "{page:x} {write}");
            }
        }
    }

    #[test]
    fn touching_gives_a_page_and_changes_nothing() {
        // SAFETY: a name, and no pointers besides.
        let file = unsafe { libc::memfd_create(c"sparse".as_ptr(), 0) };
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(file, PAGE as i64) }, 0);
        let blocks = || {
            // SAFETY: an all-zero stat is a valid value.
            let mut facts: libc::stat = unsafe { core::mem::zeroed() };
            // SAFETY: `facts` is writable.
            assert_eq!(unsafe { libc::fstat(file, &raw mut facts) }, 0);
            facts.st_blocks
        };
        let place = map(BOTH, libc::MAP_SHARED, file);
        assert_eq!(blocks(), 0);
        assert_eq!(touch(place, true), Ok(()));
        assert_ne!(blocks(), 0);
        // SAFETY: a page of our own, which only this test has.
        let word = unsafe { AtomicU32::from_ptr(place as *mut u32) };
        for value in [0, 1, 0x5a5, u32::MAX] {
            word.store(value, Ordering::Relaxed);
            assert_eq!((touch(place, true), touch(place, false)), (Ok(()), Ok(())));
            assert_eq!(word.load(Ordering::Relaxed), value);
        }
    }
}
