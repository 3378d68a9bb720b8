//! Plays a script to the core, at the times at which it was played to the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::error::Error;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, ConnectOptions, ListenerId, SocketId, Stack};
use sockshim_tcpip::tcp::How;
use sockshim_tcpip::tcp::congestion::Algorithm;
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire;

use crate::compare;
use crate::script::{Base, Inner, PORT, Record, Said, Script, Step, THEIR_PORT, What, pattern};

/// Where scripts begin on the core's clock.
const BEGIN: u64 = 1_000_000_000;

/// As the kernel is set up (`linux.rs`), with what a test wants to be different.
pub(crate) fn config(script: &Script) -> Config {
    let mut config = Config::default();
    config.tcp.pacing = false;
    config.tcp.algorithm = if script.setup.cubic { Algorithm::Cubic } else { Algorithm::NewReno };
    config.tcp.send_buffer = (4 << 20, 4 << 20);
    config.tcp.receive_buffer = (65_536, 6_291_456);
    config
}

struct Player<'a> {
    stack: Stack<VecMemory>,
    link: InterfaceId,
    now: Instant,
    ends: (IpAddr, IpAddr),
    listener: Option<ListenerId>,
    socket: Option<SocketId>,
    written: u32,
    base: Base,
    step: usize,
    script: &'a Script,
    kernel: &'a Record,
    silent: Silent,
    /// One of those timers did say something.
    spoke: bool,
    record: Record,
}

/// When a timer runs while losses are looked for, if the kernel says nothing between its time and the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silent {
    /// Behind the step, as late as the kernel's may be.
    Late,
    /// Before the step, when it is due.
    Due,
}

/// What the core does when the steps come as they came to the kernel.
///
/// The kernel's timers are late: its clock ticks each 4 ms, and the wheel adds up to an eighth. So a timer of ours that is
/// due may run as late as what the kernel said next, if that is not too late; else two stacks that do the same would be at
/// odds as soon as a step comes between the two moments.
///
/// None if a timer was to run before a step for which the kernel said nothing, and said something.
pub(crate) fn play(script: &Script, config: Config, kernel: &Record, silent: Silent) -> Option<Record> {
    let us = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));
    let them = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let seed = script.seed;
    let mut stack = Stack::new(config, VecMemory::default(), [seed, 2, 3, 4]);
    // Super-segments, which are cut here: Linux makes them for every link, and cuts them for those that cannot.
    let link = stack.net().add_interface(Capabilities {
        medium: Medium::Ip,
        mtu: 1500,
        tx_checksum: false,
        gso_max: 65_535,
    });
    stack.net().add_address(link, us, 24);
    stack.net().add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, None, link);
    let mut player = Player {
        stack,
        link,
        now: Instant::from_micros(BEGIN),
        ends: (them, us),
        listener: None,
        socket: None,
        written: 0,
        base: Base::default(),
        step: 0,
        script,
        kernel,
        silent,
        spoke: false,
        record: Record::default(),
    };
    player.begin();
    let mut plan = 0;
    for (place, (step, &at)) in script.steps.iter().zip(&kernel.times).enumerate() {
        player.wait(at);
        player.step = place + 1;
        let before = player.look();
        player.record.before.push(before);
        plan += step.after;
        player.make(step, plan / 1000);
        player.collect();
        player.record.times.push(player.at());
    }
    player.wait(kernel.end);
    (!player.spoke).then(|| player.end())
}

