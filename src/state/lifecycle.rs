//! What the registry must hear of a descriptor's life. Called by `abi` around the kernel's calls.
//!
//! A descriptor's word is taken away *before* the kernel closes it: afterwards another thread may have got
//! the number already.

use super::arena::{self, Arena, FLAG_ACCEPTED, FLAG_CONNECTED, FLAG_LISTENER, FLAG_NONBLOCK};
use super::reason::Reason;
use super::socket::Walk;
use super::table::{self, Descriptor, Set};
use super::{Socket, addresses, config, fork, log, registrations, rings, socket, start, trace};
use crate::pipe::{attach, end, options, pin as pinning};
use crate::sys::deadline::Deadline;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// After a call that made `fd` something that is not a TCP socket.
pub(crate) fn made(fd: c_int) {
    if fork::has_own_descriptors() {
        forget(fd);
        table::set_host(fd);
    }
}

/// After `socket()` made `fd`.
pub(crate) fn socket_made(fd: c_int, domain: c_int, kind: c_int, protocol: c_int) {
    let is_tcp = (domain == libc::AF_INET || domain == libc::AF_INET6)
        && kind & 0xf == libc::SOCK_STREAM
        && (protocol == 0 || protocol == libc::IPPROTO_TCP);
    if is_tcp {
        let flags = if kind & libc::SOCK_NONBLOCK != 0 { FLAG_NONBLOCK } else { 0 };
        if enter(fd, flags).is_some() {
            trace::created(fd);
        }
    } else {
        made(fd);
    }
}

/// After `accept()` on `listener` made `fd`.
pub(crate) fn accepted(listener: c_int, fd: c_int, flags: c_int) {
    let is_tcp = match table::find(listener) {
        Descriptor::Socket(_) => true,
        // Above the cap, or before our start: ask.
        _ => kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0 as c_int) == Ok(libc::IPPROTO_TCP),
    };
    if !is_tcp {
        return made(fd);
    }
    let nonblock = if flags & libc::SOCK_NONBLOCK != 0 { FLAG_NONBLOCK } else { 0 };
    let Some(socket) = enter(fd, FLAG_CONNECTED | FLAG_ACCEPTED | nonblock) else { return };
    if let (Some(from), Some(to)) = (table::socket(listener).and_then(Socket::entry), socket.entry()) {
        options::inherit(from, to);
    }
    if config::upgrades_at_once() {
        attach::consider(fd, socket);
    }
    if let Some(entry) = socket.entry() {
        trace::note(fd, entry);
    }
}

/// After `listen()` succeeded.
pub(crate) fn listening(fd: c_int) {
    if let Some(entry) = table::socket(fd).and_then(Socket::entry) {
        entry.flags.fetch_or(FLAG_LISTENER, Ordering::Relaxed);
        Socket::stay_host(entry, Reason::NotConnected);
    }
}

/// After `connect()` succeeded, or said that it is under way.
pub(crate) fn connected(fd: c_int, at_once: bool) {
    let Some(socket) = table::socket(fd) else { return };
    let Some(entry) = socket.entry() else { return };
    let before = entry.flags.fetch_or(FLAG_CONNECTED, Ordering::Relaxed);
    if at_once && before & FLAG_CONNECTED == 0 && config::upgrades_at_once() {
        attach::consider(fd, socket);
    }
    log::stays_host(entry);
    trace::note(fd, entry);
}

/// After `epoll_create` made `fd`.
pub(crate) fn set_made(fd: c_int) {
    made(fd);
    if !start::is_ready() || !fork::has_own_descriptors() {
        return;
    }
    let Some(arena) = arena::get() else { return };
    if let Some((slot, entry)) = arena.take_set() {
        registrations::begin(slot, entry);
        fork::hold(&entry.holders);
        socket::refer_set(slot);
        let set = Set { slot, generation: entry.generation.load(Ordering::Relaxed) };
        if !table::set_set(fd, set) {
            release(fd, Descriptor::Set(set));
        }
    }
}

