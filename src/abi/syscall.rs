//! `syscall`, for programs that go around libc.
//!
//! The numbers that have a hook are sent there; everything else reaches the real `syscall` by a jump, without a
//! frame of ours in between, because `vfork` and `clone` return twice or on another stack.

use super::control::{sockshim_fcntl, sockshim_ioctl};
use super::exec::{exec, sockshim_execve};
use super::fd::{sockshim_close, sockshim_close_range, sockshim_dup, sockshim_dup2, sockshim_dup3};
use super::makers::{made, made_pair};
use super::poll::*;
use super::process::{restricting, sockshim__exit, sockshim_prctl};
use super::recv::*;
use super::send::*;
use super::socket::*;
use super::splice::*;
use super::user::changing;
use super::{io_uring, quietly};
use crate::pipe::copying::buffers;
use crate::sys::{kernel, raw, real};
use libc::{c_int, c_long, sigset_t, size_t, timespec, timeval};
use std::ptr;

/// `syscall(2)`: makes a system call by number. All six words are passed in any case.
///
/// Numbers of calls that have a function in this header do what that function does, and so do the io_uring
/// calls, `seccomp` and the makers of descriptors; every other one goes straight to the kernel.
///
/// # Errors
///
/// The errors of the system call.
///
/// # Safety
///
/// What the call asks.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "mov r10d, edi", // the kernel, too, looks at 32 bits
        "cmp r10d, {limit}",
        "jae 2f",
        "mov eax, r10d",
        "shr eax, 6",
        "lea r11, [rip + {taken}]",
        "mov rax, [r11 + rax * 8]",
        "bt rax, r10",
        "jnc 2f",
        "cmp r10d, {setup}",
        "jne 5f",
        "mov rcx, [rsp]", // the caller, in place of a word that this call does not have
        "5:",
        "jmp {dispatch}",
        "2:",
        "mov rax, [rip + {real}]",
        "test rax, rax",
        "jz 3f",
        "jmp rax",
        "3:", // before the constructor
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 4f",
        "ret",
        "4:",
        "mov rdi, rax",
        "jmp {failed}",
        ".cfi_endproc",
        limit = const LIMIT,
        setup = const libc::SYS_io_uring_setup,
        taken = sym TAKEN,
        dispatch = sym dispatch,
        real = sym real::slot::syscall,
        failed = sym failed,
    )
}

/// The numbers that [`dispatch`] serves, as a bit map.
static TAKEN: [u64; LIMIT / 64] = bit_map(NUMBERS);

/// Above every number that has a hook.
const LIMIT: usize = 512;

const fn bit_map(numbers: &[c_long]) -> [u64; LIMIT / 64] {
    let mut map = [0; LIMIT / 64];
    let mut index = 0;
    while index < numbers.len() {
        let number = numbers[index] as usize;
        map[number / 64] |= 1 << (number % 64);
        index += 1;
    }
    map
}

/// One line for each number: the names of the six words, and what is called with them.
macro_rules! hooks {
    (|$a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident| $($number:ident => $call:expr,)*) => {
        const NUMBERS: &[c_long] = &[$(libc::$number),*];

        /// Calls what stands for system call `number`, which is one of [`NUMBERS`].
        ///
        /// # Safety
        ///
        /// As for the system call.
        unsafe extern "C-unwind" fn dispatch(
            number: c_long,
            $a: c_long,
            $b: c_long,
            $c: c_long,
            $d: c_long,
            $e: c_long,
            $f: c_long,
        ) -> c_long {
            // Integers are cut to the width that the kernel reads: the rest of a C variadic word is undefined.
            let number = c_long::from(number as c_int);
            // SAFETY: the words are the system call's own; the caller keeps its contract, and each hook asks no
            // more than that.
            unsafe {
                match number {
                    $(libc::$number => ($call) as c_long,)*
                    _ => plain(number, [$a, $b, $c, $d, $e, $f]),
                }
            }
        }
    };
}

