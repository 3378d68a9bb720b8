//! Programs that forbid the processor's time stamp counter (PR_SET_TSC in prctl(2)): whoever reads it gets SIGSEGV.

use libc::{EPOLLET, EPOLLIN, POLLIN};

use crate::data::Flow;
use crate::harness::{Case, Child, case, skip};
use crate::sys::wait::{add, epoll, ready};
use crate::sys::{self, call, poll_one};

pub(crate) const CASES: &[Case] = &[
    case("a_program_that_forbids_the_time_stamp_counter", || {
        skip_without_counter();
        for before in [0, 50_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let (listener, port) = sys::listener(libc::AF_INET);
            let child = Child::run(|| {
                sys::close(a).expect("close");
                forbid();
                serve(b);
                let new = sys::accept(listener).expect("accept");
                serve(new);
            });
            ask(a);
            ask(sys::connected(libc::AF_INET, port));
            child.join();
        }
    }),
    case("both_ends_forbid_the_time_stamp_counter", || {
        skip_without_counter();
        let (a, b) = sys::pair();
        let server = Child::run(|| {
            sys::close(a).expect("close");
            forbid();
            serve(b);
        });
        let client = Child::run(|| {
            sys::close(b).expect("close");
            forbid();
            ask(a);
        });
        server.join();
        client.join();
    }),
];

fn skip_without_counter() {
    if cfg!(not(target_arch = "x86_64")) {
        skip("this processor has none");
    }
}

/// For this thread, which is the only one of its process.
fn forbid() {
    call!(libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV)).expect("x86 can");
}

const TURNS: usize = 300;
const LONG: usize = 3_000_000;

/// In all the ways in which a server may wait, then a long read and a long write.
fn serve(fd: i32) {
    let (mut there, mut back) = (Flow::new(2), Flow::new(3));
    let set = epoll();
    add(set, fd, EPOLLIN | EPOLLET);
    for turn in 0..TURNS {
        match turn % 4 {
            0 => {}
            1 => assert_eq!(poll_one(fd, POLLIN, 10_000), POLLIN),
            2 => assert_eq!(poll_one(fd, POLLIN, -1), POLLIN),
            _ => while ready(set, 10_000).is_empty() {},
        }
        there.read(fd, 64, 64);
        back.write(fd, 64, 64);
    }
    there.read(fd, LONG, 65536);
    back.write(fd, LONG, 65536);
}

/// The other end of [`serve`].
fn ask(fd: i32) {
    let (mut there, mut back) = (Flow::new(2), Flow::new(3));
    for _ in 0..TURNS {
        there.write(fd, 64, 64);
        back.read(fd, 64, 64);
    }
    there.write(fd, LONG, 65536);
    back.read(fd, LONG, 65536);
    sys::close(fd).expect("close");
}
