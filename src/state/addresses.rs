//! The names of both ends of a connection, as its entry keeps them.

use super::socket_table::Entry;
use crate::sys::address::Address;
use crate::sys::kernel;
use core::ffi::c_int;

/// Keeps the names of both ends: getpeername fails after a reset.
pub(crate) fn keep(entry: &Entry, local: &Address, peer: &Address) {
    local.store(&entry.local);
    peer.store(&entry.peer);
}

/// The names of both ends, asked for if they are not kept yet; `None` when it is not connected.
pub(crate) fn learn(fd: c_int, entry: &Entry) -> Option<[Address; 2]> {
    if let Some(kept) = kept(entry) {
        return Some(kept);
    }
    let (local, peer) = (kernel::local_address(fd).ok()?, kernel::peer_address(fd).ok()?);
    keep(entry, &local, &peer);
    Some([local, peer])
}

fn kept(entry: &Entry) -> Option<[Address; 2]> {
    let kept = [&entry.local, &entry.peer].map(Address::load);
    kept.iter().all(|address| address.parts().is_some()).then_some(kept)
}