/// A number that is looked at for the first time is a TCP socket: inherited, or received by other means.
/// Other processes may hold it too, unknown to us, so a connection stays with the kernel.
pub(crate) fn inherited(fd: c_int) {
    if is_another_name(fd) {
        return;
    }
    let Some(socket) = enter(fd, 0) else { return };
    let Some(entry) = socket.entry() else { return };
    let listens = kernel::sockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 0 as c_int) == Ok(1);
    if listens {
        entry.flags.fetch_or(FLAG_LISTENER, Ordering::Relaxed);
        options::learn(fd, entry);
    } else if kernel::peer_address(fd).is_ok() {
        entry.flags.fetch_or(FLAG_CONNECTED, Ordering::Relaxed);
    }
    Socket::stay_host(entry, if listens { Reason::NotConnected } else { Reason::Inherited });
    pinning::adopt(fd, socket);
    if entry.state.load(Ordering::Acquire) == arena::STATE_PINNED {
        gather(fd, socket);
    }
}

/// Whether `fd` is another number of a socket that we know: made by a system call of the program's own.
fn is_another_name(fd: c_int) -> bool {
    let Ok(cookie) = kernel::cookie(fd) else { return false };
    let mut asked = 0;
    let known = (0..arena::highest() as c_int).filter(|&other| other != fd).find_map(|other| {
        let Descriptor::Socket(socket) = table::peek(other) else { return None };
        let found = match socket.entry()?.cookie.load(Ordering::Relaxed) {
            // Only a connection that has met its other end has been asked for it.
            0 if asked == MOST_GATHERED => return None,
            0 => {
                asked += 1;
                kernel::cookie(other).ok()?
            }
            noted => noted,
        };
        (found == cookie).then_some(socket)
    });
    known.is_some_and(|socket| {
        socket.refer();
        if !table::set_socket_if_unknown(fd, socket) {
            socket.unrefer();
            // Another thread was faster; or it is beyond the table.
            return !table::is_unknown(fd) && (fd as usize) < table::CAP;
        }
        if (0..=2).contains(&fd) {
            pin(fd, Reason::Stdio);
        }
        true
    })
}

/// Whether `fd`, which the table says is `socket`, is something else: the number was closed and given out again by system
/// calls of the program's own. Then the table forgets it, and what it is now is found out at the next call.
#[cold]
pub(crate) fn is_replaced(fd: c_int, socket: Socket) -> bool {
    let noted = socket.entry().map_or(0, |entry| entry.cookie.load(Ordering::Relaxed));
    let is_replaced = noted != 0
        && fork::has_own_descriptors()
        && !kernel::is_restricted()
        && kernel::cookie(fd) != Ok(noted)
        && table::begin_close_of(fd, socket);
    if is_replaced {
        table::set_host(fd);
        release(-1, Descriptor::Socket(socket));
        table::end_close(fd);
    }
    is_replaced
}

/// Other numbers of a socket that came with unread bytes: these are to be read by every one of its names.
fn gather(fd: c_int, socket: Socket) {
    let Ok(cookie) = kernel::cookie(fd) else { return };
    for other in (0..MOST_GATHERED).filter(|&other| other != fd) {
        if matches!(table::peek(other), Descriptor::Host) && kernel::cookie(other) == Ok(cookie) {
            socket.refer();
            if !table::set_socket(other, socket) {
                socket.unrefer();
            }
        }
    }
}

/// Numbers that are looked at for it.
const MOST_GATHERED: c_int = 1024;

/// Before the kernel closes `fd`. The caller goes on to close it.
pub(crate) fn closing(fd: c_int) {
    if matches!(table::peek(fd), Descriptor::Host) || !fork::has_own_descriptors() {
        return;
    }
    if let Some(found) = table::begin_close(fd) {
        release(fd, found);
        table::set_host(fd);
    }
}

/// After the kernel has closed `fd`: what the number is next may be made by a call that nobody sees.
pub(crate) fn closed(fd: c_int) {
    if table::is_known_host(fd) && fork::has_own_descriptors() {
        table::end_close(fd);
    }
}

/// Before the kernel closes every descriptor from `first` to `last` (both included).
pub(crate) fn closing_range(first: u32, last: u32) {
    if !fork::has_own_descriptors() {
        return;
    }
    for fd in first..arena::highest().min(last.saturating_add(1)) {
        closing(fd as c_int);
    }
}

