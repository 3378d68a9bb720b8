//! The functions of the table: from C's pointers to the stack's calls, and back.
//!
//! # Safety
//!
//! Every function here is called by packetdrill with the arguments of the system call of its name. A pointer is null, or
//! points at what that call's man page says. Null is answered with EFAULT, as the kernel does; a kernel would find
//! other bad pointers too, which packetdrill does not pass.

use core::ptr;
use core::slice;
use core::time::Duration;

use libc::{
    c_int, c_long, c_longlong, c_uint, c_ulong, c_void, epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd,
    size_t, sockaddr, socklen_t, ssize_t, timeval, useconds_t,
};

use crate::address;
use crate::errno::{Answer, Errno, answer};
use crate::session::SESSION;
use crate::socket::Received;
use crate::table::{Interface, UserData};

/// All members of the table.
pub(crate) fn table() -> Interface {
    Interface {
        userdata: ptr::null_mut(),
        free: Some(free),
        socket: Some(socket),
        bind: Some(bind),
        listen: Some(listen),
        accept: Some(accept),
        connect: Some(connect),
        read: Some(read),
        readv: Some(readv),
        recv: Some(recv),
        recvfrom: Some(recvfrom),
        recvmsg: Some(recvmsg),
        write: Some(write),
        writev: Some(writev),
        send: Some(send),
        sendto: Some(sendto),
        sendmsg: Some(sendmsg),
        fcntl: Some(fcntl),
        ioctl: Some(ioctl),
        close: Some(close),
        shutdown: Some(shutdown),
        getsockopt: Some(getsockopt),
        setsockopt: Some(setsockopt),
        poll: Some(poll),
        netdev_send: Some(netdev_send),
        netdev_receive: Some(netdev_receive),
        usleep: Some(usleep),
        gettimeofday: Some(gettimeofday),
        epoll_create: Some(epoll_create),
        epoll_ctl: Some(epoll_ctl),
        epoll_wait: Some(epoll_wait),
        pipe: Some(pipe),
        splice: Some(splice),
    }
}

/// The `len` bytes at `data`.
///
/// # Safety
///
/// `data` is null or points at `len` bytes that stay as they are while the answer lives.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Answer<&'a [u8]> {
    match data.is_null() {
        true if len > 0 => Err(Errno::EFAULT),
        true => Ok(&[]),
        // SAFETY: the caller's.
        false => Ok(unsafe { slice::from_raw_parts(data.cast(), len) }),
    }
}

/// The `len` bytes at `data`, to be written.
///
/// # Safety
///
/// `data` is null or points at `len` bytes that nothing else accesses while the answer lives.
unsafe fn room<'a>(data: *mut c_void, len: usize) -> Answer<&'a mut [u8]> {
    match data.is_null() {
        true if len > 0 => Err(Errno::EFAULT),
        true => Ok(&mut []),
        // SAFETY: the caller's.
        false => Ok(unsafe { slice::from_raw_parts_mut(data.cast(), len) }),
    }
}

/// The pieces of an I/O vector.
///
/// # Safety
///
/// `vector` is null or points at `count` pieces, each of which is null or points at its bytes.
unsafe fn pieces<'a>(vector: *const iovec, count: usize) -> Answer<&'a [iovec]> {
    match vector.is_null() {
        true if count > 0 => Err(Errno::EFAULT),
        true => Ok(&[]),
        // SAFETY: the caller's.
        false => Ok(unsafe { slice::from_raw_parts(vector, count) }),
    }
}

/// What is sent from an I/O vector, in one piece.
///
/// # Safety
///
/// As [`pieces`].
unsafe fn gather(vector: *const iovec, count: usize) -> Answer<Vec<u8>> {
    let mut data = Vec::new();
    // SAFETY: the caller's.
    for piece in unsafe { pieces(vector, count) }? {
        // SAFETY: the caller's.
        data.extend_from_slice(unsafe { bytes(piece.iov_base, piece.iov_len) }?);
    }
    Ok(data)
}

