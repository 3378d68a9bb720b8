//! Nothing happens for long.

use std::time::Duration;

use crate::util::{Host, ack};
use sockshim_tcpip::wire::tcp::Flags;

#[test]
fn a_closed_window_is_probed_with_growing_intervals_for_as_long_as_it_is_answered() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).window(0));
    host.send(id, 100);
    host.expect_nothing();
    let mut last = host.now;
    let mut gaps = Vec::new();
    for _ in 0..12 {
        while host.stack.poll_timeout().is_some() {
            host.wait_ms(10);
            let probes = host.drain();
            if let [probe] = &probes[..] {
                assert_eq!((probe.seq, probe.data.len(), probe.flags), (0, 0, Flags::ACK));
                break;
            }
            assert!(probes.is_empty(), "one probe at a time");
        }
        gaps.push((host.now - last).as_millis() as u64);
        last = host.now;
        host.receive(ack(1, 1).window(0));
    }
    assert!(gaps[0] >= 200 && gaps[1] >= gaps[0] * 3 / 2 && gaps[2] >= gaps[1] * 3 / 2, "{gaps:?}");
    host.receive(ack(1, 1).window(1000));
    host.expect_data(1, 100);
}

/// RFC 5681 section 4.1: a window says little after a pause.
#[test]
fn the_window_is_small_again_after_a_pause_and_not_while_the_other_end_keeps_its_own_closed() {
    for (pause, cwnd) in [(false, 20), (true, 10)] {
        let (mut host, id) = Host::established();
        host.send(id, 10_000);
        host.wait_ms(50);
        let sent: usize = host.drain().iter().map(|segment| segment.data.len()).sum();
        assert_eq!(sent, 10_000);
        host.receive(ack(1, 10_001).window(0));
        assert_eq!(host.info(id).snd_cwnd, 20);
        if pause {
            host.wait(Duration::from_secs(10));
        }
        host.send(id, 1000);
        host.wait(Duration::from_secs(10));
        assert!(host.drain().iter().all(|probe| probe.data.is_empty()));
        assert_eq!(host.info(id).snd_cwnd, cwnd);
        host.receive(ack(1, 10_001).window(30_000));
        assert_eq!(host.info(id).snd_cwnd, 10);
    }
}

#[test]
fn a_closed_window_that_nobody_answers_for_ends_the_connection() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).window(0));
    host.send(id, 100);
    host.wait(Duration::from_secs(3000));
    assert_eq!(host.failure(id), Some(110));
}

#[test]
fn unanswered_data_ends_the_connection_after_a_quarter_of_an_hour() {
    let (mut host, id) = Host::established();
    host.send(id, 100);
    host.wait(Duration::from_secs(600));
    assert_eq!(host.failure(id), None, "RFC 9293 section 3.8.3: at least 100 seconds");
    host.wait(Duration::from_secs(600));
    assert_eq!(host.failure(id), Some(110));
    assert!(host.drain().len() > 10);
}

#[test]
fn the_user_timeout_ends_it_sooner() {
    let (mut host, id) = Host::established();
    let timeout = Some(Duration::from_secs(5));
    host.call(|stack, now| stack.set_options(now, id, |options| options.user_timeout = timeout)).unwrap();
    host.send(id, 100);
    host.wait(Duration::from_secs(15));
    assert_eq!(host.failure(id), Some(110));
}

#[test]
fn keepalive_probes_after_two_hours_and_gives_up() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.keepalive = true)).unwrap();
    host.wait(Duration::from_secs(7199));
    host.expect_nothing();
    host.wait(Duration::from_secs(2));
    let probe = host.expect_flags(Flags::ACK);
    assert_eq!(
        (probe.seq, probe.data.len()),
        (0, 0),
        "a number that was acknowledged: RFC 9293 section 3.8.4"
    );
    host.receive(ack(1, 1));
    host.wait(Duration::from_secs(7199));
    host.expect_nothing();
    host.wait(Duration::from_secs(9 * 75 + 10));
    assert_eq!(host.drain().iter().filter(|segment| segment.flags == Flags::ACK).count(), 9);
    assert_eq!(host.failure(id), Some(110));
}

#[test]
fn an_idle_connection_needs_no_timer() {
    let (mut host, id) = Host::established();
    host.send(id, 100);
    host.drain();
    host.wait_ms(10);
    host.receive(ack(1, 101));
    host.wait(Duration::from_secs(10));
    let at = host.stack.poll_timeout();
    assert!(at.is_none(), "{at:?}");
    assert!(host.drain().is_empty());
}

#[test]
fn a_limited_rate_is_kept() {
    let (mut host, id) = Host::established();
    // 100 kB a second: a segment each ten milliseconds, once the first ten are out.
    host.call(|stack, now| stack.set_options(now, id, |options| options.max_pacing_rate = Some(100_000)))
        .unwrap();
    host.send(id, 60_000);
    let mut next = 1 + 1000 * host.drain().len() as u32;
    host.wait_ms(50);
    host.receive(ack(1, next));
    let begin = next;
    for _ in 0..20 {
        host.wait_ms(10);
        next += 1000 * host.drain().len() as u32;
        host.receive(ack(1, next));
    }
    let sent = (next - begin) / 1000;
    assert!((18..=24).contains(&sent), "{sent} segments in 200 ms");
}

