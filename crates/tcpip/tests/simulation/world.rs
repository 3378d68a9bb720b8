//! Hosts that speak TCP over a simulated network, and the programs on them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::error::Error;
use sockshim_tcpip::net::{Capabilities, Medium};
use sockshim_tcpip::sim::{Clock, HostId, LinkConfig, LinkId, Network, Step};
use sockshim_tcpip::stack::{self, ConnectOptions, Event, ListenerId, SocketId, Stack};
use sockshim_tcpip::tcp::{Config, How};
use sockshim_tcpip::time::Instant;

use crate::stream::Stream;
use crate::watch::Watched;

/// What one side of a connection does.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// Bytes that it sends before it shuts down sending.
    pub(crate) sends: u64,
    /// The most that one call sends or takes.
    pub(crate) chunk: usize,
    /// It takes nothing while the stream is between these positions, for that long.
    pub(crate) pause: Option<(u64, Duration)>,
    /// It shuts down sending as soon as it has sent everything; else only when it has got everything.
    pub(crate) half_close: bool,
    /// It breaks the connection off after getting this many bytes.
    pub(crate) aborts_after: Option<u64>,
}

impl Side {
    pub(crate) fn sends(bytes: u64) -> Self {
        Self { sends: bytes, chunk: 64 * 1024, pause: None, half_close: true, aborts_after: None }
    }
}

/// One end of one connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: HostId,
    pub(crate) socket: Option<SocketId>,
    pub(crate) side: Side,
    pub(crate) out: Stream,
    pub(crate) incoming: Stream,
    paused_until: Option<Instant>,
    pub(crate) shut: bool,
    pub(crate) ended: bool,
    pub(crate) closed: bool,
    pub(crate) error: Option<Error>,
    /// When the last byte came, in the network's time.
    pub(crate) finished_at: Option<Instant>,
}

/// A network with programs.
pub(crate) struct World {
    pub(crate) network: Network<Watched>,
    pub(crate) hosts: Vec<HostId>,
    pub(crate) links: Vec<LinkId>,
    pub(crate) ends: Vec<End>,
    by_socket: HashMap<(HostId, SocketId), usize>,
    /// Connections that a listener has not accepted yet, by the client's address.
    expected: HashMap<(HostId, SocketAddr), usize>,
    started: usize,
    /// Whether to check everything after each event, or only streams: for long runs.
    pub(crate) thorough: bool,
    since_progress: u64,
}

const PORT: u16 = 80;

pub(crate) fn v4(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host as u8 + 1).into()
}

pub(crate) fn v6(host: usize) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host as u16 + 1).into()
}

/// The interface of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    pub(crate) mtu: u32,
    pub(crate) gso_max: u32,
}

