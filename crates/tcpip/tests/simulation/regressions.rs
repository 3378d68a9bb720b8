//! Bugs that other stacks had or have, each as a scenario here. The numbers are those of the issues at gVisor and smoltcp.

use std::collections::BTreeSet;
use std::time::Duration;

use sockshim_tcpip::error::Error;
use sockshim_tcpip::sim::{Clock, Frame, LinkConfig, Loss, Mtu, Queue, Segments};
use sockshim_tcpip::tcp::Config;
use sockshim_tcpip::tcp::ecn::Ecn;
use sockshim_tcpip::time::Instant;

use crate::world::{Interface, Side, World, v4, v6};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A link of 100 Mbit/s with that delay, and room for all that a test sends.
fn link(delay: u64) -> LinkConfig {
    LinkConfig { rate: Some(100_000_000), delay: ms(delay), ..LinkConfig::default() }
}

fn pair(there: LinkConfig, back: LinkConfig) -> World {
    World::pair(1, Config::default(), there, back)
}

/// Connects and transfers `bytes` from the client to the server; answers how long that took.
#[track_caller]
fn transfer(world: &mut World, bytes: u64) -> Duration {
    exchange(world, [Side::sends(bytes), Side::sends(0)])
}

#[track_caller]
fn exchange(world: &mut World, sides: [Side; 2]) -> Duration {
    let begin = world.network.now();
    world.listen(1, v4(1));
    let flow = world.open(0, 1, v4, sides);
    world.run(Duration::from_secs(3600));
    let end = world.ends[flow..].iter().filter_map(|end| end.finished_at).max().unwrap_or(begin);
    world.assert_complete();
    end - begin
}

/// Payload that the host sent more than once.
fn sent_again(world: &World, host: usize, bytes: u64) -> u64 {
    world.network.host(world.hosts[host]).sent.payload - bytes
}

fn mangle(world: &mut World, host: usize, change: impl FnMut(Instant, &mut Frame) + Send + 'static) {
    world.network.host_mut(world.hosts[host]).mangle = Some(Box::new(change));
}

/// Changes a TCP header and makes its checksum right again.
fn rewrite(frame: &mut Frame, change: impl FnOnce(&mut [u8])) {
    if let Some(layout) = frame.tcp() {
        change(&mut frame.bytes[layout.tcp..layout.payload.start]);
        frame.complete_checksum(layout.tcp, 16);
    }
}

#[test]
fn gvisor_9778_coarse_clocks_on_a_shaped_link_cause_no_retransmission() {
    for granularity in [1, 1000, 1_000_000, 4_000_000, 16_000_000] {
        let clock = Clock::new(Duration::from_nanos(granularity), 0, Duration::ZERO);
        let shaped = LinkConfig { rate: Some(20_000_000), ..link(5) };
        let configs = [(); 2].map(|()| Config::default());
        let mut world = World::pair_of(1, configs, [Interface::default(); 2], [clock; 2], shaped, link(5));
        let time = transfer(&mut world, 2_000_000);
        assert_eq!(sent_again(&world, 0, 2_000_000), 0, "{granularity} ns");
        assert!(time < ms(1600), "{time:?} with {granularity} ns");
    }
}

#[test]
fn gvisor_14092_reordering_leaves_nothing_in_flight() {
    // Sacked and then acknowledged outside recovery; the invariants, which count anew, are checked after each event.
    for seed in 0..20 {
        let there = LinkConfig { reorder: (0.3, Duration::from_micros(300)), ..link(10) };
        let mut world = World::pair(seed, Config::default(), there, link(10));
        transfer(&mut world, 300_000);
    }
}

/// A flow in full swing whose packets are delayed for a moment, by more than the time-out. Returns the window before it,
/// and after it when all is acknowledged.
fn spike(config: Config) -> (u32, u32) {
    let mut world = World::pair(1, config, link(20), link(20));
    world.listen(1, v4(1));
    let flow = world.open(0, 1, v4, [Side::sends(1 << 40), Side::sends(0)]);
    world.run_for(ms(500));
    let before = cwnd(&mut world, flow);
    let there = world.links[0];
    world.network.link_mut(there).config_mut().delay = ms(800);
    world.network.link_mut(there).config_mut().keep_order = true;
    world.run_for(ms(60));
    world.network.link_mut(there).config_mut().delay = ms(20);
    world.run_for(ms(1100));
    (before, cwnd(&mut world, flow))
}

