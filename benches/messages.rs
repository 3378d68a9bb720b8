//! How many messages, and how many bytes, go one way in a second?

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::contest::Question;
use common::net::{accept, check, push, read, read_all, write_all};
use common::worker::Job;
use criterion::{Criterion, criterion_group};

fn questions(criterion: &mut Criterion) {
    for (row, size) in [("64 B", 64), ("1 KB", 1024), ("64 KB", 65536)] {
        Question::new("Messages one way", row, &[&size.to_string()])
            .unit("message")
            .bytes(size)
            .ask(criterion);
    }
}

/// The client writes one message after the other; the server reads what there is, and says when it has all.
fn work(job: &Job) {
    let size = job.number(0);
    if job.is_server() {
        let fd = accept(job.listen());
        let mut buffer = vec![0; 65536];
        job.serve(fd, |count| {
            let mut left = count * size as u64;
            while left > 0 {
                left -= check(read(fd, &mut buffer), "read") as u64;
            }
            write_all(fd, b"!");
        });
    } else {
        let fd = job.connect();
        let message = vec![b'x'; size];
        job.serve(fd, |count| {
            for _ in 0..count {
                write_all(fd, &message);
            }
            push(fd);
            assert!(read_all(fd, &mut [0]), "the server disconnected");
        });
    }
}

criterion_group! { name = questions_asked; config = common::config(); targets = questions }

fn main() {
    common::run(work, questions_asked);
}
