//! Bytes that go past libc: system calls of a program's own, on a connection that others use through it. The library does
//! not see them come, so it cannot say where they belong among those of the ring. Whoever waits for them, in whatever way,
//! gets them as the kernel would give them, or is told that the connection is broken; nobody waits for ever.

use std::thread;

use libc::{EPOLLET, EPOLLIN, EPOLLONESHOT, MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, POLLIN};

use crate::data::Flow;
use crate::harness::{Case, case, path, reason};
use crate::sys::raw::Way;
use crate::sys::wait::{self, Set, add, epoll, epoll_wait, modify};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_byte_past_libc_is_found_by_every_read", || {
        let ways: [(&str, Reader); 10] = [
            ("read", |fd| sys::read(fd, &mut [0; 99])),
            ("recv", |fd| sys::recv(fd, &mut [0; 99], 0)),
            ("a time-out", |fd| {
                sys::timeout(fd, libc::SO_RCVTIMEO, 50_000);
                sys::read(fd, &mut [0; 99])
            }),
            ("readv", |fd| {
                let mut pieces = [vec![0; 3], vec![0; 96]];
                let vectors = sys::iovecs(&mut pieces);
                call!(libc::readv(fd, vectors.as_ptr(), 2))
            }),
            ("recvmsg", |fd| {
                let mut pieces = [vec![0; 3], vec![0; 96]];
                let mut vectors = sys::iovecs(&mut pieces);
                let mut message = sys::message(&mut vectors);
                call!(libc::recvmsg(fd, &raw mut message, 0))
            }),
            ("peek", |fd| sys::recv(fd, &mut [0; 99], MSG_PEEK)),
            ("peek for all", |fd| sys::recv(fd, &mut [0; STRANGE.len()], MSG_PEEK | MSG_WAITALL)),
            ("without waiting", |fd| again_and_again(fd, MSG_DONTWAIT)),
            ("peek without waiting", |fd| again_and_again(fd, MSG_DONTWAIT | MSG_PEEK)),
            ("O_NONBLOCK", |fd| {
                sys::set_nonblocking(fd, true);
                again_and_again(fd, 0)
            }),
        ];
        for (name, reader) in ways {
            is_found(name, reader);
        }
    }),
    case("a_byte_past_libc_is_found_by_splice", || {
        is_found("splice", |fd| {
            let (out, into) = sys::pipe();
            let moved = call!(libc::splice(fd, std::ptr::null_mut(), into, std::ptr::null_mut(), 99, 0));
            sys::close(out).expect("close");
            sys::close(into).expect("close");
            moved
        });
    }),
    case("a_byte_past_libc_is_found_by_every_wait", || {
        let ways: [(&str, Reader); 9] = [
            ("poll", |fd| {
                read_when(fd, || assert_eq!(wait::poll(&mut [wait::entry(fd, POLLIN)], -1), Ok(1)))
            }),
            ("poll that does not wait", |fd| {
                read_when(fd, || sys::until(|| wait::poll(&mut [wait::entry(fd, POLLIN)], 0) == Ok(1)))
            }),
            ("select", |fd| {
                read_when(fd, || {
                    assert_eq!(wait::select(Some(&mut Set::of(&[fd])), None, None, -1), Ok(1));
                })
            }),
            ("level", |fd| through_set(fd, EPOLLIN, -1)),
            ("edge", |fd| through_set(fd, EPOLLIN | EPOLLET, -1)),
            ("one-shot", |fd| through_set(fd, EPOLLIN | EPOLLONESHOT, -1)),
            ("level without waiting", |fd| through_set(fd, EPOLLIN, 0)),
            ("edge without waiting", |fd| through_set(fd, EPOLLIN | EPOLLET, 0)),
            ("FIONREAD", |fd| {
                // As long as the connection is whole it tells of the bytes in the end.
                sys::until(|| sys::readable(fd) > 0 || wait::events(fd, POLLIN) != 0);
                sys::recv(fd, &mut [0; 99], MSG_DONTWAIT)
            }),
        ];
        for (name, reader) in ways {
            is_found(name, reader);
        }
    }),
    case("a_connection_used_past_libc_ends_as_after_a_reset", || {
        let (a, b) = round_trips();
        Way::Past.send(a, STRANGE, 0).expect("send");
        if path(b) == Some(1) {
            fails(sys::read(b, &mut [0; 99]), libc::ECONNRESET);
            assert_eq!(reason(b), Some(INTEGRITY));
            assert_eq!(sys::read(b, &mut [0; 99]), Ok(0));
            assert_eq!(sys::readable(b), 0);
            fails(sys::send(b, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
            let events = wait::events(b, POLLIN);
            assert!(events & POLLIN != 0 && events & libc::POLLHUP != 0, "{events:#x}");
            // The other end hears of it, too.
            fails(sys::read(a, &mut [0; 99]), libc::ECONNRESET);
        }
        sys::close(a).expect("close");
        sys::close(b).expect("close");
    }),
    case("a_read_past_libc_loses_no_byte_of_the_ring_unnoticed", || {
        // A doorbell lies in the queue, and somebody takes it for a byte of data.
        let (a, b) = round_trips();
        let reader = thread::spawn(move || {
            assert_eq!(wait::poll_one(b, POLLIN, -1), POLLIN);
            assert_eq!(sys::read_exact(b, 1), b"x");
        });
        thread::sleep(std::time::Duration::from_millis(20));
        sys::write_all(a, b"x");
        reader.join().expect("a reader");
        let _ = Way::Past.recv(b, &mut [0], MSG_DONTWAIT);
        // More than a small ring holds, so that both lanes are used. What is read is right, up to where it breaks.
        let writer = thread::spawn(move || {
            let mut flow = Flow::new(5);
            while flow.position < 500_000 {
                let bytes = flow.bytes(1000);
                match sys::send(a, &bytes, libc::MSG_NOSIGNAL) {
                    Ok(count) => flow.position += count,
                    Err(_) => break,
                }
            }
            let _ = sys::shutdown(a, libc::SHUT_WR);
        });
        let (mut flow, mut buffer) = (Flow::new(5), [0; 700]);
        loop {
            match sys::read(b, &mut buffer) {
                Ok(0) => break assert_eq!(flow.position, 500_000),
                Ok(count) => flow.check(&buffer[..count]),
                Err(error) => {
                    assert_eq!((error.0, reason(b)), (libc::ECONNRESET, Some(INTEGRITY)));
                    break;
                }
            }
        }
        writer.join().expect("a writer");
        sys::close(a).expect("close");
        sys::close(b).expect("close");
    }),
];

/// Waits for the stranger's bytes, and reads them.
type Reader = fn(i32) -> Answer;

/// SOCKSHIM_REASON_INTEGRITY.
const INTEGRITY: i32 = 22;
const STRANGE: &[u8] = b"by a system call of its own";

/// A connection that has been used for a while, by both ends.
fn round_trips() -> (i32, i32) {
    let (a, b) = sys::pair();
    let (mut there, mut back) = (Flow::new(1), Flow::new(2));
    let (mut at_b, mut at_a) = (Flow::new(1), Flow::new(2));
    for _ in 0..100 {
        there.write(a, 100, 100);
        at_b.read(b, 100, 100);
        back.write(b, 100, 100);
        at_a.read(a, 100, 100);
    }
    (a, b)
}

fn is_found(name: &str, reader: Reader) {
    for waits in [false, true] {
        for before in [0, 4] {
            let (a, b) = round_trips();
            let send = move || {
                sys::write_all(a, &vec![b'.'; before]);
                Way::Past.send(a, STRANGE, 0).expect("send");
            };
            let reading = move || {
                if before > 0 {
                    // What the library has seen come is whole and in its place.
                    let mut first = [0; 4];
                    assert_eq!(sys::recv(b, &mut first, MSG_WAITALL), Ok(4));
                    assert_eq!(&first, b"....");
                }
                reader(b)
            };
            let answer = if waits {
                let reading = thread::spawn(reading);
                thread::sleep(std::time::Duration::from_millis(20));
                send();
                reading.join().expect("a reader")
            } else {
                send();
                reading()
            };
            match answer {
                // A read may find the first part alone.
                Ok(count) => assert!((1..=STRANGE.len()).contains(&count), "{name}: {count}"),
                Err(error) => {
                    assert_eq!((error.0, reason(b)), (libc::ECONNRESET, Some(INTEGRITY)), "{name}");
                }
            }
            sys::close(a).expect("close");
            sys::close(b).expect("close");
        }
    }
}

/// A program that polls by reading.
fn again_and_again(fd: i32, flags: i32) -> Answer {
    let mut answer = Ok(0);
    sys::until(|| {
        answer = sys::recv(fd, &mut [0; 99], flags);
        answer != Err(sys::Errno(libc::EAGAIN))
    });
    answer
}

/// A program that reads without waiting, when it is told that there is something. Being told in vain is allowed, for a
/// while.
fn read_when(fd: i32, mut told: impl FnMut()) -> Answer {
    for _ in 0..100 {
        told();
        match sys::recv(fd, &mut [0; 99], MSG_DONTWAIT) {
            Err(sys::Errno(libc::EAGAIN)) => {}
            answer => return answer,
        }
    }
    panic!("it is told of bytes that nobody can read");
}

fn through_set(fd: i32, events: i32, timeout: i32) -> Answer {
    let set = epoll();
    add(set, fd, events);
    let answer = read_when(fd, || {
        if events & EPOLLONESHOT != 0 {
            modify(set, fd, events);
        }
        sys::until(|| epoll_wait(set, 9, timeout).expect("epoll_wait").len() == 1);
    });
    sys::close(set).expect("close");
    answer
}
