//! What several tests need.

use std::path::PathBuf;

/// The shared object that belongs to this test: Cargo builds it beside the test executable.
pub(crate) fn libsockshim() -> PathBuf {
    let so = std::env::current_exe().unwrap().with_file_name("libsockshim.so");
    assert!(so.exists(), "{} is missing: is sockshim-preload a dev-dependency?", so.display());
    so
}
