//! Processes that share a socket table because one has forked the other: how many there can be, how many sockets they can
//! have, and who does not share it any more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::Flow;
use crate::harness::{Case, Child, Environment, assert_on_pipe, case, fork, path, reason, skip};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("more_children_than_there_are_places_leave_nothing_in_the_table", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let mut used = Vec::new();
        for _ in 0..3 {
            let children = serve_by_many(listener);
            for _ in 0..4 * MANY {
                let end = sys::connected(libc::AF_INET, port);
                echo(end, 3);
                assert_on_pipe(end);
                sys::close(end).expect("close");
            }
            for child in children {
                sys::kill(child, libc::SIGKILL).expect("kill");
                sys::wait(child);
            }
            used.push(sockets_used());
        }
        // The last one may have come upon more connections at a time.
        assert!(used[2] <= used[0] + 100, "{used:?}");
    })
    .within_seconds(120),
    case("a_full_table_is_told_and_its_sockets_are_the_kernels", || {
        let children: Vec<_> = (0..250).map(|_| fork(|| _ = call!(libc::pause()))).collect();
        let fillers: Vec<_> = (0..FILLERS).map(|_| filler()).collect();
        let left_out = sys::socket(libc::AF_INET);
        assert_eq!(reason(left_out), Some(TABLE_FULL));
        let copy = sys::dup(left_out);
        assert_eq!(reason(copy), Some(TABLE_FULL));
        // Nobody looks for the dead at each of them.
        for _ in 0..250_000 {
            sys::close(sys::socket(libc::AF_INET)).expect("close");
        }
        let (listener, port) = sys::listener(libc::AF_INET);
        let (a, b) = (sys::connected(libc::AF_INET, port), sys::accept(listener).expect("accept"));
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        assert_eq!((path(a), reason(b)), (Some(0), Some(TABLE_FULL)));
        // What the dead have left is found, though not at once.
        for child in children.into_iter().chain(fillers) {
            sys::kill(child, libc::SIGKILL).expect("kill");
            sys::wait(child);
        }
        sys::until(|| {
            let fd = sys::socket(libc::AF_INET);
            let found = reason(fd) != Some(TABLE_FULL);
            sys::close(fd).expect("close");
            found
        });
    })
    .only(&[Environment::Pipe]),
    case("who_has_changed_its_user_does_not_share_the_table", || {
        needs_root();
        for (number, way) in WAYS.iter().enumerate() {
            let (a, b) = used_pair();
            let (told, tell) = sys::pipe();
            let child = Child::run(|| {
                way();
                let inode = table().map_or(0, |(_, inode)| inode);
                scribble_over_the_table();
                sys::write_all(tell, &inode.to_ne_bytes());
                call!(libc::pause()).expect("a signal");
            });
            let inode = u64::from_ne_bytes(sys::read_exact(told, 8).try_into().expect("eight bytes"));
            assert!(table().is_none_or(|(_, shared)| inode != shared), "way {number}");
            for (from, to) in [(a, b), (b, a)] {
                let (mut there, mut here) = (Flow::new(2), Flow::new(2));
                for _ in 0..100 {
                    there.write(from, 1000, 300);
                    here.read(to, 1000, 300);
                }
            }
            sys::kill(child.0, libc::SIGKILL).expect("kill");
            sys::wait(child.0);
            sys::close(a).expect("close");
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
            sys::close(b).expect("close");
        }
    }),
    case("a_connection_that_only_this_process_has_stays_on_its_pipe", || {
        needs_root();
        let (a, b) = used_pair();
        let child = Child::run(|| {
            sys::close(a).expect("close");
            let mut flow = Flow::new(2);
            flow.read(b, 1000, 300);
            sys::write_all(b, b"!");
            sys::until(|| sys::poll_one(b, libc::POLLIN, 0) == libc::POLLIN);
            setuid();
            // What came before is read after it.
            flow.read(b, 100_000, 300);
            assert_on_pipe(b);
            Flow::new(3).write(b, 100_000, 500);
            sys::close(b).expect("close");
        });
        sys::close(b).expect("close");
        let mut flow = Flow::new(2);
        flow.write(a, 1000, 300);
        sys::read_exact(a, 1);
        flow.write(a, 100_000, 500);
        assert_on_pipe(a);
        assert_eq!(Flow::new(3).read_to_end(a, 777), 100_000);
        sys::close(a).expect("close");
        child.join();
    }),
    case("unread_bytes_are_there_for_whoever_reads_them_after_a_change_of_user", || {
        needs_root();
        for reader_is_child in [false, true] {
            let (a, b) = used_pair();
            let mut out = Flow::new(2);
            out.write(a, 5000, 500);
            let child = Child::run(|| {
                setuid();
                if reader_is_child {
                    Flow::new(2).read(b, 50_000, 777);
                    Flow::new(3).write(b, 50_000, 777);
                }
            });
            if reader_is_child {
                out.write(a, 45_000, 500);
                Flow::new(3).read(a, 50_000, 500);
                child.join();
            } else {
                child.join();
                let mut rest = Flow::new(2);
                rest.read(b, 5000, 777);
                out.write(a, 45_000, 500);
                rest.read(b, 45_000, 777);
                Flow::new(3).write(b, 50_000, 777);
                Flow::new(3).read(a, 50_000, 500);
            }
            sys::close(b).expect("close");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            sys::close(a).expect("close");
        }
    }),
    case("a_daemon_that_drops_its_privileges_serves_and_leaves_nothing", || {
        needs_root();
        let (listener, port) = sys::listener(libc::AF_INET);
        let child = Child::run(|| {
            setuid();
            for _ in 0..20 {
                let end = sys::accept(listener).expect("accept");
                while let Ok(length @ 1..) = sys::read(end, &mut [0; 64]) {
                    sys::write_all(end, &[b'.'; 64][..length]);
                }
                sys::close(end).expect("close");
            }
        });
        for _ in 0..20 {
            let end = sys::connected(libc::AF_INET, port);
            echo(end, 100);
            sys::close(end).expect("close");
        }
        child.join();
    }),
    case("threads_go_on_while_the_user_changes", || {
        needs_root();
        let (a, b) = used_pair();
        let idle = fork(|| _ = call!(libc::pause()));
        let child = Child::run(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut flow = Flow::new(2);
                    (0..200).for_each(|_| flow.write(a, 1000, 300));
                });
                scope.spawn(|| {
                    let mut flow = Flow::new(2);
                    (0..200).for_each(|_| flow.read(b, 1000, 300));
                });
                setuid();
            });
            let (a, b) = sys::pair();
            Flow::new(2).write(a, 5000, 500);
            Flow::new(2).read(b, 5000, 500);
        });
        child.join();
        sys::kill(idle, libc::SIGKILL).expect("kill");
        sys::wait(idle);
        Flow::new(4).write(a, 5000, 500);
        Flow::new(4).read(b, 5000, 500);
    }),
    case("a_child_that_nobody_has_heard_of_is_another_writer", || {
        let ways: [fn() -> libc::pid_t; 3] = [
            || call!(libc::syscall(libc::SYS_fork)).expect("fork") as libc::pid_t,
            || {
                call!(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)).expect("clone")
                    as libc::pid_t
            },
            || call!(_Fork()).expect("_Fork") as libc::pid_t,
        ];
        for (way, start) in ways.into_iter().enumerate() {
            for _ in 0..10 {
                let (a, b) = used_pair();
                let child = start();
                if child == 0 {
                    (0..MESSAGES).for_each(|_| sys::write_all(a, &[b'c'; 100]));
                    // SAFETY: always allowed.
                    unsafe { libc::_exit(0) }
                }
                let reader = std::thread::spawn(move || {
                    let all = sys::read_exact(b, 2 * MESSAGES * 100);
                    all.iter().filter(|byte| **byte == b'c').count()
                });
                (0..MESSAGES).for_each(|_| sys::write_all(a, &[b'p'; 100]));
                assert_eq!(reader.join().expect("a count"), MESSAGES * 100, "way {way}");
                assert_eq!(sys::wait(child), sys::Ended::Exited(0));
                sys::close(a).expect("close");
                assert_eq!(sys::read(b, &mut [0]), Ok(0));
                sys::close(b).expect("close");
            }
        }
    }),
    case("what_a_child_closes_that_shares_the_descriptors_is_closed", || {
        extern "C" fn close_it(fd: *mut libc::c_void) -> libc::c_int {
            i32::from(sys::close(fd.addr() as i32) != Ok(0))
        }
        let mut stack = vec![0_u128; 16 * 1024];
        let mapped = || fs::read_to_string("/proc/self/maps").expect("/proc").matches("/meet/pipe").count();
        let (a, b) = used_pair();
        let (before, flags) = (mapped(), libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD);
        let argument = std::ptr::without_provenance_mut(b as usize);
        let top = stack.as_mut_ptr_range().end.cast();
        let child = call!(libc::clone(close_it, top, flags, argument)).expect("clone");
        assert_eq!(sys::wait(child as libc::pid_t), sys::Ended::Exited(0));
        assert_eq!(mapped(), before / 2);
        assert_eq!(sys::read(a, &mut [0]), Ok(0));
        sys::fails(sys::read(b, &mut [0]), libc::EBADF);
        let (c, d) = used_pair();
        assert!(c == b || d == b);
    }),
];

