//! What a Rust program may ask about its connections: the calls of [`crate::abi::control`], without unsafe code.
//!
//! The sockets may be those of `std::net`, or of anything else over libc, in a program that was started with `sockshim run`
//! (or `LD_PRELOAD`): then the questions go to the shared object that was loaded first, which does the work. In a program
//! that makes and closes its sockets by the functions of [`crate::abi`] they go to the copy that is linked into it.
//!
//! `BorrowedFd` is the only type of std's here, and no call of it is made but for the number, so nothing can come back to
//! our own exports. It promises that the descriptor is open, which leaves no error to report.
//!
//! No function here waits for the other end. They look names up in the loaded objects, and are not for signal handlers.
//!
//! # Safety
//!
//! Functions of another copy are called by address. It has the same version, so they have the same types.

use crate::abi::control::{self, Counters, Path};
use crate::state::phase;
use crate::state::reason::{self, Reason};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::fmt;
use core::mem::transmute;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where the bytes of the connection behind `fd` run at this moment.
///
/// What is no TCP connection is on [`Path::Host`], and so is everything in a process that does not run on sockshim.
pub fn path_of(fd: BorrowedFd<'_>) -> Path {
    match Library::at_work().map(|library| (library.path)(fd.as_raw_fd())) {
        Some(PIPE) => Path::Pipe,
        _ => Path::Host,
    }
}

/// Why the connection behind `fd` is on its path; the reason can be printed.
///
/// `None`: this process does not run on sockshim, or on one of another version than this crate's.
pub fn reason_of(fd: BorrowedFd<'_>) -> Option<Reason> {
    let number = (Library::at_work()?.reason)(fd.as_raw_fd());
    reason::numbered(number).map(|(reason, _)| reason)
}

/// What the connection behind `fd` has done since it was made: bytes, wake-ups, sleeps, moves.
///
/// All numbers are 0 for what is no TCP connection, and in a process that does not run on sockshim.
pub fn counters(fd: BorrowedFd<'_>) -> Counters {
    let mut counters = Counters::default();
    if let Some(library) = Library::at_work() {
        // SAFETY: the structure is writable.
        unsafe { (library.counters)(fd.as_raw_fd(), &raw mut counters) };
    }
    counters
}

/// What all connections of this process have done since it started, with those that are closed.
///
/// All numbers are 0 in a process that does not run on sockshim.
pub fn process_counters() -> Counters {
    let mut counters = Counters::default();
    if let Some(library) = Library::at_work() {
        // SAFETY: the structure is writable.
        unsafe { (library.process_counters)(&raw mut counters) };
    }
    counters
}

/// Keeps the connection behind `fd` with the kernel from now on, in both directions.
///
/// Bytes that are unread in shared memory are still delivered first. Where the kernel has everything anyway there is
/// nothing to do: on what is no TCP connection, and in a process that does not run on sockshim.
pub fn pin(fd: BorrowedFd<'_>) {
    if let Some(library) = Library::at_work() {
        (library.pin_host)(fd.as_raw_fd());
    }
}

impl fmt::Display for Reason {
    /// A few words in English, as `sockshim ss` shows them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(reason::text(*self as c_uint).to_str().unwrap_or_default())
    }
}

/// The copy of the library that does this process's work.
#[repr(C)]
struct Library {
    path: extern "C" fn(c_int) -> c_int,
    reason: extern "C" fn(c_int) -> c_uint,
    counters: unsafe extern "C" fn(c_int, *mut Counters) -> c_int,
    process_counters: unsafe extern "C" fn(*mut Counters) -> c_int,
    pin_host: extern "C" fn(c_int) -> c_int,
}

impl Library {
    /// The first one among the loaded objects, else this one if it has been started; see [`start`].
    fn at_work() -> Option<Self> {
        let first = named(c"sockshim_reason");
        if !first.is_null() && first.cast_const() != control::sockshim_reason as *const c_void {
            return Self::other();
        }
        phase::is_ready().then_some(Self {
            path: control::sockshim_path,
            reason: control::sockshim_reason,
            counters: control::sockshim_counters,
            process_counters: control::sockshim_process_counters,
            pin_host: control::sockshim_pin_host,
        })
    }

    /// The copy that comes before this one, if it is of the same version.
    fn other() -> Option<Self> {
        let version = named(c"sockshim_version");
        if version.is_null() {
            return None;
        }
        // SAFETY: every version of the library has this function, with this type.
        let version = unsafe { transmute::<*mut c_void, extern "C" fn() -> *const c_char>(version) }();
        // SAFETY: it returns a C string that stays.
        if unsafe { CStr::from_ptr(version) } != control::VERSION {
            return None;
        }
        // In the order of the fields.
        let functions = [
            c"sockshim_path",
            c"sockshim_reason",
            c"sockshim_counters",
            c"sockshim_process_counters",
            c"sockshim_pin_host",
        ]
        .map(named);
        let are_there = functions.iter().all(|function| !function.is_null());
        // SAFETY: functions of the same version, with the types that they have here.
        are_there.then(|| unsafe { transmute::<[*mut c_void; 5], Self>(functions) })
    }
}

/// The first definition of a name in the order of the loaded objects, or null.
fn named(name: &CStr) -> *mut c_void {
    // SAFETY: a C string; looking a name up calls nothing.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

const PIPE: c_int = Path::Pipe as c_int;
