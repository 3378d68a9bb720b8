//! Which link-layer address an IP address has: the neighbours of all links, for ARP and neighbour discovery alike.
//!
//! Entries go through the states of RFC 4861 §7.3.2, for IPv4 too, as in Linux. A neighbour that fails to answer is
//! forgotten: Linux's state FAILED is the absence of an entry here, and the next packet asks anew.
//!
//! Entries, the packets that wait for one answer, and the bytes that wait for all have caps. What a stranger can cause
//! by asking us is a stale entry, and those make room when there are too many.

use crate::ip::InterfaceId;
use crate::ready::ReadyList;
use crate::slab::Slab;
use crate::table::{HashKey, Table};
use crate::time::Instant;
use crate::wheel::Wheel;
use crate::wire::{DropReason, MacAddr};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

/// The limits and the timers of the neighbour tables.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Neighbours (`net.ipv4.neigh.default.gc_thresh3`).
    pub entries: usize,
    /// Bytes of packets that wait for one neighbour's answer (`unres_qlen_bytes`).
    pub pending: usize,
    /// Bytes of packets that wait for all neighbours' answers.
    pub pending_in_all: usize,
    /// Between two questions (RFC 4861 §10, RETRANS_TIMER).
    pub retransmit: Duration,
    /// Requests before a neighbour counts as absent (MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT).
    pub questions: u8,
    /// How long a neighbour counts as reachable after it was known to be, on average (REACHABLE_TIME).
    pub reachable: Duration,
    /// How long to wait for a confirmation from above before a request is sent (DELAY_FIRST_PROBE_TIME).
    pub delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            entries: 1024,
            pending: 212_992,
            pending_in_all: 4 << 20,
            retransmit: Duration::from_secs(1),
            questions: 3,
            reachable: Duration::from_secs(30),
            delay: Duration::from_secs(5),
        }
    }
}

/// The neighbours of a stack.
#[derive(Debug)]
pub struct Neighbours {
    config: Config,
    key: HashKey,
    entries: Slab<Neighbour>,
    by_address: Table,
    timers: Wheel,
    /// Stale entries, the one that was used longest ago first: they go when there are too many.
    stale: ReadyList,
    /// Bytes in all queues.
    pending: usize,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Neighbour {
    interface: InterfaceId,
    address: IpAddr,
    /// Its link-layer address; not known while the state is incomplete.
    link_address: MacAddr,
    state: State,
    /// Requests that were sent in this state.
    questions: u8,
    /// When it was last known to be reachable. The timer looks here before it believes itself: a confirmation costs
    /// no timer.
    confirmed: Instant,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
}

/// What the caller has to do, from [`Neighbours::poll_action`].
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a request for `address`: to its link-layer address or, if none is known, to all hosts that may have it.
    Ask {
        /// The link to send it on.
        interface: InterfaceId,
        /// The address that is asked for.
        address: IpAddr,
        /// The link-layer address that had it, if one is known.
        link_address: Option<MacAddr>,
    },
    /// Send a packet that has waited.
    Send {
        /// The link to send it on.
        interface: InterfaceId,
        /// The link-layer address to send it to.
        link_address: MacAddr,
        /// The IP packet.
        packet: Vec<u8>,
    },
    /// A packet cannot be sent: its neighbour did not answer.
    Fail {
        /// The IP packet.
        packet: Vec<u8>,
    },
}

/// What is known of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its link-layer address.
    LinkAddress(MacAddr),
    /// The neighbour has been asked and has not answered yet.
    Pending,
    /// There is no room for another neighbour.
    Full,
}

/// An answer, in the terms of RFC 4861 §4.4.
#[derive(Clone, Copy, Debug)]
pub struct Advertisement {
    /// The link-layer address, if it says so.
    pub link_address: Option<MacAddr>,
    /// It answers a request of ours.
    pub solicited: bool,
    /// It may replace the link-layer address that was known.
    pub overrides: bool,
}

const TICK: Duration = Duration::from_millis(10);

/// The overhead of a packet in a queue, in bytes.
const PACKET_COST: usize = 64;

impl Neighbours {
    /// Tables without entries.
    pub fn new(config: Config, key: HashKey) -> Self {
        Self {
            config,
            key,
            entries: Slab::new(),
            by_address: Table::new(),
            timers: Wheel::new(TICK),
            stale: ReadyList::new(),
            pending: 0,
            actions: VecDeque::new(),
        }
    }

