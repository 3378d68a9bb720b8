//! Processes that are stopped anywhere while they use a connection together with others: whoever goes on is not held
//! up, and nothing is lost, doubled or made up when they are continued. Stopped by a signal, by a debugger, or frozen.
//!
//! A stop is most likely to fall where a system call returns, so that is where most of these hit. Once one of them has
//! been fenced off the connection keeps to the kernel's lane; so each round has a connection of its own.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::data::Random;
use crate::harness::{Case, Child, case, fork, skip};
use crate::sys::wait::{self, epoll, epoll_wait};
use crate::sys::{self, Ended, call};

pub(crate) const CASES: &[Case] = &[
    case("a_writer_stopped_anywhere_does_not_hold_up_the_other", || {
        for round in 0..ROUNDS {
            write_beside_a_stopped_writer(round, &BySignal);
        }
    })
    .within_seconds(240),
    case("a_reader_stopped_anywhere_does_not_hold_up_the_other", || {
        for round in 0..ROUNDS {
            read_beside_a_stopped_reader(round, &BySignal);
        }
    })
    .within_seconds(240),
    case("a_process_stopped_by_a_debugger_does_not_hold_up_the_other", || {
        for round in 0..ROUNDS / 2 {
            write_beside_a_stopped_writer(round, &ByDebugger);
            read_beside_a_stopped_reader(round, &ByDebugger);
        }
    })
    .within_seconds(240),
    case("a_frozen_process_does_not_hold_up_the_other", || {
        let freezer = Freezer::new();
        for round in 0..ROUNDS / 2 {
            write_beside_a_stopped_writer(round, &freezer);
            read_beside_a_stopped_reader(round, &freezer);
        }
    })
    .within_seconds(240),
    case("a_process_stopped_anywhere_does_not_hold_up_its_epoll_set", || {
        for round in 0..ROUNDS / 4 {
            wait_beside_a_stopped_waiter(round);
        }
    })
    .within_seconds(240),
    case("a_process_in_another_pid_namespace_is_not_taken_for_dead", || {
        // The first child that is born there is 1 in it, and nobody else of us is anybody.
        if sys::wait(fork(enter_pid_namespace)) != Ended::Exited(0) {
            skip("no process namespaces here");
        }
        for round in 0..ROUNDS_ACROSS {
            Child::run(|| write_across_namespaces(round)).join();
        }
    })
    .within_seconds(240),
];

const ROUNDS: u64 = 40;
const ROUNDS_ACROSS: u64 = 10;
/// Times that the other process is stopped in each round.
const STOPS: usize = 4;

/// How often each byte was there.
type Counts = [u64; 256];

fn count(counts: &mut Counts, bytes: &[u8]) {
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
}

/// A pause of up to some ten microseconds, so that a stop may fall anywhere.
fn linger(random: &mut Random) {
    for _ in 0..random.size(12) {
        std::hint::spin_loop();
    }
}

/// A way to keep a process from running.
trait Stop {
    fn stop(&self, process: libc::pid_t);
    fn go_on(&self, process: libc::pid_t);
}

struct BySignal;

impl Stop for BySignal {
    fn stop(&self, process: libc::pid_t) {
        sys::kill(process, libc::SIGSTOP).expect("stop");
    }

    fn go_on(&self, process: libc::pid_t) {
        sys::kill(process, libc::SIGCONT).expect("continue");
    }
}

/// As gdb does (ptrace(2)).
struct ByDebugger;

impl Stop for ByDebugger {
    fn stop(&self, process: libc::pid_t) {
        // Not one that has ended.
        if call!(libc::ptrace(libc::PTRACE_SEIZE, process, 0, 0)).is_ok() {
            call!(libc::ptrace(libc::PTRACE_INTERRUPT, process, 0, 0)).expect("interrupt");
            let how = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT | libc::__WALL;
            // SAFETY: all zeroes is a valid siginfo_t.
            let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
            call!(libc::waitid(libc::P_PID, process as u32, &mut told, how)).expect("it stops");
        }
    }

    fn go_on(&self, process: libc::pid_t) {
        let _ = call!(libc::ptrace(libc::PTRACE_DETACH, process, 0, 0));
    }
}

/// A control group of its own, as `docker pause` uses one (cgroup v2, `cgroup.freeze`). Removed when it is dropped.
struct Freezer(String);

impl Freezer {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then_some(place)
        });
        let group = root.map(|root| format!("{root}/sockshim-{}", sys::getpid()));
        match group {
            Some(group) if fs::create_dir(&group).is_ok() => Self(group),
            _ => skip("no control group can be made here"),
        }
    }

    fn freeze(&self, on: bool) {
        fs::write(format!("{}/cgroup.freeze", self.0), if on { "1" } else { "0" }).expect("cgroup.freeze");
        let wanted = format!("frozen {}", u8::from(on));
        let events = format!("{}/cgroup.events", self.0);
        sys::until(|| fs::read_to_string(&events).expect("cgroup.events").contains(&wanted));
    }
}

