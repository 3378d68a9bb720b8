//! Starting processes and programs.
//!
//! `fork` needs little here: `lifecycle` has installed `pthread_atfork` handlers. What runs between `vfork`
//! (or `posix_spawn`) and `exec` shares the parent's memory; its functions compare process ids and
//! leave the parent's tables alone.

use super::makers::made;
use super::quietly;
use crate::error::{Errno, answer};
use crate::lifecycle::{self, fork, handoff_only, start};
use crate::pipe::meeting::descriptor;
use crate::state::lock;
use crate::sys::{clock, kernel, real};
use libc::{
    PR_SET_SECCOMP, PR_SET_TSC, PR_TSC_SIGSEGV, SECCOMP_MODE_STRICT, c_char, c_int, c_long, c_ulong, c_void,
    pid_t, posix_spawn_file_actions_t, posix_spawnattr_t, termios, winsize,
};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

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

/// `execve(2)`: replaces the program.
///
/// Every connection that the program gets goes back to the kernel first. Where bytes are unread in shared
/// memory then, the call may wait up to 50 ms for other processes that hold the connection, and for the other
/// end, which sends them again to a program that does not run on sockshim. Such a program may find
/// `LD_PRELOAD` added in `/proc/<pid>/environ`, but not in its environment.
///
/// # Errors
///
/// It returns only with an error: one of execve(2).
///
/// # Safety
///
/// `path` is a C string; `argv` and `envp` are null-terminated arrays of C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execve(
    path: *const c_char,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the contract of execve(2).
    exec(|| unsafe { handoff_only::with_preload(envp, |envp| real::execve(path, argv, envp)) })
}

/// `execv(3)`: replaces the program, keeping the environment. Otherwise as `sockshim_execve`.
///
/// # Errors
///
/// It returns only with an error: one of execve(2).
///
/// # Safety
///
/// `path` is a C string; `argv` is a null-terminated array of C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execv(path: *const c_char, argv: *const *mut c_char) -> c_int {
    // SAFETY: the caller keeps the contract of execv(3).
    exec(|| unsafe { handoff_only::with_preload(own(), |envp| real::execve(path, argv, envp)) })
}

/// `execvp(3)`: replaces the program by one found in `PATH`, keeping the environment. Otherwise as
/// `sockshim_execve`.
///
/// # Errors
///
/// It returns only with an error: one of execvp(3).
///
/// # Safety
///
/// `file` is a C string; `argv` is a null-terminated array of C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execvp(file: *const c_char, argv: *const *mut c_char) -> c_int {
    // SAFETY: the caller keeps the contract of execvp(3).
    exec(|| unsafe { handoff_only::with_preload(own(), |envp| real::execvpe(file, argv, envp)) })
}

/// `execvpe(3)`: replaces the program by one found in `PATH`, with a new environment. Otherwise as
/// `sockshim_execve`.
///
/// # Errors
///
/// It returns only with an error: one of execvpe(3).
///
/// # Safety
///
/// `file` is a C string; `argv` and `envp` are null-terminated arrays of C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execvpe(
    file: *const c_char,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the contract of execvpe(3).
    exec(|| unsafe { handoff_only::with_preload(envp, |envp| real::execvpe(file, argv, envp)) })
}

/// `fexecve(3)`: replaces the program by the one that a descriptor refers to. Otherwise as `sockshim_execve`.
///
/// # Errors
///
/// It returns only with an error: one of fexecve(3).
///
/// # Safety
///
/// `argv` and `envp` are null-terminated arrays of C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fexecve(
    fd: c_int,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller keeps the contract of fexecve(3).
    exec(|| unsafe { handoff_only::with_preload(envp, |envp| real::fexecve(fd, argv, envp)) })
}

/// Saves the words of a C-variadic call and passes them to `$function`.
macro_rules! collected {
    ($function:path) => {
        std::arch::naked_asm!(
            ".cfi_startproc",
            "lea rax, [rsp + 8]",
            "sub rsp, 56",
            ".cfi_def_cfa_offset 64",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "mov rdi, rsp",
            "mov rsi, rax",
            "call {function}",
            "add rsp, 56",
            ".cfi_def_cfa_offset 8",
            "ret",
            ".cfi_endproc",
            function = sym $function,
        )
    };
}

