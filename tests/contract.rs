//! Delicate libc calls do under the shared object what they do without it: the C library is the oracle.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn wrapped_calls_keep_the_contract_of_libc() {
    let program = compile();
    let native = run(&program, None);
    let shimmed = run(&program, Some(&common::libsockshim()));
    assert!(native.lines().count() > 100, "{native}");
    for (native, shimmed) in native.lines().zip(shimmed.lines()) {
        assert_eq!(shimmed, native);
    }
    assert_eq!(shimmed.lines().count(), native.lines().count());
}

fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract");
    let status = Command::new("cc")
        .args(["-O2", "-w", "-D_GNU_SOURCE", "-D_FORTIFY_SOURCE=2", "-pthread", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(status.success());
    program
}

/// What the program prints, run in a fresh folder.
fn run(program: &Path, preload: Option<&Path>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.arg(folder.path());
    if let Some(so) = preload {
        command.env("LD_PRELOAD", so);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
