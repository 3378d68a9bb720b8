//! The socket table and the epoll sets: memory that `fork` shares, so that parent and child agree on lanes,
//! locks and counters; a file in the rendezvous folder when there is one, so that `sockshim ss` can look.
//!
//! As untrusted as a segment (a child may have dropped its privileges): bounded words only. Pointers, sizes
//! and mappings are private, in [`super::socket::Local`].

use super::flags::{AtomicFlags, SocketFlags};
use super::lock::{self, EndLock, Lock};
use super::process_name::{ProcessName, Stored};
use super::reason::Reason;
use super::registrations::flags::RegFlags;
use super::timed_waits::TimedWaits;
use crate::error::Errno;
use crate::sys::{kernel, probe};
use core::mem::offset_of;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use sockshim_ring::in_flight::InFlight;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"sockshmT");
/// Version of everything in this file; also part of the file's name.
pub(crate) const VERSION: u32 = 5;

/// As many as there can be descriptors of ours in a process. Only what is used takes memory.
pub(crate) const SOCKETS: usize = 64 * 1024;
pub(crate) const SETS: usize = 1024;
pub(crate) const REGISTRATIONS: usize = 64 * 1024;
pub(crate) const PROCESSES: usize = 512;
pub(crate) const SLEEPERS: usize = 8;
/// The last place of a list of sleepers: how many there are beyond those that are named.
const MORE: usize = SLEEPERS - 1;

/// The whole table. Zeroed memory is a valid, empty one.
#[repr(C)]
pub(crate) struct SocketTable {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    /// One more than the highest socket slot ever used, and the same for the others: bounds of scans.
    pub(crate) sockets_used: AtomicU32,
    pub(crate) sets_used: AtomicU32,
    pub(crate) registrations_used: AtomicU32,
    /// Heads of the free lists: index + 1 in the low half, a change counter in the high half (no ABA).
    free_sockets: AtomicU64,
    free_registrations: AtomicU64,
    /// The family's first process. Numbers of processes and threads are those of its pid namespace.
    pub(crate) maker: Stored,
    /// Totals of all sockets that are gone.
    pub(crate) totals: SharedCounters,
    /// Process numbers of this fork family; 0: free, [`CLAIMED`]: a fork is under way.
    pub(crate) processes: [AtomicU32; PROCESSES],
    /// Which of them are about to end, by slot.
    pub(crate) leaving: [AtomicU64; PROCESSES / 64],
    /// Numbers given to threads in other process namespaces; see [`super::fork`].
    pub(crate) foreign_threads: AtomicU32,
    pub(crate) sockets: [Entry; SOCKETS],
    pub(crate) sets: [SetEntry; SETS],
    pub(crate) registrations: [Registration; REGISTRATIONS],
}

/// A process slot that a parent has taken for a child that has not run yet.
pub(crate) const CLAIMED: u32 = 1 << 31;

/// Mark of a process that has a table of its own now, and goes on to hold something: see [`super::split`].
pub(crate) const GHOST: u32 = 1 << 29;

/// What a connection has done.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SharedCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) kernel_sent: AtomicU64,
    pub(crate) kernel_received: AtomicU64,
    pub(crate) doorbells: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    pub(crate) upgrades: AtomicU64,
    pub(crate) spills: AtomicU64,
}

impl SharedCounters {
    pub(crate) fn all(&self) -> [&AtomicU64; 8] {
        [
            &self.sent,
            &self.received,
            &self.kernel_sent,
            &self.kernel_received,
            &self.doorbells,
            &self.sleeps,
            &self.upgrades,
            &self.spills,
        ]
    }
}

