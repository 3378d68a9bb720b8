//! How fast a cache line moves between the processors: the host may move a virtual machine, which changes every figure.

use crate::{Trouble, net, workers};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One round trip between two spinning processes on the first and the last processor.
pub type Nanoseconds = f64;

/// Slower than this is "far": another cache, or another socket.
pub const FAR: Nanoseconds = 170.0;

/// Few, so that some batch is not interrupted by others who use the processors.
const TRIPS: u64 = 20;

/// Measures in a process of its own; `None` with a single processor.
pub fn placement() -> Result<Option<Nanoseconds>, Trouble> {
    if net::processors().len() < 2 {
        return Ok(None);
    }
    let text = workers::output("probe")?;
    let figure = text.trim().parse();
    figure.map(Some).map_err(|_| Trouble(format!("the placement probe said {text:?}")))
}

/// A worker's part: prints the figure.
pub(crate) fn measure() {
    let cpus = net::processors();
    // SAFETY: a new anonymous mapping, zeroed by the kernel.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(page != libc::MAP_FAILED, "no page to share");
    // SAFETY: the mapping is aligned, zeroed and never unmapped.
    let turn: &AtomicU64 = unsafe { &*page.cast() };
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        net::pin(cpus[cpus.len() - 1]);
        loop {
            wait_for(turn, |value| value % 2 == 1);
            turn.fetch_add(1, Ordering::AcqRel);
        }
    }
    net::pin(cpus[0]);
    let start = Instant::now();
    let mut batches = Vec::new();
    while start.elapsed() < Duration::from_millis(40) {
        let batch = Instant::now();
        for _ in 0..TRIPS {
            let value = turn.fetch_add(1, Ordering::AcqRel) + 2;
            wait_for(turn, |now| now == value);
        }
        batches.push(batch.elapsed().as_nanos() as f64 / TRIPS as f64);
    }
    // SAFETY: `child` is a child of this process that has not been waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // The least: other work on the machine only ever adds.
    println!("{}", batches.into_iter().fold(f64::MAX, f64::min));
}

fn wait_for(turn: &AtomicU64, done: impl Fn(u64) -> bool) {
    while !done(turn.load(Ordering::Acquire)) {
        std::hint::spin_loop();
    }
}
