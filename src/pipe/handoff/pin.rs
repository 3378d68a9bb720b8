//! Back to the kernel: for good, or for a new process image.

use crate::pipe::connection::{
    self, End, NO_FD, Pipe, incoming_doorbells, kept_options, outgoing_doorbells, transitions,
};
use crate::pipe::handoff::{file, give_back};
use crate::pipe::lanes::{reader, writer};
use crate::state::reason::Reason;
use crate::state::socket_table::{self, STATE_PINNED, STATE_PIPE, STATE_UNDECIDED, STATE_WAITING};
use crate::state::{Socket, family, registrations};
use crate::sys::deadline::Deadline;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;

/// The connection uses the kernel lane only from now on, in both directions. What is in the ring already is
/// still read from there.
pub(crate) fn pin(fd: c_int, socket: Socket, reason: Reason) {
    let Some(entry) = socket.entry() else { return };
    match entry.state.load(Ordering::Acquire) {
        STATE_UNDECIDED => Socket::stay_host(entry, reason),
        STATE_WAITING => {
            let Some(pipe) = Pipe::of(fd, socket, entry) else { return };
            let held = pipe.lock_writes();
            let joined = held.is_mapped() && transitions::has_come(&held);
            if held.is_first() && held.is_mapped() && !joined {
                transitions::abandon(&held, reason);
            }
            drop(held);
            if joined {
                pin(fd, socket, reason);
            }
        }
        STATE_PIPE => {
            let Some(pipe) = Pipe::of(fd, socket, entry) else { return };
            transitions::mark(&pipe, reason);
            if pipe.incoming().has_bytes() {
                // The other end may have to be woken later, for these bytes: it comes along to the kernel's lane.
                give_back::wake(&pipe);
            }
            close_lanes(&pipe);
            if are_writes_seen(reason) {
                kept_options::restore_for_writes(&pipe.lock_writes());
            } else {
                kept_options::restore(&pipe.lock_writes());
            }
            reader::clear_doorbells(&pipe);
            retire(&pipe);
        }
        STATE_PINNED if !are_writes_seen(reason) => {
            let Some(pipe) = Pipe::of(fd, socket, entry) else { return };
            kept_options::restore(&pipe.lock_writes());
        }
        _ => {}
    }
}

/// Whether this process still sees the program's writes, and may call the kernel after one.
fn are_writes_seen(reason: Reason) -> bool {
    !matches!(reason, Reason::Stdio | Reason::Seccomp | Reason::IoUring)
}

/// Closes both rings: ours by spilling, the other end's by its close mark.
fn close_lanes(pipe: &Pipe) {
    writer::leave_ring(&pipe.lock_writes());
    close_incoming(pipe);
}

fn close_incoming(pipe: &Pipe) {
    let held = pipe.lock_reads();
    if held.is_mapped() {
        let incoming = held.incoming();
        // First the promise, then the ring: see `writer::open`.
        incoming.reader.ready.store(0, Ordering::SeqCst);
        incoming.close();
        outgoing_doorbells::end_timed_waits(incoming);
    }
}

/// Before shutdown(SHUT_RD): what becomes of bytes that come afterwards is the kernel's to say. False: that was so already,
/// or there is no pipe.
pub(crate) fn shut_read(socket: Socket) -> bool {
    let Some(pipe) = socket.entry().and_then(|entry| connection::writing_pipe(NO_FD, socket, entry)) else {
        return false;
    };
    let is_new = !socket.is_read_shut();
    socket.shut_read();
    close_incoming(&pipe);
    is_new
}

/// The kernel has refused the shutdown: this end reads on.
pub(crate) fn accept_again(socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    let Some(pipe) = Pipe::of(NO_FD, socket, entry) else { return };
    socket.reopen_read();
    if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        promise(&pipe);
    }
}

/// Before a new process image, or another process, gets this descriptor: no doorbell may be left in the kernel's
/// queue, and ring bytes that are unread are put down where a new owner that runs on sockshim finds them, and the writer,
/// who sends them again for one that does not.
pub(crate) fn hand_over(fd: c_int, socket: Socket) {
    let pipe = Pipe::find(fd, socket);
    let Some(pipe) = pipe.filter(|pipe| pipe.local.handed_from.load(Ordering::Relaxed) == 0) else {
        share(fd, socket);
        return;
    };
    // What the writer does from now on it does after it has looked here.
    pipe.incoming().announce();
    let mut left = false;
    if !share(fd, socket) {
        left = file::put_down(&pipe);
        if !left {
            pipe.entry.reason.store(Reason::UnreadAtHandOver as u32, Ordering::Relaxed);
        }
    }
    let declared = pipe.incoming().declare(left);
    if left && declared {
        give_back::answer_here(&pipe);
        if give_back::wake_from_kernel_lane(&pipe) {
            pipe.local.asked.store(1, Ordering::Relaxed);
        }
    }
    // A doorbell may have opened the ring once more.
    writer::leave_ring(&pipe.lock_writes());
    kept_options::restore(&pipe.lock_writes());
}

/// After [`hand_over`], if this process does not go on with the connection: when what is unread could not be put down, the
/// new owner would read doorbells, and miss bytes. A reset tells both ends.
pub(crate) fn give_up_what_is_lost(fd: c_int, socket: Socket) {
    let Some(pipe) = Pipe::find(fd, socket) else { return };
    if pipe.entry.reason.load(Ordering::Relaxed) == Reason::UnreadAtHandOver as u32 {
        transitions::give_up(&pipe, Reason::UnreadAtHandOver);
    }
}

