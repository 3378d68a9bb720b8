//! What processes that run on sockshim show of themselves: the socket tables in a rendezvous folder.
//!
//! They are read as files, never mapped, and never trusted: any process of this user may have written anything there.
//! It is for tools that run beside those processes, not on sockshim themselves; `sockshim ss` is made of it.

use crate::Counters;
use crate::state::flags::SocketFlags;
use crate::state::process_name::Stored;
use crate::state::socket_table::{self, Entry, PROCESSES, SOCKETS, SocketTable};
use crate::state::{reason, stale_files};
use crate::sys::address::Address;
use crate::sys::{self, diag, folder, kernel};
use core::ffi::CStr;
use core::mem::{offset_of, size_of};
use core::net::SocketAddr;

/// Removes what processes that were killed have left in the rendezvous folder.
pub fn sweep(folder: &CStr) {
    if let Some(folder) = folder::usable(Some(folder)) {
        stale_files::sweep(&folder, stale_files::ALL);
    }
}

/// Whether a file of this name in the rendezvous folder is a table of this version.
#[must_use]
pub fn is_table(name: &str) -> bool {
    name.starts_with(&format!("table{}-", socket_table::VERSION))
}

/// Bytes that the program has sent and received over the TCP connection between these addresses, whosever it is, as the
/// kernel of this network counts them.
#[must_use]
pub fn kernel_bytes(local: SocketAddr, peer: SocketAddr) -> Option<(u64, u64)> {
    diag::position(local, peer).map(|position| (position.written, position.data_received()))
}

/// The socket table of a family of processes.
#[derive(Debug)]
pub struct Table {
    /// The pid namespace of its processes' numbers, if it is known to be another one than that of this process.
    pub namespace: Option<u64>,
    /// The numbers of its processes; 0: nobody.
    pub processes: [u32; PROCESSES],
    /// Its sockets, those in use.
    entries: Vec<u8>,
}

/// What a table says of a socket that is, or is about to be, connected.
#[derive(Debug)]
pub struct Socket {
    /// How far it is on the way to a pipe, or away from it.
    pub state: State,
    /// Whether its bytes run over shared memory.
    pub is_pipe: bool,
    /// The number of a [`Reason`](crate::Reason), or one that is not known.
    pub reason: u32,
    /// The reason in words.
    pub reason_text: &'static str,
    /// Whether `accept` made it.
    pub accepted: bool,
    /// The processes that hold it, by the numbers of [`Table::processes`].
    pub holders: Vec<u32>,
    /// What the kernel calls it and the other end (`SO_COOKIE`); 0: not known.
    pub cookies: [u64; 2],
    /// A descriptor number that it was given.
    pub number: Option<u32>,
    /// Its address and the other end's.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What it has done.
    pub counters: Counters,
}

/// See [`Socket::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Too little has been transferred to decide.
    Undecided,
    /// This end has made a segment, and the other one has not come.
    Waiting,
    /// Both ends have the segment.
    Pipe,
    /// The kernel's for good.
    Host,
    /// Both ends have the segment, but this end has gone back to the kernel for good.
    Pinned,
}

impl State {
    fn of(word: u32) -> Option<Self> {
        match word {
            socket_table::STATE_UNDECIDED => Some(Self::Undecided),
            socket_table::STATE_WAITING => Some(Self::Waiting),
            socket_table::STATE_PIPE => Some(Self::Pipe),
            socket_table::STATE_HOST => Some(Self::Host),
            socket_table::STATE_PINNED => Some(Self::Pinned),
            _ => None,
        }
    }

    /// As `sockshim ss` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Waiting => "waiting",
            Self::Pipe => "pipe",
            Self::Host => "host",
            Self::Pinned => "pinned",
        }
    }
}

/// Bytes before the first socket.
const HEAD: usize = offset_of!(SocketTable, sockets);

