//! Several processes that have one socket, of which one goes: who is the last one must do what the kernel's close does not.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::Flow;
use crate::harness::{Case, Child, assert_on_pipe, case};
use crate::plain::{reads, static_program, with_unread};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("a_close_and_an_exit_at_once", || {
        at_once(|fd| _ = sys::close(fd).expect("close"), |_| exit());
    }),
    case("two_exits_at_once", || at_once(|_| exit(), |_| exit())),
    case("a_close_and_an_exec_at_once", || {
        at_once(|fd| _ = sys::close(fd).expect("close"), |_| execute(c"/bin/true"));
    }),
    case("an_exit_and_an_exec_at_once", || at_once(|_| exit(), |_| execute(c"/bin/true"))),
    case("the_close_after_a_child_has_executed_a_program", || {
        for _ in 0..5 {
            let (a, b, written) = with_much_under_way();
            let (program, end) = idle_program();
            sys::close(a).expect("close");
            assert_eq!(Flow::new(2).read_to_end(b, 50_000), written);
            sys::close(end).expect("close");
            program.join();
            sys::close(b).expect("close");
        }
    }),
    case("an_exec_that_fails_closes_nothing", || {
        for _ in 0..5 {
            let (a, b, written) = with_much_under_way();
            let child = Child::run(|| {
                sys::close(b).expect("close");
                for _ in 0..3 {
                    let nothing = c"/nonexistent/program".as_ptr();
                    let arguments = [nothing, std::ptr::null()];
                    sys::fails(call!(libc::execv(nothing, arguments.as_ptr())), libc::ENOENT);
                }
                let mut back = Flow::new(3);
                back.read(a, 10_000, 500);
                back.write(a, 10_000, 500);
            });
            sys::close(a).expect("close");
            let mut back = Flow::new(3);
            back.write(b, 10_000, 500);
            let mut out = Flow::new(2);
            out.read(b, written, 50_000);
            back.read(b, 10_000, 500);
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
            child.join();
        }
    }),
    case("sockets_that_a_program_does_not_get_are_not_its_own", || {
        // More in all than there are places for.
        let mut programs = Vec::new();
        for _ in 0..20 {
            let sockets: Vec<_> = (0..900).map(|_| sys::socket(libc::AF_INET)).collect();
            programs.push(idle_program());
            for fd in sockets {
                sys::close(fd).expect("close");
            }
        }
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 100, 10);
        Flow::new(1).read(b, 100, 10);
        assert_on_pipe(a);
        for (program, end) in programs {
            sys::close(end).expect("close");
            program.join();
        }
    }),
];

/// Two processes let go of a socket in these ways at the same time, when what they have written lies unread at an end that
/// has been handed on: it is sent again for a program that cannot read it from a ring.
#[track_caller]
fn at_once(one: impl Fn(i32), other: impl Fn(i32)) {
    let program = static_program();
    for _ in 0..10 {
        let (a, b) = with_unread(5000);
        let (reader, from) = reads(&program, a, b);
        let here = &sys::shared()[0];
        let meet = |way: &dyn Fn(i32)| {
            here.fetch_add(1, Ordering::SeqCst);
            spin_until(here, 2);
            way(a);
        };
        let ends = [Child::run(|| meet(&one)), Child::run(|| meet(&other))];
        sys::close(a).expect("close");
        assert_eq!(Flow::new(2).read_to_end(from, 777), 5000);
        sys::close(from).expect("close");
        reader.join();
        ends.into_iter().for_each(Child::join);
    }
}

/// Two processes have to meet within less than a time slice.
fn spin_until(word: &AtomicU64, value: u64) {
    while word.load(Ordering::SeqCst) < value {
        std::hint::spin_loop();
    }
}

/// A pair whose first end has read all, and written more than the ring holds: the rest is the kernel's, which throws it away
/// if the end closes with anything in its queue.
fn with_much_under_way() -> (i32, i32, usize) {
    let (a, b) = sys::pair();
    for (from, to) in [(a, b), (b, a)] {
        Flow::new(1).write(from, 10_000, 500);
        Flow::new(1).read(to, 10_000, 500);
    }
    let (parent, child) = (sys::getpid(), sys::gettid());
    let waker = Child::run(|| {
        sys::let_sleep(parent, child);
        sys::write_all(b, b"!");
    });
    assert_eq!(sys::poll_one(a, libc::POLLIN, -1), libc::POLLIN);
    sys::read_exact(a, 1);
    waker.join();
    let written = Flow::new(2).fill_up(a);
    (a, b, written)
}

/// A child that has executed another program, and waits for the returned descriptor's end.
fn idle_program() -> (Child, i32) {
    let (from, into) = sys::pipe();
    let program = Child::run(|| {
        sys::dup2(from, 0).expect("dup2");
        execute(c"/bin/cat");
    });
    sys::close(from).expect("close");
    sys::until(|| fs::read_link(format!("/proc/{}/exe", program.0)).is_ok_and(|path| path.ends_with("cat")));
    (program, into)
}

fn execute(program: &std::ffi::CStr) {
    sys::execute(program, &[], &sys::environment_with(&[("LD_PRELOAD", "")]));
}

fn exit() {
    // SAFETY: the process has one thread.
    unsafe { libc::exit(0) }
}
