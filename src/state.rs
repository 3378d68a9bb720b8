//! What is known of descriptors, sockets and processes.
//!
//! Two tables, as in a kernel: the descriptor table ([`descriptor_table`]) is private to the process and indexed by number; the
//! socket table ([`socket_table`]) holds open file descriptions, in memory that `fork` shares, with the processes that have
//! them ([`family`]), their [`lock`]s and their [`registrations`] with epoll sets.
//!
//! Nothing here knows what a connection does: what follows from a change is up to `pipe` and those above it.

pub(crate) mod addresses;
pub(crate) mod config;
pub(crate) mod descriptor_table;
pub(crate) mod family;
pub(crate) mod flags;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod phase;
pub(crate) mod process_name;
pub(crate) mod reason;
pub(crate) mod registrations;
pub(crate) mod rendezvous;
pub(crate) mod rings;
pub(crate) mod socket;
pub(crate) mod socket_table;
pub(crate) mod stale_files;
pub(crate) mod table_file;
pub(crate) mod timed_waits;
pub(crate) mod trace;

pub(crate) use socket::Socket;
