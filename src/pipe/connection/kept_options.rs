//! Socket options whose kernel value is ours while a lane is open, and what the program believes of them.
//!
//! Two bits of [`Entry::options`] for each option, under the write lock:
//!
//! | mark | value | the kernel has | entered by | left by |
//! |---|---|---|---|---|
//! | 0 | any | what the program says | [`restore`] and its relatives | [`prepare`], before a ring opens |
//! | 1 | 0 or 1: what the program says | our value | [`prepare`]; setsockopt changes the value alone | [`restore`]; Nagle's algorithm begins |

use crate::pipe::connection::write_lock::WriteHeld;
use crate::state::socket_table::Entry;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// A TCP option whose kernel value may be ours.
pub(crate) struct Kept {
    pub(crate) name: c_int,
    /// The kernel's value while it is.
    ours: c_int,
    /// Bits of [`Entry::options`]: that it is, and what the program believes.
    pub(crate) mark: u32,
    pub(crate) value: u32,
}

pub(crate) const NODELAY: Kept = Kept { name: libc::TCP_NODELAY, ours: 1, mark: 1, value: 2 };

const CORK: Kept = Kept { name: libc::TCP_CORK, ours: 0, mark: 4, value: 8 };

impl Kept {
    pub(crate) fn of(level: c_int, name: c_int) -> Option<Self> {
        [NODELAY, CORK].into_iter().find(|option| level == libc::IPPROTO_TCP && option.name == name)
    }

    fn set(&self, fd: c_int, value: c_int) {
        let _ = kernel::set_sockopt(fd, libc::IPPROTO_TCP, self.name, &value);
    }

    fn take(&self, held: &WriteHeld<'_>) {
        let (fd, entry) = (held.fd, held.entry);
        if entry.options.load(Ordering::Relaxed) & self.mark != 0 {
            return;
        }
        let value = kernel::sockopt(fd, libc::IPPROTO_TCP, self.name, 0 as c_int).unwrap_or(0);
        if (value != 0) != (self.ours != 0) {
            self.set(fd, self.ours);
        }
        entry.options.fetch_and(!self.value, Ordering::Relaxed);
        entry.options.fetch_or(self.mark | if value != 0 { self.value } else { 0 }, Ordering::AcqRel);
    }

    fn give_back(&self, held: &WriteHeld<'_>) {
        let (fd, entry) = (held.fd, held.entry);
        let before = entry.options.fetch_and(!self.mark, Ordering::AcqRel);
        if before & self.mark != 0 {
            self.set(fd, c_int::from(before & self.value != 0));
        }
    }
}

/// Puts the kernel's options right for doorbells.
pub(crate) fn prepare(held: &WriteHeld<'_>) {
    CORK.take(held);
    NODELAY.take(held);
}

/// Gives the program's values back to the kernel, where somebody else may look for them.
pub(crate) fn restore(held: &WriteHeld<'_>) {
    NODELAY.give_back(held);
    CORK.give_back(held);
}

/// The same for a connection whose writes go on in this process family: Nagle's algorithm begins after the next one.
pub(crate) fn restore_for_writes(held: &WriteHeld<'_>) {
    if held.entry.options.load(Ordering::Relaxed) & NODELAY.value != 0 {
        NODELAY.give_back(held);
    }
    CORK.give_back(held);
}

/// Whether Nagle's algorithm is to begin after a write.
#[inline]
pub(crate) fn is_nagle_due(entry: &Entry) -> bool {
    entry.options.load(Ordering::Relaxed) & (NODELAY.mark | CORK.mark) == NODELAY.mark
}

/// After a write in the kernel's lane, when Nagle's algorithm is due; not as long as a cork or MSG_MORE holds it.
pub(crate) fn begin_nagle(held: &WriteHeld<'_>) {
    if is_nagle_due(held.entry) && kernel::unsent(held.fd) == Ok(0) {
        NODELAY.give_back(held);
    }
}

/// Sends what the kernel holds back because of MSG_MORE: what follows may take the other lane.
pub(crate) fn push(fd: c_int, entry: &Entry) {
    if entry.options.load(Ordering::Relaxed) & CORK.mark != 0 {
        NODELAY.set(fd, 1);
    }
}

/// What getsockopt answers for an option that is kept, or `None` for the kernel to answer.
pub(crate) fn kept(entry: &Entry, level: c_int, name: c_int) -> Option<c_int> {
    let option = Kept::of(level, name)?;
    let options = entry.options.load(Ordering::Acquire);
    (options & option.mark != 0).then(|| c_int::from(options & option.value != 0))
}
