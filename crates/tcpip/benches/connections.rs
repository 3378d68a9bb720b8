//! What a segment, an acknowledgement, a super-segment and a whole connection cost, by the number of idle connections
//! beside it, with every byte written, checksummed, copied and read.
//!
//! SOCKSHIM_BENCH_IDLE sets how many idle connections there are at most (100,000; a million take gigabytes).

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

mod cpu;
mod net;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use net::{MSS, Net};
use sockshim_tcpip::stack::SocketId;

const AT_ONCE: usize = 32;
const SUPER: usize = 44;

fn idle_counts() -> impl Iterator<Item = usize> {
    let most = std::env::var("SOCKSHIM_BENCH_IDLE").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    [0, 1_000, 100_000, 1_000_000].into_iter().filter(move |&count| count <= most)
}

/// With idle connections and one whose windows are open.
fn net(gso_max: u32, idle: usize) -> (Net, (SocketId, SocketId)) {
    let mut net = Net::new(gso_max);
    for number in 0..idle {
        net.open(number);
    }
    let busy = net.open(0);
    for _ in 0..10 {
        net.send(busy, AT_ONCE * MSS);
    }
    (net, busy)
}

fn segments(c: &mut Criterion<CpuTime>) {
    for idle in idle_counts() {
        let (mut net, busy) = net(0, idle);
        let mut group = c.benchmark_group("segment");
        group.throughput(Throughput::Elements(AT_ONCE as u64));
        for (stage, what) in ["sent", "received, 16 ACKs sent", "16 ACKs received"].into_iter().enumerate() {
            group.bench_function(BenchmarkId::new(what, idle), |b| {
                b.iter_custom(|rounds| (0..rounds).map(|_| net.stages(busy, AT_ONCE, cpu::now)[stage]).sum());
            });
        }
        group.bench_function(BenchmarkId::new("both sides, one ACK", idle), |b| {
            b.iter(|| net.send(busy, AT_ONCE * MSS));
        });
        group.finish();
    }
}

fn super_segments(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("super-segment of 64 KB");
    for idle in idle_counts() {
        let (mut net, busy) = net(65_000, idle);
        group.throughput(Throughput::Bytes((SUPER * MSS) as u64));
        group.bench_function(BenchmarkId::new("both sides", idle), |b| {
            b.iter(|| net.send(busy, SUPER * MSS));
        });
    }
    group.finish();
}

fn lives(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("connection");
    for idle in idle_counts() {
        let (mut net, _) = net(0, idle);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("connect and reset, both sides", idle), |b| {
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
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = segments, super_segments, lives
}
criterion_main!(benches);
