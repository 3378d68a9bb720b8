//! System calls that sockshim makes on its own account: never through libc's names (they are ours), never
//! cancellation points, errors as values, `errno` untouched.
//!
//! # Safety
//! Pointers given to the kernel come from references or from the program's own arguments, whose validity the
//! kernel checks itself.

use super::address::Address;
use super::{filter, futex, raw};
use crate::error::Errno;
use core::ffi::{CStr, c_int};
use core::mem::size_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Makes a system call with up to six arguments.
///
/// # Safety
/// The arguments must be what that call wants; see its man page.
#[inline]
unsafe fn make<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> Result<usize, Errno> {
    const { assert!(N <= 6) };
    let mut all = [0usize; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: the caller's promise; further arguments are ignored by the kernel.
    raw::outcome(unsafe { raw::syscall6(number, all[0], all[1], all[2], all[3], all[4], all[5]) })
}

/// One system call with up to six arguments.
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: the kernel validates every pointer argument; none of these calls changes memory that Rust
        // believes to be unshared except through the `&mut` or raw pointers that the caller passed for it.
        unsafe { make(libc::$number, [$($argument as usize),*]) }
    };
}

pub(crate) fn getpid() -> u32 {
    call!(SYS_getpid).unwrap_or(0) as u32
}

/// Ends the process, with all its threads.
pub(crate) fn exit(status: c_int) -> ! {
    loop {
        let _ = call!(SYS_exit_group, status);
    }
}

/// 0: the parent is in another process namespace.
pub(crate) fn getppid() -> u32 {
    call!(SYS_getppid).unwrap_or(0) as u32
}

pub(crate) fn gettid() -> u32 {
    call!(SYS_gettid).unwrap_or(0) as u32
}

pub(crate) fn geteuid() -> u32 {
    call!(SYS_geteuid).unwrap_or(0) as u32
}

/// The process's real, effective, saved and file system user.
pub(crate) fn users() -> [u32; 4] {
    let mut users = [0u32; 3];
    let [real, effective, saved] = users.each_mut().map(core::ptr::from_mut);
    let _ = call!(SYS_getresuid, real, effective, saved);
    // No user has this number, so nothing changes (setfsuid(2)).
    let of_files = call!(SYS_setfsuid, -1i32).unwrap_or(0) as u32;
    [users[0], users[1], users[2], of_files]
}

/// Whether the program has put a system call filter on itself; see [`restrict`].
static RESTRICTED: AtomicBool = AtomicBool::new(false);
/// The thread that is in the strict mode of seccomp(2): its number, 0, or [`SEVERAL`].
static STRICT: AtomicU32 = AtomicU32::new(0);
const SEVERAL: u32 = u32::MAX;

