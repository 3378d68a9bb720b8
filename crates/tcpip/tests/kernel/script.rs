//! What a script is: a socket, the options of the other end's SYN, and steps. Sequence numbers count from each end's
//! first one, so that a script means the same to every stack.

use std::fmt::{self, Write as _};

use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::wire::ip;
use sockshim_tcpip::wire::tcp::{Flags, Header, Options, SackBlocks, Timestamps};
use sockshim_tcpip::{checksum, wire};

/// The other end's first number.
pub(crate) const IRS: u32 = 1_000_000;
/// The other end's clock of timestamps when a script begins.
pub(crate) const THEIR_CLOCK: u32 = 500_000;
/// The port of the socket that is tested, and of the other end.
pub(crate) const PORT: u16 = 8080;
pub(crate) const THEIR_PORT: u16 = 40_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    /// What it was made from, and which of the steps then made were left out since.
    pub(crate) seed: u64,
    pub(crate) left_out: Vec<usize>,
    /// How often it was played with other times.
    pub(crate) attempt: u32,
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
}

/// The socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// It connects, instead of listening.
    pub(crate) connects: bool,
    pub(crate) cubic: bool,
    pub(crate) nodelay: bool,
    /// How many connections may wait for `accept`.
    pub(crate) backlog: u32,
}

/// What a script is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sender,
    Receiver,
    Handshake,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// Its place among the steps that the seed made.
    pub(crate) number: usize,
    /// Microseconds after the step before.
    pub(crate) after: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    Arrives(Segment),
    Send(usize),
    Read(usize),
    /// shutdown(SHUT_WR).
    Shutdown,
    Close,
    Nodelay(bool),
    Cork(bool),
    CloseListener,
}

/// A segment of the other end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Segment {
    pub(crate) flags: Flags,
    pub(crate) seq: i32,
    pub(crate) ack: i32,
    pub(crate) window: u16,
    pub(crate) len: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) stamps: Option<Stamps>,
    pub(crate) sack: [(i32, i32); 3],
    pub(crate) blocks: usize,
    /// The two bits of explicit congestion notification in the IP header.
    pub(crate) ecn: u8,
}

/// The timestamps option of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stamps {
    /// The other end's clock is that of the plan, so many milliseconds back.
    pub(crate) back: i32,
    pub(crate) echo: Echo,
}

/// Which of our stamps the other end repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Echo {
    /// That of our last segment.
    Last,
    /// That of our first one.
    First,
    Zero,
    /// So many milliseconds before that of our last segment.
    Back(u32),
}

/// What the two stacks call the numbers of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Base {
    /// Our first number, once a SYN of ours was seen.
    pub(crate) iss: Option<u32>,
    /// The stamp of our first segment with one, and of the last.
    pub(crate) first_stamp: Option<u32>,
    pub(crate) last_stamp: Option<u32>,
}

impl Segment {
    pub(crate) fn new(flags: Flags, seq: i32, ack: i32) -> Self {
        Self {
            flags,
            seq,
            ack,
            window: 30_000,
            len: 0,
            mss: None,
            scale: None,
            sack_permitted: false,
            stamps: None,
            sack: [(0, 0); 3],
            blocks: 0,
            ecn: 0,
        }
    }

    /// The packet, as a link carries it. `at` is the time of the plan in milliseconds.
    pub(crate) fn packet(&self, base: &Base, ends: (ip::Header, u64)) -> Vec<u8> {
        let (mut ip, at) = ends;
        let iss = base.iss.unwrap_or(0);
        let mut options = Options {
            mss: self.mss,
            window_scale: self.scale,
            sack_permitted: self.sack_permitted,
            timestamps: self.stamps.map(|stamps| Timestamps {
                value: THEIR_CLOCK.wrapping_add(at as u32).wrapping_add_signed(-stamps.back),
                echo: match stamps.echo {
                    Echo::Last => base.last_stamp.unwrap_or(0),
                    Echo::First => base.first_stamp.unwrap_or(0),
                    Echo::Zero => 0,
                    Echo::Back(ms) => base.last_stamp.unwrap_or(ms).wrapping_sub(ms),
                },
            }),
            sack: SackBlocks::default(),
        };
        let number = |relative: i32| SeqNumber::new(iss.wrapping_add_signed(relative));
        for &(from, to) in &self.sack[..self.blocks] {
            options.sack.push((number(from), number(to)));
        }
        let seq = IRS.wrapping_add_signed(self.seq);
        let header = Header {
            src_port: THEIR_PORT,
            dst_port: PORT,
            seq: SeqNumber::new(seq),
            ack: if self.flags.contains(Flags::ACK) { number(self.ack) } else { SeqNumber::new(0) },
            flags: self.flags,
            window: self.window,
            urgent: 0,
            options,
        };
        let mut tcp = vec![0; header.len()];
        header.emit(&mut tcp);
        tcp.extend((0..u32::from(self.len)).map(|at| pattern((self.seq as u32).wrapping_add(at))));
        let sum = checksum::pseudo(ip.src, ip.dst, ip.protocol, tcp.len() as u32) + checksum::sum(&tcp);
        tcp[16..18].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        ip.traffic_class = self.ecn;
        ip.payload_len = tcp.len();
        let mut packet = vec![0; ip.len()];
        ip.emit(&mut packet);
        packet.extend(tcp);
        packet
    }
}

