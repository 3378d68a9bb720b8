//! What a thread knows of itself and tells its processor: its number and where it runs, each for the price of a load.
//!
//! In a shared object Rust's `thread_local!` calls `__tls_get_addr`, and every call that a program makes on a
//! socket needs the number. So it lies in initial-exec storage (ELF Handling for Thread-Local Storage, 4.1.2),
//! which a library may have that is there when the program starts; a few bytes may come later, too.
//!
//! # Safety
//! The assembly reads and writes four bytes of this thread's own storage, which lives as long as the thread.

use super::{filter, kernel};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// This thread's number; `ask` tells it, once.
#[inline]
pub(crate) fn number(ask: impl FnOnce() -> u32) -> u32 {
    match storage::load() & ORIGINAL.0[0].load(Ordering::Relaxed) {
        0 => keep(ask()),
        number => number,
    }
}

#[cold]
fn keep(number: u32) -> u32 {
    storage::store(number);
    number
}

/// A page of its own: all ones in its first word, once it is watched. The kernel gives an empty one to a child that gets a copy
/// of the memory (`MADV_WIPEONFORK` of madvise(2)), also where nobody hears of the fork: a raw system call.
#[repr(C, align(4096))]
struct Page([AtomicU32; 1024]);
static ORIGINAL: Page = Page([const { AtomicU32::new(0) }; 1024]);
/// Whether the page has been all ones.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Numbers are kept from now on. Called once, while the process starts.
pub(crate) fn watch() {
    // An inherited filter may kill for it.
    if filter::is_inherited() {
        return;
    }
    kernel::wipe_on_fork(ORIGINAL.0.as_ptr().cast(), size_of::<Page>());
    WATCHED.store(true, Ordering::Relaxed);
    ORIGINAL.0[0].store(u32::MAX, Ordering::Relaxed);
}

/// Whether this process is a copy that nobody has told of it, see [`renew`].
pub(crate) fn is_copy() -> bool {
    WATCHED.load(Ordering::Relaxed) && ORIGINAL.0[0].load(Ordering::Relaxed) == 0
}

/// After fork the child's only thread has another number.
pub(crate) fn renew() {
    storage::store(0);
    if WATCHED.load(Ordering::Relaxed) {
        ORIGINAL.0[0].store(u32::MAX, Ordering::Relaxed);
    }
}

mod storage {
    use std::arch::{asm, global_asm};

    // Zeroed for each new thread: not asked yet. Hidden: this object's alone.
    global_asm!(
        ".pushsection .tbss.sockshim_thread, \"awT\", @nobits",
        ".hidden sockshim_thread",
        ".globl sockshim_thread",
        ".type sockshim_thread, @object",
        ".size sockshim_thread, 4",
        ".balign 4",
        "sockshim_thread:",
        ".zero 4",
        ".popsection",
    );

    #[inline(always)]
    pub(super) fn load() -> u32 {
        let number;
        // SAFETY: see the module.
        unsafe {
            asm!(
                "mov {place}, qword ptr [rip + sockshim_thread@GOTTPOFF]",
                "mov {number:e}, dword ptr fs:[{place}]",
                place = out(reg) _,
                number = lateout(reg) number,
                options(nostack, readonly, preserves_flags),
            );
        }
        number
    }

