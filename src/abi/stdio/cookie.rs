//! A stream that serves given bytes first and then goes on with a descriptor.
//!
//! glibc's `ungetc` takes any number of bytes, but a stream that holds pushed-back bytes crashes on `setvbuf` and
//! on output (tried with 2.36). A stream over our own functions (`fopencookie`) does not.
//!
//! # Safety
//!
//! Every cookie is a `Box<Source>` given up to glibc, which passes it to the functions below and calls `close`
//! last.

use crate::error::Errno;
use crate::sys::real;
use libc::{FILE, c_char, c_int, c_void, off64_t, size_t, ssize_t};
use std::ptr;

/// A new stream over `fd`, or null if there is no memory.
pub(super) fn stream(fd: c_int, both: bool, unread: Vec<u8>) -> *mut FILE {
    let mut source = Vec::new();
    if source.try_reserve_exact(1).is_err() {
        return ptr::null_mut();
    }
    source.push(Source { fd, unread, served: 0 });
    let cookie = Box::into_raw(source.into_boxed_slice()).cast::<Source>();
    let mode = if both { c"r+" } else { c"r" };
    let functions = Functions { read, write, seek, close };
    // SAFETY: the functions expect exactly this cookie.
    let stream = unsafe { fopencookie(cookie.cast(), mode.as_ptr(), functions) };
    if stream.is_null() {
        // SAFETY: nobody else knows the cookie.
        drop(unsafe { Box::from_raw(cookie) });
        return stream;
    }
    // SAFETY: the stream is new. `fileno` shall know its descriptor.
    unsafe { set_descriptor(stream, fd) };
    stream
}

/// Frees a stream without closing its descriptor.
///
/// # Safety
///
/// `stream` is open, has no output pending, and is not used afterwards.
pub(super) unsafe fn discard(stream: *mut FILE) {
    // SAFETY: the caller's stream is open, and nobody else uses it.
    unsafe { set_descriptor(stream, -1) };
    // SAFETY: the caller gives the stream up; glibc closes nothing when the descriptor is -1.
    unsafe { real::fclose(stream) };
}

struct Source {
    fd: c_int,
    unread: Vec<u8>,
    served: usize,
}

/// `cookie_io_functions_t`.
#[repr(C)]
struct Functions {
    read: unsafe extern "C-unwind" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: unsafe extern "C-unwind" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: unsafe extern "C-unwind" fn(*mut c_void, *mut off64_t, c_int) -> c_int,
    close: unsafe extern "C-unwind" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
}

/// Sets `_fileno`, a public field of glibc's `FILE` whose place is part of its ABI.
///
/// # Safety
///
/// `stream` is open and used by nobody else.
unsafe fn set_descriptor(stream: *mut FILE, fd: c_int) {
    const FILENO: usize = 112;
    let field = stream.cast::<u8>().wrapping_add(FILENO).cast::<c_int>();
    // SAFETY: the field of an open stream, which the caller says nobody else uses.
    unsafe { field.write(fd) };
}

unsafe extern "C-unwind" fn read(cookie: *mut c_void, buf: *mut c_char, count: size_t) -> ssize_t {
    // SAFETY: see the module; glibc holds the stream's lock.
    let source = unsafe { &mut *cookie.cast::<Source>() };
    let rest = &source.unread[source.served..];
    if rest.is_empty() {
        source.unread = Vec::new();
        source.served = 0;
        // SAFETY: glibc gives a buffer of this size.
        return unsafe { real::read(source.fd, buf.cast(), count) };
    }
    let taken = rest.len().min(count);
    // SAFETY: glibc gives a buffer of this size, which overlaps none of ours.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), buf.cast(), taken) };
    source.served += taken;
    taken.cast_signed()
}

/// Writes all of it, as glibc's own streams do: it takes a short count for an error.
unsafe extern "C-unwind" fn write(cookie: *mut c_void, buf: *const c_char, count: size_t) -> ssize_t {
    // SAFETY: see the module.
    let fd = unsafe { (*cookie.cast::<Source>()).fd };
    let mut written = 0;
    while written < count {
        // SAFETY: glibc gives a buffer of `count` bytes.
        let result = unsafe { real::write(fd, buf.wrapping_add(written).cast(), count - written) };
        match usize::try_from(result) {
            Ok(more) => written += more,
            Err(_) => break,
        }
    }
    written.cast_signed()
}

unsafe extern "C-unwind" fn seek(_cookie: *mut c_void, _offset: *mut off64_t, _whence: c_int) -> c_int {
    Errno(libc::ESPIPE).fail()
}

unsafe extern "C-unwind" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: see the module; this is the last call with this cookie.
    let source = unsafe { Box::from_raw(cookie.cast::<Source>()) };
    // SAFETY: the stream owned the descriptor.
    unsafe { real::close(source.fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [c_int; 2] {
        let mut pair = [0; 2];
        // SAFETY: the pointer is valid for two descriptors.
        assert_eq!(unsafe { real::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) }, 0);
        pair
    }

    fn is_open(fd: c_int) -> bool {
        // SAFETY: F_GETFD touches no memory.
        unsafe { real::fcntl(fd, libc::F_GETFD, 0) >= 0 }
    }

    fn line(stream: *mut FILE) -> Vec<u8> {
        let mut buf = [0_u8; 100];
        // SAFETY: the buffer has this size.
        assert!(!unsafe { libc::fgets(buf.as_mut_ptr().cast(), 100, stream) }.is_null());
        let end = buf.iter().position(|&byte| byte == 0).unwrap();
        buf[..end].to_vec()
    }

    #[test]
    fn unread_bytes_come_first_and_survive_setvbuf_and_output() {
        let [fd, peer] = pair();
        // SAFETY: the buffers have these sizes.
        unsafe { real::write(peer, c"ld\n".as_ptr().cast(), 3) };
        let stream = stream(fd, true, b"hello\nwor".to_vec());
        let mut answer = [0_u8; 3];
        // SAFETY: an open stream.
        assert_eq!(unsafe { libc::fileno(stream) }, fd);
        // SAFETY: an open stream, which needs no buffer.
        assert_eq!(unsafe { libc::setvbuf(stream, ptr::null_mut(), libc::_IONBF, 0) }, 0);
        // SAFETY: a C string and an open stream.
        assert_eq!(unsafe { libc::fputs(c"out".as_ptr(), stream) }, 1);
        // SAFETY: an open stream.
        assert_eq!(unsafe { libc::fflush(stream) }, 0);
        // SAFETY: `answer` has three bytes.
        assert_eq!(unsafe { real::read(peer, answer.as_mut_ptr().cast(), 3) }, 3);
        assert_eq!(&answer, b"out");
        assert_eq!(line(stream), b"hello\n");
        assert_eq!(line(stream), b"world\n");
        // SAFETY: the stream is not used again.
        assert_eq!(unsafe { libc::fclose(stream) }, 0);
        assert!(!is_open(fd));
        // SAFETY: this test's own descriptor.
        unsafe { real::close(peer) };
    }

    #[test]
    fn a_discarded_stream_leaves_its_descriptor_open() {
        let [fd, peer] = pair();
        // SAFETY: the mode is a C string.
        let stream = unsafe { real::fdopen(fd, c"r".as_ptr()) };
        // SAFETY: nobody has used the stream, or will.
        unsafe { discard(stream) };
        assert!(is_open(fd));
        for fd in [fd, peer] {
            // SAFETY: this test's own descriptor.
            unsafe { real::close(fd) };
        }
    }
}