/// The byte with this number of a stream, which counts from the SYN.
pub(crate) fn pattern(number: u32) -> u8 {
    (number ^ (number >> 8)) as u8
}

/// What a stack said: a segment, as the other end reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    /// Microseconds from the beginning, and behind which step.
    pub(crate) at: u64,
    pub(crate) step: usize,
    pub(crate) flags: Flags,
    pub(crate) seq: i32,
    pub(crate) ack: i32,
    pub(crate) window: u16,
    pub(crate) len: usize,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// Milliseconds since its first stamp, and what it repeats of the other end's clock.
    pub(crate) stamps: Option<(i32, i32)>,
    pub(crate) sack: Vec<(i32, i32)>,
    pub(crate) ecn: u8,
    /// Its bytes are those that the application wrote, and its checksum is right.
    pub(crate) intact: bool,
}

impl Said {
    /// Reads a packet. None if it is no TCP segment.
    pub(crate) fn read(packet: &[u8], base: &mut Base, at: u64, step: usize) -> Option<Self> {
        let (ip, payload) = wire::ipv4::Header::parse(packet).ok()?;
        if ip.protocol != 6 {
            return None;
        }
        let (header, offset) = wire::tcp::parse(payload).ok()?;
        let sum = checksum::pseudo(ip.source.into(), ip.destination.into(), 6, payload.len() as u32)
            + checksum::sum(payload);
        if header.flags.contains(Flags::SYN) {
            base.iss = Some(header.seq.get());
        }
        // A stack that never sent a SYN takes its numbers from what it answers.
        let iss = base.iss.unwrap_or(0);
        let relative = |number: SeqNumber, first: u32| number.get().wrapping_sub(first) as i32;
        if let Some(stamps) = header.options.timestamps {
            base.first_stamp.get_or_insert(stamps.value);
            base.last_stamp = Some(stamps.value);
        }
        let stamps = header.options.timestamps.map(|stamps| {
            let value = stamps.value.wrapping_sub(base.first_stamp.unwrap_or(0)) as i32;
            (value, if stamps.echo == 0 { i32::MIN } else { stamps.echo.wrapping_sub(THEIR_CLOCK) as i32 })
        });
        // A reset of what we know nothing of has the number zero.
        let nowhere = header.flags.contains(Flags::RST) && header.seq.get() == 0;
        let seq = if nowhere { 0 } else { relative(header.seq, iss) };
        let data = &payload[offset..];
        let sack = header.options.sack.as_slice().iter();
        Some(Self {
            at,
            step,
            flags: header.flags,
            seq,
            ack: if header.flags.contains(Flags::ACK) { relative(header.ack, IRS) } else { 0 },
            window: header.window,
            len: data.len(),
            mss: header.options.mss,
            scale: header.options.window_scale,
            sack_permitted: header.options.sack_permitted,
            stamps,
            sack: sack.map(|&(from, to)| (relative(from, IRS), relative(to, IRS))).collect(),
            ecn: ip.traffic_class & 3,
            intact: sum.is_intact()
                && data
                    .iter()
                    .enumerate()
                    .all(|(i, &byte)| byte == pattern((seq as u32).wrapping_add(i as u32))),
        })
    }

    /// Behind the last number that it takes.
    pub(crate) fn end(&self) -> i32 {
        self.seq.wrapping_add(self.len as i32 + i32::from(self.flags.intersects(Flags::SYN | Flags::FIN)))
    }
}

