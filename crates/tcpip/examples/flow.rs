//! One transfer between two stacks in memory, to be run under a profiler:
//!
//! ```sh
//! valgrind --tool=callgrind target/release/examples/flow 10000 [gso]
//! ```
//!
//! The number is how many segments are sent; `gso` sends them as super-segments.

#[path = "../benches/net/mod.rs"]
mod net;

use net::{MSS, Net};

fn main() {
    let mut args = std::env::args().skip(1);
    let segments: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (gso, at_once) = if args.next().is_some() { (65_000, 44) } else { (0, 32) };
    let mut net = Net::new(gso);
    let busy = net.open(0);
    for _ in 0..segments.div_ceil(at_once) {
        net.send(busy, at_once * MSS);
    }
}
