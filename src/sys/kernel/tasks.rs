//! Processes and threads: who they are, whether they live, what they may call.

use super::{
    files::Fd, files::exists_file, files::open, files::read_file, make, sockets::poll_now, time::timespec,
};
use crate::error::Errno;
use crate::sys::{filter, futex};
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub(crate) fn getpid() -> u32 {
    call!(SYS_getpid).unwrap_or(0) as u32
}

/// Ends the process, with all its threads.
pub(crate) fn exit(status: c_int) -> ! {
    loop {
        let _ = call!(SYS_exit_group, status);
    }
}

/// 0: the parent is in another process namespace.
pub(crate) fn getppid() -> u32 {
    call!(SYS_getppid).unwrap_or(0) as u32
}

pub(crate) fn gettid() -> u32 {
    call!(SYS_gettid).unwrap_or(0) as u32
}

pub(crate) fn geteuid() -> u32 {
    call!(SYS_geteuid).unwrap_or(0) as u32
}

/// The process's real, effective, saved and file system user.
pub(crate) fn users() -> [u32; 4] {
    let mut users = [0u32; 3];
    let [real, effective, saved] = users.each_mut().map(core::ptr::from_mut);
    let _ = call!(SYS_getresuid, real, effective, saved);
    // No user has this number, so nothing changes (setfsuid(2)).
    let of_files = call!(SYS_setfsuid, -1i32).unwrap_or(0) as u32;
    [users[0], users[1], users[2], of_files]
}

/// Whether the program has put a system call filter on itself; see [`restrict`].
static RESTRICTED: AtomicBool = AtomicBool::new(false);

/// The thread that is in the strict mode of seccomp(2): its number, 0, or [`SEVERAL`].
static STRICT: AtomicU32 = AtomicU32::new(0);

const SEVERAL: u32 = u32::MAX;

/// From now on a call that the program would not make by itself may kill it: what can only be found out with one
/// is taken for granted.
pub(crate) fn restrict() {
    RESTRICTED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_restricted() -> bool {
    RESTRICTED.load(Ordering::Relaxed)
}

/// The same, in strict mode: `thread` has read(2), write(2), and nothing else that a connection needs.
pub(crate) fn restrict_strictly(thread: u32) {
    if STRICT.swap(thread, Ordering::Relaxed) != 0 {
        STRICT.store(SEVERAL, Ordering::Relaxed);
    }
    restrict();
}

/// Whether `thread` is, or may be, in strict mode.
pub(crate) fn is_strict(thread: u32) -> bool {
    let strict = STRICT.load(Ordering::Relaxed);
    strict == thread || strict == SEVERAL
}

/// Whether a process or thread of that number exists (a zombie counts as dead to us only when reaped).
pub(crate) fn exists(task: u32) -> bool {
    if is_restricted() {
        return true;
    }
    if filter::is_inherited() {
        return is_listed(format_args!("{task}"));
    }
    call!(SYS_kill, task, 0) != Err(Errno(libc::ESRCH))
}

/// Whether proc(5) has a folder of that name; true when it cannot be asked.
#[cold]
fn is_listed(name: core::fmt::Arguments<'_>) -> bool {
    use core::fmt::Write;
    let mut path = crate::sys::folder::PathBuffer::new();
    write!(path, "/proc/{name}").is_err() || exists_file(path.as_c_str()) || !exists_file(c"/proc/self")
}

/// Whether a thread has ended: it is gone, or a zombie for which nobody has waited yet.
#[cold]
pub(crate) fn has_ended(thread: u32) -> bool {
    !exists(thread) || matches!(state(thread), Some(b'Z' | b'X'))
}

/// The letter that says what a thread does (proc_pid_stat(5)); `None` when that cannot be told.
#[cold]
pub(crate) fn state(thread: u32) -> Option<u8> {
    use core::fmt::Write;
    let mut path = crate::sys::folder::PathBuffer::new();
    if is_restricted() {
        return None;
    }
    write!(path, "/proc/{thread}/stat").ok()?;
    let fd = open(path.as_c_str(), libc::O_RDONLY, 0).ok()?;
    let mut text = [0u8; 128];
    let read = read_file(fd.as_raw(), text.as_mut_ptr(), text.len(), None);
    // The state follows the name, which ends with the last parenthesis.
    let text = text.get(..read.ok()?)?;
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(end + 2).copied()
}

/// Whether `thread` is one of `process`'s.
pub(crate) fn is_thread_of(process: u32, thread: u32) -> bool {
    if filter::is_inherited() && !is_restricted() {
        return is_listed(format_args!("{process}/task/{thread}"));
    }
    is_restricted() || call!(SYS_tgkill, process, thread, 0) != Err(Errno(libc::ESRCH))
}

/// Whether two processes have one table of descriptors (`CLONE_FILES` of clone(2)). False where that cannot be told.
pub(crate) fn share_descriptors(one: u32, other: u32) -> bool {
    /// `KCMP_FILES` (linux/kcmp.h).
    const FILES: c_int = 2;
    !is_restricted() && !filter::is_inherited() && call!(SYS_kcmp, one, other, FILES, 0, 0) == Ok(0)
}

/// Whether a process runs: a zombie has ended already.
pub(crate) fn lives(process: u32) -> bool {
    if is_restricted() {
        return true;
    }
    if filter::is_inherited() {
        return !has_ended(process);
    }
    match call!(SYS_pidfd_open, process, 0) {
        Ok(fd) => poll_now(Fd::new(fd).as_raw(), libc::POLLIN) & libc::POLLIN == 0,
        Err(Errno(libc::ESRCH)) => false,
        Err(_) => exists(process),
    }
}

pub(crate) fn sched_yield() {
    if filter::is_inherited() {
        // About as long as the call takes where nobody else wants the processor.
        return (0..16).for_each(|_| core::hint::spin_loop());
    }
    let _ = call!(SYS_sched_yield);
}

/// Sleeps; false when a signal ended it early.
pub(crate) fn sleep_us(microseconds: u64) -> bool {
    let nanoseconds = microseconds * 1000;
    match futex::sleep(nanoseconds) {
        Ok(()) | Err(Errno(libc::ETIMEDOUT | libc::EAGAIN)) => true,
        Err(Errno(libc::EINTR)) => false,
        Err(_) => {
            let time = timespec(nanoseconds);
            call!(SYS_nanosleep, &raw const time, 0).is_ok()
        }
    }
}

/// The stack pointer of the calling thread.
#[inline]
pub(crate) fn stack_pointer() -> u64 {
    let here: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    here
}

/// The stack that this thread has for its signal handlers, and whether it is on it.
pub(crate) fn alternate_stack() -> Option<(core::ops::Range<u64>, bool)> {
    if filter::is_inherited() {
        return None;
    }
    let mut stack = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    call!(SYS_sigaltstack, 0, &raw mut stack).ok()?;
    let start = stack.ss_sp.addr() as u64;
    let range = start..start.saturating_add(stack.ss_size as u64);
    (stack.ss_flags & libc::SS_DISABLE == 0).then_some((range, stack.ss_flags & libc::SS_ONSTACK != 0))
}
