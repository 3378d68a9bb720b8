//! What does a short connection cost: connect, accept, a message each way or none, close?

mod common;

fn main() {
    common::ask(&["connect"]);
}
