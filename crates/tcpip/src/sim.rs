//! A network simulator: hosts that do no I/O themselves, and links between them, in virtual time.
//!
//! Everything is deterministic: the same seed gives the same trace, whose hash is [`Network::trace`]. Nothing waits: a
//! simulated hour takes as long as its packets take to compute.
//!
//! ```text
//!   host --poll_transmit--> link -> link -> ... -> [GRO] --handle_packet--> host
//!     ^                     rate, queue, delay, loss, ...                     |
//!     +---- clock: coarse, too fast or too slow, not starting at zero --------+
//! ```
//!
//! A [`Link`] computes when a packet arrives, and the [`Network`] keeps it until then. The links alone also serve where
//! time is real.

mod clock;
mod frame;
mod host;
mod icmp;
mod link;
mod network;
mod random;

pub use clock::Clock;
pub use frame::{Frame, TcpLayout};
pub use host::Host;
pub use link::{Dropped, Link, LinkConfig, LinkCounters, Loss, Mtu, Outcome, Queue, Segments};
pub use network::{HostId, LinkId, Network, Step};
pub use random::Random;
