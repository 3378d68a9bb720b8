//! Doorbells: waking whoever waits at the other end.

use crate::error::Errno;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, Pipe};
use crate::state::socket_table;
use crate::sys::deadline::Deadline;
use crate::sys::{futex, kernel, restartable};
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::Direction;
use sockshim_ring::sleep::{DOORBELL, WAKE};

/// Wakes whoever waits at the other end, once.
pub(crate) fn wake(held: &WriteHeld<'_>) -> Result<(), Errno> {
    let need_wakeup = held.outgoing().need_wakeup();
    if need_wakeup & WAKE != 0 && end_timed_waits(held.outgoing()) {
        socket_table::add(&held.entry.counters.doorbells, 1);
    }
    if need_wakeup & DOORBELL != 0 { ring_doorbell(held) } else { Ok(()) }
}

/// Wakes whoever sleeps at the other end, once: one byte. When the kernel refuses it, which is the error
/// then, it is owed: see [`ring_if_owed`].
pub(crate) fn ring_doorbell(held: &WriteHeld<'_>) -> Result<(), Errno> {
    // No signal handler may spill between the look and the doorbell, which would become data.
    let mask = kernel::block_signals();
    let rung = if held.ringing() { ring_quietly(held) } else { Rung::Lost };
    let lost = matches!(rung, Rung::Lost) || !held.rung();
    kernel::restore_signals(mask);
    if lost {
        // Somebody has fenced us off and rings in our place. Only after that may we go on, in the kernel's lane.
        held.take_again();
    }
    match rung {
        Rung::Sent => {
            socket_table::add(&held.entry.counters.doorbells, 1);
            Ok(())
        }
        Rung::Refused(error) => {
            held.local.owes.store(1, Ordering::Relaxed);
            Err(error)
        }
        Rung::Failed(error) => Err(error),
        Rung::Answered | Rung::Lost => Ok(()),
    }
}

/// Whether the kernel has no room or memory for a doorbell at this moment, and may have later.
pub(crate) fn is_refusal(error: Errno) -> bool {
    matches!(error.0, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// Microseconds between two attempts to ring a doorbell that was refused.
const RING_AGAIN: u64 = 500;

/// Nanoseconds for which they are made. Room comes with an acknowledgement, which is delayed by less than half a second
/// (RFC 1122 section 4.2.3.2).
const RING_FOR: u64 = 1_000_000_000;

/// Rings a doorbell that the kernel has refused: somebody sleeps who does not know yet of what was published. Not under a lock.
#[inline]
pub(crate) fn ring_if_owed(pipe: &Pipe) {
    if pipe.local.owes.load(Ordering::Relaxed) != 0 {
        ring_again(pipe);
    }
}

#[cold]
fn ring_again(pipe: &Pipe) {
    let until = Deadline::after(Some(RING_FOR));
    let errno = Errno::last();
    loop {
        let held = pipe.lock_writes();
        held.local.owes.store(0, Ordering::Relaxed);
        let outgoing = held.outgoing();
        // Otherwise it has woken by itself, or the kernel lane wakes it.
        if held.is_mapped()
            && is_ring(outgoing.epoch())
            && outgoing.has_bytes()
            && outgoing.need_wakeup() & DOORBELL != 0
        {
            let _ = ring_doorbell(&held);
        }
        drop(held);
        let is_over = pipe.local.owes.load(Ordering::Relaxed) == 0
            || until.left() == Some(0)
            || kernel::poll_now(pipe.fd, 0) != 0;
        if is_over {
            break;
        }
        kernel::sleep_us(RING_AGAIN);
    }
    errno.store();
}

/// What became of a doorbell.
enum Rung {
    Sent,
    /// For now; the need-wakeup flag has been set again.
    Refused(Errno),
    Failed(Errno),
    /// No doorbell is wanted.
    Answered,
    /// The write lock is somebody else's.
    Lost,
}

/// What goes through the kernel.
static DOORBELL_BYTE: [u8; 1] = [0];

fn ring_quietly(held: &WriteHeld<'_>) -> Rung {
    let outgoing = held.outgoing();
    let doorbells = &outgoing.switch.doorbells;
    // A signal handler that has spilled since the publication has woken the reader by the kernel lane.
    if !is_ring(outgoing.epoch()) {
        return Rung::Answered;
    }
    // Counted before it is sent: a doorbell that arrives is always accounted for. And before the need-wakeup flag is taken: a
    // reader that takes it back, because its socket goes to somebody who knows of no doorbells, sees that one is under way.
    doorbells.fetch_add(1, Ordering::SeqCst);
    if !outgoing.doorbell_due() {
        doorbells.fetch_sub(1, Ordering::Release);
        return Rung::Answered;
    }
    let rung =
        match held.call(&restartable::Call::send(held.fd, DOORBELL_BYTE.as_ptr(), 1, libc::MSG_NOSIGNAL)) {
            Some(Ok(_)) => return Rung::Sent,
            Some(Err(error)) if is_refusal(error) => Rung::Refused(error),
            Some(Err(error)) => Rung::Failed(error),
            None => Rung::Lost,
        };
    doorbells.fetch_sub(1, Ordering::Release);
    if let Rung::Refused(_) = rung {
        outgoing.want_doorbell();
        if has_reason_to_wake(outgoing) {
            return Rung::Answered;
        }
    }
    rung
}

/// Whether the reader finds, or will find, something in the kernel's queue that wakes it: data before the ring, or an older
/// doorbell. It looks at the ring again then.
fn has_reason_to_wake(outgoing: &Direction) -> bool {
    let taken = outgoing.reader.kernel_read.load(Ordering::SeqCst);
    let before = outgoing.switch.kernel_end.load(Ordering::Relaxed);
    taken.wrapping_sub(before) != outgoing.switch.doorbells.load(Ordering::Relaxed)
}

/// This end writes no more into the ring: only the kernel can tell what comes now.
pub(crate) fn stop_timed_waits(end: &End) {
    end.outgoing().close();
    end_timed_waits(end.outgoing());
}

/// Wakes those who have a timed wait on a direction, after its ring was closed, or their need-wakeup flag was seen; true when
/// there may be some. A stale need-wakeup flag is answered in vain, once. Also a writer that waits on the futex until there is
/// room: there will be none.
pub(crate) fn end_timed_waits(direction: &Direction) -> bool {
    if direction.is_room_awaited() && direction.is_closed() {
        // Another value, for one who is about to wait on the futex.
        direction.room.awaited.swap(0, Ordering::SeqCst);
        futex::wake(&direction.room.awaited);
    }
    let due = direction.wake_due();
    if due {
        futex::wake(&direction.sleep.asleep);
    }
    due
}
