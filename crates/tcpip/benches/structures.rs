//! What a connection costs to find and to wake: the demultiplexing table and the timer wheel, by the number of
//! connections. Indices come in a random order, so that caches see what many connections do to them.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

extern crate alloc;

mod cpu;
// The structures are no part of the interface, so they are compiled here once more.
#[path = "../src/slab.rs"]
#[allow(dead_code, unused_imports, reason = "a part is measured")]
mod slab;
#[path = "../src/table.rs"]
#[allow(dead_code, unused_imports, reason = "a part is measured")]
mod table;
#[path = "../src/time.rs"]
#[allow(dead_code, unused_imports, reason = "a part is used")]
mod time;
#[path = "../src/wheel.rs"]
#[allow(dead_code, unused_imports, reason = "a part is measured")]
mod wheel;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slab::Slab;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use table::{HashKey, Table};
use time::Instant;
use wheel::Wheel;

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

fn key() -> HashKey {
    HashKey::new([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321])
}

fn find(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("find a connection");
    for count in COUNTS {
        let key = key();
        let mut connections = Slab::new();
        let mut table = Table::new();
        for index in 0..count {
            let (local, remote) = ends(index);
            let place = connections.insert(Connection { local, remote, _hot: [0; 12] }).index();
            let hash = key.flow(local, remote);
            table.insert(hash, place);
        }
        let is = |index: u32, local, remote| {
            connections.at(index).is_some_and(|it: &Connection| it.local == local && it.remote == remote)
        };
        let mut walk = Walk::new(count);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let (local, remote) = ends(walk.step());
                table.find(key.flow(local, remote), |index| is(index, local, remote))
            });
        });
    }
    group.finish();
}

/// One connection leaves the table and comes back, which is what becomes of each while their number stays the same.
fn replace(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("remove and insert a connection");
    for count in COUNTS {
        let key = key();
        let hash = |index| {
            let (local, remote) = ends(index);
            key.flow(local, remote)
        };
        let mut table = Table::new();
        for index in 0..count {
            table.insert(hash(index), index);
        }
        let mut walk = Walk::new(count);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let index = walk.step();
                assert!(table.remove(hash(index), index));
                table.insert(hash(index), index);
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
    targets = find, replace, rearm, expire
}
criterion_main!(benches);
