//! The network of a run: which congestion control its connections have.
//!
//! Some algorithms slow down even the loopback (BBR's pacing halves its speed), while sockshim's pipes have no congestion
//! control. So libc is measured with the usual algorithm, not with whatever the machine's default happens to be.
//!
//! # Safety
//!
//! The calls here take pointers to local, initialised values only.

use crate::net::check;
use libc::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;

/// Congestion controls, the preferred one first; the kernel always has the second.
const CHOICES: [&str; 2] = ["cubic", "reno"];
/// In the environment of a worker: which one it has to ask for.
pub(crate) const VARIABLE: &str = "BENCH_CONGESTION";

const DEFAULT: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// What was chosen, and who has to ask for it.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// What the report says of it.
    pub(crate) words: String,
    /// What the workers ask for at each of their sockets; `None`: it is the default of the network that they are in.
    pub(crate) by_socket: Option<&'static str>,
}

/// Chooses it for this thread and all processes that it starts: as the default of a network of their own, without
/// changing anything of the machine's, or else at each socket of the workers.
pub(crate) fn choose() -> Congestion {
    let usual = || std::fs::read_to_string(DEFAULT).unwrap_or_default().trim().to_owned();
    let available = std::fs::read_to_string(AVAILABLE).unwrap_or_default();
    let chosen =
        CHOICES.into_iter().find(|choice| available.split_whitespace().any(|known| known == *choice));
    let Some(chosen) = chosen else {
        return Congestion { words: format!("{} (the machine's default)", usual()), by_socket: None };
    };
    if own_network(chosen).is_ok() {
        let words = format!("{chosen} (the default of a network namespace of the run's own)");
        return Congestion { words, by_socket: None };
    }
    let words =
        format!("{chosen} (set at both ends; programs of others have the machine's default, {})", usual());
    Congestion { words, by_socket: Some(chosen) }
}

/// Moves this thread to a network namespace of its own with this default, or leaves it where it was.
fn own_network(congestion: &str) -> io::Result<()> {
    let before = File::open("/proc/thread-self/ns/net")?;
    // SAFETY: no pointers.
    outcome(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    let made = raise_loopback().and_then(|()| std::fs::write(DEFAULT, congestion));
    if made.is_err() {
        // SAFETY: no pointers.
        outcome(unsafe { libc::setns(before.as_raw_fd(), libc::CLONE_NEWNET) })?;
    }
    made
}

/// See netdevice(7).
fn raise_loopback() -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = outcome(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as _;
    request.ifr_name[1] = b'o' as _;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as _;
    // SAFETY: the request is initialised.
    let raised = outcome(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) });
    crate::net::close(socket);
    raised.map(drop)
}

fn outcome(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives a socket of a worker what it has to ask for, if anything.
pub(crate) fn prepare(socket: c_int) {
    static ASKED: OnceLock<Option<String>> = OnceLock::new();
    if let Some(name) = ASKED.get_or_init(|| std::env::var(VARIABLE).ok()) {
        let length = name.len() as libc::socklen_t;
        // SAFETY: pointer and length are those of a string.
        let set = unsafe {
            libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), length)
        };
        check(set as isize, "setsockopt");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a connection in the network of this thread.
    fn congestion(socket: c_int) -> String {
        let mut name = [0_u8; 16];
        let mut length = name.len() as libc::socklen_t;
        // SAFETY: room for `length` bytes.
        let got = unsafe {
            libc::getsockopt(
                socket,
                libc::IPPROTO_TCP,
                libc::TCP_CONGESTION,
                name.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        check(got as isize, "getsockopt");
        String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
    }

    #[test]
    fn what_is_chosen_holds_for_new_connections() {
        // In a thread, which alone changes its network.
        let checked = std::thread::spawn(|| {
            let chosen = choose();
            let (listener, port) = crate::net::listen(std::net::Ipv4Addr::LOCALHOST, 0);
            let client = crate::net::connect(std::net::Ipv4Addr::LOCALHOST, port);
            let server = crate::net::accept(listener);
            if chosen.by_socket.is_none() {
                for socket in [client, server] {
                    let name = congestion(socket);
                    assert!(chosen.words.starts_with(&name), "{name}, {}", chosen.words);
                }
            }
            for socket in [listener, client, server] {
                crate::net::close(socket);
            }
        });
        checked.join().unwrap();
    }
}
