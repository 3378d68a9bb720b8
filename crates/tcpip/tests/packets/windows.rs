//! What each acknowledgement does to the congestion window, and what TCP_INFO says about waiting.

use crate::util::{Host, ack, syn_options};
use sockshim_tcpip::stack::SocketId;

/// A connection that has fifteen segments to send, of which the initial window took ten.
fn ten_of_fifteen(mut host: Host, id: SocketId) -> (Host, SocketId) {
    host.send(id, 15_000);
    assert_eq!(host.drain().len(), 10);
    host.wait_ms(50);
    (host, id)
}

#[test]
fn a_block_lets_one_new_segment_out_and_does_not_open_the_window() {
    let (host, id) = Host::established();
    let (mut host, id) = ten_of_fifteen(host, id);
    for end in [2001, 3001] {
        let segment = ack(1, 1).sack(&host, &[(1001, end)]);
        host.receive(segment);
        assert_eq!(host.drain().len(), 1, "limited transmit (RFC 3042)");
    }
    assert_eq!(host.info(id).snd_cwnd, 10);
}

#[test]
fn without_sack_what_duplicates_told_of_is_delivered_once() {
    let (host, id) = Host::with(|config| config.tcp.sack = false).accept_with(syn_options());
    let (mut host, id) = ten_of_fifteen(host, id);
    for _ in 0..2 {
        host.receive(ack(1, 1));
        assert_eq!(host.drain().len(), 1, "limited transmit (RFC 3042)");
    }
    // It was reordering: one of these three is news.
    host.receive(ack(1, 3001));
    let info = host.info(id);
    assert_eq!((info.delivered, info.snd_cwnd), (3, 11));
    assert_eq!(host.drain().len(), 2);
}

#[test]
fn the_reordering_timer_sends_one_segment() {
    let (host, id) = Host::established();
    let (mut host, id) = ten_of_fifteen(host, id);
    let segment = ack(1, 1).sack(&host, &[(7001, 8001)]);
    host.receive(segment);
    assert_eq!(host.drain().len(), 1, "limited transmit (RFC 3042)");
    host.wait_ms(20);
    let info = host.info(id);
    assert_eq!((info.ca_state, info.lost), (3, 7));
    host.expect_data(1, 1000);
    host.expect_nothing();
}

#[test]
fn waiting_for_the_other_ends_window_is_timed() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).window(0));
    host.send(id, 1000);
    host.wait_ms(100);
    host.receive(ack(1, 1));
    host.wait_ms(30);
    host.receive(ack(1, 1001));
    host.wait_ms(50);
    let info = host.info(id);
    assert_eq!((info.rwnd_limited, info.busy_time), (100_000, 130_000));
}

#[test]
fn data_that_never_came_is_counted_from_the_handshake() {
    let (mut host, id) = Host::established();
    host.wait_ms(1000);
    assert_eq!(host.info(id).last_data_recv, 1000);
}

#[test]
fn waiting_for_room_in_the_send_buffer_is_timed() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.send_buffer = Some(2000))).unwrap();
    assert_eq!(host.call(|stack, now| stack.send(now, id, &[b'd'; 5000])), Ok(2000));
    host.wait_ms(30);
    host.receive(ack(1, 2001));
    host.wait_ms(20);
    let info = host.info(id);
    assert_eq!((info.sndbuf_limited, info.busy_time), (30_000, 30_000));
}

#[test]
fn a_block_that_comes_after_the_reordering_timer_lets_nothing_more_out() {
    let (mut host, id) = Host::established();
    host.send(id, 15_000);
    assert_eq!(host.drain().len(), 10);
    host.wait_ms(50);
    let segment = ack(1, 1).sack(&host, &[(3001, 4001)]);
    host.receive(segment);
    assert_eq!(host.drain().len(), 1, "limited transmit (RFC 3042)");
    host.wait_ms(20);
    let info = host.info(id);
    assert_eq!((info.ca_state, info.lost, info.snd_ssthresh), (3, 3, 7));
    host.expect_data(1, 1000);
    // RFC 9937: one was delivered since, of which seven tenths are for sending, and one was sent.
    let segment = ack(1, 1).sack(&host, &[(2001, 4001)]);
    host.receive(segment);
    host.expect_nothing();
}
