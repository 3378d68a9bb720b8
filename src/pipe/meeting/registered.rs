//! Registrations of a connection with epoll sets, where they need its pipe.

use crate::pipe::connection::{self, Pipe};
use crate::state::Socket;
use crate::state::descriptor_table::Descriptor;
use crate::state::registrations::flags::{IDLE_ONE, RegFlags};
use crate::state::registrations::{SetHeld, exchange, hot, kernel_event, of_socket, open_set};
use crate::state::socket_table::{self, Registration};
use core::sync::atomic::Ordering;
use libc::EPOLLOUT;

/// The pipe of a registration, if it still has one.
pub(crate) fn pipe_of(registration: &Registration) -> Option<Pipe> {
    let socket = Socket {
        slot: registration.slot.load(Ordering::Relaxed),
        generation: registration.generation.load(Ordering::Relaxed),
    };
    let entry = socket.entry()?;
    connection::reading_pipe(registration.fd.load(Ordering::Relaxed), socket, entry)
}

/// Makes a registration hot: every wait in the set looks at it.
pub(crate) fn activate(set: &SetHeld<'_>, index: u32) {
    let registration = set.registration(index);
    if !hot::append(set, index).intersects(RegFlags::HOT | RegFlags::NESTED | RegFlags::FOREIGN)
        && let Some(pipe) = pipe_of(registration)
    {
        pipe.incoming().want_order();
        note(registration, &pipe);
    }
    registration.flags.keep(IDLE_ONE - 1, Ordering::Relaxed);
}

/// A registration that turns hot: what its pipe has by now the kernel has reported.
pub(crate) fn note(registration: &Registration, pipe: &Pipe) {
    registration.noted.store(tail(pipe), Ordering::Release);
}

/// How far the writer of a ring is: the low half, which is all that two looks are compared by.
pub(crate) fn tail(pipe: &Pipe) -> u32 {
    pipe.incoming().producer.tail.load(Ordering::Acquire) as u32
}

/// The registrations of a socket that comes onto a pipe become managed. False when one cannot be reached.
pub(crate) fn upgrade(pipe: &Pipe) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    for (index, registration, slot) in of_socket(socket_table, pipe.entry) {
        let Some(set) = open_set(socket_table, slot) else { return false };
        let Some(set) = set.lock() else { return false };
        let target = registration.fd.load(Ordering::Relaxed);
        let events = registration.events.load(Ordering::Relaxed);
        let event = kernel_event(&set, index, events, Descriptor::Socket(pipe.socket));
        // Before the kernel can report with our tag.
        set.managed.fetch_add(1, Ordering::Release);
        let result = exchange(set.fd, target, events, &event);
        if result.is_ok() {
            // Whether the kernel has reported what is unread to the program cannot be known: it is reported (again).
            let mut flags = RegFlags::MANAGED | RegFlags::FRESH;
            if events & EPOLLOUT as u32 != 0 {
                flags |= RegFlags::ASKS_ROOM;
            }
            if events & libc::EPOLLONESHOT as u32 != 0 {
                // The program is about to say that it wants the next one: see `waits_for_rearm`.
                flags |= RegFlags::DISABLED;
            }
            registration.flags.set(flags, Ordering::Relaxed);
            activate(&set, index);
        } else {
            set.managed.fetch_sub(1, Ordering::Release);
            return false;
        }
    }
    true
}
