//! Bad input: what the kernel answers, and nothing lost or moved by it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, ptr};

use libc::c_void;

use crate::data::Flow;
use crate::harness::{Case, Environment, case, skip};
use crate::sys::{self, Ended, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("bad_descriptors", || {
        for fd in [-1, i32::MIN, i32::MAX, 9999, 1_000_000] {
            fails(sys::read(fd, &mut [0]), libc::EBADF);
            fails(sys::write(fd, &[0]), libc::EBADF);
            fails(sys::recv(fd, &mut [0], 0), libc::EBADF);
            fails(sys::send(fd, &[0], 0), libc::EBADF);
            fails(sys::close(fd), libc::EBADF);
            fails(sys::shutdown(fd, 0), libc::EBADF);
            fails(sys::listen(fd, 1), libc::EBADF);
            fails(sys::accept(fd), libc::EBADF);
            fails(sys::getsockname(fd), libc::EBADF);
            fails(sys::getpeername(fd), libc::EBADF);
            fails(sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE), libc::EBADF);
            fails(sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1), libc::EBADF);
            fails(sys::connect(fd, &sys::Address::loopback(libc::AF_INET, 1)), libc::EBADF);
            fails(sys::ioctl(fd, libc::FIONREAD), libc::EBADF);
            fails(call!(libc::fcntl(fd, libc::F_GETFL)), libc::EBADF);
            fails(call!(libc::dup(fd)), libc::EBADF);
            let mut vector = libc::iovec { iov_base: sys::null(), iov_len: 0 };
            fails(call!(libc::readv(fd, &vector, 1)), libc::EBADF);
            fails(call!(libc::writev(fd, &vector, 1)), libc::EBADF);
            let mut message = sys::message(std::slice::from_mut(&mut vector));
            fails(call!(libc::recvmsg(fd, &mut message, 0)), libc::EBADF);
            fails(call!(libc::sendmsg(fd, &message, 0)), libc::EBADF);
        }
    }),
    case("a_closed_descriptor_is_bad", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        sys::close(b).expect("close");
        fails(sys::read(b, &mut [0]), libc::EBADF);
        fails(sys::write(b, &[0]), libc::EBADF);
        fails(sys::close(b), libc::EBADF);
    }),
    case("not_a_socket", || {
        let file = sys::file_with(b"file");
        fails(sys::recv(file, &mut [0], 0), libc::ENOTSOCK);
        fails(sys::send(file, &[0], 0), libc::ENOTSOCK);
        fails(sys::shutdown(file, 0), libc::ENOTSOCK);
        fails(sys::accept(file), libc::ENOTSOCK);
        fails(sys::getsockname(file), libc::ENOTSOCK);
        fails(sys::getsockopt(file, libc::SOL_SOCKET, libc::SO_TYPE), libc::ENOTSOCK);
    }),
    case("pointers_that_fault_change_nothing", || {
        let (a, b) = sys::pair();
        for before in [0, 10_000] {
            let mut flow = Flow::new(1);
            Flow::new(2).write(a, before, 500);
            Flow::new(2).read(b, before, 500);
            flow.write(a, 1000, 1000);
            sys::until(|| sys::readable(b) == 1000);
            for bad in bad_pointers() {
                fails(call!(libc::read(b, bad, 10)), libc::EFAULT);
                fails(call!(libc::recv(b, bad, 10, 0)), libc::EFAULT);
                fails(call!(libc::recv(b, bad, 10, libc::MSG_PEEK)), libc::EFAULT);
                fails(call!(libc::write(a, bad, 10)), libc::EFAULT);
                fails(call!(libc::send(a, bad, 10, 0)), libc::EFAULT);
                let vector = libc::iovec { iov_base: bad, iov_len: 10 };
                fails(call!(libc::readv(b, &vector, 1)), libc::EFAULT);
                fails(call!(libc::writev(a, &vector, 1)), libc::EFAULT);
                fails(call!(libc::readv(b, bad.cast(), 1)), libc::EFAULT);
                fails(call!(libc::recvmsg(b, bad.cast(), 0)), libc::EFAULT);
                fails(call!(libc::sendmsg(a, bad.cast(), 0)), libc::EFAULT);
                fails(call!(libc::getsockname(a, bad.cast(), &mut 16)), libc::EFAULT);
                fails(call!(libc::ioctl(b, libc::FIONREAD, bad)), libc::EFAULT);
                assert_eq!(sys::readable(b), 1000);
            }
            Flow::new(1).read(b, 1000, 300);
            fails(sys::recv(b, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
        }
    }),
    case("a_bad_pointer_for_no_bytes_is_fine", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        assert_eq!(call!(libc::read(b, sys::null(), 0)), Ok(0));
        assert_eq!(call!(libc::write(a, sys::null(), 0)), Ok(0));
    }),
    case("a_bad_pointer_on_an_empty_stream_waits_or_says_eagain", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        fails(call!(libc::recv(b, sys::null(), 10, libc::MSG_DONTWAIT)), libc::EAGAIN);
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        sys::until(|| sys::events(b, libc::POLLIN) != 0);
        assert_eq!(call!(libc::read(b, sys::null(), 10)), Ok(0));
    }),
    case("counts_beyond_ssize_max", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        sys::write_all(a, b"abc");
        sys::until(|| sys::readable(b) == 3);
        let mut buffer = [0_u8; 16];
        let pointer: *mut c_void = buffer.as_mut_ptr().cast();
        fails(call!(libc::read(b, pointer, usize::MAX)), libc::EFAULT);
        fails(call!(libc::write(a, pointer, usize::MAX)), libc::EFAULT);
        let two = [libc::iovec { iov_base: pointer, iov_len: isize::MAX as usize }; 2];
        fails(call!(libc::readv(b, two.as_ptr(), 2)), libc::EFAULT);
        let huge = libc::iovec { iov_base: pointer, iov_len: usize::MAX };
        fails(call!(libc::readv(b, &huge, 1)), libc::EINVAL);
        fails(call!(libc::writev(a, &huge, 1)), libc::EINVAL);
        assert_eq!(sys::read_exact(b, 3), b"abc");
    }),
    case("unknown_requests", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        fails(sys::shutdown(a, 3), libc::EINVAL);
        fails(sys::shutdown(a, -1), libc::EINVAL);
        fails(sys::ioctl(a, 0x1234), libc::ENOTTY);
        fails(call!(libc::fcntl(a, 9999)), libc::EINVAL);
        fails(call!(libc::ftruncate(a, 5)), libc::EINVAL);
        fails(call!(libc::fsync(a)), libc::EINVAL);
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
    }),
    case("a_rendezvous_folder_that_does_not_exist", || elsewhere(|folder| folder.join("missing")))
        .only(SHIMMED),
    case("a_rendezvous_folder_open_to_others", || {
        elsewhere(|folder| {
            let open = folder.join("open");
            fs::create_dir(&open).expect("create");
            fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("chmod");
            open
        });
    })
    .only(SHIMMED),
    case("a_rendezvous_folder_that_is_a_file", || {
        elsewhere(|folder| {
            let file = folder.join("file");
            fs::write(&file, "not a folder").expect("write");
            file
        });
    })
    .only(SHIMMED),
    case("a_rendezvous_folder_that_is_a_link", || {
        elsewhere(|folder| {
            let link = folder.join("link");
            std::os::unix::fs::symlink(folder.join("meet"), &link).expect("symlink");
            link
        });
    })
    .only(SHIMMED),
    case("a_rendezvous_folder_name_too_long", || {
        elsewhere(|folder| folder.join("x".repeat(5000)));
    })
    .only(SHIMMED),
    case("an_empty_rendezvous_folder_name", || elsewhere(|_| PathBuf::new())).only(SHIMMED),
    case("a_read_only_rendezvous_folder", || mounted(libc::MS_RDONLY, c"mode=0700")).only(SHIMMED),
    case("a_full_rendezvous_folder", || mounted(0, c"mode=0700,size=4096")).only(SHIMMED),
    case("a_nearly_full_rendezvous_folder", || mounted(0, c"mode=0700,size=150k")).only(SHIMMED),
    case("a_rendezvous_folder_without_inodes", || mounted(0, c"mode=0700,nr_inodes=2")).only(SHIMMED),
    // What the cases above run in a process of its own, with another SOCKSHIM_DIR.
    case("plain_traffic", || {
        let pairs: Vec<_> = (0..10).map(|_| sys::pair()).collect();
        for &(a, b) in &pairs {
            Flow::new(1).write(a, 100_000, 5000);
            Flow::new(1).read(b, 100_000, 5000);
            sys::write_all(b, b"hello");
            sys::close(b).expect("close");
            assert_eq!(sys::read_exact(a, 5), b"hello");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
        }
    }),
];

