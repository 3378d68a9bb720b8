//! Which descriptor is what.
//!
//! Two tables, as in a kernel: the descriptor table ([`table`]) is private to the process and indexed by
//! number; the socket table ([`arena`]) holds open file descriptions, in memory that `fork` shares.

pub(crate) mod addresses;
pub(crate) mod arena;
pub(crate) mod config;
pub(crate) mod fork;
pub(crate) mod janitor;
pub(crate) mod lifecycle;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod naps;
pub(crate) mod process_name;
pub(crate) mod reason;
pub(crate) mod registrations;
mod rings;
pub(crate) mod socket;
pub(crate) mod split;
pub(crate) mod start;
pub(crate) mod table;
pub(crate) mod table_file;
pub(crate) mod trace;

pub(crate) use socket::Socket;
