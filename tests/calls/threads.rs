//! Threads and processes that share one socket: records arrive once, whole.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::data::{Flow, Random};
use crate::harness::{Case, Child, assert_on_pipe, case, dialogue};
use crate::sys::{self, Errno, poll_one};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "several_writers_one_reader",
        |end| write_from_threads(end.fd, 4, 10_000),
        |end| {
            let mut tally = Tally::default();
            tally.read_all(end.fd);
            tally.assert_complete(4, 10_000);
            assert_on_pipe(end.fd);
        },
    ),
    dialogue(
        "records_stay_whole_when_the_reader_pauses",
        // Less than the kernel's buffers take: once they are full, the kernel divides records, too.
        |end| write_from_threads(end.fd, 4, 5000),
        |end| {
            // The end of the ring comes in the middle of a record.
            let mut tally = Tally { pause: Some(Duration::from_millis(1)), ..Tally::default() };
            tally.read_all(end.fd);
            tally.assert_complete(4, 5000);
        },
    ),
    dialogue(
        "several_writers_several_readers",
        |end| write_from_threads(end.fd, 3, 20_000),
        |end| {
            let total = Mutex::new(Histogram::default());
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let part = Histogram::read(end.fd);
                        total.lock().add(&part);
                    });
                }
            });
            total.into_inner().assert_records(3, 20_000);
        },
    ),
    dialogue(
        "parent_and_child_both_write",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            end.hear();
            let child = Child::run(|| write_records(end.fd, 1, 20_000));
            write_records(end.fd, 0, 20_000);
            child.join();
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            end.tell();
            let mut tally = Tally::default();
            tally.read_all(end.fd);
            tally.assert_complete(2, 20_000);
            end.tell();
        },
    ),
    dialogue(
        "parent_and_child_both_read",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            write_records(end.fd, 0, 50_000);
            end.close();
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            let (from_child, to_parent) = sys::pipe();
            let child = Child::run(|| {
                let part = Histogram::read(end.fd);
                part.0.iter().for_each(|count| sys::write_all(to_parent, &count.to_ne_bytes()));
            });
            let mut total = Histogram::read(end.fd);
            let theirs = sys::read_exact(from_child, 256 * 8);
            child.join();
            let words = theirs.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
            total.0.iter_mut().zip(words).for_each(|(count, more)| *count += more);
            total.assert_records(1, 50_000);
            end.tell();
        },
    )
    .between_processes(),
    dialogue(
        "read_and_write_at_once_from_different_threads",
        |end| {
            thread::scope(|scope| {
                scope.spawn(|| Flow::new(1).write(end.fd, 20 << 20, 3000));
                Flow::new(2).read(end.fd, 20 << 20, 3000);
            });
            end.tell();
            end.hear();
        },
        |end| {
            // An echo: what comes back depends on what went out.
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            let mut random = Random::new(4);
            while out.position < 20 << 20 {
                let size = random.size(15).min((20 << 20) - out.position);
                out.read(end.fd, size, size);
                back.write(end.fd, size, size);
            }
            end.tell();
            end.hear();
        },
    ),
    case("close_in_one_thread_while_another_calls", || {
        // Either the call came first or it finds a bad descriptor; never another's bytes.
        for round in 0..300 {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 300, 300);
            Flow::new(1).read(b, 300, 300);
            sys::write_all(a, b"x");
            let closed = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    if round % 2 == 0 {
                        thread::yield_now();
                    }
                    sys::close(b).expect("close");
                    closed.store(true, Ordering::SeqCst);
                });
                let mut total = 0;
                loop {
                    match sys::recv(b, &mut [0; 10], libc::MSG_DONTWAIT) {
                        Ok(count) => total += count,
                        Err(Errno(libc::EAGAIN)) => {}
                        Err(error) => break assert_eq!(error, Errno(libc::EBADF)),
                    }
                }
                assert!(total <= 1);
            });
            sys::close(a).expect("close");
        }
    }),
    case("fork_while_another_thread_does_io", || {
        Flow::new(1).bytes(1); // before the fork, so that no child finds its table half made
        let (a, b) = sys::pair();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| Flow::new(1).write(a, 64 << 20, 10_000));
            scope.spawn(|| {
                Flow::new(1).read(b, 64 << 20, 10_000);
                done.store(true, Ordering::SeqCst);
            });
            let mut forks = 0;
            while !done.load(Ordering::SeqCst) || forks < 5 {
                // The child uses a connection of its own, and may find no lock held for ever.
                Child::run(|| {
                    let (c, d) = sys::pair();
                    Flow::new(3).write(c, 20_000, 1000);
                    Flow::new(3).read(d, 20_000, 1000);
                })
                .join();
                forks += 1;
            }
        });
    }),
    case("a_child_that_ends_leaves_the_parents_connections", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for round in 0..20 {
            sys::write_all(a, b"before");
            Child::run(|| {
                if round % 2 == 0 {
                    sys::close(a).expect("close");
                    sys::close(b).expect("close");
                }
            })
            .join();
            assert_eq!(sys::read_exact(b, 6), b"before");
            sys::write_all(b, b"after");
            assert_eq!(sys::read_exact(a, 5), b"after");
        }
    }),
    case("a_killed_child_leaves_the_parents_connections", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for round in 0..20 {
            let child = crate::harness::fork(|| match round % 3 {
                0 => _ = sys::read(b, &mut [0]),
                1 => _ = poll_one(b, libc::POLLIN, -1),
                _ => _ = sys::recv(b, &mut [0], libc::MSG_PEEK),
            });
            sys::let_sleep(child, child);
            sys::kill(child, libc::SIGKILL).expect("kill");
            sys::wait(child);
            let mut flow = Flow::new(round);
            thread::scope(|scope| {
                scope.spawn(|| Flow::new(round).write(a, 50_000, 500));
                flow.read(b, 50_000, 700);
            });
        }
    }),
    case("a_fork_hands_a_connection_to_the_child", || {
        // The shape of a forking server: the parent closes its copy at once.
        let (listener, port) = sys::listener(libc::AF_INET);
        let clients: Vec<_> = (0..10)
            .map(|seed| {
                Child::run(move || {
                    let fd = sys::connected(libc::AF_INET, port);
                    Flow::new(seed).write(fd, 200_000, 7000);
                    sys::shutdown(fd, libc::SHUT_WR).expect("shutdown");
                    assert_eq!(Flow::new(seed).read_to_end(fd, 3000), 200_000);
                })
            })
            .collect();
        let servers: Vec<_> = (0..10)
            .map(|_| {
                let fd = sys::accept(listener).expect("accept");
                let child = Child::run(|| {
                    let mut kept = Vec::new();
                    let mut buffer = vec![0; 10_000];
                    loop {
                        match sys::read(fd, &mut buffer).expect("read") {
                            0 => break,
                            count => kept.extend_from_slice(&buffer[..count]),
                        }
                    }
                    sys::write_all(fd, &kept);
                });
                sys::close(fd).expect("close");
                child
            })
            .collect();
        clients.into_iter().chain(servers).for_each(Child::join);
    }),
    case("a_blocked_reader_does_not_hold_up_a_writer", || {
        let (a, b) = sys::pair();
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(sys::read_exact(a, 1), b"e"));
            let mut flow = Flow::new(1);
            for size in [1, 1000, 100_000, 1 << 20] {
                thread::scope(|scope| {
                    let mut back = flow.clone();
                    scope.spawn(move || back.read(b, size, size));
                    flow.write(a, size, size);
                });
            }
            sys::write_all(b, b"e");
        });
    }),
    case("threads_come_and_go", || {
        let (a, b) = sys::pair();
        let (mut out, mut back) = (Flow::new(1), Flow::new(1));
        for _ in 0..300 {
            thread::scope(|scope| {
                scope.spawn(|| out.write(a, 200, 70));
                scope.spawn(|| back.read(b, 200, 90));
            });
        }
    }),
    case("the_first_call_in_two_threads_at_once", || {
        let barrier = std::sync::Barrier::new(4);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 0..4 {
                let (barrier, count) = (&barrier, &count);
                scope.spawn(move || {
                    barrier.wait();
                    let (a, b) = sys::pair();
                    Flow::new(seed).write(a, 10_000, 500);
                    Flow::new(seed).read(b, 10_000, 500);
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }),
];

/// A 64-byte record that says who wrote it and in which order.
fn record(writer: u64, number: u64) -> [u8; 64] {
    let mut record = [0; 64];
    for at in (0..64).step_by(16) {
        record[at..at + 8].copy_from_slice(&writer.to_ne_bytes());
        record[at + 8..at + 16].copy_from_slice(&number.to_ne_bytes());
    }
    record
}

pub(crate) fn write_records(fd: i32, writer: u64, count: u64) {
    for number in 0..count {
        assert_eq!(sys::write(fd, &record(writer, number)), Ok(64));
    }
}

fn write_from_threads(fd: i32, threads: u64, count: u64) {
    thread::scope(|scope| {
        for writer in 0..threads {
            scope.spawn(move || write_records(fd, writer, count));
        }
    });
    sys::shutdown(fd, libc::SHUT_WR).expect("shutdown");
    assert_eq!(sys::read(fd, &mut [0]), Ok(0));
}

/// What several readers saw, by writer.
#[derive(Default)]
pub(crate) struct Tally {
    seen: HashMap<u64, Vec<u64>>,
    /// Between two reads, now and then: the reader falls behind.
    pause: Option<Duration>,
}

impl Tally {
    fn note(&mut self, bytes: &[u8]) {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!(bytes, record(word(0), word(8)), "a torn record");
        self.seen.entry(word(0)).or_default().push(word(8));
    }

    /// One reader: each writer's records also arrive in its order.
    pub(crate) fn read_all(&mut self, fd: i32) {
        let (mut buffer, mut filled) = (vec![0; 64 * 100 + 13], 0);
        for round in 0.. {
            if let Some(pause) = self.pause.filter(|_| round % 8 == 0) {
                thread::sleep(pause);
            }
            match sys::read(fd, &mut buffer[filled..]).expect("read") {
                0 => break,
                count => filled += count,
            }
            let whole = filled / 64 * 64;
            buffer[..whole].chunks(64).for_each(|bytes| self.note(bytes));
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
        assert_eq!(filled, 0, "a torn record at the end");
        assert!(self.seen.values().all(|numbers| numbers.is_sorted()));
    }

    #[track_caller]
    pub(crate) fn assert_complete(mut self, writers: u64, count: u64) {
        for writer in 0..writers {
            let numbers = self.seen.get_mut(&writer).expect("records of each writer");
            numbers.sort_unstable();
            let expected: Vec<_> = (0..count).collect();
            let lost: Vec<_> =
                expected.iter().filter(|number| numbers.binary_search(number).is_err()).collect();
            let doubled: Vec<_> = numbers.windows(2).filter(|two| two[0] == two[1]).collect();
            assert!(*numbers == expected, "writer {writer}: {lost:?} lost, {doubled:?} doubled");
        }
    }
}

/// How often each byte value came: all that several readers of one stream can say, as even the kernel cuts
/// a record between them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram([u64; 256]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Histogram {
    /// Reads to the end, beside other readers.
    pub(crate) fn read(fd: i32) -> Self {
        let (mut counts, mut buffer) = (Self::default(), [0; 777]);
        loop {
            match sys::read(fd, &mut buffer).expect("read") {
                0 => return counts,
                count => counts.count(&buffer[..count]),
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0[usize::from(byte)] += 1);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    #[track_caller]
    pub(crate) fn assert_records(&self, writers: u64, count: u64) {
        let mut expected = Self::default();
        for writer in 0..writers {
            (0..count).for_each(|number| expected.count(&record(writer, number)));
        }
        assert_eq!(*self, expected, "bytes lost or doubled");
    }
}
