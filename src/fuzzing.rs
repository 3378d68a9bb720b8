//! One function for everything that is parsed from shared memory, files, the kernel's answers and the environment. It
//! takes any bytes; that it comes back, without a panic and with nothing out of bounds, is all that is asked.
//!
//! `fuzz/` calls these functions from libFuzzer, the property tests below from `cargo test`.

#![expect(clippy::disallowed_types, reason = "here std's sockets are the kernel's: nothing is interposed")]
#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

use crate::lifecycle::fork;
use crate::pipe::connection::Pipe;
use crate::pipe::connection::segment::{self, Identity, Segment};
use crate::pipe::ending;
use crate::pipe::handoff::{file, pin};
use crate::pipe::lanes::unread;
use crate::pipe::meeting::attach;
use crate::pipe::transfer::{read, write};
use crate::pipe::waiting::{events, wait};
use crate::state::flags::SocketFlags;
use crate::state::process_name::ProcessName;
use crate::state::socket_table::{self, STATE_PIPE, SocketTable};
use crate::state::{Socket, config, descriptor_table, family, stale_files};
use crate::sys::handlers::Since;
use crate::sys::{diag, kernel};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use libc::iovec;
use sockshim_ring::layout::{FRONT_SIZE, HEADER_SIZE, SEGMENT_SIZE};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// Bytes taken from the front of the input; zeroes once it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        let (front, rest) = self.0.split_at(length);
        taken[..length].copy_from_slice(front);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// A file that has no name, with these bytes in front.
fn file(bytes: &[u8], size: usize) -> OwnedFd {
    // SAFETY: a C string.
    let file = unsafe { libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: a new descriptor is this function's own.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    kernel::truncate(file.as_raw_fd(), size).expect("memory");
    // SAFETY: as many bytes as the slice has.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    assert_eq!(written, bytes.len() as isize);
    file
}

/// The socket table of this process, made at first use.
fn socket_table() -> &'static SocketTable {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let own = ProcessName::own();
        fork::begin(socket_table::install(None, &own).expect("memory"), &own);
    });
    socket_table::get().expect("just installed")
}

/// A file where the other end's segment should be.
pub fn segment_join(bytes: &[u8]) {
    let mut input = Input(bytes);
    let shape = input.byte();
    let identity = Identity { namespace: input.word(), own: input.word(), peer: input.word() };
    let size = if shape & 1 == 0 { SEGMENT_SIZE } else { usize::from(input.half()) };
    let mut header = input.0[..input.0.len().min(HEADER_SIZE).min(size)].to_vec();
    if shape & 2 != 0 && size == SEGMENT_SIZE {
        // As the right one, but for what the input changes.
        let right = segment::header_of(&identity);
        let length = header.len();
        header.resize(right.len().max(length), 0);
        header.iter_mut().zip(right).for_each(|(byte, right)| *byte ^= right);
    }
    let file = file(&header, size);
    if let Ok(joined) = segment::join(file.as_raw_fd(), &identity) {
        assert!(joined.joined && size == SEGMENT_SIZE);
        joined.segment.recycle();
    }
}

/// Any words in a segment's header, changed between calls on both lanes.
pub fn pipe_calls(bytes: &[u8]) {
    let front = kernel::map_anonymous(SEGMENT_SIZE, core::ptr::null_mut(), true).expect("address space");
    talk_over(Segment { front, rings: front.wrapping_add(FRONT_SIZE) }, bytes, true);
}

/// What a hand-off file may hold.
pub fn handoff_file(bytes: &[u8]) {
    let header = &bytes[..bytes.len().min(HEADER_SIZE)];
    let size = if bytes.first().is_none_or(|first| first & 1 == 0) { SEGMENT_SIZE } else { bytes.len() };
    let file = file(header, size.max(header.len()));
    if let Some(segment) = file::open(file.as_raw_fd()) {
        assert_eq!(size.max(header.len()), SEGMENT_SIZE);
        talk_over(segment, bytes, false);
    }
}

