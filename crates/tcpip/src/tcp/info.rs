//! TCP_INFO: what Linux shows of a connection, with its layout and meaning.

use core::time::Duration;

use super::conn::Connection;
use super::context::Context;
use super::sender::Timer;
use super::state::State;
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::time::Instant;

/// Declares the fields of `struct tcp_info` behind its first eight bytes, and how they are laid out.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// `struct tcp_info`; a field is Linux's `tcpi_` of that name. Times are in microseconds, except that
        /// `last_*` are in milliseconds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Info {
            /// The state of the connection, by its number ([`State`]).
            pub state: u8,
            /// The state of loss recovery ([`CongestionState`](super::state::CongestionState)).
            pub ca_state: u8,
            /// Time-outs since the last progress.
            pub retransmits: u8,
            /// Probes of a closed window without answer, or keepalive probes.
            pub probes: u8,
            /// Doublings of the time-out.
            pub backoff: u8,
            /// Bits: 1 timestamps, 2 SACK, 4 window scale, 8 ECN.
            pub options: u8,
            /// Shift of the other end's windows.
            pub snd_wscale: u8,
            /// Shift of our windows.
            pub rcv_wscale: u8,
            /// The rate was limited by the application.
            pub delivery_rate_app_limited: bool,
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Info {
            /// The bytes that getsockopt(2) gives, as of Linux 6.18.
            pub fn to_bytes(&self) -> [u8; Self::LEN] {
                let mut bytes = [0; Self::LEN];
                bytes[..8].copy_from_slice(&[
                    self.state,
                    self.ca_state,
                    self.retransmits,
                    self.probes,
                    self.backoff,
                    self.options,
                    self.snd_wscale & 15 | self.rcv_wscale << 4,
                    self.delivery_rate_app_limited.into(),
                ]);
                let mut at = 8;
                $(
                    let field = self.$name.to_ne_bytes();
                    bytes[at..at + field.len()].copy_from_slice(&field);
                    at += field.len();
                )*
                debug_assert!(at <= Self::LEN);
                bytes
            }
        }

        const _: () = assert!(8 $(+ size_of::<$type>())* == Info::USED);
    };
}

impl Info {
    /// The size of `struct tcp_info`: behind what is filled in follow the counters of accurate ECN.
    pub const LEN: usize = 280;
    const USED: usize = 248;
}

