//! A signal that comes once, at any moment of a call that is about to sleep, is not missed.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use libc::{EPOLLIN, POLLIN};

use crate::data::Random;
use crate::harness::{Case, case};
use crate::signals::{count_signals, signals};
use crate::sys::raw::zeroed;
use crate::sys::wait::{self, Set, entry};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("reads_notice_an_alarm_at_any_moment", || {
        let (b, _) = echoing_pair();
        for (name, blocked) in READS {
            notices(name, SOON, || turn(b, *blocked), || blocked(b), libc::EINTR);
        }
    })
    .within_seconds(120),
    case("a_read_notices_an_alarm_where_it_goes_from_a_timed_wait_to_sleep", || {
        let (b, _) = echoing_pair();
        let (name, blocked) = READS[0];
        notices(name, (4_000, 6_500), || turn(b, blocked), || blocked(b), libc::EINTR);
    }),
    case("waits_notice_an_alarm_at_any_moment", || {
        let (b, set) = echoing_pair();
        for (name, blocked) in WAITS {
            let fd = if name.starts_with("epoll") { set } else { b };
            let before = || {
                sys::write_all(b, b"x");
                assert_eq!(blocked(fd), Ok(1));
                sys::read_exact(b, 1);
            };
            for flags in [0, libc::SA_RESTART] {
                count_signals(libc::SIGALRM, flags);
                notices(name, SOON, before, || blocked(fd), libc::EINTR);
            }
            count_signals(libc::SIGALRM, 0);
        }
    })
    .within_seconds(120),
    case("waits_that_unblock_it_notice_an_alarm_at_any_moment", || {
        let (b, set) = echoing_pair();
        sys::block_signals(&[libc::SIGALRM]);
        let none = sys::signal_set(&[]);
        for (name, blocked) in MASKED {
            let fd = if name.starts_with("epoll") { set } else { b };
            let before = || {
                sys::write_all(b, b"x");
                assert_eq!(blocked(fd, &none, -1), Ok(1));
                sys::read_exact(b, 1);
            };
            notices(name, SOON, before, || blocked(fd, &none, -1), libc::EINTR);
        }
    }),
    case("waits_that_block_it_are_not_interrupted", || {
        let (b, set) = echoing_pair();
        count_signals(libc::SIGALRM, 0);
        let blocking = sys::signal_set(&[libc::SIGALRM]);
        let (alarm, mut random) = (Alarm::new(), Random::new(7));
        for (name, blocked) in MASKED {
            let fd = if name.starts_with("epoll") { set } else { b };
            for _ in 0..100 {
                sys::write_all(b, b"x");
                assert_eq!(blocked(fd, &blocking, -1), Ok(1), "{name}");
                sys::read_exact(b, 1);
                let seen = signals();
                alarm.set(random.within(SOON.0, SOON.1), 0);
                // The handler may run before the wait begins, and runs when it is over; either is no business of the wait's.
                assert_eq!(blocked(fd, &blocking, 1), Ok(0), "{name}");
                sys::until(|| signals() > seen);
            }
        }
    }),
    case("writes_notice_an_alarm_at_any_moment", || {
        let (a, b) = sys::pair();
        sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_SNDBUF, 50_000).expect("SO_SNDBUF");
        sys::setsockopt(b, libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000).expect("SO_RCVBUF");
        let bytes = vec![7; 2 << 20];
        // What a call has sent before the alarm it returns, whatever the handler's flags are.
        for flags in [0, libc::SA_RESTART] {
            count_signals(libc::SIGALRM, flags);
            let sent = Cell::new(0);
            let drain = || drop(sys::read_exact(b, sent.replace(0)));
            let write = || {
                let count = sys::write(a, &bytes)?;
                assert!(count < bytes.len());
                sent.set(count);
                Err(sys::Errno(libc::EINTR))
            };
            notices("write", (20, 600), drain, write, libc::EINTR);
            drain();
        }
        count_signals(libc::SIGALRM, 0);
        crate::data::Flow::new(5).fill_up(a);
        // The kernel may find room for a few bytes more.
        let write = || match sys::write(a, &[7; 5000]) {
            Ok(_) => Err(sys::Errno(libc::EINTR)),
            answer => answer,
        };
        notices("write to a full socket", SOON, || (), write, libc::EINTR);
    })
    .within_seconds(120),
    case("accept_and_connect_notice_an_alarm_at_any_moment", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let accept = || sys::accept(listener).map(|_| 0);
        notices("accept", SOON, || (), accept, libc::EINTR);
        // A listener whose queue is full answers nobody.
        sys::listen(listener, 0).expect("listen");
        let address = sys::Address::loopback(libc::AF_INET, port);
        for _ in 0..4 {
            let fd = sys::socket(libc::AF_INET);
            sys::set_nonblocking(fd, true);
            let _ = sys::connect(fd, &address);
        }
        let connect = || {
            let fd = sys::socket(libc::AF_INET);
            let answer = sys::connect(fd, &address);
            sys::close(fd).expect("close");
            answer
        };
        notices("connect", (60, 200), || (), connect, libc::EINTR);
    }),
    case("a_read_goes_on_after_a_restarting_handler_at_any_moment", || {
        let (b, _) = echoing_pair();
        count_signals(libc::SIGALRM, libc::SA_RESTART);
        let (alarm, mut random) = (Alarm::new(), Random::new(3));
        for _ in 0..300 {
            turn(b, READS[0].1);
            let seen = signals();
            alarm.set(random.within(SOON.0, SOON.1), 0);
            sys::write_all(b, b"later");
            assert_eq!(sys::read(b, &mut [0; 9]), Ok(1));
            sys::until(|| signals() > seen);
        }
    }),
    case("with_a_time_out_a_read_notices_even_a_restarting_handler", || {
        let (b, _) = echoing_pair();
        sys::timeout(b, libc::SO_RCVTIMEO, 600_000);
        count_signals(libc::SIGALRM, libc::SA_RESTART);
        let (name, blocked) = READS[0];
        notices(name, SOON, || turn(b, blocked), || blocked(b), libc::EINTR);
    }),
    case("handlers_are_what_the_program_has_installed", || {
        let own = seen as *const () as usize;
        let look = || {
            let mut action: libc::sigaction = zeroed();
            call!(libc::sigaction(libc::SIGUSR2, ptr::null(), &raw mut action)).expect("sigaction");
            // What kind of restorer there is, glibc tells too.
            (action.sa_sigaction, action.sa_flags & !0x0400_0000, first_word(&action.sa_mask))
        };
        let usr2 = 1 << (libc::SIGUSR2 - 1);
        sys::on_signal(libc::SIGUSR2, seen, libc::SA_RESTART | libc::SA_NODEFER);
        assert_eq!(look(), (own, libc::SA_RESTART | libc::SA_NODEFER, 0));
        // SAFETY: a handler that only counts.
        unsafe {
            assert_eq!(libc::signal(libc::SIGUSR2, libc::SIG_IGN), own);
            assert_eq!(libc::signal(libc::SIGUSR2, own), libc::SIG_IGN);
            assert_eq!(look(), (own, libc::SA_RESTART, usr2));
            assert_eq!(siginterrupt(libc::SIGUSR2, 1), 0);
            assert_eq!(look(), (own, 0, usr2));
            assert_eq!(libc::signal(libc::SIGUSR2, own), own);
            assert_eq!(look(), (own, 0, usr2));
            assert_eq!(siginterrupt(libc::SIGUSR2, 0), 0);
            assert_eq!(look(), (own, libc::SA_RESTART, usr2));
            assert_eq!(__sysv_signal(libc::SIGUSR2, own), own);
            assert_eq!(look(), (own, libc::SA_RESETHAND | libc::SA_NODEFER, 0));
            assert_eq!(sigset(libc::SIGUSR2, own), own);
            assert_eq!(look(), (own, 0, 0));
            assert_eq!(sigset(libc::SIGUSR2, 2), own);
            assert_eq!(sigset(libc::SIGUSR2, own), 2);
            assert_eq!(sigset(libc::SIGUSR2, own), own);
            assert_eq!(libc::signal(libc::SIGUSR2, libc::SIG_ERR), libc::SIG_ERR);
            assert_eq!(sys::errno().0, libc::EINVAL);
        }
        for signal in [-1, 0, 32, 33, 65, libc::SIGKILL, libc::SIGSTOP] {
            let action: libc::sigaction = zeroed();
            fails(call!(libc::sigaction(signal, &raw const action, ptr::null_mut())), libc::EINVAL);
        }
        let before = SEEN.load(Ordering::SeqCst);
        sys::tgkill(sys::gettid(), libc::SIGUSR2);
        assert_eq!(SEEN.load(Ordering::SeqCst), before + 1);
    }),
    case("a_handler_sees_the_stack_below_it", || {
        sys::on_signal(libc::SIGUSR2, look_down, 0);
        raised_here();
        assert!(FOUND.load(Ordering::SeqCst) == 1, "the interrupted function is not on the stack");
    }),
    case("a_thread_is_cancelled_within_a_handler", || {
        // The stack is unwound through the handler's frame.
        let (_a, b) = sys::pair();
        SOCKET.store(b, Ordering::SeqCst);
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = read_here as *const () as usize;
        call!(libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut())).expect("sigaction");
        let mut thread = 0;
        call!(pthread_create(&mut thread, ptr::null(), raise_and_stay, ptr::null_mut())).expect("create");
        sys::until(|| TID.load(Ordering::SeqCst) != 0);
        sys::let_sleep(sys::getpid(), TID.load(Ordering::SeqCst));
        call!(pthread_cancel(thread)).expect("cancel");
        let mut result = ptr::null_mut();
        call!(libc::pthread_join(thread, &mut result)).expect("join");
        assert_eq!(result.addr() as isize, -1, "PTHREAD_CANCELED");
    }),
];

