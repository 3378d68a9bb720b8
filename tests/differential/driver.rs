//! Runs a program, one step after the other, and writes down what came of it.
//!
//! After each step the driver waits until every actor has either answered or sleeps in its call. The kernel delivers over
//! the loopback interface before a call returns, and wakes whom it concerns, so what a step brings about is
//! the same in every run.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::call::{self, Call, Polling, Reading, Reply, Waiting, Writing};
use crate::process::Scratch;
use crate::processes::{End, Now, Process, channel};
use crate::program::{At, Link, Patience, Program, Setting, Step, Target};
use crate::rules::SURELY_FITS;

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
    // ---- steps ----

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

    fn connect(&mut self, link: Link) {
        let count = self.processes.len().min(2);
        let (client, server) = (usize::from(link.client) % count, usize::from(link.server) % count);
        let threads = [self.idle(client, 0), self.idle(server, 0)];
        let [Some(client_thread), Some(server_thread)] = threads else { return };
        let v6 = link.v6;
        let Some(listener) = self.ask_now(server, server_thread, &Call::Listen { v6 }) else { return };
        let (fd, port) = (listener.value as i32, listener.more[0] as u16);
        let Some(one) = self.ask_now(client, client_thread, &Call::Connect { v6, port }) else { return };
        let Some(other) = self.ask_now(server, server_thread, &Call::Accept { fd }) else { return };
        let number = self.connections.len();
        let mut connection = Connection::default();
        for (side, stream) in connection.streams.iter_mut().enumerate() {
            stream.seed = (number * 2 + side) as u64;
        }
        self.connections.push(connection);
        for (side, (process, fd)) in [(client, one.value), (server, other.value)].into_iter().enumerate() {
            self.slots.push(Slot { process, fd: fd as i32, what: What::Socket(number, side) });
        }
        self.note(format!("P{client} fd {} -> P{server} fd {}", one.value, other.value));
    }

    fn write(&mut self, at: At, how: Writing, flags: i32, length: usize) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &self.connections[connection].streams[side];
        if stream.written - stream.read + length as u64 > SURELY_FITS {
            return;
        }
        let takes_flags = matches!(
            how,
            Writing::Send | Writing::Sendto | Writing::Sendmsg | Writing::Sendmmsg | Writing::Raw
        );
        let flags = if takes_flags { flags } else { 0 };
        let (stream, position) = (stream.seed, stream.written);
        let call = Call::Write { fd: slot.fd, how, flags, stream, position, length };
        self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Write { connection, side });
    }

    fn write_file(&mut self, at: At, length: usize, call: impl FnOnce(i32, u64, u64) -> Call) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &self.connections[connection].streams[side];
        if stream.written - stream.read + length as u64 > SURELY_FITS || length == 0 {
            return;
        }
        let call = call(slot.fd, stream.seed, stream.written);
        self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Write { connection, side });
    }

    fn read(&mut self, at: At, how: Reading, flags: i32, length: usize) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let flags = match how {
            Reading::Recv | Reading::Recvfrom | Reading::Recvmsg | Reading::Recvmmsg | Reading::Raw => flags,
            Reading::Preadv2 => flags & libc::MSG_DONTWAIT,
            Reading::Read | Reading::Readv => 0,
        };
        // The kernel waits in this case until any wake-up.
        let empty = length == 0 || how == Reading::Recvmmsg && length < 5;
        let flags = if empty { flags | libc::MSG_DONTWAIT } else { flags };
        let hasty = self.connections[connection].hasty[side];
        if self.is_awaited(connection, 1 - side) {
            return;
        }
        let peek = flags & libc::MSG_PEEK != 0;
        let drop = flags & libc::MSG_TRUNC != 0;
        let call = Call::Read { fd: slot.fd, how, flags, length };
        let kind = Kind::Read { connection, side: 1 - side, fd: slot.fd, length, peek, drop };
        // With one thread there is nobody to wake it.
        let alone = self.processes[0].threads.len() == 1 || self.is_waited();
        match call {
            Call::Read { fd, how, flags, length } if alone && !hasty => {
                let how = if matches!(how, Reading::Read | Reading::Readv) { Reading::Recv } else { how };
                let call = Call::Read { fd, how, flags: flags | libc::MSG_DONTWAIT, length };
                self.ask(slot.process, at.thread, call, vec![slot.fd], kind);
            }
            call => self.ask_patiently(slot.process, at.thread, call, vec![slot.fd], kind, hasty),
        }
    }

    fn fill(&mut self, at: At, piece: usize) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &mut self.connections[connection].streams[side];
        stream.wild = true;
        let call = Call::Fill { fd: slot.fd, stream: stream.seed, position: stream.written, piece };
        self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Fill { connection, side });
    }

    fn flood(&mut self, at: At) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        if self.processes[slot.process].threads.len() <= FLOODER || self.is_busy(slot.process, FLOODER) {
            return;
        }
        let stream = &mut self.connections[connection].streams[side];
        stream.wild = true;
        let call = Call::Write {
            fd: slot.fd,
            how: Writing::Write,
            flags: 0,
            stream: stream.seed,
            position: stream.written,
            length: FLOOD,
        };
        self.ask(slot.process, FLOODER as u8, call, vec![slot.fd], Kind::Flood { connection, side });
    }

    /// Reads all that is on its way to this end, and says whether it was what the other end had written.
    fn drain(&mut self, slot: Slot, thread: usize) {
        let What::Socket(connection, side) = slot.what else { return };
        let Some(thread) = self.idle(slot.process, thread) else { return };
        let stream = 1 - side;
        if self.is_awaited(connection, stream) {
            return;
        }
        let start = self.connections[connection].streams[stream].read;
        let mut progress = Instant::now();
        let told = loop {
            let Stream { seed, read, .. } = self.connections[connection].streams[stream];
            let call = Call::Drain { fd: slot.fd, stream: seed, position: read };
            let Some(reply) = self.ask_now(slot.process, thread, &call) else { return };
            let got = reply.more[0] as u64;
            self.connections[connection].streams[stream].read += got;
            self.settle();
            let flooded = self.pending.iter().any(|each| {
                matches!(each.kind, Kind::Flood { connection: c, side: s } if (c, s) == (connection, stream))
            });
            let now = &self.connections[connection].streams[stream];
            if got > 0 {
                progress = Instant::now();
            }
            let again =
                reply.value == -1 && reply.errno == libc::EAGAIN && (flooded || now.read < now.written);
            if !again {
                break if reply.value == -1 {
                    format!("errno {}", reply.errno)
                } else {
                    reply.value.to_string()
                };
            }
            if progress.elapsed() > LOST_AFTER {
                break format!("{} bytes are missing", now.written - now.read);
            }
            thread::sleep(Duration::from_micros(200));
        };
        let stream = &mut self.connections[connection].streams[stream];
        let got = if stream.wild { "all".to_owned() } else { (stream.read - start).to_string() };
        stream.shifted |= stream.wild;
        stream.wild = false;
        self.note(format!("P{} drain {}: {got}, then {told}", slot.process, slot.fd));
    }

    fn close(&mut self, at: At) {
        let Some(slot) = self.socket(at.socket) else { return };
        if !self.is_used(slot.process, slot.fd) {
            let call = Call::Close { fd: slot.fd };
            self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Close(slot));
        }
    }

    fn dup_onto(&mut self, at: At, onto: u8, flags: Option<i32>) {
        let Some(slot) = self.socket(at.socket) else { return };
        let others: Vec<_> = self.slots.iter().filter(|each| each.process == slot.process).collect();
        let to = match others.get(usize::from(onto) % (others.len() + 2)) {
            Some(other) => other.fd,
            None => 60 + i32::from(onto % 4),
        };
        if !self.is_used(slot.process, to) {
            let call = Call::DupOnto { fd: slot.fd, to, flags };
            self.ask(slot.process, at.thread, call, vec![slot.fd, to], Kind::DupOnto(slot, to));
        }
    }

    fn set(&mut self, at: At, setting: Setting) {
        use libc::{IPPROTO_TCP, SOL_SOCKET};
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let values: &[(i32, i32, &[i32])] = match setting {
            Setting::LingerZero => &[(SOL_SOCKET, libc::SO_LINGER, &[1, 0])],
            Setting::Linger => &[(SOL_SOCKET, libc::SO_LINGER, &[1, 3])],
            Setting::KeepAlive => &[(SOL_SOCKET, libc::SO_KEEPALIVE, &[1])],
            Setting::ReceiveTimeout => {
                if self.pending.iter().any(|each| matches!(each.kind, Kind::Read { .. })) {
                    return;
                }
                self.connections[connection].hasty[side] = true;
                &[(SOL_SOCKET, libc::SO_RCVTIMEO, &[0, 0, 8000, 0])]
            }
            Setting::LowWater(1) => &[(SOL_SOCKET, libc::SO_RCVLOWAT, &[1])],
            Setting::LowWater(_) => &[(SOL_SOCKET, libc::SO_RCVLOWAT, &[100])],
            Setting::SendBuffer => &[(SOL_SOCKET, libc::SO_SNDBUF, &[200_000])],
            Setting::ReceiveBuffer => &[(SOL_SOCKET, libc::SO_RCVBUF, &[200_000])],
            Setting::QuickAck => &[(IPPROTO_TCP, libc::TCP_QUICKACK, &[1])],
            Setting::UserTimeout => &[(IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &[5000])],
            Setting::Cork => &[(IPPROTO_TCP, libc::TCP_CORK, &[1]), (IPPROTO_TCP, libc::TCP_CORK, &[0])],
        };
        for &(level, name, value) in values {
            self.plain(slot, at.thread, Call::SetOption { fd: slot.fd, level, name, value: value.to_vec() });
        }
    }

    fn urgent(&mut self, at: At) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        // `Rule::UrgentUnderSleeper`
        if self.is_awaited(connection, side) {
            return;
        }
        let call = Call::Write {
            fd: slot.fd,
            how: Writing::Send,
            flags: libc::MSG_OOB | libc::MSG_DONTWAIT,
            stream: 99,
            position: 0,
            length: 1,
        };
        self.plain(slot, at.thread, call);
    }

    fn poll(&mut self, at: At, how: Polling, entries: &[(u8, i16)], patience: Patience) {
        let Some(first) = self.calm_socket(at.socket) else { return };
        let mut list: Vec<(i32, i16)> = Vec::new();
        for &(selector, events) in entries {
            let here: Vec<_> = self.slots.iter().filter(|each| each.process == first.process).collect();
            let slot = *here[usize::from(selector) % here.len()];
            if let What::Socket(connection, _) = slot.what
                && self.is_calm(connection)
                && !list.iter().any(|entry| entry.0 == slot.fd)
            {
                list.push((slot.fd, events));
            }
        }
        let patience = self.allowed(patience, first.process);
        let call = Call::Poll { how, entries: list.clone(), timeout: patience.milliseconds() };
        let fds = list.iter().map(|entry| entry.0).collect();
        self.ask_patiently(first.process, at.thread, call, fds, Kind::Plain, patience == Patience::Little);
    }

    fn control(&mut self, set: u8, target: Target, operation: i32, events: i32) {
        let Some(set) = self.set_slot(set) else { return };
        let here: Vec<_> = self
            .slots
            .iter()
            .filter(|each| {
                each.process == set.process && (each.what == What::Set) == matches!(target, Target::Set(_))
            })
            .copied()
            .collect();
        let (Target::Socket(selector) | Target::Set(selector)) = target;
        if here.is_empty() || !self.all_calm() {
            return;
        }
        let target = here[usize::from(selector) % here.len()];
        let data = (self.step as u64) << 56 | 0x5ac1 << 16 | target.fd as u64;
        let call = Call::Control { set: set.fd, operation, fd: target.fd, events: events as u32, data };
        self.ask(set.process, 0, call, vec![set.fd, target.fd], Kind::Plain);
    }

    fn wait(&mut self, set: u8, thread: u8, how: Waiting, patience: Patience) {
        let Some(set) = self.set_slot(set) else { return };
        if !self.all_calm() {
            return;
        }
        let patience = self.allowed(patience, set.process);
        let call = Call::Wait { set: set.fd, how, most: 64, timeout: patience.milliseconds() };
        let finite = patience == Patience::Little;
        self.ask_patiently(set.process, thread, call, vec![set.fd], Kind::Plain, finite);
    }

    fn fork(&mut self, process: u8) {
        let Some(process) = self.process(process) else { return };
        let Some(&(channel, _)) = self.processes[process].spares.last() else { return };
        let Some(thread) = self.idle(process, 0) else { return };
        if self.ask_now(process, thread, &Call::Fork { channel }).is_none() {
            return;
        }
        let child = self.processes[process].forked();
        self.processes.push(child);
        self.channels.push(Some(channel));
        let number = self.processes.len() - 1;
        let copies: Vec<_> = self.slots.iter().filter(|slot| slot.process == process).copied().collect();
        self.slots.extend(copies.into_iter().map(|slot| Slot { process: number, ..slot }));
        self.note(format!("P{process} forks P{number}"));
    }

    fn exec(&mut self, process: u8) {
        let Some(process) = self.process(process) else { return };
        // A new image leaves descriptors alone that others of its family have too.
        let shared = self.slots.iter().any(|slot| {
            slot.process == process
                && self.slots.iter().any(|other| other.process != process && other.what == slot.what)
        });
        if shared || self.pending.iter().any(|each| each.process == process) {
            return;
        }
        let channel = self.processes[process].first_channel(self.channels[process]);
        self.processes[process].ask(0, &Call::Exec { channel });
        self.processes[process].executed();
        // `Rule::SetsOverExec`
        self.slots.retain(|slot| slot.process != process || slot.what != What::Set);
        self.note(format!("P{process} executes"));
    }

    fn end(&mut self, process: u8, killed: bool) {
        let Some(process) = self.process(process) else { return };
        // Whether a reset overtakes what is under way is nobody's promise.
        if !self.all_calm() {
            return;
        }
        if killed {
            self.processes[process].kill();
        } else {
            let Some(thread) = self.idle(process, 0) else { return };
            self.processes[process].ask(thread, &Call::Exit);
        }
        self.processes[process].wait_for_end();
        self.pending.retain(|each| each.process != process);
        self.slots.retain(|slot| slot.process != process);
        for (number, connection) in self.connections.iter_mut().enumerate() {
            let gone = |side| !self.slots.iter().any(|slot| slot.what == What::Socket(number, side));
            connection.abandoned |= gone(0) || gone(1);
        }
        self.note(format!("P{process} {}", if killed { "is killed" } else { "exits" }));
        self.settle();
    }

    /// SCM_RIGHTS from one of the two processes to the other.
    fn pass(&mut self, at: At) {
        let Some(slot) = self.socket(at.socket) else { return };
        let to = 1 - slot.process.min(1);
        let other = self.channels.get(to).is_some_and(Option::is_none);
        if slot.process > 1 || self.channels[slot.process].is_some() || !other || !self.processes[to].alive {
            return;
        }
        let What::Socket(connection, side) = slot.what else { return };
        let stream = &self.connections[connection].streams[1 - side];
        // `Rule::HandedOn`: unread bytes are the receiver's, so nobody else may have the socket.
        let handed_on = stream.written != stream.read;
        let is_only = self.slots.iter().filter(|each| each.what == slot.what).count() == 1;
        let other = What::Socket(connection, 1 - side);
        let ends = self.slots.iter().any(|each| each.what == other);
        if handed_on && (!is_only || !ends || stream.wild || self.is_used(slot.process, slot.fd)) {
            return;
        }
        let threads = [self.idle(slot.process, usize::from(at.thread)), self.idle(to, 0)];
        let [Some(sender), Some(receiver)] = threads else { return };
        let Some(sent) = self.ask_now(slot.process, sender, &Call::SendRights { fd: slot.fd }) else {
            return;
        };
        if sent.value == 1
            && let Some(taken) = self.ask_now(to, receiver, &Call::TakeRights)
        {
            self.slots.push(Slot { process: to, fd: taken.value as i32, what: slot.what });
            self.note(format!("P{} passes {} to P{to} as {}", slot.process, slot.fd, taken.value));
            if handed_on && self.ask_now(slot.process, sender, &Call::Close { fd: slot.fd }).is_some() {
                self.slots.retain(|each| *each != slot);
                self.drain(Slot { process: to, fd: taken.value as i32, what: slot.what }, receiver);
            }
        }
    }

    fn signal(&mut self, thread: u8, restart: bool) {
        let Some(pending) = self.pending.get(usize::from(thread)) else { return };
        // How much of a long write is done when it is interrupted is not compared.
        if matches!(pending.kind, Kind::Flood { .. }) {
            return;
        }
        let (process, thread) = (pending.process, pending.thread);
        let signal = if restart { libc::SIGUSR2 } else { libc::SIGUSR1 };
        self.processes[process].signal(thread, signal);
        self.note(format!(
            "P{process}.{thread} gets a signal{}",
            if restart { " that restarts" } else { "" }
        ));
        self.settle();
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

    // ---- what there is ----

    fn process(&self, selector: u8) -> Option<usize> {
        let alive: Vec<_> = (0..self.processes.len()).filter(|&each| self.processes[each].alive).collect();
        (!alive.is_empty()).then(|| alive[usize::from(selector) % alive.len()])
    }

    fn socket(&self, selector: u8) -> Option<Slot> {
        let sockets: Vec<_> = self.slots.iter().filter(|slot| slot.what != What::Set).collect();
        (!sockets.is_empty()).then(|| *sockets[usize::from(selector) % sockets.len()])
    }

    fn set_slot(&self, selector: u8) -> Option<Slot> {
        let sets: Vec<_> = self.slots.iter().filter(|slot| slot.what == What::Set).collect();
        (!sets.is_empty()).then(|| *sets[usize::from(selector) % sets.len()])
    }

    /// A socket of a connection in which neither direction is filled beyond what is compared.
    fn calm_end(&self, selector: u8) -> Option<(Slot, usize, usize)> {
        let slot = self.socket(selector)?;
        let What::Socket(connection, side) = slot.what else { return None };
        self.is_calm(connection).then_some((slot, connection, side))
    }

    fn calm_socket(&self, selector: u8) -> Option<Slot> {
        self.calm_end(selector).map(|(slot, ..)| slot)
    }

    fn is_calm(&self, connection: usize) -> bool {
        !self.connections[connection].streams.iter().any(|stream| stream.wild)
    }

    fn all_calm(&self) -> bool {
        (0..self.connections.len()).all(|connection| self.is_calm(connection))
    }

    /// Whether somebody sleeps in a read of what an end writes. Who of several gets what is nobody's promise.
    fn is_awaited(&self, connection: usize, side: usize) -> bool {
        self.pending.iter().any(
            |each| matches!(each.kind, Kind::Read { connection: c, side: s, .. } if (c, s) == (connection, side)),
        )
    }

    /// Whether somebody sleeps in a read, or in a wait: who of two looks first is nobody's promise either.
    fn is_read(&self) -> bool {
        self.pending.iter().any(|each| matches!(each.kind, Kind::Read { .. }))
    }

    fn is_waited(&self) -> bool {
        self.pending.iter().any(|each| matches!(each.kind, Kind::Plain))
    }

    fn is_busy(&self, process: usize, thread: usize) -> bool {
        self.pending.iter().any(|each| (each.process, each.thread) == (process, thread))
    }

    fn is_used(&self, process: usize, fd: i32) -> bool {
        self.pending.iter().any(|each| each.process == process && each.fds.contains(&fd))
    }

    /// A thread that makes no call now, `wanted` if possible.
    fn idle(&self, process: usize, wanted: usize) -> Option<usize> {
        let process_now = &self.processes[process];
        let count = if process_now.alive { process_now.threads.len() } else { 0 };
        (0..count).map(|offset| (wanted + offset) % count).find(|&thread| !self.is_busy(process, thread))
    }

    /// Nobody wakes the only thread there is.
    fn allowed(&self, patience: Patience, process: usize) -> Patience {
        match patience {
            Patience::Endless if self.processes[process].threads.len() == 1 || self.is_read() => {
                Patience::Little
            }
            patience => patience,
        }
    }

    // ---- asking ----

    fn note(&mut self, text: String) {
        self.trace.push(format!("{:2} {text}", self.step));
    }

    fn plain(&mut self, slot: Slot, thread: u8, call: Call) {
        self.ask(slot.process, thread, call, vec![slot.fd], Kind::Plain);
    }

    fn ask(&mut self, process: usize, thread: u8, call: Call, fds: Vec<i32>, kind: Kind) {
        self.ask_patiently(process, thread, call, fds, kind, false);
    }

    /// A call that may block; one that waits a bounded time is waited for.
    fn ask_patiently(
        &mut self,
        process: usize,
        thread: u8,
        call: Call,
        fds: Vec<i32>,
        kind: Kind,
        finite: bool,
    ) {
        let Some(thread) = self.idle(process, usize::from(thread)) else { return };
        self.processes[process].ask(thread, &call);
        let text = format!("P{process}.{thread} {}", describe(&call));
        let step = self.step;
        self.pending.push(Pending { process, thread, fds, text: text.clone(), step, kind });
        if finite {
            let last = self.pending.len() - 1;
            match self.processes[process].wait(thread) {
                Now::Awake | Now::Asleep => self.abort(&text),
                now => self.complete(last, now),
            }
        }
        self.settle();
        if self.pending.iter().any(|each| each.step == step && each.text == text) {
            self.note(format!("{text} ..."));
        }
    }

    /// A call that does not block.
    fn ask_now(&mut self, process: usize, thread: usize, call: &Call) -> Option<Reply> {
        self.processes[process].ask(thread, call);
        match self.processes[process].wait(thread) {
            Now::Done(reply) => return Some(reply),
            Now::Gone => self.gone(process),
            _ => self.abort(&describe(call)),
        }
        None
    }

    fn abort(&mut self, text: &str) {
        self.note(format!("{text} HANGS"));
        self.aborted = true;
    }

    /// Waits until every actor has answered or sleeps.
    fn settle(&mut self) {
        let start = Instant::now();
        let mut calm = 0;
        let mut done = Vec::new();
        while calm < 4 && !self.pending.is_empty() {
            let mut awake = false;
            let mut index = 0;
            while index < self.pending.len() {
                let Pending { process, thread, .. } = self.pending[index];
                match self.processes[process].now(thread) {
                    Now::Asleep => index += 1,
                    Now::Awake => {
                        awake = true;
                        index += 1;
                    }
                    now => {
                        done.push((self.pending.remove(index), now));
                        awake = true;
                    }
                }
            }
            calm = if awake { 0 } else { calm + 1 };
            if start.elapsed() > Duration::from_secs(60) {
                let text = self.pending[0].text.clone();
                return self.abort(&text);
            }
            if !self.pending.is_empty() {
                thread::sleep(Duration::from_micros(if awake { 30 } else { 250 }));
            }
        }
        // A read is judged by what was written, which is known then.
        done.sort_by_key(|(pending, _)| {
            (matches!(pending.kind, Kind::Read { .. }), pending.step, pending.text.clone())
        });
        self.conclude(done);
    }

    fn complete(&mut self, index: usize, now: Now) {
        let pending = self.pending.remove(index);
        self.conclude(vec![(pending, now)]);
    }

    fn conclude(&mut self, mut done: Vec<(Pending, Now)>) {
        while !done.is_empty() {
            // Of two reads of one stream, the one comes first that got its next bytes.
            let next = done.iter().position(|(pending, now)| self.is_next(pending, now)).unwrap_or(0);
            let (pending, now) = done.remove(next);
            match now {
                Now::Done(reply) => self.concluded(pending, reply),
                _ => {
                    self.note(format!("{} = the process is gone", pending.text));
                    self.gone(pending.process);
                }
            }
        }
    }

    fn is_next(&self, pending: &Pending, now: &Now) -> bool {
        match (&pending.kind, now) {
            (&Kind::Read { connection, side, drop: false, .. }, Now::Done(reply)) if reply.value > 0 => {
                let stream = &self.connections[connection].streams[side];
                reply.digest == call::digest_of(stream.seed, stream.read, reply.value as usize)
            }
            _ => true,
        }
    }

    /// An actor has died without being asked to.
    fn gone(&mut self, process: usize) {
        self.processes[process].wait_for_end();
        self.slots.retain(|slot| slot.process != process);
        self.note(format!("P{process} DIED"));
    }

    /// A reader that was woken in the middle of a write may have got its first part only (`Rule::ShortCounts`):
    /// reads the rest.
    fn read_on(
        &mut self,
        (process, thread): (usize, usize),
        (connection, side): (usize, usize),
        fd: i32,
        (mut count, wanted): (u64, u64),
        mut in_order: bool,
    ) -> (u64, bool) {
        while count < wanted {
            let length = (wanted - count) as usize;
            let call = Call::Read { fd, how: Reading::Recv, flags: libc::MSG_DONTWAIT, length };
            let Some(reply) = self.ask_now(process, thread, &call) else { break };
            if reply.value <= 0 {
                break;
            }
            let got = reply.value as u64;
            let stream = &mut self.connections[connection].streams[side];
            in_order &= reply.digest == call::digest_of(stream.seed, stream.read, got as usize);
            stream.read += got;
            count += got;
        }
        (count, in_order)
    }

    fn concluded(&mut self, pending: Pending, reply: Reply) {
        let in_order = self.is_next(&pending, &Now::Done(reply.clone()));
        let slept = pending.step != self.step;
        let mut text = pending.text;
        if slept {
            text = format!("... {text}");
        }
        let count = reply.value.max(0) as u64;
        let mut shown = show(&reply, matches!(pending.kind, Kind::Read { .. }));
        match pending.kind {
            Kind::Plain => {}
            Kind::Made(what) => {
                if reply.value >= 0 {
                    self.slots.push(Slot { process: pending.process, fd: reply.value as i32, what });
                }
            }
            Kind::Write { connection, side } => self.connections[connection].streams[side].written += count,
            Kind::Read { peek: true, .. } if slept && reply.value > 0 => {
                // `Rule::ShortCounts`
                shown = format!("some{}", if in_order { ", as written" } else { ", not what comes next" });
            }
            Kind::Read { connection, side, fd, length, .. } if slept && reply.value > 0 => {
                let stream = &mut self.connections[connection].streams[side];
                let there = if stream.wild { u64::MAX } else { stream.written - stream.read };
                let wanted = there.min(length as u64);
                stream.read += count;
                let at = (pending.process, pending.thread);
                let (total, in_order) = self.read_on(at, (connection, side), fd, (count, wanted), in_order);
                shown = format!("{total}{}", if in_order { ", as written" } else { ", not what comes next" });
            }
            Kind::Read { connection, side, peek, drop, .. } => {
                if self.connections[connection].streams[side].shifted {
                    shown = show(&reply, false);
                }
                if !peek {
                    self.connections[connection].streams[side].read += count;
                }
                if reply.value > 0 && !drop {
                    shown += if in_order { ", as written" } else { ", not what comes next" };
                }
            }
            Kind::Fill { connection, side } => {
                self.connections[connection].streams[side].written += reply.more[0] as u64;
                shown = format!("errno {}", reply.errno);
            }
            Kind::Flood { connection, side } => {
                let stream = &mut self.connections[connection].streams[side];
                stream.written += count;
                shown = if reply.value < 0 { format!("errno {}", reply.errno) } else { "some".to_owned() };
            }
            Kind::Close(slot) => self.slots.retain(|each| *each != slot),
            Kind::DupOnto(slot, to) => {
                if reply.value >= 0 {
                    self.slots.retain(|each| (each.process, each.fd) != (slot.process, to));
                    self.slots.push(Slot { fd: to, ..slot });
                }
            }
        }
        self.note(format!("{text} = {shown}"));
    }
}

