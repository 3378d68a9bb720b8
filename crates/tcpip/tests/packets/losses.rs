//! Segments get lost, late, or twice.

use crate::util::{Host, ack};
use sockshim_tcpip::stack::SocketId;

/// A connection with a round-trip time of 50 ms and `segments` in flight.
fn in_flight(segments: u32) -> (Host, SocketId) {
    in_flight_of(Host::established(), segments)
}

fn in_flight_of((mut host, id): (Host, SocketId), segments: u32) -> (Host, SocketId) {
    host.send(id, 1000);
    host.expect_data(1, 1000);
    host.wait_ms(50);
    host.receive(ack(1, 1001));
    host.send(id, segments as usize * 1000);
    assert_eq!(host.drain().len(), segments as usize);
    (host, id)
}

#[test]
fn three_later_segments_show_a_loss_with_sack() {
    let (mut host, id) = in_flight(8);
    host.wait_ms(50);
    for end in [3001, 4001] {
        let segment = ack(1, 1001).sack(&host, &[(2001, end)]);
        host.receive(segment);
        assert!(host.drain().is_empty());
    }
    let segment = ack(1, 1001).sack(&host, &[(2001, 5001)]);
    host.receive(segment);
    host.expect_data(1001, 1000);
    assert_eq!(host.info(id).ca_state, 3);
}

#[test]
fn three_duplicates_show_a_loss_without_sack() {
    let (mut host, id) =
        in_flight_of(Host::with(|config| config.tcp.sack = false).accept_with(crate::util::syn_options()), 8);
    host.wait_ms(50);
    for _ in 0..2 {
        host.receive(ack(1, 1001));
        host.expect_nothing();
    }
    host.receive(ack(1, 1001));
    host.expect_data(1001, 1000);
    // RFC 6582: a partial acknowledgement sends the next hole.
    host.wait_ms(50);
    host.receive(ack(1, 3001));
    host.expect_data(3001, 1000);
    assert_eq!(host.info(id).ca_state, 3);
    host.receive(ack(1, 9001));
    host.send(id, 1000);
    host.receive(ack(1, 10_001));
    assert_eq!(host.info(id).ca_state, 0);
}

#[test]
fn the_first_duplicates_let_new_data_out() {
    let (mut host, id) = in_flight(10);
    host.send(id, 5000);
    host.drain();
    host.wait_ms(50);
    let segment = ack(1, 1001).sack(&host, &[(2001, 3001)]);
    host.receive(segment);
    assert_eq!(host.drain().len(), 1, "RFC 3042");
}

#[test]
fn the_tail_is_probed_before_the_time_out() {
    let (mut host, id) = in_flight(3);
    host.wait_ms(95);
    host.expect_nothing();
    host.wait_ms(15);
    host.expect_data(3001, 1000); // RFC 8985 section 7.3: the last segment again, after two round trips
    host.wait_ms(50);
    // It repairs the loss of itself: congestion.
    host.receive(ack(1, 4001));
    host.send(id, 1000);
    host.expect_data(4001, 1000);
    host.wait_ms(50);
    host.receive(ack(1, 5001));
    assert_eq!(host.info(id).ca_state, 0);
    assert!(host.info(id).snd_ssthresh < 100);
}

#[test]
fn a_probe_reported_twice_was_for_nothing() {
    let (mut host, id) = in_flight(3);
    host.wait_ms(110);
    host.expect_data(3001, 1000);
    let segment = ack(1, 4001).sack(&host, &[(3001, 4001)]);
    host.receive(segment);
    assert_eq!(host.info(id).snd_ssthresh, 0x7fff_ffff);
}

#[test]
fn after_a_time_out_one_segment_is_sent_and_the_wait_doubles() {
    let mut host = Host::with(|config| config.tcp.tail_loss_probe = false);
    host = {
        let (host, id) = in_flight_of(host.accept_with(crate::util::syn_options()), 5);
        let _ = id;
        host
    };
    host.wait_ms(255);
    host.expect_data(1001, 1000);
    host.expect_nothing();
    host.wait_ms(495);
    host.expect_nothing();
    host.wait_ms(20);
    host.expect_data(1001, 1000);
}

#[test]
fn a_time_out_that_was_none_is_undone_by_the_original_data() {
    let host = Host::with(|config| config.tcp.tail_loss_probe = false);
    let (mut host, id) = in_flight_of(host.accept_with(crate::util::syn_options()), 5);
    let before = host.info(id).snd_cwnd;
    host.wait_ms(255);
    host.expect_data(1001, 1000);
    assert_eq!(host.info(id).ca_state, 4);
    // RFC 5682: the original acknowledgements come late; new data is sent instead of old.
    host.send(id, 5000);
    host.receive(ack(1, 2001));
    assert!(host.drain().iter().all(|segment| segment.seq >= 6001), "new data only");
    host.receive(ack(1, 3001));
    assert_eq!(host.info(id).ca_state, 0);
    assert!(host.info(id).snd_cwnd >= before);
    assert!(host.drain().iter().all(|segment| segment.seq >= 6001));
}

