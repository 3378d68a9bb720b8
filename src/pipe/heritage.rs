//! Unread ring bytes for whoever gets the descriptor next: a new process image (exec) or another process
//! (SCM_RIGHTS). They lie in a file named by the socket's cookie, in the layout of a segment, so the successor
//! reads them by the very rules of a pipe: first the ring, then the kernel lane.

use super::segment::Segment;
use super::{Pipe, pin, read};
use crate::registry::arena::STATE_PINNED;
use crate::registry::lock::Taken;
use crate::registry::{Socket, reason::Reason, start};
use crate::sys::{folder::Path, kernel};
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use sockshim_ring::lane::is_ring;
use sockshim_ring::layout::{
    Direction, END_JOINED, END_LEFT, FRONT_SIZE, HEADER_SIZE, Header, MAGIC, MAX_CAPACITY, SEGMENT_SIZE,
    SMALL_CAPACITY, VERSION, direction_offset, ring_offset, small_ring_offset,
};

/// Whether this process has put bytes down for a program that is about to start.
static LEFT: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// In a heritage the successor is end 0 and reads direction 1.
const READ: usize = 1;

fn path(fd: c_int) -> Option<Path> {
    named(fd, "")
}

/// A second name, which only the process that puts the bytes down knows: see [`keep`].
fn kept_path(fd: c_int) -> Option<Path> {
    named(fd, "-kept")
}

fn named(fd: c_int, suffix: &str) -> Option<Path> {
    let cookie = kernel::cookie(fd).ok()?;
    let namespace = kernel::namespace_cookie(fd).ok()?;
    start::file(|path| write!(path, "left{VERSION}-{namespace:x}-{cookie:x}{suffix}"))
}

/// Puts the unread bytes down; the ring is closed. False when that is impossible.
pub(super) fn leave(fd: c_int, pipe: &Pipe) -> bool {
    let Some(path) = path(fd) else { return false };
    kernel::unlink(path.as_c_str());
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let Ok(file) = kernel::open(path.as_c_str(), flags, 0o600) else { return false };
    let taken = read::lock_reads(pipe);
    let filled = fill(fd, file, pipe);
    pipe.entry.read_lock.0.release(taken);
    kernel::close(file);
    if !filled {
        kernel::unlink(path.as_c_str());
        return false;
    }
    LEFT.store(true, Ordering::Relaxed);
    // Taken, as far as the other end is concerned; but this process may have to go on after all.
    if let Ok(span) = pipe.incoming().readable() {
        pipe.local.handed_from.store(span.position.wrapping_add(1), Ordering::Relaxed);
        return pipe.incoming().consume(&span, span.length);
    }
    true
}

/// Kernel bytes that come before those in the ring, with the bells behind them.
fn before_ring(pipe: &Pipe) -> usize {
    let incoming = pipe.incoming();
    let epoch = incoming.reader_epoch();
    if is_ring(epoch) || incoming.epoch() == epoch {
        return 0;
    }
    let end = incoming.switch.kernel_end.load(Ordering::Relaxed);
    end.saturating_sub(incoming.reader.kernel_read.load(Ordering::Relaxed)) as usize
}

