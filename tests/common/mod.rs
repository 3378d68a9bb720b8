//! What several tests need.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The shared object that belongs to this test: Cargo builds it beside the test executable.
pub(crate) fn libsockshim() -> PathBuf {
    let so = std::env::current_exe().unwrap().with_file_name("libsockshim.so");
    assert!(so.exists(), "{} is missing: is sockshim-preload a dev-dependency?", so.display());
    so
}

/// The command of the same sources. It is another package's, of which Cargo builds nothing for the tests of this one.
pub(crate) fn sockshim() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build_it = || {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).and_then(|folder| folder.file_name()?.to_str());
        // Together with this test, so that the dependencies have the features that they have for tests, and are there.
        let what = ["--bin", "sockshim", "--test", env!("CARGO_CRATE_NAME")];
        build(&what, profile.expect("target/debug/deps/...")).join("sockshim")
    };
    BUILT.get_or_init(build_it).clone()
}

/// The library as users get it: tests link one with fewer optimisations.
pub(crate) fn release_build() -> PathBuf {
    build(&["--package", "sockshim-preload"], "release").join("libsockshim.so")
}

/// Builds into this folder of `target`, which is returned. When nothing has changed that is a tenth of a second.
fn build(what: &[&str], folder: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("target/debug/deps/...");
    let profile = if folder == "debug" { "dev" } else { folder };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--profile", profile, "--target-dir"]).arg(target).args(what);
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    target.join(folder)
}
