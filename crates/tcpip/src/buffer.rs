//! Send and receive buffers: memory of the caller.
//!
//! The stack keeps no bytes of a stream. What an application sends lies in its [`SendBuffer`] until the other end has
//! acknowledged it, and each transmission reads it there; what arrives is written to the [`ReceiveBuffer`] at the place
//! where it belongs, also when something before it is still missing. In sockshim both are rings in shared memory that
//! the application fills and empties itself; [`VecMemory`] has them in memory of the process.

mod ring;

pub use ring::{Ring, VecMemory};

/// Bytes that are to be sent, or have been and are not yet acknowledged. Offsets count from the first byte not
/// acknowledged.
pub trait SendBuffer {
    /// Bytes held. Grows only between calls into the stack, and shrinks only by [`release`](Self::release).
    fn len(&self) -> usize;

    /// Whether no byte is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `offset..offset + len`, in at most two pieces; fewer if fewer are held.
    fn peek(&self, offset: usize, len: usize) -> [&[u8]; 2];

    /// The first `count` bytes were acknowledged.
    fn release(&mut self, count: usize);

    /// Appends what fits in `limit` bytes all told, and answers how much that was.
    fn write(&mut self, data: &[u8], limit: usize) -> usize;

    /// The most it can ever hold.
    fn capacity(&self) -> usize;

    /// The connection has been idle: memory may be given back.
    fn shrink(&mut self) {}
}

/// Bytes that have arrived. Offsets count from the next byte expected, behind all that can be read.
pub trait ReceiveBuffer {
    /// Bytes that the application can read.
    fn readable(&self) -> usize;

    /// Bytes that fit behind those: what the window may promise.
    fn free(&self) -> usize;

    /// Stores bytes at their place, of which there is room for `offset + data.len()`.
    fn write_at(&mut self, offset: usize, data: &[u8]);

    /// The next `count` bytes are complete: the application can read them.
    fn commit(&mut self, count: usize);

    /// Takes bytes as the application, and answers how many.
    fn read(&mut self, data: &mut [u8]) -> usize;

    /// Copies the first readable bytes from `offset` without taking them (MSG_PEEK).
    fn peek(&self, offset: usize, data: &mut [u8]) -> usize;

    /// The most it can ever hold.
    fn capacity(&self) -> usize;

    /// The connection has been idle: memory may be given back.
    fn shrink(&mut self) {}
}

/// Where the buffers of connections come from.
pub trait Memory {
    /// Of a connection's outgoing stream.
    type Send: SendBuffer;
    /// Of a connection's incoming stream.
    type Receive: ReceiveBuffer;

    /// Buffers for a connection; `None` when there is no more memory (the connection is refused or dropped).
    fn open(&mut self) -> Option<(Self::Send, Self::Receive)>;

    /// The connection is over.
    fn close(&mut self, _send: Self::Send, _receive: Self::Receive) {}
}
