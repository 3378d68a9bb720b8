//! What the ring has that is unread.

use crate::pipe::connection::{self, End, NO_FD, transitions};
use crate::state::Socket;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::Direction;

/// Whether nothing that the other end wrote into the ring is left.
pub(crate) fn is_drained(end: &End) -> bool {
    !has_bytes_next(end)
}

/// Whether the ring has bytes that a read would take at once. A look without a lock or a system call.
#[inline]
pub(crate) fn has_ring_bytes(end: &End) -> bool {
    let incoming = end.incoming();
    incoming.has_bytes() && is_ring(incoming.reader_epoch())
}

/// Whether what comes next is in the ring, now or after the steps from lane to lane that a look makes. With bytes of the
/// kernel's before it, which have not come, that is not so: the kernel reports those.
#[inline]
pub(crate) fn has_bytes_next(end: &End) -> bool {
    let incoming = end.incoming();
    if !incoming.has_bytes() {
        return false;
    }
    let epoch = incoming.reader_epoch();
    is_ring(epoch)
        || matches!(incoming.lead(epoch), Ok(1 | 2))
            && incoming.reader.kernel_read.load(Ordering::Relaxed)
                == incoming.switch.kernel_end.load(Ordering::Relaxed)
}

/// What FIONREAD says, when the ring alone can say.
#[inline]
pub(crate) fn unread_at_hand(socket: Socket) -> Option<c_int> {
    let pipe = connection::reading_pipe(NO_FD, socket, socket.entry()?)?;
    let incoming = pipe.incoming();
    if !is_ring(incoming.reader_epoch()) || ahead(incoming) != 0 {
        return None;
    }
    // Of nothing the kernel is asked, too: there may be a byte that no doorbell accounts for.
    incoming.readable().ok().map(|span| span.length as c_int).filter(|length| *length > 0)
}

/// What FIONREAD says: the kernel's count without doorbells, and the ring's bytes.
pub(crate) fn unread(socket: Socket, queued: c_int) -> c_int {
    let Some(entry) = socket.entry() else { return queued };
    let Some(pipe) = connection::reading_pipe(NO_FD, socket, entry) else { return queued };
    if transitions::is_broken(&pipe) {
        return 0;
    }
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    let ring = incoming.readable().map_or(0, |span| span.length) as u64;
    let position = incoming.reader.kernel_read.load(Ordering::Relaxed);
    // Kernel bytes are data up to where the ring epoch began, and again from where the kernel lane went on;
    // between the two lie doorbells.
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

/// A number that changes whenever data arrives, on either lane, and is not moved by doorbells: ring bytes plus
/// the kernel bytes that are data.
pub(crate) fn arrived(end: &End) -> u64 {
    let incoming = end.incoming();
    let tail = incoming.producer.tail.load(Ordering::Acquire) & !sockshim_ring::layout::CLOSED;
    let epoch = incoming.reader_epoch();
    let same = incoming.epoch() == epoch;
    let kernel_end = incoming.switch.kernel_end.load(Ordering::Relaxed);
    let base = tail.wrapping_sub(incoming.reader.doorbells_past.load(Ordering::Relaxed));
    if is_ring(epoch) && same {
        return base.wrapping_add(kernel_end);
    }
    // Not what is queued: of that the kernel shows only what comes before an urgent mark.
    let here = kernel::tcp_position(end.fd).map_or(0, |position| position.data_received());
    let after = here.saturating_sub(incoming.switch.resume.load(Ordering::Relaxed));
    base.wrapping_add(match (is_ring(epoch), ahead(incoming)) {
        (true, _) => kernel_end.wrapping_add(after),
        (false, 0) => here,
        (false, 1) => here.min(kernel_end),
        (false, _) => here.min(kernel_end).wrapping_add(after),
    })
}

/// Whether ring bytes come before whatever the kernel's queue holds.
pub(crate) fn has_unread_ring(socket: Socket) -> bool {
    let pipe = socket.entry().and_then(|entry| connection::reading_pipe(NO_FD, socket, entry));
    pipe.is_some_and(|pipe| has_ring_bytes(&pipe))
}

/// How many epochs the writer is ahead; damage is found out by a read.
fn ahead(direction: &Direction) -> u32 {
    direction.lead(direction.reader_epoch()).unwrap_or(2)
}
