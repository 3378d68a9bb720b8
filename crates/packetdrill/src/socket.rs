//! The calls on a socket.

use core::net::SocketAddr;
use core::time::Duration;

use libc::{c_int, c_ulong};
use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::stack::{ConnectOptions, Event, ListenerId, SocketId, Stack};
use sockshim_tcpip::tcp::{How, Readiness, SendFlags, SocketOptions, State as Phase};
use sockshim_tcpip::time::Instant;

use crate::address::Shown;
use crate::errno::{Answer, Errno};
use crate::session::SESSION;
use crate::world::{Descriptor, Kind, World};

/// A socket as its descriptor knows it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) state: State,
    /// An IPv6 socket, which shows IPv4 addresses as mapped ones.
    mapped: bool,
    local: Option<SocketAddr>,
    pub(crate) receive_timeout: Option<Duration>,
    pub(crate) send_timeout: Option<Duration>,
    /// TCP_INQ: say how much is left to read.
    pub(crate) inq: bool,
    pub(crate) options: SocketOptions,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    /// Neither listening nor connected: the stack does not know it.
    Fresh,
    Listening(ListenerId),
    Stream(SocketId),
}

/// What a receiving call got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) len: usize,
    /// What is left to read, if the socket was asked to say so.
    pub(crate) inq: Option<c_int>,
}

impl Socket {
    /// Whether an event is this socket's.
    pub(crate) fn concerns(&self, event: Event) -> bool {
        match event {
            Event::Connected(id)
            | Event::Urgent(id)
            | Event::Readable(id)
            | Event::Writable(id)
            | Event::HungUp(id)
            | Event::Failed(id, _)
            | Event::Closed(id) => matches!(self.state, State::Stream(own) if own == id),
            Event::Acceptable(id) => matches!(self.state, State::Listening(own) if own == id),
        }
    }

    fn stream(&self) -> Answer<SocketId> {
        match self.state {
            State::Stream(id) => Ok(id),
            _ => Err(Errno::ENOTCONN),
        }
    }

    pub(crate) fn close(self, stack: &mut Stack<VecMemory>, now: Instant) {
        match self.state {
            State::Fresh => {}
            State::Listening(id) => stack.close_listener(now, id),
            State::Stream(id) => stack.close(now, id),
        }
    }
}

fn is_connecting(stack: &Stack<VecMemory>, id: SocketId) -> bool {
    stack.state(id).is_some_and(|phase| matches!(phase, Phase::SynSent | Phase::SynReceived))
}

/// connect(2).
pub(crate) fn connect(fd: c_int, remote: SocketAddr) -> Answer<c_int> {
    let mut begun = false;
    let connected = SESSION.wait(
        |world| world.patience_to_send(fd, 0),
        |world| {
            if !begun {
                world.connect(fd, remote)?;
                begun = true;
            }
            world.connected(fd)
        },
    );
    // The connection goes on without a thread that waits for it.
    connected.map_err(|error| if error == Errno::EAGAIN { Errno::EINPROGRESS } else { error })
}

/// send(2). A call that may block ends when the stack has taken everything.
pub(crate) fn send(fd: c_int, data: &[u8], flags: c_int) -> Answer<usize> {
    let mut sent = 0;
    let answer = SESSION.wait(
        |world| world.patience_to_send(fd, flags),
        |world| {
            sent += world.send(fd, &data[sent..], flags)?;
            if sent == data.len() { Ok(sent) } else { Err(Errno::EAGAIN) }
        },
    );
    if sent > 0 { Ok(sent) } else { answer }
}

/// recv(2).
pub(crate) fn receive(fd: c_int, room: &mut [u8], flags: c_int) -> Answer<Received> {
    SESSION.wait(|world| world.patience_to_receive(fd, flags), |world| world.receive_from(fd, room, flags))
}

impl World {
    pub(crate) fn socket(&mut self, domain: c_int, kind: c_int, protocol: c_int) -> Answer<c_int> {
        if !matches!(domain, libc::AF_INET | libc::AF_INET6) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let is_tcp = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_STREAM
            && matches!(protocol, 0 | libc::IPPROTO_TCP);
        if !is_tcp {
            return Err(Errno::EPROTONOSUPPORT);
        }
        // The script has set its sysctls by now.
        let options = self.stack().0.socket_options();
        let socket = Socket {
            state: State::Fresh,
            mapped: domain == libc::AF_INET6,
            local: None,
            receive_timeout: None,
            send_timeout: None,
            inq: false,
            options,
        };
        let mut descriptor = Descriptor::new(Kind::Socket(Box::new(socket)));
        descriptor.nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        self.install(descriptor)
    }

    pub(crate) fn bind(&mut self, fd: c_int, local: SocketAddr) -> Answer<c_int> {
        let socket = self.socket_of(fd)?;
        if socket.local.replace(local).is_some() {
            return Err(Errno::EINVAL);
        }
        Ok(0)
    }

    pub(crate) fn listen(&mut self, fd: c_int, backlog: c_int) -> Answer<c_int> {
        let socket = self.socket_of(fd)?;
        let (State::Fresh, Some(local)) = (socket.state, socket.local) else { return Err(Errno::EINVAL) };
        let options = socket.options.clone();
        let (stack, _) = self.stack();
        let id = stack.listen(local, backlog.max(0) as u32, Some(options))?;
        self.socket_of(fd)?.state = State::Listening(id);
        Ok(0)
    }