/// Receives into an I/O vector.
///
/// # Safety
///
/// As [`pieces`].
unsafe fn scatter(fd: c_int, vector: *const iovec, count: usize, flags: c_int) -> Answer<Received> {
    // SAFETY: the caller's.
    let vector = unsafe { pieces(vector, count) }?;
    let mut data = vec![0; vector.iter().map(|piece| piece.iov_len).sum()];
    let received = crate::socket::receive(fd, &mut data, flags)?;
    let mut rest = &data[..received.len];
    for piece in vector {
        let (now, later) = rest.split_at(rest.len().min(piece.iov_len));
        // SAFETY: the caller's.
        unsafe { room(piece.iov_base, now.len()) }?.copy_from_slice(now);
        rest = later;
    }
    Ok(received)
}

unsafe extern "C" fn free(_: UserData) {
    SESSION.close();
}

unsafe extern "C" fn socket(_: UserData, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    answer(SESSION.call(|world| world.socket(domain, kind, protocol)))
}

unsafe extern "C" fn bind(_: UserData, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: an address of `len` bytes, as bind(2).
    answer(
        unsafe { address::read(address, len) }.and_then(|local| SESSION.call(|world| world.bind(fd, local))),
    )
}

unsafe extern "C" fn listen(_: UserData, fd: c_int, backlog: c_int) -> c_int {
    answer(SESSION.call(|world| world.listen(fd, backlog)))
}

unsafe extern "C" fn accept(_: UserData, fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let accepted = SESSION.wait(|world| world.patience_to_receive(fd, 0), |world| world.accept(fd));
    answer(accepted.map(|(new, remote)| {
        // SAFETY: room for an address of `len` bytes, as accept(2).
        unsafe { address::write(&remote, address, len) };
        new
    }))
}

unsafe extern "C" fn connect(_: UserData, fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: an address of `len` bytes, as connect(2).
    let remote = unsafe { address::read(address, len) };
    answer(remote.and_then(|remote| crate::socket::connect(fd, remote)))
}

unsafe extern "C" fn read(_: UserData, fd: c_int, data: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: room for `len` bytes, as read(2).
    unsafe { receive(fd, data, len, 0) }
}

unsafe extern "C" fn readv(_: UserData, fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: a vector of `count` pieces, as readv(2).
    answer(unsafe { scatter(fd, vector, usize::try_from(count).unwrap_or(0), 0) }.map(|it| length(it.len)))
}

unsafe extern "C" fn recv(_: UserData, fd: c_int, data: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: room for `len` bytes, as recv(2).
    unsafe { receive(fd, data, len, flags) }
}

unsafe extern "C" fn recvfrom(
    _: UserData,
    fd: c_int,
    data: *mut c_void,
    len: size_t,
    flags: c_int,
    _address: *mut sockaddr,
    address_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: room for `len` bytes, as recvfrom(2).
    let result = unsafe { receive(fd, data, len, flags) };
    if result >= 0 && !address_len.is_null() {
        // A TCP socket names no sender.
        // SAFETY: not null, so it points at the length.
        unsafe { *address_len = 0 };
    }
    result
}

/// # Safety
///
/// As recv(2).
unsafe fn receive(fd: c_int, data: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's.
    let room = unsafe { room(data, len) };
    match room {
        Ok(room) => answer(crate::socket::receive(fd, room, flags).map(|it| length(it.len))),
        // The kernel copies nothing, and so touches nothing, before there is something.
        Err(fault) => answer(crate::socket::receive(fd, &mut [], flags).and(Err(fault))),
    }
}

unsafe extern "C" fn recvmsg(_: UserData, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if message.is_null() {
        return answer(Err(Errno::EFAULT));
    }
    // SAFETY: not null, so it points at a message, as recvmsg(2).
    let message = unsafe { &mut *message };
    // SAFETY: the message's pieces.
    let received = unsafe { scatter(fd, message.msg_iov, message.msg_iovlen, flags) };
    answer(received.map(|received| {
        message.msg_namelen = 0;
        message.msg_flags = 0;
        // SAFETY: the message's room for control data.
        unsafe { put_inq(message, received.inq) };
        length(received.len)
    }))
}

