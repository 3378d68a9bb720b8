//! Makes a script from a seed. What the stack will have sent is guessed, well enough that most segments make sense to it;
//! a few are made not to. Nothing here knows the core, so a seed means the same script whatever the core does.

use sockshim_tcpip::sim::Random;
use sockshim_tcpip::wire::tcp::Flags;

use crate::script::{Echo, Kind, Script, Segment, Setup, Stamps, Step, What};

struct Maker {
    random: Random,
    setup: Setup,
    steps: Vec<Step>,
    /// The other end's next number, and the gaps that it left in what it sent.
    next: i32,
    holes: Vec<(i32, i32)>,
    /// Our numbers: acknowledged, sent as far as can be guessed, written.
    una: i32,
    sent: i32,
    written: i32,
    /// What the other end has reported, the most recent first.
    blocks: Vec<(i32, i32)>,
    mss: i32,
    cwnd: i32,
    window: i32,
    scale: Option<u8>,
    sack: bool,
    stamps: bool,
    ecn: bool,
    closed: bool,
}

pub(crate) fn script(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let kind = random.pick(&[Kind::Sender, Kind::Sender, Kind::Receiver, Kind::Handshake, Kind::Close]);
    let setup = Setup {
        kind,
        connects: random.chance(0.35),
        cubic: random.chance(0.4),
        nodelay: random.chance(0.4),
        backlog: if random.chance(0.9) { 8 } else { 0 },
    };
    let mss = random.pick(&[1000, 1000, 1460, 536, 300]);
    let scale = random.pick(&[None, Some(0), Some(2), Some(7)]);
    let mut maker = Maker {
        setup,
        steps: Vec::new(),
        next: 0,
        holes: Vec::new(),
        una: 1,
        sent: 1,
        written: 0,
        blocks: Vec::new(),
        mss,
        cwnd: 10,
        window: random.pick(&[60_000, 60_000, 60_000, 20_000, 5_000]),
        scale,
        sack: random.chance(0.75),
        stamps: random.chance(0.5),
        ecn: random.chance(0.15),
        closed: false,
        random,
    };
    maker.all();
    Script { seed, left_out: Vec::new(), attempt: 0, setup, steps: maker.steps }
}

impl Maker {
    fn all(&mut self) {
        match self.setup.kind {
            Kind::Handshake => self.odd_handshake(),
            _ => self.handshake(),
        }
        if self.stamps {
            self.mss -= 12;
        }
        let count = self.random.between(4, 22);
        for _ in 0..count {
            if self.random.chance(0.04) {
                self.wild();
                continue;
            }
            match self.setup.kind {
                Kind::Sender => self.sender(),
                Kind::Receiver => self.receiver(),
                Kind::Handshake => match self.random.below(3) {
                    0 => self.sender(),
                    1 => self.receiver(),
                    _ => self.wild(),
                },
                Kind::Close => self.closing(),
            }
        }
    }

    /// A time before the next step: mostly that of a near path, at times that of a time-out.
    fn gap(&mut self) -> u64 {
        match self.random.below(20) {
            0 => self.random.between(200_000, 420_000),
            1..=3 => self.random.between(30_000, 120_000),
            4..=9 => self.random.between(8_000, 30_000),
            10..=14 => self.random.between(1_500, 8_000),
            _ => self.random.between(50, 900),
        }
    }

    fn push(&mut self, what: What) {
        let after = self.gap();
        self.push_after(after, what);
    }

    fn push_after(&mut self, after: u64, what: What) {
        self.steps.push(Step { number: self.steps.len(), after, what });
    }

    fn call(&mut self, what: What) {
        if let What::Send(len) = what
            && !self.closed
        {
            self.written += len as i32;
            self.guess();
        }
        self.closed |= matches!(what, What::Shutdown | What::Close);
        self.push(what);
    }

    /// What is sent by now.
    fn guess(&mut self) {
        let most = (self.una + self.window).min(self.una + self.cwnd * self.mss).min(self.written + 1);
        self.sent = self.sent.max(most);
    }

    fn segment(&mut self, flags: Flags, seq: i32, ack: i32) -> Segment {
        let mut segment = Segment::new(flags, seq, ack);
        let shift = if flags.contains(Flags::SYN) { 0 } else { self.scale.unwrap_or(0) };
        segment.window = (self.window >> shift).min(65_535) as u16;
        if self.stamps {
            segment.stamps = Some(Stamps { back: 0, echo: Echo::Last });
        }
        segment
    }

    fn arrives(&mut self, segment: Segment) {
        self.push(What::Arrives(segment));
    }

