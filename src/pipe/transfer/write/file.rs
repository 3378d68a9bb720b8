//! sendfile(2) into the ring. The file is read under the write lock only as far as it is in memory; for the rest, which may
//! take a disk its time, the lock is let go, and others may write meanwhile, as with the kernel's call.

use crate::error::Errno;
use crate::pipe::connection::{self, Pipe, outgoing_doorbells};
use crate::pipe::lanes::{grow, writer};
use crate::pipe::transfer::write::{PATIENCE_US, PUBLISH_EVERY, TURN};
use crate::pipe::waiting::room;
use crate::state::socket_table;
use crate::sys::scratch::Scratch;
use crate::sys::{kernel, real};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use libc::iovec;
use sockshim_ring::epoch::is_ring;

/// Times that a place of a file is brought into memory in vain.
const MOST_FETCHES: u32 = 8;

/// Bytes that are read at a time from a file of which nobody says what is in memory.
const PORTION: usize = 64 * 1024;

/// Brings the place into memory, with what the kernel reads ahead. Not under a lock.
fn fetch(file: c_int, offset: Option<u64>) -> Result<(), Errno> {
    let offset = match offset {
        Some(offset) => offset,
        None => kernel::file_position(file)?,
    };
    let mut page = Scratch::take().ok_or(Errno(libc::ENOMEM))?;
    let bytes = page.of::<u8>();
    kernel::read_file(file, bytes.as_mut_ptr(), bytes.len(), Some(offset)).map(drop)
}

/// The same for a file system that does not say what is in memory: tmpfs(5) and /proc do not.
fn copy_file(pipe: &Pipe, file: c_int, offset: Option<u64>, count: usize) -> Result<usize, Errno> {
    let mut portion = Scratch::with(PORTION).ok_or(Errno(libc::ENOMEM))?;
    let bytes = portion.of::<u8>();
    let mut done = 0;
    // Another thread may have closed the descriptor, and its number may be another socket's.
    while done < count && (done == 0 || pipe.descriptor() == Some(pipe.fd)) {
        let length = bytes.len().min(count - done);
        let from = offset.map(|offset| offset + done as u64);
        let read = match kernel::read_file(file, bytes.as_mut_ptr(), length, from) {
            Ok(0) => break,
            Ok(read) => read,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        let place = bytes.as_mut_ptr().cast();
        let piece = iovec { iov_base: place, iov_len: read };
        // SAFETY: `read` bytes were put there just now.
        let kernel = || unsafe { real::send(pipe.fd, place, read, 0) };
        // SAFETY: the piece is the portion's part that was just filled.
        let sent = unsafe { super::send(pipe, &[piece], 0, kernel) };
        let error = Errno::last();
        let taken = sent.max(0) as usize;
        if taken < read && offset.is_none() {
            kernel::rewind(file, read - taken);
        }
        done += taken;
        if sent < 0 && done == 0 {
            return Err(error);
        }
        if taken < read {
            break;
        }
    }
    Ok(done)
}

/// sendfile: from a file straight into the ring. `None`: the kernel must do it.
pub(crate) fn send_file(
    pipe: &Pipe,
    file: c_int,
    offset: Option<u64>,
    count: usize,
) -> Option<Result<usize, Errno>> {
    let mut held = pipe.lock_writes();
    if !writer::enter_ring(&held) {
        return None;
    }
    let outgoing = pipe.outgoing();
    let (mut done, mut turn, mut fetches) = (0, 0, 0);
    let result = loop {
        let mut seen = pipe.local.seen_head.load(Ordering::Relaxed);
        let chunk = (count - done).min(4 * PUBLISH_EVERY);
        let Ok(span) = outgoing.writable(&mut seen, chunk) else { break None };
        pipe.local.seen_head.store(seen, Ordering::Relaxed);
        if count - done > span.capacity as usize && grow::by_use(&held) {
            continue;
        }
        let room = span.length.min(chunk);
        if room == 0 {
            if grow::by_use(&held) || room::wait(&held, seen, PATIENCE_US, false) {
                continue;
            }
            break None;
        }
        let [(start, length), _] = span.pieces(0, room);
        // The ring's memory is checked to lie within the mapping by `pieces`; the kernel copies into it.
        let place = pipe.outgoing_ring(span.capacity).wrapping_add(start);
        let from = offset.map(|offset| offset + done as u64);
        match kernel::read_from_memory(file, place, length, from) {
            Ok(0) => break Some(Ok(done)),
            Ok(read) => {
                connection::note_publish_time(&held, span.position, read);
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
                fetches = 0;
                socket_table::add(&pipe.entry.counters.sent, read as u64);
                if outgoing.need_wakeup() != 0
                    && outgoing_doorbells::wake(&held)
                        .is_err_and(|error| !outgoing_doorbells::is_refusal(error))
                {
                    break Some(Ok(done));
                }
            }
            Err(Errno(libc::EAGAIN)) if fetches < MOST_FETCHES => {
                fetches += 1;
                drop(held);
                let fetched = fetch(file, from);
                if pipe.descriptor() != Some(pipe.fd) {
                    return Some(if done > 0 { Ok(done) } else { Err(Errno(libc::EBADF)) });
                }
                held = pipe.lock_writes();
                if !writer::enter_ring(&held) {
                    break None;
                }
                match fetched {
                    Ok(()) => continue,
                    Err(error) => break if done > 0 { Some(Ok(done)) } else { Some(Err(error)) },
                }
            }
            // Not to be had: too little memory, perhaps.
            Err(Errno(libc::EAGAIN)) => break None,
            Err(Errno(libc::EOPNOTSUPP)) => {
                drop(held);
                outgoing_doorbells::ring_if_owed(pipe);
                let sent = copy_file(pipe, file, from, count - done);
                return Some(match sent {
                    Ok(sent) => Ok(done + sent),
                    Err(_) if done > 0 => Ok(done),
                    error => error,
                });
            }
            Err(error) => break if done > 0 { Some(Ok(done)) } else { Some(Err(error)) },
        }
        if done == count {
            break Some(Ok(done));
        }
        if done - turn >= TURN && held.is_wanted() {
            turn = done;
            if !writer::take_turns(&held) {
                break None;
            }
        }
    };
    if result.is_none() && is_ring(outgoing.epoch()) {
        writer::spill(&held);
    }
    drop(held);
    outgoing_doorbells::ring_if_owed(pipe);
    match result {
        None if done > 0 => Some(Ok(done)),
        other => other,
    }
}
