//! Reading: following the writer's lanes. Waiting is in [`super::wait`].

use super::bells::{self, Drained};
use super::buffers::{self, Rest};
use super::write::MOST_ROUNDS;
use super::{Pipe, attach, end, lanes, note_cpu, options, quick, room, wait};
use crate::error::Errno;
use crate::state::arena;
use crate::state::lock::{self, Around, Taken};
use crate::state::{reason::Reason, trace};
use crate::sys::handlers::Since;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;
use sockshim_ring::lane::is_ring;
use sockshim_ring::lock::Content;

/// What one look at the lanes gave.
pub(crate) enum Look {
    /// So many bytes.
    Bytes(usize),
    /// Nothing; the writer's epoch was this.
    Empty { epoch: u32 },
    /// The kernel says that the stream has ended.
    End,
    /// The kernel says that the connection has failed.
    Failed(Errno),
    /// The other end has written what cannot be true.
    Broken,
}

/// Steps of one look, from lane to lane, or again after somebody else's.
const MOST_STEPS: u32 = 10_000;
/// Looks in one call that the end of the stream may be told of while the ring is not empty.
const MOST_ENDS: u32 = 1000;

/// The receiving calls, on a pipe. `since` is when the call began.
///
/// # Errors
/// As recv(2).
///
/// # Safety
/// `buffers` are the program's.
pub(crate) unsafe fn receive(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    flags: c_int,
    since: Since,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let received = unsafe { receive_in_turn(fd, pipe, buffers, flags, since) };
    // With much of this end's own in the kernel's lane, as in `write::through_kernel`: a bell may not stay behind.
    if received.is_ok()
        && !is_ring(pipe.outgoing().epoch())
        && pipe.is_mapped()
        && pipe.descriptor(fd) == Some(fd)
    {
        bells::settle(fd, pipe);
    }
    received
}