/// What a call told, for the trace.
fn show(reply: &Reply, with_digest: bool) -> String {
    let mut text = match reply.value {
        -1 => format!("-1 errno {}", reply.errno),
        -2 => "not what was written".to_owned(),
        value => value.to_string(),
    };
    if !reply.more.is_empty() && !(reply.value == -1 && with_digest) {
        let _ = write!(text, " {:x?}", reply.more);
    }
    if with_digest && reply.value > 0 {
        let _ = write!(text, " #{:04x}", reply.digest & 0xffff);
    }
    if reply.pipes > 0 {
        text += " SIGPIPE";
    }
    text
}

/// A call for the trace: without what differs from run to run.
fn describe(call: &Call) -> String {
    match call {
        Call::Write { fd, how, flags, length, .. } => format!("{how:?}({fd}, {length}, flags {flags:#x})"),
        Call::Read { fd, how, flags, length } => format!("{how:?}({fd}, {length}, flags {flags:#x})"),
        Call::Fill { fd, piece, .. } => format!("Fill({fd}, {piece})"),
        Call::Drain { fd, .. } => format!("Drain({fd})"),
        Call::Splice { fd, length, .. } => format!("Splice({fd}, {length})"),
        Call::SendFile { fd, length, by_offset, .. } => {
            format!("SendFile({fd}, {length}, by offset {by_offset})")
        }
        call => format!("{call:x?}"),
    }
}