fn cwnd(world: &mut World, flow: usize) -> u32 {
    let host = world.hosts[0];
    let (now, socket) = (world.network.time_of(host), world.ends[flow].socket.expect("an open connection"));
    world.network.host_mut(host).stack.tcp_info(now, socket).expect("an open connection").snd_cwnd
}

#[test]
fn gvisor_14102_a_spurious_time_out_is_undone() {
    let (before, after) = spike(Config::default());
    assert!(after >= before, "timestamps (RFC 3522): {after} segments, before {before}");
    let (before, after) = spike(Config { timestamps: false, ..Config::default() });
    assert!(after >= before, "F-RTO (RFC 5682): {after} segments, before {before}");
}

#[test]
fn gvisor_14102_a_spurious_fast_recovery_is_undone() {
    for timestamps in [true, false] {
        let config = Config { timestamps, ..Config::default() };
        let mut world = World::pair(1, config, LinkConfig { rate: None, ..link(20) }, link(20));
        world.listen(1, v4(1));
        let flow = world.open(0, 1, v4, [Side::sends(1 << 40), Side::sends(0)]);
        world.run_for(ms(150));
        let before = cwnd(&mut world, flow);
        let there = world.links[0];
        // For a moment packets go a longer way: those after that overtake them by more than RACK waits.
        world.network.link_mut(there).config_mut().delay = ms(45);
        world.run_for(ms(2));
        world.network.link_mut(there).config_mut().delay = ms(20);
        world.run_for(ms(200));
        let after = cwnd(&mut world, flow);
        assert!(after >= before, "{after} segments, before {before}, timestamps {timestamps}");
    }
}

#[test]
fn gvisor_10312_a_window_that_is_taken_back_does_not_stop_the_flow() {
    let mut world = pair(link(10), link(10));
    // The peer promises its window, and from time to time takes most of it back.
    mangle(&mut world, 0, |now, frame| {
        if now.as_millis() / 50 % 2 == 1 {
            rewrite(frame, |tcp| {
                let window = u16::from_be_bytes([tcp[14], tcp[15]]) / 16;
                tcp[14..16].copy_from_slice(&window.max(8).to_be_bytes());
            });
        }
    });
    let time = transfer(&mut world, 4_000_000);
    assert!(time < Duration::from_secs(8), "{time:?}");
}

#[test]
fn gvisor_6113_a_tiny_round_trip_time_does_not_stall() {
    for rate in [None, Some(10_000_000_000)] {
        let near = LinkConfig { rate, ..LinkConfig::default() };
        let mut world = pair(near.clone(), near);
        let time = transfer(&mut world, 10_000_000);
        assert!(time < ms(200), "{time:?}: shorter than one time-out");
    }
}

#[test]
fn gvisor_1398_small_buffers_do_not_make_the_sender_wait() {
    // Silly-window avoidance wants half of the largest window at most, not a full segment.
    for buffer in [1000, 2000, 3000, 10_000] {
        let receiver = Config { receive_buffer: (buffer, buffer), ..Config::default() };
        let configs = [Config::default(), receiver];
        let mut world =
            World::pair_of(1, configs, [Interface::default(); 2], [Clock::default(); 2], link(1), link(1));
        let time = transfer(&mut world, 50_000);
        // At least half a buffer in each round trip of 2 ms, and a delayed acknowledgement now and then.
        let rounds = 50_000 / (buffer / 2) + 4;
        assert!(time < ms(u64::from(rounds) * 2 + 300), "{time:?} with {buffer} bytes");
    }
}

