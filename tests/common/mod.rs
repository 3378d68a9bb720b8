//! What the tests share.

pub(crate) mod process;

/// The shared object that Cargo built for this test run.
pub(crate) fn libsockshim() -> std::path::PathBuf {
    let so = std::env::current_exe().unwrap().with_file_name("libsockshim.so");
    assert!(so.exists(), "{} is missing: is sockshim-preload a dev-dependency?", so.display());
    so
}
