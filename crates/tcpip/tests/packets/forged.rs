//! Segments that somebody else may have sent (RFC 5961, RFC 5927), and garbage.

use crate::util::{Host, IRS, PORT, THEIR_PORT, THEM, US, ack, packet, seg, syn_options};
use sockshim_tcpip::net::RxMeta;
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::tcp::State;
use sockshim_tcpip::wire::tcp::{Flags, Header, Options};

#[test]
fn a_reset_counts_only_at_the_next_number() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::RST, 500, 0));
    host.expect_ack(1); // RFC 5961 section 3.2: the challenge
    host.expect_state(id, State::Established);
    host.receive(seg(Flags::RST, 900_000, 0));
    host.expect_nothing();
    host.receive(seg(Flags::RST, 1, 0));
    host.expect_state(id, State::Closed);
    assert_eq!(host.failure(id), Some(104));
    host.expect_nothing();
}

#[test]
fn a_reset_may_carry_data() {
    let (mut host, id) = Host::established();
    // SHLD-2: ASCII that says why, for people; nobody reads it here.
    host.receive(seg(Flags::RST, 1, 0).data(20));
    host.expect_state(id, State::Closed);
    assert_eq!(host.failure(id), Some(104));
    assert!(host.read(id).is_empty());
    host.expect_nothing();
}

#[test]
fn a_reset_counts_in_a_closed_window_as_well() {
    let (mut host, id) = Host::established();
    let mut seq = 1;
    let edge = loop {
        host.receive(ack(seq, 1).data(1000));
        seq += 1000;
        let last = host.drain().pop();
        if let Some(last) = last.filter(|last| last.window == 0) {
            break last.ack;
        }
        host.wait_ms(1);
    };
    // MUST-66; data is not taken, but its acknowledgement counts (RFC 9293 section 3.10.7.4).
    host.send(id, 10);
    host.expect_data(1, 10);
    host.receive(ack(edge, 11).data(100));
    assert_eq!(host.expect_ack(edge).window, 0);
    assert_eq!(host.stack.unacknowledged(id), 0);
    host.receive(seg(Flags::RST, edge, 0));
    host.expect_state(id, State::Closed);
}

#[test]
fn a_syn_in_a_connection_is_challenged() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::SYN, 77, 0));
    host.expect_ack(1);
    host.expect_state(id, State::Established);
}

#[test]
fn challenges_of_one_connection_are_limited() {
    let (mut host, _) = Host::established();
    for _ in 0..100 {
        host.receive(seg(Flags::RST, 500, 0));
    }
    assert_eq!(host.drain().len(), 1);
    host.wait_ms(501);
    host.receive(seg(Flags::RST, 500, 0));
    host.expect_ack(1);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_dropped_and_answered() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 5000).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty());
}

#[test]
fn a_much_too_old_acknowledgement_is_challenged() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1u32.wrapping_sub(100_000)).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty());
}

#[test]
fn a_segment_for_no_connection_is_reset_but_a_reset_never_is() {
    let mut host = Host::new();
    host.receive(ack(1, 77).data(5));
    let reset = host.expect_reset();
    assert_eq!((reset.flags, reset.seq), (Flags::RST, 77));
    host.receive(seg(Flags::FIN, 10, 0));
    let reset = host.expect_reset();
    assert_eq!((reset.flags, reset.ack), (Flags::RST | Flags::ACK, 11));
    host.receive(seg(Flags::RST, 10, 0));
    host.expect_nothing();
}

#[test]
fn a_wrong_checksum_is_dropped_and_counted() {
    let (mut host, id) = Host::established();
    let header = Header {
        src_port: THEIR_PORT,
        dst_port: PORT,
        seq: SeqNumber::new(IRS + 1),
        ack: host.iss + 1,
        flags: Flags::ACK,
        window: 1000,
        urgent: 0,
        options: Options::default(),
    };
    let mut bad = packet(THEM, US, &header, b"data");
    *bad.last_mut().unwrap() ^= 1;
    host.stack.handle_packet(host.now, host.link, &bad, RxMeta::default());
    assert!(host.read(id).is_empty());
    host.stack.handle_packet(host.now, host.link, &bad, RxMeta { checksum_ok: true, gso_size: 0 });
    assert_eq!(host.read(id).len(), 4, "but a link that knows is believed");
}

#[test]
fn no_bytes_whatsoever_do_harm() {
    let (mut host, _) = Host::established();
    let header = Header {
        src_port: THEIR_PORT,
        dst_port: PORT,
        seq: SeqNumber::new(IRS + 1),
        ack: host.iss + 1,
        flags: Flags::ACK,
        window: 1000,
        urgent: 0,
        options: Options { mss: Some(1), ..Options::default() },
    };
    let good = packet(THEM, US, &header, b"some data that is good");
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bad.len();
            bad[at] = (state >> 25) as u8;
        }
        bad.truncate((state >> 40) as usize % (bad.len() + 1));
        host.stack.handle_packet(host.now, host.link, &bad, RxMeta { checksum_ok: true, gso_size: 7 });
        host.drain();
    }
}

#[test]
fn answers_that_nobody_fetches_are_capped() {
    let mut host = Host::new();
    for port in 0..3000 {
        let header = Header {
            src_port: 1000 + port,
            dst_port: 9,
            seq: SeqNumber::new(IRS),
            ack: SeqNumber::new(0),
            flags: Flags::SYN,
            window: 1000,
            urgent: 0,
            options: Options::default(),
        };
        let syn = packet(THEM, US, &header, &[]);
        host.stack.handle_packet(host.now, host.link, &syn, RxMeta::default());
    }
    assert_eq!(host.drain().len(), 1024);
    assert_eq!(host.stack.counters().replies_dropped, 3000 - 1024);
}

#[test]
fn nobody_can_count_the_challenges_of_other_connections() {
    // CVE-2016-5696: a limit that connections share tells one of them what another one does.
    let mut host = Host::new();
    let listener = host.listen(2000);
    let mut numbers = Vec::new();
    for port in 0..1500 {
        host.remote.set_port(1000 + port);
        host.accept(listener, syn_options());
        numbers.push(host.iss);
    }
    for (port, iss) in (0..).zip(numbers) {
        host.remote.set_port(1000 + port);
        host.iss = iss;
        host.receive(seg(Flags::RST, 2, 0));
    }
    assert_eq!(host.drain().len(), 1500);
    assert_eq!(host.stack.counters().tcp_challenge_ack, 1500);
}

#[test]
fn an_acknowledgement_from_before_the_connection_is_challenged_and_its_data_dropped() {
    let (mut host, id) = Host::established();
    // RFC 5961 section 5.2: not older than what was ever acknowledged, and not than the largest window.
    host.receive(ack(1, 0).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty());
    host.wait_ms(1000);
    host.send(id, 100);
    host.expect_data(1, 100);
    host.receive(ack(1, 101));
    host.receive(ack(1, 0).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty());
    // An old one is one all the same.
    host.receive(ack(1, 1).data(10));
    assert_eq!(host.read(id).len(), 10);
    host.drain();

    let (mut host, id) = Host::with_window(500);
    for step in 0..4 {
        host.send(id, 500);
        host.drain();
        host.receive(ack(1, 501 + step * 500).window(500));
    }
    host.receive(ack(1, 1500).window(500).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty(), "more than a window old");
    host.receive(ack(1, 1501).window(500).data(10));
    assert_eq!(host.read(id).len(), 10);
}
