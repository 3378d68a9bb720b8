//! What a script has set with sysctl(8), and the flags that packetdrill passes.
//!
//! Scripts run shell commands; sysctl sets the kernel's variables of the network namespace that packetdrill runs in. The
//! kernel makes no use of them here: they are read and given to the stack.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::fs;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::net::{Capabilities, InterfaceId, Medium};
use sockshim_tcpip::stack::{Config, Stack};
use sockshim_tcpip::tcp;
use sockshim_tcpip::tcp::ecn::Ecn;

/// `--so_flags=name=value,...`
#[derive(Debug)]
pub(crate) struct Flags {
    /// The address of the stack.
    pub(crate) local: IpAddr,
    /// Bytes of an IP packet on its link; that of tun0 when it is not said.
    pub(crate) mtu: Option<u32>,
}

impl Flags {
    /// Says which part it does not understand.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut flags = Self { local: Ipv4Addr::new(192, 168, 0, 1).into(), mtu: None };
        for flag in text.split(',').filter(|flag| !flag.is_empty()) {
            let unknown = || format!("--so_flags: `{flag}` is neither local=ADDRESS nor mtu=BYTES");
            let (name, value) = flag.split_once('=').ok_or_else(unknown)?;
            match name {
                "local" => flags.local = value.parse().map_err(|_| unknown())?,
                "mtu" => flags.mtu = Some(value.parse().map_err(|_| unknown())?),
                _ => return Err(unknown()),
            }
        }
        Ok(flags)
    }
}

/// The link of the stack: the first after the loopback.
pub(crate) const LINK: InterfaceId = InterfaceId(1);

/// The most that the link cuts into segments itself, as Linux's tun0 does (`GSO_LEGACY_MAX_SIZE`).
const GSO_MAX: u32 = 65_536;

/// A stack as the script has set it up, with one link.
pub(crate) fn stack(flags: &Flags) -> Stack<VecMemory> {
    let config = Config { tcp: tcp_config(), ..Config::default() };
    // The same script gives the same packets.
    let mut stack = Stack::new(config, VecMemory::default(), [1, 2, 3, 4]);
    let mtu = flags.mtu.or_else(mtu_of_tun0).unwrap_or(1500);
    let link = Capabilities { medium: Medium::Ip, mtu, tx_checksum: false, gso_max: GSO_MAX };
    let net = stack.net();
    let link = net.add_interface(link);
    debug_assert_eq!(link, LINK);
    let (prefix, anywhere) = match flags.local {
        IpAddr::V4(_) => (16, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (64, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    net.add_address(link, flags.local, prefix);
    net.add_route(anywhere, 0, None, link);
    stack
}

/// The sysctls as they are now. One that cannot be read keeps Linux's default.
pub(crate) fn tcp_config() -> tcp::Config {
    let mut config = tcp::Config {
        // Linux paces with the fq scheduler only, and packetdrill's scripts do without.
        pacing: false,
        ..tcp::Config::default()
    };
    set(&mut config.timestamps, "tcp_timestamps");
    set(&mut config.ecn, "tcp_ecn");
    set(&mut config.sack, "tcp_sack");
    set(&mut config.dsack, "tcp_dsack");
    set(&mut config.window_scaling, "tcp_window_scaling");
    set(&mut config.slow_start_after_idle, "tcp_slow_start_after_idle");
    set(&mut config.syn_retries, "tcp_syn_retries");
    set(&mut config.synack_retries, "tcp_synack_retries");
    set(&mut config.retries, "tcp_retries2");
    set(&mut config.reordering, "tcp_reordering");
    set(&mut config.unsent_low_water, "tcp_notsent_lowat");
    set(&mut config.min_burst, "tcp_min_tso_segs");
    set(&mut config.max_syn_backlog, "tcp_max_syn_backlog");
    set(&mut config.keepalive_probes, "tcp_keepalive_probes");
    match numbers("tcp_syncookies").first() {
        Some(0) => config.syn_cookies = false,
        Some(2) => config.max_syn_backlog = 0, // always
        _ => {}
    }
    set_time(&mut config.max_rto, "tcp_rto_max_ms", Duration::from_millis);
    set_time(&mut config.fin_timeout, "tcp_fin_timeout", Duration::from_secs);
    set_time(&mut config.keepalive_time, "tcp_keepalive_time", Duration::from_secs);
    set_time(&mut config.keepalive_interval, "tcp_keepalive_intvl", Duration::from_secs);
    config.send_buffer = sizes("tcp_wmem").unwrap_or(config.send_buffer);
    config.receive_buffer = sizes("tcp_rmem").unwrap_or(config.receive_buffer);
    config
}

/// Takes a setting over from the variable of that name.
fn set<T: FromNumber>(setting: &mut T, variable: &str) {
    if let Some(number) = numbers(variable).first() {
        *setting = T::from_number(*number);
    }
}

/// Takes a duration over from the variable of that name.
fn set_time(setting: &mut Duration, variable: &str, unit: fn(u64) -> Duration) {
    if let Some(&number) = numbers(variable).first() {
        *setting = unit(number);
    }
}

/// The default and the largest size of a buffer.
fn sizes(variable: &str) -> Option<(u32, u32)> {
    match numbers(variable)[..] {
        [_, default, most] => Some((u32::from_number(default), u32::from_number(most))),
        _ => None,
    }
}

/// Converts a variable's number; one that is too large becomes the largest possible.
trait FromNumber {
    fn from_number(number: u64) -> Self;
}

/// The stack has no accurate ECN, for which Linux has more numbers.
impl FromNumber for Ecn {
    fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Off,
            1 => Self::Ask,
            _ => Self::Answer,
        }
    }
}

impl FromNumber for bool {
    fn from_number(number: u64) -> Self {
        number != 0
    }
}

impl FromNumber for u8 {
    fn from_number(number: u64) -> Self {
        number.try_into().unwrap_or(Self::MAX)
    }
}

impl FromNumber for u32 {
    fn from_number(number: u64) -> Self {
        number.try_into().unwrap_or(Self::MAX)
    }
}

/// What the script has set with `ip link set dev tun0 mtu`.
fn mtu_of_tun0() -> Option<u32> {
    // SAFETY: `ifreq` is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    // SAFETY: makes a descriptor, nothing else.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return None;
    }
    // SAFETY: SIOCGIFMTU reads and writes an `ifreq`, which lives until the call is over; the descriptor is closed once.
    let found = unsafe {
        let found = libc::ioctl(fd, libc::SIOCGIFMTU, &mut request) == 0;
        libc::close(fd);
        found
    };
    // SAFETY: an int, of which any bytes are a value; the call has written the MTU there.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    found.then_some(mtu as u32)
}

/// The numbers of a variable under net.ipv4, none if it cannot be read.
fn numbers(variable: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{variable}")).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}
