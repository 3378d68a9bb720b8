//! Allowed differences of what is reported missing, taken for lost and sent again, and of the congestion window.

use super::Entry;
use sockshim_tcpip::tcp::congestion::INFINITE_SSTHRESH;
use sockshim_tcpip::wire::tcp::Flags;

use crate::compare::Field;
use crate::conditions::{same_blocks, without_duplicate};
use crate::script::Inner;

pub(super) const TABLE: &[Entry] = &[
    Entry {
        name: "one segment more after the reordering timer",
        why: "when that timer finds a loss, Linux's PRR counts a segment as delivered (`tcp_rack_reo_timeout`), so one more is sent \
              again at the next report; ours counts none (RFC 9937 section 6.2)",
        ends: true,
        is: |difference| {
            let differs = difference.breaks_order()
                || difference.is_inside()
                || matches!(difference.field, Field::Time | Field::Stamps);
            differs && difference.follows_reordering_timer()
        },
    },
    Entry {
        name: "when a part that came twice is reported",
        why: "a segment that follows one which is waiting, and overlaps another, becomes one with the first in Linux, which \
              finds the duplicate only when the gap before is filled (`tcp_ooo_try_coalesce`)",
        ends: false,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            difference.field == Field::Sack && same_blocks(kernel, ours) && difference.overlaps()
        },
    },
    Entry {
        name: "a block that was not reported for a while",
        why: "Linux joins what arrives with the four blocks that it has reported last only (`tcp_sack_new_ofo_skb`), and so reports \
              a part of a block that it has forgotten; ours reports all of it",
        ends: false,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            let mut blocks: Vec<i32> = difference
                .kernel
                .said
                .iter()
                .flat_map(|said| said.sack.iter().map(|block| block.0))
                .collect();
            blocks.sort_unstable();
            blocks.dedup();
            let known: Vec<(i32, i32)> = difference.ours.said[..=difference.place]
                .iter()
                .flat_map(|said| said.sack.iter().copied())
                .collect();
            let within =
                |kernel: &(i32, i32)| known.iter().any(|ours| ours.0 <= kernel.0 && kernel.1 <= ours.1);
            difference.field == Field::Sack
                && blocks.len() > 4
                && without_duplicate(kernel).len().abs_diff(without_duplicate(ours).len()) <= 1
                && without_duplicate(kernel).iter().all(within)
        },
    },
    Entry {
        name: "a copy of what was not taken for lost any more",
        why: "after a time-out that was for nothing Linux goes on counting the copy that it has sent. When the segment is taken for \
              lost after all, the copy is believed to be under way (`tcp_mark_skb_lost`), or counted twice when it is sent \
              again (`tcp_retransmit_skb`), so that less is sent; with ours the copy is lost as well",
        ends: true,
        is: |difference| {
            (difference.breaks_order()
                || difference.is_inside()
                || matches!(difference.field, Field::Time | Field::Push | Field::Stamps))
                && difference.has_stray_copy()
        },
    },
    Entry {
        name: "a SYN that was sent again, without SACK",
        why: "Linux is in the Loss state then, until something above the SYN is acknowledged, and looks for no losses before \
              (`tcp_is_non_sack_preventing_reopen`); ours forgets the time-out of the SYN when it is answered",
        ends: true,
        is: |difference| {
            let syns = difference.kernel.said.iter().filter(|said| said.flags.contains(Flags::SYN)).count();
            let sack = difference
                .segments()
                .any(|segment| segment.flags.contains(Flags::SYN) && segment.sack_permitted);
            let end = (difference.steps() + 1).min(difference.ours.before.len());
            let steps = difference.kernel.before[..end].iter().zip(&difference.ours.before[..end]);
            let last = difference.is_inside().then_some((&difference.kernel.info, &difference.ours.info));
            let mut states = steps.chain(last);
            difference.script.setup.connects
                && syns > 1
                && !sack
                && states.any(|pair| match pair {
                    (Some(kernel), Some(ours)) => (kernel.ca_state, ours.ca_state) == (4, 0),
                    _ => false,
                })
        },
    },
    Entry {
        name: "blocks below the acknowledgement of a FIN",
        why: "when what was missing before a FIN arrives after our own FIN, Linux acknowledges the FIN before it forgets the blocks \
              that it has reported (`tcp_fin` within `tcp_ofo_queue`)",
        ends: true,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            difference.field == Field::Sack
                && difference.segments().any(|segment| segment.flags.contains(Flags::FIN))
                && kernel.ack == ours.ack
                && ours.sack.len() < kernel.sack.len()
                && kernel.sack.iter().all(|block| block.1 <= kernel.ack)
        },
    },
    Entry {
        name: "how slow start ends",
        why: "Linux's HyStart leaves slow start at once when the delay grows, ours makes sure first (RFC 9406)",
        ends: true,
        is: |difference| {
            let differs = |(kernel, ours): (&Option<Inner>, &Option<Inner>)| {
                let (Some(kernel), Some(ours)) = (kernel, ours) else { return false };
                (kernel.ca_state, ours.ca_state) == (0, 0)
                    && (kernel.cwnd, kernel.ssthresh) != (ours.cwnd, ours.ssthresh)
                    && kernel.cwnd.min(ours.cwnd) > 16
                    && kernel.ssthresh.max(ours.ssthresh) == INFINITE_SSTHRESH
            };
            let end = (difference.steps() + 1).min(difference.ours.before.len());
            let steps = difference.kernel.before[..end].iter().zip(&difference.ours.before[..end]);
            let last = difference.is_inside().then_some((&difference.kernel.info, &difference.ours.info));
            difference.script.setup.cubic && steps.chain(last).any(differs)
        },
    },
    Entry {
        name: "how CUBIC's window grows",
        why: "Linux grows it by one segment for so many delivered ones, as many as at the first of those that are acknowledged together \
              (`bictcp_update`), ours by parts of a segment (RFC 9438 section 4.2 and 4.3); so after an acknowledgement the two are \
              one segment apart, or a half of what it acknowledges",
        ends: true,
        is: |difference| {
            difference.script.setup.cubic
                && (difference.breaks_order()
                    || difference.is_inside()
                    || matches!(difference.field, Field::Time | Field::Push | Field::Stamps))
                && difference.grows_otherwise()
        },
    },
    Entry {
        name: "a buffer of several segments is lost as a whole",
        why: "at a time-out Linux takes the first of its buffers for lost, with all segments in it; ours the first segment \
              (RFC 8985 section 6.3)",
        ends: true,
        is: |difference| {
            // The window is what is in flight, and one more.
            let whole = |(kernel, ours): (&Option<Inner>, &Option<Inner>)| {
                let (Some(kernel), Some(ours)) = (kernel, ours) else { return false };
                (kernel.ca_state, ours.ca_state) == (4, 4)
                    && (kernel.unacked, kernel.sacked, kernel.retrans, kernel.ssthresh)
                        == (ours.unacked, ours.sacked, ours.retrans, ours.ssthresh)
                    && kernel.lost > ours.lost
                    && kernel.cwnd + kernel.lost == ours.cwnd + ours.lost
            };
            let end = (difference.steps() + 1).min(difference.ours.before.len());
            let mut steps = difference.kernel.before[..end].iter().zip(&difference.ours.before[..end]);
            if difference.breaks_order() && steps.any(whole) {
                return true;
            }
            let (Some(kernel), Some(ours)) = (difference.kernel.info, difference.ours.info) else {
                return false;
            };
            difference.is_inside()
                && (kernel.ca_state, ours.ca_state) == (4, 4)
                && (kernel.unacked, kernel.sacked, kernel.ssthresh)
                    == (ours.unacked, ours.sacked, ours.ssthresh)
                && (kernel.lost, kernel.retrans) != (ours.lost, ours.retrans)
        },
    },
];
