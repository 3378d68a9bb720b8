//! Unread ring bytes for whoever gets the descriptor next: a new process image (exec) or another process
//! (SCM_RIGHTS). They lie in a file named by the socket's cookie, in the layout of a segment, so the new owner
//! reads them by the very rules of a pipe: first the ring, then the kernel lane.

use crate::error::Errno;
use crate::pipe::connection::read_lock::ReadHeld;
use crate::pipe::connection::segment::Segment;
use crate::pipe::connection::{End, Pipe, incoming_doorbells, transitions};
use crate::pipe::copying::buffers::{self, Rest};
use crate::pipe::lanes::reader;
use crate::state::reason::Reason;
use crate::state::socket_table::{Entry, STATE_PINNED};
use crate::state::{Socket, addresses, rendezvous};
use crate::sys::deadline::Deadline;
use crate::sys::folder::PathBuffer;
use crate::sys::restartable::Call;
use crate::sys::{kernel, probe};
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::{
    Direction, END_JOINED, END_LEFT, FRONT_SIZE, HANDED_NOT, HEADER_SIZE, Header, MAGIC, MAX_CAPACITY,
    SEGMENT_SIZE, SMALL_CAPACITY, VERSION, direction_offset, place_of, ring_offset, small_ring_offset,
};
use sockshim_ring::ring::Span;

/// Files that this process has put down for programs that are about to start.
static LEFT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn is_left() -> bool {
    LEFT.load(Ordering::Relaxed) != 0
}

/// The writer may have sent them again: then this file is of no use any more.
pub(crate) fn note_answer(end: &End) {
    if end.incoming().reader.handed.load(Ordering::Relaxed) == HANDED_NOT {
        let _ = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }
}

/// In a hand-off file the new owner is end 0 and reads direction 1.
const READ: usize = 1;

fn path(fd: c_int) -> Option<PathBuffer> {
    named(fd, kernel::cookie(fd).ok()?, "")
}

/// A second name, which only the process that puts the bytes down knows: see [`keep`].
fn kept_path(fd: c_int) -> Option<PathBuffer> {
    named(fd, kernel::cookie(fd).ok()?, "-kept")
}

/// Of what is left for the socket with that cookie, in the namespace of `fd`.
fn named(fd: c_int, cookie: u64, suffix: &str) -> Option<PathBuffer> {
    let namespace = kernel::namespace_cookie(fd).ok()?;
    rendezvous::file(|path| write!(path, "left{VERSION}-{namespace:x}-{cookie:x}{suffix}"))
}

/// Puts the unread bytes down; the ring is closed. False when that is impossible.
pub(crate) fn put_down(pipe: &Pipe) -> bool {
    let Some(path) = path(pipe.fd) else { return false };
    kernel::unlink(path.as_c_str());
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let Ok(file) = kernel::open(path.as_c_str(), flags, 0o600) else { return false };
    wait_for_bytes_before(pipe);
    if fill(file.as_raw(), &pipe.lock_reads()).is_none() {
        kernel::unlink(path.as_c_str());
        return false;
    }
    LEFT.fetch_add(1, Ordering::Relaxed);
    true
}

/// Waits for the kernel bytes that come before those in the ring, without a lock: as long as more of them come, and not where there
/// are so many that somebody must take some first.
fn wait_for_bytes_before(pipe: &Pipe) {
    let (mut most, mut until) = (0, Deadline::after(Some(UNDER_WAY)));
    while pipe.is_mapped() && until.left() != Some(0) {
        let queued = kernel::queued(pipe.fd).unwrap_or(0);
        let ends = libc::POLLHUP | libc::POLLERR;
        if queued >= before_ring(pipe).min(MANY) || kernel::poll_now(pipe.fd, ends) & ends != 0 {
            return;
        }
        if queued > most {
            (most, until) = (queued, Deadline::after(Some(UNDER_WAY)));
        }
        kernel::sleep_us(200);
    }
}

/// Bytes that the queue of most sockets has room for.
const MANY: usize = 16 * 1024;

/// Takes the kernel bytes that came after those of the ring, which is empty by now: as many as come and there is room for. A
/// writer that has said more than the kernel takes at once goes on as they go, and then waits for what is put down.
fn take_behind(held: &ReadHeld<'_>, place: *mut u8, room: usize) -> usize {
    let incoming = held.incoming();
    let epoch = incoming.reader_epoch();
    let resume = incoming.switch.resume.load(Ordering::Relaxed);
    if !is_ring(epoch)
        || incoming.epoch() == epoch
        || incoming.reader.kernel_read.load(Ordering::Relaxed) != resume
    {
        return 0;
    }
    incoming.follow(epoch);
    take_kernel_bytes(held, place, room, QUIET)
}

