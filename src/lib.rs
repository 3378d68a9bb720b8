//! BSD sockets in user space.
//!
//! The library holds the prefixed C ABI (`sockshim_socket`, `sockshim_read`, ...); `crates/preload` exports
//! the same functions under the plain libc names. ARCHITECTURE.md is the map and lists the invariants.
//!
//! A Rust program that runs on sockshim can ask about its connections, those of `std::net` among them: [`path_of`],
//! [`reason_of`], [`counters`], [`process_counters`] and [`pin`]. `examples/connection.rs` is a whole program.
//!
//! Reading order: [`abi`] (what a program calls) -> `state` (which descriptor is what) -> `pipe` (one
//! connection over shared memory) -> `readiness` (poll, select, epoll) -> `sys` (the kernel).

#![cfg_attr(not(test), warn(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

pub mod abi;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod limits;
mod pipe;
mod readiness;
pub mod report;
mod state;
mod sys;

pub use abi::control::{Counters, Path};
pub use connection::{counters, path_of, pin, process_counters, reason_of};
pub use state::reason::Reason;
