//! Two stacks, and the fuzzer is the link between them: it drops, delays, doubles, swaps and damages packets, and makes
//! the programs read, write and close when it likes. Nothing panics, invariants hold after each step, what arrives is
//! what was sent, and when the link is left alone nothing stays behind.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::net::{Capabilities, Medium};
use sockshim_tcpip::sim::{Frame, Host};
use sockshim_tcpip::stack::{Config, ConnectOptions, ListenerId, SocketId, Stack};
use sockshim_tcpip::tcp::How;
use sockshim_tcpip::tcp::congestion::Algorithm;
use sockshim_tcpip::tcp::ecn::Ecn;
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire::{icmp4, ipv4};

#[derive(Debug, Arbitrary)]
enum Step {
    /// The oldest packet to that side arrives.
    Deliver(bool),
    /// The newest one does.
    DeliverLast(bool),
    Drop(bool),
    Double(bool),
    /// One byte of the oldest packet becomes another; checksums are made right again or not.
    Damage {
        side: bool,
        at: u16,
        with: u8,
        repair: bool,
    },
    /// Time passes.
    Wait(u16),
    /// Until the next timer.
    Timeout(bool),
    Write {
        side: bool,
        len: u16,
    },
    Read {
        side: bool,
        len: u16,
    },
    Shutdown(bool),
    Close(bool),
    Abort(bool),
    /// The program sets options; each bit is one.
    Set {
        side: bool,
        bits: u8,
    },
    /// Two packets become one super-segment, or one becomes several, as boxes on the way do.
    Merge(bool),
    Split(bool),
    /// A router marks the oldest packet.
    Mark(bool),
    /// A router says that the oldest packet, which it drops, is too big or cannot be delivered.
    Complain {
        side: bool,
        code: u8,
        mtu: u16,
    },
}

#[derive(Debug, Arbitrary)]
struct Input {
    sack: bool,
    timestamps: bool,
    window_scaling: bool,
    small: bool,
    gso: bool,
    paced: bool,
    /// No handshake is remembered: cookies.
    cookies: bool,
    reno: bool,
    ecn: bool,
    steps: Vec<Step>,
}

struct Side {
    stack: Stack<VecMemory>,
    socket: Option<SocketId>,
    /// Packets on the way to this side.
    wire: Vec<Frame>,
    written: u64,
    read: u64,
    /// What an earlier connection wrote: see [`World::accept`].
    written_before: u64,
}

fuzz_target!(|input: Input| {
    let mut world = World::new(&input);
    for step in input.steps.iter().take(400) {
        world.step(step);
        world.check();
    }
    world.settle();
});

struct World {
    sides: [Side; 2],
    listener: ListenerId,
    now: Instant,
    /// A packet was changed and its checksum made right: the streams may be anything, but nothing may break.
    forged: bool,
}

