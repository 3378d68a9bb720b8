//! Bulk from event loops: writers that must not wait, and write again when there is room.

use std::thread;
use std::time::{Duration, Instant};

use libc::{EPOLLET, EPOLLOUT, POLLOUT};

use crate::data::Flow;
use crate::harness::{Case, End, Environment, dialogue, environment};
use crate::sys::wait::{add, epoll, ready};
use crate::sys::{self, call, poll_one};

pub(crate) const CASES: &[Case] = &[
    dialogue("bulk_arrives_whole", |end| send_in_every_way(end, 16 << 20), receive_in_every_way)
        .within_seconds(120),
    dialogue("bulk_stays_on_the_ring", send_large_buffers, receive_slowly)
        .between_processes()
        .only(&[Environment::Host, Environment::Pipe])
        .within_seconds(300),
    dialogue("both_ends_may_write_before_either_reads", write_then_read, write_then_read).within_seconds(120),
    dialogue(
        "room_comes_to_whoever_polls_the_set",
        |end| {
            let (outer, inner) = (epoll(), epoll());
            sys::set_nonblocking(end.fd, true);
            add(inner, end.fd, EPOLLOUT);
            add(outer, inner, libc::EPOLLIN);
            send(end.fd, 16 << 20, 1 << 20, || {
                assert_eq!(ready(outer, -1).len(), 1);
                assert_eq!(ready(inner, -1), [(EPOLLOUT, end.fd as u64)]);
            });
            sys::close(inner).expect("close");
            sys::close(outer).expect("close");
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 16 << 20, 100_000);
            end.tell();
        },
    ),
    dialogue(
        "an_edge_of_room_comes_to_a_thread_that_waits_already",
        |end| {
            // As Go and tokio do: registered once for everything, and one thread waits for all of them.
            let set = epoll();
            sys::set_nonblocking(end.fd, true);
            add(set, end.fd, libc::EPOLLIN | EPOLLOUT | EPOLLET);
            let (tell, edges) = std::sync::mpsc::channel();
            let waiter = thread::spawn(move || {
                while let [(events, _)] = ready(set, -1)[..] {
                    if events & EPOLLOUT != 0 && tell.send(()).is_err() || events & libc::EPOLLIN != 0 {
                        break;
                    }
                }
            });
            for piece in [100_000, 1 << 20, 6 << 20] {
                send(end.fd, 32 << 20, piece, || edges.recv().expect("an edge"));
            }
            // The other end's answer ends the wait.
            waiter.join().expect("no panic");
            end.hear();
        },
        |end| {
            for _ in 0..3 {
                Flow::new(1).read(end.fd, 32 << 20, 50_000);
            }
            end.tell();
        },
    )
    .within_seconds(120),
];

/// Sends the flow by writes that do not wait; `until_room` waits after one that was short.
fn send(fd: i32, total: usize, piece: usize, mut until_room: impl FnMut()) {
    let mut flow = Flow::new(1);
    while flow.position < total {
        let bytes = flow.bytes(piece.min(total - flow.position));
        let written = match sys::write(fd, &bytes) {
            Ok(written) => written,
            Err(error) => {
                assert_eq!(error.0, libc::EAGAIN);
                0
            }
        };
        flow.position += written;
        if written < bytes.len() {
            until_room();
        }
    }
}

fn send_in_every_way(end: &End, total: usize) {
    sys::set_nonblocking(end.fd, true);
    send(end.fd, total, 1 << 20, || assert_eq!(poll_one(end.fd, POLLOUT, -1), POLLOUT));
    for (events, piece) in [(EPOLLOUT, 3 << 20), (EPOLLOUT | EPOLLET, 3 << 20), (EPOLLOUT | EPOLLET, 50_000)]
    {
        let set = epoll();
        add(set, end.fd, events);
        send(end.fd, total, piece, || assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]));
        sys::close(set).expect("close");
    }
    end.hear();
}

fn receive_in_every_way(end: &End) {
    for piece in [100_000, 1 << 20, 4096, 300_000] {
        Flow::new(1).read(end.fd, 16 << 20, piece);
    }
    end.tell();
}

const BULK: usize = 64 << 20;
const ENOUGH: usize = BULK / 20;
const ATTEMPTS: usize = 30;

/// What a busy machine does to the reader may bring much of one attempt into the kernel, but not of all; and without sockshim's
/// waiting for room one may succeed by luck, but not several.
fn send_large_buffers(end: &End) {
    keep_strangers_away();
    let buffer = vec![7; 16 << 20];
    sys::set_nonblocking(end.fd, true);
    let set = epoll();
    add(set, end.fd, EPOLLOUT);
    let mut successes = 0;
    let mut shares = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = written_to_kernel(end.fd);
        let mut done = 0;
        while done < BULK {
            let at = done % buffer.len();
            done += sys::write(end.fd, &buffer[at..]).unwrap_or(0);
            if done % buffer.len() != 0 {
                assert_eq!(ready(set, -1), [(EPOLLOUT, end.fd as u64)]);
            }
        }
        end.hear();
        let by_kernel = written_to_kernel(end.fd) - before;
        shares.push(by_kernel);
        successes += usize::from(by_kernel < ENOUGH);
        if successes == 3 {
            break;
        }
        end.tell();
    }
    sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
    end.tell();
    sys::close(set).expect("close");
    if environment() == Environment::Pipe {
        assert_eq!(successes, 3, "of {BULK} bytes so many went through the kernel: {shares:?}");
    }
}

/// Slower than any writer, as one that does something with what it reads.
fn receive_slowly(end: &End) {
    keep_strangers_away();
    let mut buffer = vec![0; 65536];
    loop {
        let mut left = BULK;
        while left > 0 {
            match sys::read(end.fd, &mut buffer).expect("read") {
                0 => return,
                count => left -= count,
            }
            let since = Instant::now();
            while since.elapsed() < Duration::from_micros(50) {}
        }
        end.tell();
        end.hear();
    }
}

/// Where that is allowed: with real-time priority only what this case does itself decides what it measures.
fn keep_strangers_away() {
    let priority = libc::sched_param { sched_priority: 1 };
    let _ = call!(libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority));
}

/// `tcpi_bytes_sent`: doorbells included.
fn written_to_kernel(fd: i32) -> usize {
    let mut info = [0u64; 32];
    let mut length = size_of_val(&info) as libc::socklen_t;
    call!(libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length))
        .expect("getsockopt");
    info[25] as usize
}

/// More than a ring holds, and less than the kernel takes: after a stream that was read as it came, so that everything is
/// as large as it gets.
fn write_then_read(end: &End) {
    thread::scope(|scope| {
        scope.spawn(|| Flow::new(1).write(end.fd, 32 << 20, 300_000));
        Flow::new(1).read(end.fd, 32 << 20, 300_000);
    });
    for _ in 0..3 {
        end.tell();
        end.hear();
        let mut flow = Flow::new(1);
        while flow.position < 3 << 19 {
            let bytes = flow.bytes((3 << 19) - flow.position);
            match sys::send(end.fd, &bytes, libc::MSG_DONTWAIT) {
                Ok(written) => flow.position += written,
                Err(_) => assert_eq!(poll_one(end.fd, POLLOUT, -1), POLLOUT),
            }
        }
        Flow::new(1).read(end.fd, 3 << 19, 300_000);
    }
    end.tell();
    end.hear();
}
