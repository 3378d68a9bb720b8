//! A TCP/IP stack that does no I/O: packets and the time go in, packets, deadlines and events come out.
//!
//! Nothing here reads a clock, draws a random number, starts a thread or knows a file descriptor. The same code
//! therefore runs in a process that owns a network link, in the network simulator, under a fuzzer and under packetdrill,
//! and the same input gives the same output.
//!
//! [`stack::Stack`] is the entry point: give it frames with [`handle_packet`](stack::Stack::handle_packet), tell it the time
//! with [`handle_timeout`](stack::Stack::handle_timeout) when [`poll_timeout`](stack::Stack::poll_timeout) says so, and
//! take what it has to say from [`poll_transmit`](stack::Stack::poll_transmit) and
//! [`poll_event`](stack::Stack::poll_event). Its other methods are the socket calls.
//!
//! Send and receive buffers belong to the caller: [`buffer`] documents what they must guarantee.
//!
//! Processing a packet or a timer never loops over connections.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "sim"))]
extern crate std;

pub mod buffer;
pub mod checksum;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod icmp;
mod ip;
mod lazy;
mod neighbour;
pub mod net;
pub mod pcapng;
mod ready;
pub mod seq;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod slab;
pub mod stack;
mod table;
pub mod tcp;
pub mod time;
mod udp;
mod wheel;
pub mod wire;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
