//! Two stacks in memory, for benches and for a profiler.

#![allow(dead_code, reason = "each of them asks something else")]

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, ConnectOptions, ListenerId, SocketId, Stack};
use sockshim_tcpip::time::Instant;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) const MSS: usize = 1448;

/// Addresses of each stack: ports of one pair do not last for a million connections.
const NETWORKS: u8 = 64;

fn address(host: u8, more: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, more, host))
}

pub(crate) struct Net {
    pub(crate) stacks: [Stack<VecMemory>; 2],
    links: [InterfaceId; 2],
    listener: ListenerId,
    pub(crate) now: Instant,
    frame: Vec<u8>,
    frames: Vec<Vec<u8>>,
    acks: Vec<Vec<u8>>,
    data: Vec<u8>,
    buffer: Vec<u8>,
    trusted: bool,
}

impl Net {
    pub(crate) fn new(gso_max: u32) -> Self {
        let mut links = [InterfaceId::LOOPBACK; 2];
        let mut stacks = [1, 2].map(|host| {
            let mut config = Config::default();
            config.tcp.pacing = false;
            config.tcp.max_backlog = u32::MAX;
            let mut stack = Stack::new(config, VecMemory::default(), [1, 2, 3, u64::from(host)]);
            let link = stack.net().add_interface(Capabilities {
                medium: Medium::Ip,
                mtu: 1500,
                tx_checksum: gso_max > 0,
                gso_max,
            });
            for more in 0..NETWORKS {
                stack.net().add_address(link, address(host, more), 16);
            }
            links[usize::from(host) - 1] = link;
            stack
        });
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
        let listener = stacks[1].listen(any, u32::MAX, None).unwrap();
        let now = Instant::from_secs(1);
        let (data, buffer) = (vec![7; 1 << 17], vec![0; 1 << 17]);
        Self {
            stacks,
            links,
            listener,
            now,
            frame: Vec::new(),
            frames: Vec::new(),
            acks: Vec::new(),
            data,
            buffer,
            trusted: gso_max > 0,
        }
    }

    /// Carries frames until nobody has any.
    pub(crate) fn pump(&mut self) {
        self.now += Duration::from_micros(10);
        let mut quiet = 0;
        let mut from = 0;
        while quiet < 2 {
            quiet += 1;
            while let Some(transmit) = self.stacks[from].poll_transmit(self.now, &mut self.frame) {
                quiet = 0;
                let meta = RxMeta { checksum_ok: self.trusted, gso_size: transmit.gso_size };
                self.stacks[1 - from].handle_packet(self.now, self.links[1 - from], &self.frame, meta);
            }
            from = 1 - from;
        }
        for stack in &mut self.stacks {
            while stack.poll_event().is_some() {}
        }
    }

    pub(crate) fn open(&mut self, number: usize) -> (SocketId, SocketId) {
        let more = (number / 20_000) as u8 % NETWORKS;
        let remote = SocketAddr::new(address(2, more), 80);
        let client = self.stacks[0].connect(self.now, remote, ConnectOptions::default()).unwrap();
        self.pump();
        (client, self.stacks[1].accept(self.now, self.listener).unwrap().0)
    }

    pub(crate) fn send(&mut self, (client, server): (SocketId, SocketId), count: usize) {
        let mut got = 0;
        let sent = self.stacks[0].send(self.now, client, &self.data[..count]).unwrap();
        assert_eq!(sent, count);
        while got < count {
            self.pump();
            let before = got;
            while let Ok(count) = self.stacks[1].recv(self.now, server, &mut self.buffer) {
                got += count;
            }
            if got == before {
                self.sleep();
            }
        }
        self.pump();
    }

    /// Sends `segments` full ones at once, and tells how long, by `clock`, sending them took, receiving and reading them
    /// with an acknowledgement of each second one, and taking those acknowledgements. To ask the clock takes as long as
    /// several of those, and is not counted.
    pub(crate) fn stages(
        &mut self,
        (client, server): (SocketId, SocketId),
        segments: usize,
        clock: fn() -> Duration,
    ) -> [Duration; 3] {
        self.now += Duration::from_micros(10);
        self.frames.resize_with(segments, Vec::new);
        self.acks.resize_with(segments / 2, Vec::new);
        let asked = clock();
        let begin = clock();
        self.send_segments(client);
        let leaving = clock();
        self.receive_segments(server);
        let arrived = clock();
        self.receive_acks();
        let acknowledged = clock();
        self.pump();
        [leaving - begin, arrived - leaving, acknowledged - arrived]
            .map(|stage| stage.saturating_sub(begin - asked))
    }

    /// Stages are functions of their own for a profiler's sake.
    #[inline(never)]
    fn send_segments(&mut self, client: SocketId) {
        let sender = &mut self.stacks[0];
        let count = self.frames.len() * MSS;
        assert_eq!(sender.send(self.now, client, &self.data[..count]).unwrap(), count);
        for frame in &mut self.frames {
            sender.poll_transmit(self.now, frame).expect("the window is open");
        }
        assert_eq!(sender.poll_transmit(self.now, &mut self.frame), None);
    }

    #[inline(never)]
    fn receive_segments(&mut self, server: SocketId) {
        let receiver = &mut self.stacks[1];
        let mut count = 0;
        for (pair, ack) in self.frames.chunks(2).zip(&mut self.acks) {
            for frame in pair {
                receiver.handle_packet(self.now, self.links[1], frame, RxMeta::default());
            }
            count += receiver.recv(self.now, server, &mut self.buffer).unwrap();
            receiver.poll_transmit(self.now, ack).expect("two segments are acknowledged");
        }
        assert_eq!(count, self.frames.len() * MSS);
    }

    #[inline(never)]
    fn receive_acks(&mut self) {
        for ack in &self.acks {
            self.stacks[0].handle_packet(self.now, self.links[0], ack, RxMeta::default());
        }
    }

    /// Lets time pass to the next deadline, if there is one.
    pub(crate) fn sleep(&mut self) -> bool {
        let Some(at) = self.stacks.iter().filter_map(Stack::poll_timeout).min() else { return false };
        self.now = self.now.max(at);
        for stack in &mut self.stacks {
            stack.handle_timeout(self.now);
        }
        true
    }
}
