use alloc::format;
use alloc::vec::Vec;

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn controller(algorithm: Algorithm) -> Controller {
    Controller::new(algorithm.build(), INITIAL_WINDOW)
}

/// A sender that always has data, on a path with a fixed round-trip time.
struct Flow {
    controller: Controller,
    now: u64,
    rtt: u64,
    sent: u32,
}

impl Flow {
    fn new(algorithm: Algorithm, rtt: u64) -> Self {
        Self { controller: controller(algorithm), now: 0, rtt, sent: 0 }
    }

    /// A flow in congestion avoidance after a loss at this window.
    fn after_loss_at(algorithm: Algorithm, cwnd: u32, rtt: u64) -> Self {
        let mut flow = Self::new(algorithm, rtt);
        flow.controller.window.cwnd = cwnd;
        flow.lose();
        flow
    }

    /// One window is sent and acknowledged, one segment at a time.
    fn round(&mut self) -> u32 {
        let window = self.controller.cwnd();
        let (una, nxt) = (self.sent, self.sent + window);
        self.transmit(window, true, una, nxt);
        for i in 1..=window {
            let rtt = Some(ms(self.rtt));
            self.now += if i == window { self.rtt } else { 0 };
            let sent_since = i - 1 + self.controller.cwnd() - window;
            self.controller.on_ack(&Ack { rtt, ..ack(at(self.now), 1, una + i, nxt + sent_since) });
        }
        self.sent = nxt;
        self.controller.cwnd()
    }

    fn rounds_for(&mut self, ms: u64) -> u32 {
        let end = self.now + ms;
        while self.now < end {
            self.round();
        }
        self.controller.cwnd()
    }

    fn lose(&mut self) {
        self.controller.enter_recovery(at(self.now), false);
        self.controller.end_reduction(at(self.now));
    }

    fn transmit(&mut self, packets_out: u32, limited: bool, una: u32, nxt: u32) {
        self.controller.on_transmit(&Transmitted {
            now: at(self.now),
            packets_out,
            limited,
            starved: !limited,
            shrinks: true,
            snd_una: SeqNumber::new(una),
            snd_nxt: SeqNumber::new(nxt),
            rto: ms(self.rtt + 200),
        });
    }
}

fn ack(now: Instant, delivered: u32, una: u32, nxt: u32) -> Ack {
    Ack {
        now,
        delivered,
        lost: 0,
        in_flight: nxt - una,
        advanced: true,
        may_grow: true,
        rtt: None,
        snd_una: SeqNumber::new(una),
        snd_nxt: SeqNumber::new(nxt),
    }
}

#[test]
fn slow_start_doubles_each_round_trip() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        let mut flow = Flow::new(algorithm, 100);
        assert_eq!([flow.round(), flow.round(), flow.round()], [20, 40, 80]);
    }
}

#[test]
fn an_acknowledgement_of_many_segments_counts_them_all() {
    let mut flow = Flow::new(Algorithm::NewReno, 100);
    flow.transmit(10, true, 0, 10);
    flow.controller.on_ack(&ack(at(100), 10, 10, 10));
    assert_eq!(flow.controller.cwnd(), 20);
}

#[test]
fn reno_halves_the_window_and_adds_one_segment_a_round_trip() {
    let mut flow = Flow::after_loss_at(Algorithm::NewReno, 20, 100);
    assert_eq!(flow.controller.cwnd(), 10); // RFC 5681 equation 4
    let windows: Vec<_> = (0..5).map(|_| flow.round()).collect();
    assert_eq!(windows, [11, 12, 13, 14, 15]);
}

#[test]
fn the_threshold_is_two_segments_at_least() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        let flow = Flow::after_loss_at(algorithm, 1, 100);
        assert_eq!(flow.controller.ssthresh(), 2);
    }
}

#[test]
fn slow_start_ends_exactly_at_the_threshold() {
    let mut flow = Flow::after_loss_at(Algorithm::NewReno, 40, 100);
    flow.controller.enter_loss(at(0), 0, false);
    assert_eq!((flow.controller.cwnd(), flow.controller.ssthresh()), (1, 10));
    let windows: Vec<_> = (0..6).map(|_| flow.round()).collect();
    assert_eq!(windows, [2, 4, 8, 10, 11, 12]);
}

#[test]
fn cubic_falls_to_seven_tenths() {
    let flow = Flow::after_loss_at(Algorithm::Cubic, 100, 100);
    assert_eq!(flow.controller.cwnd(), 70); // RFC 9438 section 4.6
}

