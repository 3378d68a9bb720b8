//! Buffers in memory of the process, which take memory as they are used.

use alloc::vec::Vec;

use super::{Memory, ReceiveBuffer, SendBuffer};
use crate::lazy::{Lazy, blank};

/// Bytes in a circle that grows up to a limit.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    circle: Lazy<Circle>,
    limit: usize,
}

#[derive(Debug, Clone)]
struct Circle {
    /// Its length is zero or a power of two.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

blank!(Circle, Circle { bytes: Vec::new(), start: 0, len: 0 });

impl Ring {
    /// An empty ring that can hold `limit` bytes. It holds no memory yet.
    pub fn new(limit: usize) -> Self {
        Self { circle: Lazy::new(), limit }
    }
}

impl Circle {
    /// Makes room for `len` bytes behind `start`.
    fn reserve(&mut self, len: usize) {
        if len <= self.bytes.len() {
            return;
        }
        let mut bytes = Vec::with_capacity(len.next_power_of_two().max(4096));
        // Also what lies behind the end: bytes that came out of order.
        let [a, b] = self.pieces(0, self.bytes.len());
        bytes.extend_from_slice(a);
        bytes.extend_from_slice(b);
        bytes.resize(bytes.capacity().next_power_of_two().min(len.next_power_of_two().max(4096)), 0);
        self.bytes = bytes;
        self.start = 0;
    }

    fn pieces(&self, offset: usize, len: usize) -> [&[u8]; 2] {
        if len == 0 {
            return [&[], &[]];
        }
        let from = (self.start + offset) & (self.bytes.len() - 1);
        let first = len.min(self.bytes.len() - from);
        [&self.bytes[from..from + first], &self.bytes[..len - first]]
    }

    fn store(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.reserve(offset + data.len());
        let from = (self.start + offset) & (self.bytes.len() - 1);
        let first = data.len().min(self.bytes.len() - from);
        self.bytes[from..from + first].copy_from_slice(&data[..first]);
        self.bytes[..data.len() - first].copy_from_slice(&data[first..]);
    }

    fn drop_front(&mut self, count: usize) {
        debug_assert!(count <= self.len, "more was dropped than is held");
        let count = count.min(self.len);
        self.len -= count;
        if !self.bytes.is_empty() {
            self.start = (self.start + count) & (self.bytes.len() - 1);
        }
    }

    fn copy_out(&self, offset: usize, data: &mut [u8]) -> usize {
        let count = data.len().min(self.len.saturating_sub(offset));
        let [a, b] = self.pieces(offset, count);
        data[..a.len()].copy_from_slice(a);
        data[a.len()..count].copy_from_slice(b);
        count
    }
}

impl Ring {
    fn give_back(&mut self) {
        if self.circle.len == 0 {
            self.circle.give_back();
        }
    }
}

impl SendBuffer for Ring {
    #[inline]
    fn len(&self) -> usize {
        self.circle.len
    }

    #[inline]
    fn append_to(&self, offset: usize, len: usize, frame: &mut Vec<u8>) {
        let circle = &*self.circle;
        let [first, second] = circle.pieces(offset, len.min(circle.len.saturating_sub(offset)));
        frame.extend_from_slice(first);
        frame.extend_from_slice(second);
    }

    fn release(&mut self, count: usize) {
        if count > 0 {
            self.circle.drop_front(count);
        }
    }

    fn write(&mut self, data: &[u8], limit: usize) -> usize {
        let count = data.len().min(limit.min(self.limit).saturating_sub(self.circle.len));
        if count > 0 {
            let circle = &mut *self.circle;
            circle.store(circle.len, &data[..count]);
            circle.len += count;
        }
        count
    }

    fn capacity(&self) -> usize {
        self.limit
    }

    #[inline]
    fn memory(&self) -> usize {
        self.circle.bytes.len()
    }

    fn shrink(&mut self) {
        self.give_back();
    }
}

impl ReceiveBuffer for Ring {
    #[inline]
    fn readable(&self) -> usize {
        self.circle.len
    }

    #[inline]
    fn free(&self) -> usize {
        self.limit - self.circle.len
    }

    #[inline]
    fn write_at(&mut self, offset: usize, data: &[u8]) {
        if !data.is_empty() {
            let circle = &mut *self.circle;
            circle.store(circle.len + offset, data);
        }
    }

    #[inline]
    fn commit(&mut self, count: usize) {
        if count > 0 {
            self.circle.len += count;
        }
    }

    fn read(&mut self, data: &mut [u8]) -> usize {
        let count = self.circle.copy_out(0, data);
        SendBuffer::release(self, count);
        count
    }

    fn peek(&self, offset: usize, data: &mut [u8]) -> usize {
        self.circle.copy_out(offset, data)
    }

    fn capacity(&self) -> usize {
        self.limit
    }

    #[inline]
    fn memory(&self) -> usize {
        self.circle.bytes.len()
    }

    fn shrink(&mut self) {
        self.give_back();
    }
}

/// Gives each connection two [`Ring`]s.
#[derive(Debug, Clone, Copy)]
pub struct VecMemory {
    /// The most bytes that a send buffer holds.
    pub send_limit: usize,
    /// The most bytes that a receive buffer holds.
    pub receive_limit: usize,
}

impl Default for VecMemory {
    /// As much as autotuning asks for at most. It is taken as it is used.
    fn default() -> Self {
        Self { send_limit: 16 << 20, receive_limit: 16 << 20 }
    }
}

impl Memory for VecMemory {
    type Send = Ring;
    type Receive = Ring;

    fn open(&mut self) -> Option<(Ring, Ring)> {
        Some((Ring::new(self.send_limit), Ring::new(self.receive_limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn an_empty_ring_has_no_memory() {
        let ring = Ring::new(1 << 20);
        assert_eq!(ring.circle.bytes.capacity(), 0);
    }

    #[test]
    fn bytes_out_of_order_survive_growth() {
        let mut ring = Ring::new(1 << 20);
        ring.write_at(3000, b"later");
        ring.write_at(10_000, b"last");
        ring.write_at(0, &vec![b'x'; 3000]);
        ring.commit(3005);
        let mut out = vec![0; 4000];
        assert_eq!(ring.read(&mut out), 3005);
        assert_eq!(&out[3000..3005], b"later");
        ring.write_at(0, &vec![b'y'; 10_000 - 3005]);
        ring.commit(10_004 - 3005);
        let mut out = vec![0; 20_000];
        let count = ring.read(&mut out);
        assert_eq!(&out[count - 4..count], b"last");
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec((any::<bool>(), 0usize..9000), 0..60)) {
            let mut ring = Ring::new(20_000);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (write, count) in steps {
                if write {
                    let data: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let taken = ring.write(&data, usize::MAX);
                    prop_assert_eq!(taken, count.min(20_000 - model.len()));
                    model.extend(&data[..taken]);
                    next = model.back().copied().unwrap_or(next);
                } else {
                    let mut out = vec![0; count];
                    let taken = ring.read(&mut out);
                    let expected: Vec<u8> = model.drain(..count.min(model.len())).collect();
                    prop_assert_eq!(&out[..taken], &expected[..]);
                }
                prop_assert_eq!(SendBuffer::len(&ring), model.len());
            }
        }
    }
}
