//! A peer of the same user that leaves words in the shared memory that cannot be true. It breaks its own connection; but
//! no call waits for longer than it may, or burns the processor, also after the peer is gone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, mem, ptr, thread};

use libc::{EPOLLET, EPOLLIN, MSG_DONTWAIT, POLLIN};
use sockshim_ring::layout::{Direction, HEADER_SIZE, Header, direction_offset};

use crate::data::Flow;
use crate::harness::{Case, Environment, case, fork};
use crate::sys::wait::{self, Set, add, epoll, epoll_wait};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("no_call_waits_on_words_that_cannot_be_true", || for_each_lie(waits_end_in_time))
        .only(&[Environment::Pipe])
        .within_seconds(240),
    case("no_call_spins_on_words_that_cannot_be_true", || for_each_lie(waits_sleep))
        .only(&[Environment::Pipe])
        .within_seconds(240),
    case("a_signal_ends_a_wait_on_words_that_cannot_be_true", || for_each_lie(waits_are_interrupted))
        .only(&[Environment::Pipe])
        .within_seconds(240),
    case("a_peer_that_has_lied_and_is_gone_leaves_nothing", || for_each_lie(ends_are_told))
        .only(&[Environment::Pipe])
        .within_seconds(240),
];

/// What the peer writes into the direction that it writes, and into the one that it reads.
type Lie = fn(&Direction, &Direction);

const LIES: &[(&str, Lie)] = &[
    ("the truth", |_, _| {}),
    ("doorbells that never come before the kernel lane", |direction, _| {
        let read = direction.reader.kernel_read.load(Ordering::Relaxed);
        direction.switch.resume.store(read + 1000, Ordering::SeqCst);
        direction
            .switch
            .gate
            .store((direction.reader.epoch.load(Ordering::Relaxed) + 1) << 1, Ordering::SeqCst);
    }),
    ("two epochs ahead, with doorbells that never come", |direction, _| {
        let read = direction.reader.kernel_read.load(Ordering::Relaxed);
        direction.switch.resume.store(read + 1000, Ordering::SeqCst);
        direction
            .switch
            .gate
            .store((direction.reader.epoch.load(Ordering::Relaxed) + 2) << 1, Ordering::SeqCst);
    }),
    ("kernel bytes that never come before the ring", |direction, _| before_the_ring(direction, 0)),
    ("kernel bytes that never come before bytes of the ring", |direction, _| before_the_ring(direction, 5)),
    ("doorbells that were not rung", |direction, _| {
        direction.switch.doorbells.fetch_add(7, Ordering::SeqCst);
    }),
    ("fewer bytes taken than were", |direction, _| {
        direction.reader.kernel_read.fetch_sub(1, Ordering::SeqCst);
    }),
    ("more bytes taken than were", |direction, _| {
        direction.reader.kernel_read.fetch_add(1000, Ordering::SeqCst);
    }),
    ("an epoch far ahead", |direction, _| {
        direction
            .switch
            .gate
            .store((direction.reader.epoch.load(Ordering::Relaxed) + 7) << 1, Ordering::SeqCst);
    }),
    ("an epoch behind", |direction, _| {
        direction.reader.epoch.fetch_add(1, Ordering::SeqCst);
    }),
    ("an epoch that the gate has no bits for", |direction, _| {
        direction.reader.epoch.store(u32::MAX, Ordering::SeqCst);
    }),
    ("a reader in the kernel for ever", |direction, _| {
        direction.reader.epoch.store(0, Ordering::SeqCst);
        direction.switch.gate.store(1, Ordering::SeqCst);
    }),
    ("more bytes than the ring holds", |direction, _| {
        direction.producer.tail.fetch_add(1 << 40, Ordering::SeqCst);
    }),
    ("bytes in a ring without room", |direction, _| {
        direction.producer.tail.fetch_add(5, Ordering::SeqCst);
        direction.producer.capacity.store(0, Ordering::SeqCst);
    }),
    ("a ring of no size", |direction, _| {
        direction.producer.capacity.store(12_345, Ordering::SeqCst);
    }),
    ("a shut gate", |direction, _| direction.shut()),
    ("a writer that waits for room in every way", |direction, _| {
        direction.room.awaited.store(u32::MAX, Ordering::SeqCst);
    }),
    ("more room than was ever written", |_, read| {
        read.room.released.fetch_add(1 << 40, Ordering::SeqCst);
    }),
    ("bytes to be sent again that nobody has", |_, read| {
        read.reader.handed.store(2, Ordering::SeqCst);
    }),
];

