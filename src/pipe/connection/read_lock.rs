//! The lock of those who read.

use crate::pipe::connection::{Pipe, transitions, write_lock};
use crate::state::lock::{FencedOff, Taken};
use crate::state::reason::Reason;
use crate::state::socket_table::{Entry, FLAG_URGENT_READ};
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::lane::is_ring;
use sockshim_ring::lock::Content;

/// The read lock. An owner that does not let go is fenced off: bytes of the ring are consumed by compare-and-swap, so
/// they go to one of the two, and both directions stay in the kernel lane from then on.
#[inline]
pub(crate) fn lock_reads(pipe: &Pipe) -> Taken {
    // Somebody who died, or jumped away, may have taken bytes from the kernel that it has not counted.
    let taken = pipe.entry.read_lock.0.take_at_once(|| recount(pipe));
    taken.unwrap_or_else(|| wait_for_lock(pipe))
}

#[cold]
#[inline(never)]
fn wait_for_lock(pipe: &Pipe) -> Taken {
    let incoming = pipe.incoming();
    for _ in 0..write_lock::MOST_ROUNDS {
        let epoch = incoming.reader_epoch();
        if incoming.is_shut() && !is_ring(epoch) && incoming.epoch() == epoch {
            // In the kernel's lane for good: nothing is left that the lock protects, whatever thread says that it has it.
            return Taken::Nested;
        }
        match pipe.entry.read_lock.0.take_after(false, || recount(pipe)) {
            Taken::Not(seen) => match fence_off(pipe, seen) {
                FencedOff::Taken | FencedOff::Owing => {
                    recount(pipe);
                    return Taken::Ours;
                }
                FencedOff::InCall => break,
                FencedOff::Not => {}
            },
            taken => return taken,
        }
    }
    if let Some(pipe) = pipe.live() {
        transitions::give_up(&pipe, Reason::Stopped);
    }
    Taken::Nested
}

/// Goes on without the lock's owner, wherever that is: with the gate shut no byte can become a doorbell that
/// it still takes for data, and where doorbells lie before data it takes none of both, because the lock is not its own. A
/// need-wakeup flag for a doorbell that it takes back is not missed: the writer finds the ring closed and goes to the kernel.
fn fence_off(pipe: &Pipe, seen: Content) -> FencedOff {
    let incoming = pipe.incoming();
    // First the promise, then the ring: see `writer::open`.
    incoming.reader.ready.store(0, Ordering::SeqCst);
    incoming.close();
    incoming.shut();
    transitions::mark_stopped(pipe);
    // What a call takes is counted after it.
    pipe.entry.read_lock.0.fence_off(seen, || {
        let counted = incoming.reader.kernel_read.load(Ordering::Relaxed);
        reading_position(pipe).is_some_and(|position| position > counted)
    })
}

/// What the kernel says of how far its stream has been read.
pub(crate) fn recount(pipe: &Pipe) {
    if let Some(position) = reading_position(pipe) {
        pipe.incoming().reader.kernel_read.store(position, Ordering::Relaxed);
    }
}

fn reading_position(pipe: &Pipe) -> Option<u64> {
    position_of(pipe.descriptor()?, pipe.entry, |state| state != kernel::TCP_CLOSE)
}

/// [`kernel::reading_position`]; `None` also after urgent data was read, when the kernel's answer cannot be trusted.
pub(crate) fn position_of(fd: c_int, entry: &Entry, is_right: impl Fn(u8) -> bool) -> Option<u64> {
    let is_known = entry.flags.load(Ordering::Relaxed) & FLAG_URGENT_READ == 0;
    is_known.then(|| kernel::reading_position(fd, is_right))?
}

/// After somebody has fenced us off. The caller's release is for this lock, too.
#[cold]
pub(crate) fn relock(pipe: &Pipe) {
    let _ = lock_reads(pipe);
}
