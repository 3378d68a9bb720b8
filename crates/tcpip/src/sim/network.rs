//! Hosts and links, and the queue of events.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;
use core::time::Duration;

use super::clock::Clock;
use super::frame::Frame;
use super::host::Host;
use super::icmp;
use super::link::{Dropped, Link, LinkConfig, Outcome, Segments};
use super::random::Random;
use crate::pcapng::{Direction, InterfaceId, LinkType, Writer};
use crate::time::Instant;

/// A host of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(usize);

/// One direction of a link of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(usize);

/// What [`Network::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This host got a packet or a time-out.
    Host(HostId),
    /// A packet went from one link to the next.
    Transit,
}

/// Hosts and links in virtual time.
#[derive(Debug)]
pub struct Network<H> {
    now: Instant,
    random: Random,
    nodes: Vec<Node<H>>,
    links: Vec<Link>,
    paths: Vec<Wires>,
    /// Paths by source host and destination address.
    routes: BTreeMap<(usize, IpAddr), usize>,
    events: BinaryHeap<Reverse<Entry>>,
    order: u64,
    trace: u64,
    unroutable: u64,
    capture: Option<(Writer, Vec<InterfaceId>)>,
}

#[derive(Debug)]
struct Node<H> {
    host: H,
    clock: Clock,
    /// When the next time-out is due, as an event that is in the queue.
    timer: Option<Instant>,
    /// Packets that GRO holds back, and until when.
    held: Vec<Frame>,
}

#[derive(Debug, Clone)]
struct Wires {
    from: usize,
    links: Vec<LinkId>,
    to: usize,
}

/// Ordered by time, then by the order in which they were made: so the run does not depend on the heap's whims.
#[derive(Debug)]
struct Entry {
    at: Instant,
    order: u64,
    event: Event,
}

