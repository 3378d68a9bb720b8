//! Doorbells: bytes in the kernel's queue that wake a reader, and are no data.
//!
//! They are counted by who rings them (`doorbells`) and by who takes them (`kernel_read`), so that each byte of the queue is known
//! for what it is. All of them are taken before the bytes of the kernel lane behind them are read.

use crate::error::Errno;
use crate::pipe::connection::read_lock::{self, ReadHeld};
use crate::pipe::connection::{End, Pipe, transitions};
use crate::state::reason::Reason;
use crate::state::{lock, registrations, socket_table};
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;

/// Takes bytes from the kernel, or throws them away, and counts them; where doorbells and data must be told apart. With
/// signals blocked. `None`, and nothing is taken: somebody has fenced us off.
pub(crate) fn take_counted(held: &ReadHeld<'_>, call: &Call) -> Option<Result<usize, Errno>> {
    let position = &held.incoming().reader.kernel_read;
    let before = position.load(Ordering::Relaxed);
    let taken = held.call(call)?;
    if let Ok(count) = taken {
        // Compared: whoever has fenced us off since has asked the kernel, which knows of these, too.
        let after = before.wrapping_add(count as u64);
        let _ = position.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
    }
    Some(taken)
}

/// Before the socket is closed: no doorbell may be left in the kernel's queue.
pub(crate) fn drain_doorbells(held: &ReadHeld<'_>) {
    let incoming = held.incoming();
    let epoch = incoming.reader_epoch();
    if is_ring(epoch) {
        let position = incoming.reader.kernel_read.load(Ordering::Relaxed);
        let end = if incoming.epoch() == epoch {
            position.wrapping_add(doorbells_waiting(held))
        } else {
            incoming.switch.resume.load(Ordering::Relaxed)
        };
        let mask = kernel::block_signals();
        let _ = drain_quietly(held, end);
        kernel::restore_signals(mask);
    }
}

/// What became of an attempt to throw doorbells away.
pub(crate) enum Drained {
    /// All doorbells up to the position are gone.
    Done,
    /// Not all doorbells have arrived.
    NotYet,
    End,
    Failed(Errno),
    /// The position lies behind us: impossible.
    Beyond,
    /// Somebody who knows nothing of doorbells has taken some.
    ReadPastUs,
    /// A signal handler of this thread has followed the writer already, or whoever has fenced us off.
    Moved,
}

/// Throws away the doorbells of ring epoch `epoch`, which the writer has left.
pub(crate) fn drain_to(held: &ReadHeld<'_>, epoch: u32) -> Drained {
    let incoming = held.incoming();
    let taken = incoming.reader.kernel_read.load(Ordering::Relaxed);
    if taken == incoming.switch.resume.load(Ordering::Relaxed) && incoming.reader_epoch() == epoch {
        // Without a call, which a filter of the program's may forbid.
        incoming.want_doorbell();
        return Drained::Done;
    }
    // A signal handler that reads from this socket must not take what is counted here.
    let mask = kernel::block_signals();
    let drained = if incoming.reader_epoch() != epoch {
        Some(Drained::Moved)
    } else if is_read_past_us(held) {
        // The last of these would be bytes of the kernel lane.
        Some(Drained::ReadPastUs)
    } else {
        drain_quietly(held, incoming.switch.resume.load(Ordering::Relaxed))
    };
    kernel::restore_signals(mask);
    match drained {
        None => {
            held.take_again();
            Drained::Moved
        }
        Some(drained) => {
            if matches!(drained, Drained::Done) {
                // Whoever relied on one of those doorbells wants another.
                incoming.want_doorbell();
            }
            drained
        }
    }
}

/// `None`: the read lock is somebody else's.
fn drain_quietly(held: &ReadHeld<'_>, to: u64) -> Option<Drained> {
    let position = &held.incoming().reader.kernel_read;
    loop {
        let Some(left) = to.checked_sub(position.load(Ordering::Relaxed)) else {
            return Some(Drained::Beyond);
        };
        if left == 0 {
            return Some(Drained::Done);
        }
        match take_counted(held, &Call::discard(held.fd, left.min(1 << 20) as usize))? {
            Ok(0) => return Some(Drained::End),
            Ok(_) => {}
            Err(Errno(libc::EAGAIN)) => return Some(Drained::NotYet),
            Err(error) => return Some(Drained::Failed(error)),
        }
    }
}

