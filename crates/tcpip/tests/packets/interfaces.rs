//! What TCP is to applications and to IP (RFC 9293 section 3.9).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::util::{Host, MSS, PORT, Seg, THEM, US, ack, seg, syn_options};
use sockshim_tcpip::error::Error;
use sockshim_tcpip::stack::{ConnectOptions, Event};
use sockshim_tcpip::tcp::State;
use sockshim_tcpip::wire::icmp4::code;
use sockshim_tcpip::wire::tcp::Flags;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALSO_US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn syn() -> Seg {
    Seg { options: syn_options(), ..seg(Flags::SYN, 0, 0) }
}

#[test]
fn listeners_of_one_port_at_several_addresses_do_not_disturb_each_other() {
    let mut host = Host::new();
    host.stack.net().add_address(host.link, ALSO_US, 24);
    let mut listeners = [(US, 4), (ANY, 4)].map(|(address, backlog)| {
        host.stack.listen(SocketAddr::new(address, PORT), backlog, None).expect("one for each address")
    });
    for address in [US, ANY] {
        let again = host.stack.listen(SocketAddr::new(address, PORT), 4, None);
        assert_eq!(again.unwrap_err(), Error::AddressInUse, "MUST-41: an error, and nothing happens");
    }
    let missing = host.stack.listen(SocketAddr::new(THEM, PORT), 4, None);
    assert_eq!(missing.unwrap_err(), Error::AddressNotAvailable);
    // MUST-43: the listener of the address, or else the one of any.
    for address in [US, ALSO_US] {
        host.receive_between(THEM, address, syn());
        host.expect_flags(Flags::SYN | Flags::ACK);
        host.receive_between(THEM, address, ack(1, 1));
        let (id, _) = host.stack.accept(host.now, listeners[0]).expect("a connection");
        assert_eq!(host.stack.addresses(id).unwrap().0, SocketAddr::new(address, PORT));
        assert!(host.stack.accept(host.now, listeners[1]).is_err());
        listeners.reverse();
    }
}

#[test]
fn a_port_can_be_listened_on_while_a_connection_from_it_is_begun() {
    let mut host = Host::new();
    host.remote = SocketAddr::new(THEM, 443);
    let options = ConnectOptions { local: Some(SocketAddr::new(US, PORT)), socket: None };
    let id = host.stack.connect(host.now, host.remote, options).unwrap();
    host.expect_flags(Flags::SYN);
    host.expect_state(id, State::SynSent);
    let iss = host.iss;
    let listener = host.listen(4); // MUST-42
    host.remote = SocketAddr::new(THEM, 5000);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    host.receive(ack(1, 1));
    host.stack.accept(host.now, listener).expect("a connection");
    host.expect_state(id, State::SynSent);
    (host.remote, host.iss) = (SocketAddr::new(THEM, 443), iss);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK, 0, 1) });
    host.expect_state(id, State::Established);
}

#[test]
fn a_group_is_no_other_end() {
    let groups = [[224, 0, 0, 1], [239, 1, 2, 3], [255, 255, 255, 255], [192, 0, 2, 255]];
    let groups = groups.map(|group| IpAddr::from(Ipv4Addr::from(group)));
    let mut host = Host::new();
    for group in groups {
        let result = host.stack.connect(host.now, SocketAddr::new(group, PORT), ConnectOptions::default());
        assert_eq!(result.unwrap_err(), Error::NetworkUnreachable, "MUST-46: {group}");
    }
    host.listen(4);
    for group in groups {
        host.receive_between(group, US, syn()); // MUST-57
        host.receive_between(THEM, group, syn()); // MUST-63
    }
    host.expect_nothing();
    assert_eq!(host.stack.handshake_count(), 0);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
}

#[test]
fn segments_carry_the_traffic_class_of_their_socket() {
    let class = |host: &Host| host.ip.expect("a segment has left").traffic_class;
    let mut host = Host::new();
    let listener = host.listen(4);
    host.stack.set_listener_options(listener, |options| options.traffic_class = 0xb8 | 3).unwrap();
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!(class(&host), 0xb8, "before there is a connection, and without the bits of ECN");
    host.receive(ack(1, 1));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    host.send(id, 10);
    host.expect_data(1, 10);
    assert_eq!(class(&host), 0xb8, "inherited");
    host.call(|stack, now| stack.set_options(now, id, |options| options.traffic_class = 0x28)).unwrap();
    host.receive(ack(1, 11).data(10));
    host.expect_ack(11);
    assert_eq!(class(&host), 0x28, "changed");
    host.wait_ms(10);

    let mut host = Host::new();
    let mut socket = host.stack.socket_options();
    socket.traffic_class = 0x10;
    host.remote = SocketAddr::new(THEM, PORT);
    let options = ConnectOptions { local: None, socket: Some(socket) };
    host.stack.connect(host.now, host.remote, options).unwrap();
    host.expect_flags(Flags::SYN);
    assert_eq!(class(&host), 0x10);
}

