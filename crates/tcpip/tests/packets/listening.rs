//! Listeners, their queues, and cookies.

use std::net::SocketAddr;
use std::time::Duration;

use crate::util::{Host, MSS, Seg, THEM, ack, seg, syn_options};
use sockshim_tcpip::error::Error;
use sockshim_tcpip::stack::Event;
use sockshim_tcpip::wire::tcp::{Flags, Options, Timestamps};

fn syn() -> Seg {
    Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) }
}

fn from(host: &mut Host, port: u16) {
    host.remote = SocketAddr::new(THEM, port);
}

#[test]
fn a_handshake_makes_a_connection_that_waits_for_accept() {
    let mut host = Host::new();
    let listener = host.listen(1);
    host.receive(syn());
    assert_eq!(host.stack.handshake_count(), 1);
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!((answer.ack, answer.options.mss), (1, Some(MSS)));
    assert_eq!(host.stack.accept(host.now, listener).unwrap_err(), Error::WouldBlock);
    host.receive(ack(1, 1).data(5));
    assert_eq!((host.stack.handshake_count(), host.stack.connection_count()), (0, 1));
    assert!(host.events.contains(&Event::Acceptable(listener)));
    let (id, remote) = host.stack.accept(host.now, listener).unwrap();
    assert_eq!(remote, host.remote);
    assert_eq!(host.read(id).len(), 5, "data that came with the last segment of the handshake");
}

#[test]
fn the_answer_is_sent_again_after_one_and_two_seconds_and_then_given_up() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait_ms(1010);
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait_ms(1000);
    host.expect_nothing();
    host.wait_ms(1010);
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.wait(Duration::from_secs(100));
    assert_eq!(host.stack.handshake_count(), 0);
}

#[test]
fn a_syn_that_comes_again_is_answered_again_but_not_without_limit() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(syn());
    host.drain();
    for _ in 0..10 {
        host.receive(syn());
    }
    assert_eq!(host.drain().len(), 1);
    assert_eq!(host.stack.handshake_count(), 1);
}

#[test]
fn a_wrong_acknowledgement_is_reset_and_the_right_one_still_counts() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(syn());
    host.drain();
    host.receive(ack(1, 5));
    assert_eq!(host.expect_reset().seq, 5);
    host.receive(ack(1, 1));
    assert_eq!(host.stack.connection_count(), 1);
}

#[test]
fn a_reset_ends_the_handshake_and_returns_to_listening() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(syn());
    host.drain();
    host.receive(seg(Flags::RST, 1, 0));
    assert_eq!(host.stack.handshake_count(), 0);
    host.expect_nothing();
}

#[test]
fn an_acknowledgement_to_a_listener_is_reset_and_a_reset_is_ignored() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(seg(Flags::RST, 1, 0));
    host.expect_nothing();
    host.receive(ack(1, 77));
    assert_eq!(host.expect_reset().seq, 77);
}

#[test]
fn a_full_queue_takes_no_more_and_the_other_end_tries_again() {
    let mut host = Host::new();
    let listener = host.listen(1);
    for port in [1000, 1001] {
        from(&mut host, port);
        host.receive(syn());
        host.drain();
        host.receive(ack(1, 1));
    }
    from(&mut host, 1002);
    host.receive(syn());
    host.expect_nothing();
    assert_eq!(host.stack.counters().listen_overflows, 1);
    host.stack.accept(host.now, listener).unwrap();
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
}

#[test]
fn when_handshakes_are_too_many_cookies_take_their_place() {
    let mut host = Host::with(|config| config.tcp.max_syn_backlog = 10);
    let listener = host.listen(1000);
    for port in 1000..1100 {
        from(&mut host, port);
        host.receive(syn());
    }
    assert_eq!(host.stack.handshake_count(), 10, "the cap holds");
    assert_eq!(host.drain().len(), 100, "and all are answered");
    // One of those that were not remembered.
    from(&mut host, 1099);
    host.receive(Seg {
        options: Options {
            window_scale: Some(7),
            timestamps: Some(Timestamps { value: 5, echo: 0 }),
            ..syn_options()
        },
        ..seg(Flags::SYN, 0, 0)
    });
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    let echo = answer.options.timestamps.unwrap().value;
    host.receive(ack(1, 1).stamps(6, echo).window(10));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    host.send(id, 2000);
    let first = host.expect_data(1, 536 - 12);
    assert!(first.options.timestamps.is_some(), "timestamps were remembered, and 10 << 7 bytes of window");
    assert_eq!(host.stack.counters().syncookies_recv, 1);
}

#[test]
fn a_made_up_cookie_is_reset() {
    let mut host = Host::with(|config| config.tcp.max_syn_backlog = 0);
    host.listen(1000);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1000));
    host.expect_reset();
    assert_eq!(host.stack.counters().syncookies_failed, 1);
}

