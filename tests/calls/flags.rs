//! The flags of send and recv.

use crate::data::Flow;
use crate::harness::{Case, case, dialogue};
use crate::signals::{count_signals, interrupting_until};
use crate::sys::{self, Errno, call, fails};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "peek_leaves_the_bytes",
        |end| {
            let mut flow = Flow::new(1);
            for size in [1, 100, 1000, 30_000, 1, 5000] {
                flow.write(end.fd, size, size);
                end.tell();
                end.hear();
            }
            end.close();
        },
        |end| {
            let mut flow = Flow::new(1);
            for size in [1, 100, 1000, 30_000, 1, 5000] {
                end.hear();
                sys::until(|| sys::readable(end.fd) == size);
                let mut buffer = vec![0; size + 100];
                for room in [1, size / 2, size, size + 100] {
                    let expected = room.min(size);
                    assert_eq!(
                        sys::recv(end.fd, &mut buffer[..room.max(1)], libc::MSG_PEEK),
                        Ok(expected.max(1))
                    );
                    flow.clone().check(&buffer[..expected.max(1)]);
                }
                assert_eq!(sys::readable(end.fd), size);
                flow.read(end.fd, size, size);
                fails(sys::recv(end.fd, &mut buffer, libc::MSG_PEEK | libc::MSG_DONTWAIT), libc::EAGAIN);
                end.tell();
            }
            assert_eq!(sys::recv(end.fd, &mut [0], libc::MSG_PEEK), Ok(0));
            assert_eq!(sys::recv(end.fd, &mut [0], libc::MSG_PEEK), Ok(0));
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
    ),
    dialogue(
        "peek_waits_for_the_first_byte",
        |end| {
            for _ in 0..20 {
                end.hear();
                sys::write_all(end.fd, b"hello");
            }
        },
        |end| {
            for _ in 0..20 {
                end.tell();
                let mut buffer = [0; 100];
                let count = sys::recv(end.fd, &mut buffer, libc::MSG_PEEK).expect("recv");
                assert_eq!(&buffer[..count], &b"hello"[..count]);
                assert_eq!(sys::read_exact(end.fd, 5), b"hello");
            }
        },
    ),
    dialogue(
        "waitall_waits_for_all",
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..100 {
                flow.write(end.fd, 10_000, 999);
            }
            end.hear();
            flow.write(end.fd, 123, 123);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            let mut flow = Flow::new(1);
            let mut buffer = vec![0; 100_000];
            for _ in 0..10 {
                assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_WAITALL), Ok(100_000));
                flow.check(&buffer);
            }
            end.tell();
            assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_WAITALL), Ok(123), "up to the end");
            flow.check(&buffer[..123]);
            assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_WAITALL), Ok(0));
            end.tell();
        },
    ),
    dialogue(
        "waitall_of_more_than_any_buffer",
        |end| Flow::new(1).write(end.fd, 20 << 20, 1 << 20),
        |end| {
            let mut buffer = vec![0; 20 << 20];
            assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_WAITALL), Ok(20 << 20));
            Flow::new(1).check(&buffer);
        },
    ),
    case("waitall_with_dontwait_takes_what_is_there", || {
        let (a, b) = sys::pair();
        let flags = libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        fails(sys::recv(b, &mut [0; 10], flags), libc::EAGAIN);
        sys::write_all(a, b"abc");
        sys::until(|| sys::readable(b) == 3);
        assert_eq!(sys::recv(b, &mut [0; 10], flags), Ok(3));
        fails(sys::recv(b, &mut [0; 10], flags), libc::EAGAIN);
    }),
    case("waitall_gives_what_came_before_a_signal", || {
        let (a, b) = sys::pair();
        sys::write_all(a, b"abc");
        sys::until(|| sys::readable(b) == 3);
        count_signals(libc::SIGUSR1, 0);
        let mut buffer = [0; 10];
        let answer = interrupting_until(libc::SIGUSR1, || sys::recv(b, &mut buffer, libc::MSG_WAITALL));
        assert_eq!(answer, Ok(3));
        assert_eq!(&buffer[..3], b"abc");
    }),
    case("waitall_gives_what_came_before_the_time_out", || {
        let (a, b) = sys::pair();
        sys::timeout(b, libc::SO_RCVTIMEO, 50);
        sys::write_all(a, b"abc");
        sys::until(|| sys::readable(b) == 3);
        assert_eq!(sys::recv(b, &mut [0; 10], libc::MSG_WAITALL), Ok(3));
        fails(sys::recv(b, &mut [0; 10], libc::MSG_WAITALL), libc::EAGAIN);
    }),
    dialogue(
        "trunc_throws_bytes_away",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 10_000);
            end.hear();
        },
        |end| {
            sys::until(|| sys::readable(end.fd) == 10_000);
            let mut flow = Flow::new(1);
            flow.read(end.fd, 100, 100);
            let mut buffer = [0xee; 50];
            assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_TRUNC), Ok(50));
            assert_eq!(buffer, [0xee; 50], "nothing is copied");
            flow.position += 50;
            assert_eq!(call!(libc::recv(end.fd, sys::null(), 850, libc::MSG_TRUNC)), Ok(850));
            flow.position += 850;
            flow.read(end.fd, 4000, 1000);
            assert_eq!(call!(libc::recv(end.fd, sys::null(), 9000, libc::MSG_TRUNC)), Ok(5000));
            fails(
                call!(libc::recv(end.fd, sys::null(), 9000, libc::MSG_TRUNC | libc::MSG_DONTWAIT)),
                libc::EAGAIN,
            );
            end.tell();
        },
    ),
    dialogue(
        "dontwait_on_a_blocking_socket",
        |end| {
            end.hear();
            sys::write_all(end.fd, b"abc");
            end.hear();
        },
        |end| {
            fails(sys::recv(end.fd, &mut [0], libc::MSG_DONTWAIT), libc::EAGAIN);
            end.tell();
            let mut buffer = [0; 10];
            sys::until(|| match sys::recv(end.fd, &mut buffer, libc::MSG_DONTWAIT) {
                Err(Errno(libc::EAGAIN)) => false,
                answer => {
                    assert_eq!(answer, Ok(3));
                    true
                }
            });
            assert!(!sys::is_nonblocking(end.fd));
            let mut flow = Flow::new(2);
            flow.fill(end.fd, 10_000);
            fails(sys::send(end.fd, b"x", libc::MSG_DONTWAIT), libc::EAGAIN);
            end.tell();
        },
    ),
    dialogue(
        "urgent_data_has_a_mark",
        |end| {
            // With and without traffic before, which may have moved to a pipe.
            for before in [0, 100_000] {
                Flow::new(1).write(end.fd, before, 10_000);
                end.hear();
                sys::write_all(end.fd, b"abc");
                assert_eq!(sys::send(end.fd, b"d", libc::MSG_OOB), Ok(1));
                sys::write_all(end.fd, b"ef");
                end.hear();
            }
        },
        |end| {
            for before in [0, 100_000] {
                Flow::new(1).read(end.fd, before, 10_000);
                fails(sys::recv(end.fd, &mut [0], libc::MSG_OOB), libc::EINVAL);
                assert_eq!(sys::events(end.fd, libc::POLLPRI), 0);
                end.tell();
                assert_eq!(sys::poll_one(end.fd, libc::POLLPRI, -1), libc::POLLPRI);
                sys::until(|| sys::readable(end.fd) == 3);
                let mut buffer = [0; 100];
                assert_eq!(sys::ioctl(end.fd, SIOCATMARK), Ok(0));
                assert_eq!(sys::read(end.fd, &mut buffer), Ok(3), "a read stops at the mark");
                assert_eq!(&buffer[..3], b"abc");
                assert_eq!(sys::ioctl(end.fd, SIOCATMARK), Ok(1));
                assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_OOB | libc::MSG_PEEK), Ok(1));
                assert_eq!(sys::recv(end.fd, &mut buffer, libc::MSG_OOB), Ok(1));
                assert_eq!(buffer[0], b'd');
                fails(sys::recv(end.fd, &mut [0], libc::MSG_OOB), libc::EINVAL);
                assert_eq!(sys::read_exact(end.fd, 2), b"ef");
                assert_eq!(sys::ioctl(end.fd, SIOCATMARK), Ok(0));
                end.tell();
            }
        },
    ),
    dialogue(
        "urgent_data_inline",
        |end| {
            Flow::new(1).write(end.fd, 100_000, 10_000);
            end.hear();
            sys::write_all(end.fd, b"abc");
            assert_eq!(sys::send(end.fd, b"d", libc::MSG_OOB), Ok(1));
            sys::write_all(end.fd, b"ef");
            Flow::new(1).write(end.fd, 100_000, 10_000);
            end.hear();
        },
        |end| {
            sys::setsockopt(end.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1).expect("SO_OOBINLINE");
            Flow::new(1).read(end.fd, 100_000, 10_000);
            end.tell();
            assert_eq!(sys::read_exact(end.fd, 6), b"abcdef");
            Flow::new(1).read(end.fd, 100_000, 10_000);
            end.tell();
        },
    ),
    dialogue(
        "flags_that_change_nothing",
        |end| {
            let mut flow = Flow::new(1);
            for flag in HARMLESS {
                let bytes = flow.take(50);
                assert_eq!(sys::send(end.fd, &bytes, flag), Ok(50), "flag {flag:#x}");
            }
            end.hear();
        },
        |end| {
            let mut flow = Flow::new(1);
            for flag in HARMLESS {
                let mut buffer = [0; 50];
                let flag = if flag == libc::MSG_MORE { 0 } else { flag };
                assert_eq!(
                    sys::recv(end.fd, &mut buffer, flag | libc::MSG_WAITALL),
                    Ok(50),
                    "flag {flag:#x}"
                );
                flow.check(&buffer);
            }
            fails(sys::recv(end.fd, &mut [0; 50], libc::MSG_ERRQUEUE), libc::EAGAIN);
            end.tell();
        },
    ),
    dialogue(
        "more_is_only_a_hint",
        |end| {
            let mut flow = Flow::new(1);
            for round in 0..50 {
                let bytes = flow.take(100);
                assert_eq!(sys::send(end.fd, &bytes, libc::MSG_MORE), Ok(100));
                if round % 2 == 0 {
                    flow.write(end.fd, 10, 10);
                }
            }
            end.hear();
        },
        |end| {
            Flow::new(1).read(end.fd, 5250, 5250);
            end.tell();
        },
    ),
    case("zerocopy_completions_come", || {
        let (a, b) = sys::pair();
        let mut flow = Flow::new(1);
        let mut back = Flow::new(1);
        flow.write(a, 50_000, 5000);
        back.read(b, 50_000, 5000);
        sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).expect("SO_ZEROCOPY");
        let bytes = flow.take(20_000);
        assert_eq!(sys::send(a, &bytes, libc::MSG_ZEROCOPY), Ok(20_000));
        back.read(b, 20_000, 20_000);
        sys::until(|| sys::events(a, 0) & libc::POLLERR != 0);
        let mut control = [0_u64; 32];
        let mut message = sys::message(&mut []);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        assert_eq!(call!(libc::recvmsg(a, &mut message, libc::MSG_ERRQUEUE)), Ok(0));
        assert!(message.msg_controllen > 0);
        flow.write(a, 50_000, 5000);
        back.read(b, 50_000, 5000);
    }),
    case("a_time_stamp_comes_for_what_was_sent", || {
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let wanted = libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
            sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, wanted as i32).expect("set");
            sys::setsockopt(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).expect("set");
            sys::write_all(a, b"stamped");
            assert_eq!(sys::read_exact(b, 7), b"stamped");
            let mut control = [0_u64; 64];
            sys::until(|| {
                let mut message = sys::message(&mut []);
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = size_of_val(&control);
                let answer = call!(libc::recvmsg(a, &mut message, libc::MSG_ERRQUEUE));
                answer.is_ok() && message.msg_controllen > 0
            });
        }
    }),
    case("addresses_are_ignored_on_a_connected_socket", || {
        let (a, b) = sys::pair();
        let to = sys::Address::loopback(libc::AF_INET, 9);
        assert_eq!(call!(libc::sendto(a, b"abc".as_ptr().cast(), 3, 0, to.as_ptr(), to.length)), Ok(3));
        let mut from = sys::Address::empty();
        let mut length = from.length;
        let mut buffer = [0_u8; 3];
        sys::until(|| sys::readable(b) == 3);
        let pointer = buffer.as_mut_ptr().cast();
        assert_eq!(call!(libc::recvfrom(b, pointer, 3, 0, from.as_mut_ptr(), &mut length)), Ok(3));
        assert_eq!(length, 0);
        assert_eq!(&buffer, b"abc");
    }),
];

/// Flags with no effect on a TCP stream, two of them not assigned at all.
const HARMLESS: [i32; 8] = [
    libc::MSG_MORE,
    libc::MSG_CONFIRM,
    libc::MSG_DONTROUTE,
    libc::MSG_EOR,
    libc::MSG_NOSIGNAL,
    libc::MSG_CMSG_CLOEXEC,
    0x0080_0000,
    0x0100_0000,
];

const SIOCATMARK: libc::c_ulong = 0x8905;
