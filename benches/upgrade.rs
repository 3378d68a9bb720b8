//! When is a connection worth a pipe? Connections of different lengths, with several values of
//! `SOCKSHIM_UPGRADE_AFTER`.

mod common;

fn main() {
    common::ask(&["upgrade", "upgrade-two-cores"]);
}
