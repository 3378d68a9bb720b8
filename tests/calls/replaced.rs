//! Descriptors that are replaced while somebody sleeps on them, as Java's runtime does to wake its threads: first another
//! file over the number, then a signal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libc::{EPOLLIN, EPOLLONESHOT, POLLIN, POLLOUT};

use crate::data::Flow;
use crate::harness::{Case, case};
use crate::signals::{count_signals, signals};
use crate::sys::wait::{self, Set, entry};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_marker_over_a_sleeper_and_a_signal", || {
        let sleepers: [(&str, Sleeper); 6] = [
            ("read", |fd| sys::read(fd, &mut [0; 9])),
            ("recv", |fd| sys::recv(fd, &mut [0; 9], 0)),
            ("waitall", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_WAITALL)),
            ("peek", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_PEEK)),
            ("poll", |fd| sys::poll(&mut [entry(fd, POLLIN)], -1)),
            ("select", |fd| wait::select(Some(&mut Set::of(&[fd])), None, None, -1)),
        ];
        for (name, sleeper) in sleepers {
            for before in [0, 10_000] {
                for twin in [false, true] {
                    let (a, b) = used_pair(before);
                    let other = if twin { sys::dup(b) } else { -1 };
                    let answer = replaced_under(b, || sleeper(b));
                    // What the thread finds when it looks again is the marker; a wait looks again by itself.
                    let waits = ["poll", "select"].contains(&name);
                    assert_eq!(answer, if waits { Ok(1) } else { Err(sys::Errno(libc::EINTR)) }, "{name}");
                    assert_eq!(sleeper(b), Ok(usize::from(waits)), "{name}");
                    assert_eq!(sys::read(b, &mut [0]), Ok(0));
                    if twin {
                        Flow::new(2).write(a, 5000, 500);
                        Flow::new(2).read(other, 5000, 500);
                        sys::close(other).expect("close");
                    }
                    assert_eq!(sys::read(a, &mut [0]), Ok(0), "{name}");
                    sys::close(a).expect("close");
                    sys::close(b).expect("close");
                }
            }
        }
    }),
    case("a_marker_over_a_blocked_writer_and_a_signal", || {
        let calls: [fn(i32) -> Answer; 2] =
            [|fd| sys::write(fd, &vec![7; 1 << 20]), |fd| sys::poll(&mut [entry(fd, POLLOUT)], -1)];
        for blocked in calls {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                let mut flow = Flow::new(2);
                flow.fill_up(a);
                let answer = replaced_under(a, || blocked(a));
                // A part may have found room before.
                assert!(answer.is_ok() || answer == Err(sys::Errno(libc::EINTR)), "{answer:?}");
                fails(sys::send(a, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
                let mut back = Flow::new(2);
                back.read(b, flow.position, 65536);
                let mut rest = vec![0; 65536];
                loop {
                    match sys::read(b, &mut rest).expect("read") {
                        0 => break,
                        count => assert!(rest[..count].iter().all(|byte| *byte == 7)),
                    }
                }
                sys::close(a).expect("close");
                sys::close(b).expect("close");
            }
        }
    }),
    case("a_marker_over_a_listener_and_a_signal", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        fails(replaced_under(listener, || sys::accept(listener).map(|fd| fd as usize)), libc::EINTR);
        assert!([libc::EINVAL, libc::EOPNOTSUPP].contains(&sys::accept(listener).expect_err("a marker").0));
        let client = sys::socket(libc::AF_INET);
        fails(sys::connect(client, &sys::Address::loopback(libc::AF_INET, port)), libc::ECONNREFUSED);
    }),
    case("a_marker_over_a_registered_connection_and_a_signal", || {
        for events in [EPOLLIN, EPOLLIN | libc::EPOLLET, EPOLLIN | EPOLLONESHOT] {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                let set = wait::epoll();
                wait::add(set, b, events);
                let answer = replaced_under(b, || wait::epoll_wait(set, 10, -1).map(|found| found.len()));
                fails(answer, libc::EINTR);
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
                // The closed file has left the set, and the number is free for the marker.
                assert_eq!(wait::epoll_wait(set, 10, 0), Ok(vec![]));
                fails(wait::control(set, libc::EPOLL_CTL_MOD, b, events, 0), libc::ENOENT);
                wait::add(set, b, EPOLLIN);
                assert_eq!(wait::ready(set, -1), [(EPOLLIN | libc::EPOLLHUP, b as u64)]);
                for fd in [a, b, set] {
                    sys::close(fd).expect("close");
                }
            }
        }
    }),
    case("every_way_to_another_name", || {
        let ways: [(&str, Way, bool); 5] = [
            ("dup", sys::dup, false),
            ("dup2", |fd| call!(libc::dup2(fd, 60)).expect("dup2") as i32, false),
            ("dup3", |fd| call!(libc::dup3(fd, 61, libc::O_CLOEXEC)).expect("dup3") as i32, true),
            ("F_DUPFD", |fd| call!(libc::fcntl(fd, libc::F_DUPFD, 62)).expect("F_DUPFD") as i32, false),
            (
                "F_DUPFD_CLOEXEC",
                |fd| call!(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 63)).expect("F_DUPFD_CLOEXEC") as i32,
                true,
            ),
        ];
        for (name, way, closes) in ways {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                sys::write_all(a, b"unread");
                let new = way(b);
                let flags = call!(libc::fcntl(new, libc::F_GETFD)).expect("F_GETFD") as i32;
                assert_eq!(flags & libc::FD_CLOEXEC != 0, closes, "{name}");
                assert_eq!(sys::read_exact(new, 3), b"unr", "{name}");
                sys::close(b).expect("close");
                assert_eq!(sys::read_exact(new, 3), b"ead", "{name}");
                Flow::new(2).write(a, 50_000, 500);
                Flow::new(2).read(new, 50_000, 500);
                Flow::new(3).write(new, 50_000, 500);
                Flow::new(3).read(a, 50_000, 500);
                sys::close(new).expect("close");
                assert_eq!(sys::read(a, &mut [0]), Ok(0), "{name}");
                sys::close(a).expect("close");
            }
        }
    }),
    case("a_live_connection_over_another", || {
        // By F_DUPFD onto a number that was just closed, and by dup2 and dup3 onto one that is in use.
        for way in 0..3 {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                let (c, d) = used_pair(before);
                sys::write_all(c, b"unread");
                match way {
                    0 => {
                        sys::close(d).expect("close");
                        assert_eq!(call!(libc::fcntl(b, libc::F_DUPFD, d)), Ok(d as usize));
                    }
                    1 => _ = sys::dup2(b, d).expect("dup2"),
                    _ => _ = call!(libc::dup3(b, d, 0)).expect("dup3"),
                }
                // It had bytes unread.
                fails(sys::read(c, &mut [0]), libc::ECONNRESET);
                Flow::new(2).write(a, 5000, 500);
                Flow::new(2).read(d, 5000, 500);
                sys::close(b).expect("close");
                Flow::new(2).write(d, 5000, 500);
                Flow::new(2).read(a, 5000, 500);
                for fd in [a, c, d] {
                    sys::close(fd).expect("close");
                }
            }
        }
    }),
];

