//! What poll(2) would say of a pipe.

use super::room::{self, Room};
use super::{Pipe, bells, end, io, read};
use crate::state::Socket;
use crate::state::arena::FLAG_SHUT_WRITE;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, POLLRDNORM, POLLWRNORM};
use sockshim_ring::lane::is_ring;
use sockshim_ring::layout::{Direction, END_JOINED};

pub(crate) const READABLE: i16 = POLLIN | POLLRDNORM;
pub(crate) const WRITABLE: i16 = POLLOUT | POLLWRNORM;

/// Whether the ring has bytes that a read would take at once. A look without a lock or a system call.
#[inline]
pub(crate) fn has_ring_bytes(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    incoming.has_bytes() && is_ring(incoming.reader_epoch())
}

/// Whether what comes next is in the ring, now or after the steps from lane to lane that a look makes. With bytes of the
/// kernel's before it, which have not come, that is not so: the kernel tells of those.
#[inline]
pub(crate) fn has_bytes_next(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    if !incoming.has_bytes() {
        return false;
    }
    let epoch = incoming.reader_epoch();
    is_ring(epoch)
        || matches!(incoming.lead(epoch), Ok(1 | 2))
            && incoming.reader.kernel_read.load(Ordering::Relaxed)
                == incoming.switch.kernel_end.load(Ordering::Relaxed)
}

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

/// Whether the incoming direction may have been shut: before that its writer leaves the ring, or its reader closes it.
fn may_be_shut(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    !is_ring(incoming.epoch()) || incoming.is_closed()
}

