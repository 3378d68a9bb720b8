//! What random scripts played to Linux found (tests/kernel): each behaviour by itself.

use sockshim_tcpip::stack::Event;
use sockshim_tcpip::tcp::State;
use sockshim_tcpip::wire::tcp::{Flags, Options, Timestamps};

use crate::util::{Host, Seg, ack, seg, syn_options};

fn stamps(value: u32, echo: u32) -> Option<Timestamps> {
    Some(Timestamps { value, echo })
}

#[test]
fn the_first_window_is_of_whole_segments_less_their_timestamps() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(Seg {
        options: Options { timestamps: stamps(1, 0), ..syn_options() },
        ..seg(Flags::SYN, 0, 0)
    });
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!(answer.window % 988, 0, "{}", answer.window);
}

#[test]
fn a_segment_without_ack_is_dropped_before_its_number_is_looked_at() {
    let (mut host, _) = Host::established();
    host.receive(seg(Flags::FIN, 500_000, 0));
    host.receive(seg(Flags::empty(), 0, 0));
    host.expect_nothing();
}

#[test]
fn without_sack_a_reset_behind_what_waits_is_challenged() {
    let (mut host, id) = Host::new().accept_with(Options { sack_permitted: false, ..syn_options() });
    host.receive(ack(1001, 1).data(1000));
    host.expect_ack(1);
    host.receive(seg(Flags::RST | Flags::ACK, 2001, 1));
    host.expect_ack(1);
    host.expect_state(id, State::Established);
}

#[test]
fn a_fin_alone_waits_for_the_congestion_window_and_can_be_a_tail_probe() {
    let (mut host, id) = Host::established();
    host.send(id, 10_000);
    assert_eq!(host.drain().len(), 10);
    host.call(|stack, now| stack.close(now, id));
    host.expect_nothing();
    host.wait_ms(150); // two round trips
    let probe = host.expect_flags(Flags::FIN | Flags::ACK);
    assert_eq!(probe.seq, 10_001);
}

#[test]
fn bytes_on_both_sides_of_the_end_of_the_stream_reset_it() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::FIN | Flags::ACK, 1, 1));
    host.wait_ms(50);
    host.drain();
    host.expect_state(id, State::CloseWait);
    host.receive(ack(1, 1).data(100));
    host.expect_reset();
    host.expect_state(id, State::Closed);
}

#[test]
fn a_duplicate_is_not_reported_with_the_end_of_the_stream() {
    let (mut host, _) = Host::established();
    host.receive(ack(1, 1).data(100));
    host.drain();
    host.receive(Seg { flags: Flags::FIN | Flags::ACK, ..ack(51, 1).data(100) });
    host.wait_ms(50);
    let answer = host.drain().pop().expect("an acknowledgement");
    assert_eq!((answer.ack, answer.options.sack.as_slice().len()), (152, 0));
}

#[test]
fn a_duplicate_is_reported_with_its_fin() {
    let (mut host, _) = Host::established();
    host.receive(ack(1, 1).data(100));
    host.drain();
    host.receive(Seg { flags: Flags::FIN | Flags::ACK, ..ack(1, 1).data(99) });
    let answer = host.expect_ack(101);
    let block = answer.options.sack.as_slice()[0];
    assert_eq!(block.1.since(block.0), 100, "99 bytes and the FIN");
}

#[test]
fn in_time_wait_what_takes_up_numbers_is_answered_each_time() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.drain();
    host.receive(seg(Flags::FIN | Flags::ACK, 1, 2));
    host.expect_ack(2);
    for _ in 0..3 {
        host.receive(seg(Flags::FIN | Flags::ACK, 2, 2));
        host.expect_ack(2);
    }
}

#[test]
fn an_acknowledgement_that_is_nearly_due_is_not_put_off() {
    // An application that answers: acknowledgements wait for its answers.
    let waiting = || {
        let (mut host, id) = Host::established();
        host.receive(ack(1, 1).data(100));
        host.send(id, 10);
        host.drain();
        host.wait_ms(10);
        host.receive(ack(101, 11).data(100));
        host.expect_nothing();
        host
    };
    let mut host = waiting();
    let mut delay = 0;
    while host.drain().is_empty() {
        host.wait_ms(1);
        delay += 1;
    }
    let mut host = waiting();
    host.wait_ms(delay * 85 / 100);
    host.expect_nothing();
    host.receive(ack(201, 11).data(10));
    host.expect_ack(211);
}

