//! How much stack a call needs: programs call on small ones, as they may call the kernel. Coroutines, signal handlers on an
//! alternate stack, and threads that `clone` has made have a page or two.
//!
//! tests/stack.c measures the library as users get it, by a stack that was filled with a pattern.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::PathBuf;
use std::process::Command;

use process::{Mode, Scratch};

/// Bytes for a call, more than an empty function needs. The C library's own part is among them.
const MOST: usize = 1536;

#[test]
fn every_call_fits_on_a_small_stack() {
    let test = Test::new();
    let mut needs = Vec::new();
    for mode in [Mode::Preloaded, Mode::AtOnce] {
        for what in ["first", "all", "exec"] {
            needs.extend(test.measure(mode, what));
        }
    }
    assert!(needs.len() > 60, "{needs:?}");
    let too_much: Vec<_> = needs.iter().filter(|(_, bytes)| *bytes > MOST).collect();
    assert!(too_much.is_empty(), "more than {MOST} bytes of stack: {too_much:?}");
}

#[test]
fn a_thread_on_one_page_uses_sockets() {
    let test = Test::new();
    for mode in [Mode::Preloaded, Mode::AtOnce] {
        assert_eq!(test.measure(mode, "clone"), [("clone".to_owned(), 0)]);
    }
}

#[test]
fn a_signal_handler_on_eight_kilobytes_uses_sockets() {
    let test = Test::new();
    for mode in [Mode::Preloaded, Mode::AtOnce] {
        assert_eq!(test.measure(mode, "handler"), [("handler".to_owned(), 0)]);
    }
}

/// The program that measures, and the library.
struct Test {
    scratch: Scratch,
    caller: PathBuf,
    library: PathBuf,
}

impl Test {
    fn new() -> Self {
        let scratch = Scratch::new();
        let caller = scratch.path().join("stack");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack.c");
        // The linker would save all registers at the first call of a name: kilobytes that are not the call's.
        let arguments = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-z,now", "-pthread", source, "-o"];
        let status = Command::new("cc").args(arguments).arg(&caller).status().expect("a C compiler");
        assert!(status.success());
        Self { scratch, caller, library: common::release_build() }
    }

    /// Names of calls, and the bytes of stack that they need.
    fn measure(&self, mode: Mode, what: &str) -> Vec<(String, usize)> {
        let mut command = self.scratch.command(mode, &self.caller);
        let output = command.env("LD_PRELOAD", &self.library).arg(what).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what}: {output:?}");
        let parse = |line: &str| {
            let (name, bytes) = line.rsplit_once(' ').expect("a name and a number");
            (name.to_owned(), bytes.parse().expect("a number"))
        };
        text.lines().map(parse).collect()
    }
}
