//! Which descriptor is what.

pub(crate) mod lifecycle;
pub(crate) mod reason;
