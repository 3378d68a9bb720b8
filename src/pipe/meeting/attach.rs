//! Meeting: when a connection is worth a pipe, and finding the other end.

use crate::pipe::connection::segment::{self, Identity, Unmet};
use crate::pipe::connection::write_lock::WriteHeld;
use crate::pipe::connection::{self, Pipe, read_lock, transitions};
use crate::pipe::lanes::grow;
use crate::pipe::meeting::{descriptor, registered};
use crate::state::flags::SocketFlags;
use crate::state::lock::Held;
use crate::state::reason::Reason;
use crate::state::socket_table::{self, Entry, STATE_PIPE, STATE_UNDECIDED, STATE_WAITING};
use crate::state::{Socket, addresses, config, family, registrations, trace};
use crate::sys::{clock, diag, kernel};
use core::ffi::c_int;
use core::sync::atomic::{Ordering, fence};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::layout::Direction;

/// Calls, and microseconds, after which a maker stops waiting for an end that does not
/// come.
const PATIENCE_CALLS: u32 = 4096;

const PATIENCE_US: u64 = 250_000;

/// Counts a call of an undecided connection, and upgrades it when it is time.
#[inline]
pub(crate) fn count(fd: c_int, socket: Socket, entry: &'static Entry, bytes: usize) {
    let calls = entry.calls.load(Ordering::Relaxed).wrapping_add(1);
    entry.calls.store(calls, Ordering::Relaxed);
    let total = entry.bytes.load(Ordering::Relaxed).wrapping_add(bytes as u64);
    entry.bytes.store(total, Ordering::Relaxed);
    let waiting = entry.state.load(Ordering::Relaxed) == STATE_WAITING;
    if waiting || (config::worth_upgrading(calls, total) && (calls < 64 || calls.is_multiple_of(64))) {
        return consider(fd, socket);
    }
    trace::note(fd, entry);
}

/// Before a wait for a socket: it may need nothing but this to come onto its pipe.
pub(crate) fn prepare(fd: c_int, socket: Socket) {
    if is_nearly_there(socket) {
        consider(fd, socket);
    }
}

/// The same, when the program changes its registration with the set at `set`, and so arms a one-shot one again.
pub(crate) fn prepare_rearmed(fd: c_int, socket: Socket, set: u32) {
    if is_nearly_there(socket) {
        consider(fd, socket);
        if let Some(entry) = socket.entry()
            && entry.state.load(Ordering::Acquire) == STATE_PIPE
            && let Some(pipe) = Pipe::of(fd, socket, entry)
            && !registrations::waits_for_rearm(entry, Some((set, fd)))
        {
            become_ready(&pipe);
        }
    }
}

fn is_nearly_there(socket: Socket) -> bool {
    socket.entry().is_some_and(|entry| {
        matches!(entry.state.load(Ordering::Relaxed), STATE_WAITING | STATE_PIPE) && entry.readers.is_empty()
    })
}

/// Tries to bring a connection onto a pipe. Harmless at any time and any number of times.
pub(crate) fn consider(fd: c_int, socket: Socket) {
    let Some(entry) = socket.entry() else { return };
    if entry.flags.load(Ordering::Relaxed) & (SocketFlags::CONNECTED | SocketFlags::LOW_WATER)
        != SocketFlags::CONNECTED
    {
        return;
    }
    if entry.state.load(Ordering::Relaxed) == STATE_UNDECIDED {
        descriptor::look_for_ring();
    }
    let mut identity = None;
    for _ in 0..LOOKS_FOR_MAKER {
        if !is_being_made(fd, socket, &mut identity) {
            break;
        }
        kernel::sleep_us(BETWEEN_LOOKS_US);
    }
    if entry.state.load(Ordering::Acquire) == STATE_PIPE
        && let Some(pipe) = Pipe::of(fd, socket, entry)
        && !registrations::waits_for_rearm(entry, None)
    {
        become_ready(&pipe);
    }
    trace::note(fd, entry);
}

/// The other end needs some 20 us to make a segment. One that was killed meanwhile is not waited for.
const LOOKS_FOR_MAKER: u32 = 50;
const BETWEEN_LOOKS_US: u64 = 20;

/// One step towards the other end; who the two are is kept in `identity` once it is known. True: it makes the segment at this
/// moment.
#[inline(never)]
fn is_being_made(fd: c_int, socket: Socket, identity: &mut Option<Identity>) -> bool {
    // Closed since the last step, perhaps.
    let Some(entry) = socket.entry() else { return false };
    // As `WriteHeld::take`: whoever died owed a doorbell, perhaps.
    let lock = &entry.write_lock.lock;
    let taken = lock.take_after(false, || {
        if let Some(pipe) = Pipe::of(fd, socket, entry) {
            pipe.outgoing().want_doorbell();
        }
    });
    let held = Held::new(lock, taken);
    match entry.state.load(Ordering::Acquire) {
        STATE_UNDECIDED if held.is_first() => begin(fd, socket, entry, held, identity),
        STATE_WAITING if held.is_first() => {
            look_again(fd, socket, held);
            false
        }
        _ => false,
    }
}

