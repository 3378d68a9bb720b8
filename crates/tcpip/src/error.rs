//! What can go wrong, each with the `errno` that Linux's calls give.

use core::fmt;

/// Why a call, or a connection, failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// There is no such socket: it was closed, or never existed.
    NotASocket,
    /// The call makes no sense in the socket's state.
    Invalid,
    /// Nothing to read or no room to write now.
    WouldBlock,
    /// `connect` has begun.
    InProgress,
    /// The socket is not connected.
    NotConnected,
    /// The socket is connected already.
    IsConnected,
    /// The address is in use.
    AddressInUse,
    /// The address does not belong to this stack, or no port is free.
    AddressNotAvailable,
    /// There is no route to the address.
    NetworkUnreachable,
    /// The host does not answer on its link, or a router reports that.
    HostUnreachable,
    /// Refused by the other end.
    ConnectionRefused,
    /// Reset by the other end.
    ConnectionReset,
    /// Aborted by this end.
    ConnectionAborted,
    /// Writing after the end of the stream.
    BrokenPipe,
    /// No answer for too long.
    TimedOut,
    /// The other end does not speak the protocol.
    ProtocolNotAvailable,
    /// Communication with the other end is prohibited.
    PermissionDenied,
    /// The message does not fit.
    MessageTooLong,
    /// A protocol error that a router reported.
    Protocol,
    /// There is not enough memory.
    NoMemory,
}

impl Error {
    /// Linux's number for it.
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotASocket => 88,
            Self::Invalid => 22,
            Self::WouldBlock => 11,
            Self::InProgress => 115,
            Self::NotConnected => 107,
            Self::IsConnected => 106,
            Self::AddressInUse => 98,
            Self::AddressNotAvailable => 99,
            Self::NetworkUnreachable => 101,
            Self::HostUnreachable => 113,
            Self::ConnectionRefused => 111,
            Self::ConnectionReset => 104,
            Self::ConnectionAborted => 103,
            Self::BrokenPipe => 32,
            Self::TimedOut => 110,
            Self::ProtocolNotAvailable => 92,
            Self::PermissionDenied => 13,
            Self::MessageTooLong => 90,
            Self::Protocol => 71,
            Self::NoMemory => 12,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotASocket => "no such socket",
            Self::Invalid => "invalid in this state",
            Self::WouldBlock => "would block",
            Self::InProgress => "in progress",
            Self::NotConnected => "not connected",
            Self::IsConnected => "already connected",
            Self::AddressInUse => "address in use",
            Self::AddressNotAvailable => "address not available",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionReset => "connection reset",
            Self::ConnectionAborted => "connection aborted",
            Self::BrokenPipe => "broken pipe",
            Self::TimedOut => "timed out",
            Self::ProtocolNotAvailable => "protocol not available",
            Self::PermissionDenied => "permission denied",
            Self::MessageTooLong => "message too long",
            Self::Protocol => "protocol error",
            Self::NoMemory => "out of memory",
        })
    }
}

impl core::error::Error for Error {}
