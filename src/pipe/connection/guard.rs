//! The locks of an end, while a thread has them.

use crate::error::Errno;
use crate::pipe::connection::{End, Pipe, transitions};
use crate::state::lock::{self, EndLock, FencedOff, Held, Keeping, Taken};
use crate::state::reason::Reason;
use crate::state::socket_table::Entry;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use sockshim_ring::lock_word::Content;

/// Times that a lock is taken by others, or rewritten by a process that is not to be trusted.
const MOST_ROUNDS: usize = 50;

/// What is different for those who read and those who write.
pub(crate) trait Side {
    fn lock(entry: &'static Entry) -> &'static EndLock;

    /// The direction is in the kernel's lane for good: nothing is left that the lock protects, whatever thread says that it has it.
    fn is_over(end: &End) -> bool;

    /// The lock was taken from somebody who died, or jumped away, in the middle of whatever it was.
    fn interrupted(end: &End);

    /// Goes on without the lock's owner, wherever that is; `seen` is what was in the lock.
    fn fence_off(end: &End, seen: Content) -> FencedOff;
}

/// A lock of an end, until this is dropped. A function that has this must not wait, except [`Guard::apart`].
#[must_use]
pub(crate) struct Guard<'a, S: Side> {
    end: &'a End,
    held: Held<'static>,
    side: PhantomData<S>,
}

impl<S: Side> Deref for Guard<'_, S> {
    type Target = End;

    #[inline]
    fn deref(&self) -> &End {
        self.end
    }
}

impl<'a, S: Side> Guard<'a, S> {
    /// An owner that does not let go is fenced off. `nonblocking`: for a call that does not wait.
    #[inline]
    pub(super) fn take(end: &'a End, nonblocking: bool) -> Self {
        Self::take_free(end).unwrap_or_else(|| Self::take_slowly(end, nonblocking))
    }

    /// The same, from those who have it, or are [`Guard::apart`] with it.
    #[cold]
    #[inline(never)]
    fn take_slowly(end: &'a End, nonblocking: bool) -> Self {
        let lock = S::lock(end.entry);
        let take = || {
            let taken = lock.lock.take_at_once(|| S::interrupted(end));
            let taken = taken.unwrap_or_else(|| wait_for_lock::<S>(end, nonblocking));
            Self::with(end, Held::new(&lock.lock, taken))
        };
        let mut held = take();
        let since = kernel::monotonic_ns();
        while lock.is_kept() {
            drop(held);
            if !lock.wait_for_keeper(since) {
                // What it has read, or was about to write, nobody else has.
                give_up(end);
            }
            held = take();
        }
        held
    }

    /// With the lock, which has been taken already.
    #[inline]
    pub(crate) const fn with(end: &'a End, held: Held<'static>) -> Self {
        Self { end, held, side: PhantomData }
    }

    /// Only if nobody has it, or is [`Guard::apart`] with it.
    #[inline]
    pub(super) fn take_free(end: &'a End) -> Option<Self> {
        let lock = S::lock(end.entry);
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

    /// See [`lock::Lock::is_urgent`].
    pub(crate) fn is_urgent(&self) -> bool {
        self.held.lock().is_urgent()
    }

    /// See [`lock::Lock::call`].
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

    /// The lock of the other side of the same end, after this one.
    pub(super) fn then<T: Side>(&self) -> Guard<'a, T> {
        Guard::take(self.end, false)
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

    /// What must wait, or read a file, between two things of which nothing of another thread's may come: the lock is let go, and
    /// who takes it meanwhile waits, asleep, until this is over. With signals blocked: a handler that uses this socket would
    /// wait for itself. `None`, and nothing is done: somebody has fenced this thread off.
    #[cold]
    pub(crate) fn apart<T>(&self, wait: impl FnOnce() -> T) -> Option<T> {
        let lock = S::lock(self.end.entry);
        let mask = kernel::block_signals();
        let keeping = lock.keep(&self.held);
        let result = (keeping != Keeping::FencedOff).then(wait);
        if keeping == Keeping::Kept {
            self.take_again();
            lock.let_go();
        }
        kernel::restore_signals(mask);
        result
    }
}

fn give_up(end: &End) {
    // Otherwise this process has nothing to do with it any more.
    if end.descriptor().is_some() {
        transitions::give_up(end, Reason::Stopped);
    }
}

/// The lock for the usual short call, and only if nobody has it: what was put into the lock's word is known when it is released.
#[inline(always)]
pub(crate) fn with_free<S: Side, T>(pipe: &Pipe, act: impl FnOnce(&Guard<'_, S>) -> T) -> Option<T> {
    let end_lock = S::lock(pipe.entry);
    let lock = &end_lock.lock;
    let mine = lock.take_free(lock::thread())?;
    let held = ManuallyDrop::new(Guard::with(pipe, Held::new(lock, Taken::Ours)));
    let result = (!end_lock.is_kept()).then(|| act(&held));
    lock.give_back(mine);
    result
}

#[cold]
#[inline(never)]
fn wait_for_lock<S: Side>(end: &End, nonblocking: bool) -> Taken {
    for _ in 0..MOST_ROUNDS {
        if S::is_over(end) {
            return Taken::Nested;
        }
        match S::lock(end.entry).lock.take_after(nonblocking, || S::interrupted(end)) {
            Taken::Not(seen) => match S::fence_off(end, seen) {
                FencedOff::Taken | FencedOff::Owing => return Taken::Ours,
                FencedOff::InCall => break,
                FencedOff::Not => {}
            },
            taken => return taken,
        }
    }
    give_up(end);
    Taken::Nested
}
