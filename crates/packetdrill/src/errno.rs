//! Errors as numbers, and how a call tells its caller.
//!
//! # Safety
//!
//! Writes the calling thread's `errno`.

use libc::c_int;
use sockshim_tcpip::error::Error;

/// A number that `errno` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) type Answer<R> = Result<R, Errno>;

/// Names as in errno(3).
macro_rules! names {
    ($($name:ident)*) => {
        impl Errno { $(pub(crate) const $name: Self = Self(libc::$name);)* }
    };
}

names! {
    EAFNOSUPPORT EAGAIN EALREADY EBADF EDEADLK EEXIST EFAULT EINPROGRESS EINVAL EISCONN EMFILE ENOENT
    ENOPROTOOPT ENOSYS ENOTCONN ENOTSOCK EOPNOTSUPP EPERM EPROTONOSUPPORT
}

/// The answer as a system call gives it: -1 and `errno`, or the value, and then `errno` is left alone.
pub(crate) fn answer<T: From<i8>>(answer: Answer<T>) -> T {
    answer.unwrap_or_else(|Errno(number)| {
        // SAFETY: glibc's `errno` of this thread is always there.
        unsafe { *libc::__errno_location() = number };
        T::from(-1)
    })
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self(error.errno())
    }
}
