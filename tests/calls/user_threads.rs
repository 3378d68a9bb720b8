//! Threads of the program's own making, several on one of the kernel's, which a timer takes turns with: swapcontext(3) in
//! a handler. They share a socket, and each is interrupted in the middle of its calls.
//!
//! # Safety
//! Contexts are switched in the handler of one thread only, whose stacks live as long as the process.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{Case, assert_on_pipe, case};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[case("user_threads_that_a_timer_interrupts_read_each_byte_once", || {
    let (end, other) = on_pipe();
    END.store(end as usize, Ordering::Relaxed);
    let writing = thread::spawn(move || {
        sys::block_signals(&[libc::SIGALRM]);
        let mut next = 0u8;
        for round in 0..60_000usize {
            let length = 1 + round % 97;
            let bytes: Vec<u8> = (0..length).map(|offset| next.wrapping_add(offset as u8)).collect();
            sys::write_all(other, &bytes);
            next = next.wrapping_add(length as u8);
        }
        sys::shutdown(other, libc::SHUT_WR).expect("shutdown");
        let all = (0..60_000usize).map(|round| 1 + round % 97).sum::<usize>();
        let mut counts = [0; 256];
        (0..all).for_each(|place| counts[place % 256] += 1);
        counts
    });
    run(read_bytes);
    let mut found = [0; 256];
    for (place, count) in found.iter_mut().zip(&COUNTS) {
        *place = count.load(Ordering::Relaxed);
    }
    assert_eq!(found, writing.join().expect("a writer"));
    sys::close(end).expect("close");
    sys::close(other).expect("close");
})
.within_seconds(120)];

const THREADS: usize = 3;
const STACK: usize = 256 * 1024;

static END: AtomicUsize = AtomicUsize::new(0);
static COUNTS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
/// Which thread runs, how many have begun, and how many have ended.
static TURN: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

struct Contexts(UnsafeCell<[MaybeUninit<libc::ucontext_t>; THREADS + 1]>);
// SAFETY: see the module.
unsafe impl Sync for Contexts {}
/// The threads', and in the end the one that began them.
static CONTEXTS: Contexts = Contexts(UnsafeCell::new([const { MaybeUninit::uninit() }; THREADS + 1]));

fn context(number: usize) -> *mut libc::ucontext_t {
    CONTEXTS.0.get().cast::<libc::ucontext_t>().wrapping_add(number)
}

fn switch_to(next: usize) {
    let before = TURN.swap(next, Ordering::Relaxed);
    // SAFETY: see the module; both contexts have been filled.
    unsafe { libc::swapcontext(context(before), context(next)) };
}

/// The next thread's turn.
extern "C" fn take_turns(_signal: libc::c_int) {
    // SAFETY: this thread's own variable, which the call under way must find as it was.
    let errno = unsafe { *libc::__errno_location() };
    switch_to((TURN.load(Ordering::Relaxed) + 1) % THREADS);
    // SAFETY: as before.
    unsafe { *libc::__errno_location() = errno };
}

/// Runs `body` in every thread, with a timer that interrupts, until all have ended.
fn run(body: extern "C" fn()) {
    for number in 0..THREADS {
        let stack: &'static mut [u8] = Box::leak(vec![0; STACK].into_boxed_slice());
        // SAFETY: the stack is never freed, and the context is one of ours.
        unsafe {
            libc::getcontext(context(number));
            (*context(number)).uc_stack.ss_sp = stack.as_mut_ptr().cast();
            (*context(number)).uc_stack.ss_size = STACK;
            (*context(number)).uc_link = std::ptr::null_mut();
            libc::makecontext(context(number), body, 0);
        }
    }
    // Each switch of contexts keeps the mask of whom it goes to (makecontext(3)).
    sys::on_signal(libc::SIGALRM, take_turns, libc::SA_RESTART);
    let every = libc::timeval { tv_sec: 0, tv_usec: 150 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    call!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut())).expect("setitimer");
    TURN.store(THREADS, Ordering::Relaxed);
    switch_to(0);
    // SAFETY: all zeroes stop it.
    let off: libc::itimerval = unsafe { std::mem::zeroed() };
    call!(libc::setitimer(libc::ITIMER_REAL, &off, std::ptr::null_mut())).expect("setitimer");
    sys::on_signal(libc::SIGALRM, ignore, 0);
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// The end of a thread: the others go on, and the last one returns to who began them.
fn end() -> ! {
    if ENDED.fetch_add(1, Ordering::Relaxed) + 1 == THREADS {
        sys::block_signals(&[libc::SIGALRM]);
        switch_to(THREADS);
    }
    loop {
        std::hint::spin_loop();
    }
}

extern "C" fn read_bytes() {
    let fd = END.load(Ordering::Relaxed) as i32;
    let mut buffer = [0; 50];
    loop {
        let count = sys::recv(fd, &mut buffer, libc::MSG_DONTWAIT);
        match count {
            Ok(0) => end(),
            Ok(count) => buffer[..count].iter().for_each(|byte| {
                COUNTS[usize::from(*byte)].fetch_add(1, Ordering::Relaxed);
            }),
            Err(error) => assert_eq!(error, sys::Errno(libc::EAGAIN)),
        }
    }
}

fn on_pipe() -> (i32, i32) {
    let (end, other) = sys::pair();
    sys::write_all(end, b"x");
    sys::read_exact(other, 1);
    sys::write_all(other, b"x");
    sys::read_exact(end, 1);
    assert_on_pipe(end);
    (end, other)
}
