//! One connection over shared memory, in folders by the phases of its life. Each imports only from those before it
//! (`tests/layers.rs`):
//!
//! * [`connection`]: the shared segment as both ends see it, its locks, its doorbells, and the state of this end;
//! * [`copying`]: between the program's buffers and the ring;
//! * [`lanes`]: the ring and the kernel's stream, and the way from one to the other;
//! * [`handoff`]: back to the kernel, or on to another program, with what is unread;
//! * [`ending`]: end of stream, reset, close;
//! * [`meeting`]: finding the other end, and what a descriptor is;
//! * [`waiting`]: spinning, timed futex waits, sleep, room, and what is ready;
//! * [`transfer`]: which way a call goes, reading and writing.

pub(crate) mod connection;
pub(crate) mod copying;
pub(crate) mod ending;
pub(crate) mod handoff;
pub(crate) mod lanes;
pub(crate) mod meeting;
pub(crate) mod transfer;
pub(crate) mod waiting;
