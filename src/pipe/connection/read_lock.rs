//! The lock of those who read.

use crate::pipe::connection::guard::{Guard, Side};
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, transitions};
use crate::state::flags::SocketFlags;
use crate::state::lock::{EndLock, FencedOff};
use crate::state::socket_table::Entry;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::lock_word::Content;

/// The read lock of an end. An owner that does not let go is fenced off: bytes of the ring are consumed by compare-and-swap, so
/// they go to one of the two, and both directions stay in the kernel lane from then on.
pub(crate) type ReadHeld<'a> = Guard<'a, Reads>;

/// Those who read.
pub(crate) enum Reads {}

impl Side for Reads {
    #[inline]
    fn lock(entry: &'static Entry) -> &'static EndLock {
        &entry.read_lock
    }

    fn is_over(end: &End) -> bool {
        let incoming = end.incoming();
        let epoch = incoming.reader_epoch();
        incoming.is_shut() && !is_ring(epoch) && incoming.epoch() == epoch
    }

    /// It may have taken bytes from the kernel that it has not counted.
    fn interrupted(end: &End) {
        recount(end);
    }

    /// Goes on without the lock's owner, wherever that is: with the gate shut no byte can become a doorbell that
    /// it still takes for data, and where doorbells lie before data it takes none of both, because the lock is not its own. A
    /// need-wakeup flag for a doorbell that it takes back is not missed: the writer finds the ring closed and goes to the kernel.
    fn fence_off(end: &End, seen: Content) -> FencedOff {
        let incoming = end.incoming();
        // First the promise, then the ring: see `writer::open`.
        incoming.reader.ready.store(0, Ordering::SeqCst);
        incoming.close();
        incoming.shut();
        transitions::mark_stopped(end);
        // What a call takes is counted after it.
        let fenced = end.entry.read_lock.lock.fence_off(seen, || {
            let counted = incoming.reader.kernel_read.load(Ordering::Relaxed);
            reading_position(end).is_some_and(|position| position > counted)
        });
        if matches!(fenced, FencedOff::Taken | FencedOff::Owing) {
            recount(end);
        }
        fenced
    }
}

impl<'a> ReadHeld<'a> {
    /// The write lock of the same end, after this one.
    pub(crate) fn lock_writes(&self) -> WriteHeld<'a> {
        self.then()
    }
}

/// What the kernel says of how far its stream has been read.
pub(crate) fn recount(end: &End) {
    // A signal handler that reads from this socket must not count on in between.
    let mask = kernel::block_signals();
    if let Some(position) = reading_position(end) {
        end.incoming().reader.kernel_read.store(position, Ordering::Relaxed);
    }
    kernel::restore_signals(mask);
}

fn reading_position(end: &End) -> Option<u64> {
    position_of(end.descriptor()?, end.entry, |state| state != kernel::TCP_CLOSE)
}

/// [`kernel::reading_position`]; `None` also after urgent data was read, when the kernel's answer cannot be trusted.
pub(crate) fn position_of(fd: c_int, entry: &Entry, is_right: impl Fn(u8) -> bool) -> Option<u64> {
    let is_known = !entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::URGENT_READ);
    is_known.then(|| kernel::reading_position(fd, is_right))?
}
