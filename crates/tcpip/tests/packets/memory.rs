//! What all connections together may hold (Linux's tcp_mem and tcp_max_orphans).

use crate::util::{Host, Seg, ack, syn_options};
use sockshim_tcpip::error::Error;
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::stack::{Event, SocketId};
use sockshim_tcpip::tcp::{MemoryLimits, State};

const KB: u64 = 1024;
const LIMITS: MemoryLimits = MemoryLimits { low: 64 * KB, pressure: 128 * KB, high: 256 * KB };
/// The largest buffer that one call or segment fills.
const ONE: u64 = 128 * KB;

/// Connections of one host, each to its own port of the other end.
struct Many {
    host: Host,
    ids: Vec<(SocketId, SeqNumber)>,
}

impl Many {
    fn new(count: usize, change: impl FnOnce(&mut sockshim_tcpip::tcp::Config)) -> Self {
        let mut host = Host::with(|config| {
            config.tcp.memory = LIMITS;
            change(&mut config.tcp);
        });
        let listener = host.listen(count as u32);
        let mut ids = Vec::new();
        for number in 0..count {
            host.remote.set_port(1000 + number as u16);
            let id = host.accept(listener, syn_options());
            ids.push((id, host.iss));
        }
        host.events.clear();
        Self { host, ids }
    }

    /// The connection of that number, to be talked to.
    fn turn_to(&mut self, number: usize) -> SocketId {
        let (id, iss) = self.ids[number];
        self.host.remote.set_port(1000 + number as u16);
        self.host.iss = iss;
        id
    }

    fn receive(&mut self, number: usize, segment: Seg) {
        self.turn_to(number);
        self.host.receive(segment);
    }

    fn send(&mut self, number: usize, len: usize) -> Result<usize, Error> {
        let id = self.turn_to(number);
        self.host.call(|stack, now| stack.send(now, id, &vec![b'd'; len]))
    }
}

#[test]
fn what_applications_write_is_capped_and_goes_on_when_there_is_room() {
    let mut many = Many::new(20, |_| {});
    let mut written = vec![0u32; 20];
    for number in 0..20 {
        many.receive(number, ack(1, 1).window(0));
        while let Ok(count) = many.send(number, 64 * 1024) {
            written[number] += count as u32;
        }
        assert!(written[number] >= 4096, "a little each can always write: {written:?}");
        assert!(many.host.stack.memory() <= LIMITS.high + ONE + 20 * 4096, "{}", many.host.stack.memory());
    }
    assert!(written[0] > 60_000 && written[19] == 4096, "{written:?}");
    assert_eq!(many.host.stack.counters().tcp_memory_pressures, 1);
    let (last, _) = many.ids[19];
    assert!(!many.host.stack.readiness(many.host.now, last).unwrap().writable);
    many.host.events.clear();
    // The first ones get rid of what they hold.
    for (number, &written) in written.iter().enumerate().take(5) {
        let (mut una, end) = (1, 1 + written);
        while una < end {
            many.receive(number, ack(1, una).window(60_000));
            una = (una + 10_000).min(end);
            many.host.wait_ms(1);
            many.receive(number, ack(1, una).window(60_000));
            many.host.drain();
        }
    }
    many.host.wait_ms(3000);
    assert!(many.host.events.contains(&Event::Writable(last)), "{:?}", many.host.events);
    assert!(many.send(19, 1000).is_ok());
}

#[test]
fn what_nobody_reads_is_capped_and_comes_again() {
    let mut many = Many::new(20, |_| {});
    for number in 0..20 {
        for part in 0..30 {
            let at = 1 + part * 1000;
            // The first half in order, the second beyond a hole.
            let hole = if part < 15 { 0 } else { 500 };
            many.receive(number, ack(at + hole, 1).data(1000));
        }
        assert!(many.host.stack.memory() <= LIMITS.high + ONE + 20 * 4096, "{}", many.host.stack.memory());
    }
    let counters = many.host.stack.counters();
    assert!(counters.tcp_ofo_drop > 100, "{counters:?}");
    many.host.drain();
    // The next data for one that has read everything is always taken.
    let id = many.turn_to(19);
    let read = many.host.read(id).len();
    let next = 1 + read as u32;
    many.receive(19, ack(next, 1).data(1000));
    assert_eq!(many.host.read(id).len(), 1000);
    // And all of it once the others have read as well.
    for number in 0..19 {
        let id = many.turn_to(number);
        many.host.read(id);
        many.host.call(|stack, now| stack.abort(now, id));
    }
    many.host.drain();
    many.receive(19, ack(next + 2000, 1).data(1000));
    many.receive(19, ack(next + 1000, 1).data(1000));
    assert_eq!(many.host.read(id).len(), 2000);
}

