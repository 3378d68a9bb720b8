//! Data goes in both directions.

use crate::util::{Host, MSS, ack, seg, syn_options};
use sockshim_tcpip::stack::Event;
use sockshim_tcpip::wire::tcp::Flags;

#[test]
fn ten_segments_leave_at_first_and_two_for_each_acknowledged_in_slow_start() {
    let (mut host, id) = Host::established();
    host.send(id, 40_000);
    assert_eq!(host.drain().len(), 10, "RFC 6928");
    host.wait_ms(10);
    host.receive(ack(1, 2001));
    assert_eq!(host.drain().len(), 4);
}

#[test]
fn a_small_segment_waits_for_the_one_before_it() {
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.expect_data(1, 10);
    host.send(id, 20);
    host.send(id, 30);
    host.expect_nothing();
    host.receive(ack(1, 11));
    host.expect_data(11, 50);
}

#[test]
fn without_nagle_small_segments_leave_at_once() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.nodelay = true)).unwrap();
    host.send(id, 10);
    host.send(id, 20);
    host.expect_data(1, 10);
    host.expect_data(11, 20);
}

#[test]
fn corked_data_waits_until_it_fills_a_segment_or_for_a_fifth_of_a_second() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.cork = true)).unwrap();
    host.send(id, 600);
    host.expect_nothing();
    host.send(id, 600);
    host.expect_data(1, usize::from(MSS));
    host.receive(ack(1, 1001));
    host.expect_nothing();
    host.wait_ms(300);
    host.expect_data(1001, 200);
}

#[test]
fn the_last_segment_of_a_write_is_pushed() {
    let (mut host, id) = Host::established();
    host.send(id, 1500);
    assert_eq!(host.expect_data(1, 1000).flags, Flags::ACK);
    host.receive(ack(1, 1001));
    assert_eq!(host.expect_data(1001, 500).flags, Flags::ACK | Flags::PSH);
}

#[test]
fn data_in_order_is_read_and_acknowledged() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(100));
    host.expect_ack(101); // quick acknowledgements at the start
    assert!(host.events.contains(&Event::Readable(id)));
    assert_eq!(host.read(id).len(), 100);
}

#[test]
fn later_data_waits_for_earlier_and_is_reported() {
    let (mut host, id) = Host::established();
    host.receive(ack(1001, 1).data(1000));
    let answer = host.expect_ack(1);
    assert_eq!(answer.options.sack.as_slice().len(), 1);
    assert!(host.read(id).is_empty());
    host.receive(ack(3001, 1).data(1000));
    assert_eq!(host.expect_ack(1).options.sack.as_slice().len(), 2);
    host.receive(ack(1, 1).data(1000));
    assert_eq!(host.expect_ack(2001).options.sack.as_slice().len(), 1);
    assert_eq!(host.read(id).len(), 2000);
    host.receive(ack(2001, 1).data(1000));
    assert!(host.expect_ack(4001).options.sack.is_empty());
    let data = host.read(id);
    assert!((2001..4001).zip(&data).all(|(seq, &byte)| byte == seq as u8));
}

#[test]
fn ranges_out_of_order_are_as_many_as_the_cap_says_and_the_farthest_give_way() {
    let (mut host, id) = Host::with(|config| config.tcp.max_out_of_order = 8).accept_with(syn_options());
    for i in 1..=20 {
        host.receive(ack(1 + i * 200, 1).data(100));
    }
    assert_eq!(host.stack.counters().tcp_ofo_drop, 12, "beyond the eighth nothing is kept");
    host.receive(ack(101, 1).data(50));
    // It took the place of the eighth, so what is kept ends there.
    host.receive(ack(1, 1).data(100));
    assert_eq!(host.read(id).len(), 150);
    for i in 0..9 {
        host.receive(ack(1 + i * 200, 1).data(200));
    }
    let data = host.read(id);
    assert!((151..1801).zip(&data).all(|(seq, &byte)| byte == seq as u8));
    assert_eq!(data.len(), 1650);
}

