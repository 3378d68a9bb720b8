//! The stack with its surroundings: the time, its one link, and the descriptors that a script holds.
//!
//! # Safety
//!
//! Makes and closes eventfds, by number since packetdrill holds them as numbers. Only numbers that were made here are closed.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use libc::c_int;
use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::stack::Stack;
use sockshim_tcpip::time::Instant;

use crate::errno::{Answer, Errno};
use crate::readiness::Set;
use crate::segments;
use crate::session::Patience;
use crate::settings::Flags;
use crate::socket::Socket;

/// Later than any round-trip time before the first packet, so that differences of times do not saturate.
const START: Instant = Instant::from_secs(1_000_000);

/// What a number that was given to packetdrill stands for.
#[derive(Debug)]
pub(crate) enum Kind {
    Socket(Box<Socket>),
    Set(Set),
}

#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) kind: Kind,
    pub(crate) nonblocking: bool,
}

impl Descriptor {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, nonblocking: false }
    }
}

pub(crate) struct World {
    flags: Flags,
    /// Created with the first socket, because a script sets its sysctls before that.
    stack: Option<Stack<VecMemory>>,
    now: Instant,
    /// Packets that have left, and when.
    outbox: VecDeque<(Instant, Vec<u8>)>,
    descriptors: BTreeMap<c_int, Descriptor>,
}

impl World {
    pub(crate) fn new(flags: Flags) -> Self {
        Self { flags, stack: None, now: START, outbox: VecDeque::new(), descriptors: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_time(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The stack and the time.
    pub(crate) fn stack(&mut self) -> (&mut Stack<VecMemory>, Instant) {
        let stack = self.stack.get_or_insert_with(|| crate::settings::stack(&self.flags));
        (stack, self.now)
    }

    /// When the stack next has something to do by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = self.stack.as_ref()?.poll_timeout()?;
        Some(deadline.max(self.now))
    }

    /// Lets the stack do what is due at a time.
    pub(crate) fn run(&mut self, at: Instant) {
        self.set_time(at);
        if let Some(stack) = &mut self.stack {
            stack.handle_timeout(self.now);
        }
        self.collect();
        // What is due again at the same time without end would stop the time.
        if self.deadline().is_some_and(|next| next <= self.now) {
            self.now += Duration::from_nanos(1);
        }
    }

    /// A packet arrives.
    pub(crate) fn receive(&mut self, packet: &[u8]) {
        let now = self.now;
        if let Some(stack) = &mut self.stack {
            stack.handle_packet(now, crate::settings::LINK, packet, Default::default());
        }
    }

    /// Takes packets and events out of the stack.
    pub(crate) fn collect(&mut self) {
        let Some(stack) = &mut self.stack else { return };
        let mut frame = Vec::new();
        while let Some(transmit) = stack.poll_transmit(self.now, &mut frame) {
            let packets = match transmit.gso_size {
                0 => vec![frame.clone()],
                size => segments::cut(&frame, size.into()),
            };
            self.outbox.extend(packets.into_iter().map(|packet| (self.now, packet)));
        }
        let mut touched = Vec::new();
        while let Some(event) = stack.poll_event() {
            touched.push(event);
        }
        for event in touched {
            self.touch(|socket| socket.concerns(event));
        }
    }

    /// Something has happened to a socket: edge-triggered sets report it again.
    fn touch(&mut self, is: impl Fn(&Socket) -> bool) {
        let found = self.descriptors.iter().find(|(_, it)| matches!(&it.kind, Kind::Socket(it) if is(it)));
        let Some((&fd, _)) = found else { return };
        for descriptor in self.descriptors.values_mut() {
            if let Kind::Set(set) = &mut descriptor.kind {
                set.touch(fd);
            }
        }
    }

    pub(crate) fn take_packet(&mut self) -> Option<(Instant, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// Gives a descriptor a number. It is the number of an eventfd, so that the kernel knows it and can close it.
    pub(crate) fn install(&mut self, descriptor: Descriptor) -> Answer<c_int> {
        // SAFETY: makes a descriptor, nothing else.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Errno::EMFILE);
        }
        self.descriptors.insert(fd, descriptor);
        Ok(fd)
    }

    pub(crate) fn descriptor(&mut self, fd: c_int) -> Answer<&mut Descriptor> {
        self.descriptors.get_mut(&fd).ok_or(Errno::EBADF)
    }

    pub(crate) fn socket_of(&mut self, fd: c_int) -> Answer<&mut Socket> {
        match &mut self.descriptor(fd)?.kind {
            Kind::Socket(socket) => Ok(socket),
            Kind::Set(_) => Err(Errno::ENOTSOCK),
        }
    }

    /// How long a call that receives may wait.
    pub(crate) fn patience_to_receive(&self, fd: c_int, flags: c_int) -> Patience {
        self.patience(fd, flags, |socket| socket.receive_timeout)
    }

    /// How long a call that sends or connects may wait.
    pub(crate) fn patience_to_send(&self, fd: c_int, flags: c_int) -> Patience {
        self.patience(fd, flags, |socket| socket.send_timeout)
    }

    fn patience(&self, fd: c_int, flags: c_int, timeout: impl Fn(&Socket) -> Option<Duration>) -> Patience {
        match self.descriptors.get(&fd) {
            Some(Descriptor { kind: Kind::Socket(socket), nonblocking: false })
                if flags & libc::MSG_DONTWAIT == 0 =>
            {
                timeout(socket).map_or(Patience::Forever, Patience::For)
            }
            _ => Patience::None,
        }
    }

    pub(crate) fn fcntl(&mut self, fd: c_int, command: c_int, argument: c_int) -> Answer<c_int> {
        let descriptor = self.descriptor(fd)?;
        match command {
            libc::F_GETFL => Ok(libc::O_RDWR | if descriptor.nonblocking { libc::O_NONBLOCK } else { 0 }),
            libc::F_SETFL => {
                descriptor.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn close(&mut self, fd: c_int) -> Answer<c_int> {
        let descriptor = self.descriptors.remove(&fd).ok_or(Errno::EBADF)?;
        // SAFETY: the eventfd behind the number, which is ours.
        unsafe { libc::close(fd) };
        for other in self.descriptors.values_mut() {
            if let Kind::Set(set) = &mut other.kind {
                set.forget(fd);
            }
        }
        if let Kind::Socket(socket) = descriptor.kind {
            let (stack, now) = self.stack();
            socket.close(stack, now);
        }
        Ok(0)
    }
}
