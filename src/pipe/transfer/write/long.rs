//! Long writes: what they wait for, and how they come back to the ring.

use crate::error::{Errno, answer};
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{End, Pipe, kept_options, outgoing_doorbells};
use crate::pipe::lanes::writer;
use crate::pipe::transfer::write::{self, Pushed};
use crate::pipe::waiting::room;
use crate::sys::handlers::Since;
use crate::sys::kernel;
use core::ffi::c_int;
use libc::iovec;

/// Bytes that a write gives to the kernel before the ring is looked at again, where the reader may be by now.
pub(crate) const PORTION: usize = 1 << 20;

/// What a write was called with, and how it goes.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) flags: c_int,
    /// As far as is known: see [`Call::must_not_wait`].
    pub(crate) nonblocking: bool,
    /// How often it may wait on the futex for room in the ring when the kernel would let it go.
    pub(crate) timed_waits: u32,
    /// It has waited on the futex in vain: the reader stands still.
    pub(crate) in_vain: bool,
    pub(crate) began: Since,
}

impl Call {
    /// Whether it must not wait, after all: of O_NONBLOCK this process knows what it has seen, and others may have changed it.
    #[cold]
    pub(crate) fn must_not_wait(&self, end: &End) -> bool {
        self.nonblocking && (self.flags & libc::MSG_DONTWAIT != 0 || kernel::is_nonblocking(end.fd))
    }

    /// How many bytes of `total` it takes at once: a loop that has other connections must not be held for longer than by
    /// the kernel.
    #[cold]
    pub(crate) fn most(&self, end: &End, total: usize) -> usize {
        let may_be_short = self.must_not_wait(end) && !room::is_reported_by_edges(end.entry);
        if may_be_short { total.min(room::MOST_AT_ONCE) } else { total }
    }

    /// Whether what goes through the kernel goes in portions: while the connection may come back to the ring. Not if its time is
    /// limited (SO_SNDTIMEO), because each portion would have all of that time; nor if only the kernel's refusal brings the
    /// program back.
    #[cold]
    pub(crate) fn is_divided(&self, end: &End) -> bool {
        end.is_open()
            && match self.nonblocking {
                true => !room::is_reported_by_edges(end.entry),
                false => !kernel::has_send_timeout(end.fd),
            }
    }
}

/// The rest of a long write that has left the ring, or waits for room in it: through the kernel in portions, and back into the ring
/// as soon as the reader is there.
///
/// # Safety
/// `buffers` are the program's.
#[cold]
#[inline(never)]
pub(crate) unsafe fn send_in_portions<'a>(
    pipe: &'a Pipe,
    buffers: &[iovec],
    total: usize,
    mut call: Call,
    mut held: WriteHeld<'a>,
    mut pushed: Pushed,
) -> isize {
    let Call { flags, began, .. } = call;
    call.nonblocking = call.must_not_wait(pipe);
    // What has been written is so, also if the socket has become non-blocking since.
    let most = match pushed {
        Pushed::Full(n) | Pushed::TimedWait(n) | Pushed::Spilled(n) => call.most(pipe, total).max(n),
        _ => call.most(pipe, total),
    };
    let mut done = 0;
    loop {
        match pushed {
            Pushed::All => done = most,
            Pushed::Faulted(n) | Pushed::Full(n) | Pushed::TimedWait(n) | Pushed::Spilled(n) => done = n,
            Pushed::Dead(_) => {}
        }
        match pushed {
            Pushed::TimedWait(_) => {
                drop(held);
                outgoing_doorbells::ring_if_owed(pipe);
                let is_patient = !call.nonblocking && total - done > room::KERNEL_TAKES;
                let most = if is_patient { room::PATIENCE_NS } else { room::LOOK_NS };
                call.timed_waits -= u32::from(!is_patient);
                call.in_vain = !room::timed_wait(pipe, began, most);
                if pipe.descriptor() != Some(pipe.fd) {
                    return if done > 0 { done as isize } else { answer(Err(Errno(libc::EBADF))) };
                }
            }
            Pushed::Spilled(_) => {
                let portion = PORTION.min(total - done);
                let sent = write::through_kernel(pipe, held, portion, || {
                    // SAFETY: the buffers are the program's, as the caller says.
                    unsafe { send_portion(pipe.fd, buffers, done + portion, done, flags, began) }
                });
                if sent < 0 {
                    return if done > 0 { done as isize } else { sent };
                }
                done += sent as usize;
                let is_over =
                    done == total || (sent as usize) < portion || call.nonblocking || began.has_any();
                // Another thread may have closed the descriptor, and its number may be another socket's.
                if is_over || pipe.descriptor() != Some(pipe.fd) {
                    if call.nonblocking && sent as usize == portion {
                        room::note_full(pipe);
                    }
                    if flags & libc::MSG_MORE != 0 {
                        kept_options::push(pipe.fd, pipe.entry);
                    }
                    return done as isize;
                }
                call.in_vain = false;
            }
            Pushed::All | Pushed::Full(_) | Pushed::Faulted(_) | Pushed::Dead(_) => {
                if matches!(pushed, Pushed::Full(_)) || done < total && matches!(pushed, Pushed::All) {
                    room::note_full(pipe);
                }
                drop(held);
                outgoing_doorbells::ring_if_owed(pipe);
                // What has been written before counts; the error will come again.
                return match pushed {
                    Pushed::Dead(error) if done == 0 => write::after_death(flags, error),
                    Pushed::Faulted(0) => answer(Err(Errno(libc::EFAULT))),
                    Pushed::Full(0) => answer(Err(Errno(libc::EAGAIN))),
                    _ => done as isize,
                };
            }
        }
        held = pipe.lock_writes();
        pushed = if writer::enter_ring(&held) {
            // SAFETY: the buffers are the program's, as the caller says.
            unsafe { write::push(&held, buffers, done, most, call) }
        } else {
            Pushed::Spilled(done)
        };
    }
}

/// One portion, up to byte `end`.
#[inline(never)]
unsafe fn send_portion(
    fd: c_int,
    buffers: &[iovec],
    end: usize,
    done: usize,
    flags: c_int,
    began: Since,
) -> isize {
    // SAFETY: the buffers are the program's, by this function's own contract.
    unsafe { write::send_on(fd, buffers, end, done, flags, began) }
}
