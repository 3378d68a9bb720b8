use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn reassembly() -> Reassembly {
    Reassembly::new(Config::default(), HashKey::new([1, 2]))
}

fn header(ident: u16, offset: usize, more: bool) -> ipv4::Header {
    ipv4::Header {
        ident,
        dont_fragment: false,
        more_fragments: more,
        fragment_offset: offset as u16,
        ..ipv4::Header::new(THERE, HERE, 17)
    }
}

fn add(
    reassembly: &mut Reassembly,
    now: u64,
    ident: u16,
    (offset, more): (usize, bool),
    bytes: &[u8],
) -> Result<Option<Vec<u8>>, DropReason> {
    let header = header(ident, offset, more);
    let mut packet = alloc::vec![0; ipv4::Header::LEN];
    header.emit(bytes.len(), &mut packet);
    packet.extend_from_slice(bytes);
    let mut out = Vec::new();
    let complete = reassembly.add_v4(Instant::from_secs(now), &header, &packet, bytes, &mut out)?;
    Ok(complete.then(|| {
        let (header, payload) = ipv4::Header::parse(&out).unwrap();
        assert!(!header.is_fragment());
        payload.to_vec()
    }))
}

#[test]
fn parts_of_different_packets_do_not_mix() {
    let mut reassembly = reassembly();
    assert_eq!(add(&mut reassembly, 0, 1, (0, true), &[1; 8]), Ok(None));
    assert_eq!(add(&mut reassembly, 0, 2, (8, false), &[2; 8]), Ok(None));
    assert_eq!(add(&mut reassembly, 0, 1, (8, false), &[1; 3]), Ok(Some([1; 11].to_vec())));
    assert_eq!(reassembly.len(), 1);
}

#[test]
fn a_part_that_comes_twice_is_ignored() {
    let mut reassembly = reassembly();
    assert_eq!(add(&mut reassembly, 0, 1, (8, false), &[2; 8]), Ok(None));
    let memory = reassembly.memory();
    assert_eq!(add(&mut reassembly, 0, 1, (8, false), &[2; 8]), Ok(None));
    assert_eq!(reassembly.memory(), memory);
    let whole = [[1; 8], [2; 8]].concat();
    assert_eq!(add(&mut reassembly, 0, 1, (0, true), &[1; 8]), Ok(Some(whole)));
}

#[test]
fn parts_that_overlap_take_the_packet_with_them() {
    for (offset, more, len) in [(0, true, 16), (8, true, 16), (16, true, 8), (0, false, 8)] {
        let mut reassembly = reassembly();
        assert_eq!(add(&mut reassembly, 0, 1, (8, true), &[1; 8]), Ok(None));
        assert_eq!(add(&mut reassembly, 0, 1, (24, false), &[1; 8]), Ok(None));
        let bytes = alloc::vec![2; len];
        let result = add(&mut reassembly, 0, 1, (offset, more), &bytes);
        if (offset, more) == (16, true) {
            assert_eq!(result, Ok(None), "it fits between");
            continue;
        }
        assert_eq!(result, Err(DropReason::FragmentOverlap), "{offset} {more}");
        assert!(reassembly.is_empty());
        assert_eq!((reassembly.memory(), reassembly.poll_timeout()), (0, None));
    }
}

#[test]
fn nothing_may_come_behind_the_last_part() {
    let mut reassembly = reassembly();
    assert_eq!(add(&mut reassembly, 0, 1, (8, false), &[1; 8]), Ok(None));
    assert_eq!(add(&mut reassembly, 0, 1, (16, true), &[1; 8]), Err(DropReason::FragmentOverlap));
    assert_eq!(add(&mut reassembly, 0, 2, (16, true), &[1; 8]), Ok(None));
    assert_eq!(add(&mut reassembly, 0, 2, (8, false), &[1; 8]), Err(DropReason::FragmentOverlap));
}

#[test]
fn a_packet_longer_than_any_is_refused() {
    let mut reassembly = reassembly();
    let result = add(&mut reassembly, 0, 1, (65_528, false), &[1; 8]);
    assert_eq!(result, Err(DropReason::FragmentInvalid));
    assert_eq!(add(&mut reassembly, 0, 1, (0, true), &[1; 7]), Err(DropReason::FragmentInvalid));
    assert!(reassembly.is_empty());
}

