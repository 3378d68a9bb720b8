//! Runs a program, one step after the other, and writes down what came of it.
//!
//! After each step the driver waits until every actor has either answered or sleeps in its call. The kernel delivers over
//! the loopback interface before a call returns, and wakes whom it concerns, so what a step brings about is
//! the same in every run.

mod answers;
mod choice;
mod steps;

use std::time::Duration;

use crate::call::{Call, Polling, Reading};
use crate::process::Scratch;
use crate::processes::{End, Process, channel};
use crate::program::{Program, Step};

/// Bytes of a call that no buffer takes at once.
const FLOOD: usize = 8 << 20;
/// The thread that is kept for it.
const FLOODER: usize = 2;
/// How long a byte that was written may take to be there.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// What a program did, line by line.
pub(crate) type Trace = Vec<String>;

pub(crate) fn run(program: &Program, ends: [End; 2], threads: i32) -> Trace {
    let scratch = Scratch::new();
    let (one, other) = channel();
    let used = if program.connections.iter().any(|link| link.client + link.server > 0) { 2 } else { 1 };
    let processes = ends[..used]
        .iter()
        .zip([&one, &other])
        .map(|(&end, rights)| Process::start(&scratch, end, threads, rights))
        .collect();
    let mut run = Run {
        processes,
        channels: vec![None; used],
        pending: Vec::new(),
        slots: Vec::new(),
        connections: Vec::new(),
        trace: Vec::new(),
        step: 0,
        aborted: false,
    };
    for &link in &program.connections {
        run.connect(link);
    }
    for step in &program.steps {
        run.step += 1;
        run.take(step);
        if run.aborted {
            return run.trace;
        }
    }
    run.finish();
    run.trace
}

struct Run {
    processes: Vec<Process>,
    /// The number of a forked process's channel inside it.
    channels: Vec<Option<i32>>,
    pending: Vec<Pending>,
    slots: Vec<Slot>,
    connections: Vec<Connection>,
    trace: Trace,
    step: usize,
    aborted: bool,
}

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    process: usize,
    fd: i32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// An end of a connection, 0 or 1.
    Socket(usize, usize),
    Set,
}

#[derive(Debug, Default)]
struct Connection {
    /// By the end that writes it.
    streams: [Stream; 2],
    /// A process ended that had the last descriptor of an end (`Rule::EndOrReset`).
    abandoned: bool,
    /// Ends whose reads time out.
    hasty: [bool; 2],
}

#[derive(Debug, Default)]
struct Stream {
    seed: u64,
    written: u64,
    read: u64,
    /// Filled beyond what is compared, until it is drained (`Rule::MoreFits`).
    wild: bool,
    /// It was once, so its bytes are at other positions from then on.
    shifted: bool,
}

/// A call that has not answered yet.
#[derive(Debug)]
struct Pending {
    process: usize,
    thread: usize,
    fds: Vec<i32>,
    text: String,
    step: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Made(What),
    Write { connection: usize, side: usize },
    Read { connection: usize, side: usize, fd: i32, length: usize, peek: bool, drop: bool },
    Fill { connection: usize, side: usize },
    Flood { connection: usize, side: usize },
    Close(Slot),
    DupOnto(Slot, i32),
}

