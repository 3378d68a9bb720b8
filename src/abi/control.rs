//! `fcntl`, `ioctl`, and sockshim's own control functions.

use super::quietly;
use crate::error::Errno;
use crate::lifecycle::{self, start};
use crate::pipe::copying::buffers;
use crate::pipe::lanes::unread;
use crate::pipe::meeting::{attach, descriptor};
use crate::pipe::waiting::events;
use crate::state::flags::SocketFlags;
use crate::state::reason::{self, Reason};
use crate::state::socket_table::{self};
use crate::state::{Socket, descriptor_table, socket};
use crate::sys::{filter, kernel, real};
use libc::{F_GETFD, c_char, c_int, c_uint, c_ulong};
use std::ffi::CStr;
use std::sync::atomic::Ordering;

/// Where the bytes of a connection run.
///
/// A connection may change its path at any byte: an answer is that of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Path {
    /// Through the kernel.
    Host = 0,
    /// Over shared memory.
    Pipe = 1,
}

/// What a connection, or a whole process, has done. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Bytes that the program sent over the pipe.
    pub bytes_sent: u64,
    /// Bytes that the program received over the pipe.
    pub bytes_received: u64,
    /// Bytes that the program sent through the kernel.
    pub kernel_bytes_sent: u64,
    /// Bytes that the program received through the kernel.
    pub kernel_bytes_received: u64,
    /// Wake-ups sent to a sleeping peer.
    pub doorbells: u64,
    /// Times a thread of the program went to sleep in the kernel.
    pub sleeps: u64,
    /// Connections that got a pipe.
    pub upgrades: u64,
    /// Times a writer went back to the kernel because the pipe was full.
    pub spills: u64,
}

/// `fcntl(2)`: works on a descriptor. The argument's word is passed whether the command uses it or not.
///
/// Behaves as the manual page says. `F_SETFL` with `O_ASYNC` brings a connection back to the kernel for good.
///
/// # Errors
///
/// Those of fcntl(2).
///
/// # Safety
///
/// What fcntl(2) asks, by command.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    if command == libc::F_SETFL && argument as c_int & libc::O_ASYNC != 0 {
        quietly(|| descriptor::pin(fd, Reason::Async));
    }
    // SAFETY: the caller keeps the contract of fcntl(2).
    let result = unsafe { real::fcntl(fd, command, argument) };
    if filter::fcntl_was_made() {
        quietly(start::sweep);
    }
    if result >= 0 {
        match command {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => quietly(|| lifecycle::duplicated(fd, result)),
            libc::F_SETFL => note_nonblocking(fd, argument as c_int & libc::O_NONBLOCK != 0),
            _ => {}
        }
    }
    result
}

/// `fcntl64(2)`: another name of `sockshim_fcntl`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of fcntl(2).
///
/// # Safety
///
/// What fcntl(2) asks, by command.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the argument is the caller's, see # Safety.
    unsafe { sockshim_fcntl(fd, command, argument) }
}

/// `ioctl(2)`: works on a device or socket. The argument's word is passed whether the request uses it or not.
///
/// `FIONREAD` counts unread bytes in shared memory and in the kernel together, and no doorbell bytes.
/// `SIOCOUTQ` counts the kernel's alone: what is in shared memory has arrived. `FIOASYNC` brings a connection
/// back to the kernel for good.
///
/// # Errors
///
/// Those of ioctl(2).
///
/// # Safety
///
/// What ioctl(2) asks, by request.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let ours = descriptor::socket(fd);
    if ours.is_some() && request == libc::FIOASYNC {
        quietly(|| descriptor::pin(fd, Reason::Async));
    }
    if let (Some(socket), libc::FIONREAD) = (ours, request)
        && let Some(unread) = unread::unread_at_hand(socket)
        && buffers::is_good(argument as *const c_int, size_of::<c_int>(), true)
    {
        // SAFETY: `is_good` has found it there, at whatever address.
        unsafe { (argument as *mut c_int).write_unaligned(unread) };
        return 0;
    }
    if let (Some(socket), SIOCATMARK) = (ours, request) {
        // The kernel would see a doorbell before the mark.
        quietly(|| events::clear_way(fd, socket));
    }
    // SAFETY: the caller keeps the contract of ioctl(2).
    let result = unsafe { real::ioctl(fd, request, argument) };
    let (Some(socket), 0) = (ours, result) else { return result };
    let number = argument as *mut c_int;
    match request {
        // SAFETY: for this request the kernel has just read or stored an int there.
        libc::FIONBIO => note_nonblocking(fd, unsafe { *number } != 0),
        SIOCATMARK if unread::has_unread_ring(socket) => {
            // The mark lies in the kernel's stream, which comes after what is in the ring.
            // SAFETY: for this request the kernel has just read or stored an int there.
            unsafe { *number = 0 };
        }
        libc::FIONREAD => {
            // SAFETY: for this request the kernel has just read or stored an int there.
            let queued = unsafe { *number };
            let unread = quietly(|| {
                events::check_queue(fd, socket, queued);
                unread::unread(socket, queued)
            });
            // SAFETY: for this request the kernel has just read or stored an int there.
            unsafe { *number = unread };
        }
        _ => {}
    }
    result
}

