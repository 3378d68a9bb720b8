//! Calls on descriptors that are not sockshim's business; word: which.
//!
//! # Safety
//!
//! Every pointer handed to the C library comes from a reference that lives over the call.

use crate::job::Job;
use crate::net::{check, read, write};
use libc::c_int;
pub(super) fn work(job: &Job) {
    let mut byte = [b'x'];
    match job.word(1) {
        "null" => {
            let fd = open(c"/dev/null");
            repeat(job, || write(fd, &byte));
        }
        "zero" => {
            let fd = open(c"/dev/zero");
            repeat(job, || read(fd, &mut byte));
        }
        "pipe" => {
            let mut ends = [0; 2];
            // SAFETY: room for two descriptors.
            check(unsafe { libc::pipe(ends.as_mut_ptr()) } as isize, "pipe");
            repeat(job, || write(ends[1], &byte).min(read(ends[0], &mut byte)));
        }
        "eventfd" => {
            let fd = eventfd(0);
            let mut one = 1_u64.to_ne_bytes();
            repeat(job, || write(fd, &one).min(read(fd, &mut one)));
        }
        "unix" => {
            let mut ends = [0; 2];
            // SAFETY: room for two descriptors.
            let result = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) };
            check(result as isize, "socketpair");
            repeat(job, || {
                // SAFETY: one byte is passed.
                let sent = unsafe { libc::send(ends[1], byte.as_ptr().cast(), 1, 0) };
                // SAFETY: room for one byte.
                sent.min(unsafe { libc::recv(ends[0], byte.as_mut_ptr().cast(), 1, 0) })
            });
        }
        "getsockopt" => {
            // SAFETY: no pointers.
            let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) } as isize, "socket");
            let (mut value, mut length) = (0_i32, 4);
            repeat(job, || {
                let value = (&raw mut value).cast();
                // SAFETY: room for an integer, whose size is passed.
                let result = unsafe {
                    libc::getsockopt(fd as c_int, libc::SOL_SOCKET, libc::SO_TYPE, value, &raw mut length)
                };
                result as isize
            });
        }
        "poll" => {
            let mut wanted = libc::pollfd { fd: eventfd(1), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd is passed.
            repeat(job, || unsafe { libc::poll(&raw mut wanted, 1, 0) } as isize);
        }
        "epoll" => {
            // SAFETY: no pointers.
            let set = check(unsafe { libc::epoll_create1(0) } as isize, "epoll_create1") as c_int;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
            // SAFETY: an initialised event.
            let result = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, eventfd(1), &raw mut event) };
            check(result as isize, "epoll_ctl");
            // SAFETY: room for one event.
            repeat(job, || unsafe { libc::epoll_wait(set, &raw mut event, 1, 0) } as isize);
        }
        other => panic!("no such call: {other}"),
    }
}

fn repeat(job: &Job, mut call: impl FnMut() -> isize) {
    job.serve(-1, |count| {
        for _ in 0..count {
            check(call(), job.word(1));
        }
    });
}

fn open(path: &core::ffi::CStr) -> c_int {
    // SAFETY: a C string.
    check(unsafe { libc::open(path.as_ptr(), libc::O_RDWR) } as isize, "open") as c_int
}

fn eventfd(value: u32) -> c_int {
    // SAFETY: no pointers.
    check(unsafe { libc::eventfd(value, 0) } as isize, "eventfd") as c_int
}