/// Writes the control message `TCP_CM_INQ`, or none.
///
/// # Safety
///
/// The message has room for as much control data as it says.
unsafe fn put_inq(message: &mut msghdr, inq: Option<c_int>) {
    // SAFETY: the caller's.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a pure computation.
    let space = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) } as usize;
    let Some(inq) = inq.filter(|_| !header.is_null() && message.msg_controllen >= space) else {
        message.msg_controllen = 0;
        return;
    };
    // SAFETY: there is room for the header and an int behind it.
    unsafe {
        (*header).cmsg_level = libc::SOL_TCP;
        (*header).cmsg_type = libc::TCP_INQ;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(inq);
    }
    message.msg_controllen = space;
}

unsafe extern "C" fn write(_: UserData, fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: `len` bytes, as write(2).
    answer(unsafe { bytes(data, len) }.and_then(|data| crate::socket::send(fd, data, 0)).map(length))
}

unsafe extern "C" fn writev(_: UserData, fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: a vector of `count` pieces, as writev(2).
    let data = unsafe { gather(vector, usize::try_from(count).unwrap_or(0)) };
    answer(data.and_then(|data| crate::socket::send(fd, &data, 0)).map(length))
}

unsafe extern "C" fn send(_: UserData, fd: c_int, data: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: `len` bytes, as send(2).
    answer(unsafe { bytes(data, len) }.and_then(|data| crate::socket::send(fd, data, flags)).map(length))
}

unsafe extern "C" fn sendto(
    _: UserData,
    fd: c_int,
    data: *const c_void,
    len: size_t,
    flags: c_int,
    _address: *const sockaddr,
    _address_len: socklen_t,
) -> ssize_t {
    // A connected TCP socket takes no notice of the address; there is no fast open here.
    if flags & libc::MSG_FASTOPEN != 0 {
        return answer(Err(Errno::EOPNOTSUPP));
    }
    // SAFETY: `len` bytes, as sendto(2).
    answer(unsafe { bytes(data, len) }.and_then(|data| crate::socket::send(fd, data, flags)).map(length))
}

unsafe extern "C" fn sendmsg(_: UserData, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    if message.is_null() {
        return answer(Err(Errno::EFAULT));
    }
    // SAFETY: not null, so it points at a message, as sendmsg(2).
    let message = unsafe { &*message };
    // SAFETY: the message's pieces.
    let data = unsafe { gather(message.msg_iov, message.msg_iovlen) };
    answer(data.and_then(|data| crate::socket::send(fd, &data, flags)).map(length))
}

unsafe extern "C" fn fcntl(_: UserData, fd: c_int, command: c_int, argument: c_long) -> c_int {
    answer(SESSION.call(|world| world.fcntl(fd, command, argument as c_int)))
}

unsafe extern "C" fn ioctl(_: UserData, fd: c_int, request: c_ulong, argument: *mut c_int) -> c_int {
    if argument.is_null() {
        return answer(Err(Errno::EFAULT));
    }
    answer(SESSION.call(|world| world.ioctl(fd, request)).map(|value| {
        // SAFETY: not null, so it points at an int, as the requests that are known take.
        unsafe { *argument = value };
        0
    }))
}

unsafe extern "C" fn close(_: UserData, fd: c_int) -> c_int {
    answer(SESSION.call(|world| world.close(fd)))
}

unsafe extern "C" fn shutdown(_: UserData, fd: c_int, how: c_int) -> c_int {
    answer(SESSION.call(|world| world.shutdown(fd, how)))
}

unsafe extern "C" fn getsockopt(
    _: UserData,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: room for `len` bytes, as getsockopt(2).
    answer(unsafe { get_option(fd, level, name, value, len) })
}

