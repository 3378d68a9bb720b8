//! Measures libc sockets, sockshim and a raw ring in shared memory, by turns, in one run.
//!
//! ```text
//! questions     what can be asked: the catalogue, made of `question::Question`s
//! measurement   one question put to several `backend::Backend`s by turns, and the answer, a `results::Row`
//! workers, job  the processes that are measured: how they are controlled, and what they see of it
//! work          what they do: plain calls of the C library, or the same over the raw `ring`
//! programs      the same for existing programs: redis, nginx ...
//! network       which congestion control the connections of a run have
//! probe         how near the processors are to each other just now
//! run           what a run shares, and what must not outlive it
//! ```
//!
//! An executable that asks calls [`work_if_asked`] first: it starts itself again as the processes that are
//! measured, with `LD_PRELOAD=libsockshim.so` and without. These are the same program, so the figures differ by
//! what is under it.

pub mod backend;
mod job;
mod link;
pub mod measurement;
mod net;
mod network;
pub mod probe;
mod programs;
pub mod question;
pub mod questions;
pub mod results;
mod ring;
pub mod run;
pub mod show;
mod work;
mod workers;

use std::fmt::{self, Display};

/// Does the work if this process was started as a worker; returns true if so, and the process is done.
#[must_use]
pub fn work_if_asked() -> bool {
    let Some(job) = job::Job::of_this_process() else { return false };
    work::work(&job);
    true
}

/// Why a question has no answer.
#[derive(Debug)]
pub struct Trouble(pub String);

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}
