//! select(2) and pselect(2), by way of poll.

use super::poll;
use crate::error::Errno;
use crate::pipe::copying::buffers;
use crate::pipe::meeting::descriptor;
use crate::state::descriptor_table::Descriptor;
use crate::sys::deadline::Deadline;
use crate::sys::kernel;
use core::ffi::c_int;
use libc::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND, POLLWRNORM,
    pollfd, sigset_t,
};

/// The three sets of a call, as words of bits: longer than `fd_set` where the program made them longer.
#[derive(Clone, Copy)]
pub(crate) struct Sets {
    pub(crate) read: *mut u64,
    pub(crate) write: *mut u64,
    pub(crate) except: *mut u64,
}

/// What the kernel's select means by each set (fs/select.c).
const IN: i16 = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
const OUT: i16 = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
const EXCEPT: i16 = POLLPRI;

fn has(set: *const u64, fd: c_int) -> bool {
    // SAFETY: the program's set has at least `nfds` bits, and `fd` is below.
    !set.is_null() && unsafe { set.wrapping_add(fd as usize / 64).read() } >> (fd % 64) & 1 == 1
}

impl Sets {
    fn asked(&self, fd: c_int) -> i16 {
        let mut events = 0;
        if has(self.read, fd) {
            events |= POLLIN | POLLRDNORM | POLLRDBAND;
        }
        if has(self.write, fd) {
            events |= POLLOUT | POLLWRNORM | POLLWRBAND;
        }
        if has(self.except, fd) {
            events |= POLLPRI;
        }
        events
    }

    /// Whether the program's memory for the sets can be used.
    pub(crate) fn are_there(&self, nfds: c_int) -> bool {
        let bytes = (nfds.max(0) as usize).div_ceil(64) * 8;
        [self.read, self.write, self.except]
            .iter()
            .all(|set| set.is_null() || buffers::is_good(*set, bytes, true))
    }

    /// Whether any descriptor below `nfds` needs more than the kernel's own call.
    pub(crate) fn concern(&self, nfds: c_int) -> bool {
        (0..nfds).any(|fd| self.asked(fd) != 0 && descriptor::find(fd) != Descriptor::Host)
    }

    fn clear(&self, nfds: c_int) {
        for set in [self.read, self.write, self.except] {
            if !set.is_null() {
                for word in 0..(nfds as usize).div_ceil(64) {
                    // SAFETY: the program's set has at least `nfds` bits, in whole words.
                    unsafe { set.wrapping_add(word).write(0) };
                }
            }
        }
    }
}

fn put(set: *mut u64, fd: c_int) {
    // SAFETY: the program's set has at least `nfds` bits, and `fd` is below.
    unsafe { *set.wrapping_add(fd as usize / 64) |= 1 << (fd % 64) };
}

/// pselect(2).
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// The sets have at least `nfds` bits; `mask` is null or a signal mask.
pub(crate) unsafe fn select(
    nfds: c_int,
    sets: Sets,
    deadline: Deadline,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let count = (0..nfds).filter(|fd| sets.asked(*fd) != 0).count();
    let mut small = [pollfd { fd: -1, events: 0, revents: 0 }; poll::FEW];
    let bytes = count * size_of::<pollfd>();
    let mapped = if count > small.len() {
        Some(kernel::map_anonymous(bytes, core::ptr::null_mut(), false)?)
    } else {
        None
    };
    let entries = match mapped {
        // SAFETY: just mapped with that size; zeroed memory is a valid pollfd.
        Some(place) => unsafe { core::slice::from_raw_parts_mut(place.cast::<pollfd>(), count) },
        None => &mut small[..count],
    };
    for (entry, fd) in entries.iter_mut().zip((0..nfds).filter(|fd| sets.asked(*fd) != 0)) {
        *entry = pollfd { fd, events: sets.asked(fd), revents: 0 };
    }
    let result = loop {
        // SAFETY: the sets and the mask are the program's, as the caller says.
        let reported = unsafe { poll::poll(entries, deadline, mask) };
        match (reported, reported.and_then(|_| report(nfds, sets, entries))) {
            // Ends and errors wake poll, but are none of what these sets ask for: they do not wake select.
            (Ok(1..), Ok(0)) => {
                entries.iter_mut().filter(|entry| entry.revents != 0).for_each(|entry| entry.fd = -1);
            }
            (_, result) => break result,
        }
    };
    if let Some(place) = mapped {
        kernel::unmap(place, bytes);
    }
    result
}

/// Writes what is ready back into the program's sets; the number of bits.
fn report(nfds: c_int, sets: Sets, entries: &[pollfd]) -> Result<usize, Errno> {
    if entries.iter().any(|entry| entry.revents & POLLNVAL != 0) {
        return Err(Errno(libc::EBADF));
    }
    sets.clear(nfds);
    let mut bits = 0;
    for entry in entries {
        for (set, asked, means) in
            [(sets.read, POLLIN, IN), (sets.write, POLLOUT, OUT), (sets.except, POLLPRI, EXCEPT)]
        {
            if entry.events & asked != 0 && entry.revents & means != 0 {
                put(set, entry.fd);
                bits += 1;
            }
        }
    }
    Ok(bits)
}
