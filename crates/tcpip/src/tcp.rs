//! TCP.

pub mod congestion;
pub mod pacing;
pub mod prr;
pub mod rate;
pub mod rtt;
