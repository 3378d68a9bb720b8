//! How a connection ends: end of stream, reset, and our own leaving.
//!
//! The kernel says *that* it ends; the ring is looked at once more before the program hears of it. One thing
//! the kernel cannot know: a doorbell that nobody read turns its FIN into a RST, on close, exit and SIGKILL
//! alike. So the surviving end decides between end and reset by whether the dead end had unread ring bytes.

use crate::error::Errno;
use crate::pipe::connection::read_lock::ReadHeld;
use crate::pipe::connection::{End, NO_FD, Pipe, incoming_doorbells, outgoing_doorbells, transitions};
use crate::pipe::handoff::give_back;
use crate::pipe::lanes::{reader, unread};
use crate::state::Socket;
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::STATE_WAITING;
use crate::sys::{diag, kernel};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{END_JOINED, END_LEFT, END_RESET};

/// The kernel reports the end of the stream. `Ok`: it is one, once the ring is drained.
///
/// # Errors
/// ECONNRESET when the other end died with bytes of ours unread: the kernel would have sent a reset.
pub(crate) fn at_end(pipe: &Pipe) -> Result<(), Errno> {
    pipe.entry.flags.set(SocketFlags::END_SEEN, Ordering::Relaxed);
    if !unread::is_drained(pipe) {
        return Ok(());
    }
    let pending = pipe.entry.pending_error.swap(0, Ordering::AcqRel);
    if pending != 0 {
        return Err(Errno(pending));
    }
    if was_killed(pipe) {
        // As after a reset: the kernel lane takes nothing any more, and poll(2) says so.
        kernel::shutdown(pipe.fd);
        return Err(tell_reset(pipe));
    }
    Ok(())
}

/// The kernel reports the end of the stream to a poll. If the end should be a reset, the next read, and `poll` before it,
/// tells so. Says whether there is more to see now.
pub(crate) fn found_by_poll(pipe: &Pipe) -> bool {
    let killed = unread::is_drained(pipe) && was_killed(pipe);
    if killed {
        pipe.entry.pending_error.store(tell_reset(pipe).0, Ordering::Release);
        kernel::shutdown(pipe.fd);
    }
    killed
}

/// Whether the FIN that came is a dead end's that has not read all of our ring bytes, and so should have been a reset.
fn was_killed(pipe: &Pipe) -> bool {
    // After both FINs the kernel has no connection left that could be reset, nor a peer to be found; after a
    // reset that followed the FIN it has said itself what was to be said.
    let flags = pipe.entry.flags.load(Ordering::Relaxed);
    let reported = flags.intersects(SocketFlags::RESET_REPORTED | SocketFlags::SHUT_WRITE);
    !reported
        && unread_by_other(pipe)
        && pipe.other_end() == END_JOINED
        && kernel::tcp_position(pipe.fd).is_ok_and(|position| position.state != kernel::TCP_CLOSE)
        && other_is_dead(pipe)
}

/// The kernel reports an error on the connection. `Ok`: it is really the end of the stream, or the ring has
/// bytes to read first (then the error is kept).
///
/// # Errors
/// The kernel's.
pub(crate) fn after_error(end: &End, error: Errno) -> Result<(), Errno> {
    if !is_of_connection(error) {
        return Err(error);
    }
    if !unread::is_drained(end) {
        end.entry.pending_error.store(error.0, Ordering::Release);
        return Ok(());
    }
    if error.0 == libc::ECONNRESET {
        return if is_false_reset(end) { Ok(()) } else { Err(tell_reset(end)) };
    }
    Err(error)
}

/// An error that came when a call had bytes to return already: the next one reports it.
pub(crate) fn keep_error(end: &End, error: Errno) {
    if is_of_connection(error) {
        end.entry.pending_error.store(error.0, Ordering::Release);
    }
}

/// Whether the connection has the error, and not the call.
fn is_of_connection(error: Errno) -> bool {
    !matches!(
        error.0,
        libc::EBADF | libc::EFAULT | libc::EINTR | libc::EAGAIN | libc::EINVAL | libc::ENOTSOCK
    )
}

/// A reset is reported once, as the kernel does.
fn tell_reset(end: &End) -> Errno {
    end.entry.flags.set(SocketFlags::RESET_REPORTED, Ordering::Relaxed);
    Errno(libc::ECONNRESET)
}

/// Whether a reset came only from doorbells that the other end had not taken out of its queue.
pub(crate) fn is_false_reset(end: &End) -> bool {
    if unread_by_other(end)
        || end.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SENT_IN_VAIN | SocketFlags::BROKEN)
    {
        return false;
    }
    match end.other_end() {
        // What comes after this end has shut its reading down is refused with a reset of this end's own.
        END_LEFT => !end.socket.is_read_shut(),
        END_RESET => false,
        _ => {
            let outgoing = end.outgoing();
            let taken = outgoing.reader.kernel_read.load(Ordering::Relaxed);
            let rung = outgoing
                .switch
                .kernel_end
                .load(Ordering::Relaxed)
                .wrapping_add(outgoing.switch.doorbells.load(Ordering::Relaxed));
            is_ring(outgoing.epoch()) && taken < rung
        }
    }
}

