//! Plays scripts to the kernel: many at once in one network namespace, whose other end is a TUN device.
//!
//! # Safety
//!
//! Unsafe code calls libc's socket functions. Descriptors are owned by the `Socket` that made them, and memory is passed
//! with its length and outlives the call.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ours::header;
use crate::script::{Base, Inner, Measured, PORT, Record, Said, Script, Step, THEIR_PORT, What, pattern};

/// Time behind the last step, in which timers show.
const REST: Duration = Duration::from_millis(450);
/// Scripts that are played at the same time. With more of them a processor would not keep up.
const AT_ONCE: usize = 400;
/// A player that slept for longer, in microseconds, has spoiled what it plays.
pub(crate) const STALL: u64 = 4_000;
/// A new one begins each so often, so that their steps do not come together.
const STAGGER: Duration = Duration::from_micros(1500);

/// A network namespace of this thread, and what leaves it.
pub(crate) struct Namespace {
    device: File,
    /// Each script has addresses of its own, so that nothing that the kernel remembers of one meets another.
    next_address: u32,
}

struct Play<'a> {
    script: &'a Script,
    index: usize,
    begin: Instant,
    plan: Duration,
    next: usize,
    listener: Option<OwnedFd>,
    socket: Option<OwnedFd>,
    written: u32,
    base: Base,
    ends: (IpAddr, IpAddr),
    record: Record,
}

impl Namespace {
    /// Moves the calling thread into a namespace of its own.
    pub(crate) fn enter() -> io::Result<Self> {
        // SAFETY: unshare(2) takes no memory. Only this thread gets the namespace.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        // SAFETY: all-zero is a request without name and flags.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
        for (name, value) in SYSCTLS {
            std::fs::write(format!("/proc/sys/net/{name}"), value)
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        }
        for command in [
            "ip link set lo up",
            "ip link set tun0 mtu 1500 txqueuelen 20000 up",
            "ip route add 10.0.0.0/8 dev tun0",
            "ip route add local 172.16.0.0/12 dev lo",
        ] {
            let mut words = command.split(' ');
            let status = Command::new(words.next().expect("a word")).args(words).status()?;
            if !status.success() {
                return Err(io::Error::other(command));
            }
        }
        Ok(Self { device, next_address: 0 })
    }

    /// Plays scripts, with the times of their steps as they came about.
    pub(crate) fn play(&mut self, scripts: &[Script]) -> Vec<Record> {
        let mut records = vec![Record::default(); scripts.len()];
        let mut plays: HashMap<IpAddr, Play<'_>> = HashMap::new();
        let mut due: BinaryHeap<Reverse<(Instant, IpAddr)>> = BinaryHeap::new();
        let mut waiting = scripts.iter().enumerate();
        let mut next_begin = Instant::now();
        let mut more = true;
        let mut awake = Instant::now();
        while more || !plays.is_empty() {
            // Between these two moments nothing was read: what the kernel said may have been said at any of them.
            let stall = awake.elapsed().as_micros() as u64;
            if stall > STALL {
                plays.values_mut().for_each(|play| play.record.late = play.record.late.max(stall));
            }
            self.drain(&mut plays);
            let now = Instant::now();
            awake = now;
            if more && plays.len() < AT_ONCE && now >= next_begin {
                if let Some((index, script)) = waiting.next() {
                    let ends = self.addresses();
                    let mut play = Play::new(script, index, ends);
                    play.open();
                    due.push(Reverse((play.next_due(), ends.0)));
                    plays.insert(ends.0, play);
                    next_begin = now + STAGGER;
                } else {
                    more = false;
                }
                continue;
            }
            let first = due.peek().map(|&Reverse((at, _))| at);
            match first {
                Some(at) if at <= now => {
                    let Some(Reverse((at, them))) = due.pop() else { continue };
                    let Some(play) = plays.get_mut(&them) else { continue };
                    play.record.late = play.record.late.max((now - at).as_micros() as u64);
                    if play.step(&self.device, now) {
                        due.push(Reverse((play.next_due(), them)));
                        self.drain(&mut plays);
                    } else if let Some(play) = plays.remove(&them) {
                        let index = play.index;
                        records[index] = play.end(&self.device);
                    }
                }
                _ => {
                    let begin = (more && plays.len() < AT_ONCE).then_some(next_begin);
                    let until = first.into_iter().chain(begin).min();
                    self.wait(until.map_or(Duration::from_millis(10), |at| at - now));
                    awake =
                        Instant::now().min(until.map_or(now + Duration::from_millis(10), |at| at.max(now)));
                }
            }
        }
        records
    }