unsafe extern "C" {
    fn _Fork() -> libc::pid_t;
}

const MESSAGES: usize = 2000;

/// SOCKSHIM_REASON_TABLE_FULL.
const TABLE_FULL: i32 = 11;
const NOBODY: libc::uid_t = 65_534;

/// More than the table has places for.
const MANY: usize = 500;

/// Ways to become another user.
const WAYS: [fn(); 5] = [
    setuid,
    || _ = call!(libc::seteuid(NOBODY)).expect("seteuid"),
    || _ = call!(libc::setresuid(NOBODY, NOBODY, 0)).expect("setresuid"),
    || _ = call!(libc::syscall(libc::SYS_setreuid, NOBODY, NOBODY)).expect("setreuid"),
    || _ = call!(libc::setfsuid(NOBODY)).expect("setfsuid"),
];

fn setuid() {
    call!(libc::setuid(NOBODY)).expect("setuid");
}

fn needs_root() {
    if sys::getuid() != 0 {
        skip("needs root");
    }
}

#[track_caller]
fn echo(end: i32, times: usize) {
    for _ in 0..times {
        sys::write_all(end, b"....");
        assert_eq!(sys::read_exact(end, 4), b"....");
    }
}

/// Two ends that have been on their pipe, where this environment has one.
fn used_pair() -> (i32, i32) {
    let (a, b) = sys::pair();
    for (from, to) in [(a, b), (b, a)] {
        Flow::new(1).write(from, 10_000, 100);
        Flow::new(1).read(to, 10_000, 100);
    }
    (a, b)
}