/// Nanoseconds without a byte after which no more is under way from a writer that waits.
const QUIET: u64 = 3_000_000;

/// Nanoseconds for which bytes are taken in all: less than other readers wait.
const LONGEST: u64 = 1_500_000_000;

/// Takes up to `room` kernel bytes, until none comes for so many nanoseconds; how many.
fn take_kernel_bytes(held: &ReadHeld<'_>, place: *mut u8, room: usize, quiet: u64) -> usize {
    let mut done = 0;
    let end = Deadline::after(Some(LONGEST));
    let mut until = Deadline::after(Some(quiet));
    while done < room {
        match receive(held, place.wrapping_add(done), room - done) {
            Ok(count @ 1..) => {
                done += count;
                until = Deadline::after(Some(quiet));
            }
            Err(Errno(libc::EAGAIN)) if until.left() != Some(0) && end.left() != Some(0) => {
                if held.apart(|| kernel::sleep_us(200)).is_none() {
                    break;
                }
            }
            Ok(_) | Err(Errno(libc::EAGAIN)) => break,
            Err(error) => {
                // The kernel reports it once.
                held.entry.pending_error.store(error.0, Ordering::Release);
                break;
            }
        }
    }
    done
}

/// One recv(2), if nobody has taken the read lock from this thread meanwhile: otherwise these bytes are another reader's, and there
/// are none.
fn receive(held: &ReadHeld<'_>, place: *mut u8, room: usize) -> Result<usize, Errno> {
    let part = [libc::iovec { iov_base: place.cast(), iov_len: room }];
    let mut whole = Rest::after(&part, 0, room);
    let mut message = whole.message();
    let mask = kernel::block_signals();
    let received = incoming_doorbells::take_counted(held, &Call::receive(held.fd, &mut message, 0));
    kernel::restore_signals(mask);
    received.unwrap_or(Ok(0))
}

/// Kernel bytes that come before those in the ring, with the doorbells behind them.
fn before_ring(end: &End) -> usize {
    let incoming = end.incoming();
    let epoch = incoming.reader_epoch();
    if is_ring(epoch) || incoming.epoch() == epoch {
        return 0;
    }
    let end = incoming.switch.kernel_end.load(Ordering::Relaxed);
    end.saturating_sub(incoming.reader.kernel_read.load(Ordering::Relaxed)) as usize
}

/// `None`: it is impossible.
fn fill(file: c_int, held: &ReadHeld<'_>) -> Option<()> {
    let from = held.incoming();
    let span = from.readable().ok()?;
    let before = before_ring(held);
    let least = before.saturating_add(span.length);
    // With what lies behind the ring, as far as there is room for that, too.
    let is_left = !is_ring(from.epoch());
    let capacity = if is_left { MAX_CAPACITY as usize } else { least.next_power_of_two().max(4096) };
    if least > capacity.min(MAX_CAPACITY as usize)
        || kernel::truncate_beyond_limit(file, SEGMENT_SIZE).is_err()
    {
        return None;
    }
    let base = kernel::map_shared(file, SEGMENT_SIZE).ok()?;
    let filled = fill_mapping(held, base, capacity, before, &span);
    kernel::unmap(base, SEGMENT_SIZE);
    filled
}

/// Fills a mapping of the file, from which the new owner reads by the rules of a pipe: what comes before the ring, the ring's
/// bytes, what comes behind them; then the header, last of all its mark.
fn fill_mapping(
    held: &ReadHeld<'_>,
    base: *mut u8,
    capacity: usize,
    before: usize,
    span: &Span,
) -> Option<()> {
    let from = held.incoming();
    let offset =
        if capacity <= SMALL_CAPACITY as usize { small_ring_offset(READ) } else { ring_offset(READ) };
    let ring = base.wrapping_add(offset);
    // The kernel checks these pointers; `capacity` bytes of the ring exist.
    probe::populate(base, HEADER_SIZE).ok()?;
    probe::populate(ring, capacity).ok()?;
    if !come_to_ring(held, ring, before) {
        return None;
    }
    copy_ring(held, span, ring.wrapping_add(before));
    // Taken, as far as the other end is concerned; but this process may have to go on after all.
    held.local.handed_from.store(span.position.wrapping_add(1), Ordering::Relaxed);
    if !from.consume(span, span.length) {
        if before > 0 {
            transitions::give_up(held, Reason::UnreadAtHandOver);
        }
        return None;
    }
    let epoch = from.reader_epoch();
    let least = before + span.length;
    let length = least + take_behind(held, ring.wrapping_add(least), capacity - least);
    write_header(held, base, capacity, length);
    let has_moved = before > 0 || from.reader_epoch() != epoch;
    held.local.handed_past.store(u32::from(has_moved), Ordering::Relaxed);
    Some(())
}

