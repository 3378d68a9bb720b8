//! The C ABI, by man-page family.
//!
//! Every function here is called by programs that know nothing of sockshim, so each keeps the manual page's
//! contract to the letter: result, `errno` (touched by failures only), cancellation points, and what is allowed
//! in a signal handler or a `vfork` child. The functions are thin: they tell `lifecycle` what happens to a
//! descriptor and let the kernel do it.

use crate::error::Errno;
use crate::lifecycle::start;
use crate::pipe::copying::buffers;
use crate::pipe::meeting::descriptor;
use crate::state::Socket;
use crate::sys::alarm;
use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off64_t, size_t, ssize_t};

/// Saves the argument registers of a C-variadic call, calls `$hook` with the first argument, and jumps to the
/// function whose address the hook returns, as if the program had called that one.
macro_rules! variadic_detour {
    ($hook:path) => {
        std::arch::naked_asm!(
            ".cfi_startproc",
            "push rbp",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset rbp, -16",
            "mov rbp, rsp",
            ".cfi_def_cfa_register rbp",
            "sub rsp, 192",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "mov [rsp + 48], rax", // al: how many vector registers hold arguments
            "movaps [rsp + 64], xmm0",
            "movaps [rsp + 80], xmm1",
            "movaps [rsp + 96], xmm2",
            "movaps [rsp + 112], xmm3",
            "movaps [rsp + 128], xmm4",
            "movaps [rsp + 144], xmm5",
            "movaps [rsp + 160], xmm6",
            "movaps [rsp + 176], xmm7",
            "call {hook}",
            "mov r11, rax",
            "mov rdi, [rsp]",
            "mov rsi, [rsp + 8]",
            "mov rdx, [rsp + 16]",
            "mov rcx, [rsp + 24]",
            "mov r8, [rsp + 32]",
            "mov r9, [rsp + 40]",
            "mov rax, [rsp + 48]",
            "movaps xmm0, [rsp + 64]",
            "movaps xmm1, [rsp + 80]",
            "movaps xmm2, [rsp + 96]",
            "movaps xmm3, [rsp + 112]",
            "movaps xmm4, [rsp + 128]",
            "movaps xmm5, [rsp + 144]",
            "movaps xmm6, [rsp + 160]",
            "movaps xmm7, [rsp + 176]",
            "leave",
            ".cfi_def_cfa rsp, 8",
            "jmp r11",
            ".cfi_endproc",
            hook = sym $hook,
        )
    };
}

pub mod command;
pub mod control;
pub mod exec;
pub mod fd;
mod inq;
pub mod io_uring;
pub mod makers;
pub mod poll;
pub mod process;
pub mod recv;
mod rights;
pub mod send;
pub mod signal;
pub mod socket;
pub mod splice;
pub mod stdio;
pub mod syscall;
pub mod user;

/// Runs once when the shared object is loaded, before the program's own constructors.
pub extern "C" fn sockshim_start() {
    alarm::install();
    ensure_started();
    // The first one to be registered runs last. `quick_exit` runs nothing else of ours.
    // SAFETY: a function of this library, which stays; glibc allocates nothing for the first 32.
    unsafe { at_quick_exit(sockshim_finish) };
}

/// Also called by the calls that make sockets, where no constructor ran.
#[inline]
fn ensure_started() {
    start::start(control::sockshim_reason as *const core::ffi::c_void);
}

unsafe extern "C" {
    fn at_quick_exit(handler: extern "C" fn()) -> core::ffi::c_int;
}

/// Runs once when the process exits, after the program's own destructors; not after a signal.
pub extern "C" fn sockshim_finish() {
    start::finish();
}

/// Runs `note` without a trace in `errno`: success must not touch it, and a failure's must survive.
fn quietly<T>(note: impl FnOnce() -> T) -> T {
    let errno = Errno::last();
    let result = note();
    errno.store();
    result
}

/// Buffers of one message, and messages of one call: `UIO_MAXIOV` of the kernel.
pub(crate) const IOV_MAX: usize = 1024;

/// The program's array of buffers, unless the kernel must refuse it.
///
/// # Safety
///
/// `iov` is the program's for readv(2) or writev(2).
unsafe fn vectors<'a>(iov: *const iovec, count: usize) -> Option<&'a [iovec]> {
    if count == 0 || count > IOV_MAX || !buffers::is_good(iov, count * size_of::<iovec>(), false) {
        return None;
    }
    // SAFETY: `is_good` has found the array there, and the caller says that it stays.
    Some(unsafe { core::slice::from_raw_parts(iov, count) })
}

/// The program's array of messages, unless the kernel must refuse it.
///
/// # Safety
///
/// `msgs` are the program's for sendmmsg(2) or recvmmsg(2).
unsafe fn messages<'a>(msgs: *mut mmsghdr, count: c_uint) -> Option<&'a mut [mmsghdr]> {
    let count = (count as usize).min(IOV_MAX);
    if count == 0 {
        return Some(&mut []);
    }
    // SAFETY: `is_good` has found the messages there, and the caller says that they are nobody else's.
    buffers::is_good(msgs, count * size_of::<mmsghdr>(), true)
        .then(|| unsafe { core::slice::from_raw_parts_mut(msgs, count) })
}

/// Sends or receives one message after another by `each`, which also says whether to go on: how many, or -1 where the
/// first one fails.
fn one_by_one(messages: &mut [mmsghdr], mut each: impl FnMut(&mut msghdr) -> (ssize_t, bool)) -> c_int {
    for (index, message) in messages.iter_mut().enumerate() {
        let (moved, goes_on) = each(&mut message.msg_hdr);
        if moved < 0 {
            return if index > 0 { index as c_int } else { -1 };
        }
        message.msg_len = moved as c_uint;
        if !goes_on {
            return index as c_int + 1;
        }
    }
    messages.len() as c_int
}

/// A program's only buffer, as the kernel cuts it.
fn buffer(start: *const c_void, length: size_t) -> iovec {
    iovec { iov_base: start.cast_mut(), iov_len: length.min(buffers::MOST) }
}

/// The socket of ours behind `fd`, and `recv`'s flags for those of `preadv2`, if this is stream I/O.
fn stream(fd: c_int, offset: off64_t, flags: c_int) -> Option<(Socket, c_int)> {
    let socket = descriptor::socket(fd)?;
    let known = libc::RWF_NOWAIT | libc::RWF_HIPRI;
    let ours = if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 };
    (offset == -1 && flags & !known == 0).then_some((socket, ours))
}
