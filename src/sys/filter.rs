//! A system call filter (seccomp(2)) under which this process was started.
//!
//! It may kill for a call that it does not know, where the program alone runs, and nobody may ask what it says
//! (PTRACE_SECCOMP_GET_FILTER takes CAP_SYS_ADMIN). It is no reason to stay away, because containers start everything
//! with one. So under a filter only common calls are made (docs/compatibility.md names them), and the others are done
//! without. A filter that the program puts on itself is another matter: see [`kernel::restrict`].

use super::{folder::PathBuffer, kernel};
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicU8, Ordering};

/// Bits of what is known.
static KNOWN: AtomicU8 = AtomicU8::new(0);
const INHERITED: u8 = 1;
/// The program has called fcntl and lives.
const FCNTL: u8 = 2;

/// Finds out whether there is a filter. Called once, while the process starts, and with calls only that the dynamic linker
/// has just made: a filter may kill for prctl(PR_GET_SECCOMP), too.
pub(crate) fn look() {
    // Without /proc it cannot be told: then there may be one.
    if mode().is_none_or(|mode| mode != b'0') {
        KNOWN.fetch_or(INHERITED, Ordering::Relaxed);
    }
}

/// The digit of the mode in proc_pid_status(5).
fn mode() -> Option<u8> {
    const FIELD: &[u8] = b"\nSeccomp:\t";
    let fd = kernel::open(c"/proc/self/status", libc::O_RDONLY, 0).ok()?;
    let mut matched = 0;
    let mut text = [0u8; 512];
    loop {
        let Ok(length @ 1..) = kernel::read_file(fd.as_raw(), text.as_mut_ptr(), text.len(), None) else {
            return None;
        };
        for byte in text.iter().take(length) {
            match FIELD.get(matched) {
                None => return Some(*byte),
                Some(next) if next == byte => matched += 1,
                Some(_) => matched = usize::from(*byte == b'\n'),
            }
        }
    }
}

/// Whether the process was started under a filter.
#[inline]
pub(crate) fn is_inherited() -> bool {
    KNOWN.load(Ordering::Relaxed) & INHERITED != 0
}

/// Whether fcntl can be called.
pub(crate) fn allows_fcntl() -> bool {
    KNOWN.load(Ordering::Relaxed) & (INHERITED | FCNTL) != INHERITED
}

/// After the program's own call of fcntl. Whether this is news: what had to do without can be done now.
#[inline]
pub(crate) fn fcntl_was_made() -> bool {
    !allows_fcntl() && KNOWN.fetch_or(FCNTL, Ordering::Relaxed) & FCNTL == 0
}

/// The status flags of an open file and O_CLOEXEC, without fcntl.
pub(crate) fn flags(fd: c_int) -> Option<c_int> {
    let mut text = [0; 256];
    c_int::from_str_radix(info(fd, &mut text, "flags:")?.trim(), 8).ok()
}

/// Whether it is an io_uring.
pub(crate) fn is_ring(fd: c_int) -> bool {
    // The first line about it; on kernels before 5.16 the other one.
    ["SqMask:", "SqThread:"].iter().any(|name| info(fd, &mut [0; 256], name).is_some())
}

/// What proc_pid_fdinfo(5) says under this name.
fn info<'a>(fd: c_int, text: &'a mut [u8], name: &str) -> Option<&'a str> {
    let mut path = PathBuffer::new();
    write!(path, "/proc/self/fdinfo/{fd}").ok()?;
    let file = kernel::open(path.as_c_str(), libc::O_RDONLY, 0).ok()?;
    let read = kernel::read_file(file.as_raw(), text.as_mut_ptr(), text.len(), None);
    let text = core::str::from_utf8(text.get(..read.ok()?)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_mode_is_the_kernels_answer() {
        // SAFETY: takes and returns numbers.
        let result = unsafe { libc::prctl(libc::PR_GET_SECCOMP) };
        assert_eq!(mode().map(|digit| i32::from(digit - b'0')), Some(result));
    }

    #[test]
    fn flags_are_those_of_fcntl() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        for is_nonblocking in [true, false] {
            one.set_nonblocking(is_nonblocking).expect("a descriptor of our own");
            let result = flags(one.as_raw_fd()).expect("/proc is there");
            assert_eq!(result & libc::O_NONBLOCK != 0, is_nonblocking);
            assert_ne!(result & libc::O_CLOEXEC, 0);
        }
        assert_eq!(flags(-1), None);
    }
}
