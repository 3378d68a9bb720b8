//! UDP as programs call it.

use super::{ErrorKind, Network};
use crate::time::Instant;
use crate::udp::{Datagram, Options, UdpError, UdpId};
use crate::wire::{ip, protocol, udp};
use core::net::{IpAddr, SocketAddr};

/// The longest payload of a datagram over IPv4, and over IPv6, which has no header of its own in the length.
const fn longest(destination: IpAddr) -> usize {
    if destination.is_ipv4() { 65_535 - 20 - udp::Header::LEN } else { 65_535 - udp::Header::LEN }
}

impl Network {
    /// Makes a UDP socket with a local address, which may be any, and a port, which may be 0 for a free one.
    ///
    /// # Errors
    ///
    /// [`UdpError::AddressNotAvailable`], [`UdpError::AddressInUse`].
    pub fn udp_bind(&mut self, local: SocketAddr, options: Options) -> Result<UdpId, UdpError> {
        let address = local.ip();
        if !address.is_unspecified() && !self.is_local(address) && !self.is_group(address) {
            return Err(UdpError::AddressNotAvailable);
        }
        self.udp.bind(local, options)
    }

    /// Gives a socket one other end.
    ///
    /// # Errors
    ///
    /// [`UdpError::NetUnreachable`], [`UdpError::WrongVersion`], [`UdpError::Closed`].
    pub fn udp_connect(&mut self, id: UdpId, remote: SocketAddr) -> Result<(), UdpError> {
        let local = self.udp.local(id).ok_or(UdpError::Closed)?;
        let path = self.route(own(local.ip()), remote.ip()).ok_or(UdpError::NetUnreachable)?;
        self.udp.connect(id, path.source, remote)
    }

    /// Sends a datagram to `to`, or to the other end that the socket is connected to.
    ///
    /// # Errors
    ///
    /// [`UdpError::WouldBlock`] when the link is behind, the error of an earlier datagram, and what is wrong with this
    /// one.
    pub fn udp_send(
        &mut self,
        now: Instant,
        id: UdpId,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<(), UdpError> {
        self.udp.take_error(id)?;
        let local = self.udp.local(id).ok_or(UdpError::Closed)?;
        let to = to.or_else(|| self.udp.remote(id)).ok_or(UdpError::NoDestination)?;
        if bytes.len() > longest(to.ip()) {
            return Err(UdpError::TooLong);
        }
        let path = self.route(own(local.ip()), to.ip()).ok_or(UdpError::NetUnreachable)?;
        if !self.has_room() {
            return Err(UdpError::WouldBlock);
        }
        let mut datagram = alloc::vec![0; udp::Header::LEN + bytes.len()];
        datagram[udp::Header::LEN..].copy_from_slice(bytes);
        let header = ip::Header {
            src: path.source,
            dst: to.ip(),
            protocol: protocol::UDP,
            hop_limit: if to.ip().is_multicast() { 1 } else { self.config.hop_limit },
            traffic_class: 0,
            id: 0,
            dont_fragment: true,
            payload_len: datagram.len(),
        };
        let whole = header.len() + datagram.len() <= path.mtu as usize;
        // A link cannot sum over fragments, and not over a packet that waits for a neighbour either.
        let offload = whole && self.capabilities(path.iface).tx_checksum && self.is_resolved(&path);
        let ports = udp::Header { src_port: local.port(), dst_port: to.port() };
        ports.emit(path.source, to.ip(), &mut datagram, offload);
        let checksum = offload.then_some((header.len() as u16, udp::Header::CHECKSUM_OFFSET));
        self.send(now, &path, &header, &datagram, checksum);
        Ok(())
    }

    /// Takes the oldest datagram that came.
    ///
    /// # Errors
    ///
    /// [`UdpError::WouldBlock`], [`UdpError::Closed`], the error of an earlier datagram.
    pub fn udp_receive(&mut self, id: UdpId) -> Result<Datagram, UdpError> {
        self.udp.receive(id)
    }

    /// Closes a socket.
    ///
    /// # Errors
    ///
    /// [`UdpError::Closed`].
    pub fn udp_close(&mut self, id: UdpId) -> Result<(), UdpError> {
        self.udp.close(id)
    }

    /// Where a socket is bound to.
    pub fn udp_local(&self, id: UdpId) -> Option<SocketAddr> {
        self.udp.local(id)
    }

    /// Whether a receive would return something.
    pub fn udp_is_readable(&self, id: UdpId) -> bool {
        self.udp.is_readable(id)
    }

    /// A socket to which a datagram or an error came since it was last returned.
    #[must_use]
    pub fn poll_udp(&mut self) -> Option<UdpId> {
        self.udp.poll_readable()
    }

    /// The error about an earlier datagram, once, as `SO_ERROR` tells it.
    pub fn udp_error(&mut self, id: UdpId) -> Option<ErrorKind> {
        match self.udp.take_error(id) {
            Err(UdpError::Reported(kind)) => Some(kind),
            _ => None,
        }
    }
}

/// The address that a socket is bound to, if that can be a source.
fn own(local: IpAddr) -> Option<IpAddr> {
    (!local.is_unspecified() && !local.is_multicast()).then_some(local)
}
