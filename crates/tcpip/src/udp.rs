//! UDP sockets (RFC 768, RFC 1122 §4.1): ports, queues of datagrams, and the errors that come back.

use crate::icmp::{ErrorKind, IcmpError};
use crate::ready::ReadyList;
use crate::slab::{Key, Slab};
use crate::table::{HashKey, Table};
use crate::wire::DropReason;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpId(pub Key);

/// Why a call on a UDP socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpError {
    /// `EADDRINUSE`: another socket has the port, or all ports are taken.
    AddressInUse,
    /// `EADDRNOTAVAIL`: not an address of ours.
    AddressNotAvailable,
    /// `EAFNOSUPPORT`: an address of another version than the socket's.
    WrongVersion,
    /// `EDESTADDRREQ`: neither connected nor told where to.
    NoDestination,
    /// `EMSGSIZE`: longer than a datagram can be.
    TooLong,
    /// `ENETUNREACH`: no route.
    NetUnreachable,
    /// `EAGAIN`: nothing to receive, or no room to send.
    WouldBlock,
    /// `EBADF`: no such socket.
    Closed,
    /// An ICMP error about an earlier datagram, told once.
    Reported(ErrorKind),
}

/// How a socket is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// An IPv6 socket that takes no IPv4 (`IPV6_V6ONLY`).
    pub only_v6: bool,
    /// Others that say so too may have the port (`SO_REUSEADDR`); unicast goes to the one that came last.
    pub reuse_address: bool,
    /// Bytes of datagrams that may wait to be received (`SO_RCVBUF`).
    pub receive_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { only_v6: false, reuse_address: false, receive_buffer: 212_992 }
    }
}

/// A datagram that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The address and port of the sender.
    pub from: SocketAddr,
    /// The address of ours that it was sent to.
    pub to: IpAddr,
    /// The congestion notification and service it came with.
    pub traffic_class: u8,
    /// The data of the datagram.
    pub bytes: Vec<u8>,
}

/// The UDP sockets of a stack.
#[derive(Debug)]
pub(crate) struct Sockets {
    key: HashKey,
    sockets: Slab<Socket>,
    /// By local address, or any, and port.
    by_local: Table,
    /// By port alone, to find conflicts between bindings.
    by_port: Table,
    /// Connected sockets, by both ends.
    by_flow: Table,
    readable: ReadyList,
    /// Counts searches for a port, so that each begins at another one.
    searches: u32,
}

