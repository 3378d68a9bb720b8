//! Which way a call goes, reading and writing.

pub(crate) mod io;
pub(crate) mod quick;
pub(crate) mod read;
pub(crate) mod write;
