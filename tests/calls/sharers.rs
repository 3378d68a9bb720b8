//! Several who share one end, and one of them does not let go of it: because it writes much, because it does not get the
//! processor, or because it lies.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::harness::{Case, Child, Environment, case, skip};
use crate::sys::{self, Errno, call};

pub(crate) const CASES: &[Case] = &[
    case("a_call_that_does_not_wait_beside_long_writes", || {
        const ALL: usize = 512 << 20;
        let (end, other) = sys::pair();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let part = vec![b'l'; ALL / 128];
                (0..128).for_each(|_| sys::write_all(end, &part));
                sys::shutdown(end, libc::SHUT_WR).expect("shutdown");
            });
            // It makes progress all the time, but the writes are far from done when the other calls have returned.
            let reading = scope.spawn(|| {
                let (mut buffer, mut before, mut all) = (vec![0; 64 * 1024], 0, 0);
                loop {
                    let count = sys::read(other, &mut buffer).expect("read");
                    all += count;
                    if !done.load(Ordering::Relaxed) {
                        before = all;
                    }
                    if count == 0 {
                        return (before, all);
                    }
                }
            });
            sys::until(|| sys::readable(other) > 0 || reading.is_finished());
            let mut sent = 0;
            for _ in 0..20 {
                match sys::send(end, b"short", libc::MSG_DONTWAIT) {
                    Ok(count) => sent += count,
                    Err(error) => assert_eq!(error, Errno(libc::EAGAIN)),
                }
            }
            done.store(true, Ordering::Relaxed);
            let (before, all) = reading.join().expect("a reader that counts");
            assert_eq!(all, ALL + sent);
            assert!(
                before < ALL / 2,
                "twenty calls that do not wait took as long as {before} bytes of the writes"
            );
        });
        sys::close(end).expect("close");
        sys::close(other).expect("close");
    }),
    case("an_urgent_writer_does_not_keep_the_owner_of_the_lock_from_running", || {
        // One that waits awake would keep the other from the processor until the scheduler takes it away.
        const WRITES: usize = 3000;
        let (end, other) = sys::pair();
        let enough = AtomicBool::new(false);
        thread::scope(|scope| {
            let enough = &enough;
            let reading = scope.spawn(move || {
                let (mut buffer, mut all) = (vec![0; 1 << 16], 0);
                loop {
                    match sys::read(other, &mut buffer).expect("read") {
                        0 => return all,
                        count => all += count,
                    }
                }
            });
            let writing = scope.spawn(move || {
                stay_on_processor_0();
                let message = vec![b'o'; 16_000];
                let mut all = 0;
                while !enough.load(Ordering::Relaxed) {
                    sys::write_all(end, &message);
                    all += message.len();
                }
                all
            });
            let urgent = scope.spawn(move || {
                stay_on_processor_0();
                let time = libc::sched_param { sched_priority: 1 };
                if call!(libc::sched_setscheduler(0, libc::SCHED_FIFO, &time)).is_err() {
                    return false;
                }
                for _ in 0..WRITES {
                    thread::sleep(std::time::Duration::from_micros(100));
                    sys::write_all(end, b"urgent");
                }
                true
            });
            let was_urgent = urgent.join().expect("an urgent writer");
            enough.store(true, Ordering::Relaxed);
            let written = writing.join().expect("a writer");
            sys::shutdown(end, libc::SHUT_WR).expect("shutdown");
            let read = reading.join().expect("a reader");
            if !was_urgent {
                skip("no real-time scheduling here");
            }
            assert_eq!(read, written + WRITES * b"urgent".len());
        });
        sys::close(end).expect("close");
        sys::close(other).expect("close");
    }),
    case("a_child_that_claims_the_locks_does_not_hold_up_its_parent", || {
        let (end, other) = sys::pair();
        let counts: &[AtomicU64; 3] = sys::shared();
        let [claimed, enough, _] = counts;
        let parent = sys::getpid();
        let liar = Child::run(|| claim_locks(parent, claimed, enough));
        let echo = Child::run(|| {
            sys::close(end).expect("close");
            let mut buffer = [0; 100];
            loop {
                match sys::read(other, &mut buffer).expect("read") {
                    0 => return,
                    count => sys::write_all(other, &buffer[..count]),
                }
            }
        });
        sys::close(other).expect("close");
        let turn = |number: u8| {
            sys::write_all(end, &[number; 100]);
            assert_eq!(sys::read_exact(end, 100), [number; 100]);
        };
        // Both locks of this end, in so many turns at most that it ends where there are none.
        for number in 0..2_000_000u64 {
            if claimed.load(Ordering::Relaxed) >= 2 {
                break;
            }
            turn(number as u8);
        }
        (0..10).for_each(turn);
        enough.store(1, Ordering::Relaxed);
        liar.join();
        sys::close(end).expect("close");
        echo.join();
    })
    .only(&[Environment::Pipe, Environment::Small]),
];

fn stay_on_processor_0() {
    // SAFETY: an all-zero set is a valid value, and 0 is within it.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: as before.
    unsafe { libc::CPU_SET(0, &mut set) };
    call!(libc::sched_setaffinity(0, size_of_val(&set), &set)).expect("sched_setaffinity");
}

/// Waits until words of the socket table have shown the number of the thread `victim`, and from then on writes its own there
/// whenever they are free, until it has been `enough`.
fn claim_locks(victim: libc::pid_t, claimed: &AtomicU64, enough: &AtomicU64) {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let table = maps.lines().find(|line| line.contains("/table"));
    let Some((start, _)) = table.and_then(|line| line.split_once('-')) else {
        return claimed.store(2, Ordering::Relaxed);
    };
    let start = usize::from_str_radix(start, 16).expect("an address");
    // The first sockets are in the first pages; locks begin a line.
    let words: Vec<&AtomicU64> = (start..start + 64 * 1024)
        .step_by(128)
        // SAFETY: the table is much longer, stays mapped, and is only used as atomic words.
        .map(|place| unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(place) })
        .collect();
    let mut ours: Vec<&AtomicU64> = Vec::new();
    while enough.load(Ordering::Relaxed) == 0 {
        for word in &words {
            let owner = word.load(Ordering::Relaxed) as u32 & 0x3fff_ffff;
            if owner == victim as u32 && !ours.iter().any(|each| std::ptr::eq(*each, *word)) {
                ours.push(word);
            }
        }
        for word in &ours {
            let number = sys::gettid() as u64;
            if word.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                claimed.store(ours.len() as u64, Ordering::Relaxed);
            }
        }
    }
}
