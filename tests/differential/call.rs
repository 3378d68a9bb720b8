//! One socket call that a driver asks an actor to make, and what came of it. `perform` makes it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Hello,
    Listen {
        v6: bool,
    },
    Connect {
        v6: bool,
        port: u16,
    },
    Accept {
        fd: i32,
    },
    Write {
        fd: i32,
        how: Writing,
        flags: i32,
        stream: u64,
        position: u64,
        length: usize,
    },
    /// Writes without blocking until EAGAIN.
    Fill {
        fd: i32,
        stream: u64,
        position: u64,
        piece: usize,
    },
    Read {
        fd: i32,
        how: Reading,
        flags: i32,
        length: usize,
    },
    /// Reads without blocking until there is no more; the bytes must be the stream's from `position` on.
    Drain {
        fd: i32,
        stream: u64,
        position: u64,
    },
    Shutdown {
        fd: i32,
        how: i32,
    },
    Close {
        fd: i32,
    },
    Dup {
        fd: i32,
        lowest: i32,
    },
    DupOnto {
        fd: i32,
        to: i32,
        flags: Option<i32>,
    },
    Nonblock {
        fd: i32,
        on: bool,
        by_ioctl: bool,
    },
    SetOption {
        fd: i32,
        level: i32,
        name: i32,
        value: Vec<i32>,
    },
    GetOption {
        fd: i32,
        level: i32,
        name: i32,
        words: usize,
    },
    Ioctl {
        fd: i32,
        request: u64,
    },
    Names {
        fd: i32,
    },
    Poll {
        how: Polling,
        entries: Vec<(i32, i16)>,
        timeout: i32,
    },
    NewSet,
    Control {
        set: i32,
        operation: i32,
        fd: i32,
        events: u32,
        data: u64,
    },
    Wait {
        set: i32,
        how: Waiting,
        most: i32,
        timeout: i32,
    },
    Fork {
        channel: i32,
    },
    Exec {
        channel: i32,
    },
    Exit,
    SendRights {
        fd: i32,
    },
    TakeRights,
    Splice {
        fd: i32,
        stream: u64,
        position: u64,
        length: usize,
    },
    SendFile {
        fd: i32,
        stream: u64,
        position: u64,
        length: usize,
        by_offset: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Writing {
    Write,
    Writev,
    Send,
    Sendto,
    Sendmsg,
    Sendmmsg,
    Pwritev2,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reading {
    Read,
    Readv,
    Recv,
    Recvfrom,
    Recvmsg,
    Recvmmsg,
    Preadv2,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Polling {
    Poll,
    Ppoll,
    Select,
    Pselect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Waiting {
    Wait,
    Pwait,
    Pwait2,
    /// One event in a call, as many calls as it takes to see each once.
    OneByOne,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) value: i64,
    pub(crate) errno: i32,
    /// Of all bytes that were read.
    pub(crate) digest: u64,
    /// What else the call told.
    pub(crate) more: Vec<i64>,
    /// How many SIGPIPE the call raised.
    pub(crate) pipes: u32,
}

/// The first number of the channels to the driver; the program's own descriptors stay below.
pub(crate) const CHANNELS: i32 = 200;
/// Connects the two processes, for passing descriptors.
pub(crate) const RIGHTS: i32 = 230;
