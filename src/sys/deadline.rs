//! Until when a call waits.

use super::kernel;

/// When a wait ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<u64>);

impl Deadline {
    /// In so many nanoseconds, or never.
    pub(crate) fn after(nanoseconds: Option<u64>) -> Self {
        Self(nanoseconds.map(|time| match time {
            0 => 0,
            time => kernel::monotonic_ns().saturating_add(time),
        }))
    }

    /// Nanoseconds left; `None`: for ever.
    pub(crate) fn left(self) -> Option<u64> {
        self.0.map(|end| if end == 0 { 0 } else { end.saturating_sub(kernel::monotonic_ns()) })
    }

    /// The same, or in so many nanoseconds if that is earlier.
    pub(crate) fn at_most(self, nanoseconds: u64) -> Self {
        match self.0 {
            Some(0) => self,
            end => {
                Self(Self::after(Some(nanoseconds)).0.map(|limit| end.map_or(limit, |end| end.min(limit))))
            }
        }
    }

    /// Whether nothing may be waited for.
    pub(crate) fn is_now(self) -> bool {
        self.0 == Some(0)
    }

    /// What is left, as the kernel wants it.
    pub(crate) fn timespec(self) -> Option<libc::timespec> {
        self.left().map(kernel::timespec)
    }
}
