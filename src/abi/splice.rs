//! Moving bytes between two descriptors: sendfile, splice, tee.

use crate::error::{Errno, answer, outcome};
use crate::pipe::connection;
use crate::pipe::copying::buffers;
use crate::pipe::meeting::descriptor;
use crate::pipe::transfer::io;
use crate::state::Socket;
use crate::sys::scratch::Scratch;
use crate::sys::{kernel, real};
use core::mem::ManuallyDrop;
use libc::{c_int, c_uint, iovec, loff_t, off_t, off64_t, size_t, ssize_t};

/// `sendfile(2)`: moves bytes from a file to a descriptor.
///
/// Returns bytes. To a pipe, a regular file is read straight into shared memory; everything else goes through
/// the kernel.
///
/// # Errors
///
/// Those of sendfile(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `offset` is null, or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendfile(
    out_fd: c_int,
    in_fd: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    let mut done = 0;
    loop {
        // SAFETY: the caller keeps the contract of sendfile(2).
        let kernel = || unsafe { real::sendfile(out_fd, in_fd, offset, count - done) };
        let Some(socket) = descriptor::socket(out_fd) else { return kernel() };
        if !offset.is_null() && !buffers::is_good(offset, size_of::<off_t>(), true) {
            return kernel();
        }
        // SAFETY: `is_good` has found it there, and the caller lends it, see # Safety.
        let from = unsafe { offset.as_mut() };
        let start = match &from {
            Some(offset) if **offset < 0 => return kernel(),
            Some(offset) => Some(**offset as u64),
            None => None,
        };
        let sent = match io::send_file(out_fd, socket, in_fd, start, count - done, kernel) {
            io::FileSent::ByKernel(sent) => sent,
            // The file has more, or has ended, or the ring was full: the next round tells.
            io::FileSent::ByRing(Ok(sent)) if sent > 0 && sent < count - done => {
                if let Some(offset) = from {
                    *offset += sent as off_t;
                }
                done += sent;
                continue;
            }
            io::FileSent::ByRing(result) => {
                if let (Some(offset), Ok(sent)) = (from, &result) {
                    *offset += *sent as off_t;
                }
                answer(result)
            }
        };
        return if done > 0 { done as ssize_t + sent.max(0) } else { sent };
    }
}

/// `sendfile64(2)`: another name of `sockshim_sendfile`, since `off_t` has 64 bits.
///
/// # Errors
///
/// Those of sendfile(2). `ECONNRESET` also means that bytes were moved on the connection by system calls that
/// sockshim could not see (`SOCKSHIM_REASON_INTEGRITY`).
///
/// # Safety
///
/// `offset` is null, or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_sendfile64(
    out_fd: c_int,
    in_fd: c_int,
    offset: *mut off64_t,
    count: size_t,
) -> ssize_t {
    // off_t is 64 bits wide here.
    // SAFETY: the caller keeps the contract of sendfile(2).
    unsafe { sockshim_sendfile(out_fd, in_fd, offset, count) }
}

/// `splice(2)`: moves bytes between a kernel pipe and a descriptor.
///
/// From a connection in shared memory it moves 16 KB at most in a call, by copying; to a connection it uses
/// the kernel.
///
/// # Errors
///
/// Those of splice(2).
///
/// # Safety
///
/// `off_in` and `off_out` are null, or valid for reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_splice(
    fd_in: c_int,
    off_in: *mut loff_t,
    fd_out: c_int,
    off_out: *mut loff_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller keeps the contract of splice(2).
    let kernel = || unsafe { real::splice(fd_in, off_in, fd_out, off_out, len, flags) };
    if let Some(socket) = descriptor::socket(fd_out) {
        return io::send_by_kernel(fd_out, socket, kernel);
    }
    match descriptor::socket(fd_in) {
        Some(socket) if off_in.is_null() && off_out.is_null() && kernel::is_pipe(fd_out) => {
            splice_from(fd_in, socket, fd_out, len, flags, kernel)
        }
        _ => kernel(),
    }
}

/// `tee(2)`: copies bytes from one kernel pipe to another, which never concerns a socket. Behaves as the
/// manual page says.
///
/// # Errors
///
/// Those of tee(2).
///
/// # Safety
///
/// The call touches no memory of the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sockshim_tee(
    fd_in: c_int,
    fd_out: c_int,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: takes numbers only.
    unsafe { real::tee(fd_in, fd_out, len, flags) }
}

/// Bytes that one `splice` takes from a socket of ours.
pub(crate) const MOST_SPLICED: usize = 16 << 10;

/// `splice` from a socket of ours into a pipe: peek, write, and only then take, so that what the pipe does
/// not accept stays where it was.
fn splice_from(
    fd: c_int,
    socket: Socket,
    to: c_int,
    len: size_t,
    flags: c_uint,
    kernel: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if socket.entry().is_none_or(|entry| connection::reading_pipe(fd, socket, entry).is_none()) {
        return kernel();
    }
    let Some(room) = Scratch::with(len.min(MOST_SPLICED)) else { return Errno(libc::ENOMEM).fail() };
    // No destructor lives while a thread may be cancelled; then it keeps the piece.
    let mut room = ManuallyDrop::new(room);
    let moved = move_through(room.of(), fd, socket, to, len, flags, kernel);
    drop(ManuallyDrop::into_inner(room));
    moved
}

/// [`splice_from`] by way of `room`.
fn move_through(
    room: &mut [u8],
    fd: c_int,
    socket: Socket,
    to: c_int,
    len: size_t,
    flags: c_uint,
    kernel: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let wait = if flags & libc::SPLICE_F_NONBLOCK != 0 { libc::MSG_DONTWAIT } else { 0 };
    let place = |len: usize, room: &mut [u8]| [iovec { iov_base: room.as_mut_ptr().cast(), iov_len: len }];
    let wanted = len.min(room.len());
    let buffers = place(wanted, room);
    let mut is_kernels = false;
    // SAFETY: the buffer is ours.
    let seen = unsafe {
        io::receive(fd, socket, &buffers, libc::MSG_PEEK | wait, || {
            // The connection has come back to it just now.
            is_kernels = true;
            0
        })
    };
    if is_kernels {
        return kernel();
    }
    if seen <= 0 {
        return seen;
    }
    // SAFETY: the bytes are there.
    let written = match outcome(unsafe { real::write(to, room.as_ptr().cast(), seen as usize) }) {
        Ok(written) => written,
        Err(error) => return error.fail(),
    };
    let errno = Errno::last();
    let taken = place(written, room);
    let rest = taken[0];
    // SAFETY: the rest lies in `room`, which is ours.
    let kernel = || unsafe { real::recv(fd, rest.iov_base, rest.iov_len, libc::MSG_DONTWAIT) };
    // SAFETY: both pieces lie in `room`, which is ours.
    unsafe { io::receive(fd, socket, &taken, libc::MSG_DONTWAIT, kernel) };
    errno.store();
    written as ssize_t
}
