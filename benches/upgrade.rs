//! When is a connection worth a pipe? Connections that make so many round trips of 64 bytes and close, with
//! several values of `SOCKSHIM_UPGRADE_AFTER`.

#![allow(missing_docs, unreachable_pub, reason = "criterion_group! makes such functions")]

mod common;

use common::contest::Question;
use common::worker::{Job, Placement};
use common::{Under, Way};
use criterion::{Criterion, criterion_group};

/// A round trip is two calls and 128 bytes at each end, so bytes stand for calls here.
const WAYS: [Way; 10] = [
    Way::LIBC,
    Way::both("default", Under::Sockshim(&[])),
    after("at once", &[("SOCKSHIM_UPGRADE_AFTER", "0")]),
    after("4 calls", &[("SOCKSHIM_UPGRADE_AFTER", "256")]),
    after("8 calls", &[("SOCKSHIM_UPGRADE_AFTER", "512")]),
    after("16 calls", &[("SOCKSHIM_UPGRADE_AFTER", "1024")]),
    after("32 calls", &[("SOCKSHIM_UPGRADE_AFTER", "2048")]),
    after("64 calls", &[("SOCKSHIM_UPGRADE_AFTER", "4096")]),
    after("128 calls", &[("SOCKSHIM_UPGRADE_AFTER", "8192")]),
    after("256 calls", &[("SOCKSHIM_UPGRADE_AFTER", "16384")]),
];

const fn after(name: &'static str, variables: &'static [(&'static str, &'static str)]) -> Way {
    Way::both(name, Under::Sockshim(variables))
}

fn questions(criterion: &mut Criterion) {
    let (free, two_cores): (&[u32], &[u32]) = if common::quick() {
        (&[2, 8, 16, 32, 64, 128], &[8, 32])
    } else {
        (&[1, 2, 4, 8, 16, 32, 64, 128, 256], &[4, 8, 16, 32, 64])
    };
    ask(criterion, "Time per connection, by round trips", Placement::Free, free);
    ask(criterion, "Time per connection, by round trips, on two cores", Placement::TwoCores, two_cores);
}

fn ask(criterion: &mut Criterion, group: &'static str, placement: Placement, trips: &[u32]) {
    for trips in trips.iter().map(u32::to_string) {
        Question::new(group, &trips, &[&trips])
            .unit("connection")
            .placed(placement)
            .ways(&WAYS)
            .short(1, 0.4)
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
