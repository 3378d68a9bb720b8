//! What must not hold anybody up: threads and processes that die, are stopped, or are simply many; and calls
//! that outlive the socket they were made on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libc::{EPOLLIN, c_int};

use crate::data::{Flow, Random};
use crate::harness::{Case, Child, Environment, case, environment, fork};
use crate::sys::wait::{add, epoll, epoll_wait, ready};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_killed_co_writer_that_nobody_waited_for", || {
        // A killed child stays a zombie until its parent waits, and the parent may be busy writing.
        let mut random = Random::new(1);
        for _ in 0..25 {
            let (a, b) = sys::pair();
            thread::scope(|scope| {
                let reader = scope.spawn(|| read_all(b));
                let child = fork(|| {
                    let bytes = vec![1; 1 << 20];
                    loop {
                        let _ = sys::write(a, &bytes);
                    }
                });
                thread::sleep(Duration::from_micros(random.next() % 20_000));
                sys::kill(child, libc::SIGKILL).expect("kill");
                let_end(child);
                for _ in 0..20 {
                    sys::write_all(a, b"from the parent");
                }
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                assert!(reader.join().expect("the reader").ends_with(b"from the parent"));
                sys::wait(child);
            });
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
    }),
    case("killed_children_leave_room_in_a_shared_set", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let (files_end, their_end) = sys::pipe();
        let set = epoll();
        add(set, b, EPOLLIN);
        add(set, files_end, EPOLLIN);
        let children: Vec<_> = (0..20)
            .map(|_| {
                let child = fork(|| _ = epoll_wait(set, 8, -1));
                sys::let_sleep(child, child);
                sys::kill(child, libc::SIGKILL).expect("kill");
                let_end(child);
                child
            })
            .collect();
        for _ in 0..3 {
            thread::scope(|scope| {
                scope.spawn(|| {
                    // Long enough for the pipe to be given up as idle.
                    thread::sleep(Duration::from_millis(100));
                    sys::write_all(their_end, b"x");
                });
                assert_eq!(ready(set, -1), [(EPOLLIN, files_end as u64)]);
            });
            sys::read_exact(files_end, 1);
            sys::write_all(a, b"y");
            assert_eq!(ready(set, -1), [(EPOLLIN, b as u64)]);
            sys::read_exact(b, 1);
        }
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        assert_eq!(sys::read(b, &mut [0]), Ok(0));
        for child in children {
            sys::wait(child);
        }
    }),
    case("killed_readers_leave_room_for_others", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for _ in 0..20 {
            let child = fork(|| _ = sys::read(b, &mut [0]));
            sys::let_sleep(child, child);
            sys::kill(child, libc::SIGKILL).expect("kill");
            sys::wait(child);
        }
        sys::timeout(b, libc::SO_RCVTIMEO, 30);
        fails(sys::read(b, &mut [0]), libc::EAGAIN);
        sys::timeout(b, libc::SO_RCVTIMEO, 0);
        let (pid, reader) = (sys::getpid(), AtomicI32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                reader.store(sys::gettid(), Ordering::SeqCst);
                assert_eq!(sys::read(b, &mut [0]), Ok(0));
            });
            sys::until(|| reader.load(Ordering::SeqCst) != 0);
            sys::let_sleep(pid, reader.load(Ordering::SeqCst));
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        });
    }),
    case("many_readers_of_one_socket_are_interrupted", || {
        let (_a, b) = sys::pair();
        interrupt_many(|| sys::read(b, &mut [0]));
    }),
    case("many_pollers_of_one_socket_are_interrupted", || {
        let (_a, b) = sys::pair();
        interrupt_many(|| sys::poll(&mut [sys::wait::entry(b, libc::POLLIN)], -1));
    }),
    case("many_waiters_in_one_set_are_interrupted", || {
        let (_a, b) = sys::pair();
        let set = epoll();
        add(set, b, EPOLLIN);
        interrupt_many(|| epoll_wait(set, 4, -1).map(|events| events.len()));
    }),
    case("many_readers_of_one_socket_hear_of_its_end", || {
        let (a, b) = sys::pair();
        let asleep = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..MANY {
                scope.spawn(|| {
                    asleep.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(sys::read(b, &mut [0]), Ok(0));
                });
            }
            sys::until(|| asleep.load(Ordering::SeqCst) == MANY);
            thread::sleep(Duration::from_millis(20));
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        });
    }),
    case("a_read_outlives_its_socket", || {
        // The blocked read keeps the old connection; what it leaves behind must not be counted to the next one
        // that gets the same number (and the same slot of any table).
        let (listener, port) = sys::listener(libc::AF_INET);
        let (pid, tid) = (sys::getpid(), AtomicI32::new(0));
        let old = sys::connected(libc::AF_INET, port);
        let old_server = sys::accept(listener).expect("accept");
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                tid.store(sys::gettid(), Ordering::SeqCst);
                let mut byte = [0];
                sys::read(old, &mut byte).map(|count| (count, byte))
            });
            sys::until(|| tid.load(Ordering::SeqCst) != 0);
            sys::let_sleep(pid, tid.load(Ordering::SeqCst));
            sys::close(old).expect("close");
            let new = sys::connected(libc::AF_INET, port);
            let server = sys::accept(listener).expect("accept");
            let second = scope.spawn(move || new_reader(new));
            sys::until(|| READER.load(Ordering::SeqCst) != 0);
            sys::let_sleep(pid, READER.load(Ordering::SeqCst));
            sys::write_all(old_server, b"!");
            match first.join().expect("the first reader") {
                // Allowed (docs/compatibility.md).
                Err(error) if environment() != Environment::Host => assert_eq!(error.0, libc::EBADF),
                read => assert_eq!(read, Ok((1, *b"!"))),
            }
            // Enough for both ends to come onto a pipe, if they can.
            for round in 0..100 {
                Flow::new(round).write(new, 1000, 500);
                Flow::new(round).read(server, 1000, 500);
            }
            sys::write_all(server, b"hello");
            assert_eq!(second.join().expect("the second reader"), b"hello");
        });
    }),
    case("a_fork_in_the_middle_of_a_connect", || {
        // The child reads what the server sends, with whatever the parent had set up by then.
        let mut random = Random::new(7);
        for round in 0..60 {
            let (listener, port) = sys::listener(libc::AF_INET);
            let fd = sys::socket(libc::AF_INET);
            let (go, going) = sys::pipe();
            let (start, pause) = (Barrier::new(2), Duration::from_nanos(random.next() % 300_000));
            let child = thread::scope(|scope| {
                let forking = scope.spawn(|| {
                    start.wait();
                    let now = std::time::Instant::now();
                    while now.elapsed() < pause {
                        std::hint::spin_loop();
                    }
                    fork(|| {
                        sys::read_exact(go, 1);
                        assert_eq!(Flow::new(round).read_to_end(fd, 700), 20_000);
                    })
                });
                start.wait();
                sys::connect(fd, &sys::Address::loopback(libc::AF_INET, port)).expect("connect");
                forking.join().expect("fork")
            });
            sys::close(fd).expect("close");
            let server = sys::accept(listener).expect("accept");
            sys::write_all(going, b"!");
            let mut flow = Flow::new(round);
            for _ in 0..20 {
                flow.write(server, 1000, 500);
                thread::sleep(Duration::from_micros(random.next() % 300));
            }
            sys::shutdown(server, libc::SHUT_WR).expect("shutdown");
            Child(child).join();
            for fd in [listener, server, go, going] {
                sys::close(fd).expect("close");
            }
        }
    }),
    case("a_handler_reads_until_nothing_is_left", || {
        const TOTAL: usize = 48 << 20;
        let (a, b) = sys::pair();
        HANDLED_FD.store(b, Ordering::SeqCst);
        sys::on_signal(libc::SIGUSR1, read_in_handler, libc::SA_RESTART);
        let reader = sys::gettid();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(3);
                let mut left = TOTAL;
                while left > 0 {
                    let size = random.size(18).min(left);
                    sys::write_all(a, &vec![b'x'; size]);
                    left -= size;
                    if left.is_multiple_of(7) {
                        thread::sleep(Duration::from_micros(300));
                    }
                }
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            });
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    sys::tgkill(reader, libc::SIGUSR1);
                    thread::sleep(Duration::from_micros(400));
                }
            });
            let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
            while let Ok(count @ 1..) = sys::read(b, &mut buffer) {
                total += count;
            }
            done.store(true, Ordering::SeqCst);
            assert_eq!(total + HANDLED.load(Ordering::SeqCst), TOTAL);
        });
    }),
];