#[test]
fn a_recovery_reported_as_needless_is_undone() {
    let (mut host, id) = in_flight(8);
    host.wait_ms(50);
    let segment = ack(1, 1001).sack(&host, &[(2001, 5001)]);
    host.receive(segment);
    host.expect_data(1001, 1000);
    let segment = ack(1, 9001).sack(&host, &[(1001, 2001)]);
    host.receive(segment);
    host.send(id, 1000);
    host.receive(ack(1, 10_001));
    let info = host.info(id);
    assert_eq!((info.ca_state, info.snd_ssthresh), (0, 0x7fff_ffff));
}

#[test]
fn reordering_by_less_than_a_quarter_round_trip_is_no_loss_once_seen() {
    let (mut host, id) = in_flight(10);
    host.wait_ms(50);
    // The first arrives late, without having been sent again: reordering is seen.
    let segment = ack(1, 1001).sack(&host, &[(2001, 4001)]);
    host.receive(segment);
    host.receive(ack(1, 4001));
    assert!(host.info(id).reord_seen > 0);
    host.drain();
    // Now three later ones do not make it lost at once.
    let segment = ack(1, 4001).sack(&host, &[(5001, 9001)]);
    host.receive(segment);
    assert!(host.drain().iter().all(|segment| segment.seq != 4001));
    host.wait_ms(30);
    assert_eq!(
        host.drain().iter().filter(|segment| segment.seq == 4001).count(),
        1,
        "but a quarter later it does"
    );
}

#[test]
fn a_peer_that_forgets_what_it_sacked_gets_it_again() {
    let host = Host::with(|config| config.tcp.tail_loss_probe = false);
    let (mut host, _) = { in_flight_of(host.accept_with(crate::util::syn_options()), 5) };
    host.wait_ms(10);
    let segment = ack(1, 1001).sack(&host, &[(2001, 6001)]);
    host.receive(segment);
    host.drain();
    // It acknowledges the first and does not have the second any more (RFC 2018 section 8).
    host.receive(ack(1, 2001));
    host.wait_ms(2000);
    assert!(host.drain().iter().any(|segment| segment.seq == 2001));
}

#[test]
fn blocks_beyond_what_was_sent_are_ignored() {
    let (mut host, id) = in_flight(4);
    for block in [(900_000, 901_000), (3001, 2001), (1, 50_000)] {
        let segment = ack(1, 1001).sack(&host, &[block]);
        host.receive(segment);
    }
    assert_eq!(host.info(id).sacked, 0);
}

/// Waits until something leaves, and says when that was, in milliseconds from `begin`.
fn next_sent(host: &mut Host, begin: sockshim_tcpip::time::Instant) -> (u64, crate::util::Seg) {
    for _ in 0..5000 {
        if let Some(segment) = host.drain().into_iter().next() {
            return ((host.now - begin).as_millis() as u64, segment);
        }
        host.wait_ms(1);
    }
    panic!("nothing leaves");
}

#[test]
fn the_time_out_after_a_probe_of_the_tail_counts_from_the_first_segment() {
    let (mut host, id) = Host::established();
    let begin = host.now;
    host.send(id, 10_000);
    assert_eq!(host.drain().len(), 10);
    let (at, probe) = next_sent(&mut host, begin);
    assert_eq!((probe.seq, at / 10), (9001, 10), "two round trips: {at}");
    host.wait_ms(2);
    host.receive(ack(1, 3001));
    host.wait_ms(2);
    host.receive(ack(1, 4001));
    // As Linux: another probe would be due now, but there is one under way, so what is left of the time-out counts.
    let (at, again) = next_sent(&mut host, begin);
    assert_eq!(again.seq, 4001);
    assert!((255..=275).contains(&at), "{at}");
    assert_eq!(host.info(id).ca_state, 4);
}

#[test]
fn data_that_keeps_coming_does_not_put_the_probe_off_beyond_the_time_out() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.nodelay = true)).unwrap();
    // A round trip of 150 ms: the time-out is 350 ms, and a probe is due after 302 ms if nothing else is sent.
    host.send(id, 10);
    host.wait_ms(150);
    host.receive(ack(1, 11));
    host.drain();
    let begin = host.now;
    let mut again = None;
    for _ in 0..8 {
        if again.is_some() {
            break;
        }
        host.send(id, 10);
        assert_eq!(host.drain().len(), 1);
        for _ in 0..10 {
            host.wait_ms(10);
            if !host.drain().is_empty() {
                again.get_or_insert((host.now - begin).as_millis());
            }
        }
    }
    let again = again.expect("something is sent again");
    assert!(again <= 360, "{again}");
}
