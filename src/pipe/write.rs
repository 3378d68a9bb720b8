//! Writing: the ring while it takes bytes, the kernel lane whenever it does not.
//!
//! A writer never sleeps on the ring: what does not fit after a short wait spills into the kernel, where
//! blocking, EAGAIN, EPOLLOUT, time-outs and 4 MB of buffering are the kernel's.

use super::buffers::{self, Rest};
use super::lanes::{enter_ring, note_peer, spill};
use super::{Pipe, back, bells, bulk, end, grow, nap, note_cpu, note_moment, options};
use crate::error::{Errno, answer};
use crate::readiness::Deadline;
use crate::registry::arena::{self, FLAG_NO_SPACE, FLAG_NONBLOCK, FLAG_SENT_IN_VAIN, FLAG_SHUT_WRITE};
use crate::registry::lock::{Around, Taken};
use crate::registry::{Socket, reason::Reason, trace};
use crate::sys::give_way::give_way;
use crate::sys::handlers::Since;
use crate::sys::restartable::Call;
use crate::sys::{clock, kernel, real, thread};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;
use sockshim_ring::lane::is_ring;
use sockshim_ring::layout::{Direction, END_LEFT, END_RESET};
use sockshim_ring::lock::Content;
use sockshim_ring::ring::NotPublished;
use sockshim_ring::sleep::{BELL, CALL};

/// Bytes between two publications of one long write: the reader starts while the writer copies.
const PUBLISH_EVERY: usize = 16 * 1024;
/// Microseconds without progress of the reader after which a full ring spills.
const PATIENCE_US: u64 = 200;
const PATIENCE_NONBLOCK_US: u64 = 20;

/// Looks for room between two times of giving way; none at all with the reader on the same processor.
const LOOKS_FOR_ROOM: u32 = 16;

/// Bytes of one write after which another writer that waits has its turn. The kernel takes about as many of a write as a
/// whole, before it waits for room and lets others in.
const TURN: usize = 1024 * 1024;
/// A write of less than the ring's size by this is not divided. The reader gives room back by the quarter.
const WHOLE: usize = 4;
/// Bytes of the rest of a longer one that are offered to the kernel before others may write.
const REST: usize = 64 * 1024;
/// Times that a lock is taken by others, or rewritten by a process that is not to be trusted.
pub(super) const MOST_ROUNDS: usize = 50;

/// Flags that the ring cannot serve: the kernel does, and the connection stays with it.
pub(crate) const KERNEL_FLAGS: c_int = libc::MSG_OOB | libc::MSG_ZEROCOPY;

/// The sending calls, on a pipe; `kernel` makes the call that the program made.
///
/// # Safety
/// `buffers` are the program's.
pub(crate) unsafe fn send(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    flags: c_int,
    kernel: impl FnOnce() -> isize,
) -> isize {
    let total = match buffers::total(buffers) {
        Ok(total) => total,
        Err(error) => return answer(Err(error)),
    };
    let began = Since::now();
    let nonblocking =
        flags & libc::MSG_DONTWAIT != 0 || pipe.entry.flags.load(Ordering::Relaxed) & FLAG_NONBLOCK != 0;
    let taken = lock_writes_as(fd, pipe, nonblocking);
    if total == 0 || !enter_ring(fd, pipe, taken) {
        // Counted, so that no lane opens meanwhile; and not locked, because it may sleep.
        let sent = through_kernel(fd, pipe, taken, total, || {
            if !began.has_any() || total == 0 {
                return kernel();
            }
            // SAFETY: the caller's promise.
            unsafe { send_interrupted(fd, buffers, total, 0, flags, began) }
        });
        if flags & libc::MSG_MORE != 0 && sent > 0 {
            options::push(fd, pipe.entry);
        }
        return sent;
    }
    let since = if total >= bulk::LONG { clock::ticks() } else { 0 };
    // SAFETY: the caller's promise.
    let pushed = unsafe { push(fd, pipe, buffers, total, nonblocking) };
    match pushed {
        Pushed::All => {
            if total >= bulk::LONG {
                bulk::learn(&pipe.local.bulk, total, clock::ticks().wrapping_sub(since));
            }
            pipe.entry.write_lock.0.release(taken);
            ring_if_owed(fd, pipe);
            total as isize
        }
        Pushed::Faulted(done) => {
            pipe.entry.write_lock.0.release(taken);
            ring_if_owed(fd, pipe);
            if done > 0 { done as isize } else { answer(Err(Errno(libc::EFAULT))) }
        }
        Pushed::Dead(error) => {
            pipe.entry.write_lock.0.release(taken);
            after_death(flags, error)
        }
        Pushed::Spilled(done) => {
            let is_begun = done > 0 && total - done <= REST;
            let first = || if is_begun { send_locked(fd, pipe, buffers, total, done, flags) } else { Ok(0) };
            let sent = through_kernel_after(fd, pipe, taken, total - done, first, |first| {
                let first = match first {
                    Ok(first) if done + first == total => return first as isize,
                    Ok(first) => first,
                    Err(error) => return answer(Err(error)),
                };
                // SAFETY: the caller's promise.
                let rest = unsafe {
                    match began.has_any() {
                        false => send_rest(fd, buffers, total, done + first, flags),
                        true => send_interrupted(fd, buffers, total, done + first, flags, began),
                    }
                };
                if first > 0 { first as isize + rest.max(0) } else { rest }
            });
            match sent {
                0.. => done as isize + sent,
                // What went into the ring has been written; the error will come again.
                _ if done > 0 => done as isize,
                _ => sent,
            }
        }
    }
}

