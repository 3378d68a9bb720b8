//! Cancellation points (pthreads(7)).
//!
//! Where a call ends in the kernel's own, libc sees to it. What the ring answers must ask for itself, or a thread
//! whose connection always has bytes could never be cancelled.
//!
//! # Safety
//! The unwinding passes through our frames: none above a call of [`point`] has anything to drop, or a lock.

/// Ends this thread here if it was cancelled.
#[inline]
pub(crate) fn point() {
    unsafe extern "C-unwind" {
        fn pthread_testcancel();
    }
    // SAFETY: always allowed.
    unsafe { pthread_testcancel() };
}
