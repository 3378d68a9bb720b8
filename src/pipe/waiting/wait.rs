//! A reader waits: it spins, waits on the futex, sleeps in the kernel.

use crate::error::Errno;
use crate::pipe::connection::{Pipe, incoming_doorbells, transitions};
use crate::pipe::ending;
use crate::pipe::handoff::give_back;
use crate::pipe::lanes::unread;
use crate::pipe::waiting::{events, spin, timed_wait};
use crate::state::flags::SocketFlags;
use crate::state::lock::{self};
use crate::state::reason::Reason;
use crate::state::socket_table::{self, Entry};
use crate::state::trace;
use crate::sys::deadline::Deadline;
use crate::sys::handlers::Since;
use crate::sys::{kernel, real};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;

/// Whether the time-out of a read that has slept before is over: it is one for the whole call. False before the
/// first sleep, which the kernel ends in time.
pub(crate) fn is_late(pipe: &Pipe, deadline: &mut Option<Deadline>) -> bool {
    if !pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::TIMED) {
        return false;
    }
    match deadline {
        None => {
            *deadline = Some(Deadline::after(kernel::receive_timeout(pipe.fd)));
            false
        }
        Some(end) => end.left() == Some(0),
    }
}

/// Waits until it is worth looking again (`None`), or the kernel has said how it ends.
pub(crate) fn wait(pipe: &Pipe, flags: c_int, epoch: u32, since: Since) -> Result<Option<()>, Errno> {
    if pipe.entry.pending_error.load(Ordering::Relaxed) != 0 {
        let error = pipe.entry.pending_error.swap(0, Ordering::AcqRel);
        return ending::after_error(pipe, Errno(error)).map(Some);
    }
    if flags & libc::MSG_DONTWAIT != 0 {
        return look_at_kernel(pipe);
    }
    if pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NONBLOCK) {
        if kernel::is_nonblocking(pipe.fd) {
            return look_at_kernel(pipe);
        }
        pipe.entry.flags.clear(SocketFlags::NONBLOCK, Ordering::Relaxed);
    }
    if spin::for_reader(pipe, epoch) {
        return Ok(None);
    }
    if timed_wait::for_reader(pipe, epoch, since)? {
        return Ok(None);
    }
    sleep(pipe, epoch, since)
}

/// Whether a signal handler has run that would have ended recv(2), had the call been in the kernel by then (signal(7)).
pub(crate) fn is_interrupted(entry: &Entry, since: Since) -> bool {
    since.ends_io(entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::TIMED))
}

/// Whether a plain read of this socket would wait.
pub(crate) fn would_wait(fd: c_int, flags: c_int) -> bool {
    flags & libc::MSG_DONTWAIT == 0
        && !kernel::is_nonblocking(fd)
        && kernel::poll_now(fd, libc::POLLIN | libc::POLLRDHUP) == 0
}

/// Before EAGAIN is returned, the kernel is asked once: the other end may be dead.
fn look_at_kernel(pipe: &Pipe) -> Result<Option<()>, Errno> {
    settle(pipe);
    let mut byte = 0u8;
    match kernel::recv(pipe.fd, &raw mut byte, 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
        Ok(0) => ending::at_end(pipe).map(Some),
        Ok(_) if incoming_doorbells::find_intruder(pipe) => Ok(None),
        // A doorbell, whose bytes somebody has read.
        Ok(_) if incoming_doorbells::is_quiet(pipe) => Err(Errno(libc::EAGAIN)),
        // The ring's bytes, or the kernel lane's.
        Ok(_) => Ok(None),
        Err(Errno(libc::EAGAIN))
            if pipe.incoming().has_bytes() && is_ring(pipe.incoming().reader_epoch()) =>
        {
            Ok(None)
        }
        Err(Errno(libc::EAGAIN)) => Err(Errno(libc::EAGAIN)),
        Err(error) => ending::after_error(pipe, error).map(Some),
    }
}

