//! What the pipe path is meant to reach, and whether these figures do.

use sockshim_bench::results::{Measure, Row, Summary};
use sockshim_bench::show;
use std::fmt::Write as _;

/// One thing to reach.
struct Target {
    number: u8,
    what: &'static str,
    group: &'static str,
    row: &'static str,
    bound: Bound,
}

enum Bound {
    /// Times as good as libc, at least.
    Libc(f64),
    /// Times libc's CPU time, at most.
    Cpu(f64),
    /// Times what the raw ring takes, at most.
    Ring(f64),
    /// Nanoseconds or bytes more than libc, at most.
    Over(f64),
    /// In every profile: times as good as libc, at least, and times its CPU time, at most.
    Profiles(f64, f64),
    /// Times what sockshim takes in another row of the group, at most.
    OtherRow(f64, &'static str),
}

/// One line per target.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| | target | measured | cores | |\n|---|---|---|---|---|\n");
    for target in &TARGETS {
        let (measured, placement, verdict) = match rows.iter().find(|row| target.is_about(row)) {
            None => ("not asked".to_owned(), "-", "-"),
            Some(row) => match target.judge(row, rows) {
                None => ("not asked".to_owned(), row.placement(), "-"),
                Some((measured, true)) => (measured, row.placement(), "reached"),
                Some((measured, false)) => (measured, row.placement(), "**not reached**"),
            },
        };
        let _ = writeln!(
            text,
            "| {} | {}: {} | {measured} | {placement} | {verdict} |",
            target.number,
            target.what,
            target.bound.in_words()
        );
    }
    text += "\nWhy a target is not reached, and what would change it, is [below](#where-a-target-is-not-reached).\n";
    text
}

impl Target {
    fn is_about(&self, row: &Row) -> bool {
        row.group == self.group && row.row == self.row
    }

    /// The figure in words, and whether it is enough.
    fn judge(&self, row: &Row, rows: &[Row]) -> Option<(String, bool)> {
        let entrant = row.entrant("sockshim")?;
        Some(match self.bound {
            Bound::Libc(least) => (show::ratio(entrant.to_libc), entrant.to_libc.median >= least),
            Bound::Cpu(most) => {
                let ratio = entrant.to_libc;
                let [quarter, median, three_quarters] =
                    [ratio.three_quarters, ratio.median, ratio.quarter].map(|value| 1.0 / value);
                (show::ratio(Summary { quarter, median, three_quarters }), median <= most)
            }
            Bound::Ring(most) => {
                let ratio = entrant.to_ring?;
                (show::ratio(ratio), ratio.median <= most)
            }
            Bound::Over(most) => (show::verdict(row.measure, entrant), entrant.over_libc.median <= most),
            Bound::Profiles(least, most) => {
                let profiles = &row.entrants[1..];
                let slowest = profiles.iter().min_by(|a, b| a.to_libc.median.total_cmp(&b.to_libc.median))?;
                let dearest = profiles.iter().max_by(|a, b| a.cpu_ns().total_cmp(&b.cpu_ns()))?;
                let cpu = dearest.cpu_ns() / row.entrants[0].cpu_ns();
                let words = format!(
                    "{} ({}), CPU {} ({})",
                    show::ratio(slowest.to_libc),
                    slowest.name,
                    show::number(cpu),
                    dearest.name
                );
                (words, slowest.to_libc.median >= least && cpu <= most)
            }
            Bound::OtherRow(most, other) => {
                let other = rows.iter().find(|row| row.group == self.group && row.row == other)?;
                let ratio = entrant.figure.median / other.entrant("sockshim")?.figure.median;
                (show::number(ratio), ratio <= most)
            }
        })
    }
}

impl Bound {
    fn in_words(&self) -> String {
        match self {
            Self::Libc(least) => format!("at least {least} times libc"),
            Self::Cpu(most) => format!("at most {most} times libc's"),
            Self::Ring(most) => format!("at most {most} times the raw ring's time"),
            Self::Over(most) if *most >= 1024.0 => {
                format!("at most {} more than libc", show::figure(Measure::Memory, *most))
            }
            Self::Over(most) => format!("at most {most} ns more than libc"),
            Self::Profiles(least, most) => {
                format!("in every profile at least {least} times libc, and at most {most} times its CPU time")
            }
            Self::OtherRow(most, other) => format!("at most {most} times what it is with {other}"),
        }
    }
}

const fn target(
    number: u8,
    what: &'static str,
    group: &'static str,
    row: &'static str,
    bound: Bound,
) -> Target {
    Target { number, what, group, row, bound }
}

/// Never worse than libc, beyond noise, on a busy machine.
const fn crowded(row: &'static str) -> Target {
    target(7, row, "contended", row, Bound::Profiles(0.95, 1.05))
}