fn before_the_ring(direction: &Direction, bytes: u64) {
    direction.producer.tail.fetch_add(bytes, Ordering::SeqCst);
    let read = direction.reader.kernel_read.load(Ordering::Relaxed);
    direction.switch.kernel_end.store(read + 1000, Ordering::SeqCst);
    direction.reader.epoch.store(0, Ordering::SeqCst);
    direction.switch.gate.store(1 << 1, Ordering::SeqCst);
}

/// Says that the peer has lied; and that it is to go.
const LIED: usize = 0;
/// A connection that was used for a while, with a peer in another process that has lied since then. The peer may have
/// sent one byte of the kernel's behind the lie, and may be gone.
fn with_liar(lie: Lie, rings: bool, check: impl FnOnce(i32, libc::pid_t)) {
    let (listener, port) = sys::listener(libc::AF_INET);
    let shared = sys::shared();
    shared[LIED].store(0, Ordering::SeqCst);
    let child = fork(|| {
        let own = sys::connected(libc::AF_INET, port);
        Flow::new(1).write(own, 10_000, 500);
        Flow::new(2).read(own, 10_000, 500);
        let (written, read) = directions(own);
        lie(written, read);
        if rings {
            sys::raw::Way::Past.send(own, &[0], 0).expect("send");
        }
        shared[LIED].store(1, Ordering::SeqCst);
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    });
    let fd = sys::accept(listener).expect("accept");
    sys::close(listener).expect("close");
    Flow::new(1).read(fd, 10_000, 500);
    Flow::new(2).write(fd, 10_000, 500);
    sys::until(|| shared[LIED].load(Ordering::SeqCst) == 1);
    check(fd, child);
    // It may be gone already.
    let _ = sys::kill(child, libc::SIGKILL);
    let _ = call!(libc::waitpid(child, ptr::null_mut(), 0));
    sys::close(fd).expect("close");
}

/// The direction that the socket writes, and the one that it reads, in the only segment that this process has.
fn directions(fd: i32) -> (&'static Direction, &'static Direction) {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let front = maps
        .lines()
        .find(|line| line.contains("/pipe") && line.contains(" 00000000 "))
        .and_then(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok())
        .expect("a segment");
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let place = (&raw mut cookie).cast();
    call!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, place, &raw mut length))
        .expect("SO_COOKIE");
    // SAFETY: a segment's front is mapped there for as long as this process runs, and holds atomic words.
    unsafe {
        let header = &*ptr::with_exposed_provenance::<Header>(front);
        let end = usize::from(header.cookies[1].load(Ordering::Relaxed) == cookie);
        assert!(front.is_multiple_of(4096) && HEADER_SIZE <= 4096);
        let direction = |end| &*ptr::with_exposed_provenance::<Direction>(front + direction_offset(end));
        (direction(end), direction(1 - end))
    }
}

fn for_each_lie(check: fn(&str, i32, libc::pid_t)) {
    for (name, lie) in LIES {
        for rings in [false, true] {
            with_liar(*lie, rings, |fd, child| check(name, fd, child));
        }
    }
}

/// A wait that ends after `milliseconds`, with or without something.
type Wait = fn(i32, i32);