    /// The link-layer address of a next hop to which a packet is about to go. Asks for it if it is not known.
    #[inline]
    pub fn resolve(&mut self, now: Instant, interface: InterfaceId, address: IpAddr) -> Resolution {
        let Some(index) = self.find(interface, address) else {
            return self.ask(now, interface, address);
        };
        let Some(entry) = self.entries.at_mut(index) else { return Resolution::Full };
        match entry.state {
            State::Incomplete => return Resolution::Pending,
            State::Stale => {
                entry.state = State::Delay;
                self.stale.remove(index);
                self.timers.schedule(index, now + self.config.delay);
            }
            State::Reachable | State::Delay | State::Probe => {}
        }
        Resolution::LinkAddress(entry.link_address)
    }

    /// Keeps a packet for a next hop that [`resolve`](Self::resolve) said to be pending. The oldest ones make room, as
    /// in Linux; how many did comes back.
    ///
    /// # Errors
    ///
    /// The packet does not fit.
    pub fn park(
        &mut self,
        interface: InterfaceId,
        address: IpAddr,
        packet: Vec<u8>,
    ) -> Result<usize, DropReason> {
        let cost = packet.len() + PACKET_COST;
        if cost > self.config.pending || self.pending + cost > self.config.pending_in_all {
            return Err(DropReason::NeighbourQueueFull);
        }
        let Some(index) = self.find(interface, address) else {
            return Err(DropReason::NeighbourUnreachable);
        };
        let Some(entry) = self.entries.at_mut(index) else {
            return Err(DropReason::NeighbourUnreachable);
        };
        if entry.state != State::Incomplete {
            // The answer came in between.
            entry.waiting.push_back(packet);
            entry.waiting_bytes += cost;
            self.pending += cost;
            self.release(index);
            return Ok(0);
        }
        let mut dropped = 0;
        while entry.waiting_bytes + cost > self.config.pending {
            let Some(oldest) = entry.waiting.pop_front() else { break };
            entry.waiting_bytes -= oldest.len() + PACKET_COST;
            self.pending -= oldest.len() + PACKET_COST;
            dropped += 1;
        }
        entry.waiting.push_back(packet);
        entry.waiting_bytes += cost;
        self.pending += cost;
        Ok(dropped)
    }

    /// A protocol above saw that the next hop received something (RFC 4861 §7.3.1).
    #[inline]
    pub fn confirm(&mut self, now: Instant, interface: InterfaceId, address: IpAddr) {
        let Some(index) = self.find(interface, address) else { return };
        let Some(entry) = self.entries.at_mut(index) else { return };
        match entry.state {
            State::Incomplete => {}
            State::Reachable => entry.confirmed = now,
            State::Stale | State::Delay | State::Probe => self.reach(now, index),
        }
    }

    /// A neighbour asked us something and said what its link-layer address is (RFC 4861 §7.2.3): a first word from a stranger
    /// makes an entry, a known neighbour with another link-layer address becomes stale.
    pub fn heard_question(&mut self, interface: InterfaceId, address: IpAddr, link_address: MacAddr) {
        match self.find(interface, address) {
            Some(index) => {
                let Some(entry) = self.entries.at_mut(index) else { return };
                if entry.state == State::Incomplete || entry.link_address != link_address {
                    entry.link_address = link_address;
                    self.become_stale(index);
                    self.release(index);
                }
            }
            None => {
                if let Some(index) = self.insert(interface, address, link_address, State::Stale) {
                    self.stale.push(index);
                }
            }
        }
    }

    /// A neighbour answered, or told everybody (RFC 4861 §7.2.5). Nobody is remembered who was not asked.
    pub fn heard_answer(
        &mut self,
        now: Instant,
        interface: InterfaceId,
        address: IpAddr,
        answer: Advertisement,
    ) {
        let Some(index) = self.find(interface, address) else { return };
        let Some(entry) = self.entries.at_mut(index) else { return };
        let differs = answer.link_address.is_some_and(|link_address| link_address != entry.link_address);
        if entry.state == State::Incomplete {
            let Some(link_address) = answer.link_address else { return };
            entry.link_address = link_address;
            if answer.solicited {
                self.reach(now, index);
            } else {
                self.become_stale(index);
            }
            self.release(index);
        } else if differs && !answer.overrides {
            if entry.state == State::Reachable {
                self.become_stale(index);
            }
        } else {
            entry.link_address = answer.link_address.unwrap_or(entry.link_address);
            if answer.solicited {
                self.reach(now, index);
            } else if differs {
                self.become_stale(index);
            }
        }
    }

    /// Whether packets to a next hop would go out at once.
    pub fn is_resolved(&self, interface: InterfaceId, address: IpAddr) -> bool {
        self.find(interface, address)
            .and_then(|index| self.entries.at(index))
            .is_some_and(|entry| entry.state != State::Incomplete)
    }

