//! Long writes: what they wait for, and how they come back to the ring.

use super::{
    Pushed, after_death, lock_writes, push, ring_if_owed, send_interrupted, send_rest, through_kernel,
};
use crate::error::{Errno, answer};
use crate::pipe::lanes::enter_ring;
use crate::pipe::{Pipe, options, room};
use crate::state::lock::Taken;
use crate::sys::handlers::Since;
use crate::sys::kernel;
use core::ffi::c_int;
use libc::iovec;

/// Bytes that a write gives to the kernel before the ring is looked at again, where the reader may be by now.
pub(super) const PORTION: usize = 1 << 20;

/// What a write was called with, and how it goes.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) fd: c_int,
    pub(super) flags: c_int,
    /// As far as is known: see [`Call::must_not_wait`].
    pub(super) nonblocking: bool,
    /// How often it may nap for room in the ring when the kernel would let it go.
    pub(super) naps: u32,
    /// It has napped in vain: the reader stands still.
    pub(super) in_vain: bool,
    pub(super) began: Since,
}

impl Call {
    /// Whether it must not wait, after all: of O_NONBLOCK this process knows what it has seen, and others may have changed it.
    #[cold]
    pub(super) fn must_not_wait(&self) -> bool {
        self.nonblocking && (self.flags & libc::MSG_DONTWAIT != 0 || kernel::is_nonblocking(self.fd))
    }

    /// How many bytes of `total` it takes at once: a loop that has other connections must not be held for longer than by
    /// the kernel.
    #[cold]
    pub(super) fn most(&self, pipe: &Pipe, total: usize) -> usize {
        let may_be_short = self.must_not_wait() && !room::is_told_by_edges(pipe.entry);
        if may_be_short { total.min(room::MOST_AT_ONCE) } else { total }
    }

    /// Whether what goes through the kernel goes in portions: while the connection may come back to the ring. Not if its time is
    /// limited (SO_SNDTIMEO), because each portion would have all of that time; nor if only the kernel's refusal brings the
    /// program back.
    #[cold]
    pub(super) fn is_divided(&self, pipe: &Pipe) -> bool {
        pipe.is_open()
            && match self.nonblocking {
                true => !room::is_told_by_edges(pipe.entry),
                false => !kernel::has_send_timeout(self.fd),
            }
    }
}

/// The rest of a long write that has left the ring, or waits for room in it: through the kernel in portions, and back into the ring
/// as soon as the reader is there. `taken` is released.
///
/// # Safety
/// `buffers` are the program's.
#[cold]
#[inline(never)]
pub(super) unsafe fn send_in_portions(
    pipe: &Pipe,
    buffers: &[iovec],
    total: usize,
    mut call: Call,
    mut taken: Taken,
    mut pushed: Pushed,
) -> isize {
    let Call { fd, flags, began, .. } = call;
    call.nonblocking = call.must_not_wait();
    // What has been written is so, also if the socket has become non-blocking since.
    let most = match pushed {
        Pushed::Full(n) | Pushed::Nap(n) | Pushed::Spilled(n) => call.most(pipe, total).max(n),
        _ => call.most(pipe, total),
    };
    let mut done = 0;
    loop {
        match pushed {
            Pushed::All => done = most,
            Pushed::Faulted(n) | Pushed::Full(n) | Pushed::Nap(n) | Pushed::Spilled(n) => done = n,
            Pushed::Dead(_) => {}
        }
        match pushed {
            Pushed::Nap(_) => {
                pipe.entry.write_lock.0.release(taken);
                ring_if_owed(fd, pipe);
                let is_patient = !call.nonblocking && total - done > room::KERNEL_TAKES;
                let most = if is_patient { room::PATIENCE_NS } else { room::LOOK_NS };
                call.naps -= u32::from(!is_patient);
                call.in_vain = !room::nap(pipe, began, most);
                if pipe.descriptor(fd) != Some(fd) {
                    return if done > 0 { done as isize } else { answer(Err(Errno(libc::EBADF))) };
                }
            }
            Pushed::Spilled(_) => {
                let portion = PORTION.min(total - done);
                let sent = through_kernel(fd, pipe, taken, portion, || {
                    // SAFETY: the caller's promise.
                    unsafe { send_portion(fd, buffers, done + portion, done, flags, began) }
                });
                if sent < 0 {
                    return if done > 0 { done as isize } else { sent };
                }
                done += sent as usize;
                let is_over =
                    done == total || (sent as usize) < portion || call.nonblocking || began.has_any();
                // Another thread may have closed the descriptor, and its number may be another socket's.
                if is_over || pipe.descriptor(fd) != Some(fd) {
                    if call.nonblocking && sent as usize == portion {
                        room::note_full(pipe);
                    }
                    if flags & libc::MSG_MORE != 0 {
                        options::push(fd, pipe.entry);
                    }
                    return done as isize;
                }
                call.in_vain = false;
            }
            Pushed::All | Pushed::Full(_) | Pushed::Faulted(_) | Pushed::Dead(_) => {
                if matches!(pushed, Pushed::Full(_)) || done < total && matches!(pushed, Pushed::All) {
                    room::note_full(pipe);
                }
                pipe.entry.write_lock.0.release(taken);
                ring_if_owed(fd, pipe);
                // What has been written before counts; the error will come again.
                return match pushed {
                    Pushed::Dead(error) if done == 0 => after_death(flags, error),
                    Pushed::Faulted(0) => answer(Err(Errno(libc::EFAULT))),
                    Pushed::Full(0) => answer(Err(Errno(libc::EAGAIN))),
                    _ => done as isize,
                };
            }
        }
        taken = lock_writes(fd, pipe);
        pushed = if enter_ring(fd, pipe, taken) {
            // SAFETY: the caller's promise.
            unsafe { push(pipe, buffers, done, most, call) }
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
    // SAFETY: the caller's promise.
    unsafe {
        match began.has_any() {
            false => send_rest(fd, buffers, end, done, flags),
            true => send_interrupted(fd, buffers, end, done, flags, began),
        }
    }
}
