//! When is a connection worth a pipe? Connections that make so many round trips of 64 bytes and close, with
//! several values of `SOCKSHIM_UPGRADE_AFTER`.

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::contest::Question;
use common::worker::Job;
use common::{Under, Way};
use criterion::{Criterion, criterion_group};

/// A round trip is two calls and 128 bytes at each end, so bytes stand for calls here.
const WAYS: [Way; 7] = [
    Way::LIBC,
    Way::both("default", Under::Sockshim(&[])),
    Way::both("at once", Under::Sockshim(&[("SOCKSHIM_UPGRADE_AFTER", "0")])),
    Way::both("4 calls", Under::Sockshim(&[("SOCKSHIM_UPGRADE_AFTER", "256")])),
    Way::both("8 calls", Under::Sockshim(&[("SOCKSHIM_UPGRADE_AFTER", "512")])),
    Way::both("16 calls", Under::Sockshim(&[("SOCKSHIM_UPGRADE_AFTER", "1024")])),
    Way::both("32 calls", Under::Sockshim(&[("SOCKSHIM_UPGRADE_AFTER", "2048")])),
];

fn questions(criterion: &mut Criterion) {
    for trips in [1, 2, 4, 8, 16, 32, 64, 128] {
        Question::new("When to upgrade", trips.to_string(), &[&trips.to_string()])
            .unit("connection")
            .ways(&WAYS)
            .report_only(2)
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