/// What a write of `length` bytes tells that are in the ring, and whose bell has failed. Not under a lock.
#[cold]
pub(super) fn after_bell(fd: c_int, pipe: &Pipe, flags: c_int, length: usize, error: Errno) -> isize {
    if is_refusal(error) {
        ring_if_owed(fd, pipe);
        return length as isize;
    }
    after_death(flags, error)
}

/// What a write tells whose bell has found the connection dead. Not under a lock: a signal handler may not return.
#[cold]
fn after_death(flags: c_int, error: Errno) -> isize {
    if flags & libc::MSG_NOSIGNAL == 0 && error.0 == libc::EPIPE {
        kernel::raise_sigpipe();
    }
    answer(Err(error))
}

/// The rest of a write whose beginning is in the ring, as far as the kernel takes it without waiting. Under the write lock:
/// as in the kernel, what another thread writes at the same time comes before or behind a write, not into it, while there is
/// room.
#[cold]
#[inline(never)]
fn send_locked(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    total: usize,
    done: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    let mut rest = Rest::after(buffers, done, total - done);
    let message = rest.message();
    let flags = flags & !libc::MSG_MORE | libc::MSG_NOSIGNAL;
    // A signal handler that writes would find the lock's mark of a call set by what it interrupted.
    let mask = kernel::block_signals();
    let sent = pipe.entry.write_lock.0.call(&Call::send_message(fd, &message, flags));
    kernel::restore_signals(mask);
    match sent {
        // Without the lock, or without room: like everybody else.
        None | Some(Err(Errno(libc::EAGAIN))) => Ok(0),
        Some(sent) => sent,
    }
}

/// The rest of a write, by the kernel, which may sleep: libc's call, a cancellation point.
unsafe fn send_rest(fd: c_int, buffers: &[iovec], total: usize, done: usize, flags: c_int) -> isize {
    let mut at = done;
    let flags = flags & !libc::MSG_MORE;
    loop {
        let mut rest = Rest::after(buffers, at, total - at);
        let message = rest.message();
        let quiet = if at > 0 { libc::MSG_NOSIGNAL } else { 0 };
        // SAFETY: the message lives across the call; the buffers are the program's.
        let sent = unsafe { real::sendmsg(fd, &raw const message, flags | quiet) };
        if sent < 0 {
            return if at > done { (at - done) as isize } else { sent };
        }
        let offered: usize = rest.length();
        at += sent as usize;
        if at == total || (sent as usize) < offered {
            return (at - done) as isize;
        }
    }
}

