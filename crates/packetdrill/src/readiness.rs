//! poll(2) and epoll(7): level-triggered, edge-triggered and one-shot.

use core::time::Duration;
use std::collections::BTreeMap;

use libc::{c_int, epoll_event, pollfd};

use crate::errno::{Answer, Errno};
use crate::session::{Patience, SESSION};
use crate::world::{Descriptor, Kind, World};

/// Events that are always reported, even if they were not asked for.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;

/// An epoll set.
#[derive(Debug, Default)]
pub(crate) struct Set {
    members: BTreeMap<c_int, Member>,
}

#[derive(Debug)]
struct Member {
    events: u32,
    data: u64,
    /// Something has happened since it was last reported.
    fresh: bool,
}

impl Set {
    /// Something has happened to a socket.
    pub(crate) fn touch(&mut self, fd: c_int) {
        if let Some(member) = self.members.get_mut(&fd) {
            member.fresh = true;
        }
    }

    pub(crate) fn forget(&mut self, fd: c_int) {
        self.members.remove(&fd);
    }
}

fn patience(timeout_ms: c_int) -> Patience {
    match u64::try_from(timeout_ms) {
        Ok(0) => Patience::None,
        Ok(ms) => Patience::For(Duration::from_millis(ms)),
        Err(_) => Patience::Forever,
    }
}

/// poll(2). Its bits are epoll's.
pub(crate) fn poll(descriptors: &mut [pollfd], timeout: c_int) -> Answer<c_int> {
    let answer = SESSION.wait(
        |_| patience(timeout),
        |world| {
            let mut ready = 0;
            for descriptor in &mut *descriptors {
                let wanted = u32::from(descriptor.events as u16) | ALWAYS;
                let now = match world.readiness(descriptor.fd) {
                    _ if descriptor.fd < 0 => 0,
                    Ok(now) => now & wanted,
                    Err(_) => u32::from(libc::POLLNVAL as u16),
                };
                descriptor.revents = now as i16;
                ready += c_int::from(now != 0);
            }
            if ready > 0 { Ok(ready) } else { Err(Errno::EAGAIN) }
        },
    );
    quiet(answer)
}

/// epoll_wait(2).
pub(crate) fn epoll_wait(set: c_int, events: &mut [epoll_event], timeout: c_int) -> Answer<c_int> {
    quiet(SESSION.wait(|_| patience(timeout), |world| world.report(set, events)))
}

/// Nothing happened in time, which is no error.
fn quiet(answer: Answer<c_int>) -> Answer<c_int> {
    if answer == Err(Errno::EAGAIN) { Ok(0) } else { answer }
}

impl World {
    pub(crate) fn epoll_create(&mut self, size: c_int) -> Answer<c_int> {
        if size <= 0 {
            return Err(Errno::EINVAL);
        }
        self.install(Descriptor::new(Kind::Set(Set::default())))
    }

    pub(crate) fn epoll_ctl(
        &mut self,
        set: c_int,
        operation: c_int,
        fd: c_int,
        event: Option<epoll_event>,
    ) -> Answer<c_int> {
        self.descriptor(fd)?;
        let Kind::Set(set) = &mut self.descriptor(set)?.kind else { return Err(Errno::EINVAL) };
        if operation == libc::EPOLL_CTL_DEL {
            return set.members.remove(&fd).map(|_| 0).ok_or(Errno::ENOENT);
        }
        let event = event.ok_or(Errno::EFAULT)?;
        let member = Member { events: event.events, data: event.u64, fresh: true };
        match (operation, set.members.contains_key(&fd)) {
            (libc::EPOLL_CTL_ADD, true) => return Err(Errno::EEXIST),
            (libc::EPOLL_CTL_MOD, false) => return Err(Errno::ENOENT),
            (libc::EPOLL_CTL_ADD, false) | (libc::EPOLL_CTL_MOD, true) => set.members.insert(fd, member),
            _ => return Err(Errno::EINVAL),
        };
        Ok(0)
    }

    /// The events of a set that are due; EAGAIN when there are none.
    fn report(&mut self, set: c_int, events: &mut [epoll_event]) -> Answer<c_int> {
        let Kind::Set(it) = &self.descriptor(set)?.kind else { return Err(Errno::EINVAL) };
        let due: Vec<c_int> = it
            .members
            .iter()
            .filter(|(_, member)| member.events & EDGE == 0 || member.fresh)
            .map(|(fd, _)| *fd)
            .collect();
        let mut count = 0;
        for fd in due {
            let ready = self.readiness(fd)?;
            let Kind::Set(it) = &mut self.descriptor(set)?.kind else { return Err(Errno::EINVAL) };
            let Some(member) = it.members.get_mut(&fd) else { continue };
            // One-shot members that were reported have no event left, not even those that nobody asks for.
            let now =
                if member.events & !(EDGE | ONE_SHOT) == 0 { 0 } else { ready & (member.events | ALWAYS) };
            let Some(slot) = events.get_mut(count).filter(|_| now != 0) else { continue };
            *slot = epoll_event { events: now, u64: member.data };
            member.fresh = false;
            if member.events & ONE_SHOT != 0 {
                member.events &= EDGE | ONE_SHOT;
            }
            count += 1;
        }
        if count > 0 { Ok(count as c_int) } else { Err(Errno::EAGAIN) }
    }
}