impl Stop for Freezer {
    fn stop(&self, process: libc::pid_t) {
        fs::write(format!("{}/cgroup.procs", self.0), process.to_string()).expect("cgroup.procs");
        self.freeze(true);
    }

    fn go_on(&self, _process: libc::pid_t) {
        self.freeze(false);
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).expect("its processes have ended");
    }
}

/// Stops the process, lets `act` run, and continues it.
fn while_stopped(process: libc::pid_t, how: &dyn Stop, random: &mut Random, act: impl FnOnce()) {
    linger(random);
    how.stop(process);
    act();
    how.go_on(process);
}

fn write_beside_a_stopped_writer(round: u64, how: &dyn Stop) {
    const MESSAGES: usize = 2000;
    let mut random = Random::new(round);
    let (end, other) = on_pipe();
    let child = Child::run(|| {
        sys::close(other).expect("close");
        for _ in 0..MESSAGES {
            sys::write_all(end, &[b'c'; 100]);
        }
    });
    let reading = thread::spawn(move || {
        let mut random = Random::new(round + 1000);
        let (mut counts, mut buffer) = ([0; 256], [0; 5000]);
        loop {
            match sys::read(other, &mut buffer).expect("read") {
                0 => return counts,
                length => count(&mut counts, &buffer[..length]),
            }
            // Sometimes the writers are faster, and sometimes they find a sleeper.
            linger(&mut random);
        }
    });
    for _ in 0..STOPS {
        while_stopped(child.0, how, &mut random, || {
            for _ in 0..5 {
                sys::write_all(end, &[b'p'; 50]);
            }
        });
    }
    child.join();
    sys::close(end).expect("close");
    let counts = reading.join().expect("a reader that counts");
    let mut expected = [0; 256];
    expected[usize::from(b'c')] = MESSAGES as u64 * 100;
    expected[usize::from(b'p')] = STOPS as u64 * 5 * 50;
    assert!(counts == expected, "round {round}: {:?}", differences(&counts, &expected));
    sys::close(other).expect("close");
}

/// The next children are born into a namespace of their own.
fn enter_pid_namespace() {
    call!(libc::unshare(libc::CLONE_NEWPID)).expect("unshare");
}

/// Two writers that see nothing of each other. While one is stopped, perhaps in the middle of a copy, the other waits or
/// goes on; what it must not do is to write in its place.
fn write_across_namespaces(round: u64) {
    let mut random = Random::new(round);
    let (end, other) = on_pipe();
    let shared: &[AtomicU64; 3] = sys::shared();
    let [enough, counts @ ..] = shared;
    let write = |byte: u8, count: &AtomicU64| {
        sys::close(other).expect("close");
        while enough.load(Ordering::Relaxed) == 0 {
            sys::write_all(end, &[byte; 3000]);
            count.fetch_add(3000, Ordering::Relaxed);
        }
    };
    let here = Child::run(|| write(b'h', &counts[0]));
    // A process whose children are born elsewhere makes no threads.
    let reading = thread::spawn(move || read_to_end(other, &mut Random::new(round + 1000)));
    enter_pid_namespace();
    let there = Child::run(|| write(b't', &counts[1]));
    for _ in 0..STOPS {
        for process in [here.0, there.0] {
            while_stopped(process, &BySignal, &mut random, || thread::sleep(Duration::from_millis(70)));
            thread::sleep(Duration::from_millis(5));
        }
    }
    enough.store(1, Ordering::Relaxed);
    here.join();
    there.join();
    sys::close(end).expect("close");
    let found = reading.join().expect("a reader that counts");
    let mut expected = [0; 256];
    expected[usize::from(b'h')] = counts[0].load(Ordering::Relaxed);
    expected[usize::from(b't')] = counts[1].load(Ordering::Relaxed);
    assert!(found == expected, "round {round}: {:?}", differences(&found, &expected));
}

