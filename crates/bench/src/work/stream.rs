//! Messages one way; words: their size, and whether they are read one by `each` call or as they `come`.

use crate::job::Job;
use crate::link::Link;

pub(super) fn work(job: &Job) {
    if job.has_ring() { run(job, job.ring()) } else { run(job, job.socket()) }
}

/// The client writes one message after the other; the server says when it has them all.
fn run(job: &Job, link: impl Link) {
    let size = job.number(1);
    if job.is_server() {
        let each = job.word(2) == "each";
        let mut buffer = vec![0; if each { size } else { size.max(65536) }];
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
            for _ in 0..count {
                link.write_all(&message);
            }
            link.push();
            link.read_all(&mut [0]);
        });
    }
}
