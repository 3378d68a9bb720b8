//! Rings that are asked for with `syscall`, and sockets that are given to them.

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::data::Flow;
use crate::harness::{Case, Environment, assert_on_pipe, case, path, reason, skip};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("a_ring_moves_the_bytes_of_connections", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 50_000, 500);
        Flow::new(1).read(b, 50_000, 500);
        assert_on_pipe(a);
        let ring = Ring::new();
        let (c, d) = sys::pair();
        for (x, y) in [(a, b), (b, a), (c, d), (d, c)] {
            // By the ring and by calls, on either end.
            assert_eq!(ring.perform(SEND, x, &mut b"by ring".to_owned()), 7);
            assert_eq!(sys::read_exact(y, 7), b"by ring");
            assert_eq!(sys::write(x, b"by call"), Ok(7));
            let mut bytes = [0; 7];
            assert_eq!(ring.perform(RECEIVE, y, &mut bytes), 7);
            assert_eq!(&bytes, b"by call");
            Flow::new(2).write(x, 300_000, 5000);
            Flow::new(2).read(y, 300_000, 5000);
            stays_with_the_kernel(x);
        }
        sys::close(a).expect("close");
        assert_eq!(ring.perform(RECEIVE, b, &mut [0; 7]), 0);
    }),
    case("a_set_that_a_ring_registers_with", || {
        let ring = Ring::new();
        let (a, b) = sys::pair();
        let set = wait::epoll();
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
        let entry = Entry {
            opcode: EPOLL_CTL,
            fd: set,
            offset: b as u64,
            address: (&raw mut event).expose_provenance() as u64,
            length: libc::EPOLL_CTL_ADD as u32,
            ..Entry::default()
        };
        assert_eq!(ring.submit(entry), 0);
        for _ in 0..200 {
            sys::write_all(a, &[1; 5000]);
            assert_eq!(wait::ready(set, -1), [(libc::EPOLLIN, 7)]);
            sys::read_exact(b, 5000);
            assert_eq!(wait::ready(set, 0), []);
        }
    }),
    case("a_ring_is_denied_as_by_the_kernel", || {
        let case = [("CALLS_CASE", "io_uring::denied_by_another_case"), ("SOCKSHIM_IO_URING", "deny")];
        let child = sys::spawn(&sys::own_program(), &[], &case);
        assert_eq!(sys::wait(child), sys::Ended::Exited(0));
    })
    .only(&[Environment::Pipe, Environment::Default]),
    case("a_ring_made_past_libc_is_found_at_the_meeting", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 50_000, 500);
        Flow::new(1).read(b, 50_000, 500);
        assert_on_pipe(a);
        let mut parameters = [0; 30];
        let ring = set_up_past_libc(&mut parameters);
        if ring < 0 {
            skip(&format!("no io_uring: {ring}"));
        }
        let (c, d) = sys::pair();
        for (x, y) in [(c, d), (d, c), (a, b), (b, a)] {
            Flow::new(2).write(x, 300_000, 5000);
            Flow::new(2).read(y, 300_000, 5000);
            stays_with_the_kernel(x);
        }
    }),
    case("a_ring_of_the_shared_liburing_is_seen", || {
        // SAFETY: a C string; the library's constructors do nothing.
        if unsafe { libc::dlopen(c"liburing.so.2".as_ptr(), libc::RTLD_NOW) }.is_null() {
            skip("no liburing.so.2");
        }
        // As a library that was linked with liburing finds it: the first in the order of the loaded objects, or the
        // one that belongs to it.
        let find = |name: &CStr| {
            // SAFETY: a C string.
            let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: two C strings; the library is loaded.
            let own = || unsafe {
                libc::dlsym(libc::dlopen(c"liburing.so.2".as_ptr(), libc::RTLD_NOW), name.as_ptr())
            };
            if first.is_null() { own() } else { first }
        };
        let (a, b) = sys::pair();
        let init = find(c"io_uring_queue_init");
        // `struct io_uring` has some 200 bytes.
        let mut ring = [0_u64; 64];
        // SAFETY: io_uring_queue_init(3).
        let init: extern "C" fn(u32, *mut u64, u32) -> i32 = unsafe { std::mem::transmute(init) };
        let made = init(4, ring.as_mut_ptr(), 0);
        if made < 0 {
            skip(&format!("no io_uring: {made}"));
        }
        Flow::new(1).write(a, 50_000, 500);
        Flow::new(1).read(b, 50_000, 500);
        stays_with_the_kernel(a);
    }),
    case("libuv_inside_another_library_is_refused_a_ring", || {
        let folder = tempfile::tempdir().expect("a folder");
        let [source, built] = ["libuv.c", "libuv.so"].map(|name| folder.path().join(name));
        std::fs::write(&source, LIBUV).expect("a source");
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&built)
            .arg(&source)
            .status();
        if !compiled.is_ok_and(|status| status.success()) {
            skip("no C compiler");
        }
        let c_path = CString::new(built.to_str().expect("a name")).expect("a name");
        // SAFETY: a library without constructors.
        let library = unsafe { libc::dlopen(c_path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        // SAFETY: a C string and an open library.
        let make = unsafe { libc::dlsym(library, c"make".as_ptr()) };
        // SAFETY: the function of LIBUV.
        let make: extern "C" fn(*mut u32) -> i32 = unsafe { std::mem::transmute(make) };
        let answer = make([0; 30].as_mut_ptr());
        if path(0).is_none() {
            return;
        }
        assert_eq!(answer, -libc::EPERM);
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 50_000, 500);
        Flow::new(1).read(b, 50_000, 500);
        assert_on_pipe(a);
    }),
    // The program that it starts; nothing by itself.
    case("denied_by_another_case", || {
        if std::env::var_os("SOCKSHIM_IO_URING").is_none() {
            return;
        }
        fails(set_up(&mut [0; 30]), libc::EPERM);
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 50_000, 500);
        Flow::new(1).read(b, 50_000, 500);
        assert_on_pipe(a);
    }),
];

