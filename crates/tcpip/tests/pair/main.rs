//! Two stacks with a wire between them that can lose packets, in virtual time.

mod util;

use std::time::Duration;

use sockshim_tcpip::stack::Event;
use sockshim_tcpip::tcp::{How, SendFlags, State};
use util::Pair;

#[test]
fn data_goes_both_ways_and_both_ends_close() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.send(0, client, b"question");
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.receive(1, server), b"question");
    pair.send(1, server, b"answer");
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.receive(0, client), b"answer");
    pair.close(0, client);
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.hosts[1].stack.state(server), Some(State::CloseWait));
    pair.close(1, server);
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.hosts[0].stack.time_wait_count(), 1);
    pair.assert_no_connections();
    pair.run_for(Duration::from_secs(70));
    assert_eq!(pair.hosts[0].stack.time_wait_count(), 0);
}

#[test]
fn a_megabyte_arrives_intact() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.transfer(client, server, 1 << 20);
    assert!(pair.hosts[0].stack.counters().retrans_segs == 0);
}

#[test]
fn a_megabyte_arrives_intact_although_each_twentieth_packet_is_lost() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.lose_each(20);
    pair.transfer(client, server, 1 << 20);
    assert!(pair.hosts[0].stack.counters().retrans_segs > 0);
}

#[test]
fn without_sack_and_timestamps_it_arrives_as_well() {
    let mut pair = Pair::with(|config| {
        config.tcp.sack = false;
        config.tcp.timestamps = false;
        config.tcp.window_scaling = false;
    });
    let (client, server) = pair.connect();
    pair.lose_each(20);
    pair.transfer(client, server, 1 << 20);
}

#[test]
fn super_segments_arrive_intact() {
    let mut pair = Pair::with_gso(60_000);
    let (client, server) = pair.connect();
    pair.transfer(client, server, 4 << 20);
    assert!(pair.frames < 2000, "{} frames", pair.frames);
}

#[test]
fn nobody_listening_refuses() {
    let mut pair = Pair::new();
    let id = pair.start_connect(81);
    pair.run_for(Duration::from_millis(100));
    assert!(pair.hosts[0].events.iter().any(|event| matches!(event, Event::Failed(failed, error)
        if *failed == id && error.errno() == 111)));
    pair.close(0, id);
    pair.assert_no_connections();
}

#[test]
fn both_ends_may_close_at_once() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.close(0, client);
    pair.close(1, server);
    pair.run_for(Duration::from_secs(1));
    pair.assert_no_connections();
    assert_eq!((pair.hosts[0].stack.time_wait_count(), pair.hosts[1].stack.time_wait_count()), (1, 1));
}

#[test]
fn half_closed_the_other_direction_goes_on() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.hosts[0].stack.shutdown(pair.now, client, How::Write).unwrap();
    pair.run_for(Duration::from_millis(100));
    pair.send(1, server, b"still here");
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.receive(0, client), b"still here");
    pair.close(1, server);
    pair.run_for(Duration::from_millis(100));
    pair.close(0, client);
    pair.run_for(Duration::from_millis(100));
    pair.assert_no_connections();
}

#[test]
fn closing_with_unread_data_resets() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.send(0, client, b"unread");
    pair.run_for(Duration::from_millis(100));
    pair.close(1, server);
    pair.run_for(Duration::from_millis(100));
    assert!(
        pair.hosts[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::Failed(_, error) if error.errno() == 104))
    );
    pair.close(0, client);
    pair.assert_no_connections();
}

#[test]
fn a_slow_reader_closes_the_window_and_nothing_is_lost() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut sent = 0;
    let mut got = Vec::new();
    for _ in 0..4000 {
        sent += pair.hosts[0].stack.send(pair.now, client, &data[sent..]).unwrap_or(0);
        pair.run_for(Duration::from_millis(7));
        let mut piece = vec![0; 10_000];
        let count = pair.hosts[1].stack.recv(pair.now, server, &mut piece).unwrap_or(0);
        got.extend_from_slice(&piece[..count]);
        if got.len() == data.len() {
            break;
        }
    }
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    assert_eq!(pair.hosts[0].stack.counters().retrans_segs, 0);
}

#[test]
fn a_peer_that_vanished_from_the_link_is_unreachable() {
    let mut pair = Pair::new();
    let (client, _server) = pair.connect();
    pair.send(0, client, b"into the void");
    pair.lose_each(1);
    pair.run_for(Duration::from_secs(2000));
    // As in Linux, what neighbour discovery says wins over the time-out that it caused.
    assert!(
        pair.hosts[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::Failed(_, error) if error.errno() == 113))
    );
}

#[test]
fn urgent_data_overtakes_a_reader_that_is_late() {
    let mut pair = Pair::with_gso(65_535);
    let (client, server) = pair.connect();
    let urgent = SendFlags { urgent: true, ..SendFlags::default() };
    pair.send(0, client, &[b'a'; 5000]);
    assert_eq!(pair.hosts[0].stack.send_with(pair.now, client, b"bcd", urgent), Ok(3));
    pair.send(0, client, &[b'e'; 5000]);
    pair.run_for(Duration::from_millis(500));
    let told = pair.hosts[1].events.iter().filter(|event| **event == Event::Urgent(server)).count();
    assert_eq!(told, 1);
    assert_eq!(pair.hosts[1].stack.recv_urgent(server, false), Ok(Some(b'd')));
    let before = pair.receive(1, server);
    assert!(before.len() == 5002 && before.ends_with(b"abc"));
    assert!(pair.hosts[1].stack.at_mark(server));
    assert!(pair.receive(1, server) == [b'e'; 5000]);
}