/// Before `dup2(old, new)`, which closes `new`. Not called when `old == new`.
pub(crate) fn replacing(_old: c_int, new: c_int) {
    closing(new);
}

/// After `new` became another name for `old`'s open file description.
pub(crate) fn duplicated(old: c_int, new: c_int) {
    if !fork::has_own_descriptors() {
        // A vfork child that puts it in a standard place is about to execute a program on it.
        if (0..=2).contains(&new) {
            shared_with_child(old);
        }
        return;
    }
    match table::find(old) {
        Descriptor::Socket(socket) => {
            socket.refer();
            if !table::set_socket(new, socket) {
                // A name that we cannot follow: everything through the kernel.
                pin(old, Reason::AboveCap);
            } else if (0..=2).contains(&new) {
                // stdio's streams have it now, and call the kernel inside libc.
                pin(old, Reason::Stdio);
            }
        }
        Descriptor::Set(set) => {
            socket::refer_set(set.slot);
            if !table::set_set(new, set) {
                socket::unrefer_set(set.slot);
            }
        }
        Descriptor::Host if table::is_left_out(old) => table::leave_out(new),
        Descriptor::Host => table::set_host(new),
    }
}

/// `fd` goes back to the kernel for good, because of `reason`.
pub(crate) fn pin(fd: c_int, reason: Reason) {
    if let Some(socket) = table::socket(fd) {
        pinning::pin(fd, socket, reason);
    }
}

/// Before `exec`: every connection that survives it goes back to the kernel lane.
pub(crate) fn before_exec() {
    if !start::is_ready() {
        return;
    }
    // In a vfork child the table is the parent's, and the parent goes on.
    if !fork::is_own_process() {
        return before_spawn(|_| false);
    }
    let Some(arena) = arena::get() else { return };
    look_at_standard();
    let wait = Deadline::after(Some(OTHERS_LET_GO));
    loop {
        let mut unread = false;
        for (fd, socket) in surviving() {
            // What is unread is the new program's, unless another process goes on with the connection. Under a
            // standard number the program will use it.
            if fd <= 2 || socket.entry().is_some_and(|entry| fork::is_sole(arena, &entry.holders)) {
                pinning::hand_over(fd, socket);
                pinning::give_up_what_is_lost(fd, socket);
            } else {
                unread |= !pinning::share(fd, socket);
            }
        }
        // The parent that made this child for the connection may be about to close it.
        if !unread || wait.left() == Some(0) {
            break;
        }
        kernel::nap(1000);
    }
    wait_for_answers();
    let_go(arena);
}

/// What the program does not get the kernel closes, as when the process ends: others who hold it are not to count on us.
fn let_go(arena: &Arena) {
    let walk = Walk::begin();
    surviving().for_each(|(_, socket)| _ = walk.is_new(socket));
    for fd in 0..arena::highest() as c_int {
        match table::peek(fd) {
            Descriptor::Socket(socket) if walk.is_new(socket) => {
                let Some(entry) = socket.entry() else { continue };
                fork::unhold(&entry.holders);
                pinning::part(fd, socket);
                if fork::is_sole(arena, &entry.holders) {
                    // Whoever finds us dead frees the entry, and the program may not come.
                    hold_again(socket);
                }
            }
            Descriptor::Set(set) if !kernel::survives_exec(fd) => {
                let holders = &arena.set(set.slot).holders;
                fork::unhold(holders);
                if fork::is_sole(arena, holders) {
                    fork::hold(holders);
                }
            }
            _ => {}
        }
    }
}

/// The entry may be another socket's meanwhile.
fn hold_again(socket: Socket) {
    if let Some(entry) = socket.entry() {
        fork::hold(&entry.holders);
        if socket.entry().is_none() {
            fork::unhold(&entry.holders);
        }
    }
}

/// Writers that slept send again what was unread, before a program that cannot read rings looks for it.
fn wait_for_answers() {
    let until = Deadline::after(Some(OTHERS_LET_GO));
    for (_, socket) in surviving() {
        pinning::wait_for_answer(socket, until);
    }
}

/// Nanoseconds that other processes have to close a connection with bytes unread, or to read them.
const OTHERS_LET_GO: u64 = 50_000_000;

