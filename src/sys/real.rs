//! The C library's own functions, behind the names that we took.
//!
//! Inside the shared object a call of `libc::read` binds to *our* `read`, so nothing in this library calls a
//! taken name directly: it calls `real::read`, which jumps to what `dlsym(RTLD_NEXT, "read")` found. That is
//! glibc's function, with its cancellation points.
//!
//! All names are resolved at once by [`resolve`], from our constructor. A hook that runs before it (an allocator
//! opens files while `malloc` starts, and `dlsym` may call `malloc`) makes the system call itself instead. Calls
//! that have no system call of their own resolve at first use.
//!
//! # Safety
//!
//! Every function here has the contract of the libc function of the same name, and passes it on: what the
//! manual page asks of a program, these functions ask of their caller.

use super::raw::{self, Word};
use crate::error::Errno;
use libc::{
    FILE, RTLD_NEXT, c_char, c_int, c_long, c_uint, c_ulong, c_void, clockid_t, dlsym, epoll_event, fd_set,
    iovec, loff_t, mmsghdr, mode_t, msghdr, nfds_t, off_t, off64_t, pid_t, pollfd,
    posix_spawn_file_actions_t, posix_spawnattr_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t, termios,
    timespec, timeval, uid_t, winsize,
};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Finds every function of the table. Harmless to call again.
pub(crate) fn resolve() {
    for (name, slot) in TABLE {
        slot.store(next(name), Relaxed);
    }
}

/// glibc's word on whether this process never had a second thread (`__libc_single_threaded`).
pub(crate) fn single_threaded() -> bool {
    let flag = next(c"__libc_single_threaded");
    // SAFETY: glibc (2.32 and later) defines the name as one char that lives as long as the process.
    !flag.is_null() && unsafe { flag.cast::<c_char>().read_volatile() } != 0
}

/// Whether `sigaction` is the C library's own, of which it has two names, and not another interposer's.
pub(crate) fn owns_sigaction() -> bool {
    if slot::sigaction.load(Relaxed).is_null() {
        resolve();
    }
    slot::sigaction.load(Relaxed) == slot::__sigaction.load(Relaxed)
}

/// The definition of `name` that follows ours in the order of the loaded objects; that of another copy of this library is
/// left out, with those between the two.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: a C string; the result is only compared.
    let other_copy = unsafe { dlsym(RTLD_NEXT, c"sockshim_reason".as_ptr()) };
    let from = if other_copy.is_null() {
        RTLD_NEXT
    } else {
        // SAFETY: a C string; the library is loaded already, and stays.
        unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) }
    };
    // SAFETY: `name` is a C string; the result is only stored or checked.
    unsafe { dlsym(from, name.as_ptr()) }
}

/// What a libc function returns when it fails, and how a raw system call's result becomes its result.
trait Returned {
    const FAILED: Self;
    fn from_answer(answer: isize) -> Self;
}

impl Returned for c_int {
    const FAILED: Self = -1;
    fn from_answer(answer: isize) -> Self {
        answer as Self
    }
}

impl Returned for isize {
    const FAILED: Self = -1;
    fn from_answer(answer: isize) -> Self {
        answer
    }
}

impl Returned for c_long {
    const FAILED: Self = -1;
    fn from_answer(answer: isize) -> Self {
        answer as Self
    }
}

impl Returned for () {
    const FAILED: Self = ();
    fn from_answer(_answer: isize) {}
}

impl<T> Returned for *mut T {
    const FAILED: Self = ptr::null_mut();
    fn from_answer(_answer: isize) -> Self {
        Self::FAILED
    }
}

