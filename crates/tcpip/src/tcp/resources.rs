//! What all connections together hold, and how much that may be: Linux's tcp_mem and tcp_max_orphans.

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
pub(crate) const ALWAYS: usize = 4096;

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
    /// A connection that was charged with so many pages holds `now` bytes. Returns whether pressure begins.
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
