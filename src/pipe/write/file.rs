//! sendfile(2) into the ring.

use super::{PATIENCE_US, PUBLISH_EVERY, TURN, is_refusal, lock_writes, ring_if_owed, turns, wake};
use crate::error::Errno;
use crate::pipe::lanes::{enter_ring, spill};
use crate::pipe::{Pipe, grow, note_moment, room};
use crate::registry::arena;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use sockshim_ring::lane::is_ring;

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
            if grow::by_use(pipe) || room::wait(pipe, seen, PATIENCE_US, false) {
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
            if !turns::take_turns(fd, pipe) {
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
