//! Signals, cancellation and jumps in every call that sleeps.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use libc::{EPOLLIN, POLLIN};

use crate::data::{Flow, Random};
use crate::harness::{Case, Child, case};
use crate::signals::{count_signals, interrupting_until, signals};
use crate::sys::raw::zeroed;
use crate::sys::wait::{self, Set, entry};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("without_restart_every_call_says_eintr", || {
        for (name, blocked) in CALLS {
            for before in [0, 10_000] {
                count_signals(libc::SIGUSR1, 0);
                let (a, b) = used_pair(before);
                let fd = side(name, a, b);
                let answer = interrupting_until(libc::SIGUSR1, || blocked(fd));
                assert!(is_interrupted(name, answer), "{name} after {before} bytes: {answer:?}");
                still_works(name, a, b);
            }
        }
    }),
    case("with_a_time_out_no_call_restarts", || {
        for (name, blocked) in CALLS {
            count_signals(libc::SIGUSR1, libc::SA_RESTART);
            let (a, b) = used_pair(10_000);
            sys::timeout(b, libc::SO_RCVTIMEO, 500_000);
            sys::timeout(a, libc::SO_SNDTIMEO, 500_000);
            let fd = side(name, a, b);
            let answer = interrupting_until(libc::SIGUSR1, || blocked(fd));
            assert!(is_interrupted(name, answer), "{name}: {answer:?}");
            still_works(name, a, b);
        }
    }),
    case("with_restart_a_call_goes_on", || {
        for (name, blocked) in CALLS {
            if name.starts_with("wait") {
                continue;
            }
            for before in [0, 10_000] {
                count_signals(libc::SIGUSR1, libc::SA_RESTART);
                let (a, b) = used_pair(before);
                let fd = side(name, a, b);
                let caller = sys::gettid();
                let answer = thread::scope(|scope| {
                    scope.spawn(|| {
                        for _ in 0..3 {
                            sys::let_sleep(sys::getpid(), caller);
                            let seen = signals();
                            sys::tgkill(caller, libc::SIGUSR1);
                            sys::until(|| signals() > seen);
                        }
                        match name.starts_with("send") {
                            true => drop(sys::shutdown(a, libc::SHUT_RDWR)),
                            false => sys::write_all(a, &[b'r'; 64]),
                        }
                    });
                    blocked(fd)
                });
                match name.starts_with("send") {
                    // The kernel may have found room for nine bytes more.
                    true => {
                        assert!(matches!(answer, Err(sys::Errno(libc::EPIPE)) | Ok(9)), "{name}: {answer:?}")
                    }
                    false => assert!(matches!(answer, Ok(1..)), "{name}: {answer:?}"),
                }
                sys::close(a).expect("close");
                sys::close(b).expect("close");
            }
        }
    }),
    case("connect_that_waits_is_interrupted", || {
        count_signals(libc::SIGUSR1, 0);
        // A listener whose queue is full answers nobody.
        let (listener, port) = sys::listener(libc::AF_INET);
        sys::listen(listener, 0).expect("listen");
        let address = sys::Address::loopback(libc::AF_INET, port);
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let fd = sys::socket(libc::AF_INET);
                sys::set_nonblocking(fd, true);
                fails_or_not(sys::connect(fd, &address));
                fd
            })
            .collect();
        let fd = sys::socket(libc::AF_INET);
        let answer = interrupting_until(libc::SIGUSR1, || sys::connect(fd, &address));
        fails(answer, libc::EINTR);
        sys::set_nonblocking(fd, true);
        fails(sys::connect(fd, &address), libc::EALREADY);
        assert_eq!(sys::events(fd, libc::POLLOUT), 0);
        for fd in waiting {
            sys::close(fd).expect("close");
        }
    }),
    case("cancelled_in_every_call", || {
        for (name, blocked) in CALLS {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                let fd = side(name, a, b);
                let task = Task { fd, blocked: *blocked, asynchronous: false, asleep: true };
                let cancelled = cancel(task);
                // The kernel may have found room for nine bytes more.
                assert!(cancelled || name.starts_with("send"), "{name}");
                still_works(name, a, b);
            }
        }
    }),
    case("cancelled_although_there_are_always_bytes", || {
        // A thread that never sleeps is cancelled in its next call.
        for asynchronous in [false, true] {
            let (a, b) = used_pair(10_000);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let _ = sys::send(a, &[1; 1000], libc::MSG_DONTWAIT);
                    }
                });
                assert!(cancel(Task { fd: b, blocked: read_for_ever, asynchronous, asleep: false }));
                stop.store(true, Ordering::SeqCst);
            });
            let _ = sys::recv(b, &mut [0; 9], libc::MSG_DONTWAIT);
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
        let (a, b) = used_pair(10_000);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let _ = sys::recv(b, &mut [1; 100_000], libc::MSG_DONTWAIT);
                }
            });
            assert!(cancel(Task { fd: a, blocked: write_for_ever, asynchronous: false, asleep: false }));
            stop.store(true, Ordering::SeqCst);
        });
    }),
    case("jumping_out_of_a_handler_in_every_call", || {
        for round in 0..20 {
            for (name, blocked) in CALLS {
                let (a, b) = used_pair(if round % 2 == 0 { 0 } else { 10_000 });
                let fd = side(name, a, b);
                jump_out_of(fd, *blocked);
                still_works(name, a, b);
            }
        }
    }),
    case("jumping_twenty_times_out_of_one_sockets_calls", || {
        let (a, b) = used_pair(10_000);
        for _ in 0..20 {
            for (name, blocked) in CALLS.iter().filter(|(name, _)| !name.starts_with("send")) {
                jump_out_of(b, *blocked);
                sys::write_all(a, b"x");
                assert_eq!(sys::read_exact(b, 1), b"x", "{name}");
            }
        }
        // Another thread and an interrupted call see nothing of all that.
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(sys::read_exact(b, 3), b"abc"));
            sys::write_all(a, b"abc");
        });
        count_signals(libc::SIGUSR1, 0);
        fails(interrupting_until(libc::SIGUSR1, || sys::read(b, &mut [0])), libc::EINTR);
        sys::timeout(b, libc::SO_RCVTIMEO, 20);
        fails(sys::read(b, &mut [0]), libc::EAGAIN);
    }),
    case("jumping_out_of_the_middle_of_a_copy", || {
        // What the next call of this thread finds of it holds up no other thread.
        for reads in [true, false] {
            let (a, b) = used_pair(10_000);
            let (own, other) = if reads { (b, a) } else { (a, b) };
            let quiet = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut room = [0; 20_000];
                    while !stop.load(Ordering::SeqCst) {
                        let _ = match reads {
                            true => sys::send(other, &room, quiet),
                            false => sys::recv(other, &mut room, quiet),
                        };
                    }
                });
                let mut random = Random::new(1);
                for round in 0..200 {
                    jump_out_of_any_place(
                        own,
                        if reads { take_for_ever } else { give_for_ever },
                        &mut random,
                    );
                    let mut byte = [0];
                    let _ =
                        if reads { sys::recv(own, &mut byte, quiet) } else { sys::send(own, &byte, quiet) };
                    let answer = thread::scope(|inner| {
                        let call = move || match reads {
                            true => sys::recv(own, &mut [0; 100], 0),
                            false => sys::send(own, &[0; 100], libc::MSG_NOSIGNAL),
                        };
                        inner.spawn(call).join().expect("a call")
                    });
                    assert!(matches!(answer, Ok(1..)), "round {round}: {answer:?}");
                }
                stop.store(true, Ordering::SeqCst);
            });
            still_works("recv", a, b);
        }
    }),
    case("handlers_on_a_small_stack", || {
        // As small as programs make it: SIGSTKSZ, of which the kernel's frame takes a part.
        const SIZE: usize = 8192;
        let (a, b) = used_pair(10_000);
        let set = wait::epoll();
        wait::add(set, b, EPOLLIN);
        for (place, fd) in FDS.iter().zip([a, b, set]) {
            place.store(fd, Ordering::SeqCst);
        }
        let none = libc::PROT_NONE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: fresh memory, below which nothing can be touched.
        unsafe {
            let place = libc::mmap(ptr::null_mut(), SIZE + 65536, none, flags, -1, 0);
            assert_ne!(place, libc::MAP_FAILED);
            let stack = place.byte_add(65536);
            assert_eq!(libc::mprotect(stack, SIZE, libc::PROT_READ | libc::PROT_WRITE), 0);
            let alternate = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: SIZE };
            assert_eq!(libc::sigaltstack(&alternate, ptr::null_mut()), 0);
        }
        sys::on_signal(libc::SIGUSR2, use_everything, libc::SA_ONSTACK);
        for round in 1..=50 {
            sys::tgkill(sys::gettid(), libc::SIGUSR2);
            assert_eq!(DONE.load(Ordering::SeqCst), round);
        }
    }),
    case("sigio_comes_where_it_was_asked_for", || {
        for before in [0, 10_000] {
            let (a, b) = used_pair(before);
            count_signals(libc::SIGIO, 0);
            call!(libc::fcntl(b, libc::F_SETOWN, sys::getpid())).expect("F_SETOWN");
            assert_eq!(call!(libc::fcntl(b, libc::F_GETOWN)), Ok(sys::getpid() as usize));
            let flags = call!(libc::fcntl(b, libc::F_GETFL)).expect("F_GETFL") as i32;
            let twin = sys::dup(b);
            call!(libc::fcntl(twin, libc::F_SETFL, flags | libc::O_ASYNC)).expect("O_ASYNC");
            assert_eq!(call!(libc::fcntl(b, libc::F_GETFL)), Ok((flags | libc::O_ASYNC) as usize));
            for _ in 0..20 {
                let seen = signals();
                sys::write_all(a, b"signal");
                sys::until(|| signals() > seen);
                assert_eq!(sys::read_exact(b, 6), b"signal");
            }
            call!(libc::fcntl(b, libc::F_SETFL, flags)).expect("F_SETFL");
            sys::write_all(a, b"silent");
            assert_eq!(sys::read_exact(twin, 6), b"silent");
        }
    }),
    case("o_async_and_o_nonblock_set_by_a_forked_child", || {
        for before in [0, 10_000] {
            let (a, b) = used_pair(before);
            count_signals(libc::SIGIO, 0);
            call!(libc::fcntl(b, libc::F_SETOWN, sys::getpid())).expect("F_SETOWN");
            let flags = call!(libc::fcntl(b, libc::F_GETFL)).expect("F_GETFL") as i32;
            let new = flags | libc::O_ASYNC | libc::O_NONBLOCK;
            Child::run(|| _ = call!(libc::fcntl(b, libc::F_SETFL, new)).expect("F_SETFL")).join();
            assert_eq!(call!(libc::fcntl(b, libc::F_GETFL)), Ok(new as usize));
            fails(sys::read(b, &mut [0]), libc::EAGAIN);
            for _ in 0..5 {
                let seen = signals();
                sys::write_all(a, b"signal");
                sys::until(|| signals() > seen);
                assert_eq!(sys::read_exact(b, 6), b"signal");
            }
            Child::run(|| _ = call!(libc::fcntl(b, libc::F_SETFL, flags)).expect("F_SETFL")).join();
            sys::write_all(a, b"silent");
            assert_eq!(sys::read_exact(b, 6), b"silent");
        }
    }),
    case("sigurg_comes_with_urgent_data", || {
        let (a, b) = used_pair(10_000);
        count_signals(libc::SIGURG, 0);
        call!(libc::fcntl(b, libc::F_SETOWN, sys::getpid())).expect("F_SETOWN");
        sys::write_all(a, b"before");
        assert_eq!(sys::send(a, b"!", libc::MSG_OOB), Ok(1));
        sys::until(|| signals() == 1);
        assert_eq!(sys::poll_one(b, libc::POLLPRI, -1), libc::POLLPRI);
        let mut byte = [0];
        assert_eq!(sys::recv(b, &mut byte, libc::MSG_OOB), Ok(1));
        assert_eq!(&byte, b"!");
        assert_eq!(sys::read_exact(b, 6), b"before");
    }),
];

