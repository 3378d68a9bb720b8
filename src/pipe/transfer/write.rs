//! Writing: the ring while it takes bytes, the kernel lane whenever it does not.
//!
//! A writer never sleeps on the ring: what does not fit after a short wait spills into the kernel, where
//! blocking, EAGAIN, EPOLLOUT, time-outs and 4 MB of buffering are the kernel's. Only where the kernel would not take the
//! whole write either, it waits for a reader that reads (`room`).

pub(crate) mod file;
mod long;

use crate::error::{Errno, answer};
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{self, End, Pipe, kept_options, outgoing_doorbells, transitions};
use crate::pipe::copying::buffers::{self, Rest};
use crate::pipe::copying::bulk;
use crate::pipe::handoff::give_back;
use crate::pipe::lanes::{grow, writer};
use crate::pipe::transfer::write::long::{Call, PORTION};
use crate::pipe::waiting::{room, wait};
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{self};
use crate::state::{Socket, trace};
use crate::sys::handlers::Since;
use crate::sys::{clock, give_way, kernel, real, restartable};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{END_LEFT, END_RESET};
use sockshim_ring::ring::NotPublished;

/// Bytes between two publications of one long write: the reader starts while the writer copies.
const PUBLISH_EVERY: usize = 16 * 1024;

/// Bytes of the program's buffer that are looked at at once.
const CHECK_AT_ONCE: usize = 256 * 1024;

/// Microseconds without progress of the reader after which a full ring spills, or its writer waits on the futex.
const PATIENCE_US: u64 = 200;

const PATIENCE_BEFORE_TIMED_WAIT_US: u64 = 50;

const PATIENCE_NONBLOCK_US: u64 = 20;

/// Bytes of one write after which another writer that waits has its turn. The kernel takes about as many of a write as a
/// whole, before it waits for room and lets others in.
const TURN: usize = 1024 * 1024;

/// A write of less than the ring's size by this is not divided. The reader gives room back by the quarter.
const WHOLE: usize = 4;

/// Bytes of the rest of a longer one that are offered to the kernel before others may write.
const REST: usize = 64 * 1024;

/// Flags that the ring cannot serve: the kernel does, and the connection stays with it.
pub(crate) const KERNEL_FLAGS: c_int = libc::MSG_OOB | libc::MSG_ZEROCOPY;

