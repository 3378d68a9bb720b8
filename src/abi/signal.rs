//! Signal handlers: the program's, with a restorer of ours (`sys/handlers.rs`).
//!
//! glibc's functions for the same are a few lines each over `sigaction`, and would bind to its own; so they are here again.

use crate::error::Errno;
use crate::sys::{handlers, kernel, real};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use libc::{c_int, sigaction, sighandler_t, sigset_t};

/// `SIG_HOLD` of signal.h.
const SIG_HOLD: sighandler_t = 2;
/// Signals for which siginterrupt(3) wants EINTR.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// `sigaction(2)`: says what a signal does.
///
/// Behaves as the manual page says. `sa_restorer` of an installed action is an address inside sockshim: so a
/// call that is spinning, and not asleep yet, is ended by the signal, as in the kernel.
///
/// # Errors
///
/// Those of sigaction(2).
///
/// # Safety
///
/// `new` is null or valid for reading, `old` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sigaction(
    signal: c_int,
    new: *const sigaction,
    old: *mut sigaction,
) -> c_int {
    // glibc keeps two signals for itself, and has a lock for the one of abort(3). And an interposer behind us has a say.
    let is_usual = matches!(signal, 1..=31 | 34..=64) && signal != libc::SIGABRT;
    if !is_usual || !real::owns_sigaction() {
        // SAFETY: the caller keeps the contract of sigaction(2).
        return unsafe { real::sigaction(signal, new, old) };
    }
    // SAFETY: null, or the caller's action, see # Safety.
    let action = unsafe { new.as_ref() }.map(|new| kernel::Action {
        handler: new.sa_sigaction,
        // glibc hands the flags over as an int, too.
        flags: new.sa_flags as i64 as u64 | kernel::SA_RESTORER,
        restorer: handlers::restorer(signal, new.sa_flags),
        mask: first_word(&new.sa_mask),
    });
    match kernel::signal_action(signal, action.as_ref()) {
        Ok(before) => {
            // SAFETY: null, or room of the caller's for an action, see # Safety.
            if let Some(old) = unsafe { old.as_mut() } {
                old.sa_sigaction = before.handler;
                old.sa_flags = before.flags as c_int;
                // SAFETY: the first word of a set is the kernel's; glibc leaves the rest as it is, too.
                unsafe { (&raw mut old.sa_mask).cast::<u64>().write(before.mask) };
                // SAFETY: an address, or null, which nobody calls but the kernel.
                old.sa_restorer =
                    unsafe { core::mem::transmute::<usize, Option<extern "C" fn()>>(before.restorer) };
            }
            0
        }
        Err(error) => error.fail(),
    }
}

/// `signal(2)`: installs a handler that restarts calls, as BSD does. Behaves as the manual page says, by
/// `sockshim_sigaction`.
///
/// # Errors
///
/// Returns `SIG_ERR`, with those of signal(2).
///
/// # Safety
///
/// The handler is a function for signals, or one of the constants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let interrupts = INTERRUPTING.load(Ordering::Relaxed) & bit(signal) != 0;
    let flags = if interrupts { 0 } else { libc::SA_RESTART };
    // SAFETY: the caller keeps the contract of signal(2).
    unsafe { install(signal, handler, flags, bit(signal)) }
}

/// `sysv_signal(3)`: installs a handler for once. Behaves as the manual page says, by `sockshim_sigaction`.
///
/// # Errors
///
/// Returns `SIG_ERR`, with those of sysv_signal(3).
///
/// # Safety
///
/// The handler is a function for signals, or one of the constants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    const SA_INTERRUPT: c_int = 0x2000_0000;
    let flags = libc::SA_RESETHAND | libc::SA_NODEFER | SA_INTERRUPT;
    // SAFETY: the caller keeps the contract of sysv_signal(3).
    unsafe { install(signal, handler, flags, 0) }
}

/// `siginterrupt(3)`: says whether a signal's handler ends calls or restarts them. Behaves as the manual page
/// says.
///
/// # Errors
///
/// Those of siginterrupt(3).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_siginterrupt(signal: c_int, interrupt: c_int) -> c_int {
    let mut action = empty();
    // SAFETY: the action is writable.
    if unsafe { sockshim_sigaction(signal, ptr::null(), &raw mut action) } < 0 {
        return -1;
    }
    if interrupt != 0 {
        INTERRUPTING.fetch_or(bit(signal), Ordering::Relaxed);
        action.sa_flags &= !libc::SA_RESTART;
    } else {
        INTERRUPTING.fetch_and(!bit(signal), Ordering::Relaxed);
        action.sa_flags |= libc::SA_RESTART;
    }
    // SAFETY: what the program has installed.
    unsafe { sockshim_sigaction(signal, &raw const action, ptr::null_mut()) }
}

/// `sigset(3)`: installs a handler, or blocks the signal. Behaves as the manual page says, by
/// `sockshim_sigaction`.
///
/// # Errors
///
/// Returns `SIG_ERR`, with those of sigset(3).
///
/// # Safety
///
/// The handler is a function for signals, or one of the constants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sigset(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if !(1..=64).contains(&signal) || handler == libc::SIG_ERR {
        return Errno(libc::EINVAL).fail::<isize>() as sighandler_t;
    }
    let holds = handler == SIG_HOLD;
    let mut before = empty();
    if holds {
        // SAFETY: the action is writable.
        if unsafe { sockshim_sigaction(signal, ptr::null(), &raw mut before) } < 0 {
            return libc::SIG_ERR;
        }
    } else {
        // SAFETY: the caller keeps the contract of sigset(3).
        before.sa_sigaction = unsafe { install(signal, handler, 0, 0) };
        if before.sa_sigaction == libc::SIG_ERR {
            return libc::SIG_ERR;
        }
    }
    let how = if holds { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    match kernel::change_signal_mask(how, bit(signal)) {
        Ok(mask) if mask & bit(signal) != 0 => SIG_HOLD,
        Ok(_) => before.sa_sigaction,
        Err(error) => error.fail::<isize>() as sighandler_t,
    }
}

/// # Safety
/// As for [`sockshim_signal`].
unsafe fn install(signal: c_int, handler: sighandler_t, flags: c_int, mask: u64) -> sighandler_t {
    if handler == libc::SIG_ERR || !(1..=64).contains(&signal) {
        return Errno(libc::EINVAL).fail::<isize>() as sighandler_t;
    }
    let (mut new, mut old) = (empty(), empty());
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: the first word of a set is the kernel's.
    unsafe { (&raw mut new.sa_mask).cast::<u64>().write(mask) };
    // SAFETY: both actions are ours; the handler is the caller's.
    if unsafe { sockshim_sigaction(signal, &raw const new, &raw mut old) } < 0 {
        return libc::SIG_ERR;
    }
    old.sa_sigaction
}

const fn empty() -> sigaction {
    // SAFETY: an all-zero action is a valid one.
    unsafe { core::mem::zeroed() }
}

const fn bit(signal: c_int) -> u64 {
    match signal {
        1..=64 => 1 << (signal - 1),
        _ => 0,
    }
}

/// The signals that the kernel knows.
fn first_word(set: &sigset_t) -> u64 {
    // SAFETY: a set is longer than that.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}
