//! How fast connections are: bars on virtual time, so that the machine does not matter.
//!
//! `cargo test -p sockshim-tcpip --test simulation bars -- --nocapture` prints the figures.

use std::time::Duration;

use sockshim_tcpip::sim::{Clock, LinkConfig, Loss, Queue};
use sockshim_tcpip::tcp::Config;
use sockshim_tcpip::tcp::congestion::INFINITE_SSTHRESH;
use sockshim_tcpip::time::Instant;

use crate::world::{Interface, Side, World, v4};

/// A path, and what runs over it. The default is that of the Linux curve: 200 Mbit/s, 20 ms, one BDP of queue.
#[derive(Debug, Clone)]
struct Path {
    mbit: u64,
    rtt: Duration,
    /// The queue in BDPs.
    queue: f64,
    loss: f64,
    reorder: (f64, Duration),
    jitter: Duration,
    granularity: Duration,
    gso_max: u32,
    flows: usize,
    config: Config,
    /// Measured is from the first to the second.
    seconds: (u64, u64),
    seed: u64,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            mbit: 200,
            rtt: ms(20),
            queue: 1.0,
            loss: 0.0,
            reorder: (0.0, Duration::ZERO),
            jitter: Duration::ZERO,
            granularity: Duration::from_nanos(1),
            gso_max: 0,
            flows: 1,
            config: Config::default(),
            seconds: (2, 12),
            seed: 1,
        }
    }
}

struct Measured {
    /// Mbit/s of each flow.
    flows: Vec<f64>,
}

impl Measured {
    fn total(&self) -> f64 {
        self.flows.iter().sum()
    }

    /// Jain's index: one when all flows are equal.
    fn fairness(&self) -> f64 {
        let squares: f64 = self.flows.iter().map(|flow| flow * flow).sum();
        self.total().powi(2) / (self.flows.len() as f64 * squares)
    }
}

impl Path {
    fn bdp(&self) -> u64 {
        self.mbit * 1_000_000 / 8 * self.rtt.as_millis() as u64 / 1000
    }

    fn world(&self) -> World {
        let queue = Queue { bytes: (self.bdp() as f64 * self.queue) as usize, ..Queue::default() };
        let back =
            LinkConfig { rate: Some(self.mbit * 1_000_000), delay: self.rtt / 2, ..LinkConfig::default() };
        let there = LinkConfig {
            queue,
            loss: Loss::Random(self.loss),
            reorder: self.reorder,
            jitter: self.jitter,
            ..back.clone()
        };
        let clock = Clock::new(self.granularity, 0, Duration::ZERO);
        let interface = Interface { gso_max: self.gso_max, ..Interface::default() };
        let configs = [self.config.clone(), self.config.clone()];
        let mut world = World::pair_of(self.seed, configs, [interface; 2], [clock; 2], there, back);
        world.thorough = false;
        world
    }