const WAITS: &[(&str, Wait)] = &[
    ("poll", |fd, time| _ = wait::poll(&mut [wait::entry(fd, POLLIN)], time)),
    ("select", |fd, time| _ = wait::select(Some(&mut Set::of(&[fd])), None, None, time.into())),
    ("level", |fd, time| in_set(fd, EPOLLIN, time)),
    ("edge", |fd, time| in_set(fd, EPOLLIN | EPOLLET, time)),
    ("recv with a time-out", |fd, time| {
        sys::timeout(fd, libc::SO_RCVTIMEO, i64::from(time.max(1)));
        let _ = sys::recv(fd, &mut [0; 99], libc::MSG_PEEK);
        sys::timeout(fd, libc::SO_RCVTIMEO, 0);
    }),
];

fn in_set(fd: i32, events: i32, time: i32) {
    let set = epoll();
    add(set, fd, events);
    let _ = epoll_wait(set, 9, time);
    sys::close(set).expect("close");
}

/// They return at all: the watchdog is there for those that do not.
fn waits_end_in_time(_: &str, fd: i32, _: libc::pid_t) {
    for (_, wait) in WAITS {
        wait(fd, 20);
    }
    // A program that is told of something and finds nothing tries again; it must not be told for ever.
    for _ in 0..3 {
        for (_, wait) in WAITS {
            wait(fd, 0);
        }
        let _ = sys::recv(fd, &mut [0; 99], MSG_DONTWAIT);
    }
    let told = wait::poll(&mut [wait::entry(fd, POLLIN)], 0).expect("poll");
    let found = sys::recv(fd, &mut [0; 99], MSG_DONTWAIT);
    assert!(told == 0 || found != Err(sys::Errno(libc::EAGAIN)), "told of what nobody can read");
}

/// Processor time of this thread.
fn spent() -> Duration {
    // SAFETY: all zeroes are a time.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    call!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time)).expect("clock_gettime");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A wait of 300 ms does not compute for half of it.
fn waits_sleep(name: &str, fd: i32, _: libc::pid_t) {
    for (wait_name, wait) in WAITS {
        let before = spent();
        wait(fd, 300);
        let cost = spent() - before;
        assert!(cost < Duration::from_millis(150), "{name}, {wait_name}: {cost:?}");
    }
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Waits without end are ended by a signal.
fn waits_are_interrupted(_: &str, fd: i32, _: libc::pid_t) {
    sys::on_signal(libc::SIGUSR1, count, 0);
    for (_, wait) in WAITS {
        let done = AtomicU64::new(0);
        thread::scope(|scope| {
            let (tid, done) = (sys::gettid(), &done);
            scope.spawn(move || {
                // Again and again: the first one may come before the wait.
                while done.load(Ordering::Relaxed) == 0 {
                    thread::sleep(Duration::from_millis(5));
                    sys::tgkill(tid, libc::SIGUSR1);
                }
            });
            wait(fd, 200_000);
            done.store(1, Ordering::Relaxed);
        });
    }
}

/// When the peer has been killed, every read comes to an end, and every wait tells of it.
fn ends_are_told(name: &str, fd: i32, child: libc::pid_t) {
    sys::kill(child, libc::SIGKILL).expect("kill");
    sys::wait(child);
    let since = Instant::now();
    loop {
        assert_eq!(wait::poll(&mut [wait::entry(fd, POLLIN)], -1), Ok(1), "{name}");
        match sys::recv(fd, &mut [0; 99], MSG_DONTWAIT) {
            Ok(0) => break,
            Err(sys::Errno(libc::EAGAIN)) if since.elapsed() < Duration::from_secs(20) => {}
            Err(sys::Errno(libc::EAGAIN)) => panic!("{name}: told of what nobody can read"),
            Ok(_) | Err(_) => {}
        }
    }
    assert_eq!(sys::read(fd, &mut [0; 99]), Ok(0), "{name}");
    for events in [EPOLLIN, EPOLLIN | EPOLLET] {
        let set = epoll();
        add(set, fd, events);
        assert_eq!(epoll_wait(set, 9, -1).expect("epoll_wait").len(), 1, "{name}");
        sys::close(set).expect("close");
    }
    // The first may be what the kernel resets for.
    sys::until(|| sys::send(fd, b"x", libc::MSG_NOSIGNAL) == Err(sys::Errno(libc::EPIPE)));
}