/// Calls of a socket that has `segment`, and changes to its header page, as the input says.
fn talk_over(segment: Segment, bytes: &[u8], begins_well: bool) {
    socket_table();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut other = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
    other.set_nonblocking(true).expect("non-blocking");
    let (own, _) = listener.accept().expect("accept");
    let fd = own.as_raw_fd();
    let socket = Socket::create(SocketFlags::CONNECTED | SocketFlags::NONBLOCK).expect("a slot");
    let entry = socket.entry().expect("just made");
    descriptor_table::set_socket(fd, socket);
    own.set_nonblocking(true).expect("non-blocking");
    // SAFETY: the mapping is a whole segment, shared memory that only atomics use.
    let words = unsafe { core::slice::from_raw_parts(segment.front.cast::<AtomicU32>(), HEADER_SIZE / 4) };
    if begins_well {
        let identity = Identity { namespace: 1, own: 2, peer: 3 };
        for (word, bytes) in words.iter().zip(segment::header_of(&identity).chunks_exact(4)) {
            word.store(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Ordering::Relaxed);
        }
    }
    let local = socket.local();
    local.seen_head.store(0, Ordering::Relaxed);
    segment.give_to(local, 0);
    entry.state.store(STATE_PIPE, Ordering::Release);
    let pipe = Pipe::of(fd, socket, entry).expect("it has a segment");
    if begins_well {
        for word in &pipe.header().ends {
            word.store(sockshim_ring::layout::END_JOINED, Ordering::Relaxed);
        }
    }
    attach::become_ready(&pipe);
    let mut input = Input(bytes);
    let mut buffer = vec![0u8; 1 << 17];
    while !input.0.is_empty() {
        let kind = input.byte();
        let length = usize::from(input.half());
        let buffers = [iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length }];
        match kind % 10 {
            0..4 => words[length % words.len()].store(input.word() as u32, Ordering::Relaxed),
            4 => {
                let flags = [0, libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_WAITALL][length & 3];
                // SAFETY: the buffer has room for that much.
                let count =
                    unsafe { read::receive(&pipe, &buffers, libc::MSG_DONTWAIT | flags, Since::now()) };
                assert!(count.is_ok_and(|count| count <= length) || count.is_err());
            }
            5 => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the buffer has that much.
                let sent = unsafe {
                    write::send(&pipe, &buffers, flags, || {
                        kernel::send(fd, &buffer[..length], flags).map_or(-1, |count| count as isize)
                    })
                };
                assert!(sent <= length as isize);
            }
            6 => {
                let interest = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
                let _ = events::at_hand(&pipe, interest);
                let _ = events::now(&pipe, interest);
                let _ = unread::unread(socket, 0);
                let _ = unread::arrived(&pipe);
                let _ = ending::pending_error(socket, 0);
            }
            7 => drop(other.write(&buffer[..length % 4096])),
            8 => drop(other.read(&mut buffer[..length % 4096])),
            _ if length % 16 == 0 => drop(other.shutdown(Shutdown::Write)),
            _ if length % 16 == 1 => pin::pin(fd, socket, crate::Reason::Option),
            _ => wait::settle(&pipe),
        }
    }
    descriptor_table::set_host(fd);
    ending::leave(fd, socket, true);
    family::unhold(&entry.holders);
    socket_table().free_socket(socket.slot, socket.generation);
}

