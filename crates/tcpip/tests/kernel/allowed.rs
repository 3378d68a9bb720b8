//! The differences that are allowed, each with its reason.

use sockshim_tcpip::wire::tcp::Flags;

use crate::compare::{Difference, Field};
use crate::script::{Said, Segment, What};

/// What is thought of a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Unexplained,
    /// `ends`: what follows from it is not compared.
    Allowed {
        entry: usize,
        ends: bool,
    },
}

/// An entry of the table.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    ends: bool,
    is: fn(&Difference<'_>) -> bool,
}

pub(crate) const TABLE: &[Entry] = &[
    Entry {
        name: "PSH within a write that is longer than half of the window",
        why: "Linux cuts a write into buffers of at most half of the largest window that was offered, and marks their ends \
              (`forced_push`); our send buffer is one stream of bytes",
        ends: false,
        is: |difference| {
            // Half, and in whole segments.
            let buffer = difference.largest_window() / 2 - 1460;
            difference.field == Field::Push && difference.longest_write() > buffer
        },
    },
    Entry {
        name: "PSH in what leaves with CWR",
        why: "the segment with CWR leaves alone: only some devices repeat it rightly in a super-segment (SKB_GSO_TCP_ECN); Linux \
              leaves that to the device",
        ends: false,
        is: |difference| {
            let Some(step) = difference.kernel().map(|said| said.step) else { return false };
            let mut said = difference.kernel.said.iter();
            difference.field == Field::Push
                && said.any(|said| said.step == step && said.flags.contains(Flags::CWR))
        },
    },
    Entry {
        name: "a probe of a closed window after data of the other end",
        why: "Linux sets the time of the next probe anew with each acknowledgement, but not with one that header prediction finds \
              in data; ours with each",
        ends: true,
        is: |difference| {
            let probe = |said: &Said| said.len == 0 && said.flags == Flags::ACK && difference.is_probe(said);
            matches!(difference.field, Field::Time | Field::OnlyKernel | Field::Numbers)
                && difference.kernel().is_some_and(probe)
                && difference.segments().any(|segment| segment.len > 0 && segment.window == 0)
        },
    },
    Entry {
        name: "a partial segment fills the window",
        why: "where the window ends within one of its buffers, Linux sends what fits; ours waits for room for a whole segment \
              (RFC 9293 section 3.8.6.2.1)",
        ends: true,
        is: |difference| {
            let fills = |said: &Said| {
                let mut ends = difference.windows(said.step).map(|(ack, window)| i64::from(ack) + window);
                said.len > 0 && ends.any(|end| end == i64::from(said.end()))
            };
            difference.breaks_order() && difference.kernel().is_some_and(fills)
        },
    },
    Entry {
        name: "an acknowledgement within a segment",
        why: "Linux then cuts its buffers anew (`tcp_trim_head`, `tcp_fragment`); ours are the segments as they were sent, each \
              delivered when all of it is",
        ends: true,
        is: |difference| {
            (difference.breaks_order() || difference.is_inside() || difference.field == Field::Push)
                && difference.acknowledges_within()
        },
    },
    Entry {
        name: "options of an answer when both ends connect",
        why: "Linux sends its SYN again with all its options, whatever the other end's SYN had; ours answers with what both have \
              (RFC 7323 section 2.2)",
        ends: false,
        is: |difference| {
            let answer = difference.kernel().is_some_and(|said| said.flags.contains(Flags::SYN | Flags::ACK));
            matches!(difference.field, Field::SynOptions | Field::Stamps)
                && difference.script.setup.connects
                && answer
        },
    },
    Entry {
        name: "a FIN, and data behind it",
        why: "the other end contradicts itself, and no rule says what to report of it",
        ends: true,
        is: |difference| difference.has_data_behind_fin(),
    },
    Entry {
        name: "a segment that is sent again when there are more or fewer blocks to report",
        why: "Linux cuts its buffers anew by the room that options leave now; ours sends the segment as it was, where the path \
              takes the packet",
        ends: true,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            let reported = difference.kernel.said[..difference.place]
                .iter()
                .any(|said| said.len > 0 && !said.sack.is_empty());
            let blocks = reported || !kernel.sack.is_empty();
            difference.field == Field::Len && blocks && (1..=36).contains(&ours.len.abs_diff(kernel.len))
        },
    },
    Entry {
        name: "small segments are acknowledged at once, or a moment later",
        why: "of several segments that nobody has read Linux acknowledges the second one at once if it can offer the window \
              anew, which it knows from the memory that they take (`__tcp_select_window`); ours counts the bytes of the stream",
        ends: true,
        is: |difference| difference.is_early_acknowledgement(),
    },
    Entry {
        name: "an answer a tick before or after the delay of acknowledgements",
        why: "whether data answers what came before, so that later acknowledgements wait for such data, Linux decides in ticks of \
              4 ms (`tcp_event_data_sent`), and the moments of ticks are not known",
        ends: true,
        is: |difference| {
            let at = |step: usize| difference.kernel.times.get(step).copied().unwrap_or(0);
            let steps = &difference.script.steps[..difference.steps()];
            (difference.breaks_order()
                || matches!(difference.field, Field::Time | Field::Sack | Field::Stamps))
                && steps.iter().enumerate().any(|(send, step)| {
                    let data = steps[..send].iter().rposition(|step| match &step.what {
                        What::Arrives(segment) => segment.len > 0,
                        _ => false,
                    });
                    matches!(step.what, What::Send(_))
                        && data.is_some_and(|data| (35_000..45_000).contains(&(at(send) - at(data))))
                })
        },
    },
    Entry {
        name: "data that fits into one of the windows",
        why: "Linux offers a window by the memory that segments take, and makes it larger for those that take little \
              (`tcp_grow_window`); ours counts the bytes of the stream",
        ends: true,
        is: |difference| difference.reaches_beyond_a_window(),
    },
    Entry {
        name: "the stamp of an acknowledgement that is too old",
        why: "Linux takes it if header prediction finds nothing else wrong, and else not; ours never does",
        ends: false,
        is: |difference| difference.field == Field::Stamps && difference.has_old_acknowledgement(),
    },
    Entry {
        name: "one segment more after the reordering timer",
        why: "when that timer finds a loss, Linux's PRR counts a segment as delivered (`tcp_rack_reo_timeout`), so one more is sent \
              again at the next report; ours counts none (RFC 9937 section 6.2)",
        ends: true,
        is: |difference| {
            let differs =
                difference.breaks_order() || matches!(difference.field, Field::Time | Field::Stamps);
            differs && difference.follows_reordering_timer()
        },
    },
    Entry {
        name: "a SYN or a reset after the socket was closed",
        why: "in FIN-WAIT-2 of a closed socket Linux has left of the connection what is left in TIME-WAIT, which any reset in the \
              window ends and any SYN resets; ours is the connection itself, with the challenges of RFC 5961",
        ends: true,
        is: |difference| {
            let steps = &difference.script.steps[..difference.steps()];
            let closed = steps.iter().position(|step| step.what == What::Close);
            difference.breaks_order()
                && closed.is_some_and(|closed| {
                    steps[closed..].iter().any(|step| match &step.what {
                        What::Arrives(segment) => segment.flags.intersects(Flags::SYN | Flags::RST),
                        _ => false,
                    })
                })
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
        name: "a buffer of several segments is lost as a whole",
        why: "at a second time-out Linux takes the first of its buffers for lost, with all segments in it; ours the first segment \
              (RFC 8985 section 6.3)",
        ends: true,
        is: |difference| {
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
    Entry {
        name: "what is lost waits while something that is not is on its way again",
        why: "after a time-out that was undone Linux sends nothing again while as many retransmissions are under way as segments \
              are lost, although they are others (`tcp_xmit_retransmit_queue`)",
        ends: true,
        is: |difference| {
            let again = |ours: &Said| {
                difference.ours.said.iter().any(|said| said.seq == ours.seq && said.at < ours.at)
            };
            difference.field == Field::OnlyOurs
                && difference.ours().is_some_and(again)
                && difference.kernel.info.is_some_and(|info| info.lost > 0 && info.retrans >= info.lost)
        },
    },
];

pub(crate) fn verdict(difference: &Difference<'_>) -> Verdict {
    match TABLE.iter().position(|entry| (entry.is)(difference)) {
        Some(entry) => Verdict::Allowed { entry, ends: TABLE[entry].ends },
        None => Verdict::Unexplained,
    }
}

/// The blocks without that of a duplicate (RFC 2883 section 4).
fn without_duplicate(said: &Said) -> &[(i32, i32)] {
    match said.sack[..] {
        [first, ..] if first.0 < said.ack => &said.sack[1..],
        [first, second, ..] if first.0 >= second.0 && first.1 <= second.1 => &said.sack[1..],
        _ => &said.sack,
    }
}

/// Whether the blocks are the same but for a duplicate, which may leave no room for the last one.
fn same_blocks(kernel: &Said, ours: &Said) -> bool {
    let (kernel, ours) = (without_duplicate(kernel), without_duplicate(ours));
    kernel.iter().zip(ours).all(|(a, b)| a == b)
        && (kernel.len() == ours.len() || kernel.len().min(ours.len()) >= 2)
}

impl Difference<'_> {
    /// The kernel sends a segment again in answer to a report, and sent one again before when a timer ran out.
    fn follows_reordering_timer(&self) -> bool {
        let highest = |place: usize| self.kernel.said[..place].iter().map(Said::end).max().unwrap_or(0);
        let again = |place: usize| {
            let said = &self.kernel.said[place];
            said.len > 0 && said.seq < highest(place)
        };
        let at = |said: &Said| {
            said.step.checked_sub(1).and_then(|step| self.kernel.times.get(step)).copied().unwrap_or(0)
        };
        let Some(kernel) = self.kernel() else { return false };
        let reported = kernel.step.checked_sub(1).is_some_and(|step| match &self.script.steps[step].what {
            What::Arrives(segment) => segment.blocks > 0,
            _ => false,
        });
        let by_timer = |place: usize| {
            let said = &self.kernel.said[place];
            again(place) && said.at > at(said) + 1500
        };
        again(self.place) && reported && kernel.at < at(kernel) + 1500 && (0..self.place).any(by_timer)
    }

    /// A segment has bytes of one that came before.
    fn overlaps(&self) -> bool {
        let all: Vec<&Segment> = self.segments().filter(|segment| segment.len > 0).collect();
        let end = |segment: &Segment| segment.seq + i32::from(segment.len);
        all.iter().enumerate().any(|(place, later)| {
            all[..place].iter().any(|former| later.seq < end(former) && former.seq < end(later))
        })
    }

    /// One stack sends another segment than the other one, or none.
    fn breaks_order(&self) -> bool {
        matches!(self.field, Field::OnlyKernel | Field::OnlyOurs | Field::Flags | Field::Numbers | Field::Len)
    }

    /// What is sent agrees, and what is thought of it does not.
    fn is_inside(&self) -> bool {
        matches!(self.field, Field::Scoreboard | Field::Congestion)
    }

    /// The steps before the difference.
    fn steps(&self) -> usize {
        if self.is_inside() || matches!(self.field, Field::Call | Field::State) {
            return self.script.steps.len();
        }
        let said = [self.kernel(), self.ours()].into_iter().flatten().map(|said| said.step);
        said.max().unwrap_or(self.script.steps.len())
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.script.steps[..self.steps()].iter().filter_map(|step| match &step.what {
            What::Arrives(segment) => Some(segment),
            _ => None,
        })
    }

    /// A number from before what is acknowledged.
    fn is_probe(&self, said: &Said) -> bool {
        self.windows(said.step).map(|(ack, _)| ack).max().is_some_and(|una| said.seq < una)
    }

    fn longest_write(&self) -> i64 {
        let writes = self.script.steps[..self.steps()].iter().map(|step| match step.what {
            What::Send(len) => len as i64,
            _ => 0,
        });
        writes.max().unwrap_or(0)
    }

    /// By how much the other end's windows are shifted.
    fn shift(&self) -> u8 {
        let syn = self.segments().find(|segment| segment.flags.contains(Flags::SYN));
        syn.and_then(|syn| syn.scale).unwrap_or(0)
    }

    /// Both ends have shifts.
    fn has_scale(&self) -> bool {
        self.segments().any(|segment| segment.flags.contains(Flags::SYN) && segment.scale.is_some())
    }

    fn windows(&self, steps: usize) -> impl Iterator<Item = (i32, i64)> {
        let shift = self.shift();
        let segments = self.script.steps[..steps].iter().filter_map(|step| match &step.what {
            What::Arrives(segment) => Some(segment),
            _ => None,
        });
        segments.filter(|segment| segment.flags.contains(Flags::ACK)).map(move |segment| {
            let syn = segment.flags.contains(Flags::SYN);
            (segment.ack, i64::from(segment.window) << if syn { 0 } else { shift })
        })
    }

    fn largest_window(&self) -> i64 {
        self.windows(self.steps()).map(|(_, window)| window).max().unwrap_or(0)
    }

    /// Ours acknowledges small segments at once where Linux does so later.
    fn is_early_acknowledgement(&self) -> bool {
        let Some(ours) = self.ours().filter(|ours| ours.flags == Flags::ACK && ours.len == 0) else {
            return false;
        };
        let small = match ours.step.checked_sub(1).map(|step| self.script.steps[step].what) {
            Some(What::Arrives(segment)) => (1..1200).contains(&segment.len),
            _ => false,
        };
        let answered = self
            .kernel
            .said
            .iter()
            .any(|said| said.step == ours.step && said.ack == ours.ack && said.at < ours.at + 2000);
        small && !answered && (self.breaks_order() || matches!(self.field, Field::Time | Field::Stamps))
    }

    /// A segment of the other end reaches beyond the window that one of the stacks has offered.
    fn reaches_beyond_a_window(&self) -> bool {
        let steps = self.script.steps[..self.steps()].iter().enumerate();
        let mut arrivals = steps.filter_map(|(step, it)| match it.what {
            What::Arrives(segment) if segment.len > 0 => Some((step, segment.seq + i32::from(segment.len))),
            _ => None,
        });
        arrivals.any(|(step, end)| {
            let beyond = |record: &crate::script::Record| {
                let syn = record.said.iter().find(|said| said.flags.contains(Flags::SYN));
                let scaled = syn.and_then(|said| said.scale).filter(|_| self.has_scale());
                let edge = record
                    .said
                    .iter()
                    .filter(|said| said.step <= step && said.flags.contains(Flags::ACK))
                    .map(|said| {
                        let shift = if said.flags.contains(Flags::SYN) { 0 } else { scaled.unwrap_or(0) };
                        i64::from(said.ack) + (i64::from(said.window) << shift)
                    });
                edge.max().is_some_and(|edge| i64::from(end) > edge)
            };
            beyond(self.kernel) != beyond(self.ours)
        })
    }

    /// A segment has acknowledged less than one before it.
    fn has_old_acknowledgement(&self) -> bool {
        let mut most = i32::MIN;
        self.segments().filter(|segment| segment.flags.contains(Flags::ACK)).any(|segment| {
            let old = segment.ack < most;
            most = most.max(segment.ack);
            old
        })
    }

    /// The other end has acknowledged, or reported, a part of a segment.
    fn acknowledges_within(&self) -> bool {
        let within = |number: i32| {
            let mut said = self.kernel.said.iter();
            said.any(|said| said.seq < number && number < said.seq.wrapping_add(said.len as i32))
        };
        self.segments().any(|segment| {
            let blocks = &segment.sack[..segment.blocks];
            within(segment.ack) || blocks.iter().any(|&(from, to)| within(from) || within(to))
        })
    }

    fn has_data_behind_fin(&self) -> bool {
        let fins = self.segments().filter(|segment| segment.flags.contains(Flags::FIN));
        fins.map(|fin| fin.seq + i32::from(fin.len)).any(|end| {
            self.segments().any(|segment| {
                let behind = segment.seq + i32::from(segment.len);
                (segment.len > 0 && behind > end) || (segment.flags.contains(Flags::FIN) && behind != end)
            })
        })
    }
}
