//! Copying, changing and ending processes.
//!
//! `fork` needs little here: `lifecycle` has installed `pthread_atfork` handlers. What runs between `vfork`
//! (or `posix_spawn`) and `exec` shares the parent's memory; its functions compare process ids and
//! leave the parent's tables alone.

use super::makers::made;
use super::quietly;
use crate::lifecycle::{self, fork, start};
use crate::pipe::meeting::descriptor;
use crate::state::lock;
use crate::sys::{clock, kernel, real};
use libc::{
    PR_SET_SECCOMP, PR_SET_TSC, PR_TSC_SIGSEGV, SECCOMP_MODE_STRICT, c_char, c_int, c_long, c_ulong, pid_t,
    termios, winsize,
};

/// `fork(2)`: makes a copy of this process. Parent and child share each connection as with the kernel.
///
/// A child that would be the 449th living process of its family has a table of its own: the connections that it
/// shares with its parent go back to the kernel for good.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM`, `ENOSYS`.
///
/// # Safety
///
/// The child of a program with threads calls async-signal-safe functions only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fork() -> pid_t {
    // SAFETY: the caller keeps the contract of fork(2).
    let child = unsafe { real::fork() };
    match child {
        ..0 => quietly(fork::failed),
        0 => {}
        child => quietly(|| fork::made(child as u32)),
    }
    child
}

/// `_Fork(3)`: makes a copy of this process without the program's own fork handlers; allowed in a signal
/// handler. Otherwise as `sockshim_fork`.
///
/// # Errors
///
/// Those of fork(2).
///
/// # Safety
///
/// The child calls async-signal-safe functions only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim__Fork() -> pid_t {
    quietly(|| fork::prepare());
    // SAFETY: the caller keeps the contract of _Fork(3).
    let child = unsafe { real::_Fork() };
    quietly(|| match child {
        ..0 => fork::failed(),
        0 => fork::child(),
        child => fork::made(child as u32),
    });
    child
}

/// `vfork(2)`: makes a child that borrows this process's memory until it calls `exec` or `_exit`.
///
/// What the child closes and duplicates meanwhile leaves this process's connections alone.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM`, `ENOSYS`.
///
/// # Safety
///
/// The child calls `exec` or `_exit`, and does not return from the calling function.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_vfork() -> pid_t {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_def_cfa_offset 16",
        "call {before}",
        "add rsp, 8",
        ".cfi_def_cfa_offset 8",
        "mov rax, [rip + {vfork}]",
        "test rax, rax",
        "jz 2f",
        "jmp rax",
        // Before the constructor: the return address must not lie on the stack that the child will use.
        "2:",
        "pop rdi",
        ".cfi_def_cfa_offset 0",
        ".cfi_register rip, rdi",
        "mov eax, {number}",
        "syscall",
        "push rdi",
        ".cfi_def_cfa_offset 8",
        ".cfi_offset rip, -8",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3:",
        "mov rdi, rax",
        "jmp {failed}",
        ".cfi_endproc",
        before = sym before_vfork,
        vfork = sym real::slot::vfork,
        number = const libc::SYS_vfork,
        failed = sym super::syscall::failed,
    )
}

/// What the child cannot do in memory that is not its own.
extern "C" fn before_vfork() {
    quietly(lifecycle::look_at_standard);
}

/// `_exit(2)`: ends the process at once, after the connections that nobody else has are left as their other
/// ends should find them: what was written still arrives.
///
/// # Safety
///
/// Nothing relies on what the process would still have done.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim__exit(status: c_int) -> ! {
    start::finish();
    kernel::exit(status)
}

/// `daemon(3)`: goes on in the background, with `/dev/null` as descriptors 0 to 2 unless `noclose`. Otherwise
/// as `sockshim_fork`.
///
/// # Errors
///
/// Those of daemon(3).
///
/// # Safety
///
/// As for `sockshim_fork`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_daemon(nochdir: c_int, noclose: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of daemon(3).
    let result = unsafe { real::daemon(nochdir, noclose) };
    if result == 0 && noclose == 0 {
        standard_descriptors_replaced();
    }
    result
}

/// `login_tty(3)`: makes a terminal the controlling one, and descriptors 0 to 2. Behaves as the manual page
/// says.
///
/// # Errors
///
/// Those of login_tty(3).
///
/// # Safety
///
/// No other code relies on what descriptors 0 to 2 were.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_login_tty(fd: c_int) -> c_int {
    // SAFETY: the caller keeps the contract of login_tty(3).
    let result = unsafe { real::login_tty(fd) };
    if result == 0 {
        standard_descriptors_replaced();
    }
    result
}

/// `forkpty(3)`: forks a child on a new terminal. Otherwise as `sockshim_fork`.
///
/// # Errors
///
/// Those of forkpty(3).
///
/// # Safety
///
/// `terminal` is valid for writing, `name` is null or long enough, the others are null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_forkpty(
    terminal: *mut c_int,
    name: *mut c_char,
    settings: *const termios,
    size: *const winsize,
) -> pid_t {
    // SAFETY: the caller keeps the contract of forkpty(3).
    let child = unsafe { real::forkpty(terminal, name, settings, size) };
    match child {
        -1 => quietly(fork::failed),
        0 => standard_descriptors_replaced(),
        child => {
            quietly(|| fork::made(child as u32));
            // SAFETY: in the parent forkpty has stored the terminal's descriptor there.
            made(unsafe { terminal.read() });
        }
    }
    child
}

/// `prctl(2)`: changes the process. The four words are passed on, whether the operation uses them or not.
///
/// Before `PR_SET_SECCOMP` every connection of the process goes back to the kernel for good.
///
/// # Errors
///
/// Those of prctl(2).
///
/// # Safety
///
/// What prctl(2) asks, by operation.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_prctl(
    option: c_int,
    b: c_ulong,
    c: c_ulong,
    d: c_ulong,
    e: c_ulong,
) -> c_int {
    // SAFETY: the caller keeps the contract of prctl(2).
    let call = || unsafe { real::prctl(option, b, c, d, e) };
    if option == PR_SET_SECCOMP {
        return restricting(b == c_ulong::from(SECCOMP_MODE_STRICT), || call().into()) as c_int;
    }
    if option == PR_SET_TSC && b == PR_TSC_SIGSEGV as c_ulong {
        quietly(clock::forbid_counter);
    }
    call()
}

/// Around a call that puts a system call filter on the program (seccomp(2)).
pub(super) fn restricting(is_strict: bool, call: impl FnOnce() -> c_long) -> c_long {
    quietly(descriptor::before_seccomp);
    // Afterwards the thread's number cannot be asked for.
    let thread = quietly(lock::thread);
    if is_strict {
        quietly(clock::forbid_counter);
    }
    let result = call();
    match (result, is_strict) {
        (0, true) => kernel::restrict_strictly(thread),
        (0, false) => kernel::restrict(),
        _ => {}
    }
    result
}

/// glibc has closed descriptors 0 to 2 out of our sight and made new ones that are not sockets.
fn standard_descriptors_replaced() {
    for fd in 0..=2 {
        made(fd);
    }
}
