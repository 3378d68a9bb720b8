//! Time-outs, EINTR and restarting, handlers that use the socket, cancellation.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};

use crate::data::Flow;
use crate::harness::{Case, case, dialogue};
use crate::sys::wait::{self, Set};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("receive_time_out", || {
        let (a, b) = sys::pair();
        sys::timeout(b, libc::SO_RCVTIMEO, 60);
        for _ in 0..2 {
            let start = Instant::now();
            fails(sys::read(b, &mut [0]), libc::EAGAIN);
            assert!(start.elapsed() >= Duration::from_millis(55));
            Flow::new(1).write(a, 10_000, 1000);
            Flow::new(1).read(b, 10_000, 1000);
        }
        fails(sys::recv(b, &mut [0], libc::MSG_PEEK), libc::EAGAIN);
        let mut value = libc::timeval { tv_sec: -1, tv_usec: -1 };
        let mut length = size_of::<libc::timeval>() as libc::socklen_t;
        let pointer = (&raw mut value).cast();
        call!(libc::getsockopt(b, libc::SOL_SOCKET, libc::SO_RCVTIMEO, pointer, &mut length)).expect("get");
        assert_eq!((value.tv_sec, value.tv_usec), (0, 60_000));
    }),
    case("send_time_out", || {
        let (a, b) = sys::pair();
        sys::timeout(a, libc::SO_SNDTIMEO, 60);
        let mut flow = Flow::new(1);
        // The last write that fits in part returns its part; the next waits, and gives up.
        let (mut total, big) = (0, 8 << 20);
        let start = Instant::now();
        loop {
            let bytes = flow.bytes(big);
            match sys::write(a, &bytes) {
                Ok(count) => {
                    flow.position += count;
                    total += count;
                }
                answer => break fails(answer, libc::EAGAIN),
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(55));
        let mut back = Flow::new(1);
        back.read(b, total, 100_000);
        flow.write(a, 10, 10);
        back.read(b, 10, 10);
    }),
    case("a_signal_interrupts_read_recv_and_write", || {
        let (a, b) = sys::pair();
        // Fixed sizes, or the kernel's own growth may make room once more.
        sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_SNDBUF, 50_000).expect("SO_SNDBUF");
        sys::setsockopt(b, libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000).expect("SO_RCVBUF");
        count_signals(libc::SIGUSR1, 0);
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 1000);
            Flow::new(1).read(b, before, 1000);
            fails(interrupted(|| sys::read(b, &mut [0; 10])), libc::EINTR);
            fails(interrupted(|| sys::recv(b, &mut [0; 10], 0)), libc::EINTR);
            fails(interrupted(|| sys::recv(b, &mut [0; 10], libc::MSG_PEEK)), libc::EINTR);
            fails(interrupted(|| sys::recv(b, &mut [0; 10], libc::MSG_WAITALL)), libc::EINTR);
        }
        Flow::new(2).fill_up(a);
        fails(interrupted(|| sys::write(a, &vec![0; 4 << 20])), libc::EINTR);
        Flow::new(2).fill_up(a);
        fails(interrupted(|| sys::send(a, &[0; 10], 0)), libc::EINTR);
    }),
    case("a_signal_cuts_a_write_short", || {
        let (a, b) = sys::pair();
        count_signals(libc::SIGUSR1, 0);
        let bytes = Flow::new(1).bytes(32 << 20);
        let count = interrupted(|| sys::write(a, &bytes)).expect("a partial count");
        assert!(count > 0 && count < bytes.len());
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        assert_eq!(Flow::new(1).read_to_end(b, 65536), count);
    }),
    case("a_signal_interrupts_every_kind_of_wait", || {
        let (_a, b) = sys::pair();
        let set = wait::epoll();
        wait::add(set, b, libc::EPOLLIN);
        // These never restart, whatever the handler's flags.
        for flags in [0, libc::SA_RESTART] {
            count_signals(libc::SIGUSR1, flags);
            fails(interrupted(|| sys::poll(&mut [wait::entry(b, libc::POLLIN)], -1)), libc::EINTR);
            fails(interrupted(|| sys::poll(&mut [wait::entry(b, libc::POLLIN)], 600_000)), libc::EINTR);
            fails(interrupted(|| wait::epoll_wait(set, 10, -1)), libc::EINTR);
            fails(interrupted(|| wait::epoll_wait(set, 10, 600_000)), libc::EINTR);
            fails(interrupted(|| wait::select(Some(&mut Set::of(&[b])), None, None, -1)), libc::EINTR);
        }
    }),
    case("a_signal_interrupts_accept_and_connect_time_outs_do_not_restart", || {
        let (listener, _) = sys::listener(libc::AF_INET);
        count_signals(libc::SIGUSR1, 0);
        fails(interrupted(|| sys::accept(listener)), libc::EINTR);
        let (_a, b) = sys::pair();
        count_signals(libc::SIGUSR1, libc::SA_RESTART);
        sys::timeout(b, libc::SO_RCVTIMEO, 600_000);
        fails(interrupted(|| sys::read(b, &mut [0])), libc::EINTR);
    }),
    dialogue(
        "a_restarting_handler_is_not_seen_by_read",
        |end| {
            for _ in 0..20 {
                end.hear();
                sys::write_all(end.fd, b"x");
            }
        },
        |end| {
            count_signals(libc::SIGUSR1, libc::SA_RESTART);
            for round in 0..20 {
                let before = signals();
                let caller = sys::gettid();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        sys::let_sleep(sys::getpid(), caller);
                        for _ in 0..3 {
                            sys::tgkill(caller, libc::SIGUSR1);
                            thread::sleep(Duration::from_millis(1));
                        }
                        end.tell();
                    });
                    let mut buffer = [0; 10];
                    let count = match round % 3 {
                        0 => sys::read(end.fd, &mut buffer),
                        1 => sys::recv(end.fd, &mut buffer, 0),
                        _ => {
                            let mut vector =
                                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 10 };
                            call!(libc::readv(end.fd, &raw mut vector, 1))
                        }
                    };
                    assert_eq!(count, Ok(1));
                });
                assert!(signals() > before);
            }
        },
    ),
    dialogue(
        "a_stream_survives_a_storm_of_restarting_signals",
        |end| {
            count_signals(libc::SIGALRM, libc::SA_RESTART);
            let timer = Storm::start();
            Flow::new(1).write(end.fd, 30 << 20, 300_000);
            Flow::new(2).read(end.fd, 30 << 20, 300_000);
            drop(timer);
            assert!(signals() > 0);
        },
        |end| {
            Flow::new(1).read(end.fd, 30 << 20, 200_000);
            Flow::new(2).write(end.fd, 30 << 20, 200_000);
        },
    ),
    dialogue(
        "a_handler_writes_to_the_socket_that_the_program_writes_to",
        |end| {
            // Records of 16 bytes: whole ones only, from the program ('M') and the handler ('H').
            SOCKET.store(end.fd, Ordering::SeqCst);
            sys::on_signal(libc::SIGALRM, write_record, libc::SA_RESTART);
            // The other side blocks the signal first: two handlers at once would number their records alike.
            end.hear();
            let timer = Storm::start();
            for at in 0..50_000_u64 {
                assert_eq!(sys::write(end.fd, &record(b'M', at)), Ok(16));
                // Never so much at once that a write could be cut short by a full buffer.
                if at % 500 == 499 {
                    end.hear();
                }
            }
            drop(timer);
            sys::write_all(end.fd, &record(b'E', HANDLED.load(Ordering::SeqCst) as u64));
            end.hear();
        },
        |end| {
            sys::block_signals(&[libc::SIGALRM]);
            end.tell();
            let (mut program, mut handler) = (0, 0);
            loop {
                let bytes = sys::read_exact(end.fd, 16);
                let number = u64::from_ne_bytes(bytes[8..].try_into().expect("eight bytes"));
                assert_eq!(bytes[1..8], [b'-'; 7]);
                match bytes[0] {
                    b'M' => {
                        program += u64::from(number == program);
                        if number % 500 == 499 {
                            end.tell();
                        }
                    }
                    b'H' => handler += u64::from(number == handler),
                    b'E' => break assert_eq!((program, handler), (50_000, number)),
                    other => panic!("a torn record: {other:#x}"),
                }
            }
            end.tell();
        },
    ),
    dialogue(
        "a_handler_reads_from_the_socket_that_the_program_reads_from",
        |end| {
            sys::block_signals(&[libc::SIGALRM]);
            Flow::new(1).write(end.fd, 8 << 20, 1000);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            SOCKET.store(end.fd, Ordering::SeqCst);
            sys::on_signal(libc::SIGALRM, read_some, libc::SA_RESTART);
            let timer = Storm::start();
            let (mut total, mut buffer) = (0, [0; 700]);
            loop {
                match sys::read(end.fd, &mut buffer).expect("read") {
                    0 => break,
                    count => total += count,
                }
            }
            drop(timer);
            assert_eq!(total + HANDLED.load(Ordering::SeqCst), 8 << 20);
            end.tell();
        },
    ),
    case("a_cancelled_reader_leaves_the_socket_usable", || {
        let (a, b) = sys::pair();
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 1000);
            Flow::new(1).read(b, before, 1000);
            let set = wait::epoll();
            wait::add(set, b, libc::EPOLLIN);
            for (how, fd) in [(cancelled_read as Start, b), (cancelled_poll, b), (cancelled_epoll, set)] {
                let mut thread = 0;
                let argument = ptr::without_provenance_mut(fd as usize);
                TID.store(0, Ordering::SeqCst);
                call!(pthread_create(&mut thread, ptr::null(), how, argument)).expect("create");
                sys::until(|| TID.load(Ordering::SeqCst) != 0);
                sys::let_sleep(sys::getpid(), TID.load(Ordering::SeqCst));
                call!(pthread_cancel(thread)).expect("cancel");
                let mut result = ptr::null_mut();
                call!(libc::pthread_join(thread, &mut result)).expect("join");
                assert_eq!(result.addr() as isize, -1, "PTHREAD_CANCELED");
                sys::write_all(a, b"abc");
                assert_eq!(sys::read_exact(b, 3), b"abc");
            }
        }
    }),
    case("ppoll_lets_a_blocked_signal_in", || {
        let (_a, b) = sys::pair();
        count_signals(libc::SIGUSR1, libc::SA_RESTART);
        sys::block_signals(&[libc::SIGUSR1]);
        sys::tgkill(sys::gettid(), libc::SIGUSR1);
        assert_eq!(sys::events(b, libc::POLLIN), 0, "still blocked");
        assert_eq!(signals(), 0);
        let none = sys::signal_set(&[]);
        let mut entry = wait::entry(b, libc::POLLIN);
        fails(call!(libc::ppoll(&mut entry, 1, ptr::null(), &none)), libc::EINTR);
        assert_eq!(signals(), 1);
        sys::tgkill(sys::gettid(), libc::SIGUSR1);
        let (mut event, set) = (libc::epoll_event { events: 0, u64: 0 }, wait::epoll());
        wait::add(set, b, libc::EPOLLIN);
        fails(call!(libc::epoll_pwait(set, &mut event, 1, -1, &none)), libc::EINTR);
        assert_eq!(signals(), 2);
        sys::tgkill(sys::gettid(), libc::SIGUSR1);
        let nothing = ptr::null_mut();
        fails(call!(libc::pselect(0, nothing, nothing, nothing, ptr::null(), &none)), libc::EINTR);
        assert_eq!(signals(), 3);
    }),
    case("a_blocked_signal_does_not_wake_a_masked_wait", || {
        let (_a, b) = sys::pair();
        count_signals(libc::SIGUSR1, libc::SA_RESTART);
        let mask = sys::signal_set(&[libc::SIGUSR1]);
        let caller = sys::gettid();
        let set = wait::epoll();
        wait::add(set, b, libc::EPOLLIN);
        thread::scope(|scope| {
            scope.spawn(|| {
                sys::let_sleep(sys::getpid(), caller);
                sys::tgkill(caller, libc::SIGUSR1);
            });
            let (mut entry, time) =
                (wait::entry(b, libc::POLLIN), libc::timespec { tv_sec: 0, tv_nsec: 200_000_000 });
            assert_eq!(call!(libc::ppoll(&mut entry, 1, &time, &mask)), Ok(0));
        });
        sys::until(|| signals() == 1);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        assert_eq!(call!(libc::epoll_pwait(set, &mut event, 1, 20, &mask)), Ok(0));
    }),
];

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static SOCKET: AtomicI32 = AtomicI32::new(-1);
static TID: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_signal: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