fields! {
    /// The retransmission time-out.
    rto: u32,
    /// How long an acknowledgement is delayed.
    ato: u32,
    /// Bytes of data in a full segment.
    snd_mss: u32,
    /// The size of the other end's segments.
    rcv_mss: u32,
    /// Segments in flight, and those known to be elsewhere.
    unacked: u32,
    /// Of those, selectively acknowledged.
    sacked: u32,
    /// Of those, taken for lost.
    lost: u32,
    /// Of those, sent again and not known to be lost again.
    retrans: u32,
    /// Not used any more.
    fackets: u32,
    /// Since data was sent.
    last_data_sent: u32,
    /// Not remembered, as in Linux.
    last_ack_sent: u32,
    /// Milliseconds since data arrived last.
    last_data_recv: u32,
    /// Milliseconds since anything arrived last.
    last_ack_recv: u32,
    /// The path's MTU.
    pmtu: u32,
    /// The limit of the receive window.
    rcv_ssthresh: u32,
    /// Smoothed round-trip time.
    rtt: u32,
    /// The mean deviation of the round-trip time.
    rttvar: u32,
    /// Below it the window grows by slow start.
    snd_ssthresh: u32,
    /// Segments that may be in flight.
    snd_cwnd: u32,
    /// The largest segment that we announced to take.
    advmss: u32,
    /// Reordering expected, in segments.
    reordering: u32,
    /// The round-trip time as the receiver sees it.
    rcv_rtt: u32,
    /// What the application took in a round trip.
    rcv_space: u32,
    /// Segments sent again.
    total_retrans: u32,
    /// Bytes a second.
    pacing_rate: u64,
    /// Bytes a second.
    max_pacing_rate: u64,
    /// Bytes acknowledged.
    bytes_acked: u64,
    /// Bytes received in order.
    bytes_received: u64,
    /// Segments sent.
    segs_out: u32,
    /// Segments received.
    segs_in: u32,
    /// Bytes never sent.
    notsent_bytes: u32,
    /// The least round-trip time.
    min_rtt: u32,
    /// Segments received with data.
    data_segs_in: u32,
    /// Segments sent with data.
    data_segs_out: u32,
    /// Bytes a second.
    delivery_rate: u64,
    /// How long there was something to send.
    busy_time: u64,
    /// Of that, limited by the other end's window.
    rwnd_limited: u64,
    /// Of that, limited by the send buffer.
    sndbuf_limited: u64,
    /// Segments delivered.
    delivered: u32,
    /// Of those, marked by the network.
    delivered_ce: u32,
    /// Bytes sent, each time they were.
    bytes_sent: u64,
    /// Of those, sent again.
    bytes_retrans: u64,
    /// Duplicates that the other end reported.
    dsack_dups: u32,
    /// How often reordering was seen.
    reord_seen: u32,
    /// Segments that arrived out of order.
    rcv_ooopack: u32,
    /// The other end's window.
    snd_wnd: u32,
    /// The window that we have announced.
    rcv_wnd: u32,
    /// Changes of the path's hash.
    rehash: u32,
    /// Time-outs in all.
    total_rto: u16,
    /// Recoveries from time-outs.
    total_rto_recoveries: u16,
    /// Milliseconds spent in those.
    total_rto_time: u32,
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn millis_since(now: Instant, then: Instant) -> u32 {
    u32::try_from((now - then).as_millis()).unwrap_or(u32::MAX)
}

/// What a socket is ready for: poll(2)'s bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// POLLIN: there is something to read, or the end of the stream.
    pub readable: bool,
    /// POLLOUT: there is room, or an error to be told.
    pub writable: bool,
    /// POLLRDHUP: nothing more will arrive.
    pub read_closed: bool,
    /// POLLHUP: nothing more can go either way.
    pub hung_up: bool,
    /// POLLERR: an error waits.
    pub failed: bool,
    /// POLLPRI: the urgent byte has arrived.
    pub urgent: bool,
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    pub(crate) fn info(&self, cx: &Context<'_>) -> Info {
        let (sender, receiver) = (&self.sender, &self.receiver);
        let probes =
            if matches!(sender.timer, Timer::ZeroWindow(_)) { sender.probes } else { self.keepalive_probes };
        let times = sender.chrono.read(cx.now);
        let rate = sender.rate.last();
        Info {
            state: self.state as u8,
            ca_state: sender.recovery.state as u8,
            retransmits: sender.retransmits,
            probes,
            backoff: sender.backoff.max(sender.probe_backoff),
            options: u8::from(self.clock.is_some())
                | u8::from(sender.sack) << 1
                | u8::from(receiver.scaled) << 2
                | sender.ecn.info(),
            snd_wscale: sender.wscale,
            rcv_wscale: receiver.wscale,
            delivery_rate_app_limited: rate.is_some_and(|sample| sample.app_limited),
            rto: micros(sender.rto(cx.config)),
            ato: receiver.ack.delay.get(),
            snd_mss: sender.mss.into(),
            rcv_mss: receiver.ack.mss.into(),
            unacked: sender.packets_out(),
            sacked: sender.scoreboard.sacked_out(),
            lost: sender.scoreboard.lost_out(),
            retrans: sender.scoreboard.retransmitted_out(),
            fackets: 0,
            last_data_sent: millis_since(cx.now, sender.sent_at),
            last_ack_sent: 0,
            last_data_recv: millis_since(cx.now, receiver.ack.received_at),
            last_ack_recv: millis_since(cx.now, self.heard_at),
            pmtu: self.path.mtu(),
            rcv_ssthresh: receiver.limit,
            rtt: sender.rtt.srtt().map_or(0, micros),
            rttvar: micros(sender.rtt.rttvar()),
            snd_ssthresh: sender.control.ssthresh(),
            snd_cwnd: sender.control.cwnd(),
            advmss: receiver.advertised_mss.into(),
            reordering: sender.recovery.reordering,
            rcv_rtt: micros(receiver.tune.rtt()),
            rcv_space: receiver.tune.space(),
            total_retrans: sender.recovery.losses.total_retransmits,
            pacing_rate: sender.pacer.rate(),
            max_pacing_rate: self.options.max_pacing_rate.unwrap_or(u64::MAX),
            bytes_acked: sender.counters.bytes_acked,
            bytes_received: receiver.bytes,
            segs_out: sender.counters.segments_out,
            segs_in: receiver.segments_in,
            notsent_bytes: self.unsent(),
            min_rtt: sender.min_rtt.get().map_or(u32::MAX, micros),
            data_segs_in: receiver.data_segments_in,
            data_segs_out: sender.counters.data_segments_out,
            delivery_rate: rate.map_or(0, |sample| sample.bytes_per_second(sender.mss.into())),
            busy_time: times.busy.as_micros() as u64,
            rwnd_limited: times.window_limited.as_micros() as u64,
            sndbuf_limited: times.buffer_limited.as_micros() as u64,
            delivered: sender.rate.delivered(),
            delivered_ce: 0,
            bytes_sent: sender.counters.bytes_sent,
            bytes_retrans: sender.recovery.losses.bytes_retransmitted,
            dsack_dups: sender.recovery.losses.dsack_duplicates,
            reord_seen: sender.recovery.losses.reordering_seen,
            rcv_ooopack: 0,
            snd_wnd: sender.wnd,
            rcv_wnd: receiver.window(),
            rehash: 0,
            total_rto: 0,
            total_rto_recoveries: 0,
            total_rto_time: 0,
        }
    }

    /// Linux's `tcp_poll`.
    pub(crate) fn readiness(&self, cx: &Context<'_>) -> Readiness {
        let connecting = matches!(self.state, State::SynSent | State::SynReceived);
        let over = self.state == State::Closed;
        let ended = self.read_closed || self.has_fin() || over;
        // The urgent byte alone is nothing to read.
        let kept_out = usize::from(self.at_mark() && !self.options.oob_inline);
        Readiness {
            readable: self.rx.readable() > kept_out || (ended && !connecting),
            writable: !connecting && (self.fin_queued || over || self.is_writable(cx)),
            read_closed: ended,
            hung_up: over || (ended && self.fin_queued),
            failed: self.error.is_some(),
            urgent: self.has_urgent_byte(),
        }
    }

    /// Whether the other end's FIN has arrived in its turn.
    pub(crate) fn has_fin(&self) -> bool {
        self.receiver.fin.is_some_and(|fin| fin.before(self.receiver.nxt))
    }
}