#[derive(Debug)]
struct Socket {
    /// The port is never zero. The address is none for any.
    local: Local,
    remote: Option<SocketAddr>,
    options: Options,
    queue: VecDeque<Datagram>,
    queued: usize,
    error: Option<ErrorKind>,
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Local {
    address: Option<IpAddr>,
    port: u16,
    /// Takes IPv4: bound to it, or to any address of both.
    v4: bool,
    /// Takes IPv6.
    v6: bool,
}

/// Ports for sockets that do not choose one (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: core::ops::Range<u16> = 32768..61000;

/// The overhead of a datagram in a queue, in bytes.
const DATAGRAM_COST: usize = 96;

impl Sockets {
    /// A table without sockets.
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            key,
            sockets: Slab::new(),
            by_local: Table::new(),
            by_port: Table::new(),
            by_flow: Table::new(),
            readable: ReadyList::new(),
            searches: 0,
        }
    }

    /// Makes a socket that is bound to `local`, whose address may be unspecified and whose port 0. That the address is
    /// ours is the caller's check.
    ///
    /// # Errors
    ///
    /// [`UdpError::AddressInUse`].
    pub(crate) fn bind(&mut self, local: SocketAddr, options: Options) -> Result<UdpId, UdpError> {
        let mut bound = Local {
            address: (!local.ip().is_unspecified()).then(|| local.ip()),
            port: local.port(),
            v4: local.is_ipv4() || (local.ip().is_unspecified() && !options.only_v6),
            v6: local.is_ipv6(),
        };
        if bound.port == 0 {
            bound.port = self.free_port(bound, options)?;
        } else if self.is_taken(&bound, options) {
            return Err(UdpError::AddressInUse);
        }
        let key = self.sockets.insert(Socket {
            local: bound,
            remote: None,
            options,
            queue: VecDeque::new(),
            queued: 0,
            error: None,
        });
        self.by_local.insert(self.key.endpoint(bound.address, bound.port), key.index());
        self.by_port.insert(self.key.endpoint(None, bound.port), key.index());
        Ok(UdpId(key))
    }

    /// Gives the socket one other end, whose datagrams alone it takes from now on; `source` is the address that
    /// packets to it leave with.
    ///
    /// # Errors
    ///
    /// [`UdpError::Closed`], [`UdpError::WrongVersion`].
    pub(crate) fn connect(&mut self, id: UdpId, source: IpAddr, remote: SocketAddr) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id.0).ok_or(UdpError::Closed)?;
        if !socket.local.takes(remote.ip()) {
            return Err(UdpError::WrongVersion);
        }
        let old = (socket.local, socket.remote.replace(remote));
        socket.local.address.get_or_insert(source);
        let new = socket.local;
        self.leave_flow(id, old);
        if old.0.address != new.address {
            self.by_local.remove(self.key.endpoint(old.0.address, old.0.port), id.0.index());
            self.by_local.insert(self.key.endpoint(new.address, new.port), id.0.index());
        }
        if let Some(address) = new.address {
            let flow = self.key.flow((address, new.port), (remote.ip(), remote.port()));
            self.by_flow.insert(flow, id.0.index());
        }
        Ok(())
    }

    /// Closes a socket: frees its port, and drops what was not received.
    ///
    /// # Errors
    ///
    /// [`UdpError::Closed`].
    pub(crate) fn close(&mut self, id: UdpId) -> Result<(), UdpError> {
        let socket = self.sockets.remove(id.0).ok_or(UdpError::Closed)?;
        self.leave_flow(id, (socket.local, socket.remote));
        self.by_local.remove(self.key.endpoint(socket.local.address, socket.local.port), id.0.index());
        self.by_port.remove(self.key.endpoint(None, socket.local.port), id.0.index());
        self.readable.remove(id.0.index());
        Ok(())
    }

    /// Where the socket is bound to; an address that is not chosen yet is unspecified.
    pub(crate) fn local(&self, id: UdpId) -> Option<SocketAddr> {
        let local = self.sockets.get(id.0)?.local;
        let any: IpAddr = if local.v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Some(SocketAddr::new(local.address.unwrap_or(any), local.port))
    }

    /// The other end that it is connected to.
    pub(crate) fn remote(&self, id: UdpId) -> Option<SocketAddr> {
        self.sockets.get(id.0)?.remote
    }

    /// Takes the oldest datagram.
    ///
    /// # Errors
    ///
    /// [`UdpError::WouldBlock`], [`UdpError::Closed`], and the error of an earlier datagram.
    pub(crate) fn receive(&mut self, id: UdpId) -> Result<Datagram, UdpError> {
        self.take_error(id)?;
        let socket = self.sockets.get_mut(id.0).ok_or(UdpError::Closed)?;
        let datagram = socket.queue.pop_front().ok_or(UdpError::WouldBlock)?;
        socket.queued -= datagram.bytes.len() + DATAGRAM_COST;
        Ok(datagram)
    }

    /// The error of an earlier datagram, once.
    ///
    /// # Errors
    ///
    /// The pending error, or [`UdpError::Closed`].
    pub(crate) fn take_error(&mut self, id: UdpId) -> Result<(), UdpError> {
        let socket = self.sockets.get_mut(id.0).ok_or(UdpError::Closed)?;
        socket.error.take().map_or(Ok(()), |kind| Err(UdpError::Reported(kind)))
    }

    /// Whether [`receive`](Self::receive) returns something.
    pub(crate) fn is_readable(&self, id: UdpId) -> bool {
        self.sockets.get(id.0).is_some_and(|socket| !socket.queue.is_empty() || socket.error.is_some())
    }

    /// A socket to which something came since it was last returned.
    pub(crate) fn poll_readable(&mut self) -> Option<UdpId> {
        let index = self.readable.pop()?;
        self.sockets.key_at(index).map(UdpId)
    }

    /// Hands a datagram to its socket; with a `segment` size, the datagrams that a link put together.
    pub(crate) fn deliver(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        traffic_class: u8,
        payload: &[u8],
        segment: u16,
    ) -> Result<(), DropReason> {
        let index = self.find(to, from).ok_or(DropReason::UdpPort)?;
        let socket = self.sockets.at_mut(index).ok_or(DropReason::UdpPort)?;
        let mut take = |bytes: &[u8]| {
            if socket.queued + bytes.len() + DATAGRAM_COST > socket.options.receive_buffer {
                return Err(DropReason::UdpQueueFull);
            }
            socket.queued += bytes.len() + DATAGRAM_COST;
            socket.queue.push_back(Datagram { from, to: to.ip(), traffic_class, bytes: bytes.to_vec() });
            Ok(())
        };
        let result = match usize::from(segment) {
            0 => take(payload),
            segment => payload.chunks(segment).try_for_each(take),
        };
        self.readable.push(index);
        result
    }

    /// Tells a socket of an error about a datagram that it sent; `false` when there is none. Linux tells connected
    /// sockets alone, and of what waiting does not help alone, unless they asked for more (`__udp4_lib_err`).
    pub(crate) fn report(&mut self, error: &IcmpError) -> bool {
        let Some(index) = self.find(error.local, error.remote) else { return false };
        let Some(socket) = self.sockets.at_mut(index) else { return false };
        let told = error.fatal || matches!(error.kind, ErrorKind::TooBig { .. });
        if told && socket.remote == Some(error.remote) {
            socket.error = Some(error.kind);
            self.readable.push(index);
        }
        true
    }

    /// The socket for datagrams between these ends: the connected one, the one with the address, the one with any.
    fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let port = local.port();
        let flow = self.key.flow((local.ip(), port), (remote.ip(), remote.port()));
        let connected = self.by_flow.find(flow, |index| {
            self.sockets.at(index).is_some_and(|socket| {
                socket.remote == Some(remote)
                    && socket.local.port == port
                    && socket.local.address == Some(local.ip())
            })
        });
        connected.or_else(|| {
            [Some(local.ip()), None].into_iter().find_map(|address| {
                // Unconnected sockets alone. Among those that share the port the one that came last wins.
                let mut last: Option<Key> = None;
                self.by_local.find(self.key.endpoint(address, port), |index| {
                    if self.sockets.at(index).is_some_and(|socket| {
                        socket.local.address == address
                            && socket.local.port == port
                            && socket.remote.is_none()
                            && socket.local.takes(local.ip())
                    }) {
                        last = self.sockets.key_at(index);
                    }
                    false
                });
                last.map(Key::index)
            })
        })
    }

    fn leave_flow(&mut self, id: UdpId, (local, remote): (Local, Option<SocketAddr>)) {
        if let (Some(address), Some(remote)) = (local.address, remote) {
            let flow = self.key.flow((address, local.port), (remote.ip(), remote.port()));
            self.by_flow.remove(flow, id.0.index());
        }
    }

    /// Whether binding to `wanted` would conflict with another socket.
    fn is_taken(&self, wanted: &Local, options: Options) -> bool {
        let clashes = |index| {
            self.sockets.at(index).is_some_and(|socket| {
                let Local { address, port, v4, v6 } = socket.local;
                port == wanted.port
                    && (v4 && wanted.v4 || v6 && wanted.v6)
                    && (address.is_none() || wanted.address.is_none() || address == wanted.address)
                    && !(socket.options.reuse_address && options.reuse_address)
            })
        };
        self.by_port.find(self.key.endpoint(None, wanted.port), clashes).is_some()
    }

    /// RFC 6056 algorithm 1, with a keyed hash of a counter for the random number.
    fn free_port(&mut self, wanted: Local, options: Options) -> Result<u16, UdpError> {
        self.searches = self.searches.wrapping_add(1);
        let counter = IpAddr::V4(Ipv4Addr::from_bits(self.searches));
        let count = EPHEMERAL.end - EPHEMERAL.start;
        let begin = (self.key.endpoint(Some(counter), 0) % u32::from(count)) as u16;
        (0..count)
            .map(|step| EPHEMERAL.start + (begin + step) % count)
            .find(|&port| !self.is_taken(&Local { port, ..wanted }, options))
            .ok_or(UdpError::AddressInUse)
    }
}

impl Local {
    const fn takes(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

#[cfg(test)]
mod tests;
