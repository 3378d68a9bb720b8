//! What lies where in a segment: the shared memory of one connection.
//!
//! ```text
//! 0        Header                  magic, version, size, who, both ends' state
//! 1024     Direction 0             written by end 0, read by end 1
//! 2048     Direction 1             written by end 1, read by end 0
//! 3072     tiny ring 0             TINY_CAPACITY bytes: where a ring lies while it is no larger
//! 3584     tiny ring 1
//! 4096     small ring 0            SMALL_CAPACITY bytes: the same of a ring that has grown once
//! 8192     small ring 1
//! 12288    ring 0                  MAX_CAPACITY bytes of address space, pages given as they are used
//! 12288+M  ring 1
//! ```
//!
//! What lies before the first large ring is the *front*. It is mapped by itself: the fronts of many connections lie next to
//! each other and share page tables, of which a mapping that is larger than two megabytes takes one for itself.
//!
//! Fields are fixed-width; there is no pointer, no `usize`, no enum. A field that one end writes and the
//! other one polls has a 128-byte line of its own (two 64-byte lines: the adjacent-line prefetcher pairs
//! them).

use crate::sync::{AtomicU32, AtomicU64};

/// "sockshim" in ASCII, little endian; stored last by the maker.
pub const MAGIC: u64 = u64::from_le_bytes(*b"sockshim");
/// Version of everything in this file; also part of a segment's file name.
pub const VERSION: u32 = 5;
/// Bytes of address space for each direction's ring; a ring's capacity never passes it.
pub const MAX_CAPACITY: u32 = 1 << 20;
/// Rings up to this size lie in the first page.
pub const TINY_CAPACITY: u32 = 512;
/// Rings up to this size lie in the front.
pub const SMALL_CAPACITY: u32 = 4096;
/// Bytes before the first ring.
pub const HEADER_SIZE: usize = 4096;
/// Bytes before the first large ring.
pub const FRONT_SIZE: usize = HEADER_SIZE + 2 * SMALL_CAPACITY as usize;
/// Bytes of the two large rings.
pub const RINGS_SIZE: usize = 2 * MAX_CAPACITY as usize;
/// Bytes of a whole segment (sparse: only touched pages exist).
pub const SEGMENT_SIZE: usize = FRONT_SIZE + RINGS_SIZE;

/// The first page of a segment.
#[repr(C, align(1024))]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`] once the maker has finished; 0 before.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// [`SEGMENT_SIZE`].
    pub size: AtomicU32,
    /// Socket cookies of the two ends; the lower one is end 0.
    pub cookies: [AtomicU64; 2],
    /// Network namespace cookie.
    pub namespace: AtomicU64,
    /// State of each end, `END_*`; written by that end alone.
    pub ends: [AtomicU32; 2],
    /// In a file that is left for a new owner: its socket's own name and the peer's, a `struct sockaddr_in6` or the
    /// beginning of one. Else zero.
    pub names: [[AtomicU32; 7]; 2],
}

/// The end has not come yet.
pub const END_ABSENT: u32 = 0;
/// The end is here.
pub const END_JOINED: u32 = 1;
/// The end closed its socket with nothing unread.
pub const END_LEFT: u32 = 2;
/// The end closed its socket so that the kernel sends a reset.
pub const END_RESET: u32 = 3;

/// One direction of a connection.
#[repr(C, align(1024))]
#[derive(Debug)]
pub struct Direction {
    /// Moved by the writer with each publication.
    pub producer: Producer,
    /// Moved by the reader with each consumption; the writer seldom looks.
    pub consumer: Consumer,
    /// Whether a doorbell is wanted.
    pub sleep: Sleep,
    /// Where the writer changed lanes.
    pub switch: Switch,
    /// What the reader promised and how far it is in the kernel's stream.
    pub reader: Reader,
    /// Up to where the writer may fill the ring again.
    pub room: Room,
}

/// The writer's position.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Producer {
    /// Bytes ever published; bit 63 is [`CLOSED`]. The writer moves it by compare-and-swap, the reader may
    /// set the bit.
    pub tail: AtomicU64,
    /// Size of the ring: a power of two, at most [`MAX_CAPACITY`]. Changed by the writer while the ring is
    /// empty.
    pub capacity: AtomicU32,
    /// The processor that published last, plus one.
    pub cpu: AtomicU32,
    /// How often one of [`Producer::publish_times`] was written.
    pub slot: AtomicU32,
    /// When the last publications were made: see [`crate::publish_time`].
    pub publish_times: [AtomicU64; crate::publish_time::KEPT],
}

/// Bit of [`Producer::tail`]: the reader takes nothing more from the ring.
pub const CLOSED: u64 = 1 << 63;

/// The reader's position.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Consumer {
    /// Bytes ever consumed. Written by the reader.
    pub head: AtomicU64,
    /// The processor that consumed last, plus one.
    pub cpu: AtomicU32,
}

/// The reader's position as it tells the writer: seldom, since a writer that waits for room polls it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Room {
    /// At most a quarter of the ring behind [`Consumer::head`], and level with it once the reader has found the
    /// ring empty. Written by the reader.
    pub released: AtomicU64,
    /// How the writer waits until more is released: [`crate::sleep::DOORBELL`], [`crate::sleep::WAKE`]. Set by the writer; the
    /// reader, who answers, takes it back.
    pub awaited: AtomicU32,
}

