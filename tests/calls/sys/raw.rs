//! System calls in two ways: through the library, and past every library.
//!
//! A socket that is made and used past libc is the kernel's own, under sockshim too: an oracle inside the same
//! process, with which the library's answers are compared.

use std::{mem, ptr};

use super::{Address, Answer, Errno, answer};

/// How a system call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By `syscall`, which sockshim interposes and passes to what stands for the call.
    Library,
    /// By the instruction.
    Past,
}

pub(crate) const BOTH: [Way; 2] = [Way::Library, Way::Past];

impl Way {
    /// Makes a system call. Its arguments are a test's own business.
    pub(crate) fn call(self, number: libc::c_long, words: [usize; 6]) -> Answer {
        let [a, b, c, d, e, f] = words;
        match self {
            // SAFETY: see the module `sys`.
            Self::Library => answer(unsafe { libc::syscall(number, a, b, c, d, e, f) } as isize),
            Self::Past => {
                let result: isize;
                // SAFETY: as above; the instruction overwrites rcx and r11 only.
                unsafe {
                    std::arch::asm!(
                        "syscall",
                        inlateout("rax") number as isize => result,
                        in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                        lateout("rcx") _, lateout("r11") _,
                    );
                }
                if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
            }
        }
    }

    pub(crate) fn socket(self, family: i32) -> i32 {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        self.call(libc::SYS_socket, words([family as _, kind as _])).expect("socket") as i32
    }

    pub(crate) fn bind(self, fd: i32, address: &Address) -> Answer {
        self.call(libc::SYS_bind, words([fd as _, address.as_ptr().addr(), address.length as _]))
    }

    pub(crate) fn connect(self, fd: i32, address: &Address) -> Answer {
        self.call(libc::SYS_connect, words([fd as _, address.as_ptr().addr(), address.length as _]))
    }

    pub(crate) fn listener(self, family: i32) -> (i32, u16) {
        let fd = self.socket(family);
        self.bind(fd, &Address::loopback(family, 0)).expect("bind");
        self.call(libc::SYS_listen, words([fd as _, 128])).expect("listen");
        let mut address = Address::empty();
        let at = [fd as _, address.as_mut_ptr().addr(), (&raw mut address.length).addr()];
        self.call(libc::SYS_getsockname, words(at)).expect("getsockname");
        (fd, address.port())
    }

    pub(crate) fn accept(self, fd: i32) -> Answer<i32> {
        self.call(libc::SYS_accept4, words([fd as _, 0, 0, libc::SOCK_CLOEXEC as _])).map(|fd| fd as i32)
    }

    /// Both ends of a connection, the connecting one first.
    pub(crate) fn pair(self, family: i32) -> (i32, i32) {
        let (listening, port) = self.listener(family);
        let client = self.socket(family);
        self.connect(client, &Address::loopback(family, port)).expect("connect");
        let server = self.accept(listening).expect("accept");
        self.close(listening);
        (client, server)
    }

    pub(crate) fn close(self, fd: i32) {
        self.call(libc::SYS_close, words([fd as _])).expect("close");
    }

    pub(crate) fn shutdown(self, fd: i32, how: i32) -> Answer {
        self.call(libc::SYS_shutdown, words([fd as _, how as _]))
    }

    pub(crate) fn send(self, fd: i32, bytes: &[u8], flags: i32) -> Answer {
        let at = [fd as _, bytes.as_ptr().addr(), bytes.len(), flags as _];
        self.call(libc::SYS_sendto, words(at))
    }

    pub(crate) fn recv(self, fd: i32, buffer: &mut [u8], flags: i32) -> Answer {
        let at = [fd as _, buffer.as_mut_ptr().addr(), buffer.len(), flags as _];
        self.call(libc::SYS_recvfrom, words(at))
    }

    pub(crate) fn set(self, fd: i32, level: i32, name: i32, value: &[u8]) -> Answer {
        let at = [fd as _, level as _, name as _, value.as_ptr().addr(), value.len()];
        self.call(libc::SYS_setsockopt, words(at))
    }

    /// What getsockopt stores into a buffer of `room` bytes.
    pub(crate) fn get(self, fd: i32, level: i32, name: i32, room: usize) -> Answer<Vec<u8>> {
        let mut value = vec![0xa5_u8; room];
        let mut length = room as libc::socklen_t;
        let at = [fd as _, level as _, name as _, value.as_mut_ptr().addr(), (&raw mut length).addr()];
        self.call(libc::SYS_getsockopt, words(at))?;
        value.truncate((length as usize).min(room));
        Ok(value)
    }

    pub(crate) fn poll(self, fd: i32, events: i16, milliseconds: i32) -> i16 {
        let mut entry = libc::pollfd { fd, events, revents: -1 };
        self.call(libc::SYS_poll, words([(&raw mut entry).addr(), 1, milliseconds as _])).expect("poll");
        entry.revents
    }

    pub(crate) fn ioctl(self, fd: i32, request: u32, argument: usize) -> Answer {
        self.call(libc::SYS_ioctl, words([fd as _, request as _, argument]))
    }

    pub(crate) fn fcntl(self, fd: i32, command: i32, argument: usize) -> Answer {
        self.call(libc::SYS_fcntl, words([fd as _, command as _, argument]))
    }
}

/// Six words, the rest of them zero.
pub(crate) fn words<const N: usize>(given: [usize; N]) -> [usize; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&given);
    all
}

/// A page, readable and writable or neither, with nothing mapped behind it.
pub(crate) fn page(protection: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: fresh memory of two pages, of which the second is taken away again.
    unsafe {
        let place = libc::mmap(ptr::null_mut(), 8192, protection, flags, -1, 0);
        assert_ne!(place, libc::MAP_FAILED);
        assert_eq!(libc::munmap(place.byte_add(4096), 4096), 0);
        place.cast()
    }
}

/// Room for any structure that a call may fill.
pub(crate) fn zeroed<T>() -> T {
    // SAFETY: used for plain structures of the C library.
    unsafe { mem::zeroed() }
}
