//! Waiting for a word of shared memory, and waking who does (futex(2)).
//!
//! # Safety
//! The kernel checks the pointers that it gets, and writes nothing through them.

use super::raw::{self, Word};
use super::scratch::{self, Plain, Scratch};
use super::{kernel, raw::outcome};
use crate::error::Errno;
use core::ffi::c_int;
use core::sync::atomic::AtomicU32;

/// `struct futex_waitv` of linux/futex.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

// SAFETY: integers.
unsafe impl Plain for Waiter {}

impl Waiter {
    const NONE: Self = Self { value: 0, address: 0, flags: 0, reserved: 0 };

    fn new(word: &AtomicU32, value: u32) -> Self {
        let address = core::ptr::from_ref(word).expose_provenance() as u64;
        Self { value: value.into(), address, flags: FUTEX_32, reserved: 0 }
    }
}

/// The word has 32 bits, and may be another process's too.
const FUTEX_32: u32 = 2;

/// Waits while `word` is `value`, for so many nanoseconds at most. By futex_waitv(2), because it goes on after a signal
/// handler with SA_RESTART, as recv(2) does; the older call with a time-out does not.
///
/// # Errors
/// EAGAIN: it has another value. EINTR, ETIMEDOUT. ENOSYS before Linux 5.16.
pub(crate) fn wait(word: &AtomicU32, value: u32, nanoseconds: u64) -> Result<(), Errno> {
    wait_for(&[Waiter::new(word, value)], nanoseconds)
}

fn wait_for(waiters: &[Waiter], nanoseconds: u64) -> Result<(), Errno> {
    let end = kernel::timespec(kernel::monotonic_ns().saturating_add(nanoseconds));
    let arguments =
        [waiters.as_ptr().word(), waiters.len(), 0, (&raw const end).word(), libc::CLOCK_MONOTONIC.word()];
    let [a, b, c, d, e] = arguments;
    // SAFETY: see the module; both live across the call.
    outcome(unsafe { raw::syscall5(libc::SYS_futex_waitv, a, b, c, d, e) }).map(drop)
}

/// Words to wait for together: a few lie here, many in a piece of memory for what is too large for a stack.
pub(crate) struct Words {
    few: [Waiter; FEW],
    many: Option<Scratch>,
    count: usize,
}

const FEW: usize = 12;
/// As many as the kernel takes (FUTEX_WAITV_MAX of linux/futex.h).
pub(crate) const MOST: usize = 128;
const _: () = assert!(MOST * size_of::<Waiter>() <= scratch::SIZE);

impl Words {
    pub(crate) const fn new() -> Self {
        Self { few: [Waiter::NONE; FEW], many: None, count: 0 }
    }

    /// One more, which has that value. False: there is no place for it.
    pub(crate) fn add(&mut self, word: &AtomicU32, value: u32) -> bool {
        if self.count == FEW && self.many.is_none() {
            self.many = Scratch::take();
            if let Some(many) = &mut self.many {
                many.of()[..FEW].copy_from_slice(&self.few);
            }
        }
        let places = match &mut self.many {
            Some(many) => &mut many.of()[..MOST],
            None => &mut self.few[..],
        };
        let place = places.get_mut(self.count);
        self.count += usize::from(place.is_some());
        place.map(|place| *place = Waiter::new(word, value)).is_some()
    }

    /// Waits while all of them are as they were, for so many nanoseconds at most.
    ///
    /// # Errors
    /// As for [`wait`]. EINVAL where there are no words.
    pub(crate) fn wait(&mut self, nanoseconds: u64) -> Result<(), Errno> {
        match &mut self.many {
            Some(many) => wait_for(&many.of()[..self.count], nanoseconds),
            None => wait_for(&self.few[..self.count], nanoseconds),
        }
    }
}

