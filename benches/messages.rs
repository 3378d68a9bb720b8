//! How many messages, and how many bytes, go one way in a second?

mod common;

fn main() {
    common::ask(&["messages", "stream"]);
}
