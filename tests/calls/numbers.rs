//! Numbers that change what they are by system calls of the program's own: the library has not seen it, and finds out.

use std::ffi::CString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use libc::{POLLIN, SYS_close, SYS_dup, SYS_dup3, SYS_open};
use tempfile::{NamedTempFile, TempPath};

use crate::harness::{Case, case, path};
use crate::sys::raw::{Way, words};
use crate::sys::{self, poll_one};

pub(crate) const CASES: &[Case] = &[
    case("a_file_has_the_number_of_a_connection_that_was_closed_past_libc", || {
        let (a, b) = used_pair();
        let file = scratch("a file");
        close(b);
        let opened = open(&file);
        Way::Past.call(SYS_dup3, words([opened as _, b as _, 0])).expect("dup3");
        assert_eq!(sys::read(b, &mut [0; 99]), Ok(6));
        assert_eq!(sys::read(b, &mut [0; 99]), Ok(0));
        // The other end sees what the kernel has done.
        assert_eq!(sys::read(a, &mut [0]), Ok(0));
        [a, b, opened].into_iter().for_each(shut);
    }),
    case("a_number_that_was_closed_past_libc_is_nothing", || {
        let (a, b) = used_pair();
        close(b);
        sys::fails(sys::read(b, &mut [0; 99]), libc::EBADF);
        assert_eq!(sys::read(a, &mut [0]), Ok(0));
        sys::close(a).expect("close");
    }),
    case("a_second_number_made_past_libc_is_the_same_connection", || {
        // Of a number that nobody has had, and of one that was a file.
        for is_used in [false, true] {
            let (a, b) = used_pair();
            let second = if is_used {
                let file = scratch("a file");
                let fd = open(&file);
                assert_eq!(sys::read(fd, &mut [0; 99]), Ok(6));
                sys::close(fd).expect("close");
                Way::Past.call(SYS_dup3, words([b as _, fd as _, 0])).expect("dup3") as i32
            } else {
                Way::Past.call(SYS_dup, words([b as _])).expect("dup") as i32
            };
            sys::write_all(a, b"ping");
            assert_eq!(poll_one(second, POLLIN, 1000), POLLIN);
            assert_eq!(sys::read_exact(second, 4), b"ping");
            sys::write_all(second, b"pong");
            assert_eq!(sys::read_exact(a, 4), b"pong");
            // Both go on, and the connection ends with the last one.
            sys::write_all(a, b"more");
            assert_eq!(sys::read_exact(b, 4), b"more");
            sys::close(b).expect("close");
            sys::write_all(a, b"last");
            assert_eq!(sys::read_exact(second, 4), b"last");
            sys::close(second).expect("close");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            sys::close(a).expect("close");
        }
    }),
    case("a_second_number_made_past_libc_before_the_first_byte", || {
        let (a, b) = sys::pair();
        let second = Way::Past.call(SYS_dup, words([b as _])).expect("dup") as i32;
        for round in 0..100_u8 {
            sys::write_all(a, &[round; 10]);
            assert_eq!(sys::read_exact(if round % 2 == 0 { b } else { second }, 10), [round; 10]);
            sys::write_all(if round % 3 == 0 { b } else { second }, &[round; 10]);
            assert_eq!(sys::read_exact(a, 10), [round; 10]);
        }
        [a, b, second].into_iter().for_each(shut);
    }),
];

/// A connection that is on its pipe, if it ever will be.
fn used_pair() -> (i32, i32) {
    let (a, b) = sys::pair();
    for _ in 0..100 {
        sys::write_all(a, b"there");
        assert_eq!(sys::read_exact(b, 5), b"there");
        sys::write_all(b, b"back");
        assert_eq!(sys::read_exact(a, 4), b"back");
    }
    assert_eq!(path(a), path(b));
    (a, b)
}

fn close(fd: i32) {
    Way::Past.call(SYS_close, words([fd as _])).expect("close");
}

fn open(path: &Path) -> i32 {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no zeroes");
    Way::Past.call(SYS_open, words([path.as_ptr().addr(), libc::O_RDWR as _])).expect("open") as i32
}

/// A file with this in it.
fn scratch(content: &str) -> TempPath {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(content.as_bytes()).expect("write");
    file.into_temp_path()
}

fn shut(fd: i32) {
    sys::close(fd).expect("close");
}
