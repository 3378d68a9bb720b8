//! Puts connections on the lists where they belong, and removes them.

use core::net::SocketAddr;

use super::demux::Flow;
use super::{Event, ListenerId, SocketId, Stack};
use crate::buffer::{Memory, ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::slab::Key;
use crate::tcp::conn::Events;
use crate::tcp::context::Reply;
use crate::tcp::input::Segment;
use crate::tcp::state::State;
use crate::tcp::timewait::TimeWait;
use crate::time::Instant;
use crate::wheel::Wheel;
use crate::wire::tcp::Header;

impl<M: Memory> Stack<M> {
    /// Something happened to a connection: puts it where it belongs now.
    pub(super) fn settle(&mut self, now: Instant, key: Key) {
        let Self { connections, resources, config, counters, .. } = self;
        let Some(connection) = connections.get_mut(key) else { return };
        let index = key.index();
        let memory = connection.memory();
        let pressure = resources.recharge(&config.tcp.memory, &mut connection.charged, memory);
        counters.tcp_memory_pressures += u64::from(pressure);
        match connection.state {
            State::TimeWait => {
                self.begin_time_wait(now, key);
                return self.settle_closed(key);
            }
            State::Closed => return self.settle_closed(key),
            _ => {}
        }
        if !connection.events.is_empty() && !connection.orphaned && connection.listener.is_none() {
            self.eventful.push(index);
        }
        schedule(&mut self.timers, index, connection.deadline());
        self.ready.push(index);
    }

    fn settle_closed(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let index = key.index();
        let (local, remote) =
            (SocketAddr::from(connection.ends.local()), SocketAddr::from(connection.ends.remote()));
        let keep = !connection.orphaned;
        if keep && !connection.events.is_empty() && connection.listener.is_none() {
            self.eventful.push(index);
        }
        self.flows.remove(local, remote, Flow::Connection(index));
        self.timers.cancel(index);
        self.ready.remove(index);
        if !keep {
            self.eventful.remove(index);
            self.starved.remove(index);
            if let Some(mut connection) = self.connections.remove(key) {
                self.resources.recharge(&self.config.tcp.memory, &mut connection.charged, 0);
                self.resources.orphans -= 1;
                self.memory.close(connection.tx, connection.rx);
            }
        }
    }

    /// The connection is over but for TIME-WAIT, which a smaller thing looks after; the application may still read.
    fn begin_time_wait(&mut self, now: Instant, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (local, remote) =
            (SocketAddr::from(connection.ends.local()), SocketAddr::from(connection.ends.remote()));
        let window = connection.receiver.window() >> connection.receiver.wscale;
        let rest = TimeWait {
            local: local.into(),
            remote: remote.into(),
            snd_nxt: connection.sender.nxt,
            rcv_nxt: connection.receiver.nxt,
            window: u16::try_from(window).unwrap_or(u16::MAX),
            clock: connection.clock,
            next_answer: Instant::ZERO,
        };
        // The FIN is acknowledged now.
        let echo = connection.sender.ecn.echo_flags();
        let answer = connection.receiver.ack.now.then(|| {
            let header = rest.acknowledge(now);
            Header { flags: header.flags | echo, ..header }
        });
        connection.end(None);
        self.flows.remove(local, remote, Flow::Connection(key.index()));
        if let Some(header) = answer {
            self.reply(local, remote, header);
        }
        if self.time_waits.len() >= self.config.tcp.max_time_wait as usize {
            self.counters.tcp_time_wait_overflow += 1;
            return;
        }
        let index = self.time_waits.insert(rest).index();
        self.flows.insert(local, remote, Flow::TimeWait(index));
        self.time_wait_timers.schedule(index, now + self.config.tcp.time_wait);
    }

    pub(super) fn end_time_wait(&mut self, index: u32) {
        let Some(key) = self.time_waits.key_at(index) else { return };
        let Some(rest) = self.time_waits.remove(key) else { return };
        self.time_wait_timers.cancel(index);
        self.flows.remove(rest.local.into(), rest.remote.into(), Flow::TimeWait(index));
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        if let Some(listener) = self.acceptable.pop_front() {
            return Some(Event::Acceptable(ListenerId(listener)));
        }
        self.feed();
        while let Some(index) = self.eventful.pop() {
            let Some(key) = self.connections.key_at(index) else { continue };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let event = connection.events.take();
            if !connection.events.is_empty() {
                self.eventful.push(index);
            }
            let id = SocketId(key);
            let event = match event {
                Events::CONNECTED => Event::Connected(id),
                Events::URGENT => Event::Urgent(id),
                Events::READABLE => Event::Readable(id),
                Events::WRITABLE => Event::Writable(id),
                Events::HUNG_UP => Event::HungUp(id),
                Events::FAILED => Event::Failed(id, connection.error.unwrap_or(Error::ConnectionReset)),
                Events::CLOSED => Event::Closed(id),
                _ => continue,
            };
            return Some(event);
        }
        None
    }

    /// Memory is free again: the next application that wanted to write is told.
    fn feed(&mut self) {
        while !self.resources.is_exhausted()
            && let Some(index) = self.starved.pop()
        {
            let Some(key) = self.connections.key_at(index) else { continue };
            // What is asked does not depend on the time.
            let Some((connection, cx)) = self.connection(Instant::ZERO, key) else { continue };
            if connection.wake_writer(&cx) {
                self.eventful.push(index);
                return;
            }
        }
    }

    /// Panics if a connection's variables do not agree with each other. For simulators and fuzzers, which call it after
    /// each event.
    pub fn check_invariants(&self) {
        for (_, connection) in self.connections.iter() {
            connection.check_invariants();
        }
    }

    /// Answers a segment that belongs to no connection.
    pub(super) fn reply_with_reset(&mut self, local: SocketAddr, remote: SocketAddr, segment: &Segment<'_>) {
        self.counters.out_rsts += 1;
        let reply = Reply::reset(local, remote, segment.header, segment.len());
        self.reply(local, remote, reply.header);
    }

    /// Queues a segment that belongs to no connection.
    pub(super) fn reply(&mut self, local: SocketAddr, remote: SocketAddr, header: Header) {
        if !self.replies.push(Reply { local, remote, header }) {
            self.counters.replies_dropped += 1;
        }
    }
}

/// Makes sure that the wheel wakes a connection by its deadline. One that moved away is left where it was: most do so
/// again and again, and to be woken once for nothing is cheaper.
pub(super) fn schedule(timers: &mut Wheel, index: u32, deadline: Option<Instant>) {
    if let Some(at) = deadline
        && timers.deadline(index).is_none_or(|set| at < set)
    {
        timers.schedule(index, at);
    }
}

impl<S: SendBuffer, R: ReceiveBuffer> crate::tcp::conn::Connection<S, R> {
    pub(super) fn check_invariants(&self) {
        let sender = &self.sender;
        assert!(sender.una.at_or_before(sender.nxt), "SND.UNA is not beyond SND.NXT");
        sender.scoreboard.check_invariants(sender.una, sender.nxt, sender.sack);
        assert!(sender.control.cwnd() >= 1, "a window of one segment at least");
        if self.state.can_transmit() {
            let flight = sender.nxt.since(sender.una) as usize;
            assert!(flight <= self.tx.len() + 1, "all that is in flight is still held");
            if let Some(end) = self.cold.urgent_end {
                assert!(end.after(sender.una), "urgent data is not acknowledged yet");
                assert!(end.at_or_before(self.data_end()), "urgent data was written");
            }
            if sender.packets_out() > 0 {
                assert!(sender.timer.deadline().is_some(), "a timer runs while data is in flight");
            }
        }
        assert!(self.rx.readable() <= self.rx.capacity(), "no more is stored than fits");
        let receiver = &self.receiver;
        if let Some((start, _)) = receiver.out_of_order().first() {
            assert!(start.after(receiver.nxt), "what is out of order lies beyond RCV.NXT");
        }
        if let Some((_, end)) = receiver.out_of_order().last() {
            assert!(
                end.since(receiver.nxt) as usize <= self.rx.free(),
                "what is out of order lies in the buffer"
            );
        }
    }
}
