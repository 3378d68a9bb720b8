//! The urgent mechanism (RFC 9293 section 3.8.5), as Linux has it.

use crate::util::{Host, Seg, ack, seg, syn_options};
use sockshim_tcpip::error::Error;
use sockshim_tcpip::stack::{Event, SocketId};
use sockshim_tcpip::tcp::SendFlags;
use sockshim_tcpip::wire::tcp::{Flags, Options};

const URGENT: SendFlags = SendFlags { more: false, end_of_record: false, urgent: true };

fn send_urgent(host: &mut Host, id: SocketId, len: usize) {
    let data = vec![b'u'; len];
    assert_eq!(host.call(|stack, now| stack.send_with(now, id, &data, URGENT)), Ok(len));
}

/// Numbers, lengths and pointers of what left.
fn pointers(segments: &[Seg]) -> Vec<(u32, usize, Option<u16>)> {
    let pointer = |it: &Seg| it.flags.contains(Flags::URG).then_some(it.urgent);
    segments.iter().map(|it| (it.seq, it.data.len(), pointer(it))).collect()
}

/// How often the application was told, so far.
fn told(host: &Host, id: SocketId) -> usize {
    host.events.iter().filter(|event| **event == Event::Urgent(id)).count()
}

fn take(host: &mut Host, id: SocketId) -> Result<Option<u8>, Error> {
    host.stack.recv_urgent(id, false)
}

/// A piece of what [`Seg::data`] makes.
fn bytes(from: u8, to: u8) -> Vec<u8> {
    (from..to).collect()
}

fn keep_inline(host: &mut Host, id: SocketId) {
    host.call(|stack, now| stack.set_options(now, id, |options| options.oob_inline = true)).unwrap();
}

#[test]
fn the_pointer_names_the_byte_after_the_last_urgent_one() {
    let (mut host, id) = Host::established();
    send_urgent(&mut host, id, 3);
    let segment = host.expect_flags(Flags::ACK | Flags::PSH | Flags::URG);
    assert_eq!((segment.seq, segment.data.len(), segment.urgent), (1, 3, 3));
    host.receive(ack(1, 4));
    host.send(id, 5);
    let segment = host.expect_flags(Flags::ACK | Flags::PSH);
    assert_eq!((segment.seq, segment.urgent), (4, 0), "the urgent data is acknowledged");
}

#[test]
fn each_segment_before_the_end_of_urgent_data_carries_its_own_pointer() {
    let (mut host, id) = Host::established();
    send_urgent(&mut host, id, 2500);
    host.send(id, 700);
    assert_eq!(
        pointers(&host.drain()),
        [(1, 1000, Some(2500)), (1001, 1000, Some(1500)), (2001, 500, Some(500)), (2501, 700, None)]
    );
}

#[test]
fn urgent_data_is_not_held_back() {
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.expect_data(1, 10);
    host.send(id, 10);
    host.expect_nothing();
    send_urgent(&mut host, id, 1);
    assert_eq!(pointers(&host.drain()), [(11, 11, Some(11))]);
}

#[test]
fn a_cork_does_not_hold_urgent_data_back() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.cork = true)).unwrap();
    host.send(id, 10);
    host.expect_nothing();
    send_urgent(&mut host, id, 1);
    assert_eq!(pointers(&host.drain()), [(1, 11, Some(11))]);
}

#[test]
fn a_retransmission_before_the_end_of_urgent_data_carries_the_pointer() {
    let (mut host, id) = Host::established();
    host.send(id, 1000);
    host.expect_data(1, 1000);
    send_urgent(&mut host, id, 10);
    host.expect_data(1001, 10);
    host.send(id, 20);
    host.expect_data(1011, 20);
    host.wait_ms(300);
    host.drain();
    host.wait_ms(300);
    assert_eq!(pointers(&host.drain()), [(1, 1000, Some(1010))]);
}

#[test]
fn an_acknowledgement_announces_urgent_data_that_has_no_room_in_the_window() {
    let (mut host, id) = Host::with_window(0);
    send_urgent(&mut host, id, 5);
    host.expect_nothing();
    host.receive(ack(1, 1).window(0).data(10));
    let segment = host.expect_flags(Flags::ACK | Flags::URG);
    assert_eq!((segment.seq, segment.ack, segment.urgent), (1, 11, 5));
}