/// Whether the other end has not read all that we wrote into the ring.
fn unread_by_other(end: &End) -> bool {
    end.outgoing().has_bytes()
}

/// Looks, 100 us apart, for an end that is about to die: the kernel sends its FIN a moment before nobody holds it.
const LOOKS_AT_DYING: u32 = 20;

/// Whether nobody holds the other end's socket any more. It has sent its FIN.
fn other_is_dead(pipe: &Pipe) -> bool {
    let (Ok(local), Ok(peer)) = (kernel::local_address(pipe.fd), kernel::peer_address(pipe.fd)) else {
        return true;
    };
    // An pipe that shuts its direction down leaves the ring before; one that dies does not.
    let looks = if is_ring(pipe.incoming().epoch()) { LOOKS_AT_DYING } else { 1 };
    for look in 0..looks {
        if look > 0 {
            kernel::sleep_us(100);
        }
        match diag::find_peer(&local, &peer) {
            Some(other) if other.held && other.cookie == pipe.entry.peer_cookie.load(Ordering::Relaxed) => {}
            _ => return true,
        }
    }
    false
}

/// What a read reports of a connection that was given up: a reset, and after that the end.
pub(crate) fn after_break(end: &End) -> Result<usize, Errno> {
    match end.entry.pending_error.swap(0, Ordering::AcqRel) {
        0 => Ok(0),
        error => {
            end.entry.flags.set(SocketFlags::RESET_REPORTED, Ordering::Relaxed);
            Err(Errno(error))
        }
    }
}

/// This process closes its last descriptor of a socket; `last`: and no other process holds it. The kernel's
/// close follows. `fd` is -1 when the kernel has closed it already.
pub(crate) fn leave(fd: c_int, socket: Socket, last: bool) {
    let Some(entry) = socket.entry() else { return };
    let Some(pipe) = Pipe::of(fd, socket, entry) else { return };
    if last {
        give_back::before_end(&pipe);
    }
    let reading = pipe.lock_reads();
    let writing = reading.lock_writes();
    if pipe.is_mapped() {
        let waiting = entry.state.load(Ordering::Acquire) == STATE_WAITING && pipe.other_end() != END_JOINED;
        if last && waiting {
            transitions::abandon(&writing, Reason::NotConnected);
        } else {
            if last {
                say_goodbye(&reading);
            }
            pipe.local.segment.store(core::ptr::null_mut(), Ordering::Release);
            pipe.recycle();
        }
    }
}

/// Tells the other end how this one goes, so that the kernel's FIN or RST says the same.
fn say_goodbye(held: &ReadHeld<'_>) {
    let incoming = held.incoming();
    // First the promise, then the ring: see `lanes::writer::open`.
    incoming.reader.ready.store(0, Ordering::SeqCst);
    incoming.close();
    outgoing_doorbells::end_timed_waits(incoming);
    if kernel::is_restricted() {
        // Nobody may be asked: as after SIGKILL, the other end decides.
        return;
    }
    if held.fd >= 0 {
        // A doorbell that announced nothing but itself lies before the kernel lane that goes on.
        reader::follow(held);
    }
    let in_ring = incoming.has_bytes();
    // The kernel resets by itself for data in its own queue; an urgent byte counts, read or not.
    let queued = || unread::unread(held.socket, kernel::queued(held.fd).unwrap_or(0) as c_int) > 0;
    let unread = in_ring || held.fd >= 0 && (queued() || kernel::at_mark(held.fd));
    if held.fd >= 0 {
        incoming_doorbells::drain_doorbells(held);
    }
    let reset = unread || held.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::LINGER_RESET);
    if held.fd >= 0 && in_ring {
        // The kernel sends a reset for unread bytes; it does not see these, so ask for it (socket(7)).
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = kernel::set_sockopt(held.fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    }
    held.set_own_end(if reset { END_RESET } else { END_LEFT });
    outgoing_doorbells::stop_timed_waits(held);
}

/// What SO_ERROR says: the kernel's `error`, or the one that a doorbell found.
pub(crate) fn pending_error(socket: Socket, error: c_int) -> c_int {
    let Some(entry) = socket.entry() else { return error };
    let pending = entry.pending_error.swap(0, Ordering::AcqRel);
    let found = if error != 0 { error } else { pending };
    match Pipe::of(NO_FD, socket, entry) {
        Some(pipe) if found == libc::ECONNRESET && is_false_reset(&pipe) => 0,
        _ => found,
    }
}
