//! Backends: ways to run the processes of a measurement.

use crate::results::CONTROL;

/// One backend: a way to run both ends.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// The heading of its column.
    pub name: &'static str,
    pub(crate) server: Under,
    pub(crate) client: Under,
}

/// What a process runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// The C library alone.
    Libc,
    /// sockshim preloaded, with these variables set.
    Sockshim(&'static [(&'static str, &'static str)]),
    /// No sockets: a ring in shared memory per direction, which is the limit of the machine.
    Ring(Copying, Waiting),
}

/// How bytes get into the raw ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// By `memcpy`; published with each message.
    Plain,
    /// By `memcpy`; a large message is published in pieces, so that the reader copies at the same time as the writer.
    Pieces,
    /// In pieces, past the caches.
    NonTemporal,
}

/// How an end of the raw ring waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Polls without pause.
    Spin,
    /// Polls, and yields the processor in between.
    Yield,
    /// Sleeps in the kernel at once.
    Futex,
}

impl Backend {
    /// The C library alone; the first backend of every measurement, and what the others are compared with.
    pub const LIBC: Self = Self::both("libc", Under::Libc);
    /// The C library a second time: its ratio to the first shows the noise of the measurement.
    pub const CONTROL: Self = Self::both(CONTROL, Under::Libc);
    /// Both ends preloaded, nothing else set.
    pub const SOCKSHIM: Self = Self::both("sockshim", Under::Sockshim(&[]));
    /// Both ends preloaded, and told not to spin.
    pub const ASLEEP: Self = Self::both("sockshim", Under::Sockshim(&[("SOCKSHIM_PROFILE", "safe")]));
    /// Both ends preloaded, once for each profile other than the default.
    pub(crate) const PROFILES: [Self; 3] = [
        Self::both("safe", Under::Sockshim(&[("SOCKSHIM_PROFILE", "safe")])),
        Self::both("latency", Under::Sockshim(&[("SOCKSHIM_PROFILE", "latency")])),
        Self::both("throughput", Under::Sockshim(&[("SOCKSHIM_PROFILE", "throughput")])),
    ];
    /// Both ends preloaded, and told to leave every connection with the kernel.
    pub const HOST: Self = Self::both("path=host", Under::Sockshim(&[("SOCKSHIM_PATH", "host")]));
    /// Only the server preloaded.
    pub const SERVER_ONLY: Self =
        Self { name: "server only", server: Under::Sockshim(&[]), client: Under::Libc };
    /// Only the client preloaded.
    pub const CLIENT_ONLY: Self =
        Self { name: "client only", server: Under::Libc, client: Under::Sockshim(&[]) };
    /// The limit with both ends awake on two cores.
    pub const RING: Self = Self::both("raw ring", Under::Ring(Copying::Plain, Waiting::Spin));
    /// The limit for bulk data on two cores: the best of these and [`Backend::RING`].
    pub const BULK: [Self; 2] = [
        Self::both("raw ring, in pieces", Under::Ring(Copying::Pieces, Waiting::Spin)),
        Self::both("raw ring, non-temporal", Under::Ring(Copying::NonTemporal, Waiting::Spin)),
    ];
    /// The limit where the ends share cores.
    pub const YIELDING_RING: Self = Self::both("raw ring", Under::Ring(Copying::Plain, Waiting::Yield));
    /// The limit without spinning.
    pub const SLEEPING_RING: Self = Self::both("raw ring", Under::Ring(Copying::Plain, Waiting::Futex));

    pub(crate) fn is_ring(&self) -> bool {
        matches!(self.client, Under::Ring(..))
    }

    /// One setting for both ends.
    #[must_use]
    pub const fn both(name: &'static str, under: Under) -> Self {
        Self { name, server: under, client: under }
    }
}