/// `execl(3)`: `sockshim_execv` with the arguments in the call, up to a null.
///
/// # Errors
///
/// It returns only with an error: one of execl(3).
///
/// # Safety
///
/// All arguments are C strings, the last is null.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execl(path: *const c_char, first: *const c_char) -> c_int {
    collected!(execl_collected)
}

/// `execlp(3)`: `sockshim_execvp` with the arguments in the call, up to a null.
///
/// # Errors
///
/// It returns only with an error: one of execlp(3).
///
/// # Safety
///
/// All arguments are C strings, the last is null.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execlp(file: *const c_char, first: *const c_char) -> c_int {
    collected!(execlp_collected)
}

/// `execle(3)`: `sockshim_execve` with the arguments in the call, up to a null, and the environment after it.
///
/// # Errors
///
/// It returns only with an error: one of execle(3).
///
/// # Safety
///
/// All arguments are C strings up to a null, then comes a null-terminated array of C strings.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_execle(path: *const c_char, first: *const c_char) -> c_int {
    collected!(execle_collected)
}

/// `posix_spawn(3)`: starts a program in a new process.
///
/// The connections that the program gets go back to the kernel first, as with `sockshim_execve`.
///
/// # Errors
///
/// Returns the error number itself: one of posix_spawn(3).
///
/// # Safety
///
/// Objects are initialised, and arrays null-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller's object is initialised.
    quietly(|| unsafe { spawning(actions) });
    // SAFETY: the caller keeps the contract of posix_spawn(3).
    unsafe {
        handoff_only::with_preload(envp, |envp| real::posix_spawn(pid, path, actions, attributes, argv, envp))
    }
}

/// `posix_spawnp(3)`: `sockshim_posix_spawn` of a program found in `PATH`.
///
/// # Errors
///
/// Returns the error number itself: one of posix_spawn(3).
///
/// # Safety
///
/// Objects are initialised, and arrays null-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller's object is initialised.
    quietly(|| unsafe { spawning(actions) });
    // SAFETY: the caller keeps the contract of posix_spawnp(3).
    unsafe {
        handoff_only::with_preload(envp, |envp| {
            real::posix_spawnp(pid, file, actions, attributes, argv, envp)
        })
    }
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

/// Makes the descriptors that survive ready for a program that may not run sockshim, and tries `call`.
pub(super) fn exec(call: impl FnOnce() -> c_int) -> c_int {
    quietly(lifecycle::before_exec);
    let result = call();
    quietly(lifecycle::exec_failed);
    result
}

/// glibc has closed descriptors 0 to 2 out of our sight and made new ones that are not sockets.
fn standard_descriptors_replaced() {
    for fd in 0..=2 {
        made(fd);
    }
}

/// The address to jump to for a variadic function, found late if the constructor has not run.
pub(super) fn target(slot: &AtomicPtr<c_void>) -> *const c_void {
    if slot.load(Relaxed).is_null() {
        real::resolve();
    }
    let address = slot.load(Relaxed);
    if address.is_null() { missing as *const c_void } else { address }
}

/// Stands in for a function that this libc lacks.
extern "C" fn missing() -> c_int {
    Errno(libc::ENOSYS).store();
    -1
}

/// The environment that exec's shorter forms pass on.
fn own() -> *const *mut c_char {
    unsafe extern "C" {
        static environ: *const *mut c_char;
    }
    // SAFETY: libc's own; as with libc, nobody changes it meanwhile.
    unsafe { environ }
}

/// The words of a C-variadic call: the first six in registers, the rest on the stack.
#[derive(Clone, Copy)]
struct Words {
    registers: *const usize,
    stack: *const usize,
}