/// The connections that a program which is executed now gets.
fn surviving() -> impl Iterator<Item = (c_int, Socket)> {
    (0..arena::highest() as c_int).filter_map(|fd| match table::peek(fd) {
        Descriptor::Socket(socket) if kernel::survives_exec(fd) && is_the_same(fd, socket) => {
            Some((fd, socket))
        }
        _ => None,
    })
}

/// Whether `fd` is what the table says: in a vfork child it may be something else.
fn is_the_same(fd: c_int, socket: Socket) -> bool {
    fork::is_own_process()
        || socket.entry().is_some_and(|entry| match entry.cookie.load(Ordering::Relaxed) {
            // Not on a pipe: nothing is done with the descriptor.
            0 => true,
            cookie => kernel::cookie(fd) == Ok(cookie),
        })
}

/// A standard descriptor may have been inherited with bytes that nobody has asked for yet.
pub(crate) fn look_at_standard() {
    for fd in 0..=2 {
        table::find(fd);
    }
}

/// Before a child is made that starts a program, while this process goes on. `closes` knows what the child closes.
pub(crate) fn before_spawn(closes: impl Fn(c_int) -> bool) {
    if !start::is_ready() {
        return;
    }
    look_at_standard();
    for fd in 0..=2 {
        shared_with_child(fd);
    }
    for (fd, socket) in surviving().filter(|(fd, _)| *fd > 2 && !closes(*fd)) {
        pinning::share(fd, socket);
    }
    wait_for_answers();
}

/// Before a command is started, for which this process will wait. `alone`: until then nobody here uses a connection.
pub(crate) fn before_command(alone: bool) {
    before_spawn(|_| false);
    let Some(arena) = arena::get() else { return };
    for (fd, socket) in surviving() {
        let Some(entry) = socket.entry() else { continue };
        if alone && fork::is_sole(arena, &entry.holders) {
            pinning::hand_over(fd, socket);
        }
        pinning::keep(fd, socket);
    }
    wait_for_answers();
}

/// After it: what it left unread is this process's again.
pub(crate) fn after_command() {
    for (fd, socket) in surviving() {
        pinning::reclaim(fd, socket);
    }
}

/// `exec` returned, so it failed: the lanes may open again.
pub(crate) fn exec_failed() {
    if !start::is_ready() {
        return;
    }
    let own = fork::is_own_process();
    for fd in 0..arena::highest() as c_int {
        match table::peek(fd) {
            Descriptor::Socket(socket) => {
                if own {
                    hold_again(socket);
                }
                pinning::take_back(fd, socket);
            }
            Descriptor::Set(set) if own => {
                if let Some(arena) = arena::get() {
                    fork::hold(&arena.set(set.slot).holders);
                }
            }
            _ => {}
        }
    }
}

/// Before a child is spawned that gets `fd` under some number: both may use it from now on.
pub(crate) fn shared_with_child(fd: c_int) {
    if let Descriptor::Socket(socket) = table::peek(fd) {
        pinning::hand_over(fd, socket);
        pinning::wait_for_answer(socket, Deadline::after(Some(OTHERS_LET_GO)));
    }
}

/// Before connect(AF_UNSPEC): the connection ends, the socket goes on.
pub(crate) fn disconnecting(fd: c_int) {
    let Some(socket) = table::socket(fd) else { return };
    let Some(entry) = socket.entry() else { return };
    // What follows is a reset (tcp_disconnect in the kernel).
    entry.flags.fetch_or(arena::FLAG_LINGER_RESET, Ordering::Relaxed);
    end::leave(fd, socket, true);
    entry.readers.begin(socket.generation);
    entry.flags.fetch_and(FLAG_NONBLOCK, Ordering::AcqRel);
    entry.calls.store(0, Ordering::Relaxed);
    entry.bytes.store(0, Ordering::Relaxed);
    entry.reason.store(Reason::Undecided as u32, Ordering::Relaxed);
    let state = if config::host_only().is_some() { arena::STATE_HOST } else { arena::STATE_UNDECIDED };
    entry.state.store(state, Ordering::Release);
}

