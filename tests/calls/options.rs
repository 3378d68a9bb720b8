//! Socket options, ioctl and fcntl: what is set is what is answered, on both paths.

use std::ptr;

use crate::data::Flow;
use crate::harness::{Case, Child, assert_on_pipe, case, dialogue};
use crate::sys::{self, call, events, fails};

pub(crate) const CASES: &[Case] = &[
    case("what_is_left_is_told_with_each_message", || {
        const TCP_INQ: i32 = 36;
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 1000, 100);
        Flow::new(1).read(b, 1000, 100);
        sys::write_all(a, &[7; 1000]);
        sys::until(|| sys::readable(b) == 1000);
        sys::setsockopt(b, libc::IPPROTO_TCP, TCP_INQ, 1).expect("TCP_INQ");
        // The value, with what was given and what was filled in, and with room for a part of it only.
        for (taken, room, left) in
            [(100, 64, 900), (100, 24, 800), (100, 20, 700), (100, 17, 600), (100, 8, 500), (500, 64, 0)]
        {
            let (mut bytes, mut control) = ([0_u8; 500], [0xee_u8; 64]);
            let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: taken };
            // SAFETY: zeroes are a valid message.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), room);
            assert_eq!(call!(libc::recvmsg(b, &raw mut message, 0)), Ok(taken));
            let length = room.min(20);
            let mut expected = [length as u64, (TCP_INQ as u64) << 32 | libc::IPPROTO_TCP as u64]
                .map(u64::to_ne_bytes)
                .concat();
            expected.extend(i32::to_ne_bytes(left));
            let told = if room < 16 { 0 } else { length };
            assert_eq!(control[..told], expected[..told], "{room}");
            assert!(control[told.next_multiple_of(4)..].iter().all(|byte| *byte == 0xee), "{room}");
            let truncated = if room < 20 { libc::MSG_CTRUNC } else { 0 };
            assert_eq!(message.msg_flags, truncated, "{room}");
            assert_eq!(message.msg_controllen, if room < 16 { 0 } else { room.min(24) }, "{room}");
        }
    }),
    dialogue(
        "fionread_counts_what_can_be_read",
        |end| {
            let mut flow = Flow::new(1);
            for size in [0, 1, 10, 100, 1000, 10_000, 50_000] {
                flow.write(end.fd, size, 777);
                end.tell();
                end.hear();
            }
            end.close();
        },
        |end| {
            let mut flow = Flow::new(1);
            for size in [0, 1, 10, 100, 1000, 10_000, 50_000] {
                end.hear();
                sys::until(|| sys::readable(end.fd) == size);
                flow.read(end.fd, size / 3, 100);
                assert_eq!(sys::readable(end.fd), size - size / 3);
                assert_eq!(sys::ioctl(end.fd, libc::TIOCINQ), Ok((size - size / 3) as i32));
                flow.read(end.fd, size - size / 3, 100);
                assert_eq!(sys::readable(end.fd), 0);
                end.tell();
            }
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            assert_eq!(sys::readable(end.fd), 0);
        },
    ),
    dialogue(
        "siocoutq_is_0_when_all_has_arrived",
        |end| {
            assert_eq!(sys::ioctl(end.fd, libc::TIOCOUTQ), Ok(0));
            Flow::new(1).write(end.fd, 50_000, 1000);
            end.hear();
            sys::until(|| sys::ioctl(end.fd, libc::TIOCOUTQ) == Ok(0));
            sys::until(|| sys::ioctl(end.fd, SIOCOUTQNSD) == Ok(0));
        },
        |end| {
            Flow::new(1).read(end.fd, 50_000, 1000);
            end.tell();
        },
    ),
    case("siocoutq_is_more_than_0_when_full", || {
        let (a, b) = sys::pair();
        let mut flow = Flow::new(1);
        flow.fill_up(a);
        assert!(sys::ioctl(a, libc::TIOCOUTQ).expect("SIOCOUTQ") > 0);
        Flow::new(1).read(b, flow.position, 65536);
        sys::until(|| sys::ioctl(a, libc::TIOCOUTQ) == Ok(0));
    }),
    case("fionbio_and_o_nonblock_are_one_flag_of_the_open_file", || {
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let twin = sys::dup(b);
            let mut on = 1;
            call!(libc::ioctl(b, libc::FIONBIO, &mut on)).expect("FIONBIO");
            assert!(sys::is_nonblocking(twin));
            fails(sys::read(twin, &mut [0]), libc::EAGAIN);
            sys::set_nonblocking(twin, false);
            assert!(!sys::is_nonblocking(b));
            sys::set_nonblocking(b, true);
            fails(sys::read(twin, &mut [0]), libc::EAGAIN);
            assert!(!sys::is_nonblocking(a), "the other end has its own");
            Child::run(|| {
                fails(sys::read(b, &mut [0]), libc::EAGAIN);
                sys::set_nonblocking(b, false);
            })
            .join();
            assert!(!sys::is_nonblocking(b), "shared over fork");
            sys::timeout(b, libc::SO_RCVTIMEO, 20);
            fails(sys::read(b, &mut [0]), libc::EAGAIN);
        }
    }),
    case("accept4_flags", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        for (flags, nonblocking, cloexec) in
            [(0, false, 0), (libc::SOCK_NONBLOCK, true, 0), (libc::SOCK_CLOEXEC, false, libc::FD_CLOEXEC)]
        {
            let a = sys::connected(libc::AF_INET, port);
            let b = sys::accept4(listener, flags).expect("accept4");
            assert_eq!(sys::is_nonblocking(b), nonblocking);
            assert_eq!(call!(libc::fcntl(b, libc::F_GETFD)), Ok(cloexec as usize));
            sys::write_all(a, b"x");
            sys::until(|| sys::readable(b) == 1);
            assert_eq!(sys::read(b, &mut [0; 2]), Ok(1));
        }
        fails(sys::accept4(listener, 0x7000_0000), libc::EINVAL);
    }),
    dialogue(
        "options_answer_as_they_were_set",
        |end| {
            for round in 0..3 {
                for on in [1, 0, 1] {
                    for name in [libc::TCP_NODELAY, libc::TCP_CORK, libc::TCP_QUICKACK] {
                        sys::setsockopt(end.fd, libc::IPPROTO_TCP, name, on).expect("set");
                        let answer = sys::getsockopt(end.fd, libc::IPPROTO_TCP, name);
                        assert_eq!(answer, Ok(on), "option {name} in round {round}");
                    }
                    for name in [libc::SO_KEEPALIVE, libc::SO_OOBINLINE, libc::SO_REUSEADDR] {
                        sys::setsockopt(end.fd, libc::SOL_SOCKET, name, on).expect("set");
                        assert_eq!(sys::getsockopt(end.fd, libc::SOL_SOCKET, name), Ok(on));
                    }
                }
                sys::setsockopt(end.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 77).expect("set");
                assert_eq!(sys::getsockopt(end.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY), Ok(1));
                sys::setsockopt(end.fd, libc::IPPROTO_TCP, libc::TCP_CORK, 0).expect("set");
                for (name, value) in
                    [(libc::TCP_KEEPIDLE, 33), (libc::TCP_KEEPCNT, 3), (libc::TCP_USER_TIMEOUT, 9000)]
                {
                    sys::setsockopt(end.fd, libc::IPPROTO_TCP, name, value).expect("set");
                    assert_eq!(sys::getsockopt(end.fd, libc::IPPROTO_TCP, name), Ok(value));
                }
                for value in [1, 7, 1000] {
                    sys::setsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value).expect("set");
                    assert_eq!(sys::getsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT), Ok(value));
                }
                sys::setsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 0).expect("set");
                assert_eq!(sys::getsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT), Ok(1));
                Flow::new(round).write(end.fd, 50_000, 500);
                Flow::new(round).read(end.fd, 50_000, 500);
            }
            assert_on_pipe(end.fd);
        },
        |end| {
            for round in 0..3 {
                Flow::new(round).read(end.fd, 50_000, 500);
                Flow::new(round).write(end.fd, 50_000, 500);
            }
        },
    ),
    dialogue(
        "a_fresh_connection_has_the_kernels_defaults",
        |end| {
            defaults(end.fd);
            Flow::new(1).write(end.fd, 50_000, 500);
            Flow::new(2).read(end.fd, 50_000, 500);
            defaults(end.fd);
        },
        |end| {
            defaults(end.fd);
            Flow::new(1).read(end.fd, 50_000, 500);
            Flow::new(2).write(end.fd, 50_000, 500);
            defaults(end.fd);
        },
    ),
    dialogue(
        "rcvlowat_holds_poll_and_read_back",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            end.hear();
            sys::write_all(end.fd, &[1; 50]);
            end.hear();
            sys::write_all(end.fd, &[1; 50]);
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            sys::setsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 100).expect("SO_RCVLOWAT");
            end.tell();
            sys::until(|| sys::readable(end.fd) == 50);
            assert_eq!(events(end.fd, libc::POLLIN), 0);
            end.tell();
            assert_eq!(sys::poll_one(end.fd, libc::POLLIN, -1), libc::POLLIN);
            assert_eq!(sys::read(end.fd, &mut [0; 200]), Ok(100));
            end.tell();
        },
    ),
    dialogue(
        "rcvlowat_up_and_down_between_messages",
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            for size in [1, 10, 2000, 1] {
                for low in [100, 1, 50, 2, 1] {
                    sys::setsockopt(end.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, low).expect("SO_RCVLOWAT");
                    for _ in 0..3 {
                        out.write(end.fd, size, size);
                        let size = size.max(low as usize);
                        assert_eq!(sys::poll_one(end.fd, libc::POLLIN, -1), libc::POLLIN);
                        back.read(end.fd, size, size);
                        fails(sys::recv(end.fd, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
                    }
                }
            }
            assert_on_pipe(end.fd);
            end.tell();
        },
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            for size in [1, 10, 2000, 1] {
                for low in [100, 1, 50, 2, 1] {
                    for _ in 0..3 {
                        out.read(end.fd, size, size);
                        let size = size.max(low);
                        back.write(end.fd, size, size);
                    }
                }
            }
            end.hear();
        },
    ),
    case("short_and_long_option_buffers", || {
        let (a, _b) = sys::pair();
        let (mut bytes, mut length) = ([0xee_u8; 8], 8);
        let pointer = bytes.as_mut_ptr().cast();
        call!(libc::getsockopt(a, libc::SOL_SOCKET, libc::SO_TYPE, pointer, &mut length)).expect("get");
        assert_eq!((length, bytes), (4, [1, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]));
        (bytes, length) = ([0xee; 8], 1);
        let pointer = bytes.as_mut_ptr().cast();
        call!(libc::getsockopt(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, pointer, &mut length)).expect("get");
        assert_eq!((length, bytes[1]), (1, 0xee));
        let one = 1_u16;
        fails(sys::setsockopt_raw(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, &one), libc::EINVAL);
        fails(sys::setsockopt_raw(a, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &one), libc::EINVAL);
        fails(sys::setsockopt(a, libc::IPPROTO_TCP, 9999, 1), libc::ENOPROTOOPT);
        fails(sys::getsockopt(a, libc::IPPROTO_TCP, 9999), libc::ENOPROTOOPT);
        fails(sys::getsockopt(a, libc::SOL_SOCKET, 9999), libc::ENOPROTOOPT);
        fails(sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_TYPE, 1), libc::ENOPROTOOPT);
        fails(sys::getsockopt(a, 9999, 1), libc::EOPNOTSUPP);
    }),
    case("modules_that_this_kernel_lacks", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for (name, value, errno) in [
            (libc::TCP_ULP, &b"nothing"[..], libc::ENOENT),
            (libc::TCP_ULP, b"", libc::EINVAL),
            (libc::TCP_CONGESTION, b"nothing", libc::ENOENT),
            (libc::TCP_CONGESTION, b"", libc::EINVAL),
        ] {
            let (at, length) = (value.as_ptr().cast(), value.len() as u32);
            fails(call!(libc::setsockopt(a, libc::IPPROTO_TCP, name, at, length)), errno);
        }
        Flow::new(2).write(a, 10_000, 500);
        Flow::new(2).read(b, 10_000, 500);
        assert_on_pipe(a);
    }),
    case("facts_about_a_socket", || {
        let (listener, _) = sys::listener(libc::AF_INET6);
        let (a, b) = sys::pair_over(libc::AF_INET6);
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        for (fd, listening) in [(listener, 1), (a, 0), (b, 0)] {
            let get = |name| sys::getsockopt(fd, libc::SOL_SOCKET, name);
            assert_eq!(get(libc::SO_TYPE), Ok(libc::SOCK_STREAM));
            assert_eq!(get(libc::SO_DOMAIN), Ok(libc::AF_INET6));
            assert_eq!(get(libc::SO_PROTOCOL), Ok(libc::IPPROTO_TCP));
            assert_eq!(get(libc::SO_ACCEPTCONN), Ok(listening));
            assert_eq!(get(libc::SO_ERROR), Ok(0));
            // SAFETY: all zeroes is a valid stat.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            call!(libc::fstat(fd, &mut stat)).expect("fstat");
            assert_eq!(stat.st_mode & libc::S_IFMT, libc::S_IFSOCK);
            let flags = call!(libc::fcntl(fd, libc::F_GETFL)).expect("F_GETFL") as i32;
            assert_eq!(flags, libc::O_RDWR);
        }
    }),
    case("tcp_info_says_established_then_closing", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        assert_eq!((state(a), state(b)), (1, 1), "TCP_ESTABLISHED");
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        sys::until(|| state(a) == 5 && state(b) == 8);
        sys::shutdown(b, libc::SHUT_WR).expect("shutdown");
        sys::until(|| state(b) == 7);
    }),
    case("small_buffers_hold_the_writer_back", || {
        for before in [0, 10_000] {
            for inherited in [true, false] {
                let small = |fd, name| sys::setsockopt(fd, libc::SOL_SOCKET, name, 4096).expect("set");
                let (listener, port) = sys::listener(libc::AF_INET);
                if inherited {
                    small(listener, libc::SO_RCVBUF);
                }
                let a = sys::connected(libc::AF_INET, port);
                let b = sys::accept(listener).expect("accept");
                let (mut there, mut back) = (Flow::new(1), Flow::new(1));
                there.write(a, before, 500);
                back.read(b, before, 500);
                small(a, libc::SO_SNDBUF);
                if !inherited {
                    small(b, libc::SO_RCVBUF);
                }
                let file = sys::file_with(&there.bytes(1 << 20));
                sys::set_nonblocking(a, true);
                while let Ok(count) = call!(libc::sendfile(a, file, ptr::null_mut(), 1 << 20)) {
                    there.position += count;
                }
                there.fill(a, 100_000);
                let under_way = there.position - before;
                assert!(under_way < 1 << 18, "{under_way} bytes under way");
                back.read(b, under_way, 3000);
                assert_on_pipe(a);
            }
        }
    }),
    case("buffer_sizes_are_doubled_as_ever", || {
        let (a, b) = sys::pair();
        for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
            sys::setsockopt(a, libc::SOL_SOCKET, name, 20_000).expect("set");
            assert_eq!(sys::getsockopt(a, libc::SOL_SOCKET, name), Ok(40_000));
        }
        let mut flow = Flow::new(1);
        for _ in 0..5 {
            flow.write(a, 100, 10);
        }
        let total = 500 + flow.fill(a, 3000);
        assert_eq!(flow.position, total);
        Flow::new(1).read(b, total, 5000);
    }),
];

fn defaults(fd: i32) {
    let get = |name| sys::getsockopt(fd, libc::IPPROTO_TCP, name);
    assert_eq!(get(libc::TCP_NODELAY), Ok(0));
    assert_eq!(get(libc::TCP_CORK), Ok(0));
    assert_eq!(sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT), Ok(1));
    assert_eq!(sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER), Ok(0));
    assert_eq!(sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE), Ok(0));
    assert!(!sys::is_nonblocking(fd));
}

fn state(fd: i32) -> i32 {
    sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO).expect("TCP_INFO") & 0xff
}

const SIOCOUTQNSD: libc::c_ulong = 0x894B;
