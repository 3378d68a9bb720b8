//! Storms: honest programs exchange bytes that are checked one by one, while processes are killed and stopped, memory,
//! descriptors and address space run out, the rendezvous folder is not what it should be, and others of the same user
//! write into shared memory as they like.
//!
//! Of those that nobody killed, no conversation may be altered, hang or fail; and when all ends are gone, nothing may be
//! left of them: no file, no mapping, no descriptor, no slot of a table.
//!
//! Each storm prints its seed; `CHAOS_SEED` sets the first one, `CHAOS_ROUNDS` (1) how many follow one another.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;

mod carriers;
mod hostile;
mod roles;
mod storm;
mod traffic;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use process::Mode;
use storm::{Folder, Server};

/// A storm, by its seed.
type Body = fn(u64);

const STORMS: &[(&str, Body)] = &[
    ("clients_of_threads_are_killed_and_stopped", |seed| storm::kill_and_stop(seed, Server::Threads)),
    ("clients_of_an_event_loop_are_killed_and_stopped", |seed| storm::kill_and_stop(seed, Server::Events)),
    ("children_of_a_server_are_killed_and_stopped", |seed| storm::kill_and_stop(seed, Server::Forks)),
    ("children_are_killed_before_they_run", storm::births),
    ("conversations_are_handed_on", storm::hand_on),
    ("conversations_are_handed_on_while_carriers_are_killed", storm::hand_on_and_kill),
    ("a_peer_scribbles_beside_threads", |seed| storm::scribble(seed, Server::Threads)),
    ("a_peer_scribbles_beside_an_event_loop", |seed| storm::scribble(seed, Server::Events)),
    ("a_stranger_scribbles_on_the_table_of_threads", |seed| storm::vandalise(seed, Server::Threads)),
    ("a_stranger_scribbles_on_the_table_of_an_event_loop", |seed| storm::vandalise(seed, Server::Events)),
    ("tmpfs_is_full_again_and_again", storm::tiny_tmpfs),
    ("descriptors_run_out", storm::few_descriptors),
    ("address_space_runs_out", storm::little_address_space),
    ("the_folder_is_a_link", |seed| storm::odd_folder(seed, Folder::Link)),
    ("the_folder_is_a_file", |seed| storm::odd_folder(seed, Folder::File)),
    ("the_folder_is_open_to_others", |seed| storm::odd_folder(seed, Folder::Open)),
    ("the_folder_cannot_be_read", |seed| storm::odd_folder(seed, Folder::Unreadable)),
    ("the_folder_is_somebody_elses", |seed| storm::odd_folder(seed, Folder::Foreign)),
    ("the_folder_cannot_be_made", |seed| storm::odd_folder(seed, Folder::Nowhere)),
    ("the_folder_is_deleted_meanwhile", |seed| storm::odd_folder(seed, Folder::Deleted)),
];

fn main() -> ExitCode {
    if let Some(code) = roles::assigned() {
        return code;
    }
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let first = number("CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 8);
    let rounds = number("CHAOS_ROUNDS").unwrap_or(1);
    let trials = STORMS.iter().map(|(name, body)| {
        Trial::test(*name, move || (first..first + rounds).try_for_each(|seed| attempt(*body, seed)))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn attempt(body: Body, seed: u64) -> Result<(), Failed> {
    catch_unwind(AssertUnwindSafe(|| body(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Failed::from(format!("CHAOS_SEED={seed}: {text}"))
    })
}

/// Both ends in the same mode, mostly on a pipe from the start.
fn mode(seed: u64) -> Mode {
    if seed % 3 == 2 { Mode::Preloaded } else { Mode::AtOnce }
}
