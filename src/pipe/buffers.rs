//! The program's buffers: scattering ring bytes into them and gathering them into the ring.
//!
//! # Safety
//! A buffer is what the program passed to read or write. Addresses that no program can own are refused with
//! EFAULT beforehand; what else is wrong with a buffer shows as a fault inside the copy, before anything
//! was published, exactly as if the program had touched the buffer itself (docs/compatibility.md).

use crate::error::Errno;
use libc::iovec;
use sockshim_ring::ring::Span;

/// First address that no program owns on x86-64 (and a safe one elsewhere).
const USER_END: usize = 0x7fff_ffff_f000;
/// The kernel moves at most this much in one call (read(2)).
pub(crate) const MOST: usize = 0x7fff_f000;

/// Number of bytes in all buffers.
///
/// # Errors
/// EINVAL when the lengths add up to more than SSIZE_MAX, EFAULT for an address that no program can own.
#[inline]
pub(crate) fn total(buffers: &[iovec]) -> Result<usize, Errno> {
    let mut sum = 0usize;
    for buffer in buffers {
        sum = sum.checked_add(buffer.iov_len).filter(|sum| *sum <= isize::MAX as usize).ok_or(Errno(libc::EINVAL))?;
        let start = buffer.iov_base as usize;
        if buffer.iov_len > 0 && (start < 4096 || start.checked_add(buffer.iov_len).is_none_or(|end| end > USER_END)) {
            // Only a length that the kernel would really use counts against the address space.
            if start < 4096 || start.saturating_add(buffer.iov_len.min(MOST)) > USER_END {
                return Err(Errno(libc::EFAULT));
            }
        }
    }
    Ok(sum.min(MOST))
}

/// Calls `each(address, length, done)` for the pieces of `buffers` after `skip` bytes, `count` bytes in all.
#[inline]
fn pieces(buffers: &[iovec], mut skip: usize, count: usize, mut each: impl FnMut(*mut u8, usize, usize)) {
    let mut done = 0;
    for buffer in buffers {
        if done == count {
            break;
        }
        if skip >= buffer.iov_len {
            skip -= buffer.iov_len;
            continue;
        }
        let length = (buffer.iov_len - skip).min(count - done);
        each(buffer.iov_base.cast::<u8>().wrapping_add(skip), length, done);
        skip = 0;
        done += length;
    }
}

/// Copies the first `count` bytes of `span` of the ring at `ring` into the buffers, after `skip` bytes.
///
/// # Safety
/// `ring` has at least `span.capacity` bytes; the buffers are the program's.
#[inline]
pub(crate) unsafe fn scatter(ring: *const u8, span: Span, buffers: &[iovec], skip: usize, count: usize) {
    pieces(buffers, skip, count, |to, length, done| {
        let [first, second] = span.pieces(done, length);
        // SAFETY: `Span::pieces` stays within the capacity; the other side is the program's buffer.
        unsafe {
            core::ptr::copy_nonoverlapping(ring.add(first.0), to, first.1);
            if second.1 > 0 {
                core::ptr::copy_nonoverlapping(ring.add(second.0), to.add(first.1), second.1);
            }
        }
    });
}

/// Copies `count` bytes of the buffers, after `skip` bytes, into `span` of the ring at `ring`.
///
/// # Safety
/// `ring` has at least `span.capacity` bytes; the buffers are the program's.
#[inline]
pub(crate) unsafe fn gather(ring: *mut u8, span: Span, buffers: &[iovec], skip: usize, count: usize) {
    pieces(buffers, skip, count, |from, length, done| {
        let [first, second] = span.pieces(done, length);
        // SAFETY: `Span::pieces` stays within the capacity; the other side is the program's buffer.
        unsafe {
            core::ptr::copy_nonoverlapping(from, ring.add(first.0), first.1);
            if second.1 > 0 {
                core::ptr::copy_nonoverlapping(from.add(first.1), ring.add(second.0), second.1);
            }
        }
    });
}

/// Buffers for the kernel: what is left after `skip` bytes, at most `limit` bytes of it. At most `MOST_PIECES`
/// pieces; a short transfer is always legal on a stream.
pub(crate) struct Rest {
    pieces: [iovec; MOST_PIECES],
    used: usize,
}

const MOST_PIECES: usize = 64;

impl Rest {
    pub(crate) fn after(buffers: &[iovec], skip: usize, limit: usize) -> Self {
        let empty = iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
        let mut rest = Self { pieces: [empty; MOST_PIECES], used: 0 };
        let whole: usize = buffers.iter().fold(0usize, |sum, buffer| sum.saturating_add(buffer.iov_len));
        pieces(buffers, skip, whole.saturating_sub(skip).min(limit), |address, length, _| {
            if rest.used < MOST_PIECES {
                rest.pieces[rest.used] = iovec { iov_base: address.cast(), iov_len: length };
                rest.used += 1;
            }
        });
        rest
    }

    /// Bytes in these buffers.
    pub(crate) fn length(&self) -> usize {
        self.pieces[..self.used].iter().map(|piece| piece.iov_len).sum()
    }

    /// A message of these buffers.
    pub(crate) fn message(&mut self) -> libc::msghdr {
        // SAFETY: an all-zero msghdr is a valid value.
        let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
        message.msg_iov = self.pieces.as_mut_ptr();
        message.msg_iovlen = self.used;
        message
    }
}

#[cfg(test)]
mod tests;