    /// Whether [`poll_action`](Self::poll_action) has something.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Asks again, gives up, and ages what was not confirmed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.timers.expire(now) {
            let Some(entry) = self.entries.at_mut(index) else { continue };
            match entry.state {
                State::Reachable => {
                    let until = entry.confirmed + self.reachable_time(index);
                    if until > now {
                        self.timers.schedule(index, until);
                    } else {
                        self.become_stale(index);
                    }
                }
                State::Delay => {
                    entry.state = State::Probe;
                    entry.questions = 0;
                    self.question(now, index);
                }
                State::Incomplete | State::Probe if entry.questions < self.config.questions => {
                    self.question(now, index);
                }
                State::Incomplete | State::Probe => self.forget(index),
                State::Stale => {}
            }
        }
    }

    /// How many neighbours are known or asked for.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no neighbour is known.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of packets that wait, with what their keeping takes.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    #[cold]
    fn ask(&mut self, now: Instant, interface: InterfaceId, address: IpAddr) -> Resolution {
        let Some(index) = self.insert(interface, address, MacAddr::default(), State::Incomplete) else {
            return Resolution::Full;
        };
        self.question(now, index);
        Resolution::Pending
    }

    fn question(&mut self, now: Instant, index: u32) {
        let Some(entry) = self.entries.at_mut(index) else { return };
        entry.questions += 1;
        let link_address = (entry.state == State::Probe).then_some(entry.link_address);
        self.actions.push_back(Action::Ask {
            interface: entry.interface,
            address: entry.address,
            link_address,
        });
        self.timers.schedule(index, now + self.config.retransmit);
    }

    fn insert(
        &mut self,
        interface: InterfaceId,
        address: IpAddr,
        link_address: MacAddr,
        state: State,
    ) -> Option<u32> {
        if self.entries.len() >= self.config.entries {
            let oldest = self.stale.front()?;
            self.forget(oldest);
        }
        let key = self.entries.insert(Neighbour {
            interface,
            address,
            link_address,
            state,
            questions: 0,
            confirmed: Instant::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        });
        self.by_address.insert(self.hash(interface, address), key.index());
        Some(key.index())
    }

    fn forget(&mut self, index: u32) {
        self.stale.remove(index);
        self.timers.cancel(index);
        let Some(entry) = self.entries.key_at(index).and_then(|key| self.entries.remove(key)) else { return };
        self.by_address.remove(self.hash(entry.interface, entry.address), index);
        self.pending -= entry.waiting_bytes;
        self.actions.extend(entry.waiting.into_iter().map(|packet| Action::Fail { packet }));
    }

    fn reach(&mut self, now: Instant, index: u32) {
        let until = now + self.reachable_time(index);
        let Some(entry) = self.entries.at_mut(index) else { return };
        entry.state = State::Reachable;
        entry.confirmed = now;
        self.stale.remove(index);
        self.timers.schedule(index, until);
    }

    fn become_stale(&mut self, index: u32) {
        let Some(entry) = self.entries.at_mut(index) else { return };
        entry.state = State::Stale;
        self.timers.cancel(index);
        self.stale.push(index);
    }

    /// Sends what has waited.
    fn release(&mut self, index: u32) {
        let Some(entry) = self.entries.at_mut(index) else { return };
        let (interface, link_address) = (entry.interface, entry.link_address);
        self.pending -= core::mem::take(&mut entry.waiting_bytes);
        let packets = entry.waiting.drain(..);
        self.actions.extend(packets.map(|packet| Action::Send { interface, link_address, packet }));
    }

    /// Between a half and one and a half of the average, so that a network's hosts do not ask in step (RFC 4861
    /// §6.3.2); from the address and our secret, as there is no randomness here.
    fn reachable_time(&self, index: u32) -> Duration {
        let Some(entry) = self.entries.at(index) else { return self.config.reachable };
        let spread = self.hash(entry.interface, entry.address) >> 22;
        self.config.reachable * (512 + spread) / 1024
    }

    #[inline]
    fn find(&self, interface: InterfaceId, address: IpAddr) -> Option<u32> {
        self.by_address.find(self.hash(interface, address), |index| {
            self.entries
                .at(index)
                .is_some_and(|entry| entry.address == address && entry.interface == interface)
        })
    }

    #[inline]
    fn hash(&self, interface: InterfaceId, address: IpAddr) -> u32 {
        self.key.endpoint(Some(address), u16::from(interface.0))
    }
}

#[cfg(test)]
mod tests;