impl Table {
    /// Reads a file. `None`: it is not a table of this version, or its maker is writing it right now.
    #[must_use]
    pub fn read(path: &CStr) -> Option<Self> {
        let fd = kernel::open_quickly(path, libc::O_RDONLY).ok()?;
        let (mode, _, size) = kernel::file_facts(fd.as_raw()).ok()?;
        if mode & libc::S_IFMT != libc::S_IFREG || size != size_of::<SocketTable>() {
            return None;
        }
        let mut bytes = vec![0; HEAD];
        let fill = |bytes: &mut [u8]| {
            let read = kernel::read_file(fd.as_raw(), bytes.as_mut_ptr(), bytes.len(), Some(0));
            (read == Ok(bytes.len())).then_some(())
        };
        fill(&mut bytes)?;
        bytes.resize(used(&bytes)?, 0);
        fill(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// Takes the part of a table that is in use, as [`used`] says, to pieces.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.get(HEAD..used(bytes)?)?.to_vec();
        let processes = core::array::from_fn(|slot| {
            let found = u32_at(bytes, offset_of!(SocketTable, processes) + slot * size_of::<u32>());
            if found & socket_table::CLAIMED == 0 { found } else { 0 }
        });
        let namespace = u64_at(bytes, offset_of!(SocketTable, maker) + offset_of!(Stored, namespace));
        let is_elsewhere = namespace != 0 && sys::process::namespace().is_some_and(|own| own != namespace);
        Some(Self { namespace: is_elsewhere.then_some(namespace), processes, entries })
    }

    /// The sockets that are, or are about to be, connected.
    pub fn connected(&self) -> impl Iterator<Item = Socket> {
        self.entries.chunks_exact(size_of::<Entry>()).filter_map(|entry| self.socket(entry))
    }

    /// `bytes` are as many as an entry has.
    fn socket(&self, bytes: &[u8]) -> Option<Socket> {
        let flags = SocketFlags::from_bits_retain(u32_at(bytes, offset_of!(Entry, flags)));
        let is_in_use = u32_at(bytes, offset_of!(Entry, generation)) & 1 == 1;
        if !is_in_use || flags & (SocketFlags::CONNECTED | SocketFlags::LISTENER) != SocketFlags::CONNECTED {
            return None;
        }
        let word = u32_at(bytes, offset_of!(Entry, state));
        let reason = u32_at(bytes, offset_of!(Entry, reason));
        let counter = |offset: usize| u64_at(bytes, offset_of!(Entry, counters) + offset);
        let address = |offset: usize| {
            let mut address = Address::EMPTY;
            address.bytes.copy_from_slice(&bytes[offset..offset + 28]);
            address.parts()
        };
        let holds = |slot: usize| {
            let word = u64_at(bytes, offset_of!(Entry, holders) + slot / 64 * size_of::<u64>());
            word >> (slot % 64) & 1 == 1
        };
        Some(Socket {
            state: State::of(word)?,
            is_pipe: socket_table::is_pipe(word, reason),
            reason,
            reason_text: reason::text(reason).to_str().unwrap_or_default(),
            accepted: flags.intersects(SocketFlags::ACCEPTED),
            holders: (0..PROCESSES).filter(|slot| holds(*slot)).map(|slot| self.processes[slot]).collect(),
            cookies: [offset_of!(Entry, cookie), offset_of!(Entry, peer_cookie)].map(|at| u64_at(bytes, at)),
            number: u32_at(bytes, offset_of!(Entry, number)).checked_sub(1),
            addresses: address(offset_of!(Entry, local)).zip(address(offset_of!(Entry, peer))),
            counters: Counters {
                bytes_sent: counter(offset_of!(socket_table::SharedCounters, sent)),
                bytes_received: counter(offset_of!(socket_table::SharedCounters, received)),
                kernel_bytes_sent: counter(offset_of!(socket_table::SharedCounters, kernel_sent)),
                kernel_bytes_received: counter(offset_of!(socket_table::SharedCounters, kernel_received)),
                doorbells: counter(offset_of!(socket_table::SharedCounters, doorbells)),
                sleeps: counter(offset_of!(socket_table::SharedCounters, sleeps)),
                upgrades: counter(offset_of!(socket_table::SharedCounters, upgrades)),
                spills: counter(offset_of!(socket_table::SharedCounters, spills)),
            },
        })
    }
}

/// How many bytes of a table with this head are in use; `None`: it is no table of this version.
fn used(head: &[u8]) -> Option<usize> {
    let is_table = head.len() >= HEAD
        && u64_at(head, offset_of!(SocketTable, magic)) == socket_table::MAGIC
        && u32_at(head, offset_of!(SocketTable, version)) == socket_table::VERSION;
    let sockets = || u32_at(head, offset_of!(SocketTable, sockets_used)) as usize;
    is_table.then(|| HEAD + sockets().min(SOCKETS) * size_of::<Entry>())
}

/// The word at `offset`, which lies within.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_ne_bytes(word)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_ne_bytes(word)
}

