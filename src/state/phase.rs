//! Whether the library has started in this process.

use core::sync::atomic::{AtomicU8, Ordering};

/// 0: not started; 1: being started by some thread; 2: ready.
static PHASE: AtomicU8 = AtomicU8::new(0);

/// Whether the tables can be used. Before, every call goes to the kernel.
#[inline]
pub(crate) fn is_ready() -> bool {
    PHASE.load(Ordering::Acquire) == 2
}

/// Whether nobody has begun to start it.
#[inline]
pub(crate) fn is_new() -> bool {
    PHASE.load(Ordering::Acquire) == 0
}

/// This thread starts it; false: another one does.
pub(crate) fn begin() -> bool {
    PHASE.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// The tables can be used from now on.
pub(crate) fn be_ready() {
    PHASE.store(2, Ordering::Release);
}
