//! Send and receive buffers: memory of the caller.
//!
//! The stack keeps no bytes of a stream. What an application sends lies in its [`SendBuffer`] until the other end has
//! acknowledged it, and each transmission reads it there; what arrives is written to the [`ReceiveBuffer`] at the place
//! where it belongs, also when something before it is still missing. They can be rings in shared memory that the
//! application fills and empties itself; [`VecMemory`] has them in memory of the process.
//!
//! # What a buffer must guarantee
//!
//! * Lengths change between calls into the stack, or by its own calls, and not during one: a ring that another process fills
//!   reads its counters once, when the application says that it did something ([`written`](crate::stack::Stack::written),
//!   [`consumed`](crate::stack::Stack::consumed)), and believes no number that is larger than the ring.
//! * A send buffer keeps each byte until it is [released](SendBuffer::release), and gives it again as often as it is asked.
//! * A receive buffer takes bytes at a place beyond [`readable`](ReceiveBuffer::readable) (up to
//!   [`free`](ReceiveBuffer::free) bytes beyond), in any order and more than once, and they are there when
//!   [`commit`](ReceiveBuffer::commit) reaches them. Reading frees room and moves nothing.
//! * The stack never reads what it wrote, and sums what it copied: what another process does to the memory meanwhile can
//!   spoil the stream, and nothing else.

mod ring;

use alloc::vec::Vec;

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

    /// Appends the bytes of `offset..offset + len`, which are all held, to `frame`.
    ///
    /// The stack looks at the copy only: its checksum is that of what is sent. So the memory may be such that another
    /// process writes to it at the same time, as long as the buffer copies it in a way that is defined then (through raw
    /// pointers, and never through a reference). If fewer bytes are appended, zeros take their place.
    fn append_to(&self, offset: usize, len: usize, frame: &mut Vec<u8>);

    /// The first `count` bytes were acknowledged.
    fn release(&mut self, count: usize);

    /// Appends data as long as the buffer holds at most `limit` bytes in all, and returns how much was appended.
    fn write(&mut self, data: &[u8], limit: usize) -> usize;

    /// The most it can ever hold.
    fn capacity(&self) -> usize;

    /// Bytes of memory that it takes now, for the limit of all connections together.
    fn memory(&self) -> usize {
        self.len()
    }

    /// The connection has been idle: memory may be given back.
    fn shrink(&mut self) {}
}

/// Bytes that have arrived. Offsets count from the next byte expected, behind all that can be read.
pub trait ReceiveBuffer {
    /// Bytes that the application can read.
    fn readable(&self) -> usize;

    /// Bytes that fit behind the readable ones: the window that may be offered.
    fn free(&self) -> usize;

    /// Stores bytes at their place, of which there is room for `offset + data.len()`.
    fn write_at(&mut self, offset: usize, data: &[u8]);

    /// The next `count` bytes are complete: the application can read them.
    fn commit(&mut self, count: usize);

    /// Reads bytes for the application, and returns how many.
    fn read(&mut self, data: &mut [u8]) -> usize;

    /// Copies the first readable bytes from `offset` without taking them (MSG_PEEK).
    fn peek(&self, offset: usize, data: &mut [u8]) -> usize;

    /// The most it can ever hold.
    fn capacity(&self) -> usize;

    /// Bytes of memory that it takes now, for the limit of all connections together.
    fn memory(&self) -> usize {
        self.readable()
    }

    /// The connection has been idle: memory may be given back.
    fn shrink(&mut self) {}
}

/// Creates the buffers of connections.
pub trait Memory {
    /// The send buffer of a connection.
    type Send: SendBuffer;
    /// The receive buffer of a connection.
    type Receive: ReceiveBuffer;

    /// Buffers for a connection; `None` when there is no more memory (the connection is refused or dropped).
    fn open(&mut self) -> Option<(Self::Send, Self::Receive)>;

    /// Takes the buffers back when the connection is over.
    fn close(&mut self, _send: Self::Send, _receive: Self::Receive) {}
}
