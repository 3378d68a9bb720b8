//! The descriptor table: private to the process, one word per number, touched on use, capped in size.
//!
//! It lies in zeroed static memory, so it is there before our constructor ran and after the last destructor.

use super::socket::Socket;
use super::socket_table;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering};

/// Descriptors from here on stay with the kernel: RLIMIT_NOFILE can be 1e9, a table cannot.
pub(crate) const CAP: usize = 1 << 16;

/// | word | meaning |
/// |---|---|
/// | 0 | never seen: look once |
/// | 1 | not ours: the kernel's |
/// | 5 | the same, of a TCP socket for which the socket table had no room |
/// | generation << 32 \| slot << 2 \| 2 | a TCP socket |
/// | generation << 32 \| slot << 2 \| 3 | an epoll set |
static WORDS: [AtomicU64; CAP] = [const { AtomicU64::new(UNKNOWN) }; CAP];

const UNKNOWN: u64 = 0;
const HOST: u64 = 1;
const LEFT_OUT: u64 = HOST | 1 << 2;
const SOCKET: u64 = 2;
const SET: u64 = 3;
/// Bit of a word: some thread is closing the number.
const CLOSING: u64 = 1 << 31;

/// An epoll set of the socket table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptor {
    Host,
    Socket(Socket),
    Set(Set),
}

/// One look-up; `None`: the number was never seen. Everything that is not ours, and every number out of range, is the kernel's.
#[inline]
pub(crate) fn known(fd: c_int) -> Option<Descriptor> {
    let Some(cell) = WORDS.get(fd as usize) else { return Some(Descriptor::Host) };
    let word = cell.load(Ordering::Relaxed);
    if word == UNKNOWN { None } else { Some(decode(word)) }
}

/// Whether `fd` is known to be none of our business: what a call asks first, in as few instructions as can be.
#[inline]
pub(crate) fn is_host(fd: c_int) -> bool {
    WORDS.get(fd as usize).is_none_or(|cell| cell.load(Ordering::Relaxed) == HOST)
}

/// What the table says now; what was never seen is the kernel's.
pub(crate) fn peek(fd: c_int) -> Descriptor {
    match WORDS.get(fd as usize) {
        Some(cell) => decode(cell.load(Ordering::Acquire)),
        None => Descriptor::Host,
    }
}

#[inline]
fn decode(word: u64) -> Descriptor {
    let slot = (word & !CLOSING) as u32 >> 2;
    let generation = (word >> 32) as u32;
    match word & 3 {
        SOCKET => Descriptor::Socket(Socket { slot, generation }),
        SET => Descriptor::Set(Set { slot, generation }),
        _ => Descriptor::Host,
    }
}

/// `fd` is the kernel's now.
#[inline]
pub(crate) fn set_host(fd: c_int) {
    if let Some(cell) = WORDS.get(fd as usize) {
        cell.store(HOST, Ordering::Release);
    }
}

