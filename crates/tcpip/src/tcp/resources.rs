//! What all connections together hold, and how much that may be: Linux's tcp_mem and tcp_max_orphans.

use super::conn::Connection;
use super::context::Context;
use crate::buffer::{ReceiveBuffer, SendBuffer};

/// Limits of the memory in the buffers of all connections, in bytes (net.ipv4.tcp_mem, which counts pages). They can be
/// passed by what one segment, or one call that writes, makes a buffer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Pressure ends below this.
    pub low: u64,
    /// Pressure begins above this: neither buffers nor windows grow any more.
    pub pressure: u64,
    /// Above this applications can write nothing but the first few kilobytes of each connection; what arrives out of
    /// order, or behind something that nobody has read, is dropped; and a closed socket is reset.
    pub high: u64,
}

impl Default for MemoryLimits {
    /// What Linux takes on a machine of 8 GB.
    fn default() -> Self {
        Self { low: 384 << 20, pressure: 512 << 20, high: 768 << 20 }
    }
}

/// What a connection may always send (the least of tcp_wmem).
const ALWAYS: usize = 4096;

/// Memory is counted in pages, as in Linux.
const PAGE: usize = 4096;

fn bytes(pages: u16) -> u64 {
    u64::from(pages) * PAGE as u64
}

/// What all connections together hold.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    held: u64,
    pressed: bool,
    exhausted: bool,
    /// Connections whose sockets are closed.
    pub(crate) orphans: u32,
}

impl Resources {
    /// A connection that was charged with so many pages holds `now` bytes. Answers whether pressure begins.
    #[inline]
    pub(crate) fn recharge(&mut self, limits: &MemoryLimits, charged: &mut u16, now: usize) -> bool {
        let now = u16::try_from(now.div_ceil(PAGE)).unwrap_or(u16::MAX);
        if now == *charged {
            return false;
        }
        let before = core::mem::replace(charged, now);
        self.held = self.held - bytes(before) + bytes(now);
        self.exhausted = self.held > limits.high;
        let was_pressed = self.pressed;
        self.pressed = self.held > limits.pressure || (was_pressed && self.held > limits.low);
        self.pressed && !was_pressed
    }

    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Nothing grows any more.
    pub(crate) const fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Nothing more is taken.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Bytes of memory in its buffers.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.tx.memory() + self.rx.memory()
    }

    /// Bytes that may lie in the send buffer now.
    pub(crate) fn affordable(&self, cx: &Context<'_>) -> usize {
        let capacity = self.send_capacity() as usize;
        if cx.resources.is_exhausted() { capacity.min(ALWAYS) } else { capacity }
    }

    /// A closed socket for which there is no room (Linux's `tcp_check_oom`). `penalty` halves the limit so many times.
    pub(crate) fn is_unaffordable(&self, cx: &Context<'_>, penalty: u32) -> bool {
        let orphans = u64::from(cx.resources.orphans) << penalty;
        orphans > u64::from(cx.config.max_orphans) || (cx.resources.is_exhausted() && self.tx.len() > ALWAYS)
    }

    /// Ends a closed socket when others need what it holds, at first one that has sent nothing for long, or about which a
    /// router has complained (Linux's `tcp_out_of_resources`). Answers whether it did.
    pub(crate) fn end_if_unaffordable(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.orphaned {
            return false;
        }
        let silent = cx.now - self.sender.sent_at > cx.config.max_rto * 2;
        let penalty = u32::from(silent) + u32::from(self.soft_error.is_some());
        let ends = self.is_unaffordable(cx, penalty);
        if ends {
            cx.counters.tcp_abort_on_memory += 1;
            self.reset(cx, None);
        }
        ends
    }
}
