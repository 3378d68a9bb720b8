//! What both versions of IP need beside their headers: fragments, routes, and the choice of a source address.

pub mod address;
pub mod output;
pub mod reassembly;
pub mod route;