/// The same after signal handlers have run in this call. It sends what there is room for, and does not wait for more: once it
/// has taken something, whatever the handlers' flags are, as the kernel's (`sk_stream_wait_memory`).
#[cold]
unsafe fn send_interrupted(
    fd: c_int,
    buffers: &[iovec],
    total: usize,
    done: usize,
    flags: c_int,
    since: Since,
) -> isize {
    // SAFETY: the caller's promise.
    let sent = unsafe { send_rest(fd, buffers, total, done, flags | libc::MSG_DONTWAIT) };
    if sent >= 0 || done > 0 || Errno::last().0 != libc::EAGAIN || flags & libc::MSG_DONTWAIT != 0 {
        return sent;
    }
    if is_interrupted(fd, since) {
        return answer(Err(Errno(libc::EINTR)));
    }
    // SAFETY: as above.
    unsafe { send_rest(fd, buffers, total, done, flags) }
}

/// Whether the kernel's send would wait, and a signal handler has run that would end it then.
#[cold]
pub(super) fn is_interrupted(fd: c_int, since: Since) -> bool {
    since.ends_io(kernel::has_send_timeout(fd))
        && !kernel::is_nonblocking(fd)
        && kernel::poll_now(fd, libc::POLLOUT) == 0
}

/// The write lock. An owner that does not let go is stepped around: the direction stays in the kernel lane from then on.
#[inline]
pub(crate) fn lock_writes(fd: c_int, pipe: &Pipe) -> Taken {
    lock_writes_as(fd, pipe, false)
}

/// The same; `nonblocking`: for a call that does not wait.
#[inline]
fn lock_writes_as(fd: c_int, pipe: &Pipe, nonblocking: bool) -> Taken {
    // A bell that somebody owed when he died: the next publication rings.
    let taken = pipe.entry.write_lock.0.take_at_once(|| pipe.outgoing().want_bell());
    taken.unwrap_or_else(|| wait_for_lock(fd, pipe, nonblocking))
}

#[cold]
#[inline(never)]
fn wait_for_lock(fd: c_int, pipe: &Pipe, nonblocking: bool) -> Taken {
    let lock = &pipe.entry.write_lock.0;
    let outgoing = pipe.outgoing();
    for _ in 0..MOST_ROUNDS {
        if outgoing.is_shut() && !is_ring(outgoing.epoch()) {
            // In the kernel's lane for good: nothing is left that the lock protects, whoever says that he has it.
            return Taken::Nested;
        }
        match lock.take_after(nonblocking, || outgoing.want_bell()) {
            Taken::Not(seen) => match step_around(fd, pipe, seen) {
                Around::Taken | Around::Owing => return Taken::Ours,
                Around::InCall => break,
                Around::Not => {}
            },
            taken => return taken,
        }
    }
    end::give_up(fd, pipe, Reason::Stopped);
    Taken::Nested
}

/// Goes on without the lock's owner, wherever that is: its publication fails, because the ring is closed;
/// it opens no ring any more, because the gate is shut; it rings no bell, because the lock is not its own; and if it
/// leaves the ring, it says what we say.
fn step_around(fd: c_int, pipe: &Pipe, seen: Content) -> Around {
    let outgoing = pipe.outgoing();
    outgoing.close();
    outgoing.shut();
    super::pin::mark_stopped(pipe);
    let around = pipe.entry.write_lock.0.step_around(seen);
    // What it has published may be news to a sleeper.
    if around == Around::Owing && is_ring(outgoing.epoch()) {
        outgoing.want_bell();
        let _ = ring_bell(fd, pipe);
    }
    around
}

/// Lets others write who wait for it, in the middle of a long write. False: this end is not in its ring any more.
#[cold]
fn take_turns(fd: c_int, pipe: &Pipe) -> bool {
    pipe.entry.write_lock.0.hand_over();
    let taken = lock_writes(fd, pipe);
    enter_ring(fd, pipe, taken)
}

/// What became of a write into the ring.
enum Pushed {
    All,
    /// So many bytes are in the ring, the kernel lane takes the rest.
    Spilled(usize),
    /// The bell found the connection dead.
    Dead(Errno),
    /// The program's buffer is bad after so many bytes.
    Faulted(usize),
}

