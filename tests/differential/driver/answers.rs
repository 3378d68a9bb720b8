//! Calls under way: asking for them, waiting for their answers, and what these mean for the trace.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::{Kind, Pending, Run, Slot};
use crate::call::{Call, Reading, Reply};
use crate::perform;
use crate::processes::Now;

impl Run {
    pub(super) fn note(&mut self, text: String) {
        self.trace.push(format!("{:2} {text}", self.step));
    }

    pub(super) fn plain(&mut self, slot: Slot, thread: u8, call: Call) {
        self.ask(slot.process, thread, call, vec![slot.fd], Kind::Plain);
    }

    pub(super) fn ask(&mut self, process: usize, thread: u8, call: Call, fds: Vec<i32>, kind: Kind) {
        self.ask_patiently(process, thread, call, fds, kind, false);
    }

    /// A call that may block; one that waits a bounded time is waited for.
    pub(super) fn ask_patiently(
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
    pub(super) fn ask_now(&mut self, process: usize, thread: usize, call: &Call) -> Option<Reply> {
        self.processes[process].ask(thread, call);
        match self.processes[process].wait(thread) {
            Now::Done(reply) => return Some(reply),
            Now::Gone => self.gone(process),
            _ => self.abort(&describe(call)),
        }
        None
    }

    pub(super) fn abort(&mut self, text: &str) {
        self.note(format!("{text} HANGS"));
        self.aborted = true;
    }

    /// Waits until every actor has answered or sleeps.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn complete(&mut self, index: usize, now: Now) {
        let pending = self.pending.remove(index);
        self.conclude(vec![(pending, now)]);
    }

    pub(super) fn conclude(&mut self, mut done: Vec<(Pending, Now)>) {
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

    pub(super) fn is_next(&self, pending: &Pending, now: &Now) -> bool {
        match (&pending.kind, now) {
            (&Kind::Read { connection, side, drop: false, .. }, Now::Done(reply)) if reply.value > 0 => {
                let stream = &self.connections[connection].streams[side];
                reply.digest == perform::digest_of(stream.seed, stream.read, reply.value as usize)
            }
            _ => true,
        }
    }

    /// An actor has died without being asked to.
    pub(super) fn gone(&mut self, process: usize) {
        self.processes[process].wait_for_end();
        self.slots.retain(|slot| slot.process != process);
        self.note(format!("P{process} DIED"));
    }

    /// A reader that was woken in the middle of a write may have got its first part only (`Rule::ShortCounts`):
    /// reads the rest.
    pub(super) fn read_on(
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
            in_order &= reply.digest == perform::digest_of(stream.seed, stream.read, got as usize);
            stream.read += got;
            count += got;
        }
        (count, in_order)
    }

    pub(super) fn concluded(&mut self, pending: Pending, reply: Reply) {
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
    let failed_read = reply.value == -1 && with_digest;
    if !reply.more.is_empty() && !failed_read {
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