#[test]
fn the_time_to_live_is_what_the_administrator_says() {
    let mut host = Host::with(|config| config.tcp.hop_limit = 7);
    host.listen(1);
    host.receive(syn());
    host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!(host.ip.unwrap().ttl, 7);
    host.wait_ms(1); // and in a reset
    host.receive(ack(1, 77));
    host.expect_reset();
    assert_eq!(host.ip.unwrap().ttl, 7);
}

#[test]
fn an_icmp_error_ends_an_attempt_to_connect() {
    for (code, error) in [(code::NETWORK, 101), (code::HOST, 113), (code::PORT, 111), (code::PROTOCOL, 92)] {
        let mut host = Host::new();
        let (id, _) = host.connect();
        host.receive_icmp(code, 0, 77); // MUST-55: of which connection, and of a segment in flight
        host.expect_state(id, State::SynSent);
        host.receive_icmp(code, 0, 0);
        host.expect_state(id, State::Closed);
        assert_eq!(host.failure(id), Some(error), "MUST-54");
    }
}

#[test]
fn an_icmp_error_does_not_end_a_connection() {
    for code in [code::NETWORK, code::HOST, code::SOURCE_ROUTE, code::PORT, code::PROTOCOL] {
        let (mut host, id) = Host::established();
        host.send(id, 10);
        host.expect_data(1, 10);
        host.receive_icmp(code, 0, 1);
        host.expect_state(id, State::Established); // MUST-56; SHLD-26 would end it, Linux (RFC 5927) does not
        host.receive(ack(1, 11));
        assert!(!host.events.iter().any(|event| matches!(event, Event::Failed(..))));
    }
    // It is what is reported when the time is over.
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.receive_icmp(code::HOST, 0, 1);
    host.wait_ms(3_600_000);
    assert_eq!(host.failure(id), Some(113));
}

#[test]
fn a_path_that_became_narrower_gets_smaller_segments_at_once() {
    let (mut host, id) = Host::established();
    host.send(id, usize::from(MSS));
    host.expect_data(1, 1000);
    host.receive_icmp(code::FRAGMENTATION_NEEDED, 640, 5000);
    host.expect_nothing(); // not in flight: forged, or late
    host.receive_icmp(code::FRAGMENTATION_NEEDED, 640, 1);
    host.expect_data(1, 600);
    host.expect_data(601, 400);
}

#[test]
fn an_icmp_error_about_the_next_number_counts() {
    // Linux takes SND.NXT for one that is in flight.
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.receive_icmp(code::HOST, 0, 12);
    host.wait_ms(3_600_000);
    assert_eq!(host.failure(id), Some(110));
    let (mut host, id) = Host::established();
    host.send(id, 10);
    host.receive_icmp(code::HOST, 0, 11);
    host.wait_ms(3_600_000);
    assert_eq!(host.failure(id), Some(113));
}

#[test]
fn the_size_that_we_announce_is_that_of_the_link_and_not_of_the_path() {
    let (mut host, id) = Host::established();
    host.send(id, 1000);
    host.expect_data(1, 1000);
    host.receive_icmp(code::FRAGMENTATION_NEEDED, 640, 1);
    assert_eq!(host.drain().len(), 2);
    // The path is narrow from here to there: nothing is said about the way back.
    host.remote.set_port(5000);
    host.receive(syn());
    assert_eq!(host.expect_flags(Flags::SYN | Flags::ACK).options.mss, Some(MSS));
    host.receive(ack(1, 1));
    let (_, syn) = host.connect();
    assert_eq!(syn.options.mss, Some(MSS));
}

#[test]
fn of_a_segment_that_is_split_only_the_last_piece_is_pushed() {
    let (mut host, id) = Host::established();
    host.send(id, 1000);
    let whole = host.expect_data(1, 1000);
    assert!(whole.flags.contains(Flags::PSH));
    host.receive_icmp(code::FRAGMENTATION_NEEDED, 640, 1);
    assert_eq!(host.expect_data(1, 600).flags, Flags::ACK);
    assert_eq!(host.expect_data(601, 400).flags, Flags::ACK | Flags::PSH);
}
