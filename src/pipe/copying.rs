//! Between the program's buffers and the ring.

pub(crate) mod buffers;
pub(crate) mod bulk;
