//! Reading: following the writer's lanes. Waiting is in [`crate::pipe::waiting::wait`].

use crate::error::Errno;
use crate::pipe::connection::incoming_doorbells::{self, Drained};
use crate::pipe::connection::read_lock::{self, ReadHeld};
use crate::pipe::connection::{self, End, Pipe, transitions};
use crate::pipe::copying::buffers::{self, Rest};
use crate::pipe::ending;
use crate::pipe::lanes::{reader, unread, writer};
use crate::pipe::transfer::quick;
use crate::pipe::waiting::{room, wait};
use crate::state::flags::SocketFlags;
use crate::state::lock;
use crate::state::reason::Reason;
use crate::state::socket_table::{self};
use crate::state::trace;
use crate::sys::handlers::Since;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;
use sockshim_ring::epoch::is_ring;

/// What one look at the lanes gave.
pub(crate) enum Look {
    /// This many bytes are there.
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

/// Looks in one call that the end of the stream may be reported in while the ring is not empty.
const MOST_ENDS: u32 = 1000;

/// The receiving calls, on a pipe. `since` is when the call began.
///
/// # Errors
/// As recv(2).
///
/// # Safety
/// `buffers` are the program's.
pub(crate) unsafe fn receive(
    pipe: &Pipe,
    buffers: &[iovec],
    flags: c_int,
    since: Since,
) -> Result<usize, Errno> {
    // SAFETY: the buffers are the program's, as the caller says.
    let received = unsafe { receive_in_turn(pipe, buffers, flags, since) };
    // With much of this end's own in the kernel's lane, as in `write::through_kernel`: a doorbell may not stay behind.
    if received.is_ok()
        && !is_ring(pipe.outgoing().epoch())
        && pipe.is_mapped()
        && pipe.descriptor() == Some(pipe.fd)
    {
        wait::settle(pipe);
    }
    received
}

/// # Safety
/// As for [`receive`].
unsafe fn receive_in_turn(
    pipe: &Pipe,
    buffers: &[iovec],
    flags: c_int,
    since: Since,
) -> Result<usize, Errno> {
    let drop = flags & libc::MSG_TRUNC != 0;
    let wanted = if drop { buffers::length(buffers) } else { buffers::total(buffers)? };
    if flags & libc::MSG_OOB != 0 {
        return receive_urgent(pipe, buffers, flags);
    }
    let all = flags & libc::MSG_WAITALL != 0;
    let peek = flags & libc::MSG_PEEK != 0;
    let mut has_waited = false;
    let mut done = 0;
    let mut pipe = *pipe;
    let mut deadline = None;
    let mut ends = 0;
    loop {
        if transitions::is_broken(&pipe) {
            return if done > 0 { Ok(done) } else { ending::after_break(&pipe) };
        }
        // SAFETY: the buffers are the program's, as the caller says.
        let look = unsafe { take(&pipe, buffers, done, wanted - done, flags) };
        let outcome = match look {
            Look::Bytes(count) if peek => {
                // What has come and is not shown now lies behind another change of lanes.
                if !all || count >= wanted || has_waited {
                    return Ok(count);
                }
                wait::wait_for_all(&pipe, wanted, flags, since);
                has_waited = true;
                continue;
            }
            Look::Bytes(count) => {
                done += count;
                room::report(&pipe);
                // What a change of lanes divides is one stream to the program; an urgent mark divides it.
                if done == wanted || (!all && !goes_on(&pipe)) || (all && kernel::at_mark(pipe.fd)) {
                    return Ok(done);
                }
                continue;
            }
            Look::Empty { .. } if done > 0 && !all => return Ok(done),
            Look::Empty { .. } if wait::is_late(&pipe, &mut deadline) => {
                return if done > 0 { Ok(done) } else { Err(Errno(libc::EAGAIN)) };
            }
            Look::Empty { epoch } => wait::wait(&pipe, flags, epoch, since),
            Look::End => ending::at_end(&pipe).map(Some),
            Look::Failed(error) => ending::after_error(&pipe, error).map(Some),
            Look::Broken => continue,
        };
        match outcome {
            Ok(None) => {
                // What was waited for is mostly the usual case.
                if let [only] = buffers
                    && flags == 0
                    && done == 0
                    // SAFETY: the buffers are the program's, as the caller says.
                    && let Some(count) = unsafe { quick::read(&pipe, only.iov_base.cast(), only.iov_len) }
                {
                    room::report(&pipe);
                    return Ok(count);
                }
                pipe = match pipe.live() {
                    Some(pipe) => pipe,
                    // Shut down and closed, before this thread was in the kernel to hear of it.
                    None if pipe.socket.is_read_shut() => return Ok(done),
                    None => return Err(Errno(libc::EBADF)),
                };
            }
            Ok(Some(())) if unread::is_drained(&pipe) => return Ok(done),
            Ok(Some(())) => {
                // The ring has bytes yet. Words that promise them for ever cannot be true.
                ends += 1;
                if ends > MOST_ENDS {
                    broken(&pipe);
                }
            }
            Err(error) if done > 0 => {
                ending::keep_error(&pipe, error);
                return Ok(done);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the writer has moved on to another lane than the one that is being read, and nothing urgent stands
/// between the two: a read stops at the mark (tcp(7)).
#[inline]
fn goes_on(pipe: &Pipe) -> bool {
    let incoming = pipe.incoming();
    if incoming.epoch() == incoming.reader_epoch() {
        return false;
    }
    reader::follow(&pipe.lock_reads());
    // A filter of the program's may not let us ask.
    !kernel::is_restricted() && !kernel::at_mark(pipe.fd)
}

/// One look at the lanes.
///
/// # Safety
/// `buffers` are the program's.
#[inline]
pub(crate) unsafe fn take(pipe: &Pipe, buffers: &[iovec], skip: usize, wanted: usize, flags: c_int) -> Look {
    // SAFETY: the caller's buffers.
    unsafe { take_locked(&pipe.lock_reads(), Target { buffers, skip, wanted, flags }) }
}

/// Where the bytes of one look go: to the program's buffers behind the first `skip` bytes, and `wanted` of them at most.
#[derive(Clone, Copy)]
struct Target<'a> {
    buffers: &'a [iovec],
    skip: usize,
    wanted: usize,
    /// The call's.
    flags: c_int,
}

impl Target<'_> {
    fn peeks(&self) -> bool {
        self.flags & libc::MSG_PEEK != 0
    }

    /// Whether the bytes go nowhere: MSG_TRUNC of tcp(7).
    fn drops(&self) -> bool {
        self.flags & libc::MSG_TRUNC != 0
    }

    /// What is left of it behind `count` bytes.
    fn after(&self, count: usize) -> Self {
        Self { skip: self.skip + count, wanted: self.wanted - count, ..*self }
    }
}

/// Follows the writer from lane to lane until there is something to tell.
///
/// # Safety
/// The buffers are the program's.
unsafe fn take_locked(held: &ReadHeld<'_>, target: Target<'_>) -> Look {
    let incoming = held.incoming();
    for _ in 0..reader::MOST_STEPS {
        if !held.is_mapped() {
            // Another thread is closing the socket's last descriptor.
            return if held.socket.is_read_shut() { Look::End } else { Look::Failed(Errno(libc::EBADF)) };
        }
        let epoch = incoming.reader_epoch();
        let look = if is_ring(epoch) {
            // SAFETY: the caller's buffers.
            unsafe { in_ring(held, epoch, target) }
        } else if !held.is_first() && incoming.epoch() == epoch {
            in_kernel_nested(held, epoch, target)
        } else if incoming.enter_kernel(epoch) {
            Some(in_kernel(held, epoch, target))
        } else if incoming.epoch() == epoch {
            // We have the lock, so whoever marked the gate is dead.
            incoming.leave_kernel();
            None
        } else {
            before_ring(held, epoch, target)
        };
        if let Some(look) = look {
            return look;
        }
    }
    // As often as that no writer changes what is looked at.
    broken(held)
}

/// In the ring: its bytes, or what comes after it once it is empty. `None`: look again.
///
/// # Safety
/// The buffers are the program's.
#[inline]
unsafe fn in_ring(held: &ReadHeld<'_>, epoch: u32, target: Target<'_>) -> Option<Look> {
    let incoming = held.incoming();
    let Ok(span) = incoming.readable() else { return Some(broken(held)) };
    if span.length == 0 {
        return leave_ring(held, epoch);
    }
    let count = span.length.min(target.wanted);
    if !target.drops() {
        // As in the kernel, a stretch for which there is not room as a whole stays.
        if buffers::good(target.buffers, target.skip, count, true) < count {
            return Some(Look::Failed(Errno(libc::EFAULT)));
        }
        let ring = held.incoming_ring(span.capacity);
        // SAFETY: the ring is as long as any checked capacity; the caller's buffers were looked at just now.
        unsafe { buffers::scatter(ring, span, target.buffers, target.skip, count) };
    }
    if target.peeks() {
        return Some(Look::Bytes(count + peek_beyond(held, epoch, target.after(count))));
    }
    if !incoming.consume(&span, count) {
        return None;
    }
    connection::note_cpu(&incoming.consumer.cpu);
    held.local.unwatched.store(0, Ordering::Relaxed);
    socket_table::add(&held.entry.counters.received, count as u64);
    Some(Look::Bytes(count))
}

/// The ring is empty: on to the kernel's lane, if the writer is there.
fn leave_ring(held: &ReadHeld<'_>, epoch: u32) -> Option<Look> {
    let incoming = held.incoming();
    let ahead = incoming.epoch();
    if ahead == epoch {
        return Some(Look::Empty { epoch });
    }
    if incoming.has_bytes() {
        return None;
    }
    if reader::is_impossible(held, epoch) {
        return Some(broken(held));
    }
    match incoming_doorbells::drain_to(held, epoch) {
        Drained::Done => {
            incoming.follow(epoch);
            None
        }
        Drained::Moved => None,
        Drained::NotYet => Some(Look::Empty { epoch: ahead }),
        Drained::End => Some(Look::End),
        Drained::Failed(error) => Some(Look::Failed(error)),
        Drained::Beyond => Some(broken(held)),
        Drained::ReadPastUs => Some(read_past_us(held)),
    }
}

/// In the kernel's lane, with the gate marked.
fn in_kernel(held: &ReadHeld<'_>, epoch: u32, target: Target<'_>) -> Look {
    let look = kernel_bytes(held.fd, target);
    if let Look::Bytes(count) = look
        && !target.peeks()
    {
        advance(held, count);
    }
    held.incoming().leave_kernel();
    match look {
        Look::Empty { .. } => Look::Empty { epoch },
        look => look,
    }
}

/// In the kernel's lane, with the writer in the ring that follows: doorbells lie behind these bytes. `None`: look again.
fn before_ring(held: &ReadHeld<'_>, epoch: u32, target: Target<'_>) -> Option<Look> {
    let incoming = held.incoming();
    let end = incoming.switch.kernel_end.load(Ordering::Relaxed);
    let position = || incoming.reader.kernel_read.load(Ordering::Relaxed);
    let left = end.checked_sub(position()).filter(|_| !reader::is_impossible(held, epoch));
    match left {
        // A signal handler has read on meanwhile.
        None if incoming.reader_epoch() != epoch => return None,
        None => return Some(broken(held)),
        Some(0) => {
            incoming.follow(epoch);
            return None;
        }
        Some(_) => {}
    }
    let ahead = incoming.epoch();
    // A signal handler that reads from this socket must not take what is counted here.
    let mask = kernel::block_signals();
    if incoming.reader_epoch() != epoch {
        kernel::restore_signals(mask);
        return None;
    }
    let left = end.saturating_sub(position());
    let look = match target.wanted.min(left as usize) {
        0 if target.wanted > 0 => Some(Look::Bytes(0)),
        room => bytes_before_ring(held, Target { wanted: room, ..target }),
    };
    // Still without a handler, which would count on, and follow the writer to doorbells that are no data.
    let is_behind = matches!(look, Some(Look::Empty { .. })) && incoming_doorbells::is_read_past_us(held);
    if is_behind {
        // By somebody who took data as data, but perhaps more than that.
        read_lock::recount(held);
    }
    let is_past_end = is_behind && position() > end;
    kernel::restore_signals(mask);
    match look {
        None => {
            held.take_again();
            None
        }
        Some(Look::Bytes(0)) if target.wanted > 0 => None,
        _ if is_past_end => Some(read_past_us(held)),
        _ if is_behind => None,
        Some(Look::Empty { .. }) => Some(Look::Empty { epoch: ahead }),
        Some(Look::Bytes(count)) if target.peeks() && count as u64 == left => {
            Some(Look::Bytes(count + peek_ring(held, target.after(count))))
        }
        look => look,
    }
}

/// Doorbells were taken by somebody who knows nothing of them: what is left cannot be told apart.
#[cold]
fn read_past_us(end: &End) -> Look {
    transitions::give_up(end, Reason::Integrity);
    Look::Broken
}

/// MSG_PEEK past the end of a ring epoch: what the kernel lane holds after it.
fn peek_beyond(held: &ReadHeld<'_>, epoch: u32, target: Target<'_>) -> usize {
    if target.wanted == 0 || target.drops() || held.incoming().epoch() == epoch {
        return 0;
    }
    // The doorbells in between are of no use to anybody any more: the epoch is over.
    match incoming_doorbells::drain_to(held, epoch) {
        Drained::Done => match kernel_bytes(held.fd, Target { flags: libc::MSG_PEEK, ..target }) {
            Look::Bytes(count) => count,
            _ => 0,
        },
        _ => 0,
    }
}

/// MSG_PEEK past the end of a kernel epoch: what the ring holds after it.
fn peek_ring(held: &ReadHeld<'_>, target: Target<'_>) -> usize {
    match held.incoming().readable() {
        Ok(span) if target.wanted > 0 && !target.drops() => {
            let Target { buffers, skip, wanted, .. } = target;
            let count = buffers::good(buffers, skip, span.length.min(wanted), true);
            // SAFETY: the ring is as long as any checked capacity; so many bytes of the program's buffers are good.
            unsafe { buffers::scatter(held.incoming_ring(span.capacity), span, buffers, skip, count) };
            count
        }
        _ => 0,
    }
}

/// Counts bytes taken from the kernel's stream.
fn advance(held: &ReadHeld<'_>, count: usize) {
    // A locked addition: a signal handler that reads from this socket may come in between.
    held.incoming().reader.kernel_read.fetch_add(count as u64, Ordering::Relaxed);
    note_received(held, count);
}

fn note_received(end: &End, count: usize) {
    writer::note_peer(end);
    socket_table::add(&end.entry.counters.kernel_received, count as u64);
    trace::note(-1, end.entry);
}

/// Takes data from the kernel, without waiting. Apart, so that its message is on the stack only meanwhile.
#[inline(never)]
fn kernel_bytes(fd: c_int, target: Target<'_>) -> Look {
    let Target { buffers, skip, wanted, flags } = target;
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
fn in_kernel_nested(held: &ReadHeld<'_>, epoch: u32, target: Target<'_>) -> Option<Look> {
    let incoming = held.incoming();
    let mask = kernel::block_signals();
    let entered = incoming.enter_kernel(epoch);
    let look = (entered || incoming.is_busy(epoch)).then(|| kernel_bytes(held.fd, target));
    if let Some(Look::Bytes(count)) = look
        && !target.peeks()
    {
        advance(held, count);
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

/// The same where the ring's doorbells follow. With signals blocked; `None`: the lock is somebody else's.
#[inline(never)]
fn bytes_before_ring(held: &ReadHeld<'_>, target: Target<'_>) -> Option<Look> {
    let Target { buffers, skip, wanted, flags } = target;
    let mut rest = Rest::after(buffers, skip, wanted);
    let first = rest.first().filter(|_| kernel::is_restricted() && flags & KEPT == 0);
    let mut message = rest.message();
    let call = match first {
        Some(piece) => Call::read(held.fd, piece.iov_base.cast(), piece.iov_len.min(wanted)),
        None => Call::receive(held.fd, &mut message, flags & KEPT),
    };
    if target.peeks() {
        return held.call(&call).map(|result| look_of(result, wanted));
    }
    let result = incoming_doorbells::take_counted(held, &call)?;
    note_received(held, result.unwrap_or(0));
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

/// Urgent data is the kernel's alone.
#[inline(never)]
fn receive_urgent(pipe: &Pipe, buffers: &[iovec], flags: c_int) -> Result<usize, Errno> {
    if flags & libc::MSG_PEEK == 0 {
        // Before it is: another thread may ask for the position.
        pipe.entry.flags.set(SocketFlags::URGENT_READ, Ordering::Relaxed);
    }
    let mut rest = Rest::after(buffers, 0, usize::MAX);
    let mut message = rest.message();
    kernel::recvmsg(pipe.fd, &mut message, flags)
}

/// The words of the connection cannot be true.
pub(crate) fn broken(end: &End) -> Look {
    transitions::give_up(end, Reason::BadSegment);
    Look::Broken
}
