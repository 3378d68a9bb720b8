//! One question, put to several ways of running it, by turns.

use crate::Trouble;
use crate::crew::{Crew, Lap, Stranger};
use crate::probe;
use crate::question::Question;
use crate::results::{Entrant, Measure, Row, Summary};
use crate::run::Run;
use crate::way::Way;

/// A contest under way.
#[derive(Debug)]
pub struct Contest {
    question: Question,
    crews: Vec<Crew>,
    _strangers: Vec<Stranger>,
    /// What an operation took last, by way.
    pace: Vec<f64>,
    /// One lap of every way in each.
    rounds: Vec<Vec<Lap>>,
    quick: bool,
}

impl Contest {
    /// Starts all processes, and lets their connections find their paths.
    pub fn start(run: &Run, question: &Question) -> Result<Self, Trouble> {
        let starts = question.ways.iter().map(|way| Crew::start(run, &question.plan, way));
        let mut crews = starts.collect::<Result<Vec<_>, _>>()?;
        let strangers = Stranger::start_all(run, &question.plan)?;
        let paces = crews.iter_mut().map(|crew| warm_up(crew, question));
        let pace = paces.collect::<Result<_, _>>()?;
        Ok(Self {
            question: question.clone(),
            crews,
            _strangers: strangers,
            pace,
            rounds: Vec::new(),
            quick: run.quick,
        })
    }

    /// About `ns` of every way, in turn; the next round starts with another one.
    pub fn round(&mut self, ns: f64) -> Result<(), Trouble> {
        let counts = self.pace.iter().map(|pace| (ns / pace).max(1.0) as u64).collect::<Vec<_>>();
        self.turns(&counts).map(drop)
    }

    /// `count` operations of way `index`, whose nanoseconds are returned, and about as long of every other way.
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
        let ways = self.crews.len();
        let first = self.rounds.len() % ways;
        let mut round = vec![Lap::default(); ways];
        for way in (first..ways).chain(0..first) {
            round[way] = self.crews[way].run(counts[way])?;
            self.pace[way] = (round[way].took_ns / counts[way] as f64).max(0.5);
        }
        let took = round.iter().map(|lap| lap.figure * lap.operations).collect();
        self.rounds.push(round);
        Ok(took)
    }

    /// The answer, unless nothing was measured.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        answer(&self.question, &self.question.ways, std::slice::from_ref(&self.rounds), self.quick)
    }
}

/// Asks one question with as many rounds as it needs.
pub(crate) fn ask(run: &Run, question: &Question) -> Result<Row, Trouble> {
    let before = probe::placement()?;
    let (times, rounds, ns) = question.effort.rounds(run.quick);
    let mut runs = Vec::new();
    for _ in 0..times {
        let mut contest = Contest::start(run, question)?;
        for _ in 0..rounds {
            contest.round(ns)?;
        }
        runs.push(core::mem::take(&mut contest.rounds));
    }
    let mut row = answer(question, &question.ways, &runs, run.quick).expect("at least one round");
    row.probes = before.zip(probe::placement()?).map(|(before, after)| [before, after]);
    run.congestion().clone_into(&mut row.congestion);
    Ok(row)
}

/// The table's row from the laps of all rounds of all runs.
pub(crate) fn answer(question: &Question, ways: &[Way], runs: &[Vec<Vec<Lap>>], quick: bool) -> Option<Row> {
    let rounds: Vec<_> = runs.iter().flatten().collect();
    let rings: Vec<_> = (0..ways.len()).filter(|&way| ways[way].is_ring()).collect();
    let last = rounds.last()?;
    let value = |lap: &Lap| match question.measure {
        Measure::Cpu => lap.user_ns + lap.system_ns,
        _ => lap.figure,
    };
    let mean = |way: usize, part: fn(&Lap) -> f64| {
        let laps = rounds.iter().map(|round| &round[way]);
        let total: f64 = laps.clone().map(|lap| lap.operations).sum();
        laps.map(|lap| part(lap) * lap.operations).sum::<f64>() / total
    };
    let entrants = ways.iter().enumerate().map(|(way, entrant)| {
        let each = |of: &dyn Fn(&[Lap]) -> f64| Summary::of(rounds.iter().map(|round| of(round)));
        let to_libc = |round: &[Lap]| value(&round[0]) / value(&round[way]);
        let over_libc = |round: &[Lap]| value(&round[way]) - value(&round[0]);
        let of_runs = |of: &dyn Fn(&[Lap]) -> f64| {
            let run = |run: &Vec<Vec<Lap>>| Summary::of(run.iter().map(|round| of(round))).median;
            runs.iter().filter(|run| !run.is_empty()).map(run).collect::<Vec<_>>()
        };
        let limit = |round: &[Lap]| rings.iter().map(|&ring| value(&round[ring])).fold(f64::MAX, f64::min);
        Entrant {
            name: entrant.name.to_owned(),
            figure: each(&|round| value(&round[way])),
            user_ns: mean(way, |lap| lap.user_ns),
            system_ns: mean(way, |lap| lap.system_ns),
            to_libc: each(&to_libc),
            over_libc: each(&over_libc),
            worst: if question.measure.is_difference() {
                of_runs(&over_libc).into_iter().fold(f64::MIN, f64::max)
            } else {
                of_runs(&to_libc).into_iter().fold(f64::MAX, f64::min)
            },
            to_ring: (!rings.is_empty()).then(|| each(&|round| value(&round[way]) / limit(round))),
            on_pipe: last[way].on_pipe,
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
fn warm_up(crew: &mut Crew, question: &Question) -> Result<f64, Trouble> {
    let (mut done, mut total, mut count) = (0, 0.0, 1);
    loop {
        let lap = crew.run(count)?;
        (done, total) = (done + count, total + lap.took_ns);
        if total > 20e6 && done > question.settled_after
            || total > 400e6
            || question.measure == Measure::Memory
        {
            return Ok((lap.took_ns / count as f64).max(0.5));
        }
        count = (count * 2).min(1 << 24);
    }
}

/// Rounds shorter than this are warming up.
const SHORTEST_NS: f64 = 1e6;
