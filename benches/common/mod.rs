//! What the benches share. A bench starts itself again as worker processes, with and without sockshim
//! preloaded; the workers do rounds of operations on request, all ways in turn, and tell time and CPU time.

#![allow(dead_code, reason = "every bench uses a part of it")]

pub(crate) mod contest;
pub(crate) mod net;
pub(crate) mod probe;
pub(crate) mod results;
pub(crate) mod short;
pub(crate) mod worker;

use criterion::Criterion;
use results::Results;
use std::sync::Mutex;
use std::time::Duration;

/// One way to run the processes of a contest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) server: Under,
    pub(crate) client: Under,
}

/// What a process runs on: the C library alone, or sockshim with these variables set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Under {
    Libc,
    Sockshim(&'static [(&'static str, &'static str)]),
}

impl Way {
    /// The C library alone; the first way of every contest, and what the others are compared with.
    pub(crate) const LIBC: Self = Self::both("libc", Under::Libc);
    /// Both ends preloaded, nothing else set.
    pub(crate) const SOCKSHIM: Self = Self::both("sockshim", Under::Sockshim(&[]));
    /// Both ends preloaded, and told to leave every connection with the kernel.
    pub(crate) const HOST: Self = Self::both("path=host", Under::Sockshim(&[("SOCKSHIM_PATH", "host")]));
    pub(crate) const SERVER_ONLY: Self =
        Self { name: "server only", server: Under::Sockshim(&[]), client: Under::Libc };
    pub(crate) const CLIENT_ONLY: Self =
        Self { name: "client only", server: Under::Libc, client: Under::Sockshim(&[]) };

    pub(crate) const fn both(name: &'static str, under: Under) -> Self {
        Self { name, server: under, client: under }
    }
}

/// `BENCH_QUICK=1`: rough figures within two minutes.
pub(crate) fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|value| value == "1")
}

/// Criterion's settings. Every sample of one way is accompanied by one of each other way, so a run takes
/// longer than it says here.
pub(crate) fn config() -> Criterion {
    let (samples, warm_up) = if quick() { (10, 60) } else { (25, 200) };
    Criterion::default()
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(measurement_time())
        .nresamples(5_000)
        .without_plots()
}

fn measurement_time() -> Duration {
    Duration::from_millis(if quick() { 300 } else { 1250 })
}

/// The answers of this bench so far.
static RESULTS: Mutex<Option<Results>> = Mutex::new(None);

/// `main` of a bench: a worker when it was started as one, else all groups.
pub(crate) fn run(work: fn(&worker::Job), groups: fn()) {
    if let Some(job) = worker::Job::of_this_process() {
        return if job.is("probe") { probe::measure() } else { work(&job) };
    }
    let before = probe::placement();
    *RESULTS.lock().unwrap() = Some(Results::load());
    groups();
    Criterion::default().configure_from_args().final_summary();
    let mut results = RESULTS.lock().unwrap().take().expect("stored above");
    results.placements.extend([before, probe::placement()].into_iter().flatten());
    results.store();
    worker::remove_rendezvous();
}

/// Adds the answer to one question.
fn record(row: results::Row) {
    if let Some(results) = RESULTS.lock().unwrap().as_mut() {
        results.add(row);
    }
}