#[test]
fn gvisor_11536_acknowledgements_without_timestamps_are_taken() {
    let mut world = pair(link(5), link(5));
    // The SYN's answer agrees on timestamps; then the peer leaves them out.
    mangle(&mut world, 0, |_, frame| {
        rewrite(frame, |tcp| {
            if tcp[13] & 2 == 0 {
                tcp[20..].fill(1);
            }
        });
    });
    let time = transfer(&mut world, 500_000);
    assert!(time < ms(500), "{time:?}");
}

#[test]
fn gvisor_7075_a_syn_that_offers_ecn_is_answered() {
    for bits in [0xc0, 0x40, 0x80] {
        let mut world = pair(link(5), link(5));
        mangle(&mut world, 1, move |_, frame| {
            rewrite(frame, |tcp| {
                if tcp[13] == 2 {
                    tcp[13] |= bits;
                }
            });
        });
        transfer(&mut world, 10_000);
    }
}

#[test]
fn a_queue_that_marks_loses_nothing_when_both_ends_take_part() {
    let run = |ecn| {
        let config = Config { ecn, ..Config::default() };
        // Ten round trips of room, of which a quarter may be used.
        let queue = Queue { bytes: 500_000, mark_above: Some(ms(5)), ..Queue::default() };
        let there = LinkConfig { rate: Some(20_000_000), queue, ..link(10) };
        let mut world = World::pair(1, config, there, link(10));
        let time = transfer(&mut world, 5_000_000);
        assert!(time < Duration::from_secs(3), "{time:?}: 2 s at the rate of the link");
        let marked = world.network.link(world.links[0]).counters().marked;
        (sent_again(&world, 0, 5_000_000), marked)
    };
    let (again, marked) = run(Ecn::Ask);
    assert_eq!(again, 0);
    assert!((3..2000).contains(&marked), "{marked} packets are marked, and then no more for a while");
    assert_eq!(run(Ecn::Answer).1, 0, "nobody asked");
}

#[test]
fn gvisor_9922_accepted_connections_use_the_mss_of_the_syn() {
    for (address, header) in [(v4 as fn(usize) -> _, 20), (v6, 40)] {
        let interfaces = [Interface { mtu: 1300, gso_max: 0 }, Interface { mtu: 9000, gso_max: 0 }];
        let configs = [(); 2].map(|()| Config::default());
        let mut world = World::pair_of(1, configs, interfaces, [Clock::default(); 2], link(5), link(5));
        world.listen(1, address(1));
        world.open(0, 1, address, [Side::sends(0), Side::sends(100_000)]);
        world.run(Duration::from_secs(60));
        world.assert_complete();
        let largest = world.network.host(world.hosts[1]).sent.largest;
        assert_eq!(largest, 1300 - header - 20 - 12, "what fits beside the headers and timestamps");
    }
}

#[test]
fn gvisor_11198_acknowledgements_are_not_lost_in_super_segments() {
    for segments in [Segments::Keep, Segments::Split, Segments::Merge(ms(1))] {
        let link = LinkConfig { segments, ..link(2) };
        let interfaces = [Interface { mtu: 1500, gso_max: 65_535 }; 2];
        let configs = [(); 2].map(|()| Config::default());
        let mut world = World::pair_of(1, configs, interfaces, [Clock::default(); 2], link.clone(), link);
        let time = exchange(&mut world, [Side::sends(3_000_000), Side::sends(3_000_000)]);
        assert_eq!(sent_again(&world, 0, 3_000_000) + sent_again(&world, 1, 3_000_000), 0);
        assert!(time < ms(700), "{time:?} with {segments:?}");
    }
}

#[test]
fn smoltcp_949_larger_buffers_are_not_slower() {
    let time = |buffer: u32| {
        let config =
            Config { send_buffer: (buffer, buffer), receive_buffer: (buffer, buffer), ..Config::default() };
        let queue = Queue { bytes: 60_000, ..Queue::default() };
        let mut world = World::pair(1, config, LinkConfig { queue, ..link(10) }, link(10));
        transfer(&mut world, 5_000_000).as_secs_f64()
    };
    let times: Vec<_> = [64 << 10, 256 << 10, 1 << 20, 8 << 20].into_iter().map(time).collect();
    assert!(times.windows(2).all(|pair| pair[1] < pair[0] * 1.1), "{times:?}");
}

