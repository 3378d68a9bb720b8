//! A socket table's bytes, which nobody vouches for.

use crate::state::arena::{
    Arena, CLAIMED, Counters, Entry, FLAG_CONNECTED, FLAG_LISTENER, MAGIC, PROCESSES, SOCKETS, VERSION,
};
use crate::state::process_name::Stored;
use crate::sys::address::Address;
use std::io;
use std::mem::{offset_of, size_of};
use std::net::SocketAddr;

/// Bytes before the first socket.
pub(super) const HEAD: usize = offset_of!(Arena, sockets);

/// What the file of a table of this version is called, up to the process number.
pub(super) fn prefix() -> String {
    format!("table{VERSION}-")
}

/// Why a file is no table.
#[derive(Debug)]
pub(super) enum Damage {
    /// It is not a file of a table's size.
    Size,
    /// It does not begin like a table; its maker may be writing it right now.
    Magic,
    /// It is a table of another version.
    Version,
    Io,
}

impl From<io::Error> for Damage {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// What a table says of its processes and sockets.
#[derive(Debug)]
pub(super) struct Table {
    /// The pid namespace of its processes' numbers; 0: not known.
    pub(super) namespace: u64,
    /// By slot; 0: nobody.
    pub(super) processes: [u32; PROCESSES],
    slots: Vec<Slot>,
}

/// What a table says of one socket.
#[derive(Debug)]
pub(super) struct Slot {
    generation: u32,
    pub(super) state: u32,
    pub(super) reason: u32,
    pub(super) flags: u32,
    pub(super) holders: [u64; PROCESSES / 64],
    pub(super) cookie: u64,
    pub(super) peer_cookie: u64,
    /// A descriptor number that it was given.
    pub(super) number: Option<u32>,
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// In the order of [`Counters`].
    pub(super) counters: [u64; 8],
}

/// A table's file has one size.
pub(super) fn check_size(length: u64) -> Result<(), Damage> {
    if length == size_of::<Arena>() as u64 { Ok(()) } else { Err(Damage::Size) }
}

/// How many bytes of a table with this head are in use.
pub(super) fn length(head: &[u8]) -> Result<usize, Damage> {
    if head.len() < HEAD {
        return Err(Damage::Size);
    }
    if u64_at(head, offset_of!(Arena, magic)) != MAGIC {
        return Err(Damage::Magic);
    }
    if u32_at(head, offset_of!(Arena, version)) != VERSION {
        return Err(Damage::Version);
    }
    let used = u32_at(head, offset_of!(Arena, sockets_used)) as usize;
    Ok(HEAD + used.min(SOCKETS) * size_of::<Entry>())
}

impl Table {
    /// Reads the part of a table that is in use, as [`length`] says.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let end = length(bytes)?;
        let sockets = bytes.get(HEAD..end).ok_or(Damage::Size)?;
        let mut processes = [0; PROCESSES];
        for (slot, number) in processes.iter_mut().enumerate() {
            let found = u32_at(bytes, offset_of!(Arena, processes) + slot * size_of::<u32>());
            *number = if found & CLAIMED == 0 { found } else { 0 };
        }
        let slots = sockets.chunks_exact(size_of::<Entry>()).map(Slot::parse).collect();
        let namespace = u64_at(bytes, offset_of!(Arena, maker) + offset_of!(Stored, namespace));
        Ok(Self { namespace, processes, slots })
    }

    /// The sockets in use that are, or are about to be, connected.
    pub(super) fn connected(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| {
            slot.generation & 1 == 1 && slot.flags & FLAG_CONNECTED != 0 && slot.flags & FLAG_LISTENER == 0
        })
    }
}

impl Slot {
    /// `bytes` are as many as an entry has.
    fn parse(bytes: &[u8]) -> Self {
        let counter = |offset: usize| u64_at(bytes, offset_of!(Entry, counters) + offset);
        let address = |offset: usize| {
            let mut address = Address::EMPTY;
            address.bytes.copy_from_slice(&bytes[offset..offset + 28]);
            address.parts()
        };
        Self {
            generation: u32_at(bytes, offset_of!(Entry, generation)),
            state: u32_at(bytes, offset_of!(Entry, state)),
            reason: u32_at(bytes, offset_of!(Entry, reason)),
            flags: u32_at(bytes, offset_of!(Entry, flags)),
            holders: std::array::from_fn(|at| {
                u64_at(bytes, offset_of!(Entry, holders) + at * size_of::<u64>())
            }),
            cookie: u64_at(bytes, offset_of!(Entry, cookie)),
            peer_cookie: u64_at(bytes, offset_of!(Entry, peer_cookie)),
            number: u32_at(bytes, offset_of!(Entry, number)).checked_sub(1),
            addresses: address(offset_of!(Entry, local)).zip(address(offset_of!(Entry, peer))),
            counters: [
                counter(offset_of!(Counters, sent)),
                counter(offset_of!(Counters, received)),
                counter(offset_of!(Counters, kernel_sent)),
                counter(offset_of!(Counters, kernel_received)),
                counter(offset_of!(Counters, doorbells)),
                counter(offset_of!(Counters, sleeps)),
                counter(offset_of!(Counters, upgrades)),
                counter(offset_of!(Counters, spills)),
            ],
        }
    }
}

