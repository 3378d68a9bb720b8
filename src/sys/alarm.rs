//! What becomes of a panic inside the shared object. None can be reached as far as we know; should there be one all the
//! same, the program goes on.
//!
//! A panic must not unwind: not through C, and not past a lock that is held. And no export can catch one, because it would
//! catch the unwinding of a cancelled thread, too (pthread_cancel(3)), which has to pass. So the hook, which runs before
//! anything is unwound, leaves the call by a jump, as a signal handler of the program's may with `siglongjmp`: the call
//! has failed with EIO, and the locks that it had are taken over by whoever wants them next (`state::lock`).
//!
//! # Safety
//! The unwinder's functions are used as "Itanium C++ ABI: Exception Handling" 1.6 says; the registers that are restored are
//! those of the frame that has called us, whose callee-saved registers these are (System V ABI, AMD64, 3.2.1).

use super::raw::{self, Word};
use crate::error::Errno;
use core::ffi::{CStr, c_int, c_void};
use std::fmt::{self, Write};
use std::panic::PanicHookInfo;

/// From now on a panic writes one line to descriptor 2, by system call (the standard library would print through `write`,
/// which here is our own export), and ends the call.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        report(panic);
        leave();
    }));
    rehearsal::read();
}

fn report(panic: &PanicHookInfo<'_>) {
    let mut line = Line { bytes: [0; 256], length: 0 };
    let message = text(panic);
    // A line that is too long is cut.
    let _ = match panic.location() {
        Some(place) => write!(line, "sockshim: internal error at {place}: {message}"),
        None => write!(line, "sockshim: internal error: {message}"),
    };
    line.bytes[line.length] = b'\n';
    // SAFETY: the buffer is valid for this length.
    unsafe { raw::syscall3(libc::SYS_write, 2, line.bytes.as_ptr().word(), line.length + 1) };
}

fn text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = panic.payload();
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

/// Returns to the frame that has called into this object, if it can be found.
fn leave() {
    let mut caller =
        Caller { own: base_of(leave as *const c_void), last: core::ptr::null(), registers: [0; 8] };
    // SAFETY: see the module; `caller` lives during the walk.
    unsafe { _Unwind_Backtrace(visit, (&raw mut caller).cast()) };
    if caller.registers == [0; 8] {
        return;
    }
    // Caught at once: for the standard library this thread panics no more, and may do so again.
    let _ = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(())));
    Errno(libc::EIO).store();
    let result = if name_of(caller.last).is_some_and(gives_pointer) { 0 } else { -1 };
    // SAFETY: see the module.
    unsafe { resume(&raw const caller.registers, result) }
}

/// The frame that has called into this object.
struct Caller {
    /// Where the shared object is mapped.
    own: *const c_void,
    /// The last place inside it.
    last: *const c_void,
    /// rbx, rbp, r12 to r15, rsp and rip.
    registers: [usize; 8],
}

extern "C" fn visit(frame: *mut c_void, caller: *mut c_void) -> c_int {
    const NEXT: c_int = 0;
    const END: c_int = 5;
    /// Their DWARF numbers.
    const SAVED: [c_int; 6] = [3, 6, 12, 13, 14, 15];
    // SAFETY: what `leave` gave.
    let caller = unsafe { &mut *caller.cast::<Caller>() };
    // SAFETY: the unwinder gives a frame that is good until this function returns.
    let place = unsafe { _Unwind_GetIP(frame) };
    // The place is behind the call, which may have been the last of its function.
    let within = (place - 1) as *const c_void;
    if base_of(within) == caller.own {
        caller.last = within;
        return NEXT;
    }
    for (to, number) in caller.registers.iter_mut().zip(SAVED) {
        // SAFETY: the unwinder gives a frame that is good until this function returns.
        *to = unsafe { _Unwind_GetGR(frame, number) };
    }
    // SAFETY: the unwinder gives a frame that is good until this function returns.
    caller.registers[6..].copy_from_slice(&[unsafe { _Unwind_GetCFA(frame) }, place]);
    END
}

/// Where the object lies that has this place.
fn base_of(place: *const c_void) -> *const c_void {
    about(place).map_or(core::ptr::null(), |info| info.dli_fbase.cast_const())
}

/// The symbol at or before this place.
fn name_of(place: *const c_void) -> Option<&'static CStr> {
    let info = about(place).filter(|info| !info.dli_sname.is_null())?;
    // SAFETY: the linker's own string, which lives as long as the library.
    Some(unsafe { CStr::from_ptr(info.dli_sname) })
}

fn about(place: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: all zeroes is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is writable; the address is only looked up.
    (unsafe { libc::dladdr(place, &raw mut info) } != 0).then_some(info)
}

/// Whether a call says that it failed by a null pointer.
fn gives_pointer(name: &CStr) -> bool {
    let name = name.to_bytes();
    let name = name.strip_prefix(b"sockshim_").unwrap_or(name);
    [&b"fdopen"[..], b"freopen", b"freopen64", b"popen"].contains(&name)
}

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    fn _Unwind_GetGR(frame: *mut c_void, number: c_int) -> usize;
}

/// Goes on where the registers say, with a result.
///
/// # Safety
/// They are those of a frame further up on this stack, and nothing in between has to be done.
#[unsafe(naked)]
unsafe extern "C" fn resume(registers: *const [usize; 8], result: isize) -> ! {
    std::arch::naked_asm!(
        "mov rax, rsi",
        "mov rbx, [rdi]",
        "mov rbp, [rdi + 8]",
        "mov r12, [rdi + 16]",
        "mov r13, [rdi + 24]",
        "mov r14, [rdi + 32]",
        "mov r15, [rdi + 40]",
        "mov rsp, [rdi + 48]",
        "jmp [rdi + 56]",
    )
}

/// A panic for a test, in the middle of a write: in builds with debug assertions, if SOCKSHIM_PANICS says how many.
#[cfg(debug_assertions)]
mod rehearsal {
    use core::sync::atomic::{AtomicU32, Ordering};

    static LEFT: AtomicU32 = AtomicU32::new(0);

    pub(super) fn read() {
        let wanted = std::env::var("SOCKSHIM_PANICS").ok().and_then(|number| number.parse().ok());
        LEFT.store(wanted.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn panic() {
        if LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            panic!("a rehearsal");
        }
    }
}

#[cfg(not(debug_assertions))]
mod rehearsal {
    pub(super) fn read() {}

    #[inline(always)]
    pub(crate) fn panic() {}
}

pub(crate) use rehearsal::panic as rehearse;

/// Text of limited length; the last byte stays free for the line's end.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut() {
        let mut line = Line { bytes: [0; 256], length: 0 };
        assert!(write!(line, "{}", "x".repeat(200)).is_ok());
        assert!(write!(line, "{}", "y".repeat(200)).is_err());
        assert_eq!(line.length, 255);
        assert!(write!(line, "z").is_err());
        assert_eq!(line.length, 255);
    }
}
