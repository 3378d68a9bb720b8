//! Epoll sets within epoll sets.

use std::thread;

use libc::{EPOLLET, EPOLLIN, EPOLLONESHOT, POLLIN};

use crate::data::Flow;
use crate::harness::{Case, case};
use crate::sys;
use crate::sys::wait::{Set, add, epoll, modify, poll_one, ready, select};

pub(crate) const CASES: &[Case] = &[
    case("an_edge_triggered_set_tells_of_each_arrival", || {
        for before in BEFORE {
            let (a, b) = used_pair(before);
            let (outer, inner) = nest(EPOLLIN | EPOLLET, b, EPOLLIN);
            for _ in 0..ROUNDS {
                sys::write_all(a, b"x");
                assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                assert_eq!(sys::read_exact(b, 1), b"x");
                assert_eq!(ready(inner, 0), []);
                assert_eq!(ready(outer, 0), []);
            }
        }
    }),
    case("it_tells_of_an_arrival_behind_unread_bytes", || {
        for before in BEFORE {
            let (a, b) = used_pair(before);
            let (outer, inner) = nest(EPOLLIN | EPOLLET, b, EPOLLIN);
            for looks in [false, true] {
                for _ in 0..ROUNDS {
                    sys::write_all(a, b"x");
                    assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                    if looks {
                        assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                    }
                }
                sys::read_exact(b, ROUNDS);
            }
        }
    }),
    case("a_thread_that_sleeps_in_the_outer_set_hears_of_each_arrival", || {
        for before in BEFORE {
            for (outside, inside) in [
                (EPOLLIN | EPOLLET, EPOLLIN),
                (EPOLLIN | EPOLLET, EPOLLIN | EPOLLET),
                (EPOLLIN, EPOLLIN),
                (EPOLLIN, EPOLLIN | EPOLLET),
            ] {
                let (a, b) = used_pair(before);
                let (outer, inner) = nest(outside, b, inside);
                let caller = sys::gettid();
                let (go, gone) = sys::socketpair();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for _ in 0..ROUNDS {
                            sys::read_exact(gone, 1);
                            sys::let_sleep(sys::getpid(), caller);
                            sys::write_all(a, b"x");
                        }
                    });
                    for _ in 0..ROUNDS {
                        sys::write_all(go, b"!");
                        assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                        assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                        assert_eq!(sys::read_exact(b, 1), b"x");
                    }
                });
            }
        }
    }),
    case("a_set_in_two_sets_tells_both", || {
        for before in BEFORE {
            let (a, b) = used_pair(before);
            let (outer, inner) = nest(EPOLLIN | EPOLLET, b, EPOLLIN);
            let (edge, level) = (epoll(), epoll());
            add(edge, inner, EPOLLIN | EPOLLET);
            add(level, inner, EPOLLIN);
            for _ in 0..ROUNDS {
                sys::write_all(a, b"x");
                for set in [outer, edge, level, level] {
                    assert_eq!(ready(set, -1), [(EPOLLIN, inner as u64)]);
                }
                assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                assert_eq!(sys::read_exact(b, 1), b"x");
                for set in [outer, edge, level] {
                    assert_eq!(ready(set, 0), []);
                }
            }
        }
    }),
    case("three_deep", || {
        for before in BEFORE {
            for (outside, middle) in [
                (EPOLLIN | EPOLLET, EPOLLIN | EPOLLET),
                (EPOLLIN | EPOLLET, EPOLLIN),
                (EPOLLIN, EPOLLIN | EPOLLET),
                (EPOLLIN, EPOLLIN),
            ] {
                let (a, b) = used_pair(before);
                let (mid, inner) = nest(middle, b, EPOLLIN);
                let outer = epoll();
                add(outer, mid, outside);
                for _ in 0..ROUNDS {
                    sys::write_all(a, b"x");
                    assert_eq!(ready(outer, -1), [(EPOLLIN, mid as u64)]);
                    assert_eq!(ready(mid, -1), [(EPOLLIN, inner as u64)]);
                    assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                    assert_eq!(sys::read_exact(b, 1), b"x");
                    assert_eq!(ready(inner, 0), []);
                    assert_eq!(ready(mid, 0), []);
                    assert_eq!(ready(outer, 0), []);
                }
            }
        }
    }),
    case("a_one_shot_set_tells_once_for_each_arming", || {
        for before in BEFORE {
            for kind in [0, EPOLLET] {
                let (a, b) = used_pair(before);
                let armed = EPOLLIN | EPOLLONESHOT | kind;
                let (outer, inner) = nest(armed, b, EPOLLIN);
                for _ in 0..ROUNDS {
                    sys::write_all(a, b"xy");
                    assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                    assert_eq!(ready(outer, 0), []);
                    assert_eq!(sys::read_exact(b, 1), b"x");
                    modify(outer, inner, armed);
                    assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                    assert_eq!(sys::read_exact(b, 1), b"y");
                    modify(outer, inner, armed);
                    assert_eq!(ready(outer, 0), []);
                }
            }
        }
    }),
    case("a_level_triggered_set_tells_until_all_is_read", || {
        for before in BEFORE {
            let (a, b) = used_pair(before);
            let (outer, inner) = nest(EPOLLIN, b, EPOLLIN);
            for _ in 0..ROUNDS {
                sys::write_all(a, b"xy");
                for _ in 0..2 {
                    assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
                    assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
                    assert_eq!(poll_one(outer, POLLIN, -1), POLLIN);
                    assert_eq!(poll_one(inner, POLLIN, -1), POLLIN);
                    let mut set = Set::of(&[outer]);
                    assert_eq!(select(Some(&mut set), None, None, -1), Ok(1));
                    sys::read_exact(b, 1);
                }
                assert_eq!(ready(outer, 0), []);
                assert_eq!(poll_one(outer, POLLIN, 0), 0);
            }
        }
    }),
    case("a_descriptor_of_the_kernels_beside_a_connection", || {
        let (a, b) = used_pair(10_000);
        let (outer, inner) = nest(EPOLLIN | EPOLLET, b, EPOLLIN);
        let event = sys::eventfd();
        add(inner, event, EPOLLIN);
        for _ in 0..ROUNDS {
            sys::write_all(event, &1_u64.to_ne_bytes());
            assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
            assert_eq!(ready(inner, -1), [(EPOLLIN, event as u64)]);
            sys::read_exact(event, 8);
            sys::write_all(a, b"x");
            assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
            assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
            sys::read_exact(b, 1);
        }
    }),
    case("a_busy_set_that_is_told_of_does_not_keep_its_waiter_busy", || {
        // What was reported and is unread is no reason to stay awake.
        let (a, b) = used_pair(10_000);
        let (outer, inner) = nest(EPOLLIN | EPOLLET, b, EPOLLIN);
        for _ in 0..5 {
            sys::write_all(a, b"x");
            assert_eq!(ready(outer, -1), [(EPOLLIN, inner as u64)]);
            assert_eq!(ready(inner, -1), [(EPOLLIN, b as u64)]);
            let before = processor_time();
            assert_eq!(ready(outer, 100), []);
            let spent = processor_time() - before;
            assert!(spent < 50_000_000, "{spent} ns of 100 ms were spent");
            sys::read_exact(b, 1);
        }
    }),
];

const ROUNDS: usize = 20;
const BEFORE: [usize; 2] = [0, 10_000];

/// A set in another one, and in it a descriptor.
fn nest(outside: i32, fd: i32, inside: i32) -> (i32, i32) {
    let (outer, inner) = (epoll(), epoll());
    add(inner, fd, inside);
    add(outer, inner, outside);
    (outer, inner)
}

/// A pair that has carried some bytes.
fn used_pair(before: usize) -> (i32, i32) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    (a, b)
}

/// Nanoseconds of the processor that this thread has used.
fn processor_time() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys::call!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time)).expect("clock_gettime");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