/// Copies what the ring has to `place`, where there is room for it.
fn copy_ring(held: &ReadHeld<'_>, span: &Span, place: *mut u8) {
    let ring = held.incoming_ring(span.capacity);
    // SAFETY: the ring has its capacity; the mapping, which nobody has yet, has room behind `place`.
    unsafe { buffers::from_ring(ring, span.pieces(0, span.length), place) };
}

/// Makes a segment of a mapping whose ring has `length` bytes: of a connection whose other end has left.
fn write_header(held: &ReadHeld<'_>, base: *mut u8, capacity: usize, length: usize) {
    // SAFETY: a mapping of a segment whose first page exists.
    let header = unsafe { &*base.cast::<Header>() };
    // SAFETY: the direction lies in that page, where its alignment wants it.
    let direction = unsafe { &*base.wrapping_add(direction_offset(READ)).cast::<Direction>() };
    direction.producer.capacity.store(capacity as u32, Ordering::Relaxed);
    direction.producer.tail.store(length as u64, Ordering::Relaxed);
    direction.close();
    // The ring epoch has ended, and every doorbell is taken: the kernel lane goes on right here.
    let position = held.incoming().reader.kernel_read.load(Ordering::Relaxed);
    direction.reader.kernel_read.store(position, Ordering::Relaxed);
    direction.reader.epoch.store(1, Ordering::Relaxed);
    if direction.open(0, position) {
        direction.spill(1, length as u64, position);
    }
    if let Some(names) = addresses::learn(held.fd, held.entry) {
        names.iter().zip(&header.names).for_each(|(name, words)| name.store(words));
    }
    header.version.store(VERSION, Ordering::Relaxed);
    header.ends[1].store(END_LEFT, Ordering::Relaxed);
    header.ends[0].store(END_JOINED, Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Release);
}

/// Nanoseconds without a byte for which kernel bytes that have been written may be under way: Nagle's algorithm keeps them
/// until the other kernel has acknowledged, which that delays (40 ms on Linux), and what a full queue has refused is sent
/// again after 200 ms, then 400 (RFC 6298).
const UNDER_WAY: u64 = 1_000_000_000;

/// Takes the `before` kernel bytes that come before the ring to `place`, and the doorbells behind them. There may be more of
/// them than the kernel's queue holds at a time.
fn come_to_ring(held: &ReadHeld<'_>, place: *mut u8, before: usize) -> bool {
    if before == 0 {
        return true;
    }
    let done = take_kernel_bytes(held, place, before, UNDER_WAY);
    if done < before {
        if done > 0 {
            // Nobody else has them.
            transitions::give_up(held, Reason::UnreadAtHandOver);
        }
        return false;
    }
    let incoming = held.incoming();
    incoming.follow(incoming.reader_epoch());
    reader::clear_doorbells_apart(held);
    true
}

/// The new owner will end before this process goes on: what it does not read is this process's again.
pub(crate) fn keep(pipe: &Pipe) {
    if pipe.local.handed_from.load(Ordering::Relaxed) != 0
        && let (Some(path), Some(kept)) = (path(pipe.fd), kept_path(pipe.fd))
    {
        kernel::unlink(kept.as_c_str());
        kernel::link(path.as_c_str(), kept.as_c_str());
    }
}

/// The new owner did not come, or is gone. True when this process has become its own: it goes on with what it left.
pub(crate) fn withdraw(pipe: &Pipe) -> bool {
    let from = pipe.local.handed_from.swap(0, Ordering::Relaxed);
    let Some(position) = from.checked_sub(1) else { return false };
    let (Some(path), Some(kept)) = (path(pipe.fd), kept_path(pipe.fd)) else { return false };
    let has_moved = pipe.local.handed_past.swap(0, Ordering::Relaxed) != 0;
    pipe.incoming().reader.handed.store(HANDED_NOT, Ordering::SeqCst);
    let untouched = kernel::exists_file(path.as_c_str());
    if untouched && !has_moved {
        if let Claimed::All(segment, ..) = claim(&path, None) {
            // The ring is closed, so nothing has been written over them.
            pipe.incoming().consumer.head.store(position, Ordering::Release);
            segment.recycle();
        }
        kernel::unlink(kept.as_c_str());
        return false;
    }
    if !untouched && !kernel::exists_file(kept.as_c_str()) {
        return false;
    }
    let segment = open_named(if untouched { &path } else { &kept });
    // Other threads of this process may be in the middle of a read or a write.
    let reads = pipe.lock_reads();
    let writes = reads.lock_writes();
    pipe.local.segment.store(core::ptr::null_mut(), Ordering::Release);
    pipe.recycle();
    take_up_from(segment, pipe.socket);
    drop((writes, reads));
    kernel::unlink(kept.as_c_str());
    true
}