const SHIMMED: &[Environment] = &[Environment::Pipe, Environment::Default, Environment::Small];

/// Null, the kernel's half, a hole in the address space, and a page without access.
fn bad_pointers() -> Vec<*mut c_void> {
    let (access, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping that overlaps nothing.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, access, flags, -1, 0) };
    [0, 8, 0xffff_8000_0000_0000, usize::MAX - 100]
        .map(ptr::without_provenance_mut)
        .into_iter()
        .chain([page])
        .collect()
}

fn scratch() -> PathBuf {
    PathBuf::from(env::var_os("CALLS_SCRATCH").expect("the runner sets it"))
}

/// Plain traffic must work, and nothing be printed, with an unusable rendezvous folder.
fn elsewhere(make: impl FnOnce(&Path) -> PathBuf) {
    run_with(&make(&scratch()));
}

fn run_with(folder: &Path) {
    let path = folder.to_str().expect("a plain path");
    let output = scratch().join("quiet");
    let file = fs::File::create(&output).expect("create");
    let child = crate::harness::fork(|| {
        use std::os::fd::AsRawFd;
        sys::dup2(file.as_raw_fd(), 1).expect("dup2");
        sys::dup2(file.as_raw_fd(), 2).expect("dup2");
        let variables =
            sys::environment_with(&[("CALLS_CASE", "errors::plain_traffic"), ("SOCKSHIM_DIR", path)]);
        sys::execute(&sys::own_program(), &[], &variables);
    });
    let ended = sys::wait(child);
    let printed = fs::read_to_string(&output).expect("read");
    assert_eq!((ended, printed.as_str()), (Ended::Exited(0), ""));
}

/// The same with a tmpfs of its own as the folder.
fn mounted(flags: libc::c_ulong, options: &std::ffi::CStr) {
    // SAFETY: always allowed; it changes this process alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        skip("no right to mount");
    }
    let folder = scratch().join("mounted");
    fs::create_dir(&folder).expect("create");
    let target = std::ffi::CString::new(folder.to_str().expect("a plain path")).expect("no zero byte");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = ptr::null();
    call!(libc::mount(c"none".as_ptr(), c"/".as_ptr(), none, private, none.cast())).expect("private mounts");
    let tmpfs = c"tmpfs".as_ptr();
    if call!(libc::mount(tmpfs, target.as_ptr(), tmpfs, flags, options.as_ptr().cast())).is_err() {
        skip("no right to mount a tmpfs");
    }
    run_with(&folder);
}