    fn addresses(&mut self) -> (IpAddr, IpAddr) {
        self.next_address += 1;
        let them = Ipv4Addr::from(0x0a00_0000 + self.next_address % 0x00ff_0000);
        let us = Ipv4Addr::from(0xac10_0000 + self.next_address % 0x000f_0000);
        (them.into(), us.into())
    }

    /// Gives what the kernel has said to the scripts that it belongs to.
    fn drain(&self, plays: &mut HashMap<IpAddr, Play<'_>>) {
        let mut packet = [0; 2048];
        while let Ok(len) = (&self.device).read(&mut packet) {
            let now = Instant::now();
            let Some(them) = packet[..len].get(16..20).filter(|_| packet[0] >> 4 == 4) else { continue };
            let them = Ipv4Addr::new(them[0], them[1], them[2], them[3]);
            if let Some(play) = plays.get_mut(&IpAddr::V4(them)) {
                let at = now.duration_since(play.begin).as_micros() as u64;
                play.record.said.extend(Said::read(&packet[..len], &mut play.base, at, play.next));
            }
        }
    }

    /// Until the device has a packet, or for that long.
    fn wait(&self, time: Duration) {
        let mut polled = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = libc::timespec { tv_sec: 0, tv_nsec: time.as_nanos().min(10_000_000) as i64 };
        // SAFETY: ppoll(2) gets one entry, and a time that lives until it returns.
        unsafe { libc::ppoll(&mut polled, 1, &time, std::ptr::null()) };
    }
}

/// What makes the kernel comparable, each below /proc/sys/net: see docs/tcpip.md.
const SYSCTLS: [(&str, &str); 10] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/tcp_no_metrics_save", "1"),
    ("ipv4/tcp_wmem", "4096 4194304 4194304"),
    ("ipv4/tcp_rmem", "4096 131072 6291456"),
    ("ipv4/tcp_comp_sack_nr", "0"),
    ("ipv4/tcp_autocorking", "0"),
    ("ipv4/tcp_retrans_collapse", "0"),
    ("ipv4/tcp_tso_win_divisor", "255"),
    ("ipv4/tcp_ecn", "2"),
];

impl<'a> Play<'a> {
    fn new(script: &'a Script, index: usize, ends: (IpAddr, IpAddr)) -> Self {
        Self {
            script,
            index,
            begin: Instant::now(),
            plan: Duration::ZERO,
            next: 0,
            listener: None,
            socket: None,
            written: 0,
            base: Base::default(),
            ends,
            record: Record::default(),
        }
    }