    fn syn(&mut self) -> Segment {
        let mut flags = Flags::SYN;
        if self.setup.connects {
            flags |= Flags::ACK;
            if self.ecn && self.random.chance(0.3) {
                flags |= Flags::ECE;
            }
        } else if self.ecn {
            flags |= Flags::ECE | Flags::CWR;
        }
        let mut segment = self.segment(flags, 0, 1);
        segment.mss = if self.mss == 536 && self.random.chance(0.5) { None } else { Some(self.mss as u16) };
        segment.scale = self.scale;
        segment.sack_permitted = self.sack;
        if !self.setup.connects {
            segment.stamps = self.stamps.then_some(Stamps { back: 0, echo: Echo::Zero });
        }
        segment
    }

    fn handshake(&mut self) {
        let syn = self.syn();
        self.push_after(10_000, What::Arrives(syn));
        self.next = 1;
        let round_trip = self.random.pick(&[1_000, 5_000, 20_000, 50_000, 100_000]);
        if !self.setup.connects {
            let ack = self.segment(Flags::ACK, 1, 1);
            self.push_after(round_trip, What::Arrives(ack));
        } else {
            self.steps[0].after = round_trip;
        }
        self.push_after(500, What::Read(1000)); // accept
    }

    /// A handshake with what does not belong there.
    fn odd_handshake(&mut self) {
        let syn = self.syn();
        let count = self.random.between(1, 5);
        let mut begun = false;
        for _ in 0..count {
            match self.random.below(12) {
                0..=3 => {
                    self.arrives(syn);
                    begun = true;
                }
                4 => {
                    let seq = self.random.pick(&[-1000, -1, 1, 2, 500, 70_000]);
                    self.arrives(Segment { seq, ..syn });
                }
                5 => {
                    let ack = self.random.pick(&[0, 2, 1001, -1]);
                    let segment = self.segment(Flags::ACK, i32::from(begun), ack);
                    self.arrives(segment);
                }
                6 => {
                    let seq = self.random.pick(&[0, 1, 2, 1000]);
                    let flags = self.random.pick(&[Flags::RST, Flags::RST | Flags::ACK]);
                    let segment = self.segment(flags, seq, 1);
                    self.arrives(segment);
                }
                7 => {
                    let flags = self.random.pick(&[
                        Flags::SYN | Flags::FIN,
                        Flags::SYN | Flags::RST,
                        Flags::SYN | Flags::ACK,
                        Flags::SYN,
                        Flags::FIN,
                        Flags::FIN | Flags::ACK,
                        Flags::empty(),
                    ]);
                    self.arrives(Segment { flags, ..syn });
                }
                8 => {
                    let mut segment = self.segment(Flags::ACK | Flags::PSH, 1, 1);
                    segment.len = self.random.pick(&[1, 100, 500]);
                    if self.random.chance(0.3) {
                        segment.flags |= Flags::FIN;
                    }
                    self.arrives(segment);
                }
                9 => {
                    let mut segment = syn;
                    segment.len = 100;
                    self.arrives(segment);
                }
                10 => {
                    let mut segment = self.segment(Flags::ACK, 1, 1);
                    if let Some(stamps) = &mut segment.stamps {
                        stamps.back = self.random.pick(&[0, 100, 5000]);
                        stamps.echo = self.random.pick(&[Echo::Zero, Echo::First, Echo::Back(10)]);
                    }
                    self.arrives(segment);
                }
                _ => {
                    let what = self.random.pick(&[What::Read(100), What::Send(100), What::CloseListener]);
                    if what != What::CloseListener || self.random.chance(0.3) {
                        self.call(what);
                    }
                }
            }
        }
        if !begun {
            self.arrives(syn);
        }
        self.next = 1;
        let ack = self.segment(Flags::ACK, 1, 1);
        self.arrives(ack);
        self.push_after(500, What::Read(1000));
    }

