//! To whom a segment belongs: one table for connections, handshakes and TIME-WAIT, and one for listeners.

use core::net::{IpAddr, SocketAddr};

use super::Stack;
use crate::buffer::Memory;
use crate::slab::Key;
use crate::table::{HashKey, Table};
use crate::tcp::endpoint::Endpoint;

/// What a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Connection(u32),
    Handshake(u32),
    TimeWait(u32),
}

/// The tables that find the socket of a segment.
#[derive(Debug)]
pub(super) struct Flows {
    key: HashKey,
    flows: Table,
    listeners: Table,
}

/// The two upper bits of an index in the table say what it names.
const KIND: u32 = 3 << 30;
const HANDSHAKE: u32 = 1 << 30;
const TIME_WAIT: u32 = 2 << 30;

impl Flow {
    const fn to_index(self) -> u32 {
        match self {
            Self::Connection(index) => index,
            Self::Handshake(index) => index | HANDSHAKE,
            Self::TimeWait(index) => index | TIME_WAIT,
        }
    }

    const fn from_index(index: u32) -> Self {
        match index & KIND {
            HANDSHAKE => Self::Handshake(index & !KIND),
            TIME_WAIT => Self::TimeWait(index & !KIND),
            _ => Self::Connection(index),
        }
    }
}

impl Flows {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self { key: HashKey::new(secret), flows: Table::new(), listeners: Table::new() }
    }

    #[inline(always)]
    fn hash(&self, local: Endpoint, remote: Endpoint) -> u32 {
        self.key.flow((local.ip(), local.port()), (remote.ip(), remote.port()))
    }

    pub(super) fn insert(&mut self, local: SocketAddr, remote: SocketAddr, flow: Flow) {
        self.flows.insert(self.hash(local.into(), remote.into()), flow.to_index());
    }

    pub(super) fn remove(&mut self, local: SocketAddr, remote: SocketAddr, flow: Flow) -> bool {
        self.flows.remove(self.hash(local.into(), remote.into()), flow.to_index())
    }

    pub(super) fn insert_listener(&mut self, address: Option<IpAddr>, port: u16, index: u32) {
        self.listeners.insert(self.key.endpoint(address, port), index);
    }

    pub(super) fn remove_listener(&mut self, address: Option<IpAddr>, port: u16, index: u32) {
        self.listeners.remove(self.key.endpoint(address, port), index);
    }
}

impl<M: Memory> Stack<M> {
    /// The flow of a segment.
    #[inline(always)] // addresses that were put together are not to be taken apart again by way of the memory
    pub(super) fn find_flow(&self, local: Endpoint, remote: Endpoint) -> Option<Flow> {
        let Self { flows, connections, .. } = self;
        let ends = (local, remote);
        let found = flows.flows.find(flows.hash(local, remote), |index| match Flow::from_index(index) {
            Flow::Connection(index) => connections.at(index).is_some_and(|c| c.ends == ends),
            flow => self.is_between(flow, ends),
        });
        found.map(Flow::from_index)
    }

    /// Whether a flow that is no connection has these ends. Apart, so that what every segment runs through stays short.
    #[inline(never)]
    fn is_between(&self, flow: Flow, (local, remote): (Endpoint, Endpoint)) -> bool {
        match flow {
            Flow::Connection(_) => false,
            Flow::Handshake(index) => {
                self.handshakes.at(index).is_some_and(|h| h.remote == remote && h.local == local)
            }
            Flow::TimeWait(index) => {
                self.time_waits.at(index).is_some_and(|t| t.remote == remote && t.local == local)
            }
        }
    }

    /// The listener for a local address: of that address, or else of any.
    pub(super) fn find_listener(&self, local: SocketAddr) -> Option<Key> {
        let port = local.port();
        self.listener_at(Some(local.ip()), port).or_else(|| self.listener_at(None, port))
    }

    /// The listener that was made for exactly that.
    pub(super) fn listener_at(&self, address: Option<IpAddr>, port: u16) -> Option<Key> {
        let Self { flows, listeners, .. } = self;
        let found = flows.listeners.find(flows.key.endpoint(address, port), |index| {
            listeners.at(index).is_some_and(|l| l.address == address && l.port == port)
        });
        found.and_then(|index| listeners.key_at(index))
    }
}
