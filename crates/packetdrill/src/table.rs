//! The table of functions that packetdrill fills in and calls: its `struct packetdrill_interface`, declared anew.

use libc::{
    c_int, c_long, c_longlong, c_uint, c_ulong, c_void, epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd,
    size_t, sockaddr, socklen_t, ssize_t, timeval, useconds_t,
};

/// What packetdrill gives back as the first argument of every call. Unused: a process holds one stack.
pub(crate) type UserData = *mut c_void;

/// A member of the table.
macro_rules! call {
    (fn($($argument:ty),*) $(-> $result:ty)?) => {
        Option<unsafe extern "C" fn(UserData $(, $argument)*) $(-> $result)?>
    };
}

/// Members in packetdrill's order. A call answers as the system call of its name does: result and errno.
///
/// `fcntl` and `ioctl` are variadic in C. Their one variable argument is an int or a pointer, which the ABIs of
/// x86-64 and AArch64 Linux pass as they pass a fixed third argument.
#[repr(C)]
#[derive(Debug)]
pub struct Interface {
    pub(crate) userdata: UserData,
    pub(crate) free: call!(fn()),
    pub(crate) socket: call!(fn(c_int, c_int, c_int) -> c_int),
    pub(crate) bind: call!(fn(c_int, *const sockaddr, socklen_t) -> c_int),
    pub(crate) listen: call!(fn(c_int, c_int) -> c_int),
    pub(crate) accept: call!(fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int),
    pub(crate) connect: call!(fn(c_int, *const sockaddr, socklen_t) -> c_int),
    pub(crate) read: call!(fn(c_int, *mut c_void, size_t) -> ssize_t),
    pub(crate) readv: call!(fn(c_int, *const iovec, c_int) -> ssize_t),
    pub(crate) recv: call!(fn(c_int, *mut c_void, size_t, c_int) -> ssize_t),
    pub(crate) recvfrom:
        call!(fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t),
    pub(crate) recvmsg: call!(fn(c_int, *mut msghdr, c_int) -> ssize_t),
    pub(crate) write: call!(fn(c_int, *const c_void, size_t) -> ssize_t),
    pub(crate) writev: call!(fn(c_int, *const iovec, c_int) -> ssize_t),
    pub(crate) send: call!(fn(c_int, *const c_void, size_t, c_int) -> ssize_t),
    pub(crate) sendto: call!(fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t),
    pub(crate) sendmsg: call!(fn(c_int, *const msghdr, c_int) -> ssize_t),
    pub(crate) fcntl: call!(fn(c_int, c_int, c_long) -> c_int),
    pub(crate) ioctl: call!(fn(c_int, c_ulong, *mut c_int) -> c_int),
    pub(crate) close: call!(fn(c_int) -> c_int),
    pub(crate) shutdown: call!(fn(c_int, c_int) -> c_int),
    pub(crate) getsockopt: call!(fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int),
    pub(crate) setsockopt: call!(fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int),
    pub(crate) poll: call!(fn(*mut pollfd, nfds_t, c_int) -> c_int),
    pub(crate) netdev_send: call!(fn(*const c_void, size_t) -> c_int),
    pub(crate) netdev_receive: call!(fn(*mut c_void, *mut size_t, *mut c_longlong) -> c_int),
    pub(crate) usleep: call!(fn(useconds_t) -> c_int),
    pub(crate) gettimeofday: call!(fn(*mut timeval, *mut c_void) -> c_int),
    pub(crate) epoll_create: call!(fn(c_int) -> c_int),
    pub(crate) epoll_ctl: call!(fn(c_int, c_int, c_int, *mut epoll_event) -> c_int),
    pub(crate) epoll_wait: call!(fn(c_int, *mut epoll_event, c_int, c_int) -> c_int),
    pub(crate) pipe: call!(fn(*mut c_int) -> c_int),
    pub(crate) splice: call!(fn(c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> ssize_t),
}

const _: () = assert!(size_of::<Interface>() == 33 * size_of::<usize>());
