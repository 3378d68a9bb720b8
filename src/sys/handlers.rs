//! Which signal handlers this thread has run: for calls that wait before they are in the kernel.
//!
//! A handler that runs while a call waits ends it with EINTR (signal(7)). In the kernel that comes by itself. But before
//! it sleeps in the kernel a call spins, and a handler that has run meanwhile, of a one-shot alarm(2) perhaps, must not be
//! missed.
//!
//! A handler returns to a few instructions, the *restorer*, which make the system call that ends it (sigreturn(2)). Its
//! address is told to the kernel together with the handler; usually it is the C library's. Handlers that are installed
//! by the C library's names (`abi/signal.rs`) get one of ours, which notes the signal in a log of this thread first.
//! Handler, flags and mask are what the program said, and nobody stands between the kernel and the handler. What a
//! program installs by a system call of its own (Go's runtime) is not noted.
//!
//! # Safety
//! The assembly reads and writes twenty bytes of this thread's own storage, which lives as long as the thread.

use core::ffi::c_int;
use std::arch::{asm, global_asm};

/// Length of the log: the last so many handlers are known by signal.
const LOG: u32 = 16;
/// In an entry of the log, above the signal's number less one: installed without SA_RESTART.
const ENDS_IO: u8 = 64;

// The log, as in `sys/thread.rs`: how many handlers have returned, and which the last ones were.
//
// And the restorers, one for each entry that the log can have. Where a thread has another thread pointer for the time being
// (Wine's, in 32-bit code), which the first two words tell, nothing is noted. The counter is raised by one instruction,
// which no signal of this thread divides. All registers are the interrupted code's again after the call.
//
// Who walks the stack reads in the unwind table (DWARF 5, 6.4) that this is a signal frame, and finds the registers in its
// `ucontext`, to which rsp points; glibc's own restorer has the same table. Return addresses are looked up less one: so there
// is an instruction before the first restorer.
global_asm!(
    ".pushsection .tbss.sockshim_handled, \"awT\", @nobits",
    ".hidden sockshim_handled",
    ".globl sockshim_handled",
    ".type sockshim_handled, @object",
    ".size sockshim_handled, 20",
    ".balign 4",
    "sockshim_handled:",
    ".zero 20",
    ".popsection",
    ".pushsection .text.sockshim_restorers, \"ax\", @progbits",
    ".hidden sockshim_restorers",
    ".globl sockshim_restorers",
    ".type sockshim_restorers, @function",
    ".balign 16",
    ".cfi_startproc simple",
    ".cfi_signal_frame",
    // The frame's address is the interrupted rsp: DW_CFA_def_cfa_expression (DW_OP_breg7 160, DW_OP_deref).
    ".cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06",
    // DW_CFA_expression (DW_OP_breg7 offset) for each register, in the order of `gregset_t`.
    ".cfi_escape 0x10, 8, 2, 0x77, 0x28",
    ".cfi_escape 0x10, 9, 2, 0x77, 0x30",
    ".cfi_escape 0x10, 10, 2, 0x77, 0x38",
    ".cfi_escape 0x10, 11, 3, 0x77, 0xc0, 0x00",
    ".cfi_escape 0x10, 12, 3, 0x77, 0xc8, 0x00",
    ".cfi_escape 0x10, 13, 3, 0x77, 0xd0, 0x00",
    ".cfi_escape 0x10, 14, 3, 0x77, 0xd8, 0x00",
    ".cfi_escape 0x10, 15, 3, 0x77, 0xe0, 0x00",
    ".cfi_escape 0x10, 5, 3, 0x77, 0xe8, 0x00",
    ".cfi_escape 0x10, 4, 3, 0x77, 0xf0, 0x00",
    ".cfi_escape 0x10, 6, 3, 0x77, 0xf8, 0x00",
    ".cfi_escape 0x10, 3, 3, 0x77, 0x80, 0x01",
    ".cfi_escape 0x10, 1, 3, 0x77, 0x88, 0x01",
    ".cfi_escape 0x10, 0, 3, 0x77, 0x90, 0x01",
    ".cfi_escape 0x10, 2, 3, 0x77, 0x98, 0x01",
    ".cfi_escape 0x10, 16, 3, 0x77, 0xa8, 0x01",
    ".rept 16",
    "nop",
    ".endr",
    "sockshim_restorers:",
    ".set sockshim_entry, 0",
    ".rept 128",
    "mov edi, sockshim_entry",
    "jmp 2f",
    ".balign 16",
    ".set sockshim_entry, sockshim_entry + 1",
    ".endr",
    "2:",
    "mov rax, qword ptr fs:[0]",
    "cmp rax, qword ptr fs:[16]",
    "jne 3f",
    "mov rcx, qword ptr [rip + sockshim_handled@GOTTPOFF]",
    "mov eax, 1",
    "xadd dword ptr fs:[rcx], eax",
    "and eax, 15",
    "mov byte ptr fs:[rcx + rax + 4], dil",
    "3:",
    "mov eax, 15", // rt_sigreturn
    "syscall",
    "ud2",
    ".cfi_endproc",
    ".size sockshim_restorers, . - sockshim_restorers",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "sockshim_restorers"]
    static RESTORERS: u8;
}

