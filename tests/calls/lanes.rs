//! The traps of a connection with two lanes, each met once in an experiment. On the kernel alone these are
//! ordinary traffic.
//!
//! | trap | case |
//! |---|---|
//! | a doorbell read as data | `doorbells_are_never_data` |
//! | a server always inside recv never upgrades | `a_reader_that_is_always_in_recv_still_upgrades` |
//! | edges stop after about 98,000 undrained doorbells | `more_than_100_000_wake_ups_by_edge`, `.._by_read` |
//! | a wake-up lost among several sleepers | `threads_and_epoll_asleep_on_one_socket` |
//! | a sleeper killed in its sleep | `threads::a_killed_child_leaves_the_parents_connections` |
//! | a writer that never looks at the kernel | `a_reader_killed_between_small_messages` |
//! | a reset for what was an end, an end for what was a reset | `end::a_killed_end_*`, `end::closing_*` |
//! | a stopped reader | `a_stopped_reader_gets_all_when_it_continues` |
//! | a stopped holder of a lock | `a_stopped_co_writer_does_not_hold_up_the_other` |
//! | spill and return out of order | `random_pauses_and_sizes`, and all of environment `small` |
//! | NODELAY, CORK, RCVLOWAT | `options::options_answer_as_they_were_set`, `options::rcvlowat_*` |
//! | EPOLLOUT after a short write | `epoll::out_edge_comes_after_a_short_write` |
//! | a second connect to collect the result | `connect::connect_again_on_a_connected_socket` |
//! | an edge told to two processes | `epoll_many::a_set_shared_over_fork_reports_an_edge_once` |
//! | numbers that change unseen | `descriptors::a_number_used_again_is_the_new_file` |
//! | vfork children | `descriptors::close_in_a_vfork_child_does_not_disturb_the_parent` |
//! | cancellation | `signals::a_cancelled_reader_leaves_the_socket_usable` |
//! | SIGXFSZ, seccomp, dropped rights | `a_file_size_limit`, `a_filter_*`, `a_child_without_privileges` |
//! | tmpfs that is full | `errors::a_full_rendezvous_folder` and its neighbours |
//! | the other end without sockshim | `one_end_only` |

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use libc::{EPOLLET, EPOLLIN};

use crate::data::{Flow, Random};
use crate::harness::{
    Case, Child, End, Environment, assert_on_pipe, case, dialogue, environment, path, pin_host, reason, skip,
};
use crate::sys::wait::{add, epoll, ready};
use crate::sys::{self, call, fails, poll_one};

