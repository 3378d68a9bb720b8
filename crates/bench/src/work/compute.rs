//! A stranger that wants a processor all the time; word: its nice value. Whoever started it ends it.

use crate::job::{self, Job};
use crate::net;

pub(super) fn work(job: &Job) {
    net::renice(job.word(1).parse().expect("the question passes a number here"));
    job::tell(0);
    let mut value = 0_u64;
    loop {
        value = std::hint::black_box(value.wrapping_add(1));
    }
}
