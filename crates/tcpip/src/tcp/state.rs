//! The states of a connection (RFC 9293 section 3.3.2), with Linux's numbers, which TCP_INFO shows.

/// A connection's state. LISTEN, and the other end's SYN before our answer is acknowledged, are `listen`'s affair;
/// TIME-WAIT is `timewait`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "RFC 9293's names")]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

impl State {
    /// Whether the handshake is over and the connection is not.
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed | Self::Listen)
    }

    /// Whether data, or the FIN, may still have to be sent.
    pub const fn can_transmit(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait | Self::FinWait1 | Self::Closing | Self::LastAck)
    }

    /// Whether data may still arrive.
    pub const fn can_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }
}

/// The state of the network as seen by loss recovery, with Linux's numbers, which TCP_INFO shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum CongestionState {
    /// Nothing shows loss or reordering.
    #[default]
    Open = 0,
    /// Something is out of order, or lost.
    Disorder = 1,
    /// The window goes down after an ECN mark or a filled hole.
    Cwr = 2,
    /// Fast recovery.
    Recovery = 3,
    /// After a time-out.
    Loss = 4,
}
