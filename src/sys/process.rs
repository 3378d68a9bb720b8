//! What /proc says of this process (proc(5)).

use super::kernel::{self, Fd};
use core::ffi::CStr;

/// The inode of its pid namespace (pid_namespaces(7)); `None` when that cannot be told.
pub(crate) fn namespace() -> Option<u64> {
    kernel::inode(open(c"/proc/self/ns/pid", libc::O_PATH)?.as_raw()).ok()
}

/// When it started, in clock ticks after boot: not when it last executed a program. `None` when that cannot be told.
pub(crate) fn start_time() -> Option<u64> {
    let fd = open(c"/proc/self/stat", libc::O_RDONLY)?;
    let mut text = [0u8; 512];
    let read = kernel::read_file(fd.as_raw(), text.as_mut_ptr(), text.len(), None);
    parse_start_time(text.get(..read.ok()?)?)
}

fn open(path: &CStr, flags: i32) -> Option<Fd> {
    // A filter that the program has installed may kill it for a call of its own accord.
    if kernel::is_restricted() { None } else { kernel::open(path, flags, 0).ok() }
}

/// The 22nd field of /proc/pid/stat; the second is a name in parentheses, of any bytes.
fn parse_start_time(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(end + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    core::str::from_utf8(fields.nth(22 - 3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_the_22nd_field() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_start_time(format!("12 (a) b) ) {rest}\n").as_bytes()), Some(4711));
        for damaged in
            ["", ")", "12 (a) S", "12 (a", "1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"]
        {
            assert_eq!(parse_start_time(damaged.as_bytes()), None, "{damaged}");
        }
    }

    #[test]
    fn a_process_knows_itself() {
        assert_eq!((start_time(), namespace()), (start_time(), namespace()));
        assert!(start_time().is_some_and(|ticks| ticks > 0) && namespace().is_some());
    }
}
