//! What does sockshim cost a connection that cannot use a pipe?

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::Way;
use common::contest::Question;
use common::net::{accept, check, read, read_all, write_all};
use common::worker::Job;
use criterion::{Criterion, criterion_group};

const WAYS: [Way; 4] = [Way::LIBC, Way::HOST, Way::SERVER_ONLY, Way::CLIENT_ONLY];

fn questions(criterion: &mut Criterion) {
    Question::new("Without a pipe", "64 B there and back", &["echo", "64"]).ways(&WAYS).ask(criterion);
    Question::new("Without a pipe", "64 KB one way", &["stream", "65536"])
        .unit("message")
        .bytes(65536)
        .ways(&WAYS)
        .ask(criterion);
}

fn work(job: &Job) {
    let echo = job.is("echo");
    let mut message = vec![b'x'; job.number(1)];
    if job.is_server() {
        let fd = accept(job.listen());
        job.serve(fd, |count| {
            let mut left = count * message.len() as u64;
            while left > 0 {
                let n = check(read(fd, &mut message), "read");
                left -= n as u64;
                if echo {
                    write_all(fd, &message[..n]);
                }
            }
            if !echo {
                write_all(fd, b"!");
            }
        });
    } else {
        let fd = job.connect();
        job.serve(fd, |count| {
            for _ in 0..count {
                write_all(fd, &message);
                assert!(!echo || read_all(fd, &mut message), "the server disconnected");
            }
            assert!(echo || read_all(fd, &mut [0]), "the server disconnected");
        });
    }
}

criterion_group! { name = questions_asked; config = common::config(); targets = questions }

fn main() {
    common::run(work, questions_asked);
}
