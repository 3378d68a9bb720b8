//! The answers, as `sockshim bench --json` prints them (docs/bench.md).

use crate::probe::{FAR, Nanoseconds};
use serde::{Deserialize, Serialize};

/// The name of an entrant that is libc once more.
pub const CONTROL: &str = "control";

/// The answer to one question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The table it belongs to: the word that asks for it.
    pub group: String,
    /// The name of its row in the group's table.
    pub row: String,
    /// What one operation is.
    pub unit: String,
    /// What the figures are.
    pub measure: Measure,
    /// How many rounds every backend was measured in.
    pub rounds: usize,
    /// Whether the run was a quick one.
    pub quick: bool,
    /// A bare round trip through a cache line before and after, with more than one processor.
    pub probes: Option<[Nanoseconds; 2]>,
    /// What each backend took, beginning with libc.
    pub entrants: Vec<Entrant>,
    /// The congestion control of all connections (tcp(7)), and how it was chosen.
    #[serde(default)]
    pub congestion: String,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Nanoseconds per operation.
    Time,
    /// The same, to be told as operations per second.
    Rate,
    /// The same, to be told as bytes per second, at so many bytes per operation.
    Throughput(u64),
    /// The same, but CPU time is what the question is about.
    Cpu,
    /// The same, but the difference to libc is what the question is about.
    Call,
    /// Bytes of memory.
    Memory,
}

/// One backend's share of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entrant {
    /// libc, sockshim, raw ring ...
    pub name: String,
    /// Nanoseconds per operation, or bytes.
    pub figure: Summary,
    /// Nanoseconds per operation of both ends together, over all rounds.
    pub user_ns: f64,
    /// CPU time in the kernel.
    pub system_ns: f64,
    /// How many times as good as libc in the same round.
    pub to_libc: Summary,
    /// By how much the figure is more than libc's in the same round.
    pub over_libc: Summary,
    /// The least favourable of the runs: its [`Entrant::to_libc`] or, where only the difference matters, its
    /// [`Entrant::over_libc`].
    #[serde(default = "unknown", deserialize_with = "number")]
    pub worst: f64,
    /// How many times the raw ring's figure in the same round, where there is one.
    pub to_ring: Option<Summary>,
    /// Whether the connections of the last round were on pipes, where there was one to ask.
    pub on_pipe: Option<bool>,
}

/// The median and the quartiles of several figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Summary {
    #[serde(deserialize_with = "number")]
    pub quarter: f64,
    #[serde(deserialize_with = "number")]
    pub median: f64,
    #[serde(deserialize_with = "number")]
    pub three_quarters: f64,
}

/// JSON cannot express NaN, such as the ratio of zero to zero: it is written as null.
fn number<'a, D: serde::Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

fn unknown() -> f64 {
    f64::NAN
}

impl Measure {
    /// Whether the difference to libc says more than the ratio.
    #[must_use]
    pub fn is_difference(self) -> bool {
        matches!(self, Self::Call | Self::Memory)
    }
}

impl Summary {
    /// Summarizes at least one value.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
        Self { quarter: at(0.25), median: at(0.5), three_quarters: at(0.75) }
    }
}

impl Row {
    /// The entrant called `name`.
    #[must_use]
    pub fn entrant(&self, name: &str) -> Option<&Entrant> {
        self.entrants.iter().find(|entrant| entrant.name == name)
    }

    /// The second libc, of a row that compares libc with itself: its ratio shows the noise of the others.
    #[must_use]
    pub fn control(&self) -> Option<&Entrant> {
        self.entrant(CONTROL)
    }

    /// The best of the raw rings.
    #[must_use]
    pub fn ring(&self) -> Option<&Entrant> {
        let rings = self.entrants.iter().filter(|entrant| entrant.is_ring());
        rings.min_by(|a, b| a.figure.median.total_cmp(&b.figure.median))
    }

    /// Where the processors were placed: `near`, `far`, or `moved` when it changed.
    #[must_use]
    pub fn placement(&self) -> &'static str {
        match self.probes {
            None => "-",
            Some([before, after]) => match (before >= FAR, after >= FAR) {
                (false, false) => "near",
                (true, true) => "far",
                _ => "moved",
            },
        }
    }
}

impl Entrant {
    /// A warning for the reader: the row should be about a pipe, but is not.
    #[must_use]
    pub fn remark(&self) -> &'static str {
        if self.name == "sockshim" && self.on_pipe == Some(false) { ", not on a pipe" } else { "" }
    }

    /// A limit of the machine, and not something that programs can use.
    #[must_use]
    pub fn is_ring(&self) -> bool {
        self.name.starts_with("raw ring")
    }

    /// User and system time.
    #[must_use]
    pub fn cpu_ns(&self) -> f64 {
        self.user_ns + self.system_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_values_that_were_measured() {
        let summary = Summary::of([5.0, 1.0, 4.0, 2.0, 3.0].into_iter());
        assert_eq!(summary, Summary { quarter: 2.0, median: 3.0, three_quarters: 4.0 });
        let one = Summary::of([7.0].into_iter());
        assert_eq!((one.quarter, one.median, one.three_quarters), (7.0, 7.0, 7.0));
    }
}