const TARGETS: [Target; 47] = [
    target(1, "64 B there and back", "pingpong", "64 B", Bound::Ring(1.6)),
    target(1, "the same with epoll at both ends", "pingpong", "64 B, epoll at both ends", Bound::Ring(2.2)),
    target(2, "64 B one way", "stream", "64 B", Bound::Ring(2.0)),
    target(2, "64 B one way, two cores", "stream", "64 B", Bound::Libc(20.0)),
    target(2, "64 B one way, one core", "stream", "64 B, both on one core", Bound::Libc(40.0)),
    target(3, "64 KB writes", "stream", "64 KB", Bound::Ring(1.25)),
    target(3, "64 KB writes", "stream", "64 KB", Bound::Libc(4.0)),
    target(4, "epoll with 10,000 idle connections", "epoll", "10000 idle", Bound::OtherRow(1.3, "10 idle")),
    target(5, "there and back on one core", "pingpong", "64 B, both on one core", Bound::Libc(4.0)),
    target(5, "asleep on two cores", "asleep", "on two cores", Bound::Libc(1.15)),
    target(6, "connect, accept, close", "connect", "connect, accept, close", Bound::Libc(0.97)),
    target(6, "one HTTP request", "connect", "one HTTP request", Bound::Libc(0.97)),
    target(7, "CPU, think time 100 us", "paced", "think time 100 us", Bound::Cpu(1.05)),
    target(7, "CPU, think time 1 ms", "paced", "think time 1 ms", Bound::Cpu(1.05)),
    target(7, "progress of four busy pairs", "contended", "four pairs", Bound::Libc(1.0)),
    crowded("one pair, 1 stranger"),
    crowded("one pair, 2 strangers"),
    crowded("one pair, 4 strangers"),
    crowded("one pair, 8 strangers"),
    crowded("one pair on one core, 4 strangers"),
    crowded("one pair on two cores, 4 strangers"),
    crowded("one pair, 2 strangers of lower priority"),
    crowded("one pair, 2 strangers of higher priority"),
    crowded("eight pairs, 4 strangers"),
    crowded("fifty pairs, 8 strangers"),
    crowded("one pair, epoll, 2 strangers"),
    crowded("eight pairs, epoll, 4 strangers"),
    crowded("four threads at each end, 4 strangers"),
    target(8, "`write` to something else", "passthrough", "write, /dev/null", Bound::Over(5.0)),
    target(8, "`read` from something else", "passthrough", "read, /dev/zero", Bound::Over(5.0)),
    target(8, "`poll` of something else", "passthrough", "poll, eventfd", Bound::Over(5.0)),
    target(8, "`epoll_wait` for something else", "passthrough", "epoll_wait, eventfd", Bound::Over(5.0)),
    target(8, "memory of an idle connection", "memory", "in all", Bound::Over(16384.0)),
    target(9, "redis GET, 1 connection", "redis", "GET, 1 connection", Bound::Libc(30.0)),
    target(9, "redis GET, 1 connection, one core", "redis", "GET, 1 connection, one core", Bound::Libc(4.0)),
    target(9, "redis GET, 50 connections", "redis", "GET, 50 connections", Bound::Libc(12.0)),
    target(
        9,
        "redis GET, 50 connections, pipelined 16",
        "redis",
        "GET, 50 connections, pipelined 16",
        Bound::Libc(2.5),
    ),
    target(9, "nginx, small answer, 1 connection", "nginx", "small answer, 1 connection", Bound::Libc(25.0)),
    target(
        9,
        "nginx, small answer, 16 connections",
        "nginx",
        "small answer, 16 connections",
        Bound::Libc(6.0),
    ),
    target(9, "nginx, 64 KB file, 16 connections", "nginx", "64 KB file, 16 connections", Bound::Libc(2.0)),
    target(
        9,
        "nginx, one connection per request",
        "nginx",
        "a connection for each request",
        Bound::Libc(0.97),
    ),
    target(9, "memcached get", "memcached", "get, 1 connection", Bound::Libc(3.0)),
    target(9, "pgbench -S, 1 client", "postgres", "pgbench -S, 1 client", Bound::Libc(2.0)),
    target(9, "sockperf, 64 B there and back", "sockperf", "64 B there and back", Bound::Libc(50.0)),
    target(9, "iperf3, one stream", "iperf3", "one stream", Bound::Libc(2.5)),
    target(9, "python http.server, 100 MB", "python", "http.server, 100 MB", Bound::Libc(1.3)),
    target(9, "ssh, 100 MB", "ssh", "100 MB", Bound::Libc(0.97)),
];
