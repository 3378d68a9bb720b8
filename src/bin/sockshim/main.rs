//! The `sockshim` command.
fn main() {}
