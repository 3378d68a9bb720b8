//! CUBIC (RFC 9438): the window follows a cubic function of the time since the last congestion event, so that it stays
//! long near the window that was too much, and its growth does not depend on the round-trip time.
//!
//! Time is in milliseconds and windows are in 1/1024 segments; no floating point.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use super::hystart::{Growth, HyStart};
use super::{Ack, Congestion, Event, INFINITE_SSTHRESH, Phase, Snapshot, Window};
use crate::time::{Instant, Micros};

/// One segment, in the unit of the window here.
const ONE: u64 = 1024;

/// RFC 9438 section 4.6: the window falls to seven tenths.
const BETA: (u64, u64) = (7, 10);

/// RFC 9438 section 4.3: 3 * (1 - beta) / (1 + beta), which makes Reno with this beta as fast as Reno with one half.
const ALPHA: (u64, u64) = (9, 17);

/// Before the first loss nothing is known of the path: Linux then lets the window grow by one segment for twenty
/// delivered ones at least, since the cubic function begins flat.
const BLIND_GROWTH: u64 = 20;

/// A connection's CUBIC.
#[derive(Debug, Clone, Default)]
pub struct Cubic {
    /// The window before the last reduction, less if the flow gives way (W_max); zero before the first.
    w_max: u32,
    /// The current stage of congestion avoidance.
    epoch: Option<Box<Epoch>>,
    /// What to return to if the last congestion event was spurious.
    saved: Option<Box<Saved>>,
    hystart: HyStart,
    min_rtt: Micros,
    /// Growth of less than a segment.
    pending: u32,
    /// In [`Instant::ticks`].
    last_ack: u32,
}

#[derive(Debug, Clone)]
struct Epoch {
    start: Instant,
    /// When the function reaches its plateau, and how high that is.
    k: u64,
    plateau: u64,
    /// Reno's window by now.
    w_est: u64,
}

#[derive(Debug, Clone)]
struct Saved {
    w_max: u32,
    epoch: Option<Box<Epoch>>,
}

/// The variables of RFC 9438 that an inspector shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The window before the last reduction.
    pub w_max: u32,
    /// How long the function takes from the last reduction to `w_max`.
    pub k: Option<Duration>,
    /// The window that Reno would have.
    pub w_est: Option<u32>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w_max:{}", self.w_max)?;
        if let Some(k) = self.k {
            write!(f, " k:{}ms", k.as_millis())?;
        }
        if let Some(w_est) = self.w_est {
            write!(f, " w_est:{w_est}")?;
        }
        Ok(())
    }
}

impl Congestion for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn on_rtt(&mut self, window: &mut Window, _ack: &Ack, rtt: Duration) {
        let rtt = Micros::from(rtt);
        if self.min_rtt.is_zero() || rtt < self.min_rtt {
            self.min_rtt = rtt;
        }
        if window.ssthresh == INFINITE_SSTHRESH {
            self.hystart.on_rtt(rtt.get());
        }
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        self.last_ack = ack.now.ticks();
        let mut delivered = ack.delivered;
        if window.in_slow_start() {
            if window.ssthresh == INFINITE_SSTHRESH {
                match self.hystart.on_ack(ack) {
                    Growth::By(segments) => delivered = segments,
                    Growth::Leave => {
                        window.ssthresh = window.cwnd;
                        return;
                    }
                }
            }
            delivered = window.slow_start(delivered);
        }
        if delivered > 0 {
            self.avoid(window, delivered, ack.now);
        }
    }

    fn on_unused(&mut self, now: Instant) {
        // RFC 9438 section 5.8: the function's time stands still while the window is not used.
        if let Some(epoch) = &mut self.epoch {
            let unused = now.ticks().wrapping_sub(self.last_ack);
            epoch.start = (epoch.start + Duration::from_millis(u64::from(unused))).min(now);
        }
        self.last_ack = now.ticks();
    }

    fn on_restart(&mut self, since: Instant, now: Instant) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start = (epoch.start + now.saturating_duration_since(since)).min(now);
        }
        self.last_ack = now.ticks();
    }

    fn on_congestion(&mut self, window: &Window, event: Event, _now: Instant) -> u32 {
        self.saved = Some(Box::new(Saved { w_max: self.w_max, epoch: self.epoch.take() }));
        self.pending = 0;
        self.w_max = match event {
            // RFC 9438 section 4.8: after a time-out the function starts at its plateau, wherever slow start ends.
            Event::Timeout => 0,
            // RFC 9438 section 4.7, fast convergence: a window that shrinks makes room for a new flow.
            Event::Loss if window.cwnd < self.w_max => scale(window.cwnd, BETA.0 + BETA.1, 2 * BETA.1),
            Event::Loss => window.cwnd,
        };
        scale(window.cwnd, BETA.0, BETA.1).max(2)
    }

    fn on_spurious(&mut self, _window: &mut Window) {
        // RFC 9438 section 4.9; Linux keeps the new W_max.
        if let Some(saved) = self.saved.take() {
            self.w_max = saved.w_max;
            self.epoch = saved.epoch;
        }
    }

    fn snapshot(&self, window: &Window) -> Snapshot {
        let phase = match window.in_slow_start() {
            false => Phase::Avoidance,
            true if window.ssthresh == INFINITE_SSTHRESH => self.hystart.phase(),
            true => Phase::SlowStart,
        };
        let epoch = self.epoch.as_ref();
        Snapshot {
            name: self.name(),
            phase,
            cwnd: window.cwnd,
            ssthresh: window.ssthresh,
            cubic: Some(Shown {
                w_max: self.w_max,
                k: epoch.map(|epoch| Duration::from_millis(epoch.k)),
                w_est: epoch.map(|epoch| segments(epoch.w_est)),
            }),
        }
    }

    fn fresh(&self) -> Box<dyn Congestion> {
        Box::new(Self::default())
    }
}

