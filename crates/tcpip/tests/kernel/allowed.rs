//! The differences that are allowed, each with its reason.

mod losses;

use sockshim_tcpip::wire::tcp::Flags;

use crate::compare::{Difference, Field};
use crate::script::{Inner, Record, Said, Segment, What};

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

const TABLE: &[Entry] = &[
    Entry {
        name: "PSH within a write that is longer than half of the window",
        why: "Linux cuts a write into buffers of at most half of the largest window that was offered, and marks their ends \
              (`forced_push`); our send buffer is one stream of bytes",
        ends: false,
        is: |difference| difference.field == Field::Push && difference.writes_more_than_half(),
    },
    Entry {
        name: "PSH at the end of what leaves in one go",
        why: "how many segments leave in one go follows from the measured speed (`tcp_tso_autosize`), and the two do not measure the \
              same microseconds; the end of a write is another thing",
        ends: false,
        is: |difference| {
            let Some(kernel) = difference.kernel() else { return false };
            let one_go = |record: &Record| {
                let Some(said) = record.said.get(difference.place) else { return false };
                let neighbour = |other: &Said| {
                    other.len > 0
                        && other.step == said.step
                        && (other.end() == said.seq || other.seq == said.end())
                };
                record.said.iter().any(neighbour)
            };
            difference.field == Field::Push
                && !difference.ends_write(kernel.end())
                && one_go(difference.kernel)
                && one_go(difference.ours)
        },
    },
    Entry {
        name: "PSH in what leaves with CWR",
        why: "the segment with CWR leaves alone: only some devices repeat it rightly in a super-segment (SKB_GSO_TCP_ECN); Linux \
              leaves that to the device",
        ends: false,
        is: |difference| {
            // Also when they are sent again, in the portions in which they left at first.
            let Some(kernel) = difference.kernel() else { return false };
            let said = &difference.kernel.said;
            let step = said.iter().find(|said| said.seq == kernel.seq).map(|said| said.step);
            difference.field == Field::Push
                && said.iter().any(|said| Some(said.step) == step && said.flags.contains(Flags::CWR))
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
            // The segment before it then is not the last of its buffer, and carries no PSH.
            let next = difference.kernel.said.get(difference.place + 1);
            let follows = |next: &&Said| difference.kernel().is_some_and(|said| said.end() == next.seq);
            ((difference.breaks_order() || difference.field == Field::Time)
                && difference.kernel().is_some_and(fills))
                || (difference.field == Field::Push && next.filter(follows).is_some_and(fills))
        },
    },
    Entry {
        name: "an acknowledgement within a segment",
        why: "Linux then cuts its buffers anew (`tcp_trim_head`, `tcp_fragment`); ours are the segments as they were sent, each \
              delivered when all of it is",
        ends: true,
        is: |difference| {
            (difference.breaks_order()
                || difference.is_inside()
                || matches!(difference.field, Field::Push | Field::Time | Field::Stamps))
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
            let before = &difference.kernel.said[..difference.place];
            let reported = before.iter().any(|said| said.len > 0 && !said.sack.is_empty());
            let blocks = reported || !kernel.sack.is_empty();
            // A probe of the tail begins behind as many shorter segments as there are before it.
            let shift = kernel.seq.abs_diff(ours.seq).max(kernel.end().abs_diff(ours.end()));
            let again = before.iter().any(|said| said.len > 0 && said.end() > kernel.seq.max(ours.seq));
            (difference.field == Field::Len
                && blocks
                && (1..=36).contains(&ours.len.abs_diff(kernel.len)))
                || (matches!(difference.field, Field::Numbers | Field::Len)
                    && blocks
                    && again
                    && kernel.len > 0
                    && ours.len > 0
                    && ((1..=360).contains(&shift) || (kernel.end() == ours.end() && ours.len <= 36)))
                // A probe of the tail is one of them, cut anew.
                || (difference.field == Field::Numbers
                    && before.iter().any(|said| {
                        said.seq == kernel.seq
                            && !said.sack.is_empty()
                            && (1..=36).contains(&kernel.len.abs_diff(said.len))
                    }))
                // What is sent for the first time was cut when it was written.
                || (difference.field == Field::Len
                    && !kernel.sack.is_empty()
                    && (kernel.seq, &kernel.sack) == (ours.seq, &ours.sack)
                    && kernel.flags.contains(Flags::PSH)
                    && (1..=360).contains(&kernel.len)
                    && kernel.len % 12 == 0)
                // What reports a duplicate only leaves before data, which then has the room again.
                || (difference.field == Field::Len
                    && kernel.len == 0
                    && ours.len > 0
                    && !kernel.sack.is_empty()
                    && kernel.sack == ours.sack)
        },
    },
    Entry {
        name: "PSH of what is sent again after it was reported",
        why: "segments that are reported one after the other become one buffer in Linux, which keeps their flags together \
              (`tcp_shifted_skb`), also when they have to be sent again after all",
        ends: false,
        is: |difference| {
            let Some(kernel) = difference.kernel() else { return false };
            let again = difference.kernel.said[..difference.place].iter().any(|said| said.seq == kernel.seq);
            let reported = difference.segments().any(|segment| {
                let touches = |&(from, to): &(i32, i32)| from <= kernel.end() && to >= kernel.seq;
                segment.sack[..segment.blocks].iter().any(touches)
            });
            // And the flag that one of them was sent before, so that no round-trip time is taken of the others.
            matches!(difference.field, Field::Push | Field::Time) && again && reported
        },
    },
    Entry {
        name: "what leaves in answer to data acknowledges it, or does not",
        why: "what is sent again, or instead of that, leaves in Linux while the acknowledgement is processed, before the data \
              that came with it; ours sends when the whole segment has been processed",
        ends: true,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            let data =
                kernel.step.checked_sub(1).is_some_and(|step| match &difference.script.steps[step].what {
                    What::Arrives(segment) => segment.len > 0,
                    _ => false,
                });
            // Without SACK a duplicate follows, which is another segment when the one before it did not count the data.
            let duplicate = difference.kernel.said[..difference.place].last().is_some_and(|former| {
                (former.step, former.ack) == (kernel.step, kernel.ack) && former.len > 0
            });
            let alone = kernel.flags == Flags::ACK && kernel.len == 0 && ours.step > kernel.step;
            (data && difference.breaks_order() && duplicate && alone)
                || (matches!(difference.field, Field::Numbers | Field::Sack)
                    && data
                    && kernel.step == ours.step
                    && (kernel.seq, kernel.len) == (ours.seq, ours.len)
                    && (kernel.len > 0 || kernel.flags.contains(Flags::FIN))
                    && kernel.ack <= ours.ack)
        },
    },
    Entry {
        name: "data that acknowledges nothing new",
        why: "by header prediction Linux does not look at its acknowledgement, unless it has to ask for memory for the data first \
              (`sk_forward_alloc`); ours never does, and sends again what is lost with the next acknowledgement",
        ends: true,
        is: |difference| {
            let Some(step) = difference.kernel().map(|said| said.step).filter(|&step| step > 0) else {
                return false;
            };
            let What::Arrives(segment) = difference.script.steps[step - 1].what else { return false };
            let una = difference.windows(step - 1).map(|(ack, _)| ack).max();
            let again = difference.kernel().is_some_and(|said| said.len > 0);
            difference.breaks_order() && again && segment.len > 0 && Some(segment.ack) == una
        },
    },
    Entry {
        name: "data with an acknowledgement from before the connection",
        why: "by header prediction Linux takes data whatever it acknowledges; ours wants an acknowledgement of what was sent \
              (RFC 5961 section 5)",
        ends: true,
        is: |difference| {
            let forged = |segment: &Segment| {
                segment.len > 0 && segment.flags.without(Flags::PSH) == Flags::ACK && segment.ack < 1
            };
            (difference.breaks_order() || difference.field == Field::Time)
                && difference.segments().any(forged)
        },
    },
    Entry {
        name: "data that is late",
        why: "Linux drops data with a stamp from before TS.Recent (RFC 7323 section 5.3); ours takes it while the stream has a hole, \
              for then it was sent before what filled another one",
        ends: true,
        is: |difference| {
            let late =
                |segment: &Segment| segment.len > 0 && segment.stamps.is_some_and(|stamps| stamps.back > 1);
            (difference.breaks_order() || matches!(difference.field, Field::Sack | Field::Stamps))
                && difference.segments().any(late)
        },
    },
    Entry {
        name: "an acknowledgement and a timer of one moment",
        why: "a FIN alone is acknowledged with the next tick of the clock; when another timer is due by then, what it sends carries \
              the acknowledgement with ours",
        ends: true,
        is: |difference| {
            let (Some(kernel), Some(ours)) = (difference.kernel(), difference.ours()) else { return false };
            let next = difference.kernel.said.get(difference.place + 1);
            kernel.flags == Flags::ACK
                && kernel.len == 0
                && ours.len > 0
                && next.is_some_and(|next| {
                    (next.seq, next.len, next.ack) == (ours.seq, ours.len, ours.ack)
                        && next.at < kernel.at + 5000
                })
        },
    },
    Entry {
        name: "microseconds between segments that leave in one go",
        why: "Linux takes the time for each portion of a write, so that by RACK (RFC 8985 section 6.2) the last one is lost some \
              microseconds later, which the reordering timer makes milliseconds; with ours all have left at one time",
        ends: true,
        is: |difference| {
            let later = |(kernel, ours): (&Option<Inner>, &Option<Inner>)| {
                let (Some(kernel), Some(ours)) = (kernel, ours) else { return false };
                kernel.lost != ours.lost
                    && kernel.sacked == ours.sacked
                    && kernel.ca_state.max(ours.ca_state) == 3
                    && kernel.ca_state.min(ours.ca_state) > 0
            };
            let end = (difference.steps() + 1).min(difference.ours.before.len());
            let mut steps = difference.kernel.before[..end].iter().zip(&difference.ours.before[..end]);
            let shown = steps.any(later);
            let waits = difference.waits_for_reordering_timer() || difference.reports_one_go();
            difference.breaks_order() && (shown || waits)
        },
    },
    Entry {
        name: "an acknowledgement within what was reported",
        why: "segments that are reported one after the other become one buffer in Linux (`tcp_shifted_skb`), of which such an \
              acknowledgement takes a part (`tcp_trim_head`): what is left has the time and the marks of the whole; ours are \
              the segments as they were sent",
        ends: true,
        is: |difference| {
            (difference.breaks_order() || difference.is_inside() || difference.field == Field::Time)
                && difference.acknowledges_within_report()
        },
    },
    Entry {
        name: "slow start after idle, within a tick of the time-out, or behind what waits",
        why: "Linux counts the pause in ticks of 4 ms (`tcp_slow_start_after_idle_check`), and the moments of ticks are not known; \
              when the pause is as long as the time-out, or a multiple of it, one of the two halves its window once more. And Linux \
              asks for each of its buffers, also for one behind those that wait for the window; ours when nothing waits",
        ends: true,
        is: |difference| {
            (difference.breaks_order() || difference.is_inside() || difference.field == Field::Time)
                && difference.restarts_once()
        },
    },
    Entry {
        name: "a FIN for which the window has no room, and the data before it",
        why: "the FIN is in the buffer of the last data in Linux, which waits with it (`tcp_snd_wnd_test`); ours sends the data, \
              which fits, and then the FIN",
        ends: true,
        is: |difference| {
            let (kernel, ours) = (difference.kernel(), difference.ours());
            let Some(ours) = ours.filter(|ours| ours.len > 0 && !ours.flags.contains(Flags::FIN)) else {
                return false;
            };
            let mut ends = difference.windows(ours.step).map(|(ack, window)| i64::from(ack) + window);
            let whole =
                |said: &Said| said.flags.contains(Flags::FIN) && (said.seq, said.len) == (ours.seq, ours.len);
            // Or the connection ends before there is room.
            let steps = &difference.script.steps[..ours.step.min(difference.script.steps.len())];
            let ended = steps.iter().any(|step| matches!(step.what, What::Shutdown | What::Close));
            // Or a part of it leaves as a probe, later.
            let later = |said: &Said| said.at > ours.at + 150_000;
            let waits = ended
                && difference
                    .kernel
                    .said
                    .iter()
                    .all(|said| said.len == 0 || said.end() <= ours.seq || later(said));
            difference.breaks_order()
                && ends.any(|end| end == i64::from(ours.end()))
                && (difference.kernel.said.iter().any(whole) || waits)
                && kernel.is_none_or(|kernel| kernel.step >= ours.step)
        },
    },
    Entry {
        name: "a probe of the tail, and the report of the one before, at one moment",
        why: "Linux has one probe under way at most (`tlp_high_seq`), and does not send the next one if its timer runs a tick \
              before the report that the last one arrived twice (RFC 8985 section 7.4)",
        ends: true,
        is: |difference| {
            let Some(ours) = difference.ours() else { return false };
            let again = difference.ours.said[..difference.place]
                .iter()
                .any(|said| (said.seq, said.len) == (ours.seq, ours.len) && said.end() > said.seq);
            let steps = difference.script.steps.iter().zip(&difference.kernel.times);
            let mut reports = steps.filter(|(step, _)| match &step.what {
                What::Arrives(segment) => segment.blocks > 0 && segment.sack[0].1 <= segment.ack,
                _ => false,
            });
            difference.breaks_order() && again && reports.any(|(_, &at)| (at..at + 8000).contains(&ours.at))
        },
    },
    Entry {
        name: "a SYN with data that acknowledges ours, in a handshake",
        why: "Linux takes the SYN off and makes a connection of it (`tcp_check_req`), which challenges the SYN; ours challenges it \
              and goes on waiting (RFC 5961 section 4); no honest program sends one",
        ends: true,
        is: |difference| {
            let strange = |segment: &Segment| {
                segment.flags.contains(Flags::SYN | Flags::ACK) && segment.len > 0 && segment.ack == 1
            };
            !difference.script.setup.connects && difference.segments().any(strange)
        },
    },
    Entry {
        name: "small segments are acknowledged at once, or a moment later",
        why: "of several segments that nobody has read Linux acknowledges the second one at once if it can offer the window \
              anew, which it knows from the memory that they take (`__tcp_select_window`); ours counts the bytes of the stream",
        ends: true,
        is: |difference| difference.is_early_acknowledgement() || difference.is_late_acknowledgement(),
    },
    Entry {
        name: "acknowledgements that do not wait, after the window was made larger",
        why: "when segments take little memory Linux makes its window larger, and one acknowledgement more does not wait \
              (`tcp_grow_window`); if there was none before, those at the beginning of the stream do (`tcp_dec_quickack_mode`). Ours \
              counts the bytes of the stream, and offers all of the window from the beginning",
        ends: true,
        is: |difference| difference.acknowledges_growth() || difference.begins_after_growth(),
    },
    Entry {
        name: "an answer a tick before or after the delay of acknowledgements",
        why: "whether data, also what is sent again, answers what came before, so that later acknowledgements wait for such data, \
              Linux decides in ticks of 4 ms (`tcp_event_data_sent`), and the moments of ticks are not known; nor whether data \
              came within that delay of other data, which makes it longer (`tcp_event_data_recv`)",
        ends: true,
        is: |difference| {
            let steps = difference.script.steps[..difference.steps()].iter().zip(&difference.kernel.times);
            let arrivals: Vec<u64> = steps
                .filter(|(step, _)| matches!(&step.what, What::Arrives(segment) if segment.len > 0))
                .map(|(_, &at)| at)
                .collect();
            // What is sent again, or probes, is such an answer as well.
            let late = |said: &Said| {
                let data = arrivals.iter().rfind(|&&at| at < said.at);
                said.len > 0 && data.is_some_and(|data| (35_000..45_000).contains(&(said.at - data)))
            };
            let longer = arrivals.windows(2).any(|pair| (35_000..45_000).contains(&(pair[1] - pair[0])))
                && difference.field == Field::Time
                && difference.kernel().zip(difference.ours()).is_some_and(|(kernel, ours)| {
                    (kernel.flags, kernel.len) == (Flags::ACK, 0) && kernel.at.abs_diff(ours.at) < 30_000
                });
            longer
                || (difference.breaks_order()
                    || matches!(difference.field, Field::Time | Field::Sack | Field::Stamps))
                    && difference.kernel.said.iter().take(difference.place + 1).any(late)
        },
    },
    Entry {
        name: "an answer within the millisecond of the first one",
        why: "an echo must be a stamp of an answer to the SYN (`tcp_check_req`); when something else is answered a moment after it, \
              the millisecond may have changed with one of the two only",
        ends: true,
        is: |difference| {
            // Something may have been reset before.
            let (kernel, ours) = (&difference.kernel.said, &difference.ours.said);
            kernel.windows(2).zip(ours.windows(2)).any(|(kernel, ours)| {
                kernel[0].flags.contains(Flags::SYN)
                    && !kernel[1].flags.contains(Flags::SYN)
                    && kernel[1].at < kernel[0].at + 1000
                    && kernel[1].stamps.map(|stamps| stamps.0) != ours[1].stamps.map(|stamps| stamps.0)
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
        name: "a stamp older than that of an acknowledgement that was too old",
        why: "what comes later with a stamp in between is old (RFC 7323 section 5.3) in Linux, which may have taken that stamp, \
              and not with ours, which has not",
        ends: true,
        is: |difference| {
            let echo = |said: Option<&Said>| said.and_then(|said| said.stamps).map(|stamps| stamps.1);
            let old = |segment: &Segment| segment.stamps.is_some_and(|stamps| stamps.back > 1);
            difference.breaks_order()
                && difference.has_old_acknowledgement()
                && echo(difference.kernel()) != echo(difference.ours())
                && difference.segments().any(old)
        },
    },
    Entry {
        name: "what does not belong there after the socket was closed",
        why: "in FIN-WAIT-2 of a closed socket Linux has left of the connection what is left in TIME-WAIT, which any reset in the \
              window ends and any SYN resets, and which reports nothing and looks at no acknowledgement; ours is the connection itself, with the challenges of \
              RFC 5961",
        ends: true,
        is: |difference| {
            let steps = &difference.script.steps[..difference.steps()];
            let Some(closed) = steps.iter().position(|step| step.what == What::Close) else { return false };
            let arrivals = steps[closed..].iter().filter_map(|step| match &step.what {
                What::Arrives(segment) => Some(segment),
                _ => None,
            });
            let mut wild =
                arrivals.clone().filter(|segment| segment.flags.intersects(Flags::SYN | Flags::RST));
            let fin = difference.kernel.said.iter().find(|said| said.flags.contains(Flags::FIN));
            let over = arrivals.clone().any(|segment| fin.is_some_and(|fin| segment.ack >= fin.end()));
            (difference.breaks_order() && wild.next().is_some())
                || (over
                    && (difference.breaks_order()
                        || matches!(difference.field, Field::Sack | Field::Stamps | Field::Time)))
        },
    },
];

/// All entries. The first that fits counts.
pub(crate) fn entries() -> impl Iterator<Item = &'static Entry> {
    TABLE.iter().chain(losses::TABLE)
}

pub(crate) fn verdict(difference: &Difference<'_>) -> Verdict {
    match entries().enumerate().find(|(_, entry)| (entry.is)(difference)) {
        Some((entry, Entry { ends, .. })) => Verdict::Allowed { entry, ends: *ends },
        None => Verdict::Unexplained,
    }
}
