//! Which way a call goes: to the kernel as it is, to the kernel and counted, or onto the pipe.
//!
//! Plain calls are counted while they are inside the kernel, because a lane may open only when nobody is: a
//! reader could not tell a doorbell from data, a writer's bytes would have no place in the order. The counts are
//! undone by hand, not by a guard: a thread cancelled inside the kernel unwinds through here.

use crate::error::{Errno, answer};
use crate::pipe::connection::{self, Pipe};
use crate::pipe::copying::buffers;
use crate::pipe::handoff::pin;
use crate::pipe::lanes::reader;
use crate::pipe::meeting::{attach, descriptor};
use crate::pipe::transfer::write::{self, file};
use crate::pipe::transfer::{quick, read};
use crate::pipe::waiting::{room, wait};
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{self, Entry, STATE_HOST, STATE_PINNED};
use crate::state::{Socket, trace};
use crate::sys::handlers::Since;
use crate::sys::{cancel, kernel};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;

/// A read-like call on a socket of ours; `kernel` makes the call that the program made.
///
/// # Safety
/// `buffers` are the program's.
#[inline]
pub(crate) unsafe fn receive(
    fd: c_int,
    socket: Socket,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let Some(entry) = socket.entry() else { return kernel() };
    if flags & libc::MSG_ERRQUEUE != 0 {
        // What lies in that queue is never the ring's.
        return kernel();
    }
    if let Some(pipe) = connection::reading_pipe(fd, socket, entry) {
        cancel::point();
        if let [only] = buffers
            && flags & !libc::MSG_DONTWAIT == 0
            // SAFETY: the buffers are the program's, as the caller says.
            && let Some(count) = unsafe { quick::read(&pipe, only.iov_base.cast(), only.iov_len) }
        {
            room::report(&pipe);
            return count as isize;
        }
        if entry.state.load(Ordering::Relaxed) == STATE_PINNED && pin::retire(&pipe) {
            return trace::after(fd, entry, kernel());
        }
        // SAFETY: the buffers are the program's, as the caller says.
        return match unsafe { read::receive(&pipe, buffers, flags, Since::now()) } {
            // SAFETY: the buffers are the program's, as the caller says.
            Err(error) if is_strange(error) && descriptor::is_replaced(fd, socket) => unsafe {
                receive_from_other(fd, socket, buffers, flags, kernel)
            },
            answered => answer(answered),
        };
    }
    if entry.state.load(Ordering::Relaxed) == STATE_HOST
        || !entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::CONNECTED)
    {
        return trace::after(fd, entry, kernel());
    }
    // SAFETY: the buffers are the program's, as the caller says.
    unsafe { receive_undecided(fd, socket, entry, buffers, flags, kernel) }
}

/// The number is something else by now: another socket, perhaps, that is on a pipe.
#[cold]
#[inline(never)]
unsafe fn receive_from_other(
    fd: c_int,
    before: Socket,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let other = descriptor::socket(fd).filter(|now| *now != before);
    match other.and_then(|socket| connection::reading_pipe(fd, socket, socket.entry()?)) {
        // SAFETY: the buffers are the program's, as the caller says.
        Some(pipe) => answer(unsafe { read::receive(&pipe, buffers, flags, Since::now()) }),
        None => kernel(),
    }
}

/// Whether this is what a call tells whose descriptor is another one than before.
fn is_strange(error: Errno) -> bool {
    matches!(error.0, libc::ENOTSOCK | libc::EBADF | libc::ENOTCONN | libc::ECONNRESET)
}

#[inline(never)]
unsafe fn receive_undecided(
    fd: c_int,
    socket: Socket,
    entry: &'static Entry,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let since = Since::now();
    if entry.state.load(Ordering::Acquire) != socket_table::STATE_UNDECIDED {
        attach::consider(fd, socket);
    }
    if let Some(pipe) = connection::reading_pipe(fd, socket, entry) {
        // SAFETY: the buffers are the program's, as the caller says.
        return answer(unsafe { read::receive(&pipe, buffers, flags, since) });
    }
    if since.has_any() && wait::would_wait(fd, flags) && wait::is_interrupted(entry, since) {
        return answer(Err(Errno(libc::EINTR)));
    }
    let counted = entry.readers.enter(socket.generation);
    let received = kernel();
    let errno = Errno::last();
    if counted {
        entry.readers.leave(socket.generation);
    }
    if received > 0 && flags & libc::MSG_PEEK == 0 {
        socket_table::add(&entry.counters.kernel_received, received as u64);
        attach::count(fd, socket, entry, received as usize);
        errno.store();
    } else if received < 0 {
        errno.store();
    }
    received
}

