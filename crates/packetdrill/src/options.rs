//! setsockopt(2) and getsockopt(2).

use core::time::Duration;

use libc::c_int;
use sockshim_tcpip::tcp::SocketOptions;
use sockshim_tcpip::tcp::congestion::Algorithm;

use crate::errno::{Answer, Errno};
use crate::socket::State;
use crate::world::World;

impl World {
    pub(crate) fn set_option(&mut self, fd: c_int, level: c_int, name: c_int, value: &[u8]) -> Answer<c_int> {
        let socket = self.socket_of(fd)?;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => socket.receive_timeout = timeout(value)?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => socket.send_timeout = timeout(value)?,
            (libc::SOL_TCP, libc::TCP_INQ) => socket.inq = int(value)? != 0,
            // What makes no difference to a script: ports are free here, and nobody else looks at the data.
            (libc::SOL_SOCKET, libc::SO_REUSEADDR | libc::SO_REUSEPORT | libc::SO_ZEROCOPY) => {}
            (libc::SOL_IP, libc::IP_MTU_DISCOVER) => {}
            _ => return self.set_stack_option(fd, level, name, value),
        }
        Ok(0)
    }

    /// An option that the stack knows.
    fn set_stack_option(&mut self, fd: c_int, level: c_int, name: c_int, value: &[u8]) -> Answer<c_int> {
        let change = change(level, name, value)?;
        let socket = self.socket_of(fd)?;
        let state = socket.state;
        change(&mut socket.options);
        match state {
            State::Fresh => {}
            State::Listening(id) => self.stack().0.set_listener_options(id, |options| change(options))?,
            State::Stream(id) => {
                let (stack, now) = self.stack();
                stack.set_options(now, id, |options| change(options))?;
                if (level, name) == (libc::SOL_TCP, libc::TCP_NODELAY) && int(value)? != 0 {
                    stack.push(now, id);
                }
            }
        }
        Ok(0)
    }

    /// The bytes that getsockopt(2) gives.
    pub(crate) fn option(&mut self, fd: c_int, level: c_int, name: c_int) -> Answer<Vec<u8>> {
        let socket = self.socket_of(fd)?;
        let state = socket.state;
        let options = &socket.options;
        let value = match (level, name) {
            (libc::SOL_TCP, libc::TCP_NODELAY) => options.nodelay.into(),
            (libc::SOL_TCP, libc::TCP_CORK) => options.cork.into(),
            (libc::SOL_TCP, libc::TCP_INQ) => socket.inq.into(),
            (libc::SOL_TCP, libc::TCP_USER_TIMEOUT) => millis(options.user_timeout),
            (libc::SOL_TCP, libc::TCP_MAXSEG) => match state {
                // Linux gives the least before there is a connection, whatever was set.
                State::Stream(id) => self.stack().0.segment_size(id)?.into(),
                _ => options.max_segment.unwrap_or(536).into(),
            },
            (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT) => options.unsent_low_water.unwrap_or(0) as c_int,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => match state {
                State::Stream(id) => self.stack().0.send_limit(id)? as c_int,
                _ => options.send_limit() as c_int,
            },
            (libc::SOL_SOCKET, libc::SO_ERROR) => match state {
                State::Stream(id) => self.stack().0.take_error(id).map_or(0, |error| error.errno()),
                _ => 0,
            },
            (libc::SOL_TCP, libc::TCP_INFO) => {
                let State::Stream(id) = state else { return Err(Errno::EINVAL) };
                let (stack, now) = self.stack();
                return Ok(stack.tcp_info(now, id)?.to_bytes().to_vec());
            }
            // packetdrill asks for these beside TCP_INFO; no script looks at them.
            (libc::SOL_TCP, libc::TCP_CC_INFO) => return Ok(Vec::new()),
            (libc::SOL_SOCKET, libc::SO_MEMINFO) => return Ok(vec![0; 36]),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }
}

/// What an option of the stack changes.
fn change(level: c_int, name: c_int, value: &[u8]) -> Answer<impl Fn(&mut SocketOptions) + use<>> {
    let text = value.to_vec();
    let number = if (level, name) == (libc::SOL_TCP, libc::TCP_CONGESTION) { 0 } else { int(value)? };
    let positive = u64::try_from(number).map_err(|_| Errno::EINVAL);
    let valid = match (level, name) {
        (libc::SOL_TCP, libc::TCP_NODELAY | libc::TCP_CORK) => true,
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => true,
        (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT) => true,
        (libc::SOL_TCP, libc::TCP_MAXSEG) => (88..=32_767).contains(&number) || number == 0,
        (libc::SOL_TCP, libc::TCP_USER_TIMEOUT) | (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => {
            positive.is_ok()
        }
        (libc::SOL_TCP, libc::TCP_CONGESTION) => algorithm(&text).is_some(),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    if !valid {
        return Err(Errno::EINVAL);
    }
    let positive = positive.unwrap_or(0);
    Ok(move |options: &mut SocketOptions| match (level, name) {
        (libc::SOL_TCP, libc::TCP_NODELAY) => options.nodelay = number != 0,
        (libc::SOL_TCP, libc::TCP_CORK) => options.cork = number != 0,
        (libc::SOL_IP, libc::IP_TOS) => options.traffic_class = number as u8,
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => options.keepalive = number != 0,
        (libc::SOL_TCP, libc::TCP_MAXSEG) => options.max_segment = (number != 0).then_some(number as u16),
        (libc::SOL_TCP, libc::TCP_USER_TIMEOUT) => {
            options.user_timeout = (number != 0).then_some(Duration::from_millis(positive));
        }
        // Linux doubles both for its own overhead, of which a buffer here has none.
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => options.send_buffer = Some(positive as u32 * 2),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => options.receive_buffer = Some(positive as u32),
        (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT) => {
            options.unsent_low_water = (number != 0).then_some(number as u32);
        }
        (libc::SOL_TCP, libc::TCP_CONGESTION) => options.algorithm = algorithm(&text),
        _ => {}
    })
}

fn algorithm(name: &[u8]) -> Option<Algorithm> {
    Algorithm::from_name(str::from_utf8(name).ok()?.trim_end_matches('\0'))
}

/// An int; options of IP may also be one byte.
fn int(value: &[u8]) -> Answer<c_int> {
    match value {
        [byte] => Ok((*byte).into()),
        _ => Ok(c_int::from_ne_bytes(*value.first_chunk().ok_or(Errno::EINVAL)?)),
    }
}

fn millis(time: Option<Duration>) -> c_int {
    time.map_or(0, |time| time.as_millis() as c_int)
}

/// A `struct timeval` as a time limit; zero means none.
fn timeout(value: &[u8]) -> Answer<Option<Duration>> {
    let (seconds, rest) = value.split_first_chunk().ok_or(Errno::EINVAL)?;
    let micros = rest.first_chunk().ok_or(Errno::EINVAL)?;
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno(libc::EDOM));
    }
    let time = Duration::new(seconds.max(0) as u64, micros as u32 * 1000);
    Ok(Some(time).filter(|time| !time.is_zero()))
}