/// Doorbells that the writer says it rang in this ring epoch and nobody has taken yet.
pub(crate) fn doorbells_waiting(end: &End) -> u64 {
    let incoming = end.incoming();
    let taken = incoming
        .reader
        .kernel_read
        .load(Ordering::Relaxed)
        .wrapping_sub(incoming.switch.kernel_end.load(Ordering::Relaxed));
    plausible(incoming.switch.doorbells.load(Ordering::Acquire), taken)
}

/// Doorbells that wait. Only sums that can be true; the writer's word is not to be trusted further than that.
fn plausible(rung: u64, taken: u64) -> u64 {
    let waiting = rung.wrapping_sub(taken);
    if waiting < 1 << 32 { waiting } else { 0 }
}

/// Looks for a byte in the kernel's queue that no doorbell accounts for, and gives the connection up if there is one: somebody
/// has used the other end's socket by system calls of its own. Says whether it is given up.
///
/// Where that byte belongs among those of the ring nobody can say, so it cannot be passed on as data either.
#[cold]
pub(crate) fn find_intruder(end: &End) -> bool {
    let found = !kernel::is_restricted() && is_intruded(end);
    if found {
        transitions::give_up(end, Reason::Integrity);
    }
    found
}

/// The kernel has reported bytes to a set. It reports once: if it was of something else than a doorbell, nobody hears of it again.
pub(crate) fn check_reported(end: &End) {
    if doorbells_waiting(end) == 0 && is_ring(end.incoming().reader_epoch()) {
        find_intruder(end);
    }
}

/// Whether somebody has taken bytes of the kernel's stream by system calls of its own.
pub(crate) fn is_read_past_us(end: &End) -> bool {
    let counted = end.incoming().reader.kernel_read.load(Ordering::Relaxed);
    !kernel::is_restricted()
        && read_lock::position_of(end.fd, end.entry, |state| state != kernel::TCP_CLOSE)
            .is_some_and(|position| position > counted)
}

/// Whether the kernel's queue holds a byte that no doorbell accounts for.
///
/// The order of the looks makes it certain without a lock: what was taken is read before the queue, and the
/// doorbells, which are counted before they are sent, after it. Another reader that takes a doorbell meanwhile can
/// only make the count look too high.
fn is_intruded(end: &End) -> bool {
    let incoming = end.incoming();
    let epoch = incoming.reader_epoch();
    let position = incoming.reader.kernel_read.load(Ordering::Acquire);
    let waits = kernel::queued(end.fd).unwrap_or(0) > 0;
    let rung = incoming.switch.doorbells.load(Ordering::Acquire);
    let before = incoming.switch.kernel_end.load(Ordering::Relaxed);
    waits
        && is_ring(epoch)
        && incoming.epoch() == epoch
        && incoming.reader_epoch() == epoch
        && plausible(rung, position.wrapping_sub(before)) == 0
}

/// Throws bytes of the kernel's away; with signals blocked. Says how many. The kernel reports an
/// error once: it is kept for the call that may report it.
pub(crate) fn discard(held: &ReadHeld<'_>, count: usize) -> usize {
    match take_counted(held, &Call::discard(held.fd, count)) {
        Some(Ok(count)) => count,
        None | Some(Err(Errno(libc::EAGAIN))) => 0,
        Some(Err(error)) => {
            held.entry.pending_error.store(error.0, Ordering::Release);
            0
        }
    }
}

/// Says that a doorbell is wanted, under the read lock: so nobody takes the need-wakeup flag back by mistake.
pub(crate) fn want_doorbell(pipe: &Pipe) {
    pipe.lock_reads().incoming().want_doorbell();
}

/// Whether somebody other than this thread waits for a doorbell of this pipe.
pub(crate) fn is_relied_on(end: &End) -> bool {
    socket_table::others_asleep(&end.entry.sleepers, lock::thread(), true)
        || registrations::relies_on_doorbells(end.entry)
}

/// Whether the ring epoch goes on and the ring is empty.
pub(crate) fn is_quiet(end: &End) -> bool {
    let incoming = end.incoming();
    let epoch = incoming.reader_epoch();
    is_ring(epoch) && incoming.epoch() == epoch && !incoming.has_bytes()
}
