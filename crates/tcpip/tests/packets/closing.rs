//! Connections end.

use std::time::Duration;

use crate::util::{Host, Seg, ack, seg, syn_options};
use sockshim_tcpip::tcp::{How, State};
use sockshim_tcpip::wire::tcp::Flags;

const FIN: Flags = Flags::FIN;
const ACK: Flags = Flags::ACK;

#[test]
fn closing_first_goes_through_both_fin_waits_to_time_wait() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.shutdown(now, id, How::Write)).unwrap();
    host.expect_flags(FIN | ACK);
    host.expect_state(id, State::FinWait1);
    host.receive(ack(1, 2));
    host.expect_state(id, State::FinWait2);
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    host.expect_state(id, State::Closed);
    assert_eq!(host.stack.time_wait_count(), 1);
    host.call(|stack, now| stack.close(now, id));
    assert_eq!(host.stack.connection_count(), 0);
    host.wait(Duration::from_secs(61));
    assert_eq!(host.stack.time_wait_count(), 0);
}

#[test]
fn both_closing_at_once_meet_in_closing() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(seg(FIN | ACK, 1, 1));
    host.expect_ack(2);
    host.expect_state(id, State::Closing);
    host.receive(ack(2, 2));
    assert_eq!((host.stack.connection_count(), host.stack.time_wait_count()), (0, 1));
}

#[test]
fn the_fin_may_acknowledge_ours() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    assert_eq!((host.stack.connection_count(), host.stack.time_wait_count()), (0, 1));
}

#[test]
fn closing_second_goes_through_close_wait_and_last_ack() {
    let (mut host, id) = Host::established();
    host.receive(seg(FIN | ACK, 1, 1));
    host.expect_state(id, State::CloseWait);
    host.wait_ms(250);
    host.expect_ack(2);
    assert_eq!(host.call(|stack, now| stack.recv(now, id, &mut [0; 9])), Ok(0));
    host.send(id, 10);
    host.expect_data(1, 10);
    host.call(|stack, now| stack.close(now, id));
    let fin = host.expect_flags(FIN | ACK);
    assert_eq!(fin.seq, 11);
    host.receive(ack(2, 12));
    assert_eq!((host.stack.connection_count(), host.stack.time_wait_count()), (0, 0));
}

#[test]
fn the_fin_travels_with_the_last_data() {
    let (mut host, id) = Host::with_window(500);
    host.send(id, 700);
    host.call(|stack, now| stack.close(now, id));
    host.expect_nothing();
    host.receive(ack(1, 1).window(5000));
    let last = host.expect_data(1, 700);
    assert_eq!(last.flags, FIN | ACK | Flags::PSH);
    host.receive(ack(1, 702));
    host.receive(seg(FIN | ACK, 1, 702));
    host.expect_ack(2);
}

#[test]
fn a_fin_out_of_order_counts_when_the_rest_has_come() {
    let (mut host, id) = Host::established();
    host.receive(seg(FIN | ACK, 101, 1).data(100));
    host.expect_ack(1);
    host.expect_state(id, State::Established);
    host.receive(ack(1, 1).data(100));
    host.expect_ack(202);
    host.expect_state(id, State::CloseWait);
    assert_eq!(host.read(id).len(), 200);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.wait_ms(1500);
    let again = host.drain();
    assert!(!again.is_empty() && again.iter().all(|segment| segment.flags == FIN | ACK && segment.seq == 1));
}

#[test]
fn an_orphan_waits_a_minute_for_the_other_fin() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(ack(1, 2));
    host.wait(Duration::from_secs(59));
    assert_eq!(host.stack.connection_count(), 1);
    host.wait(Duration::from_secs(2));
    assert_eq!(host.stack.connection_count(), 0);
}

#[test]
fn data_that_nobody_will_read_is_reset() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(ack(1, 2).data(10));
    host.expect_reset();
    assert_eq!(host.stack.connection_count(), 0);
}