impl Run {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Connect(link) => self.connect(link),
            Step::Write(at, how, flags, length) => self.write(at, how, flags, length),
            Step::Read(at, how, flags, length) => self.read(at, how, flags, length),
            Step::Fill(at, piece) => self.fill(at, piece),
            Step::Flood(at) => self.flood(at),
            Step::Drain(at) => {
                if let Some(slot) = self.socket(at.socket) {
                    self.drain(slot, usize::from(at.thread));
                }
            }
            Step::Splice(at, length) => self.write_file(at, length, |fd, stream, position| Call::Splice {
                fd,
                stream,
                position,
                length,
            }),
            Step::SendFile(at, length, by_offset) => self.write_file(at, length, |fd, stream, position| {
                Call::SendFile { fd, stream, position, length, by_offset }
            }),
            Step::Shutdown(at, how) => {
                if let Some((slot, connection, _)) = self.calm_end(at.socket)
                    && !self.connections[connection].abandoned
                {
                    self.plain(slot, at.thread, Call::Shutdown { fd: slot.fd, how });
                }
            }
            Step::Close(at) => self.close(at),
            Step::Dup(at, high) => {
                if let Some(slot) = self.socket(at.socket) {
                    let call = Call::Dup { fd: slot.fd, lowest: if high { 50 } else { 0 } };
                    self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Made(slot.what));
                }
            }
            Step::DupOnto(at, onto, flags) => self.dup_onto(at, onto, flags),
            Step::Nonblock(at, on, by_ioctl) => {
                // `Rule::NonblockUnderSleeper`
                if let Some(slot) = self.socket(at.socket)
                    && !self.is_read()
                {
                    self.plain(slot, at.thread, Call::Nonblock { fd: slot.fd, on, by_ioctl });
                }
            }
            Step::SetOption(at, setting) => self.set(at, setting),
            Step::GetOption(at, level, name, words) => {
                if let Some(slot) = self.calm_socket(at.socket) {
                    self.plain(slot, at.thread, Call::GetOption { fd: slot.fd, level, name, words });
                }
            }
            Step::Unread(at) => {
                if let Some(slot) = self.calm_socket(at.socket) {
                    self.plain(slot, at.thread, Call::Ioctl { fd: slot.fd, request: libc::FIONREAD });
                }
            }
            Step::AtMark(at) => {
                const SIOCATMARK: u64 = 0x8905;
                if let Some(slot) = self.calm_socket(at.socket) {
                    self.plain(slot, at.thread, Call::Ioctl { fd: slot.fd, request: SIOCATMARK });
                }
            }
            Step::Names(at) => {
                if let Some((slot, connection, _)) = self.calm_end(at.socket)
                    && !self.connections[connection].abandoned
                {
                    self.plain(slot, at.thread, Call::Names { fd: slot.fd });
                }
            }
            Step::Urgent(at) => self.urgent(at),
            Step::ReadUrgent(at) => {
                if let Some(slot) = self.calm_socket(at.socket) {
                    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
                    self.plain(
                        slot,
                        at.thread,
                        Call::Read { fd: slot.fd, how: Reading::Recv, flags, length: 1 },
                    );
                }
            }
            Step::Poll(at, how, ref entries, patience) => self.poll(at, how, entries, patience),
            Step::NewSet(process) => {
                if let Some(process) = self.process(process) {
                    self.ask(process, 0, Call::NewSet, vec![], Kind::Made(What::Set));
                }
            }
            Step::Control { set, target, operation, events } => self.control(set, target, operation, events),
            Step::Wait { set, thread, how, patience } => self.wait(set, thread, how, patience),
            Step::PollSet(set, thread) => {
                if let Some(set) = self.set_slot(set)
                    && self.all_calm()
                {
                    let entries = vec![(set.fd, libc::POLLIN)];
                    self.plain(set, thread, Call::Poll { how: Polling::Poll, entries, timeout: 0 });
                }
            }
            Step::Fork(process) => self.fork(process),
            Step::Exec(process) => self.exec(process),
            Step::End { process, killed } => self.end(process, killed),
            Step::Pass(at) => self.pass(at),
            Step::Signal { thread, restart } => self.signal(thread, restart),
        }
    }

    /// Every stream is read to where it is, so that no byte can hide.
    fn finish(&mut self) {
        self.step += 1;
        self.settle();
        let mut seen = Vec::new();
        for slot in self.slots.clone() {
            if let What::Socket(..) = slot.what
                && !seen.contains(&slot.what)
            {
                seen.push(slot.what);
                self.drain(slot, 0);
            }
        }
        for pending in std::mem::take(&mut self.pending) {
            self.note(format!("still: {}", pending.text));
        }
    }
}
