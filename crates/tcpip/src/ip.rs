//! What both versions of IP need beside their headers: fragments, routes, and the choice of a source address.

pub(crate) mod address;
pub(crate) mod output;
pub(crate) mod reassembly;
pub(crate) mod route;

/// Names a link of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u8);

impl InterfaceId {
    /// The loopback link, which each stack has. What [`Network::poll_transmit`](crate::net::Network::poll_transmit) sends
    /// on it goes straight back into [`Network::receive`](crate::net::Network::receive).
    pub const LOOPBACK: Self = Self(0);
}
