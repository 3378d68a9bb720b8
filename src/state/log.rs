//! `SOCKSHIM_LOG=1`: one line on standard error for each connection that stays with the kernel, and why.

use super::descriptor_table::{self, Descriptor};
use super::reason::{self, Reason};
use super::socket_table::{Entry, STATE_HOST, STATE_PINNED};
use super::trace::{LOGGED, Name};
use super::{addresses, config};
use crate::state::flags::SocketFlags;
use crate::sys::folder::PathBuffer;
use crate::sys::kernel;
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Reads the environment; called once.
pub(crate) fn start() {
    if config::log() {
        IS_ON.store(true, Ordering::Relaxed);
    }
}

/// A socket was given to the kernel for good, or was connected after that.
#[inline]
pub(crate) fn stays_host(entry: &Entry) {
    if IS_ON.load(Ordering::Relaxed) {
        say(entry);
    }
}

#[cold]
fn say(entry: &Entry) {
    let state = entry.state.load(Ordering::Relaxed);
    let reason = entry.reason.load(Ordering::Relaxed);
    if !matches!(state, STATE_HOST | STATE_PINNED)
        || !entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::CONNECTED)
        || reason == Reason::NotConnected as u32
        || reason == Reason::NotTcp as u32
        || entry.logged.fetch_or(LOGGED, Ordering::Relaxed) & LOGGED != 0
    {
        return;
    }
    // A program may have closed its standard error, and a connection may have its number.
    if matches!(descriptor_table::peek(2), Descriptor::Socket(_)) {
        return;
    }
    let fd = entry.number.load(Ordering::Relaxed) as c_int - 1;
    let mut line = PathBuffer::new();
    let pid = kernel::getpid();
    let _ = write!(line, "sockshim: process {pid}, descriptor {fd}");
    if let Some([local, peer]) = addresses::learn(fd, entry) {
        let _ = write!(line, ", {} to {}", Name(&local), Name(&peer));
    }
    let text = reason::text(reason);
    let _ = writeln!(line, " stays with the kernel: {}", text.to_str().unwrap_or(""));
    let _ = kernel::write(2, line.as_str().as_bytes());
}