type Blocked = fn(i32) -> Answer;

/// Every call that can sleep on a connection. Those that send find it full; those that wait have no restart.
const CALLS: &[(&str, Blocked)] = &[
    ("read", |fd| sys::read(fd, &mut [0; 9])),
    ("readv", |fd| {
        let mut room = [0_u8; 9];
        let vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 9 };
        call!(libc::readv(fd, &raw const vector, 1))
    }),
    ("recv", |fd| sys::recv(fd, &mut [0; 9], 0)),
    ("recv peek", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_PEEK)),
    ("recv waitall", |fd| sys::recv(fd, &mut [0; 9], libc::MSG_WAITALL)),
    ("recvfrom", |fd| {
        let mut room = [0_u8; 9];
        call!(libc::recvfrom(fd, room.as_mut_ptr().cast(), 9, 0, ptr::null_mut(), ptr::null_mut()))
    }),
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
    ("send by write", |fd| sys::write(fd, &[0; 9])),
    ("send", |fd| sys::send(fd, &[0; 9], libc::MSG_NOSIGNAL)),
    ("send by writev", |fd| {
        let room = [0_u8; 9];
        let vector = libc::iovec { iov_base: room.as_ptr().cast_mut().cast(), iov_len: 9 };
        call!(libc::writev(fd, &raw const vector, 1))
    }),
    ("send by sendmsg", |fd| {
        let mut room = [0_u8; 9];
        let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 9 };
        let message = sys::message(std::slice::from_mut(&mut vector));
        call!(libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL))
    }),
    ("wait by poll", |fd| sys::poll(&mut [entry(fd, POLLIN)], -1)),
    ("wait by ppoll", |fd| {
        let mut one = entry(fd, POLLIN);
        call!(libc::ppoll(&raw mut one, 1, ptr::null(), ptr::null()))
    }),
    ("wait by select", |fd| wait::select(Some(&mut Set::of(&[fd])), None, None, -1)),
    ("wait by pselect", |fd| {
        let (mut set, none) = (Set::of(&[fd]), ptr::null_mut());
        call!(libc::pselect(1024, set.pointer(), none, none, ptr::null(), ptr::null()))
    }),
    ("wait by epoll", |fd| {
        let set = wait::epoll();
        wait::add(set, fd, EPOLLIN);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        call!(libc::epoll_wait(set, &raw mut event, 1, -1))
    }),
];