/// The address of the restorer for a handler of `signal` (1 to 64) with these flags.
pub(crate) fn restorer(signal: c_int, flags: c_int) -> usize {
    let ends = if flags & libc::SA_RESTART == 0 { usize::from(ENDS_IO) } else { 0 };
    let entry = ((signal - 1) as usize & 63) | ends;
    (&raw const RESTORERS).expose_provenance() + entry * 16
}

/// A moment of this thread's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(u32);

impl Since {
    #[inline]
    pub(crate) fn now() -> Self {
        Self(count())
    }

    /// Whether a handler has run since that moment.
    #[inline]
    pub(crate) fn has_any(self) -> bool {
        count() != self.0
    }

    /// Whether one has run that ends a read or a write: without SA_RESTART, or any if the socket has a time-out.
    #[inline]
    pub(crate) fn ends_io(self, is_timed: bool) -> bool {
        self.has_any() && self.has_run(|entry| is_timed || entry & ENDS_IO != 0)
    }

    /// Whether one has run that ends a wait for readiness, during which the signals of `blocked` (bit 0: signal 1) are blocked.
    #[inline]
    pub(crate) fn ends_wait(self, blocked: u64) -> bool {
        self.has_any() && self.has_run(|entry| blocked >> (entry & (ENDS_IO - 1)) & 1 == 0)
    }

    #[cold]
    fn has_run(self, wanted: impl Fn(u8) -> bool) -> bool {
        let count = count();
        // Of those before the log, the kind is not known.
        let known = count.wrapping_sub(self.0).min(LOG);
        (1..=known).any(|back| wanted(entry(count.wrapping_sub(back))))
    }
}

/// How many handlers have returned in this thread.
#[inline(always)]
fn count() -> u32 {
    let count;
    // SAFETY: see the module.
    unsafe {
        asm!(
            "mov {place}, qword ptr [rip + sockshim_handled@GOTTPOFF]",
            "mov {count:e}, dword ptr fs:[{place}]",
            place = out(reg) _,
            count = lateout(reg) count,
            options(nostack, readonly, preserves_flags),
        );
    }
    count
}

/// What the log has of the handler with this number.
fn entry(number: u32) -> u8 {
    let entry: u32;
    // SAFETY: see the module; the index is below the log's length.
    unsafe {
        asm!(
            "mov {place}, qword ptr [rip + sockshim_handled@GOTTPOFF]",
            "movzx {entry:e}, byte ptr fs:[{place} + {index} + 4]",
            place = out(reg) _,
            index = in(reg) u64::from(number % LOG),
            entry = lateout(reg) entry,
            options(nostack, readonly, preserves_flags),
        );
    }
    entry as u8
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{self, Action, SA_RESTORER};
    use super::*;

    extern "C" fn nothing(_signal: c_int) {}

    /// Handles a signal in this thread, as if it had been installed with these flags.
    fn handle(signal: c_int, flags: c_int) {
        let action = Action {
            handler: nothing as *const () as usize,
            flags: flags as u64 | SA_RESTORER,
            restorer: restorer(signal, flags),
            mask: 0,
        };
        let before = kernel::signal_action(signal, Some(&action)).expect("a signal that can be handled");
        // SAFETY: a signal for this thread, which has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, kernel::getpid(), kernel::gettid(), signal) };
        kernel::signal_action(signal, Some(&before)).expect("what it was");
    }

    #[test]
    fn a_handler_is_noted_by_the_thread_that_ran_it() {
        let began = Since::now();
        assert!(!began.has_any() && !began.ends_io(true) && !began.ends_wait(0));
        std::thread::spawn(|| handle(libc::SIGRTMAX() - 1, 0)).join().expect("it only handles a signal");
        assert!(!began.has_any());
        handle(libc::SIGRTMAX() - 1, libc::SA_RESTART);
        assert!(began.has_any() && !began.ends_io(false) && began.ends_io(true) && began.ends_wait(0));
        let later = Since::now();
        assert!(!later.has_any() && !later.ends_io(true));
        handle(64, 0);
        assert!(began.ends_io(false) && later.ends_io(false));
        assert!(later.ends_wait(1 << 62) && !later.ends_wait(1 << 63) && began.ends_wait(1 << 63));
    }

    #[test]
    fn of_many_handlers_the_last_are_known() {
        let began = Since::now();
        handle(libc::SIGRTMAX() - 2, 0);
        for _ in 0..15 {
            handle(libc::SIGRTMAX() - 3, libc::SA_RESTART);
        }
        assert!(began.ends_io(false));
        handle(libc::SIGRTMAX() - 3, libc::SA_RESTART);
        assert!(began.has_any() && !began.ends_io(false) && began.ends_io(true));
    }

    #[test]
    fn every_restorer_has_its_place() {
        let first = restorer(1, libc::SA_RESTART);
        assert_eq!(restorer(2, libc::SA_RESTART), first + 16);
        assert_eq!(restorer(1, 0), first + 64 * 16);
        assert_eq!(restorer(64, 0), first + 127 * 16);
        // mov edi, number
        for (signal, flags, number) in [(1, libc::SA_RESTART, 0), (64, 0, 127)] {
            let place = core::ptr::with_exposed_provenance::<[u8; 5]>(restorer(signal, flags));
            // SAFETY: code can be read.
            assert_eq!(unsafe { place.read() }, [0xbf, number, 0, 0, 0]);
        }
    }
}