/// Microseconds: while a call spins, and a little longer. Not so soon that the call may not have begun.
const SOON: (usize, usize) = (20, 150);
const ROUNDS: usize = 200;

type Blocked = fn(i32) -> Answer;

const READS: &[(&str, Blocked)] = &[
    ("read", |fd| sys::read(fd, &mut [0; 9])),
    ("recv", |fd| sys::recv(fd, &mut [0; 9], 0)),
    ("recvmsg", |fd| {
        let mut room = [0_u8; 9];
        let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 9 };
        let mut message = sys::message(std::slice::from_mut(&mut vector));
        call!(libc::recvmsg(fd, &raw mut message, 0))
    }),
    ("recvmmsg", |fd| {
        let mut room = [0_u8; 9];
        let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 9 };
        let mut header: libc::mmsghdr = zeroed();
        header.msg_hdr = sys::message(std::slice::from_mut(&mut vector));
        call!(libc::recvmmsg(fd, &raw mut header, 1, 0, ptr::null_mut()))
    }),
];

const WAITS: &[(&str, Blocked)] = &[
    ("poll", |fd| sys::poll(&mut [entry(fd, POLLIN)], -1)),
    ("select", |fd| wait::select(Some(&mut Set::of(&[fd])), None, None, -1)),
    ("epoll_wait", |set| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        call!(libc::epoll_wait(set, &raw mut event, 1, -1))
    }),
];