/// `sockatmark(3)`: 1 at the urgent mark, 0 elsewhere. The mark lies in the kernel's stream, so the answer is
/// 0 while bytes in shared memory come before it.
///
/// # Errors
///
/// Those of sockatmark(3).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sockatmark(fd: c_int) -> c_int {
    let mut marked: c_int = 0;
    // SAFETY: the request stores an int there.
    match unsafe { sockshim_ioctl(fd, SIOCATMARK, (&raw mut marked).addr() as c_ulong) } {
        0 => marked,
        error => error,
    }
}

/// The version of the library that runs, such as "0.1.0": a C string that is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sockshim_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Which path the connection behind `fd` is on: one of `SOCKSHIM_PATH_*`, or -1.
///
/// What is no TCP connection of sockshim's is on `SOCKSHIM_PATH_HOST`. The call may finish a move to the pipe
/// that the other end has prepared.
///
/// # Errors
///
/// `EBADF`: `fd` is not open.
#[unsafe(no_mangle)]
pub extern "C" fn sockshim_path(fd: c_int) -> c_int {
    if !is_open(fd) {
        return Errno(libc::EBADF).fail();
    }
    if let Some(socket) = descriptor::socket(fd) {
        // The other end may have come since this one's last call.
        super::quietly(|| attach::prepare(fd, socket));
    }
    match descriptor::socket(fd).and_then(Socket::entry) {
        Some(entry) if entry.is_on_pipe() => Path::Pipe as c_int,
        _ => Path::Host as c_int,
    }
}

/// Why the connection behind `fd` is on its path: one of `SOCKSHIM_REASON_*`.
///
/// It does not fail: a number that is not open, or that sockshim does not know, is `SOCKSHIM_REASON_NOT_TCP`.
#[unsafe(no_mangle)]
pub extern "C" fn sockshim_reason(fd: c_int) -> c_uint {
    match descriptor::socket(fd).and_then(Socket::entry) {
        Some(entry) => entry.reason.load(Ordering::Relaxed),
        None if fd as usize >= descriptor_table::CAP => Reason::AboveCap as c_uint,
        None if descriptor_table::is_left_out(fd) && is_tcp(fd) => Reason::TableFull as c_uint,
        None => Reason::NotTcp as c_uint,
    }
}

/// A reason in words, in English: a C string that is never freed, and never null.
#[unsafe(no_mangle)]
pub extern "C" fn sockshim_reason_text(reason: c_uint) -> *const c_char {
    reason::text(reason).as_ptr()
}

/// Stores what the connection behind `fd` has done since it was made. Returns 0, or -1.
///
/// Processes that share the connection count together. For what sockshim does not know all numbers are 0.
///
/// # Errors
///
/// `EBADF`: `fd` is not open. `EFAULT`: `out` is null.
///
/// # Safety
///
/// `out` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sockshim_counters(fd: c_int, out: *mut Counters) -> c_int {
    if !is_open(fd) {
        return Errno(libc::EBADF).fail();
    }
    let counters = descriptor::socket(fd)
        .and_then(Socket::entry)
        .map_or(Counters::default(), |entry| Counters::of(&entry.counters));
    // SAFETY: `out` is the caller's, see # Safety.
    unsafe { store(counters, out) }
}

