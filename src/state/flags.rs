//! Flag words in shared memory, and those of a socket.
//!
//! Each flag of a socket stands for itself: any of them may be set beside any other. Which ends what:
//!
//! | flag | set by | cleared by |
//! |---|---|---|
//! | `LISTENER` | listen; a listener found at first sight | (stays) |
//! | `NONBLOCK` | SOCK_NONBLOCK, O_NONBLOCK, FIONBIO | the same; a call that finds that the kernel knows better |
//! | `CONNECTED` | connect, accept; a connection found at first sight | connect(AF_UNSPEC) |
//! | `SHUT_WRITE` | shutdown, before the kernel has answered | its refusal |
//! | `LINGER_RESET`, `TIMED` | setsockopt; from a listener to what it accepts | setsockopt |
//! | `LOW_WATER` | the same | the same |
//! | `KERNEL_OPTION` | an option that only the kernel serves; from a listener | (stays: the connection is pinned) |
//! | `RESET_REPORTED`, `END_SEEN`, `BROKEN`, `SENT_IN_VAIN`, `URGENT_READ` | what they say | (stay: the connection is over, or knows more for good) |
//! | `NO_SPACE` | a write that met no room, in the kernel or the ring | the report of room to the only set |
//! | `RING_FULL` | a write that met a full ring and may wait for it | room, or a reader that stands still: the kernel's answer counts |
//! | `ACCEPTED` | accept | (stays) |
//!
//! connect(AF_UNSPEC) begins anew: of all flags `NONBLOCK` is left.

use bitflags::{Flags, bitflags};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};

bitflags! {
    /// What is known of a socket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SocketFlags: u32 {
        /// The socket listens.
        const LISTENER = 1;
        /// The open file description is non-blocking, as far as we saw.
        const NONBLOCK = 2;
        /// A connect has been made or is under way, or it was accepted.
        const CONNECTED = 4;
        /// This end said shutdown(SHUT_WR).
        const SHUT_WRITE = 8;
        /// The program set SO_LINGER with a time of 0.
        const LINGER_RESET = 16;
        /// A reset was reported to the program.
        const RESET_REPORTED = 32;
        /// The kernel has reported the end of the stream: whoever waits for more need not be kept from asking it again.
        const END_SEEN = 64;
        /// Made by accept, not by connect (for `ss` and the trace).
        const ACCEPTED = 128;
        /// A write met a full kernel queue since EPOLLOUT was last reported.
        const NO_SPACE = 256;
        /// SO_RCVLOWAT is above 1.
        const LOW_WATER = 512;
        /// The kernel took bytes for an end that had left: the reset that they cause is a real one.
        const SENT_IN_VAIN = 1024;
        /// An option is set that only the kernel serves; connections that a listener accepts have it too.
        const KERNEL_OPTION = 2048;
        /// SO_RCVTIMEO is set: a sleep that is cut in parts must not take longer.
        const TIMED = 4096;
        /// The connection has been given up, because what was found on it cannot be true: see
        /// `pipe::connection::transitions::give_up`.
        const BROKEN = 8192;
        /// The last write that must not wait met a full ring; see `pipe::waiting::room`.
        const RING_FULL = 16384;
        /// Urgent data was read. While it lies ahead in the stream, the kernel still counts only what is unread before it, and
        /// does not say so any more.
        const URGENT_READ = 32768;
    }
}

/// A word of flags. Bits that have no name are kept.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct AtomicFlags<F>(AtomicU32, PhantomData<F>);

impl<F: Flags<Bits = u32>> AtomicFlags<F> {
    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> F {
        F::from_bits_retain(self.0.load(order))
    }

    #[inline]
    pub(crate) fn store(&self, flags: F, order: Ordering) {
        self.0.store(flags.bits(), order);
    }

    /// Sets these flags; what there was before.
    #[inline]
    pub(crate) fn set(&self, flags: F, order: Ordering) -> F {
        F::from_bits_retain(self.0.fetch_or(flags.bits(), order))
    }

    /// Clears these flags; what there was before.
    #[inline]
    pub(crate) fn clear(&self, flags: F, order: Ordering) -> F {
        self.keep(!flags.bits(), order)
    }

    /// Clears all but these bits; what there was before.
    #[inline]
    pub(crate) fn keep(&self, bits: u32, order: Ordering) -> F {
        F::from_bits_retain(self.0.fetch_and(bits, order))
    }

    /// Adds to what is counted in the bits that have no name.
    #[inline]
    pub(crate) fn add(&self, amount: u32, order: Ordering) {
        self.0.fetch_add(amount, order);
    }
}
