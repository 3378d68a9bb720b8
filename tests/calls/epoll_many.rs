//! epoll with many connections, threads and processes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDHUP};

use crate::data::{Flow, Random};
use crate::harness::{Case, Child, case};
use crate::sys::raw::Way;
use crate::sys::wait::{add, control, epoll, epoll_wait, modify, ready};
use crate::sys::{self, Errno};

pub(crate) const CASES: &[Case] = &[
    case("fifty_connections_level", || fifty(EPOLLIN)),
    case("fifty_connections_edge", || fifty(EPOLLIN | EPOLLET)),
    case("fifty_connections_edge_both_ways", || fifty(EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)),
    case("fifty_connections_one_shot", || fifty(EPOLLIN | EPOLLONESHOT)),
    case("an_echo_server_with_random_clients", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let server = Child::run(|| echo_server(listener, 50));
        let clients: Vec<_> = (0..2)
            .map(|half| {
                Child::run(move || {
                    let fds: Vec<_> = (0..25).map(|_| sys::connected(libc::AF_INET, port)).collect();
                    let mut random = Random::new(half);
                    let mut flows = vec![(Flow::new(1), Flow::new(1)); 25];
                    for _ in 0..3000 {
                        let (at, size) = (random.within(0, 24), random.size(13));
                        flows[at].0.write(fds[at], size, size);
                        flows[at].1.read(fds[at], size, size);
                    }
                })
            })
            .collect();
        sys::close(listener).expect("close");
        clients.into_iter().for_each(Child::join);
        server.join();
    }),
    case("kernel_descriptors_are_not_starved", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let (set, event, timer) = (epoll(), sys::eventfd(), sys::timerfd(20));
        let (listener, port) = sys::listener(libc::AF_INET);
        add(set, b, EPOLLIN);
        add(set, event, EPOLLIN);
        add(set, timer, EPOLLIN);
        add(set, listener, EPOLLIN);
        sys::write_all(a, b"x"); // always ready from now on
        thread::scope(|scope| {
            scope.spawn(|| {
                sys::write_all(event, &1_u64.to_ne_bytes());
                sys::connected(libc::AF_INET, port)
            });
            let mut seen = HashSet::new();
            while seen.len() < 4 {
                // One event at a time: they must take turns.
                for (events, data) in epoll_wait(set, 1, -1).expect("epoll_wait") {
                    assert_eq!(events, EPOLLIN);
                    seen.insert(data);
                }
            }
        });
    }),
    case("an_end_has_its_place_among_kernel_descriptors", || {
        for end_first in [true, false] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 10_000, 500);
            Flow::new(1).read(b, 10_000, 500);
            let (set, event) = (epoll(), sys::eventfd());
            add(set, b, EPOLLIN);
            add(set, event, EPOLLIN);
            assert_eq!(epoll_wait(set, 8, 0).expect("epoll_wait"), []);
            let end = || {
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                // Past the library, which would remember the end.
                while Way::Past.poll(b, libc::POLLRDHUP, -1) == 0 {}
            };
            if end_first {
                end();
            }
            sys::write_all(event, &1_u64.to_ne_bytes());
            if !end_first {
                end();
            }
            // While pipes are ready the kernel is asked every 200 us.
            thread::sleep(Duration::from_millis(2));
            let told = epoll_wait(set, 8, 0).expect("epoll_wait");
            let order: Vec<_> = told.iter().map(|&(_, data)| data).collect();
            let (end, event) = (b as u64, event as u64);
            assert_eq!(order, if end_first { [end, event] } else { [event, end] });
        }
    }),
    case("one_event_at_a_time_goes_round", || {
        let pairs: Vec<_> = (0..10).map(|_| sys::pair()).collect();
        let set = epoll();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
            add(set, b, EPOLLIN);
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
        }
        let mut seen = HashSet::new();
        for _ in 0..10 {
            let events = epoll_wait(set, 1, -1).expect("epoll_wait");
            assert_eq!(events.len(), 1);
            assert!(seen.insert(events[0].1), "each in its turn");
        }
        assert_eq!(epoll_wait(set, 4, -1).expect("epoll_wait").len(), 4);
    }),
    case("what_was_ready_first_is_told_first", || {
        let pairs: Vec<_> = (0..10).map(|_| sys::pair()).collect();
        let set = epoll();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
        }
        for &(_, b) in &pairs {
            add(set, b, EPOLLIN);
        }
        let told = || epoll_wait(set, 16, -1).expect("epoll_wait");
        let expected: Vec<_> = pairs.iter().map(|&(_, b)| (EPOLLIN, b as u64)).collect();
        assert_eq!(told(), expected);
        // A level is told again, in the same order.
        assert_eq!(told(), expected);
    }),
    case("what_one_process_wrote_first_is_told_first", || {
        let pairs: Vec<_> = (0..5).map(|_| sys::pair()).collect();
        let set = epoll();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 10_000, 100);
            Flow::new(1).read(b, 10_000, 100);
            add(set, b, EPOLLIN);
        }
        let acknowledged = sys::pair();
        let server = Child::run(|| {
            for round in 0..3000 {
                let (mut order, mut told) = (Vec::new(), Vec::new());
                while order.len() < 4 {
                    for (_, data) in epoll_wait(set, 16, -1).expect("epoll_wait") {
                        // The place in the order, and the connection, as the writer says it.
                        order.extend(sys::read_exact(data as i32, 1));
                        told.push(data);
                    }
                }
                // The first rounds are for those that still have to come into the ring: across the lanes nobody knows.
                assert!(round < 50 || order == [0, 1, 2, 3], "{order:?} of {told:?} in round {round}");
                // Until this look the kernel itself keeps level-triggered ones in the order of the last report.
                assert_eq!(epoll_wait(set, 16, 0).expect("epoll_wait"), []);
                sys::write_all(acknowledged.1, b"x");
            }
        });
        let mut random = Random::new(1);
        for _ in 0..3000 {
            let first = random.within(0, 4);
            for place in 0..4 {
                sys::write_all(pairs[(first + place * 2) % 5].0, &[place as u8]);
            }
            sys::read_exact(acknowledged.0, 1);
        }
        server.join();
    }),
    case("mod_by_another_thread_wakes_a_waiter", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        for _ in 0..20 {
            control(set, EPOLL_CTL_ADD, b, 0, b as u64).expect("add");
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
            thread::scope(|scope| {
                let (waiter, pid) = (sys::gettid(), sys::getpid());
                scope.spawn(move || {
                    sys::let_sleep(pid, waiter);
                    modify(set, b, EPOLLIN | EPOLLET);
                });
                assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            });
            assert_eq!(sys::read_exact(b, 1), b"x");
            crate::sys::wait::delete(set, b);
            // The same with a socket that is added while another thread waits.
            sys::write_all(a, b"y");
            sys::until(|| sys::readable(b) == 1);
            thread::scope(|scope| {
                let (waiter, pid) = (sys::gettid(), sys::getpid());
                scope.spawn(move || {
                    sys::let_sleep(pid, waiter);
                    add(set, b, EPOLLIN);
                });
                assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            });
            crate::sys::wait::delete(set, b);
            assert_eq!(sys::read_exact(b, 1), b"y");
        }
    }),
    case("a_set_that_is_closed_under_a_wait_takes_nothing_from_the_next_one", || {
        let (a, b) = sys::pair();
        let (c, d) = sys::pair();
        for (from, to) in [(a, b), (c, d)] {
            Flow::new(1).write(from, 10_000, 500);
            Flow::new(1).read(to, 10_000, 500);
        }
        for _ in 0..20 {
            let set = epoll();
            add(set, b, EPOLLIN);
            // So that the wait is for a connection that was active a moment ago.
            sys::write_all(a, b"x");
            assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            assert_eq!(sys::read_exact(b, 1), b"x");
            let (waiter, pid) = (AtomicI32::new(0), sys::getpid());
            let waiter = &waiter;
            thread::scope(|scope| {
                let waits = scope.spawn(move || {
                    waiter.store(sys::gettid(), Ordering::Relaxed);
                    epoll_wait(set, 8, 20)
                });
                sys::until(|| waiter.load(Ordering::Relaxed) != 0);
                sys::let_sleep(pid, waiter.load(Ordering::Relaxed));
                sys::close(set).expect("close");
                // The number is the next set's.
                assert_eq!(epoll(), set);
                add(set, d, EPOLLIN | EPOLLET);
                sys::write_all(c, b"y");
                // In the kernel the wait goes on in the first set, where nothing happens.
                let told = waits.join().expect("a wait");
                assert!(matches!(told.as_deref(), Ok([]) | Err(Errno(libc::EBADF))), "{told:?}");
            });
            assert_eq!(ready(set, -1), [(EPOLLIN, d as u64)]);
            assert_eq!(sys::read_exact(d, 1), b"y");
            sys::close(set).expect("close");
        }
    }),
    case("what_is_left_is_told_when_another_thread_arms_again", || {
        const ROUNDS: usize = 1000;
        let (a, b) = sys::pair();
        let (mut sent, mut received) = (Flow::new(1), Flow::new(1));
        sent.write(a, 10_000, 500);
        received.read(b, 10_000, 500);
        // More than a ring takes: the rest waits in the kernel, which tells of it once.
        let piece = sent.fill_up(a) / ROUNDS;
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLONESHOT);
        armed_by_another_thread(set, b, EPOLLIN, ROUNDS, || received.read(b, piece, piece));
    }),
    case("room_is_told_when_another_thread_arms_again", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        add(set, a, EPOLLOUT | EPOLLONESHOT);
        armed_by_another_thread(set, a, EPOLLOUT, 1000, || {});
    }),
    case("changes_by_another_thread_lose_no_edge", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLET);
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    modify(set, b, EPOLLIN | EPOLLET);
                    crate::sys::wait::delete(set, b);
                    add(set, b, EPOLLIN | EPOLLET);
                }
            });
            for round in 0..2000 {
                sys::write_all(a, &[round as u8]);
                // Each addition is an edge: one that comes with nothing to read is followed by others.
                loop {
                    assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
                    match sys::recv(b, &mut [0], libc::MSG_DONTWAIT) {
                        Ok(count) => break assert_eq!(count, 1),
                        Err(error) => assert_eq!(error, Errno(libc::EAGAIN)),
                    }
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
    }),
    case("a_set_shared_over_fork_reports_an_edge_once", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let set = epoll();
        add(set, b, EPOLLIN | EPOLLET);
        assert_eq!(ready(set, 0), []);
        let (sync, theirs) = sys::socketpair();
        let child = Child::run(|| {
            for _ in 0..20 {
                sys::read_exact(theirs, 1);
                let seen = ready(set, 0).len() as u8;
                sys::write_all(theirs, &[seen]);
            }
        });
        for round in 0..20 {
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) > round);
            let here_first = round % 2 == 0;
            let mut seen = if here_first { ready(set, -1).len() as u8 } else { 0 };
            sys::write_all(sync, b"?");
            seen += sys::read_exact(sync, 1)[0];
            seen += ready(set, 0).len() as u8;
            assert_eq!(seen, 1, "round {round}");
        }
        child.join();
    }),
    case("a_child_uses_the_set_after_the_parent_is_done_with_it", || {
        let (a, b) = sys::pair();
        let set = epoll();
        add(set, b, EPOLLIN);
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let child = Child::run(|| {
            sys::close(a).expect("close");
            let mut flow = Flow::new(2);
            loop {
                assert_eq!(ready(set, -1).len(), 1);
                let mut buffer = [0; 333];
                match sys::recv(b, &mut buffer, libc::MSG_DONTWAIT).expect("recv") {
                    0 => break assert_eq!(flow.position, 300_000),
                    count => flow.check(&buffer[..count]),
                }
            }
        });
        sys::close(set).expect("close");
        sys::close(b).expect("close");
        Flow::new(2).write(a, 300_000, 999);
        sys::close(a).expect("close");
        child.join();
    }),
    case("many_threads_wait_on_one_set", || {
        // One-shot: each byte is handled by exactly one thread, and none is forgotten.
        let pairs: Vec<_> = (0..8).map(|_| sys::pair()).collect();
        let set = epoll();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
            add(set, b, EPOLLIN | EPOLLONESHOT);
        }
        let (taken, total) = (AtomicUsize::new(0), 8 * 2000);
        let stop = sys::eventfd();
        control(set, EPOLL_CTL_ADD, stop, EPOLLIN, u64::MAX).expect("add");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        for (_, data) in epoll_wait(set, 3, -1).expect("epoll_wait") {
                            if data == u64::MAX {
                                return;
                            }
                            let mut buffer = [0; 64];
                            let count =
                                sys::recv(data as i32, &mut buffer, libc::MSG_DONTWAIT).expect("recv");
                            let now = taken.fetch_add(count, Ordering::SeqCst) + count;
                            modify(set, data as i32, EPOLLIN | EPOLLONESHOT);
                            if now == total {
                                sys::write_all(stop, &1_u64.to_ne_bytes());
                            }
                        }
                    }
                });
            }
            let mut random = Random::new(1);
            let mut left = [2000; 8];
            while left.iter().any(|&each| each > 0) {
                let at = random.within(0, 7);
                let size = random.within(1, 20).min(left[at]);
                sys::write_all(pairs[at].0, &vec![1; size]);
                left[at] -= size;
            }
        });
        assert_eq!(taken.load(Ordering::SeqCst), total);
    }),
    case("edge_wakes_one_of_many_waiters", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let (set, stop) = (epoll(), sys::eventfd());
        add(set, b, EPOLLIN | EPOLLET);
        control(set, EPOLL_CTL_ADD, stop, EPOLLIN, u64::MAX).expect("add");
        let wakes = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let events = epoll_wait(set, 1, -1).expect("epoll_wait");
                        if events[0].1 == u64::MAX {
                            return;
                        }
                        wakes.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for round in 1..=50 {
                sys::write_all(a, b"x");
                sys::until(|| wakes.load(Ordering::SeqCst) >= round);
            }
            sys::write_all(stop, &1_u64.to_ne_bytes());
        });
        assert_eq!(wakes.load(Ordering::SeqCst), 50);
    }),
    case("exclusive_wakes_at_least_one", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let sets: Vec<_> = (0..4).map(|_| epoll()).collect();
        for &set in &sets {
            add(set, b, EPOLLIN | EPOLLEXCLUSIVE);
        }
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for &set in &sets {
                let taken = &taken;
                scope.spawn(move || {
                    while taken.load(Ordering::SeqCst) < 100 {
                        // The end of the test is the end of the stream, which all see.
                        assert!(!ready(set, -1).is_empty());
                        match sys::recv(b, &mut [0], libc::MSG_DONTWAIT) {
                            Ok(0) => break,
                            Ok(count) => _ = taken.fetch_add(count, Ordering::SeqCst),
                            Err(error) => assert_eq!(error, Errno(libc::EAGAIN)),
                        }
                    }
                });
            }
            for round in 1..=100 {
                sys::write_all(a, b"x");
                sys::until(|| taken.load(Ordering::SeqCst) == round);
            }
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        });
    }),
];

