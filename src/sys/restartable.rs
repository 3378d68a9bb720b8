//! A system call that is only made while a word has a value: a restartable sequence (rseq(2)).
//!
//! Between a look at a word and the call that depends on it a thread can be stopped for any time, and the word can
//! change. The kernel leads a thread that was interrupted between the two back to the look, before it runs on. So of a
//! thread that is stopped it is certain that its call has been made, or will not be made while the word is different.
//!
//! glibc (2.35 and later) registers each thread's area with the kernel. Without it there are no such calls.
//!
//! # Safety
//! As for [`super::kernel`]: the kernel checks the pointers that it gets. The area is the thread's own, and lives as
//! long as the thread.

use super::{kernel, raw, thread};
use crate::error::Errno;
use core::arch::asm;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU8, AtomicU64};

/// This thread's area, if the kernel knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area(*mut u8);

impl Area {
    pub(crate) fn own() -> Option<Self> {
        thread::restartable_area().map(Self)
    }
}

/// A system call to be made, without waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    number: libc::c_long,
    arguments: [usize; 6],
}

impl Call {
    pub(crate) fn send(fd: c_int, bytes: *const u8, length: usize, flags: c_int) -> Self {
        let flags = flags | libc::MSG_DONTWAIT;
        Self {
            number: libc::SYS_sendto,
            arguments: [fd as usize, bytes.expose_provenance(), length, flags as usize, 0, 0],
        }
    }

    pub(crate) fn send_message(fd: c_int, message: &libc::msghdr, flags: c_int) -> Self {
        let flags = flags | libc::MSG_DONTWAIT;
        let message = core::ptr::from_ref(message).expose_provenance();
        Self { number: libc::SYS_sendmsg, arguments: [fd as usize, message, flags as usize, 0, 0, 0] }
    }

    pub(crate) fn receive(fd: c_int, message: &mut libc::msghdr, flags: c_int) -> Self {
        let flags = flags | libc::MSG_DONTWAIT;
        let message = (&raw mut *message).expose_provenance();
        Self { number: libc::SYS_recvmsg, arguments: [fd as usize, message, flags as usize, 0, 0, 0] }
    }