#[test]
fn a_probe_of_a_closed_window_announces_urgent_data() {
    let (mut host, id) = Host::established();
    host.send(id, 1);
    host.expect_data(1, 1);
    host.receive(ack(1, 2).window(0));
    send_urgent(&mut host, id, 5);
    host.expect_nothing();
    host.wait_ms(300);
    // One with a number that counts, and one that must be answered.
    assert_eq!(pointers(&host.drain()), [(2, 0, Some(5)), (1, 0, Some(6))]);
    host.wait_ms(300);
    host.drain();
    host.receive(ack(1, 2));
    assert_eq!(pointers(&host.drain()), [(2, 5, Some(5))]);
}

#[test]
fn a_pointer_that_is_too_far_away_is_as_far_as_it_can_be() {
    let (mut host, id) = Host::established();
    let data = vec![b'u'; 70_000];
    let limit = 100_000;
    host.call(|stack, now| stack.set_options(now, id, |o| o.send_buffer = Some(limit))).unwrap();
    assert_eq!(host.call(|stack, now| stack.send_with(now, id, &data, URGENT)), Ok(70_000));
    let sent = pointers(&host.drain());
    assert_eq!(sent[0], (1, 1000, Some(65_535)));
    assert_eq!(sent[4], (4001, 1000, Some(65_535)));
    assert_eq!(sent[5], (5001, 1000, Some(65_000)));
}

#[test]
fn a_retransmission_from_long_before_urgent_data_does_not_call_what_followed_it_urgent() {
    let host = Host::with(|config| config.tcp.initial_window = 100);
    let (mut host, id) = host.accept_with(Options { window_scale: Some(2), ..syn_options() });
    host.send(id, 70_000);
    assert_eq!(host.drain().len(), 70);
    send_urgent(&mut host, id, 10);
    assert_eq!(pointers(&host.drain()), [(70_001, 10, Some(10))]);
    host.wait_ms(300);
    host.drain();
    host.wait_ms(300);
    assert_eq!(pointers(&host.drain()), [(1, 1000, None)]);
    host.receive(ack(1, 68_001));
    host.wait_ms(1000);
    assert!(pointers(&host.drain()).contains(&(68_001, 1000, Some(2010))));
}

#[test]
fn a_write_that_is_taken_in_part_is_urgent_up_to_there() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.send_buffer = Some(600))).unwrap();
    assert_eq!(host.call(|stack, now| stack.send_with(now, id, &[0; 900], URGENT)), Ok(600));
    assert_eq!(pointers(&host.drain()), [(1, 600, Some(600))]);
}

#[test]
fn the_urgent_byte_is_kept_out_of_the_stream_and_reads_stop_before_it() {
    let (mut host, id) = Host::established();
    assert_eq!(take(&mut host, id), Err(Error::Invalid), "there is none");
    host.receive(ack(1, 1).data(10).urgent(5));
    assert_eq!(told(&host, id), 1);
    let ready = host.stack.readiness(host.now, id).unwrap();
    assert!(ready.urgent && ready.readable);
    assert_eq!((host.stack.readable(id), host.stack.at_mark(id)), (4, false));
    assert_eq!(host.stack.recv_urgent(id, true), Ok(Some(5)));
    assert_eq!(take(&mut host, id), Ok(Some(5)));
    assert_eq!(take(&mut host, id), Err(Error::Invalid), "it was taken");
    assert!(!host.stack.readiness(host.now, id).unwrap().urgent);
    assert_eq!(host.read(id), bytes(1, 5));
    assert!(host.stack.at_mark(id));
    assert_eq!(host.read(id), bytes(6, 11));
    assert!(!host.stack.at_mark(id));
}

#[test]
fn an_urgent_byte_alone_is_nothing_to_read() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(1).urgent(1));
    assert!(host.stack.at_mark(id) && !host.stack.readiness(host.now, id).unwrap().readable);
    assert_eq!(host.call(|stack, now| stack.recv(now, id, &mut [0])), Err(Error::WouldBlock));
    assert!(!host.stack.at_mark(id));
    assert_eq!(take(&mut host, id), Err(Error::Invalid), "the application has read beyond it");
}

