//! How an actor makes a call.
//!
//! # Safety
//! Buffers live across each call. Descriptors are plain numbers: a wrong one is the program's own business.
//! The names bind dynamically, so under preload these are sockshim's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{mem, ptr, slice};

use libc::{c_int, c_long, iovec};

use crate::call::{CHANNELS, Call, Polling, RIGHTS, Reading, Reply, Waiting, Writing};

static PIPES: AtomicU32 = AtomicU32::new(0);

/// Handlers for the signals that a driver sends: USR1 interrupts, USR2 restarts.
pub(crate) fn catch_signals() {
    extern "C" fn count(signal: c_int) {
        if signal == libc::SIGPIPE {
            PIPES.fetch_add(1, Ordering::Relaxed);
        }
    }
    for (signal, flags) in [(libc::SIGPIPE, 0), (libc::SIGUSR1, 0), (libc::SIGUSR2, libc::SA_RESTART)] {
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = count as extern "C" fn(c_int) as usize;
            action.sa_flags = flags;
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

/// The byte of a stream at a position.
fn byte(stream: u64, position: u64) -> u8 {
    ((position ^ stream << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
}

fn bytes(stream: u64, position: u64, length: usize) -> Vec<u8> {
    (position..position + length as u64).map(|at| byte(stream, at)).collect()
}

/// FNV-1a.
fn digest<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

pub(crate) fn digest_of(stream: u64, position: u64, length: usize) -> u64 {
    digest(bytes(stream, position, length).iter())
}

impl Reply {
    fn of(value: i64) -> Self {
        let errno = if value < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 };
        Self { value, errno, ..Self::default() }
    }
}

/// Performs `call` in this thread.
pub(crate) fn perform(call: &Call) -> Reply {
    let before = PIPES.load(Ordering::Relaxed);
    let mut reply = unsafe { act(call) };
    reply.pipes = PIPES.load(Ordering::Relaxed) - before;
    reply
}

unsafe fn act(call: &Call) -> Reply {
    unsafe {
        match *call {
            Call::Hello => {
                Reply { more: vec![libc::getpid().into(), libc::gettid().into()], ..Reply::default() }
            }
            Call::Listen { v6 } => listen(v6),
            Call::Connect { v6, port } => {
                let fd = libc::socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM, 0);
                let (address, length) = loopback(v6, port);
                if libc::connect(fd, (&raw const address).cast(), length) < 0 {
                    return Reply::of(-1);
                }
                no_delay(fd);
                Reply::of(fd.into())
            }
            Call::Accept { fd } => {
                let accepted = libc::accept(fd, ptr::null_mut(), ptr::null_mut());
                libc::close(fd);
                no_delay(accepted);
                Reply::of(accepted.into())
            }
            Call::Write { fd, how, flags, stream, position, length } => {
                let mut data = bytes(stream, position, length);
                let reply = write(fd, how, flags, &mut data);
                if flags & libc::MSG_MORE != 0 {
                    // The kernel holds such bytes back for a while: off they go.
                    no_delay(fd);
                }
                reply
            }
            Call::Fill { fd, stream, position, piece } => {
                let mut at = position;
                loop {
                    let data = bytes(stream, at, piece);
                    let sent = libc::send(fd, data.as_ptr().cast(), piece, libc::MSG_DONTWAIT);
                    if sent < 0 {
                        let mut reply = Reply::of(-1);
                        reply.more = vec![(at - position) as i64];
                        return reply;
                    }
                    at += sent as u64;
                }
            }
            Call::Read { fd, how, flags, length } => read(fd, how, flags, length),
            Call::Drain { fd, stream, position } => drain(fd, stream, position),
            Call::Shutdown { fd, how } => Reply::of(libc::shutdown(fd, how).into()),
            Call::Close { fd } => Reply::of(libc::close(fd).into()),
            Call::Dup { fd, lowest } if lowest > 0 => {
                Reply::of(libc::fcntl(fd, libc::F_DUPFD, lowest).into())
            }
            Call::Dup { fd, .. } => Reply::of(libc::dup(fd).into()),
            Call::DupOnto { fd, to, flags } => Reply::of(i64::from(match flags {
                Some(flags) => libc::dup3(fd, to, flags),
                None => libc::dup2(fd, to),
            })),
            Call::Nonblock { fd, on, by_ioctl: true } => {
                let mut value = c_int::from(on);
                Reply::of(libc::ioctl(fd, libc::FIONBIO, &raw mut value).into())
            }
            Call::Nonblock { fd, on, .. } => {
                let flags = libc::fcntl(fd, libc::F_GETFL);
                let new = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
                let mut reply = Reply::of(libc::fcntl(fd, libc::F_SETFL, new).into());
                reply.more = vec![flags.into()];
                reply
            }
            Call::SetOption { fd, level, name, ref value } => Reply::of(
                libc::setsockopt(fd, level, name, value.as_ptr().cast(), mem::size_of_val(&value[..]) as u32)
                    .into(),
            ),
            Call::GetOption { fd, level, name, words } => {
                let mut value = vec![-1_i32; words];
                let mut length = (words * 4) as u32;
                let mut reply = Reply::of(
                    libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut length).into(),
                );
                reply.more = value.into_iter().map(i64::from).chain([length.into()]).collect();
                reply
            }
            Call::Ioctl { fd, request } => {
                let mut value: c_int = -1;
                let mut reply = Reply::of(libc::ioctl(fd, request, &raw mut value).into());
                reply.more = vec![value.into()];
                reply
            }
            Call::Names { fd } => {
                let mut reply = Reply::default();
                for call in [libc::getsockname, libc::getpeername] {
                    let mut address: libc::sockaddr_storage = mem::zeroed();
                    let mut length = size_of_val(&address) as u32;
                    let told = Reply::of(call(fd, (&raw mut address).cast(), &raw mut length).into());
                    // Ports differ from run to run.
                    reply.more.extend([
                        told.value,
                        told.errno.into(),
                        length.into(),
                        address.ss_family.into(),
                    ]);
                }
                reply
            }
            Call::Poll { how, ref entries, timeout } => poll(how, entries, timeout),
            Call::NewSet => Reply::of(libc::epoll_create1(0).into()),
            Call::Control { set, operation, fd, events, data } => {
                let mut event = libc::epoll_event { events, u64: data };
                Reply::of(libc::epoll_ctl(set, operation, fd, &mut event).into())
            }
            Call::Wait { set, how, most, timeout } => wait(set, how, most, timeout),
            Call::Fork { .. } | Call::Exec { .. } | Call::Exit => unreachable!("the actor's own"),
            Call::SendRights { fd } => send_rights(fd),
            Call::TakeRights => take_rights(),
            Call::Splice { fd, stream, position, length } => {
                let mut ends = [0; 2];
                libc::pipe(ends.as_mut_ptr());
                let data = bytes(stream, position, length);
                libc::write(ends[1], data.as_ptr().cast(), length);
                let reply =
                    Reply::of(libc::splice(ends[0], ptr::null_mut(), fd, ptr::null_mut(), length, 0) as i64);
                libc::close(ends[0]);
                libc::close(ends[1]);
                reply
            }
            Call::SendFile { fd, stream, position, length, by_offset } => {
                let file = libc::memfd_create(c"file".as_ptr(), 0);
                let data = bytes(stream, position, length);
                libc::write(file, data.as_ptr().cast(), length);
                libc::lseek(file, 0, libc::SEEK_SET);
                let mut offset = 0;
                let place = if by_offset { &raw mut offset } else { ptr::null_mut() };
                let mut reply = Reply::of(libc::sendfile(fd, file, place, length + 10) as i64);
                reply.more = vec![offset, libc::lseek(file, 0, libc::SEEK_CUR)];
                libc::close(file);
                reply
            }
        }
    }
}

fn loopback(v6: bool, port: u16) -> (libc::sockaddr_storage, u32) {
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        if v6 {
            let address = &mut *(&raw mut storage).cast::<libc::sockaddr_in6>();
            address.sin6_family = libc::AF_INET6 as u16;
            address.sin6_port = port.to_be();
            address.sin6_addr.s6_addr[15] = 1;
            (storage, size_of::<libc::sockaddr_in6>() as u32)
        } else {
            let address = &mut *(&raw mut storage).cast::<libc::sockaddr_in>();
            address.sin_family = libc::AF_INET as u16;
            address.sin_port = port.to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            (storage, size_of::<libc::sockaddr_in>() as u32)
        }
    }
}