/// What can be said of `interest` without asking the kernel, or `None` when it must be asked.
#[inline]
pub(crate) fn at_hand(pipe: &Pipe, interest: i16) -> Option<i16> {
    // With this end's own direction shut the kernel may say that both are (POLLHUP).
    if interest & !(READABLE | WRITABLE | POLLRDHUP | POLLERR | POLLHUP) != 0
        || interest & POLLRDHUP != 0 && may_be_shut(pipe)
        || pipe.other_end() != END_JOINED
        || pipe.entry.flags.load(Ordering::Relaxed) & FLAG_SHUT_WRITE != 0
    {
        return None;
    }
    let mut ready = 0;
    if interest & READABLE != 0 {
        if !has_ring_bytes(pipe) {
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

/// What poll(2) says of a pipe now: the kernel's answer, with bells taken for what they are and ring bytes
/// added.
pub(crate) fn now(fd: c_int, pipe: &Pipe, interest: i16) -> i16 {
    for _ in 0..8 {
        if end::is_broken(pipe) {
            return with_pending(pipe, kernel::poll_now(fd, interest), interest);
        }
        follow(fd, pipe);
        let readable = has_ring_bytes(pipe);
        // Always asked for the other end's FIN: it tells an end from a bell.
        let said = kernel::poll_now(fd, interest | POLLRDHUP);
        if said & libc::POLLNVAL != 0 {
            return said;
        }
        if said & (POLLRDHUP | POLLHUP | POLLERR) == POLLRDHUP && end::found_by_poll(fd, pipe) {
            continue;
        }
        let ended = said & (POLLHUP | POLLERR | POLLRDHUP) != 0;
        let mut ready = said;
        if readable {
            ready |= interest & READABLE;
        } else if said & READABLE != 0 && is_bell_only(pipe) {
            if bells::find_intruder(fd, pipe) || has_ring_bytes(pipe) {
                continue;
            }
            if !ended {
                ready &= !READABLE;
            }
        }
        if said & (POLLERR | POLLHUP) != 0 && end::is_drained(pipe) && end::is_false_reset(pipe) {
            ready &= !POLLERR;
            if pipe.entry.flags.load(Ordering::Relaxed) & FLAG_SHUT_WRITE == 0 {
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

/// The same with an error that the program has not been told of.
fn with_pending(pipe: &Pipe, mut ready: i16, interest: i16) -> i16 {
    if pipe.entry.pending_error.load(Ordering::Relaxed) != 0 {
        ready |= POLLERR | (interest & (READABLE | WRITABLE));
    }
    ready & (interest | POLLERR | POLLHUP)
}

/// Follows the writer over lanes that hold nothing, and takes bells away.
fn follow(fd: c_int, pipe: &Pipe) {
    let incoming = pipe.incoming();
    if incoming.reader_epoch() != incoming.epoch() && !has_ring_bytes(pipe) {
        let taken = read::lock_reads(pipe);
        read::follow(fd, pipe);
        pipe.entry.read_lock.0.release(taken);
    }
    if !has_ring_bytes(pipe) {
        bells::settle(fd, pipe);
    }
}

/// Whether the kernel's queue holds nothing but bells: the ring epoch goes on.
fn is_bell_only(pipe: &Pipe) -> bool {
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

/// What FIONREAD tells, when the ring alone can say.
#[inline]
pub(crate) fn unread_at_hand(socket: Socket) -> Option<c_int> {
    let pipe = io::reading_pipe(socket, socket.entry()?)?;
    let incoming = pipe.incoming();
    if !is_ring(incoming.reader_epoch()) || ahead(incoming) != 0 {
        return None;
    }
    // Of nothing the kernel is asked, too: there may be a byte that no bell accounts for.
    incoming.readable().ok().map(|span| span.length as c_int).filter(|length| *length > 0)
}

/// What FIONREAD tells: the kernel's count without bells, and the ring's bytes.
pub(crate) fn unread(socket: Socket, queued: c_int) -> c_int {
    let Some(entry) = socket.entry() else { return queued };
    let Some(pipe) = io::reading_pipe(socket, entry) else { return queued };
    if end::is_broken(&pipe) {
        return 0;
    }
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    let ring = incoming.readable().map_or(0, |span| span.length) as u64;
    let position = incoming.reader.kernel_read.load(Ordering::Relaxed);
    // Kernel bytes are data up to where the ring epoch began, and again from where the kernel lane went on;
    // between the two lie bells.
    let received = position.wrapping_add(queued.max(0) as u64);
    let before = incoming.switch.kernel_end.load(Ordering::Relaxed);
    let after = received.saturating_sub(incoming.switch.resume.load(Ordering::Relaxed).max(position));
    let data = match (is_ring(epoch), ahead(incoming)) {
        (true, 0) => 0,
        (true, _) => after,
        (false, 0) => received.saturating_sub(position),
        (false, 1) => received.min(before).saturating_sub(position),
        (false, _) => received.min(before).saturating_sub(position).saturating_add(after),
    };
    ring.saturating_add(data).min(c_int::MAX as u64) as c_int
}

/// A number that changes whenever data arrives, on either lane, and is not moved by bells: ring bytes plus
/// the kernel bytes that are data.
pub(crate) fn arrived(fd: c_int, pipe: &Pipe) -> u64 {
    let incoming = pipe.incoming();
    let tail = incoming.producer.tail.load(Ordering::Acquire) & !sockshim_ring::layout::CLOSED;
    let epoch = incoming.reader_epoch();
    let same = incoming.epoch() == epoch;
    let kernel_end = incoming.switch.kernel_end.load(Ordering::Relaxed);
    let base = tail.wrapping_sub(incoming.reader.bells_past.load(Ordering::Relaxed));
    if is_ring(epoch) && same {
        return base.wrapping_add(kernel_end);
    }
    // Not what is queued: of that the kernel shows only what comes before an urgent mark.
    let here = kernel::tcp_position(fd).map_or(0, |position| position.data_received());
    let after = here.saturating_sub(incoming.switch.resume.load(Ordering::Relaxed));
    base.wrapping_add(match (is_ring(epoch), ahead(incoming)) {
        (true, _) => kernel_end.wrapping_add(after),
        (false, 0) => here,
        (false, 1) => here.min(kernel_end),
        (false, _) => here.min(kernel_end).wrapping_add(after),
    })
}

/// Before FIONREAD tells how much is unread, of which `queued` bytes are the kernel's: they may be nobody's.
pub(crate) fn check_queue(fd: c_int, socket: Socket, queued: c_int) {
    if queued > 0
        && let Some(pipe) = socket.entry().and_then(|entry| io::reading_pipe(socket, entry))
        && is_bell_only(&pipe)
    {
        bells::find_intruder(fd, &pipe);
    }
}

/// Takes away what lies in the kernel's queue and is no data.
pub(crate) fn clear_way(fd: c_int, socket: Socket) {
    if let Some(pipe) = socket.entry().and_then(|entry| io::reading_pipe(socket, entry)) {
        follow(fd, &pipe);
    }
}

/// Whether ring bytes come before whatever the kernel's queue holds.
pub(crate) fn has_unread_ring(socket: Socket) -> bool {
    let pipe = socket.entry().and_then(|entry| io::reading_pipe(socket, entry));
    pipe.is_some_and(|pipe| has_ring_bytes(&pipe))
}

/// How many epochs the writer is ahead; damage is found out by a read.
fn ahead(direction: &Direction) -> u32 {
    direction.lead(direction.reader_epoch()).unwrap_or(2)
}
