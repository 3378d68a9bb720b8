//! System calls without libc.
//!
//! `libc::syscall` is one of our own exports, so inside the shared object it would call itself.
//!
//! # Safety
//!
//! Each function executes the `syscall` instruction with the caller's words: the kernel reads and writes
//! memory as that call's manual page says, and the caller owes it exactly that memory.

use crate::error::Errno;
use std::arch::asm;

/// An argument as the kernel wants it in a register.
pub(crate) trait Word {
    /// The register's content: integers are extended by their own sign.
    fn word(self) -> usize;
}

macro_rules! integer_words {
    ($($integer:ty)*) => {
        $(impl Word for $integer {
            fn word(self) -> usize {
                self as usize
            }
        })*
    };
}

integer_words! { i32 u32 i64 u64 isize usize }

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

macro_rules! system_calls {
    ($($name:ident($($argument:ident in $register:tt),*);)*) => {
        $(
            /// The result, or a negated error number.
            ///
            /// # Safety
            ///
            /// See the module.
            #[allow(clippy::too_many_arguments, dead_code, reason = "one function per number of arguments")]
            #[inline]
            pub(crate) unsafe fn $name(number: i64 $(, $argument: usize)*) -> isize {
                let result;
                // SAFETY: the instruction clobbers rax, rcx and r11 and uses no stack; the caller answers for
                // the memory that the call touches.
                unsafe {
                    asm!(
                        "syscall",
                        inlateout("rax") number => result,
                        $(in($register) $argument,)*
                        lateout("rcx") _,
                        lateout("r11") _,
                        options(nostack),
                    );
                }
                result
            }
        )*
    };
}

system_calls! {
    syscall0();
    syscall1(a in "rdi");
    syscall2(a in "rdi", b in "rsi");
    syscall3(a in "rdi", b in "rsi", c in "rdx");
    syscall4(a in "rdi", b in "rsi", c in "rdx", d in "r10");
    syscall5(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8");
    syscall6(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8", f in "r9");
}

/// What a raw result means.
pub(crate) fn outcome(result: isize) -> Result<usize, Errno> {
    match result {
        -4095..=-1 => Err(Errno(-result as i32)),
        value => Ok(value as usize),
    }
}

/// A raw result the way libc's `syscall` returns it: -1 and `errno`, or the value.
pub(crate) fn answer(result: isize) -> isize {
    outcome(result).map_or_else(Errno::fail, |value| value as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_errors() {
        assert_eq!(outcome(-1), Err(Errno(1)));
        assert_eq!(outcome(-4095), Err(Errno(4095)));
        assert_eq!(outcome(-4096), Ok(-4096_isize as usize));
        assert_eq!(outcome(7), Ok(7));
    }

    #[test]
    fn the_kernel_answers() {
        // SAFETY: getpid touches no memory.
        let pid = unsafe { syscall0(libc::SYS_getpid) };
        assert_eq!(pid, std::process::id() as isize);
        // SAFETY: closing a descriptor that cannot exist touches nothing.
        let closed = unsafe { syscall1(libc::SYS_close, (-1_i32).word()) };
        assert_eq!(outcome(closed), Err(Errno(libc::EBADF)));
    }
}