#[test]
fn memory_has_a_cap_and_time_frees_it() {
    let config = Config { memory: 10_000, ..Config::default() };
    let mut reassembly = Reassembly::new(config, HashKey::new([1, 2]));
    let mut taken = 0;
    for ident in 0..1000 {
        match add(&mut reassembly, 0, ident, (8, true), &[0; 8]) {
            Ok(None) => taken += 1,
            other => assert_eq!(other, Err(DropReason::FragmentMemory)),
        }
        assert!(reassembly.memory() <= 10_000);
    }
    assert_eq!(reassembly.len(), taken);
    assert!((20..100).contains(&taken), "{taken}");
    // A part for a packet that is begun is refused as well.
    assert_eq!(add(&mut reassembly, 29, 0, (16, true), &[0; 800]), Err(DropReason::FragmentMemory));
    assert!(reassembly.expire(Instant::from_secs(29)).is_none());
    let mut expired = 0;
    while let Some(Expired { first }) = reassembly.expire(Instant::from_secs(31)) {
        assert!(first.is_none(), "without the first part nobody is told");
        expired += 1;
    }
    assert_eq!((expired, reassembly.memory()), (taken, 0));
    assert_eq!(add(&mut reassembly, 31, 0, (16, true), &[0; 800]), Ok(None));
}

#[test]
fn the_sender_is_told_with_the_first_part_as_it_came() {
    let mut reassembly = reassembly();
    add(&mut reassembly, 0, 1, (0, true), &[7; 16]).unwrap();
    let expired = reassembly.expire(Instant::from_secs(31)).unwrap();
    let first = expired.first.unwrap();
    assert_eq!(first.len(), 36);
    assert!(ipv4::Header::parse(&first).unwrap().0.more_fragments);
}

#[test]
fn congestion_of_one_part_is_that_of_the_whole_unless_it_cannot_be() {
    for (parts, whole) in [([2, 3], Some(3)), ([2, 2], Some(2)), ([1, 2], Some(1)), ([0, 3], None)] {
        let mut reassembly = reassembly();
        let mut out = Vec::new();
        let mut result = Ok(false);
        for (number, ecn) in parts.into_iter().enumerate() {
            let header = ipv4::Header { traffic_class: 0x20 | ecn, ..header(1, number * 8, number == 0) };
            result = reassembly.add_v4(Instant::ZERO, &header, &[], &[0; 8], &mut out);
        }
        match whole {
            Some(ecn) => {
                assert_eq!(result, Ok(true));
                assert_eq!(ipv4::Header::parse(&out).unwrap().0.traffic_class, 0x20 | ecn);
            }
            None => assert_eq!(result, Err(DropReason::FragmentInvalid)),
        }
    }
}

proptest! {
    /// Any order, some parts twice: the packet comes out once, and nothing stays.
    #[test]
    fn a_packet_comes_together_from_its_parts_in_any_order(
        payload in prop::collection::vec(any::<u8>(), 9..3000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        order in any::<u64>(),
        v6: bool,
    ) {
        let units = payload.len().div_ceil(8);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(units) * 8).chain([0]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts: Vec<(usize, usize)> = cuts.iter().copied()
            .zip(cuts.iter().copied().skip(1).chain([payload.len()])).collect();
        prop_assume!(parts.len() > 1);
        let mut random = order | 1;
        for place in (1..parts.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            parts.swap(place, (random >> 33) as usize % (place + 1));
        }
        let last = parts.len() - 1;
        let again = parts[0];
        parts.insert(last, again);
        let mut reassembly = reassembly();
        let mut out = Vec::new();
        let mut complete = 0;
        for (begin, end) in parts {
            let more = end < payload.len();
            let bytes = &payload[begin..end];
            complete += u32::from(if v6 {
                let header = ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 44);
                let fragment = ipv6::Fragment { next_header: 17, offset: begin as u16, more, ident: 5 };
                reassembly.add_v6(Instant::ZERO, &header, fragment, &[], bytes, &mut out).unwrap()
            } else {
                reassembly.add_v4(Instant::ZERO, &header(5, begin, more), &[], bytes, &mut out).unwrap()
            });
        }
        prop_assert_eq!(complete, 1);
        let head = if v6 { ipv6::Header::LEN } else { ipv4::Header::LEN };
        prop_assert_eq!(&out[head..], &payload[..]);
        prop_assert!(reassembly.is_empty());
        prop_assert_eq!((reassembly.memory(), reassembly.poll_timeout()), (0, None));
    }

    /// Whatever comes: the cap holds, and once all time is over nothing is left.
    #[test]
    fn any_parts_stay_within_the_cap(
        parts in prop::collection::vec((0u16..4, 0usize..40, any::<bool>(), 1usize..60), 0..200),
    ) {
        let config = Config { memory: 4000, ..Config::default() };
        let mut reassembly = Reassembly::new(config, HashKey::new([1, 2]));
        for (ident, unit, more, len) in parts {
            let _ = add(&mut reassembly, 0, ident, (unit * 8, more), &alloc::vec![ident as u8; len]);
            prop_assert!(reassembly.memory() <= 4000);
        }
        while reassembly.expire(Instant::from_secs(1000)).is_some() {}
        prop_assert!(reassembly.is_empty());
        prop_assert_eq!(reassembly.memory(), 0);
    }
}
