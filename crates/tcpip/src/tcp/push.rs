//! What the calls that write say beside the bytes: where a receiver should be woken up, what may be held back, and what
//! may not be put into one segment.

use alloc::collections::VecDeque;

use crate::lazy::{Lazy, blank};
use crate::seq::SeqNumber;

/// How data is sent (send(2)'s flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendFlags {
    /// MSG_MORE: more follows at once, so that a segment which is not full waits for it.
    pub more: bool,
    /// MSG_EOR: a record ends here. No segment holds bytes from before and after its end.
    pub end_of_record: bool,
    /// MSG_OOB: the last byte is urgent. What waits before it leaves with it.
    pub urgent: bool,
}

/// What was said of the data that waits to be sent.
#[derive(Debug)]
pub(crate) struct Push {
    /// Its end is the end of a write without MSG_MORE: PSH goes with the last byte.
    pub(crate) at_end: bool,
    /// MSG_MORE. Until something else happens on the connection, as in Linux.
    pub(crate) more: bool,
    /// What is held back leaves, even if TCP_CORK is on: setting TCP_NODELAY says so of what was written before
    /// (Linux's TCP_NAGLE_PUSH).
    pub(crate) at_once: bool,
    /// Ends of records that were not sent yet.
    records: Lazy<Records>,
}

#[derive(Debug)]
struct Records(VecDeque<SeqNumber>);

blank!(Records, Records(VecDeque::new()));

impl Push {
    pub(crate) const fn new() -> Self {
        Self { at_end: true, more: false, at_once: false, records: Lazy::new() }
    }

    /// Data was written, up to `end`; `behind` says that it follows other data which has not been sent. Then it goes along
    /// with that, as in Linux, where it is put into the same buffer.
    pub(crate) fn wrote(&mut self, end: SeqNumber, flags: SendFlags, behind: bool) {
        self.at_once &= behind;
        self.at_end = !flags.more;
        self.more = flags.more;
        if flags.end_of_record {
            self.records.0.push_back(end);
        }
    }

    /// The first end of a record behind `nxt`.
    pub(crate) fn record_end(&self) -> Option<SeqNumber> {
        self.records.0.front().copied()
    }

    /// All before `nxt` has been sent.
    pub(crate) fn sent(&mut self, nxt: SeqNumber) {
        while self.records.0.front().is_some_and(|end| end.at_or_before(nxt)) {
            self.records.0.pop_front();
        }
    }
}