fn read_beside_a_stopped_reader(round: u64, how: &dyn Stop) {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    ENOUGH.store(false, Ordering::Relaxed);
    let mut random = Random::new(round);
    let (end, other) = on_pipe();
    let (told, tell) = sys::pipe();
    let child = Child::run(|| {
        sys::close(other).expect("close");
        let counts = read_to_end(end, &mut Random::new(round + 1000));
        for number in counts {
            sys::write_all(tell, &number.to_ne_bytes());
        }
    });
    let writing = thread::spawn(move || {
        let mut random = Random::new(round + 2000);
        let mut counts = [0; 256];
        let mut next = 0u8;
        while !ENOUGH.load(Ordering::Relaxed) {
            let message = vec![next; 1 + random.size(9)];
            sys::write_all(other, &message);
            count(&mut counts, &message);
            next = next.wrapping_add(1);
            linger(&mut random);
        }
        sys::close(other).expect("close");
        counts
    });
    let mut counts = [0; 256];
    for _ in 0..STOPS {
        while_stopped(child.0, how, &mut random, || {
            let mut buffer = [0; 700];
            for _ in 0..20 {
                let length = sys::read(end, &mut buffer).expect("read");
                count(&mut counts, &buffer[..length]);
            }
        });
    }
    ENOUGH.store(true, Ordering::Relaxed);
    add(&mut counts, &read_to_end(end, &mut random));
    let mut theirs = [0; 256];
    for number in &mut theirs {
        *number = u64::from_ne_bytes(sys::read_exact(told, 8).try_into().expect("eight bytes"));
    }
    child.join();
    add(&mut counts, &theirs);
    let expected = writing.join().expect("a writer that counts");
    assert!(counts == expected, "round {round}: {:?}", differences(&counts, &expected));
    for fd in [end, told, tell] {
        sys::close(fd).expect("close");
    }
}

/// Two processes wait in one set. While one of them is stopped, perhaps in the middle of a walk over its lists, the other goes
/// on: it hears of bytes, and changes its registrations.
fn wait_beside_a_stopped_waiter(round: u64) {
    let mut random = Random::new(round);
    let pairs: Vec<(i32, i32)> = (0..8).map(|_| on_pipe()).collect();
    let set = epoll();
    let ends: Vec<i32> = pairs.iter().map(|pair| pair.0).collect();
    ends.iter().for_each(|end| wait::add(set, *end, libc::EPOLLIN));
    let counts: &[AtomicU64; 3] = sys::shared();
    let [written, read, enough] = counts;
    let take = |wait: i32| {
        // Who was stopped is told EINTR (signal(7)).
        for (_, end) in epoll_wait(set, 4, wait).unwrap_or_default() {
            if let Ok(count) = sys::recv(end as i32, &mut [0; 100], libc::MSG_DONTWAIT) {
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    };
    let child = Child::run(|| {
        while enough.load(Ordering::Relaxed) == 0 {
            take(0);
        }
    });
    let others: Vec<i32> = pairs.iter().map(|pair| pair.1).collect();
    let writing = thread::spawn(move || {
        let mut random = Random::new(round + 1000);
        while enough.load(Ordering::Relaxed) == 0 {
            for other in &others {
                if let Ok(count) = sys::send(*other, &[b'.'; 30], libc::MSG_DONTWAIT) {
                    written.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
            linger(&mut random);
        }
    });
    for _ in 0..10 * STOPS {
        while_stopped(child.0, &BySignal, &mut random, || {
            let wanted = read.load(Ordering::Relaxed) + 2000;
            while read.load(Ordering::Relaxed) < wanted {
                take(-1);
            }
            wait::modify(set, ends[0], libc::EPOLLIN | libc::EPOLLOUT);
            wait::modify(set, ends[0], libc::EPOLLIN);
            wait::delete(set, ends[1]);
            wait::add(set, ends[1], libc::EPOLLIN);
        });
        thread::sleep(Duration::from_micros(200));
    }
    enough.store(1, Ordering::Relaxed);
    writing.join().expect("a writer");
    child.join();
    // All of them are still there.
    while read.load(Ordering::Relaxed) < written.load(Ordering::Relaxed) {
        take(-1);
    }
    pairs.iter().flat_map(|pair| [pair.0, pair.1]).for_each(|fd| _ = sys::close(fd));
    sys::close(set).expect("close");
}

fn read_to_end(fd: i32, random: &mut Random) -> Counts {
    let (mut counts, mut buffer) = ([0; 256], [0; 3000]);
    loop {
        let room = 1 + random.size(11);
        match sys::read(fd, &mut buffer[..room]).expect("read") {
            0 => return counts,
            length => count(&mut counts, &buffer[..length]),
        }
    }
}

fn add(counts: &mut Counts, more: &Counts) {
    counts.iter_mut().zip(more).for_each(|(all, more)| *all += more);
}

/// Byte, found, expected.
fn differences(found: &Counts, expected: &Counts) -> Vec<(usize, u64, u64)> {
    (0..256)
        .filter(|&byte| found[byte] != expected[byte])
        .map(|byte| (byte, found[byte], expected[byte]))
        .collect()
}

/// Two ends that have been on their pipe, where this environment has one.
fn on_pipe() -> (i32, i32) {
    let (end, other) = sys::pair();
    for _ in 0..3 {
        for (from, to) in [(end, other), (other, end)] {
            sys::write_all(from, &[b'.'; 300]);
            sys::read_exact(to, 300);
        }
    }
    (end, other)
}