impl Default for Interface {
    fn default() -> Self {
        Self { mtu: 1500, gso_max: 0 }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            network: Network::new(seed),
            hosts: Vec::new(),
            links: Vec::new(),
            ends: Vec::new(),
            by_socket: HashMap::new(),
            expected: HashMap::new(),
            started: 0,
            thorough: true,
            since_progress: 0,
        }
    }

    /// Two hosts with a link of that kind in each direction; the first one is the client.
    pub(crate) fn pair(seed: u64, config: Config, there: LinkConfig, back: LinkConfig) -> Self {
        Self::pair_of(
            seed,
            [config.clone(), config],
            [Interface::default(); 2],
            [Clock::default(); 2],
            there,
            back,
        )
    }

    pub(crate) fn pair_of(
        seed: u64,
        configs: [Config; 2],
        interfaces: [Interface; 2],
        clocks: [Clock; 2],
        there: LinkConfig,
        back: LinkConfig,
    ) -> Self {
        let mut world = Self::new(seed);
        for ((config, interface), clock) in configs.into_iter().zip(interfaces).zip(clocks) {
            world.add_host(config, interface, clock);
        }
        let (there, back) = (world.network.add_link(there), world.network.add_link(back));
        world.route(0, 1, &[there]);
        world.route(1, 0, &[back]);
        world.links = vec![there, back];
        world
    }

    pub(crate) fn add_host(&mut self, config: Config, interface: Interface, clock: Clock) -> HostId {
        let number = self.hosts.len();
        let secret = [7, 11, 13, number as u64 + 17];
        let config = stack::Config { tcp: config, ..stack::Config::default() };
        let mut stack = Stack::new(config, VecMemory::default(), secret);
        let Interface { mtu, gso_max } = interface;
        let net = stack.net();
        let link =
            net.add_interface(Capabilities { medium: Medium::Ip, mtu, tx_checksum: gso_max > 0, gso_max });
        net.add_address(link, v4(number), 24);
        net.add_address(link, v6(number), 64);
        let host = self.network.add_host(Watched::new(stack), clock);
        self.hosts.push(host);
        host
    }

    /// Both addresses of `to` are reached from `from` over these links.
    pub(crate) fn route(&mut self, from: usize, to: usize, links: &[LinkId]) {
        for address in [v4(to), v6(to)] {
            self.network.connect(self.hosts[from], self.hosts[to], address, links);
        }
    }

    pub(crate) fn listen(&mut self, host: usize, address: IpAddr) {
        let id = self.hosts[host];
        let local = SocketAddr::new(address, PORT);
        let stack = &mut self.network.host_mut(id).stack;
        stack.listen(local, 128, None).expect("the port is free");
    }

    /// Begins a connection from one host to another, which listens. Returns the client's end; the server's is the next.
    pub(crate) fn open(
        &mut self,
        from: usize,
        to: usize,
        address: fn(usize) -> IpAddr,
        sides: [Side; 2],
    ) -> usize {
        let (client, server) = (self.hosts[from], self.hosts[to]);
        let local = SocketAddr::new(address(from), 10_000 + self.started as u16);
        let remote = SocketAddr::new(address(to), PORT);
        self.started += 1;
        let now = self.network.time_of(client);
        let stack = &mut self.network.host_mut(client).stack;
        let socket =
            stack.connect(now, remote, ConnectOptions { local: Some(local), socket: None }).expect("a route");
        let index = self.ends.len();
        let keys = [self.started as u64 * 2, self.started as u64 * 2 + 1];
        let [a, b] = sides;
        let streams = [Stream::new(keys[0], a.sends), Stream::new(keys[1], b.sends)];
        self.ends.push(End::new(client, a, streams[0].clone(), streams[1].clone()));
        self.ends.push(End::new(server, b, streams[1].clone(), streams[0].clone()));
        self.ends[index].socket = Some(socket);
        self.by_socket.insert((client, socket), index);
        self.expected.insert((server, local), index + 1);
        self.network.pump(client);
        index
    }

    /// Lets the next thing happen, and the programs do what they can then. False: nothing ever happens again.
    pub(crate) fn step(&mut self) -> bool {
        let wake = self.ends.iter().filter_map(|end| end.paused_until).min();
        let next = self.network.next_event();
        if let Some(wake) = wake.filter(|&wake| next.is_none_or(|next| next > wake)) {
            self.network.run_until(wake);
            for index in 0..self.ends.len() {
                if self.ends[index].paused_until.is_some_and(|until| until <= wake) {
                    self.ends[index].paused_until = None;
                    self.act(index);
                    let host = self.ends[index].host;
                    self.network.pump(host);
                    self.check(host);
                }
            }
            return true;
        }
        match self.network.step() {
            Some(Step::Host(host)) => {
                self.run_programs(host);
                self.check(host);
                true
            }
            Some(Step::Transit) => true,
            None => false,
        }
    }

    /// Runs until all ends are closed, or nothing happens any more, or for that long.
    pub(crate) fn run(&mut self, limit: Duration) {
        let end = self.network.now() + limit;
        while !self.is_done() && self.network.now() < end {
            if !self.step() {
                break;
            }
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.network.now() + time;
        while self.network.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.network.run_until(end);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ends.iter().all(|end| end.closed)
    }

    /// Every stream arrived, every connection came to its end, and nothing of it is left anywhere.
    #[track_caller]
    pub(crate) fn assert_complete(&mut self) {
        for (i, end) in self.ends.iter().enumerate() {
            let what = if i % 2 == 0 { "client" } else { "server" };
            assert_eq!(end.error, None, "{what} of connection {}: {end:?}", i / 2);
            assert_eq!(end.incoming.left(), 0, "{what} of connection {}: {end:?}", i / 2);
            assert!(end.closed, "{what} of connection {}: {end:?}", i / 2);
        }
        self.assert_nothing_left();
    }

    /// After TIME-WAIT no connection is left, nor memory of one.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&mut self) {
        // Long enough to give up, too: a link whose losses come in bursts can lose each of a few rare packets.
        self.run_for(Duration::from_secs(3 * 3600));
        for &host in &self.hosts {
            let stack = &self.network.host(host).stack;
            stack.check_invariants();
            let left = (stack.connection_count(), stack.handshake_count(), stack.time_wait_count());
            let which: Vec<_> = stack.sockets().collect();
            assert_eq!(left, (0, 0, 0), "connections, handshakes and TIME-WAIT are left: {which:?}");
            self.network.host(host).check_no_ack_storm();
        }
    }

    fn run_programs(&mut self, host: HostId) {
        let mut awake = HashSet::new();
        while let Some(event) = self.network.host_mut(host).stack.poll_event() {
            let socket = match event {
                Event::Acceptable(listener) => {
                    awake.extend(self.accept(host, listener));
                    continue;
                }
                Event::Connected(socket)
                | Event::Urgent(socket)
                | Event::Readable(socket)
                | Event::Writable(socket)
                | Event::HungUp(socket)
                | Event::Failed(socket, _)
                | Event::Closed(socket) => socket,
            };
            awake.extend(self.by_socket.get(&(host, socket)));
        }
        if awake.is_empty() {
            return;
        }
        let mut awake: Vec<_> = awake.into_iter().collect();
        awake.sort_unstable();
        for index in awake {
            self.act(index);
        }
        self.network.pump(host);
    }

    fn accept(&mut self, host: HostId, listener: ListenerId) -> Vec<usize> {
        let now = self.network.time_of(host);
        let mut accepted = Vec::new();
        while let Ok((socket, remote)) = self.network.host_mut(host).stack.accept(now, listener) {
            let index = self.expected.remove(&(host, remote)).expect("a connection that was begun, once");
            self.ends[index].socket = Some(socket);
            self.by_socket.insert((host, socket), index);
            accepted.push(index);
        }
        accepted
    }

    /// The program of one end does what it can.
    fn act(&mut self, index: usize) {
        let end = &mut self.ends[index];
        let Some(socket) = end.socket.filter(|_| !end.closed) else { return };
        let (now, real) = (self.network.time_of(end.host), self.network.now());
        let host = self.network.host_mut(end.host);
        host.calls += 1;
        let before = (end.out.done, end.incoming.done, end.shut, end.ended, end.closed);
        end.take(&mut host.stack, socket, now, real);
        host.calls += (end.incoming.done - before.1) / 1000;
        end.give(&mut host.stack, socket, now);
        if end.error.is_some() || (end.shut && end.ended && end.incoming.left() == 0) {
            host.stack.close(now, socket);
            end.closed = true;
        }
        if before != (end.out.done, end.incoming.done, end.shut, end.ended, end.closed) {
            self.since_progress = 0;
        }
    }

    fn check(&mut self, host: HostId) {
        self.since_progress += 1;
        assert!(self.since_progress < 200_000, "much is said and nothing comes of it");
        if self.thorough {
            self.network.host(host).stack.check_invariants();
            self.network.host(host).check_no_ack_storm();
        }
    }
}