/// Gives a writer who slept a moment to send again what was left: then the new owner finds it at once, whatever it is.
pub(crate) fn wait_for_answer(socket: Socket, until: Deadline) {
    let Some(pipe) = Pipe::find(NO_FD, socket) else { return };
    if pipe.local.asked.swap(0, Ordering::Relaxed) != 0 {
        give_back::wait_for_answer(&pipe, until);
        file::note_answer(&pipe);
    }
}

/// The same for a descriptor with which others, who run on sockshim, go on: what is unread in the ring stays theirs.
/// False when there is something.
pub(crate) fn share(fd: c_int, socket: Socket) -> bool {
    let Some(entry) = socket.entry() else { return true };
    if entry.state.load(Ordering::Acquire) < STATE_PIPE {
        pin(fd, socket, Reason::HandedOver);
    }
    let Some(pipe) = Pipe::of(fd, socket, entry) else { return true };
    if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        transitions::mark(&pipe, Reason::HandedOver);
        close_incoming(&pipe);
        // A doorbell for the other end may be due yet, if bytes are unread: see `hand_over`.
        if !pipe.incoming().is_asked() {
            writer::leave_ring(&pipe.lock_writes());
        }
        give_back::before_end(&pipe);
    }
    kept_options::restore(&pipe.lock_writes());
    entry.state.load(Ordering::Acquire) != STATE_PINNED || reader::clear_doorbells(&pipe)
}

/// A pinned connection whose lanes have both come to rest in the kernel needs nothing of ours any more: its
/// reads are plain calls again, and its registrations the program's own. Whether that is so now.
pub(crate) fn retire(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    if pipe.entry.state.load(Ordering::Acquire) != STATE_PINNED
        || incoming.reader.ready.load(Ordering::SeqCst) != 0
        || !pipe.entry.readers.is_ready()
        || pipe.entry.pending_error.load(Ordering::Relaxed) != 0
        || transitions::is_broken(pipe)
    {
        return false;
    }
    let held = pipe.lock_reads();
    reader::follow(&held);
    let epoch = incoming.reader_epoch();
    // With the ring closed the writer leaves it with its next write; a ring that rests empty without doorbells
    // takes no more either.
    let at_rest = !incoming.has_bytes()
        && ((!is_ring(epoch) && incoming.epoch() == epoch)
            || (is_ring(epoch) && incoming.is_closed() && incoming_doorbells::doorbells_waiting(pipe) == 0));
    let is_first = held.is_first();
    drop(held);
    let retired = is_first && at_rest && registrations::downgrade(pipe.entry);
    if retired {
        pipe.entry.readers.unready();
    }
    retired
}

/// The new process image did not come: the lanes may open again.
pub(crate) fn take_back(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    let Some(pipe) = Pipe::of(fd, socket, entry) else { return };
    let own = file::withdraw(&pipe);
    if !own && entry.reason.load(Ordering::Relaxed) == Reason::HandedOver as u32 {
        resume(socket);
    } else if entry.state.load(Ordering::Acquire) == STATE_PIPE {
        promise(&pipe);
    }
}

/// What a child does not read of the bytes that have just been put down for it is this process's again: see [`reclaim`].
pub(crate) fn keep(fd: c_int, socket: Socket) {
    if let Some(pipe) = Pipe::find(fd, socket) {
        file::keep(&pipe);
    }
}

/// A child that got the descriptor has ended, and this process goes on with it.
pub(crate) fn reclaim(fd: c_int, socket: Socket) {
    if let Some(pipe) = Pipe::find(fd, socket) {
        file::withdraw(&pipe);
    }
}

/// What pinned the connection is over.
pub(crate) fn resume(socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if entry.state.load(Ordering::Acquire) != STATE_PINNED {
        return;
    }
    let Some(pipe) = Pipe::of(NO_FD, socket, entry) else { return };
    entry.reason.store(Reason::Pipe as u32, Ordering::Relaxed);
    entry.state.store(STATE_PIPE, Ordering::Release);
    promise(&pipe);
}

/// The other end may open the ring, if every reader of this one knows about doorbells.
fn promise(end: &End) {
    if end.entry.readers.is_ready() {
        end.incoming().reader.ready.store(1, Ordering::SeqCst);
    }
}

/// The process ends with the socket open, or executes a program that does not get it, and nobody else has it: the kernel
/// closes it. A doorbell that lies unread in its queue would make a reset of that, and throw away what is still under way to the
/// other end.
pub(crate) fn part(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if kernel::is_restricted() {
        return;
    }
    if let Some(pipe) = connection::reading_pipe(fd, socket, entry)
        && socket_table::get().is_some_and(|socket_table| family::is_last(socket_table, &entry.holders))
    {
        close_incoming(&pipe);
        outgoing_doorbells::stop_timed_waits(&pipe);
        reader::clear_doorbells(&pipe);
        give_back::before_end(&pipe);
    }
}

/// A socket that came from another process image or process: it may have left unread bytes.
pub(crate) fn adopt(fd: c_int, socket: Socket) {
    file::take_up(fd, socket);
}
