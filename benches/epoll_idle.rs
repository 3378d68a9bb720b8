//! What does one active connection cost in an epoll set that holds many idle ones?
//!
//! # Safety
//!
//! Every pointer handed to the C library comes from a reference that lives over the call.

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::contest::Question;
use common::net::{accept, check, raise_descriptor_limit, read, read_all, write_all};
use common::worker::Job;
use criterion::{Criterion, criterion_group};
use libc::c_int;

fn questions(criterion: &mut Criterion) {
    // What else a worker has open is a handful.
    let most = raise_descriptor_limit().saturating_sub(64);
    for wanted in [10, 1_000, 10_000] {
        let idle = wanted.min(most);
        let note = if idle < wanted { " (all that RLIMIT_NOFILE allows)" } else { "" };
        Question::new(
            "64 B round trips, server in epoll_wait",
            format!("{idle} idle{note}"),
            &[&idle.to_string()],
        )
        .ask(criterion);
    }
}

/// The server echoes what epoll_wait says is there; the client has one connection that talks, made last.
fn work(job: &Job) {
    raise_descriptor_limit();
    let idle = job.number(0);
    let mut message = [b'x'; 64];
    if job.is_server() {
        let listener = job.listen();
        // SAFETY: no pointers.
        let set = check(unsafe { libc::epoll_create1(0) } as isize, "epoll_create1") as c_int;
        let mut last = -1;
        for _ in 0..=idle {
            last = accept(listener);
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: last as u64 };
            // SAFETY: an initialised event.
            let result = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, last, &raw mut event) };
            check(result as isize, "epoll_ctl");
        }
        job.serve(last, |count| {
            let mut left = count * message.len() as u64;
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
            while left > 0 {
                // SAFETY: room for that many events.
                let ready = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), events.len() as c_int, -1) };
                for event in &events[..check(ready as isize, "epoll_wait")] {
                    let fd = event.u64 as c_int;
                    let n = check(read(fd, &mut message), "read");
                    assert!(n > 0, "the client disconnected");
                    write_all(fd, &message[..n]);
                    left -= n as u64;
                }
            }
        });
    } else {
        for _ in 0..idle {
            job.connect();
        }
        let fd = job.connect();
        job.serve(fd, |count| {
            for _ in 0..count {
                write_all(fd, &message);
                assert!(read_all(fd, &mut message), "the server disconnected");
            }
        });
    }
}

criterion_group! { name = questions_asked; config = common::config(); targets = questions }

fn main() {
    common::run(work, questions_asked);
}
