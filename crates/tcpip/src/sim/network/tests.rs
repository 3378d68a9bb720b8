use core::net::Ipv4Addr;

use super::*;
use crate::sim::{Loss, Mtu};

/// Answers each packet with the same one back, up to a number, and remembers when packets came and timers ran out.
#[derive(Debug, Default)]
struct Echo {
    answers: u32,
    outbox: Vec<Frame>,
    alarm: Option<Instant>,
    arrivals: Vec<(Instant, usize)>,
    alarms: Vec<Instant>,
}

impl Host for Echo {
    fn handle_packet(&mut self, now: Instant, frame: &Frame) {
        self.arrivals.push((now, frame.bytes.len()));
        if self.answers > 0 {
            self.answers -= 1;
            let mut answer = frame.clone();
            let (source, destination) = (frame.bytes[12..16].to_vec(), frame.bytes[16..20].to_vec());
            answer.bytes[12..16].copy_from_slice(&destination);
            answer.bytes[16..20].copy_from_slice(&source);
            self.outbox.push(answer);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.alarm.is_some_and(|at| at <= now) {
            self.alarm = None;
            self.alarms.push(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.alarm
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<Frame> {
        self.outbox.pop()
    }
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn packet(len: usize) -> Frame {
    let mut bytes = alloc::vec![0; len];
    bytes[0] = 0x45;
    bytes[6] = 0x40;
    bytes[12..16].copy_from_slice(&A.octets());
    bytes[16..20].copy_from_slice(&B.octets());
    Frame::new(bytes)
}

fn pair(seed: u64, config: LinkConfig, clock: Clock) -> (Network<Echo>, HostId, HostId) {
    let mut network = Network::new(seed);
    let a = network.add_host(Echo { answers: 50, ..Echo::default() }, Clock::default());
    let b = network.add_host(Echo { answers: 50, ..Echo::default() }, clock);
    let (there, back) = (network.add_link(config.clone()), network.add_link(config));
    network.connect(a, b, B.into(), &[there]);
    network.connect(b, a, A.into(), &[back]);
    (network, a, b)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn packets_arrive_after_the_delay() {
    let (mut network, a, b) =
        pair(1, LinkConfig { delay: ms(10), ..LinkConfig::default() }, Clock::default());
    network.host_mut(a).outbox.push(packet(100));
    network.pump(a);
    network.run_for(ms(45));
    assert_eq!(network.host(b).arrivals, [(Instant::from_millis(10), 100), (Instant::from_millis(30), 100)]);
    assert_eq!(network.now(), Instant::from_millis(45));
}

#[test]
fn one_seed_gives_one_trace() {
    let run = |seed| {
        let config = LinkConfig {
            delay: ms(3),
            jitter: ms(5),
            loss: Loss::Random(0.02),
            duplicate: 0.1,
            ..LinkConfig::default()
        };
        let (mut network, a, _) = pair(seed, config, Clock::default());
        for len in 20..70 {
            network.host_mut(a).outbox.push(packet(len));
        }
        network.pump(a);
        while network.step().is_some() {}
        network.trace()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_timer_runs_out_when_the_hosts_own_clock_says_so() {
    // Twice as fast (a parody of a clock), 1 s ahead, steps of 16 ms.
    let clock = Clock::new(ms(16), 1_000_000_000, Duration::from_secs(1));
    let (mut network, _, b) = pair(1, LinkConfig::default(), clock);
    network.host_mut(b).alarm = Some(Instant::from_millis(1100));
    network.pump(b);
    network.run_for(Duration::from_secs(5));
    assert_eq!(network.host(b).alarms, [Instant::from_millis(1104)]);
    assert_eq!(network.next_event(), None);
}

#[test]
fn a_timer_set_anew_runs_out_once() {
    let (mut network, a, _) = pair(1, LinkConfig::default(), Clock::default());
    for at in [50, 20, 90] {
        network.host_mut(a).alarm = Some(Instant::from_millis(at));
        network.pump(a);
    }
    network.run_for(ms(200));
    assert_eq!(network.host(a).alarms, [Instant::from_millis(90)]);
}

#[test]
fn a_router_tells_who_sent_too_much() {
    let mtu = Some(Mtu { bytes: 1000, icmp: true });
    let (mut network, a, b) =
        pair(1, LinkConfig { mtu, delay: ms(1), ..LinkConfig::default() }, Clock::default());
    network.host_mut(a).outbox.push(packet(1500));
    network.pump(a);
    network.step();
    assert!(network.host(b).arrivals.is_empty());
    assert_eq!(network.host(a).arrivals, [(Instant::from_millis(1), 576)], "an error that quotes the packet");
}

#[test]
fn paths_share_a_link() {
    let mut network = Network::new(1);
    let hosts: Vec<_> = (0..3).map(|_| network.add_host(Echo::default(), Clock::default())).collect();
    let shared = network.add_link(LinkConfig { rate: Some(8_000_000), ..LinkConfig::default() });
    network.connect(hosts[0], hosts[2], B.into(), &[shared]);
    network.connect(hosts[1], hosts[2], B.into(), &[shared]);
    for &host in &hosts[..2] {
        network.host_mut(host).outbox.push(packet(1000));
        network.pump(host);
    }
    while network.step().is_some() {}
    let times: Vec<_> = network.host(hosts[2]).arrivals.iter().map(|&(at, _)| at.as_millis()).collect();
    assert_eq!(times, [1, 2], "the second one waited");
}

#[test]
fn a_capture_shows_what_was_dropped() {
    let (mut network, a, _) =
        pair(1, LinkConfig { loss: Loss::Every(1), ..LinkConfig::default() }, Clock::default());
    network.start_capture();
    network.host_mut(a).outbox.push(packet(100));
    network.pump(a);
    let file = network.capture();
    let comment = b"dropped on link 0: Lost";
    assert!(file.windows(comment.len()).any(|window| window == comment));
}
