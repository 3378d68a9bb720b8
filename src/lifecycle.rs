//! What happens to descriptors, and to the processes that have them. Called by `abi` around the kernel's calls.
//!
//! [`start`] (a process begins, and ends); [`made`], [`copied`], [`closed`] (a descriptor's life); [`handed_on`] and
//! [`handoff_only`] (another process image or process gets it); [`fork`] and [`split`] (processes that share the socket table,
//! and that leave it).

mod closed;
mod copied;
pub(crate) mod fork;
mod handed_on;
pub(crate) mod handoff_only;
mod made;
pub(crate) mod split;
pub(crate) mod start;

pub(crate) use closed::{closed, closing, closing_range, replacing};
pub(crate) use copied::duplicated;
pub(crate) use handed_on::{
    after_command, before_command, before_exec, before_spawn, exec_failed, look_at_standard, sent_away,
    shared_with_child, take_unread,
};
pub(crate) use made::{accepted, connected, disconnecting, listening, made, set_made, socket_made};
