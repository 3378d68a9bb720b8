//! io_uring, as far as it can be seen: rings that are asked for with `syscall` or through the shared liburing.
//!
//! What a ring does with a socket passes everybody by. So the connections of a process that has one stay with the
//! kernel: that is always right. libuv, though, makes a ring for itself in every program, to register with epoll
//! through it, and does without where the kernel refuses: there it pays to refuse (docs/environment.md).
//!
//! A ring that was made in neither way is found when a connection comes to its pipe (`descriptor::look_for_ring`).

use super::makers::made;
use super::quietly;
use crate::error::Errno;
use crate::pipe::meeting::descriptor;
use crate::state::config::{self, Rings};
use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use libc::{c_int, c_long, c_uint, size_t};

/// `io_uring_setup(2)`, asked for by the code at `caller`; `kernel` makes the call.
pub(super) fn setup(caller: *const c_void, kernel: impl FnOnce() -> c_long) -> c_long {
    if quietly(|| is_denied_to(|| is_libuv(caller))) {
        // As with kernel.io_uring_disabled = 2.
        Errno(libc::EPERM).store();
        return -1;
    }
    let ring = kernel();
    if ring >= 0 {
        quietly(descriptor::ring_made);
    }
    c_long::from(made(ring as c_int))
}

/// `io_uring_enter(2)`, `io_uring_register(2)`: there is a ring, whoever made it.
pub(super) fn using(kernel: impl FnOnce() -> c_long) -> c_long {
    quietly(descriptor::ring_made);
    kernel()
}

fn is_denied_to(is_libuv: impl FnOnce() -> bool) -> bool {
    match config::rings() {
        Rings::Allow => false,
        Rings::Deny => true,
        Rings::ByProgram => is_libuv(),
    }
}

/// Whether libuv is in this process where every library sees it, or in the object that holds the code at `caller`, as
/// in an extension of Python that brings its own.
fn is_libuv(caller: *const c_void) -> bool {
    const NAME: &CStr = c"uv_loop_init";
    // SAFETY: a C string; looking a name up calls nothing.
    if !unsafe { libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) }.is_null() {
        return true;
    }
    let mut object = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; `object` is writable.
    if unsafe { libc::dladdr(caller, object.as_mut_ptr()) } == 0 {
        return false;
    }
    // SAFETY: dladdr has filled it, and zeroes are a value of it, too.
    let path = unsafe { object.assume_init() }.dli_fname;
    // SAFETY: a C string of the dynamic linker, which lives as long as the object, whose code is being executed.
    let handle = unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return false;
    }
    // SAFETY: an open handle and a C string.
    let found = unsafe { libc::dlsym(handle, NAME.as_ptr()) };
    // SAFETY: opened above, and the object stays loaded: it was loaded before.
    unsafe { libc::dlclose(handle) };
    !found.is_null()
}

/// liburing's functions that make a ring. They answer 0 or a descriptor, or an error as a negative number, and make
/// their system calls themselves.
macro_rules! liburing {
    ($($(#[$doc:meta])* fn $name:ident = $real:literal ($($argument:ident: $type:ty),*);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// As liburing's function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
                type Function = unsafe extern "C-unwind" fn($($type),*) -> c_int;
                if quietly(|| is_denied_to(|| false)) {
                    return -libc::EPERM;
                }
                let real = quietly(|| find($real));
                if real.is_null() {
                    return -libc::ENOSYS;
                }
                // SAFETY: liburing's function of this name has this signature.
                let real = unsafe { core::mem::transmute::<*mut c_void, Function>(real) };
                // SAFETY: the function is liburing's, and the arguments are the caller's, see # Safety.
                let answer = unsafe { real($($argument),*) };
                if answer >= 0 {
                    quietly(descriptor::ring_made);
                }
                answer
            }
        )*
    };
}

liburing! {
    /// `io_uring_setup(2)`: asks for a ring.
    fn sockshim_io_uring_setup = c"io_uring_setup" (entries: c_uint, parameters: *mut c_void);
    /// `io_uring_queue_init(3)`: makes a ring.
    fn sockshim_io_uring_queue_init = c"io_uring_queue_init" (entries: c_uint, ring: *mut c_void, flags: c_uint);
    /// `io_uring_queue_init_params(3)`: makes a ring with parameters.
    fn sockshim_io_uring_queue_init_params = c"io_uring_queue_init_params"
        (entries: c_uint, ring: *mut c_void, parameters: *mut c_void);
    /// `io_uring_queue_init_mem(3)`: makes a ring in memory of the program's.
    fn sockshim_io_uring_queue_init_mem = c"io_uring_queue_init_mem"
        (entries: c_uint, ring: *mut c_void, parameters: *mut c_void, memory: *mut c_void, size: size_t);
}

/// liburing's own function. The library may be visible to one object only (`RTLD_LOCAL`), which nevertheless finds ours
/// first.
fn find(name: &CStr) -> *mut c_void {
    // SAFETY: a C string; looking a name up calls nothing.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if !next.is_null() {
        return next;
    }
    // SAFETY: a C string; nothing is loaded.
    let handle = unsafe { libc::dlopen(c"liburing.so.2".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return handle;
    }
    // The handle stays open: the function is about to be called.
    // SAFETY: an open handle and a C string.
    unsafe { libc::dlsym(handle, name.as_ptr()) }
}
