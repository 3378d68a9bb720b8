//! Signals of this thread.

use super::{make, tasks::getpid, tasks::gettid, tasks::is_restricted};
use crate::error::Errno;
use core::ffi::c_int;

/// Blocks every signal for this thread; the old mask. Not under a filter of the program's, which may forbid it.
pub(crate) fn block_signals() -> u64 {
    if is_restricted() {
        return 0;
    }
    let all = !0u64;
    let mut old = 0u64;
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const all, &raw mut old, 8);
    old
}

pub(crate) fn restore_signals(old: u64) {
    if is_restricted() {
        return;
    }
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const old, 0, 8);
}

/// The set of blocked signals of this thread before `set` was blocked (SIG_BLOCK) or unblocked (SIG_UNBLOCK).
pub(crate) fn change_signal_mask(how: c_int, set: u64) -> Result<u64, Errno> {
    let mut old = 0u64;
    call!(SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8)?;
    Ok(old)
}

/// What a signal does: `struct kernel_sigaction` (asm/signal.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) handler: usize,
    pub(crate) flags: u64,
    pub(crate) restorer: usize,
    pub(crate) mask: u64,
}

/// The restorer of an [`Action`] counts.
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;

/// What a signal has done until now; `new` is what it does from now on.
pub(crate) fn signal_action(signal: c_int, new: Option<&Action>) -> Result<Action, Errno> {
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let new = new.map_or(core::ptr::null(), core::ptr::from_ref);
    call!(SYS_rt_sigaction, signal, new, &raw mut old, 8)?;
    Ok(old)
}

pub(crate) fn raise_sigpipe() {
    let _ = call!(SYS_tgkill, getpid(), gettid(), libc::SIGPIPE);
}