/// From now on a call that the program would not make by itself may kill it: what can only be found out with one
/// is taken for granted.
pub(crate) fn restrict() {
    RESTRICTED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_restricted() -> bool {
    RESTRICTED.load(Ordering::Relaxed)
}

/// The same, in strict mode: `thread` has read(2), write(2), and nothing else that a connection needs.
pub(crate) fn restrict_strictly(thread: u32) {
    if STRICT.swap(thread, Ordering::Relaxed) != 0 {
        STRICT.store(SEVERAL, Ordering::Relaxed);
    }
    restrict();
}

/// Whether `thread` is, or may be, in strict mode.
pub(crate) fn is_strict(thread: u32) -> bool {
    let strict = STRICT.load(Ordering::Relaxed);
    strict == thread || strict == SEVERAL
}

/// Whether a process or thread of that number exists (a zombie counts as dead to us only when reaped).
pub(crate) fn exists(task: u32) -> bool {
    if is_restricted() {
        return true;
    }
    if filter::is_inherited() {
        return is_listed(format_args!("{task}"));
    }
    call!(SYS_kill, task, 0) != Err(Errno(libc::ESRCH))
}

/// Whether proc(5) has a folder of that name; true when it cannot be asked.
#[cold]
fn is_listed(name: core::fmt::Arguments<'_>) -> bool {
    use core::fmt::Write;
    let mut path = super::folder::Path::new();
    write!(path, "/proc/{name}").is_err() || exists_file(path.as_c_str()) || !exists_file(c"/proc/self")
}

/// Whether a thread has ended: it is gone, or a zombie for which nobody has waited yet.
#[cold]
pub(crate) fn has_ended(thread: u32) -> bool {
    !exists(thread) || matches!(state(thread), Some(b'Z' | b'X'))
}

/// The letter that says what a thread does (proc_pid_stat(5)); `None` when that cannot be told.
#[cold]
pub(crate) fn state(thread: u32) -> Option<u8> {
    use core::fmt::Write;
    let mut path = super::folder::Path::new();
    if is_restricted() {
        return None;
    }
    write!(path, "/proc/{thread}/stat").ok()?;
    let fd = open(path.as_c_str(), libc::O_RDONLY, 0).ok()?;
    let mut text = [0u8; 128];
    let read = read_file(fd, text.as_mut_ptr(), text.len(), None);
    close(fd);
    // The state follows the name, which ends with the last parenthesis.
    let text = text.get(..read.ok()?)?;
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(end + 2).copied()
}

/// Whether `thread` is one of `process`'s.
pub(crate) fn is_thread_of(process: u32, thread: u32) -> bool {
    if filter::is_inherited() && !is_restricted() {
        return is_listed(format_args!("{process}/task/{thread}"));
    }
    is_restricted() || call!(SYS_tgkill, process, thread, 0) != Err(Errno(libc::ESRCH))
}

/// Whether two processes have one table of descriptors (`CLONE_FILES` of clone(2)). False where that cannot be told.
pub(crate) fn share_descriptors(one: u32, other: u32) -> bool {
    /// `KCMP_FILES` (linux/kcmp.h).
    const FILES: c_int = 2;
    !is_restricted() && !filter::is_inherited() && call!(SYS_kcmp, one, other, FILES, 0, 0) == Ok(0)
}

/// Whether a process runs: a zombie has ended already.
pub(crate) fn lives(process: u32) -> bool {
    if is_restricted() {
        return true;
    }
    if filter::is_inherited() {
        return !has_ended(process);
    }
    match call!(SYS_pidfd_open, process, 0) {
        Ok(fd) => {
            let ended = poll_now(fd as c_int, libc::POLLIN) & libc::POLLIN != 0;
            close(fd as c_int);
            !ended
        }
        Err(Errno(libc::ESRCH)) => false,
        Err(_) => exists(process),
    }
}

pub(crate) fn sched_yield() {
    if filter::is_inherited() {
        // About as long as the call takes where nobody else wants the processor.
        return (0..16).for_each(|_| core::hint::spin_loop());
    }
    let _ = call!(SYS_sched_yield);
}

/// Sleeps; false when a signal ended it early.
pub(crate) fn nap(microseconds: u64) -> bool {
    match futex::sleep(microseconds * 1000) {
        Ok(()) | Err(Errno(libc::ETIMEDOUT | libc::EAGAIN)) => true,
        Err(Errno(libc::EINTR)) => false,
        Err(_) => {
            let time = libc::timespec {
                tv_sec: (microseconds / 1_000_000) as i64,
                tv_nsec: (microseconds % 1_000_000 * 1000) as i64,
            };
            call!(SYS_nanosleep, &raw const time, 0).is_ok()
        }
    }
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The same, as of the kernel's last tick: at most 10 ms old, and a quarter of the price.
pub(crate) fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    if super::clock::is_counter_forbidden() {
        let _ = call!(SYS_clock_gettime, clock, &raw mut time);
    } else {
        // SAFETY: `time` is writable; clock_gettime is not one of our exports and goes to the vDSO.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Receives into one buffer.
pub(crate) fn recv(fd: c_int, buffer: *mut u8, length: usize, flags: c_int) -> Result<usize, Errno> {
    call!(SYS_recvfrom, fd, buffer, length, flags, 0, 0)
}

pub(crate) fn recvmsg(fd: c_int, message: &mut libc::msghdr, flags: c_int) -> Result<usize, Errno> {
    call!(SYS_recvmsg, fd, &raw mut *message, flags)
}

pub(crate) fn send(fd: c_int, bytes: &[u8], flags: c_int) -> Result<usize, Errno> {
    call!(SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, 0, 0)
}

/// What poll(2) says of one descriptor at once.
pub(crate) fn poll_now(fd: c_int, events: i16) -> i16 {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    match call!(SYS_poll, &raw mut entry, 1, 0) {
        Ok(_) => entry.revents,
        Err(_) => 0,
    }
}

/// poll(2) of several descriptors at once, without waiting.
pub(crate) fn poll_many_now(entries: &mut [libc::pollfd]) -> Result<usize, Errno> {
    call!(SYS_poll, entries.as_mut_ptr(), entries.len(), 0)
}

/// A socket option of exactly the size of `T`, which must be plain data.
pub(crate) fn sockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, mut initial: T) -> Result<T, Errno> {
    let mut length = size_of::<T>() as u32;
    call!(SYS_getsockopt, fd, level, name, &raw mut initial, &raw mut length)?;
    Ok(initial)
}

pub(crate) fn set_sockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, new: &T) -> Result<(), Errno> {
    call!(SYS_setsockopt, fd, level, name, core::ptr::from_ref(new), size_of::<T>()).map(drop)
}

/// SO_ERROR, which is 0 from then on.
pub(crate) fn take_error(fd: c_int) -> c_int {
    sockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0).unwrap_or(0)
}