/// Before `fd` is sent to another process: it may not run on sockshim.
pub(crate) fn sent_away(fd: c_int) {
    if let Descriptor::Socket(socket) = table::find(fd) {
        pinning::hand_over(fd, socket);
        pinning::give_up_what_is_lost(fd, socket);
        pinning::pin(fd, socket, Reason::HandedOver);
        pinning::wait_for_answer(socket, Deadline::after(Some(OTHERS_LET_GO)));
    }
}

/// Before the program installs a seccomp filter: all connections go back to the kernel for good.
pub(crate) fn before_seccomp() {
    // Afterwards nobody can be asked what an inherited number is.
    const INHERITED: u32 = 256;
    for fd in 0..arena::highest().max(INHERITED) as c_int {
        if let Descriptor::Socket(_) = table::find(fd) {
            pin(fd, Reason::Seccomp);
        }
    }
}

/// The process has an io_uring, whose doings cannot be seen: all connections are the kernel's from now on.
pub(crate) fn ring_made() {
    if !fork::is_own_process() || !config::ring_made() {
        return;
    }
    for fd in 0..arena::highest() as c_int {
        if let Descriptor::Socket(_) = table::peek(fd) {
            pin(fd, Reason::IoUring);
        }
    }
}

/// Before a connection meets its other end: the process may have an io_uring that nobody saw being made.
pub(crate) fn look_for_ring() {
    if config::host_only().is_none() && rings::is_there() {
        ring_made();
    }
}

/// Moves up to `buf.len()` unread ring bytes of `fd` out of the ring, for stdio to serve first.
pub(crate) fn take_unread(fd: c_int, buf: &mut [u8]) -> usize {
    table::socket(fd).map_or(0, |socket| pinning::take_unread(fd, socket, buf))
}

/// A new TCP socket at `fd`.
fn enter(fd: c_int, flags: u32) -> Option<Socket> {
    if !start::is_ready() || !fork::has_own_descriptors() {
        return None;
    }
    forget(fd);
    table::set_host(fd);
    if fd as usize >= table::CAP {
        return None;
    }
    let Some(socket) = Socket::create(flags) else {
        table::leave_out(fd);
        return None;
    };
    if let Some(entry) = socket.entry() {
        entry.number.store(fd as u32 + 1, Ordering::Relaxed);
        if kernel::is_restricted() {
            Socket::stay_host(entry, Reason::Seccomp);
        } else if let Some(reason) = config::host_only() {
            Socket::stay_host(entry, reason);
        }
    }
    table::set_socket(fd, socket);
    Some(socket)
}

/// What the table still believes of a number that the kernel has given out anew: it was closed unseen.
fn forget(fd: c_int) {
    match table::peek(fd) {
        Descriptor::Host => {}
        stale => {
            table::set_host(fd);
            release(-1, stale);
        }
    }
}

/// One descriptor less. `fd` is still open, or -1 when the kernel has closed it already.
fn release(fd: c_int, descriptor: Descriptor) {
    let Some(arena) = arena::get() else { return };
    match descriptor {
        Descriptor::Host => {}
        Descriptor::Socket(socket) => {
            let Some(entry) = socket.entry() else { return };
            let leaves = socket.unrefer();
            if leaves {
                fork::unhold(&entry.holders);
            }
            let last = leaves && fork::is_last(arena, &entry.holders);
            if !last {
                registrations::forget_number(arena, entry, fd);
            }
            if leaves {
                if last {
                    trace::closing(fd, entry);
                }
                end::leave(fd, socket, last);
                // One that is about to end uses its entry yet: the next who looks frees it.
                if last && fork::is_sole(arena, &entry.holders) {
                    registrations::forget_socket(arena, entry);
                    arena.free_socket(socket.slot, socket.generation);
                }
            } else if fd >= 0 && entry.number.load(Ordering::Relaxed) == fd as u32 + 1 {
                // It goes on under another number, by which `ss` cannot find its addresses.
                addresses::learn(fd, entry);
                entry.number.store(0, Ordering::Relaxed);
            }
        }
        Descriptor::Set(set) => {
            let entry = arena.set(set.slot);
            let current = entry.generation.load(Ordering::Acquire) == set.generation;
            if current && socket::unrefer_set(set.slot) {
                fork::unhold(&entry.holders);
                if fork::is_sole(arena, &entry.holders) {
                    registrations::free_set(arena, set.slot, set.generation);
                }
            }
        }
    }
}
