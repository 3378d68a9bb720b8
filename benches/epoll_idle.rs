//! What does one active connection cost in an epoll set that holds many idle ones?

mod common;

fn main() {
    common::ask(&["epoll"]);
}
