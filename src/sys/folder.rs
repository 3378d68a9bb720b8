//! The rendezvous folder: `$SOCKSHIM_DIR`, else `/dev/shm/sockshim-<uid>`; used only if it is a directory of
//! our own that nobody else may enter.

use super::kernel;
use super::scratch::Scratch;
use core::ffi::CStr;
use core::fmt::{self, Write};

/// A path, or another text, in memory of its own: no allocation, so that it can be made anywhere.
#[derive(Debug)]
pub(crate) struct PathBuffer {
    /// Zero from `length` on to the next zero. `None`: there is no memory.
    place: Option<Scratch>,
    length: usize,
}

impl PathBuffer {
    pub(crate) fn new() -> Self {
        let mut place = Scratch::take();
        if let Some(place) = &mut place {
            place.of::<u8>()[0] = 0;
        }
        Self { place, length: 0 }
    }

    /// The same text once more, to be gone on with.
    pub(crate) fn copy(&self) -> Option<Self> {
        let mut copy = Self::new();
        copy.write_str(self.as_str()).ok()?;
        Some(copy)
    }

    /// As a C string; empty when there is no memory.
    pub(crate) fn as_c_str(&self) -> &CStr {
        let text = self.place.as_ref().and_then(|place| place.bytes().get(..=self.length));
        text.and_then(|text| CStr::from_bytes_until_nul(text).ok()).unwrap_or(c"")
    }

    pub(crate) fn as_str(&self) -> &str {
        let text = self.place.as_ref().and_then(|place| place.bytes().get(..self.length));
        text.and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }
}

impl Write for PathBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.place.as_mut().ok_or(fmt::Error)?.of::<u8>();
        let end = self.length + text.len();
        // With room for the zero.
        let room = place.get_mut(self.length..=end).ok_or(fmt::Error)?;
        let (to, zero) = room.split_at_mut(text.len());
        to.copy_from_slice(text.as_bytes());
        zero.fill(0);
        self.length = end;
        Ok(())
    }
}

/// The folder's path, made if it is missing; `None` when it cannot be used.
pub(crate) fn usable(configured: Option<&CStr>) -> Option<PathBuffer> {
    let mut path = PathBuffer::new();
    let named = configured.and_then(|name| name.to_str().ok()).filter(|name| !name.is_empty());
    match named {
        Some(name) => path.write_str(name).ok()?,
        None => write!(path, "/dev/shm/sockshim-{}", kernel::geteuid()).ok()?,
    }
    let _ = kernel::mkdir(path.as_c_str(), 0o700);
    let fd = kernel::open(path.as_c_str(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0).ok()?;
    let (mode, owner, _) = kernel::file_facts(fd.as_raw()).ok()?;
    (owner == kernel::geteuid() && mode & 0o777 == 0o700).then_some(path)
}
