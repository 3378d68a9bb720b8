//! Timed waits, as src/pipe/waiting/timed_wait.rs; but a timed wait that nobody ends never ends, so that loom notices it.

use super::{End, Look};
#[cfg(loom)]
use loom::{sync::Condvar, sync::Mutex, thread};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::sleep::{DOORBELL, WAKE};
use sockshim_ring::sync::{AtomicU32, Ordering};
#[cfg(loom)]
use std::sync::Arc;
#[cfg(not(loom))]
use {std::sync::Condvar, std::sync::Mutex, std::thread};

/// The kernel's queue of those who wait for one word (futex(2)): it looks at the word under its lock.
pub(super) struct Futex {
    /// How many threads wait.
    queue: Mutex<usize>,
    woken: Condvar,
}

impl Futex {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(0), woken: Condvar::new() }
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        self.wait_while(|| word.load(Ordering::SeqCst) == value);
    }

    pub(super) fn wait_while(&self, is_unchanged: impl Fn() -> bool) {
        let mut queue = self.queue.lock().unwrap();
        if is_unchanged() {
            *queue += 1;
            drop(self.woken.wait(queue).unwrap());
        }
    }

    fn wake(&self) {
        *self.queue.lock().unwrap() = 0;
        self.woken.notify_all();
    }

    /// Whether there was one.
    #[cfg(loom)]
    pub(super) fn wake_one(&self) -> bool {
        let mut queue = self.queue.lock().unwrap();
        let some = *queue > 0;
        if some {
            *queue -= 1;
            self.woken.notify_one();
        }
        some
    }
}

impl End {
    pub(super) fn end_timed_waits(&self) {
        if self.direction.wake_due() {
            self.futex.wake();
        }
    }

    /// What is done for those who wait.
    pub(super) fn answer(&self, need_wakeup: u32) {
        if need_wakeup & WAKE != 0 {
            self.end_timed_waits();
        }
        if need_wakeup & DOORBELL != 0 {
            self.ring_if_wanted();
        }
    }

    /// True when it is worth looking again.
    fn timed_wait(&self, epoch: u32) -> bool {
        let direction = &self.direction;
        if !is_ring(epoch) {
            return false;
        }
        let flags = direction.want_wake();
        if direction.has_bytes() || direction.epoch() != epoch {
            // Everything else that this thread could wait for needs the others to run.
            thread::yield_now();
            return true;
        }
        if direction.is_closed() {
            return false;
        }
        self.futex.wait(&direction.sleep.asleep, flags);
        true
    }

    /// Two directions whose readers are one thread. Those who wait for the one word or the other are in one queue of the kernel's.
    #[cfg(loom)]
    pub(crate) fn two_on_rings() -> [Arc<Self>; 2] {
        let one = Self::on_ring();
        let mut other = Self::on_ring();
        Arc::get_mut(&mut other).unwrap().futex = one.futex.clone();
        [one, other]
    }

    /// A wait in an epoll set, as src/readiness/epoll/timed_wait.rs: has a timed wait on both until one of them has something.
    /// False: one of them is closed.
    #[cfg(loom)]
    pub(crate) fn timed_wait_on_both(ends: &[Arc<Self>; 2]) -> bool {
        let need_wakeup = ends.each_ref().map(|end| end.direction.want_wake());
        if ends.iter().any(|end| end.direction.is_closed()) {
            return false;
        }
        if !ends.iter().any(|end| end.direction.has_bytes()) {
            let is_unchanged =
                |(end, flags): (&Arc<Self>, u32)| end.direction.sleep.asleep.load(Ordering::SeqCst) == flags;
            ends[0].futex.wait_while(|| ends.iter().zip(need_wakeup).all(is_unchanged));
        }
        true
    }

    pub(crate) fn timed_wait_until_closed(&self) {
        while self.timed_wait(self.direction.epoch()) {}
    }

    /// A blocking read that waits on the futex where it can.
    pub(crate) fn receive_with_timed_waits(&self, count: usize, got: &mut Vec<u8>) {
        while got.len() < count {
            match self.take(1) {
                Look::Bytes(bytes) => got.extend(bytes),
                Look::Empty { epoch } if self.timed_wait(epoch) => {}
                Look::Empty { epoch } => self.sleep(epoch),
            }
        }
    }
}