type Masked = fn(i32, &libc::sigset_t, i64) -> Answer;

/// The last argument is in milliseconds; -1: for ever.
const MASKED: &[(&str, Masked)] = &[
    ("ppoll", |fd, mask, time| {
        let (mut one, span) = (entry(fd, POLLIN), span(time));
        let span = if time < 0 { ptr::null() } else { &raw const span };
        call!(libc::ppoll(&raw mut one, 1, span, mask))
    }),
    ("pselect", |fd, mask, time| {
        let (mut set, none, span) = (Set::of(&[fd]), ptr::null_mut(), span(time));
        let span = if time < 0 { ptr::null() } else { &raw const span };
        call!(libc::pselect(1024, set.pointer(), none, none, span, mask))
    }),
    ("epoll_pwait", |set, mask, time| {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        call!(libc::epoll_pwait(set, &raw mut event, 1, time as i32, mask))
    }),
];

fn span(milliseconds: i64) -> libc::timespec {
    libc::timespec { tv_sec: 0, tv_nsec: milliseconds.max(0) * 1_000_000 }
}

/// Makes `blocked` many times with an alarm at some moment, after `before` has made spins pay. It fails with `errno`, and
/// that by the first alarm: there is another one, much later, so that none of them hangs.
fn notices(name: &str, moment: (usize, usize), before: impl Fn(), blocked: impl Fn() -> Answer, errno: i32) {
    if signals() == 0 {
        count_signals(libc::SIGALRM, 0);
    }
    let (alarm, mut random) = (Alarm::new(), Random::new(1));
    let mut missed = 0;
    for round in 0..ROUNDS {
        before();
        let seen = signals();
        alarm.set(random.within(moment.0, moment.1), 50_000);
        fails(blocked(), errno);
        alarm.set(0, 0);
        missed += usize::from(signals() > seen + 1);
        // A thread that loses the processor before it is in the call misses its alarm, also in the kernel.
        assert!(missed <= ROUNDS / 10, "{name}: {missed} of {} alarms were missed", round + 1);
    }
}

