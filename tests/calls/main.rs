//! Every socket call twice, same body: on the kernel, which is the oracle, and on sockshim.
//!
//! Each case runs in a process of its own, once per environment (see `runner.rs`), so a crash or a hang
//! stays inside it. `cargo test --test calls -- host::` runs the kernel's half alone, `pipe::epoll` one
//! area in one environment, `--env pipe` one environment.
//!
//! A case names what the kernel does, exactly: return values, errno, bytes, events. There is no upper
//! bound on time anywhere, only a watchdog against hangs.
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "raw calls with odd arguments are the subject here; ordinary ones have safe wrappers in `sys`"
)]

mod data;
mod harness;
mod runner;
mod sys;

mod alarms;
mod aliases;
mod bulk;
mod clock;
mod connect;
mod contexts;
mod descriptors;
mod doorbells;
mod end;
mod epoll;
mod epoll_many;
mod errors;
mod every_option;
mod families;
mod faults;
mod files;
mod flags;
mod holders;
mod interrupts;
mod io_uring;
mod lanes;
mod loops;
mod masks;
mod memory;
mod namespaces;
mod nests;
mod new_owners;
mod numbers;
mod options;
mod plain;
mod pointers;
mod poll;
mod refusals;
mod replaced;
mod returns;
mod sharers;
mod signals;
mod standard;
mod stops;
mod strangers;
mod stream;
mod threads;
mod untrue;
mod wakes;
mod watchdog;

use std::process::ExitCode;

use crate::harness::Case;

fn main() -> ExitCode {
    match harness::assignment() {
        Some(assignment) => assignment.run(AREAS),
        None => runner::run(AREAS),
    }
}

/// All cases, by area.
const AREAS: &[(&str, &[Case])] = &[
    ("stream", stream::CASES),
    ("flags", flags::CASES),
    ("end", end::CASES),
    ("signals", signals::CASES),
    ("options", options::CASES),
    ("connect", connect::CASES),
    ("poll", poll::CASES),
    ("epoll", epoll::CASES),
    ("epoll_many", epoll_many::CASES),
    ("threads", threads::CASES),
    ("descriptors", descriptors::CASES),
    ("files", files::CASES),
    ("errors", errors::CASES),
    ("faults", faults::CASES),
    ("aliases", aliases::CASES),
    ("io_uring", io_uring::CASES),
    ("lanes", lanes::CASES),
    ("loops", loops::CASES),
    ("every_option", every_option::CASES),
    ("pointers", pointers::CASES),
    ("wakes", wakes::CASES),
    ("interrupts", interrupts::CASES),
    ("new_owners", new_owners::CASES),
    ("plain", plain::CASES),
    ("holders", holders::CASES),
    ("replaced", replaced::CASES),
    ("returns", returns::CASES),
    ("masks", masks::CASES),
    ("memory", memory::CASES),
    ("standard", standard::CASES),
    ("bulk", bulk::CASES),
    ("doorbells", doorbells::CASES),
    ("stops", stops::CASES),
    ("contexts", contexts::CASES),
    ("numbers", numbers::CASES),
    ("strangers", strangers::CASES),
    ("untrue", untrue::CASES),
    ("refusals", refusals::CASES),
    ("clock", clock::CASES),
    ("families", families::CASES),
    ("namespaces", namespaces::CASES),
    ("alarms", alarms::CASES),
    ("nests", nests::CASES),
    ("sharers", sharers::CASES),
];