fn read_for_ever(fd: i32) -> Answer {
    let mut room = [0_u8; 100];
    loop {
        // SAFETY: the buffer is long enough, and the thread is cancelled in here.
        unsafe { read(fd, room.as_mut_ptr().cast(), 100) };
    }
}

fn write_for_ever(fd: i32) -> Answer {
    let room = [0_u8; 100];
    loop {
        // SAFETY: as above.
        unsafe { write(fd, room.as_ptr().cast(), 100) };
    }
}

/// A pair that has carried some bytes.
fn used_pair(before: usize) -> (i32, i32) {
    ignore_sigpipe();
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    (a, b)
}

/// The end on which a call sleeps; for those that send it is full.
fn side(name: &str, a: i32, b: i32) -> i32 {
    if name.starts_with("send") {
        Flow::new(5).fill_up(a);
        return a;
    }
    b
}

/// EINTR; but the kernel may have found room for nine bytes more in a pipe that was full.
fn is_interrupted(name: &str, answer: Answer) -> bool {
    answer == Err(sys::Errno(libc::EINTR)) || name.starts_with("send") && answer == Ok(9)
}

/// Bytes go both ways, and the connection ends in order.
#[track_caller]
fn still_works(name: &str, a: i32, b: i32) {
    let mut byte = [0; 65536];
    while sys::recv(b, &mut byte, libc::MSG_DONTWAIT).is_ok() {}
    sys::timeout(b, libc::SO_RCVTIMEO, 0);
    sys::write_all(a, b"there");
    let mut last = Vec::new();
    // What a blocked sender had sent comes first.
    while !last.ends_with(b"there") {
        let count = sys::read(b, &mut byte).expect("read");
        assert!(count > 0, "{name}");
        last.extend_from_slice(&byte[..count]);
    }
    sys::write_all(b, b"back");
    assert_eq!(sys::read_exact(a, 4), b"back", "{name}");
    sys::close(a).expect("close");
    assert_eq!(sys::read(b, &mut [0]), Ok(0), "{name}");
    sys::close(b).expect("close");
}

