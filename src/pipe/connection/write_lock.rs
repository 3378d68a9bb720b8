//! The write lock: who writes next.

use crate::error::Errno;
use crate::pipe::connection::{End, outgoing_doorbells, transitions};
use crate::state::lock::{self, FencedOff, Held, Taken};
use crate::state::reason::Reason;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::ffi::c_int;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::Direction;
use sockshim_ring::lock_word::Content;

/// Times that a lock is taken by others, or rewritten by a process that is not to be trusted.
pub(crate) const MOST_ROUNDS: usize = 50;

/// The write lock of an end, until this is dropped. A function that has this must not wait, except [`WriteHeld::apart`].
#[must_use]
pub(crate) struct WriteHeld<'a> {
    end: &'a End,
    held: Held<'static>,
}

impl Deref for WriteHeld<'_> {
    type Target = End;

    #[inline]
    fn deref(&self) -> &End {
        self.end
    }
}

impl<'a> WriteHeld<'a> {
    /// The write lock. An owner that does not let go is fenced off: the direction stays in the kernel lane from then on.
    /// `nonblocking`: for a call that does not wait.
    #[inline]
    pub(crate) fn take(end: &'a End, nonblocking: bool) -> Self {
        let lock = &end.entry.write_lock;
        // A doorbell that a writer owed when it died: the next publication rings.
        let taken = lock.lock.take_at_once(|| end.outgoing().want_doorbell());
        let taken = taken.unwrap_or_else(|| wait_for_lock(end, nonblocking));
        let held = Self::with(end, Held::new(&lock.lock, taken));
        if lock.is_kept() { held.wait_for_keeper() } else { held }
    }

    /// With the lock, which has been taken already.
    #[inline]
    pub(crate) const fn with(end: &'a End, held: Held<'static>) -> Self {
        Self { end, held }
    }

    /// Only if nobody has it.
    pub(crate) fn take_free(end: &'a End) -> Option<Self> {
        let lock = &end.entry.write_lock;
        lock.lock.take_free(lock::thread())?;
        let held = Self::with(end, Held::new(&lock.lock, Taken::Ours));
        (!lock.is_kept()).then_some(held)
    }

    /// Whether no call that a signal interrupted has it, too.
    #[inline]
    pub(crate) fn is_first(&self) -> bool {
        self.held.is_first()
    }

    /// Whether somebody sleeps until it is released.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.held.lock().is_wanted()
    }

    /// See [`Lock::is_urgent`].
    pub(crate) fn is_urgent(&self) -> bool {
        self.held.lock().is_urgent()
    }

    /// See [`Lock::call`].
    pub(crate) fn call(&self, call: &Call) -> Option<Result<usize, Errno>> {
        self.held.lock().call(call)
    }

    /// See [`sockshim_ring::lock_word::Word::ringing`].
    pub(crate) fn ringing(&self) -> bool {
        self.held.lock().ringing()
    }

    /// See [`sockshim_ring::lock_word::Word::rung`].
    pub(crate) fn rung(&self) -> bool {
        self.held.lock().rung()
    }

    /// Takes it again after somebody has fenced this thread off. Its one release is for this, too.
    #[cold]
    pub(crate) fn take_again(&self) {
        core::mem::forget(Self::take(self.end, false));
    }

    /// Lets those have it who wait for it, and takes it again.
    #[cold]
    pub(crate) fn hand_over(&self) {
        self.held.lock().hand_over();
        self.take_again();
    }

    /// Runs `wait` without the lock, and takes it again.
    #[cold]
    pub(crate) fn without<T>(self, wait: impl FnOnce() -> T) -> Self {
        let end = self.end;
        drop(self);
        wait();
        Self::take(end, false)
    }

    /// What must wait, or read a file, between two things of which nothing of another writer's may come: the lock is let go, and
    /// who takes it meanwhile waits, asleep, until this is over. With signals blocked: a handler that writes to this
    /// socket would wait for itself.
    #[cold]
    pub(crate) fn apart<T>(&self, wait: impl FnOnce() -> T) -> T {
        let mask = kernel::block_signals();
        let kept = self.end.entry.write_lock.keep(&self.held);
        let result = wait();
        if kept {
            self.take_again();
            self.end.entry.write_lock.let_go();
        }
        kernel::restore_signals(mask);
        result
    }

    /// Somebody is [`WriteHeld::apart`] with it.
    #[cold]
    #[inline(never)]
    fn wait_for_keeper(self) -> Self {
        let end = self.end;
        let is_over = end.entry.write_lock.wait_for_keeper(self.held);
        if !is_over {
            // What it was about to write nobody else has.
            transitions::give_up(end, Reason::Stopped);
        }
        Self::take(end, false)
    }
}

/// The write lock for the usual short call, and only if nobody has it: what was put into the lock's word is known when it is
/// released.
#[inline(always)]
pub(crate) fn with_free<T>(end: &End, act: impl FnOnce(&WriteHeld<'_>) -> T) -> Option<T> {
    let lock = &end.entry.write_lock.lock;
    let mine = lock.take_free(lock::thread())?;
    let held = ManuallyDrop::new(WriteHeld::with(end, Held::new(lock, Taken::Ours)));
    let result = act(&held);
    lock.give_back(mine);
    Some(result)
}

#[cold]
#[inline(never)]
fn wait_for_lock(end: &End, nonblocking: bool) -> Taken {
    let lock = &end.entry.write_lock.lock;
    let outgoing = end.outgoing();
    for _ in 0..MOST_ROUNDS {
        if outgoing.is_shut() && !is_ring(outgoing.epoch()) {
            // In the kernel's lane for good: nothing is left that the lock protects, whatever thread says that it has it.
            return Taken::Nested;
        }
        match lock.take_after(nonblocking, || outgoing.want_doorbell()) {
            Taken::Not(seen) => match fence_off(end, seen) {
                FencedOff::Taken | FencedOff::Owing => return Taken::Ours,
                FencedOff::InCall => break,
                FencedOff::Not => {}
            },
            taken => return taken,
        }
    }
    transitions::give_up(end, Reason::Stopped);
    Taken::Nested
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

/// Whether every doorbell that is counted has been sent: a doorbell is counted before.
fn are_doorbells_sent(fd: c_int, outgoing: &Direction) -> bool {
    let doorbells = outgoing.switch.doorbells.load(Ordering::Acquire);
    let before = outgoing.switch.kernel_end.load(Ordering::Relaxed);
    is_ring(outgoing.epoch())
        && kernel::tcp_position(fd).is_ok_and(|position| position.written == before.wrapping_add(doorbells))
}
