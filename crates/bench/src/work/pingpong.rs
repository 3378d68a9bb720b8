//! A message there and back, with blocking calls; words: its size, and microseconds to think before each.

use crate::job::Job;
use crate::link::Link;
use std::time::{Duration, Instant};

pub(super) fn work(job: &Job) {
    let think = Duration::from_micros(job.number(2) as u64);
    if job.has_ring() {
        run(job, job.ring(), job.number(1), think);
    } else {
        run(job, job.socket(), job.number(1), think);
    }
}

/// The limit for questions whose connections are waited for in other ways.
pub(super) fn run_over_ring(job: &Job, size: usize) {
    run(job, job.ring(), size, Duration::ZERO);
}

fn run(job: &Job, mut link: impl Link, size: usize, think: Duration) {
    let mut message = vec![b'x'; size];
    if job.is_server() {
        job.serve_over(link, |link, count| {
            for _ in 0..count {
                link.read_all(&mut message);
                link.write_all(&message);
            }
        });
    } else if think.is_zero() {
        job.serve_over(link, |link, count| {
            for _ in 0..count {
                link.write_all(&message);
                link.read_all(&mut message);
            }
        });
    } else {
        job.serve_timed(link.descriptor(), |count| {
            let mut on_the_way = Duration::ZERO;
            for _ in 0..count {
                std::thread::sleep(think);
                let start = Instant::now();
                link.write_all(&message);
                link.read_all(&mut message);
                on_the_way += start.elapsed();
            }
            on_the_way.as_nanos() as u64
        });
    }
}