/// The same, unless another thread knows better by now.
pub(crate) fn set_host_if_unknown(fd: c_int) {
    if let Some(cell) = WORDS.get(fd as usize) {
        let _ = cell.compare_exchange(UNKNOWN, HOST, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// `fd` is the kernel's now, because the socket table is full.
pub(crate) fn leave_out(fd: c_int) {
    if let Some(cell) = WORDS.get(fd as usize) {
        cell.store(LEFT_OUT, Ordering::Release);
    }
}

/// Whether `fd` was left out, as far as its closings were seen.
pub(crate) fn is_left_out(fd: c_int) -> bool {
    WORDS.get(fd as usize).is_some_and(|cell| cell.load(Ordering::Relaxed) == LEFT_OUT)
}

/// Takes the word of a number that is about to be closed, once; calls that come until [`set_host`] still find
/// the socket, so that none of them meets doorbells in the kernel's queue.
pub(crate) fn begin_close(fd: c_int) -> Option<Descriptor> {
    let cell = WORDS.get(fd as usize)?;
    let word = cell.load(Ordering::Acquire);
    if word & 2 == 0 || word & CLOSING != 0 {
        return None;
    }
    let closing = word | CLOSING;
    cell.compare_exchange(word, closing, Ordering::AcqRel, Ordering::Relaxed).ok()?;
    Some(decode(word))
}

/// The same if the word is that socket's.
pub(crate) fn begin_close_of(fd: c_int, socket: Socket) -> bool {
    let Some(cell) = WORDS.get(fd as usize) else { return false };
    let word = word_of(socket);
    cell.compare_exchange(word, word | CLOSING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// `fd` is closed, and is looked at when it is used next; unless somebody has it already.
pub(crate) fn end_close(fd: c_int) {
    if let Some(cell) = WORDS.get(fd as usize) {
        let _ = cell.compare_exchange(HOST, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// `fd` is looked at when it is used next.
pub(crate) fn look_again(fd: c_int) {
    if let Some(cell) = WORDS.get(fd as usize) {
        cell.store(UNKNOWN, Ordering::Release);
    }
}

/// `fd` names this socket now; false above the cap.
pub(crate) fn set_socket(fd: c_int, socket: Socket) -> bool {
    put(fd, word_of(socket))
}

const fn word_of(socket: Socket) -> u64 {
    (socket.generation as u64) << 32 | (socket.slot as u64) << 2 | SOCKET
}

/// The same for a number that was never seen, if nobody has been faster.
pub(crate) fn set_socket_if_unknown(fd: c_int, socket: Socket) -> bool {
    WORDS.get(fd as usize).is_some_and(|cell| {
        let set = cell.compare_exchange(UNKNOWN, word_of(socket), Ordering::AcqRel, Ordering::Relaxed);
        set.is_ok() && {
            socket_table::note_highest(fd as u32);
            true
        }
    })
}

/// Whether nobody knows yet what `fd` is.
pub(crate) fn is_unknown(fd: c_int) -> bool {
    WORDS.get(fd as usize).is_some_and(|cell| cell.load(Ordering::Acquire) == UNKNOWN)
}

/// Whether `fd` is known to be the kernel's; not of numbers beyond the table.
pub(crate) fn is_known_host(fd: c_int) -> bool {
    WORDS.get(fd as usize).is_some_and(|cell| cell.load(Ordering::Relaxed) == HOST)
}

/// `fd` names this epoll set now; false above the cap.
pub(crate) fn set_set(fd: c_int, set: Set) -> bool {
    put(fd, u64::from(set.generation) << 32 | u64::from(set.slot) << 2 | SET)
}

fn put(fd: c_int, word: u64) -> bool {
    match WORDS.get(fd as usize) {
        Some(cell) => {
            cell.store(word, Ordering::Release);
            socket_table::note_highest(fd as u32);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Tests share one table: each one has numbers of its own, far above those of real descriptors.

    #[test]
    fn a_number_names_what_it_was_given() {
        let socket = Socket { slot: 12_345, generation: 77 };
        let set = Set { slot: 1023, generation: u32::MAX };
        assert!(set_socket(60_000, socket));
        assert!(set_set(60_001, set));
        set_host(60_002);
        leave_out(60_003);
        assert!(is_left_out(60_003) && !is_left_out(60_002));
        assert_eq!((known(60_003), peek(60_003)), (Some(Descriptor::Host), Descriptor::Host));
        assert_eq!(begin_close(60_003), None);
        assert_eq!(known(60_000), Some(Descriptor::Socket(socket)));
        assert_eq!(known(60_001), Some(Descriptor::Set(set)));
        assert_eq!(known(60_002), Some(Descriptor::Host));
        assert!(socket_table::highest() > 60_001);
    }

    #[test]
    fn numbers_out_of_range_are_the_kernels() {
        let socket = Socket { slot: 1, generation: 1 };
        for fd in [-1, c_int::MIN, CAP as c_int, c_int::MAX] {
            assert!(!set_socket(fd, socket));
            set_host(fd);
            look_again(fd);
            assert_eq!(known(fd), Some(Descriptor::Host));
            assert_eq!(peek(fd), Descriptor::Host);
        }
        let last = CAP as c_int - 1;
        assert!(set_socket(last, socket));
        assert_eq!(peek(last), Descriptor::Socket(socket));
        look_again(last);
        assert_eq!(peek(last), Descriptor::Host);
    }

    #[test]
    fn every_slot_fits_a_word() {
        for slot in [0, socket_table::SOCKETS as u32 - 1] {
            let socket = Socket { slot, generation: u32::MAX };
            assert!(set_socket(60_010, socket));
            assert_eq!(known(60_010), Some(Descriptor::Socket(socket)));
        }
        set_host(60_010);
    }
}