/// Stores what all connections of this process have done since it started, with those that are closed. Returns
/// 0, or -1.
///
/// Of the connections that are closed, processes that have forked from one another have one count in common.
///
/// # Errors
///
/// `EFAULT`: `out` is null.
///
/// # Safety
///
/// `out` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sockshim_process_counters(out: *mut Counters) -> c_int {
    let mut sum = Counters::default();
    if let Some(socket_table) = socket_table::get() {
        for held in socket::held(socket_table) {
            sum.add(&Counters::of(&socket_table.socket(held.slot).counters));
        }
        sum.add(&Counters::of(&socket_table.totals));
    }
    // SAFETY: `out` is the caller's, see # Safety.
    unsafe { store(sum, out) }
}

/// Keeps the connection behind `fd` in the kernel from now on. Returns 0, or -1.
///
/// What is unread in shared memory is still delivered first. On what sockshim does not know it has no effect.
///
/// # Errors
///
/// `EBADF`: `fd` is not open.
#[unsafe(no_mangle)]
pub extern "C" fn sockshim_pin_host(fd: c_int) -> c_int {
    if !is_open(fd) {
        return Errno(libc::EBADF).fail();
    }
    super::quietly(|| descriptor::pin(fd, Reason::PinnedByProgram));
    0
}

/// The number may be something else's by now.
fn is_tcp(fd: c_int) -> bool {
    kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0 as c_int) == Ok(libc::IPPROTO_TCP)
}

pub(super) fn is_open(fd: c_int) -> bool {
    // SAFETY: F_GETFD touches no memory.
    super::quietly(|| unsafe { real::fcntl(fd, F_GETFD, 0) }) >= 0
}

/// # Safety
///
/// `out` is null or valid for writing.
unsafe fn store(counters: Counters, out: *mut Counters) -> c_int {
    if out.is_null() {
        return Errno(libc::EFAULT).fail();
    }
    // SAFETY: not null, so the caller says that it can be written.
    unsafe { out.write(counters) };
    0
}

pub(crate) const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no zero byte"),
    };

impl Counters {
    /// The counters of a socket as they are now.
    fn of(shared: &socket_table::SharedCounters) -> Self {
        let [sent, received, kernel_sent, kernel_received, doorbells, sleeps, upgrades, spills] =
            shared.all().map(|counter| counter.load(Ordering::Relaxed));
        Self {
            bytes_sent: sent,
            bytes_received: received,
            kernel_bytes_sent: kernel_sent,
            kernel_bytes_received: kernel_received,
            doorbells,
            sleeps,
            upgrades,
            spills,
        }
    }

    fn add(&mut self, other: &Self) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.kernel_bytes_sent += other.kernel_bytes_sent;
        self.kernel_bytes_received += other.kernel_bytes_received;
        self.doorbells += other.doorbells;
        self.sleeps += other.sleeps;
        self.upgrades += other.upgrades;
        self.spills += other.spills;
    }
}

/// asm-generic/sockios.h: whether the next byte is marked as urgent.
const SIOCATMARK: c_ulong = 0x8905;

/// Remembers whether an open file description blocks; what the kernel says is asked again before a sleep.
fn note_nonblocking(fd: c_int, nonblocking: bool) {
    if let Some(entry) = descriptor::socket(fd).and_then(Socket::entry) {
        if nonblocking {
            entry.flags.set(SocketFlags::NONBLOCK, Ordering::Relaxed);
        } else {
            entry.flags.clear(SocketFlags::NONBLOCK, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_descriptor_is_refused() {
        assert_eq!(sockshim_path(-1), -1);
        assert_eq!(Errno::last(), Errno(libc::EBADF));
        assert_eq!(sockshim_pin_host(-1), -1);
        // SAFETY: a null pointer is allowed.
        assert_eq!(unsafe { sockshim_process_counters(std::ptr::null_mut()) }, -1);
        assert_eq!(Errno::last(), Errno(libc::EFAULT));
    }

    #[test]
    fn every_reason_has_a_text() {
        for number in [0, 24, 25, u32::MAX] {
            assert!(!sockshim_reason_text(number).is_null());
        }
    }
}
