//! Unread ring bytes for whoever gets the descriptor next: a new process image (exec) or another process
//! (SCM_RIGHTS). They lie in a file named by the socket's cookie, in the layout of a segment, so the successor
//! reads them by the very rules of a pipe: first the ring, then the kernel lane.

use super::{Pipe, segment};
use crate::registry::arena::{READY, STATE_PINNED};
use crate::registry::{Socket, reason::Reason, start};
use crate::sys::{folder::Path, kernel};
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use sockshim_ring::lane::is_ring;
use sockshim_ring::layout::{
    Direction, END_JOINED, END_LEFT, HEADER_SIZE, Header, MAGIC, MAX_CAPACITY, SEGMENT_SIZE, VERSION,
    direction_offset, ring_offset,
};

/// Whether this process has put bytes down for a program that is about to start.
static LEFT: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// In a heritage the successor is end 0 and reads direction 1.
const READ: usize = 1;

fn path(fd: c_int) -> Option<Path> {
    let cookie = kernel::cookie(fd).ok()?;
    let namespace = kernel::namespace_cookie(fd).ok()?;
    start::file(|path| write!(path, "left{VERSION}-{namespace:x}-{cookie:x}"))
}

/// Puts the unread bytes down; the ring is closed and no bell waits. False when that is impossible.
pub(super) fn leave(fd: c_int, pipe: &Pipe) -> bool {
    let Some(path) = path(fd) else { return false };
    kernel::unlink(path.as_c_str());
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let Ok(file) = kernel::open(path.as_c_str(), flags, 0o600) else { return false };
    let filled = fill(file, pipe);
    kernel::close(file);
    if !filled {
        kernel::unlink(path.as_c_str());
        return false;
    }
    LEFT.store(true, Ordering::Relaxed);
    // Taken, as far as the other end is concerned; but this process may have to go on after all.
    if let Ok(span) = pipe.incoming().readable() {
        pipe.local.handed_from.store(span.position + 1, Ordering::Relaxed);
        return pipe.incoming().consume(span.position, span.length);
    }
    true
}

fn fill(file: c_int, pipe: &Pipe) -> bool {
    let Ok(span) = pipe.incoming().readable() else { return false };
    let ring = ring_offset(READ);
    if kernel::truncate(file, SEGMENT_SIZE).is_err()
        || kernel::allocate(file, 0, HEADER_SIZE).is_err()
        || kernel::allocate(file, ring, span.capacity as usize).is_err()
    {
        return false;
    }
    let Ok(base) = kernel::map_shared(file, SEGMENT_SIZE, core::ptr::null_mut()) else { return false };
    // SAFETY: a fresh mapping whose first page exists.
    let (header, direction) =
        unsafe { (&*base.cast::<Header>(), &*base.add(direction_offset(READ)).cast::<Direction>()) };
    let from = pipe.incoming();
    let [first, second] = span.pieces(0, span.length);
    // SAFETY: both mappings have `capacity` bytes there, and `pieces` stays within them.
    unsafe {
        let (to, from) = (base.add(ring), pipe.incoming_ring());
        core::ptr::copy_nonoverlapping(from.add(first.0), to.add(first.0), first.1);
        core::ptr::copy_nonoverlapping(from.add(second.0), to.add(second.0), second.1);
    }
    direction.producer.capacity.store(span.capacity, Ordering::Relaxed);
    direction.consumer.head.store(span.position, Ordering::Relaxed);
    direction.producer.tail.store(span.position.wrapping_add(span.length as u64), Ordering::Relaxed);
    direction.close();
    let position = from.reader.kernel_read.load(Ordering::Relaxed);
    let epoch = from.reader_epoch();
    let (kernel_end, resume) = if is_ring(epoch) {
        // The ring epoch has ended, and every bell is taken: the kernel lane goes on right here.
        (position, position)
    } else {
        // There is data in the kernel's queue before what is in the ring, and bells behind it.
        let end = from.switch.kernel_end.load(Ordering::Relaxed);
        let rung = end.wrapping_add(from.switch.bells.load(Ordering::Acquire));
        let spilled = !is_ring(from.epoch());
        (end, if spilled { from.switch.resume.load(Ordering::Relaxed) } else { rung })
    };
    direction.switch.kernel_end.store(kernel_end, Ordering::Relaxed);
    direction.reader.kernel_read.store(position, Ordering::Relaxed);
    direction.reader.epoch.store(u32::from(is_ring(epoch)), Ordering::Relaxed);
    direction.spill(1, span.position.wrapping_add(span.length as u64), resume);
    header.version.store(VERSION, Ordering::Relaxed);
    header.ends[1].store(END_LEFT, Ordering::Relaxed);
    header.ends[0].store(END_JOINED, Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Release);
    kernel::unmap(base, SEGMENT_SIZE);
    true
}

/// The successor did not come.
pub(super) fn withdraw(fd: c_int, pipe: &Pipe) {
    let Some(position) = pipe.local.handed_from.swap(0, Ordering::Relaxed).checked_sub(1) else { return };
    if let Some(path) = path(fd) {
        kernel::unlink(path.as_c_str());
    }
    // The ring is closed, so nothing has been written over them.
    pipe.incoming().consumer.head.store(position, Ordering::Release);
}

/// A descriptor that was handed to this process: takes up what was left for it.
pub(super) fn take_up(fd: c_int, socket: Socket) {
    let Some(path) = path(fd) else { return };
    let Ok(file) = kernel::open(path.as_c_str(), libc::O_RDWR | libc::O_NOFOLLOW, 0) else { return };
    let facts = kernel::file_facts(file);
    let ours = matches!(facts, Ok((mode, owner, SEGMENT_SIZE))
        if mode & libc::S_IFMT == libc::S_IFREG && owner == kernel::geteuid());
    let base = if ours { kernel::map_shared(file, SEGMENT_SIZE, core::ptr::null_mut()).ok() } else { None };
    let backed = kernel::allocate(file, 0, HEADER_SIZE).is_ok()
        && kernel::allocate(file, ring_offset(READ), MAX_CAPACITY as usize).is_ok();
    kernel::close(file);
    kernel::unlink(path.as_c_str());
    let (Some(base), Some(entry)) = (base, socket.entry()) else { return };
    // SAFETY: a mapping of that size whose pages exist, if they are backed.
    if !backed || unsafe { &*base.cast::<Header>() }.magic.load(Ordering::Acquire) != MAGIC {
        segment::recycle(base);
        return;
    }
    let local = socket.local();
    local.end.store(0, Ordering::Relaxed);
    local.segment.store(base, Ordering::Release);
    entry.reason.store(Reason::Inherited as u32, Ordering::Relaxed);
    entry.readers.store(READY, Ordering::Release);
    entry.state.store(STATE_PINNED, Ordering::Release);
}