unsafe fn listen(v6: bool) -> Reply {
    unsafe {
        let fd = libc::socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM, 0);
        let (mut address, mut length) = loopback(v6, 0);
        let bound = libc::bind(fd, (&raw const address).cast(), length);
        assert_eq!((bound, libc::listen(fd, 8)), (0, 0), "a listening socket");
        libc::getsockname(fd, (&raw mut address).cast(), &mut length);
        // The port lies at the same place in both families.
        let port = u16::from_be((*(&raw const address).cast::<libc::sockaddr_in>()).sin_port);
        let mut reply = Reply::of(fd.into());
        reply.more = vec![port.into()];
        reply
    }
}

/// So that the kernel never waits for more before it sends.
unsafe fn no_delay(fd: i32) {
    let on: c_int = 1;
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), 4) };
}

/// Divides a buffer into three unequal pieces, one of which may be empty.
fn pieces(data: &mut [u8]) -> Vec<iovec> {
    let (a, b) = (data.len() / 5, data.len() / 2);
    let start = data.as_mut_ptr();
    [(0, a), (a, b), (b, data.len())]
        .map(|(from, to)| iovec { iov_base: start.wrapping_add(from).cast(), iov_len: to - from })
        .to_vec()
}

fn message(vectors: &mut [iovec]) -> libc::msghdr {
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

unsafe fn write(fd: i32, how: Writing, flags: i32, data: &mut [u8]) -> Reply {
    let (start, length) = (data.as_ptr().cast(), data.len());
    let mut vectors = pieces(data);
    let vectors_start = vectors.as_ptr();
    unsafe {
        Reply::of(match how {
            Writing::Write => libc::write(fd, start, length),
            Writing::Writev => libc::writev(fd, vectors_start, 3),
            Writing::Pwritev2 => libc::pwritev2(fd, vectors_start, 3, -1, 0),
            Writing::Send => libc::send(fd, start, length, flags),
            Writing::Sendto => libc::sendto(fd, start, length, flags, ptr::null(), 0),
            Writing::Sendmsg => libc::sendmsg(fd, &message(&mut vectors), flags),
            Writing::Raw => {
                let address: *const libc::sockaddr = ptr::null();
                libc::syscall(libc::SYS_sendto, fd, start, length, flags, address, 0) as isize
            }
            Writing::Sendmmsg => {
                let mut headers: Vec<libc::mmsghdr> = vectors
                    .chunks_mut(1)
                    .map(|one| libc::mmsghdr { msg_hdr: message(one), msg_len: u32::MAX })
                    .collect();
                let mut reply = Reply::of(libc::sendmmsg(fd, headers.as_mut_ptr(), 3, flags).into());
                if reply.value >= 0 {
                    reply.more =
                        headers[..reply.value as usize].iter().map(|each| each.msg_len.into()).collect();
                    reply.more.push(reply.value);
                    reply.value = reply.more[..reply.value as usize].iter().sum();
                }
                return reply;
            }
        } as i64)
    }
}

unsafe fn read(fd: i32, how: Reading, flags: i32, length: usize) -> Reply {
    let mut data = vec![0xaa_u8; length];
    let start = data.as_mut_ptr();
    let mut vectors = pieces(&mut data);
    let mut more = Vec::new();
    let count = unsafe {
        match how {
            Reading::Read => libc::read(fd, start.cast(), length),
            Reading::Readv => libc::readv(fd, vectors.as_ptr(), 3),
            Reading::Preadv2 => {
                let nowait = if flags & libc::MSG_DONTWAIT != 0 { libc::RWF_NOWAIT } else { 0 };
                libc::preadv2(fd, vectors.as_ptr(), 3, -1, nowait)
            }
            Reading::Recv => libc::recv(fd, start.cast(), length, flags),
            Reading::Raw => {
                let (address, size): (*const libc::sockaddr, *const u32) = (ptr::null(), ptr::null());
                libc::syscall(libc::SYS_recvfrom, fd, start, length, flags, address, size) as isize
            }
            Reading::Recvfrom => {
                let mut address: libc::sockaddr_storage = mem::zeroed();
                let mut size = size_of_val(&address) as u32;
                let received =
                    libc::recvfrom(fd, start.cast(), length, flags, (&raw mut address).cast(), &raw mut size);
                more = vec![size.into(), address.ss_family.into()];
                received
            }
            Reading::Recvmsg => {
                let mut header = message(&mut vectors);
                let mut control = [0_u8; 64];
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = control.len();
                let received = libc::recvmsg(fd, &mut header, flags);
                if received >= 0 {
                    more = vec![
                        header.msg_flags.into(),
                        header.msg_controllen as i64,
                        header.msg_namelen.into(),
                    ];
                }
                received
            }
            Reading::Recvmmsg => {
                let mut headers: Vec<libc::mmsghdr> = vectors
                    .chunks_mut(1)
                    .map(|one| libc::mmsghdr { msg_hdr: message(one), msg_len: u32::MAX })
                    .collect();
                let one = flags | libc::MSG_WAITFORONE;
                let received = libc::recvmmsg(fd, headers.as_mut_ptr(), 3, one, ptr::null_mut());
                let mut kept = Vec::new();
                let mut total = 0;
                for each in &headers[..received.max(0) as usize] {
                    let vector = *each.msg_hdr.msg_iov;
                    kept.extend_from_slice(slice::from_raw_parts(
                        vector.iov_base.cast::<u8>(),
                        each.msg_len as usize,
                    ));
                    more.push(each.msg_len.into());
                    total += each.msg_len as isize;
                }
                let mut reply = Reply::of(if received < 0 { -1 } else { total as i64 });
                reply.digest = digest(kept.iter());
                reply.more = more;
                return reply;
            }
        }
    };
    let mut reply = Reply::of(count as i64);
    reply.more = more;
    reply.digest = digest(data.iter().take(count.max(0) as usize));
    reply
}

unsafe fn drain(fd: i32, stream: u64, position: u64) -> Reply {
    let mut buffer = vec![0_u8; 1 << 17];
    let mut at = position;
    loop {
        let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if count <= 0 {
            let mut reply = Reply::of(count as i64);
            reply.more = vec![(at - position) as i64];
            return reply;
        }
        if buffer[..count as usize] != bytes(stream, at, count as usize) {
            return Reply { value: -2, more: vec![(at - position) as i64], ..Reply::default() };
        }
        at += count as u64;
    }
}

unsafe fn poll(how: Polling, entries: &[(i32, i16)], timeout: i32) -> Reply {
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(timeout) * 1_000_000 };
    let time = if timeout < 0 { ptr::null() } else { &raw const time };
    let mut list: Vec<_> =
        entries.iter().map(|&(fd, events)| libc::pollfd { fd, events, revents: -1 }).collect();
    let count = list.len() as u64;
    unsafe {
        let told = match how {
            Polling::Poll => libc::poll(list.as_mut_ptr(), count, timeout),
            Polling::Ppoll => libc::ppoll(list.as_mut_ptr(), count, time, ptr::null()),
            Polling::Select | Polling::Pselect => return select(how, entries, timeout),
        };
        let mut reply = Reply::of(told.into());
        reply.more = list.iter().map(|entry| entry.revents.into()).collect();
        reply
    }
}

