//! TCP.
//!
//! Reading order: [`config`] (what can be set), [`state`], `conn` (a connection), its halves `sender` and `receiver`,
//! `input` (a segment arrives), `output` (what leaves), `sender::recovery` (what is lost), `timers`, `calls` (what an application
//! asks), `urgent`, `listen` with `cookies` and `timewait` (connections before and after), [`congestion`].

pub(crate) mod calls;
pub(crate) mod chrono;
pub mod config;
pub mod congestion;
pub(crate) mod conn;
pub(crate) mod context;
pub(crate) mod cookies;
pub mod ecn;
pub(crate) mod endpoint;
pub(crate) mod info;
pub(crate) mod input;
pub(crate) mod listen;
pub(crate) mod output;
pub(crate) mod pacing;
pub(crate) mod pmtu;
pub(crate) mod push;
pub(crate) mod ranges;
pub(crate) mod rate;
pub(crate) mod receiver;
pub(crate) mod resources;
pub(crate) mod route;
pub(crate) mod rtt;
pub(crate) mod secrets;
pub(crate) mod sender;
pub mod state;
pub(crate) mod timers;
pub(crate) mod timewait;
pub(crate) mod tune;
pub(crate) mod urgent;

pub use calls::How;
pub use config::Config;
pub use conn::SocketOptions;
pub use context::TcpCounters;
pub use info::{Info, Readiness};
pub use push::SendFlags;
pub use resources::MemoryLimits;
pub use state::State;

/// RFC 9293 section 3.7.1: the size of segments when nothing is said about it.
pub(crate) const DEFAULT_MSS: u16 = 536;
/// The same for IPv6.
pub(crate) const DEFAULT_MSS_V6: u16 = 1220;
