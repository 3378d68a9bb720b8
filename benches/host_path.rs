//! What does sockshim cost a connection that cannot use a pipe?

mod common;

fn main() {
    common::ask(&["host"]);
}