/// Makes or joins the segment; `held` is the write lock. True: the other end is making it.
fn begin(
    fd: c_int,
    socket: Socket,
    entry: &'static Entry,
    held: Held<'static>,
    known: &mut Option<Identity>,
) -> bool {
    let Some(socket_table) = socket_table::get() else { return false };
    if !family::is_sole(socket_table, &entry.holders) {
        entry.reason.store(Reason::Shared as u32, Ordering::Relaxed);
        return false;
    }
    if known.is_none() {
        match identify(fd, entry) {
            Ok(identity) => *known = identity,
            Err(reason) => Socket::stay_host(entry, reason),
        }
    }
    let Some(identity) = known else { return false };
    match segment::meet(identity) {
        Ok(met) => {
            let local = socket.local();
            local.seen_head.store(0, Ordering::Relaxed);
            local.seen_capacity.store(0, Ordering::Relaxed);
            local.stalls.store(0, Ordering::Relaxed);
            local.owes.store(0, Ordering::Relaxed);
            local.watched_tail.store(0, Ordering::Relaxed);
            clock::calibrate();
            local.looked.store(0, Ordering::Relaxed);
            local.moved.store(0, Ordering::Relaxed);
            local.distrusted.store(0, Ordering::Relaxed);
            local.doubts.store(0, Ordering::Relaxed);
            local.is_cut.store(0, Ordering::Relaxed);
            local.watched_since.store(clock::ticks(), Ordering::Relaxed);
            met.segment.give_to(local, identity.end());
            // A child that another thread forked meanwhile has no mapping. It is marked as a holder before it is
            // made: either it is seen here, or it has got what was just stored.
            fence(Ordering::SeqCst);
            if family::is_sole(socket_table, &entry.holders) {
                transitions::enter(entry, met.joined);
            } else if let Some(pipe) = Pipe::of(fd, socket, entry) {
                if met.joined {
                    transitions::mark(&pipe, Reason::Shared);
                } else {
                    transitions::abandon(&WriteHeld::with(&pipe, held), Reason::Shared);
                }
            }
        }
        Err(Unmet::NotReady) => return true,
        Err(Unmet::Never(reason)) => Socket::stay_host(entry, reason),
    }
    false
}

/// Who the two ends are. `Ok(None)`: not to be told yet.
fn identify(fd: c_int, entry: &Entry) -> Result<Option<Identity>, Reason> {
    let Ok(peer_address) = kernel::peer_address(fd) else { return Ok(None) };
    let local_address = kernel::local_address(fd).map_err(|_| Reason::NotConnected)?;
    addresses::keep(entry, &local_address, &peer_address);
    if !diag::may_be_local(&local_address, &peer_address) {
        return Err(Reason::Remote);
    }
    if kernel::file_size_limit() != u64::MAX {
        return Err(Reason::FileSizeLimit);
    }
    let own = kernel::cookie(fd).map_err(|_| Reason::NotConnected)?;
    let namespace = kernel::namespace_cookie(fd).map_err(|_| Reason::OldKernel)?;
    match diag::find_peer(&local_address, &peer_address) {
        Some(peer) if peer.cookie == own => Err(Reason::ConnectedToItself),
        Some(peer) if peer.established => {
            entry.cookie.store(own, Ordering::Relaxed);
            entry.peer_cookie.store(peer.cookie, Ordering::Relaxed);
            Ok(Some(Identity { namespace, own, peer: peer.cookie }))
        }
        // The handshake's last step, or the first of the end.
        Some(_) if entry.calls.load(Ordering::Relaxed) < 64 => Ok(None),
        _ => Err(Reason::Remote),
    }
}

/// The other end may have come meanwhile; `held` is the write lock.
fn look_again(fd: c_int, socket: Socket, held: Held<'static>) {
    let Some(pipe) = Pipe::find(fd, socket) else { return };
    if transitions::has_come(&pipe) {
        return;
    }
    let calls = pipe.entry.calls.load(Ordering::Relaxed);
    let waited = clock::ticks().wrapping_sub(pipe.local.watched_since.load(Ordering::Relaxed));
    if calls > PATIENCE_CALLS && waited > clock::from_us(PATIENCE_US) {
        transitions::abandon(&WriteHeld::with(&pipe, held), Reason::PeerWithout);
    }
}

/// Tells the writer of the other end that every reader of this one knows about doorbells. Does nothing while a
/// plain read is inside the kernel: it could not tell a doorbell from data.
pub(crate) fn become_ready(pipe: &Pipe) {
    let entry = pipe.entry;
    if !entry.readers.is_empty() {
        return;
    }
    let lock = &entry.read_lock.lock;
    let held = Held::new(lock, lock.take());
    let mut position = None;
    // A signal handler that reads from this socket counts what it takes as soon as the reads are ready: not between the kernel's
    // answer and its being noted.
    let mask = kernel::block_signals();
    if held.is_first() && entry.readers.make_ready(pipe.socket.generation) {
        position = read_lock::position_of(pipe.fd, entry, |state| state == kernel::TCP_ESTABLISHED);
        if let Some(position) = position {
            pipe.incoming().reader.kernel_read.store(position, Ordering::Relaxed);
            leave_rested_ring(pipe.incoming(), position);
        }
    }
    kernel::restore_signals(mask);
    drop(held);
    // Not under the read lock: a wait takes it after the lock of its set.
    if position.is_some() && registered::upgrade(pipe) {
        // Until this end first writes, the other one learns from here whether both share a processor.
        connection::note_cpu(&pipe.outgoing().producer.cpu);
        // The writer looks at it when it opens the ring.
        pipe.incoming().reader.ring_limit.store(grow::allowed(pipe, libc::SO_RCVBUF), Ordering::Relaxed);
        // A thread may wait for this socket in an epoll set already.
        pipe.incoming().want_doorbell();
        pipe.incoming().reader.ready.store(1, Ordering::SeqCst);
    }
}

/// A connection that was the kernel's for a while has left behind a ring that rested empty (`pin::retire`). When the writer
/// has left it since, plain reads have taken what came afterwards. Under the read lock.
fn leave_rested_ring(incoming: &Direction, position: u64) {
    let epoch = incoming.reader_epoch();
    if is_ring(epoch)
        && incoming.lead(epoch) == Ok(1)
        && !incoming.has_bytes()
        && position >= incoming.switch.resume.load(Ordering::Relaxed)
    {
        incoming.follow(epoch);
    }
}
