//! epoll: level, edge, one-shot, what a set remembers, errors.

use std::time::{Duration, Instant};
use std::{ptr, thread};

use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN,
    EPOLLONESHOT, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
};

use crate::data::{Flow, Random};
use crate::harness::{Case, Environment, assert_on_pipe, case, dialogue, environment};
use crate::sys::wait::{add, control, delete, epoll, epoll_wait, modify, ready};
use crate::sys::{self, Errno, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("urgent_data_is_heard_of_by_one_who_waits_for_it_and_for_bytes", || {
        // The second is what Boost.Asio waits for.
        for asked in [EPOLLIN | EPOLLPRI, EPOLLIN | EPOLLPRI | EPOLLET] {
            for round in 0..8 {
                let (a, b) = sys::pair();
                let set = epoll();
                add(set, b, asked);
                thread::scope(|scope| {
                    let answering = scope.spawn(|| {
                        loop {
                            let told = epoll_wait(set, 1, 10_000).expect("epoll_wait");
                            if told != [(EPOLLIN, b as u64)] {
                                return told;
                            }
                            let mut bytes = [0; 50];
                            // By edges an end of what is there may be told twice.
                            if let Ok(count) = sys::recv(b, &mut bytes, libc::MSG_DONTWAIT) {
                                sys::write_all(b, &bytes[..count]);
                            }
                        }
                    });
                    for _ in 0..200 {
                        sys::write_all(a, &[b'x'; 50]);
                        assert_eq!(sys::read_exact(a, 50), [b'x'; 50]);
                    }
                    // Perhaps it waits awake, or only for a while, or sleeps.
                    thread::sleep(Duration::from_micros(round * round * 150));
                    assert_eq!(sys::send(a, b"u", libc::MSG_OOB), Ok(1));
                    assert_eq!(
                        answering.join().expect("the other end"),
                        [(EPOLLPRI, b as u64)],
                        "{asked:x} round {round}"
                    );
                });
                assert_eq!(sys::recv(b, &mut [0], libc::MSG_OOB), Ok(1));
                [a, b, set].into_iter().for_each(|fd| _ = sys::close(fd));
            }
        }
    }),
    dialogue(
        "level_reports_until_read",
        |end| {
            for before in [0, 10_000] {
                Flow::new(1).write(end.fd, before, 500);
                end.hear();
                sys::write_all(end.fd, b"abc");
                end.hear();
            }
            end.close();
        },
        |end| {
            let set = epoll();
            add(set, end.fd, EPOLLIN);
            for before in [0, 10_000] {
                Flow::new(1).read(end.fd, before, 500);
                assert_eq!(ready(set, 0), []);
                end.tell();
                for left in [3, 2, 1] {
                    assert_eq!(ready(set, -1), [(EPOLLIN, end.fd as u64)]);
                    sys::until(|| sys::readable(end.fd) == left);
                    assert_eq!(ready(set, 0), [(EPOLLIN, end.fd as u64)]);
                    assert_eq!(sys::read(end.fd, &mut [0]), Ok(1));
                }
                assert_eq!(ready(set, 0), []);
                modify(set, end.fd, EPOLLIN | EPOLLOUT);
                assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
                modify(set, end.fd, EPOLLIN);
                end.tell();
            }
            assert_eq!(ready(set, -1), [(EPOLLIN, end.fd as u64)]);
            modify(set, end.fd, EPOLLRDHUP);
            assert_eq!(ready(set, -1), [(EPOLLRDHUP, end.fd as u64)]);
        },
    ),
    dialogue(
        "edge_reports_each_arrival_once",
        |end| {
            for before in [0, 10_000] {
                Flow::new(1).write(end.fd, before, 500);
                for _ in 0..100 {
                    end.hear();
                    sys::write_all(end.fd, b"abcd");
                }
                end.hear();
            }
            end.hear();
            end.close();
        },
        |end| {
            let set = epoll();
            add(set, end.fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
            // When a connection comes onto its pipe while bytes are unread, they are reported once more: whether
            // the kernel has reported them cannot be known (docs/compatibility.md).
            let mut again = 0;
            for before in [0, 10_000] {
                Flow::new(1).read(end.fd, before, 500);
                ready(set, 0);
                for round in 0..100 {
                    assert_eq!(ready(set, 0), [], "round {round}");
                    end.tell();
                    assert_eq!(ready(set, -1), [(EPOLLIN, end.fd as u64)]);
                    assert_eq!(ready(set, 0), [], "no second report without new bytes");
                    // In part, in whole, or not at all.
                    let read = match round % 3 {
                        0 => sys::read(end.fd, &mut [0; 3]),
                        1 => Ok(0),
                        _ => sys::recv(end.fd, &mut [0; 500], libc::MSG_DONTWAIT),
                    };
                    read.expect("read");
                    again += ready(set, 0).len();
                }
                assert_eq!(sys::read(end.fd, &mut [0; 5]), Ok(1), "the rest of the last round");
                end.tell();
            }
            end.tell();
            assert!(
                again <= usize::from(environment() != Environment::Host),
                "{again} reports without new bytes"
            );
            assert_eq!(ready(set, -1), [(EPOLLIN | EPOLLRDHUP, end.fd as u64)]);
            assert_eq!(ready(set, 0), []);
            assert_on_pipe(end.fd);
        },
    ),
    case("edge_is_reported_again_after_mod_and_to_a_new_set", || {
        let (a, b) = sys::pair();
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let set = epoll();
            sys::write_all(a, b"abc");
            sys::until(|| sys::readable(b) == 3);
            add(set, b, EPOLLIN | EPOLLET);
            assert_eq!(ready(set, 0), [(EPOLLIN, b as u64)]);
            assert_eq!(ready(set, 0), []);
            modify(set, b, EPOLLIN | EPOLLET);
            assert_eq!(ready(set, 0), [(EPOLLIN, b as u64)]);
            assert_eq!(ready(set, 0), []);
            let second = epoll();
            add(second, b, EPOLLIN | EPOLLET);
            assert_eq!(ready(second, 0), [(EPOLLIN, b as u64)]);
            assert_eq!(ready(set, 0), []);
            delete(set, b);
            add(set, b, EPOLLIN | EPOLLET);
            assert_eq!(ready(set, 0), [(EPOLLIN, b as u64)]);
            assert_eq!(sys::read_exact(b, 3), b"abc");
            modify(set, b, EPOLLIN | EPOLLET);
            assert_eq!(ready(set, 0), []);
        }
    }),
    dialogue(
        "one_shot_is_silent_until_mod",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            for _ in 0..50 {
                end.hear();
                sys::write_all(end.fd, b"a");
                end.hear();
                sys::write_all(end.fd, b"b");
            }
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            let set = epoll();
            let events = EPOLLIN | EPOLLONESHOT;
            add(set, end.fd, events);
            for round in 0..50 {
                let events = if round % 2 == 0 { events } else { events | EPOLLET };
                end.tell();
                assert_eq!(ready(set, -1), [(EPOLLIN, end.fd as u64)]);
                end.tell();
                sys::until(|| sys::readable(end.fd) == 2);
                assert_eq!(ready(set, 0), []);
                modify(set, end.fd, events);
                assert_eq!(ready(set, -1), [(EPOLLIN, end.fd as u64)]);
                assert_eq!(sys::read_exact(end.fd, 2), b"ab");
                modify(set, end.fd, events);
                assert_eq!(ready(set, 0), []);
            }
            end.tell();
        },
    ),
    dialogue(
        "out_edge_comes_when_a_full_pipe_is_drained",
        |end| {
            let set = epoll();
            add(set, end.fd, EPOLLIN | EPOLLOUT | EPOLLET);
            let mut flow = Flow::new(1);
            flow.write(end.fd, 10_000, 500);
            assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
            for _ in 0..5 {
                flow.fill_up(end.fd);
                assert_eq!(ready(set, 0), []);
                end.tell();
                assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
                end.tell();
            }
            end.close();
        },
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..5 {
                end.hear();
                sys::until(|| {
                    let _ = flow.drain(end.fd);
                    end.is_called()
                });
                end.hear();
            }
            flow.read_to_end(end.fd, 65536);
        },
    ),
    dialogue(
        "out_edge_comes_after_a_short_write",
        |end| {
            let set = epoll();
            sys::set_nonblocking(end.fd, true);
            add(set, end.fd, EPOLLOUT | EPOLLET);
            assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
            let (mut flow, total) = (Flow::new(1), 100 << 20);
            let mut waits = 0;
            while flow.position < total {
                let bytes = flow.bytes((16 << 20).min(total - flow.position));
                match sys::write(end.fd, &bytes) {
                    Ok(count) => {
                        flow.position += count;
                        if count == bytes.len() {
                            continue;
                        }
                    }
                    answer => fails(answer, libc::EAGAIN),
                }
                // After a short count no EAGAIN is needed for the edge to come.
                assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
                waits += 1;
            }
            // A ring may take it all without ever being full.
            assert!(waits > 0 || environment() != Environment::Host);
            end.close();
        },
        |end| assert_eq!(Flow::new(1).read_to_end(end.fd, 300_000), 100 << 20),
    ),
    case("user_data_is_untouched", || {
        let set = epoll();
        let mut random = Random::new(3);
        let mut expected = Vec::new();
        let mut pairs = Vec::new();
        for at in 0..64 {
            let (a, b) = sys::pair();
            let data = match at {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << 63,
                3 => u64::from(u32::MAX),
                4 => (b as u64) << 32 | a as u64,
                _ => random.next(),
            };
            control(set, EPOLL_CTL_ADD, b, EPOLLIN, data).expect("add");
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
            expected.push((EPOLLIN, data));
            pairs.push((a, b));
        }
        expected.sort_by_key(|&(_, data)| data);
        assert_eq!(ready(set, -1), expected);
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 500, 100);
            sys::read_exact(b, 501);
        }
        assert_eq!(ready(set, 0), []);
        for &(a, b) in &pairs {
            control(set, EPOLL_CTL_MOD, b, EPOLLIN, 7).expect("mod");
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
        }
        assert_eq!(ready(set, -1), [(EPOLLIN, 7); 64]);
    }),
    case("one_socket_in_two_sets", || {
        let (a, b) = sys::pair();
        let sets = [epoll(), epoll()];
        control(sets[0], EPOLL_CTL_ADD, b, EPOLLIN | EPOLLET, 100).expect("add");
        control(sets[1], EPOLL_CTL_ADD, b, EPOLLIN, 200).expect("add");
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            ready(sets[0], 0);
            for _ in 0..20 {
                sys::write_all(a, b"x");
                assert_eq!(ready(sets[0], -1), [(EPOLLIN, 100)]);
                assert_eq!(ready(sets[1], -1), [(EPOLLIN, 200)]);
                assert_eq!(ready(sets[0], 0), []);
                assert_eq!(ready(sets[1], 0), [(EPOLLIN, 200)]);
                assert_eq!(sys::read_exact(b, 1), b"x");
                assert_eq!(ready(sets[1], 0), []);
            }
        }
        delete(sets[0], b);
        sys::write_all(a, b"x");
        assert_eq!(ready(sets[1], -1), [(EPOLLIN, 200)]);
        assert_eq!(ready(sets[0], 0), []);
    }),
    case("nested_two_levels", || {
        let (a, b) = sys::pair();
        let (inner, middle, outer) = (epoll(), epoll(), epoll());
        add(inner, b, EPOLLIN);
        add(middle, inner, EPOLLIN);
        add(outer, middle, EPOLLIN);
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            assert_eq!(ready(outer, 0), []);
            thread::scope(|scope| {
                let (waiter, pid) = (sys::gettid(), sys::getpid());
                scope.spawn(move || {
                    sys::let_sleep(pid, waiter);
                    sys::write_all(a, b"x");
                });
                assert_eq!(ready(outer, -1), [(EPOLLIN, middle as u64)]);
            });
            assert_eq!(sys::events(outer, libc::POLLIN), libc::POLLIN, "a set can be polled");
            assert_eq!(ready(middle, 0), [(EPOLLIN, inner as u64)]);
            assert_eq!(ready(inner, 0), [(EPOLLIN, b as u64)]);
            assert_eq!(sys::read_exact(b, 1), b"x");
            assert_eq!(ready(outer, 0), []);
            assert_eq!(sys::events(outer, libc::POLLIN), 0);
        }
        fails(control(inner, EPOLL_CTL_ADD, outer, EPOLLIN, 0), libc::ELOOP);
    }),
    dialogue(
        "ends_and_resets",
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            let (level, edge) = (epoll(), epoll());
            add(level, end.fd, EPOLLIN | EPOLLRDHUP);
            add(edge, end.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
            assert_eq!(ready(edge, -1), [(EPOLLOUT, end.fd as u64)]);
            end.tell();
            assert_eq!(ready(level, -1), [(EPOLLIN | EPOLLRDHUP, end.fd as u64)]);
            assert_eq!(ready(edge, -1), [(EPOLLIN | EPOLLOUT | EPOLLRDHUP, end.fd as u64)]);
            // The kernel wakes twice for a FIN (tcp_fin, then tcp_data_queue): a look in between sees two edges.
            ready(edge, 0);
            assert_eq!(ready(edge, 0), []);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            sys::until(|| ready(level, 0) == [(EPOLLIN | EPOLLRDHUP | EPOLLHUP, end.fd as u64)]);
            modify(level, end.fd, 0);
            assert_eq!(ready(level, 0), [(EPOLLHUP, end.fd as u64)], "HUP cannot be turned off");
            end.tell();
        },
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            end.hear();
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
    ),
    case("a_reset_is_reported", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLRDHUP | EPOLLET);
        assert_eq!(ready(set, 0), []);
        sys::linger_zero(a);
        sys::close(a).expect("close");
        assert_eq!(ready(set, -1), [(EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP, b as u64)]);
        fails(sys::read(b, &mut [0]), libc::ECONNRESET);
    }),
    case("deleted_and_added_again", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        for round in 0..200 {
            add(set, b, [EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT][round % 3]);
            assert_eq!(ready(set, 0), []);
            fails(control(set, EPOLL_CTL_ADD, b, EPOLLIN, 0), libc::EEXIST);
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
            delete(set, b);
            assert_eq!(ready(set, 0), []);
            assert_eq!(sys::events(set, libc::POLLIN), 0, "a set can be polled");
            fails(control(set, EPOLL_CTL_MOD, b, EPOLLIN, 0), libc::ENOENT);
            fails(control(set, EPOLL_CTL_DEL, b, 0, 0), libc::ENOENT);
            add(set, b, EPOLLOUT | if round % 2 == 0 { EPOLLET } else { 0 });
            assert_eq!(ready(set, 0), [(EPOLLOUT, b as u64)]);
            delete(set, b);
            control(set, EPOLL_CTL_ADD, b, EPOLLIN | EPOLLET, 77).expect("add");
            assert_eq!(ready(set, -1), [(EPOLLIN, 77)]);
            assert_eq!(ready(set, 0), []);
            assert_eq!(sys::read_exact(b, 1), b"x");
            delete(set, b);
        }
    }),
    case("an_end_while_deleted_is_told_when_added_again", || {
        for mask in [EPOLLIN | EPOLLRDHUP, EPOLLIN | EPOLLRDHUP | EPOLLET] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 10_000, 500);
            Flow::new(1).read(b, 10_000, 500);
            let set = epoll();
            add(set, b, mask);
            assert_eq!(ready(set, 0), []);
            delete(set, b);
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            sys::until(|| sys::events(b, libc::POLLRDHUP) == libc::POLLRDHUP);
            assert_eq!(ready(set, 0), []);
            add(set, b, mask);
            assert_eq!(ready(set, -1), [(EPOLLIN | EPOLLRDHUP, b as u64)]);
        }
    }),
    case("a_waiter_hears_nothing_of_what_was_deleted", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let (set, stop) = (epoll(), sys::eventfd());
        add(set, b, EPOLLIN);
        add(set, stop, EPOLLIN);
        thread::scope(|scope| {
            let (waiter, pid) = (sys::gettid(), sys::getpid());
            scope.spawn(move || {
                sys::let_sleep(pid, waiter);
                delete(set, b);
                sys::write_all(a, b"x");
                sys::let_sleep(pid, waiter);
                sys::write_all(stop, &1_u64.to_ne_bytes());
            });
            assert_eq!(ready(set, -1), [(EPOLLIN, stop as u64)]);
        });
        assert_eq!(sys::read_exact(b, 1), b"x");
    }),
    case("deleted_and_closed_while_another_name_lives", || {
        let ((a, b), (c, d)) = (sys::pair(), sys::pair());
        for (from, to) in [(a, b), (c, d)] {
            Flow::new(1).write(from, 10_000, 500);
            Flow::new(1).read(to, 10_000, 500);
        }
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLET);
        let name = sys::dup(b);
        delete(set, b);
        sys::close(b).expect("close");
        add(set, d, EPOLLIN | EPOLLOUT | EPOLLET);
        assert_eq!(ready(set, 0), [(EPOLLOUT, d as u64)]);
        sys::write_all(a, b"x");
        assert_eq!(sys::read_exact(name, 1), b"x");
        sys::write_all(a, b"x");
        assert_eq!(ready(set, 0), []);
        sys::write_all(c, b"y");
        assert_eq!(ready(set, -1), [(EPOLLIN | EPOLLOUT, d as u64)]);
        assert_eq!(sys::read_exact(name, 1), b"x");
    }),
    case("many_sets_one_after_the_other", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let sets: Vec<_> = (0..12).map(|_| epoll()).collect();
        for &set in sets.iter().chain(&sets) {
            add(set, b, EPOLLIN);
            sys::write_all(a, b"x");
            assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            delete(set, b);
            assert_eq!(ready(set, 0), []);
            assert_eq!(sys::read_exact(b, 1), b"x");
        }
        assert_on_pipe(b);
    }),
    case("errors", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        let file = sys::file_with(b"file");
        add(set, b, EPOLLIN);
        fails(control(set, EPOLL_CTL_ADD, b, EPOLLIN, 0), libc::EEXIST);
        fails(control(set, EPOLL_CTL_MOD, a, EPOLLIN, 0), libc::ENOENT);
        fails(control(set, EPOLL_CTL_DEL, a, EPOLLIN, 0), libc::ENOENT);
        fails(control(set, EPOLL_CTL_ADD, 9999, EPOLLIN, 0), libc::EBADF);
        fails(control(set, EPOLL_CTL_ADD, -1, EPOLLIN, 0), libc::EBADF);
        fails(control(9999, EPOLL_CTL_ADD, a, EPOLLIN, 0), libc::EBADF);
        fails(control(a, EPOLL_CTL_ADD, b, EPOLLIN, 0), libc::EINVAL);
        fails(control(set, EPOLL_CTL_ADD, set, EPOLLIN, 0), libc::EINVAL);
        fails(control(set, EPOLL_CTL_ADD, file, EPOLLIN, 0), libc::EPERM);
        fails(control(set, 77, b, EPOLLIN, 0), libc::EINVAL);
        fails(control(set, EPOLL_CTL_MOD, b, EPOLLIN | EPOLLEXCLUSIVE, 0), libc::EINVAL);
        fails(control(set, EPOLL_CTL_ADD, a, EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE, 0), libc::EINVAL);
        fails(call!(libc::epoll_ctl(set, EPOLL_CTL_ADD, a, ptr::null_mut())), libc::EFAULT);
        fails(call!(libc::epoll_wait(set, ptr::null_mut(), 0, 0)), libc::EINVAL);
        fails(call!(libc::epoll_wait(set, ptr::null_mut(), -1, 0)), libc::EINVAL);
        fails(epoll_wait(a, 1, 0), libc::EINVAL);
        fails(epoll_wait(9999, 1, 0), libc::EBADF);
        fails(epoll_wait(file, 1, 0), libc::EINVAL);
        fails(call!(libc::epoll_create(0)), libc::EINVAL);
        fails(call!(libc::epoll_create1(77)), libc::EINVAL);
        sys::write_all(a, b"x");
        sys::until(|| sys::readable(b) == 1);
        fails(call!(libc::epoll_wait(set, ptr::null_mut(), 1, 0)), libc::EFAULT);
        assert_eq!(ready(set, 0), [(EPOLLIN, b as u64)], "nothing was lost");
    }),
    case("deleted_while_ready", || {
        let (a, b) = sys::pair();
        let set = epoll();
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            for events in [EPOLLIN, EPOLLIN | EPOLLET] {
                add(set, b, events);
                sys::write_all(a, b"x");
                sys::until(|| sys::readable(b) == 1);
                delete(set, b);
                assert_eq!(ready(set, 0), []);
                assert_eq!(sys::read_exact(b, 1), b"x");
            }
        }
    }),
    case("close_removes_from_the_set", || {
        let set = epoll();
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            add(set, b, EPOLLIN);
            sys::write_all(a, b"x");
            assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            sys::close(b).expect("close");
            assert_eq!(ready(set, 0), []);
            fails(control(set, EPOLL_CTL_DEL, b, 0, 0), libc::EBADF);
            sys::close(a).expect("close");
        }
    }),
    case("close_of_one_of_two_descriptors_does_not", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        let twin = sys::dup(b);
        add(set, b, EPOLLIN);
        sys::close(b).expect("close");
        sys::write_all(a, b"x");
        assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
        sys::close(twin).expect("close");
        assert_eq!(ready(set, 0), []);
    }),
    case("time_outs", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        add(set, b, EPOLLIN);
        let start = Instant::now();
        assert_eq!(ready(set, 50), []);
        assert!(start.elapsed() >= Duration::from_millis(49));
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let mut wait = |seconds, nanoseconds| {
            let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
            epoll_pwait2(set, &mut event, Some(&time))
        };
        let start = Instant::now();
        assert_eq!(wait(0, 20_000_000), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(wait(0, 0), Ok(0));
        assert_eq!(wait(0, 1), Ok(0));
        assert_eq!(wait(0, 1_000_000_000), Err(Errno(libc::EINVAL)));
        assert_eq!(wait(-1, 0), Err(Errno(libc::EINVAL)));
        sys::write_all(a, b"x");
        assert_eq!(wait(3600, 0), Ok(1));
        assert_eq!(epoll_pwait2(set, &mut event, None), Ok(1));
        assert_eq!((event.events as i32, event.u64 as i32), (EPOLLIN, b));
    }),
];

unsafe extern "C" {
    #[link_name = "epoll_pwait2"]
    fn libc_epoll_pwait2(
        set: i32,
        events: *mut libc::epoll_event,
        most: i32,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t,
    ) -> i32;
}

fn epoll_pwait2(set: i32, event: &mut libc::epoll_event, time: Option<&libc::timespec>) -> sys::Answer {
    call!(libc_epoll_pwait2(set, event, 1, time.map_or(ptr::null(), ptr::from_ref), ptr::null()))
}