/// Waits `rounds` times for one event of a one-shot registration, which another thread arms again each time, after `before`.
#[track_caller]
fn armed_by_another_thread(set: i32, fd: i32, event: i32, rounds: usize, mut before: impl FnMut() + Send) {
    let told = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                // At once, while the waiter is on its way to sleep.
                while told.load(Ordering::SeqCst) < round {
                    thread::yield_now();
                }
                before();
                modify(set, fd, event | EPOLLONESHOT);
            }
        });
        for _ in 0..rounds {
            assert_eq!(ready(set, -1), [(event, fd as u64)]);
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// Random traffic on fifty connections, all read from one loop.
fn fifty(events: i32) {
    let pairs: Vec<_> = (0..50).map(|_| sys::pair()).collect();
    let set = epoll();
    for (at, &(_, b)) in pairs.iter().enumerate() {
        sys::set_nonblocking(b, true);
        control(set, EPOLL_CTL_ADD, b, events, at as u64).expect("add");
    }
    thread::scope(|scope| {
        let writers = &pairs;
        scope.spawn(move || {
            let mut random = Random::new(events as u64);
            let mut flows: Vec<_> = (0..50).map(Flow::new).collect();
            for _ in 0..20_000 {
                let at = random.within(0, 49);
                let size = random.size(12);
                flows[at].write(writers[at].0, size, size);
            }
            for &(a, _) in writers {
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            }
        });
        let mut flows: Vec<_> = (0..50).map(Flow::new).collect();
        let (mut open, mut random) = (50, Random::new(8));
        let mut ended = [false; 50];
        while open > 0 {
            let most = random.within(1, 64);
            for (_, data) in epoll_wait(set, most, -1).expect("epoll_wait") {
                let (at, fd) = (data as usize, pairs[data as usize].1);
                let answer = if events & EPOLLET != 0 {
                    flows[at].drain(fd).1
                } else {
                    let mut buffer = vec![0; random.size(12)];
                    let answer = sys::read(fd, &mut buffer);
                    flows[at].check(&buffer[..answer.unwrap_or(0)]);
                    answer
                };
                match answer {
                    Ok(0) if !ended[at] => {
                        ended[at] = true;
                        open -= 1;
                        crate::sys::wait::delete(set, fd);
                    }
                    Ok(_) => {}
                    Err(error) => assert_eq!(error, Errno(libc::EAGAIN)),
                }
                if events & EPOLLONESHOT != 0 && !ended[at] {
                    control(set, libc::EPOLL_CTL_MOD, fd, events, data).expect("mod");
                }
            }
        }
    });
}

/// Accepts `clients` connections and echoes all of them until each has ended.
fn echo_server(listener: i32, clients: usize) {
    let set = epoll();
    sys::set_nonblocking(listener, true);
    add(set, listener, EPOLLIN);
    let mut ended = 0;
    let mut buffer = vec![0; 5000];
    while ended < clients {
        for (_, data) in epoll_wait(set, 16, -1).expect("epoll_wait") {
            if data == listener as u64 {
                while let Ok(fd) = sys::accept4(listener, libc::SOCK_NONBLOCK) {
                    add(set, fd, EPOLLIN);
                }
                continue;
            }
            match sys::read(data as i32, &mut buffer) {
                Ok(0) => {
                    ended += 1;
                    sys::close(data as i32).expect("close");
                }
                Ok(count) => sys::write_all(data as i32, &buffer[..count]),
                Err(error) => assert_eq!(error, Errno(libc::EAGAIN)),
            }
        }
    }
}