#[test]
fn smoltcp_256_only_what_was_lost_is_sent_again() {
    // One segment in each window is lost: with SACK (RFC 2018) exactly those are repeated.
    let there = LinkConfig { loss: Loss::Every(50), ..link(20) };
    let mut world = World::pair(1, Config::default(), there, link(20));
    transfer(&mut world, 1_000_000);
    let lost = world.network.link(world.links[0]).counters().lost;
    let again = sent_again(&world, 0, 1_000_000);
    // A lost tail is probed for, which may be one segment too many.
    assert!(again <= (lost + 1) * 1448, "{again} bytes again for {lost} lost segments");
}

#[test]
fn smoltcp_1118_a_burst_of_connections_is_accepted() {
    let mut world = pair(link(5), link(5));
    world.listen(1, v4(1));
    for _ in 0..100 {
        world.open(0, 1, v4, [Side::sends(1000), Side::sends(1000)]);
    }
    world.run(Duration::from_secs(600));
    world.assert_complete();
}

#[test]
fn any_packet_of_a_short_connection_may_be_lost() {
    // The SYN, its answer, data, FINs and their acknowledgements: each one alone, and each pair, in either direction.
    for first in 0..8 {
        for second in first..8 {
            for direction in 0..2 {
                let loss = Loss::Numbers(BTreeSet::from([first, second]));
                let mut links = [link(5), link(5)];
                links[direction].loss = loss;
                let [there, back] = links;
                let mut world = pair(there, back);
                exchange(&mut world, [Side::sends(3000), Side::sends(3000)]);
            }
        }
    }
}

#[test]
fn a_lost_window_update_is_asked_for() {
    // The reader pauses until the window is shut, and nothing gets back to the sender when it reads again.
    let mut back = link(5);
    back.outages = vec![Instant::from_millis(1990)..Instant::from_millis(2600)];
    let config = Config { receive_buffer: (20_000, 20_000), ..Config::default() };
    let mut world = World::pair(1, config, link(5), back);
    let reader = Side { pause: Some((5000, Duration::from_secs(2))), ..Side::sends(0) };
    exchange(&mut world, [Side::sends(200_000), reader]);
}

#[test]
fn a_reader_that_pauses_for_an_hour_loses_nothing() {
    let mut world = pair(link(5), link(5));
    let reader = Side { pause: Some((5000, Duration::from_secs(3000))), ..Side::sends(0) };
    exchange(&mut world, [Side::sends(20_000_000), reader]);
}

#[test]
fn a_router_with_a_small_mtu_is_listened_to() {
    for (mtu, address) in [(1000, v4 as fn(usize) -> _), (1300, v6)] {
        let mut there = link(5);
        there.mtu = Some(Mtu { bytes: mtu, icmp: true });
        let mut world = pair(there.clone(), there);
        world.listen(1, address(1));
        world.open(0, 1, address, [Side::sends(200_000), Side::sends(200_000)]);
        world.run(Duration::from_secs(60));
        world.assert_complete();
    }
}

#[test]
fn a_broken_off_connection_is_gone_on_both_sides() {
    let mut world = pair(link(5), link(5));
    world.listen(1, v4(1));
    let quitter = Side { aborts_after: Some(50_000), half_close: false, ..Side::sends(0) };
    let flow = world.open(0, 1, v4, [Side::sends(1_000_000), quitter]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.ends[flow].error, Some(Error::ConnectionReset));
    world.assert_nothing_left();
}

#[test]
fn damaged_packets_are_never_delivered() {
    let damaging = LinkConfig { corrupt: 0.05, ..link(5) };
    let mut world = World::pair(3, Config::default(), damaging.clone(), damaging);
    for host in world.hosts.clone() {
        world.network.host_mut(host).damaged = true;
    }
    exchange(&mut world, [Side::sends(300_000), Side::sends(300_000)]);
}
