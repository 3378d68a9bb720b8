//! Segments: making, joining and leaving them.

use crate::error::Errno;
use crate::state::reason::Reason;
use crate::state::rendezvous;
use crate::state::socket::Local;
use crate::sys::folder::PathBuffer;
use crate::sys::{kernel, probe};
use core::fmt::Write;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use sockshim_ring::layout::{
    END_ABSENT, END_JOINED, FRONT_SIZE, HEADER_SIZE, Header, MAGIC, RINGS_SIZE, SEGMENT_SIZE, VERSION,
    ring_offset, small_ring_offset, tiny_ring_offset,
};

/// The identity of a connection: nothing that could be stale, reused or rewritten on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) namespace: u64,
    pub(crate) own: u64,
    pub(crate) peer: u64,
}

impl Identity {
    /// Which end we are: the lower cookie is end 0.
    pub(crate) fn end(&self) -> usize {
        usize::from(self.own > self.peer)
    }

    fn path(&self) -> Option<PathBuffer> {
        let (low, high) = (self.own.min(self.peer), self.own.max(self.peer));
        rendezvous::file(|path| write!(path, "pipe{VERSION}-{:x}-{low:x}-{high:x}", self.namespace))
    }
}

/// A mapped segment: its front, and the large rings.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) front: *mut u8,
    pub(crate) rings: *mut u8,
}

/// A segment that this end has.
pub(crate) struct Met {
    pub(crate) segment: Segment,
    /// Whether the other end has it too.
    pub(crate) joined: bool,
}

/// Why there is no segment.
pub(crate) enum Unmet {
    /// Never: stay with the kernel.
    Never(Reason),
    /// The other end is making it right now.
    NotReady,
}

/// Makes the segment of a connection, or joins it.
pub(crate) fn meet(identity: &Identity) -> Result<Met, Unmet> {
    let path = identity.path().ok_or(Unmet::Never(Reason::NoFolder))?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    match kernel::open(path.as_c_str(), flags, 0o600) {
        Ok(fd) => make(fd.as_raw(), identity).map_err(|_| {
            kernel::unlink(path.as_c_str());
            Unmet::Never(Reason::NoMemory)
        }),
        Err(Errno(libc::EEXIST)) => {
            let fd = kernel::open_quickly(path.as_c_str(), libc::O_RDWR).map_err(|_| Unmet::NotReady)?;
            let joined = join(fd.as_raw(), identity);
            if joined.is_ok() {
                // Both ends have it: from now on it lives as long as they do, and leaves nothing behind.
                kernel::unlink(path.as_c_str());
            }
            joined
        }
        Err(Errno(libc::ENOSPC | libc::EDQUOT)) => Err(Unmet::Never(Reason::NoMemory)),
        Err(_) => Err(Unmet::Never(Reason::NoFolder)),
    }
}

/// Removes a segment that the other end has not joined.
pub(crate) fn withdraw(identity: &Identity) {
    if let Some(path) = identity.path() {
        kernel::unlink(path.as_c_str());
    }
}

fn make(fd: i32, identity: &Identity) -> Result<Met, Errno> {
    kernel::truncate(fd, SEGMENT_SIZE)?;
    let segment = Segment::map_backed(fd)?;
    // SAFETY: a fresh mapping, whose first page exists.
    let header = unsafe { &*segment.front.cast::<Header>() };
    header.version.store(VERSION, Ordering::Relaxed);
    header.size.store(SEGMENT_SIZE as u32, Ordering::Relaxed);
    header.cookies[identity.end()].store(identity.own, Ordering::Relaxed);
    header.cookies[1 - identity.end()].store(identity.peer, Ordering::Relaxed);
    header.namespace.store(identity.namespace, Ordering::Relaxed);
    header.ends[identity.end()].store(END_JOINED, Ordering::Relaxed);
    // pairs with: join
    header.magic.store(MAGIC, Ordering::Release);
    Ok(Met { segment, joined: false })
}

