//! An address and a port, in fewer bytes than `SocketAddr`: there are many connections, handshakes and rests in TIME-WAIT.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    ip: IpAddr,
    port: u16,
}

impl Endpoint {
    /// The address is read in the pieces in which it has just been written.
    #[inline]
    pub(crate) fn new(ip: &IpAddr, port: u16) -> Self {
        let ip = match ip {
            IpAddr::V4(ip) => IpAddr::V4(*ip),
            IpAddr::V6(ip) => IpAddr::V6(*ip),
        };
        Self { ip, port }
    }

    #[inline]
    pub(crate) fn ip(self) -> IpAddr {
        self.ip
    }

    #[inline]
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

/// Both ends of a connection, in 16 bytes where those are of IPv4.
#[derive(Debug, Clone)]
pub(crate) enum Ends {
    V4(Ipv4Addr, u16, Ipv4Addr, u16),
    V6(Box<(Endpoint, Endpoint)>),
}

impl Ends {
    #[inline]
    pub(crate) fn local(&self) -> Endpoint {
        match *self {
            Self::V4(ip, port, ..) => Endpoint { ip: IpAddr::V4(ip), port },
            Self::V6(ref ends) => ends.0,
        }
    }

    #[inline]
    pub(crate) fn remote(&self) -> Endpoint {
        match *self {
            Self::V4(_, _, ip, port) => Endpoint { ip: IpAddr::V4(ip), port },
            Self::V6(ref ends) => ends.1,
        }
    }

    /// The local port, and the remote one.
    #[inline]
    pub(crate) fn ports(&self) -> (u16, u16) {
        match *self {
            Self::V4(_, local, _, remote) => (local, remote),
            Self::V6(ref ends) => (ends.0.port, ends.1.port),
        }
    }
}

impl From<(SocketAddr, SocketAddr)> for Ends {
    fn from(ends: (SocketAddr, SocketAddr)) -> Self {
        match ends {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                Self::V4(*local.ip(), local.port(), *remote.ip(), remote.port())
            }
            (local, remote) => Self::V6(Box::new((local.into(), remote.into()))),
        }
    }
}

impl PartialEq<(Endpoint, Endpoint)> for Ends {
    #[inline]
    fn eq(&self, ends: &(Endpoint, Endpoint)) -> bool {
        match (self, ends) {
            (&Self::V4(local, local_port, remote, remote_port), (l, r)) => {
                (l.port, r.port) == (local_port, remote_port) && l.ip == local && r.ip == remote
            }
            (Self::V6(own), ends) => **own == *ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_out_as_they_went_in_and_are_no_others() {
        let ends = [
            ("10.0.0.1:1024", "10.0.0.2:80"),
            ("10.0.0.2:80", "10.0.0.1:1024"),
            ("10.0.0.1:80", "10.0.0.2:1024"),
            ("[fe80::1]:1024", "[fe80::2]:80"),
            ("[::ffff:10.0.0.1]:1024", "[::ffff:10.0.0.2]:80"),
        ]
        .map(|(local, remote)| (local.parse::<SocketAddr>().unwrap(), remote.parse::<SocketAddr>().unwrap()));
        for (local, remote) in ends {
            let kept = Ends::from((local, remote));
            assert_eq!((kept.local().into(), kept.remote().into()), (local, remote));
            assert_eq!(kept.ports(), (local.port(), remote.port()));
            for other in ends {
                let same = other == (local, remote);
                assert_eq!(kept == (Endpoint::from(other.0), Endpoint::from(other.1)), same, "{other:?}");
            }
        }
    }
}