    pub(crate) fn accept(&mut self, fd: c_int) -> Answer<(c_int, Shown)> {
        let socket = self.socket_of(fd)?;
        let mapped = socket.mapped;
        let State::Listening(listener) = socket.state else { return Err(Errno::EINVAL) };
        let (receive_timeout, send_timeout) = (socket.receive_timeout, socket.send_timeout);
        let (inq, options) = (socket.inq, socket.options.clone());
        let (stack, now) = self.stack();
        let (id, remote) = stack.accept(now, listener)?;
        let state = State::Stream(id);
        let accepted = Socket { state, mapped, local: None, receive_timeout, send_timeout, inq, options };
        let new = self.install(Descriptor::new(Kind::Socket(Box::new(accepted))))?;
        Ok((new, Shown { address: remote, mapped }))
    }

    fn connect(&mut self, fd: c_int, remote: SocketAddr) -> Answer<()> {
        let socket = self.socket_of(fd)?;
        let (local, options) = (socket.local, socket.options.clone());
        match socket.state {
            State::Fresh => {}
            State::Listening(_) => return Err(Errno::EISCONN),
            State::Stream(id) => {
                let (stack, _) = self.stack();
                return Err(if is_connecting(stack, id) { Errno::EALREADY } else { Errno::EISCONN });
            }
        }
        let (stack, now) = self.stack();
        let id = stack.connect(now, remote, ConnectOptions { local, socket: Some(options) })?;
        self.socket_of(fd)?.state = State::Stream(id);
        Ok(())
    }

    /// Whether a connection has been made: EAGAIN while it has not.
    fn connected(&mut self, fd: c_int) -> Answer<c_int> {
        let id = self.socket_of(fd)?.stream()?;
        let (stack, _) = self.stack();
        if let Some(error) = stack.take_error(id) {
            return Err(error.into());
        }
        if is_connecting(stack, id) { Err(Errno::EAGAIN) } else { Ok(0) }
    }

    fn send(&mut self, fd: c_int, data: &[u8], flags: c_int) -> Answer<usize> {
        let id = self.socket_of(fd)?.stream()?;
        let flags = SendFlags {
            more: flags & libc::MSG_MORE != 0,
            end_of_record: flags & libc::MSG_EOR != 0,
            urgent: flags & libc::MSG_OOB != 0,
        };
        let (stack, now) = self.stack();
        Ok(stack.send_with(now, id, data, flags)?)
    }

    fn receive_from(&mut self, fd: c_int, room: &mut [u8], flags: c_int) -> Answer<Received> {
        let socket = self.socket_of(fd)?;
        let (id, inq) = (socket.stream()?, socket.inq);
        let (stack, now) = self.stack();
        if flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_PEEK) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags & libc::MSG_PEEK != 0;
        let len = if peek { stack.peek(id, room)? } else { stack.recv(now, id, room)? };
        // A stream that has ended has one byte more to say: that it has ended (`tcp_inq_hint`).
        let hint = if stack.is_at_end(id) { 1 } else { stack.readable(id) };
        Ok(Received { len, inq: inq.then_some(hint as c_int) })
    }

    pub(crate) fn shutdown(&mut self, fd: c_int, how: c_int) -> Answer<c_int> {
        let how = match how {
            libc::SHUT_RD => How::Read,
            libc::SHUT_WR => How::Write,
            libc::SHUT_RDWR => How::Both,
            _ => return Err(Errno::EINVAL),
        };
        let id = self.socket_of(fd)?.stream()?;
        let (stack, now) = self.stack();
        stack.shutdown(now, id, how)?;
        Ok(0)
    }

    /// ioctl(2): the requests that answer an int.
    pub(crate) fn ioctl(&mut self, fd: c_int, request: c_ulong) -> Answer<c_int> {
        let id = self.socket_of(fd)?.stream()?;
        let (stack, _) = self.stack();
        let bytes = match request {
            libc::FIONREAD => stack.readable(id),
            libc::TIOCOUTQ => stack.unacknowledged(id),
            _ => return Err(Errno::EINVAL),
        };
        Ok(bytes as c_int)
    }

    /// What epoll(7) would say of a descriptor.
    pub(crate) fn readiness(&mut self, fd: c_int) -> Answer<u32> {
        let state = self.socket_of(fd).map_err(|_| Errno::EPERM)?.state;
        let (stack, now) = self.stack();
        let ready = match state {
            // As a Linux socket that has no connection.
            State::Fresh => Readiness { writable: true, hung_up: true, ..Readiness::default() },
            State::Listening(id) => Readiness { readable: stack.is_acceptable(id), ..Readiness::default() },
            State::Stream(id) => stack.readiness(now, id)?,
        };
        let bits = [
            (ready.readable, libc::EPOLLIN | libc::EPOLLRDNORM),
            (ready.writable, libc::EPOLLOUT | libc::EPOLLWRNORM),
            (ready.read_closed, libc::EPOLLRDHUP),
            (ready.hung_up, libc::EPOLLHUP),
            (ready.failed, libc::EPOLLERR),
            (ready.urgent, libc::EPOLLPRI),
        ];
        Ok(bits.into_iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit as u32))
    }
}
