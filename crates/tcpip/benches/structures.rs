//! What a connection costs to find and to wake: the demultiplexing table and the timer wheel, by the number of
//! connections. Indices come in a random order, so that caches see what many connections do to them.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

mod cpu;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sockshim_tcpip::slab::Slab;
use sockshim_tcpip::table::{HashKey, Table};
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wheel::Wheel;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const COUNTS: [u32; 4] = [1, 1_000, 100_000, 1_000_000];

/// Steps through all of `0..count` in an order that no prefetcher follows.
struct Walk {
    at: u64,
    count: u64,
}

impl Walk {
    fn new(count: u32) -> Self {
        Self { at: 1, count: u64::from(count) }
    }

    fn step(&mut self) -> u32 {
        self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.at >> 33) % self.count) as u32
    }
}

/// As large as the hot part of a connection.
struct Connection {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    _hot: [u64; 12],
}

fn ends(index: u32) -> ((IpAddr, u16), (IpAddr, u16)) {
    let remote = Ipv4Addr::from_bits(0x0a00_0000 + index / 60_000);
    ((Ipv4Addr::new(10, 255, 0, 1).into(), 80), (remote.into(), (index % 60_000) as u16 + 1024))
}

fn find(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("find a connection");
    for count in COUNTS {
        let key = HashKey::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
        let mut connections = Slab::new();
        let mut table = Table::new();
        for index in 0..count {
            let (local, remote) = ends(index);
            let connection = connections.insert(Connection { local, remote, _hot: [0; 12] });
            table.insert(key.flow(local, remote), connection.index());
        }
        let mut walk = Walk::new(count);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let (local, remote) = ends(walk.step());
                table.find(key.flow(local, remote), |index| {
                    connections
                        .at(index)
                        .is_some_and(|known: &Connection| known.local == local && known.remote == remote)
                })
            });
        });
    }
    group.finish();
}

fn rearm(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("move a deadline");
    for count in COUNTS {
        let mut wheel = Wheel::new(Duration::from_micros(64));
        let mut walk = Walk::new(count);
        let mut now = 0u64;
        for index in 0..count {
            wheel.schedule(index, Instant::from_micros(u64::from(index % 1000) * 200));
        }
        group.bench_function(BenchmarkId::new("wheel", count), |b| {
            b.iter(|| {
                now += 1_000;
                let index = walk.step();
                wheel.schedule(
                    index,
                    Instant::from_nanos(now + 200_000_000 + u64::from(index % 64) * 100_000),
                );
            });
        });
    }
    let count = 100_000;
    let mut set: BTreeSet<(u64, u32)> = (0..count).map(|index| (u64::from(index), index)).collect();
    let mut deadlines: Vec<u64> = (0..count).map(u64::from).collect();
    let mut walk = Walk::new(count);
    let mut now = 0;
    group.bench_function(BenchmarkId::new("BTreeSet", count), |b| {
        b.iter(|| {
            now += 1_000;
            let index = walk.step();
            let deadline = &mut deadlines[index as usize];
            set.remove(&(*deadline, index));
            *deadline = now + 200_000_000 + u64::from(index % 64) * 100_000;
            set.insert((*deadline, index));
        });
    });
    group.finish();
}

/// Deadlines that are reached: scheduling, lowering and expiring, per entry.
fn expire(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("reach a deadline");
    for count in [1_000u32, 100_000] {
        group.throughput(Throughput::Elements(u64::from(count)));
        let mut now = 0u64;
        let mut wheel = Wheel::new(Duration::from_micros(64));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                for index in 0..count {
                    let after = 40_000_000 + u64::from(index.wrapping_mul(2_654_435_761) % 4096) * 100_000;
                    wheel.schedule(index, Instant::from_nanos(now + after));
                }
                now += 500_000_000;
                while let Some(index) = wheel.expire(Instant::from_nanos(now)) {
                    black_box(index);
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = find, rearm, expire
}
criterion_main!(benches);
