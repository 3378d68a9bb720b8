//! The differences that are allowed, each with its reason.

use crate::compare::{Difference, Field};

/// What is thought of a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Unexplained,
    /// `ends`: what follows from it is not compared.
    Allowed { entry: usize, ends: bool },
}

/// An entry of the table.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    ends: bool,
    is: fn(&Difference<'_>) -> bool,
}

pub(crate) const TABLE: &[Entry] = &[];

pub(crate) fn verdict(difference: &Difference<'_>) -> Verdict {
    match TABLE.iter().position(|entry| (entry.is)(difference)) {
        Some(entry) => Verdict::Allowed { entry, ends: TABLE[entry].ends },
        None => Verdict::Unexplained,
    }
}