/// Writes into the ring as long as it takes bytes. Under the write lock.
///
/// # Safety
/// `buffers` are the program's.
unsafe fn push(fd: c_int, pipe: &Pipe, buffers: &[iovec], total: usize, nonblocking: bool) -> Pushed {
    let outgoing = pipe.outgoing();
    let local = pipe.local;
    // Before the publication: afterwards the reader has the line.
    note_cpu(&outgoing.producer.cpu);
    let past = bulk::goes_past(pipe, total);
    let (mut done, mut turn) = (0, 0);
    loop {
        let mut seen = local.seen_head.load(Ordering::Relaxed);
        let chunk = (total - done).min(PUBLISH_EVERY);
        let Ok(span) = outgoing.writable(&mut seen, chunk) else {
            // A damaged ring: the kernel lane needs nothing from it.
            spill(fd, pipe);
            super::pin::mark(pipe, Reason::BadSegment);
            return Pushed::Spilled(done);
        };
        local.seen_head.store(seen, Ordering::Relaxed);
        if total - done > span.capacity as usize && grow::by_use(pipe) {
            continue;
        }
        // A short write goes one way as a whole: what another thread writes must not come into it.
        let is_short = total <= PUBLISH_EVERY.min(span.capacity as usize / WHOLE);
        let room = if is_short && span.length < total { 0 } else { span.length.min(chunk) };
        if room == 0 {
            if grow::by_use(pipe) || wait_for_room(pipe, seen, nonblocking) {
                continue;
            }
            spill(fd, pipe);
            return Pushed::Spilled(done);
        }
        // As in the kernel, a stretch that cannot be read as a whole is not sent in part.
        if buffers::good(buffers, done, room, false) < room {
            return Pushed::Faulted(done);
        }
        // SAFETY: the ring is as long as any checked capacity; the caller's promise.
        unsafe { buffers::gather(pipe.outgoing_ring(span.capacity), span, buffers, done, room, past) };
        note_moment(outgoing, span.position, room);
        match outgoing.publish(span.position, room) {
            Ok(()) => {}
            Err(NotPublished::Moved) => continue,
            Err(NotPublished::Closed) => {
                // The reader leaves; or a signal handler of this thread has spilled already; or we were stopped for
                // so long that another writer goes on without us.
                spill(fd, pipe);
                return Pushed::Spilled(done);
            }
        }
        done += room;
        arena::add(&pipe.entry.counters.sent, room as u64);
        if outgoing.wishes() != 0
            && let Err(error) = wake(fd, pipe)
            && !is_refusal(error)
            && done == room
        {
            return Pushed::Dead(error);
        }
        if done == total {
            return Pushed::All;
        }
        if done - turn >= TURN && pipe.entry.write_lock.0.is_wanted() {
            turn = done;
            if !take_turns(fd, pipe) {
                return Pushed::Spilled(done);
            }
        }
    }
}

/// Wakes whoever waits at the other end, once. Under the write lock.
pub(super) fn wake(fd: c_int, pipe: &Pipe) -> Result<(), Errno> {
    let wishes = pipe.outgoing().wishes();
    if wishes & CALL != 0 && nap::end(pipe.outgoing()) {
        arena::add(&pipe.entry.counters.doorbells, 1);
    }
    if wishes & BELL != 0 { ring_bell(fd, pipe) } else { Ok(()) }
}

/// Wakes whoever sleeps at the other end, once: one byte. Under the write lock. When the kernel refuses it, which is the error
/// then, it is owed: see [`ring_if_owed`].
fn ring_bell(fd: c_int, pipe: &Pipe) -> Result<(), Errno> {
    // No signal handler may spill between the look and the bell, which would become data.
    let mask = kernel::block_signals();
    let rung = if pipe.entry.write_lock.0.ringing() { ring_quietly(fd, pipe) } else { Rung::Lost };
    let lost = matches!(rung, Rung::Lost) || !pipe.entry.write_lock.0.rung();
    kernel::restore_signals(mask);
    if lost {
        // Somebody has stepped around us and rings in our place. Only after that may we go on, in the kernel's lane. The
        // caller's release is for this lock, too.
        let _ = lock_writes(fd, pipe);
    }
    match rung {
        Rung::Sent => {
            arena::add(&pipe.entry.counters.doorbells, 1);
            Ok(())
        }
        Rung::Refused(error) => {
            pipe.local.owes.store(1, Ordering::Relaxed);
            Err(error)
        }
        Rung::Failed(error) => Err(error),
        Rung::Answered | Rung::Lost => Ok(()),
    }
}

