//! Threads of the program's own: contexts on stacks of their own (makecontext(3)), between which a timer switches wherever
//! they are, also in the middle of a call. To the kernel, and to the library, they are one thread.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{SA_RESTART, SIGALRM, ucontext_t};
use parking_lot::Mutex;

use crate::alarms::Alarm;
use crate::harness::{Case, dialogue};
use crate::sys;
use crate::threads::{Histogram, Tally, write_records};

pub(crate) const CASES: &[Case] = &[
    dialogue(
        "contexts_that_share_a_socket_write_whole_records",
        |end| {
            in_contexts(end.fd, |fd, index| write_records(fd, index as u64, RECORDS));
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
        |end| {
            let mut tally = Tally::default();
            tally.read_all(end.fd);
            tally.assert_complete(CONTEXTS as u64, RECORDS);
        },
    )
    .within_seconds(120),
    dialogue(
        "contexts_that_share_a_socket_read_each_byte_once",
        |end| {
            write_records(end.fd, 0, RECORDS);
            sys::shutdown(end.fd, libc::SHUT_WR).expect("shutdown");
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
        |end| {
            in_contexts(end.fd, |fd, index| {
                let part = Histogram::read(fd);
                *PARTS[index].lock() = Some(part);
            });
            let mut total = Histogram::default();
            for part in &PARTS {
                total.add(part.lock().as_ref().expect("each has read"));
            }
            total.assert_records(1, RECORDS);
        },
    )
    .within_seconds(120),
];

const CONTEXTS: usize = 4;
const RECORDS: u64 = 4000;
/// Microseconds between two switches.
const SLICE: usize = 150;
const STACK: usize = 256 * 1024;

/// With a socket, in the context of a number.
type Work = fn(i32, usize);

struct Contexts(UnsafeCell<[MaybeUninit<ucontext_t>; CONTEXTS]>);

// SAFETY: one thread uses them, and its handler, during which the signal is blocked.
unsafe impl Sync for Contexts {}

impl Contexts {
    fn at(&self, index: usize) -> *mut ucontext_t {
        self.0.get().cast::<ucontext_t>().wrapping_add(index)
    }
}

static ALL: Contexts = Contexts(UnsafeCell::new([const { MaybeUninit::zeroed() }; CONTEXTS]));
static CURRENT: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
/// What each context does with the socket; a process does it once.
static WORK: OnceLock<(i32, Work)> = OnceLock::new();
/// What each context has read.
static PARTS: [Mutex<Option<Histogram>>; CONTEXTS] = [const { Mutex::new(None) }; CONTEXTS];

extern "C" fn switch(_signal: i32) {
    let from = CURRENT.load(Ordering::Relaxed);
    let to = (from + 1) % CONTEXTS;
    CURRENT.store(to, Ordering::Relaxed);
    // SAFETY: `to` has been made, or has been switched away from; errno is this thread's.
    unsafe {
        let errno = *libc::__errno_location();
        libc::swapcontext(ALL.at(from), ALL.at(to));
        *libc::__errno_location() = errno;
    }
}

extern "C" fn run() {
    let index = CURRENT.load(Ordering::Relaxed);
    let (fd, work) = *WORK.get().expect("set before the timer");
    work(fd, index);
    DONE.fetch_add(1, Ordering::Relaxed);
    while DONE.load(Ordering::Relaxed) < CONTEXTS {
        std::hint::spin_loop();
    }
}

/// Never left: the first context stops the timer.
extern "C" fn run_and_stay() {
    // SAFETY: a signal set is initialized by the first call.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut());
    }
    run();
    loop {
        std::hint::spin_loop();
    }
}

/// Does `work` in every context, the caller's among them.
fn in_contexts(fd: i32, work: Work) {
    WORK.set((fd, work)).expect("once");
    for index in 1..CONTEXTS {
        let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
        // SAFETY: the context and its stack live as long as the process.
        unsafe {
            let context = ALL.at(index);
            assert_eq!(libc::getcontext(context), 0);
            (*context).uc_stack.ss_sp = stack.as_mut_ptr().cast();
            (*context).uc_stack.ss_size = STACK;
            (*context).uc_link = ptr::null_mut();
            // Every switch is made in a handler; one in the middle of another would lose a context.
            libc::sigaddset(&raw mut (*context).uc_sigmask, SIGALRM);
            libc::makecontext(context, run_and_stay, 0);
        }
    }
    sys::on_signal(SIGALRM, switch, SA_RESTART);
    let alarm = Alarm::new();
    alarm.set(SLICE, SLICE);
    run();
    alarm.set(0, 0);
}
