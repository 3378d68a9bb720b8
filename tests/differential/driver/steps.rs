//! What each kind of step does.

use std::thread;
use std::time::{Duration, Instant};

use super::{Connection, FLOOD, FLOODER, Kind, LOST_AFTER, Run, Slot, Stream, What};
use crate::call::{Call, Polling, Reading, Waiting, Writing};
use crate::program::{At, Link, Patience, Setting, Target};
use crate::rules::SURELY_FITS;

impl Run {
    pub(super) fn connect(&mut self, link: Link) {
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

    pub(super) fn write(&mut self, at: At, how: Writing, flags: i32, length: usize) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &self.connections[connection].streams[side];
        // `Rule::AfterKill`
        let is_long = self.connections[connection].abandoned && length > 100;
        if stream.written - stream.read + length as u64 > SURELY_FITS || is_long {
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

    pub(super) fn write_file(&mut self, at: At, length: usize, call: impl FnOnce(i32, u64, u64) -> Call) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &self.connections[connection].streams[side];
        if stream.written - stream.read + length as u64 > SURELY_FITS || length == 0 {
            return;
        }
        if self.connections[connection].abandoned {
            return;
        }
        let call = call(slot.fd, stream.seed, stream.written);
        self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Write { connection, side });
    }

    pub(super) fn read(&mut self, at: At, how: Reading, flags: i32, length: usize) {
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

    pub(super) fn fill(&mut self, at: At, piece: usize) {
        let Some((slot, connection, side)) = self.calm_end(at.socket) else { return };
        let stream = &mut self.connections[connection].streams[side];
        stream.wild = true;
        let call = Call::Fill { fd: slot.fd, stream: stream.seed, position: stream.written, piece };
        self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Fill { connection, side });
    }

    pub(super) fn flood(&mut self, at: At) {
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
    pub(super) fn drain(&mut self, slot: Slot, thread: usize) {
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

    pub(super) fn close(&mut self, at: At) {
        let Some(slot) = self.socket(at.socket) else { return };
        if !self.is_used(slot.process, slot.fd) {
            let call = Call::Close { fd: slot.fd };
            self.ask(slot.process, at.thread, call, vec![slot.fd], Kind::Close(slot));
        }
    }

    pub(super) fn dup_onto(&mut self, at: At, onto: u8, flags: Option<i32>) {
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

    pub(super) fn set(&mut self, at: At, setting: Setting) {
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

    pub(super) fn urgent(&mut self, at: At) {
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

    pub(super) fn poll(&mut self, at: At, how: Polling, entries: &[(u8, i16)], patience: Patience) {
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

    pub(super) fn control(&mut self, set: u8, target: Target, operation: i32, events: i32) {
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

    pub(super) fn wait(&mut self, set: u8, thread: u8, how: Waiting, patience: Patience) {
        let Some(set) = self.set_slot(set) else { return };
        if !self.all_calm() {
            return;
        }
        let patience = self.allowed(patience, set.process);
        let call = Call::Wait { set: set.fd, how, most: 64, timeout: patience.milliseconds() };
        let finite = patience == Patience::Little;
        self.ask_patiently(set.process, thread, call, vec![set.fd], Kind::Plain, finite);
    }

    pub(super) fn fork(&mut self, process: u8) {
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

    pub(super) fn exec(&mut self, process: u8) {
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

    pub(super) fn end(&mut self, process: u8, killed: bool) {
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
    pub(super) fn pass(&mut self, at: At) {
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

    pub(super) fn signal(&mut self, thread: u8, restart: bool) {
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
}
