//! How long a connection was busy, and what held it back meanwhile: TCP_INFO's three times.

use core::time::Duration;

use crate::time::Instant;

/// What a sender waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Waiting {
    /// The sender waits for the application: there is nothing to send, and all is acknowledged.
    #[default]
    Idle,
    /// The sender waits for the network.
    Busy,
    /// The sender waits for the other end's window.
    Window,
    /// The sender waits for room in the send buffer, so that the application can write.
    Buffer,
}

/// The stop-watch (Linux's `tcp_chrono_start`).
#[derive(Debug, Default)]
pub(crate) struct Chrono {
    waiting: Waiting,
    /// When the current wait began, in [`Instant::ticks`].
    since: u32,
    /// Busy, window, buffer; in milliseconds, as Linux counts them.
    times: [u32; 3],
}

/// The times so far, by what was waited for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// The time that the connection was not idle; the other two are parts of it.
    pub(crate) busy: Duration,
    pub(crate) window_limited: Duration,
    pub(crate) buffer_limited: Duration,
}

impl Chrono {
    /// The sender begins to wait for this.
    pub(crate) fn set(&mut self, now: Instant, waiting: Waiting) {
        if waiting != self.waiting {
            self.times = self.millis(now);
            self.waiting = waiting;
            self.since = now.ticks();
        }
    }

    pub(crate) fn read(&self, now: Instant) -> Times {
        let [busy, window_limited, buffer_limited] =
            self.millis(now).map(|millis| Duration::from_millis(u64::from(millis)));
        Times { busy, window_limited, buffer_limited }
    }

    fn millis(&self, now: Instant) -> [u32; 3] {
        let mut times = self.times;
        let past = now.ticks().wrapping_sub(self.since);
        match self.waiting {
            Waiting::Idle => return times,
            Waiting::Busy => {}
            Waiting::Window => times[1] = times[1].wrapping_add(past),
            Waiting::Buffer => times[2] = times[2].wrapping_add(past),
        }
        times[0] = times[0].wrapping_add(past);
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_only_its_own_and_busy_all() {
        let at = Instant::from_millis;
        let mut chrono = Chrono::default();
        chrono.set(at(5), Waiting::Window);
        chrono.set(at(15), Waiting::Busy);
        chrono.set(at(18), Waiting::Idle);
        chrono.set(at(100), Waiting::Buffer);
        let times = chrono.read(at(107));
        assert_eq!(times.window_limited, Duration::from_millis(10));
        assert_eq!(times.buffer_limited, Duration::from_millis(7));
        assert_eq!(times.busy, Duration::from_millis(20));
    }
}
