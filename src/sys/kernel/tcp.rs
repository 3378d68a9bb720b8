//! Where a TCP connection is in its stream (tcp(7), TCP_INFO).

use super::sockets::{at_mark, poll_now, queued, sockopt};
use crate::error::Errno;
use core::ffi::c_int;
use core::mem::size_of;

/// The head of `struct tcp_info` (linux/tcp.h) that we need.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    state: u8,
    _before: [u8; 127],
    bytes_received: u64,
    _between: [u8; 8],
    notsent_bytes: u32,
    _after: [u8; 52],
    bytes_sent: u64,
    bytes_retrans: u64,
}

const _: () = assert!(core::mem::offset_of!(TcpInfo, bytes_received) == 128);

const _: () = assert!(core::mem::offset_of!(TcpInfo, notsent_bytes) == 144);

const _: () = assert!(core::mem::offset_of!(TcpInfo, bytes_sent) == 200);

/// Where a connection is, according to the kernel: the referee of both byte positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpPosition {
    /// `TCP_ESTABLISHED` (1) and so on.
    pub(crate) state: u8,
    /// Bytes that the program side has put in.
    pub(crate) written: u64,
    /// Bytes that have arrived, read or not.
    pub(crate) received: u64,
}

impl TcpPosition {
    /// Bytes that have arrived, without the one that a FIN counts for.
    pub(crate) fn data_received(&self) -> u64 {
        // include/net/tcp_states.h
        const TIME_WAIT: u8 = 6;
        const CLOSE_WAIT: u8 = 8;
        const LAST_ACK: u8 = 9;
        const CLOSING: u8 = 11;
        let ended = matches!(self.state, TIME_WAIT | CLOSE_WAIT | LAST_ACK | CLOSING);
        self.received.saturating_sub(u64::from(ended))
    }
}

pub(crate) const TCP_ESTABLISHED: u8 = 1;

pub(crate) const TCP_CLOSE: u8 = 7;

pub(crate) const TCP_CLOSE_WAIT: u8 = 8;

/// One TCP_INFO: two would race with each other.
pub(crate) fn tcp_position(fd: c_int) -> Result<TcpPosition, Errno> {
    let empty = TcpInfo {
        state: 0,
        _before: [0; 127],
        bytes_received: 0,
        _between: [0; 8],
        notsent_bytes: 0,
        _after: [0; 52],
        bytes_sent: 0,
        bytes_retrans: 0,
    };
    let info = sockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, empty)?;
    Ok(info.position())
}

/// Bytes that the program side has taken: what arrived less what waits, between two looks that agree; in a state of the
/// connection that `is_right`. `None`: it cannot be told, or the state is another.
pub(crate) fn reading_position(fd: c_int, is_right: impl Fn(u8) -> bool) -> Option<u64> {
    // Of what waits, the kernel shows only what comes before an urgent mark.
    let is_divided = || poll_now(fd, libc::POLLPRI) & libc::POLLPRI != 0 || at_mark(fd);
    if is_divided() {
        return None;
    }
    for _ in 0..16 {
        let before = tcp_position(fd).ok()?;
        let waiting = queued(fd).ok()?;
        let after = tcp_position(fd).ok()?;
        if !is_right(before.state) {
            return None;
        }
        if before.received == after.received && after.state == before.state {
            // It may have become so meanwhile.
            return before.data_received().checked_sub(waiting as u64).filter(|_| !is_divided());
        }
    }
    None
}

/// [`tcp_position`] from the bytes of a `struct tcp_info`; `None` when the kernel gave too few.
pub(crate) fn tcp_position_from(bytes: &[u8]) -> Option<TcpPosition> {
    let bytes = bytes.get(..size_of::<TcpInfo>())?;
    // SAFETY: as many bytes as a TcpInfo has, for which every bit pattern is valid.
    let info = unsafe { bytes.as_ptr().cast::<TcpInfo>().read_unaligned() };
    Some(info.position())
}

impl TcpInfo {
    fn position(&self) -> TcpPosition {
        TcpPosition {
            state: self.state,
            written: self
                .bytes_sent
                .wrapping_sub(self.bytes_retrans)
                .wrapping_add(u64::from(self.notsent_bytes)),
            received: self.bytes_received,
        }
    }
}
