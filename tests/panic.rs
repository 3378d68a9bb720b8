//! A panic inside the library ends the call, and not the program.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::process::Command;

use process::{Mode, Scratch};

#[test]
fn a_call_that_panics_has_failed_and_the_program_goes_on() {
    let scratch = Scratch::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/panic.c");
    let program = scratch.path().join("panic");
    let arguments = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"];
    let status = Command::new("cc").args(arguments).args([&program, &source]).status().expect("a C compiler");
    assert!(status.success());
    for panics in [0, 3] {
        let mut command = scratch.command(Mode::AtOnce, &program);
        command.env("SOCKSHIM_PANICS", panics.to_string());
        let mut running = scratch.start(&mut command);
        running.wait();
        let said = running.stderr();
        assert_eq!(said.matches("sockshim: internal error at ").count(), panics, "{said}");
        assert_eq!(running.success(), format!("{panics} failures\n"));
    }
}
