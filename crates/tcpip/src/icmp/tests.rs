use super::*;
use crate::wire::icmp6;
use core::net::{Ipv4Addr, Ipv6Addr};

#[test]
fn ipv4_codes_mean_what_linux_makes_of_them() {
    let expected = [
        (ErrorKind::NetUnreachable, false),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::ProtocolUnreachable, true),
        (ErrorKind::PortUnreachable, true),
        (ErrorKind::TooBig { mtu: 1400 }, false),
        (ErrorKind::SourceRouteFailed, false),
        (ErrorKind::NetUnreachable, true),
        (ErrorKind::HostDown, true),
        (ErrorKind::HostIsolated, true),
        (ErrorKind::NetUnreachable, true),
        (ErrorKind::HostUnreachable, true),
        (ErrorKind::NetUnreachable, false),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::HostUnreachable, true),
        (ErrorKind::HostUnreachable, true),
        (ErrorKind::HostUnreachable, true),
    ];
    for (code, expected) in expected.into_iter().enumerate() {
        let message = icmp4::Message::Unreachable { code: code as u8, mtu: 1400, original: &[] };
        assert_eq!(ErrorKind::of_v4(&message), Some(expected), "code {code}");
    }
    assert_eq!(ErrorKind::of_v4(&icmp4::Message::SourceQuench { original: &[] }), None);
}

#[test]
fn ipv6_codes_mean_what_linux_makes_of_them() {
    let expected = [
        (ErrorKind::NetUnreachable, false),
        (ErrorKind::Prohibited, true),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::PortUnreachable, true),
        (ErrorKind::Prohibited, true),
        (ErrorKind::Prohibited, true),
    ];
    for (code, expected) in expected.into_iter().enumerate() {
        let message = icmp6::Message::Unreachable { code: code as u8, original: &[] };
        assert_eq!(ErrorKind::of_v6(&message), Some(expected), "code {code}");
    }
}

#[test]
fn a_quote_of_eight_bytes_names_the_connection() {
    let mut original = alloc::vec![0; 28];
    let header = ipv4::Header::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), protocol::TCP);
    header.emit(100, &mut original);
    original[20..].copy_from_slice(&[0, 80, 1, 0, 1, 2, 3, 4]);
    let error = IcmpError::about(&original, ErrorKind::HostUnreachable, false).unwrap();
    assert_eq!(error.local, "10.0.0.1:80".parse().unwrap());
    assert_eq!(error.remote, "10.0.0.2:256".parse().unwrap());
    assert_eq!(error.seq, SeqNumber::new(0x0102_0304));
    let about = |bytes: &[u8]| IcmpError::about(bytes, ErrorKind::HostUnreachable, false);
    for len in 0..28 {
        assert_eq!(about(&original[..len]), Err(DropReason::IcmpOriginal), "{len}");
    }
    original[7] = 1;
    assert_eq!(about(&original), Err(DropReason::IcmpOriginal), "a later fragment has no ports");
}

#[test]
fn a_quoted_ipv6_packet_is_walked_to_its_transport() {
    let mut original = alloc::vec![0; 40];
    let header = ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, protocol::IPV6_DESTINATION);
    header.emit(100, &mut original);
    original.extend([protocol::UDP, 0, 1, 4, 0, 0, 0, 0, 0, 80, 1, 0, 0, 9, 0, 0]);
    let error = IcmpError::about(&original, ErrorKind::TooBig { mtu: 1280 }, false).unwrap();
    assert_eq!((error.protocol, error.local), (protocol::UDP, "[::1]:80".parse().unwrap()));
}

#[test]
fn errors_are_limited_for_a_destination_and_in_all() {
    let mut limit = RateLimit::new(HashKey::new([1, 2]));
    let host = |last: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last));
    let allowed = |limit: &mut RateLimit, now, last| limit.allow(now, host(last));
    let begin = Instant::ZERO;
    assert_eq!((0..100).filter(|_| allowed(&mut limit, begin, 1)).count(), 6);
    let later = Instant::from_millis(2500);
    assert_eq!((0..100).filter(|_| allowed(&mut limit, later, 1)).count(), 2, "one a second");
    let later = Instant::from_secs(100);
    let burst = (0..1000).filter(|last| allowed(&mut limit, later, *last)).count();
    assert!((35..=70).contains(&burst), "{burst}: 50, about");
    let next = later + Duration::from_millis(10);
    let refilled = (1000..2000).filter(|last| allowed(&mut limit, next, *last)).count();
    assert!((5..=20).contains(&refilled), "{refilled}: one each millisecond, about");
}

#[test]
fn how_many_errors_are_left_cannot_be_counted() {
    // CVE-2020-25705: one who fills the limit, and sees how much of it was left, must not learn what others got.
    let key = |secret: u64| HashKey::new([secret, 2]);
    let host = |last: u64| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last as u32));
    let mut limit = RateLimit::new(key(1));
    let bursts: alloc::vec::Vec<usize> = (1..=200_u64)
        .map(|second| {
            let now = Instant::from_secs(second * 100);
            (0..1000).filter(|last| limit.allow(now, host(second * 1000 + last))).count()
        })
        .collect();
    let mean = bursts.iter().sum::<usize>() as f64 / bursts.len() as f64;
    assert!((48.0..53.0).contains(&mean), "{mean}: 50 in the mean");
    let exact = bursts.iter().filter(|&&burst| burst == 50).count();
    assert!(exact < bursts.len() / 4, "{exact} of {} bursts were exactly 50", bursts.len());
    let first = |secret| {
        let mut limit = RateLimit::new(key(secret));
        (0..1000).filter(|last| limit.allow(Instant::from_secs(9), host(*last))).count()
    };
    let firsts: alloc::collections::BTreeSet<usize> = (0..50).map(first).collect();
    assert!(firsts.len() > 5, "another secret, another count: {firsts:?}");
}
