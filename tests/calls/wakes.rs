//! One thread sleeps in a call; another one shuts the socket down, closes it, or uses its number again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use libc::{EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, POLLHUP, POLLIN, POLLOUT, POLLRDHUP};

use crate::data::Flow;
use crate::harness::{Case, Environment, assert_on_pipe, case, environment};
use crate::sys::wait::{self, Set, entry};
use crate::sys::{self, Answer, Errno, fails};

pub(crate) const CASES: &[Case] = &[
    case("shutdown_wakes_every_kind_of_sleeper", || {
        for before in [0, 10_000] {
            for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
                let sleepers: [(&str, Sleeper, Answer); 10] = [
                    ("read", |fd| sys::read(fd, &mut [0; 9]), Ok(0)),
                    ("recv", |fd| sys::recv(fd, &mut [0; 9], 0), Ok(0)),
                    ("peek", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_PEEK), Ok(0)),
                    ("waitall", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_WAITALL), Ok(0)),
                    ("poll", |fd| sys::poll(&mut [entry(fd, POLLIN)], -1), Ok(1)),
                    ("poll for the end", |fd| sys::poll(&mut [entry(fd, POLLRDHUP)], -1), Ok(1)),
                    ("select", |fd| wait::select(Some(&mut Set::of(&[fd])), None, None, -1), Ok(1)),
                    ("epoll", |fd| epoll_once(fd, EPOLLIN), Ok(1)),
                    ("epoll edge", |fd| epoll_once(fd, EPOLLIN | EPOLLET), Ok(1)),
                    ("epoll for the end", |fd| epoll_once(fd, EPOLLRDHUP), Ok(1)),
                ];
                for (name, sleeper, expected) in sleepers {
                    let (a, b) = used_pair(before);
                    let answer = while_asleep(
                        || sleeper(b),
                        || {
                            sys::shutdown(b, how).expect("shutdown");
                        },
                    );
                    assert_eq!(answer, expected, "{name}");
                    assert_eq!(sys::read(b, &mut [0]), Ok(0));
                    close_both(a, b);
                }
            }
        }
    }),
    case("shutdown_of_writing_does_not_end_a_read", || {
        for before in [0, 10_000] {
            let (a, b) = used_pair(before);
            let answer = while_asleep(
                || sys::read(b, &mut [0; 9]),
                || {
                    sys::shutdown(b, libc::SHUT_WR).expect("shutdown");
                    sys::write_all(a, b"late");
                },
            );
            assert_eq!(answer, Ok(4));
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            close_both(a, b);
        }
    }),
    case("shutdown_wakes_a_blocked_writer", || {
        ignore_sigpipe();
        for how in [libc::SHUT_WR, libc::SHUT_RDWR] {
            let (a, b) = used_pair(10_000);
            let mut flow = Flow::new(3);
            flow.fill_up(a);
            let answer = while_asleep(
                || sys::write(a, b"more"),
                || {
                    sys::shutdown(a, how).expect("shutdown");
                },
            );
            fails(answer, libc::EPIPE);
            Flow::new(3).read(b, flow.position, 65536);
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
            close_both(a, b);
        }
    }),
    case("shutdown_wakes_a_wait_for_room", || {
        for way in 0..3 {
            let (a, b) = used_pair(10_000);
            Flow::new(3).fill_up(a);
            let answer = while_asleep(
                || match way {
                    0 => sys::poll(&mut [entry(a, POLLOUT)], -1),
                    1 => epoll_once(a, EPOLLOUT),
                    _ => epoll_once(a, EPOLLOUT | EPOLLET),
                },
                || {
                    sys::shutdown(a, libc::SHUT_RDWR).expect("shutdown");
                },
            );
            assert_eq!(answer, Ok(1));
            close_both(a, b);
        }
    }),
    case("a_shut_listener_wakes_accept", || {
        for how in [libc::SHUT_RD, libc::SHUT_RDWR] {
            let (listener, _) = sys::listener(libc::AF_INET);
            let answer = while_asleep(
                || sys::accept(listener).map(|fd| fd as usize),
                || {
                    sys::shutdown(listener, how).expect("shutdown");
                },
            );
            fails(answer, libc::EINVAL);
            assert_eq!(sys::events(listener, POLLIN | POLLOUT | POLLRDHUP), POLLOUT | POLLHUP);
            sys::listen(listener, 5).expect("it listens again");
            sys::close(listener).expect("close");
        }
    }),
    case("a_closed_listener_leaves_accept_asleep", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let mut client = -1;
        let answer = while_asleep(
            || sys::accept(listener),
            || {
                sys::close(listener).expect("close");
                client = sys::connected(libc::AF_INET, port);
            },
        );
        // The call has the socket until it returns.
        let server = answer.expect("accept");
        Flow::new(1).write(client, 10_000, 500);
        Flow::new(1).read(server, 10_000, 500);
        close_both(client, server);
    }),
    case("a_closed_descriptor_leaves_read_asleep", || {
        for before in [0, 10_000] {
            for way in 0..3 {
                let (a, b) = used_pair(before);
                let mut buffer = [0; 9];
                let answer = while_asleep(
                    || match way {
                        0 => sys::read(b, &mut buffer),
                        1 => sys::recv(b, &mut buffer, 0),
                        _ => sys::recv(b, &mut buffer, libc::MSG_PEEK),
                    },
                    || {
                        sys::close(b).expect("close");
                        sys::write_all(a, b"late");
                    },
                );
                // In the kernel the call has the socket until it returns. On a pipe the bytes that come later
                // have nowhere to go (docs/compatibility.md).
                let on_pipe = environment() != Environment::Host;
                match answer {
                    Err(error) if on_pipe => assert_eq!(error, Errno(libc::EBADF)),
                    answer => {
                        assert_eq!(answer, Ok(4), "way {way} after {before} bytes");
                        assert_eq!(&buffer[..4], b"late");
                    }
                }
                if !on_pipe && way < 2 {
                    assert_eq!(sys::read(a, &mut [0]), Ok(0));
                }
                sys::close(a).expect("close");
            }
        }
    }),
    case("a_closed_descriptor_with_another_name_leaves_read_asleep", || {
        for before in [0, 10_000] {
            let (a, b) = used_pair(before);
            let twin = sys::dup(b);
            let mut buffer = [0; 9];
            let answer = while_asleep(
                || sys::read(b, &mut buffer),
                || {
                    sys::close(b).expect("close");
                    sys::write_all(a, b"late");
                },
            );
            assert_eq!(answer, Ok(4));
            assert_eq!(&buffer[..4], b"late");
            sys::write_all(a, b"more");
            assert_eq!(sys::read_exact(twin, 4), b"more");
            close_both(a, twin);
        }
    }),
    case("shut_down_closed_and_used_again_at_once", || {
        // What servers do to stop a thread that serves a connection. The thread sees the end of its own one.
        for round in 0..150 {
            let (a, b) = used_pair(if round % 3 == 0 { 0 } else { 1000 });
            sys::plug_below(b);
            let mut again = (-1, -1);
            let answer = while_asleep(
                || sys::read(b, &mut [0; 100]),
                || {
                    sys::shutdown(b, libc::SHUT_RDWR).expect("shutdown");
                    sys::close(b).expect("close");
                    again = sys::pair();
                    sys::write_all(again.1, b"for the new one");
                    sys::write_all(again.0, b"and back");
                },
            );
            assert_eq!(answer, Ok(0), "round {round}");
            assert_eq!(sys::read_exact(again.0, 15), b"for the new one");
            assert_eq!(sys::read_exact(again.1, 8), b"and back");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            close_both(again.0, again.1);
            sys::close(a).expect("close");
        }
    }),
    case("a_number_used_again_under_a_sleeping_reader", || {
        // The reader sleeps on the old socket, which another name keeps alive; the number names another one.
        for before in [0, 1000] {
            for _ in 0..30 {
                let (a, b) = used_pair(before);
                let (c, d) = used_pair(before);
                let twin = sys::dup(b);
                let mut buffer = [0; 9];
                let answer = while_asleep(
                    || sys::read(b, &mut buffer),
                    || {
                        sys::write_all(c, b"theirs");
                        sys::dup2(d, b).expect("dup2");
                        sys::write_all(a, b"mine");
                    },
                );
                assert_eq!(answer, Ok(4));
                assert_eq!(&buffer[..4], b"mine");
                assert_eq!(sys::read_exact(b, 6), b"theirs");
                for fd in [a, b, c, d, twin] {
                    sys::close(fd).expect("close");
                }
            }
        }
    }),
    case("a_number_used_again_under_a_blocked_writer", || {
        let (a, b) = used_pair(1000);
        let (c, d) = used_pair(1000);
        let mut flow = Flow::new(3);
        flow.fill_up(a);
        let full = flow.position;
        let twin = sys::dup(a);
        let rest = flow.bytes(1 << 20);
        let answer = while_asleep(
            || sys::write(a, &rest),
            || {
                sys::dup2(c, a).expect("dup2");
                Flow::new(3).read(b, full, 65536);
                sys::shutdown(twin, libc::SHUT_RDWR).ok();
            },
        );
        // Whatever it wrote went to the old one.
        let more = answer.unwrap_or(0);
        let mut tail = Flow::new(3);
        tail.position = full;
        assert!(tail.read_to_end(b, 65536) >= more.saturating_sub(1));
        sys::write_all(a, b"theirs");
        assert_eq!(sys::read_exact(d, 6), b"theirs");
    }),
    case("closing_leaves_poll_asleep_until_something_happens", || {
        let (a, b) = used_pair(10_000);
        assert_on_pipe(b);
        let event = sys::eventfd();
        let answer = while_asleep(
            || sys::poll(&mut [entry(b, POLLIN), entry(event, POLLIN)], -1),
            || {
                sys::close(b).expect("close");
                sys::write_all(event, &1_u64.to_ne_bytes());
            },
        );
        // The closed one is bad, or not looked at again.
        assert!(matches!(answer, Ok(1 | 2)), "{answer:?}");
        sys::close(a).expect("close");
    }),
    case("closing_removes_from_a_set_that_somebody_waits_for", || {
        for before in [0, 10_000] {
            let (a, b) = used_pair(before);
            let (set, event) = (wait::epoll(), sys::eventfd());
            wait::add(set, b, EPOLLIN);
            wait::add(set, event, EPOLLIN);
            let answer = while_asleep(
                || wait::epoll_wait(set, 10, -1),
                || {
                    sys::close(b).expect("close");
                    sys::write_all(event, &1_u64.to_ne_bytes());
                },
            );
            assert_eq!(answer, Ok(vec![(EPOLLIN, event as u64)]));
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            for fd in [a, set, event] {
                sys::close(fd).expect("close");
            }
        }
    }),
    case("the_peers_end_wakes_every_kind_of_sleeper", || {
        for reset in [false, true] {
            let sleepers: [fn(i32) -> Answer; 6] = [
                |fd| sys::poll(&mut [entry(fd, 0)], -1),
                |fd| sys::poll(&mut [entry(fd, POLLIN | POLLRDHUP)], -1),
                |fd| epoll_once(fd, EPOLLIN | EPOLLRDHUP),
                |fd| epoll_once(fd, EPOLLIN | EPOLLET),
                |fd| wait::select(Some(&mut Set::of(&[fd])), None, None, -1),
                |fd| epoll_once(fd, 0),
            ];
            for (number, sleeper) in sleepers.into_iter().enumerate() {
                // With no events asked, only both directions' end is told: a reset.
                if !reset && matches!(number, 0 | 5) {
                    continue;
                }
                let (a, b) = used_pair(10_000);
                let answer = while_asleep(
                    || sleeper(b),
                    || {
                        if reset {
                            sys::linger_zero(a);
                        }
                        sys::close(a).expect("close");
                    },
                );
                assert_eq!(answer, Ok(1), "sleeper {number}");
                match reset {
                    true => fails(sys::read(b, &mut [0]), libc::ECONNRESET),
                    false => assert_eq!(sys::read(b, &mut [0]), Ok(0)),
                }
                sys::close(b).expect("close");
            }
        }
    }),
    case("twenty_threads_sleep_on_one_socket", || {
        let (a, b) = used_pair(10_000);
        let (count, told) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..20 {
                let count = count.clone();
                scope.spawn(move || {
                    let mut byte = [0];
                    while sys::read(b, &mut byte).expect("read") == 1 {
                        count.send(byte[0]).expect("the test counts");
                    }
                });
            }
            drop(count);
            for round in 0..200_u8 {
                sys::write_all(a, &[round]);
                assert_eq!(told.recv().expect("a reader"), round);
            }
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            assert!(told.recv().is_err(), "all readers have seen the end");
        });
        close_both(a, b);
    }),
    case("the_last_of_twenty_sleepers_is_interrupted_and_times_out", || {
        let (a, b) = used_pair(10_000);
        crate::signals::count_signals(libc::SIGUSR1, 0);
        let (ready, all) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..20 {
                let ready = ready.clone();
                scope.spawn(move || {
                    ready.send(()).expect("the test counts");
                    sys::read(b, &mut [0]).expect("read");
                });
            }
            for _ in 0..20 {
                all.recv().expect("a reader");
            }
            let answer = crate::signals::interrupting_until(libc::SIGUSR1, || sys::read(b, &mut [0; 1]));
            fails(answer, libc::EINTR);
            sys::timeout(b, libc::SO_RCVTIMEO, 50);
            fails(sys::read(b, &mut [0; 1]), libc::EAGAIN);
            sys::shutdown(b, libc::SHUT_RD).expect("shutdown");
        });
        close_both(a, b);
    }),
    case("twenty_threads_wait_in_one_set_and_one_is_interrupted", || {
        let (a, b) = used_pair(10_000);
        let set = wait::epoll();
        wait::add(set, b, EPOLLIN);
        crate::signals::count_signals(libc::SIGUSR1, 0);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let _ = wait::epoll_wait(set, 1, -1);
                    }
                });
            }
            let answer = crate::signals::interrupting_until(libc::SIGUSR1, || wait::epoll_wait(set, 1, -1));
            fails(answer, libc::EINTR);
            assert_eq!(wait::epoll_wait(set, 1, 50), Ok(vec![]));
            stop.store(true, Ordering::SeqCst);
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        });
        close_both(a, b);
    }),
];

/// A call that sleeps on a descriptor.
type Sleeper = fn(i32) -> Answer;

/// A pair that has carried some bytes.
fn used_pair(before: usize) -> (i32, i32) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    (a, b)
}

fn close_both(a: i32, b: i32) {
    sys::close(a).expect("close");
    sys::close(b).expect("close");
}

fn epoll_once(fd: i32, events: i32) -> Answer {
    let set = wait::epoll();
    wait::add(set, fd, events);
    let ready = wait::epoll_wait(set, 10, -1);
    sys::close(set).expect("close");
    let ready = ready?;
    assert!(ready.iter().all(|event| event.0 & !(events | EPOLLHUP | libc::EPOLLERR) == 0), "{ready:?}");
    Ok(ready.len())
}

/// Makes a call that sleeps, and does something once it does.
fn while_asleep<T>(sleeper: impl FnOnce() -> T, then: impl FnOnce() + Send) -> T {
    let caller = sys::gettid();
    thread::scope(|scope| {
        scope.spawn(move || {
            sys::let_sleep(sys::getpid(), caller);
            then();
        });
        sleeper()
    })
}

fn ignore_sigpipe() {
    // SAFETY: always allowed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let _ = Errno(0);
}
