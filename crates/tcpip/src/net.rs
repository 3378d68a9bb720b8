//! Everything below TCP: links, addresses, routes, neighbours, fragments, ICMP, and UDP beside it.
//!
//! [`Network::receive`] takes a frame and hands a TCP segment up, or deals with what else it was. What is to be sent
//! waits in a queue for [`Network::poll_transmit`]. TCP does not pass through that queue: it asks
//! [`Network::route`] once, [`Network::link_header`] for each packet, and writes its own frames.

mod datagrams;
mod receive;
mod transmit;

pub use crate::icmp::{ErrorKind, IcmpError};
pub use crate::ip::InterfaceId;
pub use crate::ip::reassembly::Config as ReassemblyConfig;
pub use crate::neighbour::Config as NeighbourConfig;
pub use crate::udp::{Datagram, Options as UdpOptions, UdpError, UdpId};
pub use crate::wire::{DropCounters, DropReason};

use crate::icmp::RateLimit;
use crate::ip::address::{Addresses, Assigned, DestinationScope};
use crate::ip::reassembly::{self, Reassembly};
use crate::ip::route::{Route, Routes};
use crate::neighbour::{self, Neighbours};
use crate::table::HashKey;
use crate::time::Instant;
use crate::udp;
use crate::wire::ip;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use transmit::Frame;

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet frames; `address` is our link-layer address.
    Ethernet {
        /// Our link-layer address.
        address: [u8; 6],
    },
    /// IP packets without a link header.
    Ip,
}

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The kind of frames that it carries.
    pub medium: Medium,
    /// The longest IP packet that it carries.
    pub mtu: u32,
    /// It computes the checksums of TCP and UDP, from the sum of the pseudo-header in their fields.
    pub tx_checksum: bool,
    /// The longest payload of an IP packet that it cuts into segments itself; 0 when it cuts none.
    pub gso_max: u32,
}

/// What a link knows about a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// The checksums of TCP and UDP are right, or were never computed because the frame has seen no wire.
    pub checksum_ok: bool,
    /// The frame was put together from segments with this much payload; 0 when it was not.
    pub gso_size: u16,
}

/// What a link must know about a frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link to send it on.
    pub iface: InterfaceId,
    /// Cut into segments with this much payload; 0 for a frame that stays as it is.
    pub gso_size: u16,
    /// Where in the frame the checksum's sum begins, and how far behind that it goes, when the link is to compute it.
    pub checksum: Option<(u16, u16)>,
}

/// What a received frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up<'a> {
    /// A TCP segment whose checksum is right.
    Tcp {
        /// The IP header in front of it.
        ip: ip::Header,
        /// The TCP segment.
        segment: &'a [u8],
        /// Segments with this much payload were put together; 0 when it is one.
        gso_size: u16,
    },
    /// An ICMP error about a TCP segment of ours.
    Error(IcmpError),
    /// The frame needs nothing more.
    Done,
}

/// How packets to a destination go out. May be kept until [`Network::generation`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The link to send on.
    pub iface: InterfaceId,
    /// The address that they leave with.
    pub source: IpAddr,
    /// The neighbour that gets them.
    pub next_hop: IpAddr,
    /// The longest packet that gets through, as far as is known.
    pub mtu: u32,
    /// The longest packet that the link takes; packets in the other direction may be as long.
    pub link_mtu: u32,
}

/// The header that a link wants in front of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkHeader {
    /// The header is written; this is its length.
    Ready(usize),
    /// The neighbour was asked for its link-layer address: [`Network::park`] keeps the packet until it answers.
    Pending,
    /// There are too many neighbours.
    Unreachable,
}

/// Limits, time-outs and what is answered.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Settings for the reassembly of fragments.
    pub reassembly: reassembly::Config,
    /// Settings of the neighbour tables.
    pub neighbours: neighbour::Config,
    /// Answers to echo requests are sent (the opposite of `net.ipv4.icmp_echo_ignore_all`).
    pub answer_echo: bool,
    /// Frames that wait for [`Network::poll_transmit`]. UDP senders wait when there are so many; answers are dropped.
    pub transmit_queue: usize,
    /// The least MTU that an ICMP error makes us believe of an IPv4 path (`net.ipv4.route.min_pmtu`).
    pub least_path_mtu: u32,
    /// How long a path's MTU is believed (`net.ipv4.route.mtu_expires`, RFC 8201 §5.3).
    pub path_mtu_time: Duration,
    /// The hop limit of packets (`net.ipv4.ip_default_ttl`).
    pub hop_limit: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reassembly: reassembly::Config::default(),
            neighbours: neighbour::Config::default(),
            answer_echo: true,
            transmit_queue: 1024,
            least_path_mtu: 552,
            path_mtu_time: Duration::from_secs(600),
            hop_limit: 64,
        }
    }
}

