//! What a script has set with sysctl(8), and the flags that packetdrill passes.
//!
//! Scripts run shell commands; sysctl sets the kernel's variables of the network namespace that packetdrill runs in. The
//! kernel makes no use of them here: they are read and given to the stack.

use core::net::{IpAddr, Ipv4Addr};
use std::fs;

/// `--so_flags=name=value,...`
#[derive(Debug)]
pub(crate) struct Flags {
    /// The address of the stack.
    pub(crate) local: IpAddr,
    /// Bytes of an IP packet on its link.
    pub(crate) mtu: u32,
}

impl Flags {
    /// Says which part it does not understand.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut flags = Self { local: Ipv4Addr::new(192, 168, 0, 1).into(), mtu: 1500 };
        for flag in text.split(',').filter(|flag| !flag.is_empty()) {
            let unknown = || format!("--so_flags: `{flag}` is neither local=ADDRESS nor mtu=BYTES");
            let (name, value) = flag.split_once('=').ok_or_else(unknown)?;
            match name {
                "local" => flags.local = value.parse().map_err(|_| unknown())?,
                "mtu" => flags.mtu = value.parse().map_err(|_| unknown())?,
                _ => return Err(unknown()),
            }
        }
        Ok(flags)
    }
}

/// The numbers of a variable under net.ipv4, empty if it cannot be read.
pub(crate) fn numbers(variable: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{variable}")).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// A variable that is one number.
pub(crate) fn number(variable: &str) -> Option<u64> {
    numbers(variable).first().copied()
}