impl End {
    fn new(host: HostId, side: Side, out: Stream, incoming: Stream) -> Self {
        Self {
            host,
            socket: None,
            side,
            out,
            incoming,
            paused_until: None,
            shut: false,
            ended: false,
            closed: false,
            error: None,
            finished_at: None,
        }
    }

    fn take(&mut self, stack: &mut Stack<VecMemory>, socket: SocketId, now: Instant, real: Instant) {
        let mut data = vec![0; self.side.chunk];
        while !self.ended && self.error.is_none() && self.paused_until.is_none() {
            if let Some((from, time)) = self.side.pause
                && self.incoming.done >= from
            {
                self.side.pause = None;
                self.paused_until = Some(real + time);
                return;
            }
            match stack.recv(now, socket, &mut data) {
                Ok(0) => {
                    assert_eq!(self.incoming.left(), 0, "the stream ended too early");
                    self.ended = true;
                    self.finished_at.get_or_insert(real);
                }
                Ok(count) => self.incoming.check(&data[..count]),
                Err(Error::WouldBlock) => return,
                Err(Error::NotConnected) if self.out.done == 0 && self.incoming.done == 0 => return,
                Err(error) => self.error = Some(error),
            }
            if self.side.aborts_after.is_some_and(|limit| self.incoming.done >= limit) {
                stack.abort(now, socket);
                self.closed = true;
                return;
            }
        }
    }

    fn give(&mut self, stack: &mut Stack<VecMemory>, socket: SocketId, now: Instant) {
        let mut data = vec![0; self.side.chunk];
        while self.out.left() > 0 && self.error.is_none() && !self.closed {
            let count = self.out.fill(&mut data);
            match stack.send(now, socket, &data[..count]) {
                Ok(sent) => self.out.done += sent as u64,
                Err(Error::WouldBlock | Error::InProgress | Error::NotConnected) => return,
                Err(error) => self.error = Some(error),
            }
        }
        if self.out.left() == 0 && !self.shut && self.error.is_none() && (self.side.half_close || self.ended)
        {
            match stack.shutdown(now, socket, How::Write) {
                Ok(()) => self.shut = true,
                Err(Error::WouldBlock | Error::NotConnected | Error::InProgress) => {}
                Err(error) => self.error = Some(error),
            }
        }
    }
}