impl Words {
    /// # Safety
    ///
    /// The call has that many words.
    unsafe fn at(self, index: usize) -> usize {
        // SAFETY: upheld by the caller.
        unsafe { if index < 6 { self.registers.add(index).read() } else { self.stack.add(index - 6).read() } }
    }

    /// Calls `exec` with the arguments from the second word to the first null as an array, and with what follows it.
    ///
    /// # Safety
    ///
    /// As `execl`: there is a null.
    unsafe fn exec(self, exec: impl FnOnce(*const *mut c_char, usize) -> c_int) -> c_int {
        let mut count = 1;
        // SAFETY: upheld by the caller.
        while unsafe { self.at(count) } != 0 {
            count += 1;
        }
        let bytes = count * size_of::<usize>();
        let place = match kernel::map_anonymous(bytes, std::ptr::null_mut(), false) {
            Ok(place) => place.cast::<usize>(),
            Err(error) => return answer(Err(error)) as c_int,
        };
        for index in 1..count {
            // SAFETY: as above, and room for `count` words; the last one stays null.
            unsafe { place.add(index - 1).write(self.at(index)) };
        }
        let result = exec(place.cast(), count + 1);
        kernel::unmap(place.cast(), bytes);
        result
    }
}

/// # Safety
///
/// As `execl`.
unsafe extern "C-unwind" fn execl_collected(registers: *const usize, stack: *const usize) -> c_int {
    let words = Words { registers, stack };
    // SAFETY: upheld by the caller.
    unsafe { words.exec(|argv, _| sockshim_execv(words.at(0) as *const c_char, argv)) }
}

/// # Safety
///
/// As `execlp`.
unsafe extern "C-unwind" fn execlp_collected(registers: *const usize, stack: *const usize) -> c_int {
    let words = Words { registers, stack };
    // SAFETY: upheld by the caller.
    unsafe { words.exec(|argv, _| sockshim_execvp(words.at(0) as *const c_char, argv)) }
}

/// # Safety
///
/// As `execle`.
unsafe extern "C-unwind" fn execle_collected(registers: *const usize, stack: *const usize) -> c_int {
    let words = Words { registers, stack };
    // SAFETY: upheld by the caller: the environment follows the null.
    unsafe {
        words.exec(|argv, next| {
            sockshim_execve(words.at(0) as *const c_char, argv, words.at(next) as *const *mut c_char)
        })
    }
}

/// glibc's file actions (posix/spawn_int.h and spawn.h), whose layout is part of its ABI.
#[repr(C)]
struct FileActions {
    allocated: c_int,
    used: c_int,
    actions: *const FileAction,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FileAction {
    tag: c_int,
    /// What follows is a union, aligned for the pointers that other actions have.
    _gap: c_int,
    fd: c_int,
    new: c_int,
    _rest: [usize; 2],
}

const _: () = assert!(size_of::<FileAction>() == 32 && std::mem::offset_of!(FileAction, fd) == 8);

/// Hands over the sockets that a spawned child is told to duplicate: it will use them on its own.
///
/// # Safety
///
/// `actions` is null or initialised.
unsafe fn spawning(actions: *const posix_spawn_file_actions_t) {
    const CLOSE: c_int = 0;
    const DUP2: c_int = 1;
    const CLOSE_FROM: c_int = 5;
    // SAFETY: upheld by the caller; glibc's object starts with these fields.
    let actions: &[FileAction] = match unsafe { actions.cast::<FileActions>().as_ref() } {
        Some(actions) if actions.used > 0 => {
            // SAFETY: glibc has filled `used` of them.
            unsafe {
                std::slice::from_raw_parts(actions.actions, actions.used.min(actions.allocated) as usize)
            }
        }
        _ => &[],
    };
    lifecycle::before_spawn(|fd| {
        let closes = |action: &FileAction| match action.tag {
            CLOSE => action.fd == fd,
            CLOSE_FROM => action.fd <= fd,
            _ => false,
        };
        actions.iter().any(closes)
    });
    for action in actions {
        if action.tag == DUP2 {
            lifecycle::shared_with_child(action.fd);
        }
    }
}
