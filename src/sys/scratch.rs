//! Memory for what is too large for a stack. A program may call us on a stack of a page, as it may call the kernel: a
//! thread that `clone` made, a coroutine, a signal handler.
//!
//! A few pages of static memory are lent out without a lock, so that it works in a signal handler; when all of them are
//! out, a page is mapped. No allocation.

use super::kernel;
use core::cell::UnsafeCell;
use core::mem::align_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a piece.
pub(crate) const SIZE: usize = 4096;
const PIECES: usize = 8;

/// Static memory for scratch space.
#[repr(C, align(4096))]
struct Pages([UnsafeCell<[u8; SIZE]>; PIECES]);
// SAFETY: a page is used by whoever has set its bit in `LENT`.
unsafe impl Sync for Pages {}

static PAGES: Pages = Pages([const { UnsafeCell::new([0; SIZE]) }; PIECES]);
/// A bit for each page that is lent out. Who never comes back (a cancelled thread, `siglongjmp` out of a handler, the other
/// threads of a process that forks) keeps it: then there are fewer.
static LENT: AtomicU32 = AtomicU32::new(0);

/// A piece of memory; what is in it is anything.
#[derive(Debug)]
pub(crate) struct Scratch {
    place: NonNull<u8>,
    size: usize,
    /// The page's number, or [`PIECES`]: it is mapped.
    piece: usize,
}

// SAFETY: nobody else has the memory.
unsafe impl Send for Scratch {}
// SAFETY: shared references only read it.
unsafe impl Sync for Scratch {}

/// What may lie in a piece: plain data, for which every bit pattern is a value.
///
/// # Safety
/// Every bit pattern is a value of the type.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers, and structures of them.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: a structure of integers, without padding.
unsafe impl Plain for libc::pollfd {}

impl Scratch {
    /// A piece of [`SIZE`] bytes. `None`: there is no memory.
    pub(crate) fn take() -> Option<Self> {
        let mut lent = LENT.load(Ordering::Relaxed);
        while lent.trailing_ones() < PIECES as u32 {
            let piece = lent.trailing_ones();
            match LENT.compare_exchange(lent, lent | 1 << piece, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    let place = NonNull::new(PAGES.0[piece as usize % PIECES].get().cast())?;
                    return Some(Self { place, size: SIZE, piece: piece as usize });
                }
                Err(now) => lent = now,
            }
        }
        Self::map(SIZE)
    }

    /// Lends at least so many bytes.
    pub(crate) fn with(size: usize) -> Option<Self> {
        if size > SIZE { Self::map(size) } else { Self::take() }
    }

    fn map(size: usize) -> Option<Self> {
        let place = kernel::map_anonymous(size, core::ptr::null_mut(), false).ok()?;
        Some(Self { place: NonNull::new(place)?, size, piece: PIECES })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes, which are ours.
        unsafe { core::slice::from_raw_parts(self.place.as_ptr(), self.size) }
    }

    /// The whole piece, as a slice of `T`.
    pub(crate) fn of<T: Plain>(&mut self) -> &mut [T] {
        const { assert!(align_of::<T>() <= SIZE) };
        // SAFETY: so many bytes, on a page boundary, which are ours; `Plain` says that any of them are a value.
        unsafe { core::slice::from_raw_parts_mut(self.place.as_ptr().cast(), self.size / size_of::<T>()) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.piece < PIECES {
            LENT.fetch_and(!(1 << self.piece), Ordering::Release);
        } else {
            kernel::unmap(self.place.as_ptr(), self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_another_has() {
        let mut all: Vec<Scratch> = (0..2 * PIECES).map(|_| Scratch::take().expect("memory")).collect();
        for (number, piece) in all.iter_mut().enumerate() {
            piece.of::<u8>().fill(number as u8);
        }
        for (number, piece) in all.iter().enumerate() {
            assert!(piece.bytes().iter().all(|byte| *byte == number as u8));
        }
    }

    #[test]
    fn threads_give_back_what_they_take() {
        std::thread::scope(|scope| {
            for mark in 0..4u64 {
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        let mut piece = Scratch::take().expect("memory");
                        piece.of::<u64>()[0] = mark;
                        std::hint::spin_loop();
                        assert_eq!(piece.of::<u64>()[0], mark);
                    }
                });
            }
        });
    }
}
