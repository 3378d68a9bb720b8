//! The stale-file collector: files in the rendezvous folder that nobody has mapped any more, since their makers were killed.

use super::process_name::ProcessName;
use crate::sys::address::Address;
use crate::sys::diag;
use crate::sys::folder::PathBuffer;
use crate::sys::kernel;
use crate::sys::scratch::Scratch;
use core::ffi::{CStr, c_int};
use core::fmt::Write;
use core::mem::offset_of;
use core::sync::atomic::AtomicU32;
use sockshim_ring::layout::Header;

/// How thorough a sweep is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Care {
    /// How many names are looked at, at most.
    most: usize,
    /// Whether a table whose process number is in use is looked at too.
    distrusts_numbers: bool,
    /// The pid namespace in which the others' numbers mean something.
    namespace: Option<u64>,
}

impl Care {
    /// While `own` starts.
    pub(crate) fn at_start(own: &ProcessName) -> Self {
        Self { most: 64, distrusts_numbers: false, namespace: Some(own.namespace) }
    }
}

/// In `sockshim ss`.
pub(crate) const ALL: Care = Care { most: usize::MAX, distrusts_numbers: true, namespace: None };

/// Removes tables and segments that no process has.
pub(crate) fn sweep(folder: &PathBuffer, care: Care) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let Ok(fd) = kernel::open(folder.as_c_str(), flags, 0) else { return };
    let mut left = care.most;
    let mut buffer = Scratch::take();
    while left > 0
        && let Some(buffer) = buffer.as_mut().map(Scratch::of::<u64>)
        && let Ok(length @ 1..) = kernel::directory_entries(fd.as_raw(), buffer)
    {
        // SAFETY: every byte of the words is initialised, and the kernel wrote no further.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
        for name in Names(bytes) {
            if left == 0 {
                break;
            }
            left -= 1;
            if may_be_left_over(name, care) {
                look_at(folder, name);
            }
        }
    }
}

/// The names in a buffer of `linux_dirent64`.
pub(super) struct Names<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        const NAME: usize = 19;
        loop {
            let length = u16::from_ne_bytes([*self.0.get(16)?, *self.0.get(17)?]) as usize;
            let entry = self.0.get(NAME..length)?;
            self.0 = self.0.get(length..)?;
            if let Some(Ok(name)) = CStr::from_bytes_until_nul(entry).ok().map(CStr::to_str) {
                return Some(name);
            }
        }
    }
}

/// Seconds that a new owner has to pick up what was left for it.
const INHERITED_WITHIN: i64 = 60;

/// `table<version>-<namespace>-<process>-<start>[.<instance>]`, `pipe<version>-...` or `left<version>-...`, of whatever
/// version; up to 4 a table is `table<version>-<process>[.<instance>]`.
fn may_be_left_over(name: &str, care: Care) -> bool {
    let versioned = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    if let Some(rest) = name.strip_prefix("table").filter(|rest| versioned(rest)) {
        let mut parts = rest.split(['-', '.']).skip(1);
        let [first, second, third] = [(); 3].map(|()| parts.next());
        let (namespace, number) = if third.is_some() { (first, second) } else { (None, first) };
        let Some(number) = number.and_then(|number| number.parse().ok()) else { return false };
        // A number of another namespace says nothing here.
        let is_elsewhere = namespace.is_some_and(|name| u64::from_str_radix(name, 16).ok() != care.namespace);
        return care.distrusts_numbers || is_elsewhere || !kernel::exists(number);
    }
    ["pipe", "left"].iter().any(|kind| name.strip_prefix(kind).is_some_and(versioned))
}

fn look_at(folder: &PathBuffer, name: &str) {
    let Some(mut path) = folder.copy() else { return };
    if write!(path, "/{name}").is_ok() {
        let left = name.strip_prefix("left");
        remove_unless(&path, |fd| left.is_some_and(|rest| may_be_waited_for(fd, rest)));
    }
}

/// What is left for a new owner has no writer while the new owner starts. `rest` is `<version>-<namespace>-<cookie>...`.
fn may_be_waited_for(fd: c_int, rest: &str) -> bool {
    if kernel::age(fd).is_none_or(|age| age >= INHERITED_WITHIN) {
        return false;
    }
    let mut numbers = rest.split('-').skip(1).map(|number| u64::from_str_radix(number, 16).ok());
    let (Some(Some(namespace)), Some(Some(cookie))) = (numbers.next(), numbers.next()) else { return true };
    let names: [[AtomicU32; 7]; 2] = Default::default();
    let (start, size) = (offset_of!(Header, names), size_of_val(&names));
    // The kernel stores no more than that there.
    if kernel::read_file(fd, (&raw const names).cast_mut().cast(), size, Some(start as u64)) != Ok(size) {
        return true;
    }
    let [local, peer] = names.each_ref().map(Address::load);
    diag::may_be_held(&local, &peer, cookie, namespace)
}

/// Removes a file if no process has it; true when it is gone.
pub(crate) fn remove_unused(path: &PathBuffer) -> bool {
    remove_unless(path, |_| false)
}

fn remove_unless(path: &PathBuffer, keeps: impl Fn(c_int) -> bool) -> bool {
    let Ok(fd) = kernel::open_quickly(path.as_c_str(), libc::O_RDONLY) else { return false };
    let is_unused = !keeps(fd.as_raw()) && kernel::is_file(fd.as_raw()) && kernel::has_no_writer(fd.as_raw());
    is_unused && kernel::unlink(path.as_c_str())
}

/// For `fuzzing`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_entries(bytes: &[u8]) {
    // A limit, as the buffer of a sweep has one.
    for name in Names(bytes).take(4096) {
        let _ = may_be_left_over(name, ALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_kinds_of_files_are_looked_at() {
        for name in [
            "table1-4194999",
            "table1-4194999.1",
            "table7-a-4194999-77",
            "table7-a-4194999-77.3",
            "pipe2-x",
            "left1-3-4",
        ] {
            assert!(may_be_left_over(name, ALL), "{name}");
        }
        for name in [
            ".",
            "..",
            "",
            "table",
            "tables-1",
            "table1",
            "table1-x",
            "pipe",
            "pipeline",
            "left",
            "leftovers",
            "notes",
        ] {
            assert!(!may_be_left_over(name, ALL), "{name}");
        }
    }

    #[test]
    fn a_number_that_is_in_use_counts_in_its_own_namespace() {
        let own = ProcessName::own();
        let ProcessName { number, started, namespace } = own;
        let at_start = Care::at_start(&own);
        for name in [format!("table1-{number}"), format!("table9-{namespace:x}-{number}-{started}.2")] {
            assert!(may_be_left_over(&name, ALL) && !may_be_left_over(&name, at_start), "{name}");
        }
        let other = format!("table9-{:x}-{number}-{started}", namespace + 1);
        assert!(may_be_left_over(&other, at_start));
    }

    #[test]
    fn damaged_directory_entries_end_the_list() {
        assert_eq!(Names(&[0; 40]).next(), None);
        assert_eq!(Names(&[0xff; 40]).next(), None);
        assert_eq!(Names(&[]).next(), None);
    }
}
