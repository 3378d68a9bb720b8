//! One stack, and a test that plays the other end by hand: segments in, segments out, nothing in between.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::checksum;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium, RxMeta};
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::stack::{Config, ConnectOptions, Event, ListenerId, SocketId, Stack};
use sockshim_tcpip::tcp::{Info, State};
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire::tcp::{Flags, Header, Options, SackBlocks, Timestamps};
use sockshim_tcpip::wire::{icmp4, ip, ipv4};

pub(crate) const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const THEM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
pub(crate) const PORT: u16 = 80;
pub(crate) const THEIR_PORT: u16 = 40_000;
/// The other end's first number.
pub(crate) const IRS: u32 = 1_000_000;
pub(crate) const MSS: u16 = 1000;

/// A segment, with numbers counted from each end's first one, as people read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seg {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Options,
    pub(crate) data: Vec<u8>,
}

/// What most segments of the other end have in common.
pub(crate) fn seg(flags: Flags, seq: u32, ack: u32) -> Seg {
    Seg { flags, seq, ack, window: 60_000, urgent: 0, options: Options::default(), data: Vec::new() }
}

pub(crate) fn ack(seq: u32, ack: u32) -> Seg {
    seg(Flags::ACK, seq, ack)
}

impl Seg {
    pub(crate) fn data(self, len: usize) -> Self {
        Self { data: (0..len).map(|i| (self.seq as usize + i) as u8).collect(), ..self }
    }

    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    /// Urgent, up to so many bytes behind its number.
    pub(crate) fn urgent(self, urgent: u16) -> Self {
        Self { flags: self.flags | Flags::URG, urgent, ..self }
    }

    pub(crate) fn stamps(mut self, value: u32, echo: u32) -> Self {
        self.options.timestamps = Some(Timestamps { value, echo });
        self
    }

    /// Blocks of our numbers.
    pub(crate) fn sack(mut self, host: &Host, blocks: &[(u32, u32)]) -> Self {
        self.options.sack = SackBlocks::default();
        for &(start, end) in blocks {
            self.options.sack.push((host.iss + start, host.iss + end));
        }
        self
    }
}

