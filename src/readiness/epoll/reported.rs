//! What a wait reports to the program, in the order in which it came. Under the set's lock.

use crate::pipe::meeting::registered;
use crate::state::registrations::flags::{IDLE_ONE, RegFlags};
use crate::state::socket_table::Registration;
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLONESHOT, epoll_event};
use sockshim_ring::publish_time::PublishTime;

/// Events that are put in order: those that one wait finds of many more say little about one another.
pub(crate) const MOST: usize = 32;

/// When what is reported came.
pub(super) type PublishTimes = [Option<PublishTime>; MOST];

/// The program's array, and what is in it.
pub(super) struct Reported<'a> {
    out: &'a mut [epoll_event],
    pub(super) count: usize,
    /// One that is ready for every other waiter too, because it is level-triggered.
    pub(super) level: Option<u32>,
    /// When each of them came; `None`: there is only one connection to report.
    publish_times: Option<&'a mut PublishTimes>,
}

impl<'a> Reported<'a> {
    #[inline(always)]
    pub(super) fn new(out: &'a mut [epoll_event], publish_times: Option<&'a mut PublishTimes>) -> Self {
        Self { out, count: 0, level: None, publish_times }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.out.len()
    }

    /// Whether it is put in order.
    #[inline(always)]
    pub(super) fn is_ordered(&self) -> bool {
        self.publish_times.is_some()
    }

    /// When the last of what is reported came; `None` if nobody knows.
    pub(super) fn latest(&self) -> Option<PublishTime> {
        self.publish_times.as_ref()?[self.count.min(MOST).checked_sub(1)?]
    }

    /// Reports a descriptor that is the kernel's own, behind all that is reported already.
    pub(super) fn add_foreign(&mut self, event: epoll_event) {
        if let Some(publish_times) = self.publish_times.as_mut()
            && self.count < MOST
        {
            publish_times[self.count] = self.count.checked_sub(1).and_then(|before| publish_times[before]);
        }
        self.out[self.count] = event;
        self.count += 1;
    }

    /// The event at `place`, which the kernel has put there and nothing has overwritten.
    pub(super) fn said(&self, place: usize) -> epoll_event {
        debug_assert!(place >= self.count, "it is reported already");
        self.out[place]
    }

    /// Tells of a registration, before those which came up later.
    #[inline(always)]
    pub(super) fn add(&mut self, index: u32, registration: &Registration, ready: u32) {
        let place = if self.publish_times.is_some() { self.make_place(registration) } else { self.count };
        self.out[place] = epoll_event { events: ready, u64: registration.data.load(Ordering::Relaxed) };
        self.count += 1;
        registration.flags.keep(!RegFlags::FRESH.bits() & (IDLE_ONE - 1), Ordering::Relaxed);
        let events = registration.events.load(Ordering::Relaxed);
        if events & EPOLLONESHOT as u32 != 0 {
            registration.flags.set(RegFlags::DISABLED, Ordering::Relaxed);
        } else if events & EPOLLET as u32 == 0 {
            self.level = Some(index);
        }
    }

    /// Where it belongs, with those that came up later moved on.
    #[inline(never)]
    fn make_place(&mut self, registration: &Registration) -> usize {
        let mut place = self.count;
        let Some(publish_times) = self.publish_times.as_mut().filter(|_| place < MOST) else { return place };
        let time = first_publish_time(registration);
        while let (Some(time), Some(before)) = (time, place.checked_sub(1))
            && publish_times[before].is_some_and(|other| time.is_before(other))
        {
            publish_times[place] = publish_times[before];
            self.out[place] = self.out[before];
            place = before;
        }
        // Of an end, or of the kernel's bytes, the time is not known: it stays behind what was found before it.
        publish_times[place] = time.or_else(|| publish_times[place.checked_sub(1)?]);
        place
    }
}

/// When the bytes came that a registration's pipe has unread.
pub(super) fn first_publish_time(registration: &Registration) -> Option<PublishTime> {
    if registration.flags.load(Ordering::Relaxed).intersects(RegFlags::NESTED | RegFlags::FOREIGN) {
        return None;
    }
    registered::pipe_of(registration)?.incoming().first_publish_time()
}
