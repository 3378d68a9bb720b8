//! The reader follows the writer over the lanes.

use crate::pipe::connection::incoming_doorbells::{self, Drained};
use crate::pipe::connection::read_lock::ReadHeld;
use crate::pipe::connection::{End, Pipe};
use crate::pipe::lanes::grow;
use crate::sys::kernel;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;

/// Takes every doorbell out of the kernel's queue, so that a reader that does not know about them finds data only.
/// The ring is closed, so no more are rung. False when ring bytes are still unread.
pub(crate) fn clear_doorbells(pipe: &Pipe) -> bool {
    clear_need_wakeup(pipe);
    for _ in 0..LOOKS_FOR_DOORBELLS {
        if clear_once(&pipe.lock_reads()) {
            break;
        }
        kernel::sleep_us(BETWEEN_LOOKS_US);
    }
    pipe.incoming().unwant_doorbell();
    !pipe.incoming().has_bytes()
}

/// The same in the middle of something that another reader must not divide.
pub(crate) fn clear_doorbells_apart(held: &ReadHeld<'_>) {
    clear_need_wakeup(held);
    for _ in 0..LOOKS_FOR_DOORBELLS {
        if clear_once(held) || held.apart(|| kernel::sleep_us(BETWEEN_LOOKS_US)).is_none() {
            break;
        }
    }
    held.incoming().unwant_doorbell();
}

/// The last doorbell may still be on its way: so often it is looked for, and so many microseconds apart.
const LOOKS_FOR_DOORBELLS: u32 = 200;
const BETWEEN_LOOKS_US: u64 = 50;

fn clear_need_wakeup(end: &End) {
    if !incoming_doorbells::is_relied_on(end) {
        // From now on a doorbell that is rung has been counted: see `outgoing_doorbells::ring_quietly`.
        let _ = end.incoming().doorbell_due();
    }
}

/// Whether no doorbell is left.
fn clear_once(held: &ReadHeld<'_>) -> bool {
    follow(held);
    // Following renews it.
    clear_need_wakeup(held);
    let epoch = held.incoming().reader_epoch();
    let waiting = if is_ring(epoch) { incoming_doorbells::doorbells_waiting(held) } else { 0 };
    if waiting > 0 {
        let mask = kernel::block_signals();
        incoming_doorbells::discard(held, waiting as usize);
        kernel::restore_signals(mask);
    }
    !is_ring(epoch) || incoming_doorbells::doorbells_waiting(held) == 0
}

/// Steps of one look, from lane to lane, or again after somebody else's.
pub(crate) const MOST_STEPS: u32 = 10_000;

/// Whether the writer is somewhere where it cannot be while we are in `epoch`.
pub(crate) fn is_impossible(end: &End, epoch: u32) -> bool {
    end.incoming().lead(epoch).is_err() && end.incoming().reader_epoch() == epoch
}

/// Follows the writer over lanes that hold nothing more.
pub(crate) fn follow(held: &ReadHeld<'_>) {
    let incoming = held.incoming();
    for _ in 0..MOST_STEPS {
        let epoch = incoming.reader_epoch();
        if !matches!(incoming.lead(epoch), Ok(1 | 2)) || (is_ring(epoch) && incoming.has_bytes()) {
            return;
        }
        if is_ring(epoch) {
            match incoming_doorbells::drain_to(held, epoch) {
                Drained::Done => {}
                // Somebody else has, or the lock was lost: what was read before may not be true any more.
                Drained::Moved => continue,
                Drained::Failed(error) => {
                    // The kernel reports an error once: keep it for the call that may report it.
                    held.entry.pending_error.store(error.0, Ordering::Release);
                    return;
                }
                _ => return,
            }
        } else if incoming.switch.kernel_end.load(Ordering::Relaxed)
            != incoming.reader.kernel_read.load(Ordering::Relaxed)
        {
            return;
        }
        incoming.follow(epoch);
    }
}

/// Tells the writer which ring suits the receive buffer. One that is too large is closed: it opens again smaller.
pub(crate) fn fit(pipe: &Pipe) {
    let limit = grow::allowed(pipe, libc::SO_RCVBUF);
    let held = pipe.lock_reads();
    if held.is_mapped() {
        let incoming = held.incoming();
        incoming.reader.ring_limit.store(limit, Ordering::Relaxed);
        if incoming.producer.capacity.load(Ordering::Relaxed) > limit {
            incoming.close();
        }
    }
}