/// What became of a script on one stack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// When each step was made, in microseconds from the beginning, and the end.
    pub(crate) times: Vec<u64>,
    pub(crate) end: u64,
    pub(crate) said: Vec<Said>,
    /// What calls gave: by step, a count or a negative errno.
    pub(crate) calls: Vec<(usize, i64)>,
    /// What the connection looked like before each step.
    pub(crate) before: Vec<Option<Inner>>,
    pub(crate) measured: Vec<Measured>,
    /// What the connection looks like at the end, if the application still has it.
    pub(crate) info: Option<Inner>,
    /// The longest time by which the player was late.
    pub(crate) late: u64,
}

/// Some of TCP_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) state: u8,
    pub(crate) ca_state: u8,
    pub(crate) unacked: u32,
    pub(crate) sacked: u32,
    pub(crate) lost: u32,
    pub(crate) retrans: u32,
    pub(crate) ssthresh: u32,
    pub(crate) cwnd: u32,
    pub(crate) reordering: u32,
}

/// More of TCP_INFO, which is not compared: what it takes to tell differences that are allowed from others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// The time-out, in microseconds.
    pub(crate) rto: u64,
    /// The size of the other end's segments.
    pub(crate) rcv_mss: u32,
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ca_state, unacked, sacked, lost, retrans, ssthresh, cwnd, reordering, .. } = self;
        let states = ["Open", "Disorder", "CWR", "Recovery", "Loss"];
        let state = states.get(usize::from(*ca_state)).unwrap_or(&"?");
        write!(
            f,
            "[{state} cwnd {cwnd}/{ssthresh} out {unacked} sacked {sacked} lost {lost} again {retrans} reordering {reordering}]"
        )
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { kind, connects, cubic, nodelay, backlog } = self.setup;
        let left_out: Vec<String> = self.left_out.iter().map(usize::to_string).collect();
        writeln!(
            f,
            "script {}{}{} ({kind:?}): {}, {}{}, backlog {backlog}",
            self.seed,
            if left_out.is_empty() { "" } else { "-" },
            left_out.join(","),
            if connects { "connects" } else { "listens" },
            if cubic { "cubic" } else { "reno" },
            if nodelay { ", nodelay" } else { "" },
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Arrives(segment) => write!(f, "{segment}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags, seq, ack, window, len, mss, scale, sack_permitted, stamps, ecn, .. } = *self;
        let stamps = stamps.map(|stamps| format!("ts-{} echo {:?}", stamps.back, stamps.echo));
        let (len, sack) = (i32::from(len), &self.sack[..self.blocks]);
        Line { mark: '<', flags, seq, len, ack, window, mss, scale, sack_permitted, stamps, sack, ecn }.fmt(f)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags, seq, ack, window, len, mss, scale, sack_permitted, stamps, ref sack, ecn, .. } =
            *self;
        let echo = |echo| if echo == i32::MIN { "0".into() } else { format!("+{echo}") };
        let stamps = stamps.map(|(value, echoed)| format!("ts {value} ecr {}", echo(echoed)));
        let len = len as i32;
        Line { mark: '>', flags, seq, len, ack, window, mss, scale, sack_permitted, stamps, sack, ecn }
            .fmt(f)?;
        f.write_str(if self.intact { "" } else { " BROKEN" })
    }
}

/// What is shown of a segment of either side.
struct Line<'a> {
    mark: char,
    flags: Flags,
    seq: i32,
    len: i32,
    ack: i32,
    window: u16,
    mss: Option<u16>,
    scale: Option<u8>,
    sack_permitted: bool,
    stamps: Option<String>,
    sack: &'a [(i32, i32)],
    ecn: u8,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, flags, seq, len, .. } = self;
        write!(f, "{mark} {flags:?} {seq}:{}({len})", seq.wrapping_add(*len))?;
        if flags.contains(Flags::ACK) {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {}", self.window)?;
        if let Some(mss) = self.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(scale) = self.scale {
            write!(f, " wscale {scale}")?;
        }
        if self.sack_permitted {
            f.write_str(" sackOK")?;
        }
        if let Some(stamps) = &self.stamps {
            write!(f, " {stamps}")?;
        }
        if !self.sack.is_empty() {
            write!(f, " sack {}", blocks(self.sack))?;
        }
        if self.ecn > 0 {
            write!(f, " ip-ecn {}", self.ecn)?;
        }
        Ok(())
    }
}

fn blocks(blocks: &[(i32, i32)]) -> String {
    let mut text = String::new();
    for (from, to) in blocks {
        let _ = write!(text, "{from}:{to} ");
    }
    text.trim_end().to_owned()
}
