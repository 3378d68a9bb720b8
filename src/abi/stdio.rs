//! The doors between descriptors and stdio.
//!
//! stdio calls the kernel inside glibc, where no hook runs. So a descriptor that is given to it goes back to the
//! kernel first, and what glibc closes is noted here.

mod cookie;

use super::makers::made;
use super::quietly;
use crate::error::Errno;
use crate::lifecycle;
use crate::pipe::meeting::descriptor;
use crate::state::reason::Reason;
use crate::sys::real;
use libc::{FILE, c_char, c_int, c_void};
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// `fdopen(3)`: makes a stream over a descriptor.
///
/// A connection goes back to the kernel for good. Bytes that are unread in shared memory then are served by
/// the stream first.
///
/// # Errors
///
/// Those of fdopen(3).
///
/// # Safety
///
/// `mode` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller keeps the contract of fdopen(3).
    let stream = unsafe { real::fdopen(fd, mode) };
    if stream.is_null() {
        return stream;
    }
    // SAFETY: fdopen took `mode`, so it is a C string.
    let mode = unsafe { CStr::from_ptr(mode) };
    // SAFETY: the stream is new and still ours alone.
    let stream = quietly(|| unsafe { hand_over(fd, stream, mode) });
    if stream.is_null() {
        Errno(libc::ENOMEM).store();
    }
    stream
}

/// `freopen(3)`: lets a stream go on with another file. Behaves as the manual page says; sockshim notes what
/// is closed and opened.
///
/// # Errors
///
/// Those of freopen(3); the stream is closed then.
///
/// # Safety
///
/// `path` is null or a C string, `mode` is a C string, `stream` is an open stream.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_freopen(
    path: *const c_char,
    mode: *const c_char,
    stream: *mut FILE,
) -> *mut FILE {
    // SAFETY: the caller's stream is open.
    unsafe { closing(stream) };
    // SAFETY: names and stream are the caller's, see # Safety.
    let stream = unsafe { real::freopen(path, mode, stream) };
    // SAFETY: what freopen returns is null or an open stream.
    unsafe { reopened(stream) }
}

/// `freopen64(3)`: another name of `sockshim_freopen`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of freopen(3); the stream is closed then.
///
/// # Safety
///
/// `path` is null or a C string, `mode` is a C string, `stream` is an open stream.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_freopen64(
    path: *const c_char,
    mode: *const c_char,
    stream: *mut FILE,
) -> *mut FILE {
    // SAFETY: names and stream are the caller's, see # Safety.
    unsafe { sockshim_freopen(path, mode, stream) }
}

/// `dprintf(3)`: prints to a descriptor. A connection goes back to the kernel for good first.
///
/// # Errors
///
/// Those of dprintf(3).
///
/// # Safety
///
/// `format` is a C string, and the arguments are what it names.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_dprintf(fd: c_int, format: *const c_char) -> c_int {
    variadic_detour!(dprintf_hook)
}

/// `vdprintf(3)`: prints to a descriptor. A connection goes back to the kernel for good first.
///
/// # Errors
///
/// Those of vdprintf(3).
///
/// # Safety
///
/// `format` is a C string, and `arguments` hold what it names.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_vdprintf(
    fd: c_int,
    format: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    quietly(|| descriptor::pin(fd, Reason::Stdio));
    // SAFETY: the caller keeps the contract of vdprintf(3).
    unsafe { real::vdprintf(fd, format, arguments) }
}

/// `fclose(3)`: flushes and closes a stream and its descriptor. Behaves as the manual page says.
///
/// # Errors
///
/// Those of fclose(3).
///
/// # Safety
///
/// `stream` is an open stream, not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's stream is open.
    unsafe { closing(stream) };
    // SAFETY: the caller gives the stream up.
    unsafe { real::fclose(stream) }
}

/// `fcloseall(3)`: flushes all streams. Behaves as the manual page says; the C library leaves their
/// descriptors open.
///
/// # Errors
///
/// Those of fcloseall(3).
///
/// # Safety
///
/// No thread uses a stream meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fcloseall() -> c_int {
    // SAFETY: the caller keeps the contract of fcloseall(3).
    unsafe { real::fcloseall() }
}

/// Takes `fd` off its pipe. If bytes are unread there and `stream` reads, the result is another stream that serves
/// them first; null if there is no memory for it.
///
/// # Safety
///
/// `stream` was made by `fdopen` and is used by nobody else.
unsafe fn hand_over(fd: c_int, stream: *mut FILE, mode: &CStr) -> *mut FILE {
    descriptor::pin(fd, Reason::Stdio);
    let mode = mode.to_bytes();
    let both = mode.contains(&b'+');
    if mode.first() != Some(&b'r') && !both {
        return stream;
    }
    let unread = unread_bytes(fd);
    if unread.is_empty() {
        return stream;
    }
    // SAFETY: the program has not seen the stream yet.
    unsafe { cookie::discard(stream) };
    cookie::stream(fd, both, unread)
}

/// What is still in the ring of `fd`.
fn unread_bytes(fd: c_int) -> Vec<u8> {
    let mut unread = Vec::new();
    while unread.try_reserve(CHUNK).is_ok() {
        let start = unread.len();
        unread.resize(start + CHUNK, 0);
        let taken = lifecycle::take_unread(fd, &mut unread[start..]).min(CHUNK);
        unread.truncate(start + taken);
        if taken == 0 {
            break;
        }
    }
    unread
}

/// How many unread bytes are moved at a time.
const CHUNK: usize = 16 << 10;

/// Tells `lifecycle` that glibc is about to close the stream's descriptor, if it has one.
///
/// # Safety
///
/// `stream` is an open stream.
unsafe fn closing(stream: *mut FILE) {
    quietly(|| {
        // SAFETY: the caller's stream is open.
        let fd = unsafe { libc::fileno(stream) };
        if fd >= 0 {
            lifecycle::closing(fd);
        }
    });
}

/// Tells `lifecycle` what `freopen` opened.
///
/// # Safety
///
/// `stream` is null or an open stream.
unsafe fn reopened(stream: *mut FILE) -> *mut FILE {
    if !stream.is_null() {
        // SAFETY: not null, so an open stream, as the caller says.
        quietly(|| made(unsafe { libc::fileno(stream) }));
    }
    stream
}

extern "C" fn dprintf_hook(fd: c_int) -> *const c_void {
    quietly(|| descriptor::pin(fd, Reason::Stdio));
    target(&real::slot::dprintf)
}

/// The address to jump to for a variadic function, found late if the constructor has not run.
fn target(slot: &AtomicPtr<c_void>) -> *const c_void {
    if slot.load(Relaxed).is_null() {
        real::resolve();
    }
    let address = slot.load(Relaxed);
    if address.is_null() { missing as *const c_void } else { address }
}

/// Stands in for a function that this libc lacks.
extern "C" fn missing() -> c_int {
    Errno(libc::ENOSYS).fail()
}
