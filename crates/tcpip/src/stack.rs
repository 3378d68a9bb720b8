//! The stack, as a caller drives it.
//!
//! ```text
//! frames ── handle_packet ─► Network ─► flows ─► Connection ─┐
//! time ──── handle_timeout ► wheels ───────────► Connection ─┤ settle: ready lists, wheel
//! calls ─── send, recv … ──────────────────────► Connection ─┘
//! frames ◄─ poll_transmit ── ready list        events ◄─ poll_event ── event list
//! ```
//!
//! # Driving it
//!
//! The caller owns the links and the clock. Whenever it is awake it does these things in this order, and then sleeps:
//!
//! 1. [`handle_packet`](Stack::handle_packet) with each frame that has arrived.
//! 2. [`handle_timeout`](Stack::handle_timeout), if what [`poll_timeout`](Stack::poll_timeout) said is due; else it does no
//!    harm.
//! 3. [`poll_event`](Stack::poll_event) until there is none, with the calls that the events ask for. Calls can make events.
//! 4. [`poll_transmit`](Stack::poll_transmit) until there is no frame. Last, because each of the above may make some: an
//!    acknowledgement waits here for data to travel with, and several writes for each other. A frame that the link does not
//!    take may be dropped. What the stack sends to itself does not come out but goes in again, and makes events: a caller
//!    that uses the loopback goes back to 3 when there are some.
//! 5. Sleep until a frame arrives, or the application wants something, or the moment that `poll_timeout` says, which each of
//!    the calls above may have moved.
//!
//! `now` may be the same in several calls, and may not go back. A call that comes late makes timers late, and nothing else.
//! `examples/tun.rs` is such a loop.
//!
//! # What events mean
//!
//! Events are hints that a call may now succeed, not counts: several things that happened are one event, and an event may
//! come for data that was read meanwhile, so [`Error::WouldBlock`] is always a possible answer. The state of a socket can be
//! asked for at any time ([`readiness`](Stack::readiness)), and events come for changes only.
//!
//! | event | when | what to do |
//! |---|---|---|
//! | [`Acceptable`](Event::Acceptable) | a connection waits, once for each | [`accept`](Stack::accept) until it would block |
//! | [`Connected`](Event::Connected) | the handshake is over: of a socket that connects, and of one that was accepted, as its first event after `accept` | begin |
//! | [`Readable`](Event::Readable) | data arrived, or the end of the stream (`recv` gives 0), or an error | [`recv`](Stack::recv) until it would block |
//! | [`Writable`](Event::Writable) | there is room after a call found none; and once at the beginning | [`send`](Stack::send) |
//! | [`Urgent`](Event::Urgent) | urgent data was announced, for each pointer that advances | [`recv_urgent`](Stack::recv_urgent) |
//! | [`HungUp`](Event::HungUp) | both directions are closed, or the connection is over | nothing, but to read what is there |
//! | [`Failed`](Event::Failed) | the connection ended by an error, which the next call gives as well | [`close`](Stack::close) |
//! | [`Closed`](Event::Closed) | nothing can happen any more: after an error, a reset, or both ends' FINs, whoever was first. What was received can still be read | `close` |
//!
//! A socket is the application's until it calls [`close`](Stack::close) or [`abort`](Stack::abort), also after `Closed`: then its
//! name means nothing any more, and no event of it comes. What is left to be done, as to send what was written, the stack
//! does by itself.
//!
//! # How it works
//!
//! After anything that changes a connection it is put on the lists on which it belongs, and its next deadline into the
//! timer wheel; so the pollers never look for work, and a connection on which nothing happens costs nothing.

mod calls;
mod demux;
mod input;
mod inspect;
mod lifecycle;
mod listening;
mod output;
mod timeouts;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

pub use calls::ConnectOptions;
use demux::Flows;

use crate::buffer::Memory;
use crate::error::Error;
use crate::net::{self, InterfaceId, Network, RxMeta, Transmit};
use crate::ready::ReadyList;
use crate::slab::{Key, Slab};
use crate::tcp;
use crate::tcp::conn::Connection;
use crate::tcp::context::{Context, Replies, TcpCounters};
use crate::tcp::listen::{Handshake, Listener};
use crate::tcp::resources::Resources;
use crate::tcp::secrets::Secrets;
use crate::tcp::timewait::TimeWait;
use crate::time::Instant;
use crate::wheel::Wheel;

/// Names a connection of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub(crate) Key);

/// Names a listener of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) Key);

impl SocketId {
    /// A number that no other connection of the stack has or will have soon.
    pub const fn to_bits(self) -> u64 {
        self.0.to_bits()
    }
}

impl ListenerId {
    /// A number that no other listener of the stack has or will have soon.
    pub const fn to_bits(self) -> u64 {
        self.0.to_bits()
    }
}

/// What an application may want to know. The [module](self) says when each comes and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The handshake is over: `connect` succeeded, or the socket was accepted just now.
    Connected(SocketId),
    /// The other end has urgent data: SIGURG. Once for each pointer that goes beyond the one before.
    Urgent(SocketId),
    /// There is data, or the end of the stream.
    Readable(SocketId),
    /// There is room after there was none, or for the first time.
    Writable(SocketId),
    /// Both directions are closed.
    HungUp(SocketId),
    /// The connection failed. The error stays for the next call, as SO_ERROR.
    Failed(SocketId, Error),
    /// The connection is over, by whatever end; what was received can still be read. It does not come after one's own
    /// `close`, which ends the socket at once.
    Closed(SocketId),
    /// A connection waits for `accept`.
    Acceptable(ListenerId),
}

