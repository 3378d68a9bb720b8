//! poll, select and epoll.

use std::ptr;

use libc::c_int;

use super::{Answer, call};

/// One descriptor's entry for [`poll`].
pub(crate) fn entry(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: -1 }
}

pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: c_int) -> Answer {
    call!(libc::poll(entries.as_mut_ptr(), entries.len() as _, timeout))
}

/// Polls one descriptor; returns the events, 0 for none.
#[track_caller]
pub(crate) fn poll_one(fd: i32, events: i16, timeout: c_int) -> i16 {
    let mut entries = [entry(fd, events)];
    let count = poll(&mut entries, timeout).expect("poll");
    assert_eq!(count, usize::from(entries[0].revents != 0));
    entries[0].revents
}

/// The events of a descriptor now.
#[track_caller]
pub(crate) fn events(fd: i32, events: i16) -> i16 {
    poll_one(fd, events, 0)
}

/// A set of descriptors for select.
#[derive(Clone)]
pub(crate) struct Set(libc::fd_set);

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..libc::FD_SETSIZE as i32).filter(|&fd| self.has(fd))).finish()
    }
}

impl Set {
    pub(crate) fn of(fds: &[i32]) -> Self {
        // SAFETY: all zeroes is the empty set.
        let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
        for &fd in fds {
            assert!((fd as usize) < libc::FD_SETSIZE);
            // SAFETY: checked against the size of the set.
            unsafe { libc::FD_SET(fd, &mut set) };
        }
        Self(set)
    }

    pub(crate) fn has(&self, fd: i32) -> bool {
        // SAFETY: callers pass small descriptors.
        unsafe { libc::FD_ISSET(fd, &self.0) }
    }

    pub(crate) fn pointer(&mut self) -> *mut libc::fd_set {
        &raw mut self.0
    }
}

/// select with a time-out in milliseconds, -1 for none.
pub(crate) fn select(
    read: Option<&mut Set>,
    write: Option<&mut Set>,
    except: Option<&mut Set>,
    milliseconds: i64,
) -> Answer {
    let mut time = libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 };
    let time = if milliseconds < 0 { ptr::null_mut() } else { &raw mut time };
    call!(libc::select(
        libc::FD_SETSIZE as c_int,
        read.map_or(ptr::null_mut(), Set::pointer),
        write.map_or(ptr::null_mut(), Set::pointer),
        except.map_or(ptr::null_mut(), Set::pointer),
        time
    ))
}

pub(crate) fn epoll() -> i32 {
    call!(libc::epoll_create1(libc::EPOLL_CLOEXEC)).expect("epoll_create1") as i32
}

pub(crate) fn control(set: i32, operation: c_int, fd: i32, events: c_int, data: u64) -> Answer {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    call!(libc::epoll_ctl(set, operation, fd, &mut event))
}

/// Registers `fd` with its own number as data.
#[track_caller]
pub(crate) fn add(set: i32, fd: i32, events: c_int) {
    control(set, libc::EPOLL_CTL_ADD, fd, events, fd as u64).expect("EPOLL_CTL_ADD");
}

#[track_caller]
pub(crate) fn modify(set: i32, fd: i32, events: c_int) {
    control(set, libc::EPOLL_CTL_MOD, fd, events, fd as u64).expect("EPOLL_CTL_MOD");
}

#[track_caller]
pub(crate) fn delete(set: i32, fd: i32) {
    control(set, libc::EPOLL_CTL_DEL, fd, 0, 0).expect("EPOLL_CTL_DEL");
}

/// epoll_wait: pairs of events and data.
pub(crate) fn epoll_wait(set: i32, most: usize, timeout: c_int) -> Answer<Vec<(c_int, u64)>> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; most];
    let count = call!(libc::epoll_wait(set, events.as_mut_ptr(), most as c_int, timeout))?;
    Ok(events[..count].iter().map(|event| (event.events as c_int, event.u64)).collect())
}

/// What is ready in the set, sorted by data.
#[track_caller]
pub(crate) fn ready(set: i32, timeout: c_int) -> Vec<(c_int, u64)> {
    let mut events = epoll_wait(set, 256, timeout).expect("epoll_wait");
    events.sort_by_key(|&(_, data)| data);
    events
}
