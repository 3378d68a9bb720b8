//! The model of `tests/model` with real threads and long streams: for ThreadSanitizer and miri, and for what lies
//! beyond the few steps that loom can explore.

#[path = "../tests/model/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "loom's tests use the rest")]
mod model;

use model::End;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Bytes of a stream. miri runs a thousandth as fast.
const LENGTH: usize = if cfg!(miri) { 300 } else { 60_000 };

/// A small generator (xorshift32): what matters is only that the steps differ.
struct Steps(u32);

impl Steps {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

/// Writes `LENGTH` bytes, now by one lane and now by the other.
fn write_all(end: &End, seed: u32) {
    let mut steps = Steps(seed);
    for position in 0..LENGTH {
        match steps.next() % 32 {
            0 => end.go_to_kernel(),
            1 => thread::yield_now(),
            _ => {}
        }
        end.write(position as u8);
    }
}

/// Runs `body`, which hangs where a wake-up is lost.
fn watched(body: impl FnOnce() + Send + 'static) {
    let (done, end) = mpsc::channel();
    let running = thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_secs(600)) {
        panic!("a wake-up was lost");
    }
    running.join().expect("what it asserts holds");
}

#[test]
fn a_long_stream_keeps_its_order_over_changing_lanes() {
    for seed in 1..=3 {
        watched(move || {
            let end = End::on_kernel();
            let writer = end.clone();
            let writing = thread::spawn(move || write_all(&writer, seed));
            let mut steps = Steps(!seed);
            let mut got = Vec::new();
            while got.len() < LENGTH {
                let until = (got.len() + 1 + steps.next() as usize % 4).min(LENGTH);
                if steps.next().is_multiple_of(2) {
                    end.receive(until, &mut got);
                } else {
                    end.receive_with_timed_waits(until, &mut got);
                }
            }
            writing.join().expect("it only writes");
            assert!(got.iter().enumerate().all(|(position, byte)| *byte == position as u8));
            end.assert_only_doorbells_left();
        });
    }
}

#[test]
fn sleepers_that_share_an_end_are_woken_over_changing_lanes() {
    watched(|| {
        let end = End::on_kernel();
        let readers = [End::receive, End::receive, End::receive_with_timed_waits].map(|receive| {
            let end = end.clone();
            thread::spawn(move || {
                let mut got = Vec::new();
                receive(&end, LENGTH / 3, &mut got);
                got.iter().map(|byte| u64::from(*byte)).sum::<u64>()
            })
        });
        write_all(&end, 7);
        let sum: u64 = readers.map(|reader| reader.join().expect("it only reads")).iter().sum();
        assert_eq!(sum, (0..LENGTH).map(|position| u64::from(position as u8)).sum());
    });
}