/// Maps what was left, if it is what it should be.
pub(crate) fn open(file: c_int) -> Option<Segment> {
    let facts = kernel::file_facts(file);
    let ours = matches!(facts, Ok((mode, owner, SEGMENT_SIZE))
        if mode & libc::S_IFMT == libc::S_IFREG && owner == kernel::geteuid());
    if !ours {
        return None;
    }
    let segment = Segment::map(file).ok()?;
    let [_, _, large] = segment.places(READ);
    let is_backed = probe::populate(segment.front, FRONT_SIZE).is_ok()
        && probe::populate(large, MAX_CAPACITY as usize).is_ok();
    // SAFETY: a mapping of a front whose pages exist.
    let is_good = || unsafe { &*segment.front.cast::<Header>() }.magic.load(Ordering::Acquire) == MAGIC;
    if is_backed && is_good() {
        return Some(segment);
    }
    segment.recycle();
    None
}

/// The other end handed its socket on: `send` gets what is unread, if nothing that comes after it is in the kernel's
/// stream: so many bytes at a place in shared memory. False when there is no file. For a writer that is apart: it reads a file.
pub(crate) fn reclaim_for(end: &End, send: impl FnOnce(*const u8, usize)) -> bool {
    let cookie = end.entry.peer_cookie.load(Ordering::Relaxed);
    let Some(path) = named(end.fd, cookie, "") else { return false };
    let written = kernel::tcp_position(end.fd).ok().and_then(|position| match position.state {
        kernel::TCP_ESTABLISHED | kernel::TCP_CLOSE_WAIT => Some(position.written),
        _ => None,
    });
    let Some(written) = written else { return true };
    match claim(&path, Some(written)) {
        Claimed::Nothing => false,
        Claimed::NotMine => true,
        Claimed::All(segment, bytes, length) => {
            send(bytes, length);
            segment.recycle();
            true
        }
    }
}

/// What became of a claim.
enum Claimed {
    /// There is no hand-off file.
    Nothing,
    NotMine,
    /// So many bytes at this place in the mapping, which nobody else has.
    All(Segment, *const u8, usize),
}

/// Takes all that is unread in a file, by one compare-and-swap; with a `position` only if the kernel's stream goes on there.
fn claim(path: &PathBuffer, position: Option<u64>) -> Claimed {
    let Ok(file) = kernel::open_quickly(path.as_c_str(), libc::O_RDWR) else {
        return Claimed::Nothing;
    };
    let Some(segment) = open(file.as_raw()) else { return Claimed::NotMine };
    // SAFETY: a mapping of a front whose pages exist.
    let direction = unsafe { &*segment.front.wrapping_add(direction_offset(READ)).cast::<Direction>() };
    let goes_on =
        position.is_none_or(|position| direction.reader.kernel_read.load(Ordering::Relaxed) == position);
    let span = direction.readable().ok().filter(|span| goes_on && span.length > 0);
    if let Some(span) = span
        && direction.consume(&span, span.length)
    {
        kernel::unlink(path.as_c_str());
        // Put down from the start of the ring: in one piece.
        let [(start, length), _] = span.pieces(0, span.length);
        return Claimed::All(
            segment,
            segment.places(READ)[place_of(span.capacity)].wrapping_add(start),
            length,
        );
    }
    segment.recycle();
    Claimed::NotMine
}

/// A descriptor that was handed to this process: takes up what was left for it.
pub(crate) fn take_up(fd: c_int, socket: Socket) {
    if let Some(path) = path(fd) {
        take_up_from(open_named(&path), socket);
    }
}

fn take_up_from(segment: Option<Segment>, socket: Socket) {
    match (segment, socket.entry()) {
        (Some(segment), Some(entry)) => have(segment, socket, entry),
        (Some(segment), None) => segment.recycle(),
        _ => {}
    }
}

/// Maps what was left under this name, which nobody else finds any more.
fn open_named(path: &PathBuffer) -> Option<Segment> {
    let file = kernel::open_quickly(path.as_c_str(), libc::O_RDWR).ok()?;
    let opened = open(file.as_raw());
    kernel::unlink(path.as_c_str());
    opened
}

/// The socket reads what was left from now on.
fn have(segment: Segment, socket: Socket, entry: &Entry) {
    let local = socket.local();
    local.seen_capacity.store(0, Ordering::Relaxed);
    segment.give_to(local, 1 - READ);
    entry.reason.store(Reason::Inherited as u32, Ordering::Relaxed);
    let _ = entry.readers.make_ready(socket.generation);
    entry.state.store(STATE_PINNED, Ordering::Release);
}
