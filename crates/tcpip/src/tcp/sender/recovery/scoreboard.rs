//! The segments in flight, and what is known of each (RFC 6675 section 4's scoreboard).
//!
//! There is one record for each segment on the wire, in order of sequence numbers; a super-segment makes several. Those
//! that may still arrive are also linked in the order in which they were sent last, because RACK (RFC 8985) asks which
//! of them were sent long enough before one that has arrived.

mod invariants;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::lazy::blank;
use crate::seq::SeqNumber;
use crate::tcp::ranges::RangeSet;
use crate::tcp::rate::Stamp;
use crate::time::Instant;

/// A segment that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) start: SeqNumber,
    /// Behind its last byte, or behind the FIN that it carries.
    pub(crate) end: SeqNumber,
    /// When it was sent last.
    pub(crate) sent_at: Instant,
    pub(crate) stamp: Stamp,
    previous: u64,
    next: u64,
    pub(crate) transmissions: u8,
    flags: u8,
}

/// The other end has reported that it has the segment.
const SACKED: u8 = 1;
/// The segment is considered lost.
const LOST: u8 = 2;
/// The segment was retransmitted, and that copy is in flight.
const RETRANSMITTED: u8 = 4;
/// In the list of those that may still arrive.
const LISTED: u8 = 8;
/// The last of those that were sent in one go. They are sent again in the same portions, as Linux does with its buffers.
const ENDS_BURST: u8 = 16;
/// The application's write ended here.
const PUSHED: u8 = 32;

/// RACK took it for lost, or the other end had it for a while. If that turns out to be wrong, RACK does not judge it (again)
/// before it is sent again; the time-out does. (Linux takes such a segment off RACK's list.)
const JUDGED: u8 = 64;

/// No index: indices count segments from the first of the connection.
const NONE: u64 = u64::MAX;

impl Record {
    pub(crate) fn is_sacked(&self) -> bool {
        self.flags & SACKED != 0
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.flags & LOST != 0
    }

    pub(crate) fn is_retransmitted(&self) -> bool {
        self.flags & RETRANSMITTED != 0
    }

    pub(crate) fn is_pushed(&self) -> bool {
        self.flags & PUSHED != 0
    }

    /// Whether it was ever sent more than once: its acknowledgement then is ambiguous (Karn's algorithm).
    pub(crate) fn was_retransmitted(&self) -> bool {
        self.transmissions > 1
    }
}

/// The records of one connection.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    records: VecDeque<Record>,
    /// The index of the first record; indices of records do not change while they live.
    base: u64,
    /// Ranges of whole records that are sacked.
    sacked: RangeSet,
    sacked_out: u32,
    lost_out: u32,
    retransmitted_out: u32,
    /// Lost records that were not sent again yet, and the first index that can be one.
    waiting: u32,
    hint: u64,
    /// The ends of the list of those that may still arrive.
    oldest: u64,
    newest: u64,
    /// From this index on all were sent once, and nothing is known of them yet.
    ordinary: u64,
}

blank!(
    Scoreboard,
    Scoreboard {
        records: VecDeque::new(),
        base: 0,
        sacked: RangeSet::new(),
        sacked_out: 0,
        lost_out: 0,
        retransmitted_out: 0,
        waiting: 0,
        hint: 0,
        oldest: NONE,
        newest: NONE,
        ordinary: 0,
    }
);

impl Scoreboard {
    /// A segment was sent for the first time.
    #[inline]
    pub(crate) fn push(&mut self, start: SeqNumber, end: SeqNumber, sent_at: Instant, stamp: Stamp) {
        debug_assert!(self.records.back().is_none_or(|last| last.end == start), "segments follow each other");
        let index = self.base + self.records.len() as u64;
        let previous = core::mem::replace(&mut self.newest, index);
        match self.get_mut(previous) {
            None => self.oldest = index,
            Some(previous) => previous.next = index,
        }
        let next = NONE;
        let flags = LISTED;
        self.records.push_back(Record {
            start,
            end,
            sent_at,
            stamp,
            previous,
            next,
            transmissions: 1,
            flags,
        });
    }

