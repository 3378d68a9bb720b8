//! Whether the process has an io_uring that nobody here saw being made: by a system call of the program's own, or by a
//! liburing that is linked into it.

use super::descriptor_table::{self, Descriptor};
use super::socket_table;
use super::stale_files::Names;
use crate::sys::folder::PathBuffer;
use crate::sys::{filter, kernel};
use core::ffi::c_int;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, Ordering};

/// Meetings for which the last look at the descriptors still counts.
static REST: AtomicU32 = AtomicU32::new(0);

/// Numbers that are looked at under a filter, at least.
const FIRST: u32 = 64;

/// Looks through the process's descriptors; but not so often that it would cost more than a part of the meetings
/// before which it is called. False also where /proc is not to be had.
pub(crate) fn is_there() -> bool {
    let rests = REST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rest| rest.checked_sub(1)).is_ok();
    if rests {
        return false;
    }
    if filter::is_inherited() {
        // Without getdents and readlink, among the numbers that come first.
        let most = socket_table::highest().max(FIRST);
        REST.store(most / 10, Ordering::Relaxed);
        return (0..most as c_int).any(|number| {
            matches!(descriptor_table::peek(number), Descriptor::Host) && filter::is_ring(number)
        });
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let Ok(folder) = kernel::open(c"/proc/self/fd", flags, 0) else { return false };
    // To look at a link takes about 1 us, to come past a socket of ours a tenth of that, a meeting 50 us.
    let (mut cost, mut found) = (0_u32, false);
    let mut buffer = [0u64; 64];
    while !found && let Ok(length @ 1..) = kernel::directory_entries(folder.as_raw(), &mut buffer) {
        // SAFETY: every byte of the words is initialised, and the kernel wrote no further.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
        for number in Names(bytes).filter_map(|name| name.parse::<c_int>().ok()) {
            let is_unknown = matches!(descriptor_table::peek(number), Descriptor::Host);
            cost += if is_unknown { 10 } else { 1 };
            found = found || is_unknown && is_ring(folder.as_raw(), number);
        }
    }
    REST.store(cost / 100, Ordering::Relaxed);
    found
}

fn is_ring(folder: c_int, number: c_int) -> bool {
    const TARGET: &[u8] = b"anon_inode:[io_uring]";
    let mut name = PathBuffer::new();
    let mut target = [0; 32];
    write!(name, "{number}").is_ok()
        && kernel::link_target(folder, name.as_c_str(), &mut target)
            .is_ok_and(|length| target[..length] == *TARGET)
}