hooks! { |a, b, c, d, e, f|
    SYS_socket => sockshim_socket(a as _, b as _, c as _),
    SYS_bind => sockshim_bind(a as _, at(b), c as _),
    SYS_listen => sockshim_listen(a as _, b as _),
    SYS_accept => sockshim_accept(a as _, at(b), at(c)),
    SYS_accept4 => sockshim_accept4(a as _, at(b), at(c), d as _),
    SYS_connect => sockshim_connect(a as _, at(b), c as _),
    SYS_shutdown => sockshim_shutdown(a as _, b as _),
    SYS_getsockname => sockshim_getsockname(a as _, at(b), at(c)),
    SYS_getpeername => sockshim_getpeername(a as _, at(b), at(c)),
    SYS_getsockopt => sockshim_getsockopt(a as _, b as _, c as _, at(d), at(e)),
    SYS_setsockopt => sockshim_setsockopt(a as _, b as _, c as _, at(d), e as _),

    SYS_read => sockshim_read(a as _, at(b), c as _),
    SYS_readv => sockshim_readv(a as _, at(b), c as _),
    SYS_write => sockshim_write(a as _, at(b), c as _),
    SYS_writev => sockshim_writev(a as _, at(b), c as _),
    SYS_recvfrom => sockshim_recvfrom(a as _, at(b), c as _, d as _, at(e), at(f)),
    SYS_recvmsg => sockshim_recvmsg(a as _, at(b), c as _),
    SYS_recvmmsg => sockshim_recvmmsg(a as _, at(b), c as _, d as _, at(e)),
    SYS_sendto => sockshim_sendto(a as _, at(b), c as _, d as _, at(e), f as _),
    SYS_sendmsg => sockshim_sendmsg(a as _, at(b), c as _),
    SYS_sendmmsg => sockshim_sendmmsg(a as _, at(b), c as _, d as _),
    // The kernel splits the offset over two words; on 64 bits the first holds all of it.
    SYS_preadv2 => sockshim_preadv2(a as _, at(b), c as _, d as _, f as _),
    SYS_pwritev2 => sockshim_pwritev2(a as _, at(b), c as _, d as _, f as _),
    SYS_sendfile => sockshim_sendfile(a as _, b as _, at(c), d as _),
    SYS_splice => sockshim_splice(a as _, at(b), c as _, at(d), e as _, f as _),
    SYS_tee => sockshim_tee(a as _, b as _, c as _, d as _),

    SYS_select => select([a, b, c, d, e, f]),
    SYS_pselect6 => pselect6([a, b, c, d, e, f]),
    SYS_poll => sockshim_poll(at(a), u64::from(b as u32), c as _),
    SYS_ppoll => ppoll([a, b, c, d, e, f]),
    SYS_epoll_create => sockshim_epoll_create(a as _),
    SYS_epoll_create1 => sockshim_epoll_create1(a as _),
    SYS_epoll_ctl => sockshim_epoll_ctl(a as _, b as _, c as _, at(d)),
    SYS_epoll_wait => sockshim_epoll_wait(a as _, at(b), c as _, d as _),
    SYS_epoll_pwait => match SignalSet::read(e, f) {
        Some(set) => c_long::from(sockshim_epoll_pwait(a as _, at(b), c as _, d as _, set.as_ptr())),
        None => plain(libc::SYS_epoll_pwait, [a, b, c, d, e, f]),
    },
    SYS_epoll_pwait2 => match SignalSet::read(e, f) {
        Some(set) => c_long::from(sockshim_epoll_pwait2(a as _, at(b), c as _, at(d), set.as_ptr())),
        None => plain(libc::SYS_epoll_pwait2, [a, b, c, d, e, f]),
    },

    SYS_close => sockshim_close(a as _),
    SYS_close_range => sockshim_close_range(a as _, b as _, c as _),
    SYS_dup => sockshim_dup(a as _),
    SYS_dup2 => sockshim_dup2(a as _, b as _),
    SYS_dup3 => sockshim_dup3(a as _, b as _, c as _),
    SYS_fcntl => sockshim_fcntl(a as _, b as _, c as _),
    SYS_ioctl => sockshim_ioctl(a as _, u64::from(b as u32), c as _),

    SYS_execve => sockshim_execve(at(a), at(b), at(c)),
    SYS_execveat => exec(|| plain(libc::SYS_execveat, [a, b, c, d, e, f]) as c_int),
    SYS_exit_group => sockshim__exit(a as _),
    SYS_prctl => sockshim_prctl(a as _, b as _, c as _, d as _, e as _),
    SYS_io_uring_setup => io_uring::setup(at(c), || plain(libc::SYS_io_uring_setup, [a, b, 0, 0, 0, 0])),
    SYS_io_uring_enter => io_uring::using(|| plain(libc::SYS_io_uring_enter, [a, b, c, d, e, f])),
    SYS_io_uring_register => io_uring::using(|| plain(libc::SYS_io_uring_register, [a, b, c, d, e, f])),
    SYS_seccomp => {
        let call = || plain(libc::SYS_seccomp, [a, b, c, d, e, f]);
        match a as u32 {
            libc::SECCOMP_SET_MODE_STRICT => restricting(true, call),
            libc::SECCOMP_SET_MODE_FILTER => restricting(false, call),
            _ => call(),
        }
    },

    SYS_setuid => changing(|| plain(libc::SYS_setuid, [a, b, c, d, e, f])),
    SYS_setreuid => changing(|| plain(libc::SYS_setreuid, [a, b, c, d, e, f])),
    SYS_setresuid => changing(|| plain(libc::SYS_setresuid, [a, b, c, d, e, f])),
    SYS_setfsuid => changing(|| plain(libc::SYS_setfsuid, [a, b, c, d, e, f])),

    // Makers keep the kernel's own arguments, which differ from libc's here and there.
    SYS_open => maker(libc::SYS_open, [a, b, c, d, e, f]),
    SYS_openat => maker(libc::SYS_openat, [a, b, c, d, e, f]),
    SYS_openat2 => maker(libc::SYS_openat2, [a, b, c, d, e, f]),
    SYS_creat => maker(libc::SYS_creat, [a, b, c, d, e, f]),
    SYS_eventfd => maker(libc::SYS_eventfd, [a, b, c, d, e, f]),
    SYS_eventfd2 => maker(libc::SYS_eventfd2, [a, b, c, d, e, f]),
    SYS_timerfd_create => maker(libc::SYS_timerfd_create, [a, b, c, d, e, f]),
    SYS_signalfd => maker(libc::SYS_signalfd, [a, b, c, d, e, f]),
    SYS_signalfd4 => maker(libc::SYS_signalfd4, [a, b, c, d, e, f]),
    SYS_memfd_create => maker(libc::SYS_memfd_create, [a, b, c, d, e, f]),
    SYS_inotify_init => maker(libc::SYS_inotify_init, [a, b, c, d, e, f]),
    SYS_inotify_init1 => maker(libc::SYS_inotify_init1, [a, b, c, d, e, f]),
    SYS_fanotify_init => maker(libc::SYS_fanotify_init, [a, b, c, d, e, f]),
    SYS_pidfd_open => maker(libc::SYS_pidfd_open, [a, b, c, d, e, f]),
    SYS_perf_event_open => maker(libc::SYS_perf_event_open, [a, b, c, d, e, f]),
    SYS_userfaultfd => maker(libc::SYS_userfaultfd, [a, b, c, d, e, f]),
    SYS_pipe => made_pair(plain(libc::SYS_pipe, [a, b, c, d, e, f]) as c_int, at(a)),
    SYS_pipe2 => made_pair(plain(libc::SYS_pipe2, [a, b, c, d, e, f]) as c_int, at(a)),
    SYS_socketpair => made_pair(plain(libc::SYS_socketpair, [a, b, c, d, e, f]) as c_int, at(d)),
}

