//! An echo server on a TUN device, so that any program of this machine can talk to it:
//!
//! ```sh
//! ip tuntap add dev tun9 mode tun
//! ip address add 10.9.0.1/24 dev tun9
//! ip link set dev tun9 up
//! cargo run -p sockshim-tcpip --example tun -- tun9 10.9.0.2    # in another terminal: nc 10.9.0.2 7
//! ```
//!
//! It needs the right to open the device: root's, or that of the user to whom `ip tuntap ... user` gave it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::error::Error;
use sockshim_tcpip::net::{Capabilities, Medium, RxMeta};
use sockshim_tcpip::stack::{Config, Event, SocketId, Stack};
use sockshim_tcpip::time::Instant;

const PORT: u16 = 7;
const MTU: u32 = 1500;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(address)) = (arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: tun DEVICE ADDRESS    (an address of the device's network, and not the device's own)"
        );
        std::process::exit(2);
    };
    let address: Ipv4Addr = address.parse().map_err(io::Error::other)?;
    let mut device = open(&name)?;

    let mut stack = Stack::new(Config::default(), VecMemory::default(), secret()?);
    let link = stack.net().add_interface(Capabilities {
        medium: Medium::Ip,
        mtu: MTU,
        tx_checksum: false,
        gso_max: 0,
    });
    stack.net().add_address(link, IpAddr::V4(address), 24);
    stack.net().add_route(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, None, link);
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
    stack.listen(any, 128, None).map_err(io::Error::other)?;

    let start = time::Instant::now();
    let now = || Instant::from_nanos(start.elapsed().as_nanos() as u64);
    let mut echoes = HashMap::new();
    let mut frame = Vec::new();
    let mut packet = vec![0; 65_536];
    loop {
        // 1. What arrived.
        loop {
            match device.read(&mut packet) {
                Ok(count) => stack.handle_packet(now(), link, &packet[..count], RxMeta::default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // 2. What is due.
        stack.handle_timeout(now());
        // 3. What the application has to do with it. Its calls make no events of their own that it need not see.
        while let Some(event) = stack.poll_event() {
            serve(&mut stack, now(), event, &mut echoes);
        }
        // 4. What leaves, after everything that can make something leave.
        while stack.poll_transmit(now(), &mut frame).is_some() {
            match device.write(&frame) {
                // A full queue drops packets; TCP sends them again.
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        // 5. Sleep until a packet arrives, or the next timer runs out.
        wait(&device, stack.poll_timeout().map(|at| at.saturating_duration_since(now())))?;
    }
}

/// What was read from a connection and could not be written to it yet.
type Echoes = HashMap<SocketId, Vec<u8>>;

fn serve(stack: &mut Stack<VecMemory>, now: Instant, event: Event, echoes: &mut Echoes) {
    match event {
        Event::Acceptable(listener) => {
            if let Ok((id, remote)) = stack.accept(now, listener) {
                println!("{remote} is connected");
                echoes.insert(id, Vec::new());
            }
        }
        Event::Connected(id) | Event::Readable(id) | Event::Writable(id) => {
            if let Err(error) = echo(stack, now, id, echoes) {
                println!("{id:?}: {error}");
                stack.abort(now, id);
                echoes.remove(&id);
            }
        }
        Event::Failed(id, _) | Event::Closed(id) => {
            stack.close(now, id);
            echoes.remove(&id);
        }
        Event::HungUp(_) | Event::Urgent(_) => {}
    }
}

/// Writes back what can be read, as long as the other end takes it.
fn echo(stack: &mut Stack<VecMemory>, now: Instant, id: SocketId, echoes: &mut Echoes) -> Result<(), Error> {
    let Some(waiting) = echoes.get_mut(&id) else { return Ok(()) };
    let mut data = [0; 4096];
    loop {
        if waiting.is_empty() {
            match stack.recv(now, id, &mut data) {
                Ok(0) => {
                    stack.close(now, id);
                    echoes.remove(&id);
                    return Ok(());
                }
                Ok(count) => waiting.extend_from_slice(&data[..count]),
                Err(Error::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match stack.send(now, id, waiting) {
            Ok(count) => drop(waiting.drain(..count)),
            Err(Error::WouldBlock) => return Ok(()), // `Writable` comes
            Err(error) => return Err(error),
        }
    }
}

fn open(name: &str) -> io::Result<File> {
    let device =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("the name of the device is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives until the call is over.
    if unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}

/// Sleeps until the device has a packet, or for `time` at most.
fn wait(device: &File, time: Option<time::Duration>) -> io::Result<()> {
    // Rounded up: else the last millisecond is spent awake.
    let millis = time.map_or(-1, |time| time.as_micros().div_ceil(1000).min(60_000) as libc::c_int);
    let mut poll = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd`, which lives until the call is over.
    match unsafe { libc::poll(&mut poll, 1, millis) } {
        -1 if io::Error::last_os_error().kind() != ErrorKind::Interrupted => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn secret() -> io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks();
    Ok(std::array::from_fn(|at| u64::from_ne_bytes(words[at])))
}
