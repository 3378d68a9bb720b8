//! After a descriptor has got a second number.

use super::handed_on::shared_with_child;
use crate::pipe::meeting::descriptor;
use crate::state::descriptor_table::{self, Descriptor};
use crate::state::reason::Reason;
use crate::state::{family, socket};
use core::ffi::c_int;

/// After `new` became another name for `old`'s open file description.
pub(crate) fn duplicated(old: c_int, new: c_int) {
    if !family::has_own_descriptors() {
        // A vfork child that puts it in a standard place is about to execute a program on it.
        if (0..=2).contains(&new) {
            shared_with_child(old);
        }
        return;
    }
    match descriptor::find(old) {
        Descriptor::Socket(socket) => {
            socket.refer();
            if !descriptor_table::set_socket(new, socket) {
                // A name that we cannot follow: everything through the kernel.
                descriptor::pin(old, Reason::AboveCap);
            } else if (0..=2).contains(&new) {
                // stdio's streams have it now, and call the kernel inside libc.
                descriptor::pin(old, Reason::Stdio);
            }
        }
        Descriptor::Set(set) => {
            socket::refer_set(set.slot);
            if !descriptor_table::set_set(new, set) {
                socket::unrefer_set(set.slot);
            }
        }
        Descriptor::Host if descriptor_table::is_left_out(old) => descriptor_table::leave_out(new),
        Descriptor::Host => descriptor_table::set_host(new),
    }
}
