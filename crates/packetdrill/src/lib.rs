//! sockshim's TCP/IP stack as a shared object for google/packetdrill (`--so_filename`).
//!
//! packetdrill runs scripts of socket calls and packets against a TCP. Linux's own suite of such scripts says in detail
//! how Linux's TCP behaves, which is what `sockshim-tcpip` wants to be like. `docs/packetdrill.md` tells how to run it.
//!
//! Time is virtual (`session`), so a script of minutes takes a tenth of a second, and the same script gives the same
//! result on any machine.
//!
//! packetdrill bypasses its own interface in two places: it closes the sockets that a script has left open with
//! libc's `close`, and it reads TCP_INFO with libc's `getsockopt`. So a socket here is a real descriptor (an eventfd
//! that serves no other purpose), and the shared object is preloaded too, and then answers `getsockopt` for its descriptors.
//!
//! # Safety
//!
//! The two functions here are called from C, with pointers as their documentation says.

mod address;
mod calls;
mod errno;
mod options;
mod readiness;
mod segments;
mod session;
mod settings;
mod socket;
mod table;
mod world;

use core::ffi::CStr;
use std::process;

use libc::{c_char, c_int, c_void, socklen_t};

use crate::session::SESSION;
use crate::settings::Flags;
use crate::table::Interface;
use crate::world::World;

/// Fills in the table.
///
/// # Safety
///
/// `flags` is null or a string, `interface` points at the table: packetdrill's promise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut Interface) {
    let text = match flags.is_null() {
        true => "".into(),
        // SAFETY: not null, so a string.
        false => unsafe { CStr::from_ptr(flags) }.to_string_lossy(),
    };
    match Flags::parse(&text) {
        Ok(flags) => SESSION.open(World::new(flags)),
        Err(complaint) => {
            // There is no other way to say no.
            eprintln!("{complaint}");
            process::exit(2);
        }
    }
    // SAFETY: the caller's.
    unsafe { interface.write(calls::table()) };
}

/// getsockopt(2), of the stack's sockets and of all others.
///
/// # Safety
///
/// As getsockopt(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if SESSION.owns(fd) {
        // SAFETY: the caller's.
        return errno::answer(unsafe { calls::get_option(fd, level, name, value, len) });
    }
    // SAFETY: the caller's; the number is that of the call.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, len) as c_int }
}
