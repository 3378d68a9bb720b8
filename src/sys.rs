//! The kernel and the real libc: the only place with raw system calls and `dlsym`.

pub(crate) mod alarm;
pub(crate) mod raw;
pub(crate) mod real;
