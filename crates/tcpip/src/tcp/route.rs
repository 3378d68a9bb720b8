//! A connection's way out, remembered until routes change.

use crate::net::Path;

/// A path, and when it was looked up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CachedPath {
    path: Option<Path>,
    generation: u32,
}

impl CachedPath {
    pub(crate) fn path(&self) -> Option<Path> {
        self.path
    }

    /// The path, if routes are still those of then.
    pub(crate) fn at(&self, generation: u32) -> Option<Path> {
        self.path.filter(|_| self.generation == generation)
    }

    pub(crate) fn set(&mut self, path: Option<Path>, generation: u32) {
        *self = Self { path, generation };
    }
}