#[test]
fn cubic_is_back_at_its_old_window_after_k() {
    // RFC 9438 equation 2: K = cbrt(300 / 0.4) = 9.09 s.
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 1000, 100);
    flow.round();
    let shown = flow.controller.snapshot().cubic.unwrap();
    assert_eq!((shown.w_max, shown.k), (1000, Some(ms(9085))));
    // Equation 1 at 3 s, one round trip on for the target: 1000 - 0.4 * (9.085 - 3.1)^3 = 914.
    let third = flow.rounds_for(3000);
    assert!((905..=920).contains(&third), "{third}");
    let plateau = flow.rounds_for(6000);
    assert!((995..=1001).contains(&plateau), "{plateau}");
    // And beyond it: 1000 + 0.4 * 4^3 = 1026.
    let beyond = flow.rounds_for(4000);
    assert!((1020..=1030).contains(&beyond), "{beyond}");
}

#[test]
fn cubic_grows_by_half_a_window_a_round_trip_at_most() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 10, 100);
    flow.round();
    flow.now += 60_000;
    let before = flow.controller.cwnd();
    assert!(flow.round() <= before + before / 2 + 1);
}

#[test]
fn cubic_gives_way_when_the_window_shrinks() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 100, 100);
    flow.lose();
    let shown = flow.controller.snapshot().cubic.unwrap();
    assert_eq!(shown.w_max, 59); // RFC 9438 section 4.7: 70 * (1 + 0.7) / 2
    assert_eq!(flow.controller.cwnd(), 49);
}

#[test]
fn cubic_is_as_fast_as_reno_where_reno_is_faster() {
    // With 10 ms and 20 segments the cubic function takes K = cbrt(6 / 0.4) = 2.5 s to get back; Reno with RFC 9438's
    // alpha needs 6 / 0.53 = 12 round trips = 0.12 s, and goes on like that.
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 20, 10);
    assert_eq!(flow.controller.cwnd(), 14);
    let back = flow.rounds_for(120);
    assert!((19..=20).contains(&back), "{back}");
    let on = flow.rounds_for(100);
    assert!((on - back).abs_diff(5) <= 1, "{on}");
}

#[test]
fn cubic_starts_at_its_plateau_after_a_time_out() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 1000, 100);
    flow.controller.enter_loss(at(0), 0, false);
    assert_eq!((flow.controller.cwnd(), flow.controller.ssthresh()), (1, 490));
    while flow.controller.cwnd() < 490 {
        flow.round();
    }
    flow.round();
    assert_eq!(flow.controller.snapshot().cubic.unwrap().k, Some(Duration::ZERO)); // RFC 9438 section 4.8
}

#[test]
fn cubic_does_not_grow_by_the_time_that_the_window_was_not_used() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 1000, 100);
    flow.round();
    let mut idle = flow.controller.cwnd();
    for _ in 0..100 {
        let (una, nxt) = (flow.sent, flow.sent + 5);
        flow.transmit(5, false, una, nxt);
        flow.now += 100;
        flow.controller.on_ack(&ack(at(flow.now), 5, nxt, nxt));
        flow.sent = nxt;
    }
    assert!(flow.controller.cwnd() <= idle, "an unused window does not grow");
    flow.controller.window.cwnd = idle; // RFC 2861 has shrunk it: not the question here
    flow.controller.window.ssthresh = 2;
    for _ in 0..3 {
        idle = flow.controller.cwnd();
        assert!(flow.round() < idle + idle / 20, "and does not jump when it is used again");
    }
}

#[test]
fn hystart_leaves_slow_start_after_five_rounds_of_delay() {
    let mut flow = Flow::new(Algorithm::Cubic, 100);
    flow.round();
    flow.round();
    flow.rtt = 120; // RFC 9406: more than 100 / 8 ms longer
    flow.round(); // the last segments of the round before, acknowledged in this one, hide the delay once
    let before = flow.controller.cwnd();
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::ConservativeSlowStart);
    for _ in 0..6 {
        flow.round();
    }
    assert_eq!(flow.controller.snapshot().phase, Phase::Avoidance);
    assert!(flow.controller.ssthresh() < before * 8, "a quarter of the growth for five rounds");
}

#[test]
fn hystart_leaves_slow_start_as_soon_as_the_delay_grows_on() {
    let mut flow = Flow::new(Algorithm::Cubic, 100);
    flow.round();
    flow.round();
    flow.rtt = 120;
    flow.round();
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::ConservativeSlowStart);
    let before = flow.controller.cwnd();
    flow.rtt = 140; // 120 / 8 ms and more
    flow.round();
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::Avoidance);
    assert!(flow.controller.ssthresh() < before * 2, "{}", flow.controller.ssthresh());
}

#[test]
fn hystart_goes_on_with_slow_start_when_the_delay_was_jitter() {
    let mut flow = Flow::new(Algorithm::Cubic, 100);
    flow.round();
    flow.round();
    flow.rtt = 120;
    flow.round();
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::ConservativeSlowStart);
    flow.rtt = 100;
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::SlowStart);
    let before = flow.controller.cwnd();
    assert_eq!(flow.round(), before * 2);
}

