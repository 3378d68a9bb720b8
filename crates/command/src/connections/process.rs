//! What /proc says of a process.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

/// The processes and networks that were asked for, each looked at once.
#[derive(Debug, Default)]
pub(super) struct Known {
    processes: HashMap<u32, Option<Process>>,
    networks: HashMap<PathBuf, Rc<Network>>,
    namespaces: HashMap<u64, Rc<Numbers>>,
}

/// Numbers of processes in their own pid namespace, and in ours.
pub(super) type Numbers = HashMap<u32, u32>;

impl Known {
    /// The processes of a pid namespace that can be seen from here.
    pub(super) fn numbers(&mut self, namespace: u64) -> Rc<Numbers> {
        let look = || {
            let link = format!("pid:[{namespace}]");
            let is_member = |pid: &u32| {
                fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|found| found.as_os_str() == &*link)
            };
            let inside = |pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                Some((innermost_number(&status)?, pid))
            };
            Rc::new(pids().filter(is_member).filter_map(inside).collect())
        };
        Rc::clone(self.namespaces.entry(namespace).or_insert_with(look))
    }

    /// `None` when there is no such process.
    pub(super) fn process(&mut self, pid: u32) -> Option<&Process> {
        if pid == 0 {
            return None;
        }
        let networks = &mut self.networks;
        self.processes.entry(pid).or_insert_with(|| Process::look_at(pid, networks)).as_ref()
    }

    /// A process in our own network that has the end with these addresses.
    pub(super) fn holder(&mut self, addresses: (SocketAddr, SocketAddr)) -> Option<&Process> {
        let holds = |process: &Process| {
            process.is_in_our_network() && process.locate(None, Some(addresses)).is_some()
        };
        let pid = pids().find(|pid| self.process(*pid).is_some_and(holds))?;
        self.process(pid)
    }
}

/// All processes.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's number in its own pid namespace: the last one of `NSpid` in /proc/pid/status (proc_pid_status(5)).
fn innermost_number(status: &str) -> Option<u32> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_ascii_whitespace().last()?.parse().ok()
}

/// A live process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: Option<String>,
    /// Its mappings; unknown when it has gained or dropped privileges.
    maps: Option<String>,
    /// Its descriptors that are sockets, with their inodes.
    sockets: Vec<(u32, u64)>,
    network: Rc<Network>,
    shares_our_network: bool,
}

/// TCP sockets of a network namespace: inode and addresses.
type Network = HashMap<u64, (SocketAddr, SocketAddr)>;

/// Where a connection is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) fd: u32,
    pub(super) addresses: (SocketAddr, SocketAddr),
}

impl Process {
    fn look_at(pid: u32, networks: &mut HashMap<PathBuf, Rc<Network>>) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        if !folder.is_dir() {
            return None;
        }
        let namespace = fs::read_link(folder.join("ns/net")).ok();
        let shares_our_network = namespace.is_some() && namespace == fs::read_link("/proc/self/ns/net").ok();
        let read = || {
            let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(folder.join(name)));
            Rc::new(tables.iter().flatten().flat_map(|text| parse_network(text)).collect::<Network>())
        };
        let network = match namespace {
            Some(namespace) => Rc::clone(networks.entry(namespace).or_insert_with(read)),
            None => read(),
        };
        Some(Self {
            name: fs::read_to_string(folder.join("comm")).ok().map(|name| name.trim_end().to_owned()),
            maps: fs::read(folder.join("maps")).ok().map(|maps| String::from_utf8_lossy(&maps).into_owned()),
            sockets: sockets(&folder.join("fd")),
            network,
            shares_our_network,
        })
    }

    /// Whether it has mapped the table called `file`: its number may have been another process's before. Taken for
    /// granted where it cannot be told.
    pub(super) fn has_mapped(&self, file: &str) -> bool {
        self.maps.as_deref().is_none_or(|maps| {
            maps.lines().any(|line| {
                let path = line.strip_suffix(" (deleted)").unwrap_or(line);
                path.rsplit_once('/').is_some_and(|(_, name)| name == file)
            })
        })
    }

    /// Whether the library is loaded in it, as far as that can be told.
    pub(super) fn runs_on_sockshim(&self) -> bool {
        self.maps.as_deref().is_some_and(|maps| maps.lines().any(|line| line.contains("/libsockshim.so")))
    }

    /// Finds a connection by the descriptor number that it had, or by its addresses.
    pub(super) fn locate(
        &self,
        number: Option<u32>,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> Option<Place> {
        let place = |&(fd, inode): &(u32, u64)| {
            let found = *self.network.get(&inode)?;
            let right = addresses.is_none_or(|known| same(known, found));
            right.then_some(Place { fd, addresses: found })
        };
        let by_number = self.sockets.iter().filter(|(fd, _)| Some(*fd) == number).find_map(place);
        by_number.or_else(|| addresses.and_then(|_| self.sockets.iter().find_map(place)))
    }

    /// Whether its network is also this process's.
    pub(super) fn is_in_our_network(&self) -> bool {
        self.shares_our_network
    }
}

/// Compares without regard to IPv4 addresses in IPv6 clothes and to scopes.
fn same(a: (SocketAddr, SocketAddr), b: (SocketAddr, SocketAddr)) -> bool {
    let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    plain(a.0) == plain(b.0) && plain(a.1) == plain(b.1)
}

fn sockets(folder: &std::path::Path) -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(u32, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((fd, inode))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The lines of /proc/net/tcp or tcp6 (proc_pid_net(5)).
fn parse_network(text: &str) -> impl Iterator<Item = (u64, (SocketAddr, SocketAddr))> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let inode = fields.get(9)?.parse().ok()?;
        Some((inode, (parse_address(fields.get(1)?)?, parse_address(fields.get(2)?)?)))
    })
}

/// `0100007F:0050`: words of the address in the machine's order, each as a number; then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, piece) in bytes.chunks_exact_mut(4).enumerate() {
                piece.copy_from_slice(&word(at * 8)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9A-F: \t\nNSpid]{0,400}|\\PC{0,400}") {
            prop_assert!(parse_network(&text).count() <= text.len());
            let _ = (innermost_number(&text), parse_address(&text));
        }
    }

    #[test]
    fn the_kernels_lists_are_understood() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                    0: 0100007F:0050 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n   \
                    1: broken\n   \
                    2: 00000000000000000000000001000000:0050 0000000000000000FFFF00000100007F:0051 01 0:0 0:0 0 0 0 12 1\n";
        let found: Vec<_> = parse_network(text).collect();
        assert_eq!(
            found,
            [
                (4711, ("127.0.0.1:80".parse().unwrap(), "127.0.0.2:50000".parse().unwrap())),
                (12, ("[::1]:80".parse().unwrap(), "[::ffff:127.0.0.1]:81".parse().unwrap())),
            ]
        );
        assert!(same(found[1].1, ("[::1]:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap())));
    }

    #[test]
    fn the_last_number_is_the_processs_own() {
        assert_eq!(innermost_number("Name:\tx\nNSpid:\t4711\t12\t1\nNSpgid:\t9\n"), Some(1));
        for damaged in ["", "NSpid:", "NSpid:\t", "NSpid:\t1\tx"] {
            assert_eq!(innermost_number(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn damaged_addresses_are_refused() {
        for text in ["", ":", "0100007F", "0100007G:0050", "0100007F:99999", "ééééé:1", "0000000000000000:1"]
        {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
