//! Connections over simulated networks: what must hold in every one of them, after each event, and how fast they are.

mod bars;
mod random;
mod regressions;
mod stream;
mod watch;
mod world;
