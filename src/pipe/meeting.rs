//! Finding the other end, and what a descriptor is.

pub(crate) mod attach;
pub(crate) mod descriptor;
pub(crate) mod options;
pub(crate) mod registered;
