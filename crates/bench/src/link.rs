//! What both a socket and the raw ring can do, so that one question is put to both with the same code.

use crate::net::{self, check};
use crate::ring::Rings;
use libc::c_int;

/// One end of a connection.
pub(crate) trait Link {
    fn write_all(&mut self, data: &[u8]);
    /// Receives what has arrived, at least one byte; waits for it.
    fn read(&mut self, buffer: &mut [u8]) -> usize;
    /// As much as is possible without waiting.
    fn try_write(&mut self, data: &[u8]) -> usize;
    /// As much as is possible without waiting.
    fn try_read(&mut self, buffer: &mut [u8]) -> usize;
    /// Waits until a byte can be read or, if `to_write`, written.
    fn wait(&mut self, to_write: bool);
    /// Sends what is held back until an acknowledgement arrives.
    fn push(&mut self);
    /// For [`crate::job::Job::serve`].
    fn descriptor(&self) -> c_int;

    #[inline]
    fn read_all(&mut self, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            done += self.read(&mut buffer[done..]);
        }
    }
}

/// A connected socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket(pub(crate) c_int);

impl Link for Socket {
    #[inline]
    fn write_all(&mut self, data: &[u8]) {
        net::write_all(self.0, data);
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let n = check(net::read(self.0, buffer), "read");
        assert!(n > 0, "the other end disconnected");
        n
    }

    fn try_write(&mut self, data: &[u8]) -> usize {
        or_none(net::write(self.0, data), "write")
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> usize {
        or_none(net::read(self.0, buffer), "read")
    }

    fn wait(&mut self, to_write: bool) {
        net::wait_for(self.0, if to_write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN });
    }

    fn push(&mut self) {
        net::push(self.0);
    }

    fn descriptor(&self) -> c_int {
        self.0
    }
}

impl Link for Rings {
    #[inline]
    fn write_all(&mut self, data: &[u8]) {
        self.write_all(data);
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.read(buffer)
    }

    fn try_write(&mut self, data: &[u8]) -> usize {
        self.try_write(data)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> usize {
        self.try_read(buffer)
    }

    fn wait(&mut self, _to_write: bool) {
        std::hint::spin_loop();
    }

    fn push(&mut self) {}

    fn descriptor(&self) -> c_int {
        -1
    }
}

/// The result of a call that must not wait.
fn or_none(result: isize, call: &str) -> usize {
    if result < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock {
        return 0;
    }
    check(result, call)
}
