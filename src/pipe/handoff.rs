//! Back to the kernel, or on to another program, with what is unread.

pub(crate) mod file;
pub(crate) mod give_back;
pub(crate) mod pin;
