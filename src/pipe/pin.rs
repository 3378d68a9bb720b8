//! Back to the kernel: for good, or for a new process image.

use super::{Pipe, attach, options, read, write};
use crate::registry::arena::{self, STATE_PINNED, STATE_PIPE, STATE_UNDECIDED, STATE_WAITING};
use crate::registry::lock::Taken;
use crate::registry::{Socket, log, reason::Reason, trace};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::lane::is_ring;

/// The connection uses the kernel lane only from now on, in both directions. What is in the ring already is
/// still read from there.
pub(crate) fn pin(fd: c_int, socket: Socket, reason: Reason) {
    let Some(entry) = socket.entry() else { return };
    match entry.state.load(Ordering::Acquire) {
        STATE_UNDECIDED => Socket::stay_host(entry, reason),
        STATE_WAITING => {
            let Some(pipe) = Pipe::of(socket, entry) else { return };
            let taken = write::lock_writes(&pipe);
            if taken == Taken::Ours && pipe.is_mapped() {
                attach::abandon(&pipe, reason);
            }
            entry.write_lock.0.release(taken);
        }
        STATE_PIPE => {
            let Some(pipe) = Pipe::of(socket, entry) else { return };
            mark(&pipe, reason);
            close_lanes(fd, &pipe);
            let taken = write::lock_writes(&pipe);
            options::restore(fd, entry);
            entry.write_lock.0.release(taken);
        }
        _ => {}
    }
}

/// No new ring epoch begins at this end.
pub(crate) fn mark(pipe: &Pipe, reason: Reason) {
    pipe.entry.reason.store(reason as u32, Ordering::Relaxed);
    pipe.entry.state.store(STATE_PINNED, Ordering::Release);
    log::stays_host(pipe.entry);
    trace::note(-1, pipe.entry);
}

/// Closes both rings: ours by spilling, the other end's by its close mark.
fn close_lanes(fd: c_int, pipe: &Pipe) {
    let taken = write::lock_writes(pipe);
    if pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        write::spill(fd, pipe);
    }
    pipe.entry.write_lock.0.release(taken);
    let taken = read::lock_reads(pipe);
    if pipe.is_mapped() {
        let incoming = pipe.incoming();
        // First the promise, then the ring: see `write::open`.
        incoming.reader.ready.store(0, Ordering::SeqCst);
        incoming.close();
    }
    pipe.entry.read_lock.0.release(taken);
}

/// Before a new process image gets this descriptor: nothing may be left in the ring, and no bell in the
/// kernel's queue.
pub(crate) fn hand_over(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if entry.state.load(Ordering::Acquire) < STATE_PIPE {
        return pin(fd, socket, Reason::HandedOver);
    }
    let Some(pipe) = Pipe::of(socket, entry) else { return };
    close_lanes(fd, &pipe);
    if !clear_bells(fd, &pipe) {
        mark(&pipe, Reason::UnreadAtHandOver);
        return;
    }
    let taken = write::lock_writes(&pipe);
    options::restore(fd, entry);
    entry.write_lock.0.release(taken);
    entry.reason.store(Reason::HandedOver as u32, Ordering::Relaxed);
}

/// Takes every bell out of the kernel's queue, so that a reader that does not know about them finds data only.
/// The ring is closed, so no more are rung. False when ring bytes are still unread.
fn clear_bells(fd: c_int, pipe: &Pipe) -> bool {
    let mut probe = 0u8;
    let nothing = [libc::iovec { iov_base: (&raw mut probe).cast(), iov_len: 1 }];
    for _ in 0..200 {
        // A look follows the writer over its lanes.
        // SAFETY: `probe` is writable.
        let _ = unsafe { read::take(fd, pipe, &nothing, 0, 1, libc::MSG_PEEK) };
        let incoming = pipe.incoming();
        if incoming.has_bytes() {
            return false;
        }
        let settled = read::settle(fd, pipe, true);
        if !is_ring(incoming.reader_epoch()) || (settled && read::bells_waiting(pipe) == 0) {
            break;
        }
        // The last bell may still be on its way.
        kernel::nap(50);
    }
    true
}

/// The new process image did not come: the lanes may open again.
pub(crate) fn take_back(socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if entry.state.load(Ordering::Acquire) == STATE_PIPE
        && entry.readers.load(Ordering::Relaxed) & arena::READY != 0
        && let Some(pipe) = Pipe::of(socket, entry)
    {
        entry.reason.store(Reason::Pipe as u32, Ordering::Relaxed);
        pipe.incoming().reader.ready.store(1, Ordering::SeqCst);
    }
}

/// Unread ring bytes, for stdio to serve first; the descriptor is pinned already.
pub(crate) fn take_unread(fd: c_int, socket: Socket, buffer: &mut [u8]) -> usize {
    let Some(pipe) = socket.entry().and_then(|entry| Pipe::of(socket, entry)) else { return 0 };
    let mut done = 0;
    while pipe.incoming().has_bytes() && done < buffer.len() {
        let room = &mut buffer[done..];
        let place = [libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() }];
        // SAFETY: the buffer is writable.
        match unsafe { read::take(fd, &pipe, &place, 0, room.len(), 0) } {
            read::Look::Bytes(count) => done += count,
            _ => break,
        }
    }
    clear_bells(fd, &pipe);
    done
}

/// A socket that came from another process image or process; nothing is known of it yet.
pub(crate) fn adopt(_fd: c_int, _socket: Socket) {}