    pub(super) fn store(number: u32) {
        // SAFETY: see the module.
        unsafe {
            asm!(
                "mov {place}, qword ptr [rip + sockshim_thread@GOTTPOFF]",
                "mov dword ptr fs:[{place}], {number:e}",
                place = out(reg) _,
                number = in(reg) number,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// The processor that this thread runs on, or ran on a moment ago.
#[inline]
pub(crate) fn cpu() -> u32 {
    match area::cpu() {
        Some(cpu) => cpu,
        // SAFETY: takes no arguments; not one of our exports.
        None => unsafe { libc::sched_getcpu() as u32 },
    }
}

/// This thread's `struct rseq`, if the C library has registered one.
pub(crate) fn restartable_area() -> Option<*mut u8> {
    area::own()
}

/// Where this thread's own block is, which the C library has made.
pub(crate) fn pointer() -> u64 {
    area::pointer().addr() as u64
}

/// Finds out what [`cpu`] and [`restartable_area`] need. Called once, while the process starts.
pub(crate) fn find_area() {
    area::find();
}

/// The area that the C library has registered for restartable sequences (rseq(2)): the kernel keeps the
/// processor's number there.
mod area {
    use core::sync::atomic::{AtomicIsize, Ordering};
    use std::arch::asm;

    /// Distance of `cpu_id` (linux/rseq.h) from the thread pointer; 0: there is no area.
    static PLACE: AtomicIsize = AtomicIsize::new(0);
    /// Offset of `cpu_id` in `struct rseq`.
    const CPU_ID: isize = 4;

    pub(super) fn find() {
        // SAFETY: the names are C strings; nothing is called.
        let symbol = |name: &core::ffi::CStr| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        let (size, offset) = (symbol(c"__rseq_size"), symbol(c"__rseq_offset"));
        if size.is_null() || offset.is_null() {
            return;
        }
        // A size of 0 says that the kernel, or the user, does not want it.
        // SAFETY: glibc (2.35 and later) defines it as an unsigned int.
        if unsafe { size.cast::<u32>().read() } > 0 {
            // SAFETY: glibc defines it as a ptrdiff_t.
            let offset = unsafe { offset.cast::<isize>().read() };
            PLACE.store(offset + CPU_ID, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(super) fn cpu() -> Option<u32> {
        let place = PLACE.load(Ordering::Relaxed);
        if place == 0 {
            return None;
        }
        let cpu: u32;
        // SAFETY: every thread has the area at that distance from its thread pointer.
        unsafe {
            asm!(
                "mov {cpu:e}, dword ptr fs:[{place}]",
                place = in(reg) place,
                cpu = lateout(reg) cpu,
                options(nostack, readonly, preserves_flags),
            );
        }
        // Negative: not registered for this thread.
        (cpu as i32 >= 0).then_some(cpu)
    }

    pub(super) fn own() -> Option<*mut u8> {
        cpu()?;
        Some(pointer().wrapping_offset(PLACE.load(Ordering::Relaxed) - CPU_ID))
    }

    pub(super) fn pointer() -> *mut u8 {
        let pointer: *mut u8;
        // SAFETY: on x86-64 the first word of the thread's own block is its address.
        unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
        pointer
    }
}

/// Asks this processor to get the line at `place` for writing. Whatever the address is, nothing happens but that.
#[inline(always)]
pub(crate) fn will_write(place: *const u8) {
    // A processor that does not know the instruction takes it for a NOP.
    // SAFETY: a hint; it neither faults nor changes anything that a program can see.
    unsafe {
        std::arch::asm!("prefetchw [{place}]", place = in(reg) place, options(nostack, readonly, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel;
    use super::*;

    #[test]
    fn every_thread_has_its_own_number() {
        let own = || number(kernel::gettid);
        assert_eq!(own(), kernel::gettid());
        let other =
            std::thread::spawn(move || (own(), kernel::gettid())).join().expect("it only tells its number");
        assert_eq!(other.0, other.1);
        assert_ne!(other.0, own());
    }

    #[test]
    fn a_number_is_asked_once_and_again_after_a_fork() {
        watch();
        let known = number(kernel::gettid);
        assert_eq!(number(|| unreachable!("it is known")), known);
        renew();
        assert_eq!(number(kernel::gettid), known);
        // SAFETY: the child makes two system calls of its own.
        let child = unsafe { libc::syscall(libc::SYS_fork) };
        if child == 0 {
            let right = is_copy() && number(kernel::gettid) == kernel::gettid();
            renew();
            kernel::exit(i32::from(!right || is_copy()));
        }
        let mut status = 0;
        // SAFETY: `status` is an int.
        assert_eq!(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }, child as i32);
        assert!(status == 0 && !is_copy());
    }

    #[test]
    fn the_processor_is_the_one_that_the_kernel_names() {
        // SAFETY: an all-zero set is a valid value.
        let mut one: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        let here = cpu();
        // SAFETY: a processor's number is within the set.
        unsafe { libc::CPU_SET(here as usize, &mut one) };
        // SAFETY: `one` is a set.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&one), &raw const one) }, 0);
        find_area();
        assert_eq!(area::cpu().unwrap_or(here), here);
        assert_eq!(cpu(), here);
    }
}
