//! What a segment, an acknowledgement, a super-segment and a whole connection cost, by the number of idle connections
//! beside it; two stacks in memory, both sides together, with every byte written, checksummed, copied and read.
//!
//! SOCKSHIM_BENCH_IDLE sets how many idle connections there are at most (100,000; a million take 4 GB).

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

mod net;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use net::{MSS, Net};
use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::stack::Stack;

fn idle_counts() -> impl Iterator<Item = usize> {
    let most = std::env::var("SOCKSHIM_BENCH_IDLE").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    [0, 1_000, 100_000, 1_000_000].into_iter().filter(move |&count| count <= most)
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for idle in idle_counts() {
        let mut net = Net::new(0);
        for number in 0..idle {
            net.open(number);
        }
        let busy = net.open(0);
        for _ in 0..10 {
            net.send(busy, 32 * MSS);
        }
        group.throughput(Throughput::Elements(32));
        group.bench_function(BenchmarkId::new("both sides, idle beside it", idle), |b| {
            b.iter(|| net.send(busy, 32 * MSS));
        });
    }
    group.finish();
}

fn super_segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("super-segment");
    let mut net = Net::new(65_000);
    let busy = net.open(0);
    net.send(busy, 1 << 16);
    net.send(busy, 1 << 16);
    group.throughput(Throughput::Bytes(44 * MSS as u64));
    group.bench_function("44 segments, both sides", |b| b.iter(|| net.send(busy, 44 * MSS)));
    group.finish();
}

fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection");
    let mut net = Net::new(0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("connect and close, both sides", |b| {
        b.iter(|| {
            let (client, server) = net.open(0);
            let now = net.now;
            // A reset leaves no TIME-WAIT: ports would run out otherwise.
            net.stacks[1].abort(now, server);
            net.pump();
            net.stacks[0].close(net.now, client);
            net.pump();
        });
    });
    group.finish();
    println!(
        "bytes of a connection without buffers and congestion control: {}",
        Stack::<VecMemory>::connection_size()
    );
}

criterion_group!(benches, segments, super_segments, lives);
criterion_main!(benches);
