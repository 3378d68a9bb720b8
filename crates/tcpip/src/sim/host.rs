//! What the network asks of a host.

use super::frame::Frame;
use crate::time::Instant;

/// A protocol stack with one interface that carries IP packets. All times are its own clock's.
pub trait Host {
    /// A packet arrives.
    fn handle_packet(&mut self, now: Instant, frame: &Frame);

    /// The time that [`poll_timeout`](Self::poll_timeout) gave has come, or any other: it does no harm.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`handle_timeout`](Self::handle_timeout); may change at each other call.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;

    /// Takes a packet to send, with its checksums complete.
    #[must_use]
    fn poll_transmit(&mut self, now: Instant) -> Option<Frame>;
}
