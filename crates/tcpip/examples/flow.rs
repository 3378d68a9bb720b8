//! One transfer between two stacks in memory, to be run under a profiler:
//!
//! ```sh
//! valgrind --tool=callgrind target/release/examples/flow 10000 [gso|acks]
//! valgrind --tool=callgrind --toggle-collect='*receive_acks*' target/release/examples/flow 10000 acks
//! ```
//!
//! The number is how many segments are sent; `gso` sends them as super-segments; `acks` has each second one acknowledged,
//! in stages which a profiler can tell apart: `send_segments`, `receive_segments`, `receive_acks`.

#[path = "../benches/net/mod.rs"]
mod net;

use net::{MSS, Net};
use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let segments: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let how = args.next().unwrap_or_default();
    let (gso, at_once) = if how == "gso" { (65_000, 44) } else { (0, 32) };
    let mut net = Net::new(gso);
    let busy = net.open(0);
    for _ in 0..10 {
        net.send(busy, at_once * MSS);
    }
    for _ in 10..segments.div_ceil(at_once) {
        match how.as_str() {
            "acks" => {
                net.stages(busy, at_once, || Duration::ZERO);
            }
            _ => net.send(busy, at_once * MSS),
        }
    }
}
