//! The reader follows the writer over the lanes.

use crate::pipe::connection::incoming_doorbells::{self, Drained};
use crate::pipe::connection::{Pipe, read_lock};
use crate::pipe::lanes::grow;
use crate::state::lock::Taken;
use crate::sys::kernel;
use core::sync::atomic::Ordering;
use sockshim_ring::lane::is_ring;

/// Takes every doorbell out of the kernel's queue, so that a reader that does not know about them finds data only.
/// The ring is closed, so no more are rung. False when ring bytes are still unread.
pub(crate) fn clear_doorbells(pipe: &Pipe) -> bool {
    clear_doorbells_by(pipe, || read_lock::lock_reads(pipe))
}

/// The same; `lock` gives the read lock, or says that the caller has it.
pub(crate) fn clear_doorbells_by(pipe: &Pipe, lock: impl Fn() -> Taken) -> bool {
    let incoming = pipe.incoming();
    let clear_need_wakeup = || {
        if !incoming_doorbells::is_relied_on(pipe) {
            // From now on a doorbell that is rung has been counted: see `outgoing_doorbells::ring_quietly`.
            let _ = incoming.doorbell_due();
        }
    };
    clear_need_wakeup();
    for _ in 0..200 {
        let taken = lock();
        follow(pipe);
        // Following renews it.
        clear_need_wakeup();
        let epoch = incoming.reader_epoch();
        let waiting = if is_ring(epoch) { incoming_doorbells::doorbells_waiting(pipe) } else { 0 };
        if waiting > 0 {
            let mask = kernel::block_signals();
            incoming_doorbells::discard(pipe, waiting as usize);
            kernel::restore_signals(mask);
        }
        pipe.entry.read_lock.0.release(taken);
        if !is_ring(epoch) || incoming_doorbells::doorbells_waiting(pipe) == 0 {
            break;
        }
        // The last doorbell may still be on its way.
        kernel::sleep_us(50);
    }
    incoming.unwant_doorbell();
    !incoming.has_bytes()
}

/// Steps of one look, from lane to lane, or again after somebody else's.
pub(crate) const MOST_STEPS: u32 = 10_000;

/// Whether the writer is somewhere where it cannot be while we are in `epoch`.
pub(crate) fn is_impossible(pipe: &Pipe, epoch: u32) -> bool {
    pipe.incoming().lead(epoch).is_err() && pipe.incoming().reader_epoch() == epoch
}

/// Follows the writer over lanes that hold nothing more. Under the read lock.
pub(crate) fn follow(pipe: &Pipe) {
    let incoming = pipe.incoming();
    for _ in 0..MOST_STEPS {
        let epoch = incoming.reader_epoch();
        if !matches!(incoming.lead(epoch), Ok(1 | 2)) || (is_ring(epoch) && incoming.has_bytes()) {
            return;
        }
        if is_ring(epoch) {
            match incoming_doorbells::drain_to(pipe, epoch) {
                Drained::Done => {}
                // Somebody else has, or the lock was lost: what was read before may not be true any more.
                Drained::Moved => continue,
                Drained::Failed(error) => {
                    // The kernel reports an error once: keep it for the call that may report it.
                    pipe.entry.pending_error.store(error.0, Ordering::Release);
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
    let room = grow::allowed(pipe, libc::SO_RCVBUF);
    let taken = read_lock::lock_reads(pipe);
    if pipe.is_mapped() {
        let incoming = pipe.incoming();
        incoming.reader.room.store(room, Ordering::Relaxed);
        if incoming.producer.capacity.load(Ordering::Relaxed) > room {
            incoming.close();
        }
    }
    pipe.entry.read_lock.0.release(taken);
}
