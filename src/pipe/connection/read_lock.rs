//! The lock of those who read.

use crate::error::Errno;
use crate::pipe::connection::write_lock::{self, WriteHeld};
use crate::pipe::connection::{End, transitions};
use crate::state::flags::SocketFlags;
use crate::state::lock::{self, FencedOff, Held, Taken};
use crate::state::reason::Reason;
use crate::state::socket_table::Entry;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::ffi::c_int;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::lock_word::Content;

/// The read lock of an end, until this is dropped. A function that has this must not wait, except [`ReadHeld::apart`].
#[must_use]
pub(crate) struct ReadHeld<'a> {
    end: &'a End,
    held: Held<'static>,
}

impl Deref for ReadHeld<'_> {
    type Target = End;

    #[inline]
    fn deref(&self) -> &End {
        self.end
    }
}

impl<'a> ReadHeld<'a> {
    /// The read lock. An owner that does not let go is fenced off: bytes of the ring are consumed by compare-and-swap, so
    /// they go to one of the two, and both directions stay in the kernel lane from then on.
    #[inline]
    pub(crate) fn take(end: &'a End) -> Self {
        let lock = &end.entry.read_lock;
        // Somebody who died, or jumped away, may have taken bytes from the kernel that it has not counted.
        let taken = lock.lock.take_at_once(|| recount(end));
        let taken = taken.unwrap_or_else(|| wait_for_lock(end));
        let held = Self::with(end, Held::new(&lock.lock, taken));
        if lock.is_kept() { held.wait_for_keeper() } else { held }
    }

    /// With the lock, which has been taken already.
    #[inline]
    pub(crate) const fn with(end: &'a End, held: Held<'static>) -> Self {
        Self { end, held }
    }

    /// The write lock of the same end, after this one.
    pub(crate) fn lock_writes(&self) -> WriteHeld<'a> {
        WriteHeld::take(self.end, false)
    }

    /// Whether no call that a signal interrupted has it, too.
    #[inline]
    pub(crate) fn is_first(&self) -> bool {
        self.held.is_first()
    }

    /// See [`crate::state::lock::Lock::call`].
    pub(crate) fn call(&self, call: &Call) -> Option<Result<usize, Errno>> {
        self.held.lock().call(call)
    }

    /// Takes it again after somebody has fenced this thread off. Its one release is for this, too.
    #[cold]
    pub(crate) fn take_again(&self) {
        core::mem::forget(Self::take(self.end));
    }

    /// As [`WriteHeld::apart`], of readers.
    #[cold]
    pub(crate) fn apart<T>(&self, wait: impl FnOnce() -> T) -> T {
        let mask = kernel::block_signals();
        let kept = self.end.entry.read_lock.keep(&self.held);
        let result = wait();
        if kept {
            self.take_again();
            self.end.entry.read_lock.let_go();
        }
        kernel::restore_signals(mask);
        result
    }

    /// Somebody is [`ReadHeld::apart`] with it.
    #[cold]
    #[inline(never)]
    fn wait_for_keeper(self) -> Self {
        let end = self.end;
        if !end.entry.read_lock.wait_for_keeper(self.held) {
            // What it has read nobody else has.
            transitions::give_up(end, Reason::Stopped);
        }
        Self::take(end)
    }
}

/// The read lock for the usual call, as [`super::write_lock::with_free`].
#[inline(always)]
pub(crate) fn with_free<T>(end: &End, act: impl FnOnce(&ReadHeld<'_>) -> T) -> Option<T> {
    let lock = &end.entry.read_lock.lock;
    let mine = lock.take_free(lock::thread())?;
    let held = ManuallyDrop::new(ReadHeld::with(end, Held::new(lock, Taken::Ours)));
    let result = act(&held);
    lock.give_back(mine);
    Some(result)
}

#[cold]
#[inline(never)]
fn wait_for_lock(end: &End) -> Taken {
    let incoming = end.incoming();
    for _ in 0..write_lock::MOST_ROUNDS {
        let epoch = incoming.reader_epoch();
        if incoming.is_shut() && !is_ring(epoch) && incoming.epoch() == epoch {
            // In the kernel's lane for good: nothing is left that the lock protects, whatever thread says that it has it.
            return Taken::Nested;
        }
        match end.entry.read_lock.lock.take_after(false, || recount(end)) {
            Taken::Not(seen) => match fence_off(end, seen) {
                FencedOff::Taken | FencedOff::Owing => {
                    recount(end);
                    return Taken::Ours;
                }
                FencedOff::InCall => break,
                FencedOff::Not => {}
            },
            taken => return taken,
        }
    }
    if end.descriptor().is_some() {
        transitions::give_up(end, Reason::Stopped);
    }
    Taken::Nested
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
    end.entry.read_lock.lock.fence_off(seen, || {
        let counted = incoming.reader.kernel_read.load(Ordering::Relaxed);
        reading_position(end).is_some_and(|position| position > counted)
    })
}

/// What the kernel says of how far its stream has been read.
pub(crate) fn recount(end: &End) {
    if let Some(position) = reading_position(end) {
        end.incoming().reader.kernel_read.store(position, Ordering::Relaxed);
    }
}

fn reading_position(end: &End) -> Option<u64> {
    position_of(end.descriptor()?, end.entry, |state| state != kernel::TCP_CLOSE)
}

/// [`kernel::reading_position`]; `None` also after urgent data was read, when the kernel's answer cannot be trusted.
pub(crate) fn position_of(fd: c_int, entry: &Entry, is_right: impl Fn(u8) -> bool) -> Option<u64> {
    let is_known = !entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::URGENT_READ);
    is_known.then(|| kernel::reading_position(fd, is_right))?
}