/// The error path of the calls that are made in assembly: `errno` and -1.
pub(super) extern "C" fn failed(result: isize) -> c_long {
    raw::answer(result) as c_long
}

/// A word as a pointer.
fn at<T>(word: c_long) -> *mut T {
    ptr::with_exposed_provenance_mut(word as usize)
}

/// The system call itself, with libc's way of failing.
///
/// # Safety
///
/// As for the system call.
unsafe fn plain(number: c_long, words: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = words.map(|word| word as usize);
    // SAFETY: the words are those of this call, as the caller says.
    let result = unsafe { raw::syscall6(number, a, b, c, d, e, f) };
    raw::answer(result) as c_long
}

/// The system call itself, whose result is a new descriptor.
///
/// # Safety
///
/// As for the system call.
unsafe fn maker(number: c_long, words: [c_long; 6]) -> c_int {
    // SAFETY: the words are those of this call, as the caller says.
    made(unsafe { plain(number, words) } as c_int)
}

/// # Safety
///
/// As `select`.
unsafe fn select(words: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, _] = words;
    if !is_time(at::<timeval>(e)) {
        // SAFETY: the words are those of select's caller.
        return unsafe { plain(libc::SYS_select, words) };
    }
    // SAFETY: the sets are those of select's caller, and `is_time` has found the time there, or null.
    c_long::from(unsafe { sockshim_select(a as _, at(b), at(c), at(d), at(e)) })
}

