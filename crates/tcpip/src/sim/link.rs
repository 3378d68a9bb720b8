//! One direction of a link: what it does to each packet that enters it, and when the packet leaves it.
//!
//! A [`Link`] does not wait: it answers at once when the packet will arrive, and the caller keeps it until then. So the
//! same model runs in virtual time and, between programs, in real time.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use super::frame::Frame;
use super::random::Random;
use crate::time::Instant;

/// The properties of a link. The default is a perfect one: no delay, no limit, no loss.
#[derive(Debug, Clone, Default)]
pub struct LinkConfig {
    /// Bits a second; `None` is infinitely fast.
    pub rate: Option<u64>,
    /// The queue of packets that wait while the link sends.
    pub queue: Queue,
    /// The time from one end to the other.
    pub delay: Duration,
    /// A time up to this is added to each packet's delay, so that packets overtake each other.
    pub jitter: Duration,
    /// With jitter, packets still arrive in order.
    pub keep_order: bool,
    /// Which packets are lost.
    pub loss: Loss,
    /// This fraction of the packets is delayed, by up to the given time.
    pub reorder: (f64, Duration),
    /// This fraction of the packets arrives twice.
    pub duplicate: f64,
    /// In this fraction of the packets, one byte is damaged.
    pub corrupt: f64,
    /// Times at which nothing gets through.
    pub outages: Vec<Range<Instant>>,
    /// The largest packet that gets through, and whether the sender of a larger one is told.
    pub mtu: Option<Mtu>,
    /// What happens to super-segments.
    pub segments: Segments,
}

/// The queue before a link. Zero is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    /// Bytes that it holds.
    pub bytes: usize,
    /// Packets that it holds.
    pub packets: usize,
    /// Packets that would wait longer are marked, if their sender takes part in ECN (RFC 3168).
    pub mark_above: Option<Duration>,
}

/// Which packets are lost.
#[derive(Debug, Clone, Default)]
pub enum Loss {
    /// No packet is lost.
    #[default]
    None,
    /// Each with this probability, independent of the others.
    Random(f64),
    /// In bursts, by Gilbert's and Elliott's model of two states.
    Burst {
        /// The probability of entering the bad state, for each packet.
        enter: f64,
        /// The probability of leaving it again.
        leave: f64,
        /// The probability of losing a packet in the bad state.
        loss: f64,
    },
    /// Every n-th packet.
    Every(u64),
    /// The packets with these numbers, counted from zero.
    Numbers(BTreeSet<u64>),
}

/// The limit of a path on the size of packets.
#[derive(Debug, Clone, Copy)]
pub struct Mtu {
    /// The largest packet that passes.
    pub bytes: usize,
    /// Whether an ICMP error tells the sender; if not, the path is a black hole (RFC 2923).
    pub icmp: bool,
}

/// What a link does with super-segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segments {
    /// Cuts them, as an interface with TSO does.
    #[default]
    Split,
    /// Carries super-segments uncut, as a TAP device with `virtio_net_hdr` does.
    Keep,
    /// Cuts them on entry; on arrival joins packets of one flow that arrive within this time, as GRO does.
    Merge(Duration),
}

/// Why a packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Lost at random, by [`Loss`].
    Lost,
    /// Dropped by [`Link::drop_if`].
    Chosen,
    /// The queue was full.
    QueueFull,
    /// Larger than the path's [`Mtu`].
    TooBig,
    /// It was sent during an outage.
    Outage,
}

/// What became of a packet that entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The packet arrives at this time.
    Arrives(Instant, Frame),
    /// The packet does not arrive.
    Dropped(Dropped, Frame),
}

/// What a link has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Packets that entered, after cutting.
    pub entered: u64,
    /// Packets that arrive.
    pub arrived: u64,
    /// Bytes that arrive.
    pub bytes: u64,
    /// Packets that do not, other than for a full queue.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets that were marked.
    pub marked: u64,
    /// The longest wait in the queue.
    pub longest_wait: Duration,
}

