//! Room to write, as registrations hear of it: from the kernel, or from a ring that was full.

use crate::pipe::connection::Pipe;
use crate::pipe::meeting::registered;
use crate::pipe::waiting::room::{self, Room};
use crate::state::flags::SocketFlags;
use crate::state::registrations::flags::RegFlags;
use crate::state::socket_table::Registration;
use core::sync::atomic::Ordering;
use libc::{EPOLLET, EPOLLOUT};

/// Whether an edge of room must come from the kernel, which was not asked for it yet.
pub(super) fn waits_for_room(registration: &Registration, flags: RegFlags) -> bool {
    let wanted = registration.events.load(Ordering::Relaxed);
    let edge_of_room = (EPOLLOUT | EPOLLET) as u32;
    !flags.intersects(RegFlags::ASKS_ROOM | RegFlags::NESTED | RegFlags::FOREIGN)
        && wanted & edge_of_room == edge_of_room
        && registered::pipe_of(registration).is_some_and(|pipe| {
            pipe.entry.flags.load(Ordering::Relaxed) & (SocketFlags::NO_SPACE | SocketFlags::RING_FULL)
                == SocketFlags::NO_SPACE
        })
}

/// Whether room in the ring is waited for. Such a registration does not turn cold: it is looked at again after a while, whether
/// or not a doorbell has come.
pub(super) fn awaits_room(registration: &Registration) -> bool {
    registration.events.load(Ordering::Relaxed) & EPOLLOUT as u32 != 0
        && registered::pipe_of(registration)
            .is_some_and(|pipe| pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::RING_FULL))
}

/// An edge of room that the ring has to report, or must report because the reader stands still: as the kernel would report it.
#[cold]
#[inline(never)]
pub(super) fn news_of_room(pipe: &Pipe) -> u32 {
    match room::now(pipe) {
        Room::Some => room::forget(pipe),
        Room::GivenUp => {}
        Room::KernelSays | Room::Awaited => return 0,
    }
    EPOLLOUT as u32
}
