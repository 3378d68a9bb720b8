//! Where the rendezvous folder is.

use crate::sys::folder::Path;
use core::fmt::Write;
use once_cell::race::OnceBox;

/// The folder, if it can be used.
static FOLDER: OnceBox<Option<Path>> = OnceBox::new();

/// It is known now.
pub(crate) fn have(folder: Option<Path>) {
    let _ = FOLDER.set(Box::new(folder));
}

/// The rendezvous folder, if it can be used.
pub(crate) fn folder() -> Option<&'static Path> {
    FOLDER.get()?.as_ref()
}

/// Path of a file in the rendezvous folder; `None` when there is no usable folder.
pub(crate) fn file(write: impl Fn(&mut Path) -> core::fmt::Result) -> Option<Path> {
    let mut path = folder()?.copy()?;
    path.write_char('/').ok()?;
    write(&mut path).ok()?;
    Some(path)
}
