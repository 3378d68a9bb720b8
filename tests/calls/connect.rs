//! Create and connect: blocking and not, refused, to oneself, over both families, backlogs.

use std::{ptr, thread};

use crate::data::Flow;
use crate::harness::{Case, Child, Environment, assert_on_pipe, case, environment, path, reason, skip};
use crate::sys::{self, Address, call, events, fails, wait};

pub(crate) const CASES: &[Case] = &[
    case("nonblocking_connect_in_progress_then_writable", || {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let (listener, port) = sys::listener(family);
            let fd = sys::socket(family);
            sys::set_nonblocking(fd, true);
            let to = Address::loopback(family, port);
            fails(sys::connect(fd, &to), libc::EINPROGRESS);
            assert_eq!(sys::poll_one(fd, libc::POLLOUT, -1), libc::POLLOUT);
            assert_eq!(sys::so_error(fd), 0);
            // The first call after the handshake collects its result, the next says that it is over.
            assert_eq!(sys::connect(fd, &to), Ok(0));
            fails(sys::connect(fd, &to), libc::EISCONN);
            let other = sys::accept(listener).expect("accept");
            exchange(fd, other);
        }
    }),
    case("nonblocking_connect_registered_in_epoll_before", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let (fd, set) = (sys::socket(libc::AF_INET), wait::epoll());
        sys::set_nonblocking(fd, true);
        wait::add(set, fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP);
        assert_eq!(wait::ready(set, -1), [(libc::EPOLLOUT | libc::EPOLLHUP, fd as u64)]);
        fails(sys::connect(fd, &Address::loopback(libc::AF_INET, port)), libc::EINPROGRESS);
        assert_eq!(wait::ready(set, -1), [(libc::EPOLLOUT, fd as u64)]);
        let other = sys::accept(listener).expect("accept");
        sys::write_all(other, b"hello");
        assert_eq!(wait::ready(set, -1), [(libc::EPOLLIN | libc::EPOLLOUT, fd as u64)]);
        assert_eq!(sys::read_exact(fd, 5), b"hello");
        sys::set_nonblocking(fd, false);
        exchange(fd, other);
    }),
    case("connected_with_the_first_bytes", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let to = Address::loopback(libc::AF_INET, port);
        let fd = sys::socket(libc::AF_INET);
        let first = |fd: i32, flags: i32| {
            let flags = libc::MSG_FASTOPEN | flags;
            call!(libc::sendto(fd, b"first".as_ptr().cast(), 5, flags, to.as_ptr(), to.length))
        };
        match first(fd, 0) {
            Err(sys::Errno(libc::EOPNOTSUPP)) => skip("net.ipv4.tcp_fastopen does not let clients use it"),
            sent => assert_eq!(sent, Ok(5)),
        }
        let other = sys::accept(listener).expect("accept");
        assert_eq!(sys::read_exact(other, 5), b"first");
        fails(first(fd, 0), libc::EISCONN);
        exchange(fd, other);
        assert_on_pipe(fd);
        assert_on_pipe(other);
        fails(first(fd, 0), libc::EISCONN);
        exchange(fd, other);
        // Without a cookie of the server's nothing goes with the handshake.
        let fd = sys::socket(libc::AF_INET);
        sys::set_nonblocking(fd, true);
        fails(first(fd, libc::MSG_DONTWAIT), libc::EINPROGRESS);
        let other = sys::accept(listener).expect("accept");
        sys::set_nonblocking(fd, false);
        exchange(fd, other);
        assert_on_pipe(fd);
    }),
    case("connect_again_on_a_connected_socket", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let fd = sys::connected(libc::AF_INET, port);
        let other = sys::accept(listener).expect("accept");
        for _ in 0..3 {
            fails(sys::connect(fd, &Address::loopback(libc::AF_INET, port)), libc::EISCONN);
            exchange(fd, other);
        }
    }),
    case("refused_blocking", || {
        let port = unused_port();
        let fd = sys::socket(libc::AF_INET);
        fails(sys::connect(fd, &Address::loopback(libc::AF_INET, port)), libc::ECONNREFUSED);
        assert_eq!(sys::so_error(fd), 0);
        fails(sys::write(fd, b"x"), libc::EPIPE);
        fails(sys::read(fd, &mut [0]), libc::ENOTCONN);
        // The descriptor can be used for another try.
        let (listener, port) = sys::listener(libc::AF_INET);
        sys::connect(fd, &Address::loopback(libc::AF_INET, port)).expect("connect");
        exchange(fd, sys::accept(listener).expect("accept"));
    }),
    case("refused_nonblocking", || {
        let port = unused_port();
        let fd = sys::socket(libc::AF_INET);
        sys::set_nonblocking(fd, true);
        fails(sys::connect(fd, &Address::loopback(libc::AF_INET, port)), libc::EINPROGRESS);
        let expected = libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;
        let mask = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        assert_eq!(sys::poll_one(fd, mask, -1), expected);
        assert_eq!(sys::so_error(fd), libc::ECONNREFUSED);
        assert_eq!(sys::so_error(fd), 0);
    }),
    case("connected_to_itself", || {
        let fd = sys::socket(libc::AF_INET);
        sys::bind(fd, &Address::loopback(libc::AF_INET, 0)).expect("bind");
        let own = sys::getsockname(fd).expect("getsockname");
        sys::connect(fd, &own).expect("connect");
        assert_eq!(sys::getpeername(fd), Ok(own));
        let (mut out, mut back) = (Flow::new(1), Flow::new(1));
        for size in [1, 100, 1000, 30_000, 60_000] {
            out.write(fd, size, size);
            back.read(fd, size, size);
        }
        if environment() == Environment::Pipe {
            assert_eq!((path(fd), reason(fd)), (Some(0), Some(28)));
        }
        fails(sys::recv(fd, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
        sys::shutdown(fd, libc::SHUT_WR).expect("shutdown");
        assert_eq!(sys::read(fd, &mut [0]), Ok(0));
    }),
    case("dual_stack_listener_sees_a_mapped_peer", || {
        let (listener, port) = sys::listener(sys::DUAL_STACK);
        let client = sys::connected(libc::AF_INET, port);
        let (mut from, mut length) = (Address::empty(), size_of::<libc::sockaddr_storage>() as u32);
        let server = call!(libc::accept(listener, from.as_mut_ptr(), &mut length)).expect("accept") as i32;
        from.length = length;
        let client_port = sys::getsockname(client).expect("getsockname").port();
        assert_eq!(from, Address::mapped(client_port));
        assert_eq!(sys::getpeername(server), Ok(Address::mapped(client_port)));
        assert_eq!(sys::getsockname(server), Ok(Address::mapped(port)));
        assert_eq!(sys::getpeername(client), Ok(Address::loopback(libc::AF_INET, port)));
        exchange(client, server);
        // And an IPv6 socket that connects to a mapped address.
        let client = sys::socket(libc::AF_INET6);
        sys::connect(client, &Address::mapped(port)).expect("connect");
        exchange(client, sys::accept(listener).expect("accept"));
    }),
    case("accept_addresses_are_cut_to_the_buffer", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let client = sys::connected(libc::AF_INET, port);
        let mut bytes = [0xee_u8; 16];
        let mut length = 4;
        call!(libc::accept(listener, bytes.as_mut_ptr().cast(), &mut length)).expect("accept");
        assert_eq!(length, 16, "the length it would have had");
        let port = sys::getsockname(client).expect("getsockname").port().to_be_bytes();
        assert_eq!(bytes[..4], [2, 0, port[0], port[1]]);
        assert_eq!(bytes[4..], [0xee; 12]);
        let mut length = 4;
        call!(libc::getpeername(client, bytes.as_mut_ptr().cast(), &mut length)).expect("getpeername");
        assert_eq!((length, bytes[4]), (16, 0xee));
        let mut length = -1_i32 as u32;
        let pointer = bytes.as_mut_ptr().cast();
        fails(call!(libc::getsockname(client, pointer, &mut length)), libc::EINVAL);
    }),
    case("client_writes_and_closes_before_accept", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        for size in [0, 1, 1000, 100_000] {
            let client = sys::connected(libc::AF_INET, port);
            Flow::new(1).write(client, size, 10_000);
            sys::close(client).expect("close");
            let server = sys::accept(listener).expect("accept");
            assert_eq!(Flow::new(1).read_to_end(server, 3000), size);
            sys::close(server).expect("close");
        }
    }),
    case("many_clients_wait_in_the_backlog", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let clients: Vec<_> = (0..50).map(|_| sys::connected(libc::AF_INET, port)).collect();
        for (seed, &client) in clients.iter().enumerate() {
            Flow::new(seed).write(client, 5000, 500);
        }
        let servers: Vec<_> = clients.iter().map(|_| sys::accept(listener).expect("accept")).collect();
        for (seed, (client, server)) in clients.into_iter().zip(servers).enumerate() {
            assert_eq!(sys::getpeername(server), sys::getsockname(client));
            Flow::new(seed).read(server, 5000, 500);
            exchange(client, server);
        }
    }),
    case("listener_states", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        sys::set_nonblocking(listener, true);
        fails(sys::accept(listener), libc::EAGAIN);
        assert_eq!(events(listener, libc::POLLIN | libc::POLLOUT), 0);
        fails(sys::read(listener, &mut [0]), libc::ENOTCONN);
        fails(sys::send(listener, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
        fails(sys::getpeername(listener), libc::ENOTCONN);
        fails(sys::connect(listener, &Address::loopback(libc::AF_INET, port)), libc::EISCONN);
        let other = sys::socket(libc::AF_INET);
        fails(sys::bind(other, &Address::loopback(libc::AF_INET, port)), libc::EADDRINUSE);
        let client = sys::connected(libc::AF_INET, port);
        assert_eq!(sys::poll_one(listener, libc::POLLIN, -1), libc::POLLIN);
        let server = sys::accept(listener).expect("accept");
        assert!(!sys::is_nonblocking(server), "not inherited");
        exchange(client, server);
        fails(sys::accept(server), libc::EINVAL);
        sys::listen(listener, 5).expect("again");
        sys::shutdown(listener, libc::SHUT_RD).expect("shutdown");
        fails(sys::accept(listener), libc::EINVAL);
    }),
    case("unconnected_socket_states", || {
        let fd = sys::socket(libc::AF_INET);
        fails(sys::read(fd, &mut [0]), libc::ENOTCONN);
        fails(sys::recv(fd, &mut [0], libc::MSG_PEEK), libc::ENOTCONN);
        fails(sys::send(fd, b"x", libc::MSG_NOSIGNAL), libc::EPIPE);
        fails(sys::getpeername(fd), libc::ENOTCONN);
        fails(sys::shutdown(fd, libc::SHUT_WR), libc::ENOTCONN);
        fails(sys::accept(fd), libc::EINVAL);
        assert_eq!(sys::getsockname(fd).expect("getsockname").port(), 0);
        assert_eq!(events(fd, libc::POLLIN | libc::POLLOUT), libc::POLLOUT | libc::POLLHUP);
    }),
    case("disconnect_by_unspec_and_connect_elsewhere", || {
        let (first, second) = (sys::listener(libc::AF_INET), sys::listener(libc::AF_INET));
        let fd = sys::connected(libc::AF_INET, first.1);
        let other = sys::accept(first.0).expect("accept");
        exchange(fd, other);
        let mut nowhere = Address::loopback(libc::AF_INET, 0);
        // SAFETY: the family is the first field of every address.
        unsafe { (*nowhere.as_mut_ptr()).sa_family = libc::AF_UNSPEC as _ };
        sys::connect(fd, &nowhere).expect("disconnect");
        fails(sys::getpeername(fd), libc::ENOTCONN);
        sys::until(|| events(other, libc::POLLIN) & libc::POLLIN != 0);
        fails(sys::read(other, &mut [0]), libc::ECONNRESET);
        sys::connect(fd, &Address::loopback(libc::AF_INET, second.1)).expect("connect");
        exchange(fd, sys::accept(second.0).expect("accept"));
    }),
    case("blocking_accept_in_another_process", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        let child = Child::run(|| {
            for _ in 0..20 {
                let fd = sys::accept(listener).expect("accept");
                Flow::new(1).read(fd, 5000, 500);
                Flow::new(2).write(fd, 5000, 500);
                assert_eq!(sys::read(fd, &mut [0]), Ok(0));
                sys::close(fd).expect("close");
            }
        });
        for _ in 0..20 {
            let fd = sys::connected(libc::AF_INET, port);
            Flow::new(1).write(fd, 5000, 500);
            Flow::new(2).read(fd, 5000, 500);
            sys::close(fd).expect("close");
        }
        child.join();
    }),
    case("several_threads_accept_from_one_listener", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let fd = sys::accept(listener).expect("accept");
                        Flow::new(1).read(fd, 2000, 500);
                        Flow::new(2).write(fd, 2000, 500);
                        sys::close(fd).expect("close");
                    }
                });
            }
            for _ in 0..100 {
                let fd = sys::connected(libc::AF_INET, port);
                Flow::new(1).write(fd, 2000, 500);
                assert_eq!(Flow::new(2).read_to_end(fd, 500), 2000);
                sys::close(fd).expect("close");
            }
        });
    }),
    case("unusable_addresses", || {
        let fd = sys::socket(libc::AF_INET);
        let to = Address::loopback(libc::AF_INET, 1);
        fails(call!(libc::connect(fd, to.as_ptr(), 3)), libc::EINVAL);
        fails(sys::connect(fd, &Address::loopback(libc::AF_INET6, 1)), libc::EAFNOSUPPORT);
        fails(call!(libc::connect(fd, ptr::null(), 16)), libc::EFAULT);
        fails(call!(libc::bind(fd, ptr::null(), 16)), libc::EFAULT);
        fails(call!(libc::socket(libc::AF_INET, 77, 0)), libc::EINVAL);
        fails(call!(libc::socket(9999, libc::SOCK_STREAM, 0)), libc::EAFNOSUPPORT);
        fails(
            call!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP)),
            libc::EPROTONOSUPPORT,
        );
    }),
    case("datagrams_and_unix_sockets_stay_as_they_are", || {
        let a = call!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)).expect("socket") as i32;
        let b = call!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)).expect("socket") as i32;
        sys::bind(a, &Address::loopback(libc::AF_INET, 0)).expect("bind");
        sys::connect(b, &sys::getsockname(a).expect("getsockname")).expect("connect");
        for size in [0, 1, 300, 9000] {
            assert_eq!(sys::write(b, &vec![5; size]), Ok(size));
            assert_eq!(sys::recv(a, &mut [0; 5], libc::MSG_TRUNC), Ok(size), "datagrams keep their length");
        }
        let (a, b) = sys::socketpair();
        exchange(a, b);
    }),
];

fn exchange(a: i32, b: i32) {
    let (mut there, mut back) = (Flow::new(1), Flow::new(2));
    for size in [1, 100, 5000, 40_000] {
        there.write(a, size, size);
        there = Flow { position: there.position - size, ..there };
        there.read(b, size, size);
        back.write(b, size, size);
        back = Flow { position: back.position - size, ..back };
        back.read(a, size, size);
    }
    if sys::getpeername(a).is_ok_and(|name| name.family() != libc::AF_UNIX) {
        assert_on_pipe(a);
        assert_on_pipe(b);
    }
}

/// A port that was just in use, so that nobody has it now.
fn unused_port() -> u16 {
    let (listener, port) = sys::listener(libc::AF_INET);
    sys::close(listener).expect("close");
    port
}