/// Adds to a counter that only lock holders write: no locked instruction.
#[inline]
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// One open file description: a TCP socket.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Entry {
    /// Changes whenever the slot changes hands; even: free.
    pub(crate) generation: AtomicU32,
    /// `STATE_*`.
    pub(crate) state: AtomicU32,
    /// [`super::reason::Reason`].
    pub(crate) reason: AtomicU32,
    pub(crate) flags: AtomicFlags<SocketFlags>,
    /// Plain reads inside the kernel; ready: every reader of this end knows about doorbells.
    pub(crate) readers: InFlight,
    /// Plain writes inside the kernel.
    pub(crate) writers: InFlight,
    /// Which processes hold it, by process slot.
    pub(crate) holders: [AtomicU64; PROCESSES / 64],
    /// Calls and bytes so far, while undecided.
    pub(crate) calls: AtomicU32,
    /// An error that a doorbell found on the kernel's connection and the program has not seen.
    pub(crate) pending_error: AtomicI32,
    pub(crate) bytes: AtomicU64,
    /// Socket cookies, for `ss`.
    pub(crate) cookie: AtomicU64,
    pub(crate) peer_cookie: AtomicU64,
    /// Next in the free list, index + 1.
    next_free: AtomicU32,
    /// Options whose kernel value is ours while a lane is open: which, and what the program believes. See `pipe::meeting::options`.
    pub(crate) options: AtomicU32,
    /// How large the ring that this end writes may become, as found when it was opened; see `pipe::transfer::write`.
    pub(crate) ring_limit: AtomicU32,
    /// A descriptor number that it has, plus one, for `ss` and the event log; 0: not known.
    pub(crate) number: AtomicU32,
    /// What the event log has said of it; see [`super::trace`].
    pub(crate) logged: AtomicU32,

    pub(crate) read_lock: EndLock,
    pub(crate) write_lock: EndLock,

    pub(crate) counters: SharedCounters,
    /// Threads in a kernel wait that covers this socket.
    pub(crate) sleepers: [AtomicU32; SLEEPERS],
    /// Registrations with epoll sets, index + 1.
    pub(crate) registrations: [AtomicU32; 4],
    /// Addresses for `ss`: `sockaddr_in`/`sockaddr_in6`, in words.
    pub(crate) local: [AtomicU32; 7],
    pub(crate) peer: [AtomicU32; 7],
}

impl Entry {
    /// See [`is_pipe`].
    pub(crate) fn is_on_pipe(&self) -> bool {
        is_pipe(self.state.load(Ordering::Relaxed), self.reason.load(Ordering::Relaxed))
    }
}

/// Nothing decided: calls go to the kernel and are counted.
pub(crate) const STATE_UNDECIDED: u32 = 0;
/// The segment exists; the other end has not come.
pub(crate) const STATE_WAITING: u32 = 1;
/// Both ends have the segment.
pub(crate) const STATE_PIPE: u32 = 2;
/// The kernel's for good.
pub(crate) const STATE_HOST: u32 = 3;
/// Both ends have the segment, but this end uses the kernel lane only from now on.
pub(crate) const STATE_PINNED: u32 = 4;

/// Whether a connection in this state, for this reason, runs over its segment. The other end may have gone back to the
/// kernel alone.
pub(crate) const fn is_pipe(state: u32, reason: u32) -> bool {
    state == STATE_PIPE && reason != Reason::PeerLeft as u32
}

