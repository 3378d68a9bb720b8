//! What the workers do, by the first word of their question.

mod compute;
mod connect;
mod connections;
mod duplex;
mod memory;
mod passthrough;
mod pingpong;
mod stream;
mod threads;
mod waits;

use crate::job::Job;
use crate::probe;

pub(crate) fn work(job: &Job) {
    match job.word(0) {
        "pingpong" => pingpong::work(job),
        "stream" => stream::work(job),
        "duplex" => duplex::work(job),
        "waits" => waits::work(job),
        "connections" => connections::work(job),
        "connect" => connect::work(job),
        "threads" => threads::work(job),
        "passthrough" => passthrough::work(job),
        "memory" => memory::work(job),
        "compute" => compute::work(job),
        "probe" => probe::measure(),
        other => panic!("no such work: {other}"),
    }
}