/// The network of a stack.
#[derive(Debug)]
pub struct Network {
    config: Config,
    interfaces: Vec<Capabilities>,
    addresses: Addresses,
    routes: Routes,
    /// What is known of paths with an MTU below their link's, and until when that holds.
    path_mtus: BTreeMap<IpAddr, (u32, Instant)>,
    /// Not later than the first of those times.
    path_mtus_due: Option<Instant>,
    generation: u32,
    neighbours: Neighbours,
    reassembly: Reassembly,
    error_limit: RateLimit,
    udp: udp::Sockets,
    queue: VecDeque<Frame>,
    /// Errors about segments of ours that never left.
    failures: VecDeque<IcmpError>,
    ident_key: HashKey,
    /// Count the packets that we cut into fragments, by destination.
    idents: Box<[u32; IDENTS]>,
    counters: DropCounters,
}

/// Counters of packets: destinations share one when their hashes do, as in Linux (`ip_idents`).
const IDENTS: usize = 256;

/// Destinations whose paths' MTUs are remembered.
const MAX_PATH_MTUS: usize = 1024;

/// Failures that wait to be asked for; further ones are forgotten, and the retransmission timer tells.
const MAX_FAILURES: usize = 256;

const LOOPBACK: Capabilities =
    Capabilities { medium: Medium::Ip, mtu: 65_535, tx_checksum: true, gso_max: 0 };

impl Network {
    /// A network that has the loopback link alone.
    pub fn new(config: Config, secret: [u64; 4]) -> Self {
        let [a, b, c, d] = secret;
        let mut network = Self {
            config,
            interfaces: Vec::from([LOOPBACK]),
            addresses: Addresses::new(),
            routes: Routes::new(),
            path_mtus: BTreeMap::new(),
            path_mtus_due: None,
            generation: 0,
            neighbours: Neighbours::new(config.neighbours, HashKey::new([a ^ c, b])),
            reassembly: Reassembly::new(config.reassembly, HashKey::new([a, b ^ c])),
            error_limit: RateLimit::new(HashKey::new([a ^ d, b])),
            udp: udp::Sockets::new(HashKey::new([c, d])),
            queue: VecDeque::new(),
            failures: VecDeque::new(),
            ident_key: HashKey::new([b ^ d, c]),
            idents: Box::new([0; IDENTS]),
            counters: DropCounters::new(),
        };
        network.add_address(InterfaceId::LOOPBACK, Ipv4Addr::LOCALHOST.into(), 8);
        network.add_address(InterfaceId::LOOPBACK, Ipv6Addr::LOCALHOST.into(), 128);
        network
    }

    /// Adds a link.
    ///
    /// # Panics
    ///
    /// With more than 255.
    pub fn add_interface(&mut self, capabilities: Capabilities) -> InterfaceId {
        let id = InterfaceId(u8::try_from(self.interfaces.len()).expect("at most 255 links"));
        self.interfaces.push(capabilities);
        id
    }

    /// Changes what a link can do.
    pub fn set_capabilities(&mut self, interface: InterfaceId, capabilities: Capabilities) {
        self.interfaces[usize::from(interface.0)] = capabilities;
        self.generation += 1;
    }

    /// What a link can do.
    ///
    /// # Panics
    ///
    /// With an id of another stack.
    #[inline]
    pub fn capabilities(&self, interface: InterfaceId) -> &Capabilities {
        &self.interfaces[usize::from(interface.0)]
    }

    /// Adds an address of ours on a link, and with it the route to the link's other hosts.
    pub fn add_address(&mut self, interface: InterfaceId, address: IpAddr, prefix_len: u8) {
        self.addresses.add(Assigned { interface, address, prefix_len });
        self.add_route(address, prefix_len, None, interface);
    }

    /// Removes an address, and the route that came with it unless another address needs it.
    pub fn remove_address(&mut self, address: IpAddr) {
        if let Some(Assigned { interface, prefix_len, .. }) = self.addresses.remove(address) {
            let shared = self.addresses.iter().any(|other| {
                other.interface == interface
                    && other.prefix_len == prefix_len
                    && crate::ip::route::contains(other.address, prefix_len, address)
            });
            if !shared {
                self.remove_route(address, prefix_len);
            }
            self.generation += 1;
        }
    }

    /// Adds the route for a prefix, or replaces it.
    pub fn add_route(
        &mut self,
        prefix: IpAddr,
        prefix_len: u8,
        gateway: Option<IpAddr>,
        interface: InterfaceId,
    ) {
        self.routes.add(prefix, prefix_len, Route { gateway, interface });
        self.generation += 1;
    }

    /// Removes the route for exactly this prefix.
    pub fn remove_route(&mut self, prefix: IpAddr, prefix_len: u8) {
        self.routes.remove(prefix, prefix_len);
        self.generation += 1;
    }

