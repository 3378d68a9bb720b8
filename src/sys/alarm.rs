//! The last words of a panic inside the shared object.
//!
//! The standard library would print them through `write`, which here is our own export.

use super::raw::{self, Word};
use std::fmt::{self, Write};
use std::panic::PanicHookInfo;

/// From now on a panic writes one line to descriptor 2, by system call.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let mut line = Line { bytes: [0; 256], length: 0 };
    let message = text(panic);
    // A line that is too long is cut.
    let _ = match panic.location() {
        Some(place) => write!(line, "sockshim: internal error at {place}: {message}"),
        None => write!(line, "sockshim: internal error: {message}"),
    };
    line.bytes[line.length] = b'\n';
    // SAFETY: the buffer is valid for this length.
    unsafe { raw::syscall3(libc::SYS_write, 2, line.bytes.as_ptr().word(), line.length + 1) };
}

fn text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = panic.payload();
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

/// Text of limited length; the last byte stays free for the line's end.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.length;
        let taken = text.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut() {
        let mut line = Line { bytes: [0; 256], length: 0 };
        assert!(write!(line, "{}", "x".repeat(200)).is_ok());
        assert!(write!(line, "{}", "y".repeat(200)).is_err());
        assert_eq!(line.length, 255);
        assert!(write!(line, "z").is_err());
        assert_eq!(line.length, 255);
    }
}