/// Under the read lock.
fn fill(fd: c_int, file: c_int, pipe: &Pipe) -> bool {
    let from = pipe.incoming();
    let Ok(span) = from.readable() else { return false };
    let before = before_ring(pipe);
    let length = before.saturating_add(span.length);
    if length > MAX_CAPACITY as usize {
        return false;
    }
    let capacity = length.next_power_of_two().max(4096);
    let ring = if capacity <= SMALL_CAPACITY as usize { small_ring_offset(READ) } else { ring_offset(READ) };
    if kernel::truncate(file, SEGMENT_SIZE).is_err()
        || kernel::allocate(file, 0, HEADER_SIZE).is_err()
        || kernel::allocate(file, ring, capacity).is_err()
    {
        return false;
    }
    let Ok(base) = kernel::map_shared(file, SEGMENT_SIZE) else { return false };
    // The kernel checks this pointer; `length` bytes of the ring exist.
    let peek = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = before == 0 || kernel::recv(fd, base.wrapping_add(ring), before, peek) == Ok(before);
    let came_on = peeked && come_to_ring(fd, pipe, before);
    if came_on {
        let [first, second] = span.pieces(0, span.length);
        // SAFETY: the file's mapping has `length` bytes there, and `pieces` stays within the pipe's ring.
        unsafe {
            let (to, from) = (base.add(ring + before), pipe.incoming_ring(span.capacity));
            core::ptr::copy_nonoverlapping(from.add(first.0), to, first.1);
            core::ptr::copy_nonoverlapping(from.add(second.0), to.add(first.1), second.1);
        }
        // SAFETY: a fresh mapping whose first page exists.
        let (header, direction) =
            unsafe { (&*base.cast::<Header>(), &*base.add(direction_offset(READ)).cast::<Direction>()) };
        direction.producer.capacity.store(capacity as u32, Ordering::Relaxed);
        direction.producer.tail.store(length as u64, Ordering::Relaxed);
        direction.close();
        // The ring epoch has ended, and every bell is taken: the kernel lane goes on right here.
        let position = from.reader.kernel_read.load(Ordering::Relaxed);
        direction.reader.kernel_read.store(position, Ordering::Relaxed);
        direction.reader.epoch.store(1, Ordering::Relaxed);
        if direction.open(0, position) {
            direction.spill(1, length as u64, position);
        }
        header.version.store(VERSION, Ordering::Relaxed);
        header.ends[1].store(END_LEFT, Ordering::Relaxed);
        header.ends[0].store(END_JOINED, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        pipe.local.handed_before.store(before as u64, Ordering::Relaxed);
    }
    kernel::unmap(base, SEGMENT_SIZE);
    came_on
}

/// Takes the `before` kernel bytes that have been put down, and the bells behind them.
fn come_to_ring(fd: c_int, pipe: &Pipe, before: usize) -> bool {
    if before == 0 {
        return true;
    }
    let incoming = pipe.incoming();
    let mask = kernel::block_signals();
    let count = read::discard(fd, pipe, before);
    kernel::restore_signals(mask);
    if count < before {
        return false;
    }
    incoming.follow(incoming.reader_epoch());
    pin::clear_bells_by(fd, pipe, || Taken::Nested);
    true
}

/// The successor will end before this process goes on: what it does not read is this process's again.
pub(super) fn keep(fd: c_int, pipe: &Pipe) {
    if pipe.local.handed_from.load(Ordering::Relaxed) != 0
        && let (Some(path), Some(kept)) = (path(fd), kept_path(fd))
    {
        kernel::unlink(kept.as_c_str());
        kernel::link(path.as_c_str(), kept.as_c_str());
    }
}

/// The successor did not come, or is gone. True when this process has become its own: it goes on with what it left.
pub(super) fn withdraw(fd: c_int, pipe: &Pipe) -> bool {
    let from = pipe.local.handed_from.swap(0, Ordering::Relaxed);
    let Some(position) = from.checked_sub(1) else { return false };
    let (Some(path), Some(kept)) = (path(fd), kept_path(fd)) else { return false };
    let before = pipe.local.handed_before.swap(0, Ordering::Relaxed);
    let untouched = kernel::exists_file(path.as_c_str());
    if untouched && before == 0 {
        kernel::unlink(path.as_c_str());
        kernel::unlink(kept.as_c_str());
        // The ring is closed, so nothing has been written over them.
        pipe.incoming().consumer.head.store(position, Ordering::Release);
        return false;
    }
    if !untouched && !kernel::exists_file(kept.as_c_str()) {
        return false;
    }
    pipe.local.segment.store(core::ptr::null_mut(), Ordering::Release);
    pipe.recycle();
    take_up_from(if untouched { &path } else { &kept }, pipe.socket);
    kernel::unlink(kept.as_c_str());
    true
}

/// Maps what was left, if it is what it should be.
pub(crate) fn open(file: c_int) -> Option<Segment> {
    let facts = kernel::file_facts(file);
    let ours = matches!(facts, Ok((mode, owner, SEGMENT_SIZE))
        if mode & libc::S_IFMT == libc::S_IFREG && owner == kernel::geteuid());
    let backed = ours
        && kernel::allocate(file, 0, FRONT_SIZE).is_ok()
        && kernel::allocate(file, ring_offset(READ), MAX_CAPACITY as usize).is_ok();
    if !backed {
        return None;
    }
    let segment = Segment::map(file).ok()?;
    // SAFETY: a mapping of a front whose pages exist.
    if unsafe { &*segment.front.cast::<Header>() }.magic.load(Ordering::Acquire) != MAGIC {
        segment.recycle();
        return None;
    }
    Some(segment)
}

/// A descriptor that was handed to this process: takes up what was left for it.
pub(super) fn take_up(fd: c_int, socket: Socket) {
    if let Some(path) = path(fd) {
        take_up_from(&path, socket);
    }
}

fn take_up_from(path: &Path, socket: Socket) {
    let Ok(file) = kernel::open(path.as_c_str(), libc::O_RDWR | libc::O_NOFOLLOW, 0) else { return };
    let opened = open(file);
    kernel::close(file);
    kernel::unlink(path.as_c_str());
    let (Some(segment), Some(entry)) = (opened, socket.entry()) else { return };
    let local = socket.local();
    local.seen_capacity.store(0, Ordering::Relaxed);
    local.have(segment, 1 - READ);
    entry.reason.store(Reason::Inherited as u32, Ordering::Relaxed);
    let _ = entry.readers.make_ready(socket.generation);
    entry.state.store(STATE_PINNED, Ordering::Release);
}
