use super::*;
use proptest::prelude::*;

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn sockets() -> Sockets {
    Sockets::new(HashKey::new([1, 2]))
}

fn bound(sockets: &mut Sockets, local: &str) -> UdpId {
    sockets.bind(end(local), Options::default()).unwrap()
}

fn deliver(sockets: &mut Sockets, from: &str, to: &str, bytes: &[u8]) -> Result<(), DropReason> {
    sockets.deliver(end(from), end(to), 0, bytes, 0)
}

#[test]
fn the_most_particular_socket_gets_the_datagram() {
    let mut sockets = sockets();
    let shared = Options { reuse_address: true, ..Options::default() };
    let any = sockets.bind(end("0.0.0.0:7"), shared).unwrap();
    let address = sockets.bind(end("10.0.0.1:7"), shared).unwrap();
    let connected = sockets.bind(end("10.0.0.1:7"), shared).unwrap();
    sockets.connect(connected, end("10.0.0.1:0").ip(), end("10.0.0.2:9")).unwrap();
    for (from, to, socket) in [
        ("10.0.0.2:9", "10.0.0.1:7", connected),
        ("10.0.0.2:8", "10.0.0.1:7", address),
        ("10.0.0.2:9", "10.0.0.3:7", any),
    ] {
        deliver(&mut sockets, from, to, b"x").unwrap();
        assert_eq!(sockets.poll_readable(), Some(socket), "{from} {to}");
        assert_eq!(sockets.receive(socket).unwrap().from, end(from));
    }
    sockets.close(connected).unwrap();
    deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b"x").unwrap();
    assert!(sockets.is_readable(address));
}

#[test]
fn a_port_is_had_once_unless_both_allow_it() {
    for (first, second, clash) in [
        ("0.0.0.0:7", "0.0.0.0:7", true),
        ("0.0.0.0:7", "10.0.0.1:7", true),
        ("10.0.0.1:7", "0.0.0.0:7", true),
        ("10.0.0.1:7", "10.0.0.2:7", false),
        ("10.0.0.1:7", "10.0.0.1:8", false),
        ("[::]:7", "0.0.0.0:7", true),
        ("[fd00::1]:7", "0.0.0.0:7", false),
        ("10.0.0.1:7", "[::]:7", true),
    ] {
        let mut sockets = sockets();
        bound(&mut sockets, first);
        let result = sockets.bind(end(second), Options::default());
        assert_eq!(result == Err(UdpError::AddressInUse), clash, "{first} {second}");
        assert_eq!(sockets.sockets.len(), 2 - usize::from(clash));
    }
    let mut sockets = sockets();
    let only_v6 = Options { only_v6: true, ..Options::default() };
    sockets.bind(end("[::]:7"), only_v6).unwrap();
    let v4 = bound(&mut sockets, "0.0.0.0:7");
    deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b"").unwrap();
    assert!(sockets.is_readable(v4));
}

#[test]
fn a_socket_of_both_versions_takes_ipv4() {
    let mut sockets = sockets();
    let both = bound(&mut sockets, "[::]:7");
    deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b"four").unwrap();
    deliver(&mut sockets, "[fd00::2]:9", "[fd00::1]:7", b"six").unwrap();
    assert_eq!(sockets.receive(both).unwrap().bytes, b"four");
    assert_eq!(sockets.receive(both).unwrap().bytes, b"six");
    let v4 = bound(&mut sockets, "0.0.0.0:8");
    let refused = sockets.connect(v4, end("[fd00::1]:0").ip(), end("[fd00::2]:1"));
    assert_eq!(refused, Err(UdpError::WrongVersion));
}

#[test]
fn a_port_that_nobody_cares_about_is_a_free_ephemeral_one() {
    let mut sockets = sockets();
    let mut ports: Vec<u16> = (0..200)
        .map(|_| {
            let id = bound(&mut sockets, "0.0.0.0:0");
            sockets.local(id).unwrap().port()
        })
        .collect();
    assert!(ports.iter().all(|port| EPHEMERAL.contains(port)));
    assert!(!ports.is_sorted(), "a stranger cannot guess the next");
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 200);
}

