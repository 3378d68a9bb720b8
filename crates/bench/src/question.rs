//! A question, before it is asked.

use crate::backend::Backend;
use crate::results::{Measure, Row};
use crate::run::Run;
use crate::workers::{Placement, Plan, Strangers};
use crate::{Trouble, measurement, net};

/// What is measured, how, and by which backends.
#[derive(Clone, Debug)]
pub struct Question {
    /// The table it belongs to.
    pub group: &'static str,
    /// The name of its row in the group's table.
    pub row: String,
    /// What one operation is.
    pub unit: &'static str,
    /// What the figures are.
    pub measure: Measure,
    /// What is compared, beginning with libc.
    pub backends: Vec<Backend>,
    pub(crate) plan: Plan,
    pub(crate) effort: Effort,
    /// Operations after which every connection has found its path.
    pub(crate) settled_after: u64,
    /// Left out of quick runs.
    pub(crate) thorough: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Operations of up to a millisecond.
    Usual,
    /// Differences of nanoseconds: many short rounds.
    Fine,
    /// Operations that wait most of the time.
    Long,
    /// Operations while other processes compete for the processors: rounds of many time slices.
    Crowded,
    /// What does not change from one round to the next.
    Once,
}

impl Effort {
    /// The number of runs, of rounds in each, and nanoseconds of each backend in a round. Each run has processes of its own.
    pub(crate) fn rounds(self, quick: bool) -> (usize, usize, f64) {
        match (self, quick) {
            (Self::Usual, true) => (1, 5, 12e6),
            (Self::Usual, false) => (3, 7, 40e6),
            (Self::Fine, true) => (1, 51, 2e6),
            (Self::Fine, false) => (3, 133, 2e6),
            (Self::Long, true) => (1, 5, 60e6),
            (Self::Long, false) => (3, 5, 150e6),
            (Self::Crowded, true) => (1, 3, 60e6),
            (Self::Crowded, false) => (3, 3, 100e6),
            (Self::Once, _) => (1, 1, 1.0),
        }
    }
}

/// What the row is called that compares libc with itself as `row` compares it with sockshim.
pub(crate) fn control_row(row: &str) -> String {
    format!("control: {row}")
}

impl Question {
    /// Between two processes, each on a processor of its own: libc, sockshim and the raw ring.
    pub(crate) fn new(group: &'static str, row: impl Into<String>, words: &[&str]) -> Self {
        Self {
            group,
            row: row.into(),
            unit: "round trip",
            measure: Measure::Time,
            plan: Plan {
                words: words.iter().map(|&word| word.to_owned()).collect(),
                placement: Placement::TwoCores,
                with_server: true,
                pairs: 1,
                strangers: Strangers { count: 0, nice: 0 },
                both_figures: false,
            },
            backends: vec![Backend::LIBC, Backend::SOCKSHIM, Backend::RING],
            effort: Effort::Usual,
            settled_after: 5_000,
            thorough: false,
        }
    }

    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(crate) fn measure(mut self, measure: Measure) -> Self {
        self.measure = measure;
        self.plan.both_figures = measure == Measure::Memory;
        self
    }

    pub(crate) fn placed(mut self, placement: Placement) -> Self {
        self.plan.placement = placement;
        self
    }

    /// Both on one processor, where a waiting process must yield.
    pub(crate) fn on_one_core(self) -> Self {
        self.placed(Placement::OneCore).backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::YIELDING_RING])
    }

    pub(crate) fn alone(mut self) -> Self {
        self.plan.with_server = false;
        self
    }

    pub(crate) fn pairs(mut self, pairs: usize) -> Self {
        self.plan.pairs = pairs;
        self
    }

    /// With this many processes that compute all the time, at this nice value (nice(1)).
    pub(crate) fn beside(mut self, count: usize, nice: i32) -> Self {
        self.plan.strangers = Strangers { count, nice };
        self
    }

    /// The same question for libc against libc, which shows the noise.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.row = control_row(&self.row);
        self.backends(&[Backend::LIBC, Backend::CONTROL])
    }

    pub(crate) fn backends(mut self, backends: &[Backend]) -> Self {
        self.backends = backends.to_vec();
        self
    }

    pub(crate) fn effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// As it is where there are two cores. On one, a ring that spins makes no sense.
    pub(crate) fn where_there_are_cores(mut self) -> Self {
        if net::processors().len() < 2 {
            self.plan.placement = Placement::OneCore;
            self.backends.retain(|backend| !backend.is_ring());
        }
        self
    }

    /// Measures, with as many rounds as the question needs.
    pub fn ask(&self, run: &Run) -> Result<Row, Trouble> {
        measurement::ask(run, self)
    }

    /// Leaves it out of quick runs.
    pub(crate) fn thorough(mut self) -> Self {
        self.thorough = true;
        self
    }

    pub(crate) fn settled_after(mut self, operations: u64) -> Self {
        self.settled_after = operations;
        self
    }

    /// For short connections, or where the path does not matter: measures without waiting for the path.
    pub(crate) fn settled(mut self) -> Self {
        self.settled_after = 1;
        self
    }
}