#[test]
fn the_newest_block_is_reported_first() {
    let (mut host, _) = Host::established();
    for seq in [2001, 6001, 4001] {
        host.receive(ack(seq, 1).data(1000));
    }
    let blocks: Vec<u32> = host
        .drain()
        .pop()
        .unwrap()
        .options
        .sack
        .as_slice()
        .iter()
        .map(|b| b.0.get() - crate::util::IRS)
        .collect();
    assert_eq!(blocks, [4001, 6001, 2001]);
}

#[test]
fn what_arrives_twice_is_reported_as_such() {
    let (mut host, _) = Host::established();
    host.receive(ack(1, 1).data(1000));
    host.expect_ack(1001);
    host.receive(ack(1, 1).data(1000));
    let blocks = host.expect_ack(1001).options.sack;
    let irs = sockshim_tcpip::seq::SeqNumber::new(crate::util::IRS);
    assert_eq!(blocks.as_slice(), [(irs + 1, irs + 1001)], "RFC 2883");
}

#[test]
fn an_acknowledgement_is_delayed_by_forty_milliseconds_once_the_start_is_over() {
    let (mut host, id) = Host::established();
    let mut seq = 1;
    for _ in 0..40 {
        host.receive(ack(seq, 1).data(1000));
        seq += 1000;
        host.wait_ms(100);
        host.read(id);
    }
    host.drain();
    host.receive(ack(seq, 1).data(1000));
    host.expect_nothing();
    host.wait_ms(39);
    host.expect_nothing();
    host.wait_ms(162);
    host.expect_ack(seq + 1000);
}

#[test]
fn quick_acknowledgement_sends_what_waits_and_without_it_an_answer_is_waited_for() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_quick_ack(now, id, false)).unwrap();
    host.receive(ack(1, 1).data(10));
    host.expect_nothing();
    host.call(|stack, now| stack.set_quick_ack(now, id, true)).unwrap();
    host.expect_ack(11);
    host.receive(ack(11, 1).data(10));
    host.expect_ack(21);
    host.call(|stack, now| stack.set_quick_ack(now, id, false)).unwrap();
    host.receive(ack(21, 1).data(10));
    host.send(id, 5);
    assert_eq!(host.expect_data(1, 5).ack, 31, "it travels with the answer");
    host.expect_nothing();
}

#[test]
fn the_second_full_segment_is_acknowledged_at_once() {
    let (mut host, id) = Host::established();
    let mut seq = 1;
    for _ in 0..40 {
        host.receive(ack(seq, 1).data(1000));
        seq += 1000;
        host.wait_ms(100);
        host.read(id);
    }
    host.drain();
    host.receive(ack(seq, 1).data(1000));
    host.expect_nothing();
    host.receive(ack(seq + 1000, 1).data(1000));
    host.expect_ack(seq + 2000);
}

#[test]
fn a_super_segment_counts_as_the_segments_in_it() {
    let (mut host, id) = Host::established();
    host.receive_super(ack(1, 1).data(8000), 1000);
    host.expect_ack(8001);
    assert_eq!(host.read(id).len(), 8000);
    assert_eq!(host.stack.counters().in_segs, 2 + 8);
}

#[test]
fn the_window_closes_when_nobody_reads_and_opens_again() {
    let (mut host, id) = Host::established();
    let mut seq = 1;
    let mut edge = 1000;
    while edge > seq {
        let len = (edge - seq).min(1000) as usize;
        host.receive(ack(seq, 1).data(len));
        seq += len as u32;
        host.wait_ms(50);
        for segment in host.drain() {
            edge = segment.ack + (u32::from(segment.window) << host.shift);
        }
    }
    host.receive(ack(seq, 1).data(1000));
    assert_eq!(host.expect_ack(seq).window, 0, "RFC 9293 section 3.10.7.4: acknowledged, not taken");
    host.wait_ms(10);
    host.read(id);
    assert!(host.expect_ack(seq).window > 0, "the window is announced");
}