#[test]
fn without_sack_more_duplicates_than_segments_say_how_much_is_reordered() {
    let (mut host, id) = Host::new().accept_with(Options { sack_permitted: false, ..syn_options() });
    host.send(id, 1000);
    host.drain();
    host.receive(ack(1, 1));
    let info = host.info(id);
    assert_eq!(info.reordering, 1);
}

#[test]
fn a_tail_probe_is_no_second_copy_in_flight() {
    let (mut host, id) = Host::established();
    host.send(id, 2000);
    assert_eq!(host.drain().len(), 2);
    host.wait_ms(150);
    host.expect_data(1001, 1000);
    let info = host.info(id);
    assert_eq!((info.unacked, info.retrans), (2, 0));
}

#[test]
fn a_reordering_timer_outlives_the_retransmission_of_the_first_segment() {
    let (mut host, id) = Host::established();
    host.send(id, 4000);
    host.wait_ms(30);
    host.send(id, 6000);
    assert_eq!(host.drain().len(), 10);
    // Sent 50 ms after those that are lost at once; its neighbours get a quarter of a round trip.
    host.wait_ms(50);
    host.receive(ack(1, 1).sack(&host, &[(9001, 10_001)]));
    assert!(!host.drain().is_empty());
    host.wait_ms(30);
    assert!(!host.drain().is_empty(), "what was sent with it is lost by now");
}

#[test]
fn a_window_probe_with_data_is_sent_again_as_any_data() {
    let (mut host, id) = Host::with_window(500);
    host.send(id, 3000);
    host.wait_ms(300);
    host.expect_data(1, 500);
    host.wait_ms(260);
    host.expect_data(1, 500);
}

#[test]
fn what_was_reported_and_is_missing_after_all_is_sent_again_a_moment_later() {
    let (mut host, id) = Host::established();
    host.send(id, 4000);
    host.drain();
    host.wait_ms(50);
    host.receive(ack(1, 1).sack(&host, &[(1001, 4001)]));
    host.drain();
    host.wait_ms(50);
    host.receive(ack(1, 1001)); // and not 4001
    host.expect_nothing();
    host.wait_ms(40); // half a round trip
    host.expect_data(1001, 1000);
}

#[test]
fn a_syn_comes_again_at_once_after_an_acknowledgement_of_something_else() {
    let mut host = Host::new();
    host.connect();
    host.receive(ack(1, 77));
    host.expect_reset();
    host.wait_ms(20);
    host.expect_flags(Flags::SYN);
}

#[test]
fn in_a_handshake_a_wrong_acknowledgement_is_reset_wherever_it_is() {
    let mut host = Host::new();
    host.listen(4);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.drain();
    host.receive(ack(500_000, 7));
    host.expect_reset();
    assert_eq!(host.stack.handshake_count(), 1);
    host.receive(ack(1, 1));
    host.expect_nothing();
    assert!(host.stack.handshake_count() == 0);
}

#[test]
fn a_handshake_is_not_completed_by_a_stamp_that_was_never_sent() {
    let mut host = Host::new();
    host.listen(4);
    host.receive(Seg {
        options: Options { timestamps: stamps(5, 0), ..syn_options() },
        ..seg(Flags::SYN, 0, 0)
    });
    let ours = host.expect_flags(Flags::SYN | Flags::ACK).options.timestamps.unwrap().value;
    host.wait_ms(10);
    host.receive(ack(1, 1).stamps(6, ours + 5));
    host.drain();
    assert_eq!(host.stack.handshake_count(), 1);
    host.receive(ack(1, 1).stamps(6, ours));
    assert_eq!(host.stack.handshake_count(), 0);
}

#[test]
fn a_stamp_one_tick_back_is_not_old() {
    let options = Options { timestamps: stamps(50, 0), ..syn_options() };
    let (mut host, id) = Host::new().accept_with(options);
    host.receive(ack(1, 1).data(10).stamps(100, 0));
    host.receive(ack(11, 1).data(10).stamps(99, 0));
    assert_eq!(host.read(id).len(), 20);
}

#[test]
fn an_old_acknowledgement_with_an_old_stamp_is_not_answered() {
    let options = Options { timestamps: stamps(50, 0), ..syn_options() };
    let (mut host, _) = Host::new().accept_with(options);
    host.receive(ack(1, 1).data(10).stamps(5000, 0));
    host.drain();
    host.receive(ack(1, 1).stamps(60, 0));
    host.expect_nothing();
}