#[test]
fn closing_a_listener_resets_what_nobody_accepted() {
    let mut host = Host::new();
    let listener = host.listen(5);
    host.receive(syn());
    host.drain();
    host.receive(ack(1, 1));
    host.call(|stack, now| stack.close_listener(now, listener));
    host.expect_reset();
    assert_eq!(host.stack.connection_count(), 0);
    host.receive(syn());
    host.expect_reset();
}

fn crowded() -> (Host, sockshim_tcpip::stack::ListenerId) {
    let mut host = Host::new();
    let listener = host.listen(1);
    for port in [1000, 1001] {
        from(&mut host, port);
        host.receive(syn());
        host.expect_flags(Flags::SYN | Flags::ACK);
    }
    from(&mut host, 1002);
    (host, listener)
}

#[test]
fn a_cookie_promises_only_what_it_can_remember() {
    let asking = Flags::SYN | Flags::ECE | Flags::CWR;
    let options = Options { window_scale: Some(7), ..syn_options() };
    // Without timestamps there is room for the segment size only, as in Linux.
    let (mut host, listener) = crowded();
    host.receive(Seg { options, ..seg(asking, 0, 0) });
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!(answer.options, Options { mss: Some(MSS), ..Options::default() });
    host.receive(ack(1, 1).window(256));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    let info = host.info(id);
    assert_eq!((info.options & 15, info.snd_wscale, info.rcv_wscale), (0, 0, 0));
    host.receive(ack(2001, 1).data(10));
    let answer = host.expect_ack(1);
    assert!(answer.options.sack.is_empty());
    assert!(answer.window > 10_000);
    // With them all of it is remembered.
    let (mut host, listener) = crowded();
    let stamps = Some(Timestamps { value: 5, echo: 0 });
    host.receive(Seg { options: Options { timestamps: stamps, ..options }, ..seg(asking, 0, 0) });
    let answer = host.expect_flags(Flags::SYN | Flags::ACK | Flags::ECE);
    assert!(answer.options.sack_permitted && answer.options.window_scale.is_some());
    let echo = answer.options.timestamps.unwrap().value;
    host.receive(ack(1, 1).window(256).stamps(6, echo));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    let info = host.info(id);
    assert_eq!((info.options & 15, info.snd_wscale), (15, 7), "timestamps, SACK, window scale, ECN");
}

#[test]
fn the_first_segment_after_a_cookie_may_carry_data_and_the_end() {
    let (mut host, listener) = crowded();
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(seg(Flags::FIN | Flags::ACK, 1, 1).data(10));
    let (id, _) = host.stack.accept(host.now, listener).expect("a connection");
    assert_eq!(host.read(id).len(), 10);
    assert_eq!(host.call(|stack, now| stack.recv(now, id, &mut [0; 9])), Ok(0));
    host.expect_state(id, sockshim_tcpip::tcp::State::CloseWait);
    host.wait_ms(250);
    host.expect_ack(12);
}

#[test]
fn handshakes_end_with_their_listener() {
    let mut host = Host::with(|config| config.tcp.max_syn_backlog = 2);
    host.stack.listen(SocketAddr::new(crate::util::US, 443), 8, None).unwrap();
    let listener = host.listen(8);
    for port in [1000, 1001] {
        from(&mut host, port);
        host.receive(syn());
        host.expect_flags(Flags::SYN | Flags::ACK);
    }
    host.call(|stack, now| stack.close_listener(now, listener));
    assert_eq!(host.stack.handshake_count(), 0);
    host.expect_nothing();
    host.receive(syn());
    host.expect_reset();
    host.receive(ack(1, 1));
    host.expect_reset();
    host.wait(Duration::from_secs(10));
    host.expect_nothing();
    // They take no room from others.
    host.local_port = 443;
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!((host.stack.handshake_count(), host.stack.counters().syncookies_sent), (1, 0));
}

#[test]
fn a_listener_that_defers_has_no_connection_before_there_is_data() {
    let mut host = Host::new();
    let listener = host.listen(1);
    host.stack.set_listener_options(listener, |options| options.defer_accept = 3).unwrap();
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1));
    assert_eq!(host.stack.accept(host.now, listener).unwrap_err(), Error::WouldBlock);
    // It is there, so it is not asked again.
    host.wait_ms(2000);
    host.expect_nothing();
    host.receive(ack(1, 1).data(5));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    assert_eq!(host.read(id).len(), 5);
    host.drain();

    // When the time is over an acknowledgement is enough, and it is asked for.
    host.remote.set_port(1000);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1));
    host.wait_ms(6900);
    host.expect_nothing();
    host.wait_ms(200);
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1));
    host.stack.accept(host.now, listener).unwrap();

    // Nor is there one for somebody who is gone.
    host.remote.set_port(1001);
    host.receive(syn());
    host.receive(ack(1, 1));
    host.wait(Duration::from_secs(200));
    assert_eq!(host.stack.handshake_count(), 0);
}
