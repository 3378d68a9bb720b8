//! sendfile, splice and tee.

use std::ptr;

use crate::data::Flow;
use crate::harness::{Case, assert_on_pipe, case, dialogue};
use crate::sys::{self, call, fails};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "sendfile_at_the_files_own_position",
        |end| {
            for total in [0, 1, 5000, 3 << 20] {
                let file = sys::file_with(&Flow::new(1).bytes(total));
                let mut sent = 0;
                loop {
                    match call!(libc::sendfile(end.fd, file, ptr::null_mut(), 1 << 20)).expect("sendfile") {
                        0 => break,
                        count => sent += count,
                    }
                    assert_eq!(call!(libc::lseek(file, 0, libc::SEEK_CUR)), Ok(sent));
                }
                assert_eq!(sent, total);
                // Between ordinary writes, in order.
                Flow::new(2).write(end.fd, 3000, 300);
            }
            end.hear();
        },
        |end| {
            for total in [0, 1, 5000, 3 << 20] {
                Flow::new(1).read(end.fd, total, 10_000);
                Flow::new(2).read(end.fd, 3000, 10_000);
            }
            assert_on_pipe(end.fd);
            end.tell();
        },
    ),
    dialogue(
        "sendfile_of_what_is_not_in_memory",
        |end| {
            for file in places() {
                for at_position in [true, false] {
                    let (mut sent, mut offset) = (0, 0);
                    while sent < PLACED {
                        forget_pages(file);
                        let from = if at_position { ptr::null_mut() } else { &raw mut offset };
                        let count = call!(libc::sendfile(end.fd, file, from, 1 << 20)).expect("sendfile");
                        assert!(count > 0);
                        sent += count;
                        let position = call!(libc::lseek(file, 0, libc::SEEK_CUR));
                        assert_eq!(if at_position { position } else { Ok(offset as usize) }, Ok(sent));
                    }
                    assert_eq!(call!(libc::sendfile(end.fd, file, ptr::null_mut(), 10)), Ok(0));
                }
                sys::close(file).expect("close");
            }
            end.hear();
        },
        |end| {
            for _ in 0..4 {
                Flow::new(1).read(end.fd, PLACED, 10_000);
            }
            assert_on_pipe(end.fd);
            end.tell();
        },
    ),
    dialogue(
        "sendfile_with_an_offset",
        |end| {
            Flow::new(2).write(end.fd, 10_000, 300);
            let file = sys::file_with(&Flow::new(1).bytes(100_000));
            let mut offset = 1000;
            while offset < 90_000 {
                let before = offset;
                let count = call!(libc::sendfile(end.fd, file, &mut offset, (90_000 - before) as usize));
                assert_eq!(count, Ok((offset - before) as usize));
            }
            assert_eq!(call!(libc::lseek(file, 0, libc::SEEK_CUR)), Ok(0), "the position stays");
            offset = 100_000;
            assert_eq!(call!(libc::sendfile(end.fd, file, &mut offset, 10)), Ok(0));
            offset = 99_990;
            assert_eq!(call!(libc::sendfile(end.fd, file, &mut offset, 1000)), Ok(10));
            end.hear();
        },
        |end| {
            Flow::new(2).read(end.fd, 10_000, 300);
            let mut flow = Flow::new(1);
            flow.position = 1000;
            flow.read(end.fd, 89_000, 7000);
            flow.position = 99_990;
            flow.read(end.fd, 10, 10);
            end.tell();
        },
    ),
    case("sendfile_to_a_full_or_ended_socket", || {
        let (a, b) = sys::pair();
        let file = sys::file_with(&Flow::new(1).bytes(16 << 20));
        sys::set_nonblocking(a, true);
        let mut total = 0;
        loop {
            match call!(libc::sendfile(a, file, ptr::null_mut(), 16 << 20)) {
                Ok(count) => {
                    assert!(count > 0, "more than the kernel takes");
                    total += count;
                }
                answer => break fails(answer, libc::EAGAIN),
            }
        }
        assert_eq!(call!(libc::lseek(file, 0, libc::SEEK_CUR)), Ok(total), "only what was sent");
        Flow::new(1).read(b, total, 65536);
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        fails(call!(libc::sendfile(a, file, ptr::null_mut(), 10)), libc::EPIPE);
        fails(call!(libc::sendfile(a, -1, ptr::null_mut(), 10)), libc::EBADF);
        fails(call!(libc::sendfile(9999, file, ptr::null_mut(), 10)), libc::EBADF);
    }),
    dialogue(
        "splice_through_a_pipe_both_ways",
        |end| {
            Flow::new(2).write(end.fd, 10_000, 300);
            let file = sys::file_with(&Flow::new(1).bytes(1 << 20));
            let (read_end, write_end) = sys::pipe();
            loop {
                let none = ptr::null_mut();
                let count = call!(libc::splice(file, none, write_end, none, 40_000, 0)).expect("splice");
                if count == 0 {
                    break;
                }
                let mut left = count;
                while left > 0 {
                    left -= call!(libc::splice(read_end, none, end.fd, none, left, libc::SPLICE_F_MORE))
                        .expect("splice");
                }
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            Flow::new(2).read(end.fd, 10_000, 300);
            let (read_end, write_end) = sys::pipe();
            let mut flow = Flow::new(1);
            loop {
                let none = ptr::null_mut();
                let count = call!(libc::splice(end.fd, none, write_end, none, 30_000, 0)).expect("splice");
                if count == 0 {
                    break;
                }
                flow.read(read_end, count, count);
            }
            assert_eq!(flow.position, 1 << 20);
            end.tell();
        },
    ),
    case("splice_from_a_connection_that_is_the_kernels_again", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 300);
        Flow::new(1).read(b, 10_000, 300);
        sys::write_all(a, b"unread");
        // It goes back for this, but not before what is in the ring has been read.
        assert_eq!(sys::setsockopt(b, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 0x10), Ok(0));
        assert_eq!(sys::read_exact(b, 6), b"unread");
        sys::write_all(a, b"abc");
        let (read_end, write_end) = sys::pipe();
        let none = ptr::null_mut();
        assert_eq!(call!(libc::splice(b, none, write_end, none, 10, 0)), Ok(3));
        assert_eq!(sys::read_exact(read_end, 3), b"abc");
        Flow::new(2).write(a, 10_000, 300);
        Flow::new(2).read(b, 10_000, 300);
    }),
    case("splice_takes_no_offset_of_a_socket", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 300);
        Flow::new(1).read(b, 10_000, 300);
        let (read_end, write_end) = sys::pipe();
        let mut offset = 0;
        let none = ptr::null_mut();
        fails(call!(libc::splice(b, &mut offset, write_end, none, 10, 0)), libc::EINVAL);
        fails(call!(libc::splice(b, none, a, none, 10, 0)), libc::EINVAL);
        sys::set_nonblocking(b, true); // SPLICE_F_NONBLOCK is about the pipe alone
        fails(call!(libc::splice(b, none, write_end, none, 10, 0)), libc::EAGAIN);
        sys::set_nonblocking(b, false);
        fails(call!(libc::tee(b, write_end, 10, 0)), libc::EINVAL);
        sys::write_all(a, b"abc");
        assert_eq!(call!(libc::splice(b, none, write_end, none, 10, 0)), Ok(3));
        assert_eq!(sys::read_exact(read_end, 3), b"abc");
    }),
];

const PLACED: usize = 3 << 20;

/// A file on a disk, if the folder for temporary files is on one, and one on tmpfs(5), which does not say what is in memory.
fn places() -> [i32; 2] {
    let bytes = Flow::new(1).bytes(PLACED);
    let on_disk = std::os::fd::IntoRawFd::into_raw_fd(tempfile::tempfile().expect("a file"));
    sys::write_all(on_disk, &bytes);
    call!(libc::lseek(on_disk, 0, libc::SEEK_SET)).expect("lseek");
    [on_disk, sys::file_with(&bytes)]
}

/// As if the file had not been read for long.
fn forget_pages(file: i32) {
    call!(libc::fsync(file)).expect("fsync");
    call!(libc::posix_fadvise(file, 0, 0, libc::POSIX_FADV_DONTNEED)).expect("posix_fadvise");
}
