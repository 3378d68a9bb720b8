//! Plain libc names.
