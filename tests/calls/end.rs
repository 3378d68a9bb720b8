//! How connections end: half close, close, reset, SIGPIPE, SIGKILL.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use crate::data::Flow;
use crate::harness::{Case, Child, End, assert_on_pipe, case, dialogue};
use crate::signals::{count_signals, signals};
use crate::sys::{self, Ended, Errno, call, events, fails, wait};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "close_is_read_as_0_after_the_bytes",
        |end| {
            let mut flow = Flow::new(1);
            flow.write(end.fd, 200_000, 200_000);
            end.close();
            end.hear();
        },
        |end| {
            sys::let_sleep(end.other, end.other);
            assert_eq!(Flow::new(1).read_to_end(end.fd, 7777), 200_000);
            for _ in 0..3 {
                assert_eq!(sys::read(end.fd, &mut [0; 10]), Ok(0));
                assert_eq!(sys::recv(end.fd, &mut [0; 10], libc::MSG_DONTWAIT), Ok(0));
                assert_eq!(sys::readable(end.fd), 0);
            }
            assert_eq!(sys::so_error(end.fd), 0);
            end.tell();
        },
    ),
    dialogue("half_close_by_this_end_first", half_close_first, half_close_second),
    dialogue("half_close_by_the_other_end_first", half_close_second, half_close_first),
    dialogue(
        "both_ends_shut_at_once_with_bytes_in_flight",
        |end| {
            Flow::new(1).write(end.fd, 300_000, 300_000);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(Flow::new(2).read_to_end(end.fd, 9999), 300_000);
            end.tell();
            end.hear();
        },
        |end| {
            Flow::new(2).write(end.fd, 300_000, 300_000);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(Flow::new(1).read_to_end(end.fd, 9999), 300_000);
            end.tell();
            end.hear();
        },
    ),
    dialogue(
        "shutdown_of_reading_reads_what_is_there_then_0",
        |end| {
            let mut flow = Flow::new(1);
            flow.write(end.fd, 5000, 500);
            end.hear();
            flow.write(end.fd, 100, 100);
            end.tell();
            assert_eq!(sys::read_exact(end.fd, 3), b"out");
            end.hear();
        },
        |end| {
            sys::until(|| sys::readable(end.fd) == 5000);
            sys::shutdown(end.fd, libc::SHUT_RD).expect("shutdown");
            let mut flow = Flow::new(1);
            assert_eq!(flow.read_to_end(end.fd, 1000), 5000);
            end.tell();
            end.hear();
            // The kernel's TCP lets later bytes in.
            sys::until(|| sys::readable(end.fd) == 100);
            flow.read(end.fd, 100, 100);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            sys::write_all(end.fd, b"out");
            end.tell();
        },
    ),
    dialogue(
        "writing_after_shutdown_is_epipe_with_sigpipe",
        |end| {
            count_signals(libc::SIGPIPE, 0);
            Flow::new(1).write(end.fd, 1000, 500);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            fails(sys::send(end.fd, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
            assert_eq!(signals(), 0);
            fails(sys::write(end.fd, b"x"), libc::EPIPE);
            assert_eq!(signals(), 1);
            fails(sys::send(end.fd, b"x", 0), libc::EPIPE);
            assert_eq!(signals(), 2);
            let mut pieces = vec![b"x".to_vec()];
            fails(call!(libc::writev(end.fd, sys::iovecs(&mut pieces).as_ptr(), 1)), libc::EPIPE);
            assert_eq!(signals(), 3);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("a second time");
            assert_eq!(sys::read_exact(end.fd, 2), b"hi");
            end.tell();
        },
        |end| {
            assert_eq!(Flow::new(1).read_to_end(end.fd, 100), 1000);
            sys::write_all(end.fd, b"hi");
            end.hear();
        },
    ),
    dialogue(
        "writing_to_a_closed_end_works_once",
        |end| {
            count_signals(libc::SIGPIPE, 0);
            Flow::new(1).write(end.fd, 1000, 500);
            end.hear();
            assert_eq!(sys::poll_one(end.fd, libc::POLLIN, -1), libc::POLLIN);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            assert_eq!(sys::write(end.fd, b"x"), Ok(1));
            // The reset comes; it is told once, as EPIPE to a writer.
            sys::until(|| events(end.fd, 0) & libc::POLLHUP != 0);
            fails(sys::send(end.fd, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
            assert_eq!(signals(), 0);
            fails(sys::write(end.fd, b"x"), libc::EPIPE);
            assert_eq!(signals(), 1);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            assert_eq!(sys::so_error(end.fd), 0);
        },
        |end| {
            Flow::new(1).read(end.fd, 1000, 1000);
            end.close();
            end.tell();
        },
    ),
    dialogue(
        "a_program_that_ignores_sigpipe_gets_epipe",
        |end| {
            // Rust programs ignore it from the start.
            end.hear();
            let answer = loop {
                if let Err(error) = sys::write(end.fd, &[7; 1000]) {
                    break error;
                }
            };
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&answer.0), "{answer:?}");
            fails(sys::write(end.fd, &[7; 1000]), libc::EPIPE);
        },
        |end| {
            end.close();
            end.tell();
        },
    ),
    dialogue(
        "closing_with_unread_bytes_resets",
        |end| {
            sys::write_all(end.fd, b"unread");
            end.hear();
            sys::until(|| events(end.fd, 0) & libc::POLLHUP != 0);
            assert_eq!(events(end.fd, ALL), libc::POLLIN | libc::POLLOUT | ENDED);
            fails(sys::read(end.fd, &mut [0]), libc::ECONNRESET);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0), "an error is told once");
            fails(sys::write(end.fd, b"x"), libc::EPIPE);
            fails(sys::getpeername(end.fd), libc::ENOTCONN);
        },
        |end| {
            sys::until(|| sys::readable(end.fd) == 6);
            end.close();
            end.tell();
        },
    ),
    dialogue(
        "closing_with_unread_bytes_resets_after_much_traffic",
        |end| {
            Flow::new(1).write(end.fd, 100_000, 10_000);
            Flow::new(2).read(end.fd, 100_000, 10_000);
            assert_on_pipe(end.fd);
            sys::write_all(end.fd, b"unread");
            end.hear();
            sys::until(|| events(end.fd, 0) & libc::POLLHUP != 0);
            assert_eq!(sys::so_error(end.fd), libc::ECONNRESET);
            assert_eq!(sys::so_error(end.fd), 0);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
        |end| {
            Flow::new(1).read(end.fd, 100_000, 10_000);
            Flow::new(2).write(end.fd, 100_000, 10_000);
            sys::until(|| sys::readable(end.fd) == 6);
            end.close();
            end.tell();
        },
    ),
    dialogue(
        "linger_zero_resets",
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            end.tell();
            let mut buffer = [0; 10];
            fails(sys::read(end.fd, &mut buffer), libc::ECONNRESET);
            assert_eq!(sys::read(end.fd, &mut buffer), Ok(0));
        },
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            end.hear();
            sys::linger_zero(end.fd);
            end.close();
        },
    ),
    dialogue(
        "linger_with_time_delivers_all",
        |end| assert_eq!(Flow::new(1).read_to_end(end.fd, 5000), 1 << 20),
        |end| {
            Flow::new(1).write(end.fd, 1 << 20, 50_000);
            let linger = libc::linger { l_onoff: 1, l_linger: 30 };
            sys::setsockopt_raw(end.fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger).expect("SO_LINGER");
            end.close();
        },
    ),
    dialogue(
        "names_in_every_state",
        |end| {
            let (own, peer) = (sys::getsockname(end.fd), sys::getpeername(end.fd));
            Flow::new(1).write(end.fd, 10_000, 1000);
            Flow::new(2).read(end.fd, 10_000, 1000);
            assert_eq!(sys::getsockname(end.fd), own);
            assert_eq!(sys::getpeername(end.fd), peer);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(sys::getpeername(end.fd), peer);
            end.tell();
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            sys::until(|| events(end.fd, 0) & libc::POLLHUP != 0);
            assert_eq!(sys::getsockname(end.fd), own);
            fails(sys::shutdown(end.fd, libc::SHUT_WR), libc::ENOTCONN);
        },
        |end| {
            let (own, peer) = (sys::getsockname(end.fd), sys::getpeername(end.fd));
            Flow::new(1).read(end.fd, 10_000, 1000);
            Flow::new(2).write(end.fd, 10_000, 1000);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            // The other direction is still open.
            assert_eq!(sys::getsockname(end.fd), own);
            assert_eq!(sys::getpeername(end.fd), peer);
            end.hear();
        },
    ),
    dialogue(
        "shutdown_by_another_thread_wakes_a_reader",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 1000);
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 1000);
            let (fd, reader) = (end.fd, sys::gettid());
            thread::scope(|scope| {
                scope.spawn(|| {
                    sys::let_sleep(sys::getpid(), reader);
                    sys::shutdown(fd, libc::SHUT_RD).expect("shutdown");
                });
                assert_eq!(sys::read(fd, &mut [0]), Ok(0));
            });
            end.tell();
        },
    ),
    dialogue(
        "closing_a_listener_leaves_its_connections",
        |end| {
            Flow::new(1).write(end.fd, 100_000, 1000);
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 100_000, 1000);
            end.tell();
        },
    ),
    dialogue("a_killed_end_is_seen_by_read", |end| killed(end, 0, by_read), victim).between_processes(),
    dialogue("a_killed_end_is_seen_by_poll", |end| killed(end, 0, by_poll), victim).between_processes(),
    dialogue("a_killed_end_is_seen_by_epoll", |end| killed(end, 0, by_epoll), victim).between_processes(),
    dialogue("a_killed_end_with_unread_bytes_is_seen_by_read", |end| killed(end, 100, by_read), victim)
        .between_processes(),
    dialogue("a_killed_end_with_unread_bytes_is_seen_by_poll", |end| killed(end, 100, by_poll), victim)
        .between_processes(),
    dialogue("a_killed_end_with_unread_bytes_is_seen_by_epoll", |end| killed(end, 100, by_epoll), victim)
        .between_processes(),
    dialogue("a_killed_end_that_never_slept_is_seen_by_read", |end| killed_awake(end, by_read), awake_victim)
        .between_processes(),
    dialogue("a_killed_end_that_never_slept_is_seen_by_poll", |end| killed_awake(end, by_poll), awake_victim)
        .between_processes(),
    dialogue(
        "a_killed_end_that_never_slept_is_seen_by_epoll",
        |end| killed_awake(end, by_epoll),
        awake_victim,
    )
    .between_processes(),
    dialogue(
        "what_a_killed_end_wrote_is_still_read",
        |end| {
            end.hear();
            end.kill_other();
            assert_eq!(Flow::new(1).read_to_end(end.fd, 1000), 50_000);
        },
        |end| {
            Flow::new(1).write(end.fd, 50_000, 5000);
            end.tell();
            wait_for_ever();
        },
    )
    .between_processes(),
    dialogue(
        "a_killed_reader_stops_a_blocked_writer",
        |end| {
            end.hear();
            let (writer, pid, target) = (sys::gettid(), sys::getpid(), end.other);
            let answer = thread::scope(|scope| {
                scope.spawn(move || {
                    sys::let_sleep(pid, writer);
                    sys::kill(target, libc::SIGKILL).expect("kill");
                });
                loop {
                    if let Err(error) = sys::send(end.fd, &[1; 50_000], libc::MSG_NOSIGNAL) {
                        break error;
                    }
                }
            });
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&answer.0), "{answer:?}");
            fails(sys::send(end.fd, &[1], libc::MSG_NOSIGNAL), libc::EPIPE);
            end.kill_other();
        },
        |end| {
            end.tell();
            wait_for_ever();
        },
    )
    .between_processes(),
    dialogue(
        "a_reader_killed_while_reading_stops_the_writer",
        |end| {
            let mut flow = Flow::new(1);
            flow.write(end.fd, 4 << 20, 10_000);
            let target = end.other;
            sys::kill(target, libc::SIGKILL).expect("kill");
            let answer = loop {
                if let Err(error) = sys::send(end.fd, &[1; 10_000], libc::MSG_NOSIGNAL) {
                    break error;
                }
            };
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&answer.0), "{answer:?}");
            end.kill_other();
        },
        |end| {
            let mut flow = Flow::new(1);
            flow.read(end.fd, usize::MAX >> 1, 10_000);
        },
    )
    .between_processes(),
    case("what_was_written_before_a_close_arrives_after_a_child_has_died", || {
        ends_with_much_under_way(|fd| {
            // Whoever has ended holds nothing any more.
            Child::run(|| {}).join();
            sys::close(fd).expect("close");
            // SAFETY: always allowed.
            unsafe { libc::_exit(0) }
        });
    }),
    case("what_was_written_before_a_kill_arrives", || {
        ends_with_much_under_way(|_| {
            let _ = sys::kill(sys::getpid(), libc::SIGKILL);
        });
    }),
    case("what_was_written_before_exit_arrives", || {
        // SAFETY: this thread is the process's only one.
        ends_with_much_under_way(|_| unsafe { libc::exit(0) });
    }),
    case("what_was_written_before_an_exit_without_handlers_arrives", || {
        // SAFETY: always allowed.
        ends_with_much_under_way(|_| unsafe { libc::_exit(0) });
    }),
    case("what_was_written_before_a_quick_exit_arrives", || {
        // SAFETY: this thread is the process's only one.
        ends_with_much_under_way(|_| unsafe { quick_exit(0) });
    }),
    case("what_a_handler_of_quick_exit_writes_arrives", || {
        static LAST: AtomicI32 = AtomicI32::new(-1);
        extern "C" fn handler() {
            Flow::new(2).write(LAST.load(Ordering::SeqCst), 5000, 500);
        }
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let child = Child::run(|| {
                sys::close(a).expect("close");
                LAST.store(b, Ordering::SeqCst);
                // SAFETY: a function that lives as long as the process.
                assert_eq!(unsafe { at_quick_exit(handler) }, 0);
                sys::read_exact(b, 1);
                // SAFETY: the child has one thread.
                unsafe { quick_exit(0) };
            });
            sys::close(b).expect("close");
            sys::let_sleep(child.0, child.0);
            sys::write_all(a, b"!");
            assert_eq!(Flow::new(2).read_to_end(a, 777), 5000);
            child.join();
        }
    }),
    case("what_was_written_before_a_late_answer_and_a_kill_arrives", || {
        // The doorbell of the answer lies in the queue of a process that has much under way.
        ends_with_much_under_way_and_an_answer(|| {
            let _ = sys::kill(sys::getpid(), libc::SIGKILL);
        });
    }),
    case("error_is_told_once_by_whoever_asks_first", || {
        let (a, b) = sys::pair();
        sys::linger_zero(b);
        sys::close(b).expect("close");
        sys::until(|| events(a, 0) & libc::POLLHUP != 0);
        assert_eq!(events(a, 0), libc::POLLHUP | libc::POLLERR);
        fails(sys::write(a, b"x"), libc::ECONNRESET);
        assert_eq!(events(a, 0), libc::POLLHUP);
        assert_eq!(sys::so_error(a), 0);
        fails(sys::write(a, b"x"), libc::EPIPE);
        fails(sys::shutdown(a, libc::SHUT_RDWR), libc::ENOTCONN);
    }),
    case("what_comes_after_both_directions_were_shut_resets_this_end", || {
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            sys::shutdown(b, libc::SHUT_RDWR).expect("shutdown");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            sys::write_all(a, b"too late");
            sys::close(a).expect("close");
            sys::fails(sys::read(b, &mut [0]), libc::ECONNRESET);
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
            sys::close(b).expect("close");
        }
    }),
];

