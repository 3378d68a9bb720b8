//! What a call waits for, and how: spinning, a timed futex wait, sleep.

pub(crate) mod events;
pub(crate) mod room;
pub(crate) mod spin;
pub(crate) mod timed_wait;
pub(crate) mod wait;
