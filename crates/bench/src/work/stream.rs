//! Messages one way; words: their size, and whether they are read one by `each` call or as they `come`. In a `loop` they come from
//! a writer that must not wait: it goes on when `poll` says that there is room.

use crate::job::Job;
use crate::link::Link;
use crate::net;

pub(super) fn work(job: &Job) {
    if job.has_ring() {
        return run(job, job.ring());
    }
    let socket = job.socket();
    if is_loop(job) && !job.is_server() {
        net::set_nonblocking(socket.0);
    }
    run(job, socket);
}

fn is_loop(job: &Job) -> bool {
    job.word(2) == "loop"
}

/// The client writes one message after the other; the server says when it has them all.
fn run(job: &Job, link: impl Link) {
    let size = job.number(1);
    if job.is_server() {
        let each = job.word(2) == "each";
        let most = if is_loop(job) { 65536 } else { size.max(65536) };
        let mut buffer = vec![0; if each { size } else { most }];
        job.serve_over(link, |link, count| {
            let mut left = count * size as u64;
            while left > 0 {
                left -= if each {
                    link.read_all(&mut buffer);
                    size as u64
                } else {
                    link.read(&mut buffer) as u64
                };
            }
            link.write_all(b"!");
        });
    } else {
        let message = vec![b'x'; size];
        job.serve_over(link, |link, count| {
            if is_loop(job) {
                for _ in 0..count {
                    write_without_waiting(link, &message);
                }
                while link.try_read(&mut [0]) == 0 {
                    link.wait(false);
                }
                return;
            }
            for _ in 0..count {
                link.write_all(&message);
            }
            link.push();
            link.read_all(&mut [0]);
        });
    }
}

fn write_without_waiting(link: &mut impl Link, message: &[u8]) {
    let mut done = 0;
    while done < message.len() {
        done += link.try_write(&message[done..]);
        if done < message.len() {
            link.wait(true);
        }
    }
}