pub(crate) fn count_signals(signal: i32, flags: i32) {
    sys::on_signal(signal, count, flags);
}

pub(crate) fn signals() -> usize {
    SIGNALS.load(Ordering::SeqCst)
}

/// Runs a blocking call while another thread interrupts it until it returns.
pub(crate) fn interrupting_until<T>(signal: i32, call: impl FnOnce() -> T) -> T {
    let (caller, done) = (sys::gettid(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                sys::let_sleep(sys::getpid(), caller);
                if !done.load(Ordering::SeqCst) {
                    sys::tgkill(caller, signal);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let answer = call();
        done.store(true, Ordering::SeqCst);
        answer
    })
}

fn interrupted<T>(call: impl FnOnce() -> Answer<T>) -> Answer<T> {
    interrupting_until(libc::SIGUSR1, call)
}

/// SIGALRM every 100 microseconds while it lives.
struct Storm;

impl Storm {
    fn start() -> Self {
        Self::set(100);
        Self
    }

    fn set(microseconds: i64) {
        let time = libc::timeval { tv_sec: 0, tv_usec: microseconds };
        let value = libc::itimerval { it_interval: time, it_value: time };
        call!(setitimer(ITIMER_REAL, &value, ptr::null_mut())).expect("setitimer");
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        Self::set(0);
    }
}

const ITIMER_REAL: i32 = 0;

fn record(tag: u8, number: u64) -> [u8; 16] {
    let mut record = [b'-'; 16];
    record[0] = tag;
    record[8..].copy_from_slice(&number.to_ne_bytes());
    record
}

extern "C" fn write_record(_signal: i32) {
    let errno = sys::errno();
    let number = HANDLED.load(Ordering::SeqCst) as u64;
    let bytes = record(b'H', number);
    // Non-blocking, for the interrupted write may hold the only room that the reader waits to see filled.
    match sys::send(SOCKET.load(Ordering::SeqCst), &bytes, libc::MSG_DONTWAIT) {
        Ok(16) => _ = HANDLED.fetch_add(1, Ordering::SeqCst),
        Err(sys::Errno(libc::EAGAIN)) => {}
        _ => std::process::abort(),
    }
    // SAFETY: points to this thread's errno.
    unsafe { *libc::__errno_location() = errno.0 };
}

extern "C" fn read_some(_signal: i32) {
    let errno = sys::errno();
    let mut buffer = [0; 100];
    if let Ok(count) = sys::recv(SOCKET.load(Ordering::SeqCst), &mut buffer, libc::MSG_DONTWAIT) {
        HANDLED.fetch_add(count, Ordering::SeqCst);
    }
    // SAFETY: points to this thread's errno.
    unsafe { *libc::__errno_location() = errno.0 };
}

extern "C-unwind" fn cancelled_read(argument: *mut libc::c_void) -> *mut libc::c_void {
    TID.store(sys::gettid(), Ordering::SeqCst);
    let mut byte = 0_u8;
    // SAFETY: one byte of room. The thread is cancelled inside; no frame here has anything to drop.
    unsafe { read(argument.addr() as i32, (&raw mut byte).cast(), 1) };
    ptr::null_mut()
}

extern "C-unwind" fn cancelled_poll(argument: *mut libc::c_void) -> *mut libc::c_void {
    TID.store(sys::gettid(), Ordering::SeqCst);
    let mut entry = libc::pollfd { fd: argument.addr() as i32, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { poll(&mut entry, 1, -1) };
    ptr::null_mut()
}

extern "C-unwind" fn cancelled_epoll(argument: *mut libc::c_void) -> *mut libc::c_void {
    TID.store(sys::gettid(), Ordering::SeqCst);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event.
    unsafe { epoll_wait(argument.addr() as i32, &mut event, 1, -1) };
    ptr::null_mut()
}

type Start = extern "C-unwind" fn(*mut libc::c_void) -> *mut libc::c_void;

// Declared here as what they are: a cancelled thread unwinds out of them.
unsafe extern "C-unwind" {
    fn read(fd: i32, buffer: *mut libc::c_void, count: usize) -> isize;
    fn poll(entries: *mut libc::pollfd, count: libc::nfds_t, timeout: i32) -> i32;
    fn epoll_wait(set: i32, events: *mut libc::epoll_event, most: i32, timeout: i32) -> i32;
}

unsafe extern "C" {
    fn setitimer(which: i32, new: *const libc::itimerval, old: *mut libc::itimerval) -> i32;
    fn pthread_cancel(thread: libc::pthread_t) -> i32;
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut libc::c_void,
    ) -> i32;
}
