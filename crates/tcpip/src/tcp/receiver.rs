//! The receiving half of a connection: what has arrived, what the window promises, and what is to be acknowledged when.

use core::time::Duration;

use super::config::Config;
use super::ranges::RangeSet;
use crate::buffer::ReceiveBuffer;
use crate::lazy::{Lazy, blank};
use crate::seq::{self, SeqNumber};
use crate::time::{Instant, Micros};
use crate::wire::tcp::SackBlocks;

/// RFC 9293 section 3.3.1's receive sequence variables, and what else the half needs.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) nxt: SeqNumber,
    /// `nxt` when the window was advertised last, and that window.
    pub(crate) wup: SeqNumber,
    pub(crate) wnd: u32,
    /// By how much the window field of our segments is shifted, and whether both ends have such shifts: ours may be zero.
    pub(crate) wscale: u8,
    pub(crate) scaled: bool,
    /// The largest segment that we announced to take.
    pub(crate) advertised_mss: u16,
    /// Bytes that may lie unread: autotuning and SO_RCVBUF move it.
    pub(crate) limit: u32,
    disorder: Lazy<Disorder>,
    /// `nxt` and TS.Recent when nothing had arrived beyond it last.
    pub(crate) last_contiguous: (SeqNumber, u32),
    /// Where the stream ends, once that is known.
    pub(crate) fin: Option<SeqNumber>,
    pub(crate) ack: AckPolicy,
    pub(crate) tune: super::tune::ReceiveTuning,
    pub(crate) bytes: u64,
    pub(crate) segments_in: u32,
    pub(crate) data_segments_in: u32,
}

/// What did not arrive in its turn.
#[derive(Debug)]
struct Disorder {
    /// What has arrived beyond `nxt`.
    out_of_order: RangeSet,
    /// RFC 2018 section 4: the blocks reported last, the most recent one first.
    blocks: SackBlocks,
    /// RFC 2883: what arrived twice, until it is reported.
    duplicate: Option<(SeqNumber, SeqNumber)>,
}

blank!(Disorder, Disorder { out_of_order: RangeSet::new(), blocks: SackBlocks::new(), duplicate: None });

/// When to acknowledge (RFC 9293 section 3.8.6.3, and Linux's quick acknowledgements at the start of a stream).
#[derive(Debug)]
pub(crate) struct AckPolicy {
    /// Something is not acknowledged yet.
    pub(crate) scheduled: bool,
    /// Whether an acknowledgement must leave at once.
    pub(crate) now: bool,
    /// Duplicates that a sender without SACK counts.
    pub(crate) duplicates: u8,
    pub(crate) deadline: Option<Instant>,
    /// Acknowledgements that are not to be delayed.
    pub(crate) quick: u8,
    /// The application answers: an acknowledgement can travel with the answer.
    pub(crate) interactive: bool,
    /// The delay; zero before the first data.
    pub(crate) delay: Micros,
    /// When data arrived last.
    pub(crate) received_at: Instant,
    /// The size of the other end's segments.
    pub(crate) mss: u16,
    /// Nothing more may come soon: a segment with PSH, or a smaller one, and another one of those.
    pub(crate) pushed: bool,
    pub(crate) pushed_again: bool,
    /// The size of the last segment, if it was smaller but seems to be whole.
    small: u16,
}

/// What a segment tells of the size of the other end's segments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sized {
    pub(crate) len: usize,
    /// Bytes of its options, and of timestamps among them.
    pub(crate) options: usize,
    pub(crate) stamps: usize,
    pub(crate) push: bool,
    /// It need not be a whole one: the sender had no more, or something else to say.
    pub(crate) remnant: bool,
}

/// As much as this, with a window (of 2^30 bytes at most) before and behind it, is less than all sequence numbers.
const UNWRAPPED: u32 = 1 << 30;

/// Linux's TCP_ATO_MIN and TCP_DELACK_MIN. RFC 9293 section 3.8.6.3 allows up to half a second.
pub(crate) const MIN_DELAY: Micros = Micros::from_millis(40);
pub(crate) const MAX_DELAY: Micros = Micros::from_millis(200);
/// TCP_MAX_QUICKACKS.
const MAX_QUICK: u8 = 16;
/// TCP_MIN_MSS: a smaller segment says nothing of the size of others.
const MIN_MSS: usize = 88;

