//! The limit of the machine: bytes from one process to another over a ring in shared memory, with nothing else.
//!
//! No sockets, no descriptors, no end of a connection, no hostile peer: what is left is one copy into the ring,
//! one copy out of it, and the two cache lines that tell the other side. A socket library cannot be faster with
//! the same two copies.
//!
//! # Safety
//!
//! A mapping has [`MAPPING`] bytes, is zeroed when it is made, and is never unmapped; [`Half`] says which of
//! its two rings an end writes. Indices are masked, and both processes are this program.

use crate::backend::{Copying, Waiting};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of the ring of one direction: more than a core's second cache, less than the shared one.
const SIZE: usize = 1 << 20;
/// Bytes in front of the data.
const HEADER: usize = 4096;
/// Bytes of a mapping that serves two ends.
pub(crate) const MAPPING: usize = 2 * (HEADER + SIZE);
/// Large messages are published in pieces of this many bytes.
const PIECE: usize = 16 << 10;
/// A reader says where it is after that many bytes, or when the ring is empty.
const LATE: u64 = SIZE as u64 / 4;

/// One direction; each word that one side writes has a pair of cache lines of its own.
#[repr(C, align(128))]
struct Lane {
    tail: Line,
    head: Line,
    asleep: AsleepLine,
}

#[repr(C, align(128))]
struct Line(AtomicU64);

#[repr(C, align(128))]
struct AsleepLine(AtomicU32);

/// Which end of the mapping a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Server,
    Client,
}

/// Both directions, as one end sees them.
#[derive(Debug)]
pub(crate) struct Rings {
    out: Writer,
    into: Reader,
}

#[derive(Debug)]
struct Writer {
    lane: &'static Lane,
    data: *mut u8,
    tail: u64,
    /// Where the reader was when it was last looked at.
    head: u64,
    copying: Copying,
    waiting: Waiting,
}

#[derive(Debug)]
struct Reader {
    lane: &'static Lane,
    data: *const u8,
    head: u64,
    /// Where the reader last said that it is.
    told: u64,
    tail: u64,
    waiting: Waiting,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed))
    }
}

/// A file in memory for [`Rings::map`], to be inherited by the two ends.
pub(crate) fn make() -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"sockshim-bench".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let file = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    // SAFETY: no pointers.
    if unsafe { libc::ftruncate(fd, MAPPING as libc::off_t) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(file)
}

impl Rings {
    /// Maps the file `fd`.
    pub(crate) fn map(fd: RawFd, half: Half, copying: Copying, waiting: Waiting) -> Self {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file of that size.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), MAPPING, access, flags, fd, 0) };
        assert!(base != libc::MAP_FAILED, "the raw ring cannot be mapped");
        let lane = |which: usize| -> (&'static Lane, *mut u8) {
            // SAFETY: inside the mapping, which is aligned to pages and lives as long as the process.
            let start = unsafe { base.cast::<u8>().add(which * (HEADER + SIZE)) };
            // SAFETY: as above; all zeroes is a valid lane.
            (unsafe { &*start.cast::<Lane>() }, unsafe { start.add(HEADER) })
        };
        let (out, into) = if half == Half::Server { (lane(0), lane(1)) } else { (lane(1), lane(0)) };
        Self {
            out: Writer { lane: out.0, data: out.1, tail: 0, head: 0, copying, waiting },
            into: Reader { lane: into.0, data: into.1, head: 0, told: 0, tail: 0, waiting },
        }
    }

    /// As many bytes of `data` as there is room for, without waiting.
    #[inline]
    pub(crate) fn try_write(&mut self, data: &[u8]) -> usize {
        self.out.push(data)
    }

    #[inline]
    pub(crate) fn write_all(&mut self, mut data: &[u8]) {
        loop {
            data = &data[self.out.push(data)..];
            if data.is_empty() {
                return;
            }
            // Nobody rings for room: a writer is never the one that starves in these questions.
            match self.out.waiting {
                Waiting::Spin => pause(),
                Waiting::Yield | Waiting::Futex => give_way(),
            }
        }
    }

    /// What there is, without waiting.
    #[inline]
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> usize {
        self.into.pull(buffer)
    }

    /// Waits for at least one byte.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            match self.into.pull(buffer) {
                0 => self.into.wait(),
                n => return n,
            }
        }
    }
}

impl Writer {
    #[inline]
    fn push(&mut self, data: &[u8]) -> usize {
        let mut room = SIZE as u64 - (self.tail - self.head);
        if room < data.len() as u64 {
            // pairs with: Reader::tell
            self.head = self.lane.head.0.load(Ordering::Acquire);
            room = SIZE as u64 - (self.tail - self.head);
        }
        let length = data.len().min(room as usize);
        let piece = if self.copying == Copying::Plain { SIZE } else { PIECE };
        for piece in data[..length].chunks(piece) {
            let start = self.tail as usize % SIZE;
            let (first, rest) = piece.split_at(piece.len().min(SIZE - start));
            self.copy(first, start);
            self.copy(rest, 0);
            self.tail += piece.len() as u64;
            // pairs with: Reader::look
            self.lane.tail.0.store(self.tail, Ordering::Release);
            self.wake();
        }
        length
    }