#[test]
fn the_window_is_never_taken_back() {
    let (mut host, _) = Host::established();
    let mut edge = 0;
    for step in 0..60 {
        host.receive(ack(1 + step * 1000, 1).data(1000));
        for segment in host.drain() {
            let end = segment.ack + (u32::from(segment.window) << host.shift);
            assert!(end >= edge, "RFC 9293 section 3.8.6 (SHLD-14)");
            edge = end;
        }
    }
}

#[test]
fn only_whole_segments_go_into_a_window_that_has_no_room_for_all() {
    let (mut host, id) = Host::with_window(2500);
    host.send(id, 5000);
    host.expect_data(1, 1000);
    host.expect_data(1001, 1000);
    host.expect_nothing();
}

#[test]
fn data_behind_the_window_is_not_taken() {
    let (mut host, id) = Host::established();
    host.receive(ack(200_000, 1).data(10));
    host.expect_ack(1);
    assert!(host.read(id).is_empty());
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::PSH, 1, 0).data(10));
    host.expect_nothing();
    assert!(host.read(id).is_empty());
}

#[test]
fn a_window_that_the_other_end_shrinks_is_kept_and_what_is_beyond_it_is_not_given_up() {
    let (mut host, id) = Host::with_window(5000);
    host.send(id, 8000);
    assert_eq!(host.drain().len(), 5);
    host.receive(ack(1, 1001).window(1000));
    assert_eq!(host.stack.unacknowledged(id), 7000);
    host.expect_nothing(); // SHLD-15: nothing new
    host.receive(ack(1, 2001).window(0));
    host.expect_nothing();
    // MUST-34, SHLD-16: what is behind the new edge comes again when its time is over, and probes the window.
    host.wait_ms(2000);
    let again = host.drain();
    assert!(!again.is_empty());
    assert!(again.iter().all(|segment| segment.seq + segment.data.len() as u32 <= 3001));
    // SHLD-17: the other end answers without taking anything. That is no reason to end the connection.
    for _ in 0..60 {
        host.wait_ms(120_000);
        host.drain();
        host.receive(ack(1, 2001).window(0));
    }
    host.expect_state(id, sockshim_tcpip::tcp::State::Established);
    host.drain();
    host.receive(ack(1, 2001).window(6000));
    host.wait_ms(1000);
    host.receive(ack(1, 5001).window(6000));
    host.wait_ms(200);
    host.drain();
    host.receive(ack(1, 8001).window(6000));
    assert_eq!(host.stack.unacknowledged(id), 0);
}

#[test]
fn the_other_ends_push_is_not_waited_for() {
    let (mut host, id) = Host::established();
    for seq in [1, 11] {
        host.receive(ack(seq, 1).data(10)); // MAY-17: what is there can be read
        assert_eq!(host.read(id).len(), 10);
    }
}

#[test]
fn writes_that_wait_are_put_together_and_pushed_once() {
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.expect_data(1, 10);
    for _ in 0..30 {
        host.send(id, 50); // Nagle holds these back
    }
    host.receive(ack(1, 11));
    let sent = host.drain();
    let shapes: Vec<_> =
        sent.iter().map(|segment| (segment.data.len(), segment.flags.contains(Flags::PSH))).collect();
    assert_eq!(shapes, [(1000, true), (500, true)], "SHLD-27, MUST-60 and 61: each ends a write");
}

/// What the next acknowledgement says, in the other end's numbers.
#[track_caller]
fn expect_report(host: &mut Host, ack: u32, blocks: &[(u32, u32)]) {
    let answer = host.expect_ack(ack);
    let irs = sockshim_tcpip::seq::SeqNumber::new(crate::util::IRS);
    let reported: Vec<(u32, u32)> = answer
        .options
        .sack
        .as_slice()
        .iter()
        .map(|&(start, end)| (start.since(irs), end.since(irs)))
        .collect();
    assert_eq!(reported, blocks);
}

