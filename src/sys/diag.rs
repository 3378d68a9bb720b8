//! Who is at the other end: one `inet_diag` query (sock_diag(7)), unprivileged, about 3 us.

use super::address::Address;
use super::kernel::{self, TCP_ESTABLISHED, TcpPosition};
use super::scratch::Scratch;
use core::ffi::c_int;
use core::net::SocketAddr;

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct SocketId {
    /// Big endian, as on the wire.
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    _pad: u8,
    states: u32,
    id: SocketId,
}

/// `struct nlmsghdr` and `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    state: u8,
    _timer: [u8; 2],
    id: SocketId,
    _expires: u32,
    _queues: [u32; 2],
    uid: u32,
    inode: u32,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
/// `INET_DIAG_INFO`: a `struct tcp_info`.
const INFO: u16 = 2;
const NO_COOKIE: [u32; 2] = [u32::MAX; 2];

/// What the kernel knows of the socket at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its SO_COOKIE.
    pub(crate) cookie: u64,
    /// Whether it is in ESTABLISHED.
    pub(crate) established: bool,
    /// Whether some process still holds it (a closed socket lives on in the kernel without an inode).
    pub(crate) held: bool,
}

/// Family, address (IPv4 in the first four bytes) and port of a socket address; v4-mapped ones as IPv4.
fn parts(address: &Address) -> Option<(u8, [u8; 16], [u8; 2])> {
    let family = c_int::from(u16::from_ne_bytes([address.bytes[0], address.bytes[1]]));
    let port = [address.bytes[2], address.bytes[3]];
    let mut ip = [0u8; 16];
    if family == libc::AF_INET {
        ip[..4].copy_from_slice(&address.bytes[4..8]);
        return Some((libc::AF_INET as u8, ip, port));
    }
    if family != libc::AF_INET6 {
        return None;
    }
    ip.copy_from_slice(&address.bytes[8..24]);
    if ip[..10] == [0; 10] && ip[10..12] == [0xff; 2] {
        let mut v4 = [0u8; 16];
        v4[..4].copy_from_slice(&ip[12..]);
        return Some((libc::AF_INET as u8, v4, port));
    }
    Some((libc::AF_INET6 as u8, ip, port))
}

/// Whether a connection between these addresses can have both ends on this machine, without asking.
pub(crate) fn may_be_local(local: &Address, peer: &Address) -> bool {
    match (parts(local), parts(peer)) {
        (Some((family, a, _)), Some((other, b, _))) if family == other => {
            a == b
                || (c_int::from(family) == libc::AF_INET && b[0] == 127)
                || (c_int::from(family) == libc::AF_INET6 && b[..15] == [0; 15] && b[15] == 1)
        }
        _ => false,
    }
}

/// Looks up the socket at the other end of a connection with these addresses. `None`: not on this machine,
/// not in this namespace, or gone.
pub(crate) fn find_peer(local: &Address, peer: &Address) -> Option<Peer> {
    let mut buffer = Scratch::take()?;
    // The other end's socket sees the addresses the other way round.
    let (answer, _) = ask(peer, local, 0, buffer.of())?;
    Some(Peer {
        cookie: u64::from(answer.id.cookie[0]) | u64::from(answer.id.cookie[1]) << 32,
        established: answer.state == TCP_ESTABLISHED,
        held: answer.inode != 0,
    })
}

/// Whether a process has the socket of this cookie, or it is under way to one; true when that cannot be told. `namespace` is
/// the cookie of the network namespace it is in.
pub(crate) fn may_be_held(local: &Address, peer: &Address, cookie: u64, namespace: u64) -> bool {
    let Ok(fd) = kernel::diag_socket() else { return true };
    if kernel::namespace_cookie(fd.as_raw()) != Ok(namespace) || parts(local).is_none() {
        return true;
    }
    find_peer(peer, local).is_some_and(|found| found.held && found.cookie == cookie)
}

/// How far the socket with these addresses is, whosever it is.
pub(crate) fn position(local: SocketAddr, peer: SocketAddr) -> Option<TcpPosition> {
    let mut buffer = Scratch::take()?;
    let buffer = buffer.of::<u64>();
    let (_, length) = ask(&local.into(), &peer.into(), 1 << (INFO - 1), buffer)?;
    // SAFETY: every byte of the words is initialised, and `length` is within.
    let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
    attributes_position(bytes.get(size_of::<Answer>()..)?)
}

/// The position among the attributes of an answer.
fn attributes_position(mut attributes: &[u8]) -> Option<TcpPosition> {
    // rtnetlink(7): length and kind, then the value, each padded to four bytes.
    while let [a, b, c, d, ..] = *attributes {
        let length = u16::from_ne_bytes([a, b]) as usize;
        if u16::from_ne_bytes([c, d]) == INFO {
            return kernel::tcp_position_from(attributes.get(4..length)?);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
    None
}

/// Asks for the socket with the local address `source`; the answer, and how many bytes of the buffer it took.
fn ask(
    source: &Address,
    destination: &Address,
    extensions: u8,
    buffer: &mut [u64],
) -> Option<(Answer, usize)> {
    let (family, source, source_port) = parts(source)?;
    let (_, destination, destination_port) = parts(destination)?;
    let id = SocketId { source_port, destination_port, source, destination, interface: 0, cookie: NO_COOKIE };
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: REQUEST,
        sequence: 1,
        port: 0,
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions,
        _pad: 0,
        states: u32::MAX,
        id,
    };
    // SAFETY: Request is plain old data without padding.
    let bytes =
        unsafe { core::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<Request>()) };
    let fd = kernel::diag_socket().ok()?;
    kernel::send(fd.as_raw(), bytes, 0).ok()?;
    let received = kernel::recv(fd.as_raw(), buffer.as_mut_ptr().cast(), size_of_val(buffer), 0).ok()?;
    Some((answer_to(&id, buffer, received)?, received))
}

/// The first `received` bytes of a buffer as the answer to a question about `id`.
fn answer_to(id: &SocketId, buffer: &[u64], received: usize) -> Option<Answer> {
    if received < size_of::<Answer>() || size_of_val(buffer) < size_of::<Answer>() {
        return None;
    }
    // SAFETY: the buffer is aligned and at least as long; every bit pattern is a valid Answer.
    let answer = unsafe { buffer.as_ptr().cast::<Answer>().read() };
    let right = answer.id.source_port == id.source_port && answer.id.destination_port == id.destination_port;
    (answer.kind == SOCK_DIAG_BY_FAMILY && right).then_some(answer)
}

/// For `fuzzing`.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_answer(bytes: &[u8]) {
    let mut buffer = [0u64; 512];
    for (word, bytes) in buffer.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    let received = bytes.len().min(size_of_val(&buffer));
    let _ = answer_to(&SocketId::default(), &buffer, received);
    let _ = attributes_position(bytes);
    let mut address = Address::EMPTY;
    address.bytes.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let _ = (parts(&address), address.parts(), may_be_local(&address, &Address::EMPTY));
}