/// A connection whose other end sends back a byte for each read, or, when it reads more than one, a little later; and an
/// epoll set with it.
fn echoing_pair() -> (i32, i32) {
    let (a, b) = sys::pair();
    thread::spawn(move || {
        sys::block_signals(&[libc::SIGALRM]);
        let mut room = [0; 9];
        while let Ok(count @ 1..) = sys::read(a, &mut room) {
            if count > 1 {
                thread::sleep(std::time::Duration::from_micros(300));
            }
            sys::write_all(a, b"x");
        }
    });
    for _ in 0..200 {
        turn(b, READS[0].1);
    }
    let set = wait::epoll();
    wait::add(set, b, EPOLLIN);
    (b, set)
}

fn turn(fd: i32, blocked: Blocked) {
    sys::write_all(fd, b"x");
    assert!(matches!(blocked(fd), Ok(1)));
}

/// SIGALRM for this thread.
pub(crate) struct Alarm(libc::timer_t);

impl Alarm {
    pub(crate) fn new() -> Self {
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_notify_thread_id = sys::gettid();
        let mut timer = ptr::null_mut();
        call!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)).expect("timer");
        Self(timer)
    }

    /// In so many microseconds, and after that every so many; 0: never.
    pub(crate) fn set(&self, first: usize, then: usize) {
        let span = |time: usize| libc::timespec { tv_sec: 0, tv_nsec: time as i64 * 1000 };
        let time = libc::itimerspec { it_value: span(first), it_interval: span(then) };
        call!(libc::timer_settime(self.0, 0, &raw const time, ptr::null_mut())).expect("timer");
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        call!(libc::timer_delete(self.0)).expect("timer");
    }
}

static SEEN: AtomicUsize = AtomicUsize::new(0);
static FOUND: AtomicUsize = AtomicUsize::new(0);
static SOCKET: AtomicI32 = AtomicI32::new(-1);
static TID: AtomicI32 = AtomicI32::new(0);

extern "C" fn seen(_signal: i32) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

/// Whether [`raised_here`] is on the stack.
extern "C" fn look_down(_signal: i32) {
    let mut frames = [ptr::null_mut::<libc::c_void>(); 64];
    // SAFETY: there is room for that many.
    let count = unsafe { backtrace(frames.as_mut_ptr(), 64) };
    let function = raised_here as *const () as usize;
    let found = frames[..count as usize].iter().filter(|frame| {
        let address = frame.addr();
        (function..function + 512).contains(&address)
    });
    FOUND.store(usize::from(found.count() > 0), Ordering::SeqCst);
}

#[inline(never)]
extern "C" fn raised_here() {
    sys::tgkill(sys::gettid(), libc::SIGUSR2);
    // Not the last call: this frame stays.
    std::hint::black_box(SEEN.load(Ordering::SeqCst));
}

extern "C-unwind" fn read_here(_signal: i32) {
    let mut byte = 0_u8;
    // SAFETY: one byte; the thread is cancelled in here.
    unsafe { read(SOCKET.load(Ordering::SeqCst), (&raw mut byte).cast(), 1) };
}

extern "C-unwind" fn raise_and_stay(_argument: *mut libc::c_void) -> *mut libc::c_void {
    TID.store(sys::gettid(), Ordering::SeqCst);
    // SAFETY: raises a signal in this thread.
    unsafe { raise(libc::SIGUSR2) };
    ptr::null_mut()
}

fn first_word(set: &libc::sigset_t) -> u64 {
    // SAFETY: a set is longer than that.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}

unsafe extern "C" {
    fn backtrace(frames: *mut *mut libc::c_void, most: i32) -> i32;
    fn siginterrupt(signal: i32, interrupt: i32) -> i32;
    fn __sysv_signal(signal: i32, handler: usize) -> usize;
    fn sigset(signal: i32, handler: usize) -> usize;
    fn pthread_cancel(thread: libc::pthread_t) -> i32;
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut libc::c_void,
    ) -> i32;
}

type Start = extern "C-unwind" fn(*mut libc::c_void) -> *mut libc::c_void;

unsafe extern "C-unwind" {
    fn raise(signal: i32) -> i32;
    fn read(fd: i32, room: *mut libc::c_void, count: usize) -> isize;
}