unsafe fn select(how: Polling, entries: &[(i32, i16)], timeout: i32) -> Reply {
    unsafe {
        let mut sets: [libc::fd_set; 3] = mem::zeroed();
        let masks = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
        for &(fd, events) in entries {
            for (set, mask) in sets.iter_mut().zip(masks) {
                if events & mask != 0 {
                    libc::FD_SET(fd, set);
                }
            }
        }
        let [read, write, except] = &mut sets;
        let told = if how == Polling::Select {
            let mut time = libc::timeval { tv_sec: 0, tv_usec: i64::from(timeout) * 1000 };
            let time = if timeout < 0 { ptr::null_mut() } else { &raw mut time };
            libc::select(CHANNELS, read, write, except, time)
        } else {
            let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(timeout) * 1_000_000 };
            let time = if timeout < 0 { ptr::null() } else { &raw const time };
            libc::pselect(CHANNELS, read, write, except, time, ptr::null())
        };
        let mut reply = Reply::of(told.into());
        if told >= 0 {
            let bits = |fd| {
                sets.iter().zip([1, 2, 4]).map(|(set, bit)| i64::from(libc::FD_ISSET(fd, set)) * bit).sum()
            };
            reply.more = entries.iter().map(|&(fd, _)| bits(fd)).collect();
        }
        reply
    }
}