const ALL: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
const ENDED: i16 = libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;

fn half_close_first(end: &End) {
    Flow::new(1).write(end.fd, 500_000, 60_000);
    sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
    assert_eq!(Flow::new(2).read_to_end(end.fd, 7000), 700_000);
    end.hear();
}

fn half_close_second(end: &End) {
    assert_eq!(Flow::new(1).read_to_end(end.fd, 9000), 500_000);
    assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
    Flow::new(2).write(end.fd, 700_000, 70_000);
    sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
    end.tell();
}

/// Exchanges traffic, tells, and lives until it is killed.
fn victim(end: &End) {
    Flow::new(1).read(end.fd, 20_000, 1000);
    Flow::new(2).write(end.fd, 20_000, 1000);
    end.tell();
    wait_for_ever();
}

fn wait_for_ever() -> ! {
    loop {
        // SAFETY: only waits.
        unsafe { libc::pause() };
    }
}

/// Kills the victim, with so many bytes unread at its end, while this end sleeps in `wait`.
/// One that has never waited for bytes.
fn awake_victim(end: &End) {
    end.hear();
    let mut bytes = 0;
    while bytes < 20_000 {
        bytes += sys::recv(end.fd, &mut [0; 20_000], libc::MSG_DONTWAIT).unwrap_or(0);
    }
    fails(sys::recv(end.fd, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
    Flow::new(2).write(end.fd, 20_000, 1000);
    end.tell();
    wait_for_ever();
}

fn killed(end: &End, unread: usize, wait: fn(i32) -> bool) {
    Flow::new(1).write(end.fd, 20_000, 1000);
    Flow::new(2).read(end.fd, 20_000, 1000);
    end.hear();
    Flow::new(3).write(end.fd, unread, 10);
    kill_and_see(end, unread, wait);
}

fn killed_awake(end: &End, wait: fn(i32) -> bool) {
    Flow::new(1).write(end.fd, 20_000, 1000);
    end.tell();
    Flow::new(2).read(end.fd, 20_000, 1000);
    end.hear();
    Flow::new(3).write(end.fd, 100, 10);
    kill_and_see(end, 100, wait);
}

fn kill_and_see(end: &End, unread: usize, wait: fn(i32) -> bool) {
    let (waiter, pid, target, fd) = (sys::gettid(), sys::getpid(), end.other, end.fd);
    let reset_was_told = thread::scope(|scope| {
        scope.spawn(move || {
            sys::let_sleep(pid, waiter);
            sys::kill(target, libc::SIGKILL).expect("kill");
        });
        wait(fd)
    });
    let mut buffer = [0; 10];
    if unread == 0 {
        assert_eq!(sys::read(fd, &mut buffer), Ok(0));
        assert_eq!(sys::so_error(fd), 0);
    } else {
        sys::until(|| events(fd, 0) & libc::POLLHUP != 0);
        if !reset_was_told {
            fails(sys::read(fd, &mut buffer), libc::ECONNRESET);
        }
        assert_eq!(sys::read(fd, &mut buffer), Ok(0));
    }
    end.kill_other();
}

/// Waits in `read`; returns whether the answer was a reset, as all that follow it are ends.
fn by_read(fd: i32) -> bool {
    let answer = sys::read(fd, &mut [0]);
    assert!(matches!(answer, Ok(0) | Err(Errno(libc::ECONNRESET))), "{answer:?}");
    answer != Ok(0)
}

fn by_poll(fd: i32) -> bool {
    assert_ne!(sys::poll_one(fd, libc::POLLIN, -1) & libc::POLLIN, 0);
    false
}

fn by_epoll(fd: i32) -> bool {
    let set = wait::epoll();
    wait::add(set, fd, libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET);
    let ready = wait::ready(set, -1);
    assert_eq!(ready.len(), 1);
    assert_eq!(ready[0].0 & (libc::EPOLLIN | libc::EPOLLRDHUP), libc::EPOLLIN | libc::EPOLLRDHUP);
    false
}

/// A child at the other end of a connection that has been in use, and goes on with `go_on`.
fn connected_child(go_on: impl FnOnce(i32)) -> (i32, Child) {
    let (listener, port) = sys::listener(libc::AF_INET);
    let child = Child::run(|| {
        let fd = sys::connected(libc::AF_INET, port);
        sys::close(listener).expect("close");
        for _ in 0..3 {
            sys::write_all(fd, b"to and fro");
            sys::read_exact(fd, 10);
        }
        go_on(fd);
    });
    let fd = sys::accept(listener).expect("accept");
    for _ in 0..3 {
        sys::read_exact(fd, 10);
        sys::write_all(fd, b"to and fro");
    }
    (fd, child)
}

/// A process writes more than the other end's queue takes, and is gone before it is read. On a pipe it has been woken
/// just before: by a doorbell, which lies in its queue, as a byte that it has not read.
fn ends_with_much_under_way_and_an_answer(leave: fn()) {
    let (told, tell) = sys::pipe();
    let (fd, child) = connected_child(|fd| {
        let count = Flow::new(1).fill_up(fd);
        sys::write_all(tell, &count.to_ne_bytes());
        sys::read_exact(fd, 1);
        leave();
    });
    let count = usize::from_ne_bytes(sys::read_exact(told, 8).try_into().expect("eight bytes"));
    sys::let_sleep(child.0, child.0);
    sys::write_all(fd, b"!");
    assert!(matches!(sys::wait(child.0), Ended::Exited(0) | Ended::Killed(libc::SIGKILL)));
    assert_eq!(Flow::new(1).read_to_end(fd, 7777), count);
}

unsafe extern "C" {
    fn quick_exit(status: i32) -> !;
    fn at_quick_exit(handler: extern "C" fn()) -> i32;
}

fn ends_with_much_under_way(leave: fn(i32)) {
    let (told, tell) = sys::pipe();
    let (fd, child) = connected_child(|fd| {
        sys::read_exact(fd, 1);
        let count = Flow::new(1).fill_up(fd);
        sys::write_all(tell, &count.to_ne_bytes());
        leave(fd);
    });
    sys::let_sleep(child.0, child.0);
    sys::write_all(fd, b"!");
    let count = usize::from_ne_bytes(sys::read_exact(told, 8).try_into().expect("eight bytes"));
    assert!(matches!(sys::wait(child.0), Ended::Exited(0) | Ended::Killed(libc::SIGKILL)));
    assert_eq!(Flow::new(1).read_to_end(fd, 7777), count);
}
