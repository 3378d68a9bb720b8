//! The write lock: who writes next.

use crate::pipe::connection::{Pipe, outgoing_doorbells, transitions};
use crate::state::lock::{FencedOff, Taken};
use crate::state::reason::Reason;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::lane::is_ring;
use sockshim_ring::layout::Direction;
use sockshim_ring::lock::Content;

/// Times that a lock is taken by others, or rewritten by a process that is not to be trusted.
pub(crate) const MOST_ROUNDS: usize = 50;

/// The write lock. An owner that does not let go is fenced off: the direction stays in the kernel lane from then on.
#[inline]
pub(crate) fn lock_writes(pipe: &Pipe) -> Taken {
    lock_writes_as(pipe, false)
}

/// The same; `nonblocking`: for a call that does not wait.
#[inline]
pub(crate) fn lock_writes_as(pipe: &Pipe, nonblocking: bool) -> Taken {
    // A doorbell that a writer owed when it died: the next publication rings.
    let taken = pipe.entry.write_lock.0.take_at_once(|| pipe.outgoing().want_doorbell());
    taken.unwrap_or_else(|| wait_for_lock(pipe, nonblocking))
}

#[cold]
#[inline(never)]
fn wait_for_lock(pipe: &Pipe, nonblocking: bool) -> Taken {
    let lock = &pipe.entry.write_lock.0;
    let outgoing = pipe.outgoing();
    for _ in 0..MOST_ROUNDS {
        if outgoing.is_shut() && !is_ring(outgoing.epoch()) {
            // In the kernel's lane for good: nothing is left that the lock protects, whatever thread says that it has it.
            return Taken::Nested;
        }
        match lock.take_after(nonblocking, || outgoing.want_doorbell()) {
            Taken::Not(seen) => match fence_off(pipe, seen) {
                FencedOff::Taken | FencedOff::Owing => return Taken::Ours,
                FencedOff::InCall => break,
                FencedOff::Not => {}
            },
            taken => return taken,
        }
    }
    transitions::give_up(pipe, Reason::Stopped);
    Taken::Nested
}

/// Goes on without the lock's owner, wherever that is: its publication fails, because the ring is closed;
/// it opens no ring any more, because the gate is shut; it rings no doorbell, because the lock is not its own; and if it
/// leaves the ring, it says what we say.
fn fence_off(pipe: &Pipe, seen: Content) -> FencedOff {
    let outgoing = pipe.outgoing();
    outgoing.close();
    outgoing.shut();
    transitions::mark_stopped(pipe);
    let fenced = pipe.entry.write_lock.0.fence_off(seen, || are_doorbells_sent(pipe.fd, outgoing));
    // What it has published may be news to a sleeper.
    if fenced == FencedOff::Owing && is_ring(outgoing.epoch()) {
        outgoing.want_doorbell();
        let _ = outgoing_doorbells::ring_doorbell(pipe);
    }
    fenced
}

/// Whether every doorbell that is counted has been sent: a doorbell is counted before.
fn are_doorbells_sent(fd: c_int, outgoing: &Direction) -> bool {
    let doorbells = outgoing.switch.doorbells.load(Ordering::Acquire);
    let before = outgoing.switch.kernel_end.load(Ordering::Relaxed);
    is_ring(outgoing.epoch())
        && kernel::tcp_position(fd).is_ok_and(|position| position.written == before.wrapping_add(doorbells))
}
