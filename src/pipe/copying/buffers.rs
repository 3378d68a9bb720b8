//! The program's buffers: scattering ring bytes into them and gathering them into the ring.
//!
//! # Safety
//! A buffer is what the program passed to read or write. It is looked at before it is used ([`total`],
//! [`good`]), and a fault that comes all the same happens before anything was published, as if the program
//! had touched the buffer itself (docs/compatibility.md).

use crate::error::Errno;
use crate::pipe::copying::bulk;
use crate::sys::{alarm, probe};
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::iovec;
use sockshim_ring::ring::Span;

/// First address that no program owns on x86-64.
const USER_END: usize = 0x7fff_ffff_f000;

/// The kernel moves at most this much in one call (read(2)).
pub(crate) const MOST: usize = 0x7fff_f000;

/// Number of bytes in all buffers.
///
/// # Errors
/// EINVAL for a length above SSIZE_MAX, EFAULT for an address that no program can own (import_iovec in the
/// kernel's lib/iov_iter.c).
#[inline]
pub(crate) fn total(buffers: &[iovec]) -> Result<usize, Errno> {
    let mut sum = 0usize;
    for buffer in buffers {
        if buffer.iov_len > isize::MAX as usize {
            return Err(Errno(libc::EINVAL));
        }
        if !is_in_reach(buffer.iov_base.cast(), buffer.iov_len) {
            return Err(Errno(libc::EFAULT));
        }
        sum = sum.saturating_add(buffer.iov_len);
    }
    Ok(sum.min(MOST))
}

/// Whether a program can own `length` bytes at `start`.
#[inline]
pub(crate) fn is_in_reach(start: *const u8, length: usize) -> bool {
    (start as usize).saturating_add(length) <= USER_END
}

/// How many bytes from the start of the buffers can be copied without a fault.
///
/// A page that was seen good is remembered, so the usual cost is one look into a small table; only the first
/// use of a page asks the kernel, for all that are not known at once (`sys::probe`: what it brings in, the copy would have
/// brought in). So a bad pointer gives EFAULT, and a buffer that runs into bad memory a short count, as with the
/// kernel. What is left: memory that was good once and has been unmapped since is a SIGSEGV in the copy.
#[inline]
pub(crate) fn good(buffers: &[iovec], skip: usize, count: usize, write: bool) -> usize {
    let mut good = 0;
    let mut bad = false;
    pieces(buffers, skip, count, |address, length, _| {
        if !bad {
            let usable = good_piece(address as usize, length, write);
            good += usable;
            bad = usable < length;
        }
    });
    good
}

/// Whether the program's `length` bytes at `start` can be read, or written; see [`good`].
#[inline]
pub(crate) fn is_good<T>(start: *const T, length: usize, write: bool) -> bool {
    // The usual case: all in a page that was seen good, and so is in reach.
    let known = is_known(start as usize >> 12, write);
    (known && length <= 4096 - start as usize % 4096) || is_good_after_all(start as usize, length, write)
}

#[inline(never)]
fn is_good_after_all(start: usize, length: usize, write: bool) -> bool {
    start.checked_add(length).is_some_and(|end| end <= USER_END)
        && (length == 0 || good_piece(start, length, write) == length)
}

fn good_piece(start: usize, length: usize, write: bool) -> usize {
    let (mut page, last) = (start >> 12, (start + length - 1) >> 12);
    // How many pages are asked for at once: one, after several were not all good.
    let mut most = usize::MAX;
    loop {
        let unknown = (page..=last).take(most).take_while(|page| !is_known(*page, write)).count();
        if unknown > 0 {
            if !probe::is_accessible(page << 12, unknown << 12, write) {
                if unknown == 1 {
                    return (page << 12).saturating_sub(start);
                }
                most = 1;
                continue;
            }
            (page..page + unknown).for_each(|page| remember(page, write));
        }
        page += unknown.max(1);
        if page > last {
            return length;
        }
    }
}

/// What is remembered of a good page: 0 is an empty place.
#[inline]
fn mark(page: usize, write: bool) -> usize {
    (page + 1) << 1 | usize::from(write)
}

/// Whether a page was seen good. What can be written can be read.
#[inline]
fn is_known(page: usize, write: bool) -> bool {
    let seen = place(page).load(Ordering::Relaxed);
    if write { seen == mark(page, true) } else { seen | 1 == mark(page, true) }
}

fn remember(page: usize, write: bool) {
    place(page).store(mark(page, write), Ordering::Relaxed);
}

/// Where a page is remembered. Threads have their stacks and heaps at multiples of some megabytes, and use the same pages of
/// them: the higher bits keep these apart.
#[inline(always)]
fn place(page: usize) -> &'static AtomicUsize {
    &GOOD_PAGES[(page ^ page >> 12) % GOOD_PAGES.len()]
}

/// Pages that were seen good: number and kind of access.
static GOOD_PAGES: [AtomicUsize; 4096] = [const { AtomicUsize::new(0) }; 4096];

