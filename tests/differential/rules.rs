//! Where a pipe may differ from the kernel: exactly the table in docs/compatibility.md.

/// An allowed difference. What it touches is left out of the trace, so that all the rest is compared by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A pipe accepts the ring's capacity on top of the kernel's buffers. So beyond [`SURELY_FITS`] how much a
    /// write takes, and whether there is room, is not compared until the direction is drained; then no byte
    /// may be missing.
    MoreFits,
    /// The order of events in one answer of epoll_wait: they are compared as a set, and with a short list as
    /// the set of all that came in as many calls.
    EventOrder,
    /// Bytes sent with MSG_MORE arrive at once, where the kernel holds them: every such call is followed by one
    /// that pushes them out.
    NothingHeldBack,
    /// A thread that is woken in the middle of a write may get its first part: the rest is read for it.
    ShortCounts,
    /// POLLPRI stays when an urgent byte comes while a thread sleeps in a read: none is sent then.
    UrgentUnderSleeper,
    /// Which of several sleepers is served: only one sleeps in a read of a stream, and none polls beside it.
    SeveralSleepers,
    /// A read that sleeps does not keep to how O_NONBLOCK was when it began: the flag is left alone then.
    NonblockUnderSleeper,
    /// When a process ends with bytes unread in a ring, reads tell the reset, but shutdown and getpeername still
    /// find the connection: they are not called then.
    EndOrReset,
    /// A long write to a process that has ended may be told as a short one, when its doorbell meets the reset: only
    /// short ones are made then.
    AfterKill,
    /// Bytes that are unread when a socket is passed to another process are the receiver's: the sender closes
    /// its own descriptor then, and the receiver
    /// reads them at once, since a close with them unread is no reset.
    HandedOn,
    /// An epoll set that survives exec does not know of bytes that were left for the new owner: sets are not
    /// used after it.
    SetsOverExec,
}

impl Rule {
    /// All of them, by the names that the page has for them.
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::MoreFits, "More fits"),
        (Self::EventOrder, "The order of events"),
        (Self::NothingHeldBack, "Nothing is held back"),
        (Self::ShortCounts, "Short counts"),
        (Self::UrgentUnderSleeper, "An urgent byte under a sleeper"),
        (Self::SeveralSleepers, "Several sleepers"),
        (Self::NonblockUnderSleeper, "O_NONBLOCK under a sleeper"),
        (Self::EndOrReset, "End or reset"),
        (Self::AfterKill, "After SIGKILL of the peer"),
        (Self::HandedOn, "Handing a connection on"),
        (Self::SetsOverExec, "A set over exec"),
    ];
}

/// Unread bytes in one direction that the kernel and a pipe both take without blocking.
pub(crate) const SURELY_FITS: u64 = 40_000;
