//! A connection's way out, remembered until routes change.

use alloc::boxed::Box;

use crate::net::Path;

/// A path, and when it was looked up. The path itself takes memory only while the connection is busy.
#[derive(Debug, Default)]
pub(crate) struct CachedPath {
    path: Option<Box<Path>>,
    generation: u32,
    mtu: u32,
}

impl CachedPath {
    /// Whether there is one, if routes are those of `generation`.
    pub(crate) fn is_known(&self, generation: u32) -> bool {
        self.mtu > 0 && self.generation == generation
    }

    /// The longest packet that gets through; 0 without a path.
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The path, if packets were sent lately.
    pub(crate) fn held(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The path, which is looked up again if it was given back.
    pub(crate) fn take_up(&mut self, look_up: impl FnOnce() -> Option<Path>) -> Option<&Path> {
        if self.path.is_none() && self.mtu > 0 {
            self.path = look_up().map(Box::new);
        }
        self.path.as_deref()
    }

    pub(crate) fn set(&mut self, path: Option<Path>, generation: u32) {
        *self = Self { mtu: path.map_or(0, |path| path.mtu), path: path.map(Box::new), generation };
    }

    pub(crate) fn give_back(&mut self) {
        self.path = None;
    }
}
