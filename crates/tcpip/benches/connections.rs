//! What a segment, an acknowledgement, a super-segment and a whole connection cost, by the number of idle connections
//! beside it; two stacks in memory, both sides together, with every byte written, checksummed, copied and read.
//!
//! SOCKSHIM_BENCH_IDLE sets how many idle connections there are at most (100,000; a million take 4 GB).

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, ConnectOptions, ListenerId, SocketId, Stack};
use sockshim_tcpip::time::Instant;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const MSS: usize = 1448;

fn address(host: u8, more: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, more, host))
}

struct Net {
    stacks: [Stack<VecMemory>; 2],
    links: [InterfaceId; 2],
    listener: ListenerId,
    now: Instant,
    frame: Vec<u8>,
    buffer: Vec<u8>,
    trusted: bool,
}

impl Net {
    fn new(gso_max: u32) -> Self {
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
            for more in 0..=20 {
                stack.net().add_address(link, address(host, more), 16);
            }
            links[usize::from(host) - 1] = link;
            stack
        });
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
        let listener = stacks[1].listen(any, u32::MAX, None).unwrap();
        let now = Instant::from_secs(1);
        let buffer = vec![0; 1 << 17];
        Self { stacks, links, listener, now, frame: Vec::new(), buffer, trusted: gso_max > 0 }
    }

    /// Carries frames until nobody has any.
    fn pump(&mut self) {
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

    fn open(&mut self, number: usize) -> (SocketId, SocketId) {
        let more = (number / 20_000 % 20) as u8;
        let remote = SocketAddr::new(address(2, more), 80);
        let client = self.stacks[0].connect(self.now, remote, ConnectOptions::default()).unwrap();
        self.pump();
        (client, self.stacks[1].accept(self.now, self.listener).unwrap().0)
    }

    fn send(&mut self, (client, server): (SocketId, SocketId), count: usize) {
        let mut got = 0;
        let sent = self.stacks[0].send(self.now, client, &vec![7; count]).unwrap();
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

    fn sleep(&mut self) {
        if let Some(at) = self.stacks.iter().filter_map(Stack::poll_timeout).min() {
            self.now = self.now.max(at);
            for stack in &mut self.stacks {
                stack.handle_timeout(self.now);
            }
        }
    }
}

fn idle_counts() -> impl Iterator<Item = usize> {
    let most = std::env::var("SOCKSHIM_BENCH_IDLE").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    [0, 1_000, 100_000, 1_000_000].into_iter().filter(move |&count| count <= most)
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for idle in idle_counts() {
        let mut net = Net::new(0);
        for number in 0..idle {
            net.open(number);
        }
        let busy = net.open(0);
        for _ in 0..10 {
            net.send(busy, 32 * MSS);
        }
        group.throughput(Throughput::Elements(32));
        group.bench_function(BenchmarkId::new("both sides, idle beside it", idle), |b| {
            b.iter(|| net.send(busy, 32 * MSS));
        });
    }
    group.finish();
}

fn super_segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("super-segment");
    let mut net = Net::new(65_000);
    let busy = net.open(0);
    net.send(busy, 1 << 16);
    net.send(busy, 1 << 16);
    group.throughput(Throughput::Bytes(44 * MSS as u64));
    group.bench_function("44 segments, both sides", |b| b.iter(|| net.send(busy, 44 * MSS)));
    group.finish();
}

fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection");
    let mut net = Net::new(0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("connect and close, both sides", |b| {
        b.iter(|| {
            let (client, server) = net.open(0);
            let now = net.now;
            // A reset leaves no TIME-WAIT: ports would run out otherwise.
            net.stacks[1].abort(now, server);
            net.pump();
            net.stacks[0].close(net.now, client);
            net.pump();
        });
    });
    group.finish();
    println!(
        "bytes of a connection without buffers and congestion control: {}",
        Stack::<VecMemory>::connection_size()
    );
}

criterion_group!(benches, segments, super_segments, lives);
criterion_main!(benches);