impl Receiver {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            nxt: SeqNumber::new(0),
            wup: SeqNumber::new(0),
            wnd: 0,
            wscale: 0,
            scaled: false,
            advertised_mss: super::DEFAULT_MSS,
            limit,
            disorder: Lazy::default(),
            last_contiguous: (SeqNumber::new(0), 0),
            fin: None,
            ack: AckPolicy::new(),
            tune: super::tune::ReceiveTuning::default(),
            bytes: 0,
            segments_in: 0,
            data_segments_in: 0,
        }
    }

    /// The other end's SYN.
    pub(crate) fn begin(&mut self, irs: SeqNumber) {
        self.nxt = irs + 1;
        self.wup = self.nxt;
        self.tune.begin(self.nxt);
    }

    /// What has arrived beyond `nxt`.
    pub(crate) fn out_of_order(&self) -> &RangeSet {
        &self.disorder.out_of_order
    }

    /// What has arrived beyond the end of the stream, or of the connection, is not looked at any more.
    pub(crate) fn forget_out_of_order(&mut self) {
        if !self.disorder.out_of_order.is_empty() {
            self.disorder.out_of_order.clear();
        }
    }

    /// With the FIN all has arrived, and nothing is left to tell of (Linux's `tcp_fin` resets what it would report).
    pub(crate) fn forget_duplicate(&mut self) {
        if self.disorder.duplicate.is_some() {
            self.disorder.duplicate = None;
        }
    }

    /// Gives memory back when everything has arrived in its turn and was reported.
    pub(crate) fn give_back(&mut self) {
        if self.disorder.out_of_order.is_empty() && self.block_count() == 0 {
            self.disorder.give_back();
        }
    }

    /// What is left of the advertised window.
    pub(crate) fn window(&self) -> u32 {
        (self.wup + self.wnd).saturating_since(self.nxt)
    }

    /// RFC 9293 section 3.10.7.4, first step. The left edge is that of the last acknowledgement, as in Linux, so that
    /// what the other end sends again for the loss of one is still looked at.
    pub(crate) fn is_acceptable(&self, seq: SeqNumber, end: SeqNumber) -> bool {
        end.at_or_after(self.wup) && seq.at_or_before(self.nxt + self.window())
    }

    /// Whether a segment with a timestamp from before TS.Recent is late and not old, where RFC 7323 section 5.3 (R1) and
    /// Linux refuse it. A retransmission that fills a hole raises TS.Recent, and what was sent before it may still be on
    /// its way: to drop that would make each loss on a path that reorders the cause of the next. What was sent after the
    /// last moment without a hole has numbers from behind there, and those are unique while little has arrived since.
    pub(crate) fn is_late(&self, stamp: u32) -> bool {
        let (nxt, recent) = self.last_contiguous;
        !seq::before(stamp, recent) && self.nxt.since(nxt) < UNWRAPPED
    }

    /// Stores data that is in the window, in or out of order, and answers what became of it. `scarce` says that there is no
    /// memory for more than must be.
    pub(crate) fn store(
        &mut self,
        config: &Config,
        buffer: &mut impl ReceiveBuffer,
        mut seq: SeqNumber,
        mut data: &[u8],
        scarce: bool,
    ) -> Stored {
        let mut again = None;
        if seq.before(self.nxt) {
            let known = self.nxt.since(seq) as usize;
            again = Some((seq, (seq + data.len() as u32).earlier(self.nxt)));
            self.note_duplicate(config, again);
            if known >= data.len() {
                return Stored::Duplicate;
            }
            data = &data[known..];
            seq = self.nxt;
        }
        let offset = seq.since(self.nxt) as usize;
        let room = self.room(buffer).saturating_sub(offset);
        // When memory is scarce, the next data for a reader that has read all before, and no other (Linux's
        // `tcp_try_rmem_schedule`).
        if room == 0 || (scarce && (offset > 0 || buffer.readable() > 0)) {
            return Stored::NoRoom;
        }
        let data = &data[..data.len().min(room)];
        let end = seq + data.len() as u32;
        if offset == 0 && self.disorder.out_of_order.is_empty() {
            self.append(buffer, data);
            return Stored::InOrder;
        }
        // The first part that was there is what is reported (RFC 2883 section 4).
        self.note_duplicate(config, again.or_else(|| self.disorder.out_of_order.overlap(seq, end)));
        if offset > 0
            && let Some(whole) = self.disorder.out_of_order.containing(seq, end)
        {
            // And the block that contains it comes next: else it could not be told from one that is new.
            self.remember_block(whole);
            return Stored::Duplicate;
        }
        let behind_all = self.disorder.out_of_order.last().is_none_or(|(_, last)| seq.after(last));
        if offset > 0 && self.disorder.out_of_order.len() >= config.max_out_of_order {
            // The farthest range is the one that is of use last.
            if behind_all {
                return Stored::NoRoom;
            }
            self.disorder.out_of_order.pop_last();
        }
        buffer.write_at(offset, data);
        let merged = self.disorder.out_of_order.insert(seq, end);
        if merged.0 == self.nxt {
            self.disorder.out_of_order.pop_first();
            self.advance(buffer, merged.1);
            Stored::FilledGap
        } else {
            self.remember_block(merged);
            Stored::OutOfOrder
        }
    }

    /// How much data may come. What does not fit was not promised; a buffer that shrank is not written beyond either.
    #[inline]
    pub(crate) fn room(&self, buffer: &impl ReceiveBuffer) -> usize {
        (self.window() as usize).min(buffer.free())
    }

    /// Stores the next data, for which there is room.
    #[inline]
    pub(crate) fn append(&mut self, buffer: &mut impl ReceiveBuffer, data: &[u8]) {
        buffer.write_at(0, data);
        self.advance(buffer, self.nxt + data.len() as u32);
    }

    fn advance(&mut self, buffer: &mut impl ReceiveBuffer, to: SeqNumber) {
        let count = to.since(self.nxt);
        buffer.commit(count as usize);
        self.bytes += u64::from(count);
        self.nxt = to;
        if !self.disorder.blocks.is_empty() {
            self.prune_blocks();
        }
    }

    /// RFC 2018 section 4: the block that contains the newest segment comes first, then those reported before.
    fn remember_block(&mut self, newest: (SeqNumber, SeqNumber)) {
        let mut blocks = SackBlocks::default();
        blocks.push(newest);
        for &(start, end) in self.disorder.blocks.as_slice() {
            let swallowed = start.at_or_after(newest.0) && end.at_or_before(newest.1);
            if !swallowed {
                blocks.push((start, end));
            }
        }
        self.disorder.blocks = blocks;
    }

    /// The end of the stream has arrived, alone, and something before it is missing.
    pub(crate) fn note_fin_out_of_order(&mut self, fin: SeqNumber) {
        self.fin = Some(fin);
        self.remember_block(self.disorder.out_of_order.containing(fin, fin).unwrap_or((fin, fin)));
    }

    fn prune_blocks(&mut self) {
        let mut blocks = SackBlocks::default();
        for &(start, end) in self.disorder.blocks.as_slice() {
            let there = if start == end {
                self.fin == Some(end)
            } else {
                self.disorder.out_of_order.contains(start, end)
            };
            if start.after(self.nxt) && there {
                blocks.push((start, end));
            }
        }
        self.disorder.blocks = blocks;
    }

    /// RFC 2883: that part arrived once more.
    pub(crate) fn note_duplicate(&mut self, config: &Config, part: Option<(SeqNumber, SeqNumber)>) {
        if let Some((start, end)) = part
            && config.dsack
            && start.before(end)
        {
            self.disorder.duplicate = part;
        }
    }

    /// What to report, when there is something; a duplicate is reported once.
    pub(crate) fn take_blocks(&mut self, max: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if let Some(duplicate) = self.disorder.duplicate.take() {
            blocks.push(duplicate);
        }
        for &(start, end) in self.disorder.blocks.as_slice() {
            if blocks.as_slice().len() < max {
                blocks.push((start, self.with_fin(end)));
            }
        }
        blocks
    }

    /// How many blocks would be reported.
    pub(crate) fn block_count(&self) -> usize {
        self.disorder.blocks.as_slice().len() + usize::from(self.disorder.duplicate.is_some())
    }

    /// The end of a block as it is reported. The FIN came with the last byte, or alone: without it the sender would see
    /// only a part of its segment arrive.
    fn with_fin(&self, end: SeqNumber) -> SeqNumber {
        if self.fin == Some(end) { end + 1 } else { end }
    }

    /// The end of the last block that is reported.
    pub(crate) fn last_reported(&self) -> Option<SeqNumber> {
        let ends = self.disorder.blocks.as_slice().iter().map(|&(_, end)| self.with_fin(end));
        ends.reduce(SeqNumber::later)
    }

    /// The window to advertise, in bytes: RFC 9293 section 3.8.6.2.2 (silly window avoidance), and never less than was
    /// promised (section 3.8.6).
    pub(crate) fn choose_window(&self, readable: usize, capacity: usize, pressed: bool) -> u32 {
        let current = self.window();
        let chosen = self.offer(readable, capacity, pressed);
        if chosen >= current {
            return chosen.min(u32::from(u16::MAX) << self.wscale);
        }
        // Rounded up, so that a scaled window does not take back what was promised.
        round_up(current, self.wscale)
    }

    fn offer(&self, readable: usize, capacity: usize, pressed: bool) -> u32 {
        let full = u32::try_from(capacity).unwrap_or(u32::MAX).min(self.limit);
        let mut free = full.saturating_sub(u32::try_from(readable).unwrap_or(u32::MAX));
        if pressed && free < full / 2 {
            free = free.min(4 * u32::from(self.advertised_mss)); // Linux's `tcp_adjust_rcv_ssthresh`
        }
        let mss = u32::from(self.ack.mss).min(full).max(1);
        // Linux says sixteenth where RFC 1122 section 4.2.3.3 says half: it opens sooner.
        if free < full / 16 || free < mss {
            return 0;
        }
        if self.wscale > 0 {
            let most = full.max(free) >> self.wscale << self.wscale;
            return round_up(free, self.wscale).min(most);
        }
        // Without scale, whole segments, unless the window is just right already.
        let current = self.window();
        if current > free.saturating_sub(mss) && current <= free { current } else { free / mss * mss }
    }

    /// A window was advertised.
    pub(crate) fn advertised(&mut self, window: u32) {
        self.wnd = window;
        self.wup = self.nxt;
    }
}