#[test]
fn after_the_end_of_the_stream_reading_says_so_whatever_came_later() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::FIN | Flags::ACK, 1, 1));
    host.receive(seg(Flags::RST | Flags::ACK, 2, 1));
    assert!(host.events.iter().any(|event| matches!(event, Event::Failed(failed, _) if *failed == id)));
    let mut data = [0; 10];
    assert_eq!(host.call(|stack, now| stack.recv(now, id, &mut data)), Ok(0));
}

fn retransmissions(host: &mut Host) -> Vec<u32> {
    host.drain().iter().filter(|segment| !segment.data.is_empty()).map(|segment| segment.seq).collect()
}

#[test]
fn without_sack_a_time_out_that_was_for_nothing_sends_nothing_again() {
    let options = Options { timestamps: stamps(50, 0), sack_permitted: false, ..syn_options() };
    let (mut host, id) = Host::new().accept_with(options);
    host.send(id, 4 * 988);
    let first = host.drain()[0].options.timestamps.unwrap().value;
    host.wait_ms(260);
    assert_eq!(retransmissions(&mut host), [1]);
    host.receive(ack(1, 989).stamps(400, first));
    assert_eq!(retransmissions(&mut host), [] as [u32; 0]);
}

#[test]
fn a_mark_that_came_with_a_loss_is_not_undone() {
    let (mut host, id) = crate::ecn::established();
    host.send(id, 10_000);
    host.drain();
    host.wait_ms(50);
    let mut segment = ack(1, 1).sack(&host, &[(7001, 10_001)]);
    segment.flags |= Flags::ECE;
    host.receive(segment);
    host.wait_ms(20);
    let info = host.info(id);
    assert_eq!((info.ca_state, info.snd_ssthresh), (3, 7));
    assert!(!host.drain().is_empty());
    // All that was sent again came twice.
    for start in (0..6).map(|place| 1 + place * 1000) {
        host.receive(ack(1, 10_001).sack(&host, &[(start, start + 1000)]));
    }
    let info = host.info(id);
    assert_eq!(info.snd_ssthresh, 7);
}

#[test]
fn a_block_from_the_acknowledgement_on_is_none() {
    let (mut host, id) = Host::established();
    host.send(id, 4000);
    host.drain();
    host.receive(ack(1, 1001).sack(&host, &[(1001, 2001)]));
    let info = host.info(id);
    assert_eq!((info.unacked, info.sacked), (3, 0));
}

#[test]
fn only_an_acknowledgement_of_data_takes_from_those_that_do_not_wait() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(100));
    host.expect_ack(101);
    host.wait_ms(60);
    for round in 0..20_u32 {
        host.send(id, 1000);
        host.drain();
        host.receive(ack(101, 1001 + 1000 * round));
    }
    host.receive(ack(101, 20_001).data(100));
    host.expect_ack(201);
}

#[test]
fn a_window_that_only_rounding_took_back_does_not_change_our_number() {
    let (mut host, id) = Host::with_window(1000);
    host.send(id, 1000);
    host.drain();
    host.receive(ack(1, 1).data(10));
    host.expect_ack(11);
    host.receive(ack(11, 1).data(10).window(990));
    assert_eq!(host.expect_ack(21).seq, 1001);
}

#[test]
fn a_fin_alone_and_out_of_order_that_comes_again_is_reported_as_a_duplicate() {
    let (mut host, _) = Host::established();
    host.receive(seg(Flags::FIN | Flags::ACK, 101, 1));
    host.drain();
    host.receive(seg(Flags::FIN | Flags::ACK, 101, 1));
    let answer = host.drain().pop().expect("an acknowledgement");
    assert_eq!(answer.options.sack.as_slice().len(), 2);
}

#[test]
fn the_probes_of_a_closed_window_do_not_end_the_backoff_of_the_time_out() {
    let (mut host, id) = Host::with_window(500);
    host.send(id, 500);
    host.drain();
    host.wait_ms(260);
    host.expect_data(1, 500); // a tail probe
    host.wait_ms(260);
    host.expect_data(1, 500); // the time-out, which is doubled
    host.receive(ack(1, 501).window(500)); // which copy that was is not known
    host.send(id, 2000);
    host.wait_ms(600);
    host.expect_data(501, 500); // fills the window
    host.wait_ms(300);
    host.expect_nothing();
    host.wait_ms(250);
    host.expect_data(501, 500);
}