pub(crate) const CASES: &[Case] = &[
    case("an_end_says_that_the_other_one_has_gone_back_to_the_kernel", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 300_000, 5000);
        Flow::new(1).read(b, 300_000, 5000);
        assert_on_pipe(a);
        pin_host(b);
        let says = |fd| (path(fd), reason(fd));
        // It learns it from the bytes that come, or from its own that go through the kernel.
        Flow::new(2).write(b, 50_000, 5000);
        Flow::new(2).read(a, 50_000, 5000);
        if environment() == Environment::Pipe {
            assert_eq!((says(a), says(b)), ((Some(0), Some(23)), (Some(0), Some(7))));
        }
        let (c, d) = sys::pair();
        Flow::new(3).write(c, 300_000, 5000);
        Flow::new(3).read(d, 300_000, 5000);
        pin_host(d);
        Flow::new(4).write(c, 50_000, 5000);
        Flow::new(4).read(d, 50_000, 5000);
        if environment() == Environment::Pipe {
            assert_eq!(says(c), (Some(0), Some(23)));
        }
    }),
    dialogue(
        "doorbells_are_never_data",
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            for round in 0..5000 {
                out.write(end.fd, 1 + round % 3, 3);
                wait_one_way_or_another(end.fd, round);
                back.read(end.fd, 1 + round % 2, 2);
                assert_eq!(sys::readable(end.fd), 0);
            }
            assert_on_pipe(end.fd);
        },
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            let set = epoll();
            add(set, end.fd, EPOLLIN | EPOLLET);
            for round in 0..5000 {
                wait_one_way_or_another(end.fd, round + 1);
                out.read(end.fd, 1 + round % 3, 3);
                fails(sys::recv(end.fd, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
                if round % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                back.write(end.fd, 1 + round % 2, 2);
            }
        },
    ),
    dialogue(
        "a_reader_that_is_always_in_recv_still_upgrades",
        |end| {
            let mut flow = Flow::new(1);
            for round in 0..300 {
                if round % 10 == 0 && end.other != 0 {
                    sys::let_sleep(end.other, end.other);
                }
                flow.write(end.fd, 64, 64);
            }
            end.hear();
            assert_upgraded(end.fd);
        },
        |end| {
            let mut flow = Flow::new(1);
            let mut buffer = [0; 4096];
            while flow.position < 300 * 64 {
                let count = sys::recv(end.fd, &mut buffer, 0).expect("recv");
                flow.check(&buffer[..count]);
            }
            assert_upgraded(end.fd);
            end.tell();
        },
    ),
    dialogue("more_than_100_000_wake_ups_by_read", |end| ping(end, 110_000), |end| pong(end, 110_000, false))
        .within_seconds(240),
    dialogue("more_than_100_000_wake_ups_by_edge", |end| ping(end, 110_000), |end| pong(end, 110_000, true))
        .within_seconds(240),
    dialogue("random_pauses_and_sizes", |end| paused_both_ways(end, 1, 2), |end| paused_both_ways(end, 2, 1)),
    dialogue(
        "a_stopped_reader_gets_all_when_it_continues",
        |end| {
            let mut flow = Flow::new(1);
            flow.write(end.fd, 100_000, 1000);
            end.hear();
            for round in 0..3 {
                sys::kill(end.other, libc::SIGSTOP).expect("stop");
                flow.fill(end.fd, 10_000);
                let (pid, other, writer) = (sys::getpid(), end.other, sys::gettid());
                thread::scope(|scope| {
                    scope.spawn(move || {
                        sys::let_sleep(pid, writer);
                        sys::kill(other, libc::SIGCONT).expect("continue");
                    });
                    flow.write(end.fd, 4 << 20, 1000 + (round << 18));
                });
            }
            end.close();
            end.hear();
        },
        |end| {
            let mut flow = Flow::new(1);
            flow.read(end.fd, 100_000, 1000);
            end.tell();
            flow.read_to_end(end.fd, 5000);
            end.tell();
        },
    )
    .between_processes(),
    dialogue(
        "a_stopped_co_writer_does_not_hold_up_the_other",
        |end| {
            // The child is stopped anywhere in its writing, again and again.
            let child = Child::run(|| {
                for _ in 0..100_000 {
                    sys::write_all(end.fd, &[b'c'; 8]);
                }
            });
            for _ in 0..200 {
                sys::kill(child.0, libc::SIGSTOP).expect("stop");
                for _ in 0..10 {
                    sys::write_all(end.fd, &[b'p'; 8]);
                }
                sys::kill(child.0, libc::SIGCONT).expect("continue");
                thread::yield_now();
            }
            child.join();
            end.close();
        },
        |end| {
            let (mut counts, mut buffer) = ([0; 256], [0; 5000]);
            loop {
                match sys::read(end.fd, &mut buffer).expect("read") {
                    0 => break,
                    count => buffer[..count].iter().for_each(|&byte| counts[usize::from(byte)] += 1),
                }
            }
            assert_eq!((counts[usize::from(b'c')], counts[usize::from(b'p')]), (800_000, 16_000));
            assert_eq!(counts.iter().sum::<i32>(), 816_000);
        },
    )
    .between_processes(),
    dialogue(
        "a_reader_killed_between_small_messages",
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..2000 {
                flow.write(end.fd, 64, 64);
                assert_eq!(sys::read(end.fd, &mut [0]), Ok(1));
            }
            sys::kill(end.other, libc::SIGKILL).expect("kill");
            let error = loop {
                if let Err(error) = sys::send(end.fd, &[1; 64], libc::MSG_NOSIGNAL) {
                    break error;
                }
            };
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&error.0), "{error:?}");
            end.kill_other();
        },
        |end| {
            let mut flow = Flow::new(1);
            loop {
                flow.read(end.fd, 64, 64);
                assert_eq!(sys::write(end.fd, b"k"), Ok(1));
            }
        },
    )
    .between_processes(),
    dialogue(
        "threads_and_epoll_asleep_on_one_socket",
        |end| {
            let mut random = Random::new(3);
            for round in 0..3000 {
                sys::write_all(end.fd, b"x");
                if random.within(0, 9) == 0 {
                    thread::sleep(Duration::from_micros(random.within(0, 300) as u64));
                }
                // All of it is taken before more comes, by whichever sleeper.
                if round % 16 == 15 {
                    end.hear();
                }
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            let taken = AtomicUsize::new(0);
            let count = |bytes: usize| {
                for now in (0..bytes).map(|_| taken.fetch_add(1, Ordering::SeqCst) + 1) {
                    if now % 16 == 0 {
                        end.tell();
                    }
                }
                bytes > 0
            };
            // Takes all that is there; false at the end of the stream.
            let take = || {
                loop {
                    match sys::recv(end.fd, &mut [0; 4], libc::MSG_DONTWAIT) {
                        Ok(bytes) if count(bytes) => {}
                        Ok(_) => break false,
                        answer => {
                            fails(answer, libc::EAGAIN);
                            break true;
                        }
                    }
                }
            };
            thread::scope(|scope| {
                scope.spawn(|| while count(sys::read(end.fd, &mut [0; 2]).expect("read")) {});
                scope.spawn(|| while count(sys::read(end.fd, &mut [0; 3]).expect("read")) {});
                scope.spawn(|| while poll_one(end.fd, libc::POLLIN, -1) != 0 && take() {});
                for events in [EPOLLIN, EPOLLIN | EPOLLET] {
                    let take = &take;
                    scope.spawn(move || {
                        let set = epoll();
                        add(set, end.fd, events);
                        while ready(set, -1).len() == 1 && take() {}
                    });
                }
            });
            assert_eq!(taken.load(Ordering::SeqCst), 3000);
            end.tell();
        },
    ),
    dialogue(
        "raw_system_calls_beside_library_calls",
        |end| {
            let mut flow = Flow::new(1);
            for round in 0..500 {
                let bytes = flow.take(100);
                let written = match round % 2 {
                    0 => call!(libc::syscall(libc::SYS_write, end.fd, bytes.as_ptr(), bytes.len())),
                    _ => sys::write(end.fd, &bytes),
                };
                assert_eq!(written, Ok(100));
            }
            end.close();
            end.hear();
        },
        |end| {
            let mut flow = Flow::new(1);
            let mut buffer = [0_u8; 300];
            for round in 0.. {
                let count = match round % 2 {
                    0 => call!(libc::syscall(libc::SYS_read, end.fd, buffer.as_mut_ptr(), buffer.len())),
                    _ => sys::read(end.fd, &mut buffer),
                };
                match count.expect("read") {
                    0 => break,
                    count => flow.check(&buffer[..count]),
                }
            }
            assert_eq!(flow.position, 50_000);
            end.tell();
        },
    ),
    case("a_file_size_limit", || {
        let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        call!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit)).expect("setrlimit");
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 500_000, 5000);
        Flow::new(1).read(b, 500_000, 5000);
    }),
    case("a_filter_that_a_program_puts_on_itself", || {
        Flow::new(1).bytes(1);
        let (a, b) = sys::pair();
        let (c, d) = sys::pair();
        Flow::new(1).write(a, 50_000, 5000);
        Flow::new(1).read(b, 50_000, 5000);
        sys::write_all(a, b"before");
        deny(&[libc::SYS_openat, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_futex]);
        assert_eq!(sys::read_exact(b, 6), b"before");
        for (x, y) in [(a, b), (c, d), (b, a)] {
            Flow::new(1).write(x, 50_000, 5000);
            Flow::new(1).read(y, 50_000, 5000);
        }
        let (e, f) = sys::pair();
        Flow::new(1).write(e, 50_000, 5000);
        Flow::new(1).read(f, 50_000, 5000);
    }),
    // As sshd's sandbox: what the program does by itself is allowed, and nothing else.
    case("a_filter_that_kills", || {
        let (a, b) = sys::pair();
        let (c, d) = sys::pair();
        for (x, y) in [(a, b), (b, a), (c, d)] {
            Flow::new(1).write(x, 50_000, 5000);
            Flow::new(1).read(y, 50_000, 5000);
        }
        let (listener, port) = sys::listener(libc::AF_INET);
        let new = sys::connected(libc::AF_INET, port);
        let child = Child::run(|| {
            use libc::*;
            sys::close(a).expect("close");
            let transfer = [SYS_read, SYS_write, SYS_recvfrom, SYS_sendto, SYS_poll, SYS_accept, SYS_close];
            let process = [SYS_getpid, SYS_exit_group, SYS_futex, SYS_rt_sigprocmask, SYS_sigaltstack];
            let memory = [SYS_mmap, SYS_munmap, SYS_brk, SYS_madvise];
            filter(
                [&transfer[..], &process, &memory].concat().as_slice(),
                SECCOMP_RET_ALLOW,
                SECCOMP_RET_KILL_PROCESS,
            );
            let accepted = sys::accept(listener).expect("accept");
            for fd in [b, accepted] {
                Flow::new(2).write(fd, 50_000, 500);
                Flow::new(3).read(fd, 50_000, 500);
            }
            for fd in [b, c, d, accepted, listener] {
                sys::close(fd).expect("close");
            }
            // SAFETY: the child has one thread.
            unsafe { exit(0) };
        });
        sys::close(b).expect("close");
        for fd in [a, new] {
            Flow::new(2).read(fd, 50_000, 500);
            Flow::new(3).write(fd, 50_000, 500);
        }
        assert_eq!([a, new].map(|fd| sys::read(fd, &mut [0])), [Ok(0), Ok(0)]);
        child.join();
    }),
    // seccomp(2), SECCOMP_MODE_STRICT: read, write, exit and sigreturn, and nothing else.
    case("the_strict_filter", || {
        for before in [0, 10_000] {
            for unread in [0, 5000] {
                let (a, b) = sys::pair();
                Flow::new(1).write(a, before, 500);
                Flow::new(1).read(b, before, 500);
                let mut there = Flow::new(2);
                there.write(a, unread, 500);
                let child = Child::run(|| {
                    sys::close(a).expect("close");
                    let mut back = Flow::new(2);
                    back.bytes(1);
                    call!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT)).expect("strict");
                    let mut buffer = [0; 500];
                    for _ in 0..(unread + 5000) / 500 {
                        let mut at = 0;
                        while at < 500 {
                            at += sys::read(b, &mut buffer[at..]).expect("read");
                        }
                        back.check(&buffer);
                        assert_eq!(sys::write(b, &buffer), Ok(500));
                    }
                    // Whoever has installed this filter can take no doorbell away before it ends: a reset, which overtakes
                    // what is still under way.
                    assert_eq!(sys::read(b, &mut buffer), Ok(0));
                    _ = call!(libc::syscall(libc::SYS_exit, 0));
                });
                sys::close(b).expect("close");
                let mut back = Flow::new(2);
                back.read(a, unread, 300);
                there.write(a, 5000, 500);
                back.read(a, 5000, 300);
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
                child.join();
                sys::close(a).expect("close");
            }
        }
    }),
    case("a_child_without_privileges", || {
        if call!(libc::geteuid()) != Ok(0) {
            skip("not root");
        }
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let child = Child::run(|| {
            sys::close(a).expect("close");
            call!(libc::setgid(65534)).expect("setgid");
            call!(libc::setuid(65534)).expect("setuid");
            Flow::new(2).read(b, 300_000, 5000);
            Flow::new(3).write(b, 300_000, 5000);
            let (c, d) = sys::pair();
            Flow::new(1).write(c, 10_000, 500);
            Flow::new(1).read(d, 10_000, 500);
        });
        Flow::new(2).write(a, 300_000, 5000);
        Flow::new(3).read(a, 300_000, 5000);
        child.join();
    }),
    case("the_rendezvous_folder_goes_away", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        let folder = format!("{}/meet", env::var("CALLS_SCRATCH").expect("the runner sets it"));
        fs::remove_dir_all(folder).expect("remove");
        Flow::new(1).read(b, 10_000, 500);
        let (c, d) = sys::pair();
        for (x, y) in [(a, b), (c, d), (b, a), (d, c)] {
            Flow::new(2).write(x, 300_000, 50_000);
            Flow::new(2).read(y, 300_000, 50_000);
        }
    }),
    case("one_end_only", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let port = port.to_string();
        let extra =
            [("LD_PRELOAD", ""), ("CALLS_CASE", "lanes::echo_client_of_another_case"), ("CALLS_PORT", &port)];
        let client = sys::spawn(&sys::own_program(), &[], &extra);
        let fd = sys::accept(listener).expect("accept");
        let mut flow = Flow::new(1);
        for size in [1, 100, 1000, 10_000, 1 << 20] {
            flow.read(fd, size, size);
            flow.position -= size;
            flow.write(fd, size, size);
        }
        assert_ne!(path(fd), Some(1), "there is nobody to share memory with");
        assert_eq!(sys::read(fd, &mut [0]), Ok(0));
        assert_eq!(sys::wait(client), sys::Ended::Exited(0));
    }),
    // The program that `one_end_only` starts without sockshim; nothing by itself.
    case("echo_client_of_another_case", || {
        let Some(port) = env::var("CALLS_PORT").ok().and_then(|port| port.parse().ok()) else { return };
        let fd = sys::connected(libc::AF_INET, port);
        let mut flow = Flow::new(1);
        for size in [1, 100, 1000, 10_000, 1 << 20] {
            flow.write(fd, size, size);
            flow.position -= size;
            flow.read(fd, size, size);
        }
    }),
    case("thousands_of_connections", || {
        // SAFETY: all zeroes is a valid rlimit.
        let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
        call!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit)).expect("getrlimit");
        if limit.rlim_cur < 7000 {
            skip("too few descriptors");
        }
        let pairs: Vec<_> = (0..3000).map(|_| sys::pair()).collect();
        for _ in 0..2 {
            for (seed, &(a, b)) in pairs.iter().enumerate() {
                Flow::new(seed).write(a, 600, 300);
                Flow::new(seed).read(b, 600, 300);
            }
        }
        for &(a, b) in &pairs {
            sys::close(a).expect("close");
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
        }
    }),
    case("a_very_high_descriptor", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        // SAFETY: all zeroes is a valid rlimit.
        let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
        call!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit)).expect("getrlimit");
        let high = (limit.rlim_cur - 1).min(1 << 20) as i32;
        sys::dup2(b, high).expect("dup2");
        sys::close(b).expect("close");
        Flow::new(2).write(a, 100_000, 5000);
        Flow::new(2).read(high, 100_000, 5000);
        sys::close(high).expect("close");
        assert_eq!(sys::read(a, &mut [0]), Ok(0));
    }),
];

