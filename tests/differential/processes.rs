//! The actors' processes as the driver sees them: started, asked, watched, and gone.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::actor::CHANNELS_VARIABLE;
use crate::call::{CHANNELS, Call, RIGHTS, Reply};
use crate::process::{Mode, Scratch};

/// Children that a process may fork.
const SPARES: i32 = 4;
const FIRST_SPARE: i32 = CHANNELS + 10;
/// A call that waits a bounded time, and everything else, is over by then.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// One end's way of running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) mode: Mode,
    pub(crate) knobs: &'static [(&'static str, &'static str)],
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) alive: bool,
    pub(crate) threads: Vec<Thread>,
    /// Number in the process, and our end of it.
    pub(crate) spares: Vec<(i32, OwnedFd)>,
    /// Of the process that was started, which leads the group of those that it forks.
    child: Option<Child>,
}

#[derive(Debug)]
pub(crate) struct Thread {
    channel: OwnedFd,
    tid: i32,
}

/// Whether a thread sleeps for some milliseconds only, before it looks again and sleeps in the kernel's own call
/// (docs/performance.md): by futex_waitv(2), which nothing else here uses.
fn timed_waits(pid: i32, tid: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_futex_waitv.to_string())
}

/// What an actor is doing.
#[derive(Debug)]
pub(crate) enum Now {
    Done(Reply),
    Asleep,
    Awake,
    Gone,
}

impl Process {
    pub(crate) fn start(scratch: &Scratch, end: End, threads: i32, rights: &OwnedFd) -> Self {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for number in (CHANNELS..CHANNELS + threads).chain(FIRST_SPARE..FIRST_SPARE + SPARES) {
            let (our, their) = channel();
            ours.push((number, our));
            theirs.push((number, their));
        }
        let names: Vec<_> = (CHANNELS..CHANNELS + threads).map(|number| number.to_string()).collect();
        let mut command = scratch.command(end.mode, std::env::current_exe().expect("/proc"));
        command.envs(end.knobs.iter().copied()).env(CHANNELS_VARIABLE, names.join(" "));
        let places: Vec<_> = theirs
            .iter()
            .map(|(number, their)| (their.as_raw_fd(), *number))
            .chain([(rights.as_raw_fd(), RIGHTS)])
            .collect();
        let child = start(&mut command, places);
        let threads = ours.drain(..threads as usize).map(|(_, channel)| Thread { channel, tid: 0 }).collect();
        let pid = child.id() as i32;
        let mut process = Self { pid, alive: true, threads, spares: ours, child: Some(child) };
        process.greet();
        process
    }

    /// A child that this process has just forked onto its last spare channel.
    pub(crate) fn forked(&mut self) -> Self {
        let (_, channel) = self.spares.pop().expect("a spare was left");
        let threads = vec![Thread { channel, tid: 0 }];
        let mut process = Self { pid: 0, alive: true, threads, spares: Vec::new(), child: None };
        process.greet();
        process
    }

    /// This process executes a new image, which serves the channel of its only thread.
    pub(crate) fn executed(&mut self) {
        self.threads.truncate(1);
        self.spares.clear();
        self.greet();
    }

    /// The number that thread 0's channel has inside.
    pub(crate) fn first_channel(&self, was_spare: Option<i32>) -> i32 {
        was_spare.unwrap_or(CHANNELS)
    }

    fn greet(&mut self) {
        for index in 0..self.threads.len() {
            self.ask(index, &Call::Hello);
            match self.wait(index) {
                Now::Done(reply) => {
                    self.pid = reply.more[0] as i32;
                    self.threads[index].tid = reply.more[1] as i32;
                }
                other => panic!("an actor does not start: {other:?}"),
            }
        }
    }

    pub(crate) fn ask(&self, thread: usize, call: &Call) {
        let text = serde_json::to_vec(call).expect("plain numbers");
        let channel = self.threads[thread].channel.as_raw_fd();
        // SAFETY: the text outlives the call. An actor that is gone shows in the answer.
        unsafe { libc::send(channel, text.as_ptr().cast(), text.len(), libc::MSG_NOSIGNAL) };
    }

    /// What a thread that was asked is doing at this moment.
    pub(crate) fn now(&self, thread: usize) -> Now {
        if let Some(answer) = self.answer(thread, libc::MSG_DONTWAIT) {
            return answer;
        }
        match state(self.pid, self.threads[thread].tid) {
            Some('S') if timed_waits(self.pid, self.threads[thread].tid) => Now::Awake,
            Some('S') => self.answer(thread, libc::MSG_DONTWAIT).unwrap_or(Now::Asleep),
            _ => Now::Awake,
        }
    }

    /// The answer of a call that ends by itself.
    pub(crate) fn wait(&self, thread: usize) -> Now {
        let mut entry =
            libc::pollfd { fd: self.threads[thread].channel.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&mut entry, 1, HANGS_AFTER.as_millis() as i32) };
        self.answer(thread, libc::MSG_DONTWAIT).unwrap_or(Now::Awake)
    }

    fn answer(&self, thread: usize, flags: i32) -> Option<Now> {
        let mut buffer = [0_u8; 8192];
        let channel = self.threads[thread].channel.as_raw_fd();
        // SAFETY: the buffer outlives the call.
        let count = unsafe { libc::recv(channel, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        match count {
            1.. => Some(Now::Done(serde_json::from_slice(&buffer[..count as usize]).expect("a reply"))),
            0 => Some(Now::Gone),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) => None,
            _ => Some(Now::Gone),
        }
    }

    pub(crate) fn signal(&self, thread: usize, signal: i32) {
        // SAFETY: no pointers; the actor was not waited for, so the numbers are its own.
        unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.threads[thread].tid, signal) };
    }

    pub(crate) fn kill(&self) {
        // SAFETY: as above.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Waits until all that the process held has been let go.
    pub(crate) fn wait_for_end(&mut self) {
        let start = Instant::now();
        while !matches!(state(self.pid, self.pid), None | Some('Z' | 'X')) {
            assert!(start.elapsed() < HANGS_AFTER, "process {} does not end", self.pid);
            std::thread::sleep(Duration::from_micros(200));
        }
        self.alive = false;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // SAFETY: no pointers; the leader was not waited for, so the group is still its own.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            let _ = child.wait();
        }
    }
}

/// The state letter of a thread, `None` when it is gone.
fn state(pid: i32, tid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

fn start(command: &mut Command, places: Vec<(i32, i32)>) -> Child {
    command.stdin(Stdio::null()).process_group(0);
    let arrange = move || {
        for &(from, to) in &places {
            // SAFETY: no pointers.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: no pointers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: `arrange` makes system calls only.
    unsafe { command.pre_exec(arrange) };
    command.spawn().expect("an actor")
}

/// A connection that keeps messages apart; both numbers lie above those that actors use.
pub(crate) fn channel() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0, "a channel");
    let [a, b] = ends.map(|end| {
        // SAFETY: both numbers are ours.
        unsafe {
            let high = libc::fcntl(end, libc::F_DUPFD_CLOEXEC, RIGHTS + 20);
            libc::close(end);
            OwnedFd::from_raw_fd(high)
        }
    });
    (a, b)
}
