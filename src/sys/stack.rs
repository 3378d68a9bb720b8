//! Where the stack of a thread ends.

use super::{kernel, thread};
use core::ops::Range;

/// The stack that the thread got from the kernel or from the C library, if `here` lies on it. A stack that the program has
/// made for threads of its own (makecontext(3)), or for signal handlers, is none of these. `None` also when that cannot be
/// found out.
#[cold]
pub(crate) fn own(here: u64) -> Option<Range<u64>> {
    if kernel::is_restricted() {
        return None;
    }
    let fd = kernel::open(c"/proc/self/maps", libc::O_RDONLY, 0).ok()?;
    let mut lines = Lines::default();
    let mut text = [0u8; 512];
    let found = loop {
        match kernel::read_file(fd.as_raw(), text.as_mut_ptr(), text.len(), None) {
            Ok(length @ 1..) => {
                let found = text.iter().take(length).find_map(|byte| lines.next(*byte, here));
                if found.is_some() {
                    break found;
                }
            }
            _ => break None,
        }
    };
    let (range, is_first) = found?;
    if kernel::gettid() == kernel::getpid() {
        return is_first.then_some(range);
    }
    // A C library puts what it knows of another thread at the upper end of the stack that it has made for it.
    let top = thread::pointer();
    (range.contains(&top) && here < top).then_some(range.start..top)
}

/// Reads /proc/self/maps byte by byte (proc_pid_maps(5)).
#[derive(Default)]
struct Lines {
    addresses: [u64; 2],
    /// Which of them is read; 2: the rest of the line.
    field: usize,
    /// The last bytes of the line.
    tail: u64,
}

impl Lines {
    /// At the end of the line about the mapping in which `here` is: where that is, and whether it is the first thread's stack.
    fn next(&mut self, byte: u8, here: u64) -> Option<(Range<u64>, bool)> {
        match (byte, self.field) {
            (b'\n', _) => {
                let line = core::mem::take(self);
                let range = line.addresses[0]..line.addresses[1];
                let is_first = line.tail == u64::from_be_bytes(*b" [stack]");
                return range.contains(&here).then_some((range, is_first));
            }
            (b'-', 0) | (b' ', 1) => self.field += 1,
            (_, field @ (0 | 1)) => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.addresses[field] = self.addresses[field] << 4 | u64::from(digit);
            }
            _ => self.tail = self.tail << 8 | u64::from(byte),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_its_own_stack() {
        let own = |here: u64| {
            let own = own(here).expect("it is on it");
            assert!(own.contains(&here) && !own.contains(&(own.end + 1)));
            own
        };
        let here = kernel::stack_pointer();
        let there = std::thread::spawn(move || own(kernel::stack_pointer())).join().expect("no panic");
        assert!(own(here).end <= there.start || own(here).start >= there.end);
    }

    #[test]
    fn other_memory_is_no_stack() {
        let heap = vec![0u8; 1 << 20];
        assert_eq!(own(heap.as_ptr().expose_provenance() as u64), None);
        assert_eq!(own(8), None);
    }

    #[test]
    fn a_line_is_read_whatever_it_ends_with() {
        let mut lines = Lines::default();
        let text = "1000-2000 rw-p 0 00:00 0 /a-b c\n7ff0-8ff0 rw-p 0 00:00 0     [stack]\n";
        let found: Vec<_> = text.bytes().filter_map(|byte| lines.next(byte, 0x7fff)).collect();
        assert_eq!(found, [(0x7ff0..0x8ff0, true)]);
    }
}