/// Children that serve one connection after the other.
fn serve_by_many(listener: i32) -> Vec<libc::pid_t> {
    let ready = &sys::shared()[0];
    let children = (0..MANY).map(|_| {
        fork(|| {
            ready.fetch_add(1, Ordering::SeqCst);
            loop {
                let end = sys::accept(listener).expect("accept");
                let mut message = [0; 64];
                while let Ok(length @ 1..) = sys::read(end, &mut message) {
                    sys::write_all(end, &message[..length]);
                }
                sys::close(end).expect("close");
            }
        })
    });
    let children = children.collect();
    sys::until(|| ready.load(Ordering::SeqCst) == MANY as u64);
    children
}

/// Slots of this process's table that have ever been used: its file says so behind magic and version. 0: it has none.
fn sockets_used() -> u32 {
    let inode = table().map(|(_, inode)| inode);
    let folder = std::env::var("SOCKSHIM_DIR").into_iter().flat_map(fs::read_dir);
    for file in folder.flat_map(|entries| entries.flatten()) {
        if file.metadata().is_ok_and(|facts| Some(facts.ino()) == inode) {
            let bytes = fs::read(file.path()).expect("the table");
            return u32::from_ne_bytes(bytes[12..16].try_into().expect("four bytes"));
        }
    }
    0
}

/// Where this process has mapped its socket table, and the file's inode.
fn table() -> Option<(std::ops::Range<usize>, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let line = maps.lines().find(|line| line.contains("/meet/table"))?;
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (start, end) = fields[0].split_once('-')?;
    let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).expect("an address"));
    Some((start..end, fields[4].parse().expect("an inode")))
}

/// What a program may do that has been taken over: it writes the number of a live thread, its own, into every word.
fn scribble_over_the_table() {
    let Some((place, _)) = table() else { return };
    let value = sys::gettid() as u64;
    let used = place.start + 16..place.start + 512 * 1024;
    for address in used.step_by(8) {
        // SAFETY: within a mapping that this process may write to, which holds only atomics.
        unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(address) }.store(value, Ordering::SeqCst);
    }
}

/// A child that has made sockets until there was no slot for one more, or as many as it may.
fn filler() -> libc::pid_t {
    let limit = libc::rlimit { rlim_cur: EACH + 100, rlim_max: EACH + 100 };
    if call!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).is_err() {
        skip("too few descriptors are allowed");
    }
    let (told, tell) = sys::pipe();
    let child = fork(|| {
        let mut last = sys::socket(libc::AF_INET);
        for _ in 1..EACH {
            if reason(last) == Some(TABLE_FULL) {
                break;
            }
            last = sys::socket(libc::AF_INET);
        }
        sys::write_all(tell, b"!");
        call!(libc::pause()).expect("a signal");
    });
    sys::close(tell).expect("close");
    sys::read_exact(told, 1);
    sys::close(told).expect("close");
    child
}

/// Together they make more sockets than a table has slots, each as many as a process is mostly allowed to.
const FILLERS: u64 = 5;
const EACH: u64 = 15_000;