/// One epoll set.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct SetEntry {
    /// Changes whenever the slot changes hands; even: free.
    pub(crate) generation: AtomicU32,
    /// Number of registrations that we translate.
    pub(crate) managed: AtomicU32,
    /// First of the registrations to look at without a report of the kernel's, index + 1.
    pub(crate) hot: AtomicU32,
    /// First of all registrations, index + 1.
    pub(crate) first: AtomicU32,
    pub(crate) lock: Lock,
    /// Bits 44..: the prefix of our 64-bit data in the kernel's set.
    pub(crate) prefix: AtomicU64,
    pub(crate) holders: [AtomicU64; PROCESSES / 64],
    pub(crate) sleepers: [AtomicU32; SLEEPERS],
    /// Somebody looks at it from outside: it was polled, or registered with another set.
    pub(crate) watched: AtomicU32,
    /// Number of registrations that the program has deleted and the kernel still has.
    pub(crate) parked: AtomicU32,
    /// The slot that the set itself is in.
    pub(crate) slot: AtomicU32,
    /// Last of the hot registrations, index + 1.
    pub(crate) last_hot: AtomicU32,
    /// Ticks of the last look at the kernel's own descriptors.
    pub(crate) looked: AtomicU64,
    /// What happened in it, counted when somebody looks from outside; see `readiness::epoll::nested`.
    pub(crate) news: AtomicU32,
    /// Up to when a thread waits on the futex in it, in ticks; 0: none. See `readiness::epoll::timed_wait`.
    pub(crate) timed_wait_until: AtomicU64,
    /// Changed for whoever waits on the futex in it when there is more to look at.
    pub(crate) wake_word: AtomicU32,
    /// Somebody has looked without the lock: what is ready may not be on the hot list. See `readiness::epoll::stuck`.
    pub(crate) overlooked: AtomicU32,
    pub(crate) timed_waits: TimedWaits,
}

/// One descriptor in one epoll set.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Registration {
    /// Set slot + 1; 0: free.
    pub(crate) set: AtomicU32,
    /// Socket (or, for a nested set, set) slot and its generation.
    pub(crate) slot: AtomicU32,
    pub(crate) generation: AtomicU32,
    pub(crate) fd: AtomicI32,
    /// The program's mask and data.
    pub(crate) events: AtomicU32,
    pub(crate) flags: AtomicFlags<RegFlags>,
    pub(crate) data: AtomicU64,
    /// What had arrived when it was last reported, for edges; see `events::arrived`.
    pub(crate) reported: AtomicU64,
    /// The kinds of end that were reported.
    pub(crate) ended: AtomicU32,
    /// What the kernel reported since the last look.
    pub(crate) kernel_events: AtomicU32,
    /// Lists, index + 1: all of the set, and the hot ones.
    pub(crate) next: AtomicU32,
    pub(crate) previous: AtomicU32,
    pub(crate) next_hot: AtomicU32,
    /// Next in the free list; while in use: how far the ring's writer was when a set around this one last looked (low half),
    /// see `readiness::epoll::nested`.
    pub(crate) noted: AtomicU32,
}

/// Where the socket table is; null before start or when there is no memory for it.
static SOCKET_TABLE: AtomicPtr<SocketTable> = AtomicPtr::new(core::ptr::null_mut());
/// One more than the highest descriptor that the table was given: bound of scans in this process.
static HIGHEST: AtomicU32 = AtomicU32::new(0);

pub(crate) fn get() -> Option<&'static SocketTable> {
    // SAFETY: once set, the mapping stays until the process ends, and it only holds atomics.
    unsafe { SOCKET_TABLE.load(Ordering::Acquire).as_ref() }
}

/// Makes the socket table this process's, which is `maker`: the file behind `fd`, or anonymous memory.
pub(crate) fn install(file: Option<i32>, maker: &ProcessName) -> Option<&'static SocketTable> {
    let socket_table = mapping(file)?.cast::<SocketTable>();
    SOCKET_TABLE.store(socket_table, Ordering::Release);
    // SAFETY: just mapped, zeroed, and of that size.
    let socket_table = unsafe { &*socket_table };
    socket_table.version.store(VERSION, Ordering::Relaxed);
    socket_table.maker.store(maker);
    socket_table.magic.store(MAGIC, Ordering::Release);
    Some(socket_table)
}

/// Memory for a socket table.
fn mapping(file: Option<i32>) -> Option<*mut u8> {
    let size = size_of::<SocketTable>();
    match file {
        Some(fd) => kernel::map_shared(fd, size).ok(),
        None => kernel::map_anonymous(size, core::ptr::null_mut(), true).ok(),
    }
}

pub(crate) fn note_highest(fd: u32) {
    HIGHEST.fetch_max(fd + 1, Ordering::Relaxed);
}

/// Bound of the descriptors that can be in the table.
pub(crate) fn highest() -> u32 {
    HIGHEST.load(Ordering::Relaxed)
}

