//! Replacing the program, and starting one in a new process.

use super::quietly;
use crate::lifecycle::{self, handoff_only};
use crate::sys::{kernel, real};
use libc::{c_char, c_int, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};

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
    // SAFETY: `path` and `argv` are the caller's (see # Safety), and so are the texts of the environment.
    let call = |envp| unsafe { real::execve(path, argv, envp) };
    // SAFETY: `envp` is a null-terminated array of C strings, see # Safety.
    exec(|| unsafe { handoff_only::with_preload(envp, call) })
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
    // SAFETY: `path` and `argv` are the caller's (see # Safety), and libc keeps the environment.
    unsafe { sockshim_execve(path, argv, own()) }
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
    // SAFETY: `file` and `argv` are the caller's (see # Safety), and libc keeps the environment.
    unsafe { sockshim_execvpe(file, argv, own()) }
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
    // SAFETY: `file` and `argv` are the caller's (see # Safety), and so are the texts of the environment.
    let call = |envp| unsafe { real::execvpe(file, argv, envp) };
    // SAFETY: `envp` is a null-terminated array of C strings, see # Safety.
    exec(|| unsafe { handoff_only::with_preload(envp, call) })
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
    // SAFETY: `argv` is the caller's (see # Safety), and so are the texts of the environment.
    let call = |envp| unsafe { real::fexecve(fd, argv, envp) };
    // SAFETY: `envp` is a null-terminated array of C strings, see # Safety.
    exec(|| unsafe { handoff_only::with_preload(envp, call) })
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
    // SAFETY: all objects are the caller's (see # Safety), and so are the texts of the environment.
    let call = |envp| unsafe { real::posix_spawn(pid, path, actions, attributes, argv, envp) };
    // SAFETY: `actions` and `envp` are the caller's, see # Safety.
    unsafe { spawn(actions, envp, call) }
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
    // SAFETY: all objects are the caller's (see # Safety), and so are the texts of the environment.
    let call = |envp| unsafe { real::posix_spawnp(pid, file, actions, attributes, argv, envp) };
    // SAFETY: `actions` and `envp` are the caller's, see # Safety.
    unsafe { spawn(actions, envp, call) }
}

/// Makes the descriptors that survive ready for a program that may not run sockshim, and tries `call`.
pub(super) fn exec(call: impl FnOnce() -> c_int) -> c_int {
    quietly(lifecycle::before_exec);
    let result = call();
    quietly(lifecycle::exec_failed);
    result
}

/// The environment that exec's shorter forms pass on.
fn own() -> *const *mut c_char {
    unsafe extern "C" {
        static environ: *const *mut c_char;
    }
    // SAFETY: libc's variable; as with libc's own exec, the program does not change it meanwhile.
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
        let place = match index.checked_sub(6) {
            None => self.registers.wrapping_add(index),
            Some(index) => self.stack.wrapping_add(index),
        };
        // SAFETY: the caller says that the call has this word, and the rest of it lies on the stack in order.
        unsafe { place.read() }
    }

    /// Calls `exec` with the arguments from the second word to the first null as an array, and with what follows it.
    ///
    /// # Safety
    ///
    /// As `execl`: there is a null.
    unsafe fn exec(self, exec: impl FnOnce(*const *mut c_char, usize) -> c_int) -> c_int {
        // SAFETY: the caller's words go on until a null.
        let count = (1..).find(|index| unsafe { self.at(*index) } == 0).unwrap_or(1);
        let bytes = count * size_of::<usize>();
        let place = match kernel::map_anonymous(bytes, std::ptr::null_mut(), false) {
            Ok(place) => place.cast::<usize>(),
            Err(error) => return error.fail(),
        };
        for index in 1..count {
            // SAFETY: a word before the null.
            let word = unsafe { self.at(index) };
            // SAFETY: the new memory has room for `count` words; the last one stays null.
            unsafe { place.wrapping_add(index - 1).write(word) };
        }
        let result = exec(place.cast(), count + 1);
        kernel::unmap(place.cast(), bytes);
        result
    }

    /// Calls `exec` with the first word, a name, and with the array of the others.
    ///
    /// # Safety
    ///
    /// As `execl`: there is a null.
    unsafe fn exec_by(
        self,
        exec: unsafe extern "C-unwind" fn(*const c_char, *const *mut c_char) -> c_int,
    ) -> c_int {
        // SAFETY: the first word is there: the caller's name of a program.
        let name = unsafe { self.at(0) } as *const c_char;
        // SAFETY: the name is the caller's, and the array holds the caller's arguments and a null.
        let exec = |argv, _| unsafe { exec(name, argv) };
        // SAFETY: the caller ends the arguments with a null.
        unsafe { self.exec(exec) }
    }
}

/// # Safety
///
/// As `execl`.
unsafe extern "C-unwind" fn execl_collected(registers: *const usize, stack: *const usize) -> c_int {
    // SAFETY: the words are those of execl's caller.
    unsafe { Words { registers, stack }.exec_by(sockshim_execv) }
}

/// # Safety
///
/// As `execlp`.
unsafe extern "C-unwind" fn execlp_collected(registers: *const usize, stack: *const usize) -> c_int {
    // SAFETY: the words are those of execlp's caller.
    unsafe { Words { registers, stack }.exec_by(sockshim_execvp) }
}

/// # Safety
///
/// As `execle`.
unsafe extern "C-unwind" fn execle_collected(registers: *const usize, stack: *const usize) -> c_int {
    let words = Words { registers, stack };
    let exec = |argv, next| {
        // SAFETY: execle's caller passes a path first, and an environment after the null.
        let [path, envp] = [0, next].map(|index| unsafe { words.at(index) });
        // SAFETY: both are the caller's, and the array holds the caller's arguments and a null.
        unsafe { sockshim_execve(path as *const c_char, argv, envp as *const *mut c_char) }
    };
    // SAFETY: execle's caller ends the arguments with a null.
    unsafe { words.exec(exec) }
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

/// Starts a program by `call`, with the environment that it needs.
///
/// # Safety
///
/// `actions` is null or initialised; `envp` is null or a null-terminated array of C strings.
unsafe fn spawn(
    actions: *const posix_spawn_file_actions_t,
    envp: *const *mut c_char,
    call: impl FnOnce(*const *mut c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's `actions` are null or initialised.
    quietly(|| unsafe { spawning(actions) });
    // SAFETY: `envp` is the caller's environment.
    unsafe { handoff_only::with_preload(envp, call) }
}

/// Hands over the sockets that a spawned child is told to duplicate: it will use them on its own.
///
/// # Safety
///
/// `actions` is null or initialised.
unsafe fn spawning(actions: *const posix_spawn_file_actions_t) {
    const CLOSE: c_int = 0;
    const DUP2: c_int = 1;
    const CLOSE_FROM: c_int = 5;
    // SAFETY: the caller's object is null or initialised, and glibc's objects start with these fields.
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
