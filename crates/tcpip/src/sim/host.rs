//! The interface of a host to the network.

use alloc::vec::Vec;

use super::frame::Frame;
use crate::buffer::Memory;
use crate::net::{InterfaceId, RxMeta, Transmit};
use crate::stack::Stack;
use crate::time::Instant;

/// A protocol stack with one interface that carries IP packets. All times are its own clock's.
pub trait Host {
    /// A packet arrives.
    fn handle_packet(&mut self, now: Instant, frame: &Frame);

    /// The time that [`poll_timeout`](Self::poll_timeout) gave has come; calls at other times are harmless.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`handle_timeout`](Self::handle_timeout); may change at each other call.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;

    /// Takes a packet to send, with its checksums complete.
    #[must_use]
    fn poll_transmit(&mut self, now: Instant) -> Option<Frame>;
}

/// A stack whose first link, beside the loopback, carries IP packets: that link is the one to the network.
impl<M: Memory> Host for Stack<M> {
    fn handle_packet(&mut self, now: Instant, frame: &Frame) {
        // A super-segment was put together by who checked its segments.
        let meta = RxMeta { checksum_ok: frame.gso_size != 0, gso_size: frame.gso_size };
        Self::handle_packet(self, now, LINK, &frame.bytes, meta);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self)
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Frame> {
        let mut bytes = Vec::new();
        loop {
            let Transmit { iface, gso_size, checksum } = Self::poll_transmit(self, now, &mut bytes)?;
            if iface == InterfaceId::LOOPBACK {
                let meta = RxMeta { checksum_ok: true, gso_size };
                Self::handle_packet(self, now, InterfaceId::LOOPBACK, &bytes, meta);
                continue;
            }
            let mut frame = Frame { bytes, gso_size };
            if let Some((start, offset)) = checksum {
                frame.complete_checksum(usize::from(start), usize::from(offset));
            }
            return Some(frame);
        }
    }
}

const LINK: InterfaceId = InterfaceId(1);