/// To a multiple of two to the `shift`.
fn round_up(bytes: u32, shift: u8) -> u32 {
    let rounded = (u64::from(bytes) + (1 << shift) - 1) >> shift << shift;
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// What became of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The segment was the next one expected.
    InOrder,
    /// The segment was the next one expected, and data that waited behind it follows.
    FilledGap,
    /// Something before it is missing.
    OutOfOrder,
    /// All of it was there.
    Duplicate,
    /// There is no room for it.
    NoRoom,
}

impl AckPolicy {
    fn new() -> Self {
        Self {
            scheduled: false,
            now: false,
            duplicates: 0,
            deadline: None,
            quick: 0,
            interactive: false,
            delay: Micros::ZERO,
            received_at: Instant::ZERO,
            mss: 536,
            pushed: false,
            pushed_again: false,
            small: 0,
        }
    }

    /// Data arrived (Linux's `tcp_event_data_recv`).
    pub(crate) fn on_data(&mut self, now: Instant, segment: Sized, window: u32, limit_mss: u16, rto: Micros) {
        self.measure(segment, limit_mss);
        let gap = Micros::between(self.received_at, now);
        if self.delay.is_zero() {
            self.raise_quick(window, MAX_QUICK);
            self.delay = MIN_DELAY;
        } else if gap <= Micros::ZERO.mean(MIN_DELAY) {
            self.delay = self.delay.mean(MIN_DELAY);
        } else if gap < self.delay {
            self.delay = self.delay.halved().plus(gap).min(rto);
        } else if gap > rto {
            // A long silence: the sender may be in slow start again.
            self.raise_quick(window, MAX_QUICK);
        }
        self.received_at = now;
    }