/// The table with any words in it: every index leads somewhere within.
pub fn table_words(bytes: &[u8]) {
    let size = size_of::<SocketTable>();
    let place = kernel::map_anonymous(size, core::ptr::null_mut(), true).expect("address space");
    // SAFETY: a zeroed mapping of that size is an empty table.
    let socket_table = unsafe { &*place.cast::<SocketTable>() };
    // SAFETY: the same mapping; it is only used atomically.
    let words = unsafe { core::slice::from_raw_parts(place.cast::<AtomicU64>(), size / 8) };
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        let kind = input.byte();
        let at = usize::from(input.half());
        match kind % 12 {
            0 => words[at % 64].store(input.word(), Ordering::Relaxed),
            1 => words[at].store(input.word(), Ordering::Relaxed),
            2 => words[at * 37 % words.len()].store(input.word(), Ordering::Relaxed),
            3 => {
                if let Some((slot, entry)) = socket_table.take_socket() {
                    entry.flags.store(SocketFlags::from_bits_retain(at as u32), Ordering::Relaxed);
                    socket_table.free_socket(slot, entry.generation.load(Ordering::Relaxed));
                }
            }
            4 => drop(socket_table.take_socket()),
            5 => socket_table.free_socket(at as u32, input.word() as u32),
            6 => {
                if let Some(index) = socket_table.take_registration() {
                    socket_table.registration(index).set.store(at as u32, Ordering::Relaxed);
                    socket_table.free_registration(index);
                }
            }
            7 => drop(socket_table.take_registration()),
            8 => drop(socket_table.take_set()),
            9 => drop(family::is_sole(socket_table, &socket_table.socket(at as u32).holders)),
            10 => drop(family::may_be_member(socket_table, at as u32)),
            _ => {
                let sleepers = &socket_table.socket(at as u32).sleepers;
                let place = socket_table::enroll(sleepers, at as u32);
                let _ = socket_table::others_asleep(sleepers, 0, true);
                socket_table::leave(sleepers, place, at as u32);
            }
        }
    }
    kernel::unmap(place, size);
}

/// What the kernel might answer to a question about a socket.
pub fn diag_answer(bytes: &[u8]) {
    diag::read_any_answer(bytes);
}

/// `NAME=value` lines.
pub fn configuration(bytes: &[u8]) {
    let lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(|line| [line, b"\0"].concat()).collect();
    config::read_from(|name| {
        lines.iter().find_map(|line| {
            let value = line.strip_prefix(name.to_bytes())?.strip_prefix(b"=")?;
            CStr::from_bytes_until_nul(value).ok()
        })
    });
    assert!((4096..=sockshim_ring::layout::MAX_CAPACITY).contains(&config::ring_max()));
    assert!(config::ring_max().is_power_of_two() && config::spin_us() <= 100_000);
}

/// A file that `sockshim ss` takes for a table.
pub fn foreign_table(bytes: &[u8]) {
    crate::inspect::read_any(bytes);
}

