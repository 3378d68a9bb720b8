//! The rendezvous folder: `$SOCKSHIM_DIR`, else `/dev/shm/sockshim-<uid>`; used only if it is a directory of
//! our own that nobody else may enter.

use super::kernel;
use core::ffi::CStr;
use core::fmt::{self, Write};

/// A path in a fixed buffer: no allocation, so that it can be made anywhere.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl Path {
    const CAPACITY: usize = 512;

    pub(crate) const fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], length: 0 }
    }

    /// As a C string; empty when it did not fit.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        if end >= Self::CAPACITY {
            return Err(fmt::Error);
        }
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The folder's path, made if it is missing; `None` when it cannot be used.
pub(crate) fn usable(configured: Option<&CStr>) -> Option<Path> {
    let mut path = Path::new();
    let named = configured.and_then(|name| name.to_str().ok()).filter(|name| !name.is_empty());
    match named {
        Some(name) => path.write_str(name).ok()?,
        None => write!(path, "/dev/shm/sockshim-{}", kernel::geteuid()).ok()?,
    }
    let _ = kernel::mkdir(path.as_c_str(), 0o700);
    let fd = kernel::open(path.as_c_str(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).ok()?;
    let facts = kernel::file_facts(fd);
    kernel::close(fd);
    let (mode, owner, _) = facts.ok()?;
    (owner == kernel::geteuid() && mode & 0o777 == 0o700).then_some(path)
}