#[test]
fn a_reset_of_ours_carries_a_timestamp() {
    let options = sockshim_tcpip::wire::tcp::Options {
        timestamps: Some(sockshim_tcpip::wire::tcp::Timestamps { value: 7, echo: 0 }),
        ..syn_options()
    };
    let (mut host, id) = Host::new().accept_with(options);
    host.call(|stack, now| stack.abort(now, id));
    let reset = host.expect_reset();
    assert_eq!(reset.options.timestamps.map(|stamps| stamps.echo), Some(7));
}

#[test]
fn data_for_a_closed_socket_is_answered_as_if_there_were_none() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(ack(1, 1).data(1));
    let reset = host.expect_flags(Flags::RST);
    assert_eq!((reset.seq, reset.ack), (1, 0));
    assert_eq!(host.stack.connection_count(), 0);
}

#[test]
fn a_fin_alone_is_acknowledged_at_once() {
    let (mut host, _) = Host::established();
    host.receive(seg(FIN | ACK, 1, 1));
    host.wait_ms(1);
    host.expect_ack(2);
}

#[test]
fn abort_resets() {
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.expect_data(1, 10);
    host.call(|stack, now| stack.abort(now, id));
    let reset = host.expect_reset();
    assert_eq!(reset.seq, 11);
    assert_eq!(host.stack.connection_count(), 0);
}

#[test]
fn in_time_wait_a_late_fin_is_acknowledged_and_the_wait_begins_anew() {
    let mut host = time_wait();
    host.wait(Duration::from_secs(50));
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    host.wait(Duration::from_secs(50));
    assert_eq!(host.stack.time_wait_count(), 1);
    host.wait(Duration::from_secs(11));
    assert_eq!(host.stack.time_wait_count(), 0);
}

#[test]
fn in_time_wait_a_later_syn_begins_a_new_connection() {
    let mut host = time_wait();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 100_000, 0) });
    let before = host.iss;
    let answer = host.expect_flags(Flags::SYN | ACK);
    assert_eq!(answer.ack, 100_001);
    let _ = before;
    assert_eq!(host.stack.time_wait_count(), 0);
}

#[test]
fn in_time_wait_an_old_syn_is_acknowledged_only() {
    let mut host = time_wait();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 1, 0) });
    host.expect_ack(2);
    assert_eq!(host.stack.time_wait_count(), 1);
}

#[test]
fn data_sent_before_closing_still_arrives() {
    let (mut host, id) = Host::established();
    host.send(id, 30_000);
    host.call(|stack, now| stack.close(now, id));
    let mut next = 1;
    let mut fin = false;
    while !fin {
        for segment in host.drain() {
            assert_eq!(segment.seq, next);
            next += segment.data.len() as u32;
            fin |= segment.flags.contains(FIN);
        }
        host.receive(ack(1, next));
    }
    assert_eq!(next, 30_001);
}

fn time_wait() -> Host {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    host.wait_ms(1000);
    assert_eq!(host.stack.time_wait_count(), 1);
    host
}

#[test]
fn connections_in_time_wait_are_capped() {
    let mut host = Host::with(|config| config.tcp.max_time_wait = 2);
    let listener = host.listen(16);
    for port in 1000..1003 {
        host.remote.set_port(port);
        let id = host.accept(listener, syn_options());
        host.call(|stack, now| stack.close(now, id));
        host.expect_flags(FIN | ACK);
        host.receive(seg(FIN | ACK, 1, 2));
        host.expect_ack(2);
    }
    assert_eq!(host.stack.time_wait_count(), 2);
    assert_eq!(host.stack.counters().tcp_time_wait_overflow, 1);
}

