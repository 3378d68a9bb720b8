//! An epoll set at work: where it is, and its lock.

use super::lock;
use crate::state::lock::Taken;
use crate::state::socket_table::{REGISTRATIONS, Registration, SetEntry, SocketTable};
use core::ffi::c_int;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};

/// An epoll set that this process has open.
#[derive(Clone, Copy)]
pub(crate) struct OpenSet<'a> {
    /// What it and its registrations are in.
    pub(crate) table: &'a SocketTable,
    /// A descriptor of it.
    pub(crate) fd: c_int,
    entry: &'a SetEntry,
}

impl<'a> OpenSet<'a> {
    /// The set at `slot` of the table.
    #[inline]
    pub(crate) fn new(table: &'a SocketTable, fd: c_int, slot: u32) -> Self {
        Self { table, fd, entry: table.set(slot) }
    }

    /// The lock of its lists; `None`: its owner does not let go, and the lists are nobody's (see `readiness::epoll::stuck`).
    #[inline]
    pub(crate) fn lock(&self) -> Option<SetHeld<'_>> {
        match lock::take(self.entry) {
            Taken::Not(_) => None,
            taken => Some(SetHeld { set: self, taken }),
        }
    }

    /// Where it is in the table.
    pub(crate) fn slot(&self) -> u32 {
        self.entry.slot.load(Ordering::Relaxed)
    }

    /// Whether a registration is one of this set's.
    pub(crate) fn has(&self, registration: &Registration) -> bool {
        registration.set.load(Ordering::Relaxed) == self.slot().wrapping_add(1)
    }

    pub(crate) fn registration(&self, index: u32) -> &'a Registration {
        self.table.registration(index)
    }

    /// Its registrations, each with its index. The links are shared memory: no walk is longer than all that there can be.
    #[inline]
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &'a Registration)> + use<'a> {
        self.walk(&self.entry.first, |registration| &registration.next)
    }

    /// Those that every wait looks at.
    #[inline]
    pub(crate) fn hot_ones(&self) -> impl Iterator<Item = (u32, &'a Registration)> + use<'a> {
        self.walk(&self.entry.hot, |registration| &registration.next_hot)
    }

    /// Those of a list, which begins with `first` and goes on with the `link` of each.
    #[inline]
    fn walk<F: Fn(&Registration) -> &AtomicU32>(
        &self,
        first: &AtomicU32,
        link: F,
    ) -> impl Iterator<Item = (u32, &'a Registration)> + use<'a, F> {
        let (table, mut next) = (self.table, first.load(Ordering::Acquire));
        let step = move || {
            let index = next.checked_sub(1)?;
            let registration = table.registration(index);
            next = link(registration).load(Ordering::Relaxed);
            Some((index, registration))
        };
        core::iter::from_fn(step).take(REGISTRATIONS)
    }
}

impl Deref for OpenSet<'_> {
    type Target = SetEntry;

    #[inline]
    fn deref(&self) -> &SetEntry {
        self.entry
    }
}

/// The lock of a set, until this is dropped: its lists are this thread's to change.
#[must_use]
pub(crate) struct SetHeld<'a> {
    set: &'a OpenSet<'a>,
    taken: Taken,
}

impl SetHeld<'_> {
    /// Whether no call that a signal interrupted has it, too, perhaps in the middle of a walk over the lists.
    #[inline]
    pub(crate) fn is_first(&self) -> bool {
        self.taken == Taken::Ours
    }
}

impl<'a> Deref for SetHeld<'a> {
    type Target = OpenSet<'a>;

    #[inline]
    fn deref(&self) -> &OpenSet<'a> {
        self.set
    }
}

impl Drop for SetHeld<'_> {
    #[inline]
    fn drop(&mut self) {
        self.set.entry.lock.release(self.taken);
    }
}