/// SO_RCVTIMEO in nanoseconds; `None`: for ever.
pub(crate) fn receive_timeout(fd: c_int) -> Option<u64> {
    timeout(fd, libc::SO_RCVTIMEO)
}

/// Whether SO_SNDTIMEO is set.
pub(crate) fn has_send_timeout(fd: c_int) -> bool {
    timeout(fd, libc::SO_SNDTIMEO).is_some()
}

fn timeout(fd: c_int, name: c_int) -> Option<u64> {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let time = sockopt(fd, libc::SOL_SOCKET, name, zero).unwrap_or(zero);
    let time = (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_usec as u64 * 1000);
    (time > 0).then_some(time)
}

pub(crate) fn cookie(fd: c_int) -> Result<u64, Errno> {
    sockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, 0u64)
}

/// Cookie of the socket's network namespace.
pub(crate) fn namespace_cookie(fd: c_int) -> Result<u64, Errno> {
    const SO_NETNS_COOKIE: c_int = 71;
    sockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64)
}

/// The size of a socket's buffer (`SO_SNDBUF` or `SO_RCVBUF`), if the program has set it: then the kernel leaves it
/// alone.
pub(crate) fn fixed_buffer(fd: c_int, name: c_int) -> Option<c_int> {
    // linux/socket.h, asm-generic/socket.h: both since Linux 5.15
    const SO_BUF_LOCK: c_int = 72;
    const SOCK_SNDBUF_LOCK: c_int = 1;
    const SOCK_RCVBUF_LOCK: c_int = 2;
    let lock = if name == libc::SO_SNDBUF { SOCK_SNDBUF_LOCK } else { SOCK_RCVBUF_LOCK };
    let locks: c_int = sockopt(fd, libc::SOL_SOCKET, SO_BUF_LOCK, 0).unwrap_or(0);
    if locks & lock == 0 { None } else { sockopt(fd, libc::SOL_SOCKET, name, 0).ok() }
}

/// The head of `struct tcp_info` (linux/tcp.h) that we need.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    state: u8,
    _before: [u8; 127],
    bytes_received: u64,
    _between: [u8; 8],
    notsent_bytes: u32,
    _after: [u8; 52],
    bytes_sent: u64,
    bytes_retrans: u64,
}
const _: () = assert!(core::mem::offset_of!(TcpInfo, bytes_received) == 128);
const _: () = assert!(core::mem::offset_of!(TcpInfo, notsent_bytes) == 144);
const _: () = assert!(core::mem::offset_of!(TcpInfo, bytes_sent) == 200);