#[test]
fn a_fin_alone_out_of_order_is_acknowledged_at_once() {
    let irs = sockshim_tcpip::seq::SeqNumber::new(crate::util::IRS);
    for sack in [true, false] {
        let (mut host, id) = Host::with(|config| config.tcp.sack = sack).accept_with(syn_options());
        host.receive(seg(FIN | ACK, 101, 1));
        let answer = host.expect_ack(1);
        let blocks: &[_] = if sack { &[(irs + 101, irs + 102)] } else { &[] };
        assert_eq!(answer.options.sack.as_slice(), blocks);
        // What comes just before it makes one block with it.
        host.receive(ack(51, 1).data(50));
        let answer = host.expect_ack(1);
        let blocks: &[_] = if sack { &[(irs + 51, irs + 102)] } else { &[] };
        assert_eq!(answer.options.sack.as_slice(), blocks);
        // And the other way round.
        host.receive(seg(FIN | ACK, 101, 1));
        let answer = host.expect_ack(1);
        assert_eq!(answer.options.sack.as_slice().last(), blocks.last());
        host.expect_state(id, State::Established);
        host.receive(ack(1, 1).data(50));
        assert!(host.expect_ack(102).options.sack.is_empty());
        host.expect_state(id, State::CloseWait);
        assert_eq!(host.read(id).len(), 100);
    }
}

#[test]
fn a_fin_beyond_missing_data_resets_what_nobody_will_read() {
    for shutdown in [false, true] {
        let (mut host, id) = Host::established();
        if shutdown {
            host.call(|stack, now| stack.shutdown(now, id, How::Both)).unwrap();
        } else {
            host.call(|stack, now| stack.close(now, id));
        }
        host.expect_flags(FIN | ACK);
        host.receive(ack(1, 2));
        host.receive(seg(FIN | ACK, 101, 2));
        host.expect_reset();
        if !shutdown {
            assert_eq!(host.stack.connection_count(), 0);
        }
        host.receive(seg(FIN | ACK, 1, 2));
        host.expect_reset();
    }
    // One in its place is what is waited for.
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    assert_eq!(host.stack.time_wait_count(), 1);
}

#[test]
fn a_fin_at_the_edge_of_a_closed_window_is_acknowledged_at_once() {
    let (mut host, id) = Host::established();
    let mut seq = 1;
    let mut edge = 1000;
    while edge > seq {
        host.receive(ack(seq, 1).data((edge - seq).min(1000) as usize));
        seq += (edge - seq).min(1000);
        host.wait_ms(100);
        for segment in host.drain() {
            edge = segment.ack + (u32::from(segment.window) << host.shift);
        }
    }
    host.receive(seg(FIN | ACK, seq, 1));
    let answer = host.expect_ack(seq + 1);
    assert_eq!(answer.window, 0);
    host.expect_state(id, State::CloseWait);
}

#[test]
fn in_time_wait_a_later_syn_for_which_nobody_listens_is_acknowledged() {
    let mut host = Host::new();
    let listener = host.listen(1);
    let id = host.accept(listener, syn_options());
    host.call(|stack, now| stack.close(now, id));
    host.expect_flags(FIN | ACK);
    host.receive(seg(FIN | ACK, 1, 2));
    host.expect_ack(2);
    host.call(|stack, now| stack.close_listener(now, listener));
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 100_000, 0) });
    host.expect_ack(2);
    assert_eq!(host.stack.time_wait_count(), 1);
}

#[test]
fn a_closed_socket_that_does_not_linger_is_reset_instead_of_waiting_for_the_fin() {
    for late in [false, true] {
        let (mut host, id) = Host::established();
        let set =
            |options: &mut sockshim_tcpip::tcp::SocketOptions| options.fin_timeout = Some(Duration::ZERO);
        host.call(|stack, now| stack.set_options(now, id, set)).unwrap();
        host.call(|stack, now| stack.shutdown(now, id, How::Write)).unwrap();
        host.expect_flags(FIN | ACK);
        if late {
            host.receive(ack(1, 2));
            host.expect_state(id, State::FinWait2);
        }
        host.call(|stack, now| stack.close(now, id));
        if !late {
            host.expect_nothing();
            host.receive(ack(1, 2));
        }
        let reset = host.expect_reset();
        assert_eq!((reset.seq, reset.flags.contains(ACK)), (2, late));
        assert_eq!(host.stack.connection_count(), 0);
    }
}