impl Player<'_> {
    fn begin(&mut self) {
        let setup = self.script.setup;
        let mut options = self.stack.socket_options();
        options.nodelay = setup.nodelay;
        if setup.connects {
            let remote = SocketAddr::new(self.ends.0, THEIR_PORT);
            let local = Some(SocketAddr::new(self.ends.1, PORT));
            let options = ConnectOptions { local, socket: Some(options) };
            self.socket = Some(self.stack.connect(self.now, remote, options).expect("it is the first one"));
        } else {
            let local = SocketAddr::new(self.ends.1, PORT);
            self.listener =
                Some(self.stack.listen(local, setup.backlog, Some(options)).expect("it is the first one"));
        }
        self.collect();
    }

    fn accept(&mut self) {
        if let (None, Some(listener)) = (self.socket, self.listener) {
            self.socket = self.stack.accept(self.now, listener).ok().map(|(socket, _)| socket);
        }
    }

    fn make(&mut self, step: &Step, at: u64) {
        if let What::Arrives(segment) = &step.what {
            let (src, dst) = self.ends;
            let packet = segment.packet(&self.base, (header(src, dst), at));
            self.stack.handle_packet(self.now, self.link, &packet, RxMeta::default());
            return;
        }
        self.accept();
        if step.what == What::CloseListener {
            if let Some(listener) = self.listener.take() {
                self.stack.close_listener(self.now, listener);
            }
            return;
        }
        let Some(socket) = self.socket else { return };
        let (stack, now) = (&mut self.stack, self.now);
        let errno = |error: Error| -i64::from(error.errno());
        let result = match step.what {
            What::Send(len) => {
                let data: Vec<u8> = (1..=len as u32).map(|at| pattern(self.written + at)).collect();
                let sent = stack.send(now, socket, &data);
                self.written += sent.unwrap_or(0) as u32;
                sent.map_or_else(errno, |sent| sent as i64)
            }
            What::Read(len) => {
                let mut data = vec![0; len];
                stack.recv(now, socket, &mut data).map_or_else(errno, |count| count as i64)
            }
            What::Shutdown => stack.shutdown(now, socket, How::Write).map_or_else(errno, |()| 0),
            What::Close => {
                stack.close(now, socket);
                self.socket = None;
                if let Some(listener) = self.listener.take() {
                    stack.close_listener(now, listener);
                }
                return;
            }
            What::Nodelay(on) => {
                let set = stack.set_options(now, socket, |options| options.nodelay = on);
                if on {
                    stack.push(now, socket);
                }
                set.map_or_else(errno, |()| 0)
            }
            What::Cork(on) => {
                stack.set_options(now, socket, |options| options.cork = on).map_or_else(errno, |()| 0)
            }
            What::Arrives(_) | What::CloseListener => return,
        };
        self.record.calls.push((self.step, result));
    }

    /// Microseconds since the beginning.
    fn at(&self) -> u64 {
        self.now.as_micros() - BEGIN
    }

    /// Time passes, until the next step; timers run at their times, or as late as the kernel's.
    fn wait(&mut self, until: u64) {
        let mut end = until.max(self.at());
        while let Some(due) = self.stack.poll_timeout() {
            let due = due.as_micros().saturating_sub(BEGIN).max(self.at());
            let next = self.kernel.said.get(self.record.said.len());
            // Disorder or Recovery: else the timer is not that of reordering.
            let at_due = self.silent == Silent::Due
                && due < end
                && next.is_none_or(|said| said.at >= end)
                && self.look().is_some_and(|inner| matches!(inner.ca_state, 1 | 3));
            let at = match next {
                Some(said)
                    if said.step <= self.step
                        && said.at < end
                        && due >= end
                        && due < end + compare::EARLY =>
                {
                    // The kernel's timer was a little early, and the step came behind it.
                    end = due + 1;
                    due
                }
                _ if at_due => due,
                Some(said) if said.at > due && compare::may_be_timer(due, said.at) => said.at,
                // It says nothing before the step, so its timer has not run yet, or had nothing to say.
                next if due < end
                    && next.is_none_or(|said| said.at >= end)
                    && compare::may_be_timer(due, end) =>
                {
                    end
                }
                _ => due,
            };
            if at >= end {
                break;
            }
            self.now = Instant::from_micros(BEGIN + at);
            let said = self.record.said.len();
            self.stack.handle_timeout(self.now);
            self.collect();
            self.spoke |= at_due && self.record.said.len() > said;
        }
        self.now = Instant::from_micros(BEGIN + end);
    }

    fn collect(&mut self) {
        let mut frame = Vec::new();
        let at = self.at();
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut frame) {
            for packet in cut(&frame, usize::from(transmit.gso_size)) {
                self.record.said.extend(Said::read(&packet, &mut self.base, at, self.step));
            }
        }
        while self.stack.poll_event().is_some() {}
    }

    fn end(mut self) -> Record {
        self.accept();
        self.record.info = self.look();
        self.record.end = self.now.as_micros() - BEGIN;
        self.record
    }

    fn look(&mut self) -> Option<Inner> {
        let info = self.socket.and_then(|socket| self.stack.tcp_info(self.now, socket).ok());
        info.map(|info| Inner {
            state: info.state,
            ca_state: info.ca_state,
            unacked: info.unacked,
            sacked: info.sacked,
            lost: info.lost,
            retrans: info.retrans,
            ssthresh: info.snd_ssthresh,
            cwnd: info.snd_cwnd,
            reordering: info.reordering,
        })
    }
}

/// The IP header of the other end's packets.
pub(crate) fn header(src: IpAddr, dst: IpAddr) -> wire::ip::Header {
    wire::ip::Header {
        src,
        dst,
        protocol: 6,
        hop_limit: 64,
        traffic_class: 0,
        id: 0,
        dont_fragment: true,
        payload_len: 0,
    }
}

/// The segments of a super-segment, as Linux cuts them: PSH and FIN go with the last one, CWR with the first.
fn cut(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    use sockshim_tcpip::checksum;
    use sockshim_tcpip::wire::tcp::Flags;
    let Some((ip, payload)) = wire::ipv4::Header::parse(frame).ok().filter(|_| size > 0) else {
        return vec![frame.to_vec()];
    };
    let Ok((header, offset)) = wire::tcp::parse(payload) else { return vec![frame.to_vec()] };
    let data = &payload[offset..];
    let count = data.len().div_ceil(size);
    let pieces = data.chunks(size).enumerate().map(|(place, piece)| {
        let mut header = header;
        header.seq += (place * size) as u32;
        if place + 1 < count {
            header.flags = header.flags.without(Flags::PSH | Flags::FIN);
        }
        if place > 0 {
            header.flags = header.flags.without(Flags::CWR);
        }
        let mut tcp = vec![0; header.len()];
        header.emit(&mut tcp);
        tcp.extend_from_slice(piece);
        let (src, dst) = (ip.source.into(), ip.destination.into());
        let sum = checksum::pseudo(src, dst, 6, tcp.len() as u32) + checksum::sum(&tcp);
        tcp[16..18].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        let mut packet = vec![0; wire::ipv4::Header::LEN];
        ip.emit(tcp.len(), &mut packet);
        packet.extend(tcp);
        packet
    });
    pieces.collect()
}