    /// Changes when a [`Path`] that was kept may be wrong.
    #[inline]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether an address is ours.
    #[inline]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.is_local(address)
    }

    /// Whether an address stands for many hosts: a group, a broadcast.
    pub fn is_group(&self, address: IpAddr) -> bool {
        address.is_multicast()
            || matches!(address, IpAddr::V4(address) if address.is_broadcast()
                || self.addresses.is_broadcast(address))
    }

    /// How packets to `destination` go out: from `source`, or from the address that suits them best.
    pub fn route(&self, source: Option<IpAddr>, destination: IpAddr) -> Option<Path> {
        let route = self.link_for(destination)?;
        let next_hop = route.gateway.unwrap_or(destination);
        let source = match source.filter(|source| !source.is_unspecified()) {
            Some(source) => source,
            None => self.addresses.source(route.interface, destination, next_hop)?,
        };
        if source.is_ipv4() != destination.is_ipv4() {
            return None;
        }
        let link = self.capabilities(route.interface).mtu;
        let mtu = self.path_mtus.get(&destination).map_or(link, |(mtu, _)| link.min(*mtu));
        Some(Path { iface: route.interface, source, next_hop, mtu, link_mtu: link })
    }

    fn link_for(&self, destination: IpAddr) -> Option<Route> {
        if self.is_local(destination) {
            return Some(Route { gateway: None, interface: InterfaceId::LOOPBACK });
        }
        self.routes.find(destination).or_else(|| {
            // Groups need no route as long as there is one link for them.
            let group = destination.is_multicast() || destination == IpAddr::V4(Ipv4Addr::BROADCAST);
            let version = |ours: &&Assigned| ours.address.is_ipv4() == destination.is_ipv4();
            let mut links = self.addresses.iter().filter(version).map(|ours| ours.interface);
            let interface = links.find(|interface| *interface != InterfaceId::LOOPBACK)?;
            group.then_some(Route { gateway: None, interface })
        })
    }

    /// Remembers that longer packets do not reach `destination`. An MTU that is below the least one, or no news, changes
    /// nothing but that least one (RFC 1191 §3, RFC 8201 §4). Returns what is believed from now on.
    ///
    /// The caller has checked that the error is about a packet that was sent.
    pub fn set_path_mtu(&mut self, now: Instant, destination: IpAddr, mtu: u32) -> u32 {
        let least = if destination.is_ipv4() { self.config.least_path_mtu } else { 1280 };
        let mtu = mtu.max(least);
        if !self.path_mtus.contains_key(&destination) && self.path_mtus.len() >= MAX_PATH_MTUS {
            // Whichever: a lost one costs an error more.
            self.path_mtus.pop_first();
        }
        let until = now + self.config.path_mtu_time;
        self.path_mtus.insert(destination, (mtu, until));
        self.path_mtus_due.get_or_insert(until);
        self.generation += 1;
        mtu
    }

    /// The next hop received something from us: TCP knows by acknowledgments (RFC 4861 §7.3.1).
    #[inline]
    pub fn confirm(&mut self, now: Instant, path: &Path) {
        if matches!(self.capabilities(path.iface).medium, Medium::Ethernet { .. }) {
            self.neighbours.confirm(now, path.iface, path.next_hop);
        }
    }

    /// A segment of ours that never left, because its next hop did not answer: the error is as if a router had sent
    /// it, and Linux sends itself one (`arp_error_report`).
    pub fn failures(&mut self) -> Option<IcmpError> {
        self.failures.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. Changes with each call of another method.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.neighbours.poll_timeout(), self.reassembly.poll_timeout(), self.path_mtus_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due. Calls before anything is due are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.neighbours.handle_timeout(now);
        self.serve_neighbours(now);
        while let Some(expired) = self.reassembly.expire(now) {
            self.counters.count(DropReason::FragmentTimeout);
            if let Some(first) = expired.first {
                self.send_error(now, &first, Complaint::ReassemblyTime);
            }
        }
        if self.path_mtus_due.is_some_and(|due| due <= now) {
            self.path_mtus.retain(|_, (_, until)| *until > now);
            self.path_mtus_due = self.path_mtus.values().map(|(_, until)| *until).min();
            self.generation += 1;
        }
    }

    /// What was dropped, and why.
    pub const fn counters(&self) -> &DropCounters {
        &self.counters
    }

    /// Counts what a caller above dropped.
    pub fn count(&mut self, reason: DropReason) {
        self.counters.count(reason);
    }

    /// The neighbours, for inspection.
    pub const fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// The incomplete datagrams, for inspection.
    pub const fn reassembly(&self) -> &Reassembly {
        &self.reassembly
    }
}

/// The ICMP error that is sent for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complaint {
    /// No socket has the port.
    Port,
    /// The protocol is unknown; the offset of its number in the packet.
    Protocol { named_at: u32 },
    /// Fragments were missing for too long.
    ReassemblyTime,
    /// An IPv6 header makes no sense.
    Header(crate::wire::ipv6::ParameterProblem),
}

#[cfg(test)]
mod tests;
