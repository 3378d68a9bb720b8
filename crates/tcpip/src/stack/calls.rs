//! The socket calls.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::demux::Flow;
use super::{ListenerId, SocketId, Stack};
use crate::buffer::Memory;
use crate::error::Error;
use crate::tcp::conn::Connection;
use crate::tcp::listen::Listener;
use crate::tcp::{How, SendFlags, SocketOptions, State};
use crate::time::Instant;

/// Parameters of `connect` besides the address.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Where to connect from; a port of zero, or an address that is unspecified, is chosen.
    pub local: Option<SocketAddr>,
    /// Options that are set before it connects.
    pub socket: Option<SocketOptions>,
}

impl<M: Memory> Stack<M> {
    /// Options as a new socket has them.
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions::new(&self.config.tcp)
    }

    fn share(&self, options: Option<SocketOptions>) -> Arc<SocketOptions> {
        options.map_or_else(|| Arc::clone(&self.default_options), Arc::new)
    }

    /// Begins a connection (connect(2) on a non-blocking socket, for which it is EINPROGRESS).
    ///
    /// # Errors
    ///
    /// [`Error::NetworkUnreachable`], [`Error::AddressNotAvailable`], [`Error::AddressInUse`], [`Error::NoMemory`].
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        let bound = options.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        if bound.is_some_and(|ip| !self.net.is_local(ip)) {
            return Err(Error::AddressNotAvailable);
        }
        // Linux takes an unspecified destination for this host.
        let remote = match remote.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), remote.port())
            }
            IpAddr::V6(ip) if ip.is_unspecified() => {
                SocketAddr::new(Ipv6Addr::LOCALHOST.into(), remote.port())
            }
            _ => remote,
        };
        if self.net.is_group(remote.ip()) {
            return Err(Error::NetworkUnreachable); // RFC 9293 section 3.9.2.3
        }
        let path = self.net.route(bound, remote.ip()).ok_or(Error::NetworkUnreachable)?;
        let source = bound.unwrap_or(path.source);
        let port = match options.local.map_or(0, |local| local.port()) {
            0 => self.choose_port(now, source, remote)?,
            port => {
                let local = SocketAddr::new(source, port);
                if !self.make_free(now, local, remote) {
                    return Err(Error::AddressInUse);
                }
                port
            }
        };
        let local = SocketAddr::new(source, port);
        let buffers = self.memory.open().ok_or(Error::NoMemory)?;
        let iss = self.secrets.initial_sequence(now, local, remote);
        let clock_offset = self.secrets.clock_offset(local.ip(), remote.ip());
        let socket = self.share(options.socket);
        let connection = Connection::new(&self.config.tcp, (local, remote), buffers, iss, socket);
        let key = self.connections.insert(connection);
        self.flows.insert(local, remote, Flow::Connection(key.index()));
        self.counters.active_opens += 1;
        self.refresh_path(now, key);
        if let Some((connection, mut cx)) = self.connection(now, key) {
            connection.connect(&mut cx, clock_offset, path.link_mtu);
        }
        self.settle(now, key);
        Ok(SocketId(key))
    }

    fn choose_port(&mut self, now: Instant, source: IpAddr, remote: SocketAddr) -> Result<u16, Error> {
        let mut secrets = self.secrets.clone();
        let range = self.config.tcp.ports.clone();
        let port = secrets.port(source, remote, &range, |port| {
            let local = SocketAddr::new(source, port);
            self.find_listener(local).is_none() && self.make_free(now, local, remote)
        });
        self.secrets = secrets;
        port.ok_or(Error::AddressNotAvailable)
    }

    /// Whether a connection with these addresses can begin; one in TIME-WAIT may be replaced when timestamps show old
    /// segments to be old (RFC 6191).
    fn make_free(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> bool {
        match self.find_flow(local.into(), remote.into()) {
            None => true,
            Some(Flow::TimeWait(index)) => {
                let after = self.config.tcp.time_wait_reuse;
                let reusable = self.time_waits.at(index).is_some_and(|rest| match (rest.clock, after) {
                    (Some(clock), Some(after)) => now - clock.recent_at > after,
                    _ => false,
                });
                if reusable {
                    self.end_time_wait(index);
                }
                reusable
            }
            Some(_) => false,
        }
    }

    /// Waits for connections (bind(2) and listen(2)). An unspecified address takes those to any of ours.
    ///
    /// # Errors
    ///
    /// [`Error::AddressInUse`], [`Error::AddressNotAvailable`].
    pub fn listen(
        &mut self,
        local: SocketAddr,
        backlog: u32,
        options: Option<SocketOptions>,
    ) -> Result<ListenerId, Error> {
        let address = Some(local.ip()).filter(|ip| !ip.is_unspecified());
        if address.is_some_and(|ip| !self.net.is_local(ip)) {
            return Err(Error::AddressNotAvailable);
        }
        let port = match local.port() {
            0 => {
                let mut ports = self.config.tcp.ports.clone();
                ports.find(|&port| self.listener_at(address, port).is_none()).ok_or(Error::AddressInUse)?
            }
            port => port,
        };
        if self.listener_at(address, port).is_some() {
            return Err(Error::AddressInUse);
        }
        let listener = Listener {
            address,
            port,
            queue: Default::default(),
            backlog: backlog.min(self.config.tcp.max_backlog),
            handshakes: 0,
            options: self.share(options),
            cookies_until: Instant::ZERO,
        };
        let key = self.listeners.insert(listener);
        self.flows.insert_listener(address, port, key.index());
        Ok(ListenerId(key))
    }

    /// The port of a listener.
    pub fn listener_port(&self, id: ListenerId) -> Option<u16> {
        self.listeners.get(id.0).map(|listener| listener.port)
    }

    /// Takes a connection from a listener's queue.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`], [`Error::NotASocket`].
    pub fn accept(&mut self, now: Instant, id: ListenerId) -> Result<(SocketId, SocketAddr), Error> {
        let listener = self.listeners.get_mut(id.0).ok_or(Error::NotASocket)?;
        while let Some(key) = listener.queue.pop_front() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.listener = None;
                connection.events.raise(crate::tcp::conn::Events::WRITABLE);
                let remote = connection.ends.remote().into();
                self.settle(now, key);
                return Ok((SocketId(key), remote));
            }
        }
        Err(Error::WouldBlock)
    }

    /// Ends a listener. Connections that nobody has accepted are reset, and handshakes forgotten, as Linux does. Takes time
    /// in proportion to the handshakes under way.
    pub fn close_listener(&mut self, now: Instant, id: ListenerId) {
        let Some(listener) = self.listeners.remove(id.0) else { return };
        self.flows.remove_listener(listener.address, listener.port, id.0.index());
        if listener.handshakes > 0 {
            let own = self.handshakes.iter().filter(|(_, handshake)| handshake.listener == id.0);
            let own: Vec<u32> = own.map(|(key, _)| key.index()).collect();
            for index in own {
                self.end_handshake(index);
            }
        }
        for key in listener.queue {
            if let Some((connection, mut cx)) = self.connection(now, key) {
                connection.abort(&mut cx);
                self.settle(now, key);
            }
        }
    }

    /// send(2) on a non-blocking socket: as much as there is room for.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`], [`Error::BrokenPipe`], the error that ended the connection.
    pub fn send(&mut self, now: Instant, id: SocketId, data: &[u8]) -> Result<usize, Error> {
        self.send_with(now, id, data, SendFlags::default())
    }

    /// [`send`](Self::send) with flags. They count only if all of the data is taken; `urgent` for what is.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_with(
        &mut self,
        now: Instant,
        id: SocketId,
        data: &[u8],
        flags: SendFlags,
    ) -> Result<usize, Error> {
        let (connection, mut cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        let result = connection.send(&mut cx, data, flags);
        let blocked = connection.write_blocked;
        self.settle(now, id.0);
        if blocked && self.resources.is_exhausted() {
            self.starved.push(id.0.index());
        }
        result
    }

    /// What was written leaves as soon as the windows allow, whatever Nagle's algorithm, TCP_CORK and MSG_MORE say; what
    /// is written later obeys them. Setting TCP_NODELAY does this in Linux, each time.
    pub fn push(&mut self, now: Instant, id: SocketId) {
        if let Some((connection, _)) = self.connection(now, id.0) {
            connection.push.at_once = true;
            connection.asked = true;
            self.settle(now, id.0);
        }
    }

    /// recv(2) on a non-blocking socket; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`], the error that ended the connection.
    pub fn recv(&mut self, now: Instant, id: SocketId, data: &mut [u8]) -> Result<usize, Error> {
        let (connection, mut cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        let result = connection.recv(&mut cx, data);
        self.settle(now, id.0);
        result
    }

    /// [`recv`](Self::recv) that leaves the data where it is (MSG_PEEK).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn peek(&mut self, id: SocketId, data: &mut [u8]) -> Result<usize, Error> {
        self.connections.get_mut(id.0).ok_or(Error::NotASocket)?.peek(data)
    }

    /// The urgent byte (recv(2) with MSG_OOB); `peek` leaves it. Nothing when the stream ended before it arrived.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is none, or it is part of the stream; [`Error::WouldBlock`] when it has not arrived;
    /// [`Error::NotConnected`].
    pub fn recv_urgent(&mut self, id: SocketId, peek: bool) -> Result<Option<u8>, Error> {
        self.connections.get_mut(id.0).ok_or(Error::NotASocket)?.recv_urgent(peek)
    }

    /// The application has put data into the send buffer itself.
    pub fn written(&mut self, now: Instant, id: SocketId) {
        self.settle(now, id.0);
    }

    /// The application has taken data from the receive buffer itself. It is up to that to stop at the mark of urgent data,
    /// [`readable`](Self::readable) bytes further on, and to leave out the byte there.
    pub fn consumed(&mut self, now: Instant, id: SocketId) {
        if let Some((connection, mut cx)) = self.connection(now, id.0) {
            connection.consumed(&mut cx);
            self.settle(now, id.0);
        }
    }

    /// A connection's buffers.
    pub fn buffers(&mut self, id: SocketId) -> Option<(&mut M::Send, &mut M::Receive)> {
        self.connections.get_mut(id.0).map(|connection| (&mut connection.tx, &mut connection.rx))
    }

    /// Bytes that can be read: FIONREAD, which ends before an urgent byte that is kept out of the stream.
    pub fn readable(&self, id: SocketId) -> usize {
        self.connections.get(id.0).map_or(0, |connection| connection.readable())
    }

    /// shutdown(2).
    ///
    /// # Errors
    ///
    /// [`Error::NotConnected`], [`Error::NotASocket`].
    pub fn shutdown(&mut self, now: Instant, id: SocketId, how: How) -> Result<(), Error> {
        let (connection, mut cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        let result = connection.shutdown(&mut cx, how);
        self.settle(now, id.0);
        result
    }

    /// close(2): what was sent still arrives, if nothing unread is thrown away.
    pub fn close(&mut self, now: Instant, id: SocketId) {
        if let Some((connection, mut cx)) = self.connection(now, id.0) {
            connection.close(&mut cx);
            self.settle(now, id.0);
        }
    }

    /// close(2) with SO_LINGER of zero: a reset.
    pub fn abort(&mut self, now: Instant, id: SocketId) {
        if let Some((connection, mut cx)) = self.connection(now, id.0) {
            connection.abort(&mut cx);
            self.settle(now, id.0);
        }
    }

    /// SO_ERROR: the error, once.
    pub fn take_error(&mut self, id: SocketId) -> Option<Error> {
        let connection = self.connections.get_mut(id.0)?;
        connection.error.take().or_else(|| connection.soft_error.take())
    }

    /// The state of a connection; [`State::Closed`] also for one in TIME-WAIT, which no longer is the socket's affair.
    pub fn state(&self, id: SocketId) -> Option<State> {
        self.connections.get(id.0).map(|connection| connection.state)
    }

    /// All connections, for an inspector like ss(8): name, state, local and remote address, whether the application has
    /// let go of it.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketId, State, SocketAddr, SocketAddr, bool)> {
        self.connections.iter().map(|(key, connection)| {
            let (local, remote) = (connection.ends.local().into(), connection.ends.remote().into());
            (SocketId(key), connection.state, local, remote, connection.orphaned)
        })
    }

    /// getsockname(2) and getpeername(2).
    pub fn addresses(&self, id: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        self.connections.get(id.0).map(|it| (it.ends.local().into(), it.ends.remote().into()))
    }

    /// The socket's options.
    pub fn options(&self, id: SocketId) -> Option<&SocketOptions> {
        self.connections.get(id.0).map(|connection| &*connection.options)
    }

    /// setsockopt(2): changes options.
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn set_options(
        &mut self,
        now: Instant,
        id: SocketId,
        change: impl FnOnce(&mut SocketOptions),
    ) -> Result<(), Error> {
        let (connection, mut cx) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        connection.change_options(&mut cx, change);
        self.settle(now, id.0);
        Ok(())
    }
    /// TCP_QUICKACK: no acknowledgement waits (until the application answers something), or each waits for an answer.
    ///
    /// # Errors
    ///
    /// [`Error::NotASocket`].
    pub fn set_quick_ack(&mut self, now: Instant, id: SocketId, on: bool) -> Result<(), Error> {
        let (connection, _) = self.connection(now, id.0).ok_or(Error::NotASocket)?;
        connection.set_quick_ack(on);
        self.settle(now, id.0);
        Ok(())
    }
}
