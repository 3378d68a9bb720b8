//! Safe wrappers of the calls under test, one line each, and what is needed around them.
//!
//! # Safety
//! Slices and references give each call a buffer that outlives it. Descriptors are plain numbers: a wrong
//! one is a test's own business. The names bind dynamically, so under preload these are sockshim's.

use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::{env, fs, ptr, thread};

use libc::{c_int, c_void};

pub(crate) use self::wait::{events, poll, poll_one};
pub(crate) mod raw;
pub(crate) mod wait;

/// What a call returned, or the errno it set.
pub(crate) type Answer<T = usize> = Result<T, Errno>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

pub(crate) fn answer(returned: isize) -> Answer {
    usize::try_from(returned).map_err(|_| {
        assert_eq!(returned, -1, "a call returns a count or -1");
        errno()
    })
}

pub(crate) fn errno() -> Errno {
    // SAFETY: points to this thread's errno.
    Errno(unsafe { *libc::__errno_location() })
}

/// Asserts that a call failed with `errno`.
#[track_caller]
pub(crate) fn fails<T: fmt::Debug>(answer: Answer<T>, errno: c_int) {
    match answer {
        Err(error) if error.0 == errno => {}
        other => panic!("expected {:?}, got {other:?}", Errno(errno)),
    }
}

macro_rules! call {
    ($call:expr) => {
        // SAFETY: see the module's own section.
        $crate::sys::answer(unsafe { $call } as isize)
    };
}
pub(crate) use call;

// ---- create and connect ----

/// A pseudo family for [`listener`]: an IPv6 socket that IPv4 clients reach.
pub(crate) const DUAL_STACK: c_int = -6;

pub(crate) fn socket(family: c_int) -> i32 {
    call!(libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)).expect("socket") as i32
}

/// The loopback address of a family, as bytes of a `sockaddr`.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    storage: libc::sockaddr_storage,
    pub(crate) length: libc::socklen_t,
}

impl Address {
    pub(crate) fn empty() -> Self {
        // SAFETY: all zeroes is a valid sockaddr_storage.
        Self { storage: unsafe { mem::zeroed() }, length: size_of::<libc::sockaddr_storage>() as _ }
    }

    pub(crate) fn loopback(family: c_int, port: u16) -> Self {
        let mut address = Self::empty();
        match family {
            libc::AF_INET => address.put(libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
                sin_zero: [0; 8],
            }),
            _ => {
                let mut host = [0; 16];
                if family == libc::AF_INET6 {
                    host[15] = 1;
                }
                address.put(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: port.to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: host },
                    sin6_scope_id: 0,
                });
            }
        }
        address
    }

    /// `::ffff:127.0.0.1`.
    pub(crate) fn mapped(port: u16) -> Self {
        let mut address = Self::empty();
        address.put(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as _,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1] },
            sin6_scope_id: 0,
        });
        address
    }

    fn put<T>(&mut self, value: T) {
        // SAFETY: sockaddr_storage is larger than, and aligned for, every sockaddr.
        unsafe { (&raw mut self.storage).cast::<T>().write(value) };
        self.length = size_of::<T>() as _;
    }

    pub(crate) fn family(&self) -> c_int {
        c_int::from(self.storage.ss_family)
    }

    pub(crate) fn port(&self) -> u16 {
        // SAFETY: the port is at the same place for both families.
        u16::from_be(unsafe { (*(&raw const self.storage).cast::<libc::sockaddr_in>()).sin_port })
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes of the storage.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), self.length as usize) }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.bytes())
    }
}

pub(crate) fn bind(fd: i32, address: &Address) -> Answer {
    call!(libc::bind(fd, address.as_ptr(), address.length))
}

pub(crate) fn listen(fd: i32, backlog: c_int) -> Answer {
    call!(libc::listen(fd, backlog))
}

pub(crate) fn connect(fd: i32, address: &Address) -> Answer {
    call!(libc::connect(fd, address.as_ptr(), address.length))
}

