//! Connections begin.

use std::time::Duration;

use crate::util::{Host, IRS, MSS, Seg, ack, seg, syn_options};
use sockshim_tcpip::stack::Event;
use sockshim_tcpip::tcp::State;
use sockshim_tcpip::wire::tcp::Flags;

#[test]
fn connect_sends_a_syn_with_all_options_and_acknowledges_the_answer() {
    let mut host = Host::new();
    let (id, syn) = host.connect();
    assert_eq!(syn.options.mss, Some(MSS));
    assert!(
        syn.options.sack_permitted && syn.options.timestamps.is_some() && syn.options.window_scale.is_some()
    );
    host.expect_state(id, State::SynSent);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) });
    let answer = host.expect_ack(1);
    assert_eq!(answer.options.timestamps, None, "the other end has none");
    host.expect_state(id, State::Established);
    assert!(host.events.contains(&Event::Connected(id)));
}

#[test]
fn both_ends_may_begin_at_once() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.expect_state(id, State::SynReceived);
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!((answer.seq, answer.ack), (0, 1));
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) });
    host.expect_state(id, State::Established);
    host.expect_ack(1);
    host.send(id, 10);
    host.expect_data(1, 10);
}

#[test]
fn both_ends_may_begin_at_once_and_acknowledge_without_syn() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1));
    host.expect_state(id, State::Established);
}

#[test]
fn a_wrong_acknowledgement_of_the_syn_is_reset_and_the_attempt_goes_on() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(seg(Flags::SYN | Flags::ACK, 0, 2));
    assert_eq!(host.expect_reset().seq, 2);
    host.receive(seg(Flags::ACK, 0, 0));
    host.expect_reset();
    host.expect_state(id, State::SynSent);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) });
    host.expect_state(id, State::Established);
}

#[test]
fn a_reset_with_acknowledgement_refuses_and_one_without_is_ignored() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(seg(Flags::RST, 0, 0));
    host.expect_state(id, State::SynSent);
    host.receive(seg(Flags::RST | Flags::ACK, 0, 1));
    host.expect_state(id, State::Closed);
    assert_eq!(host.failure(id), Some(111));
    host.expect_nothing();
}

#[test]
fn a_syn_is_sent_again_after_one_two_and_four_seconds() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    for seconds in [1, 2, 4] {
        host.wait(Duration::from_secs(seconds) - Duration::from_millis(1));
        host.expect_nothing();
        host.wait_ms(2);
        assert_eq!(host.expect_flags(Flags::SYN).seq, 0);
        host.now = host.now - Duration::from_millis(1);
    }
    host.wait(Duration::from_secs(200));
    assert_eq!(host.failure(id), Some(110), "RFC 9293 section 3.8.3: and at last it is given up");
}

#[test]
fn data_in_the_answer_is_not_taken_but_comes_again() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1).data(5) });
    host.expect_ack(1);
    host.receive(ack(1, 1).data(5));
    assert_eq!(host.read(id).len(), 5);
}

#[test]
fn without_an_mss_option_segments_have_536_bytes() {
    let mut host = Host::new();
    let (id, _) = host.connect();
    host.receive(seg(Flags::SYN | Flags::ACK, 0, 1));
    host.expect_ack(1);
    host.send(id, 1000);
    host.expect_data(1, 536);
}

#[test]
fn numbers_of_connections_are_not_predictable() {
    let mut host = Host::new();
    let first = {
        host.connect();
        host.iss
    };
    let second = {
        host.connect();
        host.iss
    };
    assert!(first.since(second).min(second.since(first)) > 1 << 16);
    let _ = IRS;
}

#[test]
fn the_answer_to_our_answer_is_reported_as_a_duplicate() {
    // Both began at once: the other end's number came with its SYN already, as Linux says.
    let mut host = Host::new();
    host.connect();
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) });
    host.expect_flags(Flags::SYN | Flags::ACK);
    let answer = Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) };
    host.receive(answer.clone());
    let irs = sockshim_tcpip::seq::SeqNumber::new(IRS);
    assert_eq!(host.expect_ack(1).options.sack.as_slice(), [(irs, irs + 1)]);
    host.wait_ms(1000);
    host.receive(answer);
    assert!(host.expect_ack(1).options.sack.is_empty(), "later it is challenged as any other SYN");
}

#[test]
fn the_last_acknowledgement_of_a_client_that_defers_waits_for_data() {
    for data in [true, false] {
        let mut host = Host::new();
        let mut socket = host.stack.socket_options();
        socket.defer_accept = 1;
        let options = sockshim_tcpip::stack::ConnectOptions { local: None, socket: Some(socket) };
        let id = host.stack.connect(host.now, host.remote, options).unwrap();
        host.local_port = host.stack.addresses(id).unwrap().0.port();
        host.expect_flags(Flags::SYN);
        host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) });
        host.expect_nothing();
        if data {
            host.send(id, 10);
            assert_eq!(host.expect_data(1, 10).ack, 1);
            host.wait_ms(199);
            host.drain();
        } else {
            host.wait_ms(199);
            host.expect_nothing();
            host.wait_ms(2);
            host.expect_ack(1);
        }
    }
}
