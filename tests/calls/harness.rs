//! What a case is, and how one runs inside its own process.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::{env, thread};

use crate::sys;

/// One behaviour of the socket calls.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) body: Body,
    /// The environments it is for; empty means all.
    pub(crate) only: &'static [Environment],
    /// The watchdog, which is there for hangs alone.
    pub(crate) seconds: u64,
}

#[derive(Debug)]
pub(crate) enum Body {
    Alone(fn()),
    Dialogue { here: fn(&End), there: fn(&End), places: &'static [Place] },
}

/// Where the other end of a dialogue lives. Each place also has its own address family and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A thread that connects over IPv4.
    Thread,
    /// A forked child that accepts over IPv6.
    Fork,
    /// A freshly executed process that connects over IPv4 to a dual-stack listener.
    Exec,
}

pub(crate) const EVERYWHERE: &[Place] = &[Place::Thread, Place::Fork, Place::Exec];
pub(crate) const PROCESSES: &[Place] = &[Place::Fork, Place::Exec];

/// A case that makes its own sockets.
pub(crate) const fn case(name: &'static str, body: fn()) -> Case {
    Case { name, body: Body::Alone(body), only: &[], seconds: 60 }
}

/// A case with two connected ends, run once for each place where the other one may live.
pub(crate) const fn dialogue(name: &'static str, here: fn(&End), there: fn(&End)) -> Case {
    Case { name, body: Body::Dialogue { here, there, places: EVERYWHERE }, only: &[], seconds: 60 }
}

impl Case {
    /// The other end lives in another process, never in a thread.
    pub(crate) const fn between_processes(mut self) -> Self {
        if let Body::Dialogue { here, there, .. } = self.body {
            self.body = Body::Dialogue { here, there, places: PROCESSES };
        }
        self
    }

    pub(crate) const fn only(mut self, environments: &'static [Environment]) -> Self {
        self.only = environments;
        self
    }

    pub(crate) const fn within_seconds(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }
}

/// One end of a dialogue.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) fd: i32,
    /// The process of the other end, 0 when it is this one.
    pub(crate) other: libc::pid_t,
    /// A kernel socket to the other side's code, for "now you".
    sync: i32,
    closed: AtomicBool,
    killed: AtomicBool,
}

impl End {
    fn new(fd: i32, sync: i32, other: libc::pid_t) -> Self {
        Self { fd, other, sync, closed: AtomicBool::new(false), killed: AtomicBool::new(false) }
    }

    /// Lets the other side's [`End::hear`] return.
    #[track_caller]
    pub(crate) fn tell(&self) {
        assert_eq!(sys::write(self.sync, b"!"), Ok(1), "the other side is gone");
    }

    /// Waits for the other side's [`End::tell`].
    #[track_caller]
    pub(crate) fn hear(&self) {
        assert_eq!(sys::read(self.sync, &mut [0]), Ok(1), "the other side is gone");
    }

    /// Whether [`End::hear`] would return at once.
    pub(crate) fn is_called(&self) -> bool {
        sys::events(self.sync, libc::POLLIN) != 0
    }

    #[track_caller]
    pub(crate) fn close(&self) {
        assert!(!self.closed.swap(true, Relaxed), "closed twice");
        assert_eq!(sys::close(self.fd), Ok(0));
    }

    /// The test closed the descriptor itself.
    pub(crate) fn forget(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Kills the other end's process with SIGKILL and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill_other(&self) {
        self.killed.store(true, Relaxed);
        assert_eq!(sys::kill(self.other, libc::SIGKILL), Ok(0));
        assert_eq!(sys::wait(self.other), sys::Ended::Killed(libc::SIGKILL));
    }

    fn finish(&self) {
        if !self.closed.load(Relaxed) {
            let _ = sys::close(self.fd);
        }
        let _ = sys::close(self.sync);
    }
}

/// How the process of a case is set up; `Host` is the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    /// The kernel alone.
    Host,
    /// Every connection on a pipe from the start.
    Pipe,
    /// The pipe opens after 200 bytes.
    Midstream,
    /// No knob set.
    Default,
    /// A ring so small that everything spills into the kernel and returns all the time.
    Small,
}

impl Environment {
    pub(crate) const ALL: &[Self] = &[Self::Host, Self::Pipe, Self::Midstream, Self::Default, Self::Small];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pipe => "pipe",
            Self::Midstream => "midstream",
            Self::Default => "default",
            Self::Small => "small",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|environment| environment.name() == name)
    }

    /// The variables of sockshim that this environment sets.
    pub(crate) fn knobs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Host | Self::Default => &[],
            Self::Pipe => &[("SOCKSHIM_UPGRADE_AFTER", "0")],
            Self::Midstream => &[("SOCKSHIM_UPGRADE_AFTER", "200")],
            Self::Small => &[("SOCKSHIM_UPGRADE_AFTER", "0"), ("SOCKSHIM_RING_MAX", "4096")],
        }
    }
}

/// The environment this process runs in.
pub(crate) fn environment() -> Environment {
    env::var("CALLS_ENV").ok().and_then(|name| Environment::named(&name)).unwrap_or(Environment::Host)
}

/// Asserts that `fd` is on a pipe, where this environment promises it.
#[track_caller]
pub(crate) fn assert_on_pipe(fd: i32) {
    if environment() == Environment::Pipe {
        assert_eq!(path(fd), Some(1), "descriptor {fd} is not on a pipe: reason {:?}", reason(fd));
    }
}

/// What `sockshim_path` says of a descriptor; `None` without sockshim.
pub(crate) fn path(fd: i32) -> Option<i32> {
    ask(c"sockshim_path", fd)
}