/// One function of the table: `libc fn` is checked against the signature in the libc crate, `glibc fn` has none
/// there of this form. The body says what to do while the address is unknown: a system call, or `resolve`.
macro_rules! table {
    ($($kind:ident fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty { $($fallback:tt)* })*) => {
        /// Where the functions are; null until resolved.
        #[allow(non_upper_case_globals, reason = "named as the function")]
        pub(crate) mod slot {
            use super::*;
            $(pub(crate) static $name: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());)*
        }

        static TABLE: &[(&CStr, &AtomicPtr<c_void>)] = &[$(
            (
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name holds no zero byte"),
                },
                &slot::$name,
            ),
        )*];

        $(
            table! { @check $kind $name($($type),*) -> $result }

            /// The real function of this name.
            ///
            /// # Safety
            ///
            /// As the libc function.
            #[allow(clippy::too_many_arguments, reason = "the libc function's own arguments")]
            #[allow(dead_code, reason = "the variadic ones are reached by address only")]
            #[allow(non_snake_case, reason = "named as the function")]
            #[inline]
            pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                let address = slot::$name.load(Relaxed);
                if address.is_null() {
                    return table! { @fallback $name($($argument: $type),*) -> $result { $($fallback)* } };
                }
                type Function = unsafe extern "C-unwind" fn($($type),*) -> $result;
                // SAFETY: a non-null slot holds the address of the libc function with this signature.
                let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
                // SAFETY: the caller keeps the function's contract.
                unsafe { function($($argument),*) }
            }
        )*
    };

    (@check libc $name:ident($($type:ty),*) -> $result:ty) => {
        // Compared by the compiler only: an unused constant leaves no code and no reference behind.
        const _: unsafe extern "C" fn($($type),*) -> $result = libc::$name;
    };
    (@check glibc $name:ident($($type:ty),*) -> $result:ty) => {};

    (@fallback $name:ident($($argument:ident: $type:ty),*) -> $result:ty { resolve }) => {{
        #[cold]
        #[inline(never)]
        unsafe fn late($($argument: $type),*) -> $result {
            resolve();
            let address = slot::$name.load(Relaxed);
            if address.is_null() {
                Errno(libc::ENOSYS).store();
                return <$result as Returned>::FAILED;
            }
            type Function = unsafe extern "C-unwind" fn($($type),*) -> $result;
            // SAFETY: a non-null slot holds the address of the libc function with this signature.
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
            // SAFETY: the caller keeps the function's contract.
            unsafe { function($($argument),*) }
        }
        // SAFETY: the arguments are passed on as they came.
        unsafe { late($($argument),*) }
    }};
    (@fallback $name:ident($($argument:ident: $type:ty),*) -> $result:ty { $number:ident($($word:expr),*) }) => {{
        #[cold]
        #[inline(never)]
        unsafe fn early($($argument: $type),*) -> $result {
            // SAFETY: the libc function is this system call; the caller keeps its contract.
            let result = unsafe { table!(@call libc::$number $(, $word)*) };
            <$result as Returned>::from_answer(raw::answer(result))
        }
        // SAFETY: the arguments are passed on as they came.
        unsafe { early($($argument),*) }
    }};

    (@call $n:expr) => { raw::syscall0($n) };
    (@call $n:expr, $a:expr) => { raw::syscall1($n, $a.word()) };
    (@call $n:expr, $a:expr, $b:expr) => { raw::syscall2($n, $a.word(), $b.word()) };
    (@call $n:expr, $a:expr, $b:expr, $c:expr) => { raw::syscall3($n, $a.word(), $b.word(), $c.word()) };
    (@call $n:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {
        raw::syscall4($n, $a.word(), $b.word(), $c.word(), $d.word())
    };
    (@call $n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        raw::syscall5($n, $a.word(), $b.word(), $c.word(), $d.word(), $e.word())
    };
    (@call $n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        raw::syscall6($n, $a.word(), $b.word(), $c.word(), $d.word(), $e.word(), $f.word())
    };
}

/// The size of the kernel's signal set, which is smaller than `sigset_t`.
const KERNEL_SIGSET: size_t = 8;

