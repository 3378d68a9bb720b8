//! poll(2) and ppoll(2).

use super::{check_interrupted, epoll};
use crate::error::{Errno, answer};
use crate::pipe::connection::{self, Pipe, incoming_doorbells};
use crate::pipe::handoff::give_back;
use crate::pipe::lanes::unread;
use crate::pipe::meeting::{attach, descriptor};
use crate::pipe::waiting::room::{self, Room};
use crate::pipe::waiting::timed_wait::{self, Joined};
use crate::pipe::waiting::{events, spin};
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::registrations::OpenSet;
use crate::state::socket_table::{self, Entry, STATE_UNDECIDED, STATE_WAITING};
use crate::state::timed_waits::{LONGEST_US, TimedWaits};
use crate::state::{Socket, lock};
use crate::sys::deadline::Deadline;
use crate::sys::futex::{MOST, Words};
use crate::sys::give_way::give_way;
use crate::sys::handlers::Since;
use crate::sys::scratch::Scratch;
use crate::sys::{cancel, clock, kernel, real};
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{pollfd, sigset_t};

/// How well spinning paid lately in polls.
static SPIN: AtomicU32 = AtomicU32::new(0);

/// How well timed waits paid lately in polls.
static TIMED_WAITS: TimedWaits = TimedWaits::new();

/// Spins and timed waits in one call that may find something of which then nothing is reported.
const MOST_SPINS: u32 = 3;

