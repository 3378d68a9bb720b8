//! Puts fragments together (RFC 791 §3.2, RFC 8200 §4.5), for both versions in one place.
//!
//! Fragments are an old way to attack. Memory has a cap, within which new fragments are refused as in Linux
//! (`ipfrag_high_thresh`); datagrams that stay incomplete leave after a time; fragments that overlap take their whole
//! datagram with them, for IPv6 because RFC 5722 says so and for IPv4 because Linux does the same (CVE-2018-5391); a
//! fragment that was sent twice is ignored.

use crate::slab::{Key, Slab};
use crate::table::{HashKey, Table};
use crate::time::Instant;
use crate::wheel::Wheel;
use crate::wire::{DropReason, ipv4, ipv6};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

/// The limits, with Linux's values.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that all incomplete datagrams may take (`net.ipv4.ipfrag_high_thresh`).
    pub memory: usize,
    /// How long an IPv4 datagram may stay incomplete (`net.ipv4.ipfrag_time`).
    pub time_v4: Duration,
    /// How long an IPv6 datagram may stay incomplete (RFC 8200 §4.5, `net.ipv6.ip6frag_time`).
    pub time_v6: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory: 4 << 20, time_v4: Duration::from_secs(30), time_v6: Duration::from_secs(60) }
    }
}

/// The incomplete datagrams of a stack.
#[derive(Debug)]
pub struct Reassembly {
    config: Config,
    key: HashKey,
    datagrams: Slab<Datagram>,
    by_identity: Table,
    deadlines: Wheel,
    memory: usize,
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    source: IpAddr,
    destination: IpAddr,
    /// For IPv4 only: RFC 8200 leaves the protocol out.
    protocol: u8,
    ident: u32,
}

#[derive(Debug)]
struct Datagram {
    identity: Identity,
    /// Parts by their offsets; none overlaps another.
    parts: BTreeMap<u32, Vec<u8>>,
    /// Bytes in the parts.
    received: usize,
    /// The length of the datagram, once the last part has arrived.
    total: Option<usize>,
    /// What the part with offset zero contained.
    first: Option<First>,
    /// Which values of the ECN field were seen: bit n for value n.
    ecn_seen: u8,
    memory: usize,
}

/// Of the first fragment: the header that the whole gets, and the bytes that an ICMP error would quote.
#[derive(Debug)]
struct First {
    header: FirstHeader,
    quote: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum FirstHeader {
    V4(ipv4::Header),
    V6(ipv6::Header),
}

/// A fragment as both versions have it.
struct Part<'a> {
    offset: usize,
    more: bool,
    ecn: u8,
    bytes: &'a [u8],
    first: Option<FirstHeader>,
    /// The packet that the fragment came in.
    packet: &'a [u8],
}

/// An incomplete datagram whose time is over.
#[derive(Debug)]
pub struct Expired {
    /// The first fragment as it came, if it did: the sender is told only then (RFC 792, RFC 8200 §4.5).
    pub first: Option<Vec<u8>>,
}

/// Memory for what is beside the bytes of a datagram and of a part: a rough sum of the structures here.
const DATAGRAM_COST: usize = 256;
const PART_COST: usize = 64;

/// A first fragment is quoted by no more: the least MTU of IPv6 less the headers of an error (RFC 4443 §2.4 c).
const QUOTE_LEN: usize = 1280 - 48;

const MAX_LEN: usize = 0xffff;

const TICK: Duration = Duration::from_millis(100);

impl Reassembly {
    /// A table that holds no datagrams.
    pub fn new(config: Config, key: HashKey) -> Self {
        Self {
            config,
            key,
            datagrams: Slab::new(),
            by_identity: Table::new(),
            deadlines: Wheel::new(TICK),
            memory: 0,
        }
    }