/// For `fuzzing`: any bytes, and the same as the used part of a table.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = Table::parse(bytes);
    let mut whole = vec![0; HEAD + 4 * size_of::<Entry>()];
    whole[offset_of!(SocketTable, sockets_used)..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let sockets = &mut whole[HEAD..];
    sockets.iter_mut().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    whole[..8].copy_from_slice(&socket_table::MAGIC.to_ne_bytes());
    whole[offset_of!(SocketTable, version)..][..4].copy_from_slice(&socket_table::VERSION.to_ne_bytes());
    let used = bytes.first().map_or(0, |first| u32::from(first % 6));
    whole[offset_of!(SocketTable, sockets_used)..][..4].copy_from_slice(&used.to_ne_bytes());
    if let Some(table) = Table::parse(&whole) {
        assert!(table.connected().count() <= used as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::socket_table::{MAGIC, VERSION};
    use proptest::prelude::*;

    /// A table with one process and `used` sockets, whose bytes are `fill` until a test puts others there.
    fn table(used: u32, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; HEAD + used as usize * size_of::<Entry>()];
        put(&mut bytes, offset_of!(SocketTable, magic), &MAGIC.to_ne_bytes());
        put(&mut bytes, offset_of!(SocketTable, version), &VERSION.to_ne_bytes());
        put(&mut bytes, offset_of!(SocketTable, sockets_used), &used.to_ne_bytes());
        bytes
    }

    fn put(bytes: &mut [u8], offset: usize, word: &[u8]) {
        bytes[offset..offset + word.len()].copy_from_slice(word);
    }

    #[test]
    fn a_socket_is_found_with_what_it_says() {
        let mut bytes = table(2, 0);
        put(&mut bytes, offset_of!(SocketTable, processes) + 8, &77u32.to_ne_bytes());
        let second = HEAD + size_of::<Entry>();
        for (offset, word) in [
            (offset_of!(Entry, generation), 3u32),
            (offset_of!(Entry, flags), SocketFlags::CONNECTED.bits()),
            (offset_of!(Entry, reason), 5),
            (offset_of!(Entry, number), 9),
            (offset_of!(Entry, holders), 4),
        ] {
            put(&mut bytes, second + offset, &word.to_ne_bytes());
        }
        for (offset, last) in [(offset_of!(Entry, local), 1), (offset_of!(Entry, peer), 2)] {
            put(&mut bytes, second + offset, &libc::AF_INET.to_ne_bytes()[..2]);
            put(&mut bytes, second + offset + 2, &[0, 80, 127, 0, 0, last]);
        }
        put(
            &mut bytes,
            second + offset_of!(Entry, counters) + offset_of!(socket_table::SharedCounters, spills),
            &[7],
        );
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.processes[..3], [0, 0, 77]);
        let sockets: Vec<Socket> = table.connected().collect();
        let [socket] = &sockets[..] else { panic!("{sockets:?}") };
        assert_eq!((socket.reason, socket.number, &socket.holders[..]), (5, Some(8), &[77][..]));
        assert_eq!(
            socket.addresses,
            Some(("127.0.0.1:80".parse().unwrap(), "127.0.0.2:80".parse().unwrap()))
        );
        assert_eq!(socket.counters, Counters { spills: 7, ..Counters::default() });
    }

    #[test]
    fn free_unconnected_and_listening_sockets_are_passed_over() {
        let mut bytes = table(3, 0);
        for (slot, generation, flags) in [
            (0, 2, SocketFlags::CONNECTED),
            (1, 1, SocketFlags::empty()),
            (2, 1, SocketFlags::CONNECTED | SocketFlags::LISTENER),
        ] {
            let at = HEAD + slot * size_of::<Entry>();
            put(&mut bytes, at + offset_of!(Entry, generation), &u32::to_ne_bytes(generation));
            put(&mut bytes, at + offset_of!(Entry, flags), &u32::to_ne_bytes(flags.bits()));
        }
        assert_eq!(Table::parse(&bytes).unwrap().connected().count(), 0);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let mut other = table(0, 0);
        put(&mut other, offset_of!(SocketTable, version), &(VERSION + 1).to_ne_bytes());
        for bytes in [&[][..], &[0; HEAD], &other] {
            assert!(Table::parse(bytes).is_none());
        }
        assert!(is_table(&format!("table{VERSION}-0-1-2")));
        for name in
            ["table", "table-1", "pipe5-1", &format!("table{VERSION}"), &format!("table{}-1", VERSION + 1)]
        {
            assert!(!is_table(name), "{name}");
        }
    }

    #[test]
    fn a_table_says_no_more_sockets_than_it_can_have() {
        let mut bytes = table(1, 0xff);
        put(&mut bytes, offset_of!(SocketTable, sockets_used), &u32::MAX.to_ne_bytes());
        assert_eq!(used(&bytes), Some(HEAD + SOCKETS * size_of::<Entry>()));
        assert!(Table::parse(&bytes).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2 * HEAD)) {
            let _ = Table::parse(&bytes);
        }

        #[test]
        fn any_sockets_are_survived(
            seed in proptest::collection::vec(any::<u8>(), 1..3000),
            used in 0u32..8,
            cut in 0usize..6000,
        ) {
            let mut bytes = table(used, 0);
            for (place, byte) in bytes[16..].iter_mut().zip(seed.iter().cycle()) {
                *place = *byte;
            }
            put(&mut bytes, offset_of!(SocketTable, sockets_used), &used.to_ne_bytes());
            let whole = Table::parse(&bytes).unwrap();
            prop_assert!(whole.connected().count() <= used as usize);
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = Table::parse(&bytes);
        }
    }
}