struct Task {
    fd: i32,
    blocked: Blocked,
    asynchronous: bool,
    asleep: bool,
}

/// Runs a call in a thread and cancels it there; false when the call returned instead.
fn cancel(task: Task) -> bool {
    TID.store(0, Ordering::SeqCst);
    let asleep = task.asleep;
    let mut thread = 0;
    let argument = Box::into_raw(Box::new(task));
    call!(pthread_create(&mut thread, ptr::null(), run, argument.cast())).expect("create");
    sys::until(|| TID.load(Ordering::SeqCst) != 0);
    if asleep {
        sys::let_sleep(sys::getpid(), TID.load(Ordering::SeqCst));
    }
    call!(pthread_cancel(thread)).expect("cancel");
    let mut result = ptr::null_mut();
    call!(libc::pthread_join(thread, &mut result)).expect("join");
    // SAFETY: the thread is gone.
    drop(unsafe { Box::from_raw(argument) });
    // PTHREAD_CANCELED
    result.addr() as isize == -1
}

static TID: AtomicI32 = AtomicI32::new(0);

extern "C-unwind" fn run(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: what `cancel` made; it lives until this thread is gone.
    let (fd, blocked, asynchronous) = unsafe {
        let task = &*argument.cast::<Task>();
        (task.fd, task.blocked, task.asynchronous)
    };
    TID.store(sys::gettid(), Ordering::SeqCst);
    if asynchronous {
        // SAFETY: from here on the thread only reads.
        unsafe { pthread_setcanceltype(1, ptr::null_mut()) };
    }
    let _ = blocked(fd);
    ptr::null_mut()
}

