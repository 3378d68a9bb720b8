//! Resource limits (getrlimit(2)).

use super::make;

/// The limit of file sizes, in bytes; `u64::MAX` when there is none.
pub(crate) fn file_size_limit() -> u64 {
    file_size_limits()[0]
}

/// The limit of the address space (RLIMIT_AS), in bytes; `u64::MAX` when there is none.
pub(crate) fn address_space_limit() -> u64 {
    limits(libc::RLIMIT_AS)[0]
}

/// The limit of descriptors' numbers.
pub(crate) fn descriptor_limit() -> u64 {
    limits(libc::RLIMIT_NOFILE)[0]
}

pub(super) fn file_size_limits() -> [u64; 2] {
    limits(libc::RLIMIT_FSIZE)
}

/// The soft and the hard limit of a resource (getrlimit(2)).
fn limits(resource: libc::__rlimit_resource_t) -> [u64; 2] {
    let mut limits = [0u64; 2];
    match call!(SYS_prlimit64, 0, resource, 0, &raw mut limits) {
        Ok(_) => limits,
        Err(_) => [u64::MAX; 2],
    }
}