    /// Takes a fragment of an IPv4 packet. Returns whether it was the one that was missing: `out` then holds the whole
    /// packet, with a new header.
    ///
    /// # Errors
    ///
    /// One of the `Fragment*` reasons.
    pub fn add_v4(
        &mut self,
        now: Instant,
        header: &ipv4::Header,
        packet: &[u8],
        mut bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        if header.more_fragments {
            // Linux cuts off what is too much (`ip_frag_queue`) where RFC 791 leaves it open.
            bytes = &bytes[..bytes.len() & !7];
        }
        let identity = Identity {
            source: header.source.into(),
            destination: header.destination.into(),
            protocol: header.protocol,
            ident: u32::from(header.ident),
        };
        let whole = ipv4::Header { more_fragments: false, fragment_offset: 0, ..*header };
        let part = Part {
            offset: usize::from(header.fragment_offset),
            more: header.more_fragments,
            ecn: header.traffic_class & 3,
            bytes,
            first: (header.fragment_offset == 0).then_some(FirstHeader::V4(whole)),
            packet,
        };
        self.add(now, identity, &part, MAX_LEN - ipv4::Header::LEN, out)
    }

    /// Takes a fragment of an IPv6 packet, as [`add_v4`](Self::add_v4). The headers in front of the fragment header are
    /// gone in the whole: they have been obeyed.
    ///
    /// # Errors
    ///
    /// The same for IPv6, as for [`add_v4`](Self::add_v4).
    pub fn add_v6(
        &mut self,
        now: Instant,
        header: &ipv6::Header,
        fragment: ipv6::Fragment,
        packet: &[u8],
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        if fragment.more && !bytes.len().is_multiple_of(8) {
            return Err(DropReason::FragmentInvalid);
        }
        let identity = Identity {
            source: header.source.into(),
            destination: header.destination.into(),
            protocol: 0,
            ident: fragment.ident,
        };
        let whole = ipv6::Header { next_header: fragment.next_header, ..*header };
        let part = Part {
            offset: usize::from(fragment.offset),
            more: fragment.more,
            ecn: header.traffic_class & 3,
            bytes,
            first: (fragment.offset == 0).then_some(FirstHeader::V6(whole)),
            packet,
        };
        self.add(now, identity, &part, MAX_LEN, out)
    }

    /// When [`expire`](Self::expire) may have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Gives up a datagram whose time is over, if there is one.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        let index = self.deadlines.expire(now)?;
        let datagram = self.take(self.datagrams.key_at(index)?)?;
        Some(Expired { first: datagram.first.map(|first| first.quote) })
    }

    /// How many datagrams are incomplete.
    pub const fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether no datagram is incomplete.
    pub const fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes that the incomplete datagrams take.
    pub const fn memory(&self) -> usize {
        self.memory
    }

    fn add(
        &mut self,
        now: Instant,
        identity: Identity,
        part: &Part<'_>,
        max_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        let end = part.offset + part.bytes.len();
        if end > max_len || part.bytes.is_empty() {
            return Err(DropReason::FragmentInvalid);
        }
        let hash = self.hash(&identity);
        let datagrams = &self.datagrams;
        let known = self
            .by_identity
            .find(hash, |index| datagrams.at(index).is_some_and(|known| known.identity == identity));
        let quote = if part.first.is_some() { part.packet.len().min(QUOTE_LEN) } else { 0 };
        let cost = part.bytes.len() + PART_COST + quote + if known.is_some() { 0 } else { DATAGRAM_COST };
        if self.memory + cost > self.config.memory {
            return Err(DropReason::FragmentMemory);
        }
        let key = match known.and_then(|index| self.datagrams.key_at(index)) {
            Some(key) => key,
            None => self.begin(now, hash, identity),
        };
        let datagram = self.datagrams.get_mut(key).ok_or(DropReason::FragmentInvalid)?;
        match datagram.fit(part) {
            Fit::Known => return Ok(false),
            Fit::Contradicts => {
                self.take(key);
                return Err(DropReason::FragmentOverlap);
            }
            Fit::New => {}
        }
        datagram.put(part);
        datagram.memory += cost;
        self.memory += cost;
        if !datagram.is_complete() {
            return Ok(false);
        }
        if self.take(key).is_some_and(|datagram| datagram.write(out)) {
            Ok(true)
        } else {
            Err(DropReason::FragmentInvalid)
        }
    }

    fn begin(&mut self, now: Instant, hash: u32, identity: Identity) -> Key {
        let time = if identity.source.is_ipv4() { self.config.time_v4 } else { self.config.time_v6 };
        let key = self.datagrams.insert(Datagram {
            identity,
            parts: BTreeMap::new(),
            received: 0,
            total: None,
            first: None,
            ecn_seen: 0,
            memory: 0,
        });
        self.by_identity.insert(hash, key.index());
        self.deadlines.schedule(key.index(), now + time);
        key
    }

    /// Removes a datagram from all tables and lists.
    fn take(&mut self, key: Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.deadlines.cancel(key.index());
        self.by_identity.remove(self.hash(&datagram.identity), key.index());
        self.memory -= datagram.memory;
        Some(datagram)
    }

    fn hash(&self, identity: &Identity) -> u32 {
        let Identity { source, destination, protocol, ident } = *identity;
        self.key.flow((source, (ident >> 16) as u16 ^ u16::from(protocol)), (destination, ident as u16))
    }
}