/// What an entry of poll's array is to us.
enum Kind {
    Pipe(Pipe),
    /// A connection that may come onto a pipe: counted while we are in the kernel.
    Candidate(Socket, &'static Entry),
    /// An epoll set with pipes.
    Set(u32),
    Kernel,
}

fn kind(fd: c_int) -> Kind {
    match descriptor::find(fd) {
        Descriptor::Socket(socket) => kind_of_socket(fd, socket),
        Descriptor::Set(set) => match socket_table::get() {
            Some(socket_table) if socket_table.set(set.slot).managed.load(Ordering::Acquire) > 0 => {
                Kind::Set(set.slot)
            }
            _ => Kind::Kernel,
        },
        Descriptor::Host => Kind::Kernel,
    }
}

fn kind_of_socket(fd: c_int, socket: Socket) -> Kind {
    let Some(entry) = socket.entry() else { return Kind::Kernel };
    if let Some(pipe) = connection::reading_pipe(fd, socket, entry) {
        return Kind::Pipe(pipe);
    }
    match entry.state.load(Ordering::Relaxed) {
        STATE_UNDECIDED | STATE_WAITING | socket_table::STATE_PIPE => Kind::Candidate(socket, entry),
        _ => Kind::Kernel,
    }
}

/// Whether any of these descriptors needs more than the kernel's own call.
pub(crate) fn concerns(entries: &[pollfd]) -> bool {
    entries
        .iter()
        .any(|entry| !descriptor_table::is_host(entry.fd) && descriptor::find(entry.fd) != Descriptor::Host)
}

/// ppoll(2).
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `mask` is null or a signal mask.
pub(crate) unsafe fn poll(
    entries: &mut [pollfd],
    deadline: Deadline,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    cancel::point();
    let since = Since::now();
    for entry in entries.iter() {
        if let Descriptor::Socket(socket) = descriptor::find(entry.fd) {
            attach::prepare(entry.fd, socket);
        }
    }
    let (mut idle, mut spins) = (0, 0);
    loop {
        let is_plain = is_plain(entries);
        // Whether it is known what the kernel has for them.
        let mut is_asked = !is_plain;
        if is_plain {
            // The kernel knows it all, and need not be asked twice.
        } else if at_hand(entries) {
            let ready = evaluate(entries)?;
            if ready > 0 {
                return Ok(ready);
            }
        } else {
            let asks_later = idle == 0 && spins == 0 && mask.is_null() && !deadline.is_now();
            is_asked = !asks_later || !timed_wait_hears_all(entries);
            if is_asked {
                let ready = evaluate(entries)?;
                if ready > 0 || deadline.is_now() {
                    return Ok(ready);
                }
            }
            // A change of lanes alone is nothing to report: no reason not to sleep.
            if spins < MOST_SPINS && spin_for(entries) {
                spins += 1;
                continue;
            }
        }
        // SAFETY: the entries, the time and the mask are the program's, as the caller says.
        if let Err(error) = unsafe { check_interrupted(since, mask) } {
            // A thread that is interrupted in the kernel looks once more, too.
            return if is_asked { Err(error) } else { ready_or(error, entries) };
        }
        // With a mask of the wait's own its handlers run in the kernel's call only.
        if !is_plain && spins < MOST_SPINS && mask.is_null() {
            match timed_wait_for(entries, deadline) {
                Ok(false) => {}
                Ok(true) => {
                    spins += 1;
                    continue;
                }
                Err(error) => return ready_or(error, entries),
            }
        }
        // SAFETY: the entries, the time and the mask are the program's, as the caller says.
        let slept = match unsafe { sleep(entries, deadline, mask, since) } {
            Err(error) if !is_asked && !is_plain => return ready_or(error, entries),
            slept => slept?,
        };
        match slept {
            Slept::Timeout if is_plain => return Ok(0),
            Slept::Timeout => return evaluate(entries),
            // Unless one of them has come onto a pipe meanwhile.
            Slept::Reported(count) if is_plain && self::is_plain(entries) => return Ok(count),
            Slept::Reported(_) | Slept::Look => {}
        }
        idle += 1;
        if idle > 2 {
            // Doorbells that others must see first keep the kernel's answer up.
            if deadline.left() == Some(0) {
                return evaluate(entries);
            }
            if !kernel::sleep_us(100 * idle.min(10)) {
                return Err(Errno(libc::EINTR));
            }
        }
    }
}

/// What is ready comes before the error that ends the wait.
fn ready_or(error: Errno, entries: &mut [pollfd]) -> Result<usize, Errno> {
    match evaluate(entries)? {
        0 => Err(error),
        ready => Ok(ready),
    }
}

/// Whether there is no pipe among these, nor a set with one.
fn is_plain(entries: &[pollfd]) -> bool {
    entries.iter().all(|entry| matches!(kind(entry.fd), Kind::Candidate(..) | Kind::Kernel))
}

/// Whether a pipe has bytes, without asking anybody.
fn at_hand(entries: &[pollfd]) -> bool {
    entries.iter().any(|entry| match kind(entry.fd) {
        Kind::Pipe(pipe) => entry.events & events::READABLE != 0 && unread::has_ring_bytes(&pipe),
        _ => false,
    })
}

/// Fills in what is ready now; how many entries that are.
#[inline(never)]
fn evaluate(entries: &mut [pollfd]) -> Result<usize, Errno> {
    let mut ready = 0;
    let mut others = false;
    for entry in entries.iter_mut() {
        entry.revents = 0;
        if entry.fd < 0 {
            continue;
        }
        match kind(entry.fd) {
            Kind::Pipe(pipe) => {
                entry.revents =
                    events::at_hand(&pipe, entry.events).unwrap_or_else(|| events::now(&pipe, entry.events));
            }
            Kind::Set(slot) => {
                let shown = kernel::poll_now(entry.fd, entry.events) & !events::READABLE;
                let has = socket_table::get().is_some_and(|socket_table| {
                    epoll::hot::is_readable(&OpenSet::new(socket_table, entry.fd, slot))
                });
                entry.revents = shown | if has { entry.events & events::READABLE } else { 0 };
            }
            Kind::Candidate(..) | Kind::Kernel => others = true,
        }
        ready += usize::from(entry.revents != 0);
    }
    if others {
        let of_kernel = evaluate_kernel(entries)?;
        if of_kernel > 0 {
            TIMED_WAITS.note_unheard(clock::ticks());
        }
        ready += of_kernel;
    }
    Ok(ready)
}

/// Asks the kernel for the descriptors that are its own, a slice at a time.
fn evaluate_kernel(entries: &mut [pollfd]) -> Result<usize, Errno> {
    let mut place = Scratch::take().ok_or(Errno(libc::ENOMEM))?;
    let copy = place.of::<pollfd>();
    let mut ready = 0;
    for slice in entries.chunks_mut(copy.len()) {
        for (copy, entry) in copy.iter_mut().zip(slice.iter()) {
            let is_asked = matches!(kind(entry.fd), Kind::Candidate(..) | Kind::Kernel);
            let fd = if is_asked { entry.fd } else { -1 };
            *copy = pollfd { fd, events: entry.events, revents: 0 };
        }
        kernel::poll_many_now(&mut copy[..slice.len()])?;
        for (copy, entry) in copy.iter().zip(slice.iter_mut()) {
            if copy.fd >= 0 && copy.revents != 0 {
                entry.revents = copy.revents;
                ready += 1;
            }
        }
    }
    Ok(ready)
}

/// How a sleep ended.
enum Slept {
    Timeout,
    /// The kernel has filled in what it knows of so many entries.
    Reported(usize),
    Look,
}

/// Sleeps in the kernel's ppoll, on the program's own array, with a doorbell wanted for every pipe in it.
///
/// # Safety
/// `mask` is null or a signal mask.
#[inline(never)]
unsafe fn sleep(
    entries: &mut [pollfd],
    deadline: Deadline,
    mask: *const sigset_t,
    since: Since,
) -> Result<Slept, Errno> {
    let me = lock::thread();
    let mut entered = Entered::of(entries.len())?;
    let mut quiet = true;
    let mut is_for_room = false;
    let promises = room::promises();
    for (entry, place) in entries.iter_mut().zip(entered.places()) {
        entry.revents = 0;
        match kind(entry.fd) {
            Kind::Pipe(pipe) => {
                *place =
                    Place::new(pipe.socket, ENROLLED + socket_table::enroll(&pipe.entry.sleepers, me) as u32);
                incoming_doorbells::want_doorbell(&pipe);
                quiet &= !give_back::is_due(&pipe);
                let asks = entry.events & events::READABLE != 0;
                quiet &= !asks || !unread::has_bytes_next(&pipe);
                if entry.events & events::WRITABLE != 0 {
                    let room = room::await_it(&pipe);
                    quiet &= matches!(room, Room::KernelSays | Room::Awaited);
                    if room == Room::Awaited {
                        entry.revents = events::WRITABLE;
                        is_for_room = true;
                    }
                }
            }
            Kind::Candidate(socket, shared) => {
                if shared.readers.enter(socket.generation) {
                    *place = Place::new(socket, COUNTED);
                } else {
                    quiet = false;
                }
            }
            Kind::Set(slot) => {
                if let Some(socket_table) = socket_table::get() {
                    quiet &= arm_set(&OpenSet::new(socket_table, entry.fd, slot));
                }
            }
            Kind::Kernel => {}
        }
    }
    if !quiet {
        entered.leave(me);
        give_way(clock::ticks());
        return Ok(Slept::Look);
    }
    // Room in a ring is not waited for without limit.
    let is_short = room::promises() != promises;
    let time = if is_short { deadline.at_most(room::PATIENCE_NS) } else { deadline }.timespec();
    // SAFETY: the entries, the time and the mask are the program's, as the caller says.
    if let Err(error) = unsafe { check_interrupted(since, mask) } {
        entered.leave(me);
        return Err(error);
    }
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let reported = if is_for_room {
        // SAFETY: the entries, the time and the mask are the program's, as the caller says; `time` lives across the call.
        unsafe { poll_without_room(entries, time, mask) }
    } else {
        // SAFETY: the entries, the time and the mask are the program's, as the caller says.
        unsafe { real::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, time, mask) }
    };
    let errno = Errno::last();
    entered.leave(me);
    match reported {
        0 if !is_short || deadline.left() == Some(0) => Ok(Slept::Timeout),
        0 => Ok(Slept::Look),
        1.. => Ok(Slept::Reported(reported as usize)),
        _ => Err(errno),
    }
}

