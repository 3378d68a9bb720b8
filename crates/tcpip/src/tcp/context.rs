//! What a connection needs from the stack while it works on something.

use alloc::collections::VecDeque;
use core::net::SocketAddr;
use core::time::Duration;

use super::config::Config;
use super::resources::Resources;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header};

/// Passed down with each call.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) replies: &'a mut Replies,
    pub(crate) resources: &'a mut Resources,
    pub(crate) counters: &'a mut TcpCounters,
}

/// A segment that belongs to no connection, or not to its stream: resets, and answers from the handshake and from
/// TIME-WAIT.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) header: Header,
}

/// Replies that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Replies(VecDeque<Reply>);

impl Replies {
    /// As many as a link can be expected to take at once; what is more is dropped, as a full queue would.
    const MAX: usize = 1024;

    pub(crate) fn push(&mut self, reply: Reply) -> bool {
        let fits = self.0.len() < Self::MAX;
        if fits {
            self.0.push_back(reply);
        }
        fits
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Reply> {
        self.0.pop_front()
    }
}

impl Reply {
    /// RFC 9293 section 3.10.7.1: the reset that answers a segment which belongs to no connection.
    pub(crate) fn reset(local: SocketAddr, remote: SocketAddr, header: &Header, len: u32) -> Self {
        let (seq, ack, flags) = if header.flags.contains(Flags::ACK) {
            (header.ack, SeqNumber::new(0), Flags::RST)
        } else {
            (SeqNumber::new(0), header.seq + len, Flags::RST | Flags::ACK)
        };
        Self { local, remote, header: bare(local, remote, seq, ack, flags) }
    }
}

/// A header without window and options.
pub(crate) fn bare(
    local: SocketAddr,
    remote: SocketAddr,
    seq: SeqNumber,
    ack: SeqNumber,
    flags: Flags,
) -> Header {
    Header {
        src_port: local.port(),
        dst_port: remote.port(),
        seq,
        ack,
        flags,
        window: 0,
        urgent: 0,
        options: crate::wire::tcp::Options::default(),
    }
}

/// Whether the last answer to an invalid segment is long enough ago (Linux's `tcp_oow_rate_limited`). `next` is when the
/// next one may leave.
pub(crate) fn may_answer_invalid(next: &mut Instant, limit: Duration, now: Instant) -> bool {
    if now < *next {
        return false;
    }
    *next = now + limit;
    true
}

/// What happened in all connections: Linux's SNMP counters by their names there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "Linux's names in /proc/net/snmp and /proc/net/netstat")]
pub struct TcpCounters {
    pub active_opens: u64,
    pub passive_opens: u64,
    pub attempt_fails: u64,
    pub estab_resets: u64,
    pub in_segs: u64,
    pub out_segs: u64,
    pub retrans_segs: u64,
    pub in_errs: u64,
    pub out_rsts: u64,
    pub syncookies_sent: u64,
    pub syncookies_recv: u64,
    pub syncookies_failed: u64,
    pub tw: u64,
    pub tw_recycled: u64,
    pub paws_estab_rejected: u64,
    pub listen_overflows: u64,
    pub listen_drops: u64,
    pub tcp_timeouts: u64,
    pub tcp_loss_probes: u64,
    pub tcp_challenge_ack: u64,
    pub tcp_syn_challenge: u64,
    pub tcp_abort_on_data: u64,
    pub tcp_abort_on_close: u64,
    pub tcp_abort_on_timeout: u64,
    pub tcp_abort_on_memory: u64,
    pub tcp_memory_pressures: u64,
    pub tcp_keepalive: u64,
    pub tcp_win_probe: u64,
    pub tcp_hp_hits: u64,
    pub tcp_hp_acks: u64,
    pub tcp_ofo_queue: u64,
    pub tcp_ofo_drop: u64,
    pub tcp_time_wait_overflow: u64,
    pub replies_dropped: u64,
}
