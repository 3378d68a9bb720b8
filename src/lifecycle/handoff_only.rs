//! A hand-off-only preload: a program starts with bytes of a connection unread in a ring, and without sockshim.
//!
//! The kernel has no way to put bytes back before those that come. So the program gets sockshim after all, for
//! this one purpose: `LD_PRELOAD` goes into its environment, and the library takes it out again before the
//! program runs ([`crate::state::config`]). It keeps every connection in the kernel there.
//!
//! # Safety
//!
//! Environments are null-terminated arrays of C strings, as exec's caller promises.

use crate::pipe::handoff::file;
use crate::state::config::HANDOFF_ONLY;
use crate::state::rendezvous;
use crate::sys::kernel;
use libc::{c_char, c_int};
use std::ffi::CStr;
use std::ptr;

type Environment = *const *mut c_char;

/// The library comes first in the list.
const PRELOAD: &[u8] = b"LD_PRELOAD=";
const FOLDER: &[u8] = b"SOCKSHIM_DIR=";

/// Calls `exec` with the environment for the new program.
///
/// # Safety
///
/// `given` is null or an environment.
pub(crate) unsafe fn with_preload(given: Environment, exec: impl FnOnce(Environment) -> c_int) -> c_int {
    // SAFETY: null or an environment, as the caller says.
    match if file::is_left() { unsafe { Extended::to(given) } } else { None } {
        None => exec(given),
        Some(extended) => {
            let result = exec(extended.place.cast());
            // In a vfork child that succeeds the parent keeps these pages.
            kernel::unmap(extended.place, extended.size);
            result
        }
    }
}

/// An environment in memory of its own.
struct Extended {
    place: *mut u8,
    size: usize,
}

impl Extended {
    /// `None`: it has sockshim already, or there is no memory.
    ///
    /// # Safety
    ///
    /// As for [`with_preload`].
    unsafe fn to(given: Environment) -> Option<Self> {
        let library = own_path()?.to_bytes();
        // SAFETY: null or an environment, as the caller says.
        let entries = unsafe { entries(given) };
        let value = |name: &[u8]| {
            // SAFETY: the entries of the caller's environment are C strings.
            entries.iter().find_map(|entry| unsafe { CStr::from_ptr(*entry) }.to_bytes().strip_prefix(name))
        };
        let others = value(PRELOAD);
        if others.is_some_and(|list| list.windows(library.len()).any(|part| part == library)) {
            return None;
        }
        let folder = rendezvous::file(|_| Ok(()))?;
        let folder = folder.as_str().trim_end_matches('/').as_bytes();
        let folder = if value(FOLDER).is_none() { Some(folder) } else { None };
        let words = (entries.len() + 4) * size_of::<*mut c_char>();
        let texts =
            PRELOAD.len() + library.len() + others.map_or(0, <[u8]>::len) + HANDOFF_ONLY.len() + FOLDER.len();
        let size = words + texts + folder.map_or(0, <[u8]>::len) + 16;
        let place = kernel::map_anonymous(size, ptr::null_mut(), false).ok()?;
        let mut writer = Writer { words: place.cast(), text: place.wrapping_add(words) };
        match others {
            Some(others) => writer.entry(&[PRELOAD, library, b":", others]),
            None => writer.entry(&[PRELOAD, library]),
        }
        writer.entry(&[HANDOFF_ONLY]);
        if let Some(folder) = folder {
            writer.entry(&[FOLDER, folder]);
        }
        for entry in entries {
            // SAFETY: the entries of the caller's environment are C strings.
            if !unsafe { CStr::from_ptr(*entry) }.to_bytes().starts_with(PRELOAD) {
                writer.word(*entry);
            }
        }
        Some(Self { place, size })
    }
}

/// Fills a fresh mapping: words from its start, texts behind them. Both end with the zeroes that are there.
struct Writer {
    words: *mut *mut c_char,
    text: *mut u8,
}

impl Writer {
    fn word(&mut self, word: *mut c_char) {
        // SAFETY: `Extended::to` has counted the words.
        unsafe { self.words.write(word) };
        self.words = self.words.wrapping_add(1);
    }

    fn entry(&mut self, parts: &[&[u8]]) {
        self.word(self.text.cast());
        for part in parts {
            // SAFETY: `Extended::to` has counted the bytes.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), self.text, part.len()) };
            self.text = self.text.wrapping_add(part.len());
        }
        self.text = self.text.wrapping_add(1);
    }
}

/// The entries of an environment.
///
/// # Safety
///
/// As for [`with_preload`].
unsafe fn entries<'a>(given: Environment) -> &'a [*mut c_char] {
    if given.is_null() {
        return &[];
    }
    // SAFETY: the caller's array goes on until a null.
    let count = (0..).take_while(|at| !unsafe { given.wrapping_add(*at).read() }.is_null()).count();
    // SAFETY: just counted.
    unsafe { std::slice::from_raw_parts(given, count) }
}

/// Where this library was loaded from.
fn own_path() -> Option<&'static CStr> {
    // SAFETY: all zeroes is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is one of this library's.
    if unsafe { libc::dladdr(own_path as *const libc::c_void, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the linker's own string, which lives as long as the library.
    Some(unsafe { CStr::from_ptr(info.dli_fname) })
}
