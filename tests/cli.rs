//! The `sockshim` command as its users meet it.

mod common;
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::sockshim;
use process::{Scratch, skip};

#[test]
fn a_missing_program_is_127_and_one_line() {
    for name in ["no-such-program-anywhere", "/no/such/program", "./nothing"] {
        let output = run(&["--", name]);
        assert_eq!(output.status.code(), Some(127));
        assert_eq!(stderr(&output), format!("sockshim: {name}: there is no such program\n"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_program_without_permission_is_126_and_one_line() {
    let scratch = Scratch::new();
    let file = scratch.file("data", "not a program");
    for name in [file.as_path(), scratch.path()] {
        let output = run(&["--", name.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(126));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    assert_eq!(run(&["--", "sh", "-c", "exit 42"]).status.code(), Some(42));
    let killed = run(&["--", "sh", "-c", "kill -9 $$"]).status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed), Some(9));
}

#[test]
fn output_and_arguments_are_the_programs() {
    let output = run(&["-v", "sh", "-c", "printf '%s,' \"$0\" \"$@\"", "-v", "--path", "x y", ""]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-v,--path,x y,,");
}

#[test]
fn verbose_shows_every_variable_that_is_set() {
    let output = run(&["-v", "--path", "host", "--profile", "latency", "--", "env"]);
    let program_sees = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = stderr(&output);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    for line in shown.lines() {
        let variable = line.strip_prefix("sockshim: ").unwrap();
        assert!(program_sees.lines().any(|line| line == variable), "{variable} is not in {program_sees}");
    }
    assert!(
        shown.contains("SOCKSHIM_PATH=host\n") && shown.contains("SOCKSHIM_PROFILE=latency\n"),
        "{shown}"
    );
}

#[test]
fn path_pipe_upgrades_before_the_first_byte() {
    let shown = stderr(&run(&["-v", "--path", "pipe", "--", "true"]));
    assert!(
        shown.contains("SOCKSHIM_PATH=pipe\n") && shown.contains("SOCKSHIM_UPGRADE_AFTER=0\n"),
        "{shown}"
    );
}

#[test]
fn without_options_nothing_but_ld_preload_is_set() {
    let output = run(&["-v", "--", "true"]);
    let shown = stderr(&output);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let library = shown.trim().strip_prefix("sockshim: LD_PRELOAD=").unwrap();
    assert!(Path::new(library).is_absolute() && library.ends_with("/libsockshim.so"), "{library}");
}

#[test]
fn what_was_preloaded_stays_preloaded() {
    let scratch = Scratch::new();
    let other = scratch.path().join("other.so");
    cc(&[scratch.file("other.c", "int other_is_here;\n").to_str().unwrap(), "-shared", "-fPIC"], &other)
        .unwrap();
    let output = command(&["--", "sh", "-c", "echo $LD_PRELOAD; cat /proc/self/maps"])
        .env("LD_PRELOAD", &other)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = text.lines().next().unwrap();
    assert!(value.ends_with(&format!("/libsockshim.so:{}", other.display())), "{value}");
    assert!(text.lines().skip(1).any(|line| line.ends_with("/other.so")), "{text}");
    assert!(text.lines().skip(1).any(|line| line.ends_with("/libsockshim.so")), "{text}");
}

#[test]
fn a_library_that_does_not_exist_is_125() {
    let output = run(&["--library", "/no/such.so", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stderr(&output), "sockshim: /no/such.so: there is no such file\n");
}

#[test]
fn an_unknown_option_says_what_to_do() {
    let output = run(&["--bogus", "--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("--bogus") && text.contains("Usage: sockshim run"), "{text}");

    let output = run(&["--path", "sideways", "--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("auto, host, pipe"), "{}", stderr(&output));
}

#[test]
fn a_dynamic_program_is_run_without_a_word() {
    let output = run(&["--", "true"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn a_static_program_is_run_with_a_warning() {
    let scratch = Scratch::new();
    let Some(program) = static_program(&scratch) else { return };
    let output = run(&["--", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    warned(&output, "is statically linked");
}

#[test]
fn a_script_is_judged_by_its_interpreter() {
    let scratch = Scratch::new();
    let plain = executable(&scratch, "plain", "#!/bin/sh\nexit 3\n");
    let output = run(&["--", plain.to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(3), String::new()));

    let by_env = executable(&scratch, "by-env", "#!/usr/bin/env -S A=b sh -e\nexit 4\n");
    let output = run(&["--", by_env.to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(4), String::new()));

    let Some(program) = static_program(&scratch) else { return };
    let script = executable(&scratch, "static-script", &format!("#! {} argument\n", program.display()));
    let output = run(&["--", script.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    warned(&output, "/static-program is statically linked");
}

#[test]
fn a_script_without_an_interpreter_is_run_by_the_shell() {
    let scratch = Scratch::new();
    let script = executable(&scratch, "bare", "exit 5\n");
    assert_eq!(run(&["--", script.to_str().unwrap()]).status.code(), Some(5));
}

#[test]
fn a_program_with_another_loader_is_run_without_the_library_and_with_a_warning() {
    let scratch = Scratch::new();
    let source = scratch
        .file("main.c", "#include <stdlib.h>\nint main(void) { return getenv(\"LD_PRELOAD\") ? 1 : 8; }\n");
    // musl's loader ends a program for which it cannot preload something; glibc's stands in for it under its name.
    let loader = scratch.path().join("ld-musl-x86_64.so.1");
    std::os::unix::fs::symlink("/lib64/ld-linux-x86-64.so.2", &loader).unwrap();
    let program = scratch.path().join("musl-program");
    let option = format!("-Wl,--dynamic-linker={}", loader.display());
    cc(&[source.to_str().unwrap(), &option], &program).unwrap();
    let output = run(&["--", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(8));
    warned(&output, "uses another libc than glibc (its loader is ld-musl-x86_64.so.1)");
}

#[test]
fn a_go_program_is_run_with_a_warning() {
    let scratch = Scratch::new();
    let source = scratch.file(
        "main.c",
        "__attribute__((section(\".go.buildinfo\"), used)) static const char info[16] = \"Go\";\n\
         int main(void) { return 6; }\n",
    );
    let program = scratch.path().join("go-program");
    cc(&[source.to_str().unwrap()], &program).unwrap();
    let output = run(&["--", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(6));
    warned(&output, "is written in Go");
}

#[test]
fn a_set_user_id_program_is_run_with_a_warning() {
    let scratch = Scratch::new();
    let program = scratch.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    // Only root may give a file away; a file of one's own gains nothing by the bit.
    if std::os::unix::fs::chown(&program, Some(65534), None).is_err() {
        return skip("not root, so no set-user-ID program can be made");
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    warned(&run(&["--", program.to_str().unwrap()]), "gains privileges when it starts");
}

#[test]
fn a_damaged_program_is_an_error_and_no_panic() {
    let scratch = Scratch::new();
    let program = executable(&scratch, "damaged", "\x7fELF\x02\x01\x01 and then nonsense");
    let output = run(&["--", program.to_str().unwrap()]);
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    assert!(!output.status.success());
}

#[test]
fn the_signal_state_is_handed_on() {
    let ignored = "trap '' PIPE; exec \"$0\" run -- grep SigIgn /proc/self/status";
    let default = "exec \"$0\" run -- grep SigIgn /proc/self/status";
    let [ignored, default] = [ignored, default].map(|script| {
        let output = Command::new("sh").args(["-c", script]).arg(sockshim()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mask = u64::from_str_radix(text.trim().strip_prefix("SigIgn:\t").unwrap(), 16).unwrap();
        mask & (1 << (libc::SIGPIPE - 1)) != 0
    });
    assert!(ignored, "an ignored SIGPIPE must stay ignored");
    assert!(!default, "the default action of SIGPIPE must stay the default");
}

#[test]
fn help_documents_options_and_exit_codes() {
    let general = Command::new(sockshim()).arg("--help").output().unwrap();
    let of_run = run(&["--help"]);
    for output in [general, of_run] {
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("127") && text.contains("126") && text.contains("Usage"), "{text}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let script = "(\"$0\" --help; echo $? >&2) | true";
    let output = Command::new("sh").args(["-c", script]).arg(sockshim()).output().unwrap();
    assert_eq!(stderr(&output), "0\n");
}

#[test]
fn demo_without_examples_says_how_to_build_them() {
    let output = Command::new(sockshim()).args(["demo", "--examples", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("make -C c_examples"), "{}", stderr(&output));
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(sockshim());
    command.arg("run").args(arguments).env_remove("LD_PRELOAD");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn warned(output: &Output, about: &str) {
    let text = stderr(output);
    let warnings: Vec<&str> = text.lines().filter(|line| line.starts_with("sockshim: warning: ")).collect();
    assert!(matches!(&warnings[..], [line] if line.contains(about)), "{text}");
}

fn executable(scratch: &Scratch, name: &str, content: &str) -> PathBuf {
    let path = scratch.file(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A program without loader that ends with 7, unless this machine has no static libc.
fn static_program(scratch: &Scratch) -> Option<PathBuf> {
    let program = scratch.path().join("static-program");
    let source = scratch.file("static.c", "int main(void) { return 7; }\n");
    match cc(&[source.to_str().unwrap(), "-static"], &program) {
        Ok(()) => Some(program),
        Err(error) => {
            skip(&format!("no static program can be linked here: {error}"));
            None
        }
    }
}

fn cc(arguments: &[&str], out: &Path) -> Result<(), String> {
    let output = Command::new("cc").args(arguments).arg("-o").arg(out).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(stderr(&output)) }
}
