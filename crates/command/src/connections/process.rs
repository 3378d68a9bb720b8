//! What /proc says of a process.

use procfs::process::FDTarget;
use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
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
                let status = open(pid)?.status().ok()?;
                // The last one is its number in its own namespace.
                Some((u32::try_from(*status.nspid?.last()?).ok()?, pid))
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

/// The numbers of all processes in /proc.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn open(pid: u32) -> Option<procfs::process::Process> {
    procfs::process::Process::new(pid.try_into().ok()?).ok()
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
        let process = open(pid)?;
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let namespace = fs::read_link(folder.join("ns/net")).ok();
        let shares_our_network = namespace.is_some() && namespace == fs::read_link("/proc/self/ns/net").ok();
        let read = || {
            let entries = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
            Rc::new(entries.map(|entry| (entry.inode, (entry.local_address, entry.remote_address))).collect())
        };
        let network = match namespace {
            Some(namespace) => Rc::clone(networks.entry(namespace).or_insert_with(read)),
            None => read(),
        };
        let descriptors = process.fd().into_iter().flatten().flatten();
        let mut sockets: Vec<(u32, u64)> = descriptors
            .filter_map(|info| match info.target {
                FDTarget::Socket(inode) => Some((u32::try_from(info.fd).ok()?, inode)),
                _ => None,
            })
            .collect();
        sockets.sort_unstable();
        Some(Self {
            name: fs::read_to_string(folder.join("comm")).ok().map(|name| name.trim_end().to_owned()),
            maps: fs::read(folder.join("maps")).ok().map(|maps| String::from_utf8_lossy(&maps).into_owned()),
            sockets,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same() {
        let ends = |local: &str, peer: &str| (local.parse().unwrap(), peer.parse().unwrap());
        assert!(same(ends("[::1]:80", "[::ffff:127.0.0.1]:81"), ends("[::1]:80", "127.0.0.1:81")));
        assert!(!same(ends("[::1]:80", "127.0.0.1:81"), ends("[::1]:80", "127.0.0.1:82")));
    }
}