/// ppoll(2) on a copy of the array, in which the pipes whose `revents` say so are not asked for room: the ring is full, and the
/// kernel would say that its own queue is not. Mapped, as in [`Entered`].
///
/// # Safety
/// `time` and `mask` are null or what ppoll wants.
#[cold]
#[inline(never)]
unsafe fn poll_without_room(
    entries: &mut [pollfd],
    time: *const libc::timespec,
    mask: *const sigset_t,
) -> c_int {
    let size = size_of_val(entries);
    let Ok(place) = kernel::map_anonymous(size, core::ptr::null_mut(), false) else {
        return answer(Err(Errno(libc::ENOMEM))) as c_int;
    };
    // SAFETY: new memory of that size, whose zeros are entries; it is this call's alone.
    let copy = unsafe { core::slice::from_raw_parts_mut(place.cast::<pollfd>(), entries.len()) };
    for (to, from) in copy.iter_mut().zip(entries) {
        let waits = core::mem::take(&mut from.revents) != 0;
        // The doorbell is a byte to read.
        let events = if waits { from.events & !events::WRITABLE | libc::POLLIN } else { from.events };
        *to = pollfd { fd: from.fd, events, revents: 0 };
    }
    // SAFETY: the entries, the time and the mask are the program's, as the caller says; `copy` lives across the call.
    let reported = unsafe { real::ppoll(copy.as_mut_ptr(), copy.len() as libc::nfds_t, time, mask) };
    let errno = Errno::last();
    kernel::unmap(place, size);
    errno.store();
    reported
}

