//! Streams whose every byte tells where it belongs.

/// The bytes that an end sends, or expects.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    key: u64,
    pub(crate) len: u64,
    pub(crate) done: u64,
}

impl Stream {
    pub(crate) fn new(key: u64, len: u64) -> Self {
        Self { key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15), len, done: 0 }
    }

    pub(crate) fn left(&self) -> u64 {
        self.len - self.done
    }

    /// Writes the next bytes to `out`, as many as fit, and answers how many. They count as done by `done` only.
    pub(crate) fn fill(&self, out: &mut [u8]) -> usize {
        let count = self.left().min(out.len() as u64) as usize;
        for (at, byte) in (self.done..).zip(&mut out[..count]) {
            *byte = self.byte(at);
        }
        count
    }

    /// The next bytes arrived.
    #[track_caller]
    pub(crate) fn check(&mut self, data: &[u8]) {
        assert!(data.len() as u64 <= self.left(), "{} bytes beyond the stream's end", data.len() as u64 - self.left());
        let wrong = (self.done..).zip(data).find(|&(at, &byte)| byte != self.byte(at));
        if let Some((at, byte)) = wrong {
            panic!("byte {at} of the stream is {byte:#x}, not {:#x}", self.byte(at));
        }
        self.done += data.len() as u64;
    }

    fn byte(&self, at: u64) -> u8 {
        (at.wrapping_mul(0x9e37_79b1).wrapping_add(self.key) >> 21) as u8
    }
}
