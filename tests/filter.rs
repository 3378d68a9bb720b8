//! Programs under a filter that kills for what they do not need, from a launcher: they run with sockshim as without it.

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

use process::{Mode, Scratch};

#[test]
fn a_filter_that_kills_lets_the_library_live() {
    let scratch = Scratch::new();
    let launcher = compile(&scratch, "tests/filter.c");
    let [pingpong, server, client] = ["pingpong", "http_server", "http_keepalive"]
        .map(|name| compile(&scratch, &format!("c_examples/{name}.c")));
    for mode in [Mode::Native, Mode::Preloaded, Mode::AtOnce] {
        let run = |program: &Path, arguments: &[&str]| {
            let mut command = scratch.command(Mode::Native, &launcher);
            if mode != Mode::Native {
                command.env("FILTER_PRELOAD", common::libsockshim());
            }
            if mode == Mode::AtOnce {
                command.env("SOCKSHIM_UPGRADE_AFTER", "0");
            }
            scratch.start(command.arg(program).args(arguments))
        };
        for (kind, size, count) in [("latency", "64", "3000"), ("throughput", "65536", "2000")] {
            let mut there = run(&pingpong, &["server"]);
            let told = run(&pingpong, &["client", &there.port(), kind, size, count]).success();
            assert!(told.starts_with(kind), "{mode:?}: {told}");
            there.success();
        }
        let mut there = run(&server, &["0", "1"]);
        let told = run(&client, &["127.0.0.1", &there.port(), "300"]).success();
        assert!(told.starts_with("300 answers, "), "{mode:?}: {told}");
        there.success();
    }
}

#[test]
fn the_filter_allows_what_is_documented() {
    let filter = include_str!("filter.c");
    let (_, ours) = filter.split_once("sockshim: as docs/compatibility.md says").unwrap();
    let documented = include_str!("../docs/compatibility.md");
    let (_, line) = documented.split_once("Under a filter sockshim makes these system calls: ").unwrap();
    let (line, _) = line.split_once("\n\n").unwrap();
    let mut documented: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
    let mut allowed: Vec<&str> =
        ours.split("ALLOW(").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    documented.sort_unstable();
    allowed.sort_unstable();
    assert_eq!(allowed, documented);
}

fn compile(scratch: &Scratch, source: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let program = scratch.path().join(source.file_stem().unwrap());
    let arguments = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread", "-o"];
    let status = Command::new("cc").args(arguments).args([&program, &source]).status().expect("a C compiler");
    assert!(status.success());
    program
}