fn arm_set(set: &OpenSet<'_>) -> bool {
    epoll::watch(set);
    epoll::hot::arm_whole(set, 0)
}

/// How a socket was entered: not at all, as a call that knows of no doorbells, or as a sleeper at a place from here on.
const NOTHING: u32 = 0;
const COUNTED: u32 = 1;
const ENROLLED: u32 = 2;

/// What was entered for one descriptor. By slot and generation: when the sleep is over, its number may be another
/// socket's.
#[derive(Clone, Copy)]
struct Place {
    /// How, above the slot's bits.
    slot: u32,
    generation: u32,
}

const SLOT_BITS: u32 = 24;
const _: () =
    assert!(socket_table::SOCKETS <= 1 << SLOT_BITS && ENROLLED as usize + socket_table::SLEEPERS <= 1 << 8);

impl Place {
    const EMPTY: Self = Self { slot: NOTHING, generation: 0 };

    const fn new(socket: Socket, how: u32) -> Self {
        Self { slot: how << SLOT_BITS | socket.slot, generation: socket.generation }
    }

    /// Undoes what was entered. Of a slot that has changed hands since, nothing of it is left.
    fn leave(self, me: u32) {
        let socket = Socket { slot: self.slot & ((1 << SLOT_BITS) - 1), generation: self.generation };
        let how = self.slot >> SLOT_BITS;
        let Some(shared) = (if how == NOTHING { None } else { socket.entry() }) else { return };
        if how == COUNTED {
            shared.readers.leave(socket.generation);
        } else {
            socket_table::leave(&shared.sleepers, (how - ENROLLED) as usize, me);
        }
    }
}

/// Entries that a small stack has room for. A cancelled thread never comes back from the sleep, so this is no
/// [`Scratch`](crate::sys::scratch::Scratch), which it would keep.
pub(super) const FEW: usize = 20;

/// What [`sleep`] has entered, for each descriptor: on the stack, or mapped when there are many. No allocation: poll is
/// safe in a signal handler.
struct Entered {
    small: [Place; FEW],
    large: *mut Place,
    length: usize,
}

impl Entered {
    /// # Errors
    /// ENOMEM.
    fn of(length: usize) -> Result<Self, Errno> {
        let mut entered = Self { small: [Place::EMPTY; FEW], large: core::ptr::null_mut(), length };
        if length > entered.small.len() {
            let bytes = length * size_of::<Place>();
            // Zeroed memory is an array of `EMPTY`.
            entered.large = kernel::map_anonymous(bytes, core::ptr::null_mut(), false)?.cast();
        }
        Ok(entered)
    }

    fn places(&mut self) -> &mut [Place] {
        if self.large.is_null() {
            return &mut self.small[..self.length];
        }
        // SAFETY: mapped with that size in `of`, and unmapped only in `leave`, which takes this value.
        unsafe { core::slice::from_raw_parts_mut(self.large, self.length) }
    }

    /// Undoes all of it, and gives the memory back.
    fn leave(mut self, me: u32) {
        self.places().iter().for_each(|place| place.leave(me));
        if !self.large.is_null() {
            kernel::unmap(self.large.cast(), self.length * size_of::<Place>());
        }
    }
}

