//! Before connections are another process image's, or another process's: exec, spawn, commands, SCM_RIGHTS, stdio.

use crate::pipe::handoff::pin;
use crate::pipe::meeting::descriptor;
use crate::pipe::transfer::io;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::reason::Reason;
use crate::state::socket::Walk;
use crate::state::socket_table::{self, SocketTable};
use crate::state::{Socket, family, phase};
use crate::sys::deadline::Deadline;
use crate::sys::kernel;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// Before `exec`: every connection that survives it goes back to the kernel lane.
pub(crate) fn before_exec() {
    if !phase::is_ready() {
        return;
    }
    // In a vfork child the table is the parent's, and the parent goes on.
    if !family::is_own_process() {
        return before_spawn(|_| false);
    }
    let Some(socket_table) = socket_table::get() else { return };
    look_at_standard();
    let wait = Deadline::after(Some(OTHERS_LET_GO));
    loop {
        let mut unread = false;
        for (fd, socket) in surviving() {
            // What is unread is the new program's, unless another process goes on with the connection. Under a
            // standard number the program will use it.
            if fd <= 2 || socket.entry().is_some_and(|entry| family::is_sole(socket_table, &entry.holders)) {
                pin::hand_over(fd, socket);
                pin::give_up_what_is_lost(fd, socket);
            } else {
                unread |= !pin::share(fd, socket);
            }
        }
        // The parent that made this child for the connection may be about to close it.
        if !unread || wait.left() == Some(0) {
            break;
        }
        kernel::sleep_us(1000);
    }
    wait_for_answers();
    let_go(socket_table);
}

/// What the program does not get the kernel closes, as when the process ends: others who hold it are not to count on us.
fn let_go(socket_table: &SocketTable) {
    let walk = Walk::begin();
    surviving().for_each(|(_, socket)| _ = walk.is_new(socket));
    for fd in 0..socket_table::highest() as c_int {
        match descriptor_table::peek(fd) {
            Descriptor::Socket(socket) if walk.is_new(socket) => {
                let Some(entry) = socket.entry() else { continue };
                family::unhold(&entry.holders);
                pin::part(fd, socket);
                if family::is_sole(socket_table, &entry.holders) {
                    // Whoever finds us dead frees the entry, and the program may not come.
                    hold_again(socket);
                }
            }
            Descriptor::Set(set) if !kernel::survives_exec(fd) => {
                let holders = &socket_table.set(set.slot).holders;
                family::unhold(holders);
                if family::is_sole(socket_table, holders) {
                    family::hold(holders);
                }
            }
            _ => {}
        }
    }
}

/// The entry may be another socket's meanwhile.
fn hold_again(socket: Socket) {
    if let Some(entry) = socket.entry() {
        family::hold(&entry.holders);
        if socket.entry().is_none() {
            family::unhold(&entry.holders);
        }
    }
}

/// Writers that slept send again what was unread, before a program that cannot read rings looks for it.
fn wait_for_answers() {
    let until = Deadline::after(Some(OTHERS_LET_GO));
    for (_, socket) in surviving() {
        pin::wait_for_answer(socket, until);
    }
}

/// Nanoseconds that other processes have to close a connection with bytes unread, or to read them.
const OTHERS_LET_GO: u64 = 50_000_000;

/// The connections that a program which is executed now gets.
fn surviving() -> impl Iterator<Item = (c_int, Socket)> {
    (0..socket_table::highest() as c_int).filter_map(|fd| match descriptor_table::peek(fd) {
        Descriptor::Socket(socket) if kernel::survives_exec(fd) && is_the_same(fd, socket) => {
            Some((fd, socket))
        }
        _ => None,
    })
}

/// Whether `fd` is what the table says: in a vfork child it may be something else.
fn is_the_same(fd: c_int, socket: Socket) -> bool {
    family::is_own_process()
        || socket.entry().is_some_and(|entry| match entry.cookie.load(Ordering::Relaxed) {
            // Not on a pipe: nothing is done with the descriptor.
            0 => true,
            cookie => kernel::cookie(fd) == Ok(cookie),
        })
}

/// A standard descriptor may have been inherited with bytes that nobody has asked for yet.
pub(crate) fn look_at_standard() {
    for fd in 0..=2 {
        descriptor::find(fd);
    }
}

/// Before a child is made that starts a program, while this process goes on. `closes` knows what the child closes.
pub(crate) fn before_spawn(closes: impl Fn(c_int) -> bool) {
    if !phase::is_ready() {
        return;
    }
    look_at_standard();
    for fd in 0..=2 {
        shared_with_child(fd);
    }
    for (fd, socket) in surviving().filter(|(fd, _)| *fd > 2 && !closes(*fd)) {
        pin::share(fd, socket);
    }
    wait_for_answers();
}

/// Before a command is started, for which this process will wait. `alone`: until then nobody here uses a connection.
pub(crate) fn before_command(alone: bool) {
    before_spawn(|_| false);
    let Some(socket_table) = socket_table::get() else { return };
    for (fd, socket) in surviving() {
        let Some(entry) = socket.entry() else { continue };
        if alone && family::is_sole(socket_table, &entry.holders) {
            pin::hand_over(fd, socket);
        }
        pin::keep(fd, socket);
    }
    wait_for_answers();
}

/// After it: what it left unread is this process's again.
pub(crate) fn after_command() {
    for (fd, socket) in surviving() {
        pin::reclaim(fd, socket);
    }
}

/// `exec` returned, so it failed: the lanes may open again.
pub(crate) fn exec_failed() {
    if !phase::is_ready() {
        return;
    }
    let own = family::is_own_process();
    for fd in 0..socket_table::highest() as c_int {
        match descriptor_table::peek(fd) {
            Descriptor::Socket(socket) => {
                if own {
                    hold_again(socket);
                }
                pin::take_back(fd, socket);
            }
            Descriptor::Set(set) if own => {
                if let Some(socket_table) = socket_table::get() {
                    family::hold(&socket_table.set(set.slot).holders);
                }
            }
            _ => {}
        }
    }
}

/// Before a child is spawned that gets `fd` under some number: both may use it from now on.
pub(crate) fn shared_with_child(fd: c_int) {
    if let Descriptor::Socket(socket) = descriptor_table::peek(fd) {
        pin::hand_over(fd, socket);
        pin::wait_for_answer(socket, Deadline::after(Some(OTHERS_LET_GO)));
    }
}

/// Before `fd` is sent to another process: it may not run on sockshim.
pub(crate) fn sent_away(fd: c_int) {
    if let Descriptor::Socket(socket) = descriptor::find(fd) {
        pin::hand_over(fd, socket);
        pin::give_up_what_is_lost(fd, socket);
        pin::pin(fd, socket, Reason::HandedOver);
        pin::wait_for_answer(socket, Deadline::after(Some(OTHERS_LET_GO)));
    }
}

/// Moves up to `buf.len()` unread ring bytes of `fd` out of the ring, for stdio to serve first.
pub(crate) fn take_unread(fd: c_int, buf: &mut [u8]) -> usize {
    descriptor::socket(fd).map_or(0, |socket| io::take_unread(fd, socket, buf))
}
