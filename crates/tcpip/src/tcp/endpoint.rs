//! An address and a port, in fewer bytes than `SocketAddr`: there are many connections, handshakes and rests in TIME-WAIT.

use core::net::{IpAddr, SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    ip: IpAddr,
    port: u16,
}

impl Endpoint {
    pub(crate) fn ip(self) -> IpAddr {
        self.ip
    }

    pub(crate) fn port(self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for Endpoint {
    #[inline]
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    #[inline]
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.ip, endpoint.port)
    }
}
