//! What does a short connection cost: connect, accept, a message each way or none, close?

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::Way;
use common::contest::Question;
use common::worker::Job;
use criterion::{Criterion, criterion_group};

fn questions(criterion: &mut Criterion) {
    for (row, trips) in [("no bytes", "0"), ("64 B each way", "1")] {
        Question::new("Short connections", row, &[trips])
            .unit("connection")
            .ways(&[Way::LIBC, Way::SOCKSHIM, Way::HOST, Way::SERVER_ONLY, Way::CLIENT_ONLY])
            .short(2, 1.0)
            .ask(criterion);
    }
}

fn work(job: &Job) {
    common::short::connections(job, job.number(0));
}

criterion_group! { name = questions_asked; config = common::config(); targets = questions }

fn main() {
    common::run(work, questions_asked);
}