impl World {
    fn new(input: &Input) -> Self {
        let mut config = Config::default();
        config.tcp.sack = input.sack;
        config.tcp.timestamps = input.timestamps;
        config.tcp.window_scaling = input.window_scaling;
        config.tcp.pacing = input.paced;
        config.tcp.max_out_of_order = 8;
        if input.cookies {
            config.tcp.max_syn_backlog = 0;
        }
        if input.ecn {
            config.tcp.ecn = Ecn::Ask;
        }
        if input.reno {
            config.tcp.algorithm = Algorithm::NewReno;
        }
        if input.small {
            config.tcp.send_buffer = (4000, 4000);
            config.tcp.receive_buffer = (4000, 4000);
        }
        let side = |n: u8| {
            let mut stack = Stack::new(config.clone(), VecMemory::default(), [1, 2, 3, u64::from(n)]);
            let gso_max = if input.gso { 65_535 } else { 0 };
            let link = Capabilities { medium: Medium::Ip, mtu: 1500, tx_checksum: false, gso_max };
            let link = stack.net().add_interface(link);
            stack.net().add_address(link, address(n).ip(), 24);
            Side { stack, socket: None, wire: Vec::new(), written: 0, read: 0, written_before: 0 }
        };
        let mut sides = [side(0), side(1)];
        let listener = sides[1].stack.listen(address(1), 4, None).expect("the port is free");
        let options = ConnectOptions { local: Some(address(0)), socket: None };
        sides[0].socket = Some(sides[0].stack.connect(Instant::ZERO, address(1), options).expect("a route"));
        let mut world = Self { sides, listener, now: Instant::ZERO, forged: false };
        world.pump();
        world
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Deliver(side) => self.deliver(side.into(), 0),
            Step::DeliverLast(side) => self.deliver(side.into(), usize::MAX),
            Step::Drop(side) => drop(take(&mut self.sides[usize::from(side)].wire, 0)),
            Step::Double(side) => {
                let wire = &mut self.sides[usize::from(side)].wire;
                wire.extend(wire.first().cloned());
            }
            Step::Damage { side, at, with, repair } => {
                if let Some(frame) = self.sides[usize::from(side)].wire.first_mut() {
                    let at = usize::from(at) % frame.bytes.len();
                    let unchanged = frame.bytes[at] == with;
                    frame.bytes[at] = with;
                    // A super-segment carries no checksum that the other side looks at.
                    if !unchanged && (repair || frame.gso_size != 0) {
                        self.forged = true;
                        if let Some(layout) = frame.tcp() {
                            frame.complete_checksum(layout.tcp, 16);
                        }
                    }
                }
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.timeouts();
            }
            Step::Timeout(side) => self.next_timer(&[usize::from(side)]),
            Step::Write { side, len } => self.write(side.into(), len.into()),
            Step::Read { side, len } => self.read(side.into(), len.into()),
            Step::Shutdown(side) => {
                let side = &mut self.sides[usize::from(side)];
                if let Some(socket) = side.socket {
                    let _ = side.stack.shutdown(self.now, socket, How::Write);
                }
            }
            Step::Close(side) => {
                let side = &mut self.sides[usize::from(side)];
                if let Some(socket) = side.socket.take() {
                    side.stack.close(self.now, socket);
                }
            }
            Step::Abort(side) => {
                let side = &mut self.sides[usize::from(side)];
                if let Some(socket) = side.socket.take() {
                    side.stack.abort(self.now, socket);
                }
            }
            Step::Set { side, bits } => self.set(side.into(), bits),
            Step::Merge(side) => {
                let wire = &mut self.sides[usize::from(side)].wire;
                if let [first, second, ..] = &mut wire[..]
                    && (first.gso_size != 0 || first.is_intact())
                    && second.is_intact()
                    && first.merge(second, 65_535)
                {
                    wire.remove(1);
                }
            }
            Step::Split(side) => {
                let wire = &mut self.sides[usize::from(side)].wire;
                if let Some(first) = take(wire, 0) {
                    let rest = std::mem::take(wire);
                    *wire = first.split().into_iter().chain(rest).collect();
                }
            }
            Step::Mark(side) => {
                if let Some(frame) = self.sides[usize::from(side)].wire.first_mut()
                    && frame.is_ecn_capable()
                {
                    frame.mark_congestion();
                }
            }
            Step::Complain { side, code, mtu } => self.complain(side.into(), code, mtu),
        }
        self.pump();
    }

    fn set(&mut self, side: usize, bits: u8) {
        let Side { stack, socket, .. } = &mut self.sides[side];
        let Some(socket) = *socket else { return };
        let bit = |n: u8| bits >> n & 1 == 1;
        let set = stack.set_options(self.now, socket, |options| {
            options.nodelay = bit(0);
            options.cork = bit(1);
            options.keepalive = bit(2);
            options.user_timeout = bit(3).then_some(Duration::from_secs(5));
            options.receive_buffer = bit(4).then_some(3000);
            options.max_pacing_rate = bit(5).then_some(100_000);
            options.max_segment = bit(6).then_some(100);
        });
        assert_eq!(set, Ok(()));
        assert_eq!(stack.set_quick_ack(self.now, socket, bit(7)), Ok(()));
    }

    fn complain(&mut self, to: usize, code: u8, mtu: u16) {
        let Some(lost) = take(&mut self.sides[to].wire, 0) else { return };
        let original = &lost.bytes[..lost.bytes.len().min(60)];
        let mut error = Vec::new();
        icmp4::Message::Unreachable { code, mtu, original }.emit(&mut error);
        let sender = &mut self.sides[1 - to];
        let mut frame = vec![0; ipv4::Header::LEN];
        let IpAddr::V4(sender_address) = address(1 - to as u8).ip() else { return };
        ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 254), sender_address, 1).emit(error.len(), &mut frame);
        frame.extend(error);
        Host::handle_packet(&mut sender.stack, self.now, &Frame::new(frame));
    }

    fn deliver(&mut self, to: usize, which: usize) {
        if let Some(frame) = take(&mut self.sides[to].wire, which) {
            Host::handle_packet(&mut self.sides[to].stack, self.now, &frame);
        }
    }

    fn write(&mut self, side: usize, len: usize) {
        let Side { stack, socket, written, .. } = &mut self.sides[side];
        let Some(socket) = *socket else { return };
        let data: Vec<u8> = (*written..).take(len).map(|at| byte(side, at)).collect();
        if let Ok(count) = stack.send(self.now, socket, &data) {
            *written += count as u64;
        }
    }

    fn read(&mut self, side: usize, len: usize) {
        let mut data = vec![0; len];
        let Side { written, written_before, .. } = self.sides[1 - side];
        let sent = written.max(written_before);
        let Side { stack, socket, read, .. } = &mut self.sides[side];
        let Some(socket) = *socket else { return };
        let Ok(count) = stack.recv(self.now, socket, &mut data) else { return };
        if !self.forged {
            assert!(*read + count as u64 <= sent, "more arrives than was sent");
            for (at, &got) in (*read..).zip(&data[..count]) {
                assert_eq!(got, byte(1 - side, at), "byte {at}");
            }
        }
        *read += count as u64;
    }

    fn pump(&mut self) {
        for side in 0..2 {
            while self.sides[side].stack.poll_event().is_some() {}
            while let Some(frame) = Host::poll_transmit(&mut self.sides[side].stack, self.now) {
                let wire = &mut self.sides[1 - side].wire;
                if wire.len() < 1000 {
                    wire.push(frame);
                }
            }
        }
        self.accept();
    }

    /// A segment that comes once more after its connection has ended opens the same one again if it answers a cookie, which
    /// nothing remembers as used (nor does Linux): both streams begin anew, under the same numbers.
    fn accept(&mut self) {
        let Side { stack, socket, written, read, written_before, .. } = &mut self.sides[1];
        let Ok((accepted, _)) = stack.accept(self.now, self.listener) else { return };
        if socket.is_some() {
            stack.close(self.now, accepted);
            return;
        }
        *socket = Some(accepted);
        *written_before = (*written_before).max(*written);
        (*written, *read) = (0, 0);
    }

    fn timeouts(&mut self) {
        for side in &mut self.sides {
            side.stack.handle_timeout(self.now);
        }
    }

    fn next_timer(&mut self, sides: &[usize]) {
        let next = sides.iter().filter_map(|&side| self.sides[side].stack.poll_timeout()).min();
        if let Some(at) = next {
            self.now = self.now.max(at);
            self.timeouts();
        }
    }

    fn check(&self) {
        for side in &self.sides {
            side.stack.check_invariants();
        }
    }

    /// The programs close, the link works, time passes: nothing is left.
    fn settle(&mut self) {
        for round in 0..20_000 {
            for side in 0..2 {
                while !self.sides[side].wire.is_empty() {
                    self.deliver(side, 0);
                    self.pump();
                }
                if let Some(socket) = self.sides[side].socket.take() {
                    self.sides[side].stack.close(self.now, socket);
                }
            }
            self.pump();
            self.check();
            let quiet =
                self.sides.iter().all(|side| side.wire.is_empty() && side.stack.poll_timeout().is_none());
            if quiet {
                break;
            }
            assert!(round < 19_999, "the stacks never come to rest");
            self.next_timer(&[0, 1]);
            self.pump();
        }
        for side in &self.sides {
            let stack = &side.stack;
            let left = (stack.connection_count(), stack.handshake_count(), stack.time_wait_count());
            assert_eq!(left, (0, 0, 0), "connections, handshakes and TIME-WAIT are left");
        }
    }
}

fn take(wire: &mut Vec<Frame>, which: usize) -> Option<Frame> {
    let last = wire.len().checked_sub(1)?;
    Some(wire.remove(which.min(last)))
}

fn byte(side: usize, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 13) as u8 ^ side as u8
}

fn address(side: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, side + 1)), 1000 + u16::from(side))
}