/// Where a connection is, according to the kernel: the referee of both byte positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpPosition {
    /// `TCP_ESTABLISHED` (1) and so on.
    pub(crate) state: u8,
    /// Bytes that the program side has put in.
    pub(crate) written: u64,
    /// Bytes that have arrived, read or not.
    pub(crate) received: u64,
}

impl TcpPosition {
    /// Bytes that have arrived, without the one that a FIN counts for.
    pub(crate) fn data_received(&self) -> u64 {
        // include/net/tcp_states.h
        const TIME_WAIT: u8 = 6;
        const CLOSE_WAIT: u8 = 8;
        const LAST_ACK: u8 = 9;
        const CLOSING: u8 = 11;
        let ended = matches!(self.state, TIME_WAIT | CLOSE_WAIT | LAST_ACK | CLOSING);
        self.received.saturating_sub(u64::from(ended))
    }
}

pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const TCP_CLOSE_WAIT: u8 = 8;

/// One TCP_INFO: two would race with each other.
pub(crate) fn tcp_position(fd: c_int) -> Result<TcpPosition, Errno> {
    let empty = TcpInfo {
        state: 0,
        _before: [0; 127],
        bytes_received: 0,
        _between: [0; 8],
        notsent_bytes: 0,
        _after: [0; 52],
        bytes_sent: 0,
        bytes_retrans: 0,
    };
    let info = sockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, empty)?;
    Ok(info.position())
}

/// The same from the bytes of a `struct tcp_info`; `None` when the kernel gave too few.
pub(crate) fn tcp_position_from(bytes: &[u8]) -> Option<TcpPosition> {
    let bytes = bytes.get(..size_of::<TcpInfo>())?;
    // SAFETY: as many bytes as a TcpInfo has, for which every bit pattern is valid.
    let info = unsafe { bytes.as_ptr().cast::<TcpInfo>().read_unaligned() };
    Some(info.position())
}

impl TcpInfo {
    fn position(&self) -> TcpPosition {
        TcpPosition {
            state: self.state,
            written: self
                .bytes_sent
                .wrapping_sub(self.bytes_retrans)
                .wrapping_add(u64::from(self.notsent_bytes)),
            received: self.bytes_received,
        }
    }
}

/// Bytes waiting in the receive queue (SIOCINQ).
pub(crate) fn queued(fd: c_int) -> Result<usize, Errno> {
    let mut count: c_int = 0;
    call!(SYS_ioctl, fd, libc::FIONREAD, &raw mut count)?;
    Ok(count.max(0) as usize)
}

/// Bytes that were written and have not been sent yet (SIOCOUTQNSD).
pub(crate) fn unsent(fd: c_int) -> Result<usize, Errno> {
    const SIOCOUTQNSD: usize = 0x894B;
    let mut count: c_int = 0;
    call!(SYS_ioctl, fd, SIOCOUTQNSD, &raw mut count)?;
    Ok(count.max(0) as usize)
}

/// Whether the next byte of the kernel's stream is marked as urgent (sockatmark(3)).
#[cold]
pub(crate) fn at_mark(fd: c_int) -> bool {
    const SIOCATMARK: usize = 0x8905;
    let mut marked: c_int = 0;
    call!(SYS_ioctl, fd, SIOCATMARK, &raw mut marked).is_ok() && marked != 0
}

/// Whether the open file description is non-blocking.
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    if !filter::allows_fcntl() {
        return filter::flags(fd).is_some_and(|flags| flags & libc::O_NONBLOCK != 0);
    }
    matches!(call!(SYS_fcntl, fd, libc::F_GETFL), Ok(flags) if flags as c_int & libc::O_NONBLOCK != 0)
}

