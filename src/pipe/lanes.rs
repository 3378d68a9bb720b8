//! The lanes of a direction: the ring, the kernel's stream, and the way from one to the other.

pub(crate) mod grow;
pub(crate) mod reader;
pub(crate) mod unread;
pub(crate) mod writer;
