//! Timed futex waits: short sleeps on the need-wakeup flags themselves, a word of the segment.
//!
//! A doorbell goes through all of TCP; a futex wake of the word (futex(2)) does not, needs no lock, and leaves nothing behind that
//! somebody would have to take away. But it knows nothing of the connection: of the kernel lane, of the end, of a process that was
//! killed. So
//!
//! * nobody has a timed wait on a closed ring, and whoever closes one wakes those who do: they go to sleep in the kernel's recv;
//! * a timed wait is short. What nobody wakes it for (a peer that was killed, a byte of a stranger) is found when it is over.
//!
//! Timed waits are for waits that are short, too: after some that were in vain a reader goes to sleep at once.

use crate::error::Errno;
use crate::pipe::connection::Pipe;
use crate::pipe::handoff::give_back;
use crate::pipe::waiting::{spin, wait};
use crate::state::flags::SocketFlags;
use crate::state::socket_table::{self};
use crate::state::trace;
use crate::sys::futex::{self, Words};
use crate::sys::handlers::Since;
use crate::sys::{filter, kernel};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::END_JOINED;

/// Nanoseconds: how late a killed peer may be noticed.
const LONGEST: u64 = 5_000_000;

/// The kernel, or a filter before it, does not know the call.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Waits on the futex until there is something to look at. False: there was nothing for so long, or it cannot be done here.
///
/// # Errors
/// EINTR, as recv(2).
pub(crate) fn for_reader(pipe: &Pipe, epoch: u32, since: Since) -> Result<bool, Errno> {
    // With bytes of the kernel's before the ring only the kernel reports them.
    // With a time-out of its own recv does not go on after a handler (signal(7)); and after the end nobody wakes it.
    let may_wait_timed = is_ring(epoch)
        && pipe.incoming().reader_epoch() == epoch
        && !pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::TIMED | SocketFlags::END_SEEN)
        && is_possible();
    if !may_wait_timed
        || !spin::pays(&pipe.local.timed_wait)
        || is_sleep_due(&pipe.local.apart, pipe.is_writer_here())
    {
        return Ok(false);
    }
    let incoming = pipe.incoming();
    let flags = incoming.want_wake();
    if incoming.has_bytes() || incoming.epoch() != epoch || !pipe.is_mapped() {
        return Ok(true);
    }
    if incoming.is_closed() {
        return Ok(false);
    }
    socket_table::add(&pipe.entry.counters.sleeps, 1);
    trace::note(-1, pipe.entry);
    if wait::is_interrupted(pipe.entry, since) {
        return Err(Errno(libc::EINTR));
    }
    let result = futex::wait(&incoming.sleep.asleep, flags, LONGEST);
    match result {
        Ok(()) | Err(Errno(libc::EAGAIN)) => {
            spin::learn(&pipe.local.timed_wait, true);
            Ok(true)
        }
        Err(Errno(libc::EINTR)) if incoming.has_bytes() => Ok(true),
        Err(Errno(libc::EINTR)) => Err(Errno(libc::EINTR)),
        Err(Errno(libc::ETIMEDOUT)) => {
            spin::learn(&pipe.local.timed_wait, false);
            Ok(false)
        }
        Err(_) => {
            IS_REFUSED.store(true, Ordering::Relaxed);
            Ok(false)
        }
    }
}

/// Timed waits with the ends on two processors for which there is one sleep.
const APART: u32 = 16;

/// Whether a wait sleeps in the kernel this time, because the scheduler should place the two ends anew. `timed_waits` counts
/// for it, and `is_writer_here` says whether what is waited for was last written on this processor.
///
/// A thread that is woken by a futex call goes on where it last ran. Of a byte through the connection the scheduler knows that its
/// writer is about to sleep, so it may run both ends on one processor: beside strangers a round trip takes a tenth of the time
/// there.
pub(crate) fn is_sleep_due(timed_waits: &AtomicU32, is_writer_here: bool) -> bool {
    let count = if is_writer_here { 0 } else { timed_waits.load(Ordering::Relaxed) + 1 };
    timed_waits.store(count % APART, Ordering::Relaxed);
    count == APART
}

/// How a wait for several pipes has a timed wait on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// With its word among those that are waited for.
    Waiting,
    /// The writer has gone on to another lane.
    Look,
    /// Only the kernel reports what comes.
    Cannot,
}

/// Whether waits for several pipes may wait on the futex at all: the calls that this takes are known here, and allowed.
pub(crate) fn is_possible() -> bool {
    !filter::is_inherited() && !IS_REFUSED.load(Ordering::Relaxed) && !kernel::is_restricted()
}

/// Whether only the kernel reports what comes on a pipe, so that nobody may have a timed wait on it.
pub(crate) fn is_deaf(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    !is_ring(incoming.reader_epoch())
        || incoming.is_closed()
        || pipe.other_end() != END_JOINED
        || pipe
            .entry
            .flags
            .load(Ordering::Relaxed)
            .intersects(SocketFlags::END_SEEN | SocketFlags::SHUT_WRITE | SocketFlags::BROKEN)
}

/// Wants a futex wake from the writer of a pipe, among others; after a look whether it [`is_deaf`]. The caller must look at its
/// ring again before it waits on the futex.
pub(crate) fn join(pipe: &Pipe, words: &mut Words) -> Joined {
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    let flags = incoming.want_wake();
    // Whoever closes the ring does so before it answers the need-wakeup flag.
    if !is_ring(epoch) || incoming.is_closed() || !words.add(&incoming.sleep.asleep, flags) {
        return Joined::Cannot;
    }
    let has_gone_on = incoming.epoch() != epoch || give_back::is_due(pipe) || !pipe.is_mapped();
    if has_gone_on { Joined::Look } else { Joined::Waiting }
}

/// Has a timed wait on the words of several pipes, for so many nanoseconds at most. False: nobody has woken it.
///
/// # Errors
/// EINTR, after a signal handler that was installed without SA_RESTART.
pub(crate) fn on(words: &mut Words, nanoseconds: u64) -> Result<bool, Errno> {
    match words.wait(nanoseconds) {
        Ok(()) | Err(Errno(libc::EAGAIN)) => Ok(true),
        Err(Errno(libc::ETIMEDOUT)) => Ok(false),
        Err(Errno(libc::EINTR)) => Err(Errno(libc::EINTR)),
        // Another thread has closed one of them; or there is no memory.
        Err(Errno(libc::EFAULT | libc::ENOMEM)) => Ok(false),
        Err(_) => {
            IS_REFUSED.store(true, Ordering::Relaxed);
            Ok(false)
        }
    }
}