/// A write-like call on a socket of ours; `kernel` makes the call that the program made.
///
/// # Safety
/// `buffers` are the program's.
#[inline]
pub(crate) unsafe fn send(
    fd: c_int,
    socket: Socket,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let Some(entry) = socket.entry() else { return kernel() };
    if flags & write::KERNEL_FLAGS != 0 {
        pin::pin(fd, socket, Reason::Option);
    }
    if let Some(pipe) = connection::writing_pipe(fd, socket, entry) {
        cancel::point();
        if let [only] = buffers
            // SAFETY: the buffers are the program's, as the caller says.
            && let Some(written) = unsafe { quick::write(&pipe, only.iov_base.cast(), only.iov_len) }
        {
            return match written {
                Ok(()) => only.iov_len as isize,
                Err(error) => write::after_doorbell(&pipe, flags, only.iov_len, error),
            };
        }
        // SAFETY: the buffers are the program's, as the caller says.
        return unsafe { write::send(&pipe, buffers, flags, kernel) };
    }
    if entry.state.load(Ordering::Relaxed) == STATE_HOST
        || !entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::CONNECTED)
    {
        return trace::after(fd, entry, kernel());
    }
    let counted = entry.writers.enter(socket.generation);
    // Only now it counts: the connection may have come onto a pipe in between.
    if let Some(pipe) = connection::writing_pipe(fd, socket, entry) {
        if counted {
            entry.writers.leave(socket.generation);
        }
        // SAFETY: the buffers are the program's, as the caller says.
        return unsafe { write::send(&pipe, buffers, flags, kernel) };
    }
    send_undecided(fd, socket, entry, counted, kernel)
}

/// A plain write; whether it has been counted.
#[inline(never)]
fn send_undecided(
    fd: c_int,
    socket: Socket,
    entry: &'static Entry,
    counted: bool,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let sent = kernel();
    let errno = Errno::last();
    if counted {
        entry.writers.leave(socket.generation);
    }
    if sent > 0 {
        note_sent(fd, socket, entry, sent as usize);
    }
    errno.store();
    sent
}

/// The kernel took bytes that the program sent.
pub(crate) fn note_sent(fd: c_int, socket: Socket, entry: &'static Entry, sent: usize) {
    if let Some(pipe) = Pipe::of(fd, socket, entry) {
        write::note_vain(&pipe);
    }
    socket_table::add(&entry.counters.kernel_sent, sent as u64);
    attach::count(fd, socket, entry, sent);
}

/// A call that only the kernel can make on the sending side of a socket of ours.
pub(crate) fn send_by_kernel(fd: c_int, socket: Socket, kernel: impl FnOnce() -> isize) -> isize {
    send_by_kernel_since(fd, socket, Since::now(), kernel)
}

fn send_by_kernel_since(fd: c_int, socket: Socket, since: Since, kernel: impl FnOnce() -> isize) -> isize {
    let Some(entry) = socket.entry() else { return kernel() };
    let kernel = || match since.has_any() && write::is_interrupted(fd, since) {
        true => answer(Err(Errno(libc::EINTR))),
        false => kernel(),
    };
    let counted = entry.writers.enter(socket.generation);
    match connection::writing_pipe(fd, socket, entry) {
        Some(pipe) => {
            if counted {
                entry.writers.leave(socket.generation);
            }
            write::in_kernel_lane(&pipe, kernel)
        }
        None => send_undecided(fd, socket, entry, counted, kernel),
    }
}

/// Who moved a file's bytes.
pub(crate) enum FileSent {
    ByRing(Result<usize, Errno>),
    ByKernel(isize),
}

/// sendfile(2) to a socket of ours.
pub(crate) fn send_file(
    fd: c_int,
    socket: Socket,
    file: c_int,
    offset: Option<u64>,
    count: usize,
    kernel: impl FnOnce() -> isize,
) -> FileSent {
    let since = Since::now();
    let pipe = socket.entry().and_then(|entry| connection::writing_pipe(fd, socket, entry));
    if let Some(pipe) = pipe
        && count > 0
        && kernel::is_file(file)
        && let Some(result) = file::send_file(&pipe, file, offset, count.min(buffers::MOST))
    {
        return FileSent::ByRing(result);
    }
    FileSent::ByKernel(send_by_kernel_since(fd, socket, since, kernel))
}

/// Unread ring bytes, for stdio to serve first; the descriptor is pinned already.
pub(crate) fn take_unread(fd: c_int, socket: Socket, buffer: &mut [u8]) -> usize {
    let Some(pipe) = Pipe::find(fd, socket) else { return 0 };
    let mut done = 0;
    while pipe.incoming().has_bytes() && done < buffer.len() {
        let room = &mut buffer[done..];
        let place = [libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() }];
        // SAFETY: the buffer is writable.
        match unsafe { read::take(&pipe, &place, 0, room.len(), 0) } {
            read::Look::Bytes(count) => done += count,
            _ => break,
        }
    }
    reader::clear_doorbells(&pipe);
    done
}
