//! The plain libc names, each forwarding to `sockshim_*`.
//!
//! This is the only place that defines a libc name, and nothing links this crate: it becomes the shared object
//! that is preloaded, never a part of a test or of the command.

#![deny(clippy::multiple_unsafe_ops_per_block)]

use libc::{
    FILE, c_char, c_int, c_uint, c_ulong, c_void, clockid_t, epoll_event, fd_set, iovec, loff_t, mmsghdr,
    mode_t, msghdr, nfds_t, off_t, off64_t, pid_t, pollfd, posix_spawn_file_actions_t, posix_spawnattr_t,
    sighandler_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t, termios, timespec, timeval, uid_t, winsize,
};
use sockshim::abi::command::*;
use sockshim::abi::control::*;
use sockshim::abi::exec::*;
use sockshim::abi::fd::*;
use sockshim::abi::io_uring::*;
use sockshim::abi::makers::*;
use sockshim::abi::poll::*;
use sockshim::abi::process::*;
use sockshim::abi::recv::*;
use sockshim::abi::send::*;
use sockshim::abi::signal::*;
use sockshim::abi::socket::*;
use sockshim::abi::splice::*;
use sockshim::abi::stdio::*;
use sockshim::abi::syscall::*;
use sockshim::abi::user::*;

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = sockshim::abi::sockshim_start;

#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = sockshim::abi::sockshim_finish;

/// `fn name(signature) = sockshim_name;` defines the libc name.
macro_rules! forward {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $target:ident;)*) => {
        $(
            #[doc = concat!("The libc name of [`", stringify!($target), "`].")]
            ///
            /// # Safety
            ///
            /// As the libc function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: the caller owes this function what it owes the one of libc.
                unsafe { $target($($argument),*) }
            }
        )*
    };
}

/// `name = sockshim_name;` defines the libc name of a function that is C-variadic, or returns twice, as a jump.
macro_rules! jump {
    ($($name:ident = $target:ident;)*) => {
        $(
            #[doc = concat!("The libc name of [`", stringify!($target), "`].")]
            ///
            /// # Safety
            ///
            /// As the libc function.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name() {
                std::arch::naked_asm!(".cfi_startproc", "jmp {}", ".cfi_endproc", sym $target)
            }
        )*
    };
}

jump! {
    dprintf = sockshim_dprintf;
    execl = sockshim_execl;
    execle = sockshim_execle;
    execlp = sockshim_execlp;
    syscall = sockshim_syscall;
    vfork = sockshim_vfork;
}