/// For `fuzzing`: any bytes, and the same as the used part of a table.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(bytes: &[u8]) {
    let _ = Table::parse(bytes);
    let mut whole = vec![0; HEAD + 4 * size_of::<Entry>()];
    whole[offset_of!(Arena, sockets_used)..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let sockets = &mut whole[HEAD..];
    sockets.iter_mut().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    whole[..8].copy_from_slice(&MAGIC.to_ne_bytes());
    whole[offset_of!(Arena, version)..][..4].copy_from_slice(&VERSION.to_ne_bytes());
    let used = bytes.first().map_or(0, |first| u32::from(first % 6));
    whole[offset_of!(Arena, sockets_used)..][..4].copy_from_slice(&used.to_ne_bytes());
    if let Ok(table) = Table::parse(&whole) {
        assert!(table.connected().count() <= used as usize);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table with one process and `used` sockets, whose bytes are `fill` until a test puts others there.
    fn table(used: u32, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; HEAD + used as usize * size_of::<Entry>()];
        put(&mut bytes, offset_of!(Arena, magic), &MAGIC.to_ne_bytes());
        put(&mut bytes, offset_of!(Arena, version), &VERSION.to_ne_bytes());
        put(&mut bytes, offset_of!(Arena, sockets_used), &used.to_ne_bytes());
        bytes
    }

    fn put(bytes: &mut [u8], offset: usize, word: &[u8]) {
        bytes[offset..offset + word.len()].copy_from_slice(word);
    }

    #[test]
    fn a_socket_is_found_with_what_it_says() {
        let mut bytes = table(2, 0);
        put(&mut bytes, offset_of!(Arena, processes) + 8, &77u32.to_ne_bytes());
        let second = HEAD + size_of::<Entry>();
        for (offset, word) in [
            (offset_of!(Entry, generation), 3u32),
            (offset_of!(Entry, flags), FLAG_CONNECTED),
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
        put(&mut bytes, second + offset_of!(Entry, counters) + offset_of!(Counters, spills), &[7]);
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.processes[..3], [0, 0, 77]);
        let slots: Vec<&Slot> = table.connected().collect();
        let [slot] = slots[..] else { panic!("{slots:?}") };
        assert_eq!((slot.reason, slot.number, slot.holders[0]), (5, Some(8), 4));
        assert_eq!(slot.addresses, Some(("127.0.0.1:80".parse().unwrap(), "127.0.0.2:80".parse().unwrap())));
        assert_eq!(slot.counters, [0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn free_unconnected_and_listening_sockets_are_passed_over() {
        let mut bytes = table(3, 0);
        for (slot, generation, flags) in
            [(0, 2, FLAG_CONNECTED), (1, 1, 0), (2, 1, FLAG_CONNECTED | FLAG_LISTENER)]
        {
            let at = HEAD + slot * size_of::<Entry>();
            put(&mut bytes, at + offset_of!(Entry, generation), &u32::to_ne_bytes(generation));
            put(&mut bytes, at + offset_of!(Entry, flags), &u32::to_ne_bytes(flags));
        }
        assert_eq!(Table::parse(&bytes).unwrap().connected().count(), 0);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(matches!(Table::parse(&[]), Err(Damage::Size)));
        assert!(matches!(Table::parse(&[0; HEAD]), Err(Damage::Magic)));
        let mut other = table(0, 0);
        put(&mut other, offset_of!(Arena, version), &(VERSION + 1).to_ne_bytes());
        assert!(matches!(Table::parse(&other), Err(Damage::Version)));
        assert!(check_size(0).is_err() && check_size(u64::MAX).is_err());
        assert!(check_size(size_of::<Arena>() as u64).is_ok());
    }

    #[test]
    fn a_table_says_no_more_sockets_than_it_can_have() {
        let mut bytes = table(1, 0xff);
        put(&mut bytes, offset_of!(Arena, sockets_used), &u32::MAX.to_ne_bytes());
        assert_eq!(length(&bytes).unwrap(), HEAD + SOCKETS * size_of::<Entry>());
        assert!(matches!(Table::parse(&bytes), Err(Damage::Size)));
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
            put(&mut bytes, offset_of!(Arena, sockets_used), &used.to_ne_bytes());
            let whole = Table::parse(&bytes).unwrap();
            prop_assert!(whole.connected().count() <= used as usize);
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = Table::parse(&bytes);
        }
    }
}
