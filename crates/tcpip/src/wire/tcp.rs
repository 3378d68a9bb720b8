//! TCP headers and options (RFC 9293 §3.1, RFC 7323, RFC 2018, RFC 3168, RFC 9768).

use super::{DropReason, read_u16, read_u32};
use crate::seq::SeqNumber;
use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// The control bits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x001);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x002);
    /// Reset the connection.
    pub const RST: Self = Self(0x004);
    /// Hand the data over.
    pub const PSH: Self = Self(0x008);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x010);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x020);
    /// Congestion was experienced (RFC 3168 §6.1).
    pub const ECE: Self = Self(0x040);
    /// The congestion window was reduced (RFC 3168 §6.1).
    pub const CWR: Self = Self(0x080);
    /// Accurate ECN (RFC 9768); once the nonce sum (RFC 3540).
    pub const NS: Self = Self(0x100);

    /// No control bit.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The flags in the thirteenth and fourteenth byte of a header.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x1ff)
    }

    /// As they are in those bytes.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `others` are set.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether one of `others` is set.
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

impl fmt::Debug for Flags {
    /// As tcpdump writes them: `S.` is SYN and ACK.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, letter) in [
            (Self::SYN, "S"),
            (Self::FIN, "F"),
            (Self::RST, "R"),
            (Self::PSH, "P"),
            (Self::URG, "U"),
            (Self::ECE, "E"),
            (Self::CWR, "W"),
            (Self::NS, "e"),
            (Self::ACK, "."),
        ] {
            if self.contains(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// The timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock, TSval.
    pub value: u32,
    /// The receiver's clock as the sender last heard of it, TSecr.
    pub echo: u32,
}

/// Blocks of the SACK option (RFC 2018 §3), each from the first sequence number to the one behind the last.
#[derive(Clone, Copy, Default)]
pub struct SackBlocks {
    blocks: [(SeqNumber, SeqNumber); Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// As many as fit into a header: 40 bytes of options hold four without timestamps, three with them.
    pub const MAX: usize = 4;

    /// An empty list of SACK blocks.
    pub(crate) const fn new() -> Self {
        Self { blocks: [(SeqNumber::new(0), SeqNumber::new(0)); Self::MAX], len: 0 }
    }

    /// Adds one, unless there are as many as fit.
    pub fn push(&mut self, block: (SeqNumber, SeqNumber)) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *place = block;
        self.len += 1;
        true
    }

    /// The blocks as a slice.
    pub fn as_slice(&self) -> &[(SeqNumber, SeqNumber)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The options that are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The largest segment that the sender takes (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// By how many bits its window is shifted (RFC 7323 §2).
    pub window_scale: Option<u8>,
    /// It understands SACK.
    pub sack_permitted: bool,
    /// The timestamps option (RFC 7323).
    pub timestamps: Option<Timestamps>,
    /// What it has beyond the acknowledgment number.
    pub sack: SackBlocks,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The port of the sender.
    pub src_port: u16,
    /// The port of the receiver.
    pub dst_port: u16,
    /// The number of the first byte of data, or of SYN or FIN.
    pub seq: SeqNumber,
    /// The number that the sender expects next.
    pub ack: SeqNumber,
    /// The control bits.
    pub flags: Flags,
    /// How much the sender takes from `ack` on, not scaled.
    pub window: u16,
    /// Where urgent data ends, counted from `seq`.
    pub urgent: u16,
    /// The options of the segment.
    pub options: Options,
}

/// Bytes of a header without options.
pub const MIN_LEN: usize = 20;
/// Bytes of the longest header.
pub const MAX_LEN: usize = 60;
/// Where in the header the checksum is.
pub const CHECKSUM_OFFSET: u16 = 16;

mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
}

/// No operation twice and timestamps: the options of nearly every segment (RFC 7323 appendix A).
const ALIGNED_TIMESTAMPS: u32 = 0x0101_080a;

/// Reads the header of a segment and where its data begins. The checksum is the caller's affair: it may be known to be
/// right.
///
/// # Errors
///
/// [`DropReason::TcpTruncated`], [`DropReason::TcpDataOffset`]. Options never refuse a segment: what is malformed ends
/// them, as in Linux's `tcp_parse_options`.
#[inline]
pub fn parse(segment: &[u8]) -> Result<(Header, usize), DropReason> {
    let (head, options) = split(segment)?;
    let mut header = Header::read(head);
    header.read_options(options);
    Ok((header, MIN_LEN + options.len()))
}

/// The fixed part of a segment's header, and its options.
#[inline]
pub(crate) fn split(segment: &[u8]) -> Result<(&[u8; MIN_LEN], &[u8]), DropReason> {
    let head = segment.first_chunk::<MIN_LEN>().ok_or(DropReason::TcpTruncated)?;
    let data_offset = usize::from(head[12] >> 4) * 4;
    let options = segment.get(MIN_LEN..data_offset).ok_or(DropReason::TcpDataOffset)?;
    Ok((head, options))
}

/// Adds what `bytes` say to `options`.
fn parse_options(mut bytes: &[u8], syn: bool, options: &mut Options) {
    loop {
        let (kind, len) = match bytes {
            [] | [kind::END, ..] => return,
            [kind::NO_OPERATION, rest @ ..] => {
                bytes = rest;
                continue;
            }
            [kind, len, ..] if (2..=bytes.len()).contains(&usize::from(*len)) => (*kind, usize::from(*len)),
            _ => return,
        };
        let (option, rest) = bytes.split_at(len);
        bytes = rest;
        match (kind, len) {
            // RFC 9293 §3.7.1 and RFC 7323 §2.2, RFC 2018 §2: these three count in a SYN only.
            (kind::MSS, 4) if syn && read_u16(option, 2) > 0 => options.mss = Some(read_u16(option, 2)),
            // RFC 7323 §2.3: more than 14 counts as 14.
            (kind::WINDOW_SCALE, 3) if syn => options.window_scale = Some(option[2].min(14)),
            (kind::SACK_PERMITTED, 2) if syn => options.sack_permitted = true,
            (kind::TIMESTAMPS, 10) => {
                options.timestamps =
                    Some(Timestamps { value: read_u32(option, 2), echo: read_u32(option, 6) });
            }
            (kind::SACK, 10 | 18 | 26 | 34) => {
                options.sack = SackBlocks::default();
                for block in option[2..].chunks_exact(8) {
                    options
                        .sack
                        .push((SeqNumber::new(read_u32(block, 0)), SeqNumber::new(read_u32(block, 4))));
                }
            }
            _ => {}
        }
    }
}

impl Header {
    /// Of what [`split`] gives first, without options.
    #[inline]
    pub(crate) fn read(head: &[u8; MIN_LEN]) -> Self {
        Self {
            src_port: read_u16(head, 0),
            dst_port: read_u16(head, 2),
            seq: SeqNumber::new(read_u32(head, 4)),
            ack: SeqNumber::new(read_u32(head, 8)),
            flags: Flags::from_bits(read_u16(head, 12)),
            window: read_u16(head, 14),
            urgent: read_u16(head, 18),
            options: Options::default(),
        }
    }

    /// The options, where they stay: a copy would read again at once, and wait for, what was written in other pieces.
    #[inline]
    pub(crate) fn read_options(&mut self, bytes: &[u8]) {
        if bytes.len() == 12 && read_u32(bytes, 0) == ALIGNED_TIMESTAMPS {
            self.options.timestamps =
                Some(Timestamps { value: read_u32(bytes, 4), echo: read_u32(bytes, 8) });
        } else if !bytes.is_empty() {
            parse_options(bytes, self.flags.contains(Flags::SYN), &mut self.options);
        }
    }

    /// Bytes of it with its options, of which [`emit`](Self::emit) writes the SACK blocks that fit.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        let Options { mss, window_scale, sack_permitted, timestamps, .. } = self.options;
        let mut len = MIN_LEN;
        len += if mss.is_some() { 4 } else { 0 };
        len += match (timestamps.is_some(), sack_permitted) {
            (true, _) => 12,
            (false, true) => 4,
            (false, false) => 0,
        };
        len += if window_scale.is_some() { 4 } else { 0 };
        match fitting_blocks(&self.options, len) {
            0 => len,
            blocks => len + 4 + 8 * blocks,
        }
    }

    /// Writes it with a checksum field of zero and returns its length.
    ///
    /// The options are laid out as Linux does (`tcp_options_write`), so that middleboxes and fingerprints see what they
    /// know, and so that a receiver's fast path finds aligned timestamps.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`len`](Self::len).
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let options_len = self.emit_options(&mut out[MIN_LEN..]);
        let len = MIN_LEN + options_len;
        let offset_and_flags = (len as u16 / 4) << 12 | self.flags.bits();
        let head = out.first_chunk_mut::<MIN_LEN>().expect("room for a header");
        head[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        head[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        head[4..8].copy_from_slice(&self.seq.get().to_be_bytes());
        head[8..12].copy_from_slice(&self.ack.get().to_be_bytes());
        head[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
        head[14..16].copy_from_slice(&self.window.to_be_bytes());
        head[16..18].fill(0);
        head[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        len
    }

    #[inline]
    fn emit_options(&self, out: &mut [u8]) -> usize {
        let options = &self.options;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
            at
        };
        if let Some(mss) = options.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[kind::MSS, 4, high, low]);
        }
        if let Some(timestamps) = options.timestamps {
            if options.sack_permitted {
                put(&[kind::SACK_PERMITTED, 2, kind::TIMESTAMPS, 10]);
            } else {
                put(&ALIGNED_TIMESTAMPS.to_be_bytes());
            }
            put(&timestamps.value.to_be_bytes());
            put(&timestamps.echo.to_be_bytes());
        } else if options.sack_permitted {
            put(&[kind::NO_OPERATION, kind::NO_OPERATION, kind::SACK_PERMITTED, 2]);
        }
        if let Some(shift) = options.window_scale {
            put(&[kind::NO_OPERATION, kind::WINDOW_SCALE, 3, shift]);
        }
        let len = put(&[]);
        let blocks = fitting_blocks(options, MIN_LEN + len);
        if blocks > 0 {
            put(&[kind::NO_OPERATION, kind::NO_OPERATION, kind::SACK, 2 + 8 * blocks as u8]);
            for (from, to) in &options.sack.as_slice()[..blocks] {
                put(&from.get().to_be_bytes());
                put(&to.get().to_be_bytes());
            }
        }
        put(&[])
    }
}

/// How many SACK blocks fit behind the first `len` bytes of a header.
#[inline]
fn fitting_blocks(options: &Options, len: usize) -> usize {
    options.sack.as_slice().len().min((MAX_LEN - len).saturating_sub(4) / 8)
}

#[cfg(test)]
mod tests;
