//! Giving back: bytes that lie unread in the ring when the other end hands its socket on are sent once more, by the
//! kernel, where every program finds them.
//!
//! The reader puts them down in a file ([`super::file`]) and says so in `reader.handed`; the writer looks there before
//! it goes on in the kernel lane, and whenever it is about to wait. Who takes them is decided by one compare-and-swap on the
//! reading position in the file: a new owner that runs on sockshim and was faster has them already.

use crate::error::Errno;
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, NO_FD, Pipe, outgoing_doorbells, transitions};
use crate::pipe::handoff::file;
use crate::pipe::lanes::writer;
use crate::state::reason::Reason;
use crate::state::{socket, socket_table};
use crate::sys::deadline::Deadline;
use crate::sys::kernel;
use crate::sys::restartable::Call;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::epoch::is_ring;
use sockshim_ring::handed::Asked;

/// Nanoseconds that a writer gives the other end for putting its unread bytes down; once, if it does not.
const PREPARING: u64 = 1_000_000_000;

/// Times that a reader may begin anew to hand its socket on while a writer looks whether it has.
const MOST_BEGINNINGS: u32 = 8;

/// Nanoseconds that a reader gives a writer who was woken for following it to the kernel's lane.
const FOLLOWING: u64 = 5_000_000;

/// Nanoseconds that a writer waits for room in the kernel's send buffer. The ring is not larger than that, so there mostly is
/// some. Less than other writers wait for one that is apart.
const ROOM: u64 = 100_000_000;

/// Whether the other end hands its socket on, or has done so, with bytes unread.
#[inline]
pub(crate) fn is_asked(end: &End) -> bool {
    end.outgoing().is_asked()
}

/// A writer in this very process answers at once.
pub(crate) fn answer_here(pipe: &Pipe) {
    let other = pipe.entry.peer_cookie.load(Ordering::Relaxed);
    let found = socket_table::get().and_then(|socket_table| {
        socket::held(socket_table).find_map(|socket| {
            let entry = socket.entry().filter(|entry| entry.cookie.load(Ordering::Relaxed) == other)?;
            Pipe::of(NO_FD, socket, entry)
        })
    });
    if let Some(writer) = found
        && let Some(writer) = writer.live()
    {
        look(&writer);
    }
}

/// Wakes the writer if it sleeps, by a doorbell in this end's own direction. Whether it slept.
pub(crate) fn wake(pipe: &Pipe) -> bool {
    let held = pipe.lock_writes();
    let outgoing = held.outgoing();
    let in_ring = || is_ring(outgoing.epoch());
    // With bytes of the kernel's lane before the ring it is not asleep, and a doorbell behind them, of which no byte in the ring
    // tells, would stay there when it hands its socket on, too.
    let has_come = || {
        let taken = outgoing.reader.kernel_read.load(Ordering::Acquire);
        taken.wrapping_sub(outgoing.switch.kernel_end.load(Ordering::Relaxed)).cast_signed() >= 0
    };
    let woken = held.is_mapped() && in_ring() && has_come() && outgoing.need_wakeup() != 0 && {
        // Whatever becomes of the doorbell, a dead writer answers nothing.
        outgoing_doorbells::wake(&held).is_ok() || pipe.local.owes.load(Ordering::Relaxed) != 0
    };
    drop(held);
    outgoing_doorbells::ring_if_owed(pipe);
    woken
}

/// The same when this end's direction may be in the kernel's lane: the ring opens once more, for the doorbell.
pub(crate) fn wake_from_kernel_lane(pipe: &Pipe) -> bool {
    let outgoing = pipe.outgoing();
    // Woken a moment ago (`pin::pin`), the writer follows to the kernel's lane.
    let until = Deadline::after(Some(FOLLOWING));
    while !is_ring(outgoing.epoch()) && outgoing.reader_epoch() != outgoing.epoch() && until.left() != Some(0)
    {
        kernel::sleep_us(50);
    }
    let held = pipe.lock_writes();
    if held.is_mapped() && !is_ring(outgoing.epoch()) {
        writer::reopen(&held);
    }
    drop(held);
    wake(pipe)
}

/// Before this end waits: it may be asked for bytes that it has long written.
#[inline]
pub(crate) fn look(pipe: &Pipe) {
    if is_asked(pipe) {
        give(&pipe.lock_writes(), false);
    }
}

/// Whether a look would do something: whoever has said that it sleeps asks once more.
#[inline]
pub(crate) fn is_due(end: &End) -> bool {
    end.outgoing().is_awaited() && end.entry.writers.is_empty() && !kernel::is_restricted()
}

/// [`give`] at the end of this end's time in the ring. The other end may be about to say what it leaves: others may write until
/// then.
#[cold]
pub(crate) fn give_last(held: WriteHeld<'_>) -> WriteHeld<'_> {
    let until = Deadline::after(Some(PREPARING));
    let mut held = held;
    let is_due =
        |end: &End| end.is_mapped() && !kernel::is_restricted() && end.outgoing().asked() == Asked::NotYet;
    while is_due(&held) && held.local.in_vain.load(Ordering::Relaxed) == 0 {
        if until.left() == Some(0) {
            held.local.in_vain.store(1, Ordering::Relaxed);
            break;
        }
        held = held.without(|| kernel::sleep_us(50));
    }
    give(&held, true);
    held
}

/// Sends again what the other end has left unread, if it has. `last`: this end goes on in the kernel's lane right after it.
#[cold]
fn give(held: &WriteHeld<'_>, last: bool) {
    let outgoing = held.outgoing();
    if !held.is_mapped() || kernel::is_restricted() || !held.entry.writers.is_empty() {
        return;
    }
    let mut patience = 0..MOST_BEGINNINGS;
    let asked = loop {
        match outgoing.asked() {
            Asked::NotYet if last && patience.next().is_some() => outgoing.give_up(),
            Asked::NotYet | Asked::Nothing => return,
            Asked::Again(asked) => break asked,
        }
    };
    if is_ring(outgoing.epoch()) {
        writer::spill(held);
    }
    let reclaimed = held.apart(|| {
        file::reclaim_for(held, |bytes, length| {
            if !send(held.fd, bytes, length) {
                // Nobody else has the rest of them. A reset tells both ends.
                transitions::give_up(held, Reason::UnreadAtHandOver);
            }
        })
    });
    let Some(answered) = reclaimed else { return };
    // A new owner that has taken the file up may hand the rest on to another one.
    outgoing.answer(asked, answered || last);
}

/// All of it, from shared memory: only the kernel looks there. False: it does not take it in time.
fn send(fd: c_int, bytes: *const u8, length: usize) -> bool {
    let until = Deadline::after(Some(ROOM));
    let mut at = 0;
    while at < length {
        match Call::send(fd, bytes.wrapping_add(at), length - at, libc::MSG_NOSIGNAL).make() {
            Ok(count) => at += count,
            Err(error) if outgoing_doorbells::is_refusal(error) && until.left() != Some(0) => {
                kernel::sleep_us(500);
            }
            // The connection has ended.
            Err(Errno(libc::EPIPE | libc::ECONNRESET | libc::ETIMEDOUT)) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// Waits until the writer has answered.
pub(crate) fn wait_for_answer(pipe: &Pipe, until: Deadline) {
    while pipe.incoming().is_unanswered() && until.left() != Some(0) {
        kernel::sleep_us(50);
    }
}

/// Before this end's direction ends, by shutdown, close or exit.
pub(crate) fn before_end(pipe: &Pipe) {
    if pipe.fd >= 0 && is_asked(pipe) {
        drop(give_last(pipe.lock_writes()));
    }
}