/// The sending calls, on a pipe; `kernel` makes the call that the program made.
///
/// # Safety
/// `buffers` are the program's.
pub(crate) unsafe fn send(
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
    let nonblocking = flags & libc::MSG_DONTWAIT != 0
        || pipe.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NONBLOCK);
    let call = Call { flags, nonblocking, timed_waits: room::TIMED_WAITS, in_vain: false, began };
    let held = pipe.lock_writes_for(nonblocking);
    if total == 0 || !writer::enter_ring(&held) {
        if total > PORTION && call.is_divided(pipe) {
            // SAFETY: the buffers are the program's, as the caller says.
            return unsafe { long::send_in_portions(pipe, buffers, total, call, held, Pushed::Spilled(0)) };
        }
        // Counted, so that no lane opens meanwhile; and not locked, because it may sleep.
        let sent = through_kernel(pipe, held, total, || {
            if !began.has_any() || total == 0 {
                return kernel();
            }
            // SAFETY: the buffers are the program's, as the caller says.
            unsafe { send_interrupted(pipe.fd, buffers, total, 0, flags, began) }
        });
        if flags & libc::MSG_MORE != 0 && sent > 0 {
            kept_options::push(pipe.fd, pipe.entry);
        }
        return sent;
    }
    let since = if total >= bulk::LONG { clock::ticks() } else { 0 };
    let most = if total > room::MOST_AT_ONCE { call.most(pipe, total) } else { total };
    // SAFETY: the buffers are the program's, as the caller says.
    let pushed = unsafe { push(&held, buffers, 0, most, call) };
    match pushed {
        Pushed::All => {
            if total >= bulk::LONG {
                bulk::learn(&pipe.local.bulk, most, clock::ticks().wrapping_sub(since));
            }
            if most < total {
                room::note_full(pipe);
            }
            drop(held);
            outgoing_doorbells::ring_if_owed(pipe);
            most as isize
        }
        Pushed::Full(done) => {
            room::note_full(pipe);
            drop(held);
            outgoing_doorbells::ring_if_owed(pipe);
            if done > 0 { done as isize } else { answer(Err(Errno(libc::EAGAIN))) }
        }
        Pushed::Faulted(done) => {
            drop(held);
            outgoing_doorbells::ring_if_owed(pipe);
            if done > 0 { done as isize } else { answer(Err(Errno(libc::EFAULT))) }
        }
        Pushed::Dead(error) => {
            drop(held);
            after_death(flags, error)
        }
        Pushed::TimedWait(_) => {
            // SAFETY: the buffers are the program's, as the caller says.
            unsafe { long::send_in_portions(pipe, buffers, total, call, held, pushed) }
        }
        Pushed::Spilled(done) if total - done > PORTION && call.is_divided(pipe) => {
            // SAFETY: the buffers are the program's, as the caller says.
            unsafe { long::send_in_portions(pipe, buffers, total, call, held, pushed) }
        }
        Pushed::Spilled(done) => {
            let is_begun = done > 0 && total - done <= REST && !kernel::is_restricted();
            let first = |held: &WriteHeld<'_>| match is_begun {
                true => send_locked(held, buffers, total, done, flags),
                false => Ok(0),
            };
            let sent = through_kernel_after(pipe, held, total - done, first, |first| {
                let first = match first {
                    Ok(first) if done + first == total => return first as isize,
                    Ok(first) => first,
                    Err(error) => return answer(Err(error)),
                };
                // SAFETY: the buffers are the program's, by this function's own contract.
                let rest = unsafe { send_on(pipe.fd, buffers, total, done + first, flags, began) };
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

/// What a write of `length` bytes reports that are in the ring, and whose doorbell has failed. Not under a lock.
#[cold]
pub(crate) fn after_doorbell(pipe: &Pipe, flags: c_int, length: usize, error: Errno) -> isize {
    if outgoing_doorbells::is_refusal(error) {
        outgoing_doorbells::ring_if_owed(pipe);
        return length as isize;
    }
    after_death(flags, error)
}

/// What a write reports whose doorbell has found the connection dead. Not under a lock: a signal handler may not return.
#[cold]
fn after_death(flags: c_int, error: Errno) -> isize {
    if flags & libc::MSG_NOSIGNAL == 0 && error.0 == libc::EPIPE {
        kernel::raise_sigpipe();
    }
    answer(Err(error))
}

/// The rest of a write whose beginning is in the ring, as far as the kernel takes it without waiting:
/// as in the kernel, what another thread writes at the same time comes before or behind a write, not into it, while there is
/// room.
#[cold]
#[inline(never)]
fn send_locked(
    held: &WriteHeld<'_>,
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
    let sent = held.call(&restartable::Call::send_message(held.fd, &message, flags));
    kernel::restore_signals(mask);
    match sent {
        // Without the lock, or without room: like everybody else.
        None | Some(Err(Errno(libc::EAGAIN))) => Ok(0),
        Some(sent) => sent,
    }
}

/// The rest of a write, by the kernel, in a call that began then.
///
/// # Safety
/// `buffers` are the program's.
unsafe fn send_on(
    fd: c_int,
    buffers: &[iovec],
    total: usize,
    done: usize,
    flags: c_int,
    began: Since,
) -> isize {
    if began.has_any() {
        // SAFETY: the buffers are the program's.
        unsafe { send_interrupted(fd, buffers, total, done, flags, began) }
    } else {
        // SAFETY: the buffers are the program's.
        unsafe { send_rest(fd, buffers, total, done, flags) }
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
    // SAFETY: the buffers are the program's, as the caller says.
    let sent = unsafe { send_rest(fd, buffers, total, done, flags | libc::MSG_DONTWAIT) };
    if sent >= 0 || done > 0 || Errno::last().0 != libc::EAGAIN || flags & libc::MSG_DONTWAIT != 0 {
        return sent;
    }
    if is_interrupted(fd, since) {
        return answer(Err(Errno(libc::EINTR)));
    }
    // SAFETY: the buffers are the program's, as the caller says.
    unsafe { send_rest(fd, buffers, total, done, flags) }
}

/// Whether the kernel's send would wait, and a signal handler has run that would end it then.
#[cold]
pub(crate) fn is_interrupted(fd: c_int, since: Since) -> bool {
    since.ends_io(kernel::has_send_timeout(fd))
        && !kernel::is_nonblocking(fd)
        && kernel::poll_now(fd, libc::POLLOUT) == 0
}

/// What became of a write into the ring.
enum Pushed {
    All,
    /// So many bytes are in the ring, the kernel lane takes the rest.
    Spilled(usize),
    /// So many bytes are in the ring, which is full; the writer must not wait.
    Full(usize),
    /// The same, and it waits on the futex.
    TimedWait(usize),
    /// The doorbell found the connection dead.
    Dead(Errno),
    /// The program's buffer is bad after so many bytes.
    Faulted(usize),
}

/// Writes into the ring as long as it takes bytes, those of the buffers after `start`.
///
/// # Safety
/// `buffers` are the program's.
unsafe fn push(held: &WriteHeld<'_>, buffers: &[iovec], start: usize, total: usize, call: Call) -> Pushed {
    let nonblocking = call.nonblocking;
    let outgoing = held.outgoing();
    let local = held.local;
    // Before the publication: afterwards the reader has the line.
    connection::note_cpu(&outgoing.producer.cpu);
    let past = bulk::goes_past(held, total);
    if nonblocking && total - start >= room::ENOUGH as usize / 2 {
        // Should the ring become full: what has been read until then shows that the reader reads.
        room::look(held);
    }
    let (mut done, mut turn, mut good) = (start, start, start);
    loop {
        let mut seen = local.seen_head.load(Ordering::Relaxed);
        let chunk = (total - done).min(PUBLISH_EVERY);
        let Ok(span) = outgoing.writable(&mut seen, chunk) else {
            // A damaged ring: the kernel lane needs nothing from it.
            writer::spill(held);
            transitions::mark(held, Reason::BadSegment);
            return Pushed::Spilled(done);
        };
        local.seen_head.store(seen, Ordering::Relaxed);
        if total - done > span.capacity as usize && grow::by_use(held) {
            continue;
        }
        // A short write goes one way as a whole: what another thread writes must not come into it.
        // Nor is one divided whose rest the program's filter would not let go (seccomp(2), strict mode: no sendmsg).
        let fits = total <= span.capacity as usize / WHOLE || kernel::is_restricted();
        let is_short = total <= PUBLISH_EVERY && fits;
        let room = if is_short && span.length < total { 0 } else { span.length.min(chunk) };
        if room == 0 {
            if grow::by_use(held) {
                continue;
            }
            match if_full(held, seen, done, total - done, call) {
                Full::Room => continue,
                Full::ComeBack => return Pushed::Full(done),
                Full::TimedWait => return Pushed::TimedWait(done),
                Full::Spill => {}
            }
            writer::spill(held);
            return Pushed::Spilled(done);
        }
        // As in the kernel, a stretch that cannot be read as a whole is not sent in part. It is asked for with what follows it, as
        // far as there is room: of a buffer that is not known each question is a system call.
        if good < done + room {
            let stretch = span.length.min(total - done).min(CHECK_AT_ONCE);
            good = done + buffers::good(buffers, done, stretch, false);
            if good < done + room {
                return Pushed::Faulted(done);
            }
        }
        // SAFETY: the ring is as long as any checked capacity; the caller's promise.
        unsafe { buffers::gather(held.outgoing_ring(span.capacity), span, buffers, done, room, past) };
        connection::note_publish_time(held, span.position, room);
        match outgoing.publish(span.position, room) {
            Ok(()) => {}
            Err(NotPublished::Moved) => continue,
            Err(NotPublished::Closed) => {
                // The reader leaves; or a signal handler of this thread has spilled already; or we were stopped for
                // so long that another writer goes on without us.
                writer::spill(held);
                return Pushed::Spilled(done);
            }
        }
        done += room;
        socket_table::add(&held.entry.counters.sent, room as u64);
        if outgoing.need_wakeup() != 0
            && let Err(error) = outgoing_doorbells::wake(held)
            && !outgoing_doorbells::is_refusal(error)
            && done == start + room
        {
            return Pushed::Dead(error);
        }
        if done == total {
            return Pushed::All;
        }
        if done - turn >= TURN && held.is_wanted() {
            turn = done;
            if !writer::take_turns(held) {
                return Pushed::Spilled(done);
            }
        }
    }
}

/// What to do about a full ring.
enum Full {
    /// There is room by now.
    Room,
    ComeBack,
    TimedWait,
    Spill,
}

/// Waits a little for room, with `done` bytes written and `left` ones to write.
#[cold]
#[inline(never)]
fn if_full(held: &WriteHeld<'_>, seen_head: u64, done: usize, left: usize, call: Call) -> Full {
    let may_come_back = call.nonblocking
        && !kernel::is_restricted()
        && room::may_be_awaited(held)
        && call.must_not_wait(held);
    if may_come_back && room::is_seen_to_read(held) {
        return Full::ComeBack;
    }
    let may_wait_timed = !call.in_vain
        && match call.nonblocking {
            true => may_come_back && left >= room::LONG && call.timed_waits == room::TIMED_WAITS,
            false => {
                let may_look = || left >= room::LONG || (done == 0 || left > REST) && is_busy();
                (left > room::KERNEL_TAKES || call.timed_waits > 0 && may_look()) && call.is_divided(held)
            }
        };
    let patience = match (call.nonblocking, may_wait_timed) {
        (true, _) => PATIENCE_NONBLOCK_US,
        (_, true) => PATIENCE_BEFORE_TIMED_WAIT_US,
        _ => PATIENCE_US,
    };
    if room::wait(held, seen_head, patience, call.nonblocking) {
        Full::Room
    } else if may_wait_timed {
        Full::TimedWait
    } else {
        Full::Spill
    }
}

/// Whether strangers want the processors: then a timed wait is the quickest way to let the reader run.
fn is_busy() -> bool {
    give_way::is_forbidden(clock::ticks())
}

/// Before shutdown(SHUT_WR): the writes that follow must meet the kernel's EPIPE. False: that was so already.
pub(crate) fn finish(fd: c_int, socket: Socket) -> bool {
    let Some(entry) = socket.entry() else { return false };
    // Already now: the ring must not open again before the kernel has answered.
    let before = entry.flags.set(SocketFlags::SHUT_WRITE, Ordering::Relaxed);
    if let Some(pipe) = connection::writing_pipe(fd, socket, entry) {
        writer::leave_ring(&pipe.lock_writes());
        give_back::before_end(&pipe);
    }
    !before.intersects(SocketFlags::SHUT_WRITE)
}

/// The kernel has refused the shutdown: this end writes on.
pub(crate) fn go_on(socket: Socket) {
    if let Some(entry) = socket.entry() {
        entry.flags.clear(SocketFlags::SHUT_WRITE, Ordering::Relaxed);
    }
}

/// A call that only the kernel can make, in its lane: from the ring it spills first.
pub(crate) fn in_kernel_lane(pipe: &Pipe, kernel: impl FnOnce() -> isize) -> isize {
    let held = pipe.lock_writes();
    writer::leave_ring(&held);
    through_kernel(pipe, held, usize::MAX >> 1, kernel)
}

/// After a kernel send: an end that has left answers with a reset, and that one is real.
pub(crate) fn note_vain(end: &End) {
    if end.is_mapped() && matches!(end.other_end(), END_LEFT | END_RESET) {
        end.entry.flags.set(SocketFlags::SENT_IN_VAIN, Ordering::Relaxed);
    }
}

/// Makes a kernel call as a counted writer; the write lock is released before.
fn through_kernel(pipe: &Pipe, held: WriteHeld<'_>, wanted: usize, kernel: impl FnOnce() -> isize) -> isize {
    through_kernel_after(pipe, held, wanted, |_| (), |()| kernel())
}

/// Sends again what the other end has left unread, if it hands its socket on. The lock may be let go meanwhile.
#[inline]
fn give_if_asked(held: WriteHeld<'_>) -> WriteHeld<'_> {
    if give_back::is_asked(&held) { give_back::give_last(held) } else { held }
}

/// The same, after something that is done under the write lock.
fn through_kernel_after<T>(
    pipe: &Pipe,
    held: WriteHeld<'_>,
    wanted: usize,
    locked: impl FnOnce(&WriteHeld<'_>) -> T,
    kernel: impl FnOnce(T) -> isize,
) -> isize {
    let held = give_if_asked(held);
    let first = locked(&held);
    let mut counted = pipe.entry.writers.enter(pipe.socket.generation);
    let is_first = held.is_first();
    drop(held);
    if !is_first && pipe.is_mapped() && is_ring(pipe.outgoing().epoch()) {
        // The lock was never ours: the call that has it was interrupted, and may have gone on and opened the ring meanwhile. A
        // signal handler ends before that, but a program may switch between threads of its own in one (swapcontext(3)). Now
        // that this call is counted, the ring stays closed.
        writer::leave_ring(&pipe.lock_writes());
    }
    // Should this process be killed with a doorbell unread, the kernel would make a reset of it, and throw away what it has
    // not delivered yet.
    if pipe.entry.readers.is_ready() {
        wait::settle(pipe);
    }
    // The other end may have begun meanwhile: what it leaves comes before what is sent now.
    if give_back::is_asked(pipe) {
        if counted {
            pipe.entry.writers.leave(pipe.socket.generation);
        }
        let held = give_if_asked(pipe.lock_writes());
        counted = held.entry.writers.enter(held.socket.generation);
    }
    let sent = kernel(first);
    let errno = Errno::last();
    if sent < wanted as isize {
        // The kernel reports when there is room again (EPOLLOUT).
        pipe.entry.flags.set(SocketFlags::NO_SPACE, Ordering::Relaxed);
    }
    if counted {
        pipe.entry.writers.leave(pipe.socket.generation);
    }
    if sent > 0 {
        note_vain(pipe);
        writer::note_peer(pipe);
        socket_table::add(&pipe.entry.counters.kernel_sent, sent as u64);
        trace::note(-1, pipe.entry);
        if kept_options::is_nagle_due(pipe.entry) {
            kept_options::begin_nagle(&pipe.lock_writes());
        }
    }
    errno.store();
    sent
}