/// Whether the kernel has no room or memory for a bell at this moment, and may have later.
fn is_refusal(error: Errno) -> bool {
    matches!(error.0, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// Microseconds between two attempts to ring a bell that was refused.
const RING_AGAIN: u64 = 500;
/// Nanoseconds for which they are made. Room comes with an acknowledgement, which is delayed by less than half a second
/// (RFC 1122 section 4.2.3.2).
const RING_FOR: u64 = 1_000_000_000;

/// Rings a bell that the kernel has refused: somebody sleeps who does not know yet of what was published. Not under a lock.
#[inline]
pub(super) fn ring_if_owed(fd: c_int, pipe: &Pipe) {
    if pipe.local.owes.load(Ordering::Relaxed) != 0 {
        ring_again(fd, pipe);
    }
}

#[cold]
fn ring_again(fd: c_int, pipe: &Pipe) {
    let until = Deadline::after(Some(RING_FOR));
    let errno = Errno::last();
    loop {
        let taken = lock_writes(fd, pipe);
        pipe.local.owes.store(0, Ordering::Relaxed);
        let outgoing = pipe.outgoing();
        // Otherwise it has woken by itself, or the kernel lane wakes it.
        if pipe.is_mapped()
            && is_ring(outgoing.epoch())
            && outgoing.has_bytes()
            && outgoing.wishes() & BELL != 0
        {
            let _ = ring_bell(fd, pipe);
        }
        pipe.entry.write_lock.0.release(taken);
        let is_over = pipe.local.owes.load(Ordering::Relaxed) == 0
            || until.left() == Some(0)
            || kernel::poll_now(fd, 0) != 0;
        if is_over {
            break;
        }
        kernel::nap(RING_AGAIN);
    }
    errno.store();
}

/// What became of a bell.
enum Rung {
    Sent,
    /// For now; the wish has been given back.
    Refused(Errno),
    Failed(Errno),
    /// Nobody wants one.
    Answered,
    /// The write lock is somebody else's.
    Lost,
}

fn ring_quietly(fd: c_int, pipe: &Pipe) -> Rung {
    let outgoing = pipe.outgoing();
    let bells = &outgoing.switch.bells;
    // A signal handler that has spilled since the publication has woken the reader by the kernel lane.
    if !is_ring(outgoing.epoch()) {
        return Rung::Answered;
    }
    // Counted before it is sent: a bell that arrives is always accounted for. And before the wish is taken: a reader that
    // takes it back, because its socket goes to somebody who knows of no bells, sees that one is under way.
    bells.fetch_add(1, Ordering::SeqCst);
    if !outgoing.bell_due() {
        bells.fetch_sub(1, Ordering::Release);
        return Rung::Answered;
    }
    let rung = match pipe.entry.write_lock.0.call(&Call::send(fd, &[0], libc::MSG_NOSIGNAL)) {
        Some(Ok(_)) => return Rung::Sent,
        Some(Err(error)) if is_refusal(error) => Rung::Refused(error),
        Some(Err(error)) => Rung::Failed(error),
        None => Rung::Lost,
    };
    bells.fetch_sub(1, Ordering::Release);
    if let Rung::Refused(_) = rung {
        outgoing.want_bell();
        if has_reason_to_wake(outgoing) {
            return Rung::Answered;
        }
    }
    rung
}

/// Whether the reader finds, or will find, something in the kernel's queue that wakes it: data before the ring, or an older
/// bell. It looks at the ring again then.
fn has_reason_to_wake(outgoing: &Direction) -> bool {
    let taken = outgoing.reader.kernel_read.load(Ordering::SeqCst);
    let before = outgoing.switch.kernel_end.load(Ordering::Relaxed);
    taken.wrapping_sub(before) != outgoing.switch.bells.load(Ordering::Relaxed)
}

/// Waits a bounded time for a reader that makes progress, spinning and giving way; false: spill.
#[cold]
fn wait_for_room(pipe: &Pipe, seen_head: u64, nonblocking: bool) -> bool {
    let outgoing = pipe.outgoing();
    let patience = clock::from_us(if nonblocking { PATIENCE_NONBLOCK_US } else { PATIENCE_US });
    let until_empty = grow::is_due(pipe);
    let is_over = || {
        // When the memory for more is not there, the ring does as it is.
        outgoing.has_moved_on(seen_head) && (!until_empty || grow::by_use(pipe) || !outgoing.has_bytes())
    };
    let mut since = clock::ticks();
    let mut kernel_read = outgoing.reader.kernel_read.load(Ordering::Relaxed);
    loop {
        let shares_cpu = outgoing.consumer.cpu.load(Ordering::Relaxed) == thread::cpu() + 1;
        for _ in 0..if shares_cpu { 0 } else { LOOKS_FOR_ROOM } {
            if is_over() {
                return true;
            }
            (0..4).for_each(|_| core::hint::spin_loop());
        }
        // Where giving way costs too much, a reader on this processor has to wait until we sleep.
        let in_vain = give_way(clock::ticks()).is_none() && shares_cpu;
        if is_over() {
            return true;
        }
        let now = clock::ticks();
        // Before it comes to the ring the reader may still be taking kernel bytes: that is progress.
        let read = outgoing.reader.kernel_read.load(Ordering::Relaxed);
        if read != kernel_read && !nonblocking {
            kernel_read = read;
            since = now;
        }
        // One that does not wait for room either wants to write: it finds out in the kernel's lane whether there is some.
        let is_urgent = pipe.entry.write_lock.0.is_urgent();
        if in_vain || is_urgent || now.wrapping_sub(since) > patience || outgoing.is_closed() {
            let moved = outgoing.has_moved_on(seen_head);
            if !moved {
                grow::keep_in_mind(pipe);
            }
            return moved;
        }
    }
}

/// sendfile: from a file straight into the ring. `None`: the kernel must do it.
pub(crate) fn send_file(
    fd: c_int,
    pipe: &Pipe,
    file: c_int,
    offset: Option<u64>,
    count: usize,
) -> Option<Result<usize, Errno>> {
    let taken = lock_writes(fd, pipe);
    if !enter_ring(fd, pipe, taken) {
        pipe.entry.write_lock.0.release(taken);
        return None;
    }
    let outgoing = pipe.outgoing();
    let (mut done, mut turn) = (0, 0);
    let result = loop {
        let mut seen = pipe.local.seen_head.load(Ordering::Relaxed);
        let chunk = (count - done).min(4 * PUBLISH_EVERY);
        let Ok(span) = outgoing.writable(&mut seen, chunk) else { break None };
        pipe.local.seen_head.store(seen, Ordering::Relaxed);
        if count - done > span.capacity as usize && grow::by_use(pipe) {
            continue;
        }
        let room = span.length.min(chunk);
        if room == 0 {
            if grow::by_use(pipe) || wait_for_room(pipe, seen, false) {
                continue;
            }
            break None;
        }
        let [(start, length), _] = span.pieces(0, room);
        // The ring's memory is checked to lie within the mapping by `pieces`; the kernel copies into it.
        let place = pipe.outgoing_ring(span.capacity).wrapping_add(start);
        let read = kernel::read_file(file, place, length, offset.map(|offset| offset + done as u64));
        match read {
            Ok(0) => break Some(Ok(done)),
            Ok(read) => {
                note_moment(outgoing, span.position, read);
                match outgoing.publish(span.position, read) {
                    Ok(()) => {}
                    Err(_) => {
                        if offset.is_none() {
                            kernel::rewind(file, read);
                        }
                        break None;
                    }
                }
                done += read;
                arena::add(&pipe.entry.counters.sent, read as u64);
                if outgoing.wishes() != 0 && wake(fd, pipe).is_err_and(|error| !is_refusal(error)) {
                    break Some(Ok(done));
                }
            }
            Err(error) => break if done > 0 { Some(Ok(done)) } else { Some(Err(error)) },
        }
        if done == count {
            break Some(Ok(done));
        }
        if done - turn >= TURN && pipe.entry.write_lock.0.is_wanted() {
            turn = done;
            if !take_turns(fd, pipe) {
                break None;
            }
        }
    };
    if result.is_none() && is_ring(outgoing.epoch()) {
        spill(fd, pipe);
    }
    pipe.entry.write_lock.0.release(taken);
    ring_if_owed(fd, pipe);
    match result {
        None if done > 0 => Some(Ok(done)),
        other => other,
    }
}

/// Before shutdown(SHUT_WR): the writes that follow must meet the kernel's EPIPE. False: that was so already.
pub(crate) fn finish(fd: c_int, socket: Socket) -> bool {
    let Some(entry) = socket.entry() else { return false };
    // Already now: the ring must not open again before the kernel has answered.
    let before = entry.flags.fetch_or(FLAG_SHUT_WRITE, Ordering::Relaxed);
    if let Some(pipe) = super::io::writing_pipe(socket, entry) {
        let taken = lock_writes(fd, &pipe);
        if pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
            spill(fd, &pipe);
        }
        entry.write_lock.0.release(taken);
        back::before_end(fd, &pipe);
    }
    before & FLAG_SHUT_WRITE == 0
}

/// The kernel has refused the shutdown: this end writes on.
pub(crate) fn go_on(socket: Socket) {
    if let Some(entry) = socket.entry() {
        entry.flags.fetch_and(!FLAG_SHUT_WRITE, Ordering::Relaxed);
    }
}

/// A call that only the kernel can make, in its lane: from the ring it spills first.
pub(crate) fn in_kernel_lane(fd: c_int, pipe: &Pipe, kernel: impl FnOnce() -> isize) -> isize {
    let taken = lock_writes(fd, pipe);
    if pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        spill(fd, pipe);
    }
    through_kernel(fd, pipe, taken, usize::MAX >> 1, kernel)
}