#[test]
fn under_pressure_buffers_and_windows_do_not_grow() {
    for pressed in [false, true] {
        let mut many = Many::new(4, |_| {});
        if pressed {
            for number in 1..4 {
                many.receive(number, ack(1, 1).window(0));
                many.send(number, 64 * 1024).unwrap();
            }
            assert!((LIMITS.pressure..LIMITS.high).contains(&many.host.stack.memory()));
        }
        let id = many.turn_to(0);
        let mut seq = 1;
        let mut window = 0;
        for _ in 0..40 {
            for _ in 0..20 {
                many.receive(0, ack(seq, 1).data(1000));
                seq += 1000;
            }
            many.host.read(id);
            many.host.wait_ms(50);
            if let Some(last) = many.host.drain().last() {
                window = u32::from(last.window) << 9;
            }
        }
        assert_eq!(window > 70_000, !pressed, "{window}");
        let limit = many.host.stack.send_limit(id).unwrap();
        many.send(0, 60_000).unwrap();
        let mut una = 1;
        for _ in 0..100 {
            many.host.wait_ms(10);
            let sent = many.host.drain();
            una += sent.iter().map(|segment| segment.data.len() as u32).sum::<u32>();
            many.receive(0, ack(seq, una));
            let _ = many.send(0, 60_000);
        }
        assert_eq!(many.host.stack.send_limit(id).unwrap() > limit, !pressed);
    }
}

#[test]
fn closed_sockets_are_capped() {
    let mut many = Many::new(6, |tcp| tcp.max_orphans = 3);
    for number in 0..6 {
        many.receive(number, ack(1, 1).window(0));
        many.send(number, 100).unwrap();
        let id = many.turn_to(number);
        many.host.call(|stack, now| stack.close(now, id));
        if number < 3 {
            many.host.expect_nothing();
        } else {
            many.host.expect_reset();
        }
    }
    assert_eq!((many.host.stack.orphan_count(), many.host.stack.connection_count()), (3, 3));
    assert_eq!(many.host.stack.counters().tcp_abort_on_memory, 3);
    many.receive(0, ack(1, 1));
    many.receive(0, ack(1, 102));
    let fin = Seg {
        flags: sockshim_tcpip::wire::tcp::Flags::FIN | sockshim_tcpip::wire::tcp::Flags::ACK,
        ..ack(1, 102)
    };
    many.receive(0, fin);
    assert_eq!(many.host.stack.orphan_count(), 2, "one is over");
}

#[test]
fn of_closed_sockets_the_silent_ones_go_first() {
    let mut many = Many::new(2, |tcp| tcp.max_orphans = 3);
    many.host.wait_ms(300_000);
    for number in 0..2 {
        many.receive(number, ack(1, 1).window(0));
        many.send(number, 100).unwrap();
        let id = many.turn_to(number);
        many.host.call(|stack, now| stack.close(now, id));
    }
    many.host.expect_nothing();
    // They have sent nothing for long, so each counts twice when its timer runs out.
    many.host.wait_ms(300);
    assert_eq!(
        many.host
            .drain()
            .iter()
            .filter(|segment| segment.flags.contains(sockshim_tcpip::wire::tcp::Flags::RST))
            .count(),
        1
    );
    assert_eq!(many.host.stack.orphan_count(), 1);
}

#[test]
fn a_closed_socket_gives_its_memory_back_when_there_is_none() {
    let mut many = Many::new(8, |_| {});
    for number in 0..8 {
        many.receive(number, ack(1, 1).window(0));
        let _ = many.send(number, 64 * 1024);
    }
    let id = many.turn_to(0);
    many.host.call(|stack, now| stack.close(now, id));
    many.host.expect_reset();
    assert_eq!(many.host.stack.state(id), None);
    // One that holds little may stay.
    let id = many.turn_to(7);
    many.host.call(|stack, now| stack.close(now, id));
    many.host.expect_state(id, State::FinWait1);
}