#[derive(Debug)]
enum Event {
    /// A packet arrives at the `hop`-th link of its path, or at its host behind the last one.
    Packet {
        path: usize,
        hop: usize,
        frame: Frame,
    },
    /// A router's answer arrives.
    Answer {
        to: usize,
        frame: Frame,
    },
    /// GRO gives to a host what it has held back.
    Flush {
        to: usize,
    },
    Timeout {
        host: usize,
    },
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<H: Host> Network<H> {
    /// An empty network. The seed decides everything that is left to chance in it.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            random: Random::new(seed),
            nodes: Vec::new(),
            links: Vec::new(),
            paths: Vec::new(),
            routes: BTreeMap::new(),
            events: BinaryHeap::new(),
            order: 0,
            trace: 0,
            unroutable: 0,
            capture: None,
        }
    }

    /// Adds a host.
    pub fn add_host(&mut self, host: H, clock: Clock) -> HostId {
        self.nodes.push(Node { host, clock, timer: None, held: Vec::new() });
        HostId(self.nodes.len() - 1)
    }

    /// Adds one direction of a link.
    pub fn add_link(&mut self, config: LinkConfig) -> LinkId {
        let random = self.random.split();
        self.links.push(Link::new(config, random));
        LinkId(self.links.len() - 1)
    }

    /// What `from` sends to `address` goes over `links`, in order, to `to`. Paths may share links.
    pub fn connect(&mut self, from: HostId, to: HostId, address: IpAddr, links: &[LinkId]) {
        self.paths.push(Wires { from: from.0, links: links.to_vec(), to: to.0 });
        self.routes.insert((from.0, address), self.paths.len() - 1);
    }

    /// The network's time, which no host sees.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What the host's clock shows.
    pub fn time_of(&self, host: HostId) -> Instant {
        self.nodes[host.0].clock.show(self.now)
    }

    /// A host. Call [`pump`](Self::pump) after asking it for anything that may make it send.
    pub fn host_mut(&mut self, host: HostId) -> &mut H {
        &mut self.nodes[host.0].host
    }

    /// A host.
    pub fn host(&self, host: HostId) -> &H {
        &self.nodes[host.0].host
    }

    /// A link.
    pub fn link(&self, link: LinkId) -> &Link {
        &self.links[link.0]
    }

    /// A link, to change it on the way.
    pub fn link_mut(&mut self, link: LinkId) -> &mut Link {
        &mut self.links[link.0]
    }

    /// A hash of every packet, where it was and when. Equal runs have equal ones.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Packets to addresses that no host has.
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// Whether packets are on the way.
    pub fn is_quiet(&self) -> bool {
        self.events.iter().all(|Reverse(entry)| matches!(entry.event, Event::Timeout { .. }))
    }

    /// Keeps what each host sends and receives, and what is dropped on the way, from now on.
    pub fn start_capture(&mut self) {
        let mut writer = Writer::new();
        let interfaces = (0..self.nodes.len())
            .map(|i| writer.interface(&alloc::format!("host{i}"), LinkType::Raw))
            .collect();
        self.capture = Some((writer, interfaces));
    }

    /// The capture so far, as a pcapng file.
    pub fn capture(&self) -> &[u8] {
        self.capture.as_ref().map_or(&[], |(writer, _)| writer.bytes())
    }

    /// When something happens next.
    #[must_use]
    pub fn next_event(&mut self) -> Option<Instant> {
        loop {
            let Reverse(Entry { at, event, .. }) = self.events.peek()?;
            match event {
                // Set anew since.
                Event::Timeout { host } if self.nodes[*host].timer != Some(*at) => self.events.pop(),
                _ => return Some(*at),
            };
        }
    }

    /// Processes the next event; `None` when there is none.
    pub fn step(&mut self) -> Option<Step> {
        let _ = self.next_event()?;
        let Reverse(Entry { at, event, .. }) = self.events.pop()?;
        self.now = self.now.max(at);
        Some(self.happen(event))
    }

    /// Processes all events up to `end`, and sets the time to `end`.
    pub fn run_until(&mut self, end: Instant) {
        while self.next_event().is_some_and(|at| at <= end) {
            let _ = self.step();
        }
        self.now = self.now.max(end);
    }

    /// Time passes: as [`run_until`](Self::run_until).
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Takes what the host has to send, and its next deadline.
    pub fn pump(&mut self, host: HostId) {
        let HostId(i) = host;
        loop {
            let now = self.nodes[i].clock.show(self.now);
            let Some(frame) = self.nodes[i].host.poll_transmit(now) else { break };
            self.note(i, Direction::Outbound, &frame, "");
            let path = frame.addresses().and_then(|(_, to)| self.routes.get(&(i, to)));
            let Some(&path) = path else {
                self.unroutable += 1;
                continue;
            };
            self.travel(path, 0, frame);
        }
        let node = &mut self.nodes[i];
        let timer = node.host.poll_timeout().map(|at| node.clock.reaches(at).max(self.now));
        if timer != node.timer {
            node.timer = timer;
            if let Some(at) = timer.filter(|&at| at < Instant::MAX) {
                self.schedule(at, Event::Timeout { host: i });
            }
        }
    }

    fn happen(&mut self, event: Event) -> Step {
        let host = match event {
            Event::Packet { path, hop, frame } => {
                let Wires { links, to, .. } = &self.paths[path];
                if hop < links.len() {
                    self.travel(path, hop, frame);
                    return Step::Transit;
                }
                let to = *to;
                match self.paths[path].links.last().map(|link| self.links[link.0].config().segments) {
                    Some(Segments::Merge(time)) => {
                        self.hold(to, frame, time);
                        return Step::Transit;
                    }
                    _ => self.deliver(to, &frame),
                }
                to
            }
            Event::Answer { to, frame } => {
                self.deliver(to, &frame);
                to
            }
            Event::Flush { to } => {
                for frame in core::mem::take(&mut self.nodes[to].held) {
                    self.deliver(to, &frame);
                }
                to
            }
            Event::Timeout { host } => {
                let node = &mut self.nodes[host];
                node.timer = None;
                node.host.handle_timeout(node.clock.show(self.now));
                host
            }
        };
        self.pump(HostId(host));
        Step::Host(HostId(host))
    }

    /// A packet enters the `hop`-th link of its path.
    fn travel(&mut self, path: usize, hop: usize, frame: Frame) {
        let Some(&LinkId(link)) = self.paths[path].links.get(hop) else {
            return self.schedule(self.now, Event::Packet { path, hop, frame });
        };
        let mut outcomes = Vec::new();
        self.links[link].enter(self.now, frame, |outcome| outcomes.push(outcome));
        for outcome in outcomes {
            match outcome {
                Outcome::Arrives(at, frame) => self.schedule(at, Event::Packet { path, hop: hop + 1, frame }),
                Outcome::Dropped(why, frame) => self.drop_frame(path, link, why, &frame),
            }
        }
    }

    fn drop_frame(&mut self, path: usize, link: usize, why: Dropped, frame: &Frame) {
        let from = self.paths[path].from;
        self.note(from, Direction::Outbound, frame, &alloc::format!("dropped on link {link}: {why:?}"));
        let config = self.links[link].config();
        if let (Dropped::TooBig, Some(mtu)) = (why, config.mtu)
            && mtu.icmp
            && frame.dont_fragment()
            && let Some(answer) = icmp::too_big(frame, mtu.bytes)
        {
            self.schedule(self.now + config.delay, Event::Answer { to: from, frame: answer });
        }
    }

    /// Gives a packet to GRO, which waits for others of its flow.
    fn hold(&mut self, to: usize, frame: Frame, time: Duration) {
        let held = &mut self.nodes[to].held;
        let begins = held.is_empty();
        let joined = held.last_mut().is_some_and(|last| {
            (last.gso_size != 0 || last.is_intact()) && frame.is_intact() && last.merge(&frame, GRO_MAX)
        });
        if !joined {
            held.push(frame);
        }
        if begins {
            self.schedule(self.now + time, Event::Flush { to });
        }
    }

    fn deliver(&mut self, to: usize, frame: &Frame) {
        self.note(to, Direction::Inbound, frame, "");
        let node = &mut self.nodes[to];
        node.host.handle_packet(node.clock.show(self.now), frame);
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Entry { at, order: self.order, event }));
    }

    fn note(&mut self, host: usize, direction: Direction, frame: &Frame, comment: &str) {
        let mut mix =
            |word: u64| self.trace = (self.trace ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
        mix(self.now.as_nanos());
        mix((host as u64) << 32 | (direction as u64) << 16 | u64::from(frame.gso_size));
        mix(comment.len() as u64);
        for chunk in frame.bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(u64::from_le_bytes(word));
        }
        if let Some((writer, interfaces)) = &mut self.capture
            && let Some(&interface) = interfaces.get(host)
        {
            writer.packet(interface, self.now, direction, &frame.bytes, comment);
        }
    }
}

const GRO_MAX: usize = 65_535;

#[cfg(test)]
mod tests;