/// # Safety
///
/// As `pselect6`.
unsafe fn pselect6(words: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = words;
    let there = buffers::is_good(at::<[c_long; 2]>(f), size_of::<[c_long; 2]>(), false);
    // SAFETY: the sixth word points to the mask's address and size.
    let [mask, size] = if f != 0 && there { unsafe { at::<[c_long; 2]>(f).read() } } else { [0, 0] };
    if f != 0 && !there || !is_time(at::<timespec>(e)) {
        // SAFETY: the words are those of pselect6's caller.
        return unsafe { plain(libc::SYS_pselect6, words) };
    }
    // SAFETY: the mask is null or a kernel signal set.
    let Some(set) = (unsafe { SignalSet::read(mask, size) }) else {
        // SAFETY: the words are those of pselect6's caller.
        return unsafe { plain(libc::SYS_pselect6, words) };
    };
    let wait = |timeout| {
        // SAFETY: the sets are those of pselect6's caller; the time and the mask are ours.
        unsafe { sockshim_pselect(a as _, at(b), at(c), at(d), timeout, set.as_ptr()) }
    };
    // SAFETY: `is_time` has found the time there, or null.
    unsafe { with_remainder(at(e), wait) }
}

/// # Safety
///
/// As `ppoll`.
unsafe fn ppoll(words: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, _] = words;
    // SAFETY: the mask is null or a kernel signal set.
    let set = if is_time(at::<timespec>(c)) { unsafe { SignalSet::read(d, e) } } else { None };
    let Some(set) = set else {
        // SAFETY: the words are those of ppoll's caller.
        return unsafe { plain(libc::SYS_ppoll, words) };
    };
    let wait = |timeout| {
        // SAFETY: the entries are those of ppoll's caller; the time and the mask are ours.
        unsafe { sockshim_ppoll(at(a), u64::from(b as u32), timeout, set.as_ptr()) }
    };
    // SAFETY: `is_time` has found the time there, or null.
    unsafe { with_remainder(at(c), wait) }
}

/// Waits with a copy of the time-out and stores what is left of it, as the kernel does and libc does not.
///
/// # Safety
///
/// `timeout` is null or valid for reading and writing.
unsafe fn with_remainder(timeout: *mut timespec, wait: impl FnOnce(*const timespec) -> c_int) -> c_long {
    if timeout.is_null() {
        return c_long::from(wait(timeout));
    }
    // SAFETY: not null, so the caller says that it is there.
    let given = unsafe { timeout.read() };
    let before = quietly(monotonic_nanoseconds);
    let result = wait(&given);
    let left = quietly(|| {
        let elapsed = monotonic_nanoseconds() - before;
        let total = i128::from(given.tv_sec) * SECOND + i128::from(given.tv_nsec);
        (total - elapsed).max(0)
    });
    if given.tv_sec >= 0 && (0..SECOND).contains(&i128::from(given.tv_nsec)) {
        // SAFETY: the caller says that it can be written; the remainder is no longer than what was given.
        unsafe {
            timeout.write(timespec { tv_sec: (left / SECOND) as i64, tv_nsec: (left % SECOND) as i64 })
        };
    }
    c_long::from(result)
}

/// Whether a time is absent or there; glibc would read it without asking.
fn is_time<T>(timeout: *mut T) -> bool {
    timeout.is_null() || buffers::is_good(timeout, size_of::<T>(), true)
}

const SECOND: i128 = 1_000_000_000;

fn monotonic_nanoseconds() -> i128 {
    i128::from(kernel::monotonic_ns())
}

/// A signal mask of the kernel's size, made as large as libc's.
struct SignalSet(Option<sigset_t>);

impl SignalSet {
    /// Reads the mask at `address`, which may be null. `None`: the kernel would refuse the size.
    ///
    /// # Safety
    ///
    /// `address` is null or points to eight bytes.
    unsafe fn read(address: c_long, size: c_long) -> Option<Self> {
        if address == 0 {
            return Some(Self(None));
        }
        if size as size_t != size_of::<u64>()
            || !buffers::is_good(at::<u64>(address), size_of::<u64>(), false)
        {
            return None;
        }
        // SAFETY: `is_good` has found the mask there.
        let signals = unsafe { at::<u64>(address).read_unaligned() };
        // SAFETY: all zeroes are a set of no signals.
        let mut set: sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel's mask is the first word of libc's.
        unsafe { (&raw mut set).cast::<u64>().write(signals) };
        Some(Self(Some(set)))
    }

