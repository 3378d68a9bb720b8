//! A host whose packets are watched: what can be seen on the wire and must hold for every TCP.

use std::collections::HashMap;
use std::net::IpAddr;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::sim::{Frame, Host};
use sockshim_tcpip::stack::Stack;
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire::tcp::{self, Flags, Header};

/// A stack and what its packets have shown.
pub(crate) struct Watched {
    pub(crate) stack: Stack<VecMemory>,
    flows: HashMap<(IpAddr, u16, u16), Flow>,
    pub(crate) sent: Counts,
    pub(crate) received: Counts,
    /// Calls of the application, each of which may cause a window update.
    pub(crate) calls: u64,
    /// Some packets are not what the stack sent or the other end means: only what holds all the same is checked.
    pub(crate) damaged: bool,
    /// Changes what arrives, as another kind of peer would have sent it.
    pub(crate) mangle: Option<Mangle>,
}

type Mangle = Box<dyn FnMut(Instant, &mut Frame) + Send>;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) segments: u64,
    pub(crate) data: u64,
    pub(crate) payload: u64,
    /// The largest payload of one segment.
    pub(crate) largest: usize,
    pub(crate) pure_acks: u64,
}

/// One connection, by remote address, remote and local port.
#[derive(Debug, Default)]
struct Flow {
    /// From the SYN of each side: how far its window is shifted.
    my_shift: Option<u8>,
    their_shift: Option<u8>,
    /// The end of the window that the other side has given, and that we have given.
    their_edge: Option<SeqNumber>,
    my_edge: Option<SeqNumber>,
    /// How much the last window of ours could not say, for its shift.
    my_rounding: u32,
}

impl Watched {
    pub(crate) fn new(stack: Stack<VecMemory>) -> Self {
        Self {
            stack,
            flows: HashMap::new(),
            sent: Counts::default(),
            received: Counts::default(),
            calls: 0,
            damaged: false,
            mangle: None,
        }
    }

    /// Acknowledgements answer something: data, or what is out of place, or the application's reading. Two stacks that
    /// answer each other's acknowledgements would never end.
    pub(crate) fn check_no_ack_storm(&self) {
        let causes = self.received.segments - self.received.pure_acks + self.calls + self.sent.data;
        assert!(
            self.sent.pure_acks <= 2 * causes + 64,
            "{} pure acknowledgements for {causes} causes",
            self.sent.pure_acks
        );
    }

    fn watch_sent(&mut self, frame: &Frame) {
        let Some((key, header, payload)) = parse(frame, true) else { return };
        self.sent.add(&header, payload, frame.gso_size);
        let flow = self.flows.entry(key).or_default();
        if header.flags.contains(Flags::SYN) {
            *flow = Flow { their_shift: flow.their_shift, their_edge: flow.their_edge, ..Flow::default() };
            flow.my_shift = header.options.window_scale;
            return;
        }
        if header.flags.contains(Flags::RST) {
            return;
        }
        let end = header.seq + payload as u32;
        if let Some(edge) = flow.their_edge.filter(|_| payload > 0) {
            assert!(
                end.at_or_before(edge),
                "sent up to {end:?}, beyond the window's end {edge:?}: {header:?}"
            );
        }
        let shift = shift(flow.my_shift, flow.their_shift);
        let edge = header.ack + (u32::from(header.window) << shift);
        if let Some(before) = flow.my_edge {
            // RFC 7323 section 2.4: less than the shift can say does not count.
            let slack = (1_u32 << shift) - 1 + flow.my_rounding;
            assert!(
                (edge + slack).at_or_after(before),
                "took the window back from {before:?} to {edge:?}: {header:?}"
            );
        }
        flow.my_edge = Some(flow.my_edge.map_or(edge, |before| before.later(edge)));
    }

    fn watch_received(&mut self, frame: &Frame) {
        let Some((key, header, payload)) = parse(frame, false) else { return };
        self.received.add(&header, payload, frame.gso_size);
        if header.flags.contains(Flags::RST) {
            return;
        }
        let flow = self.flows.entry(key).or_default();
        let shift = if header.flags.contains(Flags::SYN) {
            flow.their_shift = header.options.window_scale;
            0
        } else {
            shift(flow.their_shift, flow.my_shift)
        };
        if header.flags.contains(Flags::ACK) {
            let edge = header.ack + (u32::from(header.window) << shift);
            flow.their_edge = Some(flow.their_edge.map_or(edge, |before| before.later(edge)));
        }
    }
}

impl Counts {
    fn add(&mut self, header: &Header, payload: usize, gso_size: u16) {
        self.segments += 1;
        self.largest = self.largest.max(if gso_size > 0 { payload.min(gso_size.into()) } else { payload });
        self.payload += payload as u64;
        if payload > 0 {
            self.data += 1;
        }
        if payload == 0 && header.flags.without(Flags::ECE) == Flags::ACK {
            self.pure_acks += 1;
        }
    }
}

impl Host for Watched {
    fn handle_packet(&mut self, now: Instant, frame: &Frame) {
        let mut frame = frame.clone();
        if let Some(mangle) = &mut self.mangle {
            mangle(now, &mut frame);
        }
        if !self.damaged {
            self.watch_received(&frame);
        }
        Host::handle_packet(&mut self.stack, now, &frame);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Host::handle_timeout(&mut self.stack, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Host::poll_timeout(&self.stack)
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Frame> {
        let frame = Host::poll_transmit(&mut self.stack, now)?;
        if !self.damaged {
            self.watch_sent(&frame);
        }
        Some(frame)
    }
}

/// Windows are shifted only if both sides have said so.
fn shift(of: Option<u8>, other: Option<u8>) -> u32 {
    match (of, other) {
        (Some(shift), Some(_)) => u32::from(shift.min(14)),
        _ => 0,
    }
}

fn parse(frame: &Frame, sent: bool) -> Option<((IpAddr, u16, u16), Header, usize)> {
    let layout = frame.tcp()?;
    let (from, to) = frame.addresses()?;
    let (header, _) = tcp::parse(&frame.bytes[layout.tcp..]).ok()?;
    let key = match sent {
        true => (to, header.dst_port, header.src_port),
        false => (from, header.src_port, header.dst_port),
    };
    Some((key, header, layout.payload.len()))
}