/// Whether a timed wait hears of all that is waited for, so that the kernel need not be asked before it, as in a read: what
/// only the kernel knows, for example of a peer that was killed, is found when the timed wait is over.
fn timed_wait_hears_all(entries: &[pollfd]) -> bool {
    timed_wait::is_possible()
        && TIMED_WAITS.pay(clock::ticks())
        && entries.iter().all(|entry| match kind(entry.fd) {
            Kind::Pipe(pipe) => {
                entry.events & events::READABLE != 0
                    && entry.events & events::WRITABLE == 0
                    && pipe.entry.pending_error.load(Ordering::Relaxed) == 0
                    && !timed_wait::is_deaf(&pipe)
            }
            _ => entry.fd < 0,
        })
}

/// Waits on the futex until one of the pipes has something: see [`epoll`]'s timed waits. True: it is worth looking again.
///
/// # Errors
/// EINTR.
#[inline(never)]
fn timed_wait_for(entries: &[pollfd], deadline: Deadline) -> Result<bool, Errno> {
    if !timed_wait::is_possible() || !TIMED_WAITS.may_begin(clock::ticks()) {
        return Ok(false);
    }
    let (mut pipes, mut is_any_here, mut first) = (0, false, None);
    for entry in entries.iter().filter(|entry| entry.fd >= 0) {
        match kind(entry.fd) {
            // Only the kernel reports room. Whoever sends urgent data leaves the ring first, which ends a timed wait.
            Kind::Pipe(pipe) if entry.events & events::WRITABLE != 0 || timed_wait::is_deaf(&pipe) => {
                return Ok(false);
            }
            Kind::Set(_) => return Ok(false),
            Kind::Pipe(pipe) if entry.events & events::COMING != 0 => {
                pipes += 1;
                is_any_here |= pipe.is_writer_here();
                first.get_or_insert(pipe);
            }
            Kind::Pipe(_) | Kind::Candidate(..) | Kind::Kernel => {}
        }
    }
    // Counted with one of them: the same ones are mostly waited for again, and other threads wait for others.
    match first {
        Some(pipe) if pipes <= MOST && !timed_wait::is_sleep_due(&pipe.local.apart, is_any_here) => {}
        _ => return Ok(false),
    }
    let mut words = Words::new();
    for entry in entries.iter().filter(|entry| entry.events & events::COMING != 0) {
        if let Kind::Pipe(pipe) = kind(entry.fd) {
            match timed_wait::join(&pipe, &mut words) {
                Joined::Waiting => {}
                Joined::Look => return Ok(true),
                Joined::Cannot => return Ok(false),
            }
        }
    }
    if at_hand(entries) {
        return Ok(true);
    }
    let nanoseconds = deadline.left().unwrap_or(u64::MAX).min(LONGEST_US * 1000);
    let woken = timed_wait::on(&mut words, nanoseconds)?;
    TIMED_WAITS.note_end(clock::ticks(), woken && at_hand(entries));
    Ok(woken)
}

/// What may come to a pipe while its waiter spins.
const ASKED: i16 = events::READABLE | events::WRITABLE;

/// Spins while any pipe that is waited for may get bytes soon. Apart, as the other steps of a wait: stacks are small.
#[inline(never)]
fn spin_for(entries: &[pollfd]) -> bool {
    let mut pipes: [Option<(Pipe, i16)>; 8] = [None; 8];
    let found = entries.iter().filter_map(|entry| match kind(entry.fd) {
        Kind::Pipe(pipe) => {
            let asked = entry.events & if room::is_known(&pipe) { ASKED } else { events::READABLE };
            (asked != 0).then_some((pipe, asked))
        }
        _ => None,
    });
    let mut count = 0;
    for (place, found) in pipes.iter_mut().zip(found) {
        *place = Some(found);
        count += 1;
    }
    if count == 0 || !spin::is_worth(&SPIN) {
        return false;
    }
    spin::until(
        &SPIN,
        || {
            pipes[..count].iter().flatten().any(|(pipe, asked)| {
                let incoming = pipe.incoming();
                asked & events::READABLE != 0
                    && (unread::has_ring_bytes(pipe) || incoming.epoch() != incoming.reader_epoch())
                    || asked & events::WRITABLE != 0 && room::has_come(pipe)
            })
        },
        || pipes[..count].iter().flatten().any(|(pipe, _)| pipe.is_writer_here()),
    )
}