    /// Data arrived, in its turn or not: its size is that of the other end's segments (Linux's `tcp_measure_rcv_mss`).
    pub(crate) fn measure(&mut self, segment: Sized, limit_mss: u16) {
        self.scheduled = true;
        let last = core::mem::take(&mut self.small);
        let len = u16::try_from(segment.len).unwrap_or(u16::MAX);
        if len >= self.mss {
            self.mss = len.min(limit_mss);
            self.pushed |= segment.push;
            return;
        }
        // Two of one size in a row, which need not be the last ones of what was written: segments have become smaller.
        let with_options = segment.len + segment.options;
        if with_options >= usize::from(super::DEFAULT_MSS) || (with_options >= MIN_MSS && !segment.remnant) {
            self.small = u16::try_from(with_options - segment.stamps).unwrap_or(u16::MAX);
            if self.small == last {
                self.mss = self.small;
                return;
            }
        }
        self.pushed_again |= self.pushed;
        self.pushed = true;
    }

    fn raise_quick(&mut self, window: u32, max: u8) {
        let half = u8::try_from(window / (2 * u32::from(self.mss).max(1))).unwrap_or(u8::MAX);
        let count = if half == 0 { 2 } else { half };
        self.quick = self.quick.max(count.min(max));
    }

    /// Something is out of order: the sender needs to know.
    pub(crate) fn enter_quick(&mut self, window: u32) {
        self.enter_quick_for(window, MAX_QUICK);
    }