    /// The stack sends, the other end acknowledges.
    fn sender(&mut self) {
        let flight = (self.sent - self.una) / self.mss;
        match self.random.below(24) {
            0..=5 => self.send(),
            6..=10 => {
                // So many segments, or a part of one.
                let whole = self.random.between(1, (flight.max(1)) as u64) as i32 * self.mss;
                let ack = match self.random.below(40) {
                    0 => self.una + self.mss / 2,
                    1..=4 => self.sent,
                    _ => self.una + whole,
                };
                self.acknowledge(ack.min(self.sent));
            }
            11 => self.acknowledge(self.sent),
            12..=16 if flight > 1 => self.report(),
            12..=13 => self.acknowledge(self.una),
            14 => {
                self.window = self.random.pick(&[0, 500, 2_000, 5_000, 20_000, 60_000]);
                self.acknowledge(self.una);
            }
            15 => {
                // It comes again, which the other end tells.
                let from = (self.una - self.mss).max(1);
                let mut segment = self.with_blocks(self.una);
                if self.sack {
                    segment.sack.copy_within(..2, 1);
                    segment.sack[0] = (from, self.una);
                    segment.blocks = (segment.blocks + 1).min(3);
                }
                self.arrives(segment);
            }
            17 if self.ecn => {
                let mut segment = self.segment(Flags::ACK | Flags::ECE, self.next, self.una);
                segment.window = 30_000;
                self.arrives(segment);
            }
            17..=18 => self.data(),
            19 => self.call(What::Read(100_000)),
            20 => {
                let on = self.random.chance(0.5);
                let what = self.random.pick(&[What::Nodelay(on), What::Cork(on)]);
                self.call(what);
            }
            21 if self.stamps => {
                let mut segment = self.segment(Flags::ACK, self.next, self.una);
                let ack = (self.una + self.mss).min(self.sent);
                segment.ack = ack;
                let echo = self.random.pick(&[Echo::First, Echo::Zero, Echo::Back(5), Echo::Back(200)]);
                segment.stamps = Some(Stamps { back: self.random.pick(&[0, 0, 50]), echo });
                self.una = ack;
                self.arrives(segment);
            }
            _ if self.random.chance(0.1) => self.call(What::Shutdown),
            _ => self.send(),
        }
    }

    fn send(&mut self) {
        let mss = self.mss as u64;
        // Mostly whole segments, so that it is known where they end; the last of a script may have any length.
        let len = match self.random.below(24) {
            0 => 1,
            1 => self.random.between(1, mss - 1),
            2 => self.random.between(1, 14 * mss),
            3..=8 => mss,
            9..=14 => mss * self.random.between(2, 5),
            15..=19 => mss * self.random.between(6, 12),
            _ => mss * 10,
        };
        self.call(What::Send(len as usize));
    }

    fn acknowledge(&mut self, ack: i32) {
        let delivered = (ack - self.una) / self.mss;
        self.cwnd = (self.cwnd + delivered.max(0)).min(40);
        self.una = self.una.max(ack);
        self.blocks.retain(|&(from, _)| from > ack);
        let segment = self.with_blocks(ack);
        self.guess();
        self.arrives(segment);
    }

    fn with_blocks(&mut self, ack: i32) -> Segment {
        let mut segment = self.segment(Flags::ACK, self.next, ack);
        if self.sack {
            segment.blocks = self.blocks.len().min(3);
            segment.sack[..segment.blocks].copy_from_slice(&self.blocks[..segment.blocks]);
        }
        segment
    }

    /// Something arrived behind a hole.
    fn report(&mut self) {
        let count = ((self.sent - self.una) / self.mss) as u64;
        let first = self.random.between(1, count - 1) as i32;
        let len = self.random.between(1, (count as i32 - first).min(4) as u64) as i32;
        let mut block = (self.una + first * self.mss, self.una + (first + len) * self.mss);
        // What touches it becomes one with it.
        self.blocks.retain(|&(from, to)| {
            let touches = from <= block.1 && to >= block.0;
            if touches {
                block = (block.0.min(from), block.1.max(to));
            }
            !touches
        });
        self.blocks.insert(0, block);
        self.blocks.truncate(3);
        let segment = self.with_blocks(self.una);
        self.arrives(segment);
    }

    /// Data of the other end, mostly the next.
    fn data(&mut self) {
        let len = self.random.pick(&[1, 100, 500, 1000, 1000, 1448]).min(self.mss * 3);
        let mut segment = self.segment(Flags::ACK, self.next, self.una);
        segment.len = len as u16;
        if self.random.chance(0.4) {
            segment.flags |= Flags::PSH;
        }
        if self.ecn {
            segment.ecn = self.random.pick(&[2, 2, 3]);
        }
        self.next += len;
        self.arrives(segment);
    }