#[test]
fn a_stamp_from_before_the_first_answer_completes_no_handshake() {
    let mut host = Host::new();
    host.listen(4);
    let syn =
        || Seg { options: Options { timestamps: stamps(5, 0), ..syn_options() }, ..seg(Flags::SYN, 0, 0) };
    host.receive(syn());
    let ours = host.expect_flags(Flags::SYN | Flags::ACK).options.timestamps.unwrap().value;
    host.wait_ms(20);
    host.receive(syn());
    host.drain();
    host.receive(ack(1, 1).stamps(6, ours - 10));
    host.drain();
    assert_eq!(host.stack.handshake_count(), 1);
    host.receive(ack(1, 1).stamps(6, ours));
    assert_eq!(host.stack.handshake_count(), 0);
}

#[test]
fn in_a_handshake_a_reset_counts_by_its_number_whatever_it_acknowledges() {
    let mut host = Host::new();
    host.listen(4);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.drain();
    host.receive(seg(Flags::RST | Flags::ACK, 500, 700));
    host.expect_ack(1); // in the window, but not the next number
    assert_eq!(host.stack.handshake_count(), 1);
    host.receive(seg(Flags::RST | Flags::ACK, 1, 700));
    host.expect_nothing();
    assert_eq!(host.stack.handshake_count(), 0);
}

#[test]
fn a_syn_that_comes_again_puts_off_the_answer_that_the_timer_sends() {
    let mut host = Host::new();
    host.listen(4);
    let syn = || Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) };
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait_ms(800);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait_ms(900);
    host.expect_nothing();
    host.wait_ms(200);
    host.expect_flags(Flags::SYN | Flags::ACK);
}

#[test]
fn what_comes_before_a_fin_that_waits_is_acknowledged_at_once() {
    let (mut host, id) = Host::with_window(20_000);
    for seq in 0..20 {
        host.receive(ack(1 + seq * 10, 1).data(10)); // the first ones are acknowledged at once anyway
        host.drain();
        host.wait_ms(60);
        host.drain();
    }
    host.read(id);
    host.drain();
    host.receive(seg(Flags::FIN | Flags::ACK, 301, 1));
    host.drain();
    host.wait_ms(60);
    host.drain();
    host.receive(ack(201, 1).data(10));
    host.expect_ack(211);
}

#[test]
fn a_mark_counts_on_what_waits_already() {
    let mut host = Host::new();
    let listener = host.listen(4);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ECE | Flags::CWR, 0, 0) });
    host.drain();
    host.receive(ack(1, 1));
    host.drain();
    assert!(host.call(|stack, now| stack.accept(now, listener)).is_ok());
    host.receive(ack(101, 1).data(100));
    host.drain();
    host.class = 3;
    host.receive(ack(151, 1).data(10));
    let answer = host.drain().pop().expect("an acknowledgement");
    assert!(answer.flags.contains(Flags::ECE));
}

#[test]
fn data_that_was_to_be_expected_says_which_segment_told_the_window_last() {
    let (mut host, id) = Host::new().accept_with(Options { sack_permitted: false, ..syn_options() });
    host.send(id, 5000);
    host.drain();
    host.receive(ack(30_001, 1)); // its number is larger than those that follow
    host.receive(ack(1, 1).data(500));
    host.drain();
    for _ in 0..3 {
        host.receive(ack(501, 1)); // the first one is of a new segment, and no duplicate
    }
    assert_eq!(retransmissions(&mut host), [] as [u32; 0]);
    host.receive(ack(501, 1));
    assert_eq!(retransmissions(&mut host), [1]);
}

/// A connection whose application has answered, so that acknowledgements wait for what it says next.
fn answering() -> Host {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(10));
    host.drain();
    host.send(id, 10);
    host.drain();
    host
}

#[test]
fn data_that_waits_and_comes_again_does_not_end_the_delay_of_acknowledgements() {
    let mut host = answering();
    host.receive(ack(21, 11).data(100));
    host.receive(ack(31, 11).data(50)); // again
    host.receive(ack(11, 11).data(10)); // what was missing
    host.drain();
    host.receive(ack(121, 11).data(10));
    host.expect_nothing();
}

#[test]
fn a_duplicate_whose_report_was_delayed_is_not_reported_once_more_has_come() {
    let mut host = answering();
    host.receive(ack(6, 11).data(10)); // half of it again
    host.expect_nothing();
    host.receive(ack(26, 11).data(10));
    let answer = host.drain().pop().expect("an acknowledgement");
    assert_eq!(answer.options.sack.as_slice().len(), 1);
}