    /// So many acknowledgements are not to be delayed.
    pub(crate) fn enter_quick_for(&mut self, window: u32, count: u8) {
        self.raise_quick(window, count);
        self.interactive = false;
        self.delay = MIN_DELAY;
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.quick > 0 && !self.interactive
    }

    /// A delayed acknowledgement: RFC 9293 section 3.8.6.3.
    pub(crate) fn delay(&mut self, now: Instant, srtt: Option<Duration>) {
        let mut delay = self.delay;
        // Zero before the first data: a FIN alone, to which nobody is going to answer.
        if !delay.is_zero() && delay < MIN_DELAY {
            delay = MIN_DELAY;
        }
        if delay > MIN_DELAY {
            let mut most = if self.interactive { MAX_DELAY } else { Micros::from_millis(500) };
            if let Some(srtt) = srtt {
                most = most.min(MIN_DELAY.max(srtt.into()));
            }
            delay = delay.min(most);
        }
        let delay = delay.min(MAX_DELAY);
        let at = now + delay;
        if self.deadline.is_some_and(|old| old <= now + Duration::from(delay) / 4) {
            self.now = true; // it is nearly over: one acknowledgement for both (Linux's `tcp_send_delayed_ack`)
            return;
        }
        self.deadline = Some(self.deadline.map_or(at, |old| old.min(at)));
    }

    /// The delay is over.
    pub(crate) fn on_timeout(&mut self, rto: Duration) {
        self.deadline = None;
        if !self.scheduled {
            return;
        }
        if self.interactive {
            // The application did not answer in time.
            self.interactive = false;
            self.delay = MIN_DELAY;
        } else {
            self.delay = (Duration::from(self.delay) * 2).min(rto).into();
        }
        self.now = true;
    }

    /// An acknowledgement left, alone or with data.
    pub(crate) fn on_sent(&mut self) {
        // Only one that acknowledges something counts.
        let counts = core::mem::replace(&mut self.scheduled, false);
        self.now = false;
        self.deadline = None;
        (self.pushed, self.pushed_again) = (false, false);
        self.duplicates = self.duplicates.saturating_sub(1);
        if self.quick > 0 && counts {
            self.quick -= 1;
            if self.quick == 0 {
                self.delay = MIN_DELAY;
            }
        }
    }
}
