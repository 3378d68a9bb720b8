//! Hands the signal state that this command was started with on to the program.
//!
//! Rust's runtime ignores SIGPIPE in this process, and `Command` gives a new program the default action
//! and an empty mask. A program under `sockshim run` shall find what it would have found without it.
//!
//! # Safety
//! The functions called here take pointers to local, initialised values only.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arranges that `command` starts with the signal mask and the SIGPIPE action of our own start.
pub(crate) fn keep(command: &mut Command) {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: a null new set means "only ask"; `mask` is valid for writing.
    let mask = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
        mask.assume_init()
    };
    let pipe_action = if SIGPIPE_WAS_IGNORED.load(Ordering::Relaxed) { libc::SIG_IGN } else { libc::SIG_DFL };
    let restore = move || {
        // SAFETY: both calls are async-signal-safe, and the actions are constants of the kernel.
        unsafe {
            libc::signal(libc::SIGPIPE, pipe_action);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: `restore` makes two async-signal-safe calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(restore) };
}

static SIGPIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime does.
#[used]
// SAFETY: `.init_array` is an array of pointers to functions of this type, called once by the C start-up code.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action means "only ask"; `action` is valid for writing.
    let ignored = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    };
    SIGPIPE_WAS_IGNORED.store(ignored, Ordering::Relaxed);
}
