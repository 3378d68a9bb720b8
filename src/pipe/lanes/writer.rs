//! From one lane to the other: the ring opens when its reader says that it is ready for it, and spills into the kernel
//! whenever it must, for which it needs nothing from the reader.

use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, kept_options, outgoing_doorbells, transitions};
use crate::pipe::lanes::grow;
use crate::state::flags::SocketFlags;
use crate::state::reason::Reason;
use crate::state::socket_table::{self};
use crate::sys::{clock, kernel};
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::END_JOINED;

/// Kernel bytes that the reader may still have before it when the ring opens again: as many as the kernel's buffers hold. To
/// wait for fewer would be to wait for ever, for a writer that fills them again as soon as it may.
const OPEN_BACKLOG: u64 = 64 << 20;

/// Writes, with nothing read in between, after which the clock is looked at: the look costs as much as half of a
/// small write.
const WATCH_EVERY: u32 = 4;

/// Microseconds after which a publication that nobody consumed is a reason to ask the kernel.
const SUSPICION_US: u64 = 1000;

/// Whether this write goes into the ring; opens it if it can.
#[inline]
pub(crate) fn enter_ring(held: &WriteHeld<'_>) -> bool {
    let outgoing = held.outgoing();
    let epoch = outgoing.epoch();
    if !held.is_mapped() {
        return false;
    }
    // A signal handler that interrupted a copy must not write where that copy goes on afterwards.
    if is_ring(epoch) && (outgoing.is_closed() || !held.is_first()) {
        spill(held);
        return false;
    }
    if !is_ring(epoch) {
        return held.is_first() && may_open(held, epoch) && open(held, epoch);
    }
    if held.other_end() != END_JOINED || !reader_lives(held) {
        held.entry.reason.store(Reason::PeerLeft as u32, Ordering::Relaxed);
        spill(held);
        return false;
    }
    true
}

/// Looks in a row that found it so.
const CERTAIN: u32 = 8;

/// After bytes went through the kernel: the other end may have gone back to it for good (handed on, pinned), which only its
/// words say.
#[cold]
pub(crate) fn note_peer(end: &End) {
    let outgoing = end.outgoing();
    // One that is about to close the connection takes its promise back as well, but then it is soon no more.
    let has_gone = end.other_end() == END_JOINED
        && outgoing.is_closed()
        && outgoing.reader.ready.load(Ordering::Relaxed) == 0;
    let looks = if has_gone { end.local.gone.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
    end.local.gone.store(looks, Ordering::Relaxed);
    let has_left = looks >= CERTAIN;
    if has_gone != has_left || end.other_end() != END_JOINED {
        return;
    }
    let reasons = [Reason::Pipe as u32, Reason::PeerLeft as u32];
    let (old, new) = (reasons[usize::from(!has_left)], reasons[usize::from(has_left)]);
    if end.is_open() && end.entry.reason.load(Ordering::Relaxed) == old {
        end.entry.reason.store(new, Ordering::Relaxed);
    }
}

/// A reader killed while awake would let us write into its ring for ever. False when the kernel has news.
#[inline]
pub(crate) fn reader_lives(end: &End) -> bool {
    // Whoever sends us bytes lives: then this is 0 again.
    let writes = end.local.unwatched.load(Ordering::Relaxed).wrapping_add(1);
    // Not 0: that says that nothing was written since.
    end.local.unwatched.store(if writes < WATCH_EVERY { writes } else { 1 }, Ordering::Relaxed);
    writes < WATCH_EVERY || look_at_reader(end)
}

#[inline(never)]
fn look_at_reader(end: &End) -> bool {
    let local = end.local;
    let now = clock::ticks();
    if now.wrapping_sub(local.watched_since.load(Ordering::Relaxed)) < clock::from_us(SUSPICION_US) {
        return true;
    }
    let outgoing = end.outgoing();
    let watched = local.watched_tail.load(Ordering::Relaxed);
    let head = outgoing.consumer.head.load(Ordering::Acquire);
    let tail = outgoing.producer.tail.load(Ordering::Relaxed) & !sockshim_ring::layout::CLOSED;
    local.watched_tail.store(tail, Ordering::Relaxed);
    local.watched_since.store(now, Ordering::Relaxed);
    let stuck = watched.wrapping_sub(head).wrapping_sub(1) < u64::MAX / 2;
    !stuck || kernel::poll_now(end.fd, libc::POLLRDHUP) == 0
}

/// Opens the ring although the connection is pinned, for a doorbell. The caller spills.
#[cold]
pub(crate) fn reopen(held: &WriteHeld<'_>) -> bool {
    let epoch = held.outgoing().epoch();
    is_ready_for_ring(held, epoch) && open(held, epoch)
}

/// Opens the ring of a connection that may be on it, for a doorbell.
#[cold]
pub(crate) fn open_for_doorbell(held: &WriteHeld<'_>) -> bool {
    let epoch = held.outgoing().epoch();
    may_open(held, epoch) && open(held, epoch)
}

/// The cheap conditions for going from the kernel lane to the ring.
#[inline]
fn may_open(end: &End, epoch: u32) -> bool {
    end.is_open() && is_ready_for_ring(end, epoch)
}

#[inline]
fn is_ready_for_ring(end: &End, epoch: u32) -> bool {
    let outgoing = end.outgoing();
    !outgoing.is_shut()
        && outgoing.reader.ready.load(Ordering::Acquire) == 1
        && outgoing.reader_epoch() == epoch
        && end.entry.writers.is_empty()
        && !end.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::SHUT_WRITE)
        && end.other_end() == END_JOINED
}

