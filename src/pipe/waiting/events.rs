//! What poll(2) would say of a pipe.

use crate::pipe::connection::{self, Pipe, incoming_doorbells, transitions};
use crate::pipe::ending;
use crate::pipe::lanes::{reader, unread};
use crate::pipe::waiting::room::{self, Room};
use crate::pipe::waiting::wait;
use crate::state::Socket;
use crate::state::flags::SocketFlags;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::END_JOINED;

pub(crate) const READABLE: i16 = POLLIN | POLLRDNORM;

pub(crate) const WRITABLE: i16 = POLLOUT | POLLWRNORM;

/// What the other end makes, whose wake-up ends a timed wait. Before urgent data it leaves the ring.
pub(crate) const COMING: i16 = READABLE | POLLPRI;

/// Whether the ring takes bytes at once.
#[inline]
fn has_room(pipe: &Pipe) -> bool {
    let outgoing = pipe.outgoing();
    if !is_ring(outgoing.epoch()) || outgoing.is_closed() {
        return false;
    }
    if room::is_known(pipe) {
        // It was full: a byte of room is not enough, a short write is taken as a whole.
        return outgoing.has_room();
    }
    let mut seen = pipe.local.seen_head.load(Ordering::Relaxed);
    outgoing.writable(&mut seen, 1).is_ok_and(|span| span.length > 0)
}

/// Whether the incoming direction may have been shut, or may have urgent data: before that its writer leaves the ring, or its
/// reader closes it.
fn may_be_shut(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    !is_ring(incoming.epoch()) || incoming.is_closed()
}

/// What can be said of `interest` without asking the kernel, or `None` when it must be asked.
#[inline]
pub(crate) fn at_hand(pipe: &Pipe, interest: i16) -> Option<i16> {
    // With this end's own direction shut the kernel may say that both are (POLLHUP).
    if interest & !(READABLE | WRITABLE | POLLPRI | POLLRDHUP | POLLERR | POLLHUP) != 0
        || interest & (POLLPRI | POLLRDHUP) != 0 && may_be_shut(pipe)
        || pipe.other_end() != END_JOINED
        || pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SHUT_WRITE)
    {
        return None;
    }
    let mut ready = 0;
    if interest & READABLE != 0 {
        if !unread::has_ring_bytes(pipe) {
            return None;
        }
        ready |= interest & READABLE;
    }
    if interest & WRITABLE != 0 {
        if !has_room(pipe) {
            return None;
        }
        ready |= interest & WRITABLE;
    }
    (ready != 0).then_some(ready)
}

/// What poll(2) says of a pipe now: the kernel's answer, with doorbells taken for what they are and ring bytes
/// added.
pub(crate) fn now(pipe: &Pipe, interest: i16) -> i16 {
    const LOOKS: u32 = 8;
    for look in 1..=LOOKS {
        if transitions::is_broken(pipe) {
            return with_pending(pipe, kernel::poll_now(pipe.fd, interest), interest);
        }
        follow(pipe);
        let readable = unread::has_ring_bytes(pipe);
        // Always asked for the other end's FIN: it tells an end from a doorbell.
        let said = kernel::poll_now(pipe.fd, interest | POLLRDHUP);
        if said & libc::POLLNVAL != 0 {
            return said;
        }
        if said & (POLLRDHUP | POLLHUP | POLLERR) == POLLRDHUP && ending::found_by_poll(pipe) {
            continue;
        }
        let ended = said & (POLLHUP | POLLERR | POLLRDHUP) != 0;
        let mut ready = said;
        if readable {
            ready |= interest & READABLE;
        } else if said & READABLE != 0 && is_doorbell_only(pipe) {
            if incoming_doorbells::find_intruder(pipe) || unread::has_ring_bytes(pipe) {
                continue;
            }
            if !ended {
                ready &= !READABLE;
            }
        } else if said & READABLE != 0 && look < LOOKS && is_ring(pipe.incoming().reader_epoch()) {
            // The writer has left the ring that this end is in yet. What waits may be a doorbell, and be followed by nothing
            // that can be read: urgent data, or nothing at all.
            continue;
        }
        if said & (POLLERR | POLLHUP) != 0 && unread::is_drained(pipe) && ending::is_false_reset(pipe) {
            ready &= !POLLERR;
            if !pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SHUT_WRITE) {
                // Only the other end has ended.
                ready &= !POLLHUP;
            }
        }
        if interest & WRITABLE != 0 {
            if has_room(pipe) {
                ready |= interest & WRITABLE;
            } else if said & (POLLHUP | POLLERR) == 0 && room::now(pipe) == Room::Awaited {
                ready &= !WRITABLE;
            }
        }
        return with_pending(pipe, ready, interest);
    }
    0
}

/// The same with an error that was not reported to the program yet.
fn with_pending(pipe: &Pipe, mut ready: i16, interest: i16) -> i16 {
    if pipe.entry.pending_error.load(Ordering::Relaxed) != 0 {
        ready |= POLLERR | (interest & (READABLE | WRITABLE));
    }
    ready & (interest | POLLERR | POLLHUP)
}

/// Follows the writer over lanes that hold nothing, and takes doorbells away.
fn follow(pipe: &Pipe) {
    let incoming = pipe.incoming();
    if incoming.reader_epoch() != incoming.epoch() && !unread::has_ring_bytes(pipe) {
        reader::follow(&pipe.lock_reads());
    }
    if !unread::has_ring_bytes(pipe) {
        wait::settle(pipe);
    }
}

/// Whether the kernel's queue holds nothing but doorbells: the ring epoch goes on.
fn is_doorbell_only(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    is_ring(epoch) && incoming.epoch() == epoch
}

/// What poll(2)'s names are in epoll(7): the same bits.
pub(crate) const fn from_epoll(events: u32) -> i16 {
    (events & 0x7fff) as i16
}

const _: () = assert!(POLLIN as i32 == libc::EPOLLIN && POLLOUT as i32 == libc::EPOLLOUT);

const _: () = assert!(POLLPRI as i32 == libc::EPOLLPRI && POLLRDHUP as i32 == libc::EPOLLRDHUP);

const _: () = assert!(POLLERR as i32 == libc::EPOLLERR && POLLHUP as i32 == libc::EPOLLHUP);

/// Before FIONREAD says how much is unread, of which `queued` bytes are the kernel's: they may be nobody's.
pub(crate) fn check_queue(fd: c_int, socket: Socket, queued: c_int) {
    if queued > 0
        && let Some(pipe) = socket.entry().and_then(|entry| connection::reading_pipe(fd, socket, entry))
        && is_doorbell_only(&pipe)
    {
        incoming_doorbells::find_intruder(&pipe);
    }
}

/// Takes away what lies in the kernel's queue and is no data.
pub(crate) fn clear_way(fd: c_int, socket: Socket) {
    if let Some(pipe) = socket.entry().and_then(|entry| connection::reading_pipe(fd, socket, entry)) {
        follow(&pipe);
    }
}
