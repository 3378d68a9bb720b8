//! Bytes arrive once, in order, whatever the sizes and the calls that move them.

use std::thread;

use crate::data::{Flow, Random};
use crate::harness::{Case, End, assert_on_pipe, case, dialogue};
use crate::sys::{self, call, fails};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "sizes_from_1_byte_to_8_mb_echo",
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            for size in SIZES {
                out.write(end.fd, size, size);
                back.read(end.fd, size, size);
            }
            assert_on_pipe(end.fd);
        },
        |end| {
            let (mut out, mut back) = (Flow::new(1), Flow::new(2));
            for size in SIZES {
                out.read(end.fd, size, size);
                back.write(end.fd, size, size);
            }
            assert_on_pipe(end.fd);
        },
    ),
    dialogue(
        "random_pieces_one_way",
        |end| {
            let (mut flow, mut random) = (Flow::new(1), Random::new(11));
            while flow.position < 32 << 20 {
                let size = random.size(18);
                flow.write(end.fd, size, size);
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(sys::read(end.fd, &mut [0; 9]), Ok(8), "the count");
        },
        |end| {
            let (mut flow, mut random) = (Flow::new(1), Random::new(12));
            let mut buffer = vec![0; 1 << 18];
            loop {
                let room = random.size(18);
                match sys::read(end.fd, &mut buffer[..room]).expect("read") {
                    0 => break,
                    count => flow.check(&buffer[..count]),
                }
            }
            assert!(flow.position >= 32 << 20);
            sys::write_all(end.fd, &(flow.position as u64).to_ne_bytes());
        },
    ),
    dialogue("both_directions_at_once", |end| both_ways(end, 1, 2), |end| both_ways(end, 2, 1)),
    dialogue(
        "one_mb_from_each_side_before_either_reads",
        |end| {
            Flow::new(1).write(end.fd, 1 << 20, 1 << 20);
            end.tell();
            end.hear();
            Flow::new(2).read(end.fd, 1 << 20, 5000);
        },
        |end| {
            Flow::new(2).write(end.fd, 1 << 20, 100_000);
            end.tell();
            end.hear();
            Flow::new(1).read(end.fd, 1 << 20, 1 << 20);
        },
    ),
    dialogue(
        "a_pipe_takes_as_much_as_the_kernel_before_eagain",
        |end| {
            let mut flow = Flow::new(1);
            let accepted = flow.fill(end.fd, 10_000);
            assert!(accepted >= 1 << 20, "only {accepted} bytes were accepted");
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.tell();
            let told = sys::read_exact(end.fd, 8);
            assert_eq!(told, (accepted as u64).to_ne_bytes());
        },
        |end| {
            end.hear();
            let count = Flow::new(1).read_to_end(end.fd, 30_000);
            sys::write_all(end.fd, &(count as u64).to_ne_bytes());
        },
    ),
    dialogue(
        "single_bytes_read_as_one_and_one_write_read_as_single_bytes",
        |end| {
            let mut flow = Flow::new(1);
            for _ in 0..3000 {
                flow.write(end.fd, 1, 1);
            }
            flow.write(end.fd, 3000, 3000);
            end.hear();
        },
        |end| {
            sys::until(|| sys::readable(end.fd) >= 3000);
            let mut flow = Flow::new(1);
            flow.read(end.fd, 3000, 65536);
            for _ in 0..3000 {
                flow.read(end.fd, 1, 1);
            }
            assert_eq!(sys::readable(end.fd), 0);
            end.tell();
        },
    ),
    dialogue(
        "iovecs_with_empty_pieces",
        |end| {
            let (mut flow, mut random) = (Flow::new(1), Random::new(5));
            for _ in 0..100 {
                let mut pieces: Vec<Vec<u8>> = (0..random.within(1, 1024))
                    .map(|at| if at % 3 == 0 { Vec::new() } else { flow.take(random.within(1, 40)) })
                    .collect();
                let total: usize = pieces.iter().map(Vec::len).sum();
                let vectors = sys::iovecs(&mut pieces);
                let written = call!(libc::writev(end.fd, vectors.as_ptr(), vectors.len() as i32));
                assert_eq!(written, Ok(total));
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            let (mut flow, mut random) = (Flow::new(1), Random::new(6));
            loop {
                let mut pieces: Vec<Vec<u8>> = (0..random.within(1, 1024))
                    .map(|at| vec![0; if at % 4 == 0 { 0 } else { random.within(1, 30) }])
                    .collect();
                let room: usize = pieces.iter().map(Vec::len).sum();
                let vectors = sys::iovecs(&mut pieces);
                let count =
                    call!(libc::readv(end.fd, vectors.as_ptr(), vectors.len() as i32)).expect("readv");
                let bytes = pieces.concat();
                assert!(count <= room);
                assert!(bytes[count..].iter().all(|&byte| byte == 0), "bytes beyond the count were written");
                flow.check(&bytes[..count]);
                if count == 0 && room > 0 {
                    break;
                }
            }
            end.tell();
        },
    ),
    case("too_many_iovecs_are_invalid", || {
        let (a, b) = sys::pair();
        let mut pieces = vec![vec![7; 1]; 1025];
        let vectors = sys::iovecs(&mut pieces);
        fails(call!(libc::writev(a, vectors.as_ptr(), 1025)), libc::EINVAL);
        fails(call!(libc::writev(a, vectors.as_ptr(), -1)), libc::EINVAL);
        assert_eq!(call!(libc::writev(a, vectors.as_ptr(), 0)), Ok(0));
        assert_eq!(call!(libc::writev(a, vectors.as_ptr(), 1024)), Ok(1024));
        sys::until(|| sys::readable(b) == 1024);
        fails(call!(libc::readv(b, vectors.as_ptr(), 1025)), libc::EINVAL);
        fails(call!(libc::readv(b, vectors.as_ptr(), -1)), libc::EINVAL);
        assert_eq!(call!(libc::readv(b, vectors.as_ptr(), 0)), Ok(0));
        let mut vectors = sys::iovecs(&mut pieces);
        let mut message = sys::message(&mut vectors);
        fails(call!(libc::sendmsg(a, &message, 0)), libc::EMSGSIZE);
        fails(call!(libc::recvmsg(b, &mut message, 0)), libc::EMSGSIZE);
        assert_eq!(call!(libc::readv(b, vectors.as_ptr(), 1024)), Ok(1024));
    }),
    dialogue(
        "sendmsg_and_recvmsg",
        |end| {
            let mut flow = Flow::new(1);
            for round in 0..200 {
                let mut pieces = vec![flow.take(round), Vec::new(), flow.take(3 * round + 1)];
                let mut vectors = sys::iovecs(&mut pieces);
                let message = sys::message(&mut vectors);
                assert_eq!(call!(libc::sendmsg(end.fd, &message, 0)), Ok(4 * round + 1));
            }
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            end.hear();
        },
        |end| {
            let mut flow = Flow::new(1);
            loop {
                let mut pieces = vec![vec![0; 100], vec![], vec![0; 57]];
                let mut control = [1_u8; 64];
                let mut name = sys::Address::empty();
                let mut vectors = sys::iovecs(&mut pieces);
                let mut message = sys::message(&mut vectors);
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = control.len();
                message.msg_name = name.as_mut_ptr().cast();
                message.msg_namelen = name.length;
                message.msg_flags = -1;
                let count = call!(libc::recvmsg(end.fd, &mut message, 0)).expect("recvmsg");
                assert_eq!(message.msg_flags, 0);
                assert_eq!(message.msg_controllen, 0);
                assert_eq!(message.msg_namelen, 0);
                flow.check(&pieces.concat()[..count]);
                if count == 0 {
                    break;
                }
            }
            end.tell();
        },
    ),
    dialogue(
        "sendmmsg_and_recvmmsg",
        |end| {
            let mut flow = Flow::new(1);
            let mut pieces: Vec<_> = (1..=20).map(|each| flow.take(each * 10)).collect();
            let mut vectors = sys::iovecs(&mut pieces);
            let mut messages = mmsg(&mut vectors);
            assert_eq!(call!(libc::sendmmsg(end.fd, messages.as_mut_ptr(), 20, 0)), Ok(20));
            for (at, message) in messages.iter().enumerate() {
                assert_eq!(message.msg_len, (at as u32 + 1) * 10);
            }
            end.tell();
            end.hear();
        },
        |end| {
            end.hear();
            sys::until(|| sys::readable(end.fd) == 2100);
            let mut flow = Flow::new(1);
            let mut pieces = vec![vec![0; 500]; 10];
            let mut vectors = sys::iovecs(&mut pieces);
            let mut messages = mmsg(&mut vectors);
            let pointer = messages.as_mut_ptr();
            let count = call!(libc::recvmmsg(end.fd, pointer, 10, libc::MSG_DONTWAIT, std::ptr::null_mut()));
            assert_eq!(count, Ok(5));
            let lengths: Vec<_> = messages[..5].iter().map(|message| message.msg_len).collect();
            assert_eq!(lengths, [500, 500, 500, 500, 100]);
            for (piece, length) in pieces.iter().zip(lengths) {
                flow.check(&piece[..length as usize]);
            }
            let count = call!(libc::recvmmsg(end.fd, pointer, 10, libc::MSG_DONTWAIT, std::ptr::null_mut()));
            fails(count, libc::EAGAIN);
            end.tell();
        },
    ),
    dialogue(
        "recvmmsg_waits_for_one",
        |end| {
            end.hear();
            sys::let_sleep(if end.other == 0 { sys::getpid() } else { end.other }, end.other);
            assert_eq!(sys::write(end.fd, b"hello"), Ok(5));
            end.hear();
        },
        |end| {
            let mut pieces = vec![vec![0; 500]; 2];
            let mut vectors = sys::iovecs(&mut pieces);
            let mut messages = mmsg(&mut vectors);
            end.tell();
            let flags = libc::MSG_WAITFORONE;
            let count = call!(libc::recvmmsg(end.fd, messages.as_mut_ptr(), 2, flags, std::ptr::null_mut()));
            assert_eq!(count, Ok(1));
            assert_eq!(&pieces[0][..5], b"hello");
            end.tell();
        },
    ),
    case("offsets_are_refused_except_minus_one", || {
        let (a, b) = sys::pair();
        let mut pieces = vec![b"abcdef".to_vec()];
        let vectors = sys::iovecs(&mut pieces);
        let (vectors, buffer) = (vectors.as_ptr(), [0_u8; 4].as_mut_ptr());
        assert_eq!(call!(libc::pwritev2(a, vectors, 1, -1, 0)), Ok(6));
        sys::until(|| sys::readable(b) == 6);
        fails(call!(libc::pwritev2(a, vectors, 1, 0, 0)), libc::ESPIPE);
        fails(call!(libc::preadv2(b, vectors, 1, 0, 0)), libc::ESPIPE);
        fails(call!(libc::pread(b, buffer.cast(), 4, 0)), libc::ESPIPE);
        fails(call!(libc::pwrite(a, buffer.cast(), 4, 0)), libc::ESPIPE);
        fails(call!(libc::preadv(b, vectors, 1, 0)), libc::ESPIPE);
        fails(call!(libc::lseek(b, 0, libc::SEEK_CUR)), libc::ESPIPE);
        assert_eq!(call!(libc::preadv2(b, vectors, 1, -1, 0)), Ok(6));
        assert_eq!(pieces[0], b"abcdef");
        assert_eq!(call!(libc::preadv2(b, vectors, 1, -1, libc::RWF_NOWAIT)), Err(sys::Errno(libc::EAGAIN)));
        fails(call!(libc::preadv2(b, vectors, 1, -1, 0x4000_0000)), libc::EOPNOTSUPP);
    }),
    case("zero_bytes_move_nothing", || {
        let (a, b) = sys::pair();
        assert_eq!(sys::write(a, &[]), Ok(0));
        assert_eq!(sys::send(a, &[], 0), Ok(0));
        assert_eq!(sys::read(b, &mut []), Ok(0), "read never waits for nothing");
        fails(sys::recv(b, &mut [], libc::MSG_DONTWAIT), libc::EAGAIN);
        assert_eq!(sys::write(a, b"x"), Ok(1));
        assert_eq!(sys::recv(b, &mut [], 0), Ok(0));
        assert_eq!(sys::read(b, &mut []), Ok(0));
        assert_eq!(sys::read_exact(b, 1), b"x");
    }),
    dialogue(
        "dup_shares_one_stream",
        |end| {
            let mut flow = Flow::new(1);
            let twin = sys::dup(end.fd);
            for _ in 0..100 {
                flow.write(end.fd, 333, 333);
                flow.write(twin, 777, 777);
            }
            end.close();
            flow.write(twin, 100_000, 100_000);
            let third = call!(libc::fcntl(twin, libc::F_DUPFD_CLOEXEC, 50)).expect("F_DUPFD") as i32;
            assert!(third >= 50);
            assert_eq!(sys::close(twin), Ok(0));
            flow.write(third, 100_000, 100_000);
            assert_eq!(sys::read_exact(third, 2), b"ok");
            assert_eq!(sys::close(third), Ok(0));
        },
        |end| {
            let mut flow = Flow::new(1);
            let twin = sys::dup(end.fd);
            for _ in 0..100 {
                flow.read(twin, 555, 555);
                flow.read(end.fd, 555, 555);
            }
            flow.read(twin, 200_000, 200_000);
            sys::write_all(twin, b"ok");
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
            assert_eq!(sys::read(twin, &mut [0]), Ok(0));
        },
    ),
    case("three_families", || {
        for family in [libc::AF_INET, libc::AF_INET6, sys::DUAL_STACK] {
            let (a, b) = sys::pair_over(family);
            thread::scope(|scope| {
                scope.spawn(|| Flow::new(1).write(a, 3 << 20, 70_000));
                scope.spawn(|| Flow::new(2).write(b, 3 << 20, 70_000));
                scope.spawn(|| Flow::new(2).read(a, 3 << 20, 70_000));
                Flow::new(1).read(b, 3 << 20, 70_000);
            });
            assert_on_pipe(a);
            assert_on_pipe(b);
        }
    }),
    case("many_short_connections", || {
        let (listener, port) = sys::listener(libc::AF_INET);
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..500 {
                    let fd = sys::connected(libc::AF_INET, port);
                    Flow::new(round).write(fd, 300, 300);
                    Flow::new(round + 1).read(fd, 300, 300);
                    sys::close(fd).expect("close");
                }
            });
            for round in 0..500 {
                let fd = sys::accept(listener).expect("accept");
                Flow::new(round).read(fd, 300, 300);
                Flow::new(round + 1).write(fd, 300, 300);
                assert_eq!(sys::read(fd, &mut [0]), Ok(0));
                sys::close(fd).expect("close");
            }
        });
    }),
    case("many_connections_at_once", || {
        let pairs: Vec<_> = (0..200).map(|_| sys::pair()).collect();
        let mut flows: Vec<_> = (0..200).map(|seed| (Flow::new(seed), Flow::new(seed))).collect();
        let mut random = Random::new(9);
        for _ in 0..5000 {
            let at = random.within(0, 199);
            let (size, (a, b), (out, back)) = (random.within(1, 2000), pairs[at], &mut flows[at]);
            out.write(a, size, size);
            back.read(b, size, size);
        }
    }),
];

const SIZES: [usize; 16] =
    [1, 2, 3, 7, 63, 64, 65, 199, 200, 201, 1000, 4096, 65535, 65537, 1_000_003, 8 << 20];

fn both_ways(end: &End, out: usize, back: usize) {
    let fd = end.fd;
    thread::scope(|scope| {
        scope.spawn(move || Flow::new(out).write(fd, 16 << 20, 50_000));
        Flow::new(back).read(fd, 16 << 20, 70_000);
    });
    assert_on_pipe(fd);
    end.tell();
    end.hear();
}

fn mmsg(vectors: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let chunks = vectors.chunks_mut(1);
    chunks.map(|one| libc::mmsghdr { msg_hdr: sys::message(one), msg_len: 0 }).collect()
}
