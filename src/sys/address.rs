//! A socket address as the kernel gives it.

use core::ffi::c_int;
use core::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use core::sync::atomic::{AtomicU32, Ordering};

/// A `struct sockaddr_in6`, or the beginning of one.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Address {
    pub(crate) bytes: [u8; 28],
    pub(crate) length: u32,
}

impl Address {
    pub(crate) const EMPTY: Self = Self { bytes: [0; 28], length: 28 };

    /// From shared memory; an empty one if nothing was stored there.
    pub(crate) fn load(words: &[AtomicU32; 7]) -> Self {
        let mut address = Self::EMPTY;
        for (bytes, word) in address.bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        address
    }

    pub(crate) fn store(&self, words: &[AtomicU32; 7]) {
        for (word, bytes) in words.iter().zip(self.bytes.chunks_exact(4)) {
            word.store(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Ordering::Relaxed);
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let mut made = Self::EMPTY;
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        made.bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        made.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => made.bytes[4..8].copy_from_slice(&address.ip().octets()),
            SocketAddr::V6(address) => {
                made.bytes[8..24].copy_from_slice(&address.ip().octets());
                made.bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            }
        }
        made
    }
}

impl Address {
    /// The address and port; `None` for other families.
    pub(crate) fn parts(&self) -> Option<SocketAddr> {
        let word = |at: usize| [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        let family = c_int::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]));
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        match family {
            libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(word(4).into(), port))),
            libc::AF_INET6 => {
                let mut ip = [0; 16];
                ip.copy_from_slice(&self.bytes[8..24]);
                let scope = u32::from_ne_bytes(word(24));
                Some(SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope)))
            }
            _ => None,
        }
    }
}