/// What `sockshim_reason` says of it.
pub(crate) fn reason(fd: i32) -> Option<i32> {
    ask(c"sockshim_reason", fd)
}

/// Calls `sockshim_pin_host`, if there is one.
#[track_caller]
pub(crate) fn pin_host(fd: i32) {
    assert!(matches!(ask(c"sockshim_pin_host", fd), Some(0) | None), "descriptor {fd}");
}

fn ask(function: &CStr, fd: i32) -> Option<i32> {
    // SAFETY: the name is a C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, function.as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the header declares both as functions of one int that return a number.
    let function: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(symbol) };
    Some(function(fd))
}

/// What the runner wants this process to do.
#[derive(Debug)]
pub(crate) struct Assignment {
    case: String,
    /// Port and sync descriptor, when this is the other end of [`Place::Exec`].
    peer: Option<(u16, i32)>,
}

pub(crate) const SKIPPED: u8 = 77;

pub(crate) fn assignment() -> Option<Assignment> {
    let case = env::var("CALLS_CASE").ok()?;
    let peer = env::var("CALLS_PEER").ok().and_then(|text| {
        let (port, sync) = text.split_once(' ')?;
        Some((port.parse().ok()?, sync.parse().ok()?))
    });
    Some(Assignment { case, peer })
}

/// Ends the case here: what it needs is not on this machine.
pub(crate) fn skip(reason: &str) -> ! {
    eprintln!("skipped: {reason}");
    std::process::exit(i32::from(SKIPPED))
}

impl Assignment {
    pub(crate) fn run(&self, areas: &[(&str, &'static [Case])]) -> ExitCode {
        let mut words = self.case.split("::");
        let (area, name, place) = (words.next(), words.next(), words.next());
        let case = areas
            .iter()
            .find(|(each, _)| Some(*each) == area)
            .and_then(|(_, cases)| cases.iter().find(|case| Some(case.name) == name))
            .unwrap_or_else(|| panic!("no case {}", self.case));
        match case.body {
            Body::Alone(body) => body(),
            Body::Dialogue { here, there, .. } => match (self.peer, place) {
                (Some((port, sync)), _) => be_executed(port, sync, there),
                (None, Some("thread")) => with_thread(here, there),
                (None, Some("fork")) => with_fork(here, there),
                _ => with_exec(&self.case, here, there),
            },
        }
        ExitCode::SUCCESS
    }
}

fn with_thread(here: fn(&End), there: fn(&End)) {
    let (listener, port) = sys::listener(libc::AF_INET);
    let (sync, their_sync) = sys::socketpair();
    let other = thread::spawn(move || {
        let end = End::new(sys::connected(libc::AF_INET, port), their_sync, 0);
        if catch_unwind(AssertUnwindSafe(|| there(&end))).is_err() {
            // This end may be waiting for the one that failed.
            std::process::exit(101);
        }
        end.finish();
    });
    let end = End::new(sys::accept(listener).expect("accept"), sync, 0);
    sys::close(listener).expect("close");
    here(&end);
    end.finish();
    other.join().expect("the other end failed");
}

fn with_fork(here: fn(&End), there: fn(&End)) {
    let (listener, port) = sys::listener(libc::AF_INET6);
    let (sync, their_sync) = sys::socketpair();
    let parent = sys::getpid();
    let child = fork(|| {
        sys::close(sync).expect("close");
        let end = End::new(sys::accept(listener).expect("accept"), their_sync, parent);
        sys::close(listener).expect("close");
        there(&end);
        end.finish();
    });
    sys::close(their_sync).expect("close");
    let end = End::new(sys::connected(libc::AF_INET6, port), sync, child);
    sys::close(listener).expect("close");
    here(&end);
    end.finish();
    if !end.killed.load(Relaxed) {
        assert_eq!(sys::wait(child), sys::Ended::Exited(0), "the other end failed");
    }
}

fn with_exec(case: &str, here: fn(&End), there: fn(&End)) {
    let _ = there;
    let (listener, port) = sys::listener(sys::DUAL_STACK);
    let (sync, their_sync) = sys::socketpair();
    sys::set_cloexec(sync, true);
    sys::set_cloexec(listener, true);
    let child = sys::spawn(
        &sys::own_program(),
        &[],
        &[("CALLS_CASE", case), ("CALLS_PEER", &format!("{port} {their_sync}"))],
    );
    sys::close(their_sync).expect("close");
    let end = End::new(sys::accept(listener).expect("accept"), sync, child);
    sys::close(listener).expect("close");
    here(&end);
    end.finish();
    if !end.killed.load(Relaxed) {
        assert_eq!(sys::wait(child), sys::Ended::Exited(0), "the other end failed");
    }
}

fn be_executed(port: u16, sync: i32, there: fn(&End)) {
    let end = End::new(sys::connected(libc::AF_INET, port), sync, sys::getppid());
    there(&end);
    end.finish();
}

/// Runs `body` in a forked child, which exits 0, or 101 when it panics.
pub(crate) fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child runs only `body` and leaves with `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: always allowed.
        unsafe { libc::_exit(if failed { 101 } else { 0 }) }
    }
    pid
}

/// Forks `body`, and asserts that it ended well when the returned guard's `join` is called.
#[derive(Debug)]
pub(crate) struct Child(pub(crate) libc::pid_t);

impl Child {
    pub(crate) fn run(body: impl FnOnce()) -> Self {
        Self(fork(body))
    }

    #[track_caller]
    pub(crate) fn join(self) {
        assert_eq!(sys::wait(self.0), sys::Ended::Exited(0), "the child failed");
    }
}
