//! The other names under which compiled programs call the same functions.

use libc::{c_int, c_void, sockaddr, socklen_t, ssize_t};

use crate::data::Flow;
use crate::harness::{Case, assert_on_pipe, case};
use crate::sys::{self, call, wait};

pub(crate) const CASES: &[Case] = &[
    case("checked_variants_of_hardened_programs", || {
        let (a, b) = sys::pair();
        let (mut out, mut back) = (Flow::new(1), Flow::new(1));
        let mut buffer = [0_u8; 100];
        let pointer: *mut c_void = buffer.as_mut_ptr().cast();
        for round in 0..300 {
            out.write(a, 50, 50);
            sys::until(|| sys::readable(b) == 50);
            let count = match round % 3 {
                0 => call!(__read_chk(b, pointer, 100, 100)),
                1 => call!(__recv_chk(b, pointer, 100, 100, 0)),
                _ => {
                    let (from, length) = (std::ptr::null_mut(), std::ptr::null_mut());
                    call!(__recvfrom_chk(b, pointer, 100, 100, 0, from, length))
                }
            };
            assert_eq!(count, Ok(50));
            back.check(&buffer[..50]);
            let mut entry = wait::entry(b, libc::POLLOUT);
            assert_eq!(call!(__poll_chk(&mut entry, 1, -1, 8)), Ok(1));
            let (time, mask) = (std::ptr::null(), std::ptr::null());
            assert_eq!(call!(__ppoll_chk(&mut entry, 1, time, mask, 8)), Ok(1));
        }
        assert_on_pipe(b);
    }),
    case("underscored_names", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let a = sys::socket(libc::AF_INET);
        let to = sys::Address::loopback(libc::AF_INET, port);
        assert_eq!(call!(__connect(a, to.as_ptr(), to.length)), Ok(0));
        let b = sys::accept(listener).expect("accept");
        let mut back = Flow::new(1);
        let mut out = Flow::new(1);
        for round in 0..300 {
            let bytes = out.take(50);
            let written = match round % 2 {
                0 => call!(__write(a, bytes.as_ptr().cast(), 50)),
                _ => call!(__send(a, bytes.as_ptr().cast(), 50, 0)),
            };
            assert_eq!(written, Ok(50));
            let mut entry = wait::entry(b, libc::POLLIN);
            assert_eq!(call!(__poll(&mut entry, 1, -1)), Ok(1));
            let mut set = wait::Set::of(&[b]);
            let none = std::ptr::null_mut();
            assert_eq!(call!(__select(b + 1, set.pointer(), none, none, none.cast())), Ok(1));
            let mut buffer = [0_u8; 100];
            sys::until(|| sys::readable(b) == 50);
            assert_eq!(call!(__read(b, buffer.as_mut_ptr().cast(), 100)), Ok(50));
            back.check(&buffer[..50]);
        }
        assert_on_pipe(b);
        assert_eq!(call!(__dup2(a, 50)), Ok(50));
        assert_eq!(call!(__close(a)), Ok(0));
        assert_eq!(call!(__fcntl(50, libc::F_GETFL)), Ok(libc::O_RDWR as usize));
        assert_eq!(call!(__write(50, b"x".as_ptr().cast(), 1)), Ok(1));
        assert_eq!(sys::read_exact(b, 1), b"x");
        assert_eq!(call!(__close(50)), Ok(0));
        assert_eq!(sys::read(b, &mut [0]), Ok(0));
    }),
];

unsafe extern "C" {
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: usize, room: usize) -> ssize_t;
    fn __recv_chk(fd: c_int, buffer: *mut c_void, count: usize, room: usize, flags: c_int) -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int,
        buffer: *mut c_void,
        count: usize,
        room: usize,
        flags: c_int,
        from: *mut sockaddr,
        length: *mut socklen_t,
    ) -> ssize_t;
    fn __poll_chk(entries: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int, room: usize) -> c_int;
    fn __ppoll_chk(
        entries: *mut libc::pollfd,
        count: libc::nfds_t,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t,
        room: usize,
    ) -> c_int;
    fn __connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    fn __read(fd: c_int, buffer: *mut c_void, count: usize) -> ssize_t;
    fn __write(fd: c_int, buffer: *const c_void, count: usize) -> ssize_t;
    fn __send(fd: c_int, buffer: *const c_void, count: usize, flags: c_int) -> ssize_t;
    fn __poll(entries: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    fn __select(
        count: c_int,
        read: *mut libc::fd_set,
        write: *mut libc::fd_set,
        except: *mut libc::fd_set,
        timeout: *mut libc::timeval,
    ) -> c_int;
    fn __fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn __dup2(from: c_int, to: c_int) -> c_int;
    fn __close(fd: c_int) -> c_int;
}
