//! What both versions of IP need beside their headers: fragments, routes, and the choice of a source address.

pub(crate) mod address;
pub(crate) mod output;
pub(crate) mod reassembly;
pub(crate) mod route;

/// Names a link of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u8);

impl InterfaceId {
    /// The link on which a stack hears itself. Each stack has it. What
    /// [`Network::poll_transmit`](crate::net::Network::poll_transmit) gives out for it goes straight back into
    /// [`Network::receive`](crate::net::Network::receive).
    pub const LOOPBACK: Self = Self(0);
}
