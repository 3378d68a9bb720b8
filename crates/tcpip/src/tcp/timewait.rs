//! TIME-WAIT (RFC 9293 section 3.6.1): a connection that is over, remembered so that its late segments do no harm.

use core::net::SocketAddr;

use super::config::Config;
use super::conn::Clock;
use super::context::{bare, may_answer_invalid};
use super::endpoint::Endpoint;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header, Options};

/// What is left of it.
#[derive(Debug, Clone)]
pub(crate) struct TimeWait {
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) snd_nxt: SeqNumber,
    pub(crate) rcv_nxt: SeqNumber,
    pub(crate) window: u16,
    pub(crate) clock: Option<Clock>,
    /// When a segment may be answered again.
    pub(crate) next_answer: Instant,
}

/// What a segment for a connection in TIME-WAIT asks for.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The segment is ignored.
    Ignore,
    /// The wait begins anew.
    Restart,
    /// TIME-WAIT goes on, and the segment is acknowledged.
    Acknowledge(Header),
    /// TIME-WAIT ends at once.
    End,
    /// A new connection may take its place, if it begins with this number (RFC 9293 section 3.6.1, RFC 6191).
    Reopen(SeqNumber),
}

impl TimeWait {
    /// Linux's `tcp_timewait_state_process`.
    pub(crate) fn handle(&mut self, config: &Config, now: Instant, header: &Header, len: u32) -> Verdict {
        let stamps = header.options.timestamps;
        let old = match (&self.clock, stamps) {
            (Some(clock), Some(stamps)) => clock.is_old(now, stamps.value),
            _ => false,
        };
        let reset = header.flags.contains(Flags::RST);
        let ack = header.flags.contains(Flags::ACK);
        if !old && header.seq == self.rcv_nxt && (len == 0 || reset) {
            if reset {
                // RFC 1337 warns of this; Linux's tcp_rfc1337 is off.
                return Verdict::End;
            }
            if let (Some(clock), Some(stamps)) = (&mut self.clock, stamps) {
                clock.update(now, stamps.value);
            }
            return Verdict::Restart;
        }
        let newer = match (&self.clock, stamps) {
            (Some(clock), Some(stamps)) => (stamps.value.wrapping_sub(clock.recent) as i32) > 0,
            _ => false,
        };
        if header.flags.contains(Flags::SYN)
            && !reset
            && !ack
            && !old
            && (header.seq.after(self.rcv_nxt) || newer)
        {
            return Verdict::Reopen(self.next_sequence());
        }
        if reset {
            return Verdict::Ignore;
        }
        // What takes up numbers, and is no SYN, is no acknowledgement, so that no loop comes of it.
        let limited = len == 0 || header.flags.contains(Flags::SYN);
        if limited && !may_answer_invalid(&mut self.next_answer, config.invalid_ratelimit, now) {
            return if old || ack { Verdict::Restart } else { Verdict::Ignore };
        }
        Verdict::Acknowledge(self.acknowledge(now))
    }

    /// Behind all that was sent, and that may still be on its way.
    pub(crate) fn next_sequence(&self) -> SeqNumber {
        self.snd_nxt + 65_535 + 2
    }

    pub(crate) fn acknowledge(&self, now: Instant) -> Header {
        let (local, remote) = (SocketAddr::from(self.local), SocketAddr::from(self.remote));
        Header {
            window: self.window,
            options: Options { timestamps: self.clock.map(|clock| clock.stamps(now)), ..Options::default() },
            ..bare(local, remote, self.snd_nxt, self.rcv_nxt, Flags::ACK)
        }
    }
}
