//! What the kernel does with a connection that has come back to it: the last doorbells of the pipe must not be noticed.

use std::thread;
use std::time::Duration;

use libc::{IPPROTO_TCP, SOL_SOCKET, TCP_CORK, TCP_NODELAY};

use crate::descriptors::send_descriptor;
use crate::harness::{Case, Child, End, case, dialogue};
use crate::sys;
use crate::sys::raw::Way;

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "a_small_write_is_not_held_back_for_a_doorbell",
        |end| {
            return_and_ask(end, false);
            wake_each_other(end);
            back_to_the_kernel(end.fd);
            for _ in 0..3 {
                ask_at_once(end.fd, false);
            }
        },
        answer,
    ),
    dialogue(
        "a_small_write_is_not_held_back_for_a_doorbell_after_a_cork",
        |end| return_and_ask(end, true),
        answer,
    ),
    dialogue(
        "nagles_algorithm_is_on_again_after_a_write",
        |end| {
            wake_each_other(end);
            back_to_the_kernel(end.fd);
            assert_eq!(sys::getsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY), Ok(0));
            ask_at_once(end.fd, false);
            assert_eq!([told_by_kernel(end.fd, TCP_NODELAY), told_by_kernel(end.fd, TCP_CORK)], [0, 0]);
        },
        answer,
    ),
    dialogue(
        "nagles_algorithm_is_on_again_after_a_childs_write",
        |end| {
            wake_each_other(end);
            back_to_the_kernel(end.fd);
            Child::run(|| ask_at_once(end.fd, false)).join();
            assert_eq!(told_by_kernel(end.fd, TCP_NODELAY), 0);
            ask_at_once(end.fd, false);
        },
        answer,
    ),
    dialogue(
        "nagles_algorithm_stays_off_when_it_is_switched_off_after_the_return",
        |end| {
            for before in [0, 1] {
                wake_each_other(end);
                sys::setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, before).expect("set");
                sys::setsockopt(end.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 2).expect("set");
                sys::setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, 0).expect("set");
                assert_eq!(sys::getsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY), Ok(0));
                sys::setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, 1).expect("set");
                assert_eq!(sys::getsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY), Ok(1));
                for _ in 0..3 {
                    ask_at_once(end.fd, false);
                    assert_eq!(told_by_kernel(end.fd, TCP_NODELAY), 1);
                }
                sys::setsockopt(end.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 1).expect("set");
            }
        },
        answer,
    ),
    dialogue(
        "a_cork_comes_back_at_once",
        |end| {
            wake_each_other(end);
            sys::setsockopt(end.fd, IPPROTO_TCP, TCP_CORK, 1).expect("set");
            back_to_the_kernel(end.fd);
            assert_eq!(told_by_kernel(end.fd, TCP_CORK), 1);
            assert_eq!(sys::write(end.fd, b"x"), Ok(1));
            assert_eq!(unsent(end.fd), 1);
            // Which sends what waits (tcp(7)).
            sys::setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, 1).expect("set");
            assert_eq!(unsent(end.fd), 0);
            assert_eq!(sys::read_exact(end.fd, 1), b"x");
        },
        answer,
    ),
    case("who_else_gets_the_connection_finds_the_options_as_they_were_set", || {
        let hand_over: [fn(i32); 3] = [
            |fd| {
                let (left, right) = sys::socketpair();
                send_descriptor(left, fd);
                sys::close(left).expect("close");
                sys::close(right).expect("close");
            },
            // stdio writes past every library.
            |fd| assert!(!call_fdopen(fd).is_null()),
            |fd| {
                sys::set_cloexec(fd, false);
                let pid = sys::spawn(c"/bin/true", &[], &[]);
                assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
            },
        ];
        for hand_over in hand_over {
            for returns_before in [false, true] {
                let (a, b) = sys::pair();
                sys::set_cloexec(a, true);
                sys::write_all(b, b"some");
                assert_eq!(sys::read_exact(a, 4), b"some");
                sys::write_all(a, b"bytes");
                assert_eq!(sys::read_exact(b, 5), b"bytes");
                if returns_before {
                    back_to_the_kernel(a);
                }
                hand_over(a);
                assert_eq!([told_by_kernel(a, TCP_NODELAY), told_by_kernel(a, TCP_CORK)], [0, 0]);
            }
        }
    }),
];

