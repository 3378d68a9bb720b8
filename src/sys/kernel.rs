//! System calls that sockshim makes on its own account: never through libc's names (they are ours), never
//! cancellation points, errors as values, `errno` untouched.
//!
//! # Safety
//! Pointers given to the kernel come from references or from the program's own arguments, whose validity the
//! kernel checks itself.

use super::raw;
use crate::error::Errno;

/// Makes a system call with up to six arguments.
///
/// # Safety
/// The arguments must be what that call wants; see its man page.
#[inline]
unsafe fn make<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> Result<usize, Errno> {
    const { assert!(N <= 6) };
    let mut all = [0usize; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: the arguments are what the caller's call wants; the kernel ignores further ones.
    raw::outcome(unsafe { raw::syscall6(number, all[0], all[1], all[2], all[3], all[4], all[5]) })
}

/// One system call with up to six arguments.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: the kernel validates every pointer argument; none of these calls changes memory that Rust
        // believes to be unshared except through the `&mut` or raw pointers that the caller passed for it.
        unsafe { make(libc::$number, [$($argument as usize),*]) }
    };
}

mod files;
mod limits;
mod memory;
mod sets;
mod signals;
mod sockets;
mod tasks;
mod tcp;
mod time;

pub(crate) use files::*;
pub(crate) use limits::*;
pub(crate) use memory::*;
pub(crate) use sets::*;
pub(crate) use signals::*;
pub(crate) use sockets::*;
pub(crate) use tasks::*;
pub(crate) use tcp::*;
pub(crate) use time::*;
