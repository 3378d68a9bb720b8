//! What can be asked of a connection without changing it.

use alloc::sync::Arc;

use super::{ListenerId, SocketId, Stack};
use crate::buffer::{Memory, ReceiveBuffer, SendBuffer};
use crate::error::Error;
use crate::tcp::{Info, Readiness, SocketOptions};
use crate::time::Instant;

impl<M: Memory> Stack<M> {
    /// Linux's TCP_INFO.
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn tcp_info(&mut self, now: Instant, id: SocketId) -> Result<Info, Error> {
        let (connection, cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        Ok(connection.info(&cx))
    }

    /// What poll(2) says of a connection (Linux's `tcp_poll`).
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn readiness(&mut self, now: Instant, id: SocketId) -> Result<Readiness, Error> {
        let (connection, cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        Ok(connection.readiness(&cx))
    }

    /// Whether a listener has a connection to accept.
    pub fn is_acceptable(&self, id: ListenerId) -> bool {
        self.listeners.get(id.0).is_some_and(|listener| !listener.queue.is_empty())
    }

    /// Whether everything that the other end has sent, and its end, was read.
    pub fn is_at_end(&self, id: SocketId) -> bool {
        self.connections.get(id.0).is_some_and(|it| it.rx.readable() == 0 && it.has_fin())
    }

    /// SIOCATMARK: the next byte to be read is the last urgent one. Unless SO_OOBINLINE is set, a read leaves it out.
    pub fn at_mark(&self, id: SocketId) -> bool {
        self.connections.get(id.0).is_some_and(|connection| connection.at_mark())
    }

    /// Bytes written and not yet acknowledged (SIOCOUTQ).
    pub fn unacknowledged(&self, id: SocketId) -> usize {
        self.connections.get(id.0).map_or(0, |connection| connection.tx.len())
    }

    /// Bytes that the send buffer takes now (SO_SNDBUF).
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn send_limit(&self, id: SocketId) -> Result<u32, Error> {
        self.connections.get(id.0).map(|connection| connection.send_capacity()).ok_or(Error::NotASocket)
    }

    /// Bytes that may lie unread now (SO_RCVBUF).
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn receive_limit(&self, id: SocketId) -> Result<u32, Error> {
        self.connections.get(id.0).map(|connection| connection.receiver.limit).ok_or(Error::NotASocket)
    }

    /// Bytes of data in a full segment (TCP_MAXSEG of a connection).
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn segment_size(&self, id: SocketId) -> Result<u16, Error> {
        self.connections.get(id.0).map(|connection| connection.sender.mss).ok_or(Error::NotASocket)
    }

    /// setsockopt(2) on a listener: connections that begin later inherit it.
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn set_listener_options(
        &mut self,
        id: ListenerId,
        change: impl FnOnce(&mut SocketOptions),
    ) -> Result<(), Error> {
        let listener = self.listeners.get_mut(id.0).ok_or(Error::NotASocket)?;
        change(Arc::make_mut(&mut listener.options));
        Ok(())
    }
}
