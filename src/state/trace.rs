//! The event log (docs/trace.md): one line for each phase of a socket's life.
//!
//! No allocation, no libc: a line is made in a fixed buffer and appended by system calls. The file is opened for
//! each line and closed again: a descriptor of ours would take a number from the program, and a program
//! that closes what it does not know would have us write into a file of its own.

use super::socket_table::{Entry, STATE_HOST};
use super::{addresses, config};
use crate::state::flags::SocketFlags;
use crate::sys::address::Address;
use crate::sys::folder::PathBuffer;
use crate::sys::kernel;
use crate::sys::scratch::Scratch;
use core::ffi::c_int;
use core::fmt::{self, Display, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use once_cell::race::OnceBox;

/// Whether anything is written at all.
static IS_ON: AtomicBool = AtomicBool::new(false);
static FILE: OnceBox<PathBuffer> = OnceBox::new();

/// Bits of [`Entry::logged`]: the connect line is written; a transfer line is written, and said pipe.
const CONNECTED: u32 = 1;
const MOVED: u32 = 2;
const ON_PIPE: u32 = 4;
/// Used by [`super::log`].
pub(super) const LOGGED: u32 = 8;

/// Reads the environment; called once.
pub(crate) fn start() {
    let Some(name) = config::trace().and_then(|name| name.to_str().ok()).filter(|name| !name.is_empty())
    else {
        return;
    };
    let mut path = PathBuffer::new();
    let Some(mut folder) = Scratch::take() else { return };
    let folder = folder.of::<u8>();
    let made = match kernel::working_directory(folder) {
        // The program may change its working directory.
        Ok(length) if !name.starts_with('/') => core::str::from_utf8(&folder[..length - 1])
            .map_err(|_| fmt::Error)
            .and_then(|folder| write!(path, "{folder}/{name}")),
        _ => path.write_str(name),
    };
    if made.is_ok() && FILE.set(Box::new(path)).is_ok() {
        IS_ON.store(true, Ordering::Release);
    }
}

/// `socket` has made `fd`.
pub(crate) fn created(fd: c_int) {
    if IS_ON.load(Ordering::Relaxed) {
        append(format_args!("create {} {fd}\n", kernel::getpid()));
    }
}

/// Something may have changed: reports what has not been reported. With `fd` -1 under the number that the entry
/// has.
#[inline]
pub(crate) fn note(fd: c_int, entry: &Entry) {
    if IS_ON.load(Ordering::Relaxed) {
        report(fd, entry);
    }
}

/// [`note`], after a call that the kernel alone served.
#[inline]
pub(crate) fn after(fd: c_int, entry: &Entry, result: isize) -> isize {
    if IS_ON.load(Ordering::Relaxed) && result > 0 {
        report(fd, entry);
    }
    result
}

/// Before the last descriptor of a socket goes away; `fd` is -1 when the kernel has closed it already.
pub(crate) fn closing(fd: c_int, entry: &Entry) {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    if fd >= 0 {
        report(fd, entry);
    }
    if entry.logged.load(Ordering::Relaxed) & CONNECTED != 0 {
        let (sent, received) = totals(fd, entry);
        append(format_args!(
            "disconnect {} {} {} {sent} {received}\n",
            kernel::getpid(),
            number(fd, entry),
            path(entry)
        ));
    }
}

#[cold]
fn report(fd: c_int, entry: &Entry) {
    let flags = entry.flags.load(Ordering::Relaxed);
    let fd = number(fd, entry);
    if fd < 0 || !flags.intersects(SocketFlags::CONNECTED) || flags.intersects(SocketFlags::LISTENER) {
        return;
    }
    if entry.logged.load(Ordering::Relaxed) & CONNECTED == 0 {
        // A connect that is still under way has no peer.
        let Some([local, peer]) = addresses::learn(fd, entry) else { return };
        if entry.logged.fetch_or(CONNECTED, Ordering::AcqRel) & CONNECTED == 0 {
            let (local, peer, pid) = (Name(&local), Name(&peer), kernel::getpid());
            append(format_args!("connect {pid} {fd} {local} {peer} {}\n", path(entry)));
        }
    }
    let reported = entry.logged.load(Ordering::Relaxed);
    let on_pipe = entry.is_on_pipe();
    let new = reported & !ON_PIPE | MOVED | if on_pipe { ON_PIPE } else { 0 };
    if new == reported {
        return;
    }
    let (sent, received) = totals(fd, entry);
    if sent + received > 0
        && entry.logged.compare_exchange(reported, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    {
        append(format_args!("transfer {} {fd} {sent} {received} {}\n", kernel::getpid(), path(entry)));
    }
}

fn number(fd: c_int, entry: &Entry) -> c_int {
    if fd >= 0 { fd } else { entry.number.load(Ordering::Relaxed) as c_int - 1 }
}

fn path(entry: &Entry) -> &'static str {
    if entry.is_on_pipe() { "pipe" } else { "host" }
}

/// Bytes sent and received so far. On the host path nobody counts but the kernel.
fn totals(fd: c_int, entry: &Entry) -> (u64, u64) {
    let counters = &entry.counters;
    let sum =
        |a: &AtomicU64, b: &AtomicU64| a.load(Ordering::Relaxed).wrapping_add(b.load(Ordering::Relaxed));
    if entry.state.load(Ordering::Relaxed) == STATE_HOST
        && fd >= 0
        && let (Ok(position), Ok(waiting)) = (kernel::tcp_position(fd), kernel::queued(fd))
    {
        return (position.written, position.data_received().saturating_sub(waiting as u64));
    }
    (sum(&counters.sent, &counters.kernel_sent), sum(&counters.received, &counters.kernel_received))
}

fn append(line: fmt::Arguments<'_>) {
    let mut text = PathBuffer::new();
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY;
    if text.write_fmt(line).is_ok()
        && let Some(file) = FILE.get()
        && let Ok(fd) = kernel::open(file.as_c_str(), flags, 0o600)
    {
        let _ = kernel::write(fd.as_raw(), text.as_str().as_bytes());
    }
}

/// An address as the log writes it.
pub(super) struct Name<'a>(pub(super) &'a Address);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.parts() {
            Some(address) => address.fmt(f),
            None => f.write_str("?"),
        }
    }
}
