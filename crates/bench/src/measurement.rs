//! One question, put to several backends, by turns.

use crate::Trouble;
use crate::backend::Backend;
use crate::probe;
use crate::question::Question;
use crate::results::{Entrant, Measure, Row, Summary};
use crate::run::Run;
use crate::workers::{Sample, Stranger, Workers};

/// A measurement under way.
#[derive(Debug)]
pub struct Measurement {
    question: Question,
    workers: Vec<Workers>,
    _strangers: Vec<Stranger>,
    /// What an operation took last, by backend.
    pace: Vec<f64>,
    /// One sample of every backend in each.
    rounds: Vec<Vec<Sample>>,
    quick: bool,
}

impl Measurement {
    /// Starts all processes, and lets their connections find their paths.
    pub fn start(run: &Run, question: &Question) -> Result<Self, Trouble> {
        let starts = question.backends.iter().map(|backend| Workers::start(run, &question.plan, backend));
        let mut workers = starts.collect::<Result<Vec<_>, _>>()?;
        let strangers = Stranger::start_all(run, &question.plan)?;
        let paces = workers.iter_mut().map(|workers| warm_up(workers, question));
        let pace = paces.collect::<Result<_, _>>()?;
        Ok(Self {
            question: question.clone(),
            workers,
            _strangers: strangers,
            pace,
            rounds: Vec::new(),
            quick: run.quick,
        })
    }

    /// About `ns` of every backend, in turn; the next round starts with another one.
    pub fn round(&mut self, ns: f64) -> Result<(), Trouble> {
        let counts = self.pace.iter().map(|pace| (ns / pace).max(1.0) as u64).collect::<Vec<_>>();
        self.turns(&counts).map(drop)
    }

    /// `count` operations of backend `index`, whose nanoseconds are returned, and about as long of every other backend.
    pub fn round_of(&mut self, index: usize, count: u64) -> Result<f64, Trouble> {
        let ns = count as f64 * self.pace[index];
        let mut counts = self.pace.iter().map(|pace| (ns / pace).max(1.0) as u64).collect::<Vec<_>>();
        counts[index] = count;
        let took = self.turns(&counts)?[index];
        if took < SHORTEST_NS {
            self.rounds.pop(); // warming up
        }
        Ok(took)
    }

    fn turns(&mut self, counts: &[u64]) -> Result<Vec<f64>, Trouble> {
        let backends = self.workers.len();
        let first = self.rounds.len() % backends;
        let mut round = vec![Sample::default(); backends];
        for backend in (first..backends).chain(0..first) {
            round[backend] = self.workers[backend].run(counts[backend])?;
            self.pace[backend] = (round[backend].took_ns / counts[backend] as f64).max(0.5);
        }
        let took = round.iter().map(|sample| sample.figure * sample.operations).collect();
        self.rounds.push(round);
        Ok(took)
    }

    /// The answer, unless nothing was measured.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        answer(&self.question, &self.question.backends, std::slice::from_ref(&self.rounds), self.quick)
    }
}

/// Asks one question with as many rounds as it needs.
pub(crate) fn ask(run: &Run, question: &Question) -> Result<Row, Trouble> {
    let before = probe::placement()?;
    let (times, rounds, ns) = question.effort.rounds(run.quick);
    let mut runs = Vec::new();
    for _ in 0..times {
        let mut measurement = Measurement::start(run, question)?;
        for _ in 0..rounds {
            measurement.round(ns)?;
        }
        runs.push(core::mem::take(&mut measurement.rounds));
    }
    let mut row = answer(question, &question.backends, &runs, run.quick).expect("at least one round");
    row.probes = before.zip(probe::placement()?).map(|(before, after)| [before, after]);
    run.congestion().clone_into(&mut row.congestion);
    Ok(row)
}

/// The table's row from the samples of all rounds of all runs.
pub(crate) fn answer(
    question: &Question,
    backends: &[Backend],
    runs: &[Vec<Vec<Sample>>],
    quick: bool,
) -> Option<Row> {
    let rounds: Vec<_> = runs.iter().flatten().collect();
    let rings: Vec<_> = (0..backends.len()).filter(|&backend| backends[backend].is_ring()).collect();
    let last = rounds.last()?;
    let value = |sample: &Sample| match question.measure {
        Measure::Cpu => sample.user_ns + sample.system_ns,
        _ => sample.figure,
    };
    // Each round counts for the same time, whatever it took. How many operations it has was planned by the pace of the one before:
    // beside strangers a pair that is torn apart over two processors then takes ten times as long for as many, and would count
    // for all of them.
    let mean = |backend: usize, part: fn(&Sample) -> f64| {
        let samples = rounds.iter().map(|round| &round[backend]);
        let rate = |sample: &Sample| sample.operations / sample.took_ns.max(1.0);
        let total: f64 = samples.clone().map(rate).sum();
        samples.map(|sample| part(sample) * rate(sample)).sum::<f64>() / total
    };
    let entrants = backends.iter().enumerate().map(|(backend, entrant)| {
        let each = |of: &dyn Fn(&[Sample]) -> f64| Summary::of(rounds.iter().map(|round| of(round)));
        let to_libc = |round: &[Sample]| value(&round[0]) / value(&round[backend]);
        let over_libc = |round: &[Sample]| value(&round[backend]) - value(&round[0]);
        let of_runs = |of: &dyn Fn(&[Sample]) -> f64| {
            let run = |run: &Vec<Vec<Sample>>| Summary::of(run.iter().map(|round| of(round))).median;
            runs.iter().filter(|run| !run.is_empty()).map(run).collect::<Vec<_>>()
        };
        let limit = |round: &[Sample]| rings.iter().map(|&ring| value(&round[ring])).fold(f64::MAX, f64::min);
        Entrant {
            name: entrant.name.to_owned(),
            figure: each(&|round| value(&round[backend])),
            user_ns: mean(backend, |sample| sample.user_ns),
            system_ns: mean(backend, |sample| sample.system_ns),
            to_libc: each(&to_libc),
            over_libc: each(&over_libc),
            worst: if question.measure.is_difference() {
                of_runs(&over_libc).into_iter().fold(f64::MIN, f64::max)
            } else {
                of_runs(&to_libc).into_iter().fold(f64::MAX, f64::min)
            },
            to_ring: (!rings.is_empty()).then(|| each(&|round| value(&round[backend]) / limit(round))),
            on_pipe: last[backend].on_pipe,
        }
    });
    Some(Row {
        group: question.group.to_owned(),
        row: question.row.clone(),
        unit: question.unit.to_owned(),
        measure: question.measure,
        rounds: rounds.len(),
        quick,
        probes: None,
        entrants: entrants.collect(),
        congestion: String::new(),
    })
}

/// Lets connections find their paths, and returns nanoseconds per operation.
fn warm_up(workers: &mut Workers, question: &Question) -> Result<f64, Trouble> {
    let (mut done, mut total, mut count) = (0, 0.0, 1);
    loop {
        let sample = workers.run(count)?;
        (done, total) = (done + count, total + sample.took_ns);
        if total > 20e6 && done > question.settled_after
            || total > 400e6
            || question.measure == Measure::Memory
        {
            return Ok((sample.took_ns / count as f64).max(0.5));
        }
        count = (count * 2).min(1 << 24);
    }
}

/// Rounds shorter than this are warming up.
const SHORTEST_NS: f64 = 1e6;