/// A listening socket on a free port of the loopback interface.
pub(crate) fn listener(family: c_int) -> (i32, u16) {
    let fd = socket(if family == DUAL_STACK { libc::AF_INET6 } else { family });
    if family == DUAL_STACK {
        setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0).expect("IPV6_V6ONLY");
    }
    bind(fd, &Address::loopback(family, 0)).expect("bind");
    listen(fd, 128).expect("listen");
    (fd, getsockname(fd).expect("getsockname").port())
}

/// A socket connected to a loopback port.
pub(crate) fn connected(family: c_int, port: u16) -> i32 {
    let fd = socket(family);
    connect(fd, &Address::loopback(family, port)).expect("connect");
    fd
}

/// Both ends of a connection, the connecting one first.
pub(crate) fn pair() -> (i32, i32) {
    pair_over(libc::AF_INET)
}

pub(crate) fn pair_over(family: c_int) -> (i32, i32) {
    let (listening, port) = listener(family);
    let client = connected(if family == DUAL_STACK { libc::AF_INET } else { family }, port);
    let server = accept(listening).expect("accept");
    close(listening).expect("close");
    (client, server)
}

pub(crate) fn accept(fd: i32) -> Answer<i32> {
    call!(libc::accept(fd, ptr::null_mut(), ptr::null_mut())).map(|fd| fd as i32)
}

pub(crate) fn accept4(fd: i32, flags: c_int) -> Answer<i32> {
    call!(libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), flags)).map(|fd| fd as i32)
}

pub(crate) fn getsockname(fd: i32) -> Answer<Address> {
    let mut address = Address::empty();
    let mut length = address.length;
    call!(libc::getsockname(fd, address.as_mut_ptr(), &mut length))?;
    address.length = length;
    Ok(address)
}

pub(crate) fn getpeername(fd: i32) -> Answer<Address> {
    let mut address = Address::empty();
    let mut length = address.length;
    call!(libc::getpeername(fd, address.as_mut_ptr(), &mut length))?;
    address.length = length;
    Ok(address)
}

/// A connected pair of the kernel's own AF_UNIX stream sockets.
pub(crate) fn socketpair() -> (i32, i32) {
    let mut fds = [0; 2];
    call!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr())).expect("socketpair");
    (fds[0], fds[1])
}

// ---- transfer ----

pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Answer {
    call!(libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()))
}

pub(crate) fn write(fd: i32, bytes: &[u8]) -> Answer {
    call!(libc::write(fd, bytes.as_ptr().cast(), bytes.len()))
}

pub(crate) fn recv(fd: i32, buffer: &mut [u8], flags: c_int) -> Answer {
    call!(libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags))
}

pub(crate) fn send(fd: i32, bytes: &[u8], flags: c_int) -> Answer {
    call!(libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags))
}

/// Reads exactly `length` bytes, blocking.
#[track_caller]
pub(crate) fn read_exact(fd: i32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read(fd, &mut bytes[filled..]).expect("read") {
            0 => panic!("the stream ended after {filled} of {length} bytes"),
            count => filled += count,
        }
    }
    bytes
}

#[track_caller]
pub(crate) fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = write(fd, bytes).expect("write");
        bytes = &bytes[count..];
    }
}

pub(crate) fn iovecs(pieces: &mut [Vec<u8>]) -> Vec<libc::iovec> {
    pieces
        .iter_mut()
        .map(|piece| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() })
        .collect()
}

/// A message header over `vectors`, which must outlive its use.
pub(crate) fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

// ---- disconnect ----

pub(crate) fn shutdown(fd: i32, how: c_int) -> Answer {
    call!(libc::shutdown(fd, how))
}

pub(crate) fn close(fd: i32) -> Answer {
    call!(libc::close(fd))
}