/// Sleeps in the kernel's own recv: it gives SA_RESTART, SO_RCVTIMEO and cancellation for nothing.
fn sleep(pipe: &Pipe, epoch: u32, since: Since) -> Result<Option<()>, Errno> {
    let entry = pipe.entry;
    let incoming = pipe.incoming();
    settle(pipe);
    let me = lock::thread();
    let place = socket_table::enroll(&entry.sleepers, me);
    incoming_doorbells::want_doorbell(pipe);
    let changed = incoming.epoch() != epoch || unread::has_bytes_next(pipe) || give_back::is_due(pipe);
    if changed || !pipe.is_mapped() || transitions::is_broken(pipe) {
        socket_table::leave(&entry.sleepers, place, me);
        return Ok(None);
    }
    socket_table::add(&entry.counters.sleeps, 1);
    trace::note(pipe.fd, entry);
    if is_interrupted(entry, since) {
        socket_table::leave(&entry.sleepers, place, me);
        return Err(Errno(libc::EINTR));
    }
    if kernel::is_strict(me) {
        // A recv would kill the process, and a read take what it wakes for.
        socket_table::leave(&entry.sleepers, place, me);
        (0..1000).for_each(|_| core::hint::spin_loop());
        return Ok(None);
    }
    let mut byte = 0u8;
    // SAFETY: `byte` is writable. A thread cancelled in here leaves its place among the sleepers, from which
    // it is reaped; nothing else is held.
    let received = unsafe { real::recv(pipe.fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
    let errno = Errno::last();
    socket_table::leave(&entry.sleepers, place, me);
    let Some(pipe) = pipe.live() else {
        // Closed meanwhile: only the kernel's call still had the socket.
        return match received {
            0 => Ok(Some(())),
            1.. => Err(Errno(libc::EBADF)),
            _ => Err(errno),
        };
    };
    match received {
        _ if transitions::is_broken(&pipe) => Ok(None),
        1.. => {
            incoming_doorbells::find_intruder(&pipe);
            Ok(None)
        }
        0 => ending::at_end(&pipe).map(Some),
        _ if errno.0 == libc::EINTR || errno.0 == libc::EAGAIN => {
            if incoming.has_bytes() && is_ring(incoming.reader_epoch()) { Ok(None) } else { Err(errno) }
        }
        _ => ending::after_error(&pipe, errno).map(Some),
    }
}

/// MSG_PEEK with MSG_WAITALL: until so many bytes are there, in whatever lane, or no more can come, or a signal does.
pub(crate) fn wait_for_all(pipe: &Pipe, wanted: usize, flags: c_int, since: Since) {
    let until = Deadline::after(kernel::receive_timeout(pipe.fd));
    let has_come = || {
        let queued = kernel::queued(pipe.fd).unwrap_or(0) as c_int;
        events::check_queue(pipe.fd, pipe.socket, queued);
        unread::unread(pipe.socket, queued) as usize >= wanted || transitions::is_broken(pipe)
    };
    let nonblocking = flags & libc::MSG_DONTWAIT != 0 || kernel::is_nonblocking(pipe.fd);
    while !has_come()
        && !nonblocking
        && !since.has_any()
        && until.left() != Some(0)
        && kernel::poll_now(pipe.fd, libc::POLLRDHUP) == 0
        && kernel::sleep_us(200)
    {}
}

/// Takes waiting doorbells out of the kernel's queue once the ring is empty.
///
/// Somebody may rely on such a doorbell without having looked yet: another sleeper, or a cold registration whose
/// event the kernel drops with the byte. So the need-wakeup flag for a doorbell is renewed first; then only as many doorbells are
/// taken as there were before it, and a young one stays.
pub(crate) fn settle(pipe: &Pipe) {
    give_back::look(pipe);
    if incoming_doorbells::doorbells_waiting(pipe) == 0 {
        return;
    }
    let held = pipe.lock_reads();
    let incoming = held.incoming();
    let mut read_past_us = false;
    let settles = held.is_first() && incoming_doorbells::is_quiet(&held);
    if settles {
        let waiting = incoming_doorbells::doorbells_waiting(pipe);
        if incoming_doorbells::is_relied_on(pipe) {
            incoming.want_doorbell();
        }
        // A signal handler that reads from this socket must not take what is counted here.
        let mask = kernel::block_signals();
        if incoming_doorbells::is_quiet(pipe) {
            let waiting = waiting.min(incoming_doorbells::doorbells_waiting(pipe)) as usize;
            // One may be on its way; or somebody who knows nothing of doorbells has taken it for data.
            read_past_us = incoming_doorbells::discard(&held, waiting) < waiting
                && incoming_doorbells::is_read_past_us(&held);
        }
        kernel::restore_signals(mask);
    }
    drop(held);
    if read_past_us {
        transitions::give_up(pipe, Reason::Integrity);
    } else if settles {
        // What comes behind a doorbell the kernel may have reported together with it.
        incoming_doorbells::find_intruder(pipe);
    }
}
