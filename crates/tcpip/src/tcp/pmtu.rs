//! What routers report: a path that takes smaller packets only (RFC 1191, RFC 8201), and destinations that cannot be
//! reached (RFC 9293 section 3.9.2.2).

use super::config::header_len;
use super::conn::Connection;
use super::context::Context;
use super::state::{CongestionState, State};
use crate::buffer::{ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::icmp::ErrorKind;

/// RFC 1191 section 7.1: MTUs that links have, for routers that do not say theirs.
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// The next smaller one.
pub(crate) fn next_plateau(size: u32) -> u32 {
    PLATEAUS.into_iter().find(|&plateau| plateau < size).unwrap_or(68)
}

/// What an ICMP error is for an application.
pub(crate) fn error_of(kind: ErrorKind) -> Option<Error> {
    Some(match kind {
        ErrorKind::NetUnreachable => Error::NetworkUnreachable,
        ErrorKind::HostUnreachable => Error::HostUnreachable,
        ErrorKind::PortUnreachable => Error::ConnectionRefused,
        ErrorKind::ProtocolUnreachable => Error::ProtocolNotAvailable,
        ErrorKind::TooBig { .. } => return None,
        _ => Error::HostUnreachable,
    })
}

impl<S: SendBuffer, R: ReceiveBuffer> Connection<S, R> {
    /// The size of a full packet now.
    pub(crate) fn packet_size(&self) -> u32 {
        u32::from(self.path_mss) + header_len(self.ends.remote().ip())
    }

    /// The path takes packets of that size.
    pub(crate) fn set_path_mtu(&mut self, cx: &mut Context<'_>, mtu: u32) {
        let path_mss = cx.config.segment_size(self.ends.remote().ip(), mtu);
        if path_mss == self.path_mss {
            return;
        }
        self.path_mss = path_mss;
        let before = self.sender.mss;
        self.update_mss(cx.config);
        if self.sender.mss < before && self.state.is_synchronized() {
            self.retransmit_too_big();
        }
    }

    /// What was sent in packets that are too big is sent again at once. That is no congestion: the window stays (Linux's
    /// `tcp_simple_retransmit`).
    fn retransmit_too_big(&mut self) {
        let mss = u32::from(self.sender.mss);
        let too_big = self
            .sender
            .scoreboard
            .indices_where(|record| !record.is_sacked() && record.end.since(record.start) > mss + 1);
        if too_big.is_empty() {
            return;
        }
        for index in too_big {
            self.sender.take_for_lost(index);
        }
        self.sender.scoreboard.split(mss);
        if self.sender.recovery.state != CongestionState::Loss {
            self.sender.recovery.high_seq = self.sender.nxt;
            self.sender.recovery.losses.undo_marker = None;
            self.sender.recovery.losses.frto = false;
            self.sender.recovery.state = CongestionState::Loss;
        }
    }

    /// RFC 9293 section 3.9.2.2: hard errors end the attempt to connect, and are remembered otherwise. Linux takes every
    /// one so, because RFC 5927 shows how easily they are forged.
    pub(crate) fn on_icmp_error(&mut self, cx: &mut Context<'_>, error: Error) {
        match self.state {
            State::SynSent | State::SynReceived => {
                cx.counters.attempt_fails += 1;
                self.end(Some(error));
            }
            _ => self.soft_error = Some(error),
        }
    }
}
