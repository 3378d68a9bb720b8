//! Back to the kernel, or on to another program, with what is unread.
//!
//! Who calls: `lifecycle::handed_on`, before exec, spawn, a command and SCM_RIGHTS. The states of a connection at the end that hands
//! its descriptor on, each by the words that say so; `handed` is the reader's word in the segment, whose steps are in
//! `sockshim_ring::handed`:
//!
//! | state | `Entry::state` | `handed` | `Local::handed_from` | entered by | left to |
//! |---|---|---|---|---|---|
//! | on a pipe | PIPE | NOT | 0 | meeting, [`pin::take_back`] | pinned, shared, announced |
//! | pinned | PINNED | NOT | 0 | [`pin::pin`]: a reason of the program's | on a pipe, if the reason ends ([`pin::resume`]) |
//! | shared | PINNED | NOT | 0 | [`pin::share`]: nothing is unread, or others who run on sockshim read it | on a pipe, if exec fails |
//! | announced | PINNED | SOON | 0 | [`pin::hand_over`] | shared, put down, lost |
//! | put down | PINNED | ON | position + 1 | [`file::put_down`]: what is unread lies in a file | answered, taken up, withdrawn |
//! | answered | PINNED | NOT or AWAY | position + 1 | the writer has sent it again ([`give_back`]) | withdrawn |
//! | withdrawn | PIPE or PINNED | NOT | 0 | [`file::withdraw`]: exec failed, or the child has ended | - |
//! | lost | broken | any | any | [`pin::give_up_what_is_lost`]: it cannot be put down, and this process does not go on | - |
//!
//! The new owner, if it runs on sockshim, takes the file up ([`file::take_up`]): PINNED, with the file as its segment, whose other end
//! has left. Who gets the bytes, the new owner, the writer or the withdrawer, is decided by one compare-and-swap on the reading
//! position in the file.

pub(crate) mod file;
pub(crate) mod give_back;
pub(crate) mod pin;