/// # Safety
/// As for [`receive`].
unsafe fn receive_in_turn(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    flags: c_int,
    since: Since,
) -> Result<usize, Errno> {
    let drop = flags & libc::MSG_TRUNC != 0;
    let wanted = if drop { buffers::length(buffers) } else { buffers::total(buffers)? };
    if flags & libc::MSG_OOB != 0 {
        return receive_urgent(fd, buffers, flags);
    }
    let all = flags & libc::MSG_WAITALL != 0;
    let peek = flags & libc::MSG_PEEK != 0;
    let mut has_waited = false;
    let mut done = 0;
    let mut fd = fd;
    let mut deadline = None;
    let mut ends = 0;
    loop {
        if end::is_broken(pipe) {
            return if done > 0 { Ok(done) } else { end::after_break(pipe) };
        }
        // SAFETY: the caller's promise.
        let look = unsafe { take(fd, pipe, buffers, done, wanted - done, flags) };
        let outcome = match look {
            Look::Bytes(count) if peek => {
                // What has come and is not shown now lies behind another change of lanes.
                if !all || count >= wanted || has_waited {
                    return Ok(count);
                }
                wait::wait_for_all(fd, pipe, wanted, flags, since);
                has_waited = true;
                continue;
            }
            Look::Bytes(count) => {
                done += count;
                room::tell(fd, pipe);
                // What a change of lanes divides is one stream to the program; an urgent mark divides it.
                if done == wanted || (!all && !goes_on(fd, pipe)) || (all && kernel::at_mark(fd)) {
                    return Ok(done);
                }
                continue;
            }
            Look::Empty { .. } if done > 0 && !all => return Ok(done),
            Look::Empty { .. } if wait::is_late(fd, pipe, &mut deadline) => {
                return if done > 0 { Ok(done) } else { Err(Errno(libc::EAGAIN)) };
            }
            Look::Empty { epoch } => wait::wait(fd, pipe, flags, epoch, since),
            Look::End => end::at_end(fd, pipe).map(Some),
            Look::Failed(error) => end::after_error(pipe, error).map(Some),
            Look::Broken => continue,
        };
        match outcome {
            Ok(None) => {
                // What was waited for is mostly the usual case.
                if let [only] = buffers
                    && flags == 0
                    && done == 0
                    // SAFETY: the caller's promise.
                    && let Some(count) = unsafe { quick::read(pipe, only.iov_base.cast(), only.iov_len) }
                {
                    room::tell(fd, pipe);
                    return Ok(count);
                }
                fd = match pipe.descriptor(fd) {
                    Some(fd) => fd,
                    // Shut down and closed, before this thread was in the kernel to hear of it.
                    None if pipe.socket.is_refused() => return Ok(done),
                    None => return Err(Errno(libc::EBADF)),
                };
            }
            Ok(Some(())) if end::is_drained(pipe) => return Ok(done),
            Ok(Some(())) => {
                // The ring has bytes yet. Words that promise them for ever cannot be true.
                ends += 1;
                if ends > MOST_ENDS {
                    end::broken(fd, pipe);
                }
            }
            Err(error) if done > 0 => {
                end::keep_error(pipe, error);
                return Ok(done);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the writer has moved on to another lane than the one that is being read, and nothing urgent stands
/// between the two: a read stops at the mark (tcp(7)).
#[inline]
fn goes_on(fd: c_int, pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    if incoming.epoch() == incoming.reader_epoch() {
        return false;
    }
    let taken = lock_reads(pipe);
    follow(fd, pipe);
    pipe.entry.read_lock.0.release(taken);
    // A filter of the program's may not let us ask.
    !kernel::is_restricted() && !kernel::at_mark(fd)
}

/// One look at the lanes, under the read lock.
///
/// # Safety
/// `buffers` are the program's.
#[inline]
pub(crate) unsafe fn take(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    skip: usize,
    wanted: usize,
    flags: c_int,
) -> Look {
    let taken = lock_reads(pipe);
    // SAFETY: the caller's promise.
    let look = unsafe { take_locked(fd, pipe, buffers, skip, wanted, flags, taken) };
    pipe.entry.read_lock.0.release(taken);
    look
}

/// The read lock. An owner that does not let go is stepped around: bytes of the ring are consumed by compare-and-swap, so
/// they go to one of the two, and both directions stay in the kernel lane from then on.
#[inline]
pub(crate) fn lock_reads(pipe: &Pipe) -> Taken {
    // Somebody who died, or jumped away, may have taken bytes from the kernel that he has not counted.
    let taken = pipe.entry.read_lock.0.take_at_once(|| recount(pipe));
    taken.unwrap_or_else(|| wait_for_lock(pipe))
}

#[cold]
#[inline(never)]
fn wait_for_lock(pipe: &Pipe) -> Taken {
    let incoming = pipe.incoming();
    for _ in 0..MOST_ROUNDS {
        let epoch = incoming.reader_epoch();
        if incoming.is_shut() && !is_ring(epoch) && incoming.epoch() == epoch {
            // In the kernel's lane for good: nothing is left that the lock protects, whoever says that he has it.
            return Taken::Nested;
        }
        match pipe.entry.read_lock.0.take_after(false, || recount(pipe)) {
            Taken::Not(seen) => match step_around(pipe, seen) {
                Around::Taken | Around::Owing => {
                    recount(pipe);
                    return Taken::Ours;
                }
                Around::InCall => break,
                Around::Not => {}
            },
            taken => return taken,
        }
    }
    if let Some(fd) = a_descriptor(pipe) {
        end::give_up(fd, pipe, Reason::Stopped);
    }
    Taken::Nested
}

/// Goes on without the lock's owner, wherever that is: with the gate shut no byte can become a bell that
/// it still takes for data, and where bells lie before data it takes none of both, because the lock is not its own. A
/// wish for a bell that it takes back is not missed: the writer finds the ring closed and goes to the kernel.
fn step_around(pipe: &Pipe, seen: Content) -> Around {
    let incoming = pipe.incoming();
    // First the promise, then the ring: see `lanes::open`.
    incoming.reader.ready.store(0, Ordering::SeqCst);
    incoming.close();
    incoming.shut();
    super::pin::mark_stopped(pipe);
    // What a call takes is counted after it.
    pipe.entry.read_lock.0.step_around(seen, || {
        let counted = incoming.reader.kernel_read.load(Ordering::Relaxed);
        reading_position(pipe).is_some_and(|position| position > counted)
    })
}

/// A number of this process for the socket.
fn a_descriptor(pipe: &Pipe) -> Option<c_int> {
    pipe.descriptor(pipe.entry.number.load(Ordering::Relaxed) as c_int - 1)
}

/// What the kernel says of how far its stream has been read.
fn recount(pipe: &Pipe) {
    if let Some(position) = reading_position(pipe) {
        pipe.incoming().reader.kernel_read.store(position, Ordering::Relaxed);
    }
}

fn reading_position(pipe: &Pipe) -> Option<u64> {
    attach::reading_position(a_descriptor(pipe)?, |state| state != kernel::TCP_CLOSE)
}

unsafe fn take_locked(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    skip: usize,
    wanted: usize,
    flags: c_int,
    taken: Taken,
) -> Look {
    let incoming = pipe.incoming();
    let (peek, drop) = (flags & libc::MSG_PEEK != 0, flags & libc::MSG_TRUNC != 0);
    for _ in 0..MOST_STEPS {
        if !pipe.is_mapped() {
            // Another thread is closing the socket's last descriptor.
            return if pipe.socket.is_refused() { Look::End } else { Look::Failed(Errno(libc::EBADF)) };
        }
        let epoch = incoming.reader_epoch();
        if is_ring(epoch) {
            let Ok(span) = incoming.readable() else { return end::broken(fd, pipe) };
            if span.length > 0 {
                let count = span.length.min(wanted);
                if !drop {
                    // As in the kernel, a stretch for which there is not room as a whole stays.
                    if buffers::good(buffers, skip, count, true) < count {
                        return Look::Failed(Errno(libc::EFAULT));
                    }
                    // SAFETY: the ring is as long as any checked capacity; the caller's promise.
                    unsafe {
                        buffers::scatter(pipe.incoming_ring(span.capacity), span, buffers, skip, count)
                    };
                }
                if peek {
                    return Look::Bytes(
                        count + peek_beyond(fd, pipe, epoch, buffers, skip + count, wanted - count, drop),
                    );
                }
                if !incoming.consume(&span, count) {
                    continue;
                }
                note_cpu(&incoming.consumer.cpu);
                pipe.local.unwatched.store(0, Ordering::Relaxed);
                arena::add(&pipe.entry.counters.received, count as u64);
                return Look::Bytes(count);
            }
            let ahead = incoming.epoch();
            if ahead == epoch {
                return Look::Empty { epoch };
            }
            if incoming.has_bytes() {
                continue;
            }
            if is_impossible(pipe, epoch) {
                return end::broken(fd, pipe);
            }
            match bells::drain_to(fd, pipe, epoch) {
                Drained::Done => incoming.follow(epoch),
                Drained::Moved => {}
                Drained::NotYet => return Look::Empty { epoch: ahead },
                Drained::End => return Look::End,
                Drained::Failed(error) => return Look::Failed(error),
                Drained::Beyond => return end::broken(fd, pipe),
                Drained::Robbed => return robbed(fd, pipe),
            }
        } else if taken == Taken::Nested && incoming.epoch() == epoch {
            if let Some(look) = kernel_bytes_nested(fd, pipe, epoch, buffers, skip, wanted, flags) {
                return look;
            }
        } else if incoming.enter_kernel(epoch) {
            let look = kernel_bytes(fd, buffers, skip, wanted, flags);
            if let Look::Bytes(count) = look
                && !peek
            {
                advance(pipe, count);
            }
            incoming.leave_kernel();
            return match look {
                Look::Empty { .. } => Look::Empty { epoch },
                look => look,
            };
        } else if incoming.epoch() == epoch {
            // We have the lock, so whoever marked the gate is dead.
            incoming.leave_kernel();
        } else {
            let kernel_end = incoming.switch.kernel_end.load(Ordering::Relaxed);
            let position = incoming.reader.kernel_read.load(Ordering::Relaxed);
            let Some(left) = kernel_end.checked_sub(position).filter(|_| !is_impossible(pipe, epoch)) else {
                if incoming.reader_epoch() != epoch {
                    // A signal handler has read on meanwhile.
                    continue;
                }
                return end::broken(fd, pipe);
            };
            if left == 0 {
                incoming.follow(epoch);
                continue;
            }
            let ahead = incoming.epoch();
            // A signal handler that reads from this socket must not take what is counted here.
            let mask = kernel::block_signals();
            if incoming.reader_epoch() != epoch {
                kernel::restore_signals(mask);
                continue;
            }
            let left = kernel_end.saturating_sub(incoming.reader.kernel_read.load(Ordering::Relaxed));
            let look = match wanted.min(left as usize) {
                0 if wanted > 0 => Some(Look::Bytes(0)),
                room => bytes_before_ring(fd, pipe, buffers, skip, room, flags),
            };
            kernel::restore_signals(mask);
            let Some(look) = look else {
                relock(pipe);
                continue;
            };
            if matches!(look, Look::Bytes(0)) && wanted > 0 {
                continue;
            }
            if matches!(look, Look::Empty { .. }) && bells::is_robbed(fd, pipe) {
                // By somebody who took data as data, but perhaps more than that.
                recount(pipe);
                if incoming.reader.kernel_read.load(Ordering::Relaxed) > kernel_end {
                    return robbed(fd, pipe);
                }
                continue;
            }
            return match look {
                Look::Empty { .. } => Look::Empty { epoch: ahead },
                Look::Bytes(count) if peek && count as u64 == left => {
                    Look::Bytes(count + peek_ring(pipe, buffers, skip + count, wanted - count, drop))
                }
                look => look,
            };
        }
    }
    // As often as that no writer changes what is looked at.
    end::broken(fd, pipe)
}

/// Bells were taken by somebody who knows nothing of them: what is left cannot be told apart.
#[cold]
fn robbed(fd: c_int, pipe: &Pipe) -> Look {
    end::give_up(fd, pipe, Reason::Integrity);
    Look::Broken
}

/// Whether the writer is somewhere where it cannot be while we are in `epoch`.
fn is_impossible(pipe: &Pipe, epoch: u32) -> bool {
    pipe.incoming().lead(epoch).is_err() && pipe.incoming().reader_epoch() == epoch
}

/// MSG_PEEK past the end of a ring epoch: what the kernel lane holds after it. Under the read lock.
fn peek_beyond(
    fd: c_int,
    pipe: &Pipe,
    epoch: u32,
    buffers: &[iovec],
    skip: usize,
    wanted: usize,
    drop: bool,
) -> usize {
    let incoming = pipe.incoming();
    if wanted == 0 || drop || incoming.epoch() == epoch {
        return 0;
    }
    // The bells in between are of no use to anybody any more: the epoch is over.
    match bells::drain_to(fd, pipe, epoch) {
        Drained::Done => match kernel_bytes(fd, buffers, skip, wanted, libc::MSG_PEEK) {
            Look::Bytes(count) => count,
            _ => 0,
        },
        _ => 0,
    }
}

/// MSG_PEEK past the end of a kernel epoch: what the ring holds after it. Under the read lock.
fn peek_ring(pipe: &Pipe, buffers: &[iovec], skip: usize, wanted: usize, drop: bool) -> usize {
    match pipe.incoming().readable() {
        Ok(span) if wanted > 0 && !drop => {
            let count = buffers::good(buffers, skip, span.length.min(wanted), true);
            // SAFETY: the ring is as long as any checked capacity; the buffers are the program's.
            unsafe { buffers::scatter(pipe.incoming_ring(span.capacity), span, buffers, skip, count) };
            count
        }
        _ => 0,
    }
}

/// Follows the writer over lanes that hold nothing more. Under the read lock.
pub(crate) fn follow(fd: c_int, pipe: &Pipe) {
    let incoming = pipe.incoming();
    for _ in 0..MOST_STEPS {
        let epoch = incoming.reader_epoch();
        if !matches!(incoming.lead(epoch), Ok(1 | 2)) || (is_ring(epoch) && incoming.has_bytes()) {
            return;
        }
        if is_ring(epoch) {
            match bells::drain_to(fd, pipe, epoch) {
                Drained::Done => {}
                // Somebody else has, or the lock was lost: what was read before may not be true any more.
                Drained::Moved => continue,
                Drained::Failed(error) => {
                    // The kernel reports an error once: keep it for the call that may tell it.
                    pipe.entry.pending_error.store(error.0, Ordering::Release);
                    return;
                }
                _ => return,
            }
        } else if incoming.switch.kernel_end.load(Ordering::Relaxed)
            != incoming.reader.kernel_read.load(Ordering::Relaxed)
        {
            return;
        }
        incoming.follow(epoch);
    }
}

/// Counts bytes taken from the kernel's stream. Under the read lock.
fn advance(pipe: &Pipe, count: usize) {
    // A locked addition: a signal handler that reads from this socket may come in between.
    pipe.incoming().reader.kernel_read.fetch_add(count as u64, Ordering::Relaxed);
    note_received(pipe, count);
}

fn note_received(pipe: &Pipe, count: usize) {
    lanes::note_peer(pipe);
    arena::add(&pipe.entry.counters.kernel_received, count as u64);
    trace::note(-1, pipe.entry);
}

/// Takes data from the kernel, without waiting. Apart, so that its message is on the stack only meanwhile.
#[inline(never)]
fn kernel_bytes(fd: c_int, buffers: &[iovec], skip: usize, wanted: usize, flags: c_int) -> Look {
    let mut rest = Rest::after(buffers, skip, wanted);
    if kernel::is_strict(lock::thread())
        && flags & (KEPT | libc::MSG_DONTWAIT) == 0
        && let Some(piece) = rest.first()
    {
        // The one call that is allowed. It waits, as the program's own would, which was a read, too.
        let call = Call::read(fd, piece.iov_base.cast(), piece.iov_len.min(wanted));
        return look_of(call.make(), wanted);
    }
    let mut message = rest.message();
    look_of(kernel::recvmsg(fd, &mut message, (flags & KEPT) | libc::MSG_DONTWAIT), wanted)
}

/// The same inside a call of this thread's that may have marked the gate: with the mark, or with one of its own. With
/// signals blocked, so that the interrupted call, which takes its mark away, does not go on meanwhile: another of the
/// program's own threads may have it (swapcontext(3) in a handler). `None`: it has taken the mark away already.
#[cold]
fn kernel_bytes_nested(
    fd: c_int,
    pipe: &Pipe,
    epoch: u32,
    buffers: &[iovec],
    skip: usize,
    wanted: usize,
    flags: c_int,
) -> Option<Look> {
    let incoming = pipe.incoming();
    let mask = kernel::block_signals();
    let entered = incoming.enter_kernel(epoch);
    let look = (entered || incoming.is_busy(epoch)).then(|| kernel_bytes(fd, buffers, skip, wanted, flags));
    if let Some(Look::Bytes(count)) = look
        && flags & libc::MSG_PEEK == 0
    {
        advance(pipe, count);
    }
    if entered {
        incoming.leave_kernel();
    }
    kernel::restore_signals(mask);
    match look {
        Some(Look::Empty { .. }) => Some(Look::Empty { epoch }),
        look => look,
    }
}

/// The same where the ring's bells follow. Under the read lock, with signals blocked; `None`: it is somebody else's.
#[inline(never)]
fn bytes_before_ring(
    fd: c_int,
    pipe: &Pipe,
    buffers: &[iovec],
    skip: usize,
    wanted: usize,
    flags: c_int,
) -> Option<Look> {
    let mut rest = Rest::after(buffers, skip, wanted);
    let first = rest.first().filter(|_| kernel::is_restricted() && flags & KEPT == 0);
    let mut message = rest.message();
    let call = match first {
        Some(piece) => Call::read(fd, piece.iov_base.cast(), piece.iov_len.min(wanted)),
        None => Call::receive(fd, &mut message, flags & KEPT),
    };
    if flags & libc::MSG_PEEK != 0 {
        return pipe.entry.read_lock.0.call(&call).map(|result| look_of(result, wanted));
    }
    let result = bells::take_counted(pipe, &call)?;
    note_received(pipe, result.unwrap_or(0));
    Some(look_of(result, wanted))
}

/// Flags of the program's that are the kernel's to know.
const KEPT: c_int = libc::MSG_PEEK | libc::MSG_TRUNC;

fn look_of(result: Result<usize, Errno>, wanted: usize) -> Look {
    match result {
        Ok(0) if wanted > 0 => Look::End,
        Ok(count) => Look::Bytes(count),
        Err(Errno(libc::EAGAIN)) => Look::Empty { epoch: 0 },
        Err(error) => Look::Failed(error),
    }
}

/// After somebody has stepped around us. The caller's release is for this lock, too.
#[cold]
pub(super) fn relock(pipe: &Pipe) {
    let _ = lock_reads(pipe);
}

/// Tells the writer which ring suits the receive buffer. One that is too large is closed: it opens again smaller.
pub(crate) fn fit(fd: c_int, pipe: &Pipe) {
    let room = options::room(fd, pipe, libc::SO_RCVBUF);
    let taken = lock_reads(pipe);
    if pipe.is_mapped() {
        let incoming = pipe.incoming();
        incoming.reader.room.store(room, Ordering::Relaxed);
        if incoming.producer.capacity.load(Ordering::Relaxed) > room {
            incoming.close();
        }
    }
    pipe.entry.read_lock.0.release(taken);
}

/// Urgent data is the kernel's alone.
#[inline(never)]
fn receive_urgent(fd: c_int, buffers: &[iovec], flags: c_int) -> Result<usize, Errno> {
    let mut rest = Rest::after(buffers, 0, usize::MAX);
    let mut message = rest.message();
    kernel::recvmsg(fd, &mut message, flags)
}
