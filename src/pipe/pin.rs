//! Back to the kernel: for good, or for a new process image.

use super::{Pipe, attach, back, bells, end, heritage, lanes, nap, options, read, write};
use crate::state::arena::{self, Entry, STATE_PINNED, STATE_PIPE, STATE_UNDECIDED, STATE_WAITING};
use crate::state::lock::Taken;
use crate::state::{Socket, family, log, reason::Reason, registrations, trace};
use crate::sys::deadline::Deadline;
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
            let taken = write::lock_writes(fd, &pipe);
            let joined = pipe.is_mapped() && attach::has_come(&pipe);
            if taken == Taken::Ours && pipe.is_mapped() && !joined {
                attach::abandon(&pipe, reason);
            }
            entry.write_lock.0.release(taken);
            if joined {
                pin(fd, socket, reason);
            }
        }
        STATE_PIPE => {
            let Some(pipe) = Pipe::of(socket, entry) else { return };
            mark(&pipe, reason);
            if pipe.incoming().has_bytes() {
                // The other end may have to be woken later, for these bytes: it comes along to the kernel's lane.
                back::wake(fd, &pipe);
            }
            close_lanes(fd, &pipe);
            if are_writes_seen(reason) {
                with_writes_locked(fd, &pipe, options::restore_for_writes);
            } else {
                with_writes_locked(fd, &pipe, options::restore);
            }
            clear_bells(fd, &pipe);
            retire(fd, &pipe);
        }
        STATE_PINNED if !are_writes_seen(reason) => {
            let Some(pipe) = Pipe::of(socket, entry) else { return };
            with_writes_locked(fd, &pipe, options::restore);
        }
        _ => {}
    }
}

/// Whether this process still sees the program's writes, and may call the kernel after one.
fn are_writes_seen(reason: Reason) -> bool {
    !matches!(reason, Reason::Stdio | Reason::Seccomp | Reason::IoUring)
}

/// No new ring epoch begins at this end.
pub(crate) fn mark(pipe: &Pipe, reason: Reason) {
    pipe.entry.reason.store(reason as u32, Ordering::Relaxed);
    pipe.entry.state.store(STATE_PINNED, Ordering::Release);
    log::stays_host(pipe.entry);
    trace::note(-1, pipe.entry);
}

/// The same, when this end goes on without somebody who has one of its locks and does not let go.
pub(super) fn mark_stopped(pipe: &Pipe) {
    if pipe.entry.state.load(Ordering::Acquire) == STATE_PIPE {
        mark(pipe, Reason::Stopped);
    }
}

/// Closes both rings: ours by spilling, the other end's by its close mark.
fn close_lanes(fd: c_int, pipe: &Pipe) {
    leave_ring(fd, pipe);
    close_incoming(pipe);
}

fn leave_ring(fd: c_int, pipe: &Pipe) {
    let taken = write::lock_writes(fd, pipe);
    if pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        lanes::spill(fd, pipe);
    }
    pipe.entry.write_lock.0.release(taken);
}

fn close_incoming(pipe: &Pipe) {
    let taken = read::lock_reads(pipe);
    if pipe.is_mapped() {
        let incoming = pipe.incoming();
        // First the promise, then the ring: see `lanes::open`.
        incoming.reader.ready.store(0, Ordering::SeqCst);
        incoming.close();
        nap::end(incoming);
    }
    pipe.entry.read_lock.0.release(taken);
}

/// Before shutdown(SHUT_RD): what becomes of bytes that come afterwards is the kernel's to say. False: that was so already,
/// or there is no pipe.
pub(crate) fn refuse(socket: Socket) -> bool {
    let Some(pipe) = socket.entry().and_then(|entry| super::io::writing_pipe(socket, entry)) else {
        return false;
    };
    let is_new = !socket.is_refused();
    socket.refuse();
    close_incoming(&pipe);
    is_new
}

/// The kernel has refused the shutdown: this end reads on.
pub(crate) fn accept_again(socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    let Some(pipe) = Pipe::of(socket, entry) else { return };
    socket.unrefuse();
    if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        promise(&pipe);
    }
}