/// After a kernel send: an end that has left answers with a reset, and that one is real.
pub(crate) fn note_vain(pipe: &Pipe) {
    if pipe.is_mapped() && matches!(pipe.other_end(), END_LEFT | END_RESET) {
        pipe.entry.flags.fetch_or(FLAG_SENT_IN_VAIN, Ordering::Relaxed);
    }
}

/// The lock was never ours: the call that has it was interrupted, and has gone on and opened the ring meanwhile. A signal
/// handler ends before that, but a program may switch between threads of its own in one (swapcontext(3)). Now that this
/// call is counted, the ring stays closed.
#[cold]
fn leave_ring_again(fd: c_int, pipe: &Pipe) {
    let taken = lock_writes(fd, pipe);
    if pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        spill(fd, pipe);
    }
    pipe.entry.write_lock.0.release(taken);
}

/// Makes a kernel call as a counted writer; the write lock is released before.
fn through_kernel(
    fd: c_int,
    pipe: &Pipe,
    taken: Taken,
    wanted: usize,
    kernel: impl FnOnce() -> isize,
) -> isize {
    through_kernel_after(fd, pipe, taken, wanted, || (), |()| kernel())
}

/// The same, after something that is done under the write lock.
fn through_kernel_after<T>(
    fd: c_int,
    pipe: &Pipe,
    taken: Taken,
    wanted: usize,
    locked: impl FnOnce() -> T,
    kernel: impl FnOnce(T) -> isize,
) -> isize {
    if back::is_asked(pipe) {
        back::give(fd, pipe, true);
    }
    let first = locked();
    let counted = pipe.entry.writers.enter(pipe.socket.generation);
    pipe.entry.write_lock.0.release(taken);
    if taken == Taken::Nested && pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        leave_ring_again(fd, pipe);
    }
    // Should this process be killed with a bell unread, the kernel would make a reset of it, and throw away what it has
    // not delivered yet.
    if pipe.entry.readers.is_ready() {
        bells::settle(fd, pipe);
    }
    let sent = kernel(first);
    let errno = Errno::last();
    if counted {
        pipe.entry.writers.leave(pipe.socket.generation);
    }
    if sent < wanted as isize {
        // The kernel tells when there is room again (EPOLLOUT).
        pipe.entry.flags.fetch_or(FLAG_NO_SPACE, Ordering::Relaxed);
    }
    if sent > 0 {
        note_vain(pipe);
        note_peer(pipe);
        arena::add(&pipe.entry.counters.kernel_sent, sent as u64);
        trace::note(-1, pipe.entry);
        if options::is_nagle_due(pipe.entry) {
            let taken = lock_writes(fd, pipe);
            options::begin_nagle(fd, pipe.entry);
            pipe.entry.write_lock.0.release(taken);
        }
    }
    errno.store();
    sent
}