    fn as_ptr(&self) -> *const sigset_t {
        self.0.as_ref().map_or(ptr::null(), ptr::from_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_map_holds_exactly_the_hooked_numbers() {
        let mut numbers = NUMBERS.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), NUMBERS.len());
        let set: u32 = TAKEN.iter().map(|word| word.count_ones()).sum();
        assert_eq!(set as usize, numbers.len());
        for never in
            [libc::SYS_clone, libc::SYS_vfork, libc::SYS_fork, libc::SYS_clone3, libc::SYS_rt_sigreturn]
        {
            assert!(!numbers.contains(&never));
        }
    }

    /// Exported names that no number stands for, or one that stands for more.
    const NO_NUMBER: &[&str] = &[
        // The C library's own.
        "closefrom",
        "daemon",
        "dprintf",
        "execl",
        "execle",
        "execlp",
        "execv",
        "execvp",
        "execvpe",
        "fclose",
        "fcloseall",
        "fdopen",
        "forkpty",
        "freopen",
        "io_uring_queue_init",
        "io_uring_queue_init_mem",
        "io_uring_queue_init_params",
        "login_tty",
        "pclose",
        "popen",
        "seteuid",
        // Nothing but the C library knows of a restorer: see `sys::handlers`.
        "bsd_signal",
        "sigaction",
        "siginterrupt",
        "signal",
        "sigset",
        "ssignal",
        "sysv_signal",
        "posix_spawn",
        "posix_spawnp",
        "sockatmark",
        "syscall",
        "system",
        "vdprintf",
        // A child is noticed by its process number, or finds an empty page.
        "Fork",
        "fork",
        "vfork",
    ];

    #[test]
    fn every_exported_system_call_has_its_number_here() {
        let hooked = include_str!("syscall.rs");
        let mut checked = 0;
        for name in include_str!("../../tests/exports.txt").lines() {
            // Names that libc has twice.
            let plain = name.trim_start_matches('_').trim_end_matches("_chk");
            let plain = plain.replace("v64v2", "v2");
            let plain = plain.trim_end_matches("64");
            let number = match plain {
                "recv" => "recvfrom",
                "send" => "sendto",
                "pselect" => "pselect6",
                "eventfd" => "eventfd2",
                "signalfd" => "signalfd4",
                "fexecve" => "execveat",
                "exit" | "Exit" => "exit_group",
                plain => plain,
            };
            if !plain.starts_with("sockshim_") && !NO_NUMBER.contains(&plain) {
                assert!(hooked.contains(&format!("    SYS_{number} => ")), "{name} has no hook");
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked}");
    }

    #[test]
    fn a_number_without_a_hook_reaches_the_kernel() {
        for _ in 0..2 {
            // SAFETY: getpid touches no memory.
            let pid = unsafe { sockshim_syscall(libc::SYS_getpid, 0, 0, 0, 0, 0, 0) };
            assert_eq!(pid, c_long::from(std::process::id()));
            // SAFETY: an unknown number touches no memory.
            assert_eq!(unsafe { sockshim_syscall(100_000, 0, 0, 0, 0, 0, 0) }, -1);
            assert_eq!(crate::error::Errno::last().0, libc::ENOSYS);
            real::resolve(); // once on the kernel, once through libc
        }
    }

    #[test]
    fn a_hooked_number_reports_as_the_kernel() {
        // SAFETY: no descriptor has this number.
        assert_eq!(unsafe { sockshim_syscall(libc::SYS_close, -1, 0, 0, 0, 0, 0) }, -1);
        assert_eq!(crate::error::Errno::last().0, libc::EBADF);
    }

    #[test]
    fn ppoll_stores_what_is_left_of_its_time() {
        let mut timeout = timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let address = ptr::from_mut(&mut timeout).expose_provenance() as c_long;
        // SAFETY: no descriptors, a valid time-out, no mask.
        assert_eq!(unsafe { sockshim_syscall(libc::SYS_ppoll, 0, 0, address, 0, 8, 0) }, 0);
        assert_eq!((timeout.tv_sec, timeout.tv_nsec), (0, 0));
    }
}