type Choice = Box<dyn FnMut(&Frame, u64) -> bool + Send>;

/// One direction of a link.
pub struct Link {
    config: LinkConfig,
    random: Random,
    /// When the link has sent what has entered so far.
    busy_until: Instant,
    /// What has not been sent completely: when it will be, and its size.
    waiting: VecDeque<(Instant, usize)>,
    waiting_bytes: usize,
    last_arrival: Instant,
    in_burst: bool,
    drop_if: Option<Choice>,
    counters: LinkCounters,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("config", &self.config)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link that nothing has entered.
    pub fn new(config: LinkConfig, random: Random) -> Self {
        Self {
            config,
            random,
            busy_until: Instant::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_arrival: Instant::ZERO,
            in_burst: false,
            drop_if: None,
            counters: LinkCounters::default(),
        }
    }

    /// The properties of the link; changes apply to packets that enter from now on.
    pub fn config_mut(&mut self) -> &mut LinkConfig {
        &mut self.config
    }

    /// The properties of the link.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What the link has carried.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Also drops the packets for which `choice` says so; it gets their numbers too, counted from zero.
    pub fn drop_if(&mut self, choice: impl FnMut(&Frame, u64) -> bool + Send + 'static) {
        self.drop_if = Some(Box::new(choice));
    }

    /// A packet enters. `outcome` is called for each of its segments, and twice for one that is duplicated.
    pub fn enter(&mut self, now: Instant, frame: Frame, mut outcome: impl FnMut(Outcome)) {
        if self.config.segments == Segments::Keep || frame.gso_size == 0 {
            self.enter_one(now, frame, &mut outcome);
        } else {
            for segment in frame.split() {
                self.enter_one(now, segment, &mut outcome);
            }
        }
    }