    fn measure(&self) -> Measured {
        let mut world = self.world();
        world.listen(1, v4(1));
        let flows: Vec<_> = (0..self.flows)
            .map(|i| {
                // Not all in the same instant: with a random phase, as programs are.
                world.run_for(Duration::from_micros(if i == 0 { 0 } else { 1700 }));
                world.open(0, 1, v4, [Side::sends(1 << 50), Side::sends(0)])
            })
            .collect();
        world.run_for(Duration::from_secs(self.seconds.0));
        let before: Vec<_> = flows.iter().map(|&flow| world.ends[flow + 1].incoming.done).collect();
        world.run_for(Duration::from_secs(self.seconds.1 - self.seconds.0));
        let time = (self.seconds.1 - self.seconds.0) as f64;
        let rates = flows
            .iter()
            .zip(before)
            .map(|(&flow, before)| (world.ends[flow + 1].incoming.done - before) as f64 * 8.0 / 1e6 / time);
        Measured { flows: rates.collect() }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Prints a row; `least..=most` must hold, which is asserted when all rows of the test are printed.
#[derive(Default)]
struct Bars {
    missed: Vec<String>,
}

impl Bars {
    fn row(&mut self, name: &str, value: f64, least: f64, most: f64) {
        println!("| {name:<52} | {value:>7.3} | {least:.2} to {most:.2} |");
        if !(least..=most).contains(&value) {
            self.missed.push(format!("{name}: {value:.3} is not in {least:.2}..={most:.2}"));
        }
    }

    #[track_caller]
    fn assert(self) {
        assert!(self.missed.is_empty(), "{:#?}", self.missed);
    }
}

#[test]
fn bars_a_link_without_loss_is_full() {
    let mut bars = Bars::default();
    let used = |path: Path| path.measure().total() / path.mbit as f64;
    bars.row("utilisation, queue of 1 BDP", used(Path::default()), 0.93, 1.0);
    bars.row(
        "utilisation, queue of 1 BDP, GSO",
        used(Path { gso_max: 65_535, ..Path::default() }),
        0.93,
        1.0,
    );
    bars.row("utilisation, queue of 1/4 BDP", used(Path { queue: 0.25, ..Path::default() }), 0.85, 1.0);
    let unpaced = Config { pacing: false, ..Config::default() };
    bars.row(
        "utilisation, queue of 1 BDP, unpaced",
        used(Path { config: unpaced, ..Path::default() }),
        0.93,
        1.0,
    );
    bars.assert();
}

#[test]
fn bars_buffers_grow_to_what_a_long_path_needs() {
    let mut bars = Bars::default();
    let path = Path { rtt: ms(200), seconds: (10, 30), ..Path::default() };
    bars.row("autotuned buffers, 200 Mbit/s and 200 ms", path.measure().total() / 200.0, 0.9, 1.0);
    bars.assert();
}

/// Linux 6.18's CUBIC over the same link model in real time, in Mbit/s: the means of six runs of ten seconds each with
/// `chrt -f 1 linux_curve cubic 6` (`examples/linux_curve.rs`). They deviated by 11.4, 4.3, 0.9 and 0.4.
const LINUX_CUBIC: [(f64, f64); 4] = [(1e-4, 82.5), (1e-3, 28.6), (1e-2, 7.1), (3e-2, 2.7)];

#[test]
fn bars_loss_costs_what_it_costs_linux() {
    let mut bars = Bars::default();
    for (loss, linux) in LINUX_CUBIC {
        let seeds = 1..=SEEDS;
        let total: f64 = seeds
            .clone()
            .map(|seed| Path { loss, seed, seconds: (0, 10), ..Path::default() }.measure().total())
            .sum();
        let mean = total / seeds.count() as f64;
        bars.row(&format!("{mean:.1} Mbit/s at {loss} loss, of Linux's {linux}"), mean / linux, 0.9, 1.25);
    }
    bars.assert();
}

/// Ten seconds see few losses at the smallest rate, and single runs differ by a fifth.
const SEEDS: u64 = 12;

#[test]
fn bars_flows_share_a_link_equally() {
    let mut bars = Bars::default();
    for flows in [2, 4, 16, 64] {
        let path = Path { flows, seconds: (5, 35), mbit: 50, ..Path::default() };
        bars.row(&format!("Jain's index, {flows} flows"), path.measure().fairness(), 0.95, 1.0);
    }
    bars.assert();
}

#[test]
fn bars_reordering_jitter_and_coarse_clocks_cost_little() {
    let mut bars = Bars::default();
    let clean = Path::default().measure().total();
    let of_clean = |path: Path| path.measure().total() / clean;
    bars.row(
        "3 % reordered by up to RTT/4",
        of_clean(Path { reorder: (0.03, ms(5)), ..Path::default() }),
        0.9,
        1.1,
    );
    bars.row("30 ms of jitter", of_clean(Path { jitter: ms(30), ..Path::default() }), 0.9, 1.1);
    for granularity in [ms(1), ms(4), ms(16)] {
        let path = Path { granularity, ..Path::default() };
        bars.row(&format!("clocks with steps of {granularity:?}"), of_clean(path), 0.9, 1.1);
    }
    let both = Path { granularity: ms(16), reorder: (0.03, ms(5)), ..Path::default() };
    bars.row("3 % reordered, clocks with steps of 16 ms", of_clean(both), 0.9, 1.1);
    bars.assert();
}

#[test]
fn bars_a_lost_tail_is_repaired_by_a_probe() {
    let mut bars = Bars::default();
    // The last two segments of 20 are lost once. RFC 8985 section 7: two round trips after the last acknowledgement
    // the probe leaves, it is sacked one later, and what RACK then takes for lost arrives after another half.
    let rtt = ms(20);
    let time = |lose: bool, tail_loss_probe: bool| {
        let config = Config { tail_loss_probe, ..Config::default() };
        let mut world = Path { rtt, config, ..Path::default() }.world();
        let mut data = 0;
        world.network.link_mut(world.links[0]).drop_if(move |frame, _| {
            data += u32::from(frame.bytes.len() > 100);
            lose && frame.bytes.len() > 100 && (19..=20).contains(&data)
        });
        world.listen(1, v4(1));
        let flow =
            world.open(0, 1, v4, [Side { half_close: false, ..Side::sends(20 * 1448) }, Side::sends(0)]);
        while world.ends[flow + 1].incoming.left() > 0 {
            assert!(world.step());
        }
        (world.network.now() - Instant::ZERO).as_secs_f64() / rtt.as_secs_f64()
    };
    let clean = time(false, true);
    bars.row("round trips that a lost tail costs", time(true, true) - clean, 3.0, 4.5);
    bars.row("and without tail loss probes", time(true, false) - clean, 10.0, 20.0);
    bars.assert();
}

#[test]
fn bars_slow_start_does_not_fill_a_deep_queue() {
    let mut bars = Bars::default();
    let path = Path { queue: 10.0, rtt: ms(100), ..Path::default() };
    let mut world = path.world();
    world.listen(1, v4(1));
    let flow = world.open(0, 1, v4, [Side::sends(1 << 50), Side::sends(0)]);
    let (host, socket) = (world.ends[flow].host, world.ends[flow].socket.expect("it was begun"));
    let queue = |world: &World| {
        let waited = world.network.link(world.links[0]).counters().longest_wait;
        waited.as_secs_f64() / path.rtt.as_secs_f64()
    };
    loop {
        world.run_for(ms(1));
        let now = world.network.time_of(host);
        let info = world.network.host_mut(host).stack.tcp_info(now, socket).expect("it is open");
        if info.snd_ssthresh < INFINITE_SSTHRESH {
            break;
        }
    }
    // The window doubles in a round trip, and that it was too much shows a round trip later: one round trip is out of
    // reach, the delay is noticed at 1.5 already. docs/tcpip.md says what happens when.
    bars.row("queue when slow start ends, in round trips, of 10", queue(&world), 0.0, 2.25);
    world.run_for(ms(1600));
    bars.row("and 1.6 s later, when it grows by 5 % a round trip", queue(&world), 0.0, 3.0);
    bars.assert();
}
