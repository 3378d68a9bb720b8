//! Why a connection runs where it runs.

use core::ffi::{CStr, c_uint};

/// The reason code of a descriptor; the numbers are part of the C ABI and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Reason {
    /// Nothing stands against a pipe; the connection has not transferred enough yet.
    Undecided = 0,
    /// The connection is on a pipe.
    Pipe = 1,
    /// The descriptor is not a TCP stream socket.
    NotTcp = 2,
    /// Not connected (listening, or not yet).
    NotConnected = 3,
    /// The peer is not on this machine (or in another network namespace).
    Remote = 4,
    /// The peer has not come to the pipe: its process does not run on sockshim, or cannot use this rendezvous folder.
    PeerWithout = 5,
    /// `SOCKSHIM_PATH=host`.
    Configured = 6,
    /// Pinned with `sockshim_pin_host`.
    PinnedByProgram = 7,
    /// The rendezvous folder cannot be used.
    NoFolder = 8,
    /// The segment could not be made or had another version or a damaged header.
    BadSegment = 9,
    /// No memory left in the rendezvous folder's file system.
    NoMemory = 10,
    /// A table of sockshim is full.
    TableFull = 11,
    /// The descriptor number is above the cap of the table.
    AboveCap = 12,
    /// Given to stdio (`fdopen`, `dprintf`, `freopen`).
    Stdio = 13,
    /// An option or flag that only the kernel serves (out-of-band, zero-copy, timestamps, filters, TLS...).
    Option = 14,
    /// `O_ASYNC` is set.
    Async = 15,
    /// The program installed a seccomp filter.
    Seccomp = 16,
    /// A finite `RLIMIT_FSIZE`.
    FileSizeLimit = 17,
    /// Handed to a process image or process that may not run sockshim (`exec`, `SCM_RIGHTS`).
    HandedOver = 18,
    /// Shared with another process before it was upgraded.
    Shared = 19,
    /// Registered with an epoll set that sockshim did not see or cannot reach.
    UnknownSet = 20,
    /// Handed over with bytes still unread in the ring.
    UnreadAtHandOver = 21,
    /// Bytes were moved behind sockshim's back.
    Integrity = 22,
    /// The peer closed its side of the fast lane.
    PeerLeft = 23,
    /// Its descriptor was seen for the first time in the middle of its life.
    Inherited = 24,
    /// A process that shares the socket was stopped in the middle of a write.
    Stopped = 25,
    /// `SO_RCVLOWAT` is above 1, for as long as it is.
    LowWater = 26,
    /// The process has an io_uring, which works past libc.
    IoUring = 27,
    /// Both ends are the same socket.
    ConnectedToItself = 28,
    /// A process that shares it has changed its user.
    OtherUser = 29,
    /// The kernel is older than Linux 5.14, and does not say in which network namespace a socket is.
    OldKernel = 30,
}

/// The reason with this number, and what it says in words.
pub(crate) fn numbered(number: c_uint) -> Option<(Reason, &'static CStr)> {
    REASONS.get(usize::try_from(number).ok()?).copied()
}

/// A reason in words.
pub(crate) fn text(number: c_uint) -> &'static CStr {
    numbered(number).map_or(c"unknown reason", |(_, text)| text)
}

const REASONS: [(Reason, &CStr); Reason::OldKernel as usize + 1] = [
    (Reason::Undecided, c"not enough transferred yet"),
    (Reason::Pipe, c"on a pipe"),
    (Reason::NotTcp, c"not a TCP socket"),
    (Reason::NotConnected, c"not connected"),
    (Reason::Remote, c"the peer is not on this machine"),
    (Reason::PeerWithout, c"the peer does not run on sockshim, or cannot use this rendezvous folder"),
    (Reason::Configured, c"configured to stay on the host path"),
    (Reason::PinnedByProgram, c"pinned by the program"),
    (Reason::NoFolder, c"the rendezvous folder cannot be used"),
    (Reason::BadSegment, c"the segment is damaged or of another version"),
    (Reason::NoMemory, c"no memory left in the rendezvous folder"),
    (Reason::TableFull, c"a table is full"),
    (Reason::AboveCap, c"the descriptor number is too high"),
    (Reason::Stdio, c"used by stdio"),
    (Reason::Option, c"uses a socket option that only the kernel serves"),
    (Reason::Async, c"O_ASYNC is set"),
    (Reason::Seccomp, c"the program installed a seccomp filter"),
    (Reason::FileSizeLimit, c"the file size is limited"),
    (Reason::HandedOver, c"handed to a program that may not run sockshim"),
    (Reason::Shared, c"shared with another process before it had a pipe"),
    (Reason::UnknownSet, c"in an epoll set that sockshim cannot reach"),
    (Reason::UnreadAtHandOver, c"handed over with unread bytes in the pipe"),
    (Reason::Integrity, c"bytes were moved behind sockshim's back"),
    (Reason::PeerLeft, c"the peer left the pipe"),
    (Reason::Inherited, c"first seen in the middle of its life"),
    (Reason::Stopped, c"a process that shares it was stopped in the middle of a write"),
    (Reason::LowWater, c"SO_RCVLOWAT is above 1"),
    (Reason::IoUring, c"the process uses io_uring"),
    (Reason::ConnectedToItself, c"connected to itself"),
    (Reason::OtherUser, c"a process that shares it has changed its user"),
    (Reason::OldKernel, c"the kernel is older than Linux 5.14"),
];

// Each stands at the place that its number says.
const _: () = {
    let mut number = 0;
    while number < REASONS.len() {
        assert!(REASONS[number].0 as usize == number);
        number += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_reason_and_others_have_none() {
        assert_eq!(numbered(1), Some((Reason::Pipe, c"on a pipe")));
        assert_eq!((numbered(31), text(31), text(c_uint::MAX)), (None, c"unknown reason", c"unknown reason"));
    }
}
