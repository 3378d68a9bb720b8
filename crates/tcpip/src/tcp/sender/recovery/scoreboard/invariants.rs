//! What must be true of a scoreboard, for tests and fuzzers.

use super::{ENDS_BURST, LISTED, NONE, PUSHED, Record, Scoreboard};
use crate::seq::SeqNumber;
use crate::time::Instant;

impl Scoreboard {
    /// Counts everything anew.
    pub(crate) fn check_invariants(&self, una: SeqNumber, nxt: SeqNumber, sack: bool) {
        let count =
            |which: fn(&Record) -> bool| self.records.iter().filter(|record| which(record)).count() as u32;
        if sack {
            assert_eq!(self.sacked_out, count(Record::is_sacked), "sacked segments");
        } else {
            assert!(self.sacked_out <= self.packets_out(), "duplicates of what is in flight");
        }
        assert_eq!(self.lost_out, count(Record::is_lost), "lost segments");
        assert_eq!(self.retransmitted_out, count(Record::is_retransmitted), "segments sent again");
        assert_eq!(
            self.waiting,
            count(|r| r.is_lost() && !r.is_retransmitted()),
            "segments to be sent again"
        );
        assert!(
            self.sacked_out + self.lost_out <= self.packets_out() + u32::from(!sack),
            "sacked or lost, not both"
        );
        if let (Some(first), Some(last)) = (self.first(), self.last()) {
            // SND.UNA may be beyond what the SYN took.
            assert_eq!((first.start, last.end), (una, nxt), "records cover what is in flight");
        }
        for pair in 1..self.records.len() {
            assert_eq!(self.records[pair - 1].end, self.records[pair].start, "segments follow each other");
        }
        let mut listed = 0;
        let mut at = self.oldest();
        let mut before = Instant::ZERO;
        while let Some(index) = at {
            let record = self.get(index).expect("a listed segment is in flight");
            assert!(record.sent_at >= before, "the list is in order of sending");
            before = record.sent_at;
            listed += 1;
            at = self.sent_after(index);
        }
        assert_eq!(listed, count(|r| r.flags & LISTED != 0), "all that are listed are linked");
        if self.is_ordinary() {
            let once = |r: &Record| r.transmissions == 1 && r.flags & !(ENDS_BURST | PUSHED) == LISTED;
            assert_eq!(count(once), self.packets_out(), "nothing is known of what is ordinary");
            let in_order = (self.base..).zip(&self.records).all(|(index, record)| {
                record.next == if Some(index) == self.last_index() { NONE } else { index + 1 }
            });
            assert!(in_order, "what was sent once was sent in order");
        }
    }
}
