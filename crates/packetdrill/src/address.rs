//! Socket addresses in C's form.
//!
//! # Safety
//!
//! Reads and writes through the pointers that a call was given; each function says what they must point at.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{
    AF_INET, AF_INET6, in_addr, in6_addr, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, socklen_t,
};

use crate::errno::{Answer, Errno};

/// The address at `address`. An IPv4 address that is written as an IPv6 one is the IPv4 address.
///
/// # Safety
///
/// `address` is null or points at `len` bytes.
pub(crate) unsafe fn read(address: *const sockaddr, len: socklen_t) -> Answer<SocketAddr> {
    if address.is_null() {
        return Err(Errno::EFAULT);
    }
    let len = len as usize;
    if len < size_of::<sa_family_t>() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the family is there.
    let family = unsafe { address.cast::<sa_family_t>().read_unaligned() };
    match family.into() {
        AF_INET if len >= size_of::<sockaddr_in>() => {
            // SAFETY: so many bytes are there.
            let it = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(it.sin_addr.s_addr));
            Ok(SocketAddr::new(ip.into(), u16::from_be(it.sin_port)))
        }
        AF_INET6 if len >= size_of::<sockaddr_in6>() => {
            // SAFETY: so many bytes are there.
            let it = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(it.sin6_addr.s6_addr).to_canonical();
            Ok(SocketAddr::new(ip, u16::from_be(it.sin6_port)))
        }
        AF_INET | AF_INET6 => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// An address as a socket of a family shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) address: SocketAddr,
    /// The socket is an IPv6 one, and shows IPv4 addresses as such.
    pub(crate) mapped: bool,
}

/// Writes as much of the address as there is room for, and its true length.
///
/// # Safety
///
/// `len` is null or says how much room there is at `address`; `address` is null or has that room.
pub(crate) unsafe fn write(shown: &Shown, address: *mut sockaddr, len: *mut socklen_t) {
    if address.is_null() || len.is_null() {
        return;
    }
    let port = shown.address.port().to_be();
    let v6 = |ip: Ipv6Addr| sockaddr_in6 {
        sin6_family: AF_INET6 as sa_family_t,
        sin6_port: port,
        sin6_flowinfo: 0,
        sin6_addr: in6_addr { s6_addr: ip.octets() },
        sin6_scope_id: 0,
    };
    match shown.address.ip() {
        IpAddr::V4(ip) if !shown.mapped => {
            let it = sockaddr_in {
                sin_family: AF_INET as sa_family_t,
                sin_port: port,
                sin_addr: in_addr { s_addr: u32::from(ip).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the caller's.
            unsafe { copy(&it, address, len) };
        }
        // SAFETY: the caller's.
        IpAddr::V4(ip) => unsafe { copy(&v6(ip.to_ipv6_mapped()), address, len) },
        // SAFETY: the caller's.
        IpAddr::V6(ip) => unsafe { copy(&v6(ip), address, len) },
    }
}

/// # Safety
///
/// `len` says how much room there is at `address`.
unsafe fn copy<T>(it: &T, address: *mut sockaddr, len: *mut socklen_t) {
    // SAFETY: at most what there is room for, from a value of that many bytes.
    unsafe {
        let room = *len as usize;
        core::ptr::copy_nonoverlapping(
            (&raw const *it).cast::<u8>(),
            address.cast(),
            room.min(size_of::<T>()),
        );
        *len = size_of::<T>() as socklen_t;
    }
}