const MANY: usize = 20;

static READER: AtomicI32 = AtomicI32::new(0);
static HANDLED_FD: AtomicI32 = AtomicI32::new(-1);
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn read_in_handler(_: c_int) {
    let errno = sys::errno();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = sys::recv(HANDLED_FD.load(Ordering::SeqCst), &mut buffer, libc::MSG_DONTWAIT)
    {
        HANDLED.fetch_add(count, Ordering::SeqCst);
    }
    unsafe { *libc::__errno_location() = errno.0 };
}

extern "C" fn ignore(_: c_int) {}

fn new_reader(fd: i32) -> Vec<u8> {
    READER.store(sys::gettid(), Ordering::SeqCst);
    sys::read_exact(fd, 5)
}

fn read_all(fd: i32) -> Vec<u8> {
    let (mut buffer, mut last) = (vec![0; 1 << 16], Vec::new());
    loop {
        match sys::read(fd, &mut buffer).expect("read") {
            0 => return last,
            count => {
                last.extend_from_slice(&buffer[..count]);
                last.drain(..last.len().saturating_sub(100));
            }
        }
    }
}

/// Waits until a killed child has ended, and leaves it a zombie.
fn let_end(child: libc::pid_t) {
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT;
    call!(libc::waitid(libc::P_PID, child as libc::id_t, &mut info, options)).expect("waitid");
}

/// Many threads in a call that waits; each is told by its own signal, and each hears it.
fn interrupt_many(blocked: impl Fn() -> Answer + Sync) {
    sys::on_signal(libc::SIGUSR1, ignore, 0);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..MANY)
            .map(|_| {
                let (tell, told) = std::sync::mpsc::channel();
                let blocked = &blocked;
                let thread = scope.spawn(move || {
                    tell.send(sys::gettid()).expect("the test waits");
                    fails(blocked(), libc::EINTR);
                });
                (thread, told.recv().expect("the thread tells"))
            })
            .collect();
        for (thread, tid) in &waiting {
            sys::let_sleep(sys::getpid(), *tid);
            while !thread.is_finished() {
                sys::tgkill(*tid, libc::SIGUSR1);
                thread::sleep(Duration::from_millis(2));
            }
        }
        waiting.into_iter().for_each(|(thread, _)| thread.join().expect("interrupted"));
    });
}