/// Makes a call that sleeps, and jumps out of it from a handler.
fn jump_out_of(fd: i32, blocked: Blocked) {
    sys::on_signal(libc::SIGUSR1, jump, libc::SA_RESTART);
    let caller = sys::gettid();
    let jumped = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::until(|| ARMED.load(Ordering::SeqCst) || jumped.load(Ordering::SeqCst));
            sys::let_sleep(sys::getpid(), caller);
            sys::tgkill(caller, libc::SIGUSR1);
            sys::until(|| jumped.load(Ordering::SeqCst));
        });
        // SAFETY: the frame that is jumped over has nothing to drop, and this one is left by the jump alone.
        unsafe { catching(&Jump { fd, blocked }) };
        jumped.store(true, Ordering::SeqCst);
    });
}

/// The same with a call that need not sleep, after a random while.
fn jump_out_of_any_place(fd: i32, call: Blocked, random: &mut Random) {
    sys::on_signal(libc::SIGUSR1, jump, libc::SA_RESTART);
    let (caller, pause) = (sys::gettid(), random.within(0, 20_000));
    thread::scope(|scope| {
        scope.spawn(move || {
            sys::until(|| ARMED.load(Ordering::SeqCst));
            for _ in 0..pause {
                std::hint::spin_loop();
            }
            sys::tgkill(caller, libc::SIGUSR1);
        });
        // SAFETY: as above.
        unsafe { catching(&Jump { fd, blocked: call }) };
    });
}

fn take_for_ever(fd: i32) -> Answer {
    let mut room = [0; 60_000];
    loop {
        sys::recv(fd, &mut room, 0)?;
    }
}

fn give_for_ever(fd: i32) -> Answer {
    let room = [0; 60_000];
    loop {
        sys::send(fd, &room, libc::MSG_NOSIGNAL)?;
    }
}