type Sleeper = fn(i32) -> Answer;
/// A new name of a descriptor.
type Way = fn(i32) -> i32;

fn used_pair(before: usize) -> (i32, i32) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    Flow::new(1).write(b, before, 500);
    Flow::new(1).read(a, before, 500);
    (a, b)
}

/// A socket that reads nothing and takes nothing.
fn marker() -> i32 {
    let (one, other) = sys::socketpair();
    sys::shutdown(one, libc::SHUT_RDWR).expect("shutdown");
    sys::close(other).expect("close");
    one
}

/// What a call on `fd` says that sleeps, when a marker is put over `fd` and then a signal comes.
fn replaced_under<T: Send>(fd: i32, sleeper: impl FnOnce() -> T + Send) -> T {
    count_signals(libc::SIGUSR1, 0);
    let (done, left) = (AtomicBool::new(false), AtomicBool::new(false));
    let seen = signals();
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let (done, left) = (&done, &left);
        let thread = scope.spawn(move || {
            tell.send(sys::gettid()).expect("the other thread");
            let answer = sleeper();
            done.store(true, Ordering::SeqCst);
            sys::until(|| left.load(Ordering::SeqCst));
            answer
        });
        let tid = told.recv().expect("the thread");
        sys::let_sleep(sys::getpid(), tid);
        let marker = marker();
        sys::dup2(marker, fd).expect("dup2");
        sys::close(marker).expect("close");
        sys::until(|| {
            // Again, should it have come on the way into the call.
            sys::tgkill(tid, libc::SIGUSR1);
            done.load(Ordering::SeqCst)
        });
        // A thread that is gone takes no signal.
        left.store(true, Ordering::SeqCst);
        assert!(signals() > seen);
        thread.join().expect("the sleeper")
    })
}