pub(crate) fn join(fd: i32, identity: &Identity) -> Result<Met, Unmet> {
    let bad = || Unmet::Never(Reason::BadSegment);
    let (mode, owner, size) = kernel::file_facts(fd).map_err(|_| bad())?;
    if mode & libc::S_IFMT != libc::S_IFREG || owner != kernel::geteuid() {
        return Err(bad());
    }
    if size == 0 {
        return Err(Unmet::NotReady);
    }
    if size != SEGMENT_SIZE {
        return Err(bad());
    }
    // The maker truncates before it has a page: a hole would be touched below.
    let segment = Segment::map_backed(fd).map_err(|_| Unmet::Never(Reason::NoMemory))?;
    // SAFETY: a mapping of that size whose first page exists.
    let header = unsafe { &*segment.front.cast::<Header>() };
    let end = identity.end();
    // pairs with: make
    let magic = header.magic.load(Ordering::Acquire);
    let right = magic == MAGIC
        && header.version.load(Ordering::Relaxed) == VERSION
        && header.size.load(Ordering::Relaxed) == SEGMENT_SIZE as u32
        && header.namespace.load(Ordering::Relaxed) == identity.namespace
        && header.cookies[end].load(Ordering::Relaxed) == identity.own
        && header.cookies[1 - end].load(Ordering::Relaxed) == identity.peer
        && header.ends[1 - end].load(Ordering::Acquire) == END_JOINED
        && header.ends[end]
            .compare_exchange(END_ABSENT, END_JOINED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
    if right {
        return Ok(Met { segment, joined: true });
    }
    segment.recycle();
    Err(if magic == 0 { Unmet::NotReady } else { bad() })
}

/// The header that the maker of a segment leaves for `identity`'s own end to join.
#[cfg(any(test, fuzzing))]
pub(crate) fn header_of(identity: &Identity) -> Vec<u8> {
    let (low, high) = (identity.own.min(identity.peer), identity.own.max(identity.peer));
    let ends = if identity.end() == 0 { [END_ABSENT, END_JOINED] } else { [END_JOINED, END_ABSENT] };
    let words = [VERSION, SEGMENT_SIZE as u32].map(u32::to_ne_bytes).concat();
    let cookies = [low, high, identity.namespace].map(u64::to_ne_bytes).concat();
    [&MAGIC.to_ne_bytes(), &words[..], &cookies, &ends.map(u32::to_ne_bytes).concat()].concat()
}

impl Segment {
    /// Maps a file of [`SEGMENT_SIZE`] bytes.
    pub(crate) fn map(fd: i32) -> Result<Self, Errno> {
        Self::map_rings(fd, map_front(fd)?)
    }

    /// The same for a connection that can do with small rings: the large ones are left out where the program's address space is
    /// limited (RLIMIT_AS) and ours would take too much of it, or where all that is mapped is locked in memory
    /// (MCL_FUTURE of mlockall(2)).
    fn map_sparingly(fd: i32) -> Result<Self, Errno> {
        let left = allowance().saturating_sub(HELD.load(Ordering::Relaxed));
        if left < FRONT_SIZE {
            return Err(Errno(libc::ENOMEM));
        }
        let front = map_front(fd)?;
        // Nobody has used the last page yet.
        let is_locked = kernel::is_resident(front.wrapping_add(FRONT_SIZE - 4096));
        if !is_locked && left >= RINGS_SIZE {
            return Self::map_rings(fd, front);
        }
        match spare_rings() {
            Some(rings) => Ok(Self { front, rings }),
            None => {
                FRONTS.recycle(front);
                Err(Errno(libc::ENOMEM))
            }
        }
    }

    fn map_rings(fd: i32, front: *mut u8) -> Result<Self, Errno> {
        let place = RINGS.take().unwrap_or(core::ptr::null_mut());
        match kernel::map_shared_part(fd, FRONT_SIZE, RINGS_SIZE, place) {
            Ok(rings) => {
                if place.is_null() {
                    HELD.fetch_add(RINGS_SIZE, Ordering::Relaxed);
                }
                Ok(Self { front, rings })
            }
            Err(error) => {
                FRONTS.recycle(front);
                Err(error)
            }
        }
    }

    /// Whether the large rings are mapped.
    pub(crate) fn has_rings(&self) -> bool {
        self.rings != SPARE.load(Ordering::Relaxed)
    }

    /// As [`Segment::map_sparingly`], with a page for the header.
    fn map_backed(fd: i32) -> Result<Self, Errno> {
        let segment = Self::map_sparingly(fd)?;
        probe::populate(segment.front, HEADER_SIZE).inspect_err(|_| segment.recycle())?;
        Ok(segment)
    }

    /// Where a direction's ring lies while it is tiny, small and large.
    pub(crate) fn places(&self, direction: usize) -> [*mut u8; 3] {
        [
            self.front.wrapping_add(tiny_ring_offset(direction)),
            self.front.wrapping_add(small_ring_offset(direction)),
            self.rings.wrapping_add(ring_offset(direction) - FRONT_SIZE),
        ]
    }

    /// The socket has it from now on, and is this end of it.
    pub(crate) fn give_to(self, local: &Local, end: usize) {
        local.end.store(end as u32, Ordering::Relaxed);
        local.rings.store(self.rings, Ordering::Relaxed);
        for (places, direction) in [(&local.outgoing, end), (&local.incoming, 1 - end)] {
            for (place, ring) in places.iter().zip(self.places(direction)) {
                place.store(ring, Ordering::Relaxed);
            }
        }
        local.segment.store(self.front, Ordering::SeqCst);
    }

    /// Lets go of a segment. Its addresses stay readable (as empty memory) and are used for the next segment: a
    /// thread that looked at a ring without a lock while another one closed the socket must not fault.
    pub(crate) fn recycle(self) {
        FRONTS.recycle(self.front);
        if self.has_rings() {
            RINGS.recycle(self.rings);
        }
    }
}

/// Address ranges of segments that are gone, for the next ones.
struct Ranges {
    size: usize,
    places: [AtomicPtr<u8>; 128],
}

static FRONTS: Ranges = Ranges::new(FRONT_SIZE);

static RINGS: Ranges = Ranges::new(RINGS_SIZE);

impl Ranges {
    const fn new(size: usize) -> Self {
        Self { size, places: [const { AtomicPtr::new(core::ptr::null_mut()) }; 128] }
    }

    /// A range to map over.
    fn take(&self) -> Option<*mut u8> {
        self.places
            .iter()
            .filter(|place| !place.load(Ordering::Relaxed).is_null())
            .map(|place| place.swap(core::ptr::null_mut(), Ordering::AcqRel))
            .find(|range| !range.is_null())
    }

    fn recycle(&self, range: *mut u8) {
        if kernel::map_anonymous(self.size, range, false).is_ok() {
            self.keep(range);
        }
    }

    /// Keeps a range of empty memory, if there is a place for it.
    fn keep(&self, range: *mut u8) {
        let null = core::ptr::null_mut();
        let kept = self
            .places
            .iter()
            .any(|place| place.compare_exchange(null, range, Ordering::AcqRel, Ordering::Relaxed).is_ok());
        if !kept {
            kernel::unmap(range, self.size);
            HELD.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

/// Fronts whose address ranges are taken at once, so that they share page tables.
const TOGETHER: usize = 64;

/// Address space that segments have of this process, used or kept.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Where there is a limit, what part of it they may have: the rest is the program's.
pub(crate) const SHARE: u64 = 16;

fn allowance() -> usize {
    match kernel::address_space_limit() {
        u64::MAX => usize::MAX,
        limit => usize::try_from(limit / SHARE).unwrap_or(usize::MAX),
    }
}

fn map_front(fd: i32) -> Result<*mut u8, Errno> {
    let place = FRONTS.take().or_else(new_front).ok_or(Errno(libc::ENOMEM))?;
    // A place over which that fails is given up: what is there then is not known.
    kernel::map_shared_part(fd, 0, FRONT_SIZE, place)
}

/// A range for one more front.
fn new_front() -> Option<*mut u8> {
    let count = if TOGETHER * FRONT_SIZE > allowance() / 2 { 1 } else { TOGETHER };
    let first = kernel::map_unlocked(count * FRONT_SIZE).ok()?;
    HELD.fetch_add(count * FRONT_SIZE, Ordering::Relaxed);
    (1..count).for_each(|number| FRONTS.keep(first.wrapping_add(number * FRONT_SIZE)));
    Some(first)
}

/// What stands for the large rings of segments that have none: neither end uses them then, but the other one could say that it
/// does. Memory of this process alone, and none while nobody touches it.
static SPARE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

fn spare_rings() -> Option<*mut u8> {
    let null = core::ptr::null_mut();
    let known = SPARE.load(Ordering::Acquire);
    if !known.is_null() {
        return Some(known);
    }
    let new = kernel::map_unlocked(RINGS_SIZE).ok()?;
    match SPARE.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(new),
        Err(other) => {
            kernel::unmap(new, RINGS_SIZE);
            Some(other)
        }
    }
}