unsafe fn wait(set: i32, how: Waiting, most: i32, timeout: i32) -> Reply {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 64];
    let list = events.as_mut_ptr();
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(timeout) * 1_000_000 };
    let time = if timeout < 0 { ptr::null() } else { &raw const time };
    let told = unsafe {
        match how {
            Waiting::Wait => libc::epoll_wait(set, list, most, timeout),
            Waiting::Pwait => libc::epoll_pwait(set, list, most, timeout, ptr::null()),
            Waiting::Pwait2 => {
                let mask: *const libc::sigset_t = ptr::null();
                libc::syscall(libc::SYS_epoll_pwait2, set, list, most, time, mask, 8 as c_long) as c_int
            }
            Waiting::OneByOne => {
                let mut got = 0;
                while got < 12 && libc::epoll_wait(set, list.add(got), 1, 0) == 1 {
                    got += 1;
                }
                got as c_int
            }
        }
    };
    let mut reply = Reply::of(told.into());
    let mut told: Vec<_> =
        events[..told.max(0) as usize].iter().map(|event| [event.u64 as i64, event.events.into()]).collect();
    told.sort_unstable();
    if how == Waiting::OneByOne {
        // How often a level is told in so many calls is the order's business.
        told.dedup();
        reply.value = 0;
    }
    reply.more = told.concat();
    reply
}

