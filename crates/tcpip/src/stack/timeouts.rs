//! Runs the timers that are due.

use core::net::SocketAddr;

use super::Stack;
use crate::buffer::Memory;
use crate::tcp::listen::Timeout;
use crate::time::Instant;

impl<M: Memory> Stack<M> {
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(index) = self.timers.expire(now) {
            let Some(key) = self.connections.key_at(index) else { continue };
            let Some((connection, mut cx)) = self.connection(now, key) else { continue };
            connection.handle_timeout(&mut cx);
            self.settle(now, key);
        }
        while let Some(index) = self.handshake_timers.expire(now) {
            self.expire_handshake(now, index);
        }
        while let Some(index) = self.time_wait_timers.expire(now) {
            self.counters.tw += 1;
            self.end_time_wait(index);
        }
        self.net.handle_timeout(now);
        self.take_failures(now);
    }

    /// No acknowledgement came: the answer to the SYN is sent again.
    fn expire_handshake(&mut self, now: Instant, index: u32) {
        let config = &self.config.tcp;
        let Some(handshake) = self.handshakes.at_mut(index) else { return };
        let defer_accept = self.listeners.get(handshake.listener).map_or(0, |it| it.options.defer_accept);
        let what = handshake.on_timeout(config, defer_accept);
        if what == Timeout::GiveUp {
            self.counters.attempt_fails += 1;
            self.end_handshake(index);
            return;
        }
        handshake.retries += 1;
        handshake.sent_again(now);
        let (local, remote) = (SocketAddr::from(handshake.local), SocketAddr::from(handshake.remote));
        let (answer, deadline) = (handshake.answer(now), handshake.deadline(config));
        self.handshake_timers.schedule(index, deadline);
        if what == Timeout::Wait {
            return;
        }
        self.counters.retrans_segs += 1;
        self.reply(local, remote, answer);
    }

    /// Segments that never left, because nobody on the link answered for their next hop.
    pub(super) fn take_failures(&mut self, now: Instant) {
        while let Some(error) = self.net.failures() {
            self.receive_error(now, &error);
        }
    }
}