/// Makes `close` send a reset.
pub(crate) fn linger_zero(fd: i32) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt_raw(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger).expect("SO_LINGER");
}

// ---- options and descriptors ----

pub(crate) fn setsockopt(fd: i32, level: c_int, name: c_int, value: c_int) -> Answer {
    setsockopt_raw(fd, level, name, &value)
}

pub(crate) fn setsockopt_raw<T>(fd: i32, level: c_int, name: c_int, value: &T) -> Answer {
    call!(libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), size_of::<T>() as _))
}

pub(crate) fn getsockopt(fd: i32, level: c_int, name: c_int) -> Answer<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    call!(libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut length))?;
    Ok(value)
}

pub(crate) fn so_error(fd: i32) -> c_int {
    getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR).expect("SO_ERROR")
}

pub(crate) fn timeout(fd: i32, name: c_int, milliseconds: i64) {
    let value = libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 };
    setsockopt_raw(fd, libc::SOL_SOCKET, name, &value).expect("a time-out");
}

pub(crate) fn ioctl(fd: i32, request: libc::c_ulong) -> Answer<c_int> {
    let mut value: c_int = 0;
    call!(libc::ioctl(fd, request, &mut value))?;
    Ok(value)
}

/// How many bytes can be read now.
pub(crate) fn readable(fd: i32) -> usize {
    ioctl(fd, libc::FIONREAD).expect("FIONREAD") as usize
}

pub(crate) fn set_nonblocking(fd: i32, on: bool) {
    let flags = call!(libc::fcntl(fd, libc::F_GETFL)).expect("F_GETFL") as c_int;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    call!(libc::fcntl(fd, libc::F_SETFL, flags)).expect("F_SETFL");
}

pub(crate) fn is_nonblocking(fd: i32) -> bool {
    call!(libc::fcntl(fd, libc::F_GETFL)).expect("F_GETFL") as c_int & libc::O_NONBLOCK != 0
}

pub(crate) fn set_cloexec(fd: i32, on: bool) {
    call!(libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 })).expect("F_SETFD");
}

pub(crate) fn dup(fd: i32) -> i32 {
    call!(libc::dup(fd)).expect("dup") as i32
}

/// Takes every free number below `fd`, so that its own is the lowest once it is closed.
pub(crate) fn plug_below(fd: i32) {
    loop {
        let plug = dup(0);
        if plug > fd {
            let _ = close(plug);
            return;
        }
    }
}

pub(crate) fn dup2(from: i32, to: i32) -> Answer {
    call!(libc::dup2(from, to))
}

/// A pipe(2): the read end, then the write end.
pub(crate) fn pipe() -> (i32, i32) {
    let mut fds = [0; 2];
    call!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC)).expect("pipe2");
    (fds[0], fds[1])
}

pub(crate) fn eventfd() -> i32 {
    call!(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)).expect("eventfd") as i32
}

/// A timer that first fires after `milliseconds`.
pub(crate) fn timerfd(milliseconds: i64) -> i32 {
    let fd = call!(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)).expect("timerfd") as i32;
    let value = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = libc::itimerspec { it_interval: zero, it_value: value };
    call!(libc::timerfd_settime(fd, 0, &setting, ptr::null_mut())).expect("timerfd_settime");
    fd
}

/// A nameless file that holds `bytes`, at its start.
pub(crate) fn file_with(bytes: &[u8]) -> i32 {
    let fd = call!(libc::memfd_create(c"calls".as_ptr(), libc::MFD_CLOEXEC)).expect("memfd") as i32;
    write_all(fd, bytes);
    call!(libc::lseek(fd, 0, libc::SEEK_SET)).expect("lseek");
    fd
}

// ---- processes, threads and signals ----

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(c_int),
    Killed(c_int),
}