/// Whether a program that is executed will have this descriptor.
pub(crate) fn survives_exec(fd: c_int) -> bool {
    if !filter::allows_fcntl() {
        return filter::flags(fd).is_some_and(|flags| flags & libc::O_CLOEXEC == 0);
    }
    matches!(call!(SYS_fcntl, fd, libc::F_GETFD), Ok(flags) if flags as c_int & libc::FD_CLOEXEC == 0)
}

pub(crate) fn local_address(fd: c_int) -> Result<Address, Errno> {
    let mut address = Address::EMPTY;
    call!(SYS_getsockname, fd, address.bytes.as_mut_ptr(), &raw mut address.length)?;
    Ok(address)
}

pub(crate) fn peer_address(fd: c_int) -> Result<Address, Errno> {
    let mut address = Address::EMPTY;
    call!(SYS_getpeername, fd, address.bytes.as_mut_ptr(), &raw mut address.length)?;
    Ok(address)
}

pub(crate) fn open(path: &CStr, flags: c_int, mode: u32) -> Result<c_int, Errno> {
    call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, mode).map(|fd| fd as c_int)
}

/// Opens a file that others may have made, and waits for none of them: neither for who has a lease on it (fcntl(2), F_SETLEASE),
/// nor for the other end of a FIFO.
pub(crate) fn open_quickly(path: &CStr, flags: c_int) -> Result<c_int, Errno> {
    open(path, flags | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)
}

pub(crate) fn close(fd: c_int) {
    let _ = call!(SYS_close, fd);
}