/// Before a new process image, or another process, gets this descriptor: no bell may be left in the kernel's
/// queue, and ring bytes that are unread are put down where a successor that runs on sockshim finds them, and the writer,
/// who sends them again for one that does not.
pub(crate) fn hand_over(fd: c_int, socket: Socket) {
    let pipe = socket.entry().and_then(|entry| Pipe::of(socket, entry));
    let Some(pipe) = pipe.filter(|pipe| pipe.local.handed_from.load(Ordering::Relaxed) == 0) else {
        share(fd, socket);
        return;
    };
    // What the writer does from now on it does after it has looked here.
    pipe.incoming().announce();
    let mut left = false;
    if !share(fd, socket) {
        left = heritage::leave(fd, &pipe);
        if !left {
            pipe.entry.reason.store(Reason::UnreadAtHandOver as u32, Ordering::Relaxed);
        }
    }
    let declared = pipe.incoming().declare(left);
    if left && declared {
        back::answer_here(&pipe);
        if back::wake_from_kernel_lane(fd, &pipe) {
            pipe.local.asked.store(1, Ordering::Relaxed);
        }
    }
    // A bell may have opened the ring once more.
    leave_ring(fd, &pipe);
    with_writes_locked(fd, &pipe, options::restore);
}

/// After [`hand_over`], if this process does not go on with the connection: when what is unread could not be put down, the
/// successor would read bells, and miss bytes. A reset tells both ends.
pub(crate) fn give_up_what_is_lost(fd: c_int, socket: Socket) {
    let Some(pipe) = socket.entry().and_then(|entry| Pipe::of(socket, entry)) else { return };
    if pipe.entry.reason.load(Ordering::Relaxed) == Reason::UnreadAtHandOver as u32 {
        end::give_up(fd, &pipe, Reason::UnreadAtHandOver);
    }
}

/// Gives a writer who slept a moment to send again what was left: then the successor finds it at once, whatever it is.
pub(crate) fn wait_for_answer(socket: Socket, until: Deadline) {
    let Some(pipe) = socket.entry().and_then(|entry| Pipe::of(socket, entry)) else { return };
    if pipe.local.asked.swap(0, Ordering::Relaxed) != 0 {
        back::wait_for_answer(&pipe, until);
        heritage::note_answer(&pipe);
    }
}

/// The same for a descriptor with which others, who run on sockshim, go on: what is unread in the ring stays theirs.
/// False when there is something.
pub(crate) fn share(fd: c_int, socket: Socket) -> bool {
    let Some(entry) = socket.entry() else { return true };
    if entry.state.load(Ordering::Acquire) < STATE_PIPE {
        pin(fd, socket, Reason::HandedOver);
    }
    let Some(pipe) = Pipe::of(socket, entry) else { return true };
    if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        mark(&pipe, Reason::HandedOver);
        close_incoming(&pipe);
        // A bell for the other end may be due yet, if bytes are unread: see `hand_over`.
        if !pipe.incoming().is_asked() {
            leave_ring(fd, &pipe);
        }
        back::before_end(fd, &pipe);
    }
    with_writes_locked(fd, &pipe, options::restore);
    entry.state.load(Ordering::Acquire) != STATE_PINNED || clear_bells(fd, &pipe)
}

fn with_writes_locked(fd: c_int, pipe: &Pipe, change: fn(c_int, &Entry)) {
    let taken = write::lock_writes(fd, pipe);
    change(fd, pipe.entry);
    pipe.entry.write_lock.0.release(taken);
}

/// Takes every bell out of the kernel's queue, so that a reader that does not know about them finds data only.
/// The ring is closed, so no more are rung. False when ring bytes are still unread.
fn clear_bells(fd: c_int, pipe: &Pipe) -> bool {
    clear_bells_by(fd, pipe, || read::lock_reads(pipe))
}

/// The same; `lock` gives the read lock, or says that the caller has it.
pub(super) fn clear_bells_by(fd: c_int, pipe: &Pipe, lock: impl Fn() -> Taken) -> bool {
    let incoming = pipe.incoming();
    let take_wish_back = || {
        if !bells::is_relied_on(pipe) {
            // From now on a bell that is rung has been counted: see `write::ring_quietly`.
            let _ = incoming.bell_due();
        }
    };
    take_wish_back();
    for _ in 0..200 {
        let taken = lock();
        read::follow(fd, pipe);
        // Following renews it.
        take_wish_back();
        let epoch = incoming.reader_epoch();
        let waiting = if is_ring(epoch) { bells::bells_waiting(pipe) } else { 0 };
        if waiting > 0 {
            let mask = kernel::block_signals();
            bells::discard(fd, pipe, waiting as usize);
            kernel::restore_signals(mask);
        }
        pipe.entry.read_lock.0.release(taken);
        if !is_ring(epoch) || bells::bells_waiting(pipe) == 0 {
            break;
        }
        // The last bell may still be on its way.
        kernel::nap(50);
    }
    incoming.unwant_bell();
    !incoming.has_bytes()
}

