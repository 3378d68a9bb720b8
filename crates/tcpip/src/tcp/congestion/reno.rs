//! NewReno's window: RFC 5681 section 3.1. What RFC 6582 adds happens in loss recovery, which all algorithms share.

use alloc::boxed::Box;

use super::{Ack, Congestion, Event, Phase, Snapshot, Window};
use crate::time::Instant;

/// Additive increase, and half the window on congestion.
#[derive(Debug, Clone, Default)]
pub struct NewReno;

impl Congestion for NewReno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_ack(&mut self, window: &mut Window, ack: &Ack) {
        let mut delivered = ack.delivered;
        if window.in_slow_start() {
            delivered = window.slow_start(delivered);
        }
        if delivered > 0 {
            window.avoid(window.cwnd, delivered);
        }
    }

    fn on_congestion(&mut self, window: &Window, _event: Event, _now: Instant) -> u32 {
        // RFC 5681 equation 4 takes the flight size; Linux takes the window, which does not fall further than the
        // sender uses it (`Controller::on_transmit`).
        (window.cwnd / 2).max(2)
    }

    fn snapshot(&self, window: &Window) -> Snapshot {
        Snapshot {
            name: self.name(),
            phase: if window.in_slow_start() { Phase::SlowStart } else { Phase::Avoidance },
            cwnd: window.cwnd,
            ssthresh: window.ssthresh,
            cubic: None,
        }
    }

    fn fresh(&self) -> Box<dyn Congestion> {
        Box::new(Self)
    }
}
