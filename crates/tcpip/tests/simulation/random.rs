//! Random scenarios: any settings, any network, any programs, and still every stream arrives and nothing is left over.
//!
//! `SOCKSHIM_SIM_SEED` runs one scenario, and writes a capture of it if `SOCKSHIM_SIM_PCAP` names a file;
//! `SOCKSHIM_SIM_COUNT` says how many to run, and `SOCKSHIM_SIM_FIRST` from which seed on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use sockshim_tcpip::sim::{Clock, LinkConfig, Loss, Queue, Random, Segments};
use sockshim_tcpip::tcp::Config;
use sockshim_tcpip::tcp::congestion::Algorithm;
use sockshim_tcpip::tcp::ecn::Ecn;
use sockshim_tcpip::time::Instant;

use crate::world::{Interface, Side, World, v4, v6};

#[test]
fn every_stream_arrives_over_any_network() {
    if let Some(seed) = variable("SOCKSHIM_SIM_SEED") {
        run(seed);
        return;
    }
    let first = variable("SOCKSHIM_SIM_FIRST").unwrap_or(0);
    let count = variable("SOCKSHIM_SIM_COUNT").unwrap_or(2000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (first + thread..first + count).step_by(threads as usize).for_each(run));
        }
    });
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..20 {
        let trace = || {
            let mut world = build(seed);
            world.run(Duration::from_secs(3600));
            world.network.trace()
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
fn header_prediction_makes_no_difference() {
    let mut expected = 0;
    for seed in 0..300 {
        let run = |header_prediction| {
            let mut world = build_with(seed, |config| config.header_prediction = header_prediction);
            world.run(Duration::from_secs(3600));
            let counters = world.hosts.iter().map(|&host| world.network.host(host).stack.counters());
            let expected = counters.map(|counters| counters.tcp_hp_hits + counters.tcp_hp_acks).sum::<u64>();
            (world.network.trace(), expected)
        };
        let (with, without) = (run(true), run(false));
        assert_eq!((with.0, 0), without, "seed {seed}");
        expected += with.1;
    }
    assert!(expected > 10_000, "{expected} segments were as expected");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn run(seed: u64) {
    let mut world = build(seed);
    let capture = std::env::var_os("SOCKSHIM_SIM_PCAP");
    if capture.is_some() {
        world.network.start_capture();
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.run(Duration::from_secs(4 * 3600));
        world.assert_complete();
    }));
    if let Some(file) = capture {
        std::fs::write(file, world.network.capture()).expect("the file can be written");
    }
    if let Err(panic) = result {
        eprintln!("failed at {:?} with SOCKSHIM_SIM_SEED={seed}", world.network.now());
        resume_unwind(panic);
    }
}

fn build(seed: u64) -> World {
    build_with(seed, |_| ())
}

fn build_with(seed: u64, change: impl Fn(&mut Config)) -> World {
    let mut random = Random::new(seed);
    let r = &mut random;
    let mut configs = [config(r), config(r)];
    configs.iter_mut().for_each(change);
    let mtu = r.pick(&[576, 1280, 1500, 1500, 1500, 9000]);
    let interfaces = [(); 2].map(|()| Interface { mtu, gso_max: r.pick(&[0, 0, 16_384, 65_535]) });
    let clocks = [(); 2].map(|()| {
        let granularity = r.pick(&[1, 1, 1000, 1_000_000, 4_000_000, 16_000_000]);
        let skew = r.between(0, 400_000) as i64 - 200_000;
        Clock::new(Duration::from_nanos(granularity), skew, r.time(Duration::from_secs(100_000)))
    });
    let rate = r.pick(&[100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000]);
    let links = [link(r, rate), link(r, rate)];
    let flows = r.pick(&[1, 1, 1, 2, 5]);
    // What the slow links carry in an hour at most, with losses.
    let most = (rate / 8 * 20).min(400_000 / flows);
    let damaged = links.iter().any(|link| link.corrupt > 0.0);
    let address = if mtu >= 1280 && r.chance(0.3) { v6 } else { v4 };

    let [there, back] = links;
    let mut world = World::pair_of(seed, configs, interfaces, clocks, there, back);
    for &host in &world.hosts {
        world.network.host_mut(host).damaged = damaged;
    }
    world.listen(1, address(1));
    for _ in 0..flows {
        let mut sides = [(); 2].map(|()| side(r, most));
        if !sides.iter().any(|side| side.half_close) {
            sides[r.below(2) as usize].half_close = true; // one of them must begin
        }
        world.open(0, 1, address, sides);
    }
    world
}

fn config(r: &mut Random) -> Config {
    Config {
        algorithm: r.pick(&[Algorithm::Cubic, Algorithm::NewReno]),
        sack: r.chance(0.8),
        dsack: r.chance(0.8),
        timestamps: r.chance(0.7),
        window_scaling: r.chance(0.8),
        frto: r.chance(0.8),
        tail_loss_probe: r.chance(0.8),
        pacing: r.chance(0.5),
        slow_start_after_idle: r.chance(0.5),
        moderate_receive_buffer: r.chance(0.5),
        send_buffer: r.pick(&[(4096, 4096), (20_000, 100_000), (87_380, 4 << 20)]),
        receive_buffer: r.pick(&[(4096, 4096), (20_000, 100_000), (65_536, 6 << 20)]),
        ecn: r.pick(&[Ecn::Off, Ecn::Answer, Ecn::Ask]),
        // The network loses much, and a connection must not be given up for that.
        syn_retries: 40,
        synack_retries: 40,
        retries: 60,
        orphan_retries: 60,
        ..Config::default()
    }
}

fn link(r: &mut Random, rate: u64) -> LinkConfig {
    let ms = Duration::from_millis;
    let delay = r.pick(&[0, 0, 1, 10, 50, 300]);
    let loss = match r.below(6) {
        0 | 1 => Loss::None,
        2 => Loss::Random(r.pick(&[0.001, 0.01, 0.05, 0.15])),
        // Left within sixty packets: so many retransmissions there are.
        3 => Loss::Burst { enter: 0.01, leave: r.pick(&[0.2, 0.5]), loss: r.pick(&[0.5, 1.0]) },
        4 => Loss::Every(r.between(5, 100)),
        _ => Loss::Numbers((0..r.between(1, 8)).map(|_| r.below(40)).collect()),
    };
    let outages = match r.below(8) {
        0 => {
            let from = Instant::ZERO + r.time(ms(3000));
            vec![from..from + r.time(ms(10_000))]
        }
        _ => Vec::new(),
    };
    LinkConfig {
        rate: r.chance(0.8).then_some(rate),
        queue: Queue {
            bytes: r.pick(&[0, 20_000, 200_000]),
            packets: r.pick(&[0, 0, 3, 100]),
            mark_above: r.pick(&[None, Some(ms(5))]),
        },
        delay: ms(delay),
        jitter: r.pick(&[ms(0), ms(0), ms(1), ms(30)]),
        keep_order: r.chance(0.5),
        loss,
        reorder: r.pick(&[(0.0, ms(0)), (0.0, ms(0)), (0.03, ms(delay / 2)), (0.3, ms(20))]),
        duplicate: r.pick(&[0.0, 0.0, 0.01, 0.3]),
        corrupt: r.pick(&[0.0, 0.0, 0.0, 0.02]),
        outages,
        mtu: None,
        segments: r.pick(&[
            Segments::Split,
            Segments::Split,
            Segments::Keep,
            Segments::Merge(Duration::from_micros(100)),
            Segments::Merge(ms(2)),
        ]),
    }
}

fn side(r: &mut Random, most: u64) -> Side {
    Side {
        sends: r.pick(&[0, 1, 1000, most / 4, most]),
        chunk: r.pick(&[1 << 16, 1 << 16, 1000, 333]),
        pause: r.chance(0.2).then(|| (r.below(most), r.time(Duration::from_secs(20)))),
        half_close: r.chance(0.6),
        aborts_after: None,
    }
}
