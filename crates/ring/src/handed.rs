//! Hand-off: a reader whose socket goes to somebody else, with bytes unread.
//!
//! The bytes lie in a file, and the writer is asked to send them again by the kernel, where everybody finds them. Who
//! takes them out of the file is decided there, by one compare-and-swap. This word says how far both have come:
//!
//! | step | by | `handed` |
//! |---|---|---|
//! | announce | reader, before it closes its ring | `SOON`: whoever finds the ring closed looks here before it uses the kernel's lane |
//! | declare | reader, when all lies in the file, or nothing | `ON`, or `NOT` |
//! | answer | writer, before it goes on in the kernel's lane and before it sleeps | `NOT`, or `AWAY` when the file is gone |
//!
//! A writer that goes to sleep has said so first ([`crate::sleep`]), and then looks here; a reader declares first, and then
//! looks for need-wakeup flags. Both have a full barrier in between, so at least one sees the other.

use crate::layout::{Direction, HANDED_AWAY, HANDED_NOT, HANDED_ON, HANDED_SOON};
use crate::sync::{Ordering, fence_after_rmw};

/// What the reader asks of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The reader asks for nothing.
    Nothing,
    /// The reader is about to say.
    NotYet,
    /// To send again what lies in the file. The word as it was, for [`Direction::answer`].
    Again(u32),
}

impl Direction {
    /// Reader: its socket is about to be handed on. Before the ring is closed.
    pub fn announce(&self) {
        // pairs with: asked, by way of the ring's close mark
        self.reader.handed.store(HANDED_SOON, Ordering::SeqCst);
    }

    /// Reader: whether bytes are `left` in the file. False when the writer has not waited for this word.
    #[must_use]
    pub fn declare(&self, left: bool) -> bool {
        let now = if left { HANDED_ON } else { HANDED_NOT };
        let handed = &self.reader.handed;
        let declared = handed.compare_exchange(HANDED_SOON, now, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        // pairs with: the barrier in want
        fence_after_rmw();
        declared
    }

    /// Reader: whether the writer has still to answer.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.reader.handed.load(Ordering::Acquire) == HANDED_ON
    }

    /// Whether the socket is being handed on, or has been; the writer then looks what is [`Direction::asked`] of it.
    #[inline]
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.reader.handed.load(Ordering::Relaxed) != HANDED_NOT
    }

    /// Writer: what is asked of it.
    #[must_use]
    pub fn asked(&self) -> Asked {
        match self.reader.handed.load(Ordering::SeqCst) {
            HANDED_NOT => Asked::Nothing,
            HANDED_SOON => Asked::NotYet,
            handed => Asked::Again(handed),
        }
    }

    /// Writer that has said that it sleeps: whether it must not, because bytes are asked for.
    #[inline]
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.reader.handed.load(Ordering::SeqCst) == HANDED_ON
    }

    /// Writer: goes on without the reader's word.
    pub fn give_up(&self) {
        let handed = &self.reader.handed;
        let _ = handed.compare_exchange(HANDED_SOON, HANDED_NOT, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Writer: has done what `asked` says; `over`: and need not look for the file again. Compared: the reader may have
    /// taken its word back, and begun anew.
    pub fn answer(&self, asked: u32, over: bool) {
        let now = if over { HANDED_NOT } else { HANDED_AWAY };
        let _ = self.reader.handed.compare_exchange(asked, now, Ordering::SeqCst, Ordering::Relaxed);
    }
}