/// Number of bytes in all buffers, whose addresses are not used.
pub(crate) fn length(buffers: &[iovec]) -> usize {
    buffers.iter().fold(0usize, |sum, buffer| sum.saturating_add(buffer.iov_len)).min(MOST)
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

/// A stretch of a ring, which may go round its end: place and length of both pieces. See [`Span::pieces`].
type Pieces = [(usize, usize); 2];

/// Copies out of the ring at `ring`.
///
/// # Safety
/// The ring has the pieces, and `to` room for both.
#[inline(always)]
pub(crate) unsafe fn from_ring(ring: *const u8, [first, second]: Pieces, to: *mut u8) {
    // SAFETY: the caller's ring and room.
    unsafe { core::ptr::copy_nonoverlapping(ring.wrapping_add(first.0), to, first.1) };
    if second.1 > 0 {
        let to = to.wrapping_add(first.1);
        // SAFETY: the caller's ring, and room for what follows the first piece.
        unsafe { core::ptr::copy_nonoverlapping(ring.wrapping_add(second.0), to, second.1) };
    }
}

/// Copies into the ring at `ring`, by `copy`.
///
/// # Safety
/// The ring has the pieces, and `from` as many bytes; `copy` is as `copy_nonoverlapping`.
#[inline(always)]
pub(crate) unsafe fn to_ring(
    from: *const u8,
    ring: *mut u8,
    [first, second]: Pieces,
    copy: unsafe fn(*const u8, *mut u8, usize),
) {
    // SAFETY: the caller's ring and bytes.
    unsafe { copy(from, ring.wrapping_add(first.0), first.1) };
    if second.1 > 0 {
        // SAFETY: the caller's ring, and the bytes that follow the first piece.
        unsafe { copy(from.wrapping_add(first.1), ring.wrapping_add(second.0), second.1) };
    }
}

/// Copies the first `count` bytes of `span` of the ring at `ring` into the buffers, after `skip` bytes.
///
/// # Safety
/// `ring` has at least `span.capacity` bytes; the buffers are the program's.
#[inline]
pub(crate) unsafe fn scatter(ring: *const u8, span: Span, buffers: &[iovec], skip: usize, count: usize) {
    pieces(buffers, skip, count, |to, length, done| {
        // SAFETY: the caller's ring; so many bytes of its buffer lie there.
        unsafe { from_ring(ring, span.pieces(done, length), to) };
    });
}

/// Copies `count` bytes of the buffers, after `skip` bytes, into `span` of the ring at `ring`; `past` the cache.
///
/// # Safety
/// `ring` has at least `span.capacity` bytes; the buffers are the program's.
#[inline]
pub(crate) unsafe fn gather(
    ring: *mut u8,
    span: Span,
    buffers: &[iovec],
    skip: usize,
    count: usize,
    past: bool,
) {
    alarm::rehearse();
    pieces(buffers, skip, count, |from, length, done| {
        let copy = if past { bulk::copy_past } else { bulk::copy };
        // SAFETY: the caller's ring; so many bytes of its buffer lie there.
        unsafe { to_ring(from, ring, span.pieces(done, length), copy) };
    });
}

/// Buffers for the kernel: what is left after `skip` bytes, at most `limit` bytes of it. At most `MOST_PIECES`
/// pieces; a short transfer is always legal on a stream.
pub(crate) struct Rest<'a> {
    /// All of the program's buffers, when nothing is left out: no piece of them is lost.
    whole: Option<&'a [iovec]>,
    pieces: [iovec; MOST_PIECES],
    used: usize,
}

const MOST_PIECES: usize = 8;

impl<'a> Rest<'a> {
    pub(crate) fn after(buffers: &'a [iovec], skip: usize, limit: usize) -> Self {
        let empty = iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
        let mut rest = Self { whole: None, pieces: [empty; MOST_PIECES], used: 0 };
        let whole: usize = buffers.iter().fold(0usize, |sum, buffer| sum.saturating_add(buffer.iov_len));
        if skip == 0 && limit >= whole {
            rest.whole = Some(buffers);
            return rest;
        }
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
        let all = self.whole.unwrap_or(&self.pieces[..self.used]);
        all.iter().fold(0usize, |sum, piece| sum.saturating_add(piece.iov_len))
    }

    /// The first piece that has room.
    pub(crate) fn first(&self) -> Option<iovec> {
        self.whole.unwrap_or(&self.pieces[..self.used]).iter().find(|piece| piece.iov_len > 0).copied()
    }

    /// A message of these buffers.
    pub(crate) fn message(&mut self) -> libc::msghdr {
        // SAFETY: an all-zero msghdr is a valid value.
        let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = match self.whole {
            Some(all) => (all.as_ptr().cast_mut(), all.len()),
            None => (self.pieces.as_mut_ptr(), self.used),
        };
        message
    }
}

#[cfg(test)]
mod tests;