table! {
    // Sockets.
    libc fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int { SYS_socket(domain, kind, protocol) }
    libc fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int {
        SYS_socketpair(domain, kind, protocol, pair)
    }
    libc fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int { SYS_bind(fd, address, length) }
    libc fn listen(fd: c_int, backlog: c_int) -> c_int { SYS_listen(fd, backlog) }
    libc fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        SYS_accept(fd, address, length)
    }
    libc fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int {
        SYS_accept4(fd, address, length, flags)
    }
    libc fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
        SYS_connect(fd, address, length)
    }
    libc fn shutdown(fd: c_int, how: c_int) -> c_int { SYS_shutdown(fd, how) }
    libc fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        SYS_getsockname(fd, address, length)
    }
    libc fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
        SYS_getpeername(fd, address, length)
    }
    libc fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int {
        SYS_getsockopt(fd, level, name, value, length)
    }
    libc fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int {
        SYS_setsockopt(fd, level, name, value, length)
    }

    // Data.
    libc fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t { SYS_read(fd, buf, count) }
    libc fn readv(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t { SYS_readv(fd, iov, iovcnt) }
    libc fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t { SYS_write(fd, buf, count) }
    libc fn writev(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t { SYS_writev(fd, iov, iovcnt) }
    libc fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
        SYS_recvfrom(fd, buf, len, flags, 0_usize, 0_usize)
    }
    libc fn recvfrom(
        fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t {
        SYS_recvfrom(fd, buf, len, flags, address, length)
    }
    libc fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t { SYS_recvmsg(fd, msg, flags) }
    libc fn recvmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int {
        SYS_recvmmsg(fd, msgs, count, flags, timeout)
    }
    libc fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
        SYS_sendto(fd, buf, len, flags, 0_usize, 0_usize)
    }
    libc fn sendto(
        fd: c_int, buf: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, length: socklen_t
    ) -> ssize_t {
        SYS_sendto(fd, buf, len, flags, address, length)
    }
    libc fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t { SYS_sendmsg(fd, msg, flags) }
    libc fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        SYS_sendmmsg(fd, msgs, count, flags)
    }
    libc fn preadv2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off_t, flags: c_int) -> ssize_t {
        SYS_preadv2(fd, iov, iovcnt, offset, 0_usize, flags)
    }
    libc fn pwritev2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off_t, flags: c_int) -> ssize_t {
        SYS_pwritev2(fd, iov, iovcnt, offset, 0_usize, flags)
    }
    glibc fn __read_chk(fd: c_int, buf: *mut c_void, count: size_t, size: size_t) -> ssize_t { resolve }
    glibc fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, size: size_t, flags: c_int) -> ssize_t {
        resolve
    }
    glibc fn __recvfrom_chk(
        fd: c_int, buf: *mut c_void, len: size_t, size: size_t, flags: c_int, address: *mut sockaddr,
        length: *mut socklen_t
    ) -> ssize_t {
        resolve
    }
    libc fn sendfile(out_fd: c_int, in_fd: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
        SYS_sendfile(out_fd, in_fd, offset, count)
    }
    libc fn sendfile64(out_fd: c_int, in_fd: c_int, offset: *mut off64_t, count: size_t) -> ssize_t {
        SYS_sendfile(out_fd, in_fd, offset, count)
    }
    libc fn splice(
        fd_in: c_int, off_in: *mut loff_t, fd_out: c_int, off_out: *mut loff_t, len: size_t, flags: c_uint
    ) -> ssize_t {
        SYS_splice(fd_in, off_in, fd_out, off_out, len, flags)
    }
    libc fn tee(fd_in: c_int, fd_out: c_int, len: size_t, flags: c_uint) -> ssize_t {
        SYS_tee(fd_in, fd_out, len, flags)
    }

    // Readiness.
    libc fn select(
        nfds: c_int, readfds: *mut fd_set, writefds: *mut fd_set, exceptfds: *mut fd_set, timeout: *mut timeval
    ) -> c_int {
        SYS_select(nfds, readfds, writefds, exceptfds, timeout)
    }
    glibc fn pselect(
        nfds: c_int, readfds: *mut fd_set, writefds: *mut fd_set, exceptfds: *mut fd_set,
        timeout: *const timespec, sigmask: *const sigset_t
    ) -> c_int {
        resolve
    }
    libc fn poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int { SYS_poll(fds, nfds, timeout) }
    libc fn ppoll(fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, sigmask: *const sigset_t) -> c_int {
        resolve
    }
    glibc fn __poll_chk(fds: *mut pollfd, nfds: nfds_t, timeout: c_int, size: size_t) -> c_int { resolve }
    glibc fn __ppoll_chk(
        fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, sigmask: *const sigset_t, size: size_t
    ) -> c_int {
        resolve
    }
    libc fn epoll_create(size: c_int) -> c_int { SYS_epoll_create(size) }
    libc fn epoll_create1(flags: c_int) -> c_int { SYS_epoll_create1(flags) }
    libc fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        SYS_epoll_ctl(epfd, op, fd, event)
    }
    libc fn epoll_wait(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int) -> c_int {
        SYS_epoll_wait(epfd, events, maxevents, timeout)
    }
    libc fn epoll_pwait(
        epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int, sigmask: *const sigset_t
    ) -> c_int {
        SYS_epoll_pwait(epfd, events, maxevents, timeout, sigmask, KERNEL_SIGSET)
    }
    libc fn epoll_pwait2(
        epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: *const timespec, sigmask: *const sigset_t
    ) -> c_int {
        SYS_epoll_pwait2(epfd, events, maxevents, timeout, sigmask, KERNEL_SIGSET)
    }

    // Descriptors. The optional argument of fcntl and ioctl is a word in a register.
    libc fn close(fd: c_int) -> c_int { SYS_close(fd) }
    libc fn dup(old: c_int) -> c_int { SYS_dup(old) }
    libc fn dup2(old: c_int, new: c_int) -> c_int { SYS_dup2(old, new) }
    libc fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int { SYS_dup3(old, new, flags) }
    glibc fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int { SYS_fcntl(fd, command, argument) }
    glibc fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int { SYS_ioctl(fd, request, argument) }
    libc fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int { SYS_close_range(first, last, flags) }
    glibc fn closefrom(low: c_int) -> () { SYS_close_range(low.max(0), c_uint::MAX, 0_usize) }

    // Makers.
    glibc fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { SYS_open(path, flags, mode) }
    glibc fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        SYS_openat(folder, path, flags, mode)
    }
    libc fn creat(path: *const c_char, mode: mode_t) -> c_int { SYS_creat(path, mode) }
    libc fn pipe(ends: *mut c_int) -> c_int { SYS_pipe(ends) }
    libc fn pipe2(ends: *mut c_int, flags: c_int) -> c_int { SYS_pipe2(ends, flags) }
    libc fn eventfd(initial: c_uint, flags: c_int) -> c_int { SYS_eventfd2(initial, flags) }
    libc fn timerfd_create(clock: clockid_t, flags: c_int) -> c_int { SYS_timerfd_create(clock, flags) }
    libc fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
        SYS_signalfd4(fd, mask, KERNEL_SIGSET, flags)
    }
    libc fn memfd_create(name: *const c_char, flags: c_uint) -> c_int { SYS_memfd_create(name, flags) }
    libc fn inotify_init() -> c_int { SYS_inotify_init() }
    libc fn inotify_init1(flags: c_int) -> c_int { SYS_inotify_init1(flags) }

    // Processes.
    libc fn fork() -> pid_t { resolve }
    glibc fn vfork() -> pid_t { resolve }
    glibc fn _Fork() -> pid_t { resolve }
    glibc fn execve(path: *const c_char, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int {
        SYS_execve(path, argv, envp)
    }
    glibc fn execv(path: *const c_char, argv: *const *mut c_char) -> c_int { resolve }
    glibc fn execvp(file: *const c_char, argv: *const *mut c_char) -> c_int { resolve }
    glibc fn execvpe(file: *const c_char, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int {
        resolve
    }
    glibc fn execl(path: *const c_char, first: *const c_char) -> c_int { resolve }
    glibc fn execlp(file: *const c_char, first: *const c_char) -> c_int { resolve }
    glibc fn execle(path: *const c_char, first: *const c_char) -> c_int { resolve }
    glibc fn fexecve(fd: c_int, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int { resolve }
    libc fn posix_spawn(
        pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char
    ) -> c_int {
        resolve
    }
    libc fn posix_spawnp(
        pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t,
        attributes: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char
    ) -> c_int {
        resolve
    }
    libc fn system(command: *const c_char) -> c_int { resolve }
    libc fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE { resolve }
    libc fn pclose(stream: *mut FILE) -> c_int { resolve }
    libc fn setuid(user: uid_t) -> c_int { SYS_setuid(user) }
    libc fn seteuid(effective: uid_t) -> c_int { resolve }
    libc fn setreuid(real: uid_t, effective: uid_t) -> c_int { SYS_setreuid(real, effective) }
    libc fn setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int { SYS_setresuid(real, effective, saved) }
    libc fn setfsuid(user: uid_t) -> c_int { SYS_setfsuid(user) }
    libc fn daemon(nochdir: c_int, noclose: c_int) -> c_int { resolve }
    libc fn login_tty(fd: c_int) -> c_int { resolve }
    libc fn forkpty(
        terminal: *mut c_int, name: *mut c_char, settings: *const termios, size: *const winsize
    ) -> pid_t {
        resolve
    }
    glibc fn prctl(option: c_int, b: c_ulong, c: c_ulong, d: c_ulong, e: c_ulong) -> c_int {
        SYS_prctl(option, b, c, d, e)
    }
    glibc fn syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
        resolve
    }

    // Signals.
    glibc fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { resolve }
    glibc fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { resolve }

    // Stdio.
    libc fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE { resolve }
    libc fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE { resolve }
    glibc fn dprintf(fd: c_int, format: *const c_char) -> c_int { resolve }
    glibc fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int { resolve }
    libc fn fclose(stream: *mut FILE) -> c_int { resolve }
    glibc fn fcloseall() -> c_int { resolve }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found() {
        resolve();
        for (name, slot) in TABLE {
            assert!(!slot.load(Relaxed).is_null(), "{name:?} is not in this libc");
        }
    }
}