#[test]
fn a_duplicate_is_reported_by_the_acknowledgement_that_was_delayed() {
    let mut host = answering();
    host.receive(ack(6, 11).data(10));
    host.expect_nothing();
    host.wait_ms(60);
    let answer = host.drain().pop().expect("an acknowledgement");
    assert_eq!(answer.options.sack.as_slice().len(), 1);
}

#[test]
fn the_stamp_of_the_first_answer_completes_a_handshake_whatever_part_of_a_millisecond_it_left_at() {
    for offset in [0, 300, 600, 900] {
        let mut host = Host::new();
        host.listen(4);
        host.now += std::time::Duration::from_micros(offset);
        let syn = || Seg {
            options: Options { timestamps: stamps(5, 0), ..syn_options() },
            ..seg(Flags::SYN, 0, 0)
        };
        host.receive(syn());
        let first = host.expect_flags(Flags::SYN | Flags::ACK).options.timestamps.unwrap().value;
        host.now += std::time::Duration::from_micros(20_500); // or 21 ms, by their stamps
        host.receive(syn());
        host.drain();
        host.receive(ack(1, 1).stamps(6, first));
        assert_eq!(host.stack.handshake_count(), 0);
    }
}

#[test]
fn a_fin_behind_data_that_was_there_is_acknowledged_as_one_alone() {
    let (mut host, _) = Host::established();
    host.receive(ack(1, 1).data(10));
    host.expect_ack(11);
    host.receive(Seg { flags: Flags::FIN | Flags::ACK, ..ack(10, 1).data(1) });
    host.expect_nothing(); // the application will close soon
    host.wait_ms(60);
    host.expect_ack(12);
}

#[test]
fn a_window_lasts_through_a_pause_as_long_as_the_time_out_with_its_backoff() {
    let (mut host, id) = Host::new().accept_with(Options { timestamps: None, ..syn_options() });
    host.send(id, 9000);
    host.drain();
    host.wait_ms(400); // a probe of the tail, and the time-out
    host.drain();
    host.receive(ack(1, 9001));
    let before = host.info(id).snd_cwnd;
    assert!(before > 10, "{before}");
    host.wait_ms(300); // nothing was measured since the time-out, which is twice as long now
    host.send(id, 1000);
    assert_eq!(host.info(id).snd_cwnd, before);
}

#[test]
fn blocks_of_an_acknowledgement_that_was_overtaken_do_not_make_the_window_grow() {
    let (mut host, id) = Host::established();
    host.send(id, 7000);
    host.drain();
    host.receive(ack(1, 1).sack(&host, &[(1001, 3001)]));
    host.receive(ack(1, 7001)); // the network reorders
    host.send(id, 12_000);
    host.drain();
    let before = host.info(id).snd_cwnd;
    host.receive(ack(1, 1).sack(&host, &[(8001, 10_001)]));
    assert_eq!(host.info(id).snd_cwnd, before);
    let sacked = host.info(id).sacked;
    assert_eq!(sacked, 2);
}

#[test]
fn time_outs_that_were_doubled_double_the_wait_between_probes_of_a_closed_window() {
    let (mut host, id) = Host::with_window(500);
    host.send(id, 500);
    host.drain();
    host.wait_ms(260);
    host.expect_data(1, 500); // a tail probe
    host.wait_ms(260);
    host.expect_data(1, 500); // the time-out, which is doubled
    host.receive(ack(1, 501).window(0)); // which copy that was is not known
    host.send(id, 2000);
    host.wait_ms(10);
    host.receive(ack(1, 501).window(0)); // it is there, so the time begins anew, doubled once more
    host.wait_ms(900);
    host.expect_nothing();
    host.wait_ms(200);
    host.expect_flags(Flags::ACK);
}

#[test]
fn the_last_segment_of_a_stream_is_acknowledged_later_also_when_it_covers_what_waits() {
    let (mut host, _) = Host::established();
    host.receive(ack(2, 1).data(100));
    host.expect_ack(1);
    host.receive(Seg { flags: Flags::FIN | Flags::ACK, ..ack(1, 1).data(300) });
    host.expect_nothing(); // the application will close soon
    host.wait_ms(60);
    host.expect_ack(302);
}

#[test]
fn when_both_ends_connect_the_time_out_is_that_of_the_syn() {
    let mut host = Host::new();
    host.connect();
    host.drain();
    host.wait_ms(600);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait_ms(450);
    host.expect_flags(Flags::SYN | Flags::ACK);
}
