//! Two hosts, a wire, a clock.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, ConnectOptions, Event, ListenerId, SocketId, Stack};
use sockshim_tcpip::time::Instant;

pub(crate) struct Host {
    pub(crate) stack: Stack<VecMemory>,
    pub(crate) events: Vec<Event>,
    link: InterfaceId,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// When, to which host, what, segment size.
    wire: VecDeque<(Instant, usize, Vec<u8>, u16)>,
    pub(crate) frames: usize,
    lose_each: usize,
    listener: ListenerId,
}

const DELAY: Duration = Duration::from_millis(5);

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + host as u8)
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::build(0, |_| {})
    }

    pub(crate) fn with(change: impl Fn(&mut Config)) -> Self {
        Self::build(0, change)
    }

    pub(crate) fn with_gso(gso_max: u32) -> Self {
        Self::build(gso_max, |_| {})
    }

    fn build(gso_max: u32, change: impl Fn(&mut Config)) -> Self {
        let now = Instant::from_secs(1);
        let mut hosts = [0, 1].map(|host| {
            let mut config = Config::default();
            change(&mut config);
            let mut stack = Stack::new(config, VecMemory::default(), [1, 2, 3, 4 + host as u64]);
            let link = stack.net().add_interface(Capabilities {
                medium: Medium::Ethernet { address: [2, 0, 0, 0, 0, host as u8] },
                mtu: 1500,
                tx_checksum: false,
                gso_max,
            });
            stack.net().add_address(link, address(host).into(), 24);
            Host { stack, events: Vec::new(), link }
        });
        let listener =
            hosts[1].stack.listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80), 16, None).unwrap();
        Self { now, hosts, wire: VecDeque::new(), frames: 0, lose_each: 0, listener }
    }

    pub(crate) fn lose_each(&mut self, nth: usize) {
        self.lose_each = nth;
    }

    pub(crate) fn start_connect(&mut self, port: u16) -> SocketId {
        let remote = SocketAddr::new(address(1).into(), port);
        self.hosts[0].stack.connect(self.now, remote, ConnectOptions::default()).unwrap()
    }

    pub(crate) fn connect(&mut self) -> (SocketId, SocketId) {
        let client = self.start_connect(80);
        self.run_for(Duration::from_millis(100));
        let (server, _) = self.hosts[1].stack.accept(self.now, self.listener).expect("a connection");
        assert!(self.hosts[0].events.contains(&Event::Connected(client)));
        (client, server)
    }

    pub(crate) fn send(&mut self, host: usize, id: SocketId, data: &[u8]) {
        assert_eq!(self.hosts[host].stack.send(self.now, id, data), Ok(data.len()));
    }

    pub(crate) fn receive(&mut self, host: usize, id: SocketId) -> Vec<u8> {
        let mut data = vec![0; 1 << 16];
        let count = self.hosts[host].stack.recv(self.now, id, &mut data).unwrap_or(0);
        data.truncate(count);
        data
    }

    pub(crate) fn close(&mut self, host: usize, id: SocketId) {
        self.hosts[host].stack.close(self.now, id);
    }

    #[track_caller]
    pub(crate) fn assert_no_connections(&self) {
        assert_eq!(self.hosts.each_ref().map(|host| host.stack.connection_count()), [0, 0]);
    }

    /// Sends `count` bytes and checks each one that arrives.
    pub(crate) fn transfer(&mut self, client: SocketId, server: SocketId, count: usize) {
        let byte = |at: usize| (at % 251) as u8 ^ (at >> 16) as u8;
        let data: Vec<u8> = (0..count).map(byte).collect();
        let (mut sent, mut got) = (0, 0);
        let give_up = self.now + Duration::from_secs(600);
        while got < count {
            sent += self.hosts[0].stack.send(self.now, client, &data[sent..]).unwrap_or(0);
            self.step(give_up);
            loop {
                let piece = self.receive(1, server);
                if piece.is_empty() {
                    break;
                }
                assert!(piece == data[got..got + piece.len()], "bytes from {got} on");
                got += piece.len();
            }
            assert!(self.now < give_up, "stuck after {got} of {count} bytes, {sent} sent");
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Goes to the next thing that happens, but not beyond `end`.
    fn step(&mut self, end: Instant) {
        let mut frame = Vec::new();
        for from in 0..2 {
            let host = &mut self.hosts[from];
            while let Some(transmit) = host.stack.poll_transmit(self.now, &mut frame) {
                self.frames += 1;
                if self.lose_each == 0 || !self.frames.is_multiple_of(self.lose_each) {
                    self.wire.push_back((self.now + DELAY, 1 - from, frame.clone(), transmit.gso_size));
                }
            }
            while let Some(event) = host.stack.poll_event() {
                host.events.push(event);
            }
            host.stack.check_invariants();
        }
        let timers = self.hosts.iter().filter_map(|host| host.stack.poll_timeout()).min();
        let arrival = self.wire.front().map(|packet| packet.0);
        let next = timers.into_iter().chain(arrival).min().unwrap_or(end);
        self.now = self.now.max(next.min(end));
        while let Some((at, to, ..)) = self.wire.front()
            && *at <= self.now
        {
            let to = *to;
            let (_, _, frame, gso_size) = self.wire.pop_front().unwrap();
            let host = &mut self.hosts[to];
            host.stack.handle_packet(self.now, host.link, &frame, RxMeta { checksum_ok: false, gso_size });
            host.stack.check_invariants();
        }
        for host in &mut self.hosts {
            host.stack.handle_timeout(self.now);
        }
    }
}