    #[inline]
    fn copy(&mut self, source: &[u8], at: usize) {
        // SAFETY: `at` is inside the ring.
        let target = unsafe { self.data.add(at) };
        if self.copying == Copying::NonTemporal {
            // SAFETY: `push` leaves no more than what is free from `at` to the end of the ring.
            return unsafe { copy_past_caches(source, target) };
        }
        // SAFETY: as above, and the source is private memory.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len()) };
    }

    #[inline]
    fn wake(&self) {
        if self.waiting == Waiting::Futex {
            // The reader stores `asleep` and then looks at the tail; we store the tail and then look at `asleep`.
            fence(Ordering::SeqCst);
            let asleep = &self.lane.asleep.0;
            if asleep.load(Ordering::Relaxed) == 1 && asleep.swap(0, Ordering::SeqCst) == 1 {
                futex(asleep, libc::FUTEX_WAKE, 1);
            }
        }
    }
}

impl Reader {
    #[inline]
    fn pull(&mut self, buffer: &mut [u8]) -> usize {
        if self.tail == self.head {
            self.look();
        }
        let length = buffer.len().min((self.tail - self.head) as usize);
        if length == 0 {
            return 0;
        }
        let start = self.head as usize % SIZE;
        let first = length.min(SIZE - start);
        let target = buffer.as_mut_ptr();
        // SAFETY: the writer has published these bytes, and `buffer` has room for them.
        unsafe { std::ptr::copy_nonoverlapping(self.data.add(start), target, first) };
        // SAFETY: the rest, from the start of the ring.
        unsafe { std::ptr::copy_nonoverlapping(self.data, target.add(first), length - first) };
        self.head += length as u64;
        if self.head - self.told >= LATE {
            self.tell();
        }
        length
    }

    #[inline]
    fn look(&mut self) {
        // pairs with: Writer::push
        self.tail = self.lane.tail.0.load(Ordering::Acquire);
        if self.tail == self.head && self.told != self.head {
            self.tell();
        }
    }

    #[inline]
    fn tell(&mut self) {
        self.told = self.head;
        // pairs with: Writer::push
        self.lane.head.0.store(self.head, Ordering::Release);
    }

    #[inline]
    fn wait(&mut self) {
        match self.waiting {
            Waiting::Spin => pause(),
            Waiting::Yield => give_way(),
            Waiting::Futex => {
                let asleep = &self.lane.asleep.0;
                asleep.store(1, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                self.look();
                if self.tail == self.head {
                    futex(&self.lane.asleep.0, libc::FUTEX_WAIT, 1);
                }
                self.lane.asleep.0.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Leaves the line to the other side for a moment: looking at it all the time slows the writer down.
#[inline]
fn pause() {
    for _ in 0..4 {
        std::hint::spin_loop();
    }
}

fn give_way() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// Errors are a wake-up like any other: callers look again.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    // SAFETY: the word lives in a shared mapping; no time-out is passed.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, std::ptr::null::<libc::timespec>())
    };
}

/// # Safety
///
/// `target` has room for `source`.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_past_caches(source: &[u8], target: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let before = target.align_offset(16).min(source.len());
    let (head, rest) = source.split_at(before);
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), target, head.len()) };
    let mut done = before;
    for block in rest.chunks_exact(16) {
        // SAFETY: a block has 16 bytes.
        let value = unsafe { _mm_loadu_si128(block.as_ptr().cast::<__m128i>()) };
        // SAFETY: aligned, since `before` bytes went first, and inside what the caller vouches for.
        unsafe { _mm_stream_si128(target.add(done).cast(), value) };
        done += 16;
    }
    // SAFETY: what is left of the source.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr().add(done), target.add(done), source.len() - done)
    };
    // Such stores are not ordered with the publication without it.
    // SAFETY: every x86-64 processor has it.
    unsafe { _mm_sfence() };
}

/// # Safety
///
/// `target` has room for `source`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_past_caches(source: &[u8], target: *mut u8) {
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    /// Every byte arrives once and in order, whatever the copying and waiting, over many laps of the ring.
    #[test]
    fn bytes_arrive_in_order() {
        for copying in [Copying::Plain, Copying::Pieces, Copying::NonTemporal] {
            for waiting in [Waiting::Yield, Waiting::Futex] {
                let file = make().unwrap();
                let fd = file.as_raw_fd();
                let total = 5 * SIZE + 12_345;
                let writer = std::thread::spawn(move || {
                    let mut rings = Rings::map(fd, Half::Client, copying, waiting);
                    let data: Vec<u8> = (0..70_001_u32).map(|i| (i % 251) as u8).collect();
                    let mut sent = 0;
                    while sent < total {
                        let from = sent % 251;
                        let length = (total - sent).min(1 + sent % 69_000);
                        rings.write_all(&data[from..from + length]);
                        sent += length;
                    }
                });
                let mut rings = Rings::map(fd, Half::Server, copying, waiting);
                let mut buffer = vec![0; 50_000];
                let mut received = 0;
                while received < total {
                    let n = rings.read(&mut buffer);
                    for (offset, &byte) in buffer[..n].iter().enumerate() {
                        assert_eq!(byte, ((received + offset) % 251) as u8, "{copying:?} {waiting:?}");
                    }
                    received += n;
                }
                writer.join().unwrap();
            }
        }
    }
}
