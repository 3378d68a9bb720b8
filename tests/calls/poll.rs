//! poll, ppoll, select and pselect.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP};

use crate::data::Flow;
use crate::harness::{Case, assert_on_pipe, case, dialogue};
use crate::sys::wait::{Set, entry, select};
use crate::sys::{self, call, events, fails, poll, poll_one};

pub(crate) const CASES: &[Case] = &[
    case("urgent_data_is_heard_of_by_one_who_waits_for_it_and_for_bytes", || {
        for round in 0..10 {
            let (a, b) = sys::pair();
            thread::scope(|scope| {
                let answering = scope.spawn(|| {
                    loop {
                        let told = poll_one(b, POLLIN | POLLPRI, 10_000);
                        if told != POLLIN {
                            return told;
                        }
                        sys::write_all(b, &sys::read_exact(b, 50));
                    }
                });
                for _ in 0..200 {
                    sys::write_all(a, &[b'x'; 50]);
                    assert_eq!(poll_one(a, POLLIN | POLLPRI, 10_000), POLLIN);
                    assert_eq!(sys::read_exact(a, 50), [b'x'; 50]);
                }
                // Perhaps it waits awake, or only for a while, or sleeps.
                thread::sleep(Duration::from_micros(round * round * 100));
                assert_eq!(sys::send(a, b"u", libc::MSG_OOB), Ok(1));
                assert_eq!(answering.join().expect("the other end"), POLLPRI);
            });
            assert_eq!(sys::recv(b, &mut [0], libc::MSG_OOB), Ok(1));
            assert_eq!(events(b, POLLIN | POLLPRI), 0);
            [a, b].into_iter().for_each(|fd| _ = sys::close(fd));
        }
    }),
    case("a_number_that_becomes_another_sockets_while_a_poll_sleeps", || {
        let ((_a, b), (c, d), event) = (sys::pair(), sys::pair(), sys::eventfd());
        let (poller, reader) = (AtomicI32::new(0), AtomicI32::new(0));
        thread::scope(|scope| {
            let polled = scope.spawn(|| {
                poller.store(sys::gettid(), Ordering::SeqCst);
                let mut entries = [entry(b, POLLIN), entry(event, POLLIN)];
                (poll(&mut entries, -1), entries[1].revents)
            });
            sys::until(|| poller.load(Ordering::SeqCst) != 0);
            sys::let_sleep(sys::getpid(), poller.load(Ordering::SeqCst));
            sys::dup2(d, b).expect("dup2");
            // A plain read, which knows of no doorbells, sleeps on the number's next socket.
            let read = scope.spawn(|| {
                reader.store(sys::gettid(), Ordering::SeqCst);
                sys::read_exact(b, 5)
            });
            sys::until(|| reader.load(Ordering::SeqCst) != 0);
            sys::let_sleep(sys::getpid(), reader.load(Ordering::SeqCst));
            sys::write_all(event, &1_u64.to_ne_bytes());
            assert_eq!(polled.join().expect("the poller"), (Ok(1), POLLIN));
            // What it takes to come onto a pipe.
            for _ in 0..10 {
                sys::write_all(d, &[b'x'; 50]);
                assert_eq!(sys::read_exact(c, 50), [b'x'; 50]);
            }
            sys::write_all(c, b"bytes");
            assert_eq!(read.join().expect("the reader"), b"bytes");
        });
    }),
    dialogue(
        "masks_in_each_state",
        |end| {
            for before in [0, 10_000] {
                Flow::new(1).write(end.fd, before, 500);
                end.hear();
                sys::write_all(end.fd, b"abc");
                end.hear();
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(events(end.fd, ALL), POLLOUT);
            end.tell();
            // Both directions shut.
            assert_eq!(poll_one(end.fd, POLLRDHUP, -1), POLLHUP | POLLRDHUP);
            assert_eq!(events(end.fd, ALL), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
            assert_eq!(events(end.fd, 0), POLLHUP);
            end.tell();
        },
        |end| {
            for before in [0, 10_000] {
                Flow::new(1).read(end.fd, before, 500);
                assert_eq!(events(end.fd, ALL), POLLOUT);
                assert_eq!(events(end.fd, POLLIN), 0);
                assert_eq!(events(end.fd, 0), 0);
                end.tell();
                assert_eq!(poll_one(end.fd, POLLIN, -1), POLLIN);
                assert_eq!(
                    events(end.fd, ALL | libc::POLLRDNORM | libc::POLLWRNORM),
                    POLLIN | POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM
                );
                assert_eq!(sys::read_exact(end.fd, 3), b"abc");
                assert_eq!(events(end.fd, ALL), POLLOUT);
                end.tell();
            }
            end.hear();
            assert_eq!(poll_one(end.fd, POLLRDHUP, -1), POLLRDHUP);
            assert_eq!(events(end.fd, ALL), POLLIN | POLLOUT | POLLRDHUP);
            assert_eq!(events(end.fd, POLLOUT), POLLOUT);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            sys::until(|| events(end.fd, ALL) == POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
            end.hear();
        },
    ),
    dialogue(
        "a_full_pipe_is_not_writable_until_it_is_drained",
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..3 {
                flow.fill_up(end.fd);
                assert_eq!(events(end.fd, ALL), 0);
                end.tell();
                assert_eq!(poll_one(end.fd, POLLOUT, -1), POLLOUT);
                assert_eq!(select(None, Some(&mut Set::of(&[end.fd])), None, -1), Ok(1));
                end.tell();
            }
            end.close();
        },
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..3 {
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
        "woken_by_the_other_end",
        |end| {
            for _ in 0..300 {
                end.hear();
                sys::write_all(end.fd, b"x");
            }
        },
        |end| {
            for round in 0..300 {
                end.tell();
                match round % 4 {
                    0 => assert_eq!(poll_one(end.fd, POLLIN, -1), POLLIN),
                    1 => assert_eq!(poll_one(end.fd, POLLIN | POLLRDHUP, 600_000), POLLIN),
                    2 => assert_eq!(select(Some(&mut Set::of(&[end.fd])), None, None, -1), Ok(1)),
                    _ => {
                        let mut one = entry(end.fd, POLLIN);
                        assert_eq!(call!(libc::ppoll(&mut one, 1, ptr::null(), ptr::null())), Ok(1));
                        assert_eq!(one.revents, POLLIN);
                    }
                }
                assert_eq!(sys::read(end.fd, &mut [0; 9]), Ok(1));
            }
            assert_on_pipe(end.fd);
        },
    ),
    case("mixed_with_other_kinds_of_descriptors", || {
        let (a, b) = sys::pair();
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let ((read_end, write_end), event, timer) =
                (sys::pipe(), sys::eventfd(), sys::timerfd(10_000_000));
            let mut all = [
                entry(b, POLLIN),
                entry(read_end, POLLIN),
                entry(event, POLLIN),
                entry(timer, POLLIN),
                entry(-1, POLLIN),
                entry(a, POLLOUT),
                entry(9999, POLLIN),
                entry(b, POLLOUT),
            ];
            assert_eq!(poll(&mut all, -1), Ok(3));
            assert_eq!(all.map(|each| each.revents), [0, 0, 0, 0, 0, POLLOUT, POLLNVAL, POLLOUT]);
            sys::write_all(a, b"x");
            sys::write_all(write_end, b"x");
            sys::write_all(event, &1_u64.to_ne_bytes());
            sys::until(|| sys::readable(b) == 1);
            assert_eq!(poll(&mut all, -1), Ok(6));
            let expected = [POLLIN, POLLIN, POLLIN, 0, 0, POLLOUT, POLLNVAL, POLLOUT];
            assert_eq!(all.map(|each| each.revents), expected);
            assert_eq!(sys::read_exact(b, 1), b"x");
            // Woken by a kernel descriptor while a connection is in the list.
            let soon = sys::timerfd(30);
            let mut all = [entry(b, POLLIN), entry(soon, POLLIN)];
            assert_eq!(poll(&mut all, -1), Ok(1));
            assert_eq!(all.map(|each| each.revents), [0, POLLIN]);
            // And by the connection while kernel descriptors are.
            thread::scope(|scope| {
                let (waiter, pid) = (sys::gettid(), sys::getpid());
                scope.spawn(move || {
                    sys::let_sleep(pid, waiter);
                    sys::write_all(a, b"y");
                });
                let mut all = [entry(timer, POLLIN), entry(b, POLLIN)];
                assert_eq!(poll(&mut all, -1), Ok(1));
                assert_eq!(all.map(|each| each.revents), [0, POLLIN]);
            });
            assert_eq!(sys::read_exact(b, 1), b"y");
        }
    }),
    case("time_outs", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        assert_eq!(poll(&mut [entry(b, POLLIN)], 0), Ok(0));
        let start = Instant::now();
        assert_eq!(poll(&mut [entry(b, POLLIN)], 50), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(50));
        let start = Instant::now();
        assert_eq!(poll(&mut [], 50), Ok(0), "a sleep");
        assert!(start.elapsed() >= Duration::from_millis(50));
        let start = Instant::now();
        let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        assert_eq!(call!(libc::ppoll(&mut entry(b, POLLIN), 1, &time, ptr::null())), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(time.tv_nsec, 50_000_000, "ppoll leaves it alone");
        let start = Instant::now();
        assert_eq!(select(Some(&mut Set::of(&[b])), None, None, 50), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(select(None, None, None, 1), Ok(0));
        let mut time = libc::timeval { tv_sec: 3600, tv_usec: 0 };
        let mut set = Set::of(&[a]);
        let none = ptr::null_mut();
        assert_eq!(call!(libc::select(a + 1, none, set.pointer(), none, &mut time)), Ok(1));
        assert!(time.tv_sec <= 3600 && time.tv_sec >= 3000, "select writes the rest back");
        let bad = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
        fails(call!(libc::ppoll(&mut entry(b, POLLIN), 1, &bad, ptr::null())), libc::EINVAL);
        let mut bad = libc::timeval { tv_sec: -1, tv_usec: 0 };
        fails(call!(libc::select(0, none, none, none, &mut bad)), libc::EINVAL);
    }),
    case("bad_lists", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        fails(call!(libc::poll(ptr::null_mut(), 1, 0)), libc::EFAULT);
        assert_eq!(call!(libc::poll(ptr::null_mut(), 0, 0)), Ok(0));
        fails(call!(libc::poll(ptr::null_mut(), u64::from(u32::MAX), 0)), libc::EINVAL);
        sys::close(a).expect("close");
        assert_eq!(events(a, ALL), POLLNVAL);
        fails(select(Some(&mut Set::of(&[a])), None, None, 0), libc::EBADF);
        fails(select(Some(&mut Set::of(&[b, a])), None, None, -1), libc::EBADF);
        fails(
            call!(libc::select(-1, ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut())),
            libc::EINVAL,
        );
    }),
    dialogue(
        "select_sets",
        |end| {
            end.hear();
            sys::write_all(end.fd, b"abc");
            end.hear();
            end.close();
        },
        |end| {
            let (read_end, _write_end) = sys::pipe();
            let ask = || {
                let mut sets = [(); 3].map(|()| Set::of(&[end.fd, read_end]));
                let [read, write, except] = &mut sets;
                let count = select(Some(read), Some(write), Some(except), 0).expect("select");
                (count, sets.map(|set| set.has(end.fd)))
            };
            assert_eq!(ask(), (1, [false, true, false]));
            end.tell();
            assert_eq!(select(Some(&mut Set::of(&[end.fd, read_end])), None, None, -1), Ok(1));
            assert_eq!(ask(), (2, [true, true, false]));
            assert_eq!(sys::read_exact(end.fd, 3), b"abc");
            assert_eq!(ask(), (1, [false, true, false]));
            end.tell();
            let mut set = Set::of(&[end.fd, read_end]);
            assert_eq!(select(Some(&mut set), None, None, -1), Ok(1));
            assert!(set.has(end.fd) && !set.has(read_end));
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
    ),
    case("one_descriptor_many_times", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        sys::write_all(a, b"x");
        sys::until(|| sys::readable(b) == 1);
        let mut all = vec![entry(b, POLLIN); 500];
        all.extend(vec![entry(b, POLLOUT); 500]);
        assert_eq!(poll(&mut all, -1), Ok(1000));
        assert!(all[..500].iter().all(|each| each.revents == POLLIN));
        assert!(all[500..].iter().all(|each| each.revents == POLLOUT));
    }),
    case("many_connections_one_ready", || {
        let pairs: Vec<_> = (0..100).map(|_| sys::pair()).collect();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
        }
        thread::scope(|scope| {
            let (waiter, pid, pairs) = (sys::gettid(), sys::getpid(), &pairs);
            let (gone, come) = std::sync::mpsc::channel();
            scope.spawn(move || {
                for at in come {
                    sys::let_sleep(pid, waiter);
                    let (a, _): (i32, i32) = pairs[at];
                    sys::write_all(a, b"x");
                }
            });
            for at in (0..100).step_by(7) {
                gone.send(at).expect("send");
                let mut all: Vec<_> = pairs.iter().map(|&(_, b)| entry(b, POLLIN)).collect();
                assert_eq!(poll(&mut all, -1), Ok(1));
                assert_eq!(all[at].revents, POLLIN);
                assert_eq!(sys::read_exact(pairs[at].1, 1), b"x");
            }
            drop(gone);
        });
    }),
    dialogue(
        "reset_is_an_error_and_a_hang_up",
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            end.tell();
            let mask = POLLIN | POLLOUT | POLLRDHUP;
            sys::until(|| events(end.fd, 0) != 0);
            assert_eq!(events(end.fd, mask), mask | POLLERR | POLLHUP);
            assert_eq!(events(end.fd, 0), POLLERR | POLLHUP);
            let (mut read, mut write, mut except) =
                (Set::of(&[end.fd]), Set::of(&[end.fd]), Set::of(&[end.fd]));
            assert_eq!(select(Some(&mut read), Some(&mut write), Some(&mut except), -1), Ok(2));
            assert!(read.has(end.fd) && write.has(end.fd) && !except.has(end.fd));
            assert_eq!(sys::so_error(end.fd), libc::ECONNRESET);
            assert_eq!(events(end.fd, mask), mask | POLLHUP);
        },
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            end.hear();
            sys::linger_zero(end.fd);
            end.close();
        },
    ),
    case("several_threads_poll_one_socket", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for _ in 0..20 {
            let (gone, come) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                for _ in 0..4 {
                    let gone = gone.clone();
                    scope.spawn(move || {
                        gone.send(sys::gettid()).expect("send");
                        assert_eq!(poll_one(b, POLLIN, -1), POLLIN, "level: all are woken");
                    });
                }
                for tid in come.iter().take(4) {
                    sys::let_sleep(sys::getpid(), tid);
                }
                sys::write_all(a, b"x");
            });
            assert_eq!(sys::read(b, &mut [0; 5]), Ok(1));
        }
    }),
];

const ALL: i16 = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;
