//! BSD sockets in user space.
//!
//! The library holds the prefixed C ABI (`sockshim_socket`, `sockshim_read`, ...); `crates/preload` exports
//! the same functions under the plain libc names. ARCHITECTURE.md is the map and lists the invariants.
//!
//! A Rust program that runs on sockshim can ask about its connections, those of `std::net` among them: [`path_of`],
//! [`reason_of`], [`counters`], [`process_counters`] and [`pin`]. `examples/connection.rs` is a whole program.
//! [`inspect`] is for tools that look at other processes, as `sockshim ss` does.
//!
//! The library is made of layers, each of which uses those below it only: [`abi`] (what a program calls), `lifecycle` (what
//! happens to descriptors and processes), `readiness` (poll, select, epoll), `pipe` (one connection over shared memory),
//! `state` (what is known: tables, locks, registrations), `sys` (the kernel). Read from the top.

#![deny(clippy::multiple_unsafe_ops_per_block)]
#![cfg_attr(not(test), warn(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("sockshim is made for Linux on x86-64 only");

pub mod abi;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inspect;
mod lifecycle;
#[cfg(test)]
mod limits;
mod pipe;
mod readiness;
mod state;
mod sys;

pub use abi::control::{Counters, Path};
pub use connection::{counters, path_of, pin, process_counters, reason_of};
pub use state::reason::Reason;