/// Where traffic alone must have opened the pipe.
#[track_caller]
fn assert_upgraded(fd: i32) {
    if [Environment::Pipe, Environment::Midstream].contains(&environment()) {
        assert_eq!(path(fd), Some(1), "descriptor {fd} is not on a pipe");
    }
}

fn wait_one_way_or_another(fd: i32, round: usize) {
    match round % 4 {
        0 => {}
        1 => assert_eq!(poll_one(fd, libc::POLLIN, -1), libc::POLLIN),
        2 => {
            let set = epoll();
            add(set, fd, EPOLLIN);
            assert_eq!(ready(set, -1), [(EPOLLIN, fd as u64)]);
            sys::close(set).expect("close");
        }
        _ => assert_eq!(sys::recv(fd, &mut [0], libc::MSG_PEEK), Ok(1)),
    }
}

fn ping(end: &End, rounds: u32) {
    for round in 0..rounds {
        sys::write_all(end.fd, &round.to_ne_bytes());
        assert_eq!(sys::read_exact(end.fd, 4), round.to_ne_bytes());
    }
}

fn pong(end: &End, rounds: u32, by_edge: bool) {
    let set = epoll();
    if by_edge {
        add(set, end.fd, EPOLLIN | EPOLLET);
    }
    for round in 0..rounds {
        let mut buffer = [0; 4];
        if by_edge {
            while sys::recv(end.fd, &mut buffer, libc::MSG_DONTWAIT).is_err() {
                assert_eq!(ready(set, -1).len(), 1);
            }
        } else {
            assert_eq!(sys::read(end.fd, &mut buffer), Ok(4));
        }
        assert_eq!(buffer, round.to_ne_bytes());
        sys::write_all(end.fd, &buffer);
    }
}

