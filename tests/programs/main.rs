//! Programs that nobody changed, as their users run them: with both ends on sockshim, with one end only, and
//! killed in the middle of their work.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;

mod compatibility;
mod cpython;
mod haproxy;
mod iperf;
mod java;
mod memcached;
mod mosquitto;
mod nginx;
mod node;
mod postgres;
mod python;
mod redis;
mod socat;
mod ssh;

use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// A file of `length` bytes that do not repeat soon, made once per build folder.
fn big_file(length: usize) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("big-{length}"));
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == length as u64) {
        return path;
    }
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < length {
        // Marsaglia, Xorshift RNGs, 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    // Another run of the tests may be reading the file already: put it in place at once.
    let draft = path.with_extension(std::process::id().to_string());
    fs::write(&draft, &bytes).unwrap();
    fs::rename(&draft, &path).unwrap();
    path
}

/// Fails, with the position and not with the bytes, if two files differ.
#[track_caller]
fn assert_same_content(actual: &Path, expected: &Path) {
    let [actual_bytes, expected_bytes] = [actual, expected].map(|path| fs::read(path).unwrap());
    let different = actual_bytes.iter().zip(&expected_bytes).position(|(a, b)| a != b);
    assert_eq!(
        (different, actual_bytes.len()),
        (None, expected_bytes.len()),
        "(first difference, length) of {} against {}",
        actual.display(),
        expected.display()
    );
}
