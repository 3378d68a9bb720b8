//! What this end of a connection becomes: on a pipe, pinned to the kernel, given up.

use crate::pipe::connection::segment::{self, Identity};
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, NO_FD, Pipe, outgoing_doorbells};
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{Entry, STATE_PINNED, STATE_PIPE, STATE_WAITING, SocketTable};
use crate::state::{Socket, family, log, trace};
use crate::sys::kernel;
use core::sync::atomic::Ordering;
use sockshim_ring::layout::END_RESET;

/// Whether the other end has joined; then the connection is on a pipe.
pub(crate) fn has_come(end: &End) -> bool {
    let joined = end.other_end() != sockshim_ring::layout::END_ABSENT;
    if joined {
        enter(end.entry, true);
    }
    joined
}

/// The process ends without a close: a segment of its own that nobody has joined keeps no name.
pub(crate) fn forsake(socket_table: &SocketTable, socket: Socket) {
    if let Some(entry) = socket.entry()
        && entry.state.load(Ordering::Acquire) == STATE_WAITING
        && family::is_sole(socket_table, &entry.holders)
        && let Some(pipe) = Pipe::of(NO_FD, socket, entry)
    {
        withdraw(&pipe);
    }
}

fn withdraw(end: &End) {
    segment::withdraw(&Identity {
        namespace: end.header().namespace.load(Ordering::Relaxed),
        own: end.entry.cookie.load(Ordering::Relaxed),
        peer: end.entry.peer_cookie.load(Ordering::Relaxed),
    });
}

/// Gives up a segment that the other end has not joined.
pub(crate) fn abandon(held: &WriteHeld<'_>, reason: Reason) {
    withdraw(held);
    held.set_own_end(sockshim_ring::layout::END_LEFT);
    held.local.segment.store(core::ptr::null_mut(), Ordering::Release);
    held.recycle();
    Socket::stay_host(held.entry, reason);
}

pub(crate) fn enter(entry: &Entry, joined: bool) {
    let reason = if joined { Reason::Pipe } else { Reason::Undecided };
    entry.reason.store(reason as u32, Ordering::Relaxed);
    entry.state.store(if joined { STATE_PIPE } else { STATE_WAITING }, Ordering::Release);
}

/// The connection cannot go on: it is reset, at both ends, whatever seems to be in its lanes; nothing else is touched. Needs no
/// lock, and may be called under any.
#[cold]
pub(crate) fn give_up(end: &End, reason: Reason) {
    let before = end.entry.flags.set(SocketFlags::BROKEN, Ordering::AcqRel);
    if before.intersects(SocketFlags::BROKEN) || !end.is_mapped() {
        return;
    }
    if !before.intersects(SocketFlags::RESET_REPORTED) {
        end.entry.pending_error.store(libc::ECONNRESET, Ordering::Release);
    }
    mark(end, reason);
    let (incoming, outgoing) = (end.incoming(), end.outgoing());
    // First the promise, then the ring: see `lanes::writer::open`.
    incoming.reader.ready.store(0, Ordering::SeqCst);
    for direction in [incoming, outgoing] {
        direction.close();
        direction.shut();
        outgoing_doorbells::end_timed_waits(direction);
    }
    // Out of the ring: nobody takes what seems to be in it.
    incoming.reader.epoch.fetch_and(!1, Ordering::SeqCst);
    end.set_own_end(END_RESET);
    let own = end.entry.cookie.load(Ordering::Relaxed);
    // The number by which it was found may be another socket's.
    if let Some(fd) = end.descriptor()
        && !kernel::is_restricted()
        && (own == 0 || kernel::cookie(fd) == Ok(own))
    {
        kernel::reset(fd);
    }
}

/// Whether the connection was given up. Then its lanes mean nothing any more.
#[inline]
pub(crate) fn is_broken(end: &End) -> bool {
    end.entry.flags.load(Ordering::Acquire).intersects(SocketFlags::BROKEN)
}

/// No new ring epoch begins at this end.
pub(crate) fn mark(end: &End, reason: Reason) {
    end.entry.reason.store(reason as u32, Ordering::Relaxed);
    end.entry.state.store(STATE_PINNED, Ordering::Release);
    log::stays_host(end.entry);
    trace::note(-1, end.entry);
}

/// The same, when this end goes on without somebody who has one of its locks and does not let go.
pub(crate) fn mark_stopped(end: &End) {
    if end.entry.state.load(Ordering::Acquire) == STATE_PIPE {
        mark(end, Reason::Stopped);
    }
}