    fn open(&mut self) {
        let setup = self.script.setup;
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no memory, and what it makes belongs to nobody else.
        let socket =
            unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, kind, 0)).expect("a socket")) };
        let algorithm: &[u8] = if setup.cubic { b"cubic" } else { b"reno" };
        set(&socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, algorithm).expect("an algorithm of the kernel");
        if setup.nodelay {
            set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32.to_ne_bytes()).expect("TCP_NODELAY");
        }
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes()).expect("SO_REUSEADDR");
        let (local, len) = address(self.ends.1, PORT);
        // SAFETY: bind(2) reads as many bytes as an address of IPv4 has.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const local).cast(), len) })
            .expect("a free address");
        self.begin = Instant::now();
        if setup.connects {
            let (remote, len) = address(self.ends.0, THEIR_PORT);
            // SAFETY: connect(2) reads as many bytes as an address of IPv4 has.
            let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const remote).cast(), len) };
            assert_eq!((connected, errno()), (-1, libc::EINPROGRESS), "connect(2) begins");
            self.socket = Some(socket);
        } else {
            // SAFETY: listen(2) takes no memory.
            check(unsafe { libc::listen(socket.as_raw_fd(), setup.backlog as i32) }).expect("listen(2)");
            self.listener = Some(socket);
        }
    }

    fn next_due(&self) -> Instant {
        let plan = self.plan;
        match self.script.steps.get(self.next) {
            Some(step) => self.begin + plan + Duration::from_micros(step.after),
            None => self.begin + plan + REST,
        }
    }

    /// Makes the next step; false if there is none.
    fn step(&mut self, device: &File, now: Instant) -> bool {
        let Some(step) = self.script.steps.get(self.next) else { return false };
        let (inner, measured) = self.socket.as_ref().and_then(info).unzip();
        self.record.before.push(inner);
        self.record.measured.push(measured.unwrap_or_default());
        self.next += 1;
        self.plan += Duration::from_micros(step.after);
        self.record.times.push(now.duration_since(self.begin).as_micros() as u64);
        self.make(step, device);
        true
    }

    fn make(&mut self, step: &Step, mut device: &File) {
        if let What::Arrives(segment) = &step.what {
            let ends = header(self.ends.0, self.ends.1);
            let packet = segment.packet(&self.base, (ends, self.plan.as_millis() as u64));
            let written = device.write(&packet).expect("the device takes packets");
            assert_eq!(written, packet.len());
            return;
        }
        self.accept();
        if step.what == What::CloseListener {
            self.listener = None;
            return;
        }
        let Some(socket) = &self.socket else { return };
        let fd = socket.as_raw_fd();
        let result = match step.what {
            What::Send(len) => {
                let data: Vec<u8> = (1..=len as u32).map(|at| pattern(self.written + at)).collect();
                // SAFETY: send(2) reads as many bytes as there are.
                let sent = unsafe { libc::send(fd, data.as_ptr().cast(), len, libc::MSG_NOSIGNAL) } as i64;
                self.written += sent.max(0) as u32;
                sent
            }
            What::Read(len) => {
                let mut data = vec![0_u8; len];
                // SAFETY: recv(2) writes as many bytes as there is room for.
                unsafe { libc::recv(fd, data.as_mut_ptr().cast(), len, 0) as i64 }
            }
            // SAFETY: shutdown(2) takes no memory.
            What::Shutdown => unsafe { libc::shutdown(fd, libc::SHUT_WR) }.into(),
            What::Close => {
                self.socket = None;
                self.listener = None;
                return;
            }
            What::Nodelay(on) => flag(socket, libc::TCP_NODELAY, on),
            What::Cork(on) => flag(socket, libc::TCP_CORK, on),
            What::Arrives(_) | What::CloseListener => return,
        };
        let result = if result < 0 { -i64::from(errno()) } else { result };
        self.record.calls.push((self.next, result));
    }

    fn accept(&mut self) {
        let (None, Some(listener)) = (&self.socket, &self.listener) else { return };
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let null = std::ptr::null_mut();
        // SAFETY: accept4(2) need not tell the address. What it makes belongs to nobody else.
        let fd = unsafe { libc::accept4(listener.as_raw_fd(), null, null.cast(), flags) };
        if fd >= 0 {
            // SAFETY: the descriptor was just made, and belongs to nobody else.
            self.socket = Some(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }

    /// Looks at the connection, and ends it without a trace.
    fn end(mut self, mut device: &File) -> Record {
        self.record.end = self.begin.elapsed().as_micros() as u64;
        self.accept();
        if let Some(socket) = &self.socket {
            self.record.info = info(socket).map(|(inner, _)| inner);
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: a linger is two integers.
            let bytes: [u8; size_of::<libc::linger>()] = unsafe { std::mem::transmute(linger) };
            let _ = set(socket, libc::SOL_SOCKET, libc::SO_LINGER, &bytes);
        }
        // What the application has closed ends by a reset of the other end.
        if let Some(last) = self.record.said.iter().rev().find(|said| said.ack > 0) {
            use sockshim_tcpip::wire::tcp::Flags;
            let reset = crate::script::Segment::new(Flags::RST, last.ack, 0);
            let packet = reset.packet(&self.base, (header(self.ends.0, self.ends.1), 0));
            let _ = device.write(&packet);
        }
        self.record
    }
}

fn address(ip: IpAddr, port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let IpAddr::V4(ip) = ip else { unreachable!("addresses are IPv4") };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    (address, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

fn flag(socket: &OwnedFd, name: i32, on: bool) -> i64 {
    match set(socket, libc::IPPROTO_TCP, name, &i32::from(on).to_ne_bytes()) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: setsockopt(2) reads as many bytes as the value has.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    check(set).map(drop)
}

fn info(socket: &OwnedFd) -> Option<(Inner, Measured)> {
    let mut bytes = [0_u8; 280];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `len` bytes.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &mut len,
        )
    };
    check(got).ok()?;
    // As struct tcp_info of linux/tcp.h has them.
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let inner = Inner {
        state: bytes[0],
        ca_state: bytes[1],
        unacked: word(24),
        sacked: word(28),
        lost: word(32),
        retrans: word(36),
        ssthresh: word(76),
        cwnd: word(80),
        reordering: word(88),
    };
    Some((inner, Measured { rto: word(8).into(), rcv_mss: word(20) }))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
