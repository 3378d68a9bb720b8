//! Why a connection runs where it runs.

use core::ffi::{CStr, c_uint};

/// The reason code of a descriptor; the numbers are part of the C ABI and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Reason {
    /// Nothing stands against a pipe; the connection has not transferred enough yet.
    Undecided = 0,
    /// On a pipe.
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
}

/// A reason in words.
pub(crate) fn text(reason: c_uint) -> &'static CStr {
    let index = usize::try_from(reason).unwrap_or(usize::MAX);
    TEXTS.get(index).copied().unwrap_or(c"unknown reason")
}

/// Indexed by the numbers of [`Reason`].
const TEXTS: [&CStr; Reason::OtherUser as usize + 1] = [
    c"not enough transferred yet",
    c"on a pipe",
    c"not a TCP socket",
    c"not connected",
    c"the peer is not on this machine",
    c"the peer does not run on sockshim, or cannot use this rendezvous folder",
    c"configured to stay on the host path",
    c"pinned by the program",
    c"the rendezvous folder cannot be used",
    c"the segment is damaged or of another version",
    c"no memory left in the rendezvous folder",
    c"a table is full",
    c"the descriptor number is too high",
    c"used by stdio",
    c"uses a socket option that only the kernel serves",
    c"O_ASYNC is set",
    c"the program installed a seccomp filter",
    c"the file size is limited",
    c"handed to a program that may not run sockshim",
    c"shared with another process before it had a pipe",
    c"in an epoll set that sockshim cannot reach",
    c"handed over with unread bytes in the pipe",
    c"bytes were moved behind sockshim's back",
    c"the peer left the pipe",
    c"first seen in the middle of its life",
    c"a process that shares it was stopped in the middle of a write",
    c"SO_RCVLOWAT is above 1",
    c"the process uses io_uring",
    c"connected to itself",
    c"a process that shares it has changed its user",
];