pub(crate) fn write(fd: c_int, bytes: &[u8]) -> Result<usize, Errno> {
    call!(SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Where the stack is now.
#[inline]
pub(crate) fn stack_pointer() -> u64 {
    let here: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    here
}

/// The stack that this thread has for its signal handlers, and whether it is on it.
pub(crate) fn alternate_stack() -> Option<(core::ops::Range<u64>, bool)> {
    if filter::is_inherited() {
        return None;
    }
    let mut stack = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    call!(SYS_sigaltstack, 0, &raw mut stack).ok()?;
    let start = stack.ss_sp.addr() as u64;
    let range = start..start.saturating_add(stack.ss_size as u64);
    (stack.ss_flags & libc::SS_DISABLE == 0).then_some((range, stack.ss_flags & libc::SS_ONSTACK != 0))
}

/// Gives a file a second name.
pub(crate) fn link(path: &CStr, new: &CStr) {
    let _ = call!(SYS_linkat, libc::AT_FDCWD, path.as_ptr(), libc::AT_FDCWD, new.as_ptr(), 0);
}

pub(crate) fn exists_file(path: &CStr) -> bool {
    call!(SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::F_OK).is_ok()
}

/// Whether there was such a file.
pub(crate) fn unlink(path: &CStr) -> bool {
    call!(SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0).is_ok()
}

pub(crate) fn mkdir(path: &CStr, mode: u32) -> Result<(), Errno> {
    call!(SYS_mkdirat, libc::AT_FDCWD, path.as_ptr(), mode).map(drop)
}

pub(crate) fn truncate(fd: c_int, size: usize) -> Result<(), Errno> {
    call!(SYS_ftruncate, fd, size).map(drop)
}

/// Type bits and permissions, owner and size of an open file.
pub(crate) fn file_facts(fd: c_int) -> Result<(u32, u32, usize), Errno> {
    // SAFETY: an all-zero stat is a valid value.
    let mut facts: libc::stat = unsafe { core::mem::zeroed() };
    call!(SYS_fstat, fd, &raw mut facts)?;
    Ok((facts.st_mode, facts.st_uid, facts.st_size as usize))
}

/// The inode of an open file.
pub(crate) fn inode(fd: c_int) -> Result<u64, Errno> {
    // SAFETY: an all-zero stat is a valid value.
    let mut facts: libc::stat = unsafe { core::mem::zeroed() };
    call!(SYS_fstat, fd, &raw mut facts)?;
    Ok(facts.st_ino)
}

/// Seconds since an open file was last changed.
pub(crate) fn age(fd: c_int) -> Option<i64> {
    // SAFETY: an all-zero stat is a valid value.
    let mut facts: libc::stat = unsafe { core::mem::zeroed() };
    call!(SYS_fstat, fd, &raw mut facts).ok()?;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    call!(SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut now).ok()?;
    Some(now.tv_sec.saturating_sub(facts.st_mtime))
}

/// Directory entries as `linux_dirent64`; how many bytes of them there are.
pub(crate) fn directory_entries(folder: c_int, buffer: &mut [u64]) -> Result<usize, Errno> {
    call!(SYS_getdents64, folder, buffer.as_mut_ptr(), size_of_val(buffer))
}

/// Where a symbolic link in an open folder leads; how many bytes of the buffer that took.
pub(crate) fn link_target(folder: c_int, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    call!(SYS_readlinkat, folder, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

/// The working directory's path, with the zero at its end.
pub(crate) fn working_directory(buffer: &mut [u8]) -> Result<usize, Errno> {
    call!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len())
}

/// Whether nobody has a file open for writing, or mapped from such an opening, in whatever process and
/// pid namespace: a read lease (fcntl(2)) is given only then. `fd` is a read-only opening of a file of ours; the
/// lease lasts until it is closed.
pub(crate) fn has_no_writer(fd: c_int) -> bool {
    // Whoever opens the file meanwhile waits for our close, and we get a signal: one that is ignored.
    const F_SETSIG: c_int = 10;
    filter::allows_fcntl()
        && call!(SYS_fcntl, fd, F_SETSIG, libc::SIGURG).is_ok()
        && call!(SYS_fcntl, fd, libc::F_SETLEASE, libc::F_RDLCK).is_ok()
}

/// A shared mapping of a file.
pub(crate) fn map_shared(fd: c_int, size: usize) -> Result<*mut u8, Errno> {
    map_shared_part(fd, 0, size, core::ptr::null_mut())
}

/// A shared mapping of a part of a file, over `place` if that is not null.
pub(crate) fn map_shared_part(
    fd: c_int,
    offset: usize,
    size: usize,
    place: *mut u8,
) -> Result<*mut u8, Errno> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | fixed;
    call!(SYS_mmap, place, size, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        .map(|address| address as *mut u8)
}

/// Anonymous memory, shared over fork or private, over `place` if that is not null.
pub(crate) fn map_anonymous(size: usize, place: *mut u8, shared: bool) -> Result<*mut u8, Errno> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    call!(SYS_mmap, place, size, libc::PROT_READ | libc::PROT_WRITE, flags, -1isize, 0)
        .map(|address| address as *mut u8)
}

/// Memory of this process that is not locked, even where all new memory is (MCL_FUTURE of mlockall(2)): there are no pages yet that
/// could be.
pub(crate) fn map_unlocked(size: usize) -> Result<*mut u8, Errno> {
    if filter::is_inherited() {
        return map_anonymous(size, core::ptr::null_mut(), false);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let place = call!(SYS_mmap, 0, size, libc::PROT_NONE, flags, -1isize, 0)? as *mut u8;
    let _ = call!(SYS_munlock, place, size);
    match call!(SYS_mprotect, place, size, libc::PROT_READ | libc::PROT_WRITE) {
        Ok(_) => Ok(place),
        Err(error) => {
            unmap(place, size);
            Err(error)
        }
    }
}

/// Whether a page is in memory (mincore(2)). Where a filter may forbid the call: not known to be.
pub(crate) fn is_resident(page: *mut u8) -> bool {
    let mut there = 0u8;
    !filter::is_inherited() && call!(SYS_mincore, page, 4096usize, &raw mut there).is_ok() && there & 1 == 1
}

/// A child that gets a copy of the memory finds these pages empty (Linux 4.14).
pub(crate) fn wipe_on_fork(address: *const u8, length: usize) {
    let _ = call!(SYS_madvise, address, length, libc::MADV_WIPEONFORK);
}

/// The same shared mapping at one more address.
pub(crate) fn map_again(address: *mut u8, size: usize) -> Result<*mut u8, Errno> {
    call!(SYS_mremap, address, 0, size, libc::MREMAP_MAYMOVE).map(|address| address as *mut u8)
}

/// Moves a mapping over another one.
pub(crate) fn move_mapping(from: *mut u8, size: usize, to: *mut u8) -> Result<(), Errno> {
    call!(SYS_mremap, from, size, size, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to).map(drop)
}

pub(crate) fn unmap(address: *mut u8, size: usize) {
    let _ = call!(SYS_munmap, address, size);
}

pub(crate) fn epoll_ctl(
    set: c_int,
    operation: c_int,
    fd: c_int,
    event: Option<&libc::epoll_event>,
) -> Result<(), Errno> {
    let event = event.map_or(core::ptr::null(), core::ptr::from_ref);
    call!(SYS_epoll_ctl, set, operation, fd, event).map(drop)
}

pub(crate) fn epoll_now(set: c_int, events: &mut [libc::epoll_event]) -> Result<usize, Errno> {
    epoll_look(set, events.as_mut_ptr(), events.len() as c_int)
}

/// epoll_wait(2) that does not wait, into the program's own array.
#[inline(always)]
pub(crate) fn epoll_look(set: c_int, events: *mut libc::epoll_event, most: c_int) -> Result<usize, Errno> {
    #[cfg(target_arch = "x86_64")]
    return call!(SYS_epoll_wait, set, events, most, 0);
    #[cfg(not(target_arch = "x86_64"))]
    call!(SYS_epoll_pwait, set, events, most, 0, 0, 8)
}

/// Blocks every signal for this thread; the old mask. Not under a filter of the program's, which may forbid it.
pub(crate) fn block_signals() -> u64 {
    if is_restricted() {
        return 0;
    }
    let all = !0u64;
    let mut old = 0u64;
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const all, &raw mut old, 8);
    old
}

pub(crate) fn restore_signals(old: u64) {
    if is_restricted() {
        return;
    }
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const old, 0, 8);
}

/// The set of blocked signals of this thread before `set` was blocked (SIG_BLOCK) or unblocked (SIG_UNBLOCK).
pub(crate) fn change_signal_mask(how: c_int, set: u64) -> Result<u64, Errno> {
    let mut old = 0u64;
    call!(SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8)?;
    Ok(old)
}

/// What a signal does: `struct kernel_sigaction` (asm/signal.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) handler: usize,
    pub(crate) flags: u64,
    pub(crate) restorer: usize,
    pub(crate) mask: u64,
}