    /// The segments pushed last leave in one go; `pushed` says that the application's write ends with them.
    pub(crate) fn end_burst(&mut self, pushed: bool) {
        if let Some(last) = self.records.back_mut() {
            last.flags |= ENDS_BURST | if pushed { PUSHED } else { 0 };
        }
    }

    /// What begins at `start` does not leave in one go with what is before it any more.
    pub(crate) fn cut_before(&mut self, start: SeqNumber) {
        let at = self.records.partition_point(|record| record.start.before(start));
        if let Some(before) = at.checked_sub(1).and_then(|at| self.records.get_mut(at)) {
            before.flags |= ENDS_BURST;
        }
    }

    /// Segments sent and not acknowledged cumulatively.
    pub(crate) fn packets_out(&self) -> u32 {
        self.records.len() as u32
    }

    /// Segments that are thought to be in the network: RFC 6675's pipe.
    pub(crate) fn in_flight(&self) -> u32 {
        (self.packets_out() + self.retransmitted_out).saturating_sub(self.sacked_out + self.lost_out)
    }

    pub(crate) fn sacked_out(&self) -> u32 {
        self.sacked_out
    }

    pub(crate) fn lost_out(&self) -> u32 {
        self.lost_out
    }

    pub(crate) fn retransmitted_out(&self) -> u32 {
        self.retransmitted_out
    }

    /// Whether a lost segment waits to be sent again.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Behind the last sacked segment.
    pub(crate) fn highest_sacked(&self) -> Option<SeqNumber> {
        self.sacked.last().map(|(_, end)| end)
    }

    pub(crate) fn first(&self) -> Option<&Record> {
        self.records.front()
    }

