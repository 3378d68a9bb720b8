//! What the kernel, or somebody else, refuses at the moment: room for a doorbell, a shutdown, a file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, ptr, thread};

use libc::{POLLIN, SOL_SOCKET};
use sockshim_ring::layout::VERSION;

use crate::data::Flow;
use crate::harness::{Case, Environment, assert_on_pipe, case, environment};
use crate::sys::raw::Way;
use crate::sys::wait::poll_one;
use crate::sys::{self, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_sleeper_is_woken_through_a_send_buffer_without_room", || {
        // A byte that wakes somebody takes room there until it is acknowledged, which may be 40 ms later.
        for nonblocking in [false, true] {
            let (a, b) = sys::pair();
            sys::setsockopt(a, SOL_SOCKET, libc::SO_SNDBUF, 1).expect("SO_SNDBUF");
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
            sys::set_nonblocking(a, nonblocking);
            let read = AtomicUsize::new(0);
            let tid = AtomicUsize::new(0);
            thread::scope(|scope| {
                scope.spawn(|| {
                    tid.store(sys::gettid() as usize, Ordering::SeqCst);
                    for _ in 0..ROUNDS {
                        assert_eq!(poll_one(b, POLLIN, -1), POLLIN);
                        assert_eq!(sys::read_exact(b, 1), b"x");
                        read.fetch_add(1, Ordering::SeqCst);
                    }
                });
                sys::until(|| tid.load(Ordering::SeqCst) != 0);
                for round in 0..ROUNDS {
                    sys::until(|| read.load(Ordering::SeqCst) == round);
                    sys::let_sleep(sys::getpid(), tid.load(Ordering::SeqCst) as libc::pid_t);
                    // What a write says that it has taken comes.
                    sys::until(|| sys::write(a, b"x") == Ok(1));
                }
            });
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
    }),
    case("a_sleeper_is_woken_after_a_byte_that_woke_nobody", || {
        for refusal in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 10_000, 500);
            Flow::new(1).read(b, 10_000, 500);
            sys::set_nonblocking(a, true);
            thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    assert_eq!(poll_one(b, POLLIN, -1), POLLIN);
                    sys::read_exact(b, 2)
                });
                thread::sleep(std::time::Duration::from_millis(50));
                // The kernel takes no doorbell from this thread; what has been published is written all the same.
                let refused = scope.spawn(move || {
                    answer_past_libc(libc::SYS_sendto, refusal);
                    sys::write(a, b"x")
                });
                assert_eq!(refused.join().expect("a writer"), Ok(1));
                assert_eq!(sys::write(a, b"y"), Ok(1));
                assert_eq!(reader.join().expect("a reader"), b"xy");
            });
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
    }),
    case("a_shutdown_that_is_refused_changes_nothing", || {
        let (a, b) = sys::pair();
        let used = |seed| {
            for (from, to) in [(a, b), (b, a)] {
                Flow::new(seed).write(from, 10_000, 500);
                Flow::new(seed).read(to, 10_000, 500);
            }
        };
        used(1);
        answer_past_libc(libc::SYS_shutdown, libc::EPERM);
        for how in [libc::SHUT_RD, libc::SHUT_WR, libc::SHUT_RDWR] {
            fails(sys::shutdown(a, how), libc::EPERM);
            used(2);
            // Both directions still have what they had: where there is a pipe, no data goes through the kernel.
            for (from, to) in [(a, b), (b, a)] {
                Flow::new(3).write(from, 1000, 500);
                sys::until(|| sys::readable(to) == 1000);
                let mut queued = 0_i32;
                Way::Past.ioctl(to, libc::FIONREAD as u32, (&raw mut queued).addr()).expect("FIONREAD");
                assert!(environment() != Environment::Pipe || queued < 500, "{queued}");
                Flow::new(3).read(to, 1000, 500);
            }
        }
        assert_on_pipe(a);
        used(4);
    }),
    case("a_lease_on_the_file_of_a_meeting_holds_nobody_up", || {
        call!(libc::signal(libc::SIGIO, libc::SIG_IGN)).expect("signal");
        let (a, b) = sys::pair();
        let ends = [a, b].map(|fd| number(fd, libc::SO_COOKIE));
        let (low, high) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let folder = format!("{}/meet", env::var("CALLS_SCRATCH").expect("the runner sets it"));
        let name = format!("{folder}/pipe{VERSION}-{:x}-{low:x}-{high:x}", number(a, SO_NETNS_COOKIE));
        let file = environment() != Environment::Host;
        let leased = file.then(|| {
            fs::write(&name, b"").expect("a file in the folder");
            let path = std::ffi::CString::new(name).expect("a path");
            let fd = call!(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)).expect("open") as i32;
            call!(libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK)).expect("a lease");
            fd
        });
        for (from, to) in [(a, b), (b, a)] {
            Flow::new(1).write(from, 100_000, 500);
            Flow::new(1).read(to, 100_000, 500);
        }
        if let Some(fd) = leased {
            sys::close(fd).expect("close");
        }
    })
    .only(&[Environment::Host, Environment::Midstream, Environment::Default])
    // A lease is broken after 45 seconds (/proc/sys/fs/lease-break-time).
    .within_seconds(40),
];

const ROUNDS: usize = 200;

const SO_NETNS_COOKIE: i32 = 71;

fn number(fd: i32, name: i32) -> u64 {
    let (mut value, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let place = (&raw mut value).cast();
    call!(libc::getsockopt(fd, SOL_SOCKET, name, place, &raw mut length)).expect("a cookie");
    value
}

/// Makes a system call of this thread fail from now on, by a filter that the library does not see come, as one that was
/// there before it.
fn answer_past_libc(number: libc::c_long, errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let prctl = |words: [usize; 6]| Way::Past.call(libc::SYS_prctl, words);
    prctl([libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]).expect("no new privileges");
    let mode = libc::SECCOMP_MODE_FILTER as usize;
    let place = ptr::from_ref(&filter).expose_provenance();
    prctl([libc::PR_SET_SECCOMP as usize, mode, place, 0, 0, 0]).expect("a filter");
}