enum Fit {
    New,
    Known,
    Contradicts,
}

impl Datagram {
    fn fit(&self, part: &Part<'_>) -> Fit {
        let (begin, end) = (part.offset, part.offset + part.bytes.len());
        // The last part says how long the whole is; nothing may reach beyond, and another last part agree.
        let reach = self.parts.last_key_value().map_or(0, |(at, bytes)| *at as usize + bytes.len());
        let contradicts = match self.total {
            Some(total) => end > total || (!part.more && end != total),
            None => !part.more && end < reach,
        };
        if contradicts {
            return Fit::Contradicts;
        }
        let before = self.parts.range(..=begin as u32).next_back();
        if let Some((at, bytes)) = before {
            let known_end = *at as usize + bytes.len();
            if end <= known_end {
                return Fit::Known;
            }
            if begin < known_end {
                return Fit::Contradicts;
            }
        }
        match self.parts.range(begin as u32..).next() {
            Some((at, _)) if (*at as usize) < end => Fit::Contradicts,
            _ => Fit::New,
        }
    }

    fn put(&mut self, part: &Part<'_>) {
        self.received += part.bytes.len();
        self.ecn_seen |= 1 << part.ecn;
        if !part.more {
            self.total = Some(part.offset + part.bytes.len());
        }
        if let Some(header) = part.first {
            let quote = &part.packet[..part.packet.len().min(QUOTE_LEN)];
            self.first = Some(First { header, quote: quote.to_vec() });
        }
        self.parts.insert(part.offset as u32, part.bytes.to_vec());
    }

    fn is_complete(&self) -> bool {
        self.total == Some(self.received)
    }

    /// Writes the whole packet; `false` when its parts disagree on ECN in a way that no router causes.
    fn write(self, out: &mut Vec<u8>) -> bool {
        let Some(First { header, .. }) = self.first else { return false };
        let Some(ecn) = self.ecn(match header {
            FirstHeader::V4(header) => header.traffic_class,
            FirstHeader::V6(header) => header.traffic_class,
        }) else {
            return false;
        };
        out.clear();
        match header {
            FirstHeader::V4(header) => {
                out.resize(ipv4::Header::LEN, 0);
                ipv4::Header { traffic_class: ecn, ..header }.emit(self.received, out);
            }
            FirstHeader::V6(header) => {
                out.resize(ipv6::Header::LEN, 0);
                ipv6::Header { traffic_class: ecn, ..header }.emit(self.received, out);
            }
        }
        for bytes in self.parts.values() {
            out.extend_from_slice(bytes);
        }
        true
    }

    /// RFC 3168 §5.3: congestion that one part experienced the whole experienced; but parts that could not experience
    /// it do not go together with such a one.
    fn ecn(&self, traffic_class: u8) -> Option<u8> {
        const NOT_CAPABLE: u8 = 1 << 0;
        const EXPERIENCED: u8 = 1 << 3;
        match self.ecn_seen {
            seen if seen & EXPERIENCED == 0 => Some(traffic_class),
            seen if seen & NOT_CAPABLE == 0 => Some(traffic_class | 3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
