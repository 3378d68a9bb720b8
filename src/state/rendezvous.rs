//! Where the rendezvous folder is.

use crate::sys::folder::PathBuffer;
use core::fmt::Write;
use once_cell::race::OnceBox;

/// The folder, if it can be used.
static FOLDER: OnceBox<Option<PathBuffer>> = OnceBox::new();

/// It is known now.
pub(crate) fn have(folder: Option<PathBuffer>) {
    let _ = FOLDER.set(Box::new(folder));
}

/// The rendezvous folder, if it can be used.
pub(crate) fn folder() -> Option<&'static PathBuffer> {
    FOLDER.get()?.as_ref()
}

/// Path of a file in the rendezvous folder; `None` when there is no usable folder.
pub(crate) fn file(write: impl Fn(&mut PathBuffer) -> core::fmt::Result) -> Option<PathBuffer> {
    let mut path = folder()?.copy()?;
    path.write_char('/').ok()?;
    write(&mut path).ok()?;
    Some(path)
}