/// The configuration of a stack.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Settings of TCP.
    pub tcp: tcp::Config,
    /// Settings of the layers below TCP and UDP.
    pub net: net::Config,
}

/// A TCP/IP stack: no threads, no clock, no I/O.
#[derive(Debug)]
pub struct Stack<M: Memory> {
    config: Config,
    default_options: Arc<tcp::SocketOptions>,
    memory: M,
    net: Network,
    secrets: Secrets,
    flows: Flows,
    connections: Slab<Connection<M::Send, M::Receive>>,
    handshakes: Slab<Handshake>,
    time_waits: Slab<TimeWait>,
    listeners: Slab<Listener>,
    timers: Wheel,
    handshake_timers: Wheel,
    time_wait_timers: Wheel,
    /// Connections that may have something to send.
    ready: ReadyList,
    /// Connections with something to tell.
    eventful: ReadyList,
    acceptable: VecDeque<Key>,
    /// Connections whose applications want to write, and for which there is no memory.
    starved: ReadyList,
    resources: Resources,
    replies: Replies,
    counters: TcpCounters,
    scratch: Vec<u8>,
}

/// A connection with the buffers that a memory gives.
type ConnectionIn<M> = Connection<<M as Memory>::Send, <M as Memory>::Receive>;

/// The resolution of timers. It is fine enough for pacing, and reaches three days.
const TICK: Duration = Duration::from_micros(64);
/// The resolution of handshakes and of TIME-WAIT.
const COARSE_TICK: Duration = Duration::from_millis(4);

impl<M: Memory> Stack<M> {
    /// A stack without links. `secret` must be random, except where a run is to be repeated exactly.
    pub fn new(config: Config, memory: M, secret: [u64; 4]) -> Self {
        let [a, b, c, d] = secret;
        let mut net_config = config.net;
        net_config.hop_limit = config.tcp.hop_limit;
        Self {
            default_options: Arc::new(tcp::SocketOptions::new(&config.tcp)),
            net: Network::new(net_config, [b ^ c, c, d, a]),
            memory,
            secrets: Secrets::new(secret),
            flows: Flows::new([a ^ b, c ^ d]),
            connections: Slab::new(),
            handshakes: Slab::new(),
            time_waits: Slab::new(),
            listeners: Slab::new(),
            timers: Wheel::new(TICK),
            handshake_timers: Wheel::new(COARSE_TICK),
            time_wait_timers: Wheel::new(COARSE_TICK),
            ready: ReadyList::new(),
            eventful: ReadyList::new(),
            acceptable: VecDeque::new(),
            starved: ReadyList::new(),
            resources: Resources::default(),
            replies: Replies::default(),
            counters: TcpCounters::default(),
            scratch: Vec::new(),
            config,
        }
    }

    /// The layers below TCP, and UDP: links, addresses, routes.
    pub const fn net(&mut self) -> &mut Network {
        &mut self.net
    }

    /// A frame has arrived. Whatever it contains, at worst it is dropped and counted.
    pub fn handle_packet(&mut self, now: Instant, interface: InterfaceId, frame: &[u8], meta: RxMeta) {
        self.receive(now, interface, frame, meta);
    }

    /// Does what is due by `now`. A call when nothing is due does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; it may be sooner than needed. It changes
    /// with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.handshake_timers.next(),
            self.time_wait_timers.next(),
            self.net.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Writes the next frame that is to leave into `frame`. To be called until it gives nothing; there may be something
    /// again after any other call.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, frame: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            frame.clear();
            let transmit = self.next_frame(now, frame);
            match &transmit {
                Some(Transmit { iface: InterfaceId::LOOPBACK, gso_size, .. }) => {
                    self.hear_ourselves(now, frame, *gso_size);
                }
                _ => return transmit,
            }
        }
    }

    /// Receives what was sent over the loopback.
    #[cold]
    fn hear_ourselves(&mut self, now: Instant, frame: &mut Vec<u8>, gso_size: u16) {
        let looped = core::mem::take(frame);
        self.receive(now, InterfaceId::LOOPBACK, &looped, RxMeta { checksum_ok: true, gso_size });
        *frame = looped;
    }

    /// The next thing that an application may want to know. There may be something after any other call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.next_event()
    }

    /// The counters of all connections.
    pub const fn counters(&self) -> &TcpCounters {
        &self.counters
    }

    /// Connections that exist, with those that wait to be accepted.
    pub const fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Handshakes begun by others that are under way.
    pub const fn handshake_count(&self) -> usize {
        self.handshakes.len()
    }

    /// Connections in TIME-WAIT.
    pub const fn time_wait_count(&self) -> usize {
        self.time_waits.len()
    }

    /// Connections whose sockets are closed and that are not over.
    pub const fn orphan_count(&self) -> usize {
        self.resources.orphans as usize
    }

    /// Bytes of memory in the buffers of all connections.
    pub const fn memory(&self) -> u64 {
        self.resources.held()
    }

    /// Bytes that one connection takes, without its buffers.
    pub const fn connection_size() -> usize {
        Slab::<Connection<M::Send, M::Receive>>::entry_size()
    }

    /// A connection, and what it needs of the stack to work.
    fn connection(&mut self, now: Instant, key: Key) -> Option<(&mut ConnectionIn<M>, Context<'_>)> {
        let Self { connections, config, replies, resources, counters, .. } = self;
        let connection = connections.get_mut(key)?;
        Some((connection, Context { now, config: &config.tcp, replies, resources, counters }))
    }
}

/// A handshake begun by another, and a connection in TIME-WAIT, take few bytes.
const _: () = assert!(Slab::<Handshake>::entry_size() <= 96 && Slab::<TimeWait>::entry_size() <= 96);
