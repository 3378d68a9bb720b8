//! One flow, against smoltcp's: the same bytes written, carried and read in memory, both sides together.
//!
//! Twice like with like: both in segments of 1,500 bytes with checksums, and both in packets of 64 KB without. And once as
//! a user of a TUN device has it, whose packets have 1,500 bytes, and which takes and gives super-segments and leaves
//! checksums to the device (`virtio_net_hdr`): we use that, and smoltcp, which has no super-segments, leaves out its
//! checksums only. What the device does then is in neither time.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

mod cpu;
mod net;

use std::collections::VecDeque;
use std::mem;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use net::{MSS, Net};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

/// Bytes at once, and how many connections stand idle.
const SMALL: usize = 32 * MSS;
const LARGE: usize = 44 * MSS;
const IDLE: [usize; 2] = [0, 1000];

/// What has arrived and what is to leave; frames that were read are used again.
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    mtu: usize,
    /// Whether checksums are the device's affair.
    offload: bool,
}

struct Received<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);
struct Room<'a>(&'a mut VecDeque<Vec<u8>>, Vec<u8>);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.0);
        self.1.push(self.0);
        result
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, write: F) -> R {
        self.1.resize(len, 0);
        let result = write(&mut self.1);
        self.0.push_back(self.1);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let frame = self.arrived.pop_front()?;
        let room = self.spare.pop().unwrap_or_default();
        Some((Received(frame, &mut self.spare), Room(&mut self.leaving, room)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        let room = self.spare.pop().unwrap_or_default();
        Some(Room(&mut self.leaving, room))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        if self.offload {
            capabilities.checksum.tcp = Checksum::None;
            capabilities.checksum.ipv4 = Checksum::None;
        }
        capabilities
    }
}

struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    busy: SocketHandle,
}

impl Host {
    fn new(number: u8, mtu: usize, offload: bool, idle: usize) -> Self {
        let (arrived, leaving) = (VecDeque::new(), VecDeque::new());
        let mut wire = Wire { arrived, leaving, spare: Vec::new(), mtu, offload };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).unwrap();
        });
        let mut sockets = SocketSet::new(Vec::new());
        let socket = |bytes| {
            let buffer = || tcp::SocketBuffer::new(vec![0; bytes]);
            tcp::Socket::new(buffer(), buffer())
        };
        for port in 0..idle {
            let mut idle = socket(16);
            idle.listen(1000 + port as u16).unwrap();
            sockets.add(idle);
        }
        let busy = sockets.add(socket(1 << 20));
        Self { wire, interface, sockets, busy }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.busy)
    }
}

struct Smoltcp {
    hosts: [Host; 2],
    now: Instant,
    data: Vec<u8>,
    buffer: Vec<u8>,
}

impl Smoltcp {
    fn new(mtu: usize, offload: bool, idle: usize) -> Self {
        let hosts = [1, 2].map(|number| Host::new(number, mtu, offload, idle));
        let mut this = Self { hosts, now: Instant::ZERO, data: vec![7; 1 << 17], buffer: vec![0; 1 << 17] };
        let [client, server] = &mut this.hosts;
        server.socket().listen(80).unwrap();
        let connecting = client.sockets.get_mut::<tcp::Socket<'_>>(client.busy);
        connecting.connect(client.interface.context(), (IpAddress::v4(10, 0, 0, 2), 80), 50_000).unwrap();
        while !this.hosts[1].socket().may_send() {
            this.pump();
        }
        this
    }

    fn pump(&mut self) {
        self.now += Duration::from_micros(10);
        loop {
            let [a, b] = &mut self.hosts;
            for host in [&mut *a, &mut *b] {
                host.interface.poll(self.now, &mut host.wire, &mut host.sockets);
            }
            if a.wire.leaving.is_empty() && b.wire.leaving.is_empty() {
                return;
            }
            b.wire.arrived.extend(mem::take(&mut a.wire.leaving));
            a.wire.arrived.extend(mem::take(&mut b.wire.leaving));
        }
    }

    fn send(&mut self, count: usize) {
        let (mut sent, mut got) = (0, 0);
        while got < count {
            sent += self.hosts[0].socket().send_slice(&self.data[sent..count]).unwrap();
            self.pump();
            let before = got;
            got += self.hosts[1].socket().recv_slice(&mut self.buffer).unwrap();
            if got == before {
                self.now += Duration::from_millis(10); // Its acknowledgement is delayed.
            }
        }
        self.pump();
    }
}

fn flow(c: &mut Criterion<CpuTime>) {
    for (name, bytes, mtu, gso_max) in [
        ("in MSS segments", SMALL, 1500, 0),
        ("in packets of 64 KB", LARGE, 65_000, 65_000),
        ("over a device with offloads", LARGE, 1500, 65_000),
    ] {
        let mut group = c.benchmark_group(format!("one flow {name}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        for idle in IDLE {
            let mut net = Net::new(gso_max);
            for number in 0..idle {
                net.open(number);
            }
            let busy = net.open(0);
            for _ in 0..10 {
                net.send(busy, SMALL);
            }
            group.bench_function(BenchmarkId::new("ours", idle), |b| b.iter(|| net.send(busy, bytes)));
            let mut smoltcp = Smoltcp::new(mtu, gso_max > 0, idle);
            group.bench_function(BenchmarkId::new("smoltcp", idle), |b| b.iter(|| smoltcp.send(bytes)));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = flow
}
criterion_main!(benches);
