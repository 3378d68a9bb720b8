//! Many connections between two processes that wait in epoll, a request of 64 bytes under way on each; word: how
//! many. The raw ring carries as many requests at once.

use crate::job::Job;
use crate::link::{Link, Socket};
use crate::net::{self, Epoll};
use libc::c_int;

pub(super) fn work(job: &Job) {
    if job.has_ring() {
        return over_one(job, job.ring());
    }
    let connections = job.number(1);
    let fds: Vec<_> = if job.is_server() {
        let listener = job.listen();
        (0..connections).map(|_| net::accept(listener)).collect()
    } else {
        (0..connections).map(|_| job.connect()).collect()
    };
    let set = Epoll::new();
    fds.iter().for_each(|&fd| set.add(fd));
    let mut message = [b'x'; SIZE];
    let mut take = |fd: c_int| Socket(fd).read_all(&mut message);
    if job.is_server() {
        job.serve(fds[0], |count| {
            let mut left = count;
            while left > 0 {
                set.wait(|fd| {
                    take(fd);
                    net::write_all(fd, &[b'y'; SIZE]);
                    left -= 1;
                });
            }
        });
    } else {
        job.serve(fds[0], |count| {
            let mut unsent = count;
            for &fd in fds.iter().take(count as usize) {
                net::write_all(fd, &[b'x'; SIZE]);
                unsent -= 1;
            }
            let mut left = count;
            while left > 0 {
                set.wait(|fd| {
                    take(fd);
                    left -= 1;
                    if unsent > 0 {
                        net::write_all(fd, &[b'x'; SIZE]);
                        unsent -= 1;
                    }
                });
            }
        });
    }
}

fn over_one(job: &Job, link: impl Link) {
    let window = job.number(1) as u64;
    let mut message = [b'x'; SIZE];
    job.serve_over(link, |link, count| {
        let mut unsent = count;
        if !job.is_server() {
            for _ in 0..window.min(count) {
                link.write_all(&message);
                unsent -= 1;
            }
        }
        for _ in 0..count {
            link.read_all(&mut message);
            if unsent > 0 {
                link.write_all(&message);
                unsent -= 1;
            }
        }
    });
}

const SIZE: usize = 64;
