//! A doorbell whose bytes have been read lies in the kernel's queue for a while, as a byte that nobody has written. Nothing
//! tells of it.

use std::thread;
use std::time::Duration;

use libc::{EPOLLET, EPOLLIN, MSG_DONTWAIT, MSG_OOB, MSG_PEEK, POLLIN, POLLOUT, POLLRDHUP, SOL_SOCKET};

use crate::data::Flow;
use crate::descriptors::send_descriptor;
use crate::harness::{Case, Child, case, path};
use crate::new_owners::{standard, used_pair};
use crate::sys::raw::Way;
use crate::sys::wait::events;
use crate::sys::wait::{add, epoll, ready};
use crate::sys::{self, Ended, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_doorbell_is_nothing_to_read", || {
        let looks: [fn(i32); 7] = [
            |fd| assert_eq!(sys::readable(fd), 0),
            |fd| fails(sys::recv(fd, &mut [0; 9], MSG_DONTWAIT), libc::EAGAIN),
            |fd| fails(sys::recv(fd, &mut [0; 9], MSG_DONTWAIT | MSG_PEEK), libc::EAGAIN),
            |fd| fails(sys::recv(fd, &mut [0; 9], MSG_DONTWAIT | MSG_OOB), libc::EINVAL),
            |fd| assert_eq!(events(fd, POLLIN | POLLOUT | POLLRDHUP), POLLOUT),
            |fd| {
                let set = epoll();
                add(set, fd, EPOLLIN);
                assert_eq!(ready(set, 0), []);
                sys::close(set).expect("close");
            },
            |fd| {
                sys::timeout(fd, libc::SO_RCVTIMEO, 30);
                fails(sys::read(fd, &mut [0; 9]), libc::EAGAIN);
            },
        ];
        for look in looks {
            let (a, b) = with_a_doorbell();
            look(b);
            both_go_on(a, b);
        }
    }),
    case("a_doorbell_is_no_edge", || {
        let (a, b) = with_a_doorbell();
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLET);
        assert_eq!(ready(set, 0), []);
        sys::write_all(a, b"x");
        assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
        sys::read_exact(b, 1);
        assert_eq!(ready(set, 0), []);
        both_go_on(a, b);
    }),
    case("a_doorbell_is_not_before_the_urgent_mark", || {
        let (a, b) = with_a_doorbell();
        assert_eq!(sys::ioctl(b, SIOCATMARK), Ok(0));
        assert_eq!(sys::send(a, b"u", MSG_OOB), Ok(1));
        sys::until(|| sys::ioctl(b, SIOCATMARK) == Ok(1));
        assert_eq!(sys::recv(b, &mut [0], MSG_OOB), Ok(1));
        both_go_on(a, b);
    }),
    case("what_comes_after_urgent_data_that_was_read_first", || {
        let (a, b) = used_pair(10_000);
        let writing = thread::spawn(move || {
            // By now the other end sleeps in the kernel, so this rings.
            thread::sleep(Duration::from_millis(30));
            sys::write_all(a, b"before");
        });
        assert_eq!(sys::poll_one(b, POLLIN, -1), POLLIN);
        writing.join().expect("the writer");
        assert_eq!(sys::send(a, b"u", MSG_OOB), Ok(1));
        sys::write_all(a, b"after");
        assert_eq!(sys::poll_one(b, libc::POLLPRI, -1), libc::POLLPRI);
        assert_eq!(sys::recv(b, &mut [0], MSG_OOB), Ok(1));
        let mut bytes = [0; 20];
        for expected in ["before", "after"] {
            assert_eq!(sys::read(b, &mut bytes), Ok(expected.len()));
            assert_eq!(&bytes[..expected.len()], expected.as_bytes());
        }
        both_go_on(a, b);
    }),
    case("what_is_unread_is_before_the_urgent_mark", || {
        for doorbell in [false, true] {
            let (a, b) = if doorbell { with_a_doorbell() } else { used_pair(10_000) };
            sys::write_all(a, b"four");
            assert_eq!(sys::send(a, b"u", MSG_OOB), Ok(1));
            assert_eq!(sys::poll_one(b, libc::POLLPRI, -1), libc::POLLPRI);
            sys::until(|| sys::readable(b) == 4);
            assert_eq!(
                [call!(sockatmark(b)), sys::ioctl(b, SIOCATMARK).map(|at| at as usize)],
                [Ok(0), Ok(0)]
            );
            assert_eq!(sys::read(b, &mut [0; 9]), Ok(4));
            assert_eq!(call!(sockatmark(b)), Ok(1));
            assert_eq!(sys::recv(b, &mut [0], MSG_OOB), Ok(1));
            both_go_on(a, b);
        }
        fails(call!(sockatmark(-1)), libc::EBADF);
        fails(call!(sockatmark(sys::eventfd())), libc::ENOTTY);
    }),
    case("a_doorbell_is_not_before_an_urgent_byte_in_line", || {
        let (a, b) = with_a_doorbell();
        sys::setsockopt(b, SOL_SOCKET, libc::SO_OOBINLINE, 1).expect("SO_OOBINLINE");
        assert_eq!(sys::send(a, b"u", MSG_OOB), Ok(1));
        sys::until(|| sys::ioctl(b, SIOCATMARK) == Ok(1));
        assert_eq!(sys::read(b, &mut [0; 9]), Ok(1));
        both_go_on(a, b);
    }),
    case("a_doorbell_is_gone_when_the_kernel_has_the_connection", || {
        let returns: [fn(i32); 4] = [
            |fd| assert_eq!(sys::setsockopt(fd, SOL_SOCKET, libc::SO_TIMESTAMPING, 0x10), Ok(0)),
            |fd| assert_eq!(sys::setsockopt(fd, SOL_SOCKET, libc::SO_RCVLOWAT, 9), Ok(0)),
            |fd| {
                let (left, right) = sys::socketpair();
                send_descriptor(left, fd);
                sys::close(left).expect("close");
                sys::close(right).expect("close");
            },
            |fd| {
                // SAFETY: a C string.
                assert!(!unsafe { libc::fdopen(fd, c"r+".as_ptr()) }.is_null());
            },
        ];
        for return_to_kernel in returns {
            let (a, b) = with_a_doorbell();
            return_to_kernel(b);
            assert_eq!(queued(b), 0);
            sys::write_all(a, b"x");
            sys::until(|| queued(b) > 0);
            assert_eq!(queued(b), 1);
        }
    }),
    case("a_doorbell_is_not_the_next_programs", || {
        for started in [false, true] {
            let (a, b) = with_a_doorbell();
            let child = Child::run(|| {
                sys::close(a).expect("close");
                standard(b);
                let variables = if started { sys::environment_with(&[]) } else { Vec::new() };
                sys::execute(c"/bin/cat", &[], &variables);
            });
            sys::close(b).expect("close");
            let mut flow = Flow::new(2);
            flow.write(a, 5000, 500);
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            assert_eq!(Flow::new(2).read_to_end(a, 777), 5000);
            child.join();
        }
    }),
    case("a_doorbell_makes_no_reset_of_a_close", || {
        let (a, b) = with_a_doorbell();
        Flow::new(1).write(b, 50_000, 1000);
        sys::close(b).expect("close");
        assert_eq!(Flow::new(1).read_to_end(a, 777), 50_000);
        assert_ended(a);
    }),
    case("a_doorbell_makes_no_reset_of_a_close_by_a_child", || {
        let (a, b) = with_a_doorbell();
        Child::run(|| sys::close(a).map(drop).expect("close")).join();
        sys::close(b).expect("close");
        assert_ended(a);
    }),
    case("a_doorbell_makes_no_reset_of_a_shutdown", || {
        for how in [libc::SHUT_WR, libc::SHUT_RDWR] {
            let (a, b) = with_a_doorbell();
            sys::shutdown(b, how).expect("shutdown");
            assert_eq!(sys::readable(b), 0);
            assert_ended(a);
            sys::close(b).expect("close");
        }
    }),
    case("a_doorbell_is_nothing_to_read_after_shutdown", || {
        for look in [true, false] {
            let (_a, b) = with_a_doorbell();
            sys::shutdown(b, libc::SHUT_RD).expect("shutdown");
            if look {
                assert_eq!(events(b, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
            }
            assert_eq!(sys::readable(b), 0);
            assert_eq!(sys::read(b, &mut [0; 9]), Ok(0));
        }
    }),
    case("a_doorbell_makes_no_reset_of_an_exit", || {
        after_the_end_of_a_process(|| {
            // SAFETY: always allowed.
            unsafe { libc::_exit(0) }
        });
    }),
    case("a_doorbell_makes_no_reset_of_a_kill", || {
        after_the_end_of_a_process(|| {
            let _ = sys::kill(sys::getpid(), libc::SIGKILL);
        });
    }),
];

const SIOCATMARK: libc::c_ulong = 0x8905;

unsafe extern "C" {
    fn sockatmark(fd: i32) -> i32;
}

/// What the kernel's queue holds, doorbells and all.
fn queued(fd: i32) -> usize {
    let mut count = 0_i32;
    Way::Past.ioctl(fd, libc::FIONREAD as u32, (&raw mut count).addr()).expect("FIONREAD");
    count as usize
}

/// Two ends of a connection in use, the second of which has read all: woken by a doorbell that is still there, if there are
/// doorbells here at all.
fn with_a_doorbell() -> (i32, i32) {
    let (a, b) = used_pair(10_000);
    take_by_poll(b, || {
        let asleep = sys::gettid();
        thread::spawn(move || {
            sys::let_sleep(sys::getpid(), asleep);
            thread::sleep(Duration::from_millis(1));
            sys::write_all(a, b"x");
        });
    });
    (a, b)
}

/// Waits for a byte, which `ask` makes the other end write, and reads it; again until a doorbell has announced it.
fn take_by_poll(fd: i32, ask: impl Fn()) {
    for _ in 0..100 {
        ask();
        assert_eq!(sys::poll_one(fd, POLLIN, -1), POLLIN);
        assert_eq!(sys::read(fd, &mut [0; 9]), Ok(1));
        if path(fd) != Some(1) || queued(fd) == 1 {
            return;
        }
    }
    panic!("no doorbell was rung");
}

fn both_go_on(a: i32, b: i32) {
    for (from, to) in [(a, b), (b, a)] {
        Flow::new(3).write(from, 3000, 500);
        Flow::new(3).read(to, 3000, 500);
        fails(sys::recv(to, &mut [0], MSG_DONTWAIT), libc::EAGAIN);
    }
    sys::close(b).expect("close");
    assert_ended(a);
}

/// The other end has closed, and no more than that.
#[track_caller]
fn assert_ended(fd: i32) {
    assert_eq!(sys::poll_one(fd, POLLIN, -1), POLLIN);
    assert_eq!(events(fd, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
    assert_eq!(sys::read(fd, &mut [0]), Ok(0));
    assert_eq!(sys::so_error(fd), 0);
    assert!(sys::getpeername(fd).is_ok());
}

/// A process that has been woken by a doorbell, and has written and read all, is gone without a close.
fn after_the_end_of_a_process(leave: fn()) {
    let (a, b) = sys::pair();
    let (left, right) = sys::socketpair();
    let child = Child::run(|| {
        sys::close(a).expect("close");
        take_by_poll(b, || sys::write_all(right, b"?"));
        Flow::new(2).write(b, 3000, 500);
        sys::write_all(right, b"!");
        sys::read_exact(right, 1);
        leave();
    });
    sys::close(b).expect("close");
    while sys::read_exact(left, 1) == b"?" {
        sys::let_sleep(child.0, child.0);
        thread::sleep(Duration::from_millis(1));
        sys::write_all(a, b"x");
    }
    sys::write_all(left, b"!");
    assert!(matches!(sys::wait(child.0), Ended::Exited(0) | Ended::Killed(libc::SIGKILL)));
    assert_eq!(Flow::new(2).read_to_end(a, 777), 3000);
    assert_ended(a);
    assert_eq!(sys::send(a, b"in vain", libc::MSG_NOSIGNAL), Ok(7));
    sys::until(|| events(a, 0) & libc::POLLHUP != 0);
    // A writer looks after a few writes whether the reader of its ring still lives.
    sys::until(|| sys::send(a, b"in vain", libc::MSG_NOSIGNAL) == Err(sys::Errno(libc::EPIPE)));
}