/// # Safety
///
/// As getsockopt(2).
pub(crate) unsafe fn get_option(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> Answer<c_int> {
    if len.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, so it points at the length.
    let given = unsafe { *len } as usize;
    // SAFETY: room for so many bytes, by the caller.
    let room = unsafe { room(value, given) }?;
    let option = SESSION.call(|world| world.option(fd, level, name))?;
    let count = option.len().min(room.len());
    room[..count].copy_from_slice(&option[..count]);
    // SAFETY: not null, so it points at the length.
    unsafe { *len = count as socklen_t };
    Ok(0)
}

unsafe extern "C" fn setsockopt(
    _: UserData,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: `len` bytes, as setsockopt(2).
    let value = unsafe { bytes(value, len as usize) };
    answer(value.and_then(|value| SESSION.call(|world| world.set_option(fd, level, name, value))))
}

unsafe extern "C" fn poll(_: UserData, descriptors: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if descriptors.is_null() && count > 0 {
        return answer(Err(Errno::EFAULT));
    }
    let descriptors = match count {
        0 => &mut [][..],
        // SAFETY: `count` descriptors, as poll(2).
        _ => unsafe { slice::from_raw_parts_mut(descriptors, count as usize) },
    };
    answer(crate::readiness::poll(descriptors, timeout))
}

unsafe extern "C" fn netdev_send(_: UserData, packet: *const c_void, len: size_t) -> c_int {
    // SAFETY: a packet of `len` bytes.
    if let Ok(packet) = unsafe { bytes(packet, len) } {
        SESSION.inject(packet);
    }
    0
}

unsafe extern "C" fn netdev_receive(
    _: UserData,
    packet: *mut c_void,
    len: *mut size_t,
    time: *mut c_longlong,
) -> c_int {
    let (left_at, bytes) = SESSION.next_packet().unwrap_or_default();
    // SAFETY: both point at a number, and the first says how much room is at `packet`.
    unsafe {
        let count = bytes.len().min(*len);
        ptr::copy_nonoverlapping(bytes.as_ptr(), packet.cast(), count);
        // No byte means that no packet will come, which fails the script.
        *len = count;
        *time = left_at.as_micros() as c_longlong;
    }
    0
}

unsafe extern "C" fn usleep(_: UserData, time: useconds_t) -> c_int {
    SESSION.sleep(Duration::from_micros(time.into()));
    0
}

unsafe extern "C" fn gettimeofday(_: UserData, time: *mut timeval, _zone: *mut c_void) -> c_int {
    let micros = SESSION.time().as_micros();
    let now = timeval { tv_sec: (micros / 1_000_000) as i64, tv_usec: (micros % 1_000_000) as i64 };
    // SAFETY: it points at a time, as gettimeofday(2).
    unsafe { time.write(now) };
    0
}

unsafe extern "C" fn epoll_create(_: UserData, size: c_int) -> c_int {
    answer(SESSION.call(|world| world.epoll_create(size)))
}

unsafe extern "C" fn epoll_ctl(
    _: UserData,
    set: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: null or an event, as epoll_ctl(2).
    let event = unsafe { event.as_ref() }.copied();
    answer(SESSION.call(|world| world.epoll_ctl(set, operation, fd, event)))
}

unsafe extern "C" fn epoll_wait(
    _: UserData,
    set: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    let Some(count) = usize::try_from(count).ok().filter(|it| *it > 0) else {
        return answer(Err(Errno::EINVAL));
    };
    if events.is_null() {
        return answer(Err(Errno::EFAULT));
    }
    // SAFETY: room for `count` events, as epoll_wait(2).
    let events = unsafe { slice::from_raw_parts_mut(events, count) };
    answer(crate::readiness::epoll_wait(set, events, timeout))
}

unsafe extern "C" fn pipe(_: UserData, _fds: *mut c_int) -> c_int {
    answer(Err(Errno::ENOSYS))
}

unsafe extern "C" fn splice(
    _: UserData,
    _in: c_int,
    _in_offset: *mut loff_t,
    _out: c_int,
    _out_offset: *mut loff_t,
    _len: size_t,
    _flags: c_uint,
) -> ssize_t {
    answer(Err(Errno::ENOSYS))
}

/// A count of bytes as a call answers it.
fn length(len: usize) -> ssize_t {
    len as ssize_t
}