impl Cubic {
    fn avoid(&mut self, window: &mut Window, delivered: u32, now: Instant) {
        let cwnd = u64::from(window.cwnd) * ONE;
        let delivered = u64::from(delivered) * ONE;
        let w_max = u64::from(self.w_max) * ONE;
        let epoch = self.epoch.get_or_insert_with(|| Box::new(Epoch::new(now, cwnd, w_max)));

        // RFC 9438 section 4.3 goes over to one segment a round trip at the window before the reduction; Linux does not.
        epoch.w_est += delivered * ALPHA.0 / ALPHA.1 * ONE / cwnd;
        let t = millis(now.saturating_duration_since(epoch.start));
        let target = epoch.target(t + millis(self.min_rtt.into())).clamp(cwnd, cwnd + cwnd / 2);
        let mut growth = delivered * (target - cwnd) / cwnd;
        if epoch.at(t) < epoch.w_est {
            // RFC 9438 section 4.3: where Reno would be faster, be Reno.
            growth = growth.max(epoch.w_est.saturating_sub(cwnd + u64::from(self.pending)));
        }
        if self.w_max == 0 {
            growth = growth.max(delivered / BLIND_GROWTH);
        }
        let pending = u64::from(self.pending) + growth;
        window.cwnd = window.cwnd.saturating_add(segments(pending));
        self.pending = (pending % ONE) as u32;
    }
}

impl Epoch {
    fn new(start: Instant, cwnd: u64, w_max: u64) -> Self {
        // RFC 9438 equation 2: K = cbrt((W_max - cwnd) / C) seconds, with C = 0.4.
        let k = cube_root(w_max.saturating_sub(cwnd) / ONE * 2_500_000_000);
        Self { start, k, plateau: w_max.max(cwnd), w_est: cwnd }
    }

    /// RFC 9438 equation 1: the window `t` milliseconds after the start.
    fn at(&self, t: u64) -> u64 {
        // C * d^3 with d in seconds is d^3 * 0.4 / 10^9 with d in milliseconds. The bound (145 hours) keeps d^3 in range.
        let cubed = |d: u64| d.min(1 << 20).pow(3) / 2_500_000 * ONE / 1000;
        match t.checked_sub(self.k) {
            Some(after) => self.plateau + cubed(after),
            None => self.plateau.saturating_sub(cubed(self.k - t)),
        }
    }
    /// The same with the distance to the plateau in whole segments, as Linux counts: so a window far below it begins to
    /// grow at once.
    fn target(&self, t: u64) -> u64 {
        let (at, plateau) = (self.at(t), self.plateau);
        let distance = at.abs_diff(plateau) / ONE * ONE;
        if at < plateau { plateau - distance } else { plateau + distance }
    }
}

fn scale(segments: u32, by: u64, of: u64) -> u32 {
    u32::try_from(u64::from(segments) * by / of).unwrap_or(u32::MAX)
}

fn segments(window: u64) -> u32 {
    u32::try_from(window / ONE).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 40)
}

/// The largest integer whose cube is at most `value`.
fn cube_root(value: u64) -> u64 {
    let mut root = 0_u64;
    for bit in (0..22).rev() {
        let candidate = root | 1 << bit;
        if candidate.checked_pow(3).is_some_and(|cube| cube <= value) {
            root = candidate;
        }
    }
    root
}