    pub(crate) fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Record> {
        self.records.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    fn get_mut(&mut self, index: u64) -> Option<&mut Record> {
        self.records.get_mut(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    /// All before `una` was acknowledged: gives away the first record if that is all of it, and shortens it if a part.
    pub(crate) fn pop_acked(&mut self, una: SeqNumber) -> Option<Record> {
        let first = self.records.front_mut()?;
        if first.end.after(una) {
            if first.start.before(una) {
                first.start = una;
            }
            self.sacked.remove_before(una);
            return None;
        }
        self.unlink(self.base);
        let record = self.records.pop_front()?;
        self.forget_counts(&record);
        self.base += 1;
        if self.records.is_empty() {
            self.sacked.clear();
        }
        Some(record)
    }

    /// Whether all that is in flight was sent once and in order, and nothing is known of it yet.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.base >= self.ordinary && self.sacked_out == 0
    }

    /// As [`pop_acked`](Self::pop_acked), for all that are acknowledged of a scoreboard that is ordinary. Calls `each` for each.
    #[inline]
    pub(crate) fn pop_ordinary(&mut self, una: SeqNumber, mut each: impl FnMut(&Record)) {
        debug_assert!(self.is_ordinary(), "the list is in the order of the records");
        let acked = self.records.iter().take_while(|record| record.end.at_or_before(una));
        let count = acked.inspect(|record| each(record)).count();
        self.records.drain(..count);
        self.base += count as u64;
        match self.records.front_mut() {
            Some(first) => {
                first.start = first.start.later(una);
                first.previous = NONE;
                self.oldest = self.base;
            }
            None => (self.oldest, self.newest) = (NONE, NONE),
        }
    }

    /// Something became known of a record, or it was sent again.
    fn single_out(&mut self, index: u64) {
        self.ordinary = self.ordinary.max(index + 1);
    }

    fn forget_counts(&mut self, record: &Record) {
        self.sacked_out -= u32::from(record.is_sacked());
        self.lost_out -= u32::from(record.is_lost());
        self.retransmitted_out -= u32::from(record.is_retransmitted());
        self.waiting -= u32::from(record.is_lost() && !record.is_retransmitted());
    }

    /// The other end has `start..end`. Calls `newly` for each record for which that is news, as it was before.
    pub(crate) fn sack(&mut self, start: SeqNumber, end: SeqNumber, mut newly: impl FnMut(&Record)) {
        let mut gaps = [(start, start); 4];
        loop {
            // Blocks are repeated in each acknowledgement, so only what is new of them is looked at.
            let mut count = 0;
            self.sacked.gaps(start, end, |s, e| {
                if count < gaps.len() {
                    gaps[count] = (s, e);
                }
                count += 1;
            });
            let mut progress = false;
            for &(s, e) in &gaps[..count.min(gaps.len())] {
                progress |= self.sack_gap(s, e, &mut newly);
            }
            if count <= gaps.len() || !progress {
                return;
            }
        }
    }

    fn sack_gap(&mut self, start: SeqNumber, end: SeqNumber, newly: &mut impl FnMut(&Record)) -> bool {
        let mut at = self.records.partition_point(|record| record.start.before(start));
        let mut covered: Option<(SeqNumber, SeqNumber)> = None;
        // A record that is covered in part only stays unsacked, as in Linux's `tcp_match_skb_to_sack`.
        while let Some(record) = self.records.get(at).filter(|record| record.end.at_or_before(end)) {
            debug_assert!(!record.is_sacked(), "gaps hold no sacked record");
            newly(record);
            covered = Some((covered.map_or(record.start, |(s, _)| s), record.end));
            let record = record.clone();
            self.forget_counts(&record);
            self.sacked_out += 1;
            self.unlink(self.base + at as u64);
            self.single_out(self.base + at as u64);
            // A copy of what was lost is not needed any more. One of what was not taken for lost is still under way, as in
            // Linux (`tcp_sacktag_one`).
            let copy = if record.is_lost() { 0 } else { record.flags & RETRANSMITTED };
            self.retransmitted_out += u32::from(copy != 0);
            self.records[at].flags = SACKED | copy | record.flags & (ENDS_BURST | PUSHED);
            at += 1;
        }
        if let Some((s, e)) = covered {
            self.sacked.insert(s, e);
            self.cut_before(s);
            self.cut_before(e);
        }
        covered.is_some()
    }

    /// RACK takes a record for lost.
    pub(crate) fn judge_lost(&mut self, index: u64) -> bool {
        let marked = self.mark_lost(index);
        if let Some(record) = self.get_mut(index).filter(|_| marked) {
            record.flags |= JUDGED;
        }
        marked
    }

    /// Takes a record for lost. Does nothing to one that is sacked, or lost and not sent again.
    pub(crate) fn mark_lost(&mut self, index: u64) -> bool {
        let Some(record) = self.get_mut(index) else { return false };
        if record.is_sacked() || (record.is_lost() && !record.is_retransmitted()) {
            return false;
        }
        let (was_lost, was_retransmitted) = (record.is_lost(), record.is_retransmitted());
        record.flags = (record.flags | LOST) & !RETRANSMITTED;
        self.lost_out += u32::from(!was_lost);
        self.retransmitted_out -= u32::from(was_retransmitted);
        if self.waiting == 0 || index < self.hint {
            self.hint = index;
        }
        self.waiting += 1;
        self.unlink(index);
        self.single_out(index);
        true
    }

    /// The indices of those that `which` says.
    pub(crate) fn indices_where(&self, which: impl Fn(&Record) -> bool) -> Vec<u64> {
        (self.base..).zip(&self.records).filter(|(_, record)| which(record)).map(|(index, _)| index).collect()
    }

    /// The other end forgot what it sacked, which RFC 2018 section 8 allows it: nothing is sacked any more.
    pub(crate) fn forget_sacked(&mut self) {
        for at in 0..self.records.len() {
            // RACK does not judge them before they are sent again: that they arrived says nothing of when.
            if self.records[at].is_sacked() {
                self.records[at].flags = self.records[at].flags & !SACKED | JUDGED;
            }
        }
        self.sacked_out = 0;
        self.sacked.clear();
    }

    /// Without SACK a duplicate acknowledgement says that one segment arrived, not which (Linux's
    /// `tcp_add_reno_sack`). Never all of them: one must be missing.
    /// Returns whether there were more duplicates than segments that can have arrived.
    pub(crate) fn emulate_sacked(&mut self, segments: u32) -> bool {
        let most = self.packets_out().saturating_sub(self.lost_out.max(1));
        let sacked = self.sacked_out + segments;
        self.sacked_out = sacked.min(most);
        sacked > most
    }

    /// The other end acknowledged `segments`: one filled the hole, and the others were those that duplicates told of.
    /// Answers as [`emulate_sacked`](Self::emulate_sacked).
    pub(crate) fn forget_emulated(&mut self, segments: u32) -> bool {
        self.sacked_out = self.sacked_out.saturating_sub(segments);
        self.emulate_sacked(0)
    }

    /// Nothing is lost after all (a recovery that was undone).
    pub(crate) fn unmark_lost(&mut self) {
        for at in 0..self.records.len() {
            let flags = self.records[at].flags;
            if flags & LOST != 0 {
                let listed = if flags & JUDGED == 0 { LISTED } else { flags & LISTED };
                self.records[at].flags = flags & !LOST | listed;
            }
        }
        self.relink();
        self.lost_out = 0;
        self.waiting = 0;
    }

    /// The first lost segment that waits to be sent again.
    pub(crate) fn next_waiting(&mut self) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        self.hint = self.hint.max(self.base);
        loop {
            let record = self.get(self.hint)?;
            if record.is_lost() && !record.is_retransmitted() {
                return Some(self.hint);
            }
            self.hint += 1;
        }
    }

    /// The indices of lost segments that wait and follow each other, from `index` on: they can leave as one super-segment.
    pub(crate) fn run(&self, index: u64, max: u32, mss: u32) -> Range<u64> {
        let mut end = index;
        while end - index < u64::from(max.max(1)) {
            match self.get(end) {
                Some(record)
                    if record.is_lost() && !record.is_retransmitted() && {
                        let full = self.get(end.wrapping_sub(1)).is_some_and(|last| {
                            last.end.since(last.start) == mss && last.flags & ENDS_BURST == 0
                        });
                        end == index || full
                    } => {}
                _ => break,
            }
            end += 1;
        }
        index..end
    }

    /// A segment was sent again.
    pub(crate) fn retransmitted(&mut self, index: u64, now: Instant, stamp: Stamp) {
        self.unlink(index);
        let Some(record) = self.get_mut(index) else { return };
        record.sent_at = now;
        record.stamp = stamp;
        record.transmissions = record.transmissions.saturating_add(1);
        let was = (record.is_lost(), record.is_retransmitted());
        record.flags = record.flags & !JUDGED | RETRANSMITTED;
        self.retransmitted_out += u32::from(!was.1);
        self.waiting -= u32::from(was == (true, false));
        self.link(index);
        self.single_out(index);
    }

    /// A segment was sent again to probe the tail: nothing says that it is lost, so it counts as one in flight (Linux's
    /// `tcp_send_loss_probe`).
    pub(crate) fn probed(&mut self, index: u64, now: Instant, stamp: Stamp) {
        self.unlink(index);
        let Some(record) = self.get_mut(index) else { return };
        record.sent_at = now;
        record.stamp = stamp;
        record.transmissions = record.transmissions.saturating_add(1);
        record.flags &= !JUDGED;
        self.link(index);
        self.single_out(index);
    }

    /// The other end got the segments within `start..end` twice: no copy of them is on its way any more.
    pub(crate) fn forget_copies(&mut self, start: SeqNumber, end: SeqNumber) {
        let mut at = self.records.partition_point(|record| record.start.before(start));
        while let Some(record) = self.records.get_mut(at).filter(|record| record.end.at_or_before(end)) {
            if record.is_retransmitted() && !record.is_lost() {
                record.flags &= !RETRANSMITTED;
                self.retransmitted_out -= 1;
            }
            at += 1;
        }
    }

    /// How many of the segments within `start..end` were ever sent again.
    pub(crate) fn retransmitted_within(&self, start: SeqNumber, end: SeqNumber) -> u32 {
        let from = self.records.partition_point(|record| record.start.before(start));
        let within = self.records.iter().skip(from).take_while(|record| record.end.at_or_before(end));
        within.filter(|record| record.was_retransmitted()).count() as u32
    }

    /// The index of the first record.
    pub(crate) fn first_index(&self) -> u64 {
        self.base
    }

    /// The index of the last record.
    pub(crate) fn last_index(&self) -> Option<u64> {
        (!self.records.is_empty()).then(|| self.base + self.records.len() as u64 - 1)
    }

    /// The one of those that may still arrive that was sent longest ago.
    pub(crate) fn oldest(&self) -> Option<u64> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// The one that was sent next.
    pub(crate) fn sent_after(&self, index: u64) -> Option<u64> {
        self.get(index).map(|record| record.next).filter(|&next| next != NONE)
    }

    /// Splits records longer than `mss`: the path takes no such segment any more.
    pub(crate) fn split(&mut self, mss: u32) {
        if mss == 0 || self.records.iter().all(|record| record.end.since(record.start) <= mss) {
            return;
        }
        let old = core::mem::take(&mut self.records);
        (self.lost_out, self.sacked_out, self.retransmitted_out, self.waiting) = (0, 0, 0, 0);
        for record in old {
            let mut start = record.start;
            while start.before(record.end) {
                let end = (start + mss).earlier(record.end);
                // Only the last piece ends what the whole did.
                let ends = if end == record.end { 0 } else { ENDS_BURST | PUSHED };
                let flags = record.flags & !ends;
                self.records.push_back(Record {
                    start,
                    end,
                    previous: NONE,
                    next: NONE,
                    flags,
                    ..record.clone()
                });
                self.sacked_out += u32::from(record.is_sacked());
                self.lost_out += u32::from(record.is_lost());
                self.retransmitted_out += u32::from(record.is_retransmitted());
                self.waiting += u32::from(record.is_lost() && !record.is_retransmitted());
                start = end;
            }
        }
        self.hint = self.base;
        self.ordinary = self.base + self.records.len() as u64; // their indices are others now
        self.relink();
    }

    /// Builds the list anew: a record that was taken off may have been sent before others that are on it.
    fn relink(&mut self) {
        (self.oldest, self.newest) = (NONE, NONE);
        let mut order: Vec<u32> = (0..self.records.len() as u32)
            .filter(|&at| self.records[at as usize].flags & LISTED != 0)
            .collect();
        order.sort_by_key(|&at| self.records[at as usize].sent_at);
        for at in order {
            self.records[at as usize].flags &= !LISTED;
            self.link(self.base + u64::from(at));
        }
    }

    fn link(&mut self, index: u64) {
        let newest = self.newest;
        let Some(record) = self.get_mut(index) else { return };
        if record.flags & LISTED != 0 {
            return;
        }
        record.flags |= LISTED;
        record.next = NONE;
        record.previous = newest;
        match self.get_mut(newest) {
            None => self.oldest = index,
            Some(newest) => newest.next = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u64) {
        let Some(record) = self.get_mut(index) else { return };
        if record.flags & LISTED == 0 {
            return;
        }
        record.flags &= !LISTED;
        let (previous, next) = (record.previous, record.next);
        (record.previous, record.next) = (NONE, NONE);
        match self.get_mut(previous) {
            Some(previous) => previous.next = next,
            None => self.oldest = next,
        }
        match self.get_mut(next) {
            Some(next) => next.previous = previous,
            None => self.newest = previous,
        }
    }
}