/// See [`crate::sleep`].
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Sleep {
    /// How those wait who wait: [`crate::sleep::DOORBELL`], [`crate::sleep::WAKE`]. Set by readers, cleared by the writer
    /// alone (or by a reader that knows that nobody else sleeps).
    pub asleep: AtomicU32,
    /// 1: the reader waits for several connections, and the writer says when it publishes ([`crate::publish_time`]).
    pub ordered: AtomicU32,
}

/// See [`crate::epoch`].
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Switch {
    /// Epoch of the writer's lane in bits 1 to 30 (even: kernel, odd: ring), [`crate::epoch::BUSY`] in bit 0,
    /// [`crate::epoch::SHUT`] in bit 31.
    pub gate: AtomicU32,
    /// Doorbells rung in the current ring epoch. Written by the writer, before each doorbell.
    pub doorbells: AtomicU64,
    /// Kernel position at which the last ring epoch began.
    pub kernel_end: AtomicU64,
    /// Ring position at which the last ring epoch ended.
    pub ring_end: AtomicU64,
    /// Kernel position at which the kernel lane went on after it.
    pub resume: AtomicU64,
}

/// The reader's side of the lane protocol.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Reader {
    /// 1: every reader of this end knows about doorbells, so the writer may open the ring.
    pub ready: AtomicU32,
    /// The epoch that is being read.
    pub epoch: AtomicU32,
    /// Bytes taken from the kernel's stream, doorbells included.
    pub kernel_read: AtomicU64,
    /// Doorbells of all ring epochs that were followed to their end.
    pub doorbells_past: AtomicU64,
    /// Largest ring that suits the buffer size which the reader's program has set; 0: any.
    pub ring_limit: AtomicU32,
    /// `HANDED_*`: whether the reader's process hands the socket on with bytes unread.
    pub handed: AtomicU32,
}

/// The socket stays where it is.
pub const HANDED_NOT: u32 = 0;
/// It is being handed on: a writer that changes to the kernel lane waits for a moment.
pub const HANDED_SOON: u32 = 1;
/// The unread bytes lie in a file: the writer sends them again, by the kernel.
pub const HANDED_ON: u32 = 2;
/// A new owner has taken the file up; there may be another one later.
pub const HANDED_AWAY: u32 = 3;

#[cfg(not(loom))]
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Header>() == 1024);
    assert!(size_of::<Direction>() == 1024);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, size) == 12);
    assert!(offset_of!(Header, cookies) == 16);
    assert!(offset_of!(Header, namespace) == 32);
    assert!(offset_of!(Header, ends) == 40);
    assert!(offset_of!(Direction, producer) == 0);
    assert!(offset_of!(Direction, consumer) == 128);
    assert!(offset_of!(Direction, sleep) == 256);
    assert!(offset_of!(Direction, switch) == 384);
    assert!(offset_of!(Direction, reader) == 512);
    assert!(offset_of!(Direction, room) == 640);
    assert!(MAX_CAPACITY.is_power_of_two());
};

/// Byte offset of a direction's block.
#[must_use]
pub const fn direction_offset(direction: usize) -> usize {
    1024 * (1 + (direction & 1))
}

/// Which of its places a ring of so many bytes has: the tiny, the small or the large one.
#[inline]
#[must_use]
pub const fn place_of(capacity: u32) -> usize {
    (capacity > TINY_CAPACITY) as usize + (capacity > SMALL_CAPACITY) as usize
}

/// Byte offset of a direction's ring while it is tiny.
#[must_use]
pub const fn tiny_ring_offset(direction: usize) -> usize {
    direction_offset(1) + 1024 + (direction & 1) * TINY_CAPACITY as usize
}

/// Byte offset of a direction's ring while it is small.
#[must_use]
pub const fn small_ring_offset(direction: usize) -> usize {
    HEADER_SIZE + (direction & 1) * SMALL_CAPACITY as usize
}

/// Byte offset of a direction's ring while it is larger than [`SMALL_CAPACITY`].
#[must_use]
pub const fn ring_offset(direction: usize) -> usize {
    FRONT_SIZE + (direction & 1) * MAX_CAPACITY as usize
}

#[cfg(any(loom, test, fuzzing))]
impl Direction {
    /// A fresh direction for a model or a test.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self {
            producer: Producer {
                tail: AtomicU64::new(0),
                capacity: AtomicU32::new(capacity),
                cpu: AtomicU32::new(0),
                slot: AtomicU32::new(0),
                publish_times: Default::default(),
            },
            consumer: Consumer { head: AtomicU64::new(0), cpu: AtomicU32::new(0) },
            sleep: Sleep { asleep: AtomicU32::new(0), ordered: AtomicU32::new(0) },
            switch: Switch {
                gate: AtomicU32::new(0),
                doorbells: AtomicU64::new(0),
                kernel_end: AtomicU64::new(0),
                ring_end: AtomicU64::new(0),
                resume: AtomicU64::new(0),
            },
            reader: Reader {
                ready: AtomicU32::new(0),
                epoch: AtomicU32::new(0),
                kernel_read: AtomicU64::new(0),
                doorbells_past: AtomicU64::new(0),
                ring_limit: AtomicU32::new(0),
                handed: AtomicU32::new(HANDED_NOT),
            },
            room: Room { released: AtomicU64::new(0), awaited: AtomicU32::new(0) },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
