//! Bytes whose value depends on their position, so that a lost, doubled or moved byte is seen.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::sys::{self, Answer};

/// A prime, so that no ring size, page or buffer is a multiple of it.
const PERIOD: usize = 1_048_583;

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// A size from 1 to 2^`bits`, small ones as likely as big ones.
    pub(crate) fn size(&mut self, bits: usize) -> usize {
        let most = 1 << self.within(0, bits);
        self.within(1, most)
    }
}

/// One direction of a connection: its byte at every position, and how far it has been used.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) start: usize,
    pub(crate) position: usize,
}

impl Flow {
    pub(crate) fn new(seed: usize) -> Self {
        Self { start: seed.wrapping_mul(7919) % PERIOD, position: 0 }
    }

    /// The next `length` bytes, without moving on.
    pub(crate) fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.pieces(length, |at, piece| bytes[at..at + piece.len()].copy_from_slice(piece));
        bytes
    }

    /// The next `length` bytes, moving past them.
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.bytes(length);
        self.position += length;
        bytes
    }

    /// Asserts that `received` is what comes next, and moves past it.
    #[track_caller]
    pub(crate) fn check(&mut self, received: &[u8]) {
        let mut wrong = None;
        self.pieces(received.len(), |at, piece| {
            let got = &received[at..at + piece.len()];
            if wrong.is_none() && got != piece {
                let offset = got.iter().zip(piece).position(|(a, b)| a != b).unwrap_or(0);
                wrong = Some((at + offset, got[offset], piece[offset]));
            }
        });
        if let Some((at, got, expected)) = wrong {
            panic!("byte {} of the stream is {got:#x}, not {expected:#x}", self.position + at);
        }
        self.position += received.len();
    }

    /// Writes the next `total` bytes with blocking writes of at most `piece`.
    #[track_caller]
    pub(crate) fn write(&mut self, fd: i32, total: usize, piece: usize) {
        let end = self.position + total;
        while self.position < end {
            let bytes = self.bytes(piece.min(end - self.position));
            let written = sys::write(fd, &bytes).expect("write");
            assert!(written > 0 && written <= bytes.len(), "write returned {written}");
            self.position += written;
        }
    }

    /// Reads and checks the next `total` bytes with blocking reads of at most `piece`.
    #[track_caller]
    pub(crate) fn read(&mut self, fd: i32, total: usize, piece: usize) {
        let end = self.position + total;
        let mut buffer = vec![0; piece];
        while self.position < end {
            let room = piece.min(end - self.position);
            let count = sys::read(fd, &mut buffer[..room]).expect("read");
            assert!(count > 0, "the stream ended at byte {} of {end}", self.position);
            self.check(&buffer[..count]);
        }
    }

    /// Reads and checks until the end of the stream; returns how many bytes came.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self, fd: i32, piece: usize) -> usize {
        let before = self.position;
        let mut buffer = vec![0; piece];
        loop {
            match sys::read(fd, &mut buffer).expect("read") {
                0 => return self.position - before,
                count => self.check(&buffer[..count]),
            }
        }
    }

    /// Writes on a non-blocking descriptor until it takes no more; returns how much it took.
    #[track_caller]
    pub(crate) fn fill(&mut self, fd: i32, piece: usize) -> usize {
        self.fill_in(fd, piece, usize::MAX)
    }

    /// The same, with so many writes at most.
    #[track_caller]
    fn fill_in(&mut self, fd: i32, piece: usize, writes: usize) -> usize {
        let before = self.position;
        for _ in 0..writes {
            let bytes = self.bytes(piece);
            match sys::send(fd, &bytes, libc::MSG_DONTWAIT) {
                Ok(written) => self.position += written,
                Err(error) => {
                    assert_eq!(error.0, libc::EAGAIN, "a full pipe says EAGAIN");
                    break;
                }
            }
        }
        self.position - before
    }

    /// Writes until it takes no more, and still takes none after the kernel had time to move bytes on.
    #[track_caller]
    pub(crate) fn fill_up(&mut self, fd: i32) -> usize {
        let mut total = self.fill(fd, 10_000);
        loop {
            thread::sleep(Duration::from_millis(20));
            // Bytes one by one only for what is left: on a busy machine the kernel says that it is full when it is about
            // to move megabytes on.
            match self.fill(fd, 10_000) + self.fill_in(fd, 1, 10_000) {
                0 => return total,
                more => total += more,
            }
        }
    }

    /// Reads what is there without waiting; returns the answer that ended it and how much came before.
    #[track_caller]
    pub(crate) fn drain(&mut self, fd: i32) -> (usize, Answer) {
        let before = self.position;
        let mut buffer = vec![0; 65536];
        loop {
            match sys::recv(fd, &mut buffer, libc::MSG_DONTWAIT) {
                Ok(count) if count > 0 => self.check(&buffer[..count]),
                answer => return (self.position - before, answer),
            }
        }
    }

    fn pieces(&self, length: usize, mut each: impl FnMut(usize, &[u8])) {
        let table = table();
        let mut at = 0;
        while at < length {
            let from = (self.start + self.position + at) % PERIOD;
            let count = (length - at).min(PERIOD - from);
            each(at, &table[from..from + count]);
            at += count;
        }
    }
}

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut random = Random::new(42);
        let mut bytes: Vec<u8> = (0..=PERIOD / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        bytes.truncate(PERIOD);
        bytes
    })
}