    /// The other end sends, in its turn or not.
    fn receiver(&mut self) {
        match self.random.below(20) {
            0..=6 => self.data(),
            7..=9 => {
                // Something is left out, and comes later.
                let gap = self.random.pick(&[1, 100, 1000, 3000]);
                self.holes.push((self.next, self.next + gap));
                self.next += gap;
                self.data();
            }
            10..=12 if !self.holes.is_empty() => {
                let place = self.random.below(self.holes.len() as u64) as usize;
                let (mut from, mut to) = self.holes.remove(place);
                match self.random.below(4) {
                    0 => from -= self.random.between(1, 600).min(from as u64 - 1) as i32,
                    1 => to += self.random.between(1, 600) as i32,
                    _ => {}
                }
                self.data_at(from, (to - from).min(1460));
            }
            10..=13 => {
                // Again, all of it or a part.
                let from = self.next - (self.random.between(1, 3000) as i32).min(self.next - 1);
                let len = self.random.between(1, 1400) as i32;
                self.data_at(from, len);
                self.next = self.next.max(from + len);
            }
            14 => {
                let far = self.random.pick(&[5_000, 60_000, 70_000, 200_000]);
                self.data_at(self.next + far, 100);
            }
            15 => self.call(What::Read(100_000)),
            16 => self.call(What::Read(700)),
            17 => {
                self.call(What::Send(200));
            }
            18 => self.acknowledge(self.sent),
            _ if self.random.chance(0.25) => {
                let seq = self.next + self.random.pick(&[0, 0, 100]);
                let segment = self.segment(Flags::FIN | Flags::ACK, seq, self.una);
                if seq == self.next {
                    self.next += 1;
                }
                self.arrives(segment);
            }
            _ => self.data(),
        }
    }

    fn data_at(&mut self, seq: i32, len: i32) {
        let mut segment = self.segment(Flags::ACK, seq, self.una);
        segment.len = len as u16;
        if self.stamps && self.random.chance(0.1) {
            segment.stamps = Some(Stamps { back: self.random.pick(&[1, 50, 3000]), echo: Echo::Last });
        }
        self.arrives(segment);
    }

    fn closing(&mut self) {
        match self.random.below(16) {
            0..=1 => self.send(),
            2 => self.data(),
            3..=4 => self.call(What::Close),
            5 => self.call(What::Shutdown),
            6..=8 => {
                let seq = self.next;
                self.next += 1;
                let mut segment = self.segment(Flags::FIN | Flags::ACK, seq, self.una);
                if self.random.chance(0.2) {
                    segment.len = 300;
                    self.next += 300;
                }
                self.arrives(segment);
            }
            9..=10 => {
                // All, with the FIN or without.
                let ack = self.sent + i32::from(self.closed && self.random.chance(0.8));
                let segment = self.segment(Flags::ACK, self.next, ack);
                self.una = ack;
                self.arrives(segment);
            }
            11 => {
                // The last one again.
                let again = self.steps.iter().rev().find(|step| matches!(step.what, What::Arrives(_)));
                if let Some(&Step { what, .. }) = again {
                    self.push(what);
                }
            }
            12 => {
                let seq = self.next + self.random.pick(&[0, 0, -1, 1, 1000]);
                let flags = self.random.pick(&[Flags::RST, Flags::RST | Flags::ACK]);
                let segment = self.segment(flags, seq, self.una);
                self.arrives(segment);
            }
            13 => {
                let mut syn = self.syn();
                syn.seq = self.next + self.random.pick(&[-1, 0, 1, 100_000]);
                self.arrives(syn);
            }
            14 => self.call(What::Read(100_000)),
            _ => self.receiver(),
        }
    }

    /// A segment whose flags and numbers need not make sense.
    fn wild(&mut self) {
        let seq = match self.random.below(4) {
            0 => self.next,
            1 => self.next + self.random.pick(&[-1, 1]),
            2 => self.random.pick(&[0, 1]),
            _ => self.next + self.random.pick(&[-1000, 1000, 30_000, 100_000, -100_000]),
        };
        let ack = match self.random.below(4) {
            0 => self.una,
            1 => self.sent,
            2 => self.sent + self.random.pick(&[1, 1000, 100_000]),
            _ => self.una - self.random.pick(&[1, 1000, 100_000]),
        };
        let flags = self.random.pick(&[
            Flags::ACK,
            Flags::ACK,
            Flags::ACK | Flags::PSH,
            Flags::ACK | Flags::FIN,
            Flags::RST,
            Flags::RST | Flags::ACK,
            Flags::SYN,
            Flags::SYN | Flags::ACK,
            Flags::FIN,
            Flags::empty(),
        ]);
        let mut segment = self.segment(flags, seq, ack);
        segment.len = self.random.pick(&[0, 0, 1, 100]);
        if self.random.chance(0.1) {
            segment.stamps = None;
        }
        if self.sack && self.random.chance(0.2) {
            let from = self.una + self.random.pick(&[-1000, 0, 1000, 5000, 90_000]);
            segment.blocks = 1;
            segment.sack[0] = (from, from + self.random.pick(&[-10, 0, 1, 1000]));
        }
        self.arrives(segment);
    }
}
