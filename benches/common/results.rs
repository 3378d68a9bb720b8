//! The answers, kept in a file until the report is written.

use super::probe::Nanoseconds;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The answers of all benches of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    /// The placement probe, before and after each bench.
    pub(crate) placements: Vec<Nanoseconds>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) row: String,
    pub(crate) unit: String,
    pub(crate) bytes: Option<u64>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    /// libc first.
    pub(crate) entrants: Vec<Entrant>,
}

/// One way's share of a row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entrant {
    pub(crate) name: String,
    /// Per operation.
    pub(crate) ns: Summary,
    /// Per operation, of both ends together.
    pub(crate) cpu_ns: Summary,
    /// How many times as fast as libc in the same round.
    pub(crate) speed: Summary,
    pub(crate) on_pipe: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) quarter: f64,
    pub(crate) median: f64,
    pub(crate) three_quarters: f64,
}

/// The quartiles.
pub(crate) fn summary(values: impl Iterator<Item = f64>) -> Summary {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    Summary { quarter: at(0.25), median: at(0.5), three_quarters: at(0.75) }
}

impl Results {
    /// What earlier benches of the run found.
    pub(crate) fn load() -> Self {
        std::fs::read(file()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub(crate) fn store(&self) {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        std::fs::write(file(), text).unwrap_or_else(|error| panic!("{}: {error}", file().display()));
    }

    /// Adds `row`, in place of an older answer to the same question.
    pub(crate) fn add(&mut self, row: Row) {
        match self.rows.iter_mut().find(|old| old.group == row.group && old.row == row.row) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
    }
}

/// `target/sockshim-bench.json`; `make bench` starts without one.
fn file() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).expect("target/release/deps/bench");
    target.join("sockshim-bench.json")
}