#[test]
fn in_the_stream_the_urgent_byte_is_read_like_others_and_the_mark_shows_it() {
    let (mut host, id) = Host::established();
    keep_inline(&mut host, id);
    host.receive(ack(1, 1).data(10).urgent(5));
    assert_eq!(told(&host, id), 1);
    assert_eq!((take(&mut host, id), host.stack.readable(id)), (Err(Error::Invalid), 10));
    assert_eq!(host.read(id), bytes(1, 5));
    assert!(host.stack.at_mark(id));
    assert_eq!(host.read(id), bytes(5, 11));
    assert!(!host.stack.at_mark(id));
}

#[test]
fn the_pointer_is_told_before_the_urgent_byte_has_arrived() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).urgent(5));
    assert_eq!((told(&host, id), host.stack.at_mark(id)), (1, false));
    assert_eq!(take(&mut host, id), Err(Error::WouldBlock));
    host.receive(ack(1, 1).data(4).urgent(5));
    assert_eq!((told(&host, id), take(&mut host, id)), (1, Err(Error::WouldBlock)));
    assert_eq!(host.read(id), bytes(1, 5));
    assert!(host.stack.at_mark(id), "the next byte to arrive is it");
    host.receive(ack(5, 1).data(2).urgent(1));
    assert_eq!((told(&host, id), take(&mut host, id)), (1, Ok(Some(5))));
    assert_eq!(host.read(id), bytes(6, 7));
}

#[test]
fn a_stream_that_ends_before_its_urgent_byte_has_none() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).urgent(5));
    host.receive(seg(Flags::ACK | Flags::FIN, 1, 1).data(2));
    assert_eq!(take(&mut host, id), Ok(None));
    assert_eq!(host.read(id), bytes(1, 3));
}

#[test]
fn the_application_is_told_of_each_pointer_that_advances_and_of_no_other() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(10).urgent(20));
    host.receive(ack(11, 1).data(5).urgent(10));
    assert_eq!(told(&host, id), 1, "the same place");
    host.receive(ack(16, 1).data(1).urgent(3));
    assert_eq!(told(&host, id), 1, "a place before it");
    host.receive(ack(17, 1).data(8).urgent(8));
    assert_eq!(told(&host, id), 2);
    // One byte at most is out of band; the one before it is part of the stream again.
    assert_eq!(take(&mut host, id), Ok(Some(24)));
    assert_eq!(host.read(id), bytes(1, 24));
    // What has arrived once is not urgent any more when it comes again.
    assert_eq!(host.read(id), []);
    host.receive(ack(17, 1).data(8).urgent(8));
    assert_eq!(told(&host, id), 2);
}

#[test]
fn an_urgent_byte_that_was_reached_does_not_return_when_the_next_one_comes() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(3).urgent(3));
    assert_eq!(host.read(id), bytes(1, 3));
    host.receive(ack(4, 1).data(3).urgent(3));
    assert_eq!(told(&host, id), 2);
    assert_eq!(host.read(id), bytes(4, 6));
    assert!(host.stack.at_mark(id));
}

#[test]
fn an_urgent_byte_counts_when_it_arrives_out_of_order() {
    let (mut host, id) = Host::established();
    host.receive(ack(5, 1).data(4).urgent(2));
    assert_eq!((told(&host, id), take(&mut host, id)), (1, Ok(Some(6))));
    host.receive(ack(1, 1).data(4));
    assert_eq!(host.read(id), bytes(1, 6));
    assert_eq!(host.read(id), bytes(7, 9));
}

#[test]
fn a_small_read_goes_beyond_the_mark_without_the_urgent_byte() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).data(4).urgent(2));
    for expected in [1, 3, 4] {
        let mut byte = [0];
        assert_eq!(host.call(|stack, now| stack.recv(now, id, &mut byte)), Ok(1));
        assert_eq!(byte, [expected]);
    }
}

#[test]
fn the_mark_outlives_the_connection() {
    let (mut host, id) = Host::established();
    host.receive(seg(Flags::ACK | Flags::FIN, 1, 1).data(4).urgent(2));
    host.call(|stack, now| stack.shutdown(now, id, sockshim_tcpip::tcp::How::Write)).unwrap();
    host.receive(ack(6, 2));
    assert!(host.events.contains(&Event::Closed(id)));
    assert_eq!(host.read(id), bytes(1, 2));
    assert_eq!(take(&mut host, id), Ok(Some(2)));
    assert_eq!(host.read(id), bytes(3, 5));
}
