//! Before and after a descriptor is closed.

use crate::pipe::meeting::descriptor;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::{family, socket_table};
use core::ffi::c_int;

/// Before the kernel closes `fd`. The caller goes on to close it. Whether it was a connection or a set of this process.
pub(crate) fn closing(fd: c_int) -> bool {
    !matches!(descriptor_table::peek(fd), Descriptor::Host) && family::has_own_descriptors() && let_go(fd)
}

fn let_go(fd: c_int) -> bool {
    let Some(found) = descriptor_table::begin_close(fd) else { return false };
    descriptor::release(fd, found);
    descriptor_table::set_host(fd);
    true
}

/// After the kernel has closed `fd`, which `was_ours`, as [`closing`] has said: what the number is next may be made by a call that
/// nobody sees.
pub(crate) fn closed(fd: c_int, was_ours: bool) {
    if descriptor_table::is_known_host(fd) && (was_ours || family::has_own_descriptors()) {
        descriptor_table::end_close(fd);
    }
}

/// Before the kernel closes every descriptor from `first` to `last` (both included).
pub(crate) fn closing_range(first: u32, last: u32) {
    if !family::has_own_descriptors() {
        return;
    }
    for fd in first..socket_table::highest().min(last.saturating_add(1)) {
        let_go(fd as c_int);
    }
}

/// Before `dup2(old, new)`, which closes `new`. Not called when `old == new`.
pub(crate) fn replacing(_old: c_int, new: c_int) {
    closing(new);
}
