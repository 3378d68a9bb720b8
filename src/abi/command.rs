//! Shell commands for which this process waits.

use super::makers::made;
use super::quietly;
use crate::lifecycle;
use crate::sys::real;
use libc::{FILE, c_char, c_int};

/// `system(3)`: runs a shell command.
///
/// The connections that the command gets go back to the kernel first; what it leaves unread is read by this
/// process afterwards.
///
/// # Errors
///
/// Those of system(3).
///
/// # Safety
///
/// `command` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_system(command: *const c_char) -> c_int {
    if command.is_null() {
        // SAFETY: asks whether there is a shell.
        return unsafe { real::system(command) };
    }
    quietly(|| lifecycle::before_command(real::single_threaded()));
    // SAFETY: the caller keeps the contract of system(3).
    let result = unsafe { real::system(command) };
    quietly(lifecycle::after_command);
    result
}

/// `popen(3)`: starts a shell command with a pipe of the kernel to it.
///
/// The connections that the command gets go back to the kernel first; `sockshim_pclose` takes back what it
/// leaves unread.
///
/// # Errors
///
/// Those of popen(3).
///
/// # Safety
///
/// Both are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    quietly(|| lifecycle::before_command(false));
    // SAFETY: the caller keeps the contract of popen(3).
    let stream = unsafe { real::popen(command, mode) };
    if !stream.is_null() {
        // SAFETY: just made.
        made(unsafe { libc::fileno(stream) });
    }
    stream
}

/// `pclose(3)`: waits for a command that `sockshim_popen` has started.
///
/// # Errors
///
/// Those of pclose(3).
///
/// # Safety
///
/// `stream` is one that `sockshim_popen` has returned, not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_pclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller keeps the contract of pclose(3).
    let result = unsafe { real::pclose(stream) };
    quietly(lifecycle::after_command);
    result
}
