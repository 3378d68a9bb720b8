//! The shared memory of one connection: its layout, the byte ring of each direction, and the protocol by
//! which a reader sleeps and a writer wakes it.
//!
//! Everything here is *untrusted input*: the process at the other end may write anything at any time. So
//! every index is loaded once and bounded before use, and no value read here can make this code panic or
//! touch memory outside the mapping.
//!
//! docs/protocol.md explains the protocol; a test compares its tables with [`layout`].
//!
//! It is model-checked with `make loom`, which is
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 \
//!     cargo test -p sockshim-ring --test loom --release --target-dir target/loom
//! ```
//!
//! and takes two minutes on two busy cores (40 s of processor time in user mode); tests/loom.rs lists the
//! models and the defects that each one was seen to find.
//!
//! Reading order: [`layout`] (what lies where), [`ring`] (moving bytes), [`sleep`] (waiting and waking),
//! [`epoch`] (switching between ring and kernel), [`in_flight`] (who must be out of the kernel before that),
//! [`lock_word`] (who may write or read, and what becomes of it when it dies), [`handed`] (a reader whose socket goes to
//! somebody else), [`publish_time`] (which of several connections came up first).

#![deny(clippy::multiple_unsafe_ops_per_block)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("sockshim's rings are made for Linux on x86-64 only");

pub mod epoch;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod fuzzing;
pub mod handed;
pub mod in_flight;
pub mod layout;
pub mod lock_word;
pub mod publish_time;
pub mod ring;
pub mod sleep;
#[cfg(all(test, not(loom)))]
mod stress;
pub mod sync;

#[cfg(all(test, not(loom)))]
extern crate self as sockshim_ring;