impl SocketTable {
    pub(crate) fn socket(&self, slot: u32) -> &Entry {
        // The index comes from shared memory or from the table: bound it.
        &self.sockets[slot as usize % SOCKETS]
    }

    pub(crate) fn set(&self, slot: u32) -> &SetEntry {
        &self.sets[slot as usize % SETS]
    }

    pub(crate) fn registration(&self, index: u32) -> &Registration {
        &self.registrations[index as usize % REGISTRATIONS]
    }

    /// Takes a free socket slot, cleared; its generation is odd from now on.
    pub(crate) fn take_socket(&self) -> Option<(u32, &Entry)> {
        let slot = pop(&self.free_sockets, |slot| &self.socket(slot).next_free)
            .or_else(|| extend(&self.sockets_used, &self.sockets))?;
        let entry = self.socket(slot);
        // Not `for` over the chains, which would look at each step in which of its parts it is.
        let small = [&entry.state, &entry.reason, &entry.calls].into_iter();
        small
            .chain([&entry.options, &entry.ring_limit, &entry.number, &entry.logged])
            .chain(&entry.sleepers)
            .chain(&entry.registrations)
            .chain(&entry.local)
            .chain(&entry.peer)
            .for_each(|word| word.store(0, Ordering::Relaxed));
        let large = [&entry.bytes, &entry.cookie, &entry.peer_cookie].into_iter();
        large.chain(&entry.holders).for_each(|word| word.store(0, Ordering::Relaxed));
        entry.counters.all().into_iter().for_each(|word| word.store(0, Ordering::Relaxed));
        entry.flags.store(SocketFlags::empty(), Ordering::Relaxed);
        entry.pending_error.store(0, Ordering::Relaxed);
        entry.read_lock.reset();
        entry.write_lock.reset();
        let generation = entry.generation.load(Ordering::Relaxed).wrapping_add(1) | 1;
        entry.readers.begin(generation);
        entry.writers.begin(generation);
        entry.generation.store(generation, Ordering::Release);
        Some((slot, entry))
    }

    /// Gives a slot back, once.
    pub(crate) fn free_socket(&self, slot: u32, generation: u32) {
        let entry = self.socket(slot);
        let next = generation.wrapping_add(1);
        if entry.generation.compare_exchange(generation, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            for (total, own) in self.totals.all().iter().zip(entry.counters.all()) {
                let own = own.load(Ordering::Relaxed);
                // Short connections have counted little, and a locked addition is dear.
                if own != 0 {
                    total.fetch_add(own, Ordering::Relaxed);
                }
            }
            push(&self.free_sockets, slot, &entry.next_free);
        }
    }

    /// Takes a free registration; the caller fills it.
    pub(crate) fn take_registration(&self) -> Option<u32> {
        pop(&self.free_registrations, |index| &self.registration(index).noted)
            .or_else(|| extend(&self.registrations_used, &self.registrations))
    }

    pub(crate) fn free_registration(&self, index: u32) {
        let registration = self.registration(index);
        if registration.set.swap(0, Ordering::AcqRel) != 0 {
            push(&self.free_registrations, index, &registration.noted);
        }
    }

    /// Takes a free set slot, cleared. Sets are few: a scan.
    pub(crate) fn take_set(&self) -> Option<(u32, &SetEntry)> {
        let used = self.sets_used.load(Ordering::Acquire) as usize;
        for (slot, set) in self.sets.iter().enumerate() {
            if slot >= used && !is_backed(set) {
                return None;
            }
            let generation = set.generation.load(Ordering::Relaxed);
            let next = generation.wrapping_add(1);
            if generation & 1 == 0
                && set
                    .generation
                    .compare_exchange(generation, next, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                let numbers = [&set.managed, &set.hot, &set.first, &set.watched, &set.parked, &set.last_hot];
                for word in numbers.into_iter().chain([&set.overlooked]) {
                    word.store(0, Ordering::Relaxed);
                }
                for word in &set.sleepers {
                    word.store(0, Ordering::Relaxed);
                }
                for word in &set.holders {
                    word.store(0, Ordering::Relaxed);
                }
                set.looked.store(0, Ordering::Relaxed);
                set.timed_wait_until.store(0, Ordering::Relaxed);
                set.timed_waits.reset();
                set.lock.reset();
                self.sets_used.fetch_max(slot as u32 + 1, Ordering::Relaxed);
                return Some((slot as u32, set));
            }
        }
        None
    }
}