/// Sleeps so many nanoseconds. Not by nanosleep(2): a filter of the program's knows futex, which libc's locks use.
///
/// # Errors
/// EINTR, after a signal handler. ETIMEDOUT, when the time is over.
pub(crate) fn sleep(nanoseconds: u64) -> Result<(), Errno> {
    /// Nobody wakes a thread that waits here.
    static NOBODY: AtomicU32 = AtomicU32::new(0);
    let time = kernel::timespec(nanoseconds);
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG).word();
    let place = NOBODY.as_ptr().word();
    // SAFETY: see the module; both live across the call.
    outcome(unsafe { raw::syscall4(libc::SYS_futex, place, operation, 0, (&raw const time).word()) })
        .map(drop)
}

/// The same by the older call, which every kernel has, for a wait that is none of the program's: a handler ends it, and that
/// is no matter. For a part of a larger word.
///
/// # Errors
/// As for [`wait`].
pub(crate) fn pause(place: *const u32, value: u32, nanoseconds: u64) -> Result<(), Errno> {
    let time = kernel::timespec(nanoseconds);
    let arguments = [place.word(), libc::FUTEX_WAIT.word(), value as usize, (&raw const time).word()];
    let [a, b, c, d] = arguments;
    // SAFETY: see the module; `time` lives across the call.
    outcome(unsafe { raw::syscall4(libc::SYS_futex, a, b, c, d) }).map(drop)
}

/// Wakes all who wait for `word`, in every process.
pub(crate) fn wake(word: &AtomicU32) {
    let _ = wake_some(core::ptr::from_ref(word).cast(), c_int::MAX);
}

/// Wakes one of those who [`pause`] at `place`, and says whether there was one.
pub(crate) fn wake_one(place: *const u32) -> bool {
    wake_some(place, 1).is_ok_and(|woken| woken > 0)
}

fn wake_some(place: *const u32, most: c_int) -> Result<usize, Errno> {
    // SAFETY: see the module.
    outcome(unsafe { raw::syscall3(libc::SYS_futex, place.word(), libc::FUTEX_WAKE.word(), most.word()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering;

    #[test]
    fn who_waits_is_woken() {
        let word = AtomicU32::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                while word.load(Ordering::SeqCst) == 1 {
                    match wait(&word, 1, u64::MAX >> 1) {
                        Ok(()) | Err(Errno(libc::EAGAIN)) => {}
                        Err(Errno(libc::ENOSYS)) => return eprintln!("SKIPPED: no futex_waitv here"),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
            word.store(2, Ordering::SeqCst);
            while !waiting.is_finished() {
                wake(&word);
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn one_of_several_words_is_enough() {
        let words = [const { AtomicU32::new(1) }; 3];
        let all = || {
            let mut all = Words::new();
            assert!(words.iter().all(|word| all.add(word, 1)));
            all
        };
        let result = all().wait(1000);
        assert!(matches!(result, Err(Errno(libc::ETIMEDOUT | libc::ENOSYS))), "{result:?}");
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| while let Ok(()) | Err(Errno(libc::EINTR)) = all().wait(u64::MAX >> 1) {});
            words[2].store(2, Ordering::SeqCst);
            while !waiting.is_finished() {
                wake(&words[2]);
                std::thread::yield_now();
            }
        });
        let result = all().wait(u64::MAX >> 1);
        assert!(matches!(result, Err(Errno(libc::EAGAIN | libc::ENOSYS))), "{result:?}");
    }

    #[test]
    fn there_is_no_place_for_too_many_words() {
        let word = AtomicU32::new(1);
        let mut words = Words::new();
        assert_eq!((0..=MOST).filter(|_| words.add(&word, 1)).count(), MOST);
    }

    #[test]
    fn another_value_is_not_waited_for() {
        let word = AtomicU32::new(1);
        let result = wait(&word, 2, 0);
        assert!(matches!(result, Err(Errno(libc::EAGAIN | libc::ENOSYS))), "{result:?}");
    }

    #[test]
    fn time_is_over_sooner_or_later() {
        let word = AtomicU32::new(1);
        let result = wait(&word, 1, 1000);
        assert!(matches!(result, Err(Errno(libc::ETIMEDOUT | libc::ENOSYS))), "{result:?}");
    }
}