/// The restorer of an [`Action`] counts.
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;

/// What a signal has done until now; `new` is what it does from now on.
pub(crate) fn signal_action(signal: c_int, new: Option<&Action>) -> Result<Action, Errno> {
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let new = new.map_or(core::ptr::null(), core::ptr::from_ref);
    call!(SYS_rt_sigaction, signal, new, &raw mut old, 8)?;
    Ok(old)
}

pub(crate) fn raise_sigpipe() {
    let _ = call!(SYS_tgkill, getpid(), gettid(), libc::SIGPIPE);
}

/// The limit of file sizes, in bytes; `u64::MAX` when there is none.
pub(crate) fn file_size_limit() -> u64 {
    file_size_limits()[0]
}

/// The limit of the address space (RLIMIT_AS), in bytes; `u64::MAX` when there is none.
pub(crate) fn address_space_limit() -> u64 {
    limits(libc::RLIMIT_AS)[0]
}

fn file_size_limits() -> [u64; 2] {
    limits(libc::RLIMIT_FSIZE)
}

/// The soft and the hard limit of a resource (getrlimit(2)).
fn limits(resource: libc::__rlimit_resource_t) -> [u64; 2] {
    let mut limits = [0u64; 2];
    match call!(SYS_prlimit64, 0, resource, 0, &raw mut limits) {
        Ok(_) => limits,
        Err(_) => [u64::MAX; 2],
    }
}