impl SocketTable {
    /// A copy of what is in use, in the file or in anonymous memory. `None`: there is no memory.
    pub(crate) fn copy(&self, file: Option<i32>) -> Option<*mut u8> {
        let place = mapping(file)?;
        let size = size_of::<Self>();
        let end = |offset: usize, used: &AtomicU32, places: usize, one: usize| {
            (offset, offset + (used.load(Ordering::Acquire) as usize).min(places) * one)
        };
        let parts = [
            (0, offset_of!(Self, sockets)),
            end(offset_of!(Self, sockets), &self.sockets_used, SOCKETS, size_of::<Entry>()),
            end(offset_of!(Self, sets), &self.sets_used, SETS, size_of::<SetEntry>()),
            end(
                offset_of!(Self, registrations),
                &self.registrations_used,
                REGISTRATIONS,
                size_of::<Registration>(),
            ),
        ];
        let from = core::ptr::from_ref(self).cast::<AtomicU64>();
        for (start, end) in parts.into_iter().filter(|(start, end)| start < end) {
            if !is_given(place.wrapping_add(start), end - start) {
                kernel::unmap(place, size);
                return None;
            }
            for index in start / size_of::<u64>()..end / size_of::<u64>() {
                // SAFETY: this table has the word, and it is only used atomically.
                let from = unsafe { &*from.wrapping_add(index) };
                // SAFETY: the mapping is as long, and it is only used atomically.
                let to = unsafe { &*place.cast::<AtomicU64>().wrapping_add(index) };
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        Some(place)
    }

    /// Frees all the rest, in a copy that nobody uses yet; the lists of what is free are made anew.
    pub(crate) fn keep_only(&self, keeps_socket: impl Fn(u32) -> bool, keeps_set: impl Fn(u32) -> bool) {
        let used = |count: &AtomicU32| count.load(Ordering::Acquire) as usize;
        self.free_sockets.store(0, Ordering::Relaxed);
        self.free_registrations.store(0, Ordering::Relaxed);
        for (set, slot) in self.sets.iter().zip(0..).take(used(&self.sets_used)) {
            let generation = set.generation.load(Ordering::Relaxed);
            if generation & 1 == 1 && !keeps_set(slot) {
                set.generation.store(generation.wrapping_add(1), Ordering::Relaxed);
            }
        }
        for (registration, index) in self.registrations.iter().zip(0..).take(used(&self.registrations_used)) {
            let set = registration.set.load(Ordering::Relaxed).checked_sub(1);
            if set.is_none_or(|set| set >= SETS as u32 || !keeps_set(set)) {
                registration.set.store(0, Ordering::Relaxed);
                push(&self.free_registrations, index, &registration.noted);
            }
        }
        for (entry, slot) in self.sockets.iter().zip(0..).take(used(&self.sockets_used)) {
            let generation = entry.generation.load(Ordering::Relaxed);
            if generation & 1 == 0 || !keeps_socket(slot) {
                entry.generation.store(generation.wrapping_add(generation & 1), Ordering::Relaxed);
                push(&self.free_sockets, slot, &entry.next_free);
                continue;
            }
            for place in &entry.registrations {
                let index = place.load(Ordering::Relaxed).checked_sub(1);
                if index.is_some_and(|index| self.registration(index).set.load(Ordering::Relaxed) == 0) {
                    place.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Takes the head of a free list.
fn pop<'a>(head: &AtomicU64, next: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
    let mut seen = head.load(Ordering::Acquire);
    loop {
        let index = (seen as u32).checked_sub(1)?;
        let following = next(index).load(Ordering::Relaxed);
        let new = (seen >> 32).wrapping_add(1) << 32 | u64::from(following);
        match head.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(index),
            Err(other) => seen = other,
        }
    }
}

/// Puts `index` at the head of a free list.
fn push(head: &AtomicU64, index: u32, next: &AtomicU32) {
    let mut seen = head.load(Ordering::Acquire);
    loop {
        next.store(seen as u32, Ordering::Relaxed);
        let new = (seen >> 32).wrapping_add(1) << 32 | u64::from(index + 1);
        match head.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) => seen = other,
        }
    }
}

/// Takes the next never-used index, once its memory is there: a page that a full tmpfs cannot give would be
/// a SIGBUS.
fn extend<T>(used: &AtomicU32, places: &[T]) -> Option<u32> {
    let index = used
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            let place = places.get(count as usize)?;
            is_backed(place).then_some(count + 1)
        })
        .ok()?;
    Some(index)
}

/// Gives memory to the pages of `place`.
fn is_backed<T>(place: &T) -> bool {
    is_given(core::ptr::from_ref(place).cast_mut().cast(), size_of::<T>())
}

/// The same of so many bytes.
fn is_given(start: *mut u8, length: usize) -> bool {
    let before = start as usize % 4096;
    let pages = (before + length).next_multiple_of(4096);
    probe::populate(start.wrapping_sub(before), pages) != Err(Errno(libc::EFAULT))
}

/// Marks this thread in a list of sleepers: by name, so that it is missed when it is killed; when all places
/// are taken, by number alone.
pub(crate) fn enroll(sleepers: &[AtomicU32; SLEEPERS], thread: u32) -> usize {
    let take = |slot: &AtomicU32, from: u32| {
        slot.compare_exchange(from, thread, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    };
    let named = &sleepers[..MORE];
    named
        .iter()
        .position(|slot| take(slot, 0))
        .or_else(|| {
            named.iter().position(|slot| {
                let sleeper = slot.load(Ordering::SeqCst);
                (sleeper == 0 || lock::is_dead(sleeper)) && take(slot, sleeper)
            })
        })
        .unwrap_or_else(|| {
            sleepers[MORE].fetch_add(1, Ordering::SeqCst);
            MORE
        })
}

/// The end of [`enroll`]. The list may be another socket's by now.
pub(crate) fn leave(sleepers: &[AtomicU32; SLEEPERS], place: usize, thread: u32) {
    if place == MORE {
        let less = |count: u32| count.checked_sub(1);
        let _ = sleepers[MORE].fetch_update(Ordering::SeqCst, Ordering::Relaxed, less);
    } else if let Some(slot) = sleepers.get(place) {
        let _ = slot.compare_exchange(thread, 0, Ordering::SeqCst, Ordering::Relaxed);
    }
}

/// Takes threads out of a list without their doing.
pub(crate) fn forget_sleepers(sleepers: &[AtomicU32; SLEEPERS], is_forgotten: impl Fn(u32) -> bool) {
    for slot in &sleepers[..MORE] {
        let thread = slot.load(Ordering::SeqCst);
        if thread != 0 && is_forgotten(thread) {
            let _ = slot.compare_exchange(thread, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}

/// Whether a live thread other than `me` is in the list; dead ones are removed when `reap` is set.
pub(crate) fn others_asleep(sleepers: &[AtomicU32; SLEEPERS], me: u32, reap: bool) -> bool {
    let mut found = sleepers[MORE].load(Ordering::SeqCst) != 0;
    for slot in &sleepers[..MORE] {
        let thread = slot.load(Ordering::SeqCst);
        if thread == 0 || thread == me {
            continue;
        }
        if reap && lock::is_gone(thread) {
            let _ = slot.compare_exchange(thread, 0, Ordering::SeqCst, Ordering::Relaxed);
        } else {
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests;
