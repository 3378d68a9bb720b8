//! Send buffers whose memory somebody else can write at any time.

use std::cell::Cell;

use crate::util::{THEM, US, packet, syn_options};
use sockshim_tcpip::buffer::{Memory, Ring, SendBuffer};
use sockshim_tcpip::checksum;
use sockshim_tcpip::net::{Capabilities, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, ConnectOptions, Stack};
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire::ipv4;
use sockshim_tcpip::wire::tcp::{Flags, Header};

/// Its bytes are others each time that they are read, as if another process wrote them; `short` ones are missing.
#[derive(Debug)]
struct Restless {
    len: usize,
    state: Cell<u8>,
    short: usize,
}

impl SendBuffer for Restless {
    fn len(&self) -> usize {
        self.len
    }

    fn append_to(&self, _offset: usize, len: usize, frame: &mut Vec<u8>) {
        for _ in 0..len.saturating_sub(self.short) {
            self.state.set(self.state.get().wrapping_mul(5).wrapping_add(77));
            frame.push(self.state.get());
        }
    }

    fn release(&mut self, count: usize) {
        self.len -= count;
    }

    fn write(&mut self, data: &[u8], _limit: usize) -> usize {
        self.len += data.len();
        data.len()
    }

    fn capacity(&self) -> usize {
        1 << 20
    }
}

struct Shared {
    short: usize,
}

impl Memory for Shared {
    type Send = Restless;
    type Receive = Ring;

    fn open(&mut self) -> Option<(Restless, Ring)> {
        Some((Restless { len: 0, state: Cell::new(1), short: self.short }, Ring::new(1 << 20)))
    }
}

#[test]
fn the_checksum_is_that_of_the_bytes_that_are_sent() {
    for short in [0, 7] {
        let mut stack = Stack::new(Config::default(), Shared { short }, [1, 2, 3, 4]);
        let link = Capabilities { medium: Medium::Ip, mtu: 1500, tx_checksum: false, gso_max: 0 };
        let link = stack.net().add_interface(link);
        stack.net().add_address(link, US, 24);
        stack.net().add_route("0.0.0.0".parse().unwrap(), 0, None, link);
        let now = Instant::from_secs(1);
        let id = stack.connect(now, (THEM, 80).into(), ConnectOptions::default()).unwrap();
        let mut frame = Vec::new();
        let mut next = |stack: &mut Stack<Shared>| {
            stack.poll_transmit(now, &mut frame).expect("a segment");
            let (_, payload) = ipv4::Header::parse(&frame).expect("a packet");
            let sum = checksum::pseudo(US, THEM, 6, payload.len() as u32) + checksum::sum(payload);
            assert!(sum.is_intact());
            let (header, at) = sockshim_tcpip::wire::tcp::parse(payload).expect("a segment");
            (header, payload[at..].to_vec())
        };
        let (syn, _) = next(&mut stack);
        let answer = Header {
            src_port: 80,
            dst_port: syn.src_port,
            seq: syn.seq,
            ack: syn.seq + 1,
            flags: Flags::SYN | Flags::ACK,
            window: 60_000,
            urgent: 0,
            options: syn_options(),
        };
        stack.handle_packet(now, link, &packet(THEM, US, &answer, &[]), RxMeta::default());
        next(&mut stack);
        stack.send(now, id, &[0; 900]).unwrap();
        let (_, data) = next(&mut stack);
        assert_eq!(data.len(), 900, "as long as the header says");
        assert!(data[900 - short..].iter().all(|&byte| byte == 0), "and nothing that was there before");
    }
}
