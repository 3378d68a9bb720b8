//! Atomics, from the standard library or, under `--cfg loom`, from the model checker.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A full barrier directly after a sequentially consistent read-modify-write.
///
/// On x86 a locked instruction already is one, and an `mfence` on top would cost more than the whole
/// publication; the model checker needs a real fence.
#[inline(always)]
pub fn fence_after_rmw() {
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}