/// A pinned connection whose lanes have both come to rest in the kernel needs nothing of ours any more: its
/// reads are plain calls again, and its registrations the program's own. Whether that is so now.
pub(crate) fn retire(fd: c_int, pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    if pipe.entry.state.load(Ordering::Acquire) != STATE_PINNED
        || incoming.reader.ready.load(Ordering::SeqCst) != 0
        || !pipe.entry.readers.is_ready()
        || pipe.entry.pending_error.load(Ordering::Relaxed) != 0
        || end::is_broken(pipe)
    {
        return false;
    }
    let taken = read::lock_reads(pipe);
    read::follow(fd, pipe);
    let epoch = incoming.reader_epoch();
    // With the ring closed the writer leaves it with its next write; a ring that rests empty without bells
    // takes no more either.
    let at_rest = !incoming.has_bytes()
        && ((!is_ring(epoch) && incoming.epoch() == epoch)
            || (is_ring(epoch) && incoming.is_closed() && bells::bells_waiting(pipe) == 0));
    pipe.entry.read_lock.0.release(taken);
    let retired = taken == Taken::Ours && at_rest && registrations::downgrade(pipe.entry);
    if retired {
        pipe.entry.readers.unready();
    }
    retired
}

/// The new process image did not come: the lanes may open again.
pub(crate) fn take_back(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    let Some(pipe) = Pipe::of(socket, entry) else { return };
    let own = heritage::withdraw(fd, &pipe);
    if !own && entry.reason.load(Ordering::Relaxed) == Reason::HandedOver as u32 {
        resume(socket);
    } else if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        promise(&pipe);
    }
}

/// What a child does not read of the bytes that have just been put down for it is this process's again: see [`reclaim`].
pub(crate) fn keep(fd: c_int, socket: Socket) {
    if let Some(pipe) = socket.entry().and_then(|entry| Pipe::of(socket, entry)) {
        heritage::keep(fd, &pipe);
    }
}

/// A child that got the descriptor has ended, and this process goes on with it.
pub(crate) fn reclaim(fd: c_int, socket: Socket) {
    if let Some(pipe) = socket.entry().and_then(|entry| Pipe::of(socket, entry)) {
        heritage::withdraw(fd, &pipe);
    }
}

/// What pinned the connection is over.
pub(crate) fn resume(socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if entry.state.load(Ordering::Acquire) != STATE_PINNED {
        return;
    }
    let Some(pipe) = Pipe::of(socket, entry) else { return };
    entry.reason.store(Reason::Pipe as u32, Ordering::Relaxed);
    entry.state.store(STATE_PIPE, Ordering::Release);
    promise(&pipe);
}

/// The other end may open the ring, if every reader of this one knows about bells.
fn promise(pipe: &Pipe) {
    if pipe.entry.readers.is_ready() {
        pipe.incoming().reader.ready.store(1, Ordering::SeqCst);
    }
}

/// The process ends with the socket open, or executes a program that does not get it, and nobody else has it: the kernel
/// closes it. A bell that lies unread in its queue would make a reset of that, and throw away what is still under way to the
/// other end.
pub(crate) fn part(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if kernel::is_restricted() {
        return;
    }
    if let Some(pipe) = super::io::reading_pipe(socket, entry)
        && arena::get().is_some_and(|arena| family::is_last(arena, &entry.holders))
    {
        close_incoming(&pipe);
        end::stop_naps(&pipe);
        clear_bells(fd, &pipe);
        back::before_end(fd, &pipe);
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

/// A socket that came from another process image or process: it may have left unread bytes.
pub(crate) fn adopt(fd: c_int, socket: Socket) {
    heritage::take_up(fd, socket);
}