/// asm-generic/socket.h.
const SO_NETNS_COOKIE: i32 = 71;

/// Reason 27: the process uses io_uring.
#[track_caller]
fn stays_with_the_kernel(fd: i32) {
    if path(fd).is_some() {
        let mut cookie = 0u64;
        let mut size = size_of::<u64>() as libc::socklen_t;
        // SAFETY: both are writable.
        let found = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut size)
        };
        // Before Linux 5.14 the kernel is a reason by itself.
        let expected = if found == 0 { 27 } else { 30 };
        assert_eq!((path(fd), reason(fd)), (Some(0), Some(expected)), "descriptor {fd}");
    }
}

use crate::sys::wait;

/// As libuv in an extension of Python: its names are visible, but to nobody else.
const LIBUV: &str = r"
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
void uv_loop_init(void) {}
int make(unsigned *parameters) {
    int ring = syscall(SYS_io_uring_setup, 4, parameters);
    return ring < 0 ? -errno : ring;
}
";

/// The system call itself; a descriptor, or an error as a negative number.
fn set_up_past_libc(parameters: &mut [u32; 30]) -> i64 {
    let answer;
    // SAFETY: io_uring_setup(2), with the registers that the kernel keeps and those that it does not.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_io_uring_setup => answer,
            in("rdi") 4,
            in("rsi") parameters.as_mut_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

const EPOLL_CTL: u8 = 29;
const SEND: u8 = 26;
const RECEIVE: u8 = 27;

/// `struct io_uring_sqe`, as far as it is used.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    more: [u32; 9],
}

const _: () = assert!(size_of::<Entry>() == 64);

fn set_up(parameters: &mut [u32; 30]) -> Answer {
    call!(libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()))
}

/// A ring for one operation at a time.
struct Ring {
    fd: i32,
    parameters: [u32; 30],
    queues: *mut u8,
    entries: *mut Entry,
}

impl Ring {
    /// Needs a kernel that allows rings, and since 5.4 both queues in one mapping.
    fn new() -> Self {
        let mut parameters = [0; 30];
        let fd = match set_up(&mut parameters) {
            Ok(fd) => fd as i32,
            Err(error) => skip(&format!("no io_uring: {error:?}")),
        };
        const ENTRIES: i64 = 0x1000_0000;
        let map = |length, offset| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping of a ring.
            let base = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, offset) };
            assert_ne!(base, libc::MAP_FAILED);
            base.cast::<u8>()
        };
        Self { fd, parameters, queues: map(4096, 0), entries: map(4096, ENTRIES).cast() }
    }

    /// A word of the queues, by its place in `struct io_uring_params`.
    fn word(&self, place: usize) -> &AtomicU32 {
        // SAFETY: the kernel says where in the mapping the word lies.
        unsafe { &*self.queues.add(self.parameters[place] as usize).cast::<AtomicU32>() }
    }

    /// Sends or receives; what came of it, as a system call would return it.
    fn perform(&self, opcode: u8, fd: i32, bytes: &mut [u8]) -> i32 {
        let address = bytes.as_mut_ptr().expose_provenance() as u64;
        self.submit(Entry { opcode, fd, address, length: bytes.len() as u32, ..Entry::default() })
    }

    fn submit(&self, entry: Entry) -> i32 {
        // struct io_sqring_offsets begins at word 10, struct io_cqring_offsets at word 20.
        let (tail, mask, array) = (self.word(11), self.word(12).load(Ordering::Relaxed), 16);
        let index = tail.load(Ordering::Relaxed) & mask;
        // SAFETY: `index` is below the number of entries, and below the length of the array.
        unsafe {
            self.entries.add(index as usize).write(entry);
            ptr::from_ref(self.word(array)).cast_mut().cast::<u32>().add(index as usize).write(index);
        }
        tail.fetch_add(1, Ordering::Release);
        const WAIT: u32 = 1;
        let none: *const u8 = ptr::null();
        let entered = call!(libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, WAIT, none, 0));
        assert_eq!(entered, Ok(1));
        let (head, mask) = (self.word(20), self.word(22).load(Ordering::Relaxed));
        assert_ne!(head.load(Ordering::Relaxed), self.word(21).load(Ordering::Acquire));
        let index = head.load(Ordering::Relaxed) & mask;
        // SAFETY: a completion is user data, result and flags, 16 bytes.
        let result = unsafe {
            let completions = self.queues.add(self.parameters[25] as usize);
            completions.add(index as usize * 16 + 8).cast::<i32>().read()
        };
        head.fetch_add(1, Ordering::Release);
        result
    }
}
