//! The write lock: who writes next.

use crate::pipe::connection::guard::{Guard, Side};
use crate::pipe::connection::{End, outgoing_doorbells, transitions};
use crate::state::lock::{EndLock, FencedOff, Held, Taken};
use crate::state::socket_table::Entry;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::Direction;
use sockshim_ring::lock_word::Content;

/// The write lock of an end. An owner that does not let go is fenced off: the direction stays in the kernel lane from then on.
pub(crate) type WriteHeld<'a> = Guard<'a, Writes>;

/// Those who write.
pub(crate) enum Writes {}

impl Side for Writes {
    #[inline]
    fn lock(entry: &'static Entry) -> &'static EndLock {
        &entry.write_lock
    }

    fn is_over(end: &End) -> bool {
        let outgoing = end.outgoing();
        outgoing.is_shut() && !is_ring(outgoing.epoch())
    }

    /// A doorbell that a writer owed when it died: the next publication rings.
    fn interrupted(end: &End) {
        end.outgoing().want_doorbell();
    }

    /// Goes on without the lock's owner, wherever that is: its publication fails, because the ring is closed;
    /// it opens no ring any more, because the gate is shut; it rings no doorbell, because the lock is not its own; and if it
    /// leaves the ring, it says what we say.
    fn fence_off(end: &End, seen: Content) -> FencedOff {
        let outgoing = end.outgoing();
        outgoing.close();
        outgoing.shut();
        transitions::mark_stopped(end);
        let fenced = end.entry.write_lock.lock.fence_off(seen, || are_doorbells_sent(end.fd, outgoing));
        // What it has published may be news to a sleeper.
        if fenced == FencedOff::Owing && is_ring(outgoing.epoch()) {
            outgoing.want_doorbell();
            let taken = Held::new(&end.entry.write_lock.lock, Taken::Nested);
            let _ = outgoing_doorbells::ring_doorbell(&WriteHeld::with(end, taken));
        }
        fenced
    }
}

/// Whether every doorbell that is counted has been sent: a doorbell is counted before.
fn are_doorbells_sent(fd: c_int, outgoing: &Direction) -> bool {
    let doorbells = outgoing.switch.doorbells.load(Ordering::Acquire);
    let before = outgoing.switch.kernel_end.load(Ordering::Relaxed);
    is_ring(outgoing.epoch())
        && kernel::tcp_position(fd).is_ok_and(|position| position.written == before.wrapping_add(doorbells))
}
