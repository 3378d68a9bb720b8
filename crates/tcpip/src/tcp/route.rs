//! A connection's way out, remembered until routes change or the connection is idle.

use alloc::boxed::Box;

use crate::net::Path;

/// A path, and when it was looked up.
#[derive(Debug, Default)]
pub(crate) struct CachedPath(Option<Box<(Path, u32)>>);

impl CachedPath {
    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.as_deref().map(|(path, _)| path)
    }

    /// The path, if routes are still those of then.
    pub(crate) fn at(&self, generation: u32) -> Option<&Path> {
        self.0.as_deref().filter(|(_, then)| *then == generation).map(|(path, _)| path)
    }

    pub(crate) fn set(&mut self, path: Option<Path>, generation: u32) {
        self.0 = path.map(|path| Box::new((path, generation)));
    }

    /// Forgets it, with its memory: it can be looked up again.
    pub(crate) fn give_back(&mut self) {
        self.0 = None;
    }
}
