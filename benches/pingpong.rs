//! How long does a message take there and back, between two processes with blocking calls?

mod common;

fn main() {
    common::ask(&["pingpong"]);
}
