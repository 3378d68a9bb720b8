//! What does a call cost on a descriptor that is not sockshim's business?

mod common;

fn main() {
    common::ask(&["passthrough"]);
}
