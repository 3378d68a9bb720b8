//! How much memory things take.

use crate::buffer::Ring;
use crate::tcp::conn::Connection;

#[test]
fn print() {
    use std::println;
    println!("connection {}", size_of::<Connection<Ring, Ring>>());
    println!("ring {}", size_of::<Ring>());
    println!("sender {}", size_of::<crate::tcp::sender::Sender>());
    println!("board {}", size_of::<crate::tcp::recovery::Scoreboard>());
    println!("record {}", size_of::<crate::tcp::recovery::Record>());
    println!("recovery {}", size_of::<crate::tcp::recovery::Recovery>());
    println!("rack {}", size_of::<crate::tcp::recovery::Rack>());
    println!("controller {}", size_of::<crate::tcp::congestion::Controller>());
    println!("cubic {}", size_of::<crate::tcp::congestion::Cubic>());
    println!("rtt {}", size_of::<crate::tcp::rtt::RttEstimator>());
    println!("minrtt {}", size_of::<crate::tcp::rtt::MinRtt>());
    println!("rate {}", size_of::<crate::tcp::rate::RateEstimator>());
    println!("pacer {}", size_of::<crate::tcp::pacing::Pacer>());
    println!("counters {}", size_of::<crate::tcp::sender::Counters>());
    println!("receiver {}", size_of::<crate::tcp::receiver::Receiver>());
    println!("tune {}", size_of::<crate::tcp::tune::ReceiveTuning>());
    println!("ack {}", size_of::<crate::tcp::receiver::AckPolicy>());
    println!("options {}", size_of::<crate::tcp::SocketOptions>());
    println!("path {}", size_of::<crate::tcp::route::CachedPath>());
    println!("chrono {}", size_of::<crate::tcp::chrono::Chrono>());
}