/// Several times to the kernel and back onto the pipe, with small writes on the way.
fn return_and_ask(end: &End, cork: bool) {
    for _ in 0..5 {
        wake_each_other(end);
        // SO_RCVLOWAT above 1 is the kernel's to watch, and below it the lanes open again.
        sys::setsockopt(end.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 2).expect("set");
        for _ in 0..3 {
            ask_at_once(end.fd, cork);
        }
        sys::setsockopt(end.fd, SOL_SOCKET, libc::SO_RCVLOWAT, 1).expect("set");
    }
}

/// A few round trips in which both ends sleep in the kernel, so that doorbells go both ways. A kernel that takes part in such
/// a dialogue delays its acknowledgements. What is said is two bytes long: no SO_RCVLOWAT holds it back.
fn wake_each_other(end: &End) {
    for _ in 0..4 {
        // Longer than a timed wait, after which a reader sleeps in the kernel.
        thread::sleep(LONGER_THAN_A_TIMED_WAIT);
        sys::write_all(end.fd, b"zz");
        assert_eq!(sys::read_exact(end.fd, 2), b"zz");
    }
    thread::sleep(LONGER_THAN_A_TIMED_WAIT);
    sys::write_all(end.fd, b"go");
    assert_eq!(sys::read_exact(end.fd, 2), b"go");
}

const LONGER_THAN_A_TIMED_WAIT: Duration = Duration::from_millis(8);

/// The other end: says what it hears, and takes its time where it is asked to.
fn answer(end: &End) {
    let mut buffer = [0; 2];
    loop {
        match sys::read(end.fd, &mut buffer) {
            Ok(count @ 1..) => {
                if buffer[0] == b'z' {
                    thread::sleep(LONGER_THAN_A_TIMED_WAIT);
                }
                sys::write_all(end.fd, &buffer[..count]);
            }
            other => return assert_eq!(other, Ok(0)),
        }
    }
}

/// A round trip whose first half leaves at once: there was an answer to everything before it.
#[track_caller]
fn ask_at_once(fd: i32, corked: bool) {
    if corked {
        sys::setsockopt(fd, IPPROTO_TCP, TCP_CORK, 1).expect("set");
    }
    assert_eq!(sys::write(fd, b"ab"), Ok(2));
    if corked {
        assert_eq!(unsent(fd), 2);
        sys::setsockopt(fd, IPPROTO_TCP, TCP_CORK, 0).expect("set");
    }
    assert_eq!(unsent(fd), 0, "it waits for an acknowledgement");
    assert_eq!(sys::read_exact(fd, 2), b"ab");
}

/// Only the kernel can say when its packets leave (SOF_TIMESTAMPING_SOFTWARE).
fn back_to_the_kernel(fd: i32) {
    sys::setsockopt(fd, SOL_SOCKET, libc::SO_TIMESTAMPING, 0x10).expect("set");
}

/// What has been written and not been sent (SIOCOUTQNSD).
fn unsent(fd: i32) -> i32 {
    sys::ioctl(fd, 0x894B).expect("SIOCOUTQNSD")
}

/// The value of an option as somebody without sockshim sees it.
fn told_by_kernel(fd: i32, name: i32) -> i32 {
    let value = Way::Past.get(fd, IPPROTO_TCP, name, 4).expect("getsockopt");
    i32::from_ne_bytes(value.try_into().expect("an int"))
}

fn call_fdopen(fd: i32) -> *mut libc::FILE {
    // SAFETY: a C string.
    unsafe { libc::fdopen(fd, c"w".as_ptr()) }
}