    /// Throws up to `length` received bytes away without copying them (tcp(7), MSG_TRUNC).
    pub(crate) fn discard(fd: c_int, length: usize) -> Self {
        /// Nothing is written there but under a filter; valgrind expects room for what is asked for.
        static DUST: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];
        let (place, length) = (DUST.as_ptr().cast_mut().cast::<u8>(), length.min(DUST.len()));
        if kernel::is_restricted() {
            return Self::read(fd, place, length);
        }
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        let place = place.expose_provenance();
        Self { number: libc::SYS_recvfrom, arguments: [fd as usize, place, length, flags as usize, 0, 0] }
    }

    /// The call that every filter of a program's allows (seccomp(2), strict mode). On a blocking socket it waits, so it is
    /// only for what is certain to come.
    pub(crate) fn read(fd: c_int, place: *mut u8, length: usize) -> Self {
        Self { number: libc::SYS_read, arguments: [fd as usize, place.expose_provenance(), length, 0, 0, 0] }
    }

    pub(crate) fn make(&self) -> Result<usize, Errno> {
        let [a, b, c, d, e, f] = self.arguments;
        // SAFETY: the kernel checks every pointer; what it writes goes where the `&mut` that the call was made from said.
        raw::outcome(unsafe { raw::syscall6(self.number, a, b, c, d, e, f) })
    }

    /// Makes the call if the lower half of `word` is `value`, and not after it has been seen otherwise. `None`: it is not.
    #[inline(never)]
    pub(crate) fn make_while(
        &self,
        area: Area,
        word: &AtomicU64,
        value: u32,
    ) -> Option<Result<usize, Errno>> {
        let [a, b, c, d, e, f] = self.arguments;
        let (result, made): (isize, usize);
        // SAFETY: as in `raw`. The descriptor of the sequence is constant memory, and is taken out of the area again
        // before anything else can run in its place; the four bytes before where it leads back to are the ones that
        // glibc has registered (RSEQ_SIG), behind the opcode of an instruction that traps.
        unsafe {
            asm!(
                ".pushsection __rseq_cs, \"aw\", @progbits",
                ".balign 32",
                "22:",
                ".long 0, 0",
                ".quad 44f, 55f - 44f, 66f",
                ".popsection",
                "xor r11d, r11d",
                "33:",
                "lea rcx, [rip + 22b]",
                "mov qword ptr [{area} + 8], rcx",
                "44:",
                "cmp dword ptr [{word}], {value:e}",
                "jne 77f",
                "syscall",
                "55:",
                "mov r11d, 1",
                "jmp 77f",
                ".byte 0x0f, 0xb9, 0x3d",
                ".long 0x53053053",
                "66:",
                "jmp 33b",
                "77:",
                "mov qword ptr [{area} + 8], 0",
                area = in(reg) area.0,
                word = in(reg) core::ptr::from_ref(word),
                value = in(reg) value,
                inlateout("rax") self.number as isize => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                in("r9") f,
                out("rcx") _,
                out("r11") made,
                options(nostack),
            );
        }
        (made != 0).then(|| raw::outcome(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::c_void;
    use core::sync::atomic::Ordering;
    use std::cell::Cell;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn area() -> Option<Area> {
        thread::find_area();
        Area::own()
    }

    #[test]
    fn a_call_is_made_if_the_word_is_right() {
        let Some(area) = area() else { return eprintln!("SKIPPED: no restartable sequences here") };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let one = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let other = listener.accept().expect("the same").0;
        let word = AtomicU64::new(7);
        let send = Call::send(one.as_raw_fd(), b"xyz".as_ptr(), 3, 0);
        assert_eq!(send.make_while(area, &word, 7), Some(Ok(3)));
        assert_eq!(send.make_while(area, &word, 8), None);
        other.peek(&mut [0]).expect("it has arrived");
        assert_eq!(Call::discard(other.as_raw_fd(), 9).make_while(area, &word, 7), Some(Ok(3)));
        assert_eq!(Call::discard(-1, 9).make_while(area, &word, 7), Some(Err(Errno(libc::EBADF))));
    }

    thread_local! {
        /// What the single steps of this thread have come to: addresses, and how often.
        static SEEN: Cell<[(i64, u32); 256]> = const { Cell::new([(0, 0); 256]) };
        static WORD: AtomicU64 = const { AtomicU64::new(1) };
        static NEXT: Cell<u64> = const { Cell::new(1) };
    }

    /// The trap flag: an interrupt after each instruction.
    const TRAP: i64 = 0x100;

    /// After each instruction. A thread that is led back to the look again and again comes to the same address; it is let
    /// go then, with another value in the word.
    extern "C" fn step(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel gives a handler the context of what it interrupted.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let address = registers[libc::REG_RIP as usize];
        let mut seen = SEEN.get();
        let place = seen.iter_mut().find(|place| place.0 == address || place.1 == 0);
        let often = place.map_or(u32::MAX, |place| {
            *place = (address, place.1 + 1);
            place.1
        });
        SEEN.set(seen);
        if often > 5 {
            WORD.with(|word| word.store(NEXT.get(), Ordering::Relaxed));
            registers[libc::REG_EFL as usize] &= !TRAP;
        }
    }

    /// Interrupted after each instruction, a call would never be made; so wherever it is interrupted, it looks again.
    #[test]
    fn an_interrupted_call_looks_again() {
        let Some(area) = area() else { return eprintln!("SKIPPED: no restartable sequences here") };
        // SAFETY: all zeroes are an action.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = step as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: a handler that touches only its thread's own words, and what it interrupted.
        unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, core::ptr::null_mut()) };
        let call = Call { number: libc::SYS_getppid, arguments: [0; 6] };
        for (next, made) in [(0, false), (1, true)] {
            SEEN.set([(0, 0); 256]);
            NEXT.set(next);
            let result = WORD.with(|word| {
                word.store(1, Ordering::Relaxed);
                // SAFETY: traps from here on, which the handler takes.
                unsafe { asm!("pushfq", "or qword ptr [rsp], {}", "popfq", const TRAP) };
                call.make_while(area, word, 1)
            });
            assert_eq!(result.is_some(), made);
            assert!(SEEN.get().iter().any(|place| place.1 > 5), "it was not led back");
        }
    }
}