/// From the kernel lane to the ring.
#[cold]
fn open(held: &WriteHeld<'_>, epoch: u32) -> bool {
    if !grow::prepare(held) {
        transitions::mark(held, Reason::NoMemory);
        return false;
    }
    // A signal handler that writes to this socket must not find it between two lanes.
    let mask = kernel::block_signals();
    let opened = open_quietly(held, epoch);
    kernel::restore_signals(mask);
    if opened {
        note_peer(held);
        socket_table::add(&held.entry.counters.upgrades, 1);
        held.local.watched_since.store(clock::ticks(), Ordering::Relaxed);
    }
    opened
}

/// Somebody may fence us off anywhere in here, and write into the kernel's lane: then the gate is shut.
fn open_quietly(held: &WriteHeld<'_>, epoch: u32) -> bool {
    let outgoing = held.outgoing();
    // Once more: where a program switches between threads of its own in a handler, one of them may have begun to send since.
    if !held.entry.writers.is_empty() {
        return false;
    }
    let Ok(position) = kernel::tcp_position(held.fd) else { return false };
    let backlog = position.written.wrapping_sub(outgoing.reader.kernel_read.load(Ordering::Relaxed));
    if position.state != kernel::TCP_ESTABLISHED || backlog > OPEN_BACKLOG {
        return false;
    }
    kept_options::prepare(held);
    outgoing.reopen();
    // The reader first takes its promise back and then closes the ring: look again after reopening.
    outgoing.reader.ready.load(Ordering::SeqCst) == 1 && outgoing.open(epoch, position.written)
}

/// From the ring to the kernel lane; needs nothing from the reader. Also by who has been fenced off, after a publication
/// that failed because the ring is closed: nobody rings any more then, and whoever has fenced us off spills as we do.
#[cold]
pub(crate) fn spill(held: &WriteHeld<'_>) {
    let mask = kernel::block_signals();
    spill_quietly(held);
    kernel::restore_signals(mask);
    outgoing_doorbells::end_timed_waits(held.outgoing());
    socket_table::add(&held.entry.counters.spills, 1);
}

fn spill_quietly(held: &WriteHeld<'_>) {
    let outgoing = held.outgoing();
    let epoch = outgoing.epoch();
    if !is_ring(epoch) {
        // A signal handler has spilled between our look and this, or whoever has fenced us off.
        return;
    }
    // A publication of an interrupted call of this thread must fail from here on.
    outgoing.close();
    let tail = outgoing.producer.tail.load(Ordering::Acquire) & !sockshim_ring::layout::CLOSED;
    let counted = outgoing
        .switch
        .kernel_end
        .load(Ordering::Relaxed)
        .wrapping_add(outgoing.switch.doorbells.load(Ordering::Relaxed));
    // The kernel is the referee; after a reset it no longer answers, and nobody will read on.
    let resume = kernel::tcp_position(held.fd).map_or(counted, |position| match position.state {
        kernel::TCP_ESTABLISHED => position.written,
        _ => counted,
    });
    outgoing.spill(epoch, tail, resume);
}

/// Before what only the kernel's lane can take.
pub(crate) fn leave_ring(held: &WriteHeld<'_>) {
    if held.is_mapped() && is_ring(held.outgoing().epoch()) {
        spill(held);
    }
}

/// Lets others write who wait for it, in the middle of a long write. False: this end is not in its ring any more.
#[cold]
pub(crate) fn take_turns(held: &WriteHeld<'_>) -> bool {
    held.hand_over();
    enter_ring(held)
}
