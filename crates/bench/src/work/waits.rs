//! Round trips of 64 bytes where ends wait in epoll, poll or select; words: the call, how many idle connections
//! are in its set beside the one that is used, and whether the `server` or `both` ends wait so.

use super::pingpong;
use crate::job::Job;
use crate::link::{Link as _, Socket};
use crate::net::{self, Epoll, check};
use libc::c_int;

pub(super) fn work(job: &Job) {
    if job.has_ring() {
        return pingpong::run_over_ring(job, SIZE);
    }
    let idle = job.number(2);
    net::raise_descriptor_limit();
    let fds: Vec<_> = if job.is_server() {
        let listener = job.listen();
        (0..=idle).map(|_| net::accept(listener)).collect()
    } else {
        (0..=idle).map(|_| job.connect()).collect()
    };
    let mut message = [b'x'; SIZE];
    let active = fds[idle];
    if job.is_server() {
        let mut set = Set::new(job.word(1), &fds);
        job.serve(active, |count| {
            let mut left = count * SIZE as u64;
            while left > 0 {
                set.wait(|fd| {
                    let n = Socket(fd).read(&mut message);
                    net::write_all(fd, &message[..n]);
                    left -= n as u64;
                });
            }
        });
    } else if job.word(3) == "both" {
        let mut set = Set::new(job.word(1), &[active]);
        job.serve(active, |count| {
            for _ in 0..count {
                net::write_all(active, &message);
                let mut left = SIZE;
                while left > 0 {
                    set.wait(|fd| left -= Socket(fd).read(&mut message[..left]));
                }
            }
        });
    } else {
        job.serve_over(Socket(active), |link, count| {
            for _ in 0..count {
                link.write_all(&message);
                link.read_all(&mut message);
            }
        });
    }
}

const SIZE: usize = 64;

/// Descriptors that are waited for together.
enum Set {
    Epoll(Epoll),
    Poll(Vec<libc::pollfd>),
    Select(Vec<c_int>, libc::fd_set),
}

impl Set {
    fn new(call: &str, fds: &[c_int]) -> Self {
        match call {
            "epoll" => {
                let set = Epoll::new();
                fds.iter().for_each(|&fd| set.add(fd));
                Self::Epoll(set)
            }
            "poll" => Self::Poll(
                fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect(),
            ),
            "select" => {
                // SAFETY: all zeroes is an empty set.
                let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
                for &fd in fds {
                    assert!((fd as usize) < libc::FD_SETSIZE, "select cannot wait for so many");
                    // SAFETY: the number is below the size of the set.
                    unsafe { libc::FD_SET(fd, &raw mut set) };
                }
                Self::Select(fds.to_vec(), set)
            }
            other => panic!("no such call: {other}"),
        }
    }

    fn wait(&mut self, mut ready: impl FnMut(c_int)) {
        match self {
            Self::Epoll(set) => set.wait(ready),
            Self::Poll(set) => {
                // SAFETY: the length is the vector's.
                let count = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, -1) };
                check(count as isize, "poll");
                set.iter().filter(|wanted| wanted.revents != 0).for_each(|wanted| ready(wanted.fd));
            }
            Self::Select(fds, wanted) => {
                let mut found = *wanted;
                let most = fds.iter().max().map_or(0, |fd| fd + 1);
                let none = std::ptr::null_mut();
                // SAFETY: a set, and null pointers for what is not asked.
                let count = unsafe { libc::select(most, &raw mut found, none, none, std::ptr::null_mut()) };
                check(count as isize, "select");
                for &fd in &*fds {
                    // SAFETY: the number is below the size of the set.
                    if unsafe { libc::FD_ISSET(fd, &raw const found) } {
                        ready(fd);
                    }
                }
            }
        }
    }
}