#[test]
fn a_queue_has_a_cap_and_takes_again_when_it_was_read() {
    let mut sockets = sockets();
    let small = Options { receive_buffer: 1000, ..Options::default() };
    let id = sockets.bind(end("10.0.0.1:7"), small).unwrap();
    let mut taken = 0;
    while deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b"").is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 1000 / DATAGRAM_COST, "datagrams without bytes count too");
    let full = deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b"");
    assert_eq!(full, Err(DropReason::UdpQueueFull));
    sockets.receive(id).unwrap();
    assert_eq!(deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b""), Ok(()));
}

fn error(local: &str, kind: ErrorKind, fatal: bool) -> IcmpError {
    let (local, remote) = (end(local), end("10.0.0.2:9"));
    IcmpError { local, remote, protocol: 17, seq: crate::seq::SeqNumber::new(0), kind, fatal }
}

#[test]
fn errors_reach_connected_sockets_only() {
    let mut sockets = sockets();
    let connected = bound(&mut sockets, "10.0.0.1:7");
    let plain = bound(&mut sockets, "10.0.0.1:8");
    sockets.connect(connected, end("10.0.0.1:0").ip(), end("10.0.0.2:9")).unwrap();
    let refused = ErrorKind::PortUnreachable;
    assert!(sockets.report(&error("10.0.0.1:7", refused, true)));
    assert!(sockets.report(&error("10.0.0.1:8", refused, true)));
    assert!(!sockets.report(&error("10.0.0.1:9", refused, true)));
    assert_eq!(sockets.poll_readable(), Some(connected));
    assert_eq!(sockets.take_error(connected), Err(UdpError::Reported(refused)));
    assert_eq!(sockets.take_error(connected), Ok(()));
    assert_eq!(sockets.receive(plain), Err(UdpError::WouldBlock));
}

#[test]
fn errors_that_may_pass_are_not_told_but_a_datagram_that_is_too_long_is() {
    let mut sockets = sockets();
    let connected = bound(&mut sockets, "10.0.0.1:7");
    sockets.connect(connected, end("10.0.0.1:0").ip(), end("10.0.0.2:9")).unwrap();
    assert!(sockets.report(&error("10.0.0.1:7", ErrorKind::HostUnreachable, false)));
    assert!(!sockets.is_readable(connected));
    let too_big = ErrorKind::TooBig { mtu: 1000 };
    assert!(sockets.report(&error("10.0.0.1:7", too_big, false)));
    assert_eq!(sockets.receive(connected), Err(UdpError::Reported(too_big)));
}

#[test]
fn connecting_elsewhere_leaves_the_old_flow() {
    let mut sockets = sockets();
    let id = bound(&mut sockets, "0.0.0.0:7");
    for there in ["10.0.0.2:9", "10.0.0.3:9"] {
        sockets.connect(id, end("10.0.0.1:0").ip(), end(there)).unwrap();
        assert_eq!(deliver(&mut sockets, there, "10.0.0.1:7", b""), Ok(()));
    }
    assert_eq!(deliver(&mut sockets, "10.0.0.2:9", "10.0.0.1:7", b""), Err(DropReason::UdpPort));
}

proptest! {
    #[test]
    fn nothing_is_left_when_all_sockets_are_closed(steps in prop::collection::vec((0u16..6, 0u8..4), 0..60)) {
        let mut sockets = sockets();
        let mut open = Vec::new();
        for (port, kind) in steps {
            let local = match kind {
                0 => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                1 => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
                _ => SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), port),
            };
            if let Ok(id) = sockets.bind(local, Options::default()) {
                if kind == 3 {
                    sockets.connect(id, Ipv4Addr::new(10, 0, 0, 1).into(), end("10.0.0.2:5")).unwrap();
                }
                open.push(id);
            }
        }
        for id in open {
            prop_assert_eq!(sockets.close(id), Ok(()));
            prop_assert_eq!(sockets.close(id), Err(UdpError::Closed));
        }
        prop_assert!(sockets.sockets.is_empty());
        prop_assert!(sockets.by_local.is_empty() && sockets.by_port.is_empty() && sockets.by_flow.is_empty());
    }
}