/// A folder's entries as the kernel gives them.
pub fn folder_entries(bytes: &[u8]) {
    stale_files::read_any_entries(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bounded() -> ProptestConfig {
        ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(bounded())]

        #[test]
        fn any_segment_is_joined_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            segment_join(&bytes);
        }

        #[test]
        fn one_wrong_byte_is_one_too_many(at in 0usize..40, change in 1u8..) {
            let identity = Identity { namespace: 1, own: 2, peer: 3 };
            let mut header = segment::header_of(&identity);
            let whole = file(&header, SEGMENT_SIZE);
            let joined = segment::join(whole.as_raw_fd(), &identity);
            let joined = joined.ok().filter(|joined| joined.joined).map(|joined| joined.segment.recycle());
            prop_assert!(joined.is_some());
            header[at] ^= change;
            prop_assert!(segment::join(file(&header, SEGMENT_SIZE).as_raw_fd(), &identity).is_err());
        }

        #[test]
        fn any_words_in_a_segment_are_survived(bytes in vec(any::<u8>(), 0..600)) {
            pipe_calls(&bytes);
        }

        #[test]
        fn any_handoff_file_is_survived(bytes in vec(any::<u8>(), 0..2000)) {
            handoff_file(&bytes);
        }

        #[test]
        fn any_words_in_the_table_are_survived(bytes in vec(any::<u8>(), 0..1000)) {
            table_words(&bytes);
        }

        #[test]
        fn any_answer_of_the_kernel_is_survived(bytes in vec(any::<u8>(), 0..600)) {
            diag_answer(&bytes);
        }

        #[test]
        fn any_folder_is_survived(bytes in vec(any::<u8>(), 0..400)) {
            folder_entries(&bytes);
        }

        #[test]
        fn any_table_is_survived(bytes in vec(any::<u8>(), 0..3000)) {
            foreign_table(&bytes);
        }
    }

    /// What fuzzers start from: each file shows a case that is worth keeping.
    #[test]
    fn the_corpus_is_survived() {
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 7] = [
            ("diag_answer", diag_answer),
            ("folder_entries", folder_entries),
            ("foreign_table", foreign_table),
            ("handoff_file", handoff_file),
            ("pipe_calls", pipe_calls),
            ("segment_join", segment_join),
            ("table_words", table_words),
        ];
        for (name, target) in targets {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/").to_owned() + name;
            let seeds = std::fs::read_dir(&folder).expect("the corpus");
            let count = seeds.map(|seed| target(&std::fs::read(seed.unwrap().path()).unwrap())).count();
            assert_ne!(count, 0, "{folder} is empty");
        }
    }

    /// Words that mean something, where they mean it: far more telling than any bytes.
    #[test]
    fn likely_words_in_a_segment_are_survived() {
        let places =
            [0usize, 2, 3, 4, 6, 8, 10, 11, 256, 257, 258, 288, 289, 320, 352, 354, 355, 356, 357, 358];
        let reader = [384usize, 385, 386, 388];
        let values = [0u32, 1, 2, 3, 4, 5, 100, 4096, 32768, 1 << 20, 1 << 31, u32::MAX - 1, u32::MAX];
        let mut runner = proptest::test_runner::TestRunner::new(bounded());
        let place = (0..2usize, prop::sample::select([&places[4..], &reader[..]].concat()))
            .prop_map(|(direction, place)| if place >= 256 { place + 256 * direction } else { place });
        let change = (place, prop::sample::select(values.to_vec())).prop_map(|(place, value)| {
            let mut bytes = vec![0];
            bytes.extend_from_slice(&(place as u16).to_le_bytes());
            bytes.extend_from_slice(&u64::from(value).to_le_bytes());
            bytes
        });
        let call = (4u8..10, prop::sample::select(vec![0u16, 1, 2, 5000, 40_001, 65_535]))
            .prop_map(|(kind, length)| [vec![kind], length.to_le_bytes().to_vec()].concat());
        let steps = vec(prop_oneof![change, call], 0..60).prop_map(|steps| steps.concat());
        runner
            .run(&steps, |bytes| {
                pipe_calls(&bytes);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    #[ignore = "changes what the process has read from its environment: run by the next one"]
    fn any_configuration() {
        let name = prop::sample::select(vec!["UPGRADE_AFTER", "PATH", "PROFILE", "SPIN_US", "RING_MAX"]);
        let line = (name, vec(any::<u8>(), 0..24))
            .prop_map(|(name, value)| [b"SOCKSHIM_", name.as_bytes(), b"=", &value, b"\n"].concat());
        let mut runner = proptest::test_runner::TestRunner::new(bounded());
        let lines = vec(line, 0..6).prop_map(|lines| lines.concat());
        runner
            .run(&lines, |text| {
                configuration(&text);
                Ok(())
            })
            .unwrap();
        for value in ["", "0", "-1", "18446744073709551616", " 7 ", "4095", "1e9", "\u{ff}"] {
            for name in ["UPGRADE_AFTER", "SPIN_US", "RING_MAX", "PATH", "PROFILE"] {
                configuration(format!("SOCKSHIM_{name}={value}\n").as_bytes());
            }
        }
    }

    #[test]
    fn any_configuration_is_bounded() {
        let mut test = std::process::Command::new(std::env::current_exe().expect("the test's own path"));
        test.args(["fuzzing::tests::any_configuration", "--exact", "--ignored"]);
        assert!(test.output().expect("the test runs").status.success());
    }
}