pub(crate) struct Host {
    pub(crate) stack: Stack<VecMemory>,
    pub(crate) now: Instant,
    pub(crate) link: InterfaceId,
    pub(crate) iss: SeqNumber,
    pub(crate) remote: SocketAddr,
    pub(crate) local_port: u16,
    pub(crate) events: Vec<Event>,
    /// The window of the other end's last segment of the handshake.
    pub(crate) window: u16,
    /// By how much our windows are shifted.
    pub(crate) shift: u8,
    /// The traffic class of what the other end sends.
    pub(crate) class: u8,
    /// The IP header of the last segment.
    pub(crate) ip: Option<ipv4::Header>,
    out: VecDeque<Seg>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.tcp.pacing = false;
        change(&mut config);
        let mut stack = Stack::new(config, VecMemory::default(), [1, 2, 3, 4]);
        let link = stack.net().add_interface(Capabilities {
            medium: Medium::Ip,
            mtu: u32::from(MSS) + 40,
            tx_checksum: false,
            gso_max: 0,
        });
        stack.net().add_address(link, US, 24);
        stack.net().add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, None, link);
        Self {
            stack,
            now: Instant::from_secs(100),
            link,
            iss: SeqNumber::new(0),
            remote: SocketAddr::new(THEM, THEIR_PORT),
            local_port: PORT,
            events: Vec::new(),
            window: 60_000,
            shift: 0,
            class: 0,
            ip: None,
            out: VecDeque::new(),
        }
    }

    /// A server's connection, with SACK and without timestamps: numbers are the plainest so.
    pub(crate) fn established() -> (Self, SocketId) {
        Self::new().accept_with(syn_options())
    }

    /// A listener and a connection that it accepted from the other end, whose SYN had these options.
    pub(crate) fn accept_with(mut self, options: Options) -> (Self, SocketId) {
        let listener = self.listen(16);
        let id = self.accept(listener, options);
        (self, id)
    }

    /// The same, with a small window.
    pub(crate) fn with_window(window: u16) -> (Self, SocketId) {
        let mut host = Self::new();
        host.window = window;
        host.accept_with(syn_options())
    }

    pub(crate) fn listen(&mut self, backlog: u32) -> ListenerId {
        self.stack.listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT), backlog, None).unwrap()
    }

    pub(crate) fn accept(&mut self, listener: ListenerId, options: Options) -> SocketId {
        self.receive(Seg { options, ..seg(Flags::SYN, 0, 0) });
        let answer = self.expect_flags(Flags::SYN | Flags::ACK);
        self.shift = answer.options.window_scale.unwrap_or(0);
        self.wait_ms(50);
        let mut last = ack(1, 1).window(self.window);
        if let Some(stamps) = answer.options.timestamps {
            last = last.stamps(options.timestamps.unwrap().value, stamps.value);
        }
        self.receive(last);
        self.expect_nothing();
        self.stack.accept(self.now, listener).expect("a connection").0
    }

    /// Begins a connection and takes the SYN.
    pub(crate) fn connect(&mut self) -> (SocketId, Seg) {
        let options = ConnectOptions::default();
        self.remote = SocketAddr::new(THEM, PORT);
        let id = self.stack.connect(self.now, self.remote, options).unwrap();
        self.local_port = self.stack.addresses(id).unwrap().0.port();
        let syn = self.expect_flags(Flags::SYN);
        (id, syn)
    }

    /// The other end sends a segment.
    pub(crate) fn receive(&mut self, segment: Seg) {
        self.receive_raw((self.remote.ip(), US), segment, 0);
    }

    /// A segment with other addresses arrives.
    pub(crate) fn receive_between(&mut self, src: IpAddr, dst: IpAddr, segment: Seg) {
        self.receive_raw((src, dst), segment, 0);
    }

    /// Several of its segments, which a link put together.
    pub(crate) fn receive_super(&mut self, segment: Seg, gso_size: u16) {
        self.receive_raw((self.remote.ip(), US), segment, gso_size);
    }

    fn receive_raw(&mut self, (src, dst): (IpAddr, IpAddr), segment: Seg, gso_size: u16) {
        let header = Header {
            src_port: self.remote.port(),
            dst_port: self.local_port,
            seq: SeqNumber::new(IRS) + segment.seq,
            ack: if segment.flags.contains(Flags::ACK) { self.iss + segment.ack } else { SeqNumber::new(0) },
            flags: segment.flags,
            window: segment.window,
            urgent: segment.urgent,
            options: segment.options,
        };
        let mut packet = packet(src, dst, &header, &segment.data);
        packet[1] = self.class;
        packet[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&packet[..ipv4::Header::LEN]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        self.stack.handle_packet(self.now, self.link, &packet, RxMeta { checksum_ok: false, gso_size });
        self.collect();
    }

    /// A router sends an ICMP error about a segment of ours with that number.
    pub(crate) fn receive_icmp(&mut self, code: u8, mtu: u16, seq: u32) {
        let header = Header {
            src_port: self.local_port,
            dst_port: self.remote.port(),
            seq: self.iss + seq,
            ack: SeqNumber::new(0),
            flags: Flags::ACK,
            window: 0,
            urgent: 0,
            options: Options::default(),
        };
        let original = packet(US, self.remote.ip(), &header, &[]);
        let mut error = Vec::new();
        icmp4::Message::Unreachable { code, mtu, original: &original }.emit(&mut error);
        let mut frame = vec![0; ipv4::Header::LEN];
        let (IpAddr::V4(router), IpAddr::V4(us)) = (ROUTER, US) else { unreachable!("both are IPv4") };
        ipv4::Header::new(router, us, 1).emit(error.len(), &mut frame);
        frame.extend(error);
        self.stack.handle_packet(self.now, self.link, &frame, RxMeta::default());
        self.collect();
    }

    /// Time passes; timers run at their times.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.collect();
            match self.stack.poll_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.stack.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        self.collect();
    }

    pub(crate) fn wait_ms(&mut self, ms: u64) {
        self.wait(Duration::from_millis(ms));
    }

    fn collect(&mut self) {
        let mut frame = Vec::new();
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut frame) {
            assert_eq!(transmit.gso_size, 0);
            let (ip, payload) = ipv4::Header::parse(&frame).expect("an IPv4 packet");
            if ip.protocol != 6 {
                continue;
            }
            let (src, dst) = (ip.source.into(), ip.destination.into());
            let sum = checksum::pseudo(src, dst, 6, payload.len() as u32) + checksum::sum(payload);
            self.ip = Some(ip);
            assert!(sum.is_intact(), "the checksum is right");
            let (header, offset) = sockshim_tcpip::wire::tcp::parse(payload).expect("a TCP segment");
            if header.flags.contains(Flags::SYN) {
                self.iss = header.seq;
            }
            self.out.push_back(Seg {
                flags: header.flags,
                seq: header.seq.since(self.iss),
                ack: if header.flags.contains(Flags::ACK) {
                    header.ack.since(SeqNumber::new(IRS))
                } else {
                    0
                },
                window: header.window,
                urgent: header.urgent,
                options: header.options,
                data: payload[offset..].to_vec(),
            });
        }
        self.stack.check_invariants();
        while let Some(event) = self.stack.poll_event() {
            self.events.push(event);
        }
    }

    /// An application's call, and what follows from it.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&mut Stack<VecMemory>, Instant) -> T) -> T {
        let result = call(&mut self.stack, self.now);
        self.collect();
        result
    }

    #[track_caller]
    pub(crate) fn info(&mut self, id: SocketId) -> Info {
        self.stack.tcp_info(self.now, id).expect("a connection")
    }

    #[track_caller]
    pub(crate) fn send(&mut self, id: SocketId, len: usize) {
        let data = vec![b'd'; len];
        assert_eq!(self.call(|stack, now| stack.send(now, id, &data)), Ok(len));
    }

    pub(crate) fn read(&mut self, id: SocketId) -> Vec<u8> {
        let mut data = vec![0; 1 << 20];
        let count = self.call(|stack, now| stack.recv(now, id, &mut data)).unwrap_or(0);
        data.truncate(count);
        data
    }

    /// The next segment that left.
    #[track_caller]
    pub(crate) fn expect(&mut self) -> Seg {
        self.collect();
        self.out.pop_front().expect("a segment leaves")
    }

    #[track_caller]
    pub(crate) fn expect_flags(&mut self, flags: Flags) -> Seg {
        let segment = self.expect();
        assert_eq!(segment.flags, flags, "{segment:?}");
        segment
    }

    /// A bare acknowledgement.
    #[track_caller]
    pub(crate) fn expect_ack(&mut self, ack: u32) -> Seg {
        let segment = self.expect_flags(Flags::ACK);
        assert_eq!((segment.ack, segment.data.len()), (ack, 0), "{segment:?}");
        segment
    }

    /// Data; PSH does not matter.
    #[track_caller]
    pub(crate) fn expect_data(&mut self, seq: u32, len: usize) -> Seg {
        let segment = self.expect();
        assert_eq!((segment.seq, segment.data.len()), (seq, len), "{:?}", segment.flags);
        segment
    }

    #[track_caller]
    pub(crate) fn expect_reset(&mut self) -> Seg {
        let segment = self.expect();
        assert!(segment.flags.contains(Flags::RST), "{segment:?}");
        segment
    }

    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        self.collect();
        if let Some(segment) = self.out.front() {
            panic!(
                "nothing should leave: {:?} {}:{} ack {}",
                segment.flags,
                segment.seq,
                segment.data.len(),
                segment.ack
            );
        }
    }

    /// All that left until now.
    pub(crate) fn drain(&mut self) -> Vec<Seg> {
        self.collect();
        self.out.drain(..).collect()
    }

    #[track_caller]
    pub(crate) fn expect_state(&self, id: SocketId, state: State) {
        assert_eq!(self.stack.state(id), Some(state));
    }

    /// The error that ended a connection.
    pub(crate) fn failure(&self, id: SocketId) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Failed(failed, error) if *failed == id => Some(error.errno()),
            _ => None,
        })
    }
}

/// Of a SYN that offers all but timestamps.
pub(crate) fn syn_options() -> Options {
    Options { mss: Some(MSS), window_scale: Some(0), sack_permitted: true, ..Options::default() }
}

pub(crate) fn packet(src: IpAddr, dst: IpAddr, header: &Header, data: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0; header.len()];
    header.emit(&mut tcp);
    tcp.extend_from_slice(data);
    let sum = checksum::pseudo(src, dst, 6, tcp.len() as u32) + checksum::sum(&tcp);
    tcp[16..18].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    let ip = ip::Header {
        src,
        dst,
        protocol: 6,
        hop_limit: 64,
        traffic_class: 0,
        id: 0,
        dont_fragment: true,
        payload_len: tcp.len(),
    };
    let mut packet = vec![0; ip.len()];
    ip.emit(&mut packet);
    packet.extend_from_slice(&tcp);
    packet
}
