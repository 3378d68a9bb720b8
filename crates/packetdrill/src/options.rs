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
        let defaults = crate::settings::tcp_config();
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
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => options.keepalive.into(),
            (libc::SOL_TCP, libc::TCP_KEEPIDLE) => {
                seconds(options.keepalive_time.unwrap_or(defaults.keepalive_time))
            }
            (libc::SOL_TCP, libc::TCP_KEEPINTVL) => {
                seconds(options.keepalive_interval.unwrap_or(defaults.keepalive_interval))
            }
            (libc::SOL_TCP, libc::TCP_KEEPCNT) => {
                options.keepalive_probes.unwrap_or(defaults.keepalive_probes).into()
            }
            (libc::SOL_TCP, libc::TCP_LINGER2) => match options.fin_timeout {
                Some(time) if time.is_zero() => -1,
                time => seconds(time.unwrap_or(defaults.fin_timeout)),
            },
            (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT) => retries_to_seconds(options.defer_accept),
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
            // packetdrill asks for this beside TCP_INFO; no script looks at it.
            (libc::SOL_TCP, libc::TCP_CC_INFO) => return Ok(Vec::new()),
            (libc::SOL_SOCKET, libc::SO_MEMINFO) => return self.memory(state),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }
}

impl World {
    /// SO_MEMINFO, as far as a stack has such a thing that has no overhead for each buffer: what was received and not read,
    /// and what was written and not acknowledged, with their limits.
    fn memory(&mut self, state: State) -> Answer<Vec<u8>> {
        let mut words = [0u32; 9];
        if let State::Stream(id) = state {
            let (stack, _) = self.stack();
            let (received, sent) = (stack.readable(id) as u32, stack.unacknowledged(id) as u32);
            // SK_MEMINFO_RMEM_ALLOC, RCVBUF, WMEM_ALLOC, SNDBUF, FWD_ALLOC, WMEM_QUEUED, ...
            words = [received, stack.receive_limit(id)?, sent, stack.send_limit(id)?, 0, sent, 0, 0, 0];
        }
        Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
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
        (libc::SOL_TCP, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL) => (1..=32_767).contains(&number),
        (libc::SOL_TCP, libc::TCP_KEEPCNT) => (1..=127).contains(&number),
        (libc::SOL_TCP, libc::TCP_LINGER2 | libc::TCP_DEFER_ACCEPT) => true,
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
        (libc::SOL_TCP, libc::TCP_KEEPIDLE) => options.keepalive_time = Some(Duration::from_secs(positive)),
        (libc::SOL_TCP, libc::TCP_KEEPINTVL) => {
            options.keepalive_interval = Some(Duration::from_secs(positive));
        }
        (libc::SOL_TCP, libc::TCP_KEEPCNT) => options.keepalive_probes = Some(number as u8),
        (libc::SOL_TCP, libc::TCP_LINGER2) => {
            // Zero is the system's; less than that is not at all.
            options.fin_timeout = match number {
                0 => None,
                _ => Some(Duration::from_secs(positive.min(MAX_FIN_TIMEOUT))),
            };
        }
        (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT) => options.defer_accept = seconds_to_retries(number),
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

/// TCP_FIN_TIMEOUT_MAX, in seconds.
const MAX_FIN_TIMEOUT: u64 = 120;

/// The answers to a SYN within so many seconds (Linux's `secs_to_retrans`): after 1, 2, 4 ... and at most 120 seconds.
fn seconds_to_retries(seconds: c_int) -> u8 {
    if seconds <= 0 {
        return 0;
    }
    let retries = (1..u8::MAX).find(|&retries| seconds <= retries_to_seconds(retries));
    retries.unwrap_or(u8::MAX)
}

/// The inverse: seconds for a number of retransmissions (`retrans_to_secs`).
fn retries_to_seconds(retries: u8) -> c_int {
    (0..retries).map(|retry| (1 << retry.min(7)).min(120)).sum()
}

fn seconds(time: Duration) -> c_int {
    time.as_secs() as c_int
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
