//! Connections leave the program its memory.

use std::{fs, ptr};

use crate::data::Flow;
use crate::harness::{Case, Environment, case, skip};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("an_address_space_limit_leaves_the_program_its_part", || {
        const ROOM: usize = 512 << 20;
        let limit = (status("VmSize") + ROOM) as libc::rlim_t;
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        call!(libc::setrlimit(libc::RLIMIT_AS, &limit)).expect("setrlimit");
        let pairs: Vec<_> = (0..300).map(|_| sys::pair()).collect();
        talk(&pairs);
        // The rest is enough for stacks, the heap and a share for us.
        let size = ROOM * 3 / 4;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, which nobody uses.
        let place = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ, kind, -1, 0) };
        assert_ne!(place, libc::MAP_FAILED, "{} MB are used", status("VmSize") >> 20);
        talk(&pairs);
    }),
    case("a_program_that_locks_its_memory_locks_little_of_ours", || {
        if call!(libc::mlockall(libc::MCL_FUTURE)).is_err() {
            skip("it may not lock memory");
        }
        let before = status("VmLck");
        let pairs: Vec<_> = (0..100).map(|_| sys::pair()).collect();
        talk(&pairs);
        let each = (status("VmLck") - before) / (2 * pairs.len());
        assert!(each <= 32 << 10, "{each} bytes are locked for each end");
    })
    .only(&[Environment::Host, Environment::Pipe, Environment::Default]),
    case("idle_connections_take_little_memory_and_leave_less", || {
        const PAIRS: usize = 500;
        let exchange = |pairs: &[(i32, i32)]| {
            for &(a, b) in pairs {
                for (from, to) in [(a, b), (b, a), (a, b)] {
                    Flow::new(1).write(from, 300, 100);
                    Flow::new(1).read(to, 300, 100);
                }
            }
        };
        let warm: Vec<_> = (0..10).map(|_| sys::pair()).collect();
        exchange(&warm);
        let before = status("VmRSS");
        let pairs: Vec<_> = (0..PAIRS).map(|_| sys::pair()).collect();
        exchange(&pairs);
        // Both ends are here, and each maps the page that they share; with it comes what the tables have of an end.
        let each = status("VmRSS").saturating_sub(before) / (2 * PAIRS);
        assert!(each < 8000, "an idle end takes {each} bytes");
        for (a, b) in pairs {
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
        let each = status("VmRSS").saturating_sub(before) / (2 * PAIRS);
        assert!(each < 3000, "an end that is gone leaves {each} bytes");
    })
    .only(&[Environment::Pipe]),
];

fn talk(pairs: &[(i32, i32)]) {
    for (seed, &(a, b)) in pairs.iter().enumerate() {
        for (from, to) in [(a, b), (b, a)] {
            Flow::new(seed).write(from, 20_000, 3000);
            Flow::new(seed).read(to, 20_000, 5000);
        }
    }
}

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field is there");
    let number = line.split_whitespace().nth(1).expect("it has a value");
    number.parse::<usize>().expect("a number") << 10
}