/// A call to jump out of.
struct Jump {
    fd: i32,
    blocked: Blocked,
}

/// Where the jump leads.
static mut PLACE: [u64; 64] = [0; 64];

/// Makes the call and returns when it, or a jump, does. `sigsetjmp` returns twice, so it is called in assembly.
#[unsafe(naked)]
unsafe extern "C-unwind" fn catching(task: *const Jump) {
    std::arch::naked_asm!(
        "push rbx",
        "mov rbx, rdi",
        "lea rdi, [rip + {place}]",
        "mov esi, 1",
        "call {set}",
        "test eax, eax",
        "jnz 2f",
        "mov rdi, rbx",
        "call {go}",
        "2:",
        "pop rbx",
        "ret",
        place = sym PLACE,
        set = sym __sigsetjmp,
        go = sym go,
    )
}

extern "C-unwind" fn go(task: *const Jump) {
    // SAFETY: what `jump_out_of` passes.
    let Jump { fd, blocked } = unsafe { task.read() };
    ARMED.store(true, Ordering::SeqCst);
    let _ = blocked(fd);
    ARMED.store(false, Ordering::SeqCst);
}

/// Whether there is a place to jump to.
static ARMED: AtomicBool = AtomicBool::new(false);

extern "C" fn jump(_signal: i32) {
    if !ARMED.swap(false, Ordering::SeqCst) {
        // The call has returned by itself.
        return;
    }
    // SAFETY: filled by `catching`, whose frame is still there.
    unsafe { siglongjmp(&raw mut PLACE, 1) };
}

static FDS: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];
static DONE: AtomicI32 = AtomicI32::new(0);

/// Everything that a handler may call.
extern "C" fn use_everything(_signal: i32) {
    let [a, b, set] = [0, 1, 2].map(|index: usize| FDS[index].load(Ordering::SeqCst));
    let mut room = [0_u8; 64];
    let mut vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: 64 };
    let mut message: libc::msghdr = zeroed();
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    let mut one = libc::pollfd { fd: b, events: POLLIN, revents: 0 };
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: all of them are in scope.
    unsafe {
        let mut bits: libc::fd_set = std::mem::zeroed();
        libc::FD_SET(b, &mut bits);
        let (none, flags) = (ptr::null_mut(), libc::MSG_DONTWAIT);
        let mut good = libc::write(a, room.as_ptr().cast(), 64) == 64;
        good &= libc::poll(&mut one, 1, -1) == 1;
        good &= libc::select(b + 1, &mut bits, none, none, &mut time) == 1;
        good &= libc::epoll_wait(set, &mut event, 1, -1) == 1;
        good &= libc::recvmsg(b, &mut message, flags) == 64;
        good &= libc::sendmsg(a, &message, 0) == 64;
        good &= libc::readv(b, &vector, 1) == 64;
        good &= libc::recv(b, room.as_mut_ptr().cast(), 64, flags) == -1;
        good &= libc::poll(&mut one, 1, 0) == 0;
        good &= libc::epoll_wait(set, &mut event, 1, 0) == 0;
        if good {
            DONE.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn fails_or_not(answer: Answer) {
    assert!(matches!(answer, Ok(0) | Err(sys::Errno(libc::EINPROGRESS))), "{answer:?}");
}

fn ignore_sigpipe() {
    // SAFETY: always allowed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

type Start = extern "C-unwind" fn(*mut libc::c_void) -> *mut libc::c_void;

unsafe extern "C-unwind" {
    fn read(fd: i32, buffer: *mut libc::c_void, count: usize) -> isize;
    fn write(fd: i32, buffer: *const libc::c_void, count: usize) -> isize;
}

unsafe extern "C" {
    fn pthread_cancel(thread: libc::pthread_t) -> i32;
    fn pthread_setcanceltype(kind: i32, old: *mut i32) -> i32;
    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut libc::c_void,
    ) -> i32;
    fn __sigsetjmp(place: *mut [u64; 64], mask: i32) -> i32;
    fn siglongjmp(place: *mut [u64; 64], value: i32) -> !;
}
