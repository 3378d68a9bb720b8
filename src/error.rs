//! The error of a system call, and the one place where it becomes `-1` and `errno`.

use libc::c_int;

/// A kernel error number, always positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// The calling thread's current `errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: this thread's errno, which lives as long as the thread.
        Self(unsafe { place().read() })
    }

    /// Stores this error where the program will look for it.
    pub(crate) fn store(self) {
        // SAFETY: this thread's errno, which lives as long as the thread.
        unsafe { place().write(self.0) }
    }

    /// Stores this error, and gives what a call returns that fails: -1.
    pub(crate) fn fail<T: From<i8>>(self) -> T {
        self.store();
        T::from(-1)
    }
}

/// Where this thread's `errno` is.
fn place() -> *mut c_int {
    // SAFETY: takes no arguments and always answers.
    unsafe { libc::__errno_location() }
}

/// What a libc function returns for `result`: the count, or -1 with `errno` set as the last action.
pub(crate) fn answer(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(count) => isize::try_from(count).unwrap_or(isize::MAX),
        Err(errno) => errno.fail(),
    }
}

/// The reverse of [`answer`], for the result of a libc call.
pub(crate) fn outcome(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno::last())
}