#[track_caller]
pub(crate) fn wait(pid: libc::pid_t) -> Ended {
    let mut status = 0;
    loop {
        match call!(libc::waitpid(pid, &mut status, 0)) {
            Err(Errno(libc::EINTR)) => {}
            answer => break assert_eq!(answer, Ok(pid as usize)),
        }
    }
    match libc::WIFSIGNALED(status) {
        true => Ended::Killed(libc::WTERMSIG(status)),
        false => Ended::Exited(libc::WEXITSTATUS(status)),
    }
}

pub(crate) fn kill(pid: libc::pid_t, signal: c_int) -> Answer {
    call!(libc::kill(pid, signal))
}

pub(crate) fn getpid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getpid() }
}

pub(crate) fn getuid() -> libc::uid_t {
    // SAFETY: always allowed.
    unsafe { libc::getuid() }
}

pub(crate) fn getppid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getppid() }
}

pub(crate) fn gettid() -> libc::pid_t {
    // SAFETY: always allowed.
    unsafe { libc::gettid() }
}

pub(crate) fn tgkill(tid: libc::pid_t, signal: c_int) {
    call!(libc::syscall(libc::SYS_tgkill, getpid(), tid, signal)).expect("tgkill");
}

pub(crate) fn own_program() -> CString {
    CString::new(env::current_exe().expect("/proc").as_os_str().as_bytes()).expect("a path")
}

/// Starts a program with this environment plus `extra`; descriptors without close-on-exec pass on.
pub(crate) fn spawn(program: &CStr, arguments: &[&CStr], extra: &[(&str, &str)]) -> libc::pid_t {
    let variables = environment_with(extra);
    let pid = call!(libc::fork()).expect("fork") as libc::pid_t;
    if pid == 0 {
        execute(program, arguments, &variables);
    }
    pid
}

/// Replaces this process; leaves with 127 when it cannot.
pub(crate) fn execute(program: &CStr, arguments: &[&CStr], variables: &[CString]) -> ! {
    let argv: Vec<_> =
        [program].iter().chain(arguments).map(|each| each.as_ptr()).chain([ptr::null()]).collect();
    let envp: Vec<_> = variables.iter().map(|each| each.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: both arrays end with a null pointer.
    unsafe {
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        libc::_exit(127)
    }
}

pub(crate) fn environment_with(extra: &[(&str, &str)]) -> Vec<CString> {
    let own = env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let new = extra.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    own.filter(|entry| !extra.iter().any(|(name, _)| entry.starts_with(format!("{name}=").as_bytes())))
        .chain(new)
        .map(|entry| CString::new(entry).expect("no zero byte"))
        .collect()
}

/// Installs a handler for `signal`.
pub(crate) fn on_signal(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    call!(libc::sigaction(signal, &action, ptr::null_mut())).expect("sigaction");
}

pub(crate) fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    call!(libc::sigemptyset(set.as_mut_ptr())).expect("sigemptyset");
    for &signal in signals {
        call!(libc::sigaddset(set.as_mut_ptr(), signal)).expect("sigaddset");
    }
    // SAFETY: sigemptyset filled it in.
    unsafe { set.assume_init() }
}

pub(crate) fn block_signals(signals: &[c_int]) {
    call!(libc::pthread_sigmask(libc::SIG_BLOCK, &signal_set(signals), ptr::null_mut())).expect("sigmask");
}

/// Waits a moment for a thread to go to sleep. A test must also pass when it has not.
pub(crate) fn let_sleep(pid: libc::pid_t, tid: libc::pid_t) {
    for _ in 0..100 {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S")) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Zeroed memory that forked children share.
pub(crate) fn shared() -> &'static [AtomicU64; 3] {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping.
    let place = unsafe { libc::mmap(ptr::null_mut(), size_of::<[AtomicU64; 3]>(), access, kind, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    // SAFETY: of that size, zeroed, and never unmapped.
    unsafe { &*place.cast() }
}

/// Waits until `condition` holds; the watchdog is the limit.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) fn null() -> *mut c_void {
    ptr::null_mut()
}
