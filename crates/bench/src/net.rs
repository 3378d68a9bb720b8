//! The socket calls of a plain C program, and nothing between them and the C library.
//!
//! # Safety
//!
//! Every pointer handed to the C library comes from a reference or slice that lives over the call.

use crate::network;
use libc::{c_int, sockaddr_in, socklen_t};
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;

/// The result of a call, which must be a success.
#[track_caller]
pub(crate) fn check(result: isize, call: &str) -> usize {
    usize::try_from(result).unwrap_or_else(|_| panic!("{call}: {}", std::io::Error::last_os_error()))
}

#[inline]
pub(crate) fn read(fd: c_int, buffer: &mut [u8]) -> isize {
    // SAFETY: pointer and length are those of a slice.
    unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) }
}

#[inline]
pub(crate) fn write(fd: c_int, data: &[u8]) -> isize {
    // SAFETY: pointer and length are those of a slice.
    unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) }
}

/// Reads until `buffer` is full; false when the other end disconnected first.
#[inline]
pub(crate) fn read_all(fd: c_int, buffer: &mut [u8]) -> bool {
    let mut done = 0;
    while done < buffer.len() {
        match check(read(fd, &mut buffer[done..]), "read") {
            0 => return false,
            n => done += n,
        }
    }
    true
}

#[inline]
pub(crate) fn write_all(fd: c_int, data: &[u8]) {
    let mut done = 0;
    while done < data.len() {
        done += check(write(fd, &data[done..]), "write");
    }
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: the benches own the descriptors that they close.
    check(unsafe { libc::close(fd) } as isize, "close");
}

fn name(address: Ipv4Addr, port: u16) -> sockaddr_in {
    // SAFETY: all zeroes is a valid sockaddr_in.
    let mut name: sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = port.to_be();
    name.sin_addr.s_addr = u32::from(address).to_be();
    name
}

fn stream_socket() -> c_int {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) } as isize, "socket") as c_int;
    network::prepare(fd);
    fd
}

/// A listening socket on `address`, and its port.
pub(crate) fn listen(address: Ipv4Addr, port: u16) -> (c_int, u16) {
    let fd = stream_socket();
    let mut name = name(address, port);
    let mut length = size_of::<sockaddr_in>() as socklen_t;
    // SAFETY: `name` is a socket address of that length.
    check(unsafe { libc::bind(fd, (&raw const name).cast(), length) } as isize, "bind");
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd, 4096) } as isize, "listen");
    // SAFETY: `name` has room for `length` bytes.
    check(unsafe { libc::getsockname(fd, (&raw mut name).cast(), &raw mut length) } as isize, "getsockname");
    (fd, u16::from_be(name.sin_port))
}

pub(crate) fn accept(listener: c_int) -> c_int {
    // SAFETY: null pointers ask for no address.
    let fd = unsafe { libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()) };
    check(fd as isize, "accept") as c_int
}

pub(crate) fn connect(address: Ipv4Addr, port: u16) -> c_int {
    let fd = stream_socket();
    let name = name(address, port);
    let length = size_of::<sockaddr_in>() as socklen_t;
    // SAFETY: `name` is a socket address of that length.
    check(unsafe { libc::connect(fd, (&raw const name).cast(), length) } as isize, "connect");
    fd
}

/// Sends what Nagle's algorithm holds back until an acknowledgement arrives.
pub(crate) fn push(fd: c_int) {
    for on in [1 as c_int, 0] {
        let length = size_of::<c_int>() as socklen_t;
        // SAFETY: `on` is an integer of that size.
        let result = unsafe {
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), length)
        };
        check(result as isize, "setsockopt");
    }
}

/// Which path the connection is on as sockshim says: 1 is a pipe, 0 the kernel; 0 without sockshim.
pub(crate) fn path(fd: c_int) -> u64 {
    // SAFETY: the name is a C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"sockshim_path".as_ptr()) };
    if symbol.is_null() {
        return 0;
    }
    // SAFETY: the symbol, when it exists, is the function that include/sockshim.h declares so.
    let function = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(c_int) -> c_int>(symbol) };
    u64::from(function(fd) == 1)
}

/// Allows this process as many descriptors as it may have, and returns the number.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the answer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } as isize, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } as isize, "setrlimit");
    limit.rlim_max
}

/// The processors this process may run on.
pub(crate) fn processors() -> Vec<usize> {
    // SAFETY: all zeroes is a valid cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `set` has the size that is passed.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    check(result as isize, "sched_getaffinity");
    // SAFETY: the numbers are below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

pub(crate) fn pin(cpu: usize) {
    check(isize::from(pin_task(0, cpu)) - 1, "sched_setaffinity");
}

/// Moves a thread, or the calling one if that is 0; false when it is gone. Safe between fork and exec.
pub(crate) fn pin_task(task: libc::pid_t, cpu: usize) -> bool {
    // SAFETY: all zeroes is a valid cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `processors` returned the number, which is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` has the size that is passed.
    unsafe { libc::sched_setaffinity(task, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
}

/// Whether this process may raise the priority of others above its own.
pub(crate) fn may_raise_priority() -> bool {
    // SAFETY: no arguments, always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Gives this process a nice value.
pub(crate) fn renice(nice: c_int) {
    // SAFETY: no pointers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } as isize, "setpriority");
}

/// User and system time of this process and all its threads, in nanoseconds.
pub(crate) fn cpu_time() -> [u64; 2] {
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { zeroed() };
    // SAFETY: `usage` has room for the answer.
    check(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } as isize, "getrusage");
    times(&usage)
}

/// User and system time in nanoseconds.
pub(crate) fn times(usage: &libc::rusage) -> [u64; 2] {
    [usage.ru_utime, usage.ru_stime]
        .map(|time| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1_000)
}

pub(crate) fn set_nonblocking(fd: c_int) {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) } as isize, "fcntl");
}

/// Waits for one of `events` on `fd`.
pub(crate) fn wait_for(fd: c_int, events: libc::c_short) {
    let mut wanted = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd is passed.
    check(unsafe { libc::poll(&raw mut wanted, 1, -1) } as isize, "poll");
}

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Epoll(c_int);

impl Epoll {
    pub(crate) fn new() -> Self {
        // SAFETY: no pointers.
        Self(check(unsafe { libc::epoll_create1(0) } as isize, "epoll_create1") as c_int)
    }

    /// Reports on `fd`, level-triggered, when there is something to read.
    pub(crate) fn add(&self, fd: c_int) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: an initialised event.
        let result = unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        check(result as isize, "epoll_ctl");
    }

    /// Calls `ready` for each descriptor that is ready now or, if there is none, in a while.
    pub(crate) fn wait(&self, mut ready: impl FnMut(c_int)) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: room for that many events.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as c_int, -1) };
        for event in &events[..check(count as isize, "epoll_wait")] {
            ready(event.u64 as c_int);
        }
    }
}