forward! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int = sockshim_socket;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int = sockshim_socketpair;
    fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = sockshim_bind;
    fn listen(fd: c_int, backlog: c_int) -> c_int = sockshim_listen;
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int = sockshim_accept;
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int = sockshim_accept4;
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = sockshim_connect;
    fn shutdown(fd: c_int, how: c_int) -> c_int = sockshim_shutdown;
    fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int = sockshim_getsockname;
    fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int = sockshim_getpeername;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int = sockshim_getsockopt;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int = sockshim_setsockopt;
    fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t = sockshim_read;
    fn readv(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t = sockshim_readv;
    fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t = sockshim_write;
    fn writev(fd: c_int, iov: *const iovec, iovcnt: c_int) -> ssize_t = sockshim_writev;
    fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t = sockshim_recv;
    fn recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t) -> ssize_t = sockshim_recvfrom;
    fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t = sockshim_recvmsg;
    fn recvmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int = sockshim_recvmmsg;
    fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t = sockshim_send;
    fn sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, length: socklen_t) -> ssize_t = sockshim_sendto;
    fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t = sockshim_sendmsg;
    fn sendmmsg(fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int = sockshim_sendmmsg;
    fn preadv2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off_t, flags: c_int) -> ssize_t = sockshim_preadv2;
    fn pwritev2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off_t, flags: c_int) -> ssize_t = sockshim_pwritev2;
    fn preadv64v2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off64_t, flags: c_int) -> ssize_t = sockshim_preadv64v2;
    fn pwritev64v2(fd: c_int, iov: *const iovec, iovcnt: c_int, offset: off64_t, flags: c_int) -> ssize_t = sockshim_pwritev64v2;
    fn __read_chk(fd: c_int, buf: *mut c_void, count: size_t, size: size_t) -> ssize_t = sockshim_read_chk;
    fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, size: size_t, flags: c_int) -> ssize_t = sockshim_recv_chk;
    fn __recvfrom_chk(fd: c_int, buf: *mut c_void, len: size_t, size: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t) -> ssize_t = sockshim_recvfrom_chk;
    fn sendfile(out_fd: c_int, in_fd: c_int, offset: *mut off_t, count: size_t) -> ssize_t = sockshim_sendfile;
    fn sendfile64(out_fd: c_int, in_fd: c_int, offset: *mut off64_t, count: size_t) -> ssize_t = sockshim_sendfile64;
    fn splice(fd_in: c_int, off_in: *mut loff_t, fd_out: c_int, off_out: *mut loff_t, len: size_t, flags: c_uint) -> ssize_t = sockshim_splice;
    fn tee(fd_in: c_int, fd_out: c_int, len: size_t, flags: c_uint) -> ssize_t = sockshim_tee;
    fn select(nfds: c_int, readfds: *mut fd_set, writefds: *mut fd_set, exceptfds: *mut fd_set, timeout: *mut timeval) -> c_int = sockshim_select;
    fn pselect(nfds: c_int, readfds: *mut fd_set, writefds: *mut fd_set, exceptfds: *mut fd_set, timeout: *const timespec, sigmask: *const sigset_t) -> c_int = sockshim_pselect;
    fn poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int = sockshim_poll;
    fn ppoll(fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, sigmask: *const sigset_t) -> c_int = sockshim_ppoll;
    fn __poll_chk(fds: *mut pollfd, nfds: nfds_t, timeout: c_int, size: size_t) -> c_int = sockshim_poll_chk;
    fn __ppoll_chk(fds: *mut pollfd, nfds: nfds_t, timeout: *const timespec, sigmask: *const sigset_t, size: size_t) -> c_int = sockshim_ppoll_chk;
    fn epoll_create(size: c_int) -> c_int = sockshim_epoll_create;
    fn epoll_create1(flags: c_int) -> c_int = sockshim_epoll_create1;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int = sockshim_epoll_ctl;
    fn epoll_wait(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int) -> c_int = sockshim_epoll_wait;
    fn epoll_pwait(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int, sigmask: *const sigset_t) -> c_int = sockshim_epoll_pwait;
    fn epoll_pwait2(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: *const timespec, sigmask: *const sigset_t) -> c_int = sockshim_epoll_pwait2;
    fn close(fd: c_int) -> c_int = sockshim_close;
    fn dup(old: c_int) -> c_int = sockshim_dup;
    fn dup2(old: c_int, new: c_int) -> c_int = sockshim_dup2;
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int = sockshim_dup3;
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int = sockshim_fcntl;
    fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int = sockshim_fcntl64;
    fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int = sockshim_ioctl;
    fn sockatmark(fd: c_int) -> c_int = sockshim_sockatmark;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = sockshim_close_range;
    fn closefrom(low: c_int) -> () = sockshim_closefrom;
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_open;
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_open64;
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_openat;
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_openat64;
    fn creat(path: *const c_char, mode: mode_t) -> c_int = sockshim_creat;
    fn creat64(path: *const c_char, mode: mode_t) -> c_int = sockshim_creat64;
    fn pipe(ends: *mut c_int) -> c_int = sockshim_pipe;
    fn pipe2(ends: *mut c_int, flags: c_int) -> c_int = sockshim_pipe2;
    fn eventfd(initial: c_uint, flags: c_int) -> c_int = sockshim_eventfd;
    fn timerfd_create(clock: clockid_t, flags: c_int) -> c_int = sockshim_timerfd_create;
    fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int = sockshim_signalfd;
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int = sockshim_memfd_create;
    fn inotify_init() -> c_int = sockshim_inotify_init;
    fn inotify_init1(flags: c_int) -> c_int = sockshim_inotify_init1;
    fn fork() -> pid_t = sockshim_fork;
    fn _Fork() -> pid_t = sockshim__Fork;
    fn execve(path: *const c_char, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = sockshim_execve;
    fn execv(path: *const c_char, argv: *const *mut c_char) -> c_int = sockshim_execv;
    fn execvp(file: *const c_char, argv: *const *mut c_char) -> c_int = sockshim_execvp;
    fn execvpe(file: *const c_char, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = sockshim_execvpe;
    fn fexecve(fd: c_int, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = sockshim_fexecve;
    fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = sockshim_posix_spawn;
    fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int = sockshim_posix_spawnp;
    fn system(command: *const c_char) -> c_int = sockshim_system;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE = sockshim_popen;
    fn pclose(stream: *mut FILE) -> c_int = sockshim_pclose;
    fn _exit(status: c_int) -> ! = sockshim__exit;
    fn _Exit(status: c_int) -> ! = sockshim__exit;
    fn daemon(nochdir: c_int, noclose: c_int) -> c_int = sockshim_daemon;
    fn login_tty(fd: c_int) -> c_int = sockshim_login_tty;
    fn forkpty(terminal: *mut c_int, name: *mut c_char, settings: *const termios, size: *const winsize) -> pid_t = sockshim_forkpty;
    fn prctl(option: c_int, b: c_ulong, c: c_ulong, d: c_ulong, e: c_ulong) -> c_int = sockshim_prctl;
    fn setuid(user: uid_t) -> c_int = sockshim_setuid;
    fn seteuid(effective: uid_t) -> c_int = sockshim_seteuid;
    fn setreuid(real: uid_t, effective: uid_t) -> c_int = sockshim_setreuid;
    fn setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int = sockshim_setresuid;
    fn setfsuid(user: uid_t) -> c_int = sockshim_setfsuid;
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE = sockshim_fdopen;
    fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE = sockshim_freopen;
    fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE = sockshim_freopen64;
    fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int = sockshim_vdprintf;
    fn fclose(stream: *mut FILE) -> c_int = sockshim_fclose;
    fn fcloseall() -> c_int = sockshim_fcloseall;
    fn io_uring_setup(entries: c_uint, parameters: *mut c_void) -> c_int = sockshim_io_uring_setup;
    fn io_uring_queue_init(entries: c_uint, ring: *mut c_void, flags: c_uint) -> c_int = sockshim_io_uring_queue_init;
    fn io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, parameters: *mut c_void) -> c_int = sockshim_io_uring_queue_init_params;
    fn io_uring_queue_init_mem(entries: c_uint, ring: *mut c_void, parameters: *mut c_void, memory: *mut c_void, size: size_t) -> c_int = sockshim_io_uring_queue_init_mem;
    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = sockshim_sigaction;
    fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = sockshim_sigaction;
    fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_signal;
    fn bsd_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_signal;
    fn ssignal(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_signal;
    fn sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_sysv_signal;
    fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_sysv_signal;
    fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int = sockshim_siginterrupt;
    fn sigset(signal: c_int, handler: sighandler_t) -> sighandler_t = sockshim_sigset;
    fn __close(fd: c_int) -> c_int = sockshim_close;
    fn __connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = sockshim_connect;
    fn __read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t = sockshim_read;
    fn __write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t = sockshim_write;
    fn __send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t = sockshim_send;
    fn __poll(fds: *mut pollfd, nfds: nfds_t, timeout: c_int) -> c_int = sockshim_poll;
    fn __select(nfds: c_int, readfds: *mut fd_set, writefds: *mut fd_set, exceptfds: *mut fd_set, timeout: *mut timeval) -> c_int = sockshim_select;
    fn __fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int = sockshim_fcntl;
    fn __dup2(old: c_int, new: c_int) -> c_int = sockshim_dup2;
    fn __open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_open;
    fn __open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int = sockshim_open64;
}