/// Gives a file of ours a size beyond RLIMIT_FSIZE, for which [`truncate`] would raise SIGXFSZ: the limit is lifted for a
/// moment.
///
/// # Errors
/// EPERM: that is not allowed.
pub(crate) fn truncate_beyond_limit(fd: c_int, size: usize) -> Result<(), Errno> {
    let limits = file_size_limits();
    let [soft, hard] = limits;
    if soft >= size as u64 {
        return truncate(fd, size);
    }
    let lifted = [size as u64, hard.max(size as u64)];
    call!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &raw const lifted, 0)?;
    let told = truncate(fd, size);
    let _ = call!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &raw const limits, 0);
    told
}

/// A netlink socket for `sock_diag`.
pub(crate) fn diag_socket() -> Result<c_int, Errno> {
    const NETLINK_SOCK_DIAG: c_int = 4;
    call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        .map(|fd| fd as c_int)
}

/// Reads from a file at `offset`, or at its own position.
pub(crate) fn read_file(fd: c_int, to: *mut u8, length: usize, offset: Option<u64>) -> Result<usize, Errno> {
    match offset {
        Some(offset) => call!(SYS_pread64, fd, to, length, offset),
        None => call!(SYS_read, fd, to, length),
    }
}

/// The same as far as it is in memory.
///
/// # Errors
/// EAGAIN: it is not. EOPNOTSUPP: this file system cannot tell (preadv2(2), RWF_NOWAIT).
pub(crate) fn read_from_memory(
    fd: c_int,
    to: *mut u8,
    length: usize,
    offset: Option<u64>,
) -> Result<usize, Errno> {
    let piece = libc::iovec { iov_base: to.cast(), iov_len: length };
    // On 64 bits the offset's upper half is always 0; -1: the file's own position.
    let (low, high) = (offset.unwrap_or(u64::MAX), 0);
    match call!(SYS_preadv2, fd, &raw const piece, 1, low, high, libc::RWF_NOWAIT) {
        // A kernel without the call, or without the flag.
        Err(Errno(libc::ENOSYS | libc::EINVAL)) => Err(Errno(libc::EOPNOTSUPP)),
        told => told,
    }
}

/// A file's own position.
pub(crate) fn file_position(fd: c_int) -> Result<u64, Errno> {
    call!(SYS_lseek, fd, 0, libc::SEEK_CUR).map(|position| position as u64)
}

/// Moves a file's own position back.
pub(crate) fn rewind(fd: c_int, count: usize) {
    let _ = call!(SYS_lseek, fd, (count as isize).wrapping_neg(), libc::SEEK_CUR);
}

/// Whether `fd` is a regular file.
pub(crate) fn is_file(fd: c_int) -> bool {
    matches!(file_facts(fd), Ok((mode, _, _)) if mode & libc::S_IFMT == libc::S_IFREG)
}

/// Whether `fd` is a pipe(2).
pub(crate) fn is_pipe(fd: c_int) -> bool {
    matches!(file_facts(fd), Ok((mode, _, _)) if mode & libc::S_IFMT == libc::S_IFIFO)
}

/// Ends both directions of a connection.
pub(crate) fn shutdown(fd: c_int) {
    let _ = call!(SYS_shutdown, fd, libc::SHUT_RDWR);
}

/// Ends a connection as a reset that has come does: what is unread is thrown away, and the other end gets a reset, too.
pub(crate) fn reset(fd: c_int) {
    // SAFETY: all zeroes are an address, of no family.
    let nowhere: libc::sockaddr = unsafe { core::mem::zeroed() };
    // It dissolves the association (connect(2)); where one is left that makes a reset (tcp_disconnect in the kernel).
    let _ = call!(SYS_connect, fd, &raw const nowhere, size_of::<libc::sockaddr>());
    // That fails now, but it is noted: reads find an end, and writes EPIPE (inet_shutdown in net/ipv4/af_inet.c).
    shutdown(fd);
    // Who calls tells the error himself.
    let _ = sockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0 as c_int);
}