/// Answers everything that is sent with a window of zero, for a day. Says after how long the connection was gone.
fn hold_the_window_closed(host: &mut Host, acked: u32) -> Option<Duration> {
    let begin = host.now;
    while host.now - begin < Duration::from_secs(24 * 3600) {
        if host.stack.connection_count() == 0 {
            return Some(host.now - begin);
        }
        host.wait_ms(100);
        if !host.drain().is_empty() && host.stack.connection_count() > 0 {
            host.receive(ack(1, acked).window(0));
        }
    }
    None
}

#[test]
fn a_closed_socket_does_not_wait_for_ever_at_a_closed_window() {
    let close = |host: &mut Host, id| host.call(|stack, now| stack.close(now, id));
    let ends: [fn(&mut Host, sockshim_tcpip::stack::SocketId) -> u32; 4] = [
        |host, id| {
            host.receive(ack(1, 1).window(0));
            host.send(id, 5000);
            1
        },
        // In LAST-ACK.
        |host, id| {
            host.receive(ack(1, 1).window(0));
            host.send(id, 5000);
            host.receive(crate::util::seg(Flags::FIN | Flags::ACK, 1, 1).window(0));
            host.wait_ms(250);
            host.drain();
            1
        },
        // After a part was acknowledged.
        |host, id| {
            host.receive(ack(1, 1).window(0));
            host.send(id, 5000);
            host.receive(ack(1, 1).window(2000));
            assert_eq!(host.drain().len(), 2);
            host.receive(ack(1, 1001).window(1000));
            host.drain();
            host.receive(ack(1, 2001).window(0));
            2001
        },
        // Nothing but the FIN is left.
        |host, _| {
            host.receive(ack(1, 1).window(0));
            1
        },
    ];
    for (case, prepare) in ends.into_iter().enumerate() {
        let (mut host, id) = Host::established();
        let acked = prepare(&mut host, id);
        close(&mut host, id);
        host.drain();
        let gone =
            hold_the_window_closed(&mut host, acked).unwrap_or_else(|| panic!("case {case} is still there"));
        assert!((100..600).contains(&gone.as_secs()), "case {case}: after {gone:?}");
        host.drain();
        host.receive(ack(1, acked).window(100));
        host.expect_reset();
    }
}

#[test]
fn an_open_socket_waits_at_a_closed_window_for_as_long_as_it_is_answered() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).window(0));
    host.send(id, 5000);
    host.call(|stack, now| stack.shutdown(now, id, sockshim_tcpip::tcp::How::Write)).unwrap();
    assert_eq!(hold_the_window_closed(&mut host, 1), None);
}

#[test]
fn probes_for_the_room_that_a_fin_needs_back_off() {
    let (mut host, id) = Host::established();
    host.receive(ack(1, 1).window(0));
    host.call(|stack, now| stack.shutdown(now, id, sockshim_tcpip::tcp::How::Write)).unwrap();
    host.expect_nothing();
    let mut gaps = Vec::new();
    let mut last = host.now;
    while gaps.len() < 12 {
        host.wait_ms(1);
        if let [probe] = &host.drain()[..] {
            assert_eq!((probe.seq, probe.flags), (0, Flags::ACK));
            gaps.push((host.now - last).as_millis() as u64);
            last = host.now;
            host.receive(ack(1, 1).window(0));
        }
    }
    let doubled = gaps.windows(2).all(|pair| pair[1] >= pair[0] * 19 / 10 || pair[1] >= 119_000);
    assert!(doubled && (200..=260).contains(&gaps[0]) && gaps[11] <= 121_000, "{gaps:?}");
    host.receive(ack(1, 1).window(1));
    host.expect_flags(Flags::FIN | Flags::ACK);
}

#[test]
fn the_user_timeout_counts_from_the_first_probe_of_a_closed_window_even_if_probes_are_answered() {
    let (mut host, id) = Host::established();
    let timeout = Some(Duration::from_secs(30));
    host.call(|stack, now| stack.set_options(now, id, |options| options.user_timeout = timeout)).unwrap();
    host.receive(ack(1, 1).window(0));
    host.send(id, 100);
    let begin = host.now;
    while host.failure(id).is_none() && host.now - begin < Duration::from_secs(3600) {
        host.wait_ms(100);
        if !host.drain().is_empty() {
            host.receive(ack(1, 1).window(0));
        }
        // A window that opens and closes again is a new one.
        if host.now - begin == Duration::from_secs(20) {
            host.receive(ack(1, 1).window(1000));
            host.expect_data(1, 100);
            host.receive(ack(1, 101).window(0));
            host.send(id, 100);
        }
    }
    assert_eq!(host.failure(id), Some(110));
    let took = (host.now - begin).as_secs();
    assert!((50..120).contains(&took), "{took}");
}