#[test]
fn hystart_needs_eight_samples() {
    let mut flow = Flow::new(Algorithm::Cubic, 100);
    flow.controller.window.cwnd = 4;
    flow.round();
    flow.controller.window.cwnd = 4;
    flow.rtt = 200;
    flow.round();
    assert_eq!(flow.controller.snapshot().phase, Phase::SlowStart);
}

#[test]
fn a_spurious_reduction_is_taken_back() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        let mut flow = Flow::after_loss_at(algorithm, 1000, 100);
        flow.round();
        let before = (flow.controller.cwnd(), flow.controller.ssthresh(), flow.controller.snapshot().cubic);
        flow.controller.enter_recovery(at(flow.now), false);
        assert!(flow.controller.undo(at(flow.now)));
        let Controller { window, .. } = &flow.controller;
        assert_eq!(window.cwnd, before.0);
        assert!(window.ssthresh >= before.1);
        assert_eq!(flow.controller.snapshot().cubic, before.2, "RFC 9438 section 4.9");
        assert!(!flow.controller.undo(at(flow.now)), "only once");
    }
}

#[test]
fn a_spurious_time_out_is_taken_back() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 100, 100);
    flow.controller.enter_loss(at(0), 60, false);
    assert_eq!(flow.controller.cwnd(), 61);
    flow.controller.enter_loss(at(500), 0, true);
    assert_eq!((flow.controller.cwnd(), flow.controller.ssthresh()), (1, 49), "lowered once for one event");
    assert!(flow.controller.undo(at(flow.now)));
    assert_eq!(flow.controller.cwnd(), 70);
}

#[test]
fn an_ecn_mark_cannot_be_undone() {
    let mut flow = Flow::new(Algorithm::Cubic, 100);
    flow.controller.enter_cwr(at(0));
    assert!(flow.controller.is_reducing());
    assert!(!flow.controller.undo(at(flow.now)));
    flow.controller.end_reduction(at(flow.now));
    assert_eq!(flow.controller.cwnd(), 7);
}

#[test]
fn a_window_that_is_not_full_does_not_grow() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        let mut flow = Flow::new(algorithm, 100);
        flow.transmit(4, false, 0, 4);
        flow.controller.on_ack(&ack(at(100), 4, 4, 4));
        assert_eq!(flow.controller.cwnd(), 10);
        // In slow start, more than half of it is enough.
        flow.transmit(6, false, 4, 10);
        flow.controller.on_ack(&ack(at(200), 6, 10, 10));
        assert_eq!(flow.controller.cwnd(), 16);
    }
}

#[test]
fn a_window_that_is_not_used_shrinks_half_way_to_what_is() {
    let mut flow = Flow::after_loss_at(Algorithm::NewReno, 200, 100);
    flow.round();
    assert_eq!(flow.controller.cwnd(), 101);
    flow.transmit(20, false, flow.sent, flow.sent + 20);
    flow.now += 1000;
    flow.transmit(20, false, flow.sent + 20, flow.sent + 40);
    assert_eq!(flow.controller.cwnd(), 60); // RFC 2861 section 3.1
    assert_eq!(flow.controller.ssthresh(), 100);
}

#[test]
fn idleness_halves_the_window_for_each_time_out() {
    for (idle, expected) in [(250, 100), (350, 50), (650, 25), (60_000, 10)] {
        let mut flow = Flow::new(Algorithm::NewReno, 100);
        flow.controller.window.cwnd = 100;
        flow.controller.on_restart(at(0), at(idle), ms(300), true);
        assert_eq!(flow.controller.cwnd(), expected, "{idle} ms");
        flow.controller.window.cwnd = 100;
        flow.controller.on_restart(at(0), at(idle), ms(300), false);
        assert_eq!(flow.controller.cwnd(), 100);
    }
}

#[test]
fn names_lead_to_algorithms_and_back() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        assert_eq!(algorithm.build().name(), algorithm.name());
        assert_eq!(algorithm.build().fresh().name(), algorithm.name());
    }
    assert_eq!(Algorithm::from_name("vegas"), None);
}

#[test]
fn an_inspector_sees_the_state() {
    let mut flow = Flow::after_loss_at(Algorithm::Cubic, 1000, 100);
    flow.round();
    assert_eq!(
        format!("{}", flow.controller.snapshot()),
        "cubic avoidance cwnd:706 ssthresh:700 w_max:1000 k:9085ms w_est:700"
    );
    assert_eq!(
        format!("{}", Flow::new(Algorithm::NewReno, 1).controller.snapshot()),
        "reno slow-start cwnd:10"
    );
}
