//! The kernel and the real libc: the only place with raw system calls, `dlsym` and mappings.

pub(crate) mod address;
pub(crate) mod alarm;
pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod deadline;
pub(crate) mod diag;
pub(crate) mod filter;
pub(crate) mod folder;
pub(crate) mod futex;
pub(crate) mod give_way;
pub(crate) mod handlers;
pub(crate) mod kernel;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod real;
pub(crate) mod restartable;
pub(crate) mod scratch;
pub(crate) mod stack;
pub(crate) mod thread;
