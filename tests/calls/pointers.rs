//! Bad pointers of every kind in every call, compared with a socket that the library does not know.

use crate::data::Flow;
use crate::harness::{Case, case};
use crate::sys::raw::{BOTH, Way, page, words, zeroed};
use crate::sys::{self, Answer, Errno};

pub(crate) const CASES: &[Case] = &[
    case("options", || {
        compare(|way, fd, bad| {
            let mut seen = vec![];
            for (level, name) in [
                (libc::IPPROTO_TCP, libc::TCP_NODELAY),
                (libc::IPPROTO_TCP, libc::TCP_CORK),
                (libc::IPPROTO_TCP, libc::TCP_INFO),
                (libc::SOL_SOCKET, libc::SO_ERROR),
                (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
                (libc::SOL_SOCKET, libc::SO_LINGER),
                (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
                (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
                (libc::SOL_SOCKET, libc::SO_TYPE),
                (libc::SOL_SOCKET, libc::SO_PEERCRED),
            ] {
                let option = [fd as usize, level as _, name as _];
                let [fd, level, name] = option;
                for length in [0, 1, 4, 8, 16, usize::MAX] {
                    seen.push(way.call(libc::SYS_setsockopt, words([fd, level, name, bad, length])));
                    let mut told = length as libc::socklen_t;
                    let at = [fd, level, name, bad, (&raw mut told).addr()];
                    let answer = way.call(libc::SYS_getsockopt, words(at));
                    seen.push(answer);
                    seen.push(answer.map(|_| told as usize));
                }
                let mut value = [0_u8; 64];
                let at = [fd, level, name, value.as_mut_ptr().addr(), bad];
                seen.push(way.call(libc::SYS_getsockopt, words(at)));
            }
            seen
        });
    }),
    case("a_short_buffer_is_not_written_past_its_end", || {
        compare(|way, fd, _| {
            let mut seen = vec![];
            for (level, name) in [
                (libc::SOL_SOCKET, libc::SO_ERROR),
                (libc::SOL_SOCKET, libc::SO_LINGER),
                (libc::IPPROTO_TCP, libc::TCP_NODELAY),
                (libc::IPPROTO_TCP, libc::TCP_CORK),
            ] {
                for room in 0..=4_u32 {
                    let (mut value, mut length) = ([0xee_u8; 16], room);
                    let at =
                        [fd as _, level as _, name as _, value.as_mut_ptr().addr(), (&raw mut length).addr()];
                    seen.push(way.call(libc::SYS_getsockopt, words(at)));
                    seen.push(Ok(length as usize));
                    seen.extend(value.map(|byte| Ok(byte as usize)));
                }
            }
            seen
        });
    }),
    // As Linux before 5.14, which does not know MADV_POPULATE_READ and MADV_POPULATE_WRITE (22, 23).
    case("a_kernel_without_populate", || {
        let (a, b) = sys::pair();
        without_advice(&[22, 23]);
        for way in BOTH {
            assert_eq!(way.get(a, libc::SOL_SOCKET, libc::SO_ERROR, 4), Ok(vec![0; 4]));
            for page in [page(libc::PROT_NONE), page(libc::PROT_READ)] {
                let mut length: libc::socklen_t = 4;
                let at = [
                    a as _,
                    libc::SOL_SOCKET as _,
                    libc::SO_ERROR as _,
                    page.addr(),
                    (&raw mut length).addr(),
                ];
                assert_eq!(way.call(libc::SYS_getsockopt, words(at)), Err(Errno(libc::EFAULT)));
            }
        }
        let receive = |message: &mut libc::msghdr| {
            Way::Library.call(libc::SYS_recvmsg, words([b as _, (&raw mut *message).addr()]))
        };
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            sys::write_all(a, b"message");
            let mut room = [0u8; 7];
            let mut place = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let mut message: libc::msghdr = zeroed();
            (message.msg_iov, message.msg_iovlen) = (&raw mut place, 1);
            assert_eq!(receive(&mut message), Ok(7));
            assert_eq!(&room, b"message");
            sys::write_all(a, b"x");
            let mut bad = libc::iovec { iov_base: page(libc::PROT_READ).cast(), iov_len: room.len() };
            message.msg_iov = &raw mut bad;
            assert_eq!(receive(&mut message), Err(Errno(libc::EFAULT)));
            assert_eq!(sys::read_exact(b, 1), b"x");
        }
        Flow::new(3).write(a, 100_000, 10_000);
        Flow::new(3).read(b, 100_000, 10_000);
    }),
    case("requests", || {
        compare(|way, fd, bad| {
            let requests = [
                libc::FIONREAD,
                libc::FIONBIO,
                libc::FIOASYNC,
                libc::TIOCOUTQ,
                0x8905,
                0x894b,
                0x8912,
                0x8913,
            ];
            requests.iter().map(|request| way.ioctl(fd, *request as u32, bad)).collect()
        });
    }),
    case("addresses", || {
        compare(|way, fd, bad| {
            let (mut room, mut length) = ([0_u8; 64], 64_u32);
            let room = room.as_mut_ptr().addr();
            let mut seen = vec![];
            for number in [libc::SYS_getsockname, libc::SYS_getpeername] {
                seen.push(way.call(number, words([fd as _, bad, (&raw mut length).addr()])));
                seen.push(way.call(number, words([fd as _, room, bad])));
            }
            for number in [libc::SYS_connect, libc::SYS_bind] {
                for length in [0, 1, 2, 16, 28, 128, 129, usize::MAX] {
                    // An address of zeroes would end the connection.
                    if bad == 0 || unreadable(bad) {
                        seen.push(way.call(number, words([fd as _, bad, length])));
                    }
                }
            }
            seen
        });
    }),
    case("accepted_addresses", || {
        for (round, bad) in bad_addresses().into_iter().enumerate() {
            let seen = BOTH.map(|way| {
                let (listener, port) = way.listener(libc::AF_INET);
                let client = way.socket(libc::AF_INET);
                way.connect(client, &sys::Address::loopback(libc::AF_INET, port)).expect("connect");
                let mut length = 64_u32;
                let first = way.call(libc::SYS_accept, words([listener as _, bad, (&raw mut length).addr()]));
                let fresh = |answer: Answer| answer.map(|fd| way.close(fd as i32));
                let first = fresh(first);
                let client = way.socket(libc::AF_INET);
                way.connect(client, &sys::Address::loopback(libc::AF_INET, port)).expect("connect");
                let mut room = [0_u8; 64];
                let at = [listener as _, room.as_mut_ptr().addr(), bad];
                let second = fresh(way.call(libc::SYS_accept, words(at)));
                (first, second)
            });
            assert_eq!(seen[0], seen[1], "address {round}");
        }
    }),
    case("received_addresses", || {
        compare(|way, fd, bad| {
            let mut buffer = [0_u8; 4];
            let at = buffer.as_mut_ptr().addr();
            let (mut room, mut seen) = ([0_u8; 64], vec![]);
            let mut length = 64_u32;
            let flags = libc::MSG_DONTWAIT as usize;
            let peer =
                |to: usize, length: usize| way.call(libc::SYS_recvfrom, [fd as _, at, 1, flags, to, length]);
            seen.push(peer(bad, (&raw mut length).addr()));
            seen.push(peer(room.as_mut_ptr().addr(), bad));
            for given in [0, 5, u32::MAX] {
                for to in [room.as_mut_ptr().addr(), 0] {
                    let mut length = given;
                    seen.push(peer(to, (&raw mut length).addr()));
                    seen.push(Ok(length as usize));
                }
            }
            seen
        });
    }),
    case("messages", || {
        compare(|way, fd, bad| {
            let mut seen = vec![];
            let flags = libc::MSG_DONTWAIT as usize;
            for number in [libc::SYS_sendmsg, libc::SYS_recvmsg] {
                // One thing wrong at a time.
                for wrong in 0..5 {
                    let mut byte = *b"m";
                    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
                    let mut message: libc::msghdr = zeroed();
                    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
                    let mut at = (&raw mut message).addr();
                    match wrong {
                        0 => at = bad,
                        1 => message.msg_iov = pointer(bad),
                        2 => vector = libc::iovec { iov_base: pointer(bad), iov_len: 1 },
                        3 => (message.msg_control, message.msg_controllen) = (pointer(bad), 32),
                        _ => (message.msg_name, message.msg_namelen) = (pointer(bad), 16),
                    }
                    seen.push(way.call(number, words([fd as _, at, flags])));
                    std::hint::black_box(&vector);
                }
            }
            seen
        });
    }),
    case("messages_of_local_sockets", || {
        for bad in bad_addresses() {
            let seen = BOTH.map(|way| {
                let (a, _b) = sys::socketpair();
                let mut byte = *b"m";
                let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
                let mut header: libc::mmsghdr = zeroed();
                (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (&raw mut vector, 1);
                (header.msg_hdr.msg_control, header.msg_hdr.msg_controllen) = (pointer(bad), 32);
                let flags = libc::MSG_DONTWAIT as usize;
                let at = (&raw mut header).addr();
                [
                    way.call(libc::SYS_sendmsg, words([a as _, at, flags])),
                    way.call(libc::SYS_sendmmsg, words([a as _, at, 1, flags])),
                    way.call(libc::SYS_sendmmsg, words([a as _, bad, 1, flags])),
                    way.call(libc::SYS_recvmmsg, words([a as _, bad, 1, flags, 0])),
                    way.call(libc::SYS_recvmsg, words([a as _, bad, flags])),
                ]
            });
            assert_eq!(seen[0], seen[1], "address {bad:#x}");
        }
    }),
    case("several_messages", || {
        compare(|way, fd, bad| {
            let mut byte = *b"m";
            let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
            let mut header: libc::mmsghdr = zeroed();
            (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (&raw mut vector, 1);
            let (at, flags) = ((&raw mut header).addr(), libc::MSG_DONTWAIT as usize);
            let mut seen = vec![
                way.call(libc::SYS_sendmmsg, words([fd as _, bad, 1, flags])),
                way.call(libc::SYS_recvmmsg, words([fd as _, bad, 1, flags, 0])),
            ];
            if bad == 0 || unreadable(bad) {
                seen.push(way.call(libc::SYS_recvmmsg, words([fd as _, at, 1, flags, bad])));
            }
            for time in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0), (0, 0)] {
                let mut time = libc::timespec { tv_sec: time.0, tv_nsec: time.1 };
                let at = words([fd as _, at, 1, flags, (&raw mut time).addr()]);
                seen.push(way.call(libc::SYS_recvmmsg, at));
            }
            seen
        });
    }),
    case("arrays_of_buffers", || {
        compare(|way, fd, bad| {
            let mut seen = vec![];
            for number in [libc::SYS_writev, libc::SYS_readv] {
                for count in [1, 2, 1024, 1025, usize::MAX] {
                    if bad == 0 || unreadable(bad) {
                        seen.push(way.call(number, words([fd as _, bad, count])));
                    }
                }
                let mut byte = *b"v";
                let good = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
                let other = libc::iovec { iov_base: pointer(bad), iov_len: 1 };
                // What comes before the bad one moves.
                let vectors = [good, other];
                seen.push(way.call(number, words([fd as _, vectors.as_ptr().addr(), 2])));
                let huge = [libc::iovec { iov_base: pointer(bad), iov_len: usize::MAX }];
                seen.push(way.call(number, words([fd as _, huge.as_ptr().addr(), 1])));
            }
            seen
        });
    }),
    case("positions_of_files", || {
        compare(|way, fd, bad| {
            let file = sys::file_with(b"0123456789");
            let seen = vec![
                way.call(libc::SYS_sendfile, words([fd as _, file as _, bad, 1])),
                way.call(libc::SYS_splice, words([fd as _, bad, file as _, 0, 1, 0])),
                way.call(libc::SYS_splice, words([file as _, 0, fd as _, bad, 1, 0])),
            ];
            sys::close(file).expect("close");
            seen
        });
    }),
    case("waits", || {
        compare(|way, fd, bad| {
            let set = way.call(libc::SYS_epoll_create1, words([0])).expect("epoll") as i32;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
            let at = (&raw mut event).addr();
            let add = libc::EPOLL_CTL_ADD as usize;
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let array = (&raw mut entry).addr();
            let mut bits = [0_u64; 16];
            bits[fd as usize / 64] |= 1 << (fd % 64);
            let bits = bits.as_mut_ptr().addr();
            let count = fd as usize + 1;
            let mut seen = vec![];
            if bad == 0 || unreadable(bad) {
                seen.push(way.call(libc::SYS_epoll_ctl, words([set as _, add, fd as _, bad])));
                // As a timeout or a mask, null means something else.
                if bad != 0 {
                    seen.push(way.call(libc::SYS_ppoll, words([array, 1, bad, 0, 8])));
                    seen.push(way.call(libc::SYS_pselect6, words([count, bits, 0, 0, bad, 0])));
                    seen.push(way.call(libc::SYS_select, words([count, bad, 0, 0, 0])));
                    seen.push(way.call(libc::SYS_select, words([count, bits, 0, 0, bad])));
                }
            }
            seen.push(way.call(libc::SYS_epoll_ctl, words([set as _, add, fd as _, at])));
            seen.push(way.call(libc::SYS_epoll_wait, words([set as _, bad, 1, 0])));
            seen.push(way.call(libc::SYS_poll, words([bad, 1, 0])));
            way.close(set);
            seen
        });
    }),
];

/// Addresses at which there is nothing to read or write, or nothing to write.
fn bad_addresses() -> Vec<usize> {
    let none = page(libc::PROT_NONE).addr();
    let constant = page(libc::PROT_READ).addr();
    vec![
        0,
        1,
        none,
        // The last byte of a page, with a hole behind it.
        page(libc::PROT_READ | libc::PROT_WRITE).addr() + 4095,
        constant,
        0x7fff_ffff_f000,
        1 << 47,
        1 << 63,
        usize::MAX - 4095,
        usize::MAX,
    ]
}

/// Whether nothing can be read there either.
fn unreadable(address: usize) -> bool {
    // SAFETY: the kernel looks, and says EFAULT.
    let mut byte = 0_u8;
    let (from, to) = (
        libc::iovec { iov_base: pointer(address), iov_len: 1 },
        libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 },
    );
    // SAFETY: as above.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
    read != 1
}

fn pointer<T>(address: usize) -> *mut T {
    std::ptr::without_provenance_mut(address)
}

/// Does the same to a connection of each way, with bytes to read and a peer that reads, for every bad address.
#[track_caller]
fn compare(look: impl Fn(Way, i32, usize) -> Vec<Answer>) {
    for bad in bad_addresses() {
        let [library, past] = BOTH.map(|way| {
            let (a, b) = way.pair(libc::AF_INET);
            for _ in 0..3 {
                way.send(a, &[b'x'; 300], 0).expect("send");
                let mut buffer = [0; 300];
                let mut done = 0;
                while done < 300 {
                    done += way.recv(b, &mut buffer[done..], 0).expect("recv");
                }
            }
            way.send(a, b"unread", 0).expect("send");
            assert_eq!(way.poll(b, libc::POLLIN, -1), libc::POLLIN);
            let seen = look(way, b, bad);
            // Whatever was refused, the connection is as it was.
            let left = way.recv(b, &mut [0; 100], libc::MSG_DONTWAIT);
            way.send(b, b"!", 0).expect("send");
            let mut byte = [0; 1];
            let back = way.recv(a, &mut byte, 0);
            way.close(a);
            way.close(b);
            (seen, left, back)
        });
        if library != past {
            let place = library.0.iter().zip(&past.0).position(|(one, other)| one != other);
            let shown = place.map(|place| (&library.0[place], &past.0[place]));
            panic!("address {bad:#x}: call {place:?} {shown:?}; left {:?} {:?}", library.1, past.1);
        }
    }
}

/// Makes madvise(2) answer EINVAL to these kinds of advice from now on, without a word to anybody.
fn without_advice(advice: &[u32]) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let allow = statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);
    let load = |offset: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset as u32);
    let mut program = vec![load(0), statement(equal, 1, 0, libc::SYS_madvise as u32), allow];
    program.push(load(std::mem::offset_of!(libc::seccomp_data, args) + 16));
    for &advice in advice {
        program.push(statement(equal, 0, 1, advice));
        let refused = libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32;
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, refused));
    }
    program.push(allow);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let prctl = |words| Way::Past.call(libc::SYS_prctl, words).expect("prctl");
    prctl(words([libc::PR_SET_NO_NEW_PRIVS as usize, 1]));
    let at = (&raw const filter).addr();
    prctl(words([libc::PR_SET_SECCOMP as usize, libc::SECCOMP_MODE_FILTER as usize, at]));
}
