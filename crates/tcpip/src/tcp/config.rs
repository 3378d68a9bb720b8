//! What an administrator can set: Linux's sysctls under net.ipv4, with its defaults.

use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use super::congestion::{Algorithm, INITIAL_WINDOW};
use super::ecn::Ecn;
use super::resources::MemoryLimits;
use super::rtt;

/// Settings of all connections of a stack. A field's name is the sysctl's without `tcp_`, or says what Linux has as a
/// constant.
#[derive(Debug, Clone)]
pub struct Config {
    /// The congestion control (congestion_control).
    pub algorithm: Algorithm,
    /// Segments sent before the first acknowledgement (RFC 6928).
    pub initial_window: u32,
    /// The least retransmission time-out (TCP_RTO_MIN); RFC 6298 says one second.
    pub min_rto: Duration,
    /// The largest retransmission time-out (TCP_RTO_MAX).
    pub max_rto: Duration,
    /// How often a SYN is sent again.
    pub syn_retries: u8,
    /// How often a SYN's answer is sent again.
    pub synack_retries: u8,
    /// How often data is sent again before the connection is given up (RFC 1122 section 4.2.3.5's R2).
    pub retries: u8,
    /// The same for a connection that the application has closed.
    pub orphan_retries: u8,
    /// How long a closed connection waits for the other end's FIN.
    pub fin_timeout: Duration,
    /// How long TIME-WAIT lasts. RFC 9293 says two MSL, four minutes; Linux always waits one minute.
    pub time_wait: Duration,
    /// How long a connection is silent before the first keepalive probe.
    pub keepalive_time: Duration,
    /// The time between keepalive probes.
    pub keepalive_interval: Duration,
    /// Probes without answer before the connection is given up.
    pub keepalive_probes: u8,
    /// Selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Duplicates are reported by SACK (RFC 2883).
    pub dsack: bool,
    /// The timestamps option (RFC 7323 section 3).
    pub timestamps: bool,
    /// The window scale option (RFC 7323 section 2).
    pub window_scaling: bool,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: Ecn,
    /// Detection of spurious time-outs by F-RTO (RFC 5682).
    pub frto: bool,
    /// RFC 8985 section 7, tail loss probes (early_retrans).
    pub tail_loss_probe: bool,
    /// The window becomes smaller when nothing was sent for a while (RFC 5681 section 4.1).
    pub slow_start_after_idle: bool,
    /// The least number of segments that leave in one go, if windows allow (min_tso_segs).
    pub min_burst: u32,
    /// Segments leave at an even rate. Linux paces with the fq scheduler or under BBR.
    pub pacing: bool,
    /// Answer a SYN without remembering it when the queue is full.
    pub syn_cookies: bool,
    /// Handshakes under way in all listeners (max_syn_backlog is Linux's limit of one).
    pub max_syn_backlog: u32,
    /// The most that a listener's backlog can be (net.core.somaxconn).
    pub max_backlog: u32,
    /// Connections in TIME-WAIT (max_tw_buckets).
    pub max_time_wait: u32,
    /// Reset a connection for which the accept queue has no room.
    pub abort_on_overflow: bool,
    /// Let `connect` take a port over from TIME-WAIT after this, if timestamps make that safe (RFC 6191; tw_reuse).
    pub time_wait_reuse: Option<Duration>,
    /// How much reordering is expected of the network at first, in segments.
    pub reordering: u32,
    /// The least time between two acknowledgements of segments that are out of window (invalid_ratelimit).
    pub invalid_ratelimit: Duration,
    /// Connections whose sockets are closed and that still have something to send, or wait for the other end's FIN
    /// (max_orphans). Linux takes more of them the more memory there is.
    pub max_orphans: u32,
    /// How much memory the buffers of all connections take (mem).
    pub memory: MemoryLimits,
    /// Send buffer of a new connection, and the most that autotuning makes of it (wmem).
    pub send_buffer: (u32, u32),
    /// Receive buffer of a new connection, and the most that autotuning makes of it. Linux's rmem counts its own
    /// overhead too, of which this is free: bytes here are bytes of the stream.
    pub receive_buffer: (u32, u32),
    /// Whether the receive buffer follows the speed of the connection (moderate_rcvbuf).
    pub moderate_receive_buffer: bool,
    /// Ranges of data that arrived out of order, remembered for each connection.
    pub max_out_of_order: usize,
    /// The smallest segment size that a router or the other end can make us use (min_snd_mss).
    pub min_mss: u16,
    /// Ports given out by `connect` (net.ipv4.ip_local_port_range).
    pub ports: RangeInclusive<u16>,
    /// Unsent bytes above which a socket is not writable (notsent_lowat).
    pub unsent_low_water: u32,
    /// Time to live of what we send.
    pub hop_limit: u8,
    /// Whether segments that were to be expected take a short way, which makes no difference but in time: tests switch it
    /// off to see that.
    pub header_prediction: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            initial_window: INITIAL_WINDOW,
            min_rto: rtt::MIN_RTO,
            max_rto: rtt::MAX_RTO,
            syn_retries: 6,
            synack_retries: 5,
            retries: 15,
            orphan_retries: 8,
            fin_timeout: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            keepalive_time: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            sack: true,
            dsack: true,
            timestamps: true,
            window_scaling: true,
            ecn: Ecn::default(),
            frto: true,
            tail_loss_probe: true,
            slow_start_after_idle: true,
            min_burst: 2,
            pacing: true,
            syn_cookies: true,
            max_syn_backlog: 4096,
            max_backlog: 4096,
            max_time_wait: 262_144,
            abort_on_overflow: false,
            time_wait_reuse: Some(Duration::from_secs(1)),
            reordering: 3,
            invalid_ratelimit: Duration::from_millis(500),
            max_orphans: 65_536,
            memory: MemoryLimits::default(),
            send_buffer: (87_380, 16 << 20),
            receive_buffer: (65_536, 16 << 20),
            moderate_receive_buffer: true,
            max_out_of_order: 1024,
            min_mss: 48,
            ports: 32_768..=60_999,
            unsent_low_water: u32::MAX,
            hop_limit: 64,
            header_prediction: true,
        }
    }
}

impl Config {
    /// The largest segment in a packet of that size.
    pub(crate) fn segment_size(&self, remote: IpAddr, mtu: u32) -> u16 {
        u16::try_from(mtu.saturating_sub(header_len(remote))).unwrap_or(u16::MAX).max(self.min_mss)
    }
}

/// Bytes of the headers of IP and TCP, without options.
pub(crate) fn header_len(remote: IpAddr) -> u32 {
    if remote.is_ipv4() { 40 } else { 60 }
}
