//! The flags of a registration.
//!
//! What it is, [`NESTED`], [`FOREIGN`] or neither (a TCP socket), is fixed from its entry into the set until it is taken out.
//! Everything else changes under the set's lock; but for what stands in *italics*, which also changes while the lock is not to
//! be had.
//!
//! | flag | only beside | set by | cleared by |
//! |---|---|---|---|
//! | `MANAGED` | | entry into the set (sets and foreign ones always); the connection comes onto a pipe | the connection goes back to the kernel for good |
//! | `HOT` | `MANAGED` | whatever may make it ready: a change by the program, news from the kernel, parking | a look that finds it idle, a sleep |
//! | *`DISABLED`* | one-shot | the report; coming onto a pipe | a change by the program |
//! | *`FRESH`* | | entry, *a change by the program*, coming onto a pipe | the report |
//! | `ENDING` | a socket | a look that finds an end | (stays) |
//! | *`ARMED`* | `MANAGED` | *before a sleep* | after it, by the thread that is then alone awake |
//! | *`PARKED`* | `MANAGED`, a socket, not `ENDING`, the set not watched; *anything* | the program's deletion | being added again; before a sleep it is deleted |
//! | *`ASKS_ROOM`* | a socket | the kernel is asked for room | it is not asked any more |
//! | `TOLD` | `HOT` | a report in the kernel's place | the walk that follows, under the same lock |
//!
//! Without `MANAGED` only what it is counts, and whether it is `HOT`: the kernel has the program's mask and data.

use bitflags::bitflags;

bitflags! {
    /// See the module. Above them the word counts looks in vain: see [`IDLE_ONE`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct RegFlags: u32 {
        /// The kernel's registration carries our tag.
        const MANAGED = 1;
        /// The registration is on the hot list.
        const HOT = 2;
        /// One-shot, and reported.
        const DISABLED = 4;
        /// Added or modified since the last report: report whatever is ready.
        const FRESH = 8;
        /// The kernel said that it ends: always ask it.
        const ENDING = 16;
        /// A nested epoll set.
        const NESTED = 32;
        /// Neither socket nor set of ours: only its data is translated.
        const FOREIGN = 64;
        /// Hot, and with a doorbell wanted while a thread of the set sleeps.
        const ARMED = 128;
        /// Deleted by the program, and not yet by us: many programs add a descriptor again at once (redis-benchmark
        /// twice for each request). What the kernel reports meanwhile is ignored; before a sleep it is really deleted.
        const PARKED = 256;
        /// The kernel's registration of a socket asks for EPOLLOUT. Only before a sleep: whoever is awake looks.
        const ASKS_ROOM = 512;
        /// Reported by the wait under way, in the place that the kernel gave it.
        const TOLD = 1024;
    }
}

/// From here on: scans since it was last ready.
pub(crate) const IDLE_ONE: u32 = 1 << 16;

impl RegFlags {
    /// Scans since it was last ready.
    pub(crate) const fn idle_scans(self) -> u32 {
        self.bits() / IDLE_ONE
    }
}
