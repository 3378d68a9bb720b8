//! A connection's timers run out.

use core::time::Duration;

use super::config::Config;
use super::conn::{Connection, Pending};
use super::context::Context;
use super::resources::ALWAYS;
use super::sender::Timer;
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;

/// Memory of a connection that was busy just now stays where it is.
const TIDY_AFTER: Duration = Duration::from_secs(1);

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// Does what is due. Calls before anything is due are harmless.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // The stack asks what can leave after this: no need to be called again for it.
        self.paced &= self.sender.pacer.next_send() > cx.now;
        if self.receiver.ack.deadline.is_some_and(|at| at <= cx.now) {
            let rto = self.sender.rto(cx.config);
            self.receiver.ack.on_timeout(rto);
        }
        match self.sender.timer {
            Timer::Retransmit(at) if at <= cx.now => self.on_retransmission_timeout(cx),
            Timer::TailLoss(at) if at <= cx.now => {
                self.sender.timer = Timer::Retransmit(self.sender.rto_deadline(cx.config, cx.now));
                self.pending = Pending::TailProbe;
            }
            Timer::Reorder(at) if at <= cx.now => self.sender.on_reorder_timeout(cx.config, cx.now),
            Timer::ZeroWindow(at) if at <= cx.now => self.on_probe_timeout(cx),
            _ => {}
        }
        if self.cold.keepalive_at.is_some_and(|at| at <= cx.now) {
            self.on_keepalive_timeout(cx);
        }
        if self.cold.linger_at.is_some_and(|at| at <= cx.now) {
            self.cold.linger_at = None;
            self.end(None);
        }
        if self.tidy_at.is_some_and(|at| at <= cx.now) {
            self.tidy_at = None;
            self.give_memory_back(cx);
        }
    }

    /// Data moved, or was read: a while later the connection may be idle.
    pub(crate) fn tidy_later(&mut self, cx: &Context<'_>) {
        self.tidy_at.get_or_insert(cx.now + TIDY_AFTER);
    }

    fn give_memory_back(&mut self, cx: &Context<'_>) {
        if self.sender.packets_out() > 0 || self.unsent() > 0 {
            self.tidy_later(cx);
        } else {
            self.sender.give_back();
            self.receiver.give_back();
            self.path.give_back();
            self.cold.tidy();
            if self.tx.is_empty() {
                self.tx.shrink();
            }
            if self.rx.readable() == 0 && self.receiver.out_of_order().is_empty() {
                self.rx.shrink();
            }
        }
    }

    /// RFC 6298 section 5.4 to 5.7, RFC 9293 section 3.8.3.
    fn on_retransmission_timeout(&mut self, cx: &mut Context<'_>) {
        self.sender.timer = Timer::Idle;
        match self.state {
            State::SynSent | State::SynReceived => return self.on_syn_timeout(cx),
            _ if self.sender.packets_out() == 0 => return,
            _ => {}
        }
        cx.counters.tcp_timeouts += 1;
        if self.has_timed_out(cx) {
            return self.give_up(cx);
        }
        if self.end_if_unaffordable(cx) {
            return;
        }
        // A receiver that closed its window over data in flight answers probes; RFC 9293 section 3.8.6 wants patience,
        // except from an application that has set its own limit, or that is gone (Linux's `tcp_rtx_probe0_timed_out`).
        let shrunk = self.sender.wnd == 0
            && cx.now - self.heard_at <= cx.config.max_rto * 2
            && self.options.user_timeout.is_none()
            && !self.orphaned;
        self.sender.enter_loss(cx.config, cx.now);
        self.sender.pacer.set_rate(0);
        self.sender.update_pacing();
        if !shrunk {
            self.sender.retransmits = self.sender.retransmits.saturating_add(1);
        }
        self.sender.backoff = self.sender.backoff.saturating_add(1).min(30);
        // Linux has one number for both (`icsk_backoff`).
        self.sender.probe_backoff = self.sender.probe_backoff.saturating_add(1).min(30);
        self.sender.timer = Timer::Retransmit(cx.now + self.sender.rto(cx.config));
    }

    fn on_syn_timeout(&mut self, cx: &mut Context<'_>) {
        cx.counters.tcp_timeouts += 1;
        let retries = match self.state {
            State::SynSent => self.options.syn_retries.unwrap_or(cx.config.syn_retries),
            _ => cx.config.synack_retries,
        };
        let too_long = self.options.user_timeout.is_some_and(|limit| cx.now - self.cold.syn_at >= limit);
        if self.sender.retransmits >= retries || too_long {
            cx.counters.attempt_fails += 1;
            return self.give_up(cx);
        }
        self.sender.retransmits += 1;
        self.sender.backoff = self.sender.backoff.saturating_add(1).min(30);
        self.sender.rtt.on_handshake_timeout();
        // The first time-out is one second; only afterwards is it doubled from there (RFC 6298 section 5.7 changes it for
        // the data that follows, not for the next SYN).
        let rto = Duration::from_secs(1) * (1 << self.sender.backoff.min(20));
        self.sender.timer = Timer::Retransmit(cx.now + rto.min(cx.config.max_rto));
        self.pending = Pending::Syn;
    }

    /// Whether data was sent again for longer than the user, or R2 (RFC 9293 section 3.8.3), allows.
    fn has_timed_out(&self, cx: &Context<'_>) -> bool {
        if self.sender.retransmits == 0 {
            return false;
        }
        let since = self.sender.recovery.losses.retransmitted_at.unwrap_or(cx.now);
        let limit = match self.options.user_timeout {
            Some(limit) => limit,
            None if self.orphaned => backoff_sum(cx.config, cx.config.orphan_retries),
            None => backoff_sum(cx.config, cx.config.retries),
        };
        cx.now - since >= limit
    }

    fn give_up(&mut self, cx: &mut Context<'_>) {
        cx.counters.tcp_abort_on_timeout += 1;
        self.end(Some(self.soft_error.unwrap_or(Error::TimedOut)));
    }

    /// RFC 9293 section 3.8.6.1 (MUST-35 to 37, SHLD-29 and 30).
    fn on_probe_timeout(&mut self, cx: &mut Context<'_>) {
        self.sender.timer = Timer::Idle;
        if self.sender.packets_out() > 0 || (self.unsent() == 0 && !self.fin_unsent()) {
            return;
        }
        // RFC 9293 section 3.8.6.1 (MUST-37) wants patience with a receiver that answers. An application that is gone, or
        // has set its own limit, does not, answers or not (Linux's `tcp_probe_timer`).
        let too_many = if self.orphaned { cx.config.orphan_retries } else { cx.config.retries };
        let worn_out = self.orphaned
            && self.sender.probe_wait(cx.config) >= cx.config.max_rto
            && self.sender.probe_backoff >= cx.config.orphan_retries;
        let too_long = self.options.user_timeout.is_some_and(|limit| {
            let since = *self.cold.probed_since.get_or_insert(cx.now);
            cx.now - since >= limit
        });
        if self.sender.probes >= too_many || worn_out || too_long {
            return self.give_up(cx);
        }
        if self.end_if_unaffordable(cx) {
            return;
        }
        self.sender.probes = self.sender.probes.saturating_add(1);
        self.sender.probe_backoff = self.sender.probe_backoff.saturating_add(1).min(30);
        self.sender.timer = Timer::ZeroWindow(cx.now + self.sender.probe_wait(cx.config));
        self.pending = Pending::WindowProbe;
    }

    /// RFC 9293 section 3.8.4.
    fn on_keepalive_timeout(&mut self, cx: &mut Context<'_>) {
        let config = cx.config;
        let time = self.options.keepalive_time.unwrap_or(config.keepalive_time);
        let interval = self.options.keepalive_interval.unwrap_or(config.keepalive_interval);
        let probes = self.options.keepalive_probes.unwrap_or(config.keepalive_probes);
        if self.sender.packets_out() > 0 || self.unsent() > 0 {
            // Retransmissions and window probes ask the same question.
            self.cold.keepalive_at = Some(cx.now + time);
            return;
        }
        let silent = cx.now - self.heard_at;
        if silent < time {
            self.cold.keepalive_at = Some(self.heard_at + time);
            return;
        }
        let gone = match self.options.user_timeout {
            Some(limit) => silent >= limit && self.keepalive_probes > 0,
            None => self.keepalive_probes >= probes,
        };
        if gone {
            self.reset(cx, Some(self.soft_error.unwrap_or(Error::TimedOut)));
            return;
        }
        cx.counters.tcp_keepalive += 1;
        self.keepalive_probes = self.keepalive_probes.saturating_add(1);
        self.pending = Pending::Keepalive;
        self.cold.keepalive_at = Some(cx.now + interval);
    }

    /// A closed socket for which there is no room (Linux's `tcp_check_oom`). `penalty` halves the limit so many times.
    pub(crate) fn is_unaffordable(&self, cx: &Context<'_>, penalty: u32) -> bool {
        let orphans = u64::from(cx.resources.orphans) << penalty;
        orphans > u64::from(cx.config.max_orphans) || (cx.resources.is_exhausted() && self.tx.len() > ALWAYS)
    }

    /// Ends a closed socket when others need what it holds, at first one that has sent nothing for long, or about which a
    /// router has complained (Linux's `tcp_out_of_resources`). Returns whether it did.
    pub(crate) fn end_if_unaffordable(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.orphaned {
            return false;
        }
        let silent = cx.now - self.sender.sent_at > cx.config.max_rto * 2;
        let penalty = u32::from(silent) + u32::from(self.soft_error.is_some());
        let ends = self.is_unaffordable(cx, penalty);
        if ends {
            cx.counters.tcp_abort_on_memory += 1;
            self.reset(cx, None);
        }
        ends
    }
}

/// How long `retries` retransmissions take from the first on, if the time-out begins at its least (Linux's
/// `tcp_model_timeout`): a bound in time, so that fast connections are not given up sooner.
pub(crate) fn backoff_sum(config: &Config, retries: u8) -> Duration {
    let mut total = Duration::ZERO;
    let mut rto = config.min_rto;
    for _ in 0..=retries {
        total += rto;
        rto = (rto * 2).min(config.max_rto);
    }
    total
}
