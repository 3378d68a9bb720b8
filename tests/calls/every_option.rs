//! Every option by its number, compared with a socket that the library does not know: the same result, the same
//! value told back, and a connection that works, or does not, alike.

use std::collections::BTreeSet;

use crate::harness::{Case, case, pin_host};
use crate::sys::raw::{BOTH, Way};
use crate::sys::{Address, Answer};

pub(crate) const CASES: &[Case] = &[
    case("socket_level_set_on_a_connection", || sweep(libc::SOL_SOCKET, libc::AF_INET, When::Connected))
        .within_seconds(180),
    case("socket_level_set_before", || sweep(libc::SOL_SOCKET, libc::AF_INET, When::Before))
        .within_seconds(180),
    case("socket_level_set_on_the_listener", || sweep(libc::SOL_SOCKET, libc::AF_INET, When::Listener))
        .within_seconds(180),
    case("tcp_level_set_on_a_connection", || sweep(libc::IPPROTO_TCP, libc::AF_INET, When::Connected))
        .within_seconds(180),
    case("tcp_level_set_before", || sweep(libc::IPPROTO_TCP, libc::AF_INET, When::Before))
        .within_seconds(180),
    case("tcp_level_set_on_the_listener", || sweep(libc::IPPROTO_TCP, libc::AF_INET, When::Listener))
        .within_seconds(180),
    case("ip_level", || {
        for when in [When::Connected, When::Before, When::Listener] {
            sweep(libc::IPPROTO_IP, libc::AF_INET, when);
        }
    })
    .within_seconds(180),
    case("ipv6_level", || {
        for when in [When::Connected, When::Before, When::Listener] {
            sweep(libc::IPPROTO_IPV6, libc::AF_INET6, when);
        }
    })
    .within_seconds(180),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    Listener,
    Connected,
}

/// What the program sees of one option.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    set: Option<Answer>,
    connected: Option<Answer>,
    told: Vec<Answer<Vec<u8>>>,
    /// After the connection has gone back to the kernel.
    told_on_host: Vec<Answer<Vec<u8>>>,
    sent: Option<Answer>,
    received: Option<Vec<u8>>,
    answered: Option<Vec<u8>>,
}

/// Sets each option of a level to several values of several lengths, both ways, and compares.
fn sweep(level: i32, family: i32, when: When) {
    let int = |value: i32| value.to_ne_bytes().to_vec();
    let mut values: Vec<Vec<u8>> = [0, 1, 2, 1000, -1].map(int).to_vec();
    values.extend([vec![], vec![1], vec![0; 8], [int(1), int(0)].concat()]);
    values.extend([[int(1), int(0), int(0), int(0)].concat(), b"lo\0\0\0\0\0\0".to_vec()]);
    let mut known = BTreeSet::new();
    for name in 0..=HIGHEST {
        for value in &values {
            if skipped(level, name) {
                continue;
            }
            let [library, past] = BOTH.map(|way| look(way, level, name, value, family, when));
            assert_eq!(library, past, "option {level}/{name} set to {value:?} {when:?}");
            if past.set == Some(Ok(0)) {
                known.insert(name);
            }
        }
    }
    assert!(known.len() > 15, "only {known:?} can be set");
}

/// Milliseconds after which nothing comes any more: longer than a cork or a delayed acknowledgement, and not as long as
/// TCP_DEFER_ACCEPT waits, on a busy machine too.
const PATIENCE: i32 = 600;

/// Above every option that this kernel knows.
const HIGHEST: i32 = 100;

fn look(way: Way, level: i32, name: i32, value: &[u8], family: i32, when: When) -> Seen {
    let mut seen = Seen::default();
    let (listener, port) = way.listener(family);
    let client = way.socket(family);
    match when {
        When::Before => seen.set = Some(way.set(client, level, name, value)),
        When::Listener => seen.set = Some(way.set(listener, level, name, value)),
        When::Connected => {}
    }
    seen.connected = Some(way.connect(client, &Address::loopback(family, port)));
    if seen.connected == Some(Ok(0)) {
        if way.poll(listener, libc::POLLIN, PATIENCE) == 0 {
            // Fast open, and an accept that waits for data.
            seen.sent = Some(way.send(client, b"x", libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL));
        }
        if way.poll(listener, libc::POLLIN, PATIENCE) != 0 {
            let server = way.accept(listener).expect("accept");
            let (own, other) = if when == When::Listener { (server, client) } else { (client, server) };
            if when == When::Connected {
                seen.set = Some(way.set(own, level, name, value));
            }
            talk(way, level, name, own, other, &mut seen);
            // Thousands of connections, and none of them waits in TIME_WAIT.
            let reset = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
            way.set(client, libc::SOL_SOCKET, libc::SO_LINGER, &reset).expect("SO_LINGER");
            way.close(client);
            way.close(server);
            way.close(listener);
            return seen;
        }
    }
    way.close(client);
    way.close(listener);
    seen
}

fn talk(way: Way, level: i32, name: i32, own: i32, other: i32, seen: &mut Seen) {
    let tell = || match is_fact(level, name) {
        true => vec![],
        false => [0, 1, 3, 4, 8, 16].map(|room| way.get(own, level, name, room)).to_vec(),
    };
    seen.told = tell();
    let sent = way.send(own, b"there", libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    seen.sent = Some(sent);
    seen.received = sent.ok().and_then(|_| take(way, other));
    let answered = way.send(other, b"and back", libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).ok();
    seen.answered = answered.and_then(|_| take(way, own));
    if way == Way::Library {
        pin_host(own);
    }
    seen.told_on_host = tell();
}

/// What comes within a moment, longer than a cork holds anything back.
fn take(way: Way, fd: i32) -> Option<Vec<u8>> {
    if way.poll(fd, libc::POLLIN, PATIENCE) & libc::POLLIN == 0 {
        return None;
    }
    let mut buffer = [0; 100];
    let count = way.recv(fd, &mut buffer, libc::MSG_DONTWAIT).ok()?;
    Some(buffer[..count].to_vec())
}

/// Values that differ from socket to socket, or from moment to moment.
fn is_fact(level: i32, name: i32) -> bool {
    const IP_PROTOCOL: i32 = 52;
    const SO_PEERNAME: i32 = 28;
    const SO_MEMINFO: i32 = 55;
    const SO_INCOMING_NAPI_ID: i32 = 56;
    match level {
        libc::SOL_SOCKET => matches!(
            name,
            libc::SO_COOKIE | libc::SO_INCOMING_CPU | SO_PEERNAME | SO_MEMINFO | SO_INCOMING_NAPI_ID
        ),
        // Round trips, windows and times.
        libc::IPPROTO_TCP => {
            matches!(
                name,
                libc::TCP_INFO
                    | libc::TCP_TIMESTAMP
                    | libc::TCP_CC_INFO
                    | libc::TCP_QUEUE_SEQ
                    | libc::TCP_QUICKACK
            )
        }
        // The local port, on a stream.
        libc::IPPROTO_IP => name == IP_PROTOCOL,
        _ => false,
    }
}

/// Packets with a routing header are dropped on the way: connect waits for ever.
fn skipped(level: i32, name: i32) -> bool {
    level == libc::IPPROTO_IPV6 && (54..60).contains(&name)
}