/// Segments from the first to behind the last byte arrive.
fn arrive(host: &mut Host, segments: &[(u32, u32)]) {
    for &(start, end) in segments {
        host.receive(ack(start, 1).data((end - start) as usize));
    }
    host.drain();
}

#[test]
fn what_overlaps_is_reported_as_a_duplicate_in_the_part_that_was_there() {
    type Ranges<'a> = &'a [(u32, u32)];
    // What is there, what comes, and RCV.NXT and the blocks of the answer (RFC 2883 section 4).
    let cases: [(Ranges<'_>, (u32, u32), u32, Ranges<'_>); 8] = [
        (&[(1001, 2001)], (501, 1501), 1, &[(1001, 1501), (501, 2001)]),
        (&[(1001, 2001)], (1501, 2501), 1, &[(1501, 2001), (1001, 2501)]),
        (&[(1001, 2001)], (501, 2501), 1, &[(1001, 2001), (501, 2501)]),
        (&[(1001, 2001)], (1, 2501), 2501, &[(1001, 2001)]),
        (&[(1001, 3001), (4001, 5001), (7001, 8001)], (1, 6001), 6001, &[(1001, 3001), (7001, 8001)]),
        (&[(1001, 2001)], (1, 1501), 2001, &[(1001, 1501)]),
        (&[(1, 2501)], (2001, 3001), 3001, &[(2001, 2501)]),
        (&[(1, 501), (1001, 2001)], (1, 1501), 2001, &[(1, 501)]),
    ];
    for (there, (start, end), next, blocks) in cases {
        let (mut host, _) = Host::established();
        arrive(&mut host, there);
        host.receive(ack(start, 1).data((end - start) as usize));
        expect_report(&mut host, next, blocks);
        // It is said once.
        host.receive(ack(9001, 1).data(10));
        let irs = sockshim_tcpip::seq::SeqNumber::new(crate::util::IRS);
        let first = host.expect_ack(next).options.sack.as_slice()[0];
        assert_eq!((first.0.since(irs), first.1.since(irs)), (9001, 9011));
    }
}

#[test]
fn a_duplicate_out_of_order_is_followed_by_the_block_that_contains_it() {
    let (mut host, _) = Host::established();
    arrive(&mut host, &[(200, 300), (400, 500), (600, 700)]);
    host.receive(ack(200, 1).data(75));
    // RFC 2883 section 4: else nobody could tell the first block from one that is new.
    expect_report(&mut host, 1, &[(200, 275), (200, 300), (600, 700), (400, 500)]);
}

#[test]
fn a_sender_recognises_each_report_of_a_duplicate() {
    let (mut host, id) = Host::established();
    host.send(id, 8000);
    host.drain();
    host.wait_ms(50);
    for (una, blocks) in [(1, [(2001, 2501), (2001, 3001)]), (4001, [(3001, 3501), (5001, 6001)])] {
        let before = host.info(id).dsack_dups;
        let segment = ack(1, una).sack(&host, &blocks);
        host.receive(segment);
        assert_eq!(host.info(id).dsack_dups, before + 1);
    }
}

#[test]
fn peeking_takes_nothing() {
    let (mut host, id) = Host::established();
    let mut data = [0; 8];
    assert_eq!(host.stack.peek(id, &mut data), Err(sockshim_tcpip::error::Error::WouldBlock));
    host.receive(ack(1, 1).data(20));
    for _ in 0..2 {
        assert_eq!(host.stack.peek(id, &mut data), Ok(8));
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
    assert_eq!(host.read(id).len(), 20);
    host.receive(seg(Flags::FIN | Flags::ACK, 21, 1));
    assert_eq!(host.stack.peek(id, &mut data), Ok(0));
}