    fn enter_one(&mut self, now: Instant, mut frame: Frame, outcome: &mut impl FnMut(Outcome)) {
        let number = self.counters.entered;
        self.counters.entered += 1;
        if let Some(why) = self.is_lost(now, &frame, number) {
            self.counters.lost += 1;
            return outcome(Outcome::Dropped(why, frame));
        }
        let Some(sent) = self.queue(now, &mut frame) else {
            self.counters.overflowed += 1;
            return outcome(Outcome::Dropped(Dropped::QueueFull, frame));
        };
        // Always drawn, so that one setting does not change what the others decide.
        let jitter = self.random.time(self.config.jitter);
        let held_up = self.random.chance(self.config.reorder.0);
        let hold = self.random.time(self.config.reorder.1);
        let twice = self.random.chance(self.config.duplicate);
        let corrupt = self.random.chance(self.config.corrupt);
        let (place, flip) = (self.random.number(), self.random.between(1, 255));

        let mut at = sent + self.config.delay + jitter + if held_up { hold } else { Duration::ZERO };
        if self.config.keep_order && !held_up {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        if corrupt {
            if frame.gso_size != 0 {
                // Nobody would notice: super-segments carry no checksum of their own.
                self.counters.lost += 1;
                return outcome(Outcome::Dropped(Dropped::Lost, frame));
            }
            // A change within 16 bits: the checksum notices each of those.
            let place = (place % frame.bytes.len().max(1) as u64) as usize;
            if let Some(byte) = frame.bytes.get_mut(place) {
                *byte ^= flip as u8;
            }
        }
        self.counters.arrived += 1;
        self.counters.bytes += frame.wire_len() as u64;
        if twice {
            outcome(Outcome::Arrives(at, frame.clone()));
        }
        outcome(Outcome::Arrives(at, frame));
    }

    fn is_lost(&mut self, now: Instant, frame: &Frame, number: u64) -> Option<Dropped> {
        let lost = match &self.config.loss {
            Loss::None => false,
            Loss::Random(probability) => self.random.chance(*probability),
            Loss::Burst { enter, leave, loss } => {
                self.in_burst = match self.in_burst {
                    true => !self.random.chance(*leave),
                    false => self.random.chance(*enter),
                };
                self.in_burst && self.random.chance(*loss)
            }
            Loss::Every(n) => (number + 1).is_multiple_of((*n).max(1)),
            Loss::Numbers(numbers) => numbers.contains(&number),
        };
        if lost {
            return Some(Dropped::Lost);
        }
        if self.drop_if.as_mut().is_some_and(|choice| choice(frame, number)) {
            return Some(Dropped::Chosen);
        }
        if self.config.outages.iter().any(|outage| outage.contains(&now)) {
            return Some(Dropped::Outage);
        }
        let too_big = self.config.mtu.is_some_and(|mtu| frame.packet_len() > mtu.bytes);
        too_big.then_some(Dropped::TooBig)
    }

    /// Puts a packet into the queue and answers when it will have been sent; `None` if the queue is full.
    fn queue(&mut self, now: Instant, frame: &mut Frame) -> Option<Instant> {
        while let Some(&(sent, bytes)) = self.waiting.front().filter(|(sent, _)| *sent <= now) {
            debug_assert!(sent <= now);
            self.waiting_bytes -= bytes;
            self.waiting.pop_front();
        }
        let Some(rate) = self.config.rate else { return Some(now) };
        let bytes = frame.wire_len();
        let queue = self.config.queue;
        let full = |used: usize, more: usize, limit: usize| limit != 0 && used + more > limit;
        // What is being sent is not in the queue any more: an idle link takes any packet.
        let waiting = self.waiting.len().saturating_sub(1);
        let first = self.waiting.front().map_or(0, |&(_, bytes)| bytes);
        if !self.waiting.is_empty()
            && (full(self.waiting_bytes - first, bytes, queue.bytes) || full(waiting, 1, queue.packets))
        {
            return None;
        }
        let start = self.busy_until.max(now);
        let wait = start - now;
        self.counters.longest_wait = self.counters.longest_wait.max(wait);
        if queue.mark_above.is_some_and(|limit| wait > limit) && frame.is_ecn_capable() {
            frame.mark_congestion();
            self.counters.marked += 1;
        }
        let nanos = u128::from(bytes as u64) * 8 * 1_000_000_000 / u128::from(rate.max(1));
        self.busy_until = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.waiting.push_back((self.busy_until, bytes));
        self.waiting_bytes += bytes;
        Some(self.busy_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    fn frame(len: usize) -> Frame {
        Frame::new(alloc::vec![0; len])
    }

    /// What becomes of `count` packets of 1000 bytes that enter at once.
    fn carry(config: LinkConfig, count: usize) -> Vec<Outcome> {
        let mut link = Link::new(config, Random::new(1));
        let mut outcomes = Vec::new();
        for _ in 0..count {
            link.enter(at(0), frame(1000), |outcome| outcomes.push(outcome));
        }
        outcomes
    }

    fn arrivals(outcomes: &[Outcome]) -> Vec<Instant> {
        let time = |outcome: &Outcome| match outcome {
            Outcome::Arrives(at, _) => Some(*at),
            Outcome::Dropped(..) => None,
        };
        outcomes.iter().filter_map(time).collect()
    }

    /// One packet of 1000 bytes a millisecond.
    const RATE: Option<u64> = Some(8_000_000);

    #[test]
    fn packets_leave_at_the_rate_and_arrive_after_the_delay() {
        let config = LinkConfig { rate: RATE, delay: Duration::from_millis(10), ..LinkConfig::default() };
        assert_eq!(arrivals(&carry(config, 3)), [at(11_000), at(12_000), at(13_000)]);
    }

    #[test]
    fn a_full_queue_drops_the_last_ones() {
        for queue in [Queue { bytes: 2000, ..Queue::default() }, Queue { packets: 2, ..Queue::default() }] {
            let outcomes = carry(LinkConfig { rate: RATE, queue, ..LinkConfig::default() }, 5);
            assert_eq!(arrivals(&outcomes).len(), 3, "one is sent, two wait");
            assert!(matches!(outcomes[4], Outcome::Dropped(Dropped::QueueFull, _)));
        }
    }

    #[test]
    fn the_queue_empties_with_time() {
        let queue = Queue { packets: 1, ..Queue::default() };
        let mut link = Link::new(LinkConfig { rate: RATE, queue, ..LinkConfig::default() }, Random::new(1));
        let mut arrived = Vec::new();
        for time in [0, 0, 0, 1000, 1000, 5000] {
            link.enter(at(time), frame(1000), |outcome| arrived.extend(arrivals(&[outcome])));
        }
        assert_eq!(arrived, [at(1000), at(2000), at(3000), at(6000)]);
        assert_eq!(link.counters().overflowed, 2);
        assert_eq!(link.counters().longest_wait, Duration::from_millis(1));
    }

    #[test]
    fn losses_are_as_many_as_asked_for() {
        let lost =
            |loss| 10_000 - arrivals(&carry(LinkConfig { loss, ..LinkConfig::default() }, 10_000)).len();
        assert!((80..120).contains(&lost(Loss::Random(0.01))));
        assert_eq!(lost(Loss::Every(100)), 100);
        assert_eq!(lost(Loss::Numbers(BTreeSet::from([0, 7]))), 2);
        // In the bad state 1/11 of the time, and half of that is lost.
        let burst = lost(Loss::Burst { enter: 0.01, leave: 0.1, loss: 0.5 });
        assert!((350..560).contains(&burst), "{burst}");
    }

    #[test]
    fn one_of_a_burst_of_losses_follows_another() {
        let loss = Loss::Burst { enter: 0.001, leave: 0.1, loss: 1.0 };
        let outcomes = carry(LinkConfig { loss, ..LinkConfig::default() }, 100_000);
        let lost: Vec<_> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Dropped(..))).collect();
        let bursts = lost.windows(2).filter(|pair| pair[1] && !pair[0]).count();
        let mean = lost.iter().filter(|&&lost| lost).count() as f64 / bursts as f64;
        assert!((8.0..12.0).contains(&mean), "{mean}");
    }

    #[test]
    fn jitter_reorders_unless_told_not_to() {
        let config = LinkConfig { rate: RATE, jitter: Duration::from_millis(30), ..LinkConfig::default() };
        assert!(!arrivals(&carry(config.clone(), 100)).is_sorted());
        assert!(arrivals(&carry(LinkConfig { keep_order: true, ..config }, 100)).is_sorted());
    }

    #[test]
    fn some_packets_are_held_up_doubled_or_damaged() {
        let reorder = (0.1, Duration::from_millis(5));
        let times = arrivals(&carry(LinkConfig { rate: RATE, reorder, ..LinkConfig::default() }, 1000));
        let overtaken = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((50..150).contains(&overtaken), "{overtaken}");

        let doubled = arrivals(&carry(LinkConfig { duplicate: 0.1, ..LinkConfig::default() }, 1000)).len();
        assert!((1050..1150).contains(&doubled), "{doubled}");

        let outcomes = carry(LinkConfig { corrupt: 0.1, ..LinkConfig::default() }, 1000);
        let damaged = outcomes.iter().filter(|outcome| {
            matches!(outcome, Outcome::Arrives(_, frame) if frame.bytes.iter().filter(|&&b| b != 0).count() == 1)
        });
        assert!((50..150).contains(&damaged.count()));
    }

    #[test]
    fn nothing_passes_in_an_outage_or_above_the_mtu() {
        let outages = alloc::vec![at(0)..at(1)];
        assert!(arrivals(&carry(LinkConfig { outages, ..LinkConfig::default() }, 1)).is_empty());
        let mtu = |bytes| Some(Mtu { bytes, icmp: false });
        assert!(arrivals(&carry(LinkConfig { mtu: mtu(999), ..LinkConfig::default() }, 1)).is_empty());
        assert_eq!(arrivals(&carry(LinkConfig { mtu: mtu(1000), ..LinkConfig::default() }, 1)).len(), 1);
    }
}