/// A descriptor in a message of one byte.
unsafe fn send_rights(fd: i32) -> Reply {
    unsafe {
        let mut letter = [b'r'];
        let mut vectors = [iovec { iov_base: letter.as_mut_ptr().cast(), iov_len: 1 }];
        let mut control = [0_u64; 8];
        let mut header = message(&mut vectors);
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let part = &mut *libc::CMSG_FIRSTHDR(&header);
        part.cmsg_level = libc::SOL_SOCKET;
        part.cmsg_type = libc::SCM_RIGHTS;
        part.cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(part).cast::<c_int>().write_unaligned(fd);
        Reply::of(libc::sendmsg(RIGHTS, &header, 0) as i64)
    }
}

unsafe fn take_rights() -> Reply {
    unsafe {
        let mut letter = [0];
        let mut vectors = [iovec { iov_base: letter.as_mut_ptr().cast(), iov_len: 1 }];
        let mut control = [0_u64; 8];
        let mut header = message(&mut vectors);
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let received = libc::recvmsg(RIGHTS, &mut header, 0);
        let part = libc::CMSG_FIRSTHDR(&header);
        if received < 1 || part.is_null() {
            return Reply::of(-1);
        }
        Reply::of(libc::CMSG_DATA(part).cast::<c_int>().read_unaligned().into())
    }
}
