//! How long does a message take there and back, between two processes with blocking calls?

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::contest::Question;
use common::net::{accept, read_all, write_all};
use common::worker::{Job, Placement};
use criterion::{Criterion, criterion_group};

fn questions(criterion: &mut Criterion) {
    for (row, size) in [("1 B", "1"), ("64 B", "64"), ("1 KB", "1024"), ("16 KB", "16384")] {
        Question::new("Round trips", row, &[size]).ask(criterion);
    }
    for (row, placement) in
        [("64 B, both on one core", Placement::OneCore), ("64 B, on two cores", Placement::TwoCores)]
    {
        Question::new("Round trips", row, &["64"]).placed(placement).ask(criterion);
    }
}

fn work(job: &Job) {
    let mut message = vec![b'x'; job.number(0)];
    if job.is_server() {
        let fd = accept(job.listen());
        job.serve(fd, |count| {
            for _ in 0..count {
                assert!(read_all(fd, &mut message), "the client disconnected");
                write_all(fd, &message);
            }
        });
    } else {
        let fd = job.connect();
        job.serve(fd, |count| {
            for _ in 0..count {
                write_all(fd, &message);
                assert!(read_all(fd, &mut message), "the server disconnected");
            }
        });
    }
}

criterion_group! { name = questions_asked; config = common::config(); targets = questions }

fn main() {
    common::run(work, questions_asked);
}
