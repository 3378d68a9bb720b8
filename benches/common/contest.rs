//! One question, put to several ways of running it, by turns.

use super::results::{Entrant, Row, summary};
use super::worker::{Crew, Lap, Placement, Plan};
use super::{Way, record};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::Duration;

/// Rounds shorter than this are warming up.
const SHORTEST_NS: u64 = 1_000_000;

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The table it belongs to.
    pub(crate) group: &'static str,
    /// Its row there.
    pub(crate) row: String,
    /// What one operation is.
    pub(crate) unit: &'static str,
    /// Bytes that one operation moves one way, where a rate is of interest.
    pub(crate) bytes: Option<u64>,
    pub(crate) plan: Plan,
    pub(crate) ways: Vec<Way>,
    /// How many of the ways criterion reports on; the others run beside them for the table.
    pub(crate) reported: usize,
    /// Operations after which every connection has found its path.
    pub(crate) settled_after: u64,
    /// For questions with many ways: the share of the usual time that one of them gets.
    pub(crate) share: f64,
}

impl Question {
    /// Between two processes, libc and sockshim.
    pub(crate) fn new(group: &'static str, row: impl Into<String>, words: &[&str]) -> Self {
        Self {
            group,
            row: row.into(),
            unit: "round trip",
            bytes: None,
            plan: Plan {
                words: words.iter().map(|&word| word.to_owned()).collect(),
                placement: Placement::Free,
                with_server: true,
            },
            ways: vec![Way::LIBC, Way::SOCKSHIM],
            reported: usize::MAX,
            settled_after: 5_000,
            share: 1.0,
        }
    }

    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(crate) fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    pub(crate) fn placed(mut self, placement: Placement) -> Self {
        self.plan.placement = placement;
        self
    }

    pub(crate) fn alone(mut self) -> Self {
        self.plan.with_server = false;
        self
    }

    pub(crate) fn ways(mut self, ways: &[Way]) -> Self {
        self.ways = ways.to_vec();
        self
    }

    /// Where connections are short: nothing to settle, and criterion reports on the `first` ways only.
    pub(crate) fn short(mut self, first: usize, share: f64) -> Self {
        (self.reported, self.settled_after, self.share) = (first, 1, share);
        self
    }

    /// Asks it, and keeps the answer for the table.
    pub(crate) fn ask(self, criterion: &mut Criterion) {
        let mut contest = None;
        let mut group = criterion.benchmark_group(self.group);
        if let Some(bytes) = self.bytes {
            group.throughput(Throughput::Bytes(bytes));
        }
        if self.share < 1.0 {
            group.measurement_time(super::measurement_time().mul_f64(self.share));
        }
        for (index, way) in self.ways.iter().enumerate().take(self.reported) {
            group.bench_function(BenchmarkId::new(way.name, &self.row), |bencher| {
                // Started by the first that criterion's filter lets through.
                let contest = contest.get_or_insert_with(|| Contest::start(&self));
                bencher.iter_custom(|count| contest.round(index, count));
            });
        }
        group.finish();
        if let Some(row) = contest.and_then(|contest| contest.row(&self)) {
            record(row);
        }
    }
}

struct Contest {
    crews: Vec<Crew>,
    /// What an operation took last, by way.
    pace: Vec<f64>,
    /// One lap of every way in each, as nanoseconds per operation: elapsed and CPU.
    rounds: Vec<Vec<(f64, f64)>>,
    on_pipe: Vec<bool>,
}

impl Contest {
    fn start(question: &Question) -> Self {
        let mut crews: Vec<_> = question.ways.iter().map(|way| Crew::start(&question.plan, way)).collect();
        let pace = crews.iter_mut().map(|crew| warm_up(crew, question.settled_after)).collect();
        let on_pipe = vec![false; crews.len()];
        Self { crews, pace, rounds: Vec::new(), on_pipe }
    }

    /// `count` operations of way `index`, which is timed, and about as long of every other way.
    fn round(&mut self, index: usize, count: u64) -> Duration {
        let budget = count as f64 * self.pace[index];
        let ways = self.crews.len();
        let first = self.rounds.len() % ways;
        let mut timed = 0;
        let mut round = vec![(0.0, 0.0); ways];
        for way in (first..ways).chain(0..first) {
            let own = if way == index { count } else { (budget / self.pace[way]).max(1.0) as u64 };
            let Lap { ns, cpu_ns, on_pipe } = self.crews[way].run(own);
            round[way] = (ns as f64 / own as f64, cpu_ns as f64 / own as f64);
            self.pace[way] = round[way].0.max(1.0);
            self.on_pipe[way] = on_pipe;
            if way == index {
                timed = ns;
            }
        }
        if timed >= SHORTEST_NS {
            self.rounds.push(round);
        }
        Duration::from_nanos(timed)
    }

    fn row(&self, question: &Question) -> Option<Row> {
        if self.rounds.is_empty() {
            return None;
        }
        let entrants = question.ways.iter().enumerate().map(|(way, entrant)| Entrant {
            name: entrant.name.to_owned(),
            ns: summary(self.rounds.iter().map(|round| round[way].0)),
            cpu_ns: summary(self.rounds.iter().map(|round| round[way].1)),
            speed: summary(self.rounds.iter().map(|round| round[0].0 / round[way].0)),
            on_pipe: self.on_pipe[way],
        });
        Some(Row {
            group: question.group.to_owned(),
            row: question.row.clone(),
            unit: question.unit.to_owned(),
            bytes: question.bytes,
            rounds: self.rounds.len(),
            quick: super::quick(),
            entrants: entrants.collect(),
        })
    }
}

/// Lets a connection find its path, and returns nanoseconds per operation.
fn warm_up(crew: &mut Crew, settled_after: u64) -> f64 {
    let (mut done, mut total, mut count) = (0, 0, 1);
    loop {
        let ns = crew.run(count).ns;
        (done, total) = (done + count, total + ns);
        if total > 30_000_000 && done > settled_after || total > 400_000_000 {
            return (ns as f64 / count as f64).max(1.0);
        }
        count = (count * 2).min(1 << 24);
    }
}