fn paused_both_ways(end: &End, out: usize, back: usize) {
    let pause = |random: &mut Random| match random.within(0, 99) {
        0 => thread::sleep(Duration::from_micros(random.within(1, 3000) as u64)),
        1..10 => thread::yield_now(),
        _ => {}
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut flow, mut random) = (Flow::new(out), Random::new(out as u64));
            while flow.position < 24 << 20 {
                let size = random.size(17).min((24 << 20) - flow.position);
                flow.write(end.fd, size, size);
                pause(&mut random);
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
        });
        let (mut flow, mut random) = (Flow::new(back), Random::new(back as u64 + 50));
        let mut buffer = vec![0; 1 << 17];
        loop {
            let room = random.size(17);
            match sys::read(end.fd, &mut buffer[..room]).expect("read") {
                0 => break,
                count => flow.check(&buffer[..count]),
            }
            pause(&mut random);
        }
        assert_eq!(flow.position, 24 << 20);
    });
}

/// Makes these system calls fail from now on, with a seccomp filter.
fn deny(numbers: &[libc::c_long]) {
    filter(numbers, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, libc::SECCOMP_RET_ALLOW);
}

/// A seccomp filter: one answer for these system calls, and one for all others.
fn filter(numbers: &[libc::c_long], these: u32, others: u32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &number in numbers {
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32));
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, these));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, others));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    call!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).expect("no new privileges");
    call!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)).expect("a filter");
}
